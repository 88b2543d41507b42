//! SHELL. Parts this program plays for itself in processes of its own; not for people, and not in the help.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use ipc_core::Error;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::bus;
use crate::commands::bench::end::{self, EndArgs};
use crate::commands::demo;
use crate::{terminal, watchdog};

/// The word that introduces a role on the command line.
const ROLE: &str = "__role";
/// How a service of the demo registers.
const GROUP: &str = "group";
const EXCLUSIVE: &str = "exclusive";
/// Runs a command that dies with the process that started it.
const GUARD: &str = "guard";
/// Serves in the demo.
const DEMO_SERVICE: &str = "demo-service";
/// Is one end of a measurement.
const BENCH_END: &str = "bench-end";
/// Ends what the process that started it leaves behind.
const WATCHDOG: &str = "watchdog";
/// The exit status of a command that cannot be started, as shells have it.
const NOT_STARTED: u8 = 127;

/// The role this process was started for, if it was.
pub(crate) fn requested(arguments: &[OsString]) -> Option<&[OsString]> {
    match arguments {
        [_, word, rest @ ..] if word == ROLE => Some(rest),
        _ => None,
    }
}

/// This program by its path, under which others see it; by the kernel's link to it when an update has replaced its file.
pub(crate) fn program() -> PathBuf {
    let own = std::env::current_exe().ok().filter(|path| path.is_file());
    own.unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// Plays the role.
pub(crate) fn play(arguments: &[OsString]) -> ExitCode {
    match arguments {
        [name, parent, program, rest @ ..] if name == GUARD => guard(parent, program, rest),
        [name, service, mode] if name == DEMO_SERVICE => {
            concluded(demo_service(&service.to_string_lossy(), mode == GROUP))
        }
        [name, rest @ ..] if name == BENCH_END => match EndArgs::parse(rest) {
            Some(args) => concluded(end::play(&args)),
            None => unknown(),
        },
        [name] if name == WATCHDOG => watchdog::play(),
        _ => unknown(),
    }
}

fn unknown() -> ExitCode {
    complain("this is no role of ipc-cli");
    ExitCode::from(2)
}

fn concluded(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// The command line, to be run so that it dies with this process even when this process is killed.
pub(crate) fn guarded_command(line: &[OsString]) -> Command {
    let mut command = Command::new(program());
    command.args([ROLE, GUARD]).arg(std::process::id().to_string()).args(line);
    command
}

/// What ends the process groups that this process leaves behind.
pub(crate) fn watchdog_command() -> Command {
    let mut command = Command::new(program());
    command.args([ROLE, WATCHDOG]);
    command
}

/// A service of the demo. It dies with this process.
pub(crate) fn demo_service_command(service: &str, is_group: bool) -> Command {
    let own = [ROLE, DEMO_SERVICE, service, if is_group { GROUP } else { EXCLUSIVE }].map(OsString::from);
    guarded_command(&[&[program().into_os_string()], &own[..]].concat())
}

/// One end of a measurement. It dies with this process.
pub(crate) fn bench_end_command(arguments: &[OsString]) -> Command {
    let own = [ROLE, BENCH_END].map(OsString::from);
    guarded_command(&[&[program().into_os_string()], &own[..], arguments].concat())
}

fn demo_service(service: &str, is_group: bool) -> Result<(), Error> {
    bus::runtime()?.block_on(demo::service::serve(service, is_group))
}

/// Becomes the program, after asking the kernel to end it when its parent ends.
fn guard(parent: &OsStr, program: &OsStr, arguments: &[OsString]) -> ExitCode {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        complain(&format!("cannot tie the command to its parent: {error}"));
        return ExitCode::from(NOT_STARTED);
    }
    // The parent may have gone before it was asked.
    let is_parent = |pid: &Pid| OsString::from(pid.as_raw_nonzero().to_string()) == parent;
    let Some(parent) = getppid().filter(is_parent) else { return ExitCode::from(NOT_STARTED) };
    terminal::take_from(parent);
    let error = Command::new(program).args(arguments).exec();
    complain(&format!("cannot run '{}': {error}", program.display()));
    ExitCode::from(NOT_STARTED)
}

fn complain(what: &str) {
    use std::io::Write as _;
    let _nobody_listens = writeln!(std::io::stderr().lock(), "ipc-cli: {what}");
}
