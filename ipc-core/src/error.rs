//! PURE. The one table of error codes, and the error that carries one.

use core::fmt;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, retry: $retry:literal, exit: $exit:literal;)*) => {
        /// What went wrong, in one word for programs. The table is in `PROTOCOL.md`; numbers never change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorCode {
            /// Every code, in order of its number.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self { $(ErrorCode::$variant => $number,)* }
            }

            /// The code with that number, if this version knows it.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(ErrorCode::$variant),)* _ => None }
            }

            /// The snake_case name.
            pub const fn name(self) -> &'static str {
                match self { $(ErrorCode::$variant => $name,)* }
            }

            /// Whether the same request can succeed later without a change by the caller.
            pub const fn is_retryable(self) -> bool {
                match self { $(ErrorCode::$variant => $retry,)* }
            }

            /// The exit status of `ipc-cli` (sysexits.h where it has one).
            pub const fn exit_status(self) -> u8 {
                match self { $(ErrorCode::$variant => $exit,)* }
            }
        }
    };
}

error_codes! {
    /// The service answered with an error of its own.
    Application = 1, "application", retry: false, exit: 1;
    /// No service has that name.
    NoSuchService = 2, "no_such_service", retry: true, exit: 69;
    /// The service has no such method.
    NoSuchMethod = 3, "no_such_method", retry: false, exit: 69;
    /// The service died or left before it answered; the call may have run.
    ServiceGone = 4, "service_gone", retry: false, exit: 69;
    /// The deadline passed; the call may have run.
    DeadlineExceeded = 5, "deadline_exceeded", retry: false, exit: 124;
    /// The caller cancelled the call; it may have run.
    Cancelled = 6, "cancelled", retry: false, exit: 130;
    /// The handle does not stand for anything any more; the request did not run.
    StaleHandle = 7, "stale_handle", retry: true, exit: 75;
    /// The policy does not allow it.
    PermissionDenied = 8, "permission_denied", retry: false, exit: 77;
    /// A limit was reached; the error names the resource and the limit.
    QuotaExceeded = 9, "quota_exceeded", retry: true, exit: 75;
    /// The payload is larger than the limit.
    PayloadTooLarge = 10, "payload_too_large", retry: false, exit: 2;
    /// Another connection owns the name.
    NameTaken = 11, "name_taken", retry: true, exit: 75;
    /// The receiver did not read what was due to it, so this was dropped; a call whose reply it was has run.
    SlowConsumer = 12, "slow_consumer", retry: false, exit: 75;
    /// The daemon is stopping and takes no new work.
    ShuttingDown = 13, "shutting_down", retry: true, exit: 69;
    /// The connection was lost after the request was sent; it may have run.
    OutcomeUnknown = 14, "outcome_unknown", retry: false, exit: 75;
    /// The daemon does not know that operation or feature.
    Unsupported = 15, "unsupported", retry: false, exit: 76;
    /// Bytes that are not the protocol; the connection is closed.
    ProtocolViolation = 16, "protocol_violation", retry: false, exit: 76;
    /// No protocol version in common.
    UnsupportedVersion = 17, "unsupported_version", retry: false, exit: 76;
    /// Who speaks could not be verified, or nothing was said in time.
    Unauthenticated = 18, "unauthenticated", retry: false, exit: 77;
    /// A name, an argument or a combination of them is not valid.
    InvalidArgument = 19, "invalid_argument", retry: false, exit: 2;
    /// The daemon could not be reached.
    Unreachable = 20, "unreachable", retry: true, exit: 69;
    /// Reading or writing failed.
    Io = 21, "io", retry: false, exit: 74;
    /// A file or directory has the wrong owner or mode.
    UnsafePath = 22, "unsafe_path", retry: false, exit: 77;
    /// The request is at odds with what is there (already bound, already registered).
    Conflict = 23, "conflict", retry: false, exit: 75;
    /// The key does not exist.
    NoSuchKey = 24, "no_such_key", retry: false, exit: 1;
    /// The lock is not held any more.
    LockLost = 25, "lock_lost", retry: false, exit: 75;
    /// A newer holder's token has been seen.
    StaleFencingToken = 26, "stale_fencing_token", retry: false, exit: 75;
    /// The key was changed by somebody else.
    RevisionMismatch = 27, "revision_mismatch", retry: true, exit: 75;
    /// The history that was asked for is gone.
    Compacted = 28, "compacted", retry: false, exit: 75;
    /// The store could not make it durable.
    StorageFailed = 29, "storage_failed", retry: false, exit: 74;
    /// Others hold it, and it was not to be had in time.
    Busy = 30, "busy", retry: true, exit: 75;
    /// Sessions wait for one another; this request would have closed the circle.
    Deadlock = 31, "deadlock", retry: true, exit: 75;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error of the bus: a code for programs, a message and a hint for people.
///
/// The message says what was tried and what failed, the hint what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What went wrong.
    pub code: ErrorCode,
    /// What was tried and what failed.
    pub message: String,
    /// The rest, boxed because most results carry no error.
    pub detail: Option<Box<ErrorDetail>>,
}

