//! SHELL. Sockets as a socket programmer expects them: streams and datagrams over `AF_UNIX`, `AF_INET` and `AF_INET6`.
//!
//! [`Stream`], [`Datagram`] and [`Listener`] own a socket each; what every socket can be asked and told is the trait
//! [`Socket`], which plain descriptors have too. Sockets are close-on-exec from the first instant, no write raises
//! `SIGPIPE`, a signal never shows as an error, and a path may be longer than the 107 bytes of a socket address. Peeking and
//! out-of-band bytes do not exist here.
//!
//! ```
//! use std::io::{BufRead, Write};
//! use ipc_core::transport::socket::{Half, Listener, Socket, SocketAddress, Stream};
//!
//! let listener = Listener::bind(&"127.0.0.1:0".parse::<SocketAddress>()?)?;
//! let address = listener.local_address()?;
//! let server = std::thread::spawn(move || -> std::io::Result<()> {
//!     let (connection, _peer) = listener.accept()?;
//!     for line in connection.reader().lines() {
//!         writeln!(&connection, "{}", line?.to_uppercase())?;
//!     }
//!     Ok(())
//! });
//!
//! let client = Stream::connect(&address)?;
//! client.send_all(b"over\nand out\n")?;
//! client.shutdown(Half::Write)?;
//! let lines: Vec<String> = client.reader().lines().collect::<Result<_, _>>()?;
//! assert_eq!(lines, ["OVER", "AND OUT"]);
//! # server.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # By the names you know
//!
//! | Python | C | here |
//! |---|---|---|
//! | `socket.socket(AF_INET, SOCK_STREAM)` | `socket` | [`Stream::unconnected`] |
//! | `socket.socket(AF_INET, SOCK_DGRAM)` | `socket` | [`Datagram::unbound`] |
//! | `socket.socketpair()` | `socketpair` | [`Stream::pair`], [`Datagram::pair`] |
//! | `socket.socket(fileno=fd)` | | `Stream::from(fd)`, `Datagram::from(fd)`, `Listener::from(fd)` |
//! | `create_connection(address, timeout)` | `socket`, `connect`, `poll` | [`Stream::connect`], [`Stream::connect_timeout`] |
//! | `create_server(address)` | `socket`, `bind`, `listen` | [`Listener::bind`] |
//! | `s.connect_ex(address)` | `connect`, `errno` | [`Stream::connect_ex`], [`Datagram::connect_ex`] |
//! | `s.bind(address)` | `bind` | [`Stream::bind`], [`Datagram::bind`] |
//! | `s.listen(backlog)` | `listen` | [`Stream::listen`] |
//! | `s.accept()` | `accept4` | [`Listener::accept`], [`Listener::accept_nonblocking`] |
//! | `s.send(data)` | `send` | [`Stream::send`], [`Datagram::send`] |
//! | `s.sendall(data)` | `send` in a loop | [`Stream::send_all`] |
//! | `s.sendmsg(buffers)` | `sendmsg`, `writev` | `write_vectored` of [`std::io::Write`] |
//! | `s.recv(n)` | `recv` | [`Stream::receive`], [`Datagram::receive_from`] |
//! | `s.recv_into(buffer)` | `recv` | [`Stream::receive_into`], [`Datagram::receive_from_into`] |
//! | `s.sendto(data, address)` | `sendto` | [`Datagram::send_to`] |
//! | `s.recvfrom(n)` | `recvfrom` | [`Datagram::receive_from`] |
//! | `s.recvfrom_into(buffer)` | `recvfrom` | [`Datagram::receive_from_into`] |
//! | `s.makefile("r")`, `s.makefile("w")` | `fdopen` | [`Stream::reader`], [`Stream::writer`]; a stream is itself [`Read`](std::io::Read) and [`Write`](std::io::Write) |
//! | `s.shutdown(SHUT_WR)` | `shutdown` | [`Socket::shutdown`] with [`Half`] |
//! | `s.close()` | `close` | dropping it |
//! | `s.detach()` | | `OwnedFd::from(socket)` |
//! | `s.dup()` | `fcntl(F_DUPFD_CLOEXEC)` | [`Stream::try_clone`] and the like |
//! | `s.fileno()` | the descriptor itself | [`AsFd`], [`AsRawFd`](std::os::fd::AsRawFd) |
//! | `s.getsockname()`, `s.getpeername()` | the same | [`Socket::local_address`], [`Socket::peer_address`] |
//! | `s.family`, `s.type`, `s.proto` | `SO_DOMAIN`, `SO_TYPE`, `SO_PROTOCOL` | [`Socket::family`], [`Socket::socket_type`], [`Socket::protocol`] |
//! | `s.getsockopt(level, name)` | `getsockopt` | [`Socket::option`], [`Socket::raw_option`] |
//! | `s.setsockopt(level, name, value)` | `setsockopt` | [`Socket::set_option`], [`Socket::set_raw_option`] |
//! | `s.setblocking(flag)`, `s.settimeout(t)` | `O_NONBLOCK`, `SO_RCVTIMEO` | [`Socket::set_mode`] with [`Mode`] |
//! | `s.getblocking()`, `s.gettimeout()` | the same | [`Socket::mode`] |
//! | `FIONREAD`, `SIOCOUTQ` | `ioctl` | [`Socket::receive_queue`], [`Socket::send_queue`] |
//! | `getaddrinfo` | the same | [`SocketAddress::look_up`] |
//!
//! Options by their C names are the constants of [`option`]: `socket.set_option(TCP_NODELAY, true)?`.

