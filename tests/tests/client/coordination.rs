//! Locks, semaphores, elections, barriers and leases through the async client.

use std::time::Duration;

use ipc_core::client::{Hold, Observation};
use ipc_core::name::ResourceName;
use ipc_core::{CallOptions, ErrorCode, HoldOptions};
use ipc_tests::daemon::{Daemon, Options, Signal};

use crate::{Bus, on_each_runtime};

pub(crate) fn once() -> HoldOptions {
    HoldOptions { wait: Some(Duration::ZERO), ..HoldOptions::default() }
}

pub(crate) fn living(ttl: Duration) -> HoldOptions {
    HoldOptions { ttl: Some(ttl), ..HoldOptions::default() }
}

pub(crate) fn busy(taken: Result<Hold, ipc_core::Error>) -> String {
    let error = taken.expect_err("somebody else holds it");
    assert_eq!(error.code, ErrorCode::Busy, "{error}");
    error.message
}

#[test]
fn a_lock_is_held_alone_and_passes_on_when_it_is_given_back_or_dropped() {
    on_each_runtime(async |bus| {
        let (one, two) = (bus.client().await, bus.client().await);
        let first = one.lock("a/b", HoldOptions::default()).await.unwrap();
        assert!(first.is_held() && first.ttl().is_none() && first.deadline().is_none());
        assert!(busy(two.lock("a/b", once()).await).contains(&format!("pid={}", std::process::id())));
        // Another name, and another sort of thing of that name, are something else.
        let _other = two.lock("a/c", once()).await.unwrap();
        let _permit = two.acquire("a/b", 1, once()).await.unwrap();
        let waiting = tokio::spawn(async move { two.lock("a/b", HoldOptions::default()).await });
        let token = first.token();
        first.release().await.unwrap();
        let second = waiting.await.unwrap().unwrap();
        assert!(second.token() > token);
        let waiting = one.lock("a/b", HoldOptions::default());
        drop(second);
        assert!(waiting.await.unwrap().is_held());
    });
}

#[test]
fn a_lock_can_be_shared_and_those_who_wait_are_not_overtaken() {
    on_each_runtime(async |bus| {
        let (one, two, three) = (bus.client().await, bus.client().await, bus.client().await);
        let first = one.lock_shared("a", once()).await.unwrap();
        let second = two.lock_shared("a", once()).await.unwrap();
        busy(three.lock("a", once()).await);
        let mut alone = Box::pin(three.lock("a", HoldOptions::default()));
        // It is in the queue once the daemon has answered what was sent behind it.
        tokio::select! {
            biased;
            _ = &mut alone => panic!("two share it"),
            pong = async { three.ping().await } => drop(pong.unwrap()),
        }
        busy(two.lock_shared("a", once()).await);
        first.release().await.unwrap();
        second.release().await.unwrap();
        assert!(alone.await.unwrap().is_held());
    });
}

#[test]
fn a_wait_ends_at_its_deadline_and_when_nobody_waits_any_more() {
    on_each_runtime(async |bus| {
        let (one, two) = (bus.client().await, bus.client().await);
        let held = one.lock("a", HoldOptions::default()).await.unwrap();
        let brief = HoldOptions { wait: Some(Duration::from_millis(30)), ..HoldOptions::default() };
        busy(two.lock("a", brief).await);
        let mut given_up = Box::pin(two.lock("a", HoldOptions::default()));
        tokio::select! {
            biased;
            _ = &mut given_up => panic!("somebody else holds it"),
            pong = async { two.ping().await } => drop(pong.unwrap()),
        }
        drop(given_up);
        held.release().await.unwrap();
        // Had the request been granted, the lock would be held for good.
        assert!(one.lock("a", HoldOptions::default()).await.unwrap().is_held());
    });
}

#[test]
fn a_circle_of_sessions_is_refused_and_named() {
    on_each_runtime(async |bus| {
        let (one, two) = (bus.client().await, bus.client().await);
        let own = |owner| HoldOptions { owner, ..HoldOptions::default() };
        let a = one.lock("a", own(1)).await.unwrap();
        let b = two.lock("b", own(1)).await.unwrap();
        let mut waits = Box::pin(one.lock("b", own(1)));
        tokio::select! {
            biased;
            _ = &mut waits => panic!("the other holds it"),
            pong = async { one.ping().await } => drop(pong.unwrap()),
        }
        let error = two.lock("a", own(1)).await.expect_err("each would wait for the other");
        assert_eq!(error.code, ErrorCode::Deadlock);
        for part in ["for lock a", "for lock b", &format!("pid={}", std::process::id())] {
            assert!(error.message.contains(part), "{error}");
        }
        // Another thread of control of the second session may wait: its holder is not stuck.
        busy(two.lock("a", HoldOptions { wait: Some(Duration::from_millis(10)), ..own(2) }).await);
        drop(b);
        assert!(waits.await.unwrap().is_held() && a.is_held());
    });
}

