//! A socket that accepts connections.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::net::SocketFlags;

use super::option::SO_REUSEADDR;
use super::reach::Reach;
use super::{Family, LongNames, Socket, SocketAddress, Stream, settle};

/// Connections that may wait to be accepted; the kernel cuts it at `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

/// A listening stream socket. Dropping it closes it; a path that it was bound to stays, as with bind(2).
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    name: Option<Arc<Path>>,
}

impl Listener {
    /// Binds and listens, in blocking mode. Over `AF_INET` the connections of a program before this one do not keep the
    /// port (`SO_REUSEADDR`); port 0 takes any free one.
    ///
    /// # Errors
    /// `AddrInUse`, also when a file is at the path; `AddrNotAvailable`, `PermissionDenied` and so on.
    pub fn bind(address: &SocketAddress) -> io::Result<Self> {
        let mut socket = Stream::unconnected(address.family())?;
        if address.family() != Family::Unix {
            socket.set_option(SO_REUSEADDR, true)?;
        }
        socket.bind(address)?;
        socket.listen(BACKLOG)
    }

    pub(in crate::transport) fn with_name(fd: OwnedFd, name: Option<Arc<Path>>) -> Self {
        Self { fd, name }
    }

    /// The next connection, in blocking mode, and who it comes from.
    ///
    /// # Errors
    /// `WouldBlock` or `TimedOut` as the mode says; `EMFILE`, `ENFILE`, `ENOBUFS` and `ENOMEM` when something has run out:
    /// the connection stays where it is. `ConnectionAborted` concerns that one connection only.
    pub fn accept(&self) -> io::Result<(Stream, SocketAddress)> {
        let accepted =
            rustix::io::retry_on_intr(|| rustix::net::acceptfrom_with(&self.fd, SocketFlags::CLOEXEC));
        let (fd, address) = settle(self.as_fd(), accepted)?;
        let address = address.map_or(Ok(SocketAddress::Unnamed), SocketAddress::from_kernel)?;
        Ok((self.stream(fd), address))
    }

    /// The same with the connection in non-blocking mode, and without the address: for event loops.
    ///
    /// # Errors
    /// As [`accept`](Listener::accept).
    pub fn accept_nonblocking(&self) -> io::Result<Stream> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accepted = rustix::io::retry_on_intr(|| rustix::net::accept_with(&self.fd, flags));
        settle(self.as_fd(), accepted).map(|fd| self.stream(fd))
    }

    fn stream(&self, fd: OwnedFd) -> Stream {
        Stream::accepted(fd, LongNames { local: self.name.clone(), peer: None })
    }

    /// A second descriptor of the same socket.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, name: self.name.clone() })
    }
}

/// Binds a socket; gives the path when the kernel does not show it.
pub(super) fn bind(socket: BorrowedFd<'_>, address: &SocketAddress) -> io::Result<Option<Arc<Path>>> {
    let reach = Reach::new_name(address)?;
    rustix::net::bind(socket, reach.address())?;
    Ok(match address {
        SocketAddress::Path(path) if reach.is_indirect() => Some(Arc::from(path.as_path())),
        _ => None,
    })
}

shows_descriptor!(Listener);

impl Socket for Listener {
    fn local_address(&self) -> io::Result<SocketAddress> {
        match &self.name {
            Some(path) => Ok(SocketAddress::Path(path.to_path_buf())),
            None => self.as_fd().local_address(),
        }
    }
}

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        Self::with_name(fd, None)
    }
}
