//! The end of a daemon while everybody is busy, and of its descriptors.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ipc_core::blocking::{Backoff, Client, Service};
use ipc_core::{Address, CallOptions, ConnectOptions, Error, ErrorCode};
use ipc_tests::daemon::{Daemon, Options, PATIENCE, Signal, eventually};
use ipc_tests::exposed::Exposed;
use ipc_tests::raw::open_call;
use ipc_tests::services::serve_echo;

const CALLERS: usize = 4;

/// Calls until the connection is lost, with many calls open at a time; counts the answers and returns every error.
fn call_until_the_end(socket: &Path, answered: &AtomicU64) -> Vec<Error> {
    let options = ConnectOptions::new().address(Address::Unix(socket.to_owned())).call_timeout(PATIENCE);
    let mut client = Client::connect(options).unwrap();
    let mut errors = Vec::new();
    while errors.is_empty() {
        let mut calls = Vec::new();
        for number in 0..16u32 {
            match client.start_call("test.echo", "echo", number.to_string(), CallOptions::default()) {
                Ok(call) => calls.push((number, call)),
                Err(error) => errors.push(error),
            }
        }
        for (number, call) in calls {
            match client.wait(call) {
                Ok(reply) => {
                    assert_eq!(reply.payload.as_text(), Ok(&*number.to_string()));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => errors.push(error),
            }
        }
    }
    errors
}

/// Has many callers at work, ends the daemon, and returns every error that a caller has seen.
fn end_under_load(mut daemon: Daemon, signal: Signal) -> (Daemon, Vec<Error>) {
    serve_echo(&daemon);
    let socket = daemon.socket();
    let answered = AtomicU64::new(0);
    let errors = std::thread::scope(|scope| {
        let callers: Vec<_> =
            (0..CALLERS).map(|_| scope.spawn(|| call_until_the_end(&socket, &answered))).collect();
        assert!(eventually(|| answered.load(Ordering::Relaxed) > 1000));
        daemon.signal(signal);
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    daemon.wait();
    (daemon, errors)
}

#[test]
fn a_daemon_that_is_killed_under_load_leaves_each_call_with_one_outcome() {
    let (_daemon, errors) = end_under_load(Daemon::start(), Signal::KILL);
    // Sent calls may have run; the others certainly did not.
    for error in &errors {
        let known = [ErrorCode::OutcomeUnknown, ErrorCode::Unreachable, ErrorCode::ServiceGone];
        assert!(known.contains(&error.code), "{error}");
    }
    assert!(errors.iter().any(|error| error.code == ErrorCode::OutcomeUnknown), "{errors:#?}");
}

#[test]
fn a_daemon_that_is_stopped_under_load_answers_everybody_and_is_gone() {
    let mut daemon = Daemon::start();
    let (_service, mut waiting) = open_call(&daemon.socket());
    serve_echo(&daemon);
    let socket = daemon.socket();
    let answered = AtomicU64::new(0);
    let start = Instant::now();
    let errors: Vec<Error> = std::thread::scope(|scope| {
        let callers: Vec<_> =
            (0..CALLERS).map(|_| scope.spawn(|| call_until_the_end(&socket, &answered))).collect();
        assert!(eventually(|| answered.load(Ordering::Relaxed) > 1000));
        daemon.signal(Signal::TERM);
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    for error in &errors {
        assert_eq!(error.code, ErrorCode::ShuttingDown, "{error}");
    }
    let reply = waiting.receive().expect("the open call is answered");
    assert_eq!(reply.error().expect("an error").code, ErrorCode::ShuttingDown);
    let ended = daemon.wait();
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    assert!(!socket.exists());
    assert!(start.elapsed() < PATIENCE);
}

#[test]
fn clients_and_services_come_back_when_a_killed_daemon_does() {
    let directory = tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").unwrap();
    let options = Options { runtime_dir: Some(directory.path().join("run")), ..Options::default() };
    let mut daemon = Daemon::start_with(&options);
    let connect = |daemon: &Daemon| {
        let options = ConnectOptions::new().address(Address::Unix(daemon.socket())).call_timeout(PATIENCE);
        Client::connect(options.reconnect(Backoff::default())).unwrap()
    };
    let mut service = connect(&daemon);
    let echo = Service::new("test.echo").unwrap();
    service.serve(echo.method("echo", |request| Ok(request.payload.clone()))).unwrap();
    drop(std::thread::spawn(move || service.run()));
    let mut caller = connect(&daemon);
    for round in 0..3 {
        assert!(eventually(|| caller.call("test.echo", "echo", "hello").is_ok()), "round {round}");
        let epoch = caller.daemon().map(|daemon| daemon.epoch);
        daemon.signal(Signal::KILL);
        daemon.wait();
        let error = caller.call("test.echo", "echo", "nobody").unwrap_err();
        assert!([ErrorCode::OutcomeUnknown, ErrorCode::Unreachable].contains(&error.code), "{error}");
        daemon = Daemon::start_with(&options);
        caller.reconnect().unwrap();
        assert!(eventually(|| caller.call("test.echo", "echo", "hello").is_ok()), "round {round}");
        assert_ne!(caller.daemon().map(|daemon| daemon.epoch), epoch, "another life of the daemon");
    }
}

#[test]
fn a_full_file_table_refuses_network_clients_and_recovers() {
    let options = Options {
        arguments: ["--expose", "tcp:127.0.0.1:0=test.echo/echo"].map(Into::into).to_vec(),
        config: Some("[limits]\nconnections_max = 1000\n".to_owned()),
        ..Options::with_script("ulimit -n 48; exec \"$@\"")
    };
    let exposed = Exposed::of(Daemon::start_with(&options));
    serve_echo(&exposed.daemon);
    let mut first = exposed.connect();
    first.exchange("first", "first");
    let mut asking = ipc_tests::services::client(&exposed.daemon);
    let mut refused = || {
        let rows = asking.call("ipc.daemon", "bridge-list", "").unwrap().payload;
        let rows: serde_json::Value = serde_json::from_slice(&rows.body).unwrap();
        rows[0]["refused"].as_u64().unwrap()
    };
    let mut held: Vec<_> = (0..64).map(|_| exposed.connect()).collect();
    assert!(eventually(|| refused() > 0), "64 connections do not fit into 48 descriptors");
    first.exchange("still first", "still first");
    held.clear();
    // Connections that waited are accepted and found closed first.
    assert!(eventually(|| {
        let mut next = exposed.connect();
        use std::io::{Read, Write};
        let mut answer = [0; 4];
        next.0.write_all(b"next").is_ok() && next.0.read_exact(&mut answer).is_ok() && answer == *b"next"
    }));
    first.exchange("first and last", "first and last");
}
