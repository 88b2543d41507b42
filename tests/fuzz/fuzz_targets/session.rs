//! Fuzzes a session whose daemon lies.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ipc_tests::fuzz_targets::session(data));
