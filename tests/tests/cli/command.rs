//! Running the tool.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipc_tests::daemon::PATIENCE;
use ipc_tests::programs::program;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How a run of the tool ended.
pub(crate) struct Ran {
    /// The exit status, or none after a signal.
    pub(crate) status: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) duration: Duration,
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, stdout, stderr, duration } = self;
        let stdout = String::from_utf8_lossy(stdout);
        write!(f, "status {status:?} after {duration:?}\n-- stdout\n{stdout}\n-- stderr\n{stderr}")
    }
}

impl Ran {
    /// Standard output as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap_or_else(|_| panic!("not text: {self:?}"))
    }

    /// The same, after checking the exit status and that there was nothing to complain about.
    #[track_caller]
    pub(crate) fn succeeded(&self) -> &str {
        assert_eq!(self.status, Some(0), "{self:?}");
        assert!(!self.stderr.contains("error"), "{self:?}");
        self.text()
    }

    /// Standard output as one JSON object a line.
    #[track_caller]
    pub(crate) fn objects(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.succeeded().lines().map(parse).collect()
    }

    /// Standard output as the one JSON object it is.
    #[track_caller]
    pub(crate) fn object(&self) -> Value {
        let mut objects = self.objects();
        assert_eq!(objects.len(), 1, "{self:?}");
        objects.remove(0)
    }

    /// The fields of the one error object on standard error, after checking the exit status and the code.
    #[track_caller]
    pub(crate) fn failed_with(&self, status: i32, code: &str) -> Value {
        assert_eq!(self.status, Some(status), "{self:?}");
        assert!(self.stdout.is_empty(), "an error is no data: {self:?}");
        let object: Value =
            serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let error = &object["error"];
        assert_eq!(error["code"], code, "{self:?}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
        assert!(error["hint"].is_string(), "{self:?}");
        error.clone()
    }
}

/// The tool with nothing of the tester's environment that it would look at.
pub(crate) fn tool<T: AsRef<std::ffi::OsStr>>(arguments: &[T]) -> Command {
    let mut command = Command::new(program("ipc-cli"));
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().into_owned();
        if text.starts_with("IPC_") || text.starts_with("XDG_") || text.contains("COLOR") || text == "TERM" {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the tool to its end.
pub(crate) fn run<T: AsRef<std::ffi::OsStr>>(arguments: &[T]) -> Ran {
    finish(tool(arguments).spawn().expect("ipc-cli starts"))
}

/// Runs the tool at the daemon of that runtime directory.
pub(crate) fn run_at(runtime_dir: &Path, arguments: &[&str]) -> Ran {
    run(&at(runtime_dir, arguments))
}

/// The arguments that lead to the daemon of that runtime directory.
pub(crate) fn at(runtime_dir: &Path, arguments: &[&str]) -> Vec<OsString> {
    let place = [OsString::from("--runtime-dir"), runtime_dir.into()];
    // Behind `--` everything belongs to a command of its own, so the place goes to the front.
    place.into_iter().chain(arguments.iter().map(OsString::from)).collect()
}

/// Runs the tool to its end with that standard input.
pub(crate) fn run_with_input<T: AsRef<std::ffi::OsStr>>(arguments: &[T], input: &[u8]) -> Ran {
    let mut child = tool(arguments).stdin(Stdio::piped()).spawn().expect("ipc-cli starts");
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        // A tool that refuses before it reads closes the pipe; the test looks at its answer.
        let _closed = stdin.write_all(&input);
    });
    let ran = finish(child);
    feeder.join().expect("the feeder ends");
    ran
}

/// Waits for the end of a run, within bounds.
pub(crate) fn finish(mut child: Child) -> Ran {
    let begun = Instant::now();
    let stdout = child.stdout.take().map(drain);
    let stderr = child.stderr.take().map(drain);
    let (told, ended) = std::sync::mpsc::channel();
    let pid = child.id();
    let waiter = std::thread::spawn(move || {
        let status = child.wait().expect("ipc-cli can be waited for");
        told.send(()).expect("somebody waits");
        status
    });
    if ended.recv_timeout(PATIENCE).is_err() {
        kill_process(pid_of(pid), Signal::KILL).expect("it still runs");
        panic!("ipc-cli did not end within {PATIENCE:?}");
    }
    let status = waiter.join().expect("the waiter ends");
    let collect = |thread: Option<JoinHandle<Vec<u8>>>| {
        thread.map(|thread| thread.join().expect("the reader ends")).unwrap_or_default()
    };
    Ran {
        status: status.code(),
        stdout: collect(stdout),
        stderr: String::from_utf8_lossy(&collect(stderr)).into_owned(),
        duration: begun.elapsed(),
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("the pipe can be read");
        bytes
    })
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("not zero")
}

/// The tool at work: a service, a subscriber. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// Lines of standard error, as they come.
    said: Receiver<String>,
    stdout: Option<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts the tool at the daemon of that runtime directory and waits until it says `first` on standard error.
    pub(crate) fn start(runtime_dir: &Path, arguments: &[&str], first: &str) -> Self {
        let running = Self::start_silent(runtime_dir, arguments);
        let line = running.said.recv_timeout(PATIENCE).expect("it says something");
        assert_eq!(line, first);
        running
    }

    /// The same for what says nothing on standard error to begin with.
    pub(crate) fn start_silent(runtime_dir: &Path, arguments: &[&str]) -> Self {
        let mut child = tool(&at(runtime_dir, arguments)).spawn().expect("ipc-cli starts");
        let stderr = BufReader::new(child.stderr.take().expect("standard error is a pipe"));
        let (line_out, said) = channel();
        // Ends with the process; it holds nothing.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if line_out.send(line).is_err() {
                    return;
                }
            }
        });
        let stdout = child.stdout.take().map(BufReader::new);
        Self { child, said, stdout }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(pid_of(self.child.id()), signal).expect("it still runs");
    }

    /// Closes our end of its standard output.
    pub(crate) fn stop_reading(&mut self) {
        self.stdout = None;
    }

    /// The next line of its standard output. The test's own time limit bounds the wait.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.stdout.as_mut().expect("nobody has stopped reading");
        stdout.read_line(&mut line).expect("standard output can be read");
        assert!(line.ends_with('\n'), "it ended: {line:?}");
        line.trim_end_matches('\n').to_owned()
    }

    /// The next line as a JSON object.
    pub(crate) fn object(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Waits for its end: the exit status, or none after a signal that was not caught.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        wait_until("it ends", || self.child.try_wait().expect("a child").map(|status| status.code()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Looks again until there is an answer, within bounds.
#[track_caller]
pub(crate) fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(answer) = look() {
            return answer;
        }
        std::thread::yield_now();
    }
    panic!("waited in vain until {what}");
}

/// Whether a process runs; one that has ended and was not waited for does not.
pub(crate) fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// Whether a process has a handler for each of SIGHUP, SIGINT and SIGTERM (proc_pid_status(5)).
pub(crate) fn listens(pid: u32) -> bool {
    const ALL: u64 = 1 << 0 | 1 << 1 | 1 << 14;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & ALL == ALL)
}
