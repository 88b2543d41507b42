//! SHELL. A process beside this one that ends what this one leaves behind when it is killed.
//!
//! A command dies with this program, since the kernel is asked for that; what the command has started does not. The watchdog
//! knows the process groups that run, and reads from a pipe that nobody but this process writes to: its end is the end of
//! this process, however that came.

use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::SigSet;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::role;

/// What is watched in this process.
static WATCHED: Mutex<Watched> = Mutex::new(Watched { groups: Vec::new(), watchdog: None });

#[derive(Debug)]
struct Watched {
    groups: Vec<Pid>,
    /// Once a command was run.
    watchdog: Option<Child>,
}

/// Has the group ended with this process.
///
/// # Errors
/// When no watchdog can be started.
pub(crate) fn watch(group: Pid) -> io::Result<()> {
    let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    let Watched { groups, watchdog } = &mut *watched;
    groups.push(group);
    if watchdog.as_mut().is_some_and(|running| tell(running, group, '+').is_ok()) {
        return Ok(());
    }
    // There is none yet, or somebody has ended it.
    if let Some(mut ended) = watchdog.take() {
        ended.kill()?;
        ended.wait()?;
    }
    let running = watchdog.insert(start()?);
    groups.iter().try_for_each(|group| tell(running, *group, '+'))
}

/// The group has ended, or is about to.
pub(crate) fn forget(group: Pid) {
    let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    watched.groups.retain(|watched| *watched != group);
    if let Some(running) = watched.watchdog.as_mut() {
        // One that is gone watches nobody.
        let _gone = tell(running, group, '-');
    }
}

fn start() -> io::Result<Child> {
    let mut command = command();
    // What is sent to our group is not for it.
    command.process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

fn command() -> Command {
    // A test is not the program, which knows the role.
    if cfg!(test) { Command::new("cat") } else { role::watchdog_command() }
}

fn tell(watchdog: &mut Child, group: Pid, what: char) -> io::Result<()> {
    let line = format!("{what}{}\n", group.as_raw_nonzero());
    watchdog.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(line.as_bytes())
}

/// What the watchdog does until its end.
pub(crate) fn play() -> ExitCode {
    // A terminal that closes and a stop that goes to everybody are no reason to leave the groups alone. The call fails for numbers
    // that are no signals only.
    let _cannot_fail = SigSet::all().thread_block();
    let mut groups = Vec::new();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        note(&mut groups, &line);
    }
    for group in groups {
        // The only failure is that nobody of the group is there any more.
        let _gone = kill_process_group(group, Signal::KILL);
    }
    ExitCode::SUCCESS
}

fn note(groups: &mut Vec<Pid>, line: &str) {
    let group = |number: &str| number.parse().ok().and_then(Pid::from_raw);
    if let Some(begun) = line.strip_prefix('+').and_then(group) {
        groups.push(begun);
    }
    if let Some(ended) = line.strip_prefix('-').and_then(group) {
        groups.retain(|group| *group != ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_have_ended_are_forgotten() {
        let mut groups = Vec::new();
        for line in ["+70", "+80", "-70", "", "+", "+0", "-x", "-99"] {
            note(&mut groups, line);
        }
        assert_eq!(groups, [Pid::from_raw(80).expect("not zero")]);
    }
}
