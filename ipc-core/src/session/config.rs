//! How a session presents itself, and how long it waits.

use core::time::Duration;

use super::tenure::Secret;

/// How a session presents itself and how long it waits.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the client calls itself, for people who look at the daemon; cut after 64 bytes.
    pub name: String,
    /// Whether the stream begins with the preamble: yes over a socket, no on a link inside the daemon.
    pub preamble: bool,
    /// How long to wait for the answer to the hello.
    pub hello_timeout: Duration,
    /// How long to wait for the answer to what is not a call: subscribe, register, publish, ping. Never above the
    /// daemon's patience with itself, so there is no need to make it short.
    pub operation_timeout: Duration,
    /// Whether finished requests are listed by [`Session::poll_completed`](super::Session::poll_completed). Without that the user
    /// looks at its own tickets.
    pub reports_completions: bool,
    /// By what a daemon that was started again knows the session; without it nothing is held over a restart.
    pub secret: Option<Secret>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: String::new(),
            preamble: true,
            hello_timeout: Duration::from_secs(5),
            operation_timeout: Duration::from_secs(5),
            reports_completions: true,
            secret: None,
        }
    }
}