#[test]
fn a_timed_lock_is_renewed_by_itself_for_as_long_as_it_is_wanted() {
    on_each_runtime(async |bus| {
        let (one, two) = (bus.client().await, bus.client().await);
        let ttl = Duration::from_millis(90);
        let held = one.lock("a", living(ttl)).await.unwrap();
        assert_eq!(held.ttl(), Some(ttl));
        let first = held.deadline().unwrap();
        while held.deadline().unwrap() < first + 3 * ttl {
            assert!(held.is_held(), "it was lost");
            busy(two.lock("a", once()).await);
        }
        held.renew().await.unwrap();
        held.release().await.unwrap();
        // Granted after a wait, it counts from a renewal on.
        let held = one.lock("a", living(ttl)).await.unwrap();
        let waiting = tokio::spawn(async move { two.lock("a", living(ttl)).await });
        let first = held.deadline().unwrap();
        while held.deadline().unwrap() < first + ttl {
            one.ping().await.unwrap();
        }
        drop(held);
        assert!(waiting.await.unwrap().unwrap().is_held());
    });
}

#[test]
fn a_stopped_daemon_costs_a_timed_lock() {
    on_each_runtime(async |bus| {
        let client = bus.client().await;
        let timed = client.lock("a", living(Duration::from_millis(100))).await.unwrap();
        let bound = client.lock("b", HoldOptions::default()).await.unwrap();
        bus.daemon.signal(Signal::STOP);
        let deadline = timed.deadline().unwrap();
        let error = timed.lost().await;
        assert_eq!(error.code, ErrorCode::LockLost);
        assert!(ipc_core::transport::clock::now() >= deadline && !timed.is_held());
        assert!(bound.is_held());
        bus.daemon.signal(Signal::CONT);
        assert_eq!(timed.release().await.unwrap_err().code, ErrorCode::LockLost);
        bound.release().await.unwrap();
        // Nobody holds it in secret.
        assert!(bus.client().await.lock("a", HoldOptions::default()).await.unwrap().is_held());
    });
}

#[test]
fn holders_are_told_when_the_daemon_dies() {
    on_each_runtime(async |bus| {
        let client = bus.client().await;
        let (lock, lease) = (
            client.lock("a", HoldOptions::default()).await.unwrap(),
            client.lease(Duration::from_secs(60)).await.unwrap(),
        );
        let other = bus.client().await;
        let waiting = tokio::spawn(async move { other.lock("a", HoldOptions::default()).await });
        let mut observed = client.observe("e").await.unwrap();
        assert_eq!(next(&mut observed).await, None);
        bus.daemon.kill();
        assert_eq!(lock.lost().await.code, ErrorCode::LockLost);
        assert_eq!(lease.lost().await.code, ErrorCode::LockLost);
        let error = waiting.await.unwrap().unwrap_err();
        assert!([ErrorCode::OutcomeUnknown, ErrorCode::Unreachable].contains(&error.code), "{error}");
        assert!(observed.next().await.unwrap().is_err() && observed.next().await.is_none());
    });
}

#[test]
fn tokens_grow_over_a_restart() {
    let directory = tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").unwrap();
    let [runtime_dir, state_dir] = ["run", "state"].map(|name| Some(directory.path().join(name)));
    let options = Options { runtime_dir, state_dir, ..Options::default() };
    let mut last = 0;
    for _ in 0..3 {
        let bus = Bus { daemon: Daemon::start_with(&options), polls: true };
        crate::current_thread().block_on(async {
            for _ in 0..50 {
                let held = bus.client().await.lock("a", HoldOptions::default()).await.unwrap();
                assert!(held.token() > last, "{} after {last}", held.token());
                last = held.token();
            }
        });
        bus.daemon.kill();
    }
}

#[test]
fn a_semaphore_gives_out_as_many_permits_as_it_has() {
    on_each_runtime(async |bus| {
        let client = bus.client().await;
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(client.acquire("a", 3, once()).await.unwrap());
        }
        busy(client.acquire("a", 3, once()).await);
        let error = client.acquire("a", 4, once()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Conflict);
        let waiting = client.acquire("a", 3, HoldOptions::default());
        held.pop();
        assert!(waiting.await.unwrap().is_held());
    });
}

pub(crate) async fn next(observed: &mut Observation) -> Option<(u64, String)> {
    let leader = observed.next().await.unwrap().unwrap()?;
    Some((leader.token, leader.value.as_text().unwrap().to_owned()))
}

