//! Socket options by their C names, with the type of their value (socket(7), tcp(7), ip(7), ipv6(7)).

use core::marker::PhantomData;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::libc;
use rustix::io::Errno;

use super::{Family, Protocol, SocketType};
use crate::transport::sys;

/// Most bytes that a value of a typed option has.
const VALUE_MAX_BYTES: usize = 16;

/// An option whose value is a `T`.
#[derive(Clone, Copy, Debug)]
pub struct SocketOption<T> {
    name: &'static str,
    level: i32,
    number: i32,
    value: PhantomData<T>,
}

impl<T> SocketOption<T> {
    const fn new(name: &'static str, level: i32, number: i32) -> Self {
        Self { name, level, number, value: PhantomData }
    }

    /// Its C name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its level, for the raw calls.
    pub fn level(&self) -> i32 {
        self.level
    }

    /// Its number, for the raw calls.
    pub fn number(&self) -> i32 {
        self.number
    }
}

impl<T: OptionValue> SocketOption<T> {
    pub(super) fn get(self, socket: BorrowedFd<'_>) -> io::Result<T> {
        let bytes = sys::socket_option(socket, self.level, self.number, VALUE_MAX_BYTES)?;
        Ok(T::decode(&bytes).ok_or(Errno::PROTO)?)
    }
}

impl<T: SettableValue> SocketOption<T> {
    pub(super) fn set(self, socket: BorrowedFd<'_>, value: T) -> io::Result<()> {
        Ok(sys::set_socket_option(socket, self.level, self.number, &value.encode())?)
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A value that an option can have.
pub trait OptionValue: Sized + sealed::Sealed {
    /// What the kernel's bytes say; nothing when they are no such value.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// A value that an option can be set to.
pub trait SettableValue: OptionValue {
    /// The value as the kernel takes it.
    fn encode(self) -> Vec<u8>;
}

/// How long closing waits for bytes that were not taken, in whole seconds; `None` is the default: not at all, the
/// kernel goes on sending. With zero the connection is reset instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linger(pub Option<Duration>);

/// How long an operation waits; `None` is for as long as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout(pub Option<Duration>);

/// What an option is set to, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// On or off.
    Flag(bool),
    /// A number.
    Number(u32),
}

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $value:ty = $level:ident, $number:path;)*) => {
        $($(#[$doc])* pub const $name: SocketOption<$value> =
            SocketOption::new(stringify!($name), libc::$level, $number);)*
    };
}

