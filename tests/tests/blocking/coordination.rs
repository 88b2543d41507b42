//! Locks and the like through the blocking client.

use std::time::{Duration, Instant};

use ipc_core::blocking::{CallOptions, Client, Durability, HoldOptions};
use ipc_core::name::ResourceName;
use ipc_core::{Address, ConnectOptions, ErrorCode};
use ipc_tests::daemon::{Daemon, Options, Signal, eventually};
use ipc_tests::services::serve_echo;

use super::client;

fn once() -> HoldOptions {
    HoldOptions { wait: Some(Duration::ZERO), ..HoldOptions::default() }
}

#[test]
fn a_lock_is_given_back_when_it_is_dropped() {
    let daemon = Daemon::start();
    let (mut one, mut two) = (client(&daemon), client(&daemon));
    let mut held = one.lock("a", HoldOptions::default()).unwrap();
    held.check().unwrap();
    let first = held.token();
    assert_eq!(two.lock("a", once()).unwrap_err().code, ErrorCode::Busy);
    // The client goes on while it holds.
    held.client().ping().unwrap();
    drop(held);
    let held = two.lock("a", HoldOptions::default()).unwrap();
    assert!(held.token() > first);
    held.release().unwrap();
    one.lock("a", once()).unwrap().release().unwrap();
}

#[test]
fn what_is_not_renewed_is_lost() {
    let daemon = Daemon::start();
    let (mut one, mut two) = (client(&daemon), client(&daemon));
    let ttl = Duration::from_millis(50);
    let mut held = one.lock("a", HoldOptions { ttl: Some(ttl), ..HoldOptions::default() }).unwrap();
    let deadline = held.deadline().unwrap();
    held.renew().unwrap();
    assert!(held.deadline().unwrap() > deadline);
    // Nothing happens between calls: the other gets it once the time has passed.
    let next = two.lock("a", HoldOptions::default()).unwrap();
    assert!(next.token() > held.token());
    assert_eq!(held.check().unwrap_err().code, ErrorCode::LockLost);
    assert_eq!(held.renew().unwrap_err().code, ErrorCode::LockLost);
    assert_eq!(held.release().unwrap_err().code, ErrorCode::LockLost);
    next.release().unwrap();
}

#[test]
fn a_crowd_takes_turns_and_no_turn_is_two() {
    const THREADS: usize = 8;
    const TURNS: usize = 25;
    let daemon = Daemon::start();
    let inside = std::sync::atomic::AtomicUsize::new(0);
    let tokens = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut client = client(&daemon);
                for _ in 0..TURNS {
                    let held = client.lock("a", HoldOptions::default()).unwrap();
                    assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    tokens.lock().unwrap().push(held.token());
                    assert_eq!(inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst), 1);
                    drop(held);
                }
            });
        }
    });
    let tokens = tokens.into_inner().unwrap();
    assert_eq!(tokens.len(), THREADS * TURNS);
    assert!(tokens.is_sorted_by(|one, two| one < two), "{tokens:?}");
}

#[test]
fn a_barrier_a_semaphore_an_election_and_a_lease() {
    let daemon = Daemon::start();
    std::thread::scope(|scope| {
        let places: Vec<_> =
            (0..3).map(|_| scope.spawn(|| client(&daemon).arrive("a", 3, None).unwrap().place)).collect();
        let mut places: Vec<u32> = places.into_iter().map(|thread| thread.join().unwrap()).collect();
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2]);
    });
    let (mut one, mut two) = (client(&daemon), client(&daemon));
    let permit = one.acquire("a", 1, once()).unwrap();
    assert_eq!(two.acquire("a", 1, once()).unwrap_err().code, ErrorCode::Busy);
    permit.release().unwrap();
    let mut leads = one.campaign("a", "one", once()).unwrap();
    leads.proclaim("one, ready").unwrap();
    assert_eq!(two.campaign("a", "two", once()).unwrap_err().code, ErrorCode::Busy);
    drop(leads);
    two.lease(Duration::from_secs(60)).unwrap().release().unwrap();
}

#[test]
fn a_killed_daemon_takes_what_was_held_along() {
    let daemon = Daemon::start();
    let mut client = client(&daemon);
    let memory = HoldOptions { durability: Some(Durability::Memory), ..HoldOptions::default() };
    let mut held = client.lock("a", memory).unwrap();
    daemon.signal(Signal::KILL);
    while held.check().is_ok() {
        std::thread::yield_now();
    }
    assert_eq!(held.release().unwrap_err().code, ErrorCode::LockLost);
}

