//! A daemon from start to stop, as whoever starts it sees it.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use ipc_core::wire::Kind;
use ipc_tests::daemon::{Daemon, Options, PATIENCE, Signal, eventually};
use ipc_tests::programs::program;
use ipc_tests::raw::{RawPeer, greeting};
use ipc_tests::services::ask;

#[test]
fn a_daemon_becomes_ready_stops_when_asked_and_leaves_no_socket() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Daemon::start();
        let socket = daemon.socket();
        assert!(std::fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
        daemon.signal(signal);
        let ended = daemon.wait();
        assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
        assert!(!socket.exists());
        let lines: Vec<&str> = ended.stderr.lines().collect();
        assert_eq!(lines.len(), 3, "a healthy daemon logs start, ready and stop: {lines:#?}");
    }
}

#[test]
fn a_second_daemon_exits_75_and_touches_nothing() {
    let first = Daemon::start();
    let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::symlink_metadata(first.socket()).unwrap());
    let before = inode();
    let second = Options { runtime_dir: Some(first.runtime_dir().to_owned()), ..Options::default() };
    let ended = Daemon::try_start(&second).unwrap_err();
    assert_eq!(ended.status.code(), Some(75), "{ended:#?}");
    assert!(ended.stderr.contains(&format!("process {}", first.pid())), "{}", ended.stderr);
    assert_eq!(inode(), before);
    assert_eq!(first.stop().status.code(), Some(0));
}

#[test]
fn a_second_daemon_for_the_same_state_exits_75_and_leaves_no_socket() {
    let state = tempfile::tempdir().unwrap();
    let options = Options { state_dir: Some(state.path().to_owned()), ..Options::default() };
    let first = Daemon::start_with(&options);
    let runtime = tempfile::tempdir().unwrap();
    let second = Options { runtime_dir: Some(runtime.path().to_owned()), ..options };
    let ended = Daemon::try_start(&second).unwrap_err();
    assert_eq!(ended.status.code(), Some(75), "{ended:#?}");
    assert!(ended.stderr.contains(&state.path().display().to_string()), "{}", ended.stderr);
    assert!(!runtime.path().join("bus.sock").exists());
    RawPeer::greeted(&first.socket()).0.ping(1);
}

#[test]
fn a_socket_left_by_a_killed_daemon_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { runtime_dir: Some(directory.path().to_owned()), ..Options::default() };
    let killed = Daemon::start_with(&options);
    let socket = killed.socket();
    killed.kill();
    assert!(socket.exists(), "a killed daemon cannot tidy up");
    let next = Daemon::start_with(&options);
    std::os::unix::net::UnixStream::connect(next.socket()).unwrap();
}

#[test]
fn a_wrong_configuration_exits_78_with_line_and_column() {
    let ended = Daemon::try_start(&Options::with_config("\n[limits]\nno_such_limit = 1\n")).unwrap_err();
    assert_eq!(ended.status.code(), Some(78), "{ended:#?}");
    assert!(ended.stderr.contains("daemon.toml:3:"), "{}", ended.stderr);
}

#[test]
fn of_many_daemons_started_at_once_one_serves_and_the_others_exit_75() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { runtime_dir: Some(directory.path().to_owned()), ..Options::default() };
    let started: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| Daemon::try_start(&options))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (serving, ended): (Vec<_>, Vec<_>) = started.into_iter().partition(Result::is_ok);
    assert_eq!(serving.len(), 1);
    for ended in ended {
        let ended = ended.unwrap_err();
        assert_eq!(ended.status.code(), Some(75), "{ended:#?}");
    }
    RawPeer::greeted(&serving[0].as_ref().unwrap().socket()).0.ping(1);
}

#[test]
fn something_else_in_place_of_the_socket_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("bus.sock");
    std::fs::write(&socket, "precious").unwrap();
    let options = Options { runtime_dir: Some(directory.path().to_owned()), ..Options::default() };
    let ended = Daemon::try_start(&options).unwrap_err();
    assert_eq!(ended.status.code(), Some(74), "{ended:#?}");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
}

#[test]
fn a_directory_that_others_can_write_to_exits_77() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let options = Options { runtime_dir: Some(directory.path().to_owned()), ..Options::default() };
    let ended = Daemon::try_start(&options).unwrap_err();
    assert_eq!(ended.status.code(), Some(77), "{ended:#?}");
    assert!(ended.stderr.contains("chmod go-w"), "{}", ended.stderr);
}

#[test]
fn a_path_that_fits_into_no_socket_address_works() {
    let directory = tempfile::tempdir().unwrap();
    let long = directory.path().join("d".repeat(120));
    let daemon = Daemon::start_with(&Options { runtime_dir: Some(long.clone()), ..Options::default() });
    assert!(daemon.socket().as_os_str().len() > 107);
    ask(&daemon, "status", "").expect("the library reaches it under its own name");
    // Reached from where its name is short.
    let link = directory.path().join("short");
    std::os::unix::fs::symlink(&long, &link).unwrap();
    RawPeer::greeted(&link.join("bus.sock")).0.ping(1);
    assert_eq!(daemon.stop().status.code(), Some(0));
}

