//! SHELL. What all sockets of the daemon share, those of the bus and those of the bridge.
//!
//! - [`accept`]: accepting connections, also when the system has no resource for another;
//! - [`readable`]: registration of descriptors with the runtime.

pub(crate) mod accept;
pub(crate) mod readable;
