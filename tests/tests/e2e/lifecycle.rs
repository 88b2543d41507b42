//! A daemon from start to stop, as whoever starts it sees it.

use std::os::unix::fs::FileTypeExt;

use ipc_tests::daemon::{Daemon, Options, Signal};

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
