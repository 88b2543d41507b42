//! How a forward is written: `SERVICE=tcp:HOST:PORT[,framing=chunk|line|until-close]` or `SERVICE=udp:HOST:PORT`.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

use ipc_core::name::ServiceName;
use ipc_core::{Error, ErrorCode};

use super::{each_option, quoted, written_as_text};

const FORM: &str = "write SERVICE=tcp:HOST:PORT[,framing=chunk|line|until-close] or SERVICE=udp:HOST:PORT, \
                    as in demo.title=tcp:127.0.0.1:9000,framing=line";

/// The method that a forward offers.
pub(crate) const METHOD: &str = "send";

/// Longest name of a host, in bytes (RFC 1035, section 2.3.4).
const HOST_NAME_MAX_BYTES: usize = 253;

/// What is one reply over a TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Framing {
    /// What the next read returns.
    #[default]
    Chunk,
    /// One line, for one line: LF behind the payload, and no LF or CRLF in the reply.
    Line,
    /// All until the server closes; the payload ends with a half-close.
    UntilClose,
}

impl Framing {
    /// The word for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Framing::Chunk => "chunk",
            Framing::Line => "line",
            Framing::UntilClose => "until-close",
        }
    }
}

/// How the server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Over connections.
    Tcp(Framing),
    /// One datagram out, one datagram back.
    Udp,
}

/// Where a server is: an IP address, or a name to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// An address.
    Address(IpAddr),
    /// A name.
    Name(String),
}

/// A server of the network and the service that it appears as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForwardSpec {
    /// The service.
    pub(crate) service: ServiceName,
    /// How the server is spoken to.
    pub(crate) protocol: Protocol,
    /// Its machine.
    pub(crate) host: Host,
    /// Its port.
    pub(crate) port: u16,
}

impl ForwardSpec {
    /// Reads a specification.
    ///
    /// # Errors
    /// `invalid_argument`, or `unsupported` for what does not exist in this version. The hint says what to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let (service, rest) = text.split_once('=').ok_or_else(|| {
            invalid(text, "there is no \"=\" between the service and the server").with_hint(FORM)
        })?;
        let service =
            ServiceName::parse(service).map_err(|error| invalid(text, &error.message).with_hint(FORM))?;
        if service.is_reserved() {
            let what = format!("{service} belongs to the daemon");
            return Err(
                invalid(text, &what).with_hint("give the service a name that does not begin with ipc.")
            );
        }
        let mut parts = rest.split(',');
        let (mut protocol, host, port) = parse_server(text, parts.next().unwrap_or_default())?;
        let mut has_framing = false;
        each_option(
            parts,
            FORM,
            |what| invalid(text, what),
            |name, value| match (&mut protocol, name) {
                (Protocol::Tcp(framing), "framing") => {
                    *framing = parse_framing(text, value)?;
                    Ok(core::mem::replace(&mut has_framing, true))
                }
                (Protocol::Tcp(_), _) => {
                    let what = format!("there is no option {}", quoted(name));
                    Err(invalid(text, &what).with_hint("the only option is framing"))
                }
                (Protocol::Udp, _) => {
                    let what = format!("a UDP server has no option {}", quoted(name));
                    Err(invalid(text, &what).with_hint("one datagram is one payload: leave it out"))
                }
            },
        )?;
        Ok(Self { service, protocol, host, port })
    }

    /// Host and port of the server.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The server with its protocol, as it is written.
    pub(crate) fn server(&self) -> String {
        match self.protocol {
            Protocol::Tcp(_) => format!("tcp:{}", self.address()),
            Protocol::Udp => format!("udp:{}", self.address()),
        }
    }

    /// What is one reply, in a word.
    pub(crate) const fn framing_name(&self) -> &'static str {
        match self.protocol {
            Protocol::Tcp(framing) => framing.name(),
            Protocol::Udp => "datagram",
        }
    }
}

fn parse_server(text: &str, server: &str) -> Result<(Protocol, Host, u16), Error> {
    let Some((scheme, address)) = server.split_once(':') else {
        return Err(invalid(text, &format!("{} is no server", quoted(server))).with_hint(FORM));
    };
    let protocol = match scheme {
        "tcp" => Protocol::Tcp(Framing::default()),
        "udp" => Protocol::Udp,
        _ => {
            let what = format!("the server begins with {}, not with tcp: or udp:", quoted(scheme));
            return Err(invalid(text, &what).with_hint(FORM));
        }
    };
    let Some((host, port)) = address.rsplit_once(':') else {
        let what = format!("{} has no port", quoted(address));
        return Err(invalid(text, &what).with_hint(FORM));
    };
    let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| {
        invalid(text, &format!("{} is no port", quoted(port))).with_hint("write a number from 1 to 65535")
    })?;
    Ok((protocol, parse_host(text, host)?, port))
}

