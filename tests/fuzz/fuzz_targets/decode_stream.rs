//! Fuzzes the decoder of a client's stream.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ipc_tests::fuzz_targets::decode_stream(data));
