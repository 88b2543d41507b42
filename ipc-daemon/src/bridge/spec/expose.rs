//! How an exposed port is written: `tcp:ADDR:PORT=SERVICE/METHOD[,framing=chunk|line][,idle=DUR]` or
//! `udp:ADDR:PORT=SERVICE/METHOD`.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use ipc_core::name::{MethodName, ServiceName};
use ipc_core::{Error, ErrorCode};

use super::{each_option, quoted, shown, written_as_text};

/// Shortest and longest `idle`, as the limit `expose_idle_timeout_ms` has them.
const IDLE_MIN: Duration = Duration::from_millis(10);
const IDLE_MAX: Duration = Duration::from_secs(86_400);

const FORM: &str = "write tcp:ADDR:PORT=SERVICE/METHOD[,framing=chunk|line][,idle=DUR] or \
                    udp:ADDR:PORT=SERVICE/METHOD, as in tcp:127.0.0.1:7000=demo.title/title";

/// What is one call on an exposed connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Framing {
    /// What one read returns; the reply is written back byte for byte.
    #[default]
    Chunk,
    /// One line, without its LF or CRLF; the reply is followed by LF.
    Line,
}

impl Framing {
    /// The word for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Framing::Chunk => "chunk",
            Framing::Line => "line",
        }
    }
}

/// How connections to a port are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TcpDoor {
    /// What is one call.
    pub(crate) framing: Framing,
    /// Idle time after which a connection is closed; `None` leaves it to the limit `expose_idle_timeout_ms`.
    pub(crate) idle: Option<Duration>,
}

/// What kind of port it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Connections.
    Tcp(TcpDoor),
    /// Datagrams, each one call.
    Udp,
}

/// The one method that a port grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The service.
    pub(crate) service: ServiceName,
    /// Its method.
    pub(crate) method: MethodName,
}

/// An exposed port and the one method that it grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExposeSpec {
    /// Where to listen; port 0 leaves the port to the system.
    pub(crate) address: SocketAddr,
    /// What is called.
    pub(crate) target: Target,
    /// How it is reached.
    pub(crate) door: Door,
}

impl ExposeSpec {
    /// Reads a specification.
    ///
    /// # Errors
    /// `invalid_argument`, or `unsupported` for what does not exist in this version. The hint says what to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let (door, rest) = text.split_once('=').ok_or_else(|| {
            invalid(text, "there is no \"=\" between the port and the method").with_hint(FORM)
        })?;
        let (mut door, address) = parse_door(text, door)?;
        let mut parts = rest.split(',');
        let target = parse_target(text, parts.next().unwrap_or_default())?;
        let mut has_framing = false;
        each_option(
            parts,
            FORM,
            |what| invalid(text, what),
            |name, value| match (&mut door, name) {
                (Door::Tcp(door), "framing") => {
                    door.framing = parse_framing(text, value)?;
                    Ok(core::mem::replace(&mut has_framing, true))
                }
                (Door::Tcp(door), "idle") => Ok(door.idle.replace(parse_idle(text, value)?).is_some()),
                (Door::Tcp(_), _) => {
                    let what = format!("there is no option {}", quoted(name));
                    Err(invalid(text, &what).with_hint("the options are framing and idle"))
                }
                (Door::Udp, _) => {
                    let what = format!("a UDP port has no option {}", quoted(name));
                    Err(invalid(text, &what).with_hint("one datagram is one call: leave it out"))
                }
            },
        )?;
        Ok(Self { address, target, door })
    }
}

