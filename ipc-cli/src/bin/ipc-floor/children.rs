//! SHELL. The processes of one measurement and their directory: started, listened to, and gone when it ends.
//!
//! Whatever happens, an error, a signal or a child that hangs, dropping `Family` kills and reaps every process and
//! removes the directory. Every wait has the same deadline.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::args::{Options, ROLE, Role};
use crate::control;
use crate::failure::{Failure, at};
use crate::report::Report;

/// Start, warm-up and end of a measurement may take this long beyond the measured phase.
const GRACE: Duration = Duration::from_secs(30);
const LINE_MAX: usize = 512;

/// All processes of one measurement.
pub(crate) struct Family {
    members: Vec<Member>,
    // After the members, because fields are dropped in order and a socket is removed last.
    directory: Directory,
    options: Options,
    signals: SignalFd,
    deadline: Instant,
}

/// One process, by its place in the order of starting.
#[derive(Clone, Copy)]
pub(crate) struct MemberId(usize);

struct Member {
    role: Role,
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    unread: Vec<u8>,
}

impl Family {
    pub(crate) fn new(options: Options) -> Result<Self, Failure> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block().map_err(at("hold signals back"))?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(at("read signals"))?;
        let deadline = Instant::now() + options.time + GRACE;
        Ok(Self { members: Vec::new(), directory: Directory::create()?, options, signals, deadline })
    }

    /// Starts a process and returns without waiting for it.
    pub(crate) fn start(&mut self, role: Role) -> Result<MemberId, Failure> {
        let program = std::env::current_exe().map_err(at("find this program"))?;
        let mut child = Command::new(program)
            .arg(ROLE)
            .arg(role.name())
            .arg(self.directory.path())
            .args(self.options.to_arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(at("start a process"))?;
        let input = child.stdin.take();
        let Some(output) = child.stdout.take() else {
            return Err(Failure::new(format!("{} was started without an output", role.name())));
        };
        self.members.push(Member { role, child, input, output, unread: Vec::new() });
        Ok(MemberId(self.members.len() - 1))
    }

    pub(crate) fn wait_until_ready(&mut self, id: MemberId) -> Result<(), Failure> {
        match self.line(id)?.as_str() {
            control::READY => Ok(()),
            other => Err(Failure::new(format!("instead of being ready a process said: {other}"))),
        }
    }

    pub(crate) fn go(&mut self, id: MemberId) -> Result<(), Failure> {
        let input = self.members.get_mut(id.0).and_then(|member| member.input.as_mut());
        let input = input.ok_or_else(|| Failure::new("a process was told to go after its end"))?;
        writeln!(input, "{}", control::GO).map_err(at("tell a process to go"))
    }

    pub(crate) fn report(&mut self, id: MemberId) -> Result<Report, Failure> {
        Report::from_line(&self.line(id)?)
    }

    /// Closes every standard input, which ends the relay, which ends the rest; reaps all.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        for member in &mut self.members {
            member.input = None;
        }
        for index in 0..self.members.len() {
            // Nobody but the process holds the other end, so the end of its output is the end of the process.
            while self.fill(MemberId(index))? > 0 {}
            let Some(member) = self.members.get_mut(index) else { continue };
            let status = member.child.wait().map_err(at("reap a process"))?;
            if !status.success() {
                return Err(Failure::new(format!("{} ended with {status}", member.role.name())));
            }
        }
        Ok(())
    }

    fn line(&mut self, id: MemberId) -> Result<String, Failure> {
        loop {
            let member =
                self.members.get_mut(id.0).ok_or_else(|| Failure::new("there is no such process"))?;
            if let Some(end) = member.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = member.unread.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            let role = member.role.name();
            if member.unread.len() > LINE_MAX {
                return Err(Failure::new(format!("{role} reported more than a line")));
            }
            if self.fill(id)? == 0 {
                return Err(Failure::new(format!("{role} ended early; what it said is above")));
            }
        }
    }

    /// Sleeps until a process says something; takes it and returns its length, 0 at the end of its output.
    fn fill(&mut self, id: MemberId) -> Result<usize, Failure> {
        let member = self.members.get_mut(id.0).ok_or_else(|| Failure::new("there is no such process"))?;
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let mut descriptors = [
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(member.output.as_fd(), PollFlags::POLLIN),
            ];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let ready = match poll(&mut descriptors, timeout) {
                Err(nix::errno::Errno::EINTR) => continue,
                result => result.map_err(at("wait for a process"))?,
            };
            if ready == 0 {
                let limit = self.options.time + GRACE;
                let role = member.role.name();
                let text =
                    format!("{role} did not finish within {limit:?}; fewer --warmup operations may help");
                return Err(Failure::new(text));
            }
            if descriptors.first().and_then(PollFd::any) == Some(true) {
                return Err(Failure::new("stopped by a signal"));
            }
            let mut buffer = [0; LINE_MAX];
            let length = match member.output.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result.map_err(at("listen to a process"))?,
            };
            member.unread.extend(buffer.iter().take(length));
            return Ok(length);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Both fail only for a process that has been reaped already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory of this measurement alone, removed with everything in it.
struct Directory(PathBuf);

impl Directory {
    fn create() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("ipc-floor-{}", std::process::id()));
        // One that exists belongs to somebody else: creating fails, and nothing of theirs is used or removed.
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| Failure::new(format!("cannot create {}: {error}", path.display())))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("ipc-floor: cannot remove {}: {error}", self.0.display());
        }
    }
}
