//! Real daemons for end-to-end tests: each in a temporary directory of its own, ready when it is handed out, gone when it is
//! dropped. Nothing waits without a bound.

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
pub use rustix::process::Signal;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tempfile::TempDir;

use crate::programs::program;

/// How long anything may take that takes milliseconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How a daemon is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Further arguments.
    pub arguments: Vec<OsString>,
    /// Variables beside those that every daemon of a test gets.
    pub environment: Vec<(OsString, OsString)>,
    /// A program that starts the daemon, with its own arguments; the daemon's command line is put behind them.
    pub launcher: Vec<OsString>,
    /// Text of a configuration file.
    pub config: Option<String>,
    /// Runtime directory; one of its own if there is none.
    pub runtime_dir: Option<PathBuf>,
    /// State directory; one of its own if there is none.
    pub state_dir: Option<PathBuf>,
}

impl Options {
    /// With further arguments.
    pub fn with_arguments<T: Into<OsString>>(arguments: impl IntoIterator<Item = T>) -> Self {
        Self { arguments: arguments.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Started by a shell script, which is to end with `exec "$@"`.
    pub fn with_script(script: &str) -> Self {
        let launcher = ["sh", "-c", script, "sh"].map(OsString::from).to_vec();
        Self { launcher, ..Self::default() }
    }

    /// Started the way a service manager does it: a listening socket at `path`, with the permissions `mode`, is
    /// descriptor 3, and the variables say so.
    pub fn with_handed_over(path: &Path, mode: u32) -> Self {
        let script = "import os, socket, sys\n\
            listener = socket.socket(socket.AF_UNIX)\n\
            listener.bind(sys.argv[1])\n\
            os.chmod(sys.argv[1], int(sys.argv[2], 8))\n\
            listener.listen(8)\n\
            os.dup2(listener.fileno(), 3)\n\
            os.set_inheritable(3, True)\n\
            os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n\
            os.execv(sys.argv[3], sys.argv[3:])\n";
        let mut launcher: Vec<OsString> = vec!["python3".into(), "-c".into(), script.into()];
        launcher.extend([path.as_os_str().to_owned(), format!("{mode:o}").into()]);
        Self { launcher, ..Self::default() }
    }

    /// With the text of a configuration file.
    pub fn with_config(text: impl Into<String>) -> Self {
        Self { config: Some(text.into()), ..Self::default() }
    }
}

/// A daemon that ended by itself.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What it wrote to its standard error.
    pub stderr: String,
}

/// A running daemon. Dropping it kills it and removes its directory.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    process: OwnedFd,
    stderr: Option<JoinHandle<()>>,
    log: Arc<Mutex<Vec<u8>>>,
    runtime_dir: PathBuf,
    directory: TempDir,
}

impl Daemon {
    /// Starts a daemon with nothing special, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready, with what it wrote to its standard error.
    pub fn start() -> Self {
        Self::start_with(&Options::default())
    }

    /// Starts a daemon and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready, with what it wrote to its standard error.
    pub fn start_with(options: &Options) -> Self {
        Self::try_start(options).unwrap_or_else(|ended| panic!("the daemon did not start: {ended:#?}"))
    }

    /// Starts a daemon and waits until it is ready or has ended.
    ///
    /// # Errors
    /// How it ended.
    ///
    /// # Panics
    /// When it does neither in time.
    pub fn try_start(options: &Options) -> Result<Self, Ended> {
        let mut daemon = Self::spawn(options);
        let ready = read_line(daemon.child.stdout.take());
        match ready.as_deref() {
            Some("READY=1\n") => Ok(daemon),
            Some(other) => panic!("the daemon announced {other:?}"),
            None => Err(daemon.wait()),
        }
    }

    fn spawn(options: &Options) -> Self {
        // Not in $TMPDIR, which may be long: the address of a socket has 107 bytes.
        let directory =
            tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").expect("a temporary directory");
        let own = |name: &str| directory.path().join(name);
        let runtime_dir = options.runtime_dir.clone().unwrap_or_else(|| own("run"));
        let state_dir = options.state_dir.clone().unwrap_or_else(|| own("state"));
        let mut command = match options.launcher.split_first() {
            Some((launcher, arguments)) => {
                let mut command = Command::new(launcher);
                command.args(arguments).arg(program("ipc-daemon"));
                command
            }
            None => Command::new(program("ipc-daemon")),
        };
        command.arg("--runtime-dir").arg(&runtime_dir).arg("--state-dir").arg(state_dir);
        // The standard output becomes the descriptor for readiness: the one that std can hand over.
        command.args(["--ready-fd", "1", "--log-format", "text"]).args(&options.arguments);
        if let Some(text) = &options.config {
            std::fs::write(own("daemon.toml"), text).expect("the configuration file is written");
            command.arg("--config").arg(own("daemon.toml"));
        }
        // What the tester's own session says about buses must not reach the daemon.
        let variables = std::env::vars_os().map(|(name, _)| name);
        for name in variables.filter(|name| is_foreign(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        command.env("HOME", directory.path()).envs(options.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("ipc-daemon starts");
        let process = Pid::from_child(&child);
        let process = pidfd_open(process, PidfdFlags::empty()).expect("a child that was not waited for");
        let mut pipe = child.stderr.take().expect("the standard error is a pipe");
        let log = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&log);
        let stderr = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match pipe.read(&mut buffer).expect("the standard error can be read") {
                    0 => return,
                    count => written.lock().expect("nobody panics in here").extend(&buffer[..count]),
                }
            }
        });
        Self { child, process, stderr: Some(stderr), log, runtime_dir, directory }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The directory of its sockets.
    pub fn runtime_dir(&self) -> &Path {
        &self.runtime_dir
    }

