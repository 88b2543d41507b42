//! What one user can take of keys, work queues, locks and their like, topics and the line toward the disk, and what it leaves to
//! others.

mod line;

use ipc_core::Error;
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::wire::Kind;
use ipc_core::wire::codec::Wire;
use ipc_core::wire::coordination::{
    Acquire, Arrive, Bind, Claim, Condition, DeleteKey, Durability, Granted, Identify, LockMode, Observe,
    OfToken, Operation, PutKey, TakeLease, TakeLock,
};
use ipc_core::wire::queue::{Enqueue, Overflow, Purge, Take};
use ipc_daemon::broker::{Allowance, Grant, Policy};
use ipc_tests::disk::Disk;
use ipc_tests::raw::greeting;
use ipc_tests::users::FewUsers;

use crate::bus::{Bus, Who};
use crate::coordination::Scene;
use crate::durable::{restarted, scene, start};
use crate::queues::{entry, take};

/// Asks; the limit that kept it from happening, and whether others may have what is left.
fn refusal<T: Wire>(
    scene: &mut Scene,
    from: usize,
    operation: Operation,
    request: &T,
    payload: &[u8],
) -> Option<(String, bool)> {
    let correlation = scene.ask(from, operation, request, payload);
    while scene.bus.disk.is_some() && scene.bus.finish_commit() {}
    let refused = scene.take_outcome(from, operation, correlation)?.err()?;
    let is_for_others = refused.hint.is_some_and(|hint| hint.0.contains("users who have fewer"));
    Some((refused.resource.expect("the limit is named").0, is_for_others))
}

fn put_of(key: &str) -> PutKey {
    PutKey { key: key.into(), condition: Condition::Any, ttl_us: 0, lease: 0, fence: None, durability: None }
}

fn put(scene: &mut Scene, from: usize, key: &str) -> Option<(String, bool)> {
    refusal(scene, from, Operation::PUT, &put_of(key), b"x")
}

fn delete(scene: &mut Scene, from: usize, key: &str) {
    let delete = DeleteKey { key: key.into(), condition: Condition::Any, fence: None, durability: None };
    assert_eq!(refusal(scene, from, Operation::DELETE, &delete, b""), None);
}

/// How often that goes well, up to 100 times, and what it is refused for then.
fn until_refused(mut act: impl FnMut(u32) -> Option<(String, bool)>) -> (u32, Option<(String, bool)>) {
    let mut count = 0;
    loop {
        match act(count) {
            None if count < 100 => count += 1,
            refused => return (count, refused),
        }
    }
}

fn shared(limit: &str) -> Option<(String, bool)> {
    Some((limit.to_owned(), true))
}

fn full(limit: &str) -> Option<(String, bool)> {
    Some((limit.to_owned(), false))
}

/// What a user has of what that limit counts, and how often it was refused more.
fn used(scene: &Scene, uid: u32, limit: &str) -> (u64, u64) {
    let viewer = scene.bus.broker.peers()[0].peer.id;
    let rows = scene.bus.broker.view(viewer).quota();
    let row = rows.iter().find(|row| row.uid == Some(uid) && row.resource == limit);
    row.map_or((0, 0), |row| (row.used, row.refused))
}

fn allow(scene: &mut Scene, allowance: &str) {
    let allowances = vec![Allowance::parse(allowance, &FewUsers).unwrap()];
    scene.bus.set_policy(Policy::open(Vec::new()).with_allowances(allowances));
}

