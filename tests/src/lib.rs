//! Harness of the ipc message bus tests: what several of the test binaries share.

pub mod rng;
