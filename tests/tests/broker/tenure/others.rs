//! Leases, permits and leaderships over restarts, and how their records are written.

use core::time::Duration;

use ipc_core::ErrorCode;
use ipc_core::limits::Limits;
use ipc_core::time::Instant;
use ipc_core::wire::Kind;
use ipc_core::wire::coordination::{
    Acquire, Bind, Campaign, Claim, Condition, Durability, GetKey, Granted, Leader, Observe, OfToken,
    Operation, PutKey, TakeLease, TakeLock, TakenUp, Told,
};
use ipc_daemon::broker::Fault;
use ipc_tests::disk::Disk;

use super::{ONE, after_lazy, claim, living, lock};
use crate::coordination::Scene;
use crate::durable::{restarted, scene, start};

#[test]
fn leases_outlive_a_restart_and_so_does_what_is_bound_to_them() {
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    let lease = |scene: &mut Scene, bind| {
        let lease = TakeLease { bind, ttl_us: 60_000_000, durability: None };
        let asked = scene.ask(client, Operation::LEASE, &lease, b"");
        scene.finish();
        let granted = scene.take_outcome(client, Operation::LEASE, asked).unwrap().unwrap();
        granted.decode::<Granted>().token
    };
    let (bound, lasting) = (lease(&mut scene, Bind::Session), lease(&mut scene, Bind::Time));
    for (key, lease) in [("bound", bound), ("lasting", lasting)] {
        let put = PutKey {
            key: key.into(),
            condition: Condition::Any,
            ttl_us: 0,
            lease,
            fence: None,
            durability: None,
        };
        scene.ask(client, Operation::PUT, &put, b"x");
    }
    scene.finish();
    let mut scene = restarted(scene);
    let has = |scene: &mut Scene, key: &str| {
        let client = scene.client();
        scene.outcome_of(client, Operation::GET, &GetKey { key: key.into() }, b"").is_ok()
    };
    let now = scene.bus.now;
    let rows = scene.bus.broker.leases(now);
    assert_eq!(
        rows.iter().map(|row| (row.token, row.is_absent)).collect::<Vec<_>>(),
        [(bound, true), (lasting, false)]
    );
    scene.bus.wait(Duration::from_secs(59));
    assert!(has(&mut scene, "bound") && has(&mut scene, "lasting"));
    let client = scene.client();
    let taken_up = scene.take_up(client, ONE);
    assert_eq!((taken_up.len(), taken_up[0].token, taken_up[0].operation), (1, bound, 1));
    // The other belongs to its user, whichever session renews it.
    assert!(scene.of_token(client, Operation::RENEW, lasting).is_ok());
    scene.bus.leave(client);
    scene.finish();
    assert!(!has(&mut scene, "bound") && has(&mut scene, "lasting"));
    scene.bus.wait(Duration::from_secs(60));
    scene.finish();
    assert!(!has(&mut scene, "lasting"));
    after_lazy(&mut scene);
    assert_eq!(scene.records(), 0);
}

#[test]
fn a_daemon_that_is_stopped_ends_no_lease_that_goes_on_and_nothing_that_is_bound_to_it() {
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    let lease = TakeLease { bind: Bind::Session, ttl_us: 0, durability: None };
    let asked = scene.ask(client, Operation::LEASE, &lease, b"");
    scene.finish();
    let granted = scene.take_outcome(client, Operation::LEASE, asked).unwrap().unwrap();
    let lease = granted.decode::<Granted>().token;
    let (condition, key) = (Condition::Any, "bound");
    let put = PutKey { key: key.into(), condition, ttl_us: 0, lease, fence: None, durability: None };
    scene.ask(client, Operation::PUT, &put, b"x");
    scene.finish();
    scene.bus.broker.begin_drain();
    scene.bus.broker.end_drain();
    after_lazy(&mut scene);
    let mut scene = restarted(scene);
    let client = scene.client();
    assert_eq!(scene.take_up(client, ONE)[0].token, lease);
    assert!(scene.outcome_of(client, Operation::GET, &GetKey { key: key.into() }, b"").is_ok());
}

#[test]
fn permits_are_taken_up_and_the_others_go_on() {
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    let acquire = |count| Acquire { name: "s".into(), permits: 3, count, claim: claim(false, None) };
    let asked = scene.ask(client, Operation::ACQUIRE, &acquire(2), b"");
    scene.finish();
    assert!(scene.take_outcome(client, Operation::ACQUIRE, asked).unwrap().is_ok());
    let mut scene = restarted(scene);
    let other = scene.client();
    assert_eq!(scene.outcome_of(other, Operation::ACQUIRE, &acquire(2), b"").unwrap_err(), ErrorCode::Busy);
    assert!(scene.outcome_of(other, Operation::ACQUIRE, &acquire(1), b"").is_ok());
    let client = scene.client();
    let taken_up = scene.take_up(client, ONE);
    assert_eq!((taken_up[0].operation, taken_up[0].name.0.as_str()), (17, "s"));
    scene.of_token(client, Operation::RELEASE, taken_up[0].token).unwrap();
    after_lazy(&mut scene);
    assert!(scene.outcome_of(other, Operation::ACQUIRE, &acquire(2), b"").is_ok());
}

