//! A place in the network, as people write it.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::str::FromStr;

use crate::error::{Error, ErrorCode};

/// Longest name of a host, in bytes (RFC 1035).
const NAME_MAX_BYTES: usize = 253;

/// Which machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// Its number.
    Ip(IpAddr),
    /// Its name, still to be looked up: letters, digits, `-`, `_` and `.`, at most 253 bytes.
    Name(String),
}

/// A host and a port, as in `HOST:PORT`. An IPv6 address is written in brackets.
///
/// ```
/// use ipc_core::transport::HostPort;
///
/// assert_eq!("[::1]:7000".parse::<HostPort>()?.port(), 7000);
/// assert_eq!("localhost:7000".parse::<HostPort>()?.to_string(), "localhost:7000");
/// assert!("::1:7000".parse::<HostPort>().is_err());
/// # Ok::<(), ipc_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    host: Host,
    port: u16,
}

impl HostPort {
    /// A host, without brackets, and a port.
    ///
    /// # Errors
    /// `invalid_argument` when it is neither an address nor a name, or the port is 0, at which nobody can be reached.
    pub fn new(host: &str, port: u16) -> Result<Self, Error> {
        let host = match host.parse::<Ipv6Addr>() {
            Ok(address) => Ok(Host::Ip(address.into())),
            Err(_) => read_host(host),
        };
        host.and_then(|host| Self::checked(host, port)).map_err(invalid)
    }

    /// What the bytes say, or which rule they break.
    pub(super) fn read(text: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(text).map_err(|_| "a host and a port are plain ASCII".to_owned())?;
        let (host, port) = text.rsplit_once(':').ok_or("there is no port: write HOST:PORT")?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) => inner
                .parse()
                .map(|address: Ipv6Addr| Host::Ip(address.into()))
                .map_err(|_| format!("\"{}\" is no IPv6 address", inner.escape_debug())),
            None => read_host(host),
        };
        // Not what `parse` takes: it lets a plus sign pass.
        let port = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        let port = port.and_then(|port| port.parse().ok()).ok_or("the port is no number from 1 to 65535")?;
        Self::checked(host?, port)
    }

    fn checked(host: Host, port: u16) -> Result<Self, String> {
        if port == 0 { Err("nobody can be reached at port 0".to_owned()) } else { Ok(Self { host, port }) }
    }

    /// Which machine.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Which port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The socket address, unless the host has to be looked up first.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip(address) => Some(SocketAddr::new(address, self.port)),
            Host::Name(_) => None,
        }
    }
}

fn read_host(host: &str) -> Result<Host, String> {
    if let Ok(IpAddr::V4(address)) = host.parse() {
        return Ok(Host::Ip(address.into()));
    }
    let is_named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if host.contains(':') {
        return Err("an IPv6 address is written in brackets, as in [::1]:7000".to_owned());
    }
    if host.is_empty() || host.len() > NAME_MAX_BYTES || !host.bytes().all(is_named) {
        return Err(format!(
            "the host is no address and no name of 1 to {NAME_MAX_BYTES} letters, digits, -, _ and ."
        ));
    }
    // What the system's resolver would take for an address in a way of its own: `127.1`, `0x7f.1`.
    if host
        .trim_end_matches('.')
        .rsplit('.')
        .next()
        .is_some_and(|last| last.starts_with(|c: char| c.is_ascii_digit()))
    {
        return Err("the host looks like an IPv4 address and is none".to_owned());
    }
    Ok(Host::Name(host.to_owned()))
}

fn invalid(rule: impl fmt::Display) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("this is no host with a port: {rule}"))
        .with_hint("write HOST:PORT, for example 127.0.0.1:7000, [::1]:7000 or localhost:7000")
}

impl TryFrom<SocketAddr> for HostPort {
    type Error = Error;

    /// Fails for port 0.
    fn try_from(address: SocketAddr) -> Result<Self, Error> {
        Self::checked(Host::Ip(address.ip()), address.port()).map_err(invalid)
    }
}

impl FromStr for HostPort {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::read(text.as_bytes()).map_err(invalid)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(address) => SocketAddr::new(*address, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives() {
        for text in ["127.0.0.1:1", "[::1]:65535", "localhost:80", "a-b_c.example.:7"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        assert_eq!("[0:0::1]:80".parse::<HostPort>().unwrap().to_string(), "[::1]:80");
    }

    #[test]
    fn an_address_needs_no_looking_up() {
        let of = |text: &str| text.parse::<HostPort>().unwrap().socket_addr();
        assert_eq!(of("127.0.0.1:7000"), Some("127.0.0.1:7000".parse().unwrap()));
        assert_eq!(of("[::1]:7000"), Some("[::1]:7000".parse().unwrap()));
        assert_eq!(of("localhost:7000"), None);
    }

    #[test]
    fn what_is_no_place_is_refused_with_the_rule() {
        let long = format!("{}:1", "a".repeat(NAME_MAX_BYTES + 1));
        for (text, rule) in [
            ("", "no port"),
            ("localhost", "no port"),
            (":80", "no address and no name"),
            ("a b:80", "no address and no name"),
            (long.as_str(), "no address and no name"),
            ("localhost:", "no number"),
            ("localhost:+80", "no number"),
            ("localhost:65536", "no number"),
            ("localhost:0", "port 0"),
            ("::1:80", "brackets"),
            ("[::1", "brackets"),
            ("[127.0.0.1]:80", "no IPv6 address"),
            ("127.1:80", "looks like"),
            ("1.2.3.4.5:80", "looks like"),
            ("a.0x7f:80", "looks like"),
        ] {
            let error = text.parse::<HostPort>().unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument);
            assert!(error.message.contains(rule), "{text:?}: {error}");
        }
        let longest = "a".repeat(NAME_MAX_BYTES);
        assert!(HostPort::new(&longest, 1).is_ok());
        assert!(HostPort::read(b"\xff:80").is_err());
    }

    #[test]
    fn parts_and_text_are_the_same_place() {
        for (host, text) in [("::1", "[::1]:7"), ("127.0.0.1", "127.0.0.1:7"), ("here", "here:7")] {
            assert_eq!(HostPort::new(host, 7).unwrap(), text.parse().unwrap());
        }
        assert!(HostPort::new("[::1]", 7).is_err());
        assert!(HostPort::new("here", 0).is_err());
    }
}
