//! The ipc message bus daemon.

fn main() {}
