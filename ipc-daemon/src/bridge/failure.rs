//! What goes wrong with a bridge, in words for whoever asked for it and for the log.

use core::fmt;
use std::io;
use std::net::SocketAddr;

use ipc_core::{Error, ErrorCode};

use crate::net;

/// The port cannot be had.
pub(super) fn cannot_listen(address: SocketAddr, spec: &impl fmt::Display, error: &io::Error) -> Error {
    net::cannot_listen(address, format_args!("to expose {spec}"), error)
}

/// What may be said of a call's error in the log. The words of a service may quote what its client sent.
pub(super) fn loggable(error: &Error) -> String {
    match error.code {
        ErrorCode::Application => "the service answered with an error".to_owned(),
        _ => error.to_string(),
    }
}
