//! SHELL. Bytes over kernel sockets, and where those sockets are. Knows no frame.
//!
//! - [`Address`], [`HostPort`]: where a daemon can be reached;
//! - [`Environment`], [`runtime_dir`]: which directory holds the sockets, and which the durable state;
//! - [`directory`]: opening and creating a directory that nobody else can write to;
//! - [`socket`]: streams, datagrams and listeners of every family, for whoever programs with sockets;
//! - [`connect`], [`datagrams`]: connecting to a daemon, over whatever its address says;
//! - [`unix`]: whose daemon is trusted, and who is at the other end of a connection;
//! - [`inet`]: TCP as the bus uses it;
//! - [`listener`]: a daemon's sockets, published so that they are never reachable with wrong permissions, and its lock;
//! - [`packet_info`]: UDP datagrams with the address of this machine that each was sent to;
//! - [`verified`]: a daemon's datagrams, with the kernel's word of who sent each;
//! - [`process`]: what a daemon inherits: descriptors (`$LISTEN_FDS`, `--ready-fd`) and limits;
//! - [`clock`]: the clock of the bus.

pub mod address;
pub mod clock;
pub mod connect;
pub mod datagrams;
pub mod directory;
pub mod environment;
pub mod host_port;
pub mod inet;
pub mod listener;
pub mod packet_info;
pub mod process;
pub mod runtime_dir;
pub mod socket;
mod sys;
pub mod unix;
pub mod verified;

pub use address::Address;
pub use directory::RuntimeDir;
pub use environment::Environment;
pub use host_port::{Host, HostPort};
pub use socket::{Datagram, Listener, Socket, SocketAddress, Stream};
pub use unix::Trust;

use crate::error::{Error, ErrorCode};

/// The datagram socket in a runtime directory.
pub const DATAGRAM_SOCKET_NAME: &str = "bus.dgram";
/// The stream socket in a runtime directory.
pub const STREAM_SOCKET_NAME: &str = "bus.sock";
/// The file whose lock says that a daemon owns a runtime directory.
pub const RUNTIME_LOCK_NAME: &str = "bus.lock";
/// The file whose lock says that a daemon owns a state directory.
pub const STATE_LOCK_NAME: &str = "state.lock";

/// Longest path that fits into a socket address with its final zero, in bytes.
pub const SOCKET_PATH_MAX_BYTES: usize = 107;

/// The error for a system call that failed while `what` was tried.
fn os_error(what: impl core::fmt::Display, errno: rustix::io::Errno) -> Error {
    let code = match errno {
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => ErrorCode::PermissionDenied,
        _ => ErrorCode::Io,
    };
    Error::new(code, format!("cannot {what}: {}", reason(errno)))
}

/// The system's words for an error, without its number.
fn reason(errno: rustix::io::Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
