//! A command that is run from a terminal has that terminal, as it would have it from a shell.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};

use ipc_tests::daemon::{Daemon, Signal};
use ipc_tests::programs::program;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

use crate::command::{at, wait_until};

/// A shell that runs the tool, in a session of its own, in front of a terminal. Dropping it kills the shell, and what is in front.
struct Session {
    shell: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
}

impl Session {
    /// Runs a script under a lock, as `"$@"` of the script around it.
    fn start(daemon: &Daemon, around: &str, script: &str) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&keyboard).expect("a terminal");
        unlockpt(&keyboard).expect("a terminal");
        let terminal =
            ioctl_tiocgptpeer(&keyboard, OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        let (output, errors) = (terminal.try_clone().expect("a copy"), terminal.try_clone().expect("a copy"));
        let lock = at(daemon.runtime_dir(), &["lock", "deploy", "--quiet", "--", "sh", "-c", script]);
        let shell = Command::new("setsid")
            .args(["--ctty", "sh", "-c", around, "sh"])
            .arg(program("ipc-cli"))
            .args(lock)
            .stdin(terminal)
            .stdout(output)
            .stderr(errors)
            .spawn()
            .expect("setsid(1) starts");
        let keyboard = File::from(keyboard);
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut source, seen) = (keyboard.try_clone().expect("a copy"), Arc::clone(&screen));
        // It ends when nobody has the terminal open any more.
        std::thread::spawn(move || {
            let mut chunk = [0; 256];
            loop {
                match source.read(&mut chunk) {
                    Ok(length) => {
                        seen.lock().expect("no panic").push_str(&String::from_utf8_lossy(&chunk[..length]))
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
        });
        Self { shell, keyboard, screen }
    }

    fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("somebody has the terminal");
    }

    fn shows(&self, text: &str) {
        wait_until(text, || self.screen.lock().expect("no panic").contains(text).then_some(()));
    }

    fn ended(&mut self) -> ExitStatus {
        wait_until("the shell ends", || self.shell.try_wait().expect("its status"))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself. The terminal ends with it, and what is in front of that.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[test]
fn a_command_reads_the_terminal_and_is_stopped_and_continued_with_the_tool() {
    let daemon = Daemon::start();
    let around = "set -m; \"$@\"; echo stopped; read x; fg; echo status=$?";
    let mut session =
        Session::start(&daemon, around, "read a; echo first=$a; read b; echo second=$b; exit 5");
    session.types("one\n");
    session.shows("first=one");
    // Ctrl-Z: the shell has the terminal again.
    session.types("\u{1a}");
    session.shows("stopped");
    session.types("\n");
    session.types("two\n");
    session.shows("second=two");
    session.shows("status=5");
}

#[test]
fn a_command_of_the_background_that_wants_the_terminal_gets_it_in_the_foreground() {
    let daemon = Daemon::start();
    let around = "set -m; \"$@\" & echo pid=$!.; read x; fg; echo status=$?";
    let mut session = Session::start(&daemon, around, "read a; echo first=$a; exit 5");
    session.shows("pid=");
    session.shows(".");
    let tool = session.screen.lock().expect("no panic").split(['=', '.']).nth(1).map(str::to_owned);
    let stat = format!("/proc/{}/stat", tool.expect("a number"));
    let is_stopped = || std::fs::read_to_string(&stat).unwrap_or_default().contains(") T ");
    wait_until("the tool is stopped with its command", || is_stopped().then_some(()));
    session.types("\n");
    session.types("one\n");
    session.shows("first=one");
    session.shows("status=5");
}

#[test]
fn keys_that_end_a_command_are_its_own_to_take() {
    let daemon = Daemon::start();
    let mut session =
        Session::start(&daemon, "\"$@\"; echo status=$?", "trap 'exit 7' INT; echo ready; read a");
    session.shows("ready");
    session.types("\u{3}");
    session.shows("status=7");
}

#[test]
fn keys_that_end_a_command_end_the_script_around_it_too() {
    let daemon = Daemon::start();
    let mut session = Session::start(&daemon, "\"$@\"; echo status=$?", "echo ready; read a");
    session.shows("ready");
    session.types("\u{3}");
    assert_eq!(session.ended().signal(), Some(Signal::INT.as_raw()));
}
