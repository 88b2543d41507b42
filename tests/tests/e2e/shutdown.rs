//! A daemon that stops: what becomes of those who are connected, and of those who come too late.

use ipc_core::ErrorCode;
use ipc_core::id::Handle;
use ipc_core::wire::codec::List;
use ipc_core::wire::message::{MethodInfo, Register, RegisterMode, Resolve};
use ipc_core::wire::{Header, Kind};
use ipc_tests::daemon::{Daemon, Options, Signal};
use ipc_tests::raw::{RawPeer, frame};

/// A service that never answers, and a caller whose call waits there.
fn open_call(daemon: &Daemon) -> (RawPeer, RawPeer) {
    let (mut service, _) = RawPeer::greeted(&daemon.socket());
    let register = Register {
        service: "test.silent".into(),
        mode: RegisterMode::Exclusive,
        queue: false,
        methods: List(vec![MethodInfo { name: "wait".into(), description: "".into() }]),
    };
    service.send(&frame(Header::new(Kind::REGISTER).with_correlation(1), &register, &[]));
    assert_eq!(service.receive().unwrap().header.kind, Kind::DONE);
    let (mut caller, _) = RawPeer::greeted(&daemon.socket());
    let handle = Handle { index: 0, generation: 1 };
    let resolve = Resolve { service: "test.silent".into(), method: "wait".into() };
    let header = Header::new(Kind::RESOLVE).with_correlation(1).with_handle(handle);
    caller.send(&frame(header, &resolve, &[]));
    assert_eq!(caller.receive().unwrap().error(), None);
    let header = Header::new(Kind::CALL).with_correlation(2).with_handle(handle);
    caller.send(&frame(header, &(), b"?"));
    let announced = service.receive().unwrap();
    assert_eq!(announced.header.kind, Kind::PEER_ANNOUNCED);
    assert_eq!(service.receive().unwrap().header.kind, Kind::CALL);
    (service, caller)
}

#[test]
fn every_open_call_is_answered_and_every_connection_told() {
    let mut daemon = Daemon::start_with(&Options::with_config("[limits]\ndrain_timeout_ms = 100\n"));
    let (mut service, mut caller) = open_call(&daemon);
    daemon.signal(Signal::TERM);
    let reply = caller.receive().expect("an outcome");
    assert_eq!((reply.header.kind, reply.header.correlation), (Kind::REPLY, 2));
    assert_eq!(reply.error().unwrap().code, ErrorCode::ShuttingDown);
    assert_eq!(caller.receive().unwrap().close_reason().0, ErrorCode::ShuttingDown);
    assert!(caller.receive().is_none());
    while let Some(frame) = service.receive() {
        assert!([Kind::CANCEL, Kind::CLOSE].contains(&frame.header.kind), "{frame:?}");
    }
    assert_eq!(daemon.wait().status.code(), Some(0));
}

#[test]
fn an_open_call_may_end_while_the_daemon_drains() {
    let mut daemon = Daemon::start();
    let (mut service, mut caller) = open_call(&daemon);
    daemon.signal(Signal::TERM);
    // The socket's name goes first, so this is the sign that the daemon drains.
    while daemon.socket().exists() {
        std::thread::yield_now();
    }
    service.send(&frame(Header::new(Kind::REPLY).with_correlation(1), &(), b"done"));
    let reply = loop {
        let frame = caller.receive().expect("an outcome");
        if frame.header.kind != Kind::PEER_ANNOUNCED {
            break frame;
        }
    };
    assert_eq!((reply.header.kind, &reply.body[..]), (Kind::REPLY, &b"done"[..]), "{reply:?}");
    assert_eq!(daemon.wait().status.code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_drain_at_once() {
    let mut daemon = Daemon::start_with(&Options::with_config("[limits]\ndrain_timeout_ms = 60000\n"));
    let (_service, mut caller) = open_call(&daemon);
    daemon.signal(Signal::TERM);
    while daemon.socket().exists() {
        std::thread::yield_now();
    }
    daemon.signal(Signal::INT);
    assert_eq!(daemon.wait().status.code(), Some(0));
    assert_eq!(caller.receive().unwrap().error().unwrap().code, ErrorCode::ShuttingDown);
}
