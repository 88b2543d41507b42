//! Fuzzes the reading of rules and the answers they give.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ipc_tests::fuzz_targets::policy(data));
