//! A command that is run from a terminal has that terminal, as it would have it from a shell.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use ipc_tests::daemon::{Daemon, Signal};
use ipc_tests::programs::program;
use rustix::process::{Pid, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

use crate::command::{at, wait_until};

/// The tool in a session of its own, in front of a terminal. Dropping it kills the tool.
struct Session {
    tool: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
}

impl Session {
    /// Runs a script under a lock.
    fn start(daemon: &Daemon, script: &str) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&keyboard).expect("a terminal");
        unlockpt(&keyboard).expect("a terminal");
        let terminal =
            ioctl_tiocgptpeer(&keyboard, OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        let (output, errors) = (terminal.try_clone().expect("a copy"), terminal.try_clone().expect("a copy"));
        let lock = at(daemon.runtime_dir(), &["lock", "deploy", "--quiet", "--", "sh", "-c", script]);
        let tool = Command::new("setsid")
            .arg("--ctty")
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
        Self { tool, keyboard, screen }
    }

    fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("somebody has the terminal");
    }

    fn shows(&self, text: &str) {
        wait_until(text, || self.screen.lock().expect("no panic").contains(text).then_some(()));
    }

    fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.tool.id())).unwrap_or_default();
        stat.contains(") T ")
    }

    fn goes_on(&self) {
        let tool = Pid::from_child(&self.tool);
        kill_process(tool, Signal::CONT).expect("it is there");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.tool.kill();
        let _ = self.tool.wait();
    }
}

#[test]
fn a_command_reads_the_terminal_and_is_stopped_from_it_with_the_tool() {
    let daemon = Daemon::start();
    let mut session = Session::start(&daemon, "read a; echo first=$a; read b; echo second=$b; exit 5");
    session.types("one\n");
    session.shows("first=one");
    // Ctrl-Z stops the command, and the tool with it: a shell would have the terminal back.
    session.types("\u{1a}");
    wait_until("the tool is stopped", || session.is_stopped().then_some(()));
    session.goes_on();
    session.types("two\n");
    session.shows("second=two");
    assert_eq!(session.tool.wait().expect("its status").code(), Some(5));
}

#[test]
fn the_keys_that_end_a_command_end_it_and_the_tool_passes_that_on() {
    let daemon = Daemon::start();
    let mut session = Session::start(&daemon, "echo ready; read a");
    session.shows("ready");
    session.types("\u{3}");
    assert_eq!(session.tool.wait().expect("its status").code(), Some(130));
}
