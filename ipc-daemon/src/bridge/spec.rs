//! How an exposed port is written: `tcp:ADDR:PORT=SERVICE/METHOD[,framing=chunk|line][,idle=DUR]`.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use ipc_core::name::{MethodName, ServiceName};
use ipc_core::{Error, ErrorCode};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use crate::failure::on_one_line;

/// Shortest and longest `idle`, as the limit `expose_idle_timeout_ms` has them.
const IDLE_MIN: Duration = Duration::from_millis(10);
const IDLE_MAX: Duration = Duration::from_secs(86_400);

const FORM: &str = "write tcp:ADDR:PORT=SERVICE/METHOD[,framing=chunk|line][,idle=DUR], \
                    as in tcp:127.0.0.1:7000=demo.title/title";

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

/// An exposed port and the one method that it grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    /// Where to listen; port 0 leaves the port to the system.
    pub(crate) address: SocketAddr,
    /// The service.
    pub(crate) service: ServiceName,
    /// Its method.
    pub(crate) method: MethodName,
    /// What is one call.
    pub(crate) framing: Framing,
    /// Idle time after which a connection is closed; `None` leaves it to the limit `expose_idle_timeout_ms`.
    pub(crate) idle: Option<Duration>,
}

impl Spec {
    /// Reads a specification.
    ///
    /// # Errors
    /// `invalid_argument`, or `unsupported` for what does not exist in this version. The hint says what to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let (door, rest) = text.split_once('=').ok_or_else(|| {
            invalid(text, "there is no \"=\" between the port and the method").with_hint(FORM)
        })?;
        let address = parse_address(text, door)?;
        let mut parts = rest.split(',');
        let target = parts.next().unwrap_or_default();
        let (service, method) = parse_target(text, target)?;
        let mut spec = Self { address, service, method, framing: Framing::default(), idle: None };
        let mut has_framing = false;
        for option in parts {
            let (name, value) = option
                .split_once('=')
                .ok_or_else(|| invalid(text, &format!("{} is no option", quoted(option))).with_hint(FORM))?;
            let is_repeated = match name {
                "framing" => {
                    spec.framing = parse_framing(text, value)?;
                    core::mem::replace(&mut has_framing, true)
                }
                "idle" => spec.idle.replace(parse_idle(text, value)?).is_some(),
                _ => {
                    let what = format!("there is no option {}", quoted(name));
                    return Err(invalid(text, &what).with_hint("the options are framing and idle"));
                }
            };
            if is_repeated {
                let what = format!("the option {name} is given twice");
                return Err(invalid(text, &what).with_hint("leave one of them out"));
            }
        }
        Ok(spec)
    }
}

fn parse_address(text: &str, door: &str) -> Result<SocketAddr, Error> {
    let Some((scheme, address)) = door.split_once(':') else {
        return Err(invalid(text, &format!("{} is no port to listen on", quoted(door))).with_hint(FORM));
    };
    match scheme {
        "tcp" => {}
        "udp" => {
            let message = format!("cannot expose {}: udp ports are not supported", quoted(text));
            return Err(Error::new(ErrorCode::Unsupported, message).with_hint("tcp: is"));
        }
        _ => {
            let what = format!("it begins with {}, not with tcp:", quoted(scheme));
            return Err(invalid(text, &what).with_hint(FORM));
        }
    }
    address.parse().map_err(|_| {
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
    })
}

fn parse_target(text: &str, target: &str) -> Result<(ServiceName, MethodName), Error> {
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
    Ok((service, method))
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

/// Text of somebody else's in a message: on one line, and not longer than one wants to read.
fn quoted(text: &str) -> String {
    const SHOWN_MAX_CHARS: usize = 100;
    let shown: String = text.chars().take(SHOWN_MAX_CHARS).collect();
    let more = if shown.len() < text.len() { "..." } else { "" };
    format!("\"{}{more}\"", shown.escape_debug())
}

fn shown(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp:{}={}/{}", self.address, self.service, self.method)?;
        if self.framing != Framing::default() {
            write!(f, ",framing={}", self.framing.name())?;
        }
        if let Some(idle) = self.idle {
            write!(f, ",idle={}", shown(idle))?;
        }
        Ok(())
    }
}

impl Serialize for Spec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Spec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Spec::parse(&text).map_err(|error| D::Error::custom(on_one_line(&error)))
    }
}

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
        ] {
            let spec = Spec::parse(text).unwrap();
            assert_eq!(spec.to_string(), text);
            assert_eq!(Spec::parse(&spec.to_string()), Ok(spec));
        }
        let spec = Spec::parse("tcp:127.0.0.1:0=a/b,idle=1500ms,framing=chunk").unwrap();
        assert_eq!((spec.framing, spec.idle), (Framing::Chunk, Some(Duration::from_millis(1500))));
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
            let error = Spec::parse(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{text}: {error}");
            assert!(error.message.contains(message), "{text}: {}", error.message);
            assert!(error.hint().unwrap_or_default().contains(hint), "{text}: {:?}", error.hint());
        }
    }

    #[test]
    fn what_does_not_exist_is_unsupported() {
        for text in ["udp:127.0.0.1:1=a/b", "tcp:127.0.0.1:1=a/b,framing=stream"] {
            let error = Spec::parse(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::Unsupported);
            assert!(error.message.contains("not supported"), "{error}");
        }
    }

    #[test]
    fn a_message_quotes_only_the_beginning_and_on_one_line() {
        let message = Spec::parse(&format!("a\n{}", "x".repeat(100_000))).unwrap_err().message;
        assert!(message.len() < 300 && !message.contains('\n'), "{message}");
    }
}
