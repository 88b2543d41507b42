//! SHELL. What all sockets of the daemon share, those of the bus and those of the bridge.
//!
//! - [`accept`]: accepting connections, also when the system has no resource for another;
//! - [`readable`]: registration of descriptors with the runtime.

pub(crate) mod accept;
pub(crate) mod readable;

use core::fmt;

use ipc_core::identity::Identity;

/// Who comes over the network and has proved nothing, whatever the address.
pub(crate) fn anonymous(address: &impl fmt::Display) -> Identity {
    Identity::Remote { principal: "anonymous".to_owned(), address: address.to_string() }
}
