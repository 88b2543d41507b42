//! Where a daemon can be reached.

use core::fmt;
use core::str::FromStr;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::runtime_dir;
use super::unix::Trust;
use super::{Environment, HostPort};
use crate::error::{Error, ErrorCode};

/// Where a daemon can be reached. As text: `unix:PATH`, where PATH is the daemon's stream socket, `dgram:PATH`, its datagram
/// socket, `tcp:HOST:PORT` or `udp:HOST:PORT`.
///
/// ```
/// use ipc_core::Address;
///
/// let address: Address = "unix:/run/ipc/bus.sock".parse()?;
/// assert_eq!(address.to_string(), "unix:/run/ipc/bus.sock");
/// assert_eq!(Address::parse("tcp:[::1]:7000")?.path(), None);
/// assert!("carrier-pigeon:coo".parse::<Address>().is_err());
/// # Ok::<(), ipc_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// `unix:PATH`: a stream socket in the file system. The path may be longer than a socket address holds.
    Unix(PathBuf),
    /// `dgram:PATH`: a datagram socket in the file system, likewise.
    Dgram(PathBuf),
    /// `tcp:HOST:PORT`.
    Tcp(HostPort),
    /// `udp:HOST:PORT`.
    Udp(HostPort),
}

/// How the text of an address begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Unix,
    Dgram,
    Tcp,
    Udp,
}

impl Scheme {
    const ALL: [Scheme; 4] = [Scheme::Unix, Scheme::Dgram, Scheme::Tcp, Scheme::Udp];

    fn name(self) -> &'static str {
        match self {
            Scheme::Unix => "unix",
            Scheme::Dgram => "dgram",
            Scheme::Tcp => "tcp",
            Scheme::Udp => "udp",
        }
    }

    fn form(self) -> &'static str {
        match self {
            Scheme::Unix => "unix:PATH",
            Scheme::Dgram => "dgram:PATH",
            Scheme::Tcp => "tcp:HOST:PORT",
            Scheme::Udp => "udp:HOST:PORT",
        }
    }

    /// All forms, for people.
    fn forms() -> String {
        let [first, second, third, last] = Self::ALL.map(Scheme::form);
        format!("{first}, {second}, {third} or {last}")
    }
}

impl Address {
    /// Parses an address.
    ///
    /// # Errors
    /// `invalid_argument`, naming the forms that are understood.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::parse_os(OsStr::new(text))
    }

    /// The same for text of the system, which need not be UTF-8.
    ///
    /// # Errors
    /// As [`parse`](Address::parse).
    pub fn parse_os(text: &OsStr) -> Result<Self, Error> {
        let address = Self::read(text.as_bytes());
        address.map_err(|rule| {
            let shown: String =
                text.to_string_lossy().chars().take(120).flat_map(char::escape_debug).collect();
            Error::new(ErrorCode::InvalidArgument, format!("\"{shown}\" is not an address: {rule}"))
                .with_hint(format!("write {}, for example unix:/run/ipc/bus.sock", Scheme::forms()))
        })
    }

    fn read(text: &[u8]) -> Result<Self, String> {
        let scheme = Scheme::ALL.into_iter().find_map(|scheme| {
            let rest = text.strip_prefix(scheme.name().as_bytes())?;
            Some((scheme, rest.strip_prefix(b":")?))
        });
        match scheme {
            Some((Scheme::Unix, path)) => read_path(path).map(Address::Unix),
            Some((Scheme::Dgram, path)) => read_path(path).map(Address::Dgram),
            Some((Scheme::Tcp, place)) => HostPort::read(place).map(Address::Tcp),
            Some((Scheme::Udp, place)) => HostPort::read(place).map(Address::Udp),
            None => Err(unsupported()),
        }
    }

    fn scheme(&self) -> Scheme {
        match self {
            Address::Unix(_) => Scheme::Unix,
            Address::Dgram(_) => Scheme::Dgram,
            Address::Tcp(_) => Scheme::Tcp,
            Address::Udp(_) => Scheme::Udp,
        }
    }

    /// The address of the daemon that the environment leads to: `$IPC_ADDRESS`, else the first runtime directory of the
    /// documented order that is safe and holds a socket. Looks at the file system, connects to nothing.
    ///
    /// # Errors
    /// `unreachable` with every place that was looked at, `unsafe_path` when `$IPC_RUNTIME_DIR` is not safe,
    /// `invalid_argument` when `$IPC_ADDRESS` is not an address.
    pub fn discover() -> Result<Self, Error> {
        runtime_dir::find_socket(&Environment::read(), None, &Trust::default())
    }

    /// The path of the socket, if it is one in the file system.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Address::Unix(path) | Address::Dgram(path) => Some(path),
            Address::Tcp(_) | Address::Udp(_) => None,
        }
    }

    /// The error for an address that no stream connects to.
    pub(super) fn not_a_stream(&self) -> Error {
        Error::new(ErrorCode::InvalidArgument, format!("cannot connect to {self}: {}", unsupported()))
    }
}

