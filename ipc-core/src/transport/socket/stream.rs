//! `SOCK_STREAM`: a connection.

use core::fmt;
use std::io::{self, BufReader, BufWriter, IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType};

use super::connect::{connect_once, connect_until, wait_for};
use super::reach::Reach;
use super::{Family, Listener, LongNames, Mode, Socket, SocketAddress, settle};
use crate::time::Instant;
use crate::transport::clock;

/// A stream socket, connected or to be connected.
///
/// It is [`Read`] and [`Write`], as is a reference to it, so one thread can read while another writes. Dropping it closes it.
#[derive(Debug)]
pub struct Stream {
    fd: OwnedFd,
    names: LongNames,
}

/// Not everything was sent.
#[derive(Debug)]
pub struct SendAllError {
    /// How many bytes were sent before it failed.
    pub sent: usize,
    /// Why it failed.
    pub error: io::Error,
}

impl Stream {
    /// A socket that is not connected, in blocking mode (socket(2)).
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `EAFNOSUPPORT`.
    pub fn unconnected(family: Family) -> io::Result<Self> {
        Ok(Self::from(new_socket(family, SocketFlags::CLOEXEC)?))
    }

    /// The same in non-blocking mode.
    pub(in crate::transport) fn unconnected_nonblocking(family: Family) -> Result<Self, Errno> {
        Ok(Self::from(new_socket(family, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?))
    }

    /// Two streams that are connected to each other, in blocking mode (socketpair(2)).
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC;
        let (one, other) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        Ok((Self::from(one), Self::from(other)))
    }

    /// Connects, for as long as it takes; the stream is in blocking mode.
    ///
    /// # Errors
    /// Those of connect(2): `ConnectionRefused`, `NotFound`, `PermissionDenied` and so on.
    pub fn connect(address: &SocketAddress) -> io::Result<Self> {
        Self::connect_within(address, None)
    }

    /// The same, for at most so long.
    ///
    /// # Errors
    /// As [`connect`](Stream::connect); `TimedOut`.
    pub fn connect_timeout(address: &SocketAddress, timeout: Duration) -> io::Result<Self> {
        Self::connect_within(address, Some(timeout))
    }