#[test]
fn nobody_takes_every_key() {
    let mut scene = Scene::new(Limits { keys_max: 20, ..Limits::default() });
    let users = [1, 2, 3].map(|uid| scene.client_of(uid));
    let counts = users.map(|user| until_refused(|number| put(&mut scene, user, &format!("{user}/{number}"))));
    let refused = shared("keys_max");
    assert_eq!(counts, [(10, refused.clone()), (5, refused.clone()), (3, refused.clone())]);
    let of = |scene: &Scene, limit: &str| [1, 2, 3].map(|uid| used(scene, uid, limit).0);
    assert_eq!(of(&scene, "keys_per_uid_max"), [10, 5, 3]);
    assert_eq!(used(&scene, 1, "keys_max"), (0, 1), "whoever asked for more is blamed");

    // What one has already it may change, and another may put over it: then it is that other's.
    assert_eq!(put(&mut scene, users[0], "0/0"), None);
    delete(&mut scene, users[2], "2/0");
    assert_eq!(put(&mut scene, users[2], "0/0"), None);
    assert_eq!(of(&scene, "keys_per_uid_max"), [9, 5, 3]);
    assert_eq!(put(&mut scene, users[1], "0/1"), refused);
    // What is deleted, by whomever, is not charged any more.
    delete(&mut scene, users[0], "2/1");
    (1..7).for_each(|number| delete(&mut scene, users[1], &format!("0/{number}")));
    assert_eq!(of(&scene, "keys_per_uid_max"), [3, 5, 2]);
    assert_eq!(put(&mut scene, users[0], "0/1"), None);
}

#[test]
fn whoever_is_alone_takes_every_key_and_the_next_to_come_finds_what_is_left() {
    let mut scene = Scene::new(Limits { keys_max: 20, ..Limits::default() });
    let one = [scene.client_of(1), scene.client_of(1)];
    let puts = until_refused(|number| put(&mut scene, one[number as usize % 2], &format!("{number}")));
    assert_eq!(puts, (20, full("keys_max")));
    let other = scene.client_of(2);
    assert_eq!(put(&mut scene, other, "mine"), full("keys_max"));
    delete(&mut scene, one[0], "3");
    assert_eq!(put(&mut scene, one[0], "3"), shared("keys_max"));
    assert_eq!(put(&mut scene, other, "mine"), None);
    // It has gone, and its key is there.
    scene.bus.leave(other);
    assert_eq!(used(&scene, 2, "keys_per_uid_max").0, 1);
}

#[test]
fn keys_that_end_by_themselves_are_not_charged_any_more() {
    let mut scene = Scene::new(Limits { keys_max: 8, ..Limits::default() });
    let (user, _other) = (scene.client_of(1), scene.client_of(2));
    let lease = TakeLease { bind: Bind::Session, ttl_us: 20_000, durability: None };
    let granted = scene.outcome_of(user, Operation::LEASE, &lease, b"").unwrap();
    let token = granted.decode::<Granted>().token;
    let timed = |number: u32| match number % 2 {
        0 => PutKey { ttl_us: 10_000, ..put_of(&number.to_string()) },
        _ => PutKey { lease: token, ..put_of(&number.to_string()) },
    };
    let puts = until_refused(|number| refusal(&mut scene, user, Operation::PUT, &timed(number), b"x"));
    assert_eq!(puts, (4, shared("keys_max")));
    for (wait, left) in [(9, 4), (1, 2), (10, 0)] {
        scene.bus.wait(core::time::Duration::from_millis(wait));
        assert_eq!(used(&scene, 1, "keys_per_uid_max").0, left, "after {wait} more");
    }
    assert_eq!(until_refused(|number| put(&mut scene, user, &format!("{number}"))), (4, shared("keys_max")));
}

#[test]
fn a_rule_says_how_many_keys_and_bytes_of_them_a_user_has() {
    let mut scene = Scene::new(Limits::default());
    let (user, other) = (scene.client_of(1), scene.client_of(2));
    // Three keys of one letter with one letter in each cost 202 bytes each.
    allow(&mut scene, "uid:1 keys_per_uid_max=3 key_bytes_per_uid_max=1024");
    let puts = until_refused(|number| put(&mut scene, user, &format!("{number}")));
    assert_eq!(puts, (3, full("keys_per_uid_max")));
    assert_eq!(used(&scene, 1, "keys_per_uid_max"), (3, 1));
    for (length, refused) in [(418, None), (419, None), (420, full("key_bytes_per_uid_max"))] {
        let value = "x".repeat(length);
        let answer = refusal(&mut scene, user, Operation::PUT, &put_of("0"), value.as_bytes());
        assert_eq!(answer, refused, "{length}");
    }
    assert_eq!(used(&scene, 1, "key_bytes_per_uid_max"), (1024, 1));
    let puts = until_refused(|number| put(&mut scene, other, &format!("other/{number}")));
    assert_eq!(puts, (100, None), "the rule is about one user");
    allow(&mut scene, "uid:1 keys_per_uid_max=4");
    assert_eq!(until_refused(|number| put(&mut scene, user, &format!("{number}"))).0, 4);
}