fn led(scene: &mut Scene, client: usize) -> Vec<(u64, Vec<u8>)> {
    let notices = scene.bus.client(client).take(Kind::NOTICE).into_iter();
    let told = notices.filter(|notice| notice.header.handle.index == Told::LEADER.0);
    told.map(|notice| (notice.decode::<Leader>().token, notice.payload)).collect()
}

#[test]
fn a_leader_leads_again_with_what_it_proclaimed_last() {
    let mut scene = scene(Limits::default());
    let (client, observer) = (scene.named(ONE), scene.client());
    let election = Observe { name: "e".into() };
    scene.outcome_of(observer, Operation::OBSERVE, &election, b"").unwrap();
    let campaign = Campaign { name: "e".into(), claim: claim(true, None) };
    let asked = scene.ask(client, Operation::CAMPAIGN, &campaign, b"first");
    assert!(led(&mut scene, observer).is_empty());
    scene.finish();
    let token = scene.take_outcome(client, Operation::CAMPAIGN, asked).unwrap().unwrap();
    let token = token.decode::<Granted>().token;
    assert_eq!(led(&mut scene, observer), [(token, b"first".to_vec())]);
    // What is proclaimed is seen when it is kept, and when it is not, it was not proclaimed.
    for (value, fault) in [("lost", Some(Fault::Full("no room".to_owned()))), ("second", None)] {
        let asked = scene.ask(client, Operation::PROCLAIM, &OfToken { token }, value.as_bytes());
        assert!(led(&mut scene, observer).is_empty());
        let is_refused = fault.is_some();
        scene.fail(fault);
        scene.finish();
        let outcome = scene.take_outcome(client, Operation::PROCLAIM, asked).unwrap();
        assert_eq!(outcome.is_err(), is_refused);
    }
    assert_eq!(led(&mut scene, observer), [(token, b"second".to_vec())]);
    let mut scene = restarted(scene);
    let observer = scene.client();
    let leader = scene.outcome_of(observer, Operation::OBSERVE, &election, b"").unwrap();
    assert_eq!(leader.decode::<Leader>().token, 0, "it is not there");
    let client = scene.client();
    assert_eq!(scene.take_up(client, ONE)[0].token, token);
    assert_eq!(led(&mut scene, observer), [(token, b"second".to_vec())]);
    scene.bus.leave(client);
    assert_eq!(led(&mut scene, observer), [(0, Vec::new())]);
}

/// The layout of a record never changes: this one was written when it landed.
#[test]
fn a_record_that_was_written_once_is_read_for_ever() {
    let mut value = vec![1, 1, 0];
    value.extend([0, 0, 0, 0, 0, 0, 0, 0]);
    value.extend(60_000_000u64.to_le_bytes());
    value.extend(0u64.to_le_bytes());
    value.extend(7u64.to_le_bytes());
    value.extend(1000u32.to_le_bytes());
    value.extend(ONE.secret);
    value.extend([1, 0, 0, 0, b'l', 0]);
    let mut key = vec![6];
    key.extend(77u64.to_be_bytes());
    let mut disk = Disk::default();
    disk.records.insert(vec![1], 100u64.to_le_bytes().to_vec());
    disk.records.insert(key, value);
    let mut scene = Scene::with_disk(Limits::default(), Instant::from_nanos(0), disk.clone());
    let client = scene.client();
    let (durability, name) = (Durability::Disk, "l".into());
    let taken_up = TakenUp { token: 77, operation: 16, name, ttl_us: 60_000_000, durability };
    assert_eq!(scene.take_up(client, ONE), [taken_up]);
    // And it is what is written.
    let mut scene = Scene::with_disk(Limits::default(), start(), Disk::default());
    let client = scene.named(ONE);
    let claim = Claim { owner: 7, ..living(Duration::from_secs(60)).claim };
    scene.locked(client, &TakeLock { claim, ..lock(false, None) });
    let records = &scene.bus.disk.as_ref().unwrap().records;
    let written = records.iter().find(|(key, _)| key[0] == 6).map(|(_, value)| value);
    assert_eq!(written, disk.records.values().next_back());
}

#[test]
fn a_leader_proclaims_one_value_after_the_other() {
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    let campaign = Campaign { name: "e".into(), claim: claim(true, None) };
    let asked = scene.ask(client, Operation::CAMPAIGN, &campaign, b"");
    scene.finish();
    let token = scene.take_outcome(client, Operation::CAMPAIGN, asked).unwrap().unwrap();
    let token = token.decode::<Granted>().token;
    // One is being written, and one is the next: more would have no bound while the disk is slow.
    let [written, next, refused] = ["a", "b", "c"]
        .map(|value| scene.ask(client, Operation::PROCLAIM, &OfToken { token }, value.as_bytes()));
    let refused = scene.take_outcome(client, Operation::PROCLAIM, refused).unwrap();
    assert_eq!(refused.err().map(|error| error.code), Some(ErrorCode::Busy.number()));
    scene.finish();
    for asked in [written, next] {
        assert!(scene.take_outcome(client, Operation::PROCLAIM, asked).unwrap().is_ok());
    }
    let observer = scene.client();
    scene.outcome_of(observer, Operation::OBSERVE, &Observe { name: "e".into() }, b"").unwrap();
    let again = scene.ask(client, Operation::PROCLAIM, &OfToken { token }, b"d");
    scene.finish();
    assert!(scene.take_outcome(client, Operation::PROCLAIM, again).unwrap().is_ok());
    assert_eq!(led(&mut scene, observer), [(token, b"d".to_vec())]);
}
