//! Fuzzes the parsing of names and filters.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ipc_tests::fuzz_targets::names(data));
