//! The options that every command has, and the values several of them share.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipc_core::limits::{DEADLINE_MAX, ENTRY_DELAY_MAX, HOLD_DELAY_MAX, TTL_MAX, TTL_MIN};

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// Where the daemon's sockets are [default: $IPC_RUNTIME_DIR, $XDG_RUNTIME_DIR/ipc, ...]
    #[arg(long, global = true, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(crate) runtime_dir: Option<PathBuf>,

    /// The daemon's address: unix:PATH, dgram:PATH, tcp:HOST:PORT or udp:HOST:PORT; over datagrams one can ping, call and
    /// publish [default: $IPC_ADDRESS]
    #[arg(long, global = true, value_name = "ADDR", conflicts_with = "runtime_dir")]
    pub(crate) address: Option<OsString>,

    /// Bounds connecting and each answer, never a subscription
    #[arg(long, global = true, value_name = "DUR", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,

    /// One JSON object, or one a line
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Nothing on standard error but errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,

    /// When to use colour; NO_COLOR is honoured
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = ColorWhen::Auto)]
    pub(crate) color: ColorWhen,
}

impl Globals {
    /// Whether a particular daemon is meant, by an option or by the environment.
    pub(crate) fn names_a_daemon(&self) -> bool {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        self.address.is_some()
            || self.runtime_dir.is_some()
            || is_set("IPC_ADDRESS")
            || is_set("IPC_RUNTIME_DIR")
    }
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorWhen {
    /// On a terminal, unless the environment says otherwise.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a payload is declared to be, whatever its bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PayloadAs {
    /// UTF-8.
    Text,
    /// One JSON value.
    Json,
    /// Any bytes.
    Bytes,
}

/// A duration such as `500ms` or `1m30s`: above zero and at most the longest deadline of the protocol.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 500ms, 5s or 1m30s"))?;
    if duration < Duration::from_micros(1) || duration > DEADLINE_MAX {
        let longest = humantime::format_duration(DEADLINE_MAX);
        return Err(format!("must be above zero and at most {longest}"));
    }
    Ok(duration)
}

/// How long to wait: as [`duration`], and `0` for not at all.
pub(crate) fn wait(text: &str) -> Result<Duration, String> {
    if text == "0" || humantime::parse_duration(text) == Ok(Duration::ZERO) {
        return Ok(Duration::ZERO);
    }
    duration(text)
}

/// A time to live such as `30s` or `2h`.
pub(crate) fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 500ms, 30s or 2h"))?;
    if (TTL_MIN..=TTL_MAX).contains(&ttl) {
        return Ok(ttl);
    }
    let (least, most) = (humantime::format_duration(TTL_MIN), humantime::format_duration(TTL_MAX));
    Err(format!("must be between {least} and {most}"))
}

/// How long an entry is put off: not at all, or up to a week.
pub(crate) fn delay(text: &str) -> Result<Duration, String> {
    at_most(text, ENTRY_DELAY_MAX)
}

/// How long something stays closed after its holder was lost: not at all, or up to an hour.
pub(crate) fn hold_delay(text: &str) -> Result<Duration, String> {
    at_most(text, HOLD_DELAY_MAX)
}

fn at_most(text: &str, max: Duration) -> Result<Duration, String> {
    let delay = if text == "0" { Ok(Duration::ZERO) } else { humantime::parse_duration(text) };
    let delay = delay.map_err(|error| format!("{error}; write it like 500ms, 30s or 2h"))?;
    if delay <= max {
        return Ok(delay);
    }
    Err(format!("must be at most {}", humantime::format_duration(max)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_hold_their_limits() {
        for (text, fits) in [
            ("1us", true),
            ("0s", false),
            ("999ns", false),
            ("1h", true),
            ("1h 1us", false),
            ("1m30s", true),
            ("5", false),
            ("", false),
            ("-1s", false),
            ("99999999999999999999h", false),
        ] {
            assert_eq!(duration(text).is_ok(), fits, "{text}");
        }
    }
}
