//! What is held over restarts of the daemon, through the async client.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use ipc_core::client::{Backoff, Client, ConnectOptions, ConnectionEvent, ConnectionEvents, Durability};
use ipc_core::transport::clock;
use ipc_core::{Address, ErrorCode, HoldOptions};
use ipc_tests::daemon::{Daemon, Options, PATIENCE};

use crate::coordination::{busy, living, next, once};

/// A daemon that can be started again where the last one was, and what reconnects to it.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").unwrap() }
    }

    fn runtime_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    fn start(&self) -> Daemon {
        let state_dir = Some(self.directory.path().join("state"));
        let runtime_dir = Some(self.runtime_dir());
        Daemon::start_with(&Options { runtime_dir, state_dir, ..Options::default() })
    }

    async fn client(&self) -> Client {
        let backoff = Backoff { first: Duration::from_millis(1), ..Backoff::default() };
        let address = Address::Unix(self.runtime_dir().join("bus.sock"));
        let options = ConnectOptions::new().address(address).call_timeout(PATIENCE).reconnect(backoff);
        Client::connect(options).await.unwrap()
    }
}

fn on_each_place<F: Future<Output = ()>>(test: impl Fn(Place) -> F) {
    for runtime in [crate::current_thread(), crate::multi_thread()] {
        let end = runtime.block_on(async { tokio::time::timeout(PATIENCE, test(Place::new())).await });
        assert!(end.is_ok(), "the test does not end");
    }
}

/// Waits until the client has heard of another life of the daemon.
async fn back(events: &mut ConnectionEvents) {
    while !matches!(events.next().await.unwrap(), ConnectionEvent::Reconnected { epoch_changed: true, .. }) {}
}

#[test]
fn what_is_held_is_taken_up_after_a_restart() {
    on_each_place(async |place| {
        let mut daemon = place.start();
        let (client, other) = (place.client().await, place.client().await);
        let mut events = client.events();
        let bound = client.lock("a", HoldOptions::default()).await.unwrap();
        let timed = client.lock_shared("b", living(Duration::from_secs(60))).await.unwrap();
        let permit = client.acquire("c", 2, HoldOptions::default()).await.unwrap();
        let leads = client.campaign("d", "one", HoldOptions::default()).await.unwrap();
        let lease = client.lease(Duration::from_secs(60)).await.unwrap();
        let memory = HoldOptions { durability: Some(Durability::Memory), ..HoldOptions::default() };
        let volatile = client.lock("e", memory).await.unwrap();
        assert_eq!((bound.durability(), volatile.durability()), (Durability::Disk, Durability::Memory));
        let waiting = tokio::spawn(async move { other.lock("a", HoldOptions::default()).await });
        let kept = [&bound, &timed, &permit, &leads, &lease];
        for _ in 0..3 {
            daemon.kill();
            daemon = place.start();
            back(&mut events).await;
            for hold in kept {
                // Whoever renews it asks the daemon that is there now.
                hold.renew().await.unwrap();
                assert!(hold.is_held());
            }
            assert!(bound.deadline().is_none() && timed.deadline().is_some());
        }
        assert_eq!(volatile.lost().await.code, ErrorCode::LockLost);
        // Those who waited have to ask anew, and wait for the same holder.
        assert!(waiting.await.unwrap().is_err());
        let other = place.client().await;
        busy(other.lock("a", once()).await);
        leads.proclaim("two").await.unwrap();
        let mut observed = other.observe("d").await.unwrap();
        let leader = next(&mut observed).await.unwrap();
        assert_eq!(leader, (leads.token(), "two".to_owned()));
        let token = bound.token();
        bound.release().await.unwrap();
        assert!(other.lock("a", once()).await.unwrap().token() > token);
        drop(daemon);
    });
}

#[test]
fn a_daemon_that_is_stopped_and_started_leaves_everybody_what_he_holds() {
    on_each_place(async |place| {
        let daemon = place.start();
        let client = place.client().await;
        let mut events = client.events();
        let held = client.lock("a", HoldOptions::default()).await.unwrap();
        let other = place.client().await;
        other.lock("b", HoldOptions::default()).await.unwrap().release().await.unwrap();
        daemon.stop();
        let _daemon = place.start();
        back(&mut events).await;
        held.renew().await.unwrap();
        let other = place.client().await;
        busy(other.lock("a", once()).await);
        assert!(other.lock("b", once()).await.is_ok(), "it was given back");
    });
}

#[test]
fn a_daemon_that_stays_away_costs_what_is_held_at_its_deadline() {
    on_each_place(async |place| {
        let daemon = place.start();
        let client = place.client().await;
        let bound = client.lock("a", HoldOptions::default()).await.unwrap();
        let timed = client.lock("b", living(Duration::from_secs(1))).await.unwrap();
        daemon.kill();
        let deadline = timed.deadline().unwrap();
        assert_eq!(timed.lost().await.code, ErrorCode::LockLost);
        assert!(clock::now() >= deadline && !timed.is_held() && bound.is_held());
        let deadline = bound.deadline().unwrap();
        assert_eq!(bound.lost().await.code, ErrorCode::LockLost);
        assert!(clock::now() >= deadline && !bound.is_held());
    });
}

#[test]
fn what_is_given_back_while_the_daemon_is_away_is_free_when_it_is_there() {
    on_each_place(async |place| {
        let daemon = place.start();
        let client = place.client().await;
        let mut events = client.events();
        let (released, dropped) = (
            client.lock("a", HoldOptions::default()).await.unwrap(),
            client.lock("b", HoldOptions::default()).await.unwrap(),
        );
        daemon.kill();
        assert!(matches!(events.next().await, Some(ConnectionEvent::Disconnected(_))));
        drop(dropped);
        let releasing = tokio::spawn(released.release());
        let _daemon = place.start();
        releasing.await.unwrap().unwrap();
        let other = place.client().await;
        for name in ["a", "b"] {
            other.lock(name, HoldOptions::default()).await.unwrap().release().await.unwrap();
        }
    });
}

#[test]
fn what_nobody_takes_up_is_free_after_its_time() {
    let place = Place::new();
    let daemon = place.start();
    let runtime = crate::current_thread();
    runtime.block_on(async {
        let client = place.client().await;
        let held = client.lock("a", living(Duration::from_millis(300))).await.unwrap();
        daemon.kill();
        // Nobody is there to take it up: its connection and its secret are gone.
        std::mem::forget(held);
    });
    drop(runtime);
    let _daemon = place.start();
    crate::current_thread().block_on(async {
        let client = place.client().await;
        assert!(client.lock("a", HoldOptions::default()).await.unwrap().is_held());
    });
}