    fn connect_within(address: &SocketAddress, timeout: Option<Duration>) -> io::Result<Self> {
        let end = timeout.map(|timeout| clock::now() + timeout);
        let fd = new_socket(address.family(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        let reach = connect_until(fd.as_fd(), address, end)?;
        rustix::io::ioctl_fionbio(&fd, false)?;
        let mut stream = Self::from(fd);
        stream.note_peer(address, &reach);
        Ok(stream)
    }

    /// Connects this socket, as its mode says, and gives the error code as a value: 0 when it is connected, else the
    /// number of connect(2). In non-blocking mode that is `EINPROGRESS` as a rule: when the socket has room to write,
    /// [`take_error`](Socket::take_error) has the outcome.
    pub fn connect_ex(&mut self, address: &SocketAddress) -> i32 {
        self.connect_now(address).map_or_else(Errno::raw_os_error, |()| 0)
    }

    /// The same with the code as an error.
    pub(in crate::transport) fn connect_now(&mut self, address: &SocketAddress) -> Result<(), Errno> {
        let reach = connect_once(self.as_fd(), address)?;
        self.note_peer(address, &reach);
        Ok(())
    }

    fn note_peer(&mut self, address: &SocketAddress, reach: &Reach) {
        if let (true, SocketAddress::Path(path)) = (reach.is_indirect(), address) {
            self.names.peer = Some(Arc::from(path.as_path()));
        }
    }

    /// Gives the socket an address of its own, before it connects or listens (bind(2)).
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied` and so on.
    pub fn bind(&mut self, address: &SocketAddress) -> io::Result<()> {
        self.names.local = super::listener::bind(self.as_fd(), address)?;
        Ok(())
    }

    /// Makes it a listener whose queue holds `backlog` connections; the kernel may cut that (listen(2)).
    ///
    /// # Errors
    /// `AddrInUse`; `EINVAL` when it is connected.
    pub fn listen(self, backlog: u32) -> io::Result<Listener> {
        rustix::net::listen(&self.fd, i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(Listener::with_name(self.fd, self.names.local))
    }

    /// Sends what the kernel takes, at least one byte unless there are none, and says how many that were: all of them as a
    /// rule, except in non-blocking mode. A timeout is one for each wait for room.
    ///
    /// # Errors
    /// `BrokenPipe`, `ConnectionReset`; `WouldBlock` or `TimedOut` as the mode says.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        settle(self.as_fd(), self.send_with(bytes, SendFlags::empty()))
    }

    /// Sends everything. A timeout is one for all of it.
    ///
    /// # Errors
    /// As [`send`](Stream::send), with the number of bytes that were sent before: what is left can be sent later.
    pub fn send_all(&self, bytes: &[u8]) -> Result<(), SendAllError> {
        let begun = clock::now();
        let mut sent = 0;
        // There is room, as a rule, and then the mode does not matter.
        let mut flags = SendFlags::DONTWAIT;
        while sent < bytes.len() {
            match self.send_with(&bytes[sent..], flags) {
                Ok(count) => sent += count,
                Err(Errno::AGAIN) => {
                    flags = self.wait_for_room(begun).map_err(|error| SendAllError { sent, error })?;
                }
                Err(errno) => return Err(SendAllError { sent, error: errno.into() }),
            }
        }
        Ok(())
    }

    /// Waits as the mode says, and gives the flags to send with then.
    fn wait_for_room(&self, begun: Instant) -> io::Result<SendFlags> {
        match self.mode()? {
            Mode::Blocking => Ok(SendFlags::empty()),
            Mode::NonBlocking => Err(io::ErrorKind::WouldBlock.into()),
            // Not in the call itself: there the kernel begins the time anew whenever there was some room.
            Mode::Timeout(timeout) => {
                wait_for(self, PollFlags::OUT, Some(begun + timeout)).map(|()| SendFlags::DONTWAIT)
            }
        }
    }

    fn send_with(&self, bytes: &[u8], flags: SendFlags) -> Result<usize, Errno> {
        rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, bytes, flags | SendFlags::NOSIGNAL))
    }

    /// Receives at most `max_bytes`; nothing means that the other end sends no more.
    ///
    /// # Errors
    /// `ConnectionReset`; `WouldBlock` or `TimedOut` as the mode says.
    pub fn receive(&self, max_bytes: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; max_bytes];
        let count = self.receive_into(&mut bytes)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// The same into a buffer; says how many bytes.
    ///
    /// # Errors
    /// As [`receive`](Stream::receive).
    pub fn receive_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let received =
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::empty()));
        settle(self.as_fd(), received.map(|(_, count)| count))
    }

    /// A buffered reader with lines, `for line in stream.reader().lines()`. What it has read ahead is lost with it.
    pub fn reader(&self) -> BufReader<&Self> {
        BufReader::new(self)
    }

    /// A buffered writer; flush it before it is dropped, to see whether that works.
    pub fn writer(&self) -> BufWriter<&Self> {
        BufWriter::new(self)
    }

    /// A second descriptor of the same socket, modes and all.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, names: self.names.clone() })
    }

    pub(super) fn accepted(fd: OwnedFd, names: LongNames) -> Self {
        Self { fd, names }
    }
}

fn new_socket(family: Family, flags: SocketFlags) -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(family.to_kernel(), SocketType::STREAM, flags, None)
}

shows_descriptor!(Stream);

impl Socket for Stream {
    fn local_address(&self) -> io::Result<SocketAddress> {
        self.names.local().map_or_else(|| self.as_fd().local_address(), Ok)
    }

    fn peer_address(&self) -> io::Result<SocketAddress> {
        self.names.peer().map_or_else(|| self.as_fd().peer_address(), Ok)
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive_into(buffer)
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let sent = rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.fd, pieces, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)
        });
        settle(self.as_fd(), sent)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive_into(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<OwnedFd> for Stream {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, names: LongNames::default() }
    }
}

impl From<std::os::unix::net::UnixStream> for Stream {
    fn from(stream: std::os::unix::net::UnixStream) -> Self {
        Self::from(OwnedFd::from(stream))
    }
}

impl From<std::net::TcpStream> for Stream {
    fn from(stream: std::net::TcpStream) -> Self {
        Self::from(OwnedFd::from(stream))
    }
}

impl fmt::Display for SendAllError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} bytes were sent", self.error, self.sent)
    }
}

impl std::error::Error for SendAllError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<SendAllError> for io::Error {
    fn from(error: SendAllError) -> Self {
        error.error
    }
}