#[test]
fn the_socket_and_its_directory_are_private() {
    let daemon = Daemon::start();
    let mode = |path: &Path| std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(daemon.runtime_dir()), 0o700);
    assert_eq!(mode(&daemon.socket()), 0o600);
}

#[test]
fn the_effective_configuration_is_printed_and_checked() {
    let daemon = program("ipc-daemon");
    let run = |arguments: &[&str], level: &str| {
        let mut command = Command::new(&daemon);
        command.args(arguments).env("IPC_LOG", level).env("IPC_CONFIG", "").env("HOME", "/nonexistent");
        command.env_remove("XDG_CONFIG_HOME").output().unwrap()
    };
    let printed = run(&["--print-config", "--log-format", "json"], "warn");
    assert_eq!(printed.status.code(), Some(0), "{printed:?}");
    let text = String::from_utf8(printed.stdout).unwrap();
    for line in ["format = \"json\"", "level = \"warn\"", "connections_max = 16384"] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    assert_eq!(run(&["--check-config"], "info").status.code(), Some(0));
    assert_eq!(run(&["--check-config"], "loud").status.code(), Some(78));
    assert_eq!(run(&["--check-config", "--config", "/nonexistent"], "info").status.code(), Some(78));
    assert_eq!(run(&["--no-such-flag"], "info").status.code(), Some(2));
}

#[test]
fn what_cannot_be_written_is_an_io_error_and_what_nobody_reads_is_none() {
    let daemon = program("ipc-daemon");
    for argument in ["--help", "--version", "--print-config"] {
        let run = |redirected: &str| {
            let script = format!("\"$0\" {argument} {redirected}");
            let mut command = Command::new("bash");
            command.args(["-c", &script]).arg(&daemon).env("IPC_CONFIG", "").env("HOME", "/nonexistent");
            command.env_remove("XDG_CONFIG_HOME").output().unwrap()
        };
        let full = run("> /dev/full");
        assert_eq!(full.status.code(), Some(74), "{argument}: {full:?}");
        assert!(!full.stderr.is_empty(), "{argument}");
        let unread = run("| true; exit ${PIPESTATUS[0]}");
        assert_eq!((unread.status.code(), &unread.stderr[..]), (Some(0), &b""[..]), "{argument}: {unread:?}");
    }
}

#[test]
fn a_reload_applies_limits_and_a_wrong_file_changes_nothing() {
    let daemon = Daemon::start_with(&Options::with_config("[limits]\nconnections_max = 2\n"));
    let is_let_in = |daemon: &Daemon| {
        let mut peer = RawPeer::connect(&daemon.socket());
        peer.try_send(&greeting("reload"));
        peer.receive().is_some_and(|frame| frame.header.kind == Kind::WELCOME)
    };
    let (_held, _) = RawPeer::greeted(&daemon.socket());
    assert!(!is_let_in(&daemon), "one of the two is the daemon's own");
    daemon.reload("[limits]\nconnections_max = 3\n");
    assert!(eventually(|| is_let_in(&daemon)));
    daemon.reload("[limits]\nconnections_max = nonsense\n");
    let ended = daemon.stop();
    assert_eq!(ended.status.code(), Some(0));
}

#[test]
fn a_reload_changes_the_log_and_names_what_waits_for_the_next_start() {
    let environment = vec![("IPC_LOG".into(), "".into())];
    let options = Options { environment, ..Options::with_config("[log]\nlevel = \"warn\"\n") };
    let daemon = Daemon::start_with(&options);
    assert_eq!(daemon.log(), "", "neither start nor readiness is a warning");
    daemon.reload("poll_before_park = false\nstate_dir = \"/nonexistent\"\n[log]\nlevel = \"info\"\n");
    assert!(eventually(|| daemon.log().contains("configuration read again")), "{}", daemon.log());
    // The directory was given as a flag, which overrides the file before and after.
    assert!(
        eventually(|| daemon.log().contains("only for the next start: poll_before_park\n")),
        "{}",
        daemon.log()
    );
    daemon.reload("poll_before_park = false\n[log]\nlevel = \"warn\"\n");
    let warnings = || daemon.log().matches("only for the next start").count();
    assert!(eventually(|| warnings() == 2), "{}", daemon.log());
    let ended = daemon.stop();
    assert!(!ended.stderr.contains("stopped"), "that would be level info: {}", ended.stderr);
}

#[test]
fn a_socket_that_was_handed_over_is_served_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("handed.sock");
    let daemon = Daemon::start_with(&Options::with_handed_over(&path, 0o600));
    assert!(!daemon.socket().exists(), "nothing is bound beside what was handed over");
    RawPeer::greeted(&path).0.ping(1);
    assert_eq!(daemon.stop().status.code(), Some(0));
    assert!(path.exists());
}

#[test]
fn a_service_manager_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify.sock");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let environment = vec![("NOTIFY_SOCKET".into(), path.into_os_string())];
    let daemon = Daemon::start_with(&Options { environment, ..Options::default() });
    let told = || {
        let mut buffer = [0; 256];
        let count = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    assert_eq!(told(), "READY=1\n");
    daemon.stop();
    assert_eq!(told(), "STOPPING=1\n");
}
