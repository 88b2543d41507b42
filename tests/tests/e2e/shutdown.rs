//! A daemon that stops: what becomes of those who are connected, and of those who come too late.

use std::time::{Duration, Instant};

use ipc_core::ErrorCode;
use ipc_core::wire::Kind;
use ipc_tests::daemon::{Daemon, Options, Signal};
use ipc_tests::raw::open_call;

#[test]
fn every_open_call_is_answered_and_every_connection_told() {
    let mut daemon = Daemon::start_with(&Options::with_config("[limits]\ndrain_timeout_ms = 100\n"));
    let (mut service, mut caller) = open_call(&daemon.socket());
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
    let (mut service, mut caller) = open_call(&daemon.socket());
    daemon.signal(Signal::TERM);
    // The socket's name goes first, so this is the sign that the daemon drains.
    while daemon.socket().exists() {
        std::thread::yield_now();
    }
    service.answer(b"done");
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
    let (_service, mut caller) = open_call(&daemon.socket());
    daemon.signal(Signal::TERM);
    while daemon.socket().exists() {
        std::thread::yield_now();
    }
    daemon.signal(Signal::INT);
    assert_eq!(daemon.wait().status.code(), Some(0));
    assert_eq!(caller.receive().unwrap().error().unwrap().code, ErrorCode::ShuttingDown);
}

/// `drain_timeout_ms`: no open call is given up before, and none is waited for after it.
#[test]
fn a_drain_lasts_as_long_as_it_may_and_no_longer() {
    for limit in [0, 300] {
        let config = format!("[limits]\ndrain_timeout_ms = {limit}\n");
        let mut daemon = Daemon::start_with(&Options::with_config(config));
        let (_service, mut caller) = open_call(&daemon.socket());
        let started = Instant::now();
        daemon.signal(Signal::TERM);
        assert_eq!(caller.receive().unwrap().error().unwrap().code, ErrorCode::ShuttingDown);
        let taken = started.elapsed();
        assert!(taken >= Duration::from_millis(limit), "{taken:?} instead of {limit} ms");
        // Five seconds is what it would be without the setting.
        assert!(taken < Duration::from_secs(4), "{taken:?} instead of {limit} ms");
        assert_eq!(daemon.wait().status.code(), Some(0));
    }
}
