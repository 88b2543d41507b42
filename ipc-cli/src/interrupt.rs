//! SHELL. Signals that ask the program to end.

use core::future::Future;
use std::io;
use std::thread;

use ipc_core::{Error, ErrorCode};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::error::{Failure, Interruption};

/// What a signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnSignal {
    /// The process ends at once: the command holds nothing that outlives it.
    Exit,
    /// The command is told and ends itself; a second signal ends the process at once.
    Tell,
}

/// Tells a command that it should end.
#[derive(Clone, Debug)]
pub(crate) struct Interrupts {
    seen: watch::Receiver<Option<Interruption>>,
}

impl Interrupts {
    /// Starts to listen, on a thread of its own: the main thread may be blocked in a write to a stopped reader.
    ///
    /// # Errors
    /// `io` when the kernel refuses a thread or a signal handler.
    pub(crate) fn listen(on_signal: OnSignal) -> Result<Self, Failure> {
        let (told, seen) = watch::channel(None);
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || watch_signals(on_signal, &told))
            .map_err(cannot)?;
        Ok(Self { seen })
    }

    /// Waits until a signal came; a second call after it answers at once.
    ///
    /// Cancel safe: it can be dropped and called again.
    pub(crate) async fn interrupted(&mut self) -> Interruption {
        match self.seen.wait_for(Option::is_some).await.ok().and_then(|seen| *seen) {
            Some(interruption) => interruption,
            // The thread has gone without a signal: none will come.
            None => std::future::pending().await,
        }
    }
}

/// The outcome of `work`, unless a signal comes first: then `work` is dropped.
///
/// # Errors
/// [`Failure::Interrupted`], and what `work` says.
pub(crate) async fn unless_interrupted<T, E: Into<Failure>>(
    interrupts: &mut Interrupts,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    tokio::select! {
        outcome = work => outcome.map_err(Into::into),
        interruption = interrupts.interrupted() => Err(Failure::Interrupted(interruption)),
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Interruption {
        tokio::select! {
            _ = self.interrupt.recv() => Interruption::Interrupt,
            _ = self.terminate.recv() => Interruption::Terminate,
            _ = self.hang_up.recv() => Interruption::HangUp,
        }
    }
}

/// Runs until the process ends. If handlers cannot be installed the signals keep their usual effect, which is to end
/// the process.
fn watch_signals(on_signal: OnSignal, told: &watch::Sender<Option<Interruption>>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
    runtime.block_on(async {
        let Ok(mut signals) = Signals::new() else { return };
        let first = signals.next().await;
        if on_signal == OnSignal::Tell {
            told.send_replace(Some(first));
            signals.next().await;
        }
        std::process::exit(i32::from(first.exit_status()));
    });
}

fn cannot(error: io::Error) -> Failure {
    Failure::Error(Error::new(
        ErrorCode::Io,
        format!("cannot start the thread that waits for signals: {error}"),
    ))
}
