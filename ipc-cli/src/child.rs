//! SHELL. One command, run for one call: its input, its output, and that nothing of it is left behind.

use core::future::Future;
use core::time::Duration;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpgrp, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::timeout;

#[cfg(not(test))]
use crate::role;
use crate::{terminal, watchdog};

/// How long a command has between the request to end and the end.
const TERMINATE_GRACE: Duration = Duration::from_secs(5);
/// How long a pipe may stay open after its command has ended: a process that left the group may hold it.
const PIPE_GRACE: Duration = Duration::from_secs(1);
/// How much of the end of standard error is kept, in bytes.
const STDERR_TAIL_BYTES: usize = 2048;

/// What is run.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The program and its arguments.
    pub(crate) command: Vec<OsString>,
    /// Set in its environment, or removed from it.
    pub(crate) environment: Vec<(&'static str, Option<String>)>,
    /// What it finds on standard input.
    pub(crate) input: bytes::Bytes,
    /// Largest output in bytes; a command that writes more is ended.
    pub(crate) output_max_bytes: usize,
    /// Whether its standard error is also shown on ours.
    pub(crate) shows_stderr: bool,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It succeeded with this output.
    Succeeded(Vec<u8>),
    /// It ended with another status, after the end of its standard error.
    Failed(ExitStatus, String),
    /// It wrote more than it may and was ended.
    OutputTooLarge,
    /// It was asked to stop and has ended.
    Stopped,
}

/// Runs a command in a process group of its own until it ends or `stop` is ready. When this returns, or is dropped,
/// nothing of the group is left.
///
/// # Errors
/// What the kernel says when a process or a pipe cannot be made.
pub(crate) async fn run(job: Job, stop: impl Future<Output = ()>) -> io::Result<Outcome> {
    let (mut group, pipes) = Group::start(&job)?;
    let feed = Helper(tokio::spawn(feed(pipes.stdin, job.input)));
    let mut errors = Helper(tokio::spawn(keep_tail(pipes.stderr, job.shows_stderr)));
    let output = tokio::select! {
        output = collect(&mut group, pipes.stdout, job.output_max_bytes) => output?,
        () = stop => {
            // How it ended is of no interest; that nothing is left is.
            let _status = group.terminate().await;
            return Ok(Outcome::Stopped);
        }
    };
    let Some(output) = output else {
        let _status = group.terminate().await;
        return Ok(Outcome::OutputTooLarge);
    };
    let status = group.end()?;
    drop(feed);
    if status.success() {
        return Ok(Outcome::Succeeded(output));
    }
    // The tail is for people: a helper that failed or was too slow leaves it empty.
    let tail = timeout(PIPE_GRACE, &mut errors.0).await.ok().and_then(Result::ok).unwrap_or_default();
    Ok(Outcome::Failed(status, String::from_utf8_lossy(&tail).into_owned()))
}

