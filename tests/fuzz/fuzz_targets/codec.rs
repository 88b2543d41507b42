//! Fuzzes the decoding of each kind of envelope.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ipc_tests::fuzz_targets::codec(data));
