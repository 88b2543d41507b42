//! Harness of the ipc message bus tests: what several of the test binaries share.

pub mod allocations;
pub mod daemon;
pub mod disk;
pub mod exposed;
pub mod fuzz_targets;
pub mod generator;
pub mod golden;
pub mod golden_datagrams;
pub mod histories;
pub mod lossy;
pub mod memory_bus;
pub mod model;
pub mod pace;
pub mod programs;
pub mod raw;
pub mod rng;
pub mod servers;
pub mod services;
pub mod simulation;
pub mod transcript;
pub mod users;
pub mod world;