#[test]
fn observers_see_who_leads_and_each_change() {
    on_each_runtime(async |bus| {
        let (one, two, observer) = (bus.client().await, bus.client().await, bus.client().await);
        let mut observed = observer.observe("e").await.unwrap();
        assert_eq!(next(&mut observed).await, None);
        let first = one.campaign("e", "one", HoldOptions::default()).await.unwrap();
        assert_eq!(next(&mut observed).await, Some((first.token(), "one".to_owned())));
        first.proclaim("one, ready").await.unwrap();
        assert_eq!(next(&mut observed).await, Some((first.token(), "one, ready".to_owned())));
        let second = tokio::spawn(async move { two.campaign("e", "two", HoldOptions::default()).await });
        let too_long = first.proclaim("x".repeat(4097)).await.unwrap_err();
        assert_eq!(too_long.code, ErrorCode::PayloadTooLarge);
        drop(first);
        // With the other in the queue there is no moment without a leader; else there is.
        let mut leader = next(&mut observed).await;
        if leader.is_none() {
            leader = next(&mut observed).await;
        }
        let second = second.await.unwrap().unwrap();
        assert_eq!(leader, Some((second.token(), "two".to_owned())));
        let mut late = observer.observe("e").await.unwrap();
        assert_eq!(next(&mut late).await, leader);
        drop(second);
        assert_eq!((next(&mut observed).await, next(&mut late).await), (None, None));
        let lock = one.lock("e", once()).await.unwrap();
        assert_eq!(lock.proclaim("x").await.unwrap_err().code, ErrorCode::InvalidArgument);
    });
}

#[test]
fn a_barrier_is_passed_by_all_together() {
    on_each_runtime(async |bus| {
        let mut last = 0;
        for _ in 0..2 {
            let mut parties = Vec::new();
            for _ in 0..3 {
                let client = bus.client().await;
                parties.push(tokio::spawn(async move { client.arrive("a", 3, None).await }));
            }
            let mut places = Vec::new();
            let mut generations = Vec::new();
            for party in parties {
                let passed = party.await.unwrap().unwrap();
                places.push(passed.place);
                generations.push(passed.generation);
            }
            places.sort_unstable();
            assert_eq!(places, [0, 1, 2]);
            assert!(generations.iter().all(|generation| *generation == generations[0]));
            assert!(generations[0] > last);
            last = generations[0];
        }
        let client = bus.client().await;
        let error = client.arrive("a", 2, Some(Duration::ZERO)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Busy);
        assert_eq!(client.arrive("a", 1, Some(Duration::ZERO)).await.unwrap().place, 0);
    });
}

#[test]
fn a_lease_can_outlive_its_connection_or_not() {
    on_each_runtime(async |bus| {
        let client = bus.client().await;
        let ttl = Duration::from_secs(60);
        let lasting = client.grant_lease(ttl).await.unwrap();
        let bound = client.lease(ttl).await.unwrap();
        let other = bus.client().await;
        assert_eq!(other.renew_lease(bound.token()).await.unwrap_err().code, ErrorCode::LockLost);
        client.close().await;
        assert_eq!(other.renew_lease(lasting).await.unwrap(), Some(ttl));
        other.revoke_lease(lasting).await.unwrap();
        assert_eq!(other.renew_lease(lasting).await.unwrap_err().code, ErrorCode::LockLost);
        assert_eq!(bound.lost().await.code, ErrorCode::LockLost);
        let brief = other.grant_lease(Duration::from_millis(10)).await.unwrap();
        while other.call("ipc.daemon", "list", "leases").await.unwrap().payload.as_text().unwrap() != "[]" {}
        assert_eq!(other.renew_lease(brief).await.unwrap_err().code, ErrorCode::LockLost);
        let week = Duration::from_secs(7 * 24 * 3600);
        let tick = Duration::from_micros(1);
        let ten = Duration::from_millis(10);
        for (ttl, fits) in
            [(ten - tick, false), (ten, true), (week - tick, true), (week, true), (week + tick, false)]
        {
            let granted = other.grant_lease(ttl).await.map_err(|error| error.code);
            assert_eq!(granted.err(), (!fits).then_some(ErrorCode::InvalidArgument), "{ttl:?}");
        }
    });
}

#[test]
fn a_call_under_a_stale_token_does_not_run() {
    on_each_runtime(async |bus| {
        let (one, two, served) = (bus.client().await, bus.client().await, bus.client().await);
        let _serving = served.serve(crate::echo_service()).await.unwrap();
        let lock = ResourceName::parse("a").unwrap();
        let call = async |token| {
            let options = CallOptions::new().fence(lock.clone(), token);
            let reply = one.call_with("test.echo", "echo", "x", options).await;
            reply.map(|reply| reply.payload.body.to_vec()).map_err(|error| error.code)
        };
        let held = one.lock("a", once()).await.unwrap();
        let token = held.token();
        assert_eq!(call(token).await, Ok(b"x".to_vec()));
        held.release().await.unwrap();
        let next = two.lock("a", once()).await.unwrap();
        assert_eq!(call(token).await, Err(ErrorCode::StaleFencingToken));
        assert_eq!(call(next.token()).await, Ok(b"x".to_vec()));
    });
}
