//! Clients that go away in the middle of a call: half, wholly, killed; and those who were never let in.

use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use ipc_core::ErrorCode;
use ipc_core::wire::Kind;
use ipc_tests::daemon::{Daemon, Options};
use ipc_tests::raw::{RawPeer, open_call};

#[test]
fn a_caller_that_goes_away_cancels_its_call_at_once() {
    let daemon = Daemon::start();
    let (mut service, caller) = open_call(&daemon.socket());
    drop(caller);
    let cancel = service.receive().expect("word of it");
    assert_eq!(cancel.header.kind, Kind::CANCEL, "{cancel:?}");
    service.ping(9);
}

#[test]
fn a_caller_that_only_stops_sending_gets_its_reply() {
    let daemon = Daemon::start();
    let (mut service, mut caller) = open_call(&daemon.socket());
    caller.stream().shutdown(Shutdown::Write).unwrap();
    // Sent later on another connection, so the end of the input has been seen when it is answered.
    RawPeer::greeted(&daemon.socket()).0.ping(1);
    service.answer(b"late");
    let reply = loop {
        let frame = caller.receive().expect("the reply");
        if frame.header.kind != Kind::PEER_ANNOUNCED {
            break frame;
        }
    };
    assert_eq!((reply.header.kind, &reply.body[..]), (Kind::REPLY, &b"late"[..]), "{reply:?}");
    // Nothing more can become due to it.
    while let Some(frame) = caller.receive() {
        assert_eq!(frame.header.kind, Kind::CLOSE, "{frame:?}");
    }
}

#[test]
fn a_caller_that_stops_sending_and_then_goes_away_cancels_its_call() {
    let daemon = Daemon::start();
    let (mut service, caller) = open_call(&daemon.socket());
    caller.stream().shutdown(Shutdown::Write).unwrap();
    RawPeer::greeted(&daemon.socket()).0.ping(1);
    service.ping(9);
    drop(caller);
    let cancel = service.receive().expect("word of it");
    assert_eq!(cancel.header.kind, Kind::CANCEL, "{cancel:?}");
}

#[test]
fn a_service_that_goes_away_ends_its_calls_at_once() {
    let daemon = Daemon::start();
    let (service, mut caller) = open_call(&daemon.socket());
    drop(service);
    let reply = caller.receive().expect("an outcome");
    assert_eq!(reply.error().expect("an error").code, ErrorCode::ServiceGone);
    caller.ping(9);
}

/// Only root can start a client of another user.
#[test]
fn another_user_is_refused_and_told_so() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = directory.path().join("open.sock");
    // A socket that everybody may connect to, as a careless service manager would hand over.
    let _daemon = Daemon::start_with(&Options::with_handed_over(&path, 0o666));
    let client = "import socket, sys\n\
        stream = socket.socket(socket.AF_UNIX)\n\
        stream.settimeout(30)\n\
        stream.connect(sys.argv[1])\n\
        answer = stream.recv(4096)\n\
        sys.stdout.buffer.write(answer)\n\
        sys.exit(stream.recv(1) != b'')\n";
    let run = |uid| {
        let mut command = Command::new("python3");
        command.args(["-c", client]).arg(&path).uid(uid).gid(uid).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.output().unwrap()
    };
    let refused = run(12_345);
    assert!(refused.status.success(), "{refused:?}");
    let shown = String::from_utf8_lossy(&refused.stdout);
    assert_eq!(refused.stdout.first(), Some(&Kind::CLOSE.0), "{shown}");
    assert!(shown.contains("uid=12345"), "{shown}");
    RawPeer::greeted(&path).0.ping(1);
}
