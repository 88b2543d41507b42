//! What nobody has taken up after a restart: whose it is, who gives it back, and how much of it there is.

use core::time::Duration;

use ipc_core::ErrorCode;
use ipc_core::limits::{HOLD_TAKE_UP_MAX, Limits};
use ipc_core::wire::coordination::{
    Bind, Claim, Durability, Granted, Identify, LockMode, Operation, TakeLease, TakeLock,
};
use ipc_daemon::broker::{Policy, Rule};
use ipc_tests::disk::Disk;
use ipc_tests::users::FewUsers;

use super::{MILLI, ONE, TWO, after_lazy, claim, living, lock};
use crate::coordination::Scene;
use crate::durable::{restarted, scene};

const THREE: Identify = Identify { secret: *b"three of sixteen" };

/// A lock that somebody held before the restart, with its token.
fn absent(wanted: &TakeLock) -> (Scene, u64) {
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    let held = scene.locked(client, wanted);
    (restarted(scene), held.token)
}

#[test]
fn what_nobody_has_taken_up_is_given_back_by_its_user() {
    let (mut scene, token) = absent(&living(Duration::from_secs(60)));
    let (one, two) = (scene.client(), scene.client());
    let asked = scene.ask(two, Operation::LOCK, &lock(true, Some(Durability::Memory)), b"");
    assert_eq!(scene.of_token(one, Operation::RENEW, token).unwrap_err(), ErrorCode::LockLost);
    assert!(scene.of_token(one, Operation::RELEASE, token).is_ok());
    assert_eq!(scene.of_token(one, Operation::RELEASE, token).unwrap_err(), ErrorCode::LockLost);
    scene.finish();
    let next: Granted = scene.take_outcome(two, Operation::LOCK, asked).unwrap().unwrap().decode();
    assert!(next.token > token && scene.records() == 0);
    // Its session has lost it, and is told so by what it is not told.
    let late = scene.client();
    assert!(scene.take_up(late, ONE).is_empty());
    // And what was taken up is its session's alone.
    let (mut scene, token) = absent(&lock(false, None));
    let (session, other) = (scene.client(), scene.client());
    assert_eq!(scene.take_up(session, ONE).len(), 1);
    assert_eq!(scene.of_token(other, Operation::RELEASE, token).unwrap_err(), ErrorCode::LockLost);
}

#[test]
fn what_is_given_back_so_is_not_closed_by_its_delay() {
    let claim = Claim { delay_us: 60_000_000, ..claim(false, None) };
    let (mut scene, token) = absent(&TakeLock { claim, ..lock(false, None) });
    let client = scene.client();
    assert!(scene.of_token(client, Operation::RELEASE, token).is_ok());
    after_lazy(&mut scene);
    assert!(!scene.is_busy(client));
}

#[test]
fn of_others_it_is_given_back_by_whoever_administers_the_daemon() {
    let rules = ["allow uid:7 administer release", "deny anyone administer >", "allow anyone * >"];
    let rules = rules.iter().zip(1..).map(|(text, line)| Rule::parse(text, line, &FewUsers).expect("a rule"));
    let policy = Policy::new(rules.collect(), Vec::new());
    let (mut scene, token) = absent(&living(Duration::from_secs(60)));
    scene.bus.set_policy(policy);
    let (stranger, keeper) = (scene.client_of(1001), scene.client_of(7));
    let refused = scene.of_token(stranger, Operation::RELEASE, token).unwrap_err();
    assert_eq!(refused, ErrorCode::PermissionDenied);
    assert_eq!(scene.of_token(keeper, Operation::RENEW, token).unwrap_err(), ErrorCode::LockLost);
    assert!(scene.of_token(keeper, Operation::RELEASE, token).is_ok());
    after_lazy(&mut scene);
    assert_eq!(scene.records(), 0);
}

#[test]
fn it_is_shown_with_its_user_and_for_how_long_it_is_kept() {
    for (wanted, time) in
        [(lock(false, None), HOLD_TAKE_UP_MAX), (living(Duration::from_secs(60)), Duration::from_secs(60))]
    {
        let (mut scene, token) = absent(&wanted);
        scene.bus.wait(MILLI);
        let now = scene.bus.now;
        let holder = &scene.bus.broker.gates(now)[0].holders[0];
        assert_eq!((holder.uid, holder.token, holder.remaining), (Some(1000), token, Some(time - MILLI)));
        let client = scene.client();
        let counted = |scene: &mut Scene| {
            let key = scene.bus.client(client).key();
            let id = scene.bus.broker.peer_id(key).expect("it is there");
            let rows = scene.bus.broker.view(id).quota();
            let own = rows.into_iter().find(|row| row.resource == "absent_holds_per_uid_max");
            own.map(|row| (row.uid, row.used))
        };
        assert_eq!(counted(&mut scene), Some((Some(1000), 1)));
        scene.take_up(client, ONE);
        let holder = &scene.bus.broker.gates(now)[0].holders[0];
        assert_eq!((holder.uid, holder.peer.is_some()), (None, true));
        assert_eq!(holder.remaining, (wanted.claim.ttl_us > 0).then_some(time));
        assert_eq!(counted(&mut scene), Some((Some(1000), 0)));
    }
}

