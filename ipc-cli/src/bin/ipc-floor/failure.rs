//! SHELL. One kind of error: a sentence for the person who started the measurement.

use std::fmt;
use std::io;

/// What was tried and what went wrong, as text. A floor has no caller that could react to more.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Names the process the failure happened in.
    pub(crate) fn within(self, who: &str) -> Self {
        Self(format!("{who}: {}", self.0))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// For `map_err`: says what was tried when the system refused it.
pub(crate) fn at<E: Into<io::Error>>(tried: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| Failure(format!("cannot {tried}: {}", error.into()))
}
