//! SHELL. Why the daemon cannot start or go on, with the exit status that says so to programs.

use core::fmt;

use ipc_core::{Error, ErrorCode};

/// The exit statuses of the daemon (sysexits.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 74: a file or a socket could not be used.
    Io,
    /// 75: another daemon holds the directory.
    Busy,
    /// 77: the directory or the file is not ours, or may not be used.
    Permission,
    /// 78: the configuration is wrong.
    Configuration,
}

impl Exit {
    /// The status.
    pub(crate) fn status(self) -> u8 {
        match self {
            Exit::Io => 74,
            Exit::Busy => 75,
            Exit::Permission => 77,
            Exit::Configuration => 78,
        }
    }
}

/// Something the daemon cannot start with.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What to exit with.
    pub(crate) exit: Exit,
    /// What was tried and what failed.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// A system call that failed while `what` was tried.
    pub(crate) fn io(what: impl fmt::Display, error: impl Into<std::io::Error>) -> Self {
        let error = error.into();
        let exit = match error.kind() {
            std::io::ErrorKind::PermissionDenied => Exit::Permission,
            _ => Exit::Io,
        };
        Self::new(exit, format!("cannot {what}: {error}"))
    }

    /// The same failure with a hint.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error.code {
            ErrorCode::UnsafePath | ErrorCode::PermissionDenied => Exit::Permission,
            ErrorCode::Conflict => Exit::Busy,
            // Nobody is on the bus yet: the name was given to two forwards.
            ErrorCode::InvalidArgument | ErrorCode::QuotaExceeded | ErrorCode::NameTaken => {
                Exit::Configuration
            }
            _ => Exit::Io,
        };
        Self { exit, hint: error.hint().map(str::to_owned), message: error.message }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// An error with its hint, on one line.
pub(crate) fn on_one_line(error: &Error) -> String {
    match error.hint() {
        Some(hint) => format!("{} ({hint})", error.message),
        None => error.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_follow_the_kind_of_error() {
        for (code, status) in [
            (ErrorCode::UnsafePath, 77),
            (ErrorCode::PermissionDenied, 77),
            (ErrorCode::Conflict, 75),
            (ErrorCode::InvalidArgument, 78),
            (ErrorCode::QuotaExceeded, 78),
            (ErrorCode::NameTaken, 78),
            (ErrorCode::Io, 74),
        ] {
            assert_eq!(Failure::from(Error::new(code, "")).exit.status(), status, "{code}");
        }
        let denied = Failure::io("open it", std::io::Error::from(std::io::ErrorKind::PermissionDenied));
        assert_eq!(denied.exit.status(), 77);
    }

    #[test]
    fn a_hint_stands_on_a_line_of_its_own() {
        let failure = Failure::new(Exit::Io, "cannot a").with_hint("do b");
        assert_eq!(failure.to_string(), "cannot a\n  hint: do b");
    }
}