#[test]
fn behind_the_eldest_those_of_its_own_user_are_shown_first() {
    let mut before = scene(Limits::default());
    let shared = TakeLock { mode: LockMode::Shared, ..living(Duration::from_secs(60)) };
    for (uid, secret) in [(1000, ONE), (1000, THREE), (1001, TWO)] {
        let client = before.client_of(uid);
        before.take_up(client, secret);
        before.locked(client, &shared);
    }
    let mut scene = restarted(before);
    for (uid, order) in [(1000, [1000, 1000, 1001]), (1001, [1000, 1001, 1000])] {
        let client = scene.client_of(uid);
        let key = scene.bus.client(client).key();
        let id = scene.bus.broker.peer_id(key).expect("it is there");
        let rows = scene.bus.broker.view(id).gates(scene.bus.now);
        let uids: Vec<u32> = rows[0].holders.iter().filter_map(|holder| holder.uid).collect();
        assert_eq!(uids, order);
    }
}

#[test]
fn whoever_does_not_get_it_is_told_that_nobody_is_there() {
    let (mut scene, _) = absent(&lock(false, None));
    let client = scene.client();
    let wanted = lock(false, Some(Durability::Memory));
    let refused = |scene: &mut Scene| {
        let asked = scene.ask(client, Operation::LOCK, &wanted, b"");
        scene.take_outcome(client, Operation::LOCK, asked).unwrap().unwrap_err().message.0
    };
    assert!(
        refused(&mut scene)
            .ends_with("held by uid 1000, whose session is not back since the daemon was started")
    );
    scene.bus.wait(HOLD_TAKE_UP_MAX);
    after_lazy(&mut scene);
    // Lost by somebody who asked for a delay, it is closed.
    let other = scene.client();
    let claim = Claim { delay_us: 1_000_000, ..claim(false, Some(Durability::Memory)) };
    scene.outcome_of(other, Operation::LOCK, &TakeLock { claim, ..wanted.clone() }, b"").unwrap();
    scene.bus.leave(other);
    assert!(refused(&mut scene).ends_with("closed for a while because a holder was lost"));
}

#[test]
fn restarts_do_not_add_up_what_nobody_takes_up() {
    let mut before = scene(Limits::default());
    let client = before.named(ONE);
    let named = |name: &str| TakeLock { name: name.into(), ..living(Duration::from_secs(60)) };
    for name in ["a", "b", "c"] {
        before.locked(client, &named(name));
    }
    let records = before.bus.disk.as_ref().unwrap().records.clone();
    for (max, has_room) in [(2, false), (3, false), (4, true)] {
        let limits = Limits { absent_holds_per_uid_max: max, ..Limits::default() };
        let disk = Disk { records: records.clone(), ..Disk::default() };
        let mut scene = Scene::with_disk(limits, before.bus.now, disk);
        let (other, stranger) = (scene.named(TWO), scene.client_of(1001));
        scene.take_up(stranger, TWO);
        let expected = if has_room { Ok(()) } else { Err(ErrorCode::QuotaExceeded) };
        let tries = |scene: &mut Scene, client, name| {
            scene.outcome_of(client, Operation::LOCK, &named(name), b"").map(|_| ())
        };
        assert_eq!(tries(&mut scene, other, "d"), expected, "{max}");
        let lease = TakeLease { bind: Bind::Session, ttl_us: 0, durability: None };
        let leased = scene.outcome_of(other, Operation::LEASE, &lease, b"").map(|_| ());
        assert_eq!(leased, expected);
        assert_eq!(tries(&mut scene, stranger, "e"), Ok(()), "others are not concerned");
        let claim = claim(false, Some(Durability::Memory));
        let memory = TakeLock { name: "f".into(), mode: LockMode::Exclusive, claim };
        assert!(scene.outcome_of(other, Operation::LOCK, &memory, b"").is_ok(), "nor what is in memory");
        // It has room again when its session is back.
        let client = scene.client();
        assert_eq!(scene.take_up(client, ONE).len(), 3);
        assert_eq!(tries(&mut scene, other, "g"), Ok(()));
    }
}