#[test]
fn nobody_takes_every_work_queue_or_every_entry() {
    let limits = Limits { work_queues_max: 8, work_queue_entries_max: 16, ..Limits::default() };
    let mut scene = Scene::new(limits);
    let users = [1, 2].map(|uid| scene.client_of(uid));
    let enqueue = |scene: &mut Scene, from: usize, queue: &str| {
        refusal(scene, from, Operation::ENQUEUE, &entry(queue), b"x")
    };
    let wait = |queue: &str| Take { wait: true, ..take(queue, Bind::Session) };
    // One that is waited at counts too, for who waits.
    scene.ask(users[0], Operation::TAKE, &wait("waited"), b"");
    let counts =
        users.map(|user| until_refused(|number| enqueue(&mut scene, user, &format!("{user}/{number}"))));
    let no_queue = shared("work_queues_max");
    assert_eq!(counts, [(3, no_queue.clone()), (2, no_queue.clone())]);
    let waits = refusal(&mut scene, users[0], Operation::TAKE, &wait("other"), b"");
    assert_eq!(waits, no_queue);
    let of = |scene: &Scene, limit: &str| [1, 2].map(|uid| used(scene, uid, limit).0);
    assert_eq!(of(&scene, "work_queues_per_uid_max"), [4, 2]);

    // Into a queue that is there anybody may put, and pays for what it puts.
    let counts = users.map(|user| until_refused(|_| enqueue(&mut scene, user, "0/0")).0);
    assert_eq!((counts, of(&scene, "work_queue_entries_per_uid_max")), ([4, 3], [7, 5]));
    assert_eq!(enqueue(&mut scene, users[0], "0/0"), shared("work_queue_entries_max"));
    assert_eq!(used(&scene, 1, "work_queue_entries_max").1, 2);

    // What is taken and acknowledged, and what is purged, is given back to whoever had put it.
    for queue in ["0/0", "0/1"] {
        let purge = Purge { queue: queue.into(), fence: None };
        assert_eq!(refusal(&mut scene, users[1], Operation::PURGE, &purge, b""), None);
    }
    assert_eq!(of(&scene, "work_queue_entries_per_uid_max"), [1, 2]);
    assert_eq!(of(&scene, "work_queues_per_uid_max"), [2, 2]);
    let mut bench = crate::queues::Bench { scene };
    let got = bench.takes_as(users[1], &take("0/2", Bind::Session)).unwrap();
    bench.acks(users[1], &got).unwrap();
    assert_eq!(of(&bench.scene, "work_queue_entries_per_uid_max"), [0, 2]);
    assert_eq!(of(&bench.scene, "work_queues_per_uid_max"), [1, 2], "the one that is waited at");
    bench.scene.bus.leave(users[0]);
    let newcomer = bench.scene.client_of(1);
    assert_eq!(of(&bench.scene, "work_queues_per_uid_max"), [0, 2]);
    assert_eq!(until_refused(|number| enqueue(&mut bench.scene, newcomer, &format!("{number}"))).0, 3);
}

#[test]
fn dead_letters_are_charged_to_who_put_them() {
    let mut scene = Scene::new(Limits { work_queues_max: 8, ..Limits::default() });
    let users = [1, 2].map(|uid| scene.client_of(uid));
    let fragile = Enqueue { max_deliveries: 1, ..entry("q") };
    assert_eq!(refusal(&mut scene, users[0], Operation::ENQUEUE, &fragile, b"x"), None);
    let mut bench = crate::queues::Bench { scene };
    let got = bench.takes_as(users[1], &take("q", Bind::Session)).unwrap();
    assert_eq!(bench.nacks(users[1], &got, 0), Ok(true));
    let of = |limit: &str| [1, 2].map(|uid| used(&bench.scene, uid, limit).0);
    assert_eq!(of("work_queues_per_uid_max"), [1, 0], "q has gone, q.dead has come");
    assert_eq!(of("work_queue_entries_per_uid_max"), [1, 0]);
}