options! {
    /// Bytes that may wait to be received. The kernel doubles what it is given, for its own use.
    SO_RCVBUF: u32 = SOL_SOCKET, libc::SO_RCVBUF;
    /// Bytes that may wait to be sent, likewise doubled. Over `AF_UNIX` the sender's alone counts.
    SO_SNDBUF: u32 = SOL_SOCKET, libc::SO_SNDBUF;
    /// Least bytes that a receive waits for.
    SO_RCVLOWAT: u32 = SOL_SOCKET, libc::SO_RCVLOWAT;
    /// How long a receive or accept waits; [`set_mode`](super::Socket::set_mode) sets it with the next one.
    SO_RCVTIMEO: Timeout = SOL_SOCKET, libc::SO_RCVTIMEO;
    /// How long a send or connect waits.
    SO_SNDTIMEO: Timeout = SOL_SOCKET, libc::SO_SNDTIMEO;
    /// Connections of an earlier program do not keep a port from being bound.
    SO_REUSEADDR: bool = SOL_SOCKET, libc::SO_REUSEADDR;
    /// Several sockets of one user may be bound to one port and share what comes.
    SO_REUSEPORT: bool = SOL_SOCKET, libc::SO_REUSEPORT;
    /// Whether an idle connection is probed, so that a peer that is gone is noticed.
    SO_KEEPALIVE: bool = SOL_SOCKET, libc::SO_KEEPALIVE;
    /// How long closing waits.
    SO_LINGER: Linger = SOL_SOCKET, libc::SO_LINGER;
    /// Whether datagrams may go to a broadcast address.
    SO_BROADCAST: bool = SOL_SOCKET, libc::SO_BROADCAST;
    /// Whether datagrams go to hosts of the local network only.
    SO_DONTROUTE: bool = SOL_SOCKET, libc::SO_DONTROUTE;
    /// Whether what arrives over `AF_UNIX` carries its sender's process, user and group (unix(7)).
    SO_PASSCRED: bool = SOL_SOCKET, libc::SO_PASSCRED;
    /// Priority of what is sent; above 6 takes `CAP_NET_ADMIN`.
    SO_PRIORITY: u32 = SOL_SOCKET, libc::SO_PRIORITY;
    /// Whether it listens. Cannot be set.
    SO_ACCEPTCONN: bool = SOL_SOCKET, libc::SO_ACCEPTCONN;
    /// What has gone wrong since it was last asked, and forgets it. Cannot be set.
    SO_ERROR: Option<io::Error> = SOL_SOCKET, libc::SO_ERROR;
    /// The type. Cannot be set.
    SO_TYPE: SocketType = SOL_SOCKET, libc::SO_TYPE;
    /// The family. Cannot be set.
    SO_DOMAIN: Family = SOL_SOCKET, libc::SO_DOMAIN;
    /// The protocol. Cannot be set.
    SO_PROTOCOL: Protocol = SOL_SOCKET, libc::SO_PROTOCOL;
    /// Whether small pieces are sent at once instead of waiting for the answer to those before (Nagle's algorithm off).
    TCP_NODELAY: bool = IPPROTO_TCP, libc::TCP_NODELAY;
    /// Whether only full segments are sent, for at most 200 ms.
    TCP_CORK: bool = IPPROTO_TCP, libc::TCP_CORK;
    /// Whether acknowledgements are sent at once; the kernel changes it as it sees fit.
    TCP_QUICKACK: bool = IPPROTO_TCP, libc::TCP_QUICKACK;
    /// Seconds without traffic before the first keepalive probe.
    TCP_KEEPIDLE: u32 = IPPROTO_TCP, libc::TCP_KEEPIDLE;
    /// Seconds between keepalive probes.
    TCP_KEEPINTVL: u32 = IPPROTO_TCP, libc::TCP_KEEPINTVL;
    /// Keepalive probes without an answer that end the connection.
    TCP_KEEPCNT: u32 = IPPROTO_TCP, libc::TCP_KEEPCNT;
    /// Milliseconds that bytes may go unacknowledged before the connection ends; 0 leaves it to the system.
    TCP_USER_TIMEOUT: u32 = IPPROTO_TCP, libc::TCP_USER_TIMEOUT;
    /// Seconds for which a listener waits for the first bytes before it shows a connection; 0 is not at all.
    TCP_DEFER_ACCEPT: u32 = IPPROTO_TCP, libc::TCP_DEFER_ACCEPT;
    /// Most bytes in one segment.
    TCP_MAXSEG: u32 = IPPROTO_TCP, libc::TCP_MAXSEG;
    /// Routers that an IPv4 packet may pass.
    IP_TTL: u32 = IPPROTO_IP, libc::IP_TTL;
    /// Type of service of IPv4 packets.
    IP_TOS: u32 = IPPROTO_IP, libc::IP_TOS;
    /// Routers that an IPv4 multicast packet may pass.
    IP_MULTICAST_TTL: u32 = IPPROTO_IP, libc::IP_MULTICAST_TTL;
    /// Whether IPv4 multicast packets come back to this machine.
    IP_MULTICAST_LOOP: bool = IPPROTO_IP, libc::IP_MULTICAST_LOOP;
    /// Whether an IPv6 socket leaves IPv4 alone.
    IPV6_V6ONLY: bool = IPPROTO_IPV6, libc::IPV6_V6ONLY;
    /// Routers that an IPv6 packet may pass.
    IPV6_UNICAST_HOPS: u32 = IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS;
}

