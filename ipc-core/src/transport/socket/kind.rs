//! What kind of socket it is.

use core::fmt;

use nix::libc;
use rustix::net::AddressFamily;

/// An address family. Shows as C and Python name it: `AF_UNIX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// `AF_UNIX`.
    Unix,
    /// `AF_INET`: IPv4.
    Inet,
    /// `AF_INET6`: IPv6.
    Inet6,
    /// Another one, by its number.
    Other(i32),
}

impl Family {
    pub(super) fn from_number(number: i32) -> Self {
        match number {
            libc::AF_UNIX => Family::Unix,
            libc::AF_INET => Family::Inet,
            libc::AF_INET6 => Family::Inet6,
            other => Family::Other(other),
        }
    }

    pub(super) fn to_kernel(self) -> AddressFamily {
        match self {
            Family::Unix => AddressFamily::UNIX,
            Family::Inet => AddressFamily::INET,
            Family::Inet6 => AddressFamily::INET6,
            Family::Other(number) => AddressFamily::from_raw(u16::try_from(number).unwrap_or(u16::MAX)),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Family::Unix => f.write_str("AF_UNIX"),
            Family::Inet => f.write_str("AF_INET"),
            Family::Inet6 => f.write_str("AF_INET6"),
            Family::Other(number) => write!(f, "AF_{number}"),
        }
    }
}

/// A socket type. Shows as C and Python name it: `SOCK_STREAM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketType {
    /// `SOCK_STREAM`.
    Stream,
    /// `SOCK_DGRAM`.
    Datagram,
    /// Another one, by its number.
    Other(i32),
}

impl SocketType {
    pub(super) fn from_number(number: i32) -> Self {
        match number {
            libc::SOCK_STREAM => SocketType::Stream,
            libc::SOCK_DGRAM => SocketType::Datagram,
            other => SocketType::Other(other),
        }
    }
}

impl fmt::Display for SocketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketType::Stream => f.write_str("SOCK_STREAM"),
            SocketType::Datagram => f.write_str("SOCK_DGRAM"),
            SocketType::Other(number) => write!(f, "SOCK_{number}"),
        }
    }
}

/// A protocol. Shows as C and Python name it: `IPPROTO_TCP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// 0: the family has only one for each type.
    None,
    /// `IPPROTO_TCP`.
    Tcp,
    /// `IPPROTO_UDP`.
    Udp,
    /// Another one, by its number.
    Other(i32),
}

impl Protocol {
    pub(super) fn from_number(number: i32) -> Self {
        match number {
            0 => Protocol::None,
            libc::IPPROTO_TCP => Protocol::Tcp,
            libc::IPPROTO_UDP => Protocol::Udp,
            other => Protocol::Other(other),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Protocol::None => f.write_str("0"),
            Protocol::Tcp => f.write_str("IPPROTO_TCP"),
            Protocol::Udp => f.write_str("IPPROTO_UDP"),
            Protocol::Other(number) => write!(f, "IPPROTO_{number}"),
        }
    }
}
