//! Connecting to a daemon, over whatever its address says.
//!
//! A daemon over `AF_UNIX` is spoken to only if its owner is trusted. Over TCP nobody knows who answers: on a machine with
//! several users, any of them can listen at a port that is free.

use std::time::Duration;

use super::{Address, HostPort, SocketAddress, Stream, Trust, inet, unix};
use crate::error::{Error, ErrorCode};

/// Connects to the daemon at `address`, for a caller that may block: the stream is in blocking mode.
///
/// Waits at most `timeout`: over `AF_UNIX` for room in the daemon's queue of new connections, over TCP for its machine to
/// answer; a name is looked up first, for as long as the resolver takes. Nothing has been sent or received when it returns,
/// and whose daemon it is has been checked where that can be.
///
/// # Errors
/// - `unreachable`: nothing there, nobody listens, something else is at that path, or no room or answer within `timeout`;
/// - `permission_denied`: the socket or a directory before it does not let this user through;
/// - `unauthenticated`: the daemon belongs to a user that is not trusted;
/// - `io`: this process is out of descriptors;
/// - `invalid_argument`: nothing connects to such an address.
pub fn connect(address: &Address, trust: &Trust, timeout: Duration) -> Result<Stream, Error> {
    match address {
        Address::Unix(path) => unix::connect(path, trust, timeout),
        Address::Tcp(place) => inet::connect(place, timeout),
        Address::Dgram(_) | Address::Udp(_) => Err(address.not_a_stream()),
    }
}

/// Connects to the daemon at `address` without waiting, for a caller that must not block: the stream is in non-blocking
/// mode. Over TCP the connection is under way: when the stream has room to write,
/// [`take_error`](super::Socket::take_error) has the outcome, which [`failed`] puts into words.
///
/// `None` means that the daemon's queue of new connections is full: to be tried again after a pause, say 1 ms, then longer.
///
/// # Errors
/// As [`connect`]; `invalid_argument` for a name that has not been [looked up](look_up).
pub fn try_connect(address: &Address, trust: &Trust) -> Result<Option<Stream>, Error> {
    match address {
        Address::Unix(path) => unix::try_connect(path, trust),
        Address::Tcp(place) => inet::start(place).map(Some),
        Address::Dgram(_) | Address::Udp(_) => Err(address.not_a_stream()),
    }
}

/// The same address with names looked up, in the order in which they are to be tried. Blocks for a name, possibly for
/// seconds.
///
/// # Errors
/// `unreachable` when the name has no address.
pub fn look_up(address: &Address) -> Result<Vec<Address>, Error> {
    let (place, made): (_, fn(HostPort) -> Address) = match address {
        Address::Tcp(place) => (place, Address::Tcp),
        Address::Udp(place) => (place, Address::Udp),
        Address::Unix(_) | Address::Dgram(_) => return Ok(vec![address.clone()]),
    };
    let found = SocketAddress::look_up(place).map_err(|error| {
        Error::new(ErrorCode::Unreachable, format!("cannot find {address}: {error}"))
            .with_hint("write its IP address, or see to it that the name can be looked up")
    })?;
    let places = found.into_iter().filter_map(|found| match found {
        SocketAddress::Inet(found) => HostPort::try_from(found).ok().map(made),
        SocketAddress::Unnamed | SocketAddress::Path(_) | SocketAddress::Abstract(_) => None,
    });
    Ok(places.collect())
}

/// The error for a connection to `address` that failed later, or was not there within `timeout`.
pub fn failed(address: &Address, error: Option<std::io::Error>, timeout: Duration) -> Error {
    match (address, error) {
        (Address::Unix(path), None) => unix::busy_error(path, timeout),
        (Address::Tcp(place), error) => inet::failed(place, error, timeout),
        (_, Some(error)) => {
            Error::new(ErrorCode::Unreachable, format!("cannot connect to {address}: {error}"))
        }
        (_, None) => {
            Error::new(ErrorCode::Unreachable, format!("cannot connect to {address} within {timeout:?}"))
        }
    }
}