fn unsupported() -> String {
    format!("only {} is supported", Scheme::forms())
}

fn read_path(path: &[u8]) -> Result<PathBuf, String> {
    if path.is_empty() {
        return Err("the path is empty".to_owned());
    }
    if path.contains(&0) {
        return Err("a path holds no zero byte".to_owned());
    }
    Ok(PathBuf::from(OsStr::from_bytes(path)))
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme().name();
        match self {
            Address::Unix(path) | Address::Dgram(path) => write!(f, "{scheme}:{}", path.display()),
            Address::Tcp(place) | Address::Udp(place) => write!(f, "{scheme}:{place}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::connect;
    use std::time::Duration;

    #[test]
    fn text_survives() {
        for text in
            ["unix:/run/ipc/bus.sock", "unix:relative/bus.sock", "unix:/with:colon", "tcp:localhost:7000"]
        {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_schemes_are_refused_with_what_is_supported() {
        for text in ["", "unix:", "unix", "tcp:127.0.0.1", "dgram:", "/run/ipc/bus.sock", "unix:a\0b"] {
            let error = Address::parse(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{text:?}");
            assert!(error.hint().unwrap().contains("unix:PATH"), "{text:?}");
            assert!(!error.message.contains('\0'));
        }
    }

    #[test]
    fn every_form_can_be_read_and_shown() {
        let forms = [
            "unix:/run/bus.sock",
            "dgram:/run/bus.dgram",
            "tcp:127.0.0.1:7000",
            "tcp:[::1]:7000",
            "udp:localhost:53",
        ];
        for text in forms {
            assert_eq!(Address::read(text.as_bytes()).unwrap().to_string(), text);
        }
        let host = HostPort::new("127.0.0.1", 7000).unwrap();
        assert_eq!(Address::read(b"udp:127.0.0.1:7000"), Ok(Address::Udp(host)));
        assert_eq!(Address::read(b"dgram:/x"), Ok(Address::Dgram(PathBuf::from("/x"))));
        for text in ["dgram:", "tcp:", "tcp:localhost", "udp:127.0.0.1:0", "tcp", "TCP:localhost:1"] {
            assert!(Address::read(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn no_stream_connects_to_a_datagram_socket() {
        for text in ["dgram:/run/bus.dgram", "udp:127.0.0.1:1"] {
            let address = Address::parse(text).unwrap();
            let error = connect::connect(&address, &Trust::default(), Duration::from_secs(1)).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument);
            assert!(error.message.contains(text), "{error}");
        }
    }

    #[test]
    fn a_path_need_not_be_utf8() {
        let address = Address::parse_os(OsStr::from_bytes(b"unix:/\xff")).unwrap();
        assert_eq!(address.path().unwrap().as_os_str().as_bytes(), b"/\xff");
    }
}