/// A type whose field `fd` owns the descriptor shows it, and gives it up.
macro_rules! shows_descriptor {
    ($name:ident) => {
        impl From<$name> for std::os::fd::OwnedFd {
            fn from(socket: $name) -> Self {
                socket.fd
            }
        }

        impl std::os::fd::AsFd for $name {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.fd.as_fd()
            }
        }

        impl std::os::fd::AsRawFd for $name {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                self.fd.as_raw_fd()
            }
        }
    };
}

mod address;
mod connect;
mod datagram;
mod kind;
mod listener;
pub mod option;
mod reach;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

pub use address::SocketAddress;
pub use datagram::{Arrival, Datagram};
pub use kind::{Family, Protocol, SocketType};
pub use listener::Listener;
pub use option::SocketOption;
pub use stream::{SendAllError, Stream};

use super::sys;
use option::{
    OptionValue, SO_DOMAIN, SO_ERROR, SO_PROTOCOL, SO_RCVTIMEO, SO_SNDTIMEO, SO_TYPE, SettableValue, Timeout,
};

/// How long an operation waits that cannot be done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For as long as it takes.
    Blocking,
    /// Not at all: [`WouldBlock`](io::ErrorKind::WouldBlock).
    NonBlocking,
    /// So long, then [`TimedOut`](io::ErrorKind::TimedOut). The kernel counts in ticks of some milliseconds; a signal
    /// begins the time anew.
    Timeout(Duration),
}

/// One direction of a connection, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Nothing more is received.
    Read,
    /// Nothing more is sent: the other end reads to its end, and may still answer.
    Write,
    /// Neither.
    Both,
}

/// What every socket can be asked and told. Blocks nowhere.
pub trait Socket: AsFd {
    /// The address it is bound to (getsockname(2)).
    ///
    /// # Errors
    /// `ENOTSOCK`; `Unsupported` for an address of another family than this module's.
    fn local_address(&self) -> io::Result<SocketAddress> {
        SocketAddress::from_kernel(rustix::net::getsockname(self.as_fd())?)
    }

    /// The address of the other end (getpeername(2)).
    ///
    /// # Errors
    /// `NotConnected`; else as [`local_address`](Socket::local_address).
    fn peer_address(&self) -> io::Result<SocketAddress> {
        match rustix::net::getpeername(self.as_fd())? {
            Some(address) => SocketAddress::from_kernel(address),
            None => Ok(SocketAddress::Unnamed),
        }
    }

    /// Its address family.
    ///
    /// # Errors
    /// `ENOTSOCK`.
    fn family(&self) -> io::Result<Family> {
        self.option(SO_DOMAIN)
    }

    /// Its type.
    ///
    /// # Errors
    /// `ENOTSOCK`.
    fn socket_type(&self) -> io::Result<SocketType> {
        self.option(SO_TYPE)
    }

    /// Its protocol; [`Protocol::None`] for `AF_UNIX`.
    ///
    /// # Errors
    /// `ENOTSOCK`.
    fn protocol(&self) -> io::Result<Protocol> {
        self.option(SO_PROTOCOL)
    }

    /// What an option is set to (getsockopt(2)).
    ///
    /// # Errors
    /// `ENOPROTOOPT` or `EOPNOTSUPP` when a socket of this kind has no such option.
    fn option<T: OptionValue>(&self, option: SocketOption<T>) -> io::Result<T> {
        option.get(self.as_fd())
    }

    /// Sets an option (setsockopt(2)).
    ///
    /// # Errors
    /// As [`option`](Socket::option); `EINVAL` for a value the kernel does not take, `EPERM`.
    fn set_option<T: SettableValue>(&self, option: SocketOption<T>, value: T) -> io::Result<()> {
        option.set(self.as_fd(), value)
    }