#[test]
fn a_rule_says_what_a_user_has_of_work_queues() {
    for (rule, limit) in [
        ("uid:1 work_queues_per_uid_max=3", "work_queues_per_uid_max"),
        ("uid:1 work_queue_entries_per_uid_max=3", "work_queue_entries_per_uid_max"),
        ("uid:1 work_queue_bytes_per_uid_max=1024", "work_queue_bytes_per_uid_max"),
    ] {
        let mut scene = Scene::new(Limits::default());
        let (user, other) = (scene.client_of(1), scene.client_of(2));
        allow(&mut scene, rule);
        let mut puts = |from: usize| {
            until_refused(|number| {
                let queue = format!("{from}/{number}");
                refusal(&mut scene, from, Operation::ENQUEUE, &entry(&queue), b"x")
            })
        };
        let (count, refused) = puts(user);
        assert_eq!((count, refused.map(|refused| refused.0).as_deref()), (3, Some(limit)));
        assert_eq!(puts(other), (100, None));
    }
}

fn claim(wait: bool) -> Claim {
    Claim { wait, ttl_us: 0, delay_us: 0, owner: 0, durability: None }
}

fn lock(name: &str) -> TakeLock {
    TakeLock { name: name.into(), mode: LockMode::Exclusive, claim: claim(false) }
}

#[test]
fn nobody_takes_every_lock_semaphore_election_and_barrier() {
    let mut scene = Scene::new(Limits { resources_max: 8, ..Limits::default() });
    let users = [1, 2, 3].map(|uid| scene.client_of(uid));
    let acquire = |name: &str| Acquire { name: name.into(), permits: 2, count: 1, claim: claim(false) };
    let observe = |name: &str| Observe { name: name.into() };
    let arrive = |name: &str, wait| Arrive { name: name.into(), parties: 2, wait };
    let of = |scene: &Scene| [1, 2, 3].map(|uid| used(scene, uid, "resources_max").0);

    let held = scene.outcome_of(users[0], Operation::LOCK, &lock("a"), b"").unwrap().decode::<Granted>();
    assert_eq!(refusal(&mut scene, users[0], Operation::ACQUIRE, &acquire("a"), b""), None);
    assert_eq!(refusal(&mut scene, users[0], Operation::OBSERVE, &observe("a"), b""), None);
    assert_eq!(refusal(&mut scene, users[0], Operation::ARRIVE, &arrive("a", true), b""), None);
    let refused = shared("resources_max");
    assert_eq!(refusal(&mut scene, users[0], Operation::LOCK, &lock("b"), b""), refused);
    assert_eq!(refusal(&mut scene, users[0], Operation::ACQUIRE, &acquire("b"), b""), refused);
    assert_eq!(refusal(&mut scene, users[0], Operation::OBSERVE, &observe("b"), b""), refused);
    assert_eq!(refusal(&mut scene, users[0], Operation::ARRIVE, &arrive("b", true), b""), refused);
    let counts = [users[1], users[2]].map(|user| {
        until_refused(|number| {
            refusal(&mut scene, user, Operation::LOCK, &lock(&format!("{user}/{number}")), b"")
        })
    });
    assert_eq!(counts, [(2, refused.clone()), (1, refused.clone())]);
    assert_eq!(of(&scene), [4, 2, 1]);
    assert_eq!(used(&scene, 1, "resources_max"), (4, 4), "whoever asked for more is blamed");

    // What is there already is everybody's, and is paid for by who has made it until it is gone.
    let waits = TakeLock { claim: claim(true), ..lock("a") };
    let waiting = scene.ask(users[1], Operation::LOCK, &waits, b"");
    assert_eq!(refusal(&mut scene, users[1], Operation::ACQUIRE, &acquire("a"), b""), None);
    assert_eq!(of(&scene), [4, 2, 1]);
    assert_eq!(refusal(&mut scene, users[1], Operation::ARRIVE, &arrive("a", true), b""), None);
    assert_eq!(of(&scene), [3, 2, 1], "the barrier went when all had arrived");
    let release = OfToken { token: held.token };
    assert_eq!(refusal(&mut scene, users[0], Operation::RELEASE, &release, b""), None);
    scene.take_outcome(users[1], Operation::LOCK, waiting).expect("its turn").expect("a grant");
    scene.bus.leave(users[0]);
    assert_eq!(of(&scene), [2, 2, 1], "the lock and the semaphore, which another uses");
    scene.bus.leave(users[1]);
    assert_eq!(of(&scene), [0, 0, 1]);

    // A barrier goes with the last who waits, and one of a single party leaves nothing.
    let user = scene.client_of(1);
    let alone = Arrive { parties: 1, ..arrive("a", false) };
    assert_eq!(refusal(&mut scene, user, Operation::ARRIVE, &alone, b""), None);
    assert_eq!(refusal(&mut scene, user, Operation::ARRIVE, &arrive("a", true), b""), None);
    assert_eq!(of(&scene), [1, 0, 1]);
    scene.bus.leave(user);
    assert_eq!(of(&scene), [0, 0, 1]);
}