/// The options of this socket that say how it behaves, by name; those that sockets of its kind do not have are left out.
/// Times and flags are as the kernel has them, and nothing is changed by looking.
pub fn settings(socket: BorrowedFd<'_>) -> Vec<(&'static str, Setting)> {
    const FLAGS: [SocketOption<bool>; 8] = [
        SO_ACCEPTCONN,
        SO_REUSEADDR,
        SO_REUSEPORT,
        SO_KEEPALIVE,
        SO_BROADCAST,
        SO_PASSCRED,
        TCP_NODELAY,
        IPV6_V6ONLY,
    ];
    const NUMBERS: [SocketOption<u32>; 5] = [SO_RCVBUF, SO_SNDBUF, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT];
    let flags =
        FLAGS.iter().filter_map(|option| Some((option.name, Setting::Flag(option.get(socket).ok()?))));
    let numbers =
        NUMBERS.iter().filter_map(|option| Some((option.name, Setting::Number(option.get(socket).ok()?))));
    flags.chain(numbers).collect()
}

/// The number at the front of a value; a few options give one byte where others give four.
fn number(bytes: &[u8]) -> Option<i32> {
    match bytes.first_chunk() {
        Some(number) => Some(i32::from_ne_bytes(*number)),
        None => bytes.first().map(|byte| i32::from(*byte)),
    }
}

impl sealed::Sealed for bool {}
impl OptionValue for bool {
    fn decode(bytes: &[u8]) -> Option<Self> {
        number(bytes).map(|number| number != 0)
    }
}
impl SettableValue for bool {
    fn encode(self) -> Vec<u8> {
        i32::from(self).to_ne_bytes().to_vec()
    }
}

impl sealed::Sealed for u32 {}
impl OptionValue for u32 {
    fn decode(bytes: &[u8]) -> Option<Self> {
        number(bytes).and_then(|number| u32::try_from(number).ok())
    }
}
impl SettableValue for u32 {
    fn encode(self) -> Vec<u8> {
        self.to_ne_bytes().to_vec()
    }
}

impl sealed::Sealed for Linger {}
impl OptionValue for Linger {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let seconds = u64::try_from(number(bytes.get(4..)?)?).ok()?;
        Some(Linger((number(bytes)? != 0).then(|| Duration::from_secs(seconds))))
    }
}
impl SettableValue for Linger {
    fn encode(self) -> Vec<u8> {
        // Less than a second would be zero, and zero is something else.
        let seconds = self.0.map_or(0, |time| i32::try_from(whole_seconds(time)).unwrap_or(i32::MAX));
        [i32::from(self.0.is_some()).to_ne_bytes(), seconds.to_ne_bytes()].concat()
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

impl sealed::Sealed for Timeout {}
impl OptionValue for Timeout {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (seconds, rest) = bytes.split_first_chunk()?;
        let seconds = u64::try_from(libc::time_t::from_ne_bytes(*seconds)).ok()?;
        let micros = u64::try_from(libc::suseconds_t::from_ne_bytes(*rest.first_chunk()?)).ok()?;
        let time = Duration::from_secs(seconds) + Duration::from_micros(micros);
        Some(Timeout(Some(time).filter(|time| !time.is_zero())))
    }
}
impl SettableValue for Timeout {
    fn encode(self) -> Vec<u8> {
        // Less than a microsecond would be zero, and zero is no limit.
        let time = self.0.map_or(Duration::ZERO, |time| time.max(Duration::from_micros(1)));
        let seconds = libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX);
        let micros = libc::suseconds_t::from(time.subsec_micros() as i32);
        [&seconds.to_ne_bytes()[..], &micros.to_ne_bytes()[..]].concat()
    }
}

impl sealed::Sealed for Option<io::Error> {}
impl OptionValue for Option<io::Error> {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let number = number(bytes)?;
        Some((number != 0).then(|| io::Error::from_raw_os_error(number)))
    }
}

impl sealed::Sealed for SocketType {}
impl OptionValue for SocketType {
    fn decode(bytes: &[u8]) -> Option<Self> {
        number(bytes).map(SocketType::from_number)
    }
}

impl sealed::Sealed for Family {}
impl OptionValue for Family {
    fn decode(bytes: &[u8]) -> Option<Self> {
        number(bytes).map(Family::from_number)
    }
}

impl sealed::Sealed for Protocol {}
impl OptionValue for Protocol {
    fn decode(bytes: &[u8]) -> Option<Self> {
        number(bytes).map(Protocol::from_number)
    }
}
