//! No daemon, or something else in its place.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use crate::command::{run, run_at};

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").expect("a temporary directory")
}

#[test]
fn every_command_says_that_there_is_no_daemon() {
    let directory = directory();
    let commands: &[&[&str]] = &[
        &["ping"],
        &["status"],
        &["list"],
        &["describe", "demo.title"],
        &["call", "demo.title", "title", "x"],
        &["call", "demo.title", "title", "x", "--oneway"],
        &["publish", "topic", "x"],
        &["subscribe", "topic"],
        &["serve", "demo.title", "title", "--", "cat"],
        &["bridge", "list"],
        &["bench", "latency"],
    ];
    for arguments in commands {
        let arguments = [&["--json"], *arguments].concat();
        let ran = run_at(directory.path(), &arguments);
        let error = ran.failed_with(69, "unreachable");
        assert!(error["message"].as_str().unwrap().contains(directory.path().to_str().unwrap()), "{error}");
        assert!(error["hint"].as_str().unwrap().contains("ipc-daemon"), "{error}");
        assert!(ran.duration < Duration::from_secs(5), "at once, not after a timeout: {ran:?}");
    }
    let for_people = run_at(directory.path(), &["ping"]);
    assert_eq!(for_people.status, Some(69));
    assert!(
        for_people.stderr.starts_with("error: ") && for_people.stderr.contains("\n hint: "),
        "{for_people:?}"
    );
}

#[test]
fn a_stale_socket_is_not_a_daemon() {
    let directory = directory();
    drop(UnixListener::bind(directory.path().join("bus.sock")).expect("binds"));
    run_at(directory.path(), &["--json", "ping"]).failed_with(69, "unreachable");
}

#[test]
fn a_daemon_that_never_answers_is_waited_for_as_long_as_asked() {
    let directory = directory();
    let _silent = UnixListener::bind(directory.path().join("bus.sock")).expect("binds");
    let ran = run_at(directory.path(), &["--json", "--timeout", "300ms", "ping"]);
    ran.failed_with(69, "unreachable");
    assert!(ran.duration >= Duration::from_millis(250), "{ran:?}");
}

#[test]
fn waiting_for_a_daemon_ends_with_the_timeout() {
    let directory = directory();
    let ran = run_at(directory.path(), &["--json", "--timeout", "400ms", "ping", "--wait"]);
    ran.failed_with(69, "unreachable");
    assert!(ran.duration >= Duration::from_millis(200), "{ran:?}");
}

#[test]
fn addresses_that_are_none_are_refused() {
    for address in ["tcp:127.0.0.1", "dgram:", "/run/ipc/bus.sock", "unix:"] {
        run(&["--json", "--address", address, "ping"]).failed_with(2, "invalid_argument");
    }
}