/// Runs a command on our own input and output, in a process group of its own, until it ends or `stop` is ready: then it is
/// asked to end, and after five seconds ended. When this returns, or is dropped, nothing of the group is left.
///
/// # Errors
/// What the kernel says when a process cannot be made.
pub(crate) async fn supervise(
    line: &[OsString],
    environment: &[(&'static str, Option<String>)],
    stop: impl Future<Output = ()>,
) -> io::Result<ExitStatus> {
    let mut group = Group::spawn(line, environment, |command| command.spawn())?;
    group.end_or_stop(stop).await
}

/// Runs a command with that input, on our own output, until it ends or `stop` is ready, as [`supervise`] does.
///
/// # Errors
/// What the kernel says when a process or a pipe cannot be made.
pub(crate) async fn feed_to(
    line: &[OsString],
    environment: &[(&'static str, Option<String>)],
    input: bytes::Bytes,
    stop: impl Future<Output = ()>,
) -> io::Result<ExitStatus> {
    let mut group = Group::spawn(line, environment, |command| command.stdin(Stdio::piped()).spawn())?;
    let stdin =
        group.leader.stdin.take().ok_or_else(|| io::Error::other("a pipe of the command is missing"))?;
    let stdin = pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?;
    let _feed = Helper(tokio::spawn(feed(stdin, input)));
    group.end_or_stop(stop).await
}

/// The exit status that stands for that of a command, as shells have it.
pub(crate) fn shell_status(status: ExitStatus) -> u8 {
    let signal = || status.signal().map(|signal| 128 + signal);
    status.code().or_else(signal).and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// The short word for a failed status: `exit-3`, `signal-9`.
pub(crate) fn status_code(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit-{code}"),
        (None, Some(signal)) => format!("signal-{signal}"),
        (None, None) => "exit-unknown".to_owned(),
    }
}

/// A task that ends with its owner.
struct Helper<T>(JoinHandle<T>);

impl<T> Drop for Helper<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Our ends of the three pipes.
struct Pipes {
    stdin: pipe::Sender,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
}

/// The process group of one command. Its leader is reaped last, so that the group's number cannot become another's.
struct Group {
    leader: std::process::Child,
    number: Pid,
    /// Told when any child of this process has ended.
    children: tokio::signal::unix::Signal,
    is_reaped: bool,
}

impl Group {
    fn start(job: &Job) -> io::Result<(Self, Pipes)> {
        let mut group = Self::spawn(&job.command, &job.environment, spawn_piped)?;
        let pipes = our_ends(&mut group.leader)?;
        Ok((group, pipes))
    }

    fn spawn(
        line: &[OsString],
        environment: &[(&'static str, Option<String>)],
        spawn: impl FnOnce(&mut Command) -> io::Result<std::process::Child>,
    ) -> io::Result<Self> {
        let mut command = guarded(line);
        for (name, value) in environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.process_group(0);
        let children = signal(SignalKind::child())?;
        let leader = spawn(&mut command)?;
        let number = Pid::from_child(&leader);
        let group = Self { leader, number, children, is_reaped: false };
        watchdog::watch(number)?;
        Ok(group)
    }

    /// Waits for its end, or ends it when `stop` is ready.
    async fn end_or_stop(&mut self, stop: impl Future<Output = ()>) -> io::Result<ExitStatus> {
        tokio::select! {
            ended = self.leader_ended() => ended?,
            () = stop => return self.terminate().await,
        }
        self.end()
    }

    /// Waits until the leader has ended; it stays a zombie.
    async fn leader_ended(&mut self) -> io::Result<()> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while waitid(WaitId::Pid(self.number), look)?.is_none() {
            self.stop_with_leader()?;
            if self.children.recv().await.is_none() {
                return Err(io::Error::other("this process is not told any more when its children end"));
            }
        }
        Ok(())
    }

    /// When it was stopped from the terminal (with Ctrl-Z, say) or because it wants one that it has not, we stop with our group, so that
    /// the shell is told, and go on with it. When the terminal is ours (after `fg`, say), it gets it.
    fn stop_with_leader(&self) -> io::Result<()> {
        let look = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let Some(stopped) = waitid(WaitId::Pid(self.number), look)? else { return Ok(()) };
        let had_terminal = terminal::take_back(self.number);
        let wants = [Signal::TTIN, Signal::TTOU].map(|signal| Some(signal.as_raw()));
        if !had_terminal && !wants.contains(&stopped.stopping_signal()) {
            return Ok(());
        }
        if had_terminal || !terminal::pass_on(self.number) {
            // Nobody would continue a group that no shell looks after: there it stops nothing (setpgid(2)).
            kill_process_group(getpgrp(), Signal::TSTP)?;
            if !terminal::pass_on(self.number) && !had_terminal {
                return Ok(());
            }
        }
        self.signal(Signal::CONT);
        Ok(())
    }

    /// SIGTERM to all, and after the grace SIGKILL to what is left.
    async fn terminate(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM);
        // One that is stopped would hear of it only then.
        self.signal(Signal::CONT);
        // Whether it ended by itself, not in time, or cannot be watched: what is left is killed.
        let _ended_or_not = timeout(TERMINATE_GRACE, self.leader_ended()).await;
        // An error leaves the reaping to the drop.
        self.end()
    }

    /// Kills what is left of the group and reaps its leader.
    fn end(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL);
        let had_terminal = terminal::take_back(self.number);
        // Before its number can become another's.
        watchdog::forget(self.number);
        let status = self.leader.wait()?;
        self.is_reaped = true;
        if had_terminal && status.signal() == Some(Signal::INT.as_raw()) {
            // Ctrl-C is for everybody in front of the terminal, and so for the script that we are part of.
            kill_process_group(getpgrp(), Signal::INT)?;
        }
        Ok(status)
    }

    fn signal(&self, signal: Signal) {
        // The only failure is that nobody of the group is there any more.
        let _gone = kill_process_group(self.number, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.is_reaped {
            // Nobody is left to tell about an error; the kernel reaps what we cannot when this process ends.
            let _status = self.end();
        }
    }
}

#[cfg(not(test))]
fn guarded(line: &[OsString]) -> Command {
    role::guarded_command(line)
}

/// A test is not the program, which knows the role.
#[cfg(test)]
fn guarded(line: &[OsString]) -> Command {
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]);
    command
}

fn spawn_piped(command: &mut Command) -> io::Result<std::process::Child> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

fn our_ends(child: &mut std::process::Child) -> io::Result<Pipes> {
    let missing = || io::Error::other("a pipe of the command is missing");
    let stdin = OwnedFd::from(child.stdin.take().ok_or_else(missing)?);
    let stdout = OwnedFd::from(child.stdout.take().ok_or_else(missing)?);
    let stderr = OwnedFd::from(child.stderr.take().ok_or_else(missing)?);
    Ok(Pipes {
        stdin: pipe::Sender::from_owned_fd(stdin)?,
        stdout: pipe::Receiver::from_owned_fd(stdout)?,
        stderr: pipe::Receiver::from_owned_fd(stderr)?,
    })
}

/// Writes the input. A command that does not read it is free to do so.
async fn feed(mut stdin: pipe::Sender, input: bytes::Bytes) {
    let _not_read = stdin.write_all(&input).await;
}

/// Reads the output until the leader has ended and the pipe is closed; `None` when it is too large.
async fn collect(group: &mut Group, stdout: pipe::Receiver, max_bytes: usize) -> io::Result<Option<Vec<u8>>> {
    let mut output = Vec::new();
    let mut source = stdout.take(max_bytes as u64 + 1);
    let mut closed = false;
    tokio::select! {
        read = source.read_to_end(&mut output) => {
            read?;
            closed = true;
        }
        ended = group.leader_ended() => ended?,
    }
    if closed {
        if output.len() > max_bytes {
            return Ok(None);
        }
        group.leader_ended().await?;
    } else {
        group.signal(Signal::KILL);
        // What is in the pipe is read; one that stays open is left.
        if let Ok(read) = timeout(PIPE_GRACE, source.read_to_end(&mut output)).await {
            read?;
        }
    }
    Ok((output.len() <= max_bytes).then_some(output))
}

/// Reads to the end and keeps the last bytes.
async fn keep_tail(mut stderr: impl AsyncRead + Unpin, is_shown: bool) -> Vec<u8> {
    let mut tail = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
        let read = chunk.get(..length).unwrap_or_default();
        if is_shown {
            let _nobody_listens = io::stderr().lock().write_all(read);
        }
        tail.extend_from_slice(read);
        let surplus = tail.len().saturating_sub(STDERR_TAIL_BYTES);
        tail.drain(..surplus);
    }
    tail
}

/// Whether the program can be found: a path that is there, or a name in `$PATH`.
pub(crate) fn is_found(program: &OsStr) -> bool {
    let path = std::path::Path::new(program);
    if path.components().count() > 1 {
        return path.exists();
    }
    let places = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&places).any(|place| place.join(path).is_file())
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn sh(script: &str, input: &str) -> Job {
        Job {
            command: ["sh", "-c", script].map(OsString::from).into(),
            environment: vec![("IPC_TEST", Some("set".to_owned())), ("HOME", None)],
            input: bytes::Bytes::copy_from_slice(input.as_bytes()),
            output_max_bytes: 100_000,
            shows_stderr: false,
        }
    }

    async fn ended(job: Job) -> Outcome {
        run(job, pending()).await.expect("runs")
    }

    fn is_alive(pid: &str) -> bool {
        let pid = Pid::from_raw(pid.trim().parse().expect("a pid")).expect("not zero");
        rustix::process::test_kill_process(pid).is_ok()
    }

    #[tokio::test]
    async fn the_output_is_the_answer() {
        assert_eq!(ended(sh("tr a-z A-Z", "hello")).await, Outcome::Succeeded(b"HELLO".to_vec()));
        assert_eq!(ended(sh("printf %s \"$IPC_TEST$HOME\"", "")).await, Outcome::Succeeded(b"set".to_vec()));
        let large = "x".repeat(100_000);
        assert_eq!(ended(sh("cat", &large)).await, Outcome::Succeeded(large.clone().into_bytes()));
        assert_eq!(
            ended(sh("exec <&-; echo unread", &large)).await,
            Outcome::Succeeded(b"unread\n".to_vec())
        );
    }

    #[tokio::test]
    async fn a_failure_names_its_status_and_the_end_of_what_was_said() {
        let Outcome::Failed(status, said) =
            ended(sh("yes no | head -5000 >&2; echo last >&2; exit 3", "")).await
        else {
            panic!("not failed")
        };
        assert_eq!(status_code(status), "exit-3");
        assert!(said.ends_with("last\n") && said.len() <= STDERR_TAIL_BYTES, "{said}");
        let Outcome::Failed(status, _) = ended(sh("kill -9 $$", "")).await else { panic!("not failed") };
        assert_eq!(status_code(status), "signal-9");
    }

    #[tokio::test]
    async fn output_has_a_limit() {
        let exactly = ended(sh("head -c 100000 /dev/zero", "")).await;
        assert!(matches!(exactly, Outcome::Succeeded(output) if output.len() == 100_000));
        assert_eq!(ended(sh("head -c 100001 /dev/zero", "")).await, Outcome::OutputTooLarge);
        assert_eq!(ended(sh("exec cat /dev/zero", "")).await, Outcome::OutputTooLarge);
    }

    #[tokio::test]
    async fn nothing_of_the_group_outlives_the_command() {
        let Outcome::Succeeded(output) = ended(sh("sleep 1000 & echo $!", "")).await else {
            panic!("not succeeded")
        };
        let pid = String::from_utf8(output).expect("text");
        // Killed, and now a child of init or of a reaper, which may take a moment to reap it.
        let gone = timeout(Duration::from_secs(10), async {
            while is_alive(&pid) && !is_zombie(&pid) {
                tokio::task::yield_now().await;
            }
        });
        gone.await.expect("the background process is gone");
    }

    fn is_zombie(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.contains(") Z ")
    }

    #[tokio::test]
    async fn a_supervised_command_ends_with_its_status() {
        let sh = |script: &str| ["sh", "-c", script].map(OsString::from);
        for (script, status) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
            let ended = supervise(&sh(script), &[], pending()).await.expect("runs");
            assert_eq!(shell_status(ended), status, "{script}");
        }
        let environment = [("IPC_TEST", Some("5".to_owned()))];
        let ended = supervise(&sh("exit $IPC_TEST"), &environment, pending()).await.expect("runs");
        assert_eq!(shell_status(ended), 5);
        let ended =
            supervise(&sh("trap 'exit 9' TERM; sleep 1000 & wait"), &[], ready(())).await.expect("runs");
        assert!([9, 143].contains(&shell_status(ended)), "{ended:?}");
    }

    #[tokio::test]
    async fn a_stop_ends_it() {
        let stopped = run(sh("sleep 1000", ""), ready(())).await.expect("runs");
        assert_eq!(stopped, Outcome::Stopped);
    }
}
