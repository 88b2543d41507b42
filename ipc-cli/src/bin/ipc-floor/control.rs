//! SHELL. What a started process says to the one that started it: `ready`, then after `go` one report.
//!
//! Standard input brings `go`, standard output takes the two lines, standard error is for people.

use std::io::{self, BufRead as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::time::{ClockId, clock_gettime};

use crate::args::Role;
use crate::failure::{Failure, at};
use crate::report::Report;

pub(crate) const READY: &str = "ready";
pub(crate) const GO: &str = "go";

const FRONT: &str = "front";
const BACK: &str = "back";

/// Ties this process to the one that started it. The first thing a role does.
///
/// Nothing may outlive a measurement, not even one that was killed and could not clean up.
pub(crate) fn enter(role: Role) -> Result<(), Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(at("tie this process to its parent"))?;
    // The parent blocks signals to read them from a descriptor, and a mask is inherited.
    SigSet::empty().thread_set_mask().map_err(at("unblock signals"))?;
    let name = std::ffi::CString::new(role.name()).unwrap_or_default();
    prctl::set_name(&name).map_err(at("name this process"))?;
    // A parent that died before the first line sent no signal, but its end of the pipe is closed.
    let stdin = io::stdin();
    let mut descriptors = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let gone = poll(&mut descriptors, PollTimeout::ZERO).map_err(at("look for the measuring process"))?;
    if gone == 0 {
        Ok(())
    } else {
        Err(Failure::new("the measuring process went away; roles are not for people"))
    }
}

pub(crate) fn say_ready() -> Result<(), Failure> {
    say(READY)
}

pub(crate) fn report(report: &Report) -> Result<(), Failure> {
    say(&report.to_line())
}

fn say(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(at("report to the measuring process"))
}

/// Says that this end is warm and sleeps until all the others are.
pub(crate) fn wait_for_go() -> Result<(), Failure> {
    say_ready()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(at("wait for the start"))?;
    if line.trim_end() == GO { Ok(()) } else { Err(Failure::new("the measuring process went away")) }
}

/// Nanoseconds of `CLOCK_MONOTONIC`, which all processes share, so that their reports can be compared.
pub(crate) fn now_ns() -> Result<u64, Failure> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(at("read the clock"))?;
    Ok((time.tv_sec() as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec() as u64))
}

pub(crate) fn bind_front(directory: &Path) -> Result<UnixListener, Failure> {
    UnixListener::bind(directory.join(FRONT)).map_err(at("listen for fronts (is TMPDIR very long?)"))
}

pub(crate) fn bind_back(directory: &Path) -> Result<UnixListener, Failure> {
    UnixListener::bind(directory.join(BACK)).map_err(at("listen for backs (is TMPDIR very long?)"))
}

pub(crate) fn connect_front(directory: &Path) -> Result<UnixStream, Failure> {
    UnixStream::connect(directory.join(FRONT)).map_err(at("connect to the relay as a front"))
}

pub(crate) fn connect_back(directory: &Path) -> Result<UnixStream, Failure> {
    UnixStream::connect(directory.join(BACK)).map_err(at("connect to the relay as a back"))
}
