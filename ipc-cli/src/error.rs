//! How a command ends when it does not end well: the exit status, and what is said about it.

use core::fmt;
use std::io;

use ipc_core::{Error, ErrorCode};
use serde::Serialize;

use crate::render::{Palette, escape};

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something failed; there is an error to show.
    Error(Error),
    /// Whoever read standard output has gone; nothing is left to do or to say.
    OutputClosed,
    /// A signal asked the program to end.
    Interrupted(Interruption),
    /// The command that was run ended with this status, which is ours too.
    Command(u8),
}

/// The signal that asked the program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// Ctrl-C.
    Interrupt,
    /// `kill`, a service manager.
    Terminate,
    /// The terminal has gone.
    HangUp,
}

impl Interruption {
    /// 128 and the number of the signal, as shells have it.
    pub(crate) const fn exit_status(self) -> u8 {
        match self {
            Interruption::Interrupt => 130,
            Interruption::Terminate => 143,
            Interruption::HangUp => 129,
        }
    }
}

impl Failure {
    /// The exit status of the program.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Failure::Error(error) => error.code.exit_status(),
            Failure::OutputClosed => 0,
            Failure::Interrupted(interruption) => interruption.exit_status(),
            Failure::Command(status) => *status,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Error(error)
    }
}

/// A failed write to standard output or standard error.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::OutputClosed;
        }
        Failure::Error(Error::new(ErrorCode::Io, format!("cannot write the output: {error}")))
    }
}

/// One error as one object.
#[derive(Serialize)]
struct ErrorObject<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    code: &'static str,
    message: &'a str,
    hint: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
}

