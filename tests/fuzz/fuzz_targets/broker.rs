//! Fuzzes the broker with a stranger on the bus.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ipc_tests::fuzz_targets::broker(data));