#[test]
fn whoever_is_alone_takes_every_lock() {
    let mut scene = Scene::new(Limits { resources_max: 8, ..Limits::default() });
    let take =
        |scene: &mut Scene, from: usize, name: &str| refusal(scene, from, Operation::LOCK, &lock(name), b"");
    let one = [scene.client_of(1), scene.client_of(1)];
    let locks = until_refused(|number| take(&mut scene, one[number as usize % 2], &format!("{number}")));
    assert_eq!(locks, (8, full("resources_max")));
    let other = scene.client_of(2);
    assert_eq!(take(&mut scene, other, "mine"), full("resources_max"));
    scene.bus.leave(one[0]);
    assert_eq!(take(&mut scene, one[1], "0"), shared("resources_max"));
    assert_eq!(take(&mut scene, other, "mine"), None);
}

/// How a request about topics was refused.
fn of_topic<T>(result: Result<T, Error>) -> Option<(String, bool)> {
    let detail = result.err()?.detail.expect("the limit is named");
    let is_for_others = detail.hint.is_some_and(|hint| hint.contains("users who have fewer"));
    Some((detail.resource.expect("a name"), is_for_others))
}

#[test]
fn nobody_takes_every_topic() {
    let mut bus = Bus::with(Limits { topics_max: 8, ..Limits::default() });
    let users = [1, 2, 3].map(|uid| bus.arrives(uid));
    let opens = |bus: &mut Bus, who: Who, topic: &str| of_topic(bus.opens(who, topic));
    let of = |bus: &Bus| {
        let viewer = bus.memory.broker.peers()[0].peer.id;
        let rows = bus.memory.broker.view(viewer).quota();
        let row = |uid| rows.iter().find(|row| row.uid == Some(uid) && row.resource == "topics_max");
        [1, 2, 3].map(|uid| row(uid).map_or((0, 0), |row| (row.used, row.refused)))
    };
    let refused = shared("topics_max");
    let counts =
        users.map(|user| until_refused(|number| opens(&mut bus, user, &format!("t{user}.n{number}"))));
    assert_eq!(counts, [(4, refused.clone()), (2, refused.clone()), (1, refused.clone())]);
    assert_eq!(of_topic(bus.subscribe(users[0], "other", 0, 0)), refused);
    assert_eq!(of(&bus), [(4, 2), (2, 1), (1, 1)]);

    // What is there already is everybody's, and is paid for by who has made it until nobody uses it.
    bus.subscribes(users[1], "t0.n0");
    assert_eq!(opens(&mut bus, users[1], "t0.n1"), None);
    bus.memory.leave(users[0]);
    assert_eq!(of(&bus), [(2, 2), (2, 1), (1, 1)]);
    bus.memory.leave(users[1]);
    assert_eq!(of(&bus), [(0, 2), (0, 1), (1, 1)]);

    // Idle topics are nobody's, and make room.
    let user = bus.arrives(1);
    bus.subscribes(users[2], ">");
    for round in 0..3 {
        let publisher = bus.arrives(1);
        let opened = until_refused(|number| opens(&mut bus, publisher, &format!("r{round}.n{number}")));
        assert_eq!(opened, (4, refused.clone()), "{round}");
        assert_eq!(opens(&mut bus, user, "another"), refused);
        bus.memory.leave(publisher);
        assert_eq!(of(&bus)[0].0, 0);
    }
}

