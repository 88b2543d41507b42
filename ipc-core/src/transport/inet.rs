//! TCP as the bus uses it: small frames at once, and peers whose machine is gone are noticed.

use core::net::SocketAddr;
use std::io;
use std::time::Duration;

use rustix::io::Errno;

use super::socket::option::{
    SO_KEEPALIVE, SO_REUSEADDR, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_NODELAY,
};
use super::socket::{Family, Listener, Socket, SocketAddress, Stream};
use super::{HostPort, os_error};
use crate::error::{Error, ErrorCode};
use crate::transport::clock;

/// A peer whose machine is gone is noticed after some two minutes.
const KEEPALIVE_AFTER_S: u32 = 60;
const KEEPALIVE_EVERY_S: u32 = 10;
const KEEPALIVE_PROBES: u32 = 6;
/// Connections that wait to be accepted; the system may allow fewer.
const BACKLOG: u32 = 1024;

/// Binds and listens at `address`, in non-blocking mode. What is accepted has keepalive, and sends small pieces at once.
///
/// # Errors
/// As [`Listener::bind`].
pub fn listen(address: SocketAddr) -> io::Result<Listener> {
    let address = SocketAddress::Inet(address);
    let mut socket = Stream::unconnected_nonblocking(address.family())?;
    // Connections of a daemon before this one do not keep the port.
    socket.set_option(SO_REUSEADDR, true)?;
    prepare(&socket)?;
    socket.bind(&address)?;
    socket.listen(BACKLOG)
}

/// Sets what a connection of the bus has; what a listener has, its connections inherit.
fn prepare(socket: &Stream) -> io::Result<()> {
    socket.set_option(TCP_NODELAY, true)?;
    socket.set_option(SO_KEEPALIVE, true)?;
    socket.set_option(TCP_KEEPIDLE, KEEPALIVE_AFTER_S)?;
    socket.set_option(TCP_KEEPINTVL, KEEPALIVE_EVERY_S)?;
    socket.set_option(TCP_KEEPCNT, KEEPALIVE_PROBES)
}

/// Connects, trying each address that a name has.
pub(super) fn connect(place: &HostPort, timeout: Duration) -> Result<Stream, Error> {
    let wrong = |error| failed(place, Some(error), timeout);
    let end = clock::now() + timeout;
    let mut last = None;
    for address in SocketAddress::look_up(place).map_err(wrong)? {
        let connected = Stream::connect_timeout(&address, end.since(clock::now()));
        match connected.and_then(|stream| prepare(&stream).map(|()| stream)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(failed(place, last.filter(|error| error.kind() != io::ErrorKind::TimedOut), timeout))
}

/// Begins to connect to an address that need not be looked up, in non-blocking mode.
pub(super) fn start(place: &HostPort) -> Result<Stream, Error> {
    let Some(address) = place.socket_addr() else {
        let message = format!("tcp:{place} has not been looked up");
        return Err(Error::new(ErrorCode::InvalidArgument, message));
    };
    let family = if address.is_ipv4() { Family::Inet } else { Family::Inet6 };
    let wrong = |error| failed(place, Some(error), Duration::ZERO);
    let mut stream = Stream::unconnected_nonblocking(family).map_err(|errno| wrong(errno.into()))?;
    prepare(&stream).map_err(wrong)?;
    match stream.connect_now(&address.into()) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(stream),
        Err(errno) => Err(wrong(errno.into())),
    }
}

/// The error for a connection that failed, or was not there within `timeout`.
pub(super) fn failed(place: &HostPort, error: Option<io::Error>, timeout: Duration) -> Error {
    let unreachable =
        |why: &str| Error::new(ErrorCode::Unreachable, format!("cannot connect to tcp:{place}: {why}"));
    let Some(error) = error else {
        return unreachable(&format!("no answer within {timeout:?}"))
            .with_hint("is that the right machine, and does a firewall let this through?");
    };
    match Errno::from_io_error(&error) {
        Some(Errno::CONNREFUSED) => unreachable("nobody listens")
            .with_hint("is ipc-daemon running with --tcp? `ipc-cli status` shows its addresses"),
        Some(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
            os_error("make a socket", errno)
        }
        Some(errno) => unreachable(&super::reason(errno)),
        None => unreachable(&error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn place(address: &SocketAddress) -> HostPort {
        address.to_string().parse().unwrap()
    }

    #[test]
    fn both_ends_have_what_the_bus_needs() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_address().unwrap();
        let client = connect(&place(&address), SECOND).unwrap();
        listener.set_mode(crate::transport::socket::Mode::Blocking).unwrap();
        let (server, _) = listener.accept().unwrap();
        for end in [client, server] {
            assert!(end.option(TCP_NODELAY).unwrap() && end.option(SO_KEEPALIVE).unwrap());
            assert_eq!(end.option(TCP_KEEPIDLE).unwrap(), KEEPALIVE_AFTER_S);
        }
    }

    #[test]
    fn a_name_is_tried_at_each_of_its_addresses() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let SocketAddress::Inet(address) = listener.local_address().unwrap() else { panic!() };
        // Where the name leads to ::1 first, nobody listens there.
        let stream = connect(&HostPort::new("localhost", address.port()).unwrap(), SECOND).unwrap();
        assert_eq!(stream.peer_address().unwrap(), SocketAddress::Inet(address));
    }

    #[test]
    fn each_failure_is_said_as_it_is() {
        let free = listen("127.0.0.1:0".parse().unwrap()).unwrap().local_address().unwrap();
        let error = connect(&place(&free), SECOND).unwrap_err();
        assert_eq!(error.code, ErrorCode::Unreachable);
        assert!(
            error.message.contains("nobody listens") && error.message.contains(&free.to_string()),
            "{error}"
        );
        let error = connect(&"name.invalid:1".parse().unwrap(), SECOND).unwrap_err();
        assert_eq!(error.code, ErrorCode::Unreachable);
        assert!(error.message.contains("name.invalid"), "{error}");
        assert_eq!(start(&"localhost:1".parse().unwrap()).unwrap_err().code, ErrorCode::InvalidArgument);
        assert!(failed(&place(&free), None, SECOND).message.contains("no answer within 1s"));
    }
}