#[test]
fn a_call_can_be_made_under_the_token_of_a_lock() {
    let daemon = Daemon::start();
    serve_echo(&daemon);
    let mut holder = client(&daemon);
    let held = holder.lock("a", HoldOptions::default()).unwrap();
    let token = held.token();
    // One that has not heard of the daemon yet waits until it knows what that understands.
    let options = ConnectOptions::new().address(Address::Unix(daemon.socket()));
    let mut caller = Client::open(options).unwrap();
    let call = |caller: &mut Client, token| {
        let options = CallOptions::new().fence(ResourceName::parse("a").unwrap(), token);
        caller.call_with("test.echo", "echo", "x", options)
    };
    assert_eq!(&*call(&mut caller, token).unwrap().payload.body, b"x");
    assert_eq!(call(&mut caller, token - 1).unwrap_err().code, ErrorCode::StaleFencingToken);
    // Datagrams say nothing of fences, so that a call under one is not sent.
    let options = ConnectOptions::new().address(Address::Dgram(daemon.datagram_socket()));
    let mut sender = Client::connect(options).unwrap();
    let error = call(&mut sender, token).unwrap_err();
    assert_eq!(error.code, ErrorCode::Unsupported);
    assert!(error.message.contains("datagrams"), "it is not the daemon's fault: {error}");
}

#[test]
fn what_is_held_is_taken_up_by_whoever_reconnects() {
    let directory = tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").unwrap();
    let [runtime_dir, state_dir] = ["run", "state"].map(|name| Some(directory.path().join(name)));
    let options = Options { runtime_dir, state_dir, ..Options::default() };
    let mut daemon = Daemon::start_with(&options);
    let mut client = client(&daemon);
    let mut held = client.lock("a", HoldOptions::default()).unwrap();
    assert_eq!((held.durability(), held.deadline()), (Durability::Disk, None));
    let token = held.token();
    for _ in 0..2 {
        daemon.kill();
        while held.check().is_ok() {
            std::thread::yield_now();
        }
        assert_eq!(held.check().unwrap_err().code, ErrorCode::Unreachable);
        assert!(held.deadline().is_some());
        daemon = Daemon::start_with(&options);
        let mut other = crate::client(&daemon);
        assert_eq!(other.lock("a", once()).unwrap_err().code, ErrorCode::Busy);
        assert!(held.client().reconnect().unwrap().epoch_changed);
        assert_eq!((held.check(), held.token(), held.deadline()), (Ok(()), token, None));
        assert_eq!(other.lock("a", once()).unwrap_err().code, ErrorCode::Busy);
    }
    // Who comes too late has lost it.
    daemon.kill();
    while held.check().is_ok() {
        std::thread::yield_now();
    }
    let deadline = held.deadline().unwrap();
    daemon = Daemon::start_with(&options);
    let mut other = crate::client(&daemon);
    let next = other.lock("a", HoldOptions::default()).unwrap();
    assert!(ipc_core::transport::clock::now() >= deadline && next.token() > token);
    held.client().reconnect().unwrap();
    assert_eq!(held.check().unwrap_err().code, ErrorCode::LockLost);
    assert_eq!(held.release().unwrap_err().code, ErrorCode::LockLost);
    assert!(next.release().is_ok());
}

#[test]
fn a_delay_after_a_lost_holder_runs_on_when_the_daemon_is_killed_and_started_again() {
    let place = tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").unwrap();
    let start = || {
        let [runtime_dir, state_dir] = ["run", "state"].map(|name| Some(place.path().join(name)));
        Daemon::start_with(&Options { runtime_dir, state_dir, ..Options::default() })
    };
    let daemon = start();
    let (mut one, mut two) = (client(&daemon), client(&daemon));
    let delay = Duration::from_secs(2);
    let held = one.lock("a", HoldOptions { delay, ..HoldOptions::default() }).unwrap();
    let token = held.token();
    let ask = |client: &mut Client, method: &str, what: &str| -> serde_json::Value {
        let answer = client.call("ipc.daemon", method, what).unwrap();
        serde_json::from_str(answer.payload.as_text().unwrap()).unwrap()
    };
    let mut commits = || ask(&mut two, "status", "")["counters"]["commits_made"].as_u64().unwrap();
    let before = commits();
    let lost_at = Instant::now();
    // The connection ends without a word.
    std::mem::forget(held);
    drop(one);
    assert!(eventually(|| commits() > before), "the loss does not come to the disk");
    daemon.kill();
    let daemon = start();
    let mut other = client(&daemon);
    assert_eq!(other.lock("a", once()).unwrap_err().code, ErrorCode::Busy);
    let row = &ask(&mut other, "list", "locks")[0];
    assert_eq!((&row["name"], &row["mode"], &row["holders"]), (&"a".into(), &"closed".into(), &0.into()));
    assert!(row["closed_ms"].as_u64().is_some_and(|left| left <= 2000), "{row}");
    let next = other.lock("a", HoldOptions::default()).unwrap();
    assert!(next.token() > token && lost_at.elapsed() >= delay);
    next.release().unwrap();
}