fn parse_door(text: &str, door: &str) -> Result<(Door, SocketAddr), Error> {
    let Some((scheme, address)) = door.split_once(':') else {
        return Err(invalid(text, &format!("{} is no port to listen on", quoted(door))).with_hint(FORM));
    };
    let door = match scheme {
        "tcp" => Door::Tcp(TcpDoor::default()),
        "udp" => Door::Udp,
        _ => {
            let what = format!("it begins with {}, not with tcp: or udp:", quoted(scheme));
            return Err(invalid(text, &what).with_hint(FORM));
        }
    };
    let address = address.parse().map_err(|_| {
        let error = invalid(text, &format!("{} is no IP address with a port", quoted(address)));
        error.with_hint(match address.rsplit_once(':') {
            Some(("localhost", _)) => "names are not looked up: write 127.0.0.1 or [::1]",
            Some((host, _)) if host.contains(':') && !host.starts_with('[') => {
                "an IPv6 address stands in brackets, as in tcp:[::1]:7000"
            }
            None => "the port is missing; 0 leaves it to the system",
            Some(_) => {
                "write an address of this machine, 127.0.0.1 for this machine alone, and a port up to 65535"
            }
        })
    })?;
    Ok((door, address))
}

fn parse_target(text: &str, target: &str) -> Result<Target, Error> {
    let Some((service, method)) = target.split_once('/') else {
        let what = format!("there is no \"/\" between service and method in {}", quoted(target));
        return Err(invalid(text, &what).with_hint(FORM));
    };
    let name = |error: Error| invalid(text, &error.message).with_hint(FORM);
    let service = ServiceName::parse(service).map_err(name)?;
    let method = MethodName::parse(method).map_err(name)?;
    if service.is_reserved() {
        let what = format!("{service} belongs to the daemon");
        return Err(invalid(text, &what).with_hint("whoever reaches the port could administer the bus"));
    }
    Ok(Target { service, method })
}

fn parse_framing(text: &str, value: &str) -> Result<Framing, Error> {
    match value {
        "chunk" => Ok(Framing::Chunk),
        "line" => Ok(Framing::Line),
        "stream" => {
            let message = format!("cannot expose {}: framing=stream is not supported", quoted(text));
            Err(Error::new(ErrorCode::Unsupported, message).with_hint("framing=chunk and framing=line are"))
        }
        _ => {
            let what = format!("there is no framing {}", quoted(value));
            Err(invalid(text, &what).with_hint("write framing=chunk or framing=line"))
        }
    }
}

fn parse_idle(text: &str, value: &str) -> Result<Duration, Error> {
    let idle = humantime::parse_duration(value).map_err(|error| {
        invalid(text, &format!("{} is no duration: {error}", quoted(value)))
            .with_hint("write a number and a unit, as in idle=500ms, idle=30s, idle=5m")
    })?;
    if (IDLE_MIN..=IDLE_MAX).contains(&idle) {
        return Ok(idle);
    }
    let what = format!("idle={} is outside 10ms to 24h", shown(idle));
    Err(invalid(text, &what).with_hint("leave idle out for the limit expose_idle_timeout_ms"))
}

fn invalid(text: &str, what: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("cannot expose {}: {what}", quoted(text)))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.method)
    }
}

impl fmt::Display for ExposeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, target, door } = self;
        match door {
            Door::Udp => write!(f, "udp:{address}={target}"),
            Door::Tcp(TcpDoor { framing, idle }) => {
                write!(f, "tcp:{address}={target}")?;
                if *framing != Framing::default() {
                    write!(f, ",framing={}", framing.name())?;
                }
                match idle {
                    Some(idle) => write!(f, ",idle={}", shown(*idle)),
                    None => Ok(()),
                }
            }
        }
    }
}

