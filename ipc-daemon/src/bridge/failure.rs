//! What goes wrong with a bridge, in words for whoever asked for it and for the log.

use core::fmt;
use std::io;
use std::net::SocketAddr;

use ipc_core::{Error, ErrorCode};

/// The port cannot be had.
pub(super) fn cannot_listen(address: SocketAddr, spec: &impl fmt::Display, error: &io::Error) -> Error {
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
    Error::new(code, format!("cannot listen on {address} to expose {spec}: {error}")).with_hint(hint)
}

/// What may be said of a call's error in the log. The words of a service may quote what its client sent.
pub(super) fn loggable(error: &Error) -> String {
    match error.code {
        ErrorCode::Application => "the service answered with an error".to_owned(),
        _ => error.to_string(),
    }
}
