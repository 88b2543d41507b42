//! A daemon that is restarted between a call and its retransmission.

use std::net::UdpSocket;
use std::sync::atomic::Ordering;

use ipc_core::blocking::Client;
use ipc_core::{Address, CallOptions, ErrorCode};
use ipc_tests::daemon::{Daemon, Options};
use ipc_tests::lossy::{Proxy, Weather};
use ipc_tests::services::{RawService, ask, serve_echo};

use super::{REMOTE, options};

/// A daemon in a directory that outlives it, on a port that it finds free again.
fn start(directory: &std::path::Path, port: u16) -> Daemon {
    Daemon::start_with(&Options {
        config: Some(REMOTE.to_owned()),
        runtime_dir: Some(directory.to_owned()),
        ..Options::with_arguments(["--udp".to_owned(), format!("127.0.0.1:{port}")])
    })
}

#[test]
fn the_outcome_is_unknown_and_nothing_runs_again() {
    for is_local in [true, false] {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let runtime = directory.path().join("run");
        // Free a moment ago, and asked for again at once.
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let first = start(&runtime, port);
        let address = if is_local {
            format!("dgram:{}", first.datagram_socket().display())
        } else {
            format!("udp:127.0.0.1:{port}")
        };
        let address = Address::parse(&address).unwrap();
        // So that the client cannot see the end of the daemon in any other way than by its answers.
        let proxy = Proxy::start(&address, directory.path(), Weather::fair(), 1);
        let mut client = Client::connect(options(&proxy.address)).unwrap();
        let mut service = RawService::register(&first, "test.count", "count");
        let call = client.start_call("test.count", "count", "x", CallOptions::default()).unwrap();
        client.flush().unwrap();
        service.call();
        proxy.toll.is_mute.store(true, Ordering::Relaxed);
        first.kill();
        let second = start(&runtime, port);
        let mut again = RawService::register(&second, "test.count", "count");
        serve_echo(&second);
        proxy.toll.is_mute.store(false, Ordering::Relaxed);
        assert_eq!(client.wait(call).unwrap_err().code, ErrorCode::OutcomeUnknown);
        // What comes next goes to the new daemon, and is the first call that it has.
        assert!(client.call("test.echo", "echo", "y").is_ok());
        client.call_oneway("test.count", "count", "z").unwrap();
        assert_eq!(again.call().frame.body, b"z");
        let foreign = ask(&second, "status", "").unwrap()["counters"]["datagrams_foreign_epoch"].as_u64();
        assert!(foreign.unwrap() >= 1);
    }
}

#[test]
fn a_local_client_sees_the_end_and_connects_again() {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let first = start(&directory.path().join("run"), 0);
    let address = Address::Dgram(first.datagram_socket());
    let mut client = Client::connect(options(&address)).unwrap();
    let mut service = RawService::register(&first, "test.count", "count");
    let call = client.start_call("test.count", "count", "x", CallOptions::default()).unwrap();
    client.flush().unwrap();
    service.call();
    first.kill();
    assert_eq!(client.wait(call).unwrap_err().code, ErrorCode::OutcomeUnknown);
    let error = client.call("test.echo", "echo", "").unwrap_err();
    assert_eq!(error.code, ErrorCode::Unreachable, "{error}");
    let second = start(&directory.path().join("run"), 0);
    serve_echo(&second);
    let reconnected = client.reconnect().unwrap();
    assert!(reconnected.epoch_changed);
    assert!(client.call("test.echo", "echo", "").is_ok());
}
