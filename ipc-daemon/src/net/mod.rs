//! SHELL. What all sockets of the daemon share, those of the bus and those of the bridge.
//!
//! - [`accept`]: accepting connections, also when the system has no resource for another;
//! - [`readable`]: registration of descriptors with the runtime.

pub(crate) mod accept;
pub(crate) mod readable;

use core::fmt;
use std::io;
use std::net::SocketAddr;

use ipc_core::identity::Identity;
use ipc_core::{Error, ErrorCode};

/// Who comes over the network and has proved nothing, whatever the address.
pub(crate) fn anonymous(address: &impl fmt::Display) -> Identity {
    Identity::Remote { principal: "anonymous".to_owned(), address: address.to_string() }
}

/// Who answers for what a peer does: its user, or its principal, whatever the process or address.
pub(crate) fn payer(identity: &Identity) -> String {
    match identity {
        Identity::Local { uid, .. } => format!("uid:{uid}"),
        Identity::Remote { principal, .. } => format!("remote:{principal}"),
    }
}

/// The error for a port that the system does not give.
pub(crate) fn cannot_listen(address: SocketAddr, what_for: impl fmt::Display, error: &io::Error) -> Error {
    let (code, hint) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            ErrorCode::Io,
            "another program listens there: stop it, or write another port; 0 takes any free one",
        ),
        io::ErrorKind::AddrNotAvailable => {
            (ErrorCode::Io, "write an address of this machine, 127.0.0.1 for this machine alone")
        }
        io::ErrorKind::PermissionDenied => {
            (ErrorCode::PermissionDenied, "ports below 1024 need CAP_NET_BIND_SERVICE: write a higher one")
        }
        _ => (ErrorCode::Io, "see whether this machine has that kind of address"),
    };
    Error::new(code, format!("cannot listen on {address} {what_for}: {error}")).with_hint(hint)
}
