//! `serve`: commands that run for calls, and that nothing of them is left behind.

use std::path::{Path, PathBuf};

use ipc_tests::daemon::{Daemon, Signal};

use crate::command::{Running, is_running, run_at, tool, wait_until};

/// A service whose command leaves its number in a file and then never ends, also not by SIGTERM if it is `stubborn`.
struct Sleeper {
    service: Running,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Sleeper {
    fn start(daemon: &Daemon, stubborn: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("pids");
        let trap = if stubborn { "trap '' TERM;" } else { "" };
        let script =
            format!("{trap} sleep 1000 & echo $$ $! > {0}.new; mv {0}.new {0}; wait; wait", file.display());
        let arguments = ["serve", "demo.sleep", "run", "--", "sh", "-c", &script];
        let service = Running::start(daemon.runtime_dir(), &arguments, "serving demo.sleep/run");
        Self { service, file, _directory: directory }
    }

    /// The processes of the command, once it runs.
    fn pids(&self) -> Vec<String> {
        let text = wait_until("the command runs", || std::fs::read_to_string(&self.file).ok());
        text.split_whitespace().map(str::to_owned).collect()
    }
}

fn all_gone(pids: &[String]) {
    wait_until("no process of the command is left", || {
        (!pids.iter().any(|pid| is_running(pid))).then_some(())
    });
}

fn start_call(runtime_dir: &Path, deadline: &str) -> std::process::Child {
    let arguments = crate::command::at(runtime_dir, &["call", "demo.sleep", "run", "--deadline", deadline]);
    tool(&arguments).spawn().expect("ipc-cli starts")
}

#[test]
fn a_deadline_ends_the_command_and_what_it_started() {
    let daemon = Daemon::start();
    let sleeper = Sleeper::start(&daemon, false);
    let caller = start_call(daemon.runtime_dir(), "500ms");
    let pids = sleeper.pids();
    assert_eq!(crate::command::finish(caller).status, Some(124));
    all_gone(&pids);
}

#[test]
fn a_caller_that_dies_ends_the_command() {
    let daemon = Daemon::start();
    let sleeper = Sleeper::start(&daemon, false);
    let mut caller = start_call(daemon.runtime_dir(), "1h");
    let pids = sleeper.pids();
    caller.kill().expect("killed");
    caller.wait().expect("waited for");
    all_gone(&pids);
}

#[test]
fn a_command_that_ignores_sigterm_is_killed() {
    let daemon = Daemon::start();
    let sleeper = Sleeper::start(&daemon, true);
    let mut caller = start_call(daemon.runtime_dir(), "1h");
    let pids = sleeper.pids();
    caller.kill().expect("killed");
    caller.wait().expect("waited for");
    all_gone(&pids);
}

#[test]
fn a_signal_ends_the_service_and_its_commands() {
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let daemon = Daemon::start();
        let mut sleeper = Sleeper::start(&daemon, false);
        let caller = start_call(daemon.runtime_dir(), "1h");
        let pids = sleeper.pids();
        sleeper.service.signal(signal);
        assert_eq!(sleeper.service.ended(), Some(status));
        assert!(!is_running(&pids[0]), "the command outlives its service");
        // The kernel takes down what the command had started in its own time.
        all_gone(&pids);
        let ended = crate::command::finish(caller);
        assert_eq!(ended.status, Some(69), "{ended:?}");
        assert!(ended.stderr.contains("service_gone"), "{ended:?}");
    }
}

#[test]
fn a_killed_service_takes_its_command_along() {
    let daemon = Daemon::start();
    let sleeper = Sleeper::start(&daemon, false);
    let caller = start_call(daemon.runtime_dir(), "1h");
    let pids = sleeper.pids();
    sleeper.service.signal(Signal::KILL);
    // Only the first process of the command is tied to the service; nobody is left to end the others.
    all_gone(&pids[..1]);
    assert_eq!(crate::command::finish(caller).status, Some(69));
    let rest = rustix::process::Pid::from_raw(pids[1].parse().expect("a pid")).expect("not zero");
    let _gone = rustix::process::kill_process(rest, Signal::KILL);
}

#[test]
fn concurrency_bounds_the_commands_that_run() {
    let daemon = Daemon::start();
    let directory = tempfile::tempdir().expect("a directory");
    // Fails when another instance runs at the same time.
    let script = format!("mkdir {0} && sleep 0.05 && rmdir {0}", directory.path().join("lock").display());
    let arguments = ["serve", "demo.one", "run", "--concurrency", "1", "--", "sh", "-c", &script];
    let _service = Running::start(daemon.runtime_dir(), &arguments, "serving demo.one/run");
    let call = crate::command::at(daemon.runtime_dir(), &["call", "demo.one", "run", "--deadline", "30s"]);
    let callers: Vec<_> = (0..5).map(|_| tool(&call).spawn().expect("ipc-cli starts")).collect();
    for caller in callers {
        crate::command::finish(caller).succeeded();
    }
}

#[test]
fn instances_of_a_group_share_the_calls() {
    let daemon = Daemon::start();
    let directory = tempfile::tempdir().expect("a directory");
    // Each call waits for the other, and an instance runs one at a time: both instances are needed.
    let place = directory.path().display();
    let script = format!("touch {place}/$$; while [ $(ls {place} | wc -l) -lt 2 ]; do sleep 0.01; done");
    let arguments =
        ["serve", "demo.group", "run", "--group", "--concurrency", "1", "--", "sh", "-c", &script];
    let start = || Running::start(daemon.runtime_dir(), &arguments, "serving demo.group/run");
    let instances = [start(), start()];
    let call = crate::command::at(
        daemon.runtime_dir(),
        &["--json", "call", "demo.group", "run", "--deadline", "30s"],
    );
    let callers = [(); 2].map(|()| tool(&call).spawn().expect("ipc-cli starts"));
    let mut responders =
        callers.map(|caller| crate::command::finish(caller).object()["responder"]["pid"].as_u64());
    let mut expected = instances.each_ref().map(|instance| Some(u64::from(instance.pid())));
    responders.sort_unstable();
    expected.sort_unstable();
    assert_eq!(responders, expected);
    let exclusive = run_at(daemon.runtime_dir(), &["--json", "serve", "demo.group", "run", "--", "cat"]);
    exclusive.failed_with(75, "name_taken");
}

#[test]
fn a_service_comes_back_after_a_restart_of_the_daemon() {
    let directory = tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").expect("a directory");
    let options = ipc_tests::daemon::Options {
        runtime_dir: Some(directory.path().join("run")),
        ..ipc_tests::daemon::Options::default()
    };
    let daemon = Daemon::start_with(&options);
    let arguments = ["serve", "demo.cat", "run", "--", "cat"];
    let _service = Running::start(daemon.runtime_dir(), &arguments, "serving demo.cat/run");
    daemon.kill();
    let daemon = Daemon::start_with(&options);
    wait_until("the service is back", || {
        let ran = run_at(daemon.runtime_dir(), &["call", "demo.cat", "run", "again"]);
        (ran.status == Some(0)).then_some(())
    });
}
