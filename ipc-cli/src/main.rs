//! The tool people and scripts use on the ipc message bus.

fn main() {}
