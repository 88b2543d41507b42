//! SHELL. A daemon of this program's own, in a temporary directory, gone when it is not needed any more.

use core::time::Duration;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use ipc_core::{Error, ErrorCode};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::role;

/// How long a daemon may take to announce that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to stop: the daemon itself drains for at most 5 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(7);
/// The line a daemon writes when it is ready.
const READY: &str = "READY=1";

/// A process that has ended when this has been dropped: it is killed, and waited for.
#[derive(Debug)]
pub(crate) struct Mortal(pub(crate) Child);

impl Drop for Mortal {
    fn drop(&mut self) {
        let Some(pid) = self.0.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) else {
            return;
        };
        // It may have ended by itself. The runtime reaps it; here it is only seen that it has ended.
        let _gone = self.0.start_kill();
        let _seen = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    }
}

/// A running daemon. Dropped, it is killed and its directory removed; [`PrivateDaemon::stop`] lets it end in order.
#[derive(Debug)]
pub(crate) struct PrivateDaemon {
    process: Mortal,
    directory: TempDir,
    pid: u32,
    started_in: Duration,
}

impl PrivateDaemon {
    /// Starts a daemon and waits until it is ready.
    ///
    /// # Errors
    /// `unreachable` when there is no such program, or when it ends or says nothing in time; the end of its log is in the
    /// message.
    pub(crate) async fn start() -> Result<Self, Error> {
        Self::configured("").await
    }

    /// The same with a configuration.
    ///
    /// # Errors
    /// As [`start`](PrivateDaemon::start).
    pub(crate) async fn configured(config: &str) -> Result<Self, Error> {
        let program = find_program("ipc-daemon")?;
        let directory = tempfile::Builder::new()
            .prefix("ipc-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(|error| {
                Error::new(ErrorCode::Io, format!("cannot make a temporary directory: {error}"))
            })?;
        let begin = Instant::now();
        let spawned = spawn(&program, directory.path(), config).map_err(|error| {
            Error::new(ErrorCode::Unreachable, format!("cannot start {}: {error}", program.display()))
        })?;
        let mut process = Mortal(spawned);
        let pid = process.0.id().unwrap_or_default();
        if let Err(reason) = wait_until_ready(&mut process.0).await {
            let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
            let message = format!("{} {reason}: {}", program.display(), log.trim_end());
            return Err(Error::new(ErrorCode::Unreachable, message).with_hint("run `ipc-daemon` by itself"));
        }
        Ok(Self { process, directory, pid, started_in: begin.elapsed() })
    }

    /// Where its sockets are.
    pub(crate) fn runtime_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// The directory that holds everything of it, and what else is to go with it.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The time from its start until it was ready.
    pub(crate) fn started_in(&self) -> Duration {
        self.started_in
    }

    /// Asks it to end, waits until it has, and removes its directory.
    ///
    /// # Errors
    /// `io` when it did not end by itself, or left with a failure, or something of the directory stays.
    pub(crate) async fn stop(mut self) -> Result<(), Error> {
        let pid = self.process.0.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself; the status tells.
            let _gone = kill_process(pid, Signal::TERM);
        }
        let failed = |what: String| Error::new(ErrorCode::Io, format!("the private daemon {what}"));
        let Ok(ended) = timeout(STOP_TIMEOUT, self.process.0.wait()).await else {
            return Err(failed(format!("did not stop within {} s and was killed", STOP_TIMEOUT.as_secs())));
        };
        let status = ended.map_err(|error| failed(format!("cannot be waited for: {error}")))?;
        self.directory.close().map_err(|error| failed(format!("left something behind: {error}")))?;
        if status.success() { Ok(()) } else { Err(failed(format!("ended with {status}"))) }
    }
}

/// The program beside this one, else in `$PATH`.
///
/// # Errors
/// `unreachable` when it is in neither place.
pub(crate) fn find_program(name: &str) -> Result<PathBuf, Error> {
    let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(|place| place.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = beside.into_iter().chain(std::env::split_paths(&path).map(|place| place.join(name)));
    places.find(|place| place.is_file()).ok_or_else(|| {
        Error::new(ErrorCode::Unreachable, format!("there is no {name} beside ipc-cli and none in $PATH"))
            .with_hint(format!("put {name} into the same directory as ipc-cli; `cargo build` does"))
    })
}

/// The readiness line comes over standard output, the log goes to a file.
fn spawn(program: &Path, directory: &Path, config: &str) -> std::io::Result<Child> {
    let run = directory.join("run");
    let state = directory.join("state");
    for place in [&run, &state] {
        fs::DirBuilder::new().create(place)?;
        fs::set_permissions(place, Permissions::from_mode(0o700))?;
    }
    let mut line = vec![program.as_os_str().to_owned()];
    for (option, place) in [("--runtime-dir", run), ("--state-dir", state)] {
        line.extend([OsString::from(option), place.into_os_string()]);
    }
    // Its own, so that what the user has configured for another daemon is not for this one.
    let file = directory.join("daemon.toml");
    fs::write(&file, config)?;
    line.extend([OsString::from("--config"), file.into_os_string()]);
    line.extend(["--ready-fd", "1", "--log-format", "text"].map(OsString::from));
    let mut command = role::guarded_command(&line);
    // What the user has set for another daemon is not for this one.
    for variable in ["IPC_CONFIG", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(fs::File::create(directory.join("log"))?);
    let mut command = Command::from(command);
    // Ctrl-C on the terminal is for this program, which stops the daemon last.
    command.process_group(0).spawn()
}

async fn wait_until_ready(process: &mut Child) -> Result<(), String> {
    let Some(stdout) = process.stdout.take() else { return Err("has no standard output".to_owned()) };
    let mut line = String::new();
    match timeout(READY_TIMEOUT, BufReader::new(stdout).read_line(&mut line)).await {
        Err(_) => Err(format!("did not become ready within {} s", READY_TIMEOUT.as_secs())),
        Ok(Err(error)) => Err(format!("cannot be listened to: {error}")),
        Ok(Ok(_)) if line.trim_end() == READY => Ok(()),
        Ok(Ok(0)) => Err("ended before it was ready".to_owned()),
        Ok(Ok(_)) => Err(format!("wrote \"{}\" instead of {READY}", line.trim_end().escape_debug())),
    }
}