/// What an [`Error`] may know beyond its message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorDetail {
    /// What to do about it.
    pub hint: Option<String>,
    /// The resource whose limit was reached (`quota_exceeded`, `payload_too_large`).
    pub resource: Option<String>,
    /// The limit that was reached, in the unit of its name.
    pub limit: Option<u64>,
    /// The service's own code (`application`).
    pub application_code: Option<String>,
}

impl Error {
    /// An error with a code and a message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: None }
    }

    /// A limit was reached: `resource` allows at most `limit`.
    pub fn quota(resource: &str, limit: u64) -> Self {
        let mut error = Self::new(ErrorCode::QuotaExceeded, format!("{resource} is at its limit of {limit}"));
        let detail = error.detail_mut();
        detail.resource = Some(resource.to_owned());
        detail.limit = Some(limit);
        error
    }

    /// The same error with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.detail_mut().hint = Some(hint.into());
        self
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.detail.as_ref()?.hint.as_deref()
    }

    /// The detail, made if it is not there.
    pub fn detail_mut(&mut self) -> &mut ErrorDetail {
        self.detail.get_or_insert_with(Box::default)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl core::error::Error for Error {}

/// The error that a service answers with: it reaches the caller as `application`, with the service's own code.
///
/// Every error can be turned into one with `?`; an [`Error`] of the bus gives it its code's name. So it is no error type
/// itself, like a boxed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceError {
    /// The service's own code, for programs; may be empty.
    pub code: String,
    /// What went wrong, for people.
    pub message: String,
}

impl ServiceError {
    /// An error with a code of the service's own and a message.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

impl<E: core::error::Error + 'static> From<E> for ServiceError {
    fn from(error: E) -> Self {
        let any: &(dyn core::error::Error + 'static) = &error;
        match any.downcast_ref::<Error>() {
            Some(bus) => Self::new(bus.code.name(), bus.message.clone()),
            None => Self::new("", error.to_string()),
        }
    }
}

impl From<ServiceError> for Error {
    fn from(error: ServiceError) -> Self {
        let mut application = Error::new(ErrorCode::Application, error.message);
        if !error.code.is_empty() {
            application.detail_mut().application_code = Some(error.code);
        }
        application
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_a_bijection_in_order() {
        for (position, code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(usize::from(code.number()), position + 1);
            assert_eq!(ErrorCode::from_number(code.number()), Some(*code));
            assert_eq!(ErrorCode::ALL.iter().filter(|other| other.name() == code.name()).count(), 1);
        }
        assert_eq!(ErrorCode::from_number(0), None);
    }

    #[test]
    fn any_error_can_be_a_services_answer() {
        fn handler(fail: bool) -> Result<u32, ServiceError> {
            if fail {
                return Err(Error::quota("doors", 3).into());
            }
            Ok("x".parse::<u32>()?)
        }
        let error = Error::from(handler(true).unwrap_err());
        assert_eq!(error.code, ErrorCode::Application);
        let code = error.detail.as_ref().and_then(|detail| detail.application_code.as_deref());
        assert_eq!(code, Some("quota_exceeded"));
        let error = Error::from(handler(false).unwrap_err());
        assert_eq!((error.message.as_str(), error.detail), ("invalid digit found in string", None));
    }
}