/// The error as one JSON object on one line.
pub(crate) fn to_json(error: &Error) -> String {
    let detail = error.detail.as_deref();
    let object = ErrorObject {
        error: ErrorFields {
            code: error.code.name(),
            message: &error.message,
            hint: hint(error),
            application_code: detail.and_then(|detail| detail.application_code.as_deref()),
            resource: detail.and_then(|detail| detail.resource.as_deref()),
            limit: detail.and_then(|detail| detail.limit),
        },
    };
    // Only strings and numbers: there is nothing in it that could not be written.
    serde_json::to_string(&object).unwrap_or_else(|_| format!(r#"{{"error":{{"code":"{}"}}}}"#, error.code))
}

/// The error for people: what failed, and what to do about it.
pub(crate) fn to_text(error: &Error, palette: Palette) -> String {
    let mut code = error.code.name().to_owned();
    if let Some(own) = error.detail.as_deref().and_then(|detail| detail.application_code.as_deref()) {
        code = format!("{code} {}", escape(own));
    }
    let label = palette.bad("error:");
    let message = escape(error.message.trim_end());
    let mut text = format!("{label} {message} {}\n", palette.quiet(&format!("({code})")));
    let hint = hint(error);
    if !hint.is_empty() {
        text.push_str(&format!(" {} {}\n", palette.good("hint:"), escape(hint)));
    }
    text
}

/// What to do about it: what the error itself knows, else what helps with errors of its kind.
fn hint(error: &Error) -> &str {
    error.hint().unwrap_or_else(|| usual_hint(error.code))
}

fn usual_hint(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Application => {
            "the service itself answered this; `ipc-cli describe SERVICE` shows its methods"
        }
        ErrorCode::NoSuchService => "see what is there with `ipc-cli list services`",
        ErrorCode::NoSuchMethod => "see its methods with `ipc-cli describe SERVICE`",
        ErrorCode::ServiceGone => {
            "the call may have run; see whether it is back with `ipc-cli list services`"
        }
        ErrorCode::DeadlineExceeded => {
            "the call may have run; allow it more time with --deadline or --timeout"
        }
        ErrorCode::Unreachable => {
            "is the daemon running? Start one with `ipc-daemon`, or say where it is with --runtime-dir"
        }
        ErrorCode::NameTaken => {
            "`ipc-cli describe SERVICE` shows who has it; instances share a name with --group"
        }
        ErrorCode::QuotaExceeded | ErrorCode::SlowConsumer => {
            "try again; `ipc-cli status` shows the limits and who uses what"
        }
        ErrorCode::PayloadTooLarge => "`ipc-cli status` shows the limit; send it in parts",
        ErrorCode::ShuttingDown | ErrorCode::StaleHandle => "try again in a moment",
        ErrorCode::OutcomeUnknown => "it may have run: look before it is sent again",
        ErrorCode::Unsupported | ErrorCode::UnsupportedVersion | ErrorCode::ProtocolViolation => {
            "compare the versions: `ipc-cli --version`, `ipc-daemon --version`"
        }
        ErrorCode::PermissionDenied | ErrorCode::Unauthenticated | ErrorCode::UnsafePath => {
            "a daemon serves its own user and root; see who owns it with `ls -l` of its runtime directory"
        }
        ErrorCode::Busy => "`ipc-cli list locks` shows who holds it; wait longer with --wait",
        ErrorCode::LockLost => {
            "something may have happened meanwhile that it was to prevent: look before going on"
        }
        ErrorCode::InvalidArgument => "see `ipc-cli --help`",
        _ => "",
    }
}

/// The error of a command line that cannot be understood, from what clap says about it.
pub(crate) fn usage(error: &clap::Error) -> Error {
    let text = error.to_string();
    let mut message = Vec::new();
    let mut hint = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(tip) = line.strip_prefix("tip: ") {
            hint.get_or_insert(tip.to_owned());
        } else if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        } else {
            message.push(line.strip_prefix("error: ").unwrap_or(line));
        }
    }
    let message = message.join(" ");
    Error::new(ErrorCode::InvalidArgument, message)
        .with_hint(hint.unwrap_or_else(|| "see `ipc-cli --help`".into()))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Error(error) => error.fmt(f),
            Failure::OutputClosed => f.write_str("standard output was closed"),
            Failure::Interrupted(interruption) => write!(f, "ended by {interruption:?}"),
            Failure::Command(status) => write!(f, "the command ended with {status}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn an_error_is_one_object() {
        let mut error = Error::new(ErrorCode::Application, "no \"such\" title\n").with_hint("ask again");
        assert_eq!(
            to_json(&error),
            r#"{"error":{"code":"application","message":"no \"such\" title\n","hint":"ask again"}}"#
        );
        error.detail_mut().application_code = Some("exit-3".into());
        assert!(to_json(&error).ends_with(r#""hint":"ask again","application_code":"exit-3"}}"#));
        let quota = to_json(&Error::quota("pending_calls_per_connection_max", 1024));
        assert!(
            quota.ends_with(r#""resource":"pending_calls_per_connection_max","limit":1024}}"#),
            "{quota}"
        );
    }

    #[test]
    fn people_see_the_message_then_what_to_do() {
        let error = Error::new(ErrorCode::NoSuchService, "no service is called demo.titel\u{1b}[1m");
        assert_eq!(
            to_text(&error, Palette::new(false)),
            "error: no service is called demo.titel\\u{1b}[1m (no_such_service)\n \
             hint: see what is there with `ipc-cli list services`\n"
        );
    }

    #[test]
    fn a_closed_output_is_no_error_and_a_full_disk_is() {
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit_status(), 0);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)).exit_status(), 74);
        assert_eq!(Failure::Interrupted(Interruption::Interrupt).exit_status(), 130);
    }

    #[test]
    fn usage_errors_are_invalid_arguments() {
        let error =
            crate::args::Invocation::try_parse_from(["ipc-cli", "ping", "--conut", "3"]).expect_err("wrong");
        let error = usage(&error);
        assert_eq!(error.code, ErrorCode::InvalidArgument);
        assert_eq!(error.message, "unexpected argument '--conut' found");
        assert_eq!(error.hint(), Some("a similar argument exists: '--count'"));
    }
}