#[test]
fn nobody_from_the_network_is_alone() {
    let mut bus = Bus::with(Limits { topics_max: 8, ..Limits::default() });
    bus.memory.set_policy(Policy::open(vec![Grant::parse("publish net.>").unwrap()]));
    let remote = Identity::Remote { principal: "anonymous".into(), address: "127.0.0.1:1".into() };
    let remote = bus.memory.connect_as(remote);
    bus.memory.send(remote, &greeting("somebody"));
    assert_eq!(bus.memory.client(remote).take(Kind::WELCOME).len(), 1);
    let opened = until_refused(|number| of_topic(bus.opens(remote, &format!("net.n{number}"))));
    assert_eq!(opened, (4, shared("topics_max")));
    let local = bus.arrives(1);
    let opened = until_refused(|number| of_topic(bus.opens(local, &format!("t.n{number}"))));
    assert_eq!(opened, (4, full("topics_max")));
}

#[test]
fn after_a_restart_everybody_pays_for_the_same() {
    let mut scene = Scene::with_disk(Limits::default(), start(), Disk::default());
    let users = [1, 2].map(|uid| scene.client_of(uid));
    for number in 0..3 {
        assert_eq!(put(&mut scene, users[0], &format!("{number}")), None);
    }
    assert_eq!(put(&mut scene, users[1], "0"), None);
    for (from, queue) in [(0, "q"), (1, "q"), (1, "r"), (1, "r")] {
        assert_eq!(refusal(&mut scene, users[from], Operation::ENQUEUE, &entry(queue), b"x"), None);
    }
    let memory = Enqueue { durability: Some(Durability::Memory), ..entry("m") };
    assert_eq!(refusal(&mut scene, users[0], Operation::ENQUEUE, &memory, b"x"), None);
    let secret = Identify { secret: *b"one of sixteen b" };
    assert_eq!(refusal(&mut scene, users[0], Operation::IDENTIFY, &secret, b""), None);
    for (from, name) in [(0, "l"), (0, "m"), (1, "n")] {
        assert_eq!(refusal(&mut scene, users[from], Operation::LOCK, &lock(name), b""), None);
    }
    // One is lost, and stays closed.
    let lost = scene.client_of(2);
    let secret = Identify { secret: *b"another of sixte" };
    assert_eq!(refusal(&mut scene, lost, Operation::IDENTIFY, &secret, b""), None);
    let delayed = TakeLock { claim: Claim { delay_us: 10_000_000, ..claim(false) }, ..lock("c") };
    assert_eq!(refusal(&mut scene, lost, Operation::LOCK, &delayed, b""), None);
    scene.bus.leave(lost);
    scene.bus.wait(core::time::Duration::from_millis(20));
    while scene.bus.finish_commit() {}
    let of = |scene: &Scene, limit: &str| [1, 2].map(|uid| used(scene, uid, limit).0);
    let all = |scene: &Scene| {
        ["keys_per_uid_max", "work_queues_per_uid_max", "work_queue_entries_per_uid_max", "resources_max"]
            .map(|limit| of(scene, limit))
    };
    assert_eq!(all(&scene), [[2, 1], [2, 1], [2, 3], [2, 2]]);
    let mut scene = restarted(scene);
    scene.client_of(9);
    assert_eq!(all(&scene), [[2, 1], [1, 1], [1, 3], [2, 1]], "what was in memory is gone");
    scene.bus.wait(core::time::Duration::from_secs(10));
    while scene.bus.finish_commit() {}
    assert_eq!(of(&scene, "resources_max"), [0, 0], "nobody has taken it up, and it has opened");
}