fn parse_host(text: &str, host: &str) -> Result<Host, Error> {
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if let Some(inside) = bracketed {
        return inside.parse::<Ipv6Addr>().map(|address| Host::Address(address.into())).map_err(|_| {
            let what = format!("{} is no IPv6 address", quoted(inside));
            invalid(text, &what).with_hint("write it as in tcp:[::1]:9000")
        });
    }
    if host.contains(':') {
        let what = format!("{} is no host", quoted(host));
        return Err(
            invalid(text, &what).with_hint("an IPv6 address stands in brackets, as in tcp:[::1]:9000")
        );
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(Host::Address(address));
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if host.is_empty()
        || host.len() > HOST_NAME_MAX_BYTES
        || host.starts_with('-')
        || !host.bytes().all(is_name)
    {
        let what = format!("{} is no host", quoted(host));
        return Err(invalid(text, &what).with_hint("write the name of a machine or its IP address"));
    }
    Ok(Host::Name(host.to_owned()))
}

fn parse_framing(text: &str, value: &str) -> Result<Framing, Error> {
    match value {
        "chunk" => Ok(Framing::Chunk),
        "line" => Ok(Framing::Line),
        "until-close" => Ok(Framing::UntilClose),
        _ => {
            let what = format!("there is no framing {}", quoted(value));
            Err(invalid(text, &what).with_hint("write framing=chunk, framing=line or framing=until-close"))
        }
    }
}

fn invalid(text: &str, what: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("cannot forward {}: {what}", quoted(text)))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Host::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for ForwardSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.service, self.server())?;
        match self.protocol {
            Protocol::Tcp(framing) if framing != Framing::default() => {
                write!(f, ",framing={}", framing.name())
            }
            Protocol::Tcp(_) | Protocol::Udp => Ok(()),
        }
    }
}

written_as_text!(ForwardSpec);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back_the_same() {
        for text in [
            "demo.title=tcp:127.0.0.1:7000",
            "a=tcp:[::1]:1,framing=line",
            "a.b=tcp:title.example.org:65535,framing=until-close",
            "a.b=udp:localhost:53",
            "a.b=udp:[fe80::1]:53",
        ] {
            let spec = ForwardSpec::parse(text).unwrap();
            assert_eq!(spec.to_string(), text);
        }
        let spec = ForwardSpec::parse("a=tcp:LocalHost:9,framing=chunk").unwrap();
        assert_eq!(
            (spec.protocol, spec.host),
            (Protocol::Tcp(Framing::Chunk), Host::Name("LocalHost".into()))
        );
    }

    #[test]
    fn mistakes_are_named_with_what_to_write_instead() {
        let long = format!("a=tcp:{}:1", "x".repeat(254));
        for (text, message, hint) in [
            ("", "no \"=\"", "SERVICE=tcp:HOST:PORT"),
            ("tcp:127.0.0.1:1", "no \"=\"", "SERVICE=tcp:HOST:PORT"),
            ("a..b=tcp:h:1", "a..b", "SERVICE=tcp:HOST:PORT"),
            ("ipc.daemon=tcp:h:1", "belongs to the daemon", "ipc."),
            ("a=h", "\"h\" is no server", "SERVICE=tcp:HOST:PORT"),
            ("a=unix:h:1", "begins with \"unix\"", "SERVICE=tcp:HOST:PORT"),
            ("a=tcp:h", "\"h\" has no port", "SERVICE=tcp:HOST:PORT"),
            ("a=tcp:h:0", "\"0\" is no port", "1 to 65535"),
            ("a=tcp:h:65536", "\"65536\" is no port", "1 to 65535"),
            ("a=tcp::1", "\"\" is no host", "name of a machine"),
            ("a=tcp:::1:1", "\"::1\" is no host", "brackets"),
            ("a=tcp:[::g]:1", "\"::g\" is no IPv6", "[::1]"),
            ("a=tcp:h h:1", "\"h h\" is no host", "name of a machine"),
            ("a=tcp:-h:1", "\"-h\" is no host", "name of a machine"),
            (&long, "is no host", "name of a machine"),
            ("a=tcp:h:1,", "\"\" is no option", "framing="),
            ("a=tcp:h:1,idle=1s", "no option \"idle\"", "framing"),
            ("a=tcp:h:1,framing=stream", "no framing \"stream\"", "until-close"),
            ("a=tcp:h:1,framing=line,framing=line", "twice", "leave one"),
            ("a=udp:h:1,framing=line", "no option \"framing\"", "leave it out"),
        ] {
            let error = ForwardSpec::parse(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{text}: {error}");
            assert!(error.message.contains(message), "{text}: {}", error.message);
            assert!(error.hint().unwrap_or_default().contains(hint), "{text}: {:?}", error.hint());
        }
    }
}
