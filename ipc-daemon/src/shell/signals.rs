//! What an operator asks for by signal.

use std::future::poll_fn;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// A request by signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// The signals the daemon listens to, from its making on.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes over the signals, inside a runtime.
    ///
    /// # Errors
    /// 74 when the system refuses.
    pub(crate) fn install() -> Result<Self, Failure> {
        let install = |kind| signal(kind).map_err(|error| Failure::io("take over a signal", error));
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
            hang_up: install(SignalKind::hangup())?,
        })
    }

    /// The next request. A request to stop goes before one to reload. Cancel safe.
    pub(crate) async fn next(&mut self) -> Request {
        poll_fn(|context| {
            for stop in [&mut self.terminate, &mut self.interrupt] {
                if stop.poll_recv(context).is_ready() {
                    return Poll::Ready(Request::Stop);
                }
            }
            self.hang_up.poll_recv(context).map(|_| Request::Reload)
        })
        .await
    }

    /// The next request to stop; others go unheard. Cancel safe.
    pub(crate) async fn stop(&mut self) {
        while self.next().await != Request::Stop {}
    }
}
