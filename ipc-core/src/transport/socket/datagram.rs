//! `SOCK_DGRAM`: messages that arrive whole or not at all.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::connect::connect_once;
use super::reach::Reach;
use super::{Family, LongNames, Socket, SocketAddress, settle};

/// A datagram socket. An empty datagram is a datagram like any other.
///
/// Over `AF_UNIX` the kernel loses none, but holds few (`net.unix.max_dgram_qlen`), and a full queue makes every sender
/// wait; over `AF_INET` any may be lost, doubled or overtaken. Dropping it closes it; a path that it was bound to stays.
#[derive(Debug)]
pub struct Datagram {
    fd: OwnedFd,
    names: LongNames,
}

/// What is known of a datagram that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Bytes of it that are in the buffer.
    pub bytes: usize,
    /// Bytes it had. More than are in the buffer: the rest is lost.
    pub length: usize,
    /// Who sent it; [`Unnamed`](SocketAddress::Unnamed) for an `AF_UNIX` sender that can get no answer.
    pub sender: SocketAddress,
}

impl Arrival {
    /// Whether the buffer was too small for it.
    pub fn is_truncated(&self) -> bool {
        self.bytes < self.length
    }
}

impl Datagram {
    /// A socket without an address, in blocking mode. Over `AF_INET` the first datagram it sends gives it one.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `EAFNOSUPPORT`.
    pub fn unbound(family: Family) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        Ok(Self::from(rustix::net::socket_with(family.to_kernel(), SocketType::DGRAM, flags, None)?))
    }

    /// A socket that is bound to `address`, in blocking mode.
    ///
    /// # Errors
    /// As [`unbound`](Datagram::unbound) and [`bind`](Datagram::bind).
    pub fn bound(address: &SocketAddress) -> io::Result<Self> {
        let mut socket = Self::unbound(address.family())?;
        socket.bind(address)?;
        Ok(socket)
    }

    pub(in crate::transport) fn with_name(fd: OwnedFd, name: Arc<Path>) -> Self {
        Self { fd, names: LongNames { local: Some(name), peer: None } }
    }

    /// Two sockets that are connected to each other, in blocking mode (socketpair(2)).
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC;
        let (one, other) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        Ok((Self::from(one), Self::from(other)))
    }

    /// Gives the socket an address (bind(2)).
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied` and so on.
    pub fn bind(&mut self, address: &SocketAddress) -> io::Result<()> {
        self.names.local = super::listener::bind(self.as_fd(), address)?;
        Ok(())
    }

    /// Chooses whom [`send`](Datagram::send) sends to, and refuses datagrams of others, and gives the error code as a
    /// value: 0 or the number of connect(2).
    pub fn connect_ex(&mut self, address: &SocketAddress) -> i32 {
        match connect_once(self.as_fd(), address) {
            Ok(reach) => {
                self.names.peer = match address {
                    SocketAddress::Path(path) if reach.is_indirect() => Some(Arc::from(path.as_path())),
                    _ => None,
                };
                0
            }
            Err(errno) => errno.raw_os_error(),
        }
    }

    /// Takes datagrams of everybody again.
    ///
    /// # Errors
    /// Those of connect(2) with `AF_UNSPEC`.
    pub fn disconnect(&mut self) -> io::Result<()> {
        rustix::net::connect_unspec(&self.fd)?;
        self.names.peer = None;
        Ok(())
    }

    /// Sends one datagram to the socket it is connected to.
    ///
    /// # Errors
    /// - `EMSGSIZE` when it is longer than a datagram can be: nothing was sent;
    /// - `WouldBlock` or `TimedOut`, as the mode says, while the receiver's queue is full;
    /// - `ConnectionRefused`, `NotConnected` when nobody is there (any more);
    /// - `EDESTADDRREQ` when it is not connected.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, bytes, SendFlags::NOSIGNAL));
        settle(self.as_fd(), sent).map(drop)
    }

    /// Sends one datagram to `address`.
    ///
    /// # Errors
    /// As [`send`](Datagram::send); `NotFound` for a path where nothing is.
    pub fn send_to(&self, bytes: &[u8], address: &SocketAddress) -> io::Result<()> {
        let reach = Reach::existing(address)?;
        let sent = rustix::io::retry_on_intr(|| {
            rustix::net::sendto(&self.fd, bytes, SendFlags::NOSIGNAL, reach.address())
        });
        settle(self.as_fd(), sent).map(drop)
    }

    /// Receives one datagram, at most `max_bytes` of it.
    ///
    /// # Errors
    /// `WouldBlock` or `TimedOut` as the mode says; what an earlier datagram has met, `ConnectionRefused` for example.
    pub fn receive_from(&self, max_bytes: usize) -> io::Result<(Vec<u8>, Arrival)> {
        let mut bytes = vec![0; max_bytes];
        let arrival = self.receive_from_into(&mut bytes)?;
        bytes.truncate(arrival.bytes);
        Ok((bytes, arrival))
    }

    /// The same into a buffer.
    ///
    /// # Errors
    /// As [`receive_from`](Datagram::receive_from).
    pub fn receive_from_into(&self, buffer: &mut [u8]) -> io::Result<Arrival> {
        // With this flag the kernel says how long the datagram was, whatever fitted.
        let received =
            rustix::io::retry_on_intr(|| rustix::net::recvfrom(&self.fd, &mut *buffer, RecvFlags::TRUNC));
        let (bytes, length, sender) = settle(self.as_fd(), received)?;
        let sender = sender.map_or(Ok(SocketAddress::Unnamed), SocketAddress::from_kernel)?;
        Ok(Arrival { bytes, length, sender })
    }

    /// A second descriptor of the same socket, modes and all.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, names: self.names.clone() })
    }
}

shows_descriptor!(Datagram);

impl Socket for Datagram {
    fn local_address(&self) -> io::Result<SocketAddress> {
        self.names.local().map_or_else(|| self.as_fd().local_address(), Ok)
    }

    fn peer_address(&self) -> io::Result<SocketAddress> {
        self.names.peer().map_or_else(|| self.as_fd().peer_address(), Ok)
    }
}

impl From<OwnedFd> for Datagram {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, names: LongNames::default() }
    }
}