written_as_text!(ExposeSpec);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back_the_same() {
        for text in [
            "tcp:127.0.0.1:7000=demo.title/title",
            "tcp:0.0.0.0:0=a/b,framing=line",
            "tcp:[::1]:65535=a.b-c_d/e,idle=1m30s",
            "tcp:[fe80::1]:1=a/b,framing=line,idle=10ms",
            "tcp:127.0.0.1:0=a/b,idle=1day",
            "udp:127.0.0.1:53=a.b/c",
            "udp:[::]:0=a/b",
        ] {
            let spec = ExposeSpec::parse(text).unwrap();
            assert_eq!(spec.to_string(), text);
            assert_eq!(ExposeSpec::parse(&spec.to_string()), Ok(spec));
        }
        let spec = ExposeSpec::parse("tcp:127.0.0.1:0=a/b,idle=1500ms,framing=chunk").unwrap();
        let idle = Some(Duration::from_millis(1500));
        assert_eq!(spec.door, Door::Tcp(TcpDoor { framing: Framing::Chunk, idle }));
        assert_eq!(spec.to_string(), "tcp:127.0.0.1:0=a/b,idle=1s500ms");
    }

    #[test]
    fn mistakes_are_named_with_what_to_write_instead() {
        for (text, message, hint) in [
            ("", "no \"=\"", "tcp:ADDR:PORT=SERVICE/METHOD"),
            ("tcp:127.0.0.1:1", "no \"=\"", "tcp:ADDR:PORT=SERVICE/METHOD"),
            ("127.0.0.1:1=a/b", "begins with \"127.0.0.1\"", "tcp:ADDR"),
            ("7000=a/b", "\"7000\" is no port", "tcp:ADDR"),
            ("http:127.0.0.1:1=a/b", "begins with \"http\"", "tcp:ADDR"),
            ("udp:localhost:1=a/b", "\"localhost:1\" is no IP", "127.0.0.1"),
            ("udp:127.0.0.1:1=a/b,framing=line", "no option \"framing\"", "leave it out"),
            ("udp:127.0.0.1:1=a/b,idle", "\"idle\" is no option", "udp:ADDR"),
            ("tcp:localhost:1=a/b", "\"localhost:1\" is no IP", "127.0.0.1"),
            ("tcp:127.0.0.1=a/b", "\"127.0.0.1\" is no IP", "port is missing"),
            ("tcp:127.0.0.1:65536=a/b", "is no IP", "up to 65535"),
            ("tcp:::1:7=a/b", "\"::1:7\" is no IP", "brackets"),
            ("tcp:127.0.0.1:1=a", "no \"/\"", "SERVICE/METHOD"),
            ("tcp:127.0.0.1:1=a..b/c", "a..b", "SERVICE/METHOD"),
            ("tcp:127.0.0.1:1=a/b/c", "b/c", "SERVICE/METHOD"),
            ("tcp:127.0.0.1:1=/b", "name", "SERVICE/METHOD"),
            ("tcp:127.0.0.1:1=ipc.daemon/status", "belongs to the daemon", "administer"),
            ("tcp:127.0.0.1:1=a/b,", "\"\" is no option", "framing="),
            ("tcp:127.0.0.1:1=a/b,idle", "\"idle\" is no option", "idle="),
            ("tcp:127.0.0.1:1=a/b,deadline=1s", "no option \"deadline\"", "framing and idle"),
            ("tcp:127.0.0.1:1=a/b,framing=lines", "no framing \"lines\"", "framing=line"),
            ("tcp:127.0.0.1:1=a/b,framing=line,framing=line", "twice", "leave one"),
            ("tcp:127.0.0.1:1=a/b,idle=1s,idle=1s", "twice", "leave one"),
            ("tcp:127.0.0.1:1=a/b,idle=5", "\"5\" is no duration", "idle=30s"),
            ("tcp:127.0.0.1:1=a/b,idle=9ms", "outside", "leave idle out"),
            ("tcp:127.0.0.1:1=a/b,idle=86401s", "outside", "leave idle out"),
        ] {
            let error = ExposeSpec::parse(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{text}: {error}");
            assert!(error.message.contains(message), "{text}: {}", error.message);
            assert!(error.hint().unwrap_or_default().contains(hint), "{text}: {:?}", error.hint());
        }
    }

    #[test]
    fn what_does_not_exist_is_unsupported() {
        let error = ExposeSpec::parse("tcp:127.0.0.1:1=a/b,framing=stream").unwrap_err();
        assert_eq!(error.code, ErrorCode::Unsupported);
        assert!(error.message.contains("not supported"), "{error}");
    }

    #[test]
    fn a_message_quotes_only_the_beginning_and_on_one_line() {
        let message = ExposeSpec::parse(&format!("a\n{}", "x".repeat(100_000))).unwrap_err().message;
        assert!(message.len() < 300 && !message.contains('\n'), "{message}");
    }
}
