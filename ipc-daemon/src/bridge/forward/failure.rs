//! What goes wrong between a forward and its server, in words for the caller: what was tried, how far it came, and why it
//! went no further.
//!
//! The server's part in it is an error of the service, `application` with one of the codes here; a caller's payload that
//! cannot be sent, a limit and a deadline have the codes that they have everywhere.

use core::cell::Cell;
use core::time::Duration;
use std::fmt;
use std::net::SocketAddr;

use ipc_core::{Error, ErrorCode, ServiceError};

/// How far an exchange has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Stage {
    /// Looks the name of the server up.
    #[default]
    Resolving,
    /// Connects to one of its addresses.
    Connecting(SocketAddr),
    /// Has sent that many bytes.
    Sending(usize),
    /// Has sent everything, and received that many bytes of the reply.
    Receiving(usize),
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Resolving => f.write_str("its name was being looked up"),
            Stage::Connecting(address) => write!(f, "{address} was being connected to"),
            Stage::Sending(bytes) => write!(f, "it had taken {bytes} bytes of the payload"),
            Stage::Receiving(bytes) => {
                write!(f, "it had taken the payload and sent {bytes} bytes of a reply")
            }
        }
    }
}

/// One exchange with a server, for what is to be said about it.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    /// The server as it is written.
    pub(super) server: &'a str,
    /// How far it has come.
    pub(super) stage: Cell<Stage>,
}

impl Attempt<'_> {
    /// The name of the server could not be looked up.
    pub(super) fn cannot_resolve(&self, reason: &str) -> Error {
        self.failed("cannot_resolve", format!("cannot look up {}: {reason}", self.server))
            .with_hint("see whether the name in the forward is right; `ipc-cli bridge list` shows it")
    }

    /// No address of the server could be reached; `tried` says for each why not.
    pub(super) fn cannot_connect(&self, tried: &[String]) -> Error {
        self.failed("cannot_connect", format!("cannot connect to {}: {}", self.server, tried.join("; ")))
            .with_hint("see whether the server runs and listens there")
    }

    /// The connection ended before the reply was complete.
    pub(super) fn connection_lost(&self, reason: &str) -> Error {
        let message = format!("{} {reason} when {}", self.server, self.stage.get());
        self.failed("connection_lost", message).with_hint("the server may have done what it was asked for")
    }

    /// The reply is larger than any payload.
    pub(super) fn reply_too_large(&self, max: usize) -> Error {
        let message = format!("the reply of {} is larger than {max} bytes", self.server);
        self.failed("reply_too_large", message)
            .with_hint("raise the limit payload_max_bytes of the daemon, or ask the server for less")
    }

    /// The time is up.
    pub(super) fn late(&self, after: Duration) -> Error {
        let after = Duration::from_millis(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        let message = format!("{} did not answer within {after:?}: {}", self.server, self.stage.get());
        Error::new(ErrorCode::DeadlineExceeded, message)
            .with_hint("the server may have done what it was asked for")
    }

    /// The payload is no line.
    pub(super) fn line_end_inside(&self) -> Error {
        let message = format!("{} takes one line, and the payload has a line end inside", self.server);
        Error::new(ErrorCode::InvalidArgument, message)
            .with_hint("send one line in each call, or have the forward use another framing")
    }

    /// The payload does not fit into a datagram.
    pub(super) fn payload_too_large(&self, bytes: usize) -> Error {
        let message = format!("a payload of {bytes} bytes does not fit into a datagram to {}", self.server);
        Error::new(ErrorCode::PayloadTooLarge, message).with_hint("a datagram carries at most 65507 bytes")
    }

    fn failed(&self, code: &str, message: String) -> Error {
        ServiceError::new(code, message).into()
    }
}