    /// An option by level and number, as the bytes the kernel gives, at most `max_bytes` of them, which are 4096 at most.
    ///
    /// # Errors
    /// As [`option`](Socket::option).
    fn raw_option(&self, level: i32, number: i32, max_bytes: usize) -> io::Result<Vec<u8>> {
        Ok(sys::socket_option(self, level, number, max_bytes)?)
    }

    /// Sets an option by level and number to the bytes of its value, at most 32 of them: enough for numbers, times and
    /// addresses. Longer structures can hold pointers, which no bytes of a caller may become.
    ///
    /// # Errors
    /// As [`set_option`](Socket::set_option); `EINVAL` for more bytes.
    fn set_raw_option(&self, level: i32, number: i32, value: &[u8]) -> io::Result<()> {
        Ok(sys::set_socket_option(self, level, number, value)?)
    }

    /// The error that the socket has met since it was last asked, for example that of a connect in non-blocking mode.
    ///
    /// # Errors
    /// `ENOTSOCK`.
    fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.option(SO_ERROR)
    }

    /// Sets how long receiving, sending, accepting and connecting wait. Holds for every duplicate of the descriptor.
    ///
    /// # Errors
    /// `InvalidInput` for a timeout of zero, which the kernel would take for none: that is [`Mode::NonBlocking`].
    fn set_mode(&self, mode: Mode) -> io::Result<()> {
        let timeout = match mode {
            Mode::Timeout(Duration::ZERO) => return Err(io::ErrorKind::InvalidInput.into()),
            Mode::Timeout(timeout) => Some(timeout),
            Mode::Blocking | Mode::NonBlocking => None,
        };
        self.set_option(SO_RCVTIMEO, Timeout(timeout))?;
        self.set_option(SO_SNDTIMEO, Timeout(timeout))?;
        Ok(rustix::io::ioctl_fionbio(self, mode == Mode::NonBlocking)?)
    }

    /// How long receiving waits, as the kernel has it: whoever set it, in whatever way.
    ///
    /// # Errors
    /// `ENOTSOCK`.
    fn mode(&self) -> io::Result<Mode> {
        if is_nonblocking(self.as_fd())? {
            return Ok(Mode::NonBlocking);
        }
        let Timeout(timeout) = self.option(SO_RCVTIMEO)?;
        Ok(timeout.map_or(Mode::Blocking, Mode::Timeout))
    }

    /// Ends one direction or both, for every duplicate of the descriptor. A listener that is shut down listens no more.
    ///
    /// # Errors
    /// `NotConnected`.
    fn shutdown(&self, half: Half) -> io::Result<()> {
        let half = match half {
            Half::Read => rustix::net::Shutdown::Read,
            Half::Write => rustix::net::Shutdown::Write,
            Half::Both => rustix::net::Shutdown::Both,
        };
        Ok(rustix::net::shutdown(self, half)?)
    }

    /// Bytes that wait to be received; on a datagram socket those of the next datagram.
    ///
    /// # Errors
    /// `EINVAL` for a listener.
    fn receive_queue(&self) -> io::Result<u64> {
        Ok(rustix::io::ioctl_fionread(self)?)
    }

    /// Bytes that were sent and not received, or for TCP not acknowledged; `AF_UNIX` counts the memory they take.
    ///
    /// # Errors
    /// `EINVAL` for a listener.
    fn send_queue(&self) -> io::Result<u64> {
        Ok(sys::send_queue(self)?)
    }
}

impl Socket for OwnedFd {}
impl Socket for BorrowedFd<'_> {}

/// Names that the kernel shows only in part, because they are longer than a socket address holds.
#[derive(Clone, Debug, Default)]
struct LongNames {
    local: Option<Arc<Path>>,
    peer: Option<Arc<Path>>,
}

impl LongNames {
    fn local(&self) -> Option<SocketAddress> {
        self.local.as_deref().map(|path| SocketAddress::Path(path.to_owned()))
    }

    fn peer(&self) -> Option<SocketAddress> {
        self.peer.as_deref().map(|path| SocketAddress::Path(path.to_owned()))
    }
}

fn is_nonblocking(socket: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(rustix::fs::fcntl_getfl(socket)?.contains(OFlags::NONBLOCK))
}

/// The result of an operation on `socket`, with a wait that came to nothing told apart from one that was not wanted.
fn settle<T>(socket: BorrowedFd<'_>, result: Result<T, Errno>) -> io::Result<T> {
    match result {
        Err(Errno::AGAIN) if !is_nonblocking(socket)? => Err(io::ErrorKind::TimedOut.into()),
        result => Ok(result?),
    }
}