    /// Its stream socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime_dir.join("bus.sock")
    }

    /// Its datagram socket.
    pub fn datagram_socket(&self) -> PathBuf {
        self.runtime_dir.join("bus.dgram")
    }

    /// Processor time it has used so far, to a hundredth of a second.
    ///
    /// # Panics
    /// When it is gone.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        // Behind the name, which may hold anything: fields 14 and 15 of proc_pid_stat(5), counted from 1.
        let fields = stat.rsplit_once(')').expect("a name in brackets").1.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
        // USER_HZ is 100 on every architecture that std knows.
        Duration::from_millis(ticks * 10)
    }

    /// Descriptors that it has open.
    ///
    /// # Panics
    /// When it is gone.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    /// Memory that it has resident, in bytes.
    ///
    /// # Panics
    /// When it is gone.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory is shown");
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kibibytes * 1024
    }

    /// Its address, as `--address` takes it.
    pub fn address(&self) -> OsString {
        let mut address = OsString::from("unix:");
        address.push(self.socket());
        address
    }

    /// What it has written to its standard error so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().expect("nobody panics in here")).into_owned()
    }

    /// Writes another configuration and has the daemon read it. The daemon must have been started with one.
    pub fn reload(&self, config: &str) {
        // In one piece, because an earlier signal may have it read the file just then.
        let (new, file) = (self.directory.path().join("new.toml"), self.directory.path().join("daemon.toml"));
        std::fs::write(&new, config).expect("the file is written");
        std::fs::rename(&new, &file).expect("the file is replaced");
        self.signal(Signal::HUP);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        rustix::process::pidfd_send_signal(&self.process, signal).expect("the daemon can be signalled");
    }

    /// Asks the daemon to stop and waits until it has.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn stop(mut self) -> Ended {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Kills the daemon as if it had crashed, and waits until it is gone.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn kill(mut self) -> Ended {
        self.signal(Signal::KILL);
        self.wait()
    }

    /// Waits until the daemon has ended by itself.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn wait(&mut self) -> Ended {
        assert!(is_ready(&self.process, Instant::now() + PATIENCE), "the daemon does not end");
        let status = self.child.wait().expect("the daemon has ended");
        if let Some(reader) = self.stderr.take() {
            reader.join().expect("the reader does not panic");
        }
        Ended { status, stderr: self.log() }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted here.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Under a tracer that is another process, which may outlive it for a moment and keep what it holds.
        let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
        let _ = is_ready(&self.process, Instant::now() + PATIENCE);
        if let (Some(reader), true) = (self.stderr.take(), std::thread::panicking())
            && reader.join().is_ok()
        {
            eprintln!("standard error of the daemon:\n{}", self.log());
        }
    }
}

/// Tries until `condition` holds; false when it does not in time. For what nothing announces.
pub fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if condition() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

fn is_foreign(variable: &str) -> bool {
    ["IPC_", "XDG_", "LISTEN_", "NOTIFY_SOCKET"].iter().any(|prefix| variable.starts_with(prefix))
        && !variable.starts_with("IPC_TEST_")
}

/// Reads up to the first line end; `None` when the other end closed before.
pub(crate) fn read_line(pipe: Option<impl Read + AsFd>) -> Option<String> {
    let mut pipe = pipe.expect("the standard output is a pipe");
    let end = Instant::now() + PATIENCE;
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        assert!(is_ready(&pipe, end), "the program neither becomes ready nor ends");
        match pipe.read(&mut byte).expect("the standard output can be read") {
            0 => return None,
            _ => line.push(byte[0]),
        }
        if byte == *b"\n" {
            return Some(String::from_utf8_lossy(&line).into_owned());
        }
    }
}

/// Waits until `fd` can be read; false when the time is up before.
fn is_ready(fd: &impl AsFd, end: Instant) -> bool {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).expect("half a minute fits");
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&left)) {
            Ok(count) => return count > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => panic!("poll: {errno}"),
        }
    }
}
