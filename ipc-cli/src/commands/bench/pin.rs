//! Which CPU pinned measurements run on, and putting the daemon there for as long as they last.

use ipc_core::{Error, ErrorCode};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The first CPU this process may use.
pub(crate) fn first_cpu() -> Result<usize, Error> {
    let allowed =
        sched_getaffinity(Pid::from_raw(0)).map_err(|error| cannot("ask for the CPUs of", 0, error))?;
    (0..CpuSet::count())
        .find(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .ok_or_else(|| Error::new(ErrorCode::Io, "the kernel names no CPU this process may use"))
}

/// Puts this process on one CPU.
pub(crate) fn pin_self(cpu: usize) -> Result<(), Error> {
    set(0, &only(cpu)?)
}

/// Another process on one CPU; dropped, it gets back the CPUs it had.
#[derive(Debug)]
pub(crate) struct Pinned {
    pid: i32,
    before: CpuSet,
}

impl Pinned {
    /// Puts the first thread of a process, where a daemon's event loop is, on one CPU.
    ///
    /// # Errors
    /// `io` when the kernel does not allow it.
    pub(crate) fn new(pid: u32, cpu: usize) -> Result<Self, Error> {
        let pid = i32::try_from(pid).unwrap_or_default();
        let before = sched_getaffinity(Pid::from_raw(pid))
            .map_err(|error| cannot("ask for the CPUs of", pid, error))?;
        set(pid, &only(cpu)?)?;
        Ok(Self { pid, before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // The process may have ended; otherwise what was allowed a moment ago still is.
        let _gone = set(self.pid, &self.before);
    }
}

fn only(cpu: usize) -> Result<CpuSet, Error> {
    let mut set = CpuSet::new();
    set.set(cpu).map_err(|error| cannot("choose a CPU for", 0, error))?;
    Ok(set)
}

fn set(pid: i32, cpus: &CpuSet) -> Result<(), Error> {
    sched_setaffinity(Pid::from_raw(pid), cpus).map_err(|error| cannot("choose the CPUs of", pid, error))
}

fn cannot(what: &str, pid: i32, error: nix::Error) -> Error {
    let whom = if pid == 0 { "this process".to_owned() } else { format!("process {pid}") };
    Error::new(ErrorCode::Io, format!("cannot {what} {whom}: {error}"))
}
