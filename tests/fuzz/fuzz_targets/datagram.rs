//! Fuzzes what is received as a datagram, at both ends.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ipc_tests::fuzz_targets::datagram(data));
