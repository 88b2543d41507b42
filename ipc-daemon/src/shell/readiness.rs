//! Telling whoever started the daemon that clients can connect, that the bus is alive, and that it stops.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{TrySendError, sync_channel};

use ipc_core::transport::process;
use sd_notify::NotifyState;

use crate::bus::watchdog::Watchdog;
use crate::failure::Failure;

/// Whom to tell.
#[derive(Debug)]
pub(crate) struct Readiness {
    descriptor: Option<(i32, OwnedFd)>,
}

impl Readiness {
    /// Takes over descriptor `number`, of `--ready-fd`. To be called before anything else is opened.
    ///
    /// # Errors
    /// 78 when nothing is open under that number.
    pub(crate) fn take(number: Option<i32>) -> Result<Self, Failure> {
        let descriptor = match number {
            Some(number) => Some((number, process::take_inherited(number)?)),
            None => None,
        };
        Ok(Self { descriptor })
    }

    /// Writes the line `READY=1` to the descriptor and closes it, and tells the service manager in `$NOTIFY_SOCKET`. If
    /// nobody listens there any more the daemon serves all the same.
    pub(crate) fn announce(self) {
        if let Some((number, descriptor)) = self.descriptor {
            let written =
                File::from(descriptor).write_all(b"READY=1\n").and_then(|()| close_standard_stream(number));
            if let Err(error) = written {
                tracing::warn!("cannot announce readiness to --ready-fd {number}: {error}");
            }
        }
        notify(&[NotifyState::Ready]);
    }
}

/// A reader of the descriptor waits for its end. The standard input and output are replaced by nothing, so that their
/// numbers are never given to another file; the standard error stays open for log lines.
fn close_standard_stream(number: i32) -> io::Result<()> {
    let null = || File::options().read(true).write(true).open("/dev/null");
    match number {
        0 => rustix::stdio::dup2_stdin(null()?)?,
        1 => rustix::stdio::dup2_stdout(null()?)?,
        _ => {}
    }
    Ok(())
}

/// Signs of life of the bus, if the service manager watches for them: `WATCHDOG=1` twice in the time of `$WATCHDOG_USEC`
/// (sd_watchdog_enabled(3)).
///
/// # Errors
/// 74 when the thread that tells it cannot be started: to tell may take the manager's own good time.
pub(crate) fn watchdog() -> Result<Option<Watchdog>, Failure> {
    let patience = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero());
    let Some(patience) = patience else { return Ok(None) };
    let (sign, signs) = sync_channel::<()>(1);
    // It ends with the bus.
    std::thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(move || signs.into_iter().for_each(|()| notify(&[NotifyState::Watchdog])))
        .map_err(|error| Failure::io("start the thread that gives signs of life", error))?;
    let give = move || {
        // One that waits already says the same.
        let _: Result<(), TrySendError<()>> = sign.try_send(());
    };
    Ok(Some(Watchdog::new(patience / 2, give)))
}

/// Tells the service manager that the daemon begins to stop.
pub(crate) fn announce_stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("cannot notify the service manager in $NOTIFY_SOCKET: {error}");
    }
}
