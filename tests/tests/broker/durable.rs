//! What is kept on a disk, in single scenes: when it is seen, what a failure takes back, what is there after a restart.

use core::time::Duration;

use ipc_core::ErrorCode;
use ipc_core::limits::Limits;
use ipc_core::time::Instant;
use ipc_core::wire::Kind;
use ipc_core::wire::coordination::{
    Bind, Changed, Claim, Condition, DeleteKey, Durability, Fence, GetKey, Got, Granted, KeyChanged,
    LockMode, OfToken, Operation, PutKey, Selection, TakeLease, TakeLock, Told, WatchKeys, Watching,
};
use ipc_core::wire::message::ErrorBody;
use ipc_daemon::broker::Fault;
use ipc_tests::disk::Disk;
use ipc_tests::memory_bus::Received;

use crate::coordination::Scene;

pub(crate) fn start() -> Instant {
    Instant::from_nanos(1_000_000_000)
}

pub(crate) fn scene(limits: Limits) -> Scene {
    let mut scene = Scene::with_disk(limits, start(), Disk::default());
    scene.bus.disk.as_mut().unwrap().holds = true;
    scene
}

/// The next life of the daemon, a second later, with what the last one has written.
pub(crate) fn restarted(scene: Scene) -> Scene {
    restarted_with(Limits::default(), scene)
}

fn restarted_with(limits: Limits, scene: Scene) -> Scene {
    let disk = scene.bus.disk.unwrap().crash(false);
    let mut next = Scene::with_disk(limits, scene.bus.now + Duration::from_secs(1), disk);
    next.bus.disk.as_mut().unwrap().holds = true;
    next
}

fn put_of(key: &str, durability: Option<Durability>) -> PutKey {
    PutKey { key: key.into(), condition: Condition::Any, ttl_us: 0, lease: 0, fence: None, durability }
}

fn ask_put(scene: &mut Scene, client: usize, key: &str, durability: Option<Durability>) -> u64 {
    scene.ask(client, Operation::PUT, &put_of(key, durability), key.as_bytes())
}

type Outcome = Option<Result<Received, ErrorBody>>;

fn outcome(scene: &mut Scene, client: usize, correlation: u64) -> Outcome {
    scene.take_outcome(client, Operation::PUT, correlation)
}

/// Puts a key for good, and gives its revision.
fn put(scene: &mut Scene, client: usize, key: &str) -> u64 {
    let correlation = ask_put(scene, client, key, None);
    while scene.bus.finish_commit() {}
    outcome(scene, client, correlation).unwrap().unwrap().decode::<KeyChanged>().revision
}

fn get(scene: &mut Scene, client: usize, key: &str) -> Result<u64, ErrorCode> {
    let got = scene.outcome_of(client, Operation::GET, &GetKey { key: key.into() }, b"");
    got.map(|got| got.decode::<Got>().state.revision)
}

fn watch(scene: &mut Scene, client: usize, from: Option<u64>) -> Result<u64, ErrorCode> {
    let selection = Selection::Prefix { prefix: "".into() };
    let watching = scene.outcome_of(client, Operation::WATCH, &WatchKeys { selection, from }, b"");
    watching.map(|watching| watching.decode::<Watching>().revision)
}

fn told(scene: &mut Scene, client: usize) -> Vec<(String, u64)> {
    let notices = scene.bus.client(client).take(Kind::NOTICE).into_iter();
    let changed = notices.filter(|notice| notice.header.handle.index == Told::CHANGED.0);
    changed.map(|notice| notice.decode::<Changed>()).map(|told| (told.key.0, told.state.revision)).collect()
}

fn code(outcome: Outcome) -> Option<ErrorCode> {
    outcome.map(|outcome| ErrorCode::from_number(outcome.expect_err("a refusal").code).expect("a known code"))
}

#[test]
fn nothing_is_seen_before_it_is_on_the_disk() {
    let mut scene = scene(Limits::default());
    let (client, watcher) = (scene.client(), scene.client());
    assert_eq!(watch(&mut scene, watcher, None), Ok(0));
    let first = ask_put(&mut scene, client, "a", None);
    let second = ask_put(&mut scene, client, "b", Some(Durability::Memory));
    // A compare is answered by what is on the disk too.
    let absent = PutKey { condition: Condition::Absent, ..put_of("a", None) };
    let third = scene.ask(client, Operation::PUT, &absent, b"x");
    assert_eq!(get(&mut scene, client, "a"), Err(ErrorCode::NoSuchKey));
    assert_eq!(get(&mut scene, client, "b"), Err(ErrorCode::NoSuchKey), "its turn is behind the first");
    assert!(told(&mut scene, watcher).is_empty());
    for correlation in [first, second, third] {
        assert!(outcome(&mut scene, client, correlation).is_none());
    }
    assert!(scene.bus.finish_commit());
    let revision = outcome(&mut scene, client, first).unwrap().unwrap().decode::<KeyChanged>();
    assert_eq!(revision.durability, Durability::Disk);
    assert_eq!(get(&mut scene, client, "a"), Ok(revision.revision));
    // Those that came meanwhile were judged after it. Nothing of them needs the disk.
    let memory = outcome(&mut scene, client, second).unwrap().unwrap().decode::<KeyChanged>();
    assert_eq!(memory.durability, Durability::Memory);
    assert_eq!(code(outcome(&mut scene, client, third)), Some(ErrorCode::RevisionMismatch));
    assert!(!scene.bus.finish_commit());
    let seen = told(&mut scene, watcher);
    assert_eq!(seen, [("a".to_owned(), revision.revision), ("b".to_owned(), memory.revision)]);
    assert!(memory.revision > revision.revision);
}

#[test]
fn what_comes_while_the_disk_works_goes_into_one_commit() {
    let mut scene = scene(Limits::default());
    let client = scene.client();
    let before = scene.bus.disk.as_ref().unwrap().commits;
    let puts: Vec<u64> =
        (0..50).map(|number| ask_put(&mut scene, client, &format!("k{}", number % 7), None)).collect();
    assert!(scene.bus.finish_commit() && scene.bus.finish_commit() && !scene.bus.finish_commit());
    assert_eq!(scene.bus.disk.as_ref().unwrap().commits, before + 2);
    let mut last = 0;
    for correlation in puts {
        let revision = outcome(&mut scene, client, correlation).unwrap().unwrap().decode::<KeyChanged>();
        assert!(revision.revision > last);
        last = revision.revision;
    }
}

#[test]
fn a_failed_commit_takes_back_what_it_held_and_nothing_else() {
    let mut scene = scene(Limits::default());
    let (client, watcher) = (scene.client(), scene.client());
    let kept = put(&mut scene, client, "kept");
    watch(&mut scene, watcher, Some(kept + 1)).unwrap();
    let first = ask_put(&mut scene, client, "a", None);
    let delete = DeleteKey { key: "kept".into(), condition: Condition::Any, fence: None, durability: None };
    let deleted = scene.ask(client, Operation::DELETE, &delete, b"");
    let memory = ask_put(&mut scene, client, "m", Some(Durability::Memory));
    scene.bus.disk.as_mut().unwrap().fault = Some(Fault::Full("no room".to_owned()));
    assert!(scene.bus.finish_commit());
    assert_eq!(code(outcome(&mut scene, client, first)), Some(ErrorCode::StorageFailed));
    // The next commit holds the delete, and what depends on nothing waits behind it.
    assert!(outcome(&mut scene, client, memory).is_none());
    assert!(scene.bus.finish_commit());
    let refused = scene.take_outcome(client, Operation::DELETE, deleted);
    assert_eq!(code(refused), Some(ErrorCode::StorageFailed));
    assert!(outcome(&mut scene, client, memory).unwrap().is_ok());
    assert_eq!(get(&mut scene, client, "a"), Err(ErrorCode::NoSuchKey));
    assert_eq!(get(&mut scene, client, "kept"), Ok(kept));
    assert_eq!(told(&mut scene, watcher).len(), 1, "of what is kept in memory");
    // With room it goes on by itself.
    scene.bus.disk.as_mut().unwrap().fault = None;
    let again = put(&mut scene, client, "a");
    assert_eq!(get(&mut scene, client, "a"), Ok(again));
}

#[test]
fn after_a_failed_sync_nothing_more_is_promised() {
    let mut scene = scene(Limits::default());
    let client = scene.client();
    let kept = put(&mut scene, client, "kept");
    let lost = ask_put(&mut scene, client, "lost", None);
    scene.bus.disk.as_mut().unwrap().fault = Some(Fault::Dead("sync failed".to_owned()));
    assert!(scene.bus.finish_commit());
    assert_eq!(code(outcome(&mut scene, client, lost)), Some(ErrorCode::StorageFailed));
    // Not even with a disk that works again, before a restart; what is read, and what is in memory, goes on.
    scene.bus.disk.as_mut().unwrap().fault = None;
    let refused = ask_put(&mut scene, client, "a", None);
    assert_eq!(code(outcome(&mut scene, client, refused)), Some(ErrorCode::StorageFailed));
    let memory = ask_put(&mut scene, client, "m", Some(Durability::Memory));
    assert!(outcome(&mut scene, client, memory).unwrap().is_ok());
    assert_eq!(get(&mut scene, client, "kept"), Ok(kept));
    let mut scene = restarted(scene);
    let client = scene.client();
    assert_eq!(get(&mut scene, client, "kept"), Ok(kept));
    assert!(put(&mut scene, client, "a") > kept);
}

#[test]
fn after_a_restart_what_was_on_the_disk_is_there_and_no_number_is_given_twice() {
    let mut scene = scene(Limits::default());
    let client = scene.client();
    let (a, b) = (put(&mut scene, client, "a"), put(&mut scene, client, "b"));
    let memory = ask_put(&mut scene, client, "m", Some(Durability::Memory));
    let memory = outcome(&mut scene, client, memory).unwrap().unwrap().decode::<KeyChanged>().revision;
    let lease = TakeLease { bind: Bind::Time, ttl_us: 1_000_000, durability: Some(Durability::Memory) };
    let token = scene.outcome_of(client, Operation::LEASE, &lease, b"").unwrap().decode::<Granted>().token;
    // It was asked for and not answered: it may be there or not, and here it is not.
    ask_put(&mut scene, client, "c", None);
    let mut scene = restarted(scene);
    let client = scene.client();
    assert_eq!(get(&mut scene, client, "a"), Ok(a));
    assert_eq!(get(&mut scene, client, "b"), Ok(b));
    assert_eq!(get(&mut scene, client, "m"), Err(ErrorCode::NoSuchKey));
    assert_eq!(get(&mut scene, client, "c"), Err(ErrorCode::NoSuchKey));
    let next = put(&mut scene, client, "d");
    assert!(next > memory.max(token), "{next} after {memory} and {token}");
}

#[test]
fn a_watch_goes_on_over_a_restart_unless_what_it_saw_is_lost() {
    let mut scene = scene(Limits::default());
    let client = scene.client();
    let (a, b) = (put(&mut scene, client, "a"), put(&mut scene, client, "b"));
    let mut scene = restarted(scene);
    let client = scene.client();
    assert!(watch(&mut scene, client, Some(a + 1)).is_ok());
    assert_eq!(told(&mut scene, client), [("b".to_owned(), b)]);
    let c = put(&mut scene, client, "c");
    assert_eq!(told(&mut scene, client), [("c".to_owned(), c)]);
    // This one will not survive; whoever has seen what came after it may have seen it.
    let memory = ask_put(&mut scene, client, "m", Some(Durability::Memory));
    let memory = outcome(&mut scene, client, memory).unwrap().unwrap().decode::<KeyChanged>().revision;
    let mut unseen = restarted(scene);
    let client = unseen.client();
    assert_eq!(watch(&mut unseen, client, Some(memory + 1)), Err(ErrorCode::Compacted));
    assert!(watch(&mut unseen, client, Some(c + 1)).is_ok());
    ask_put(&mut unseen, client, "m", Some(Durability::Memory));
    let d = put(&mut unseen, client, "d");
    let mut lost = restarted(unseen);
    let client = lost.client();
    for from in [a, c + 1, d + 1] {
        assert_eq!(watch(&mut lost, client, Some(from)), Err(ErrorCode::Compacted), "from {from}");
    }
    assert!(watch(&mut lost, client, None).is_ok());
}

#[test]
fn a_watch_that_saw_what_was_lost_is_told_so_after_another_restart_too() {
    let mut scene = scene(Limits::default());
    let client = scene.client();
    let a = put(&mut scene, client, "a");
    let memory = ask_put(&mut scene, client, "m", Some(Durability::Memory));
    let memory = outcome(&mut scene, client, memory).unwrap().unwrap().decode::<KeyChanged>().revision;
    let mut next = restarted(scene);
    let client = next.client();
    let b = put(&mut next, client, "b");
    let mut last = restarted(next);
    let client = last.client();
    assert_eq!(watch(&mut last, client, Some(memory + 1)), Err(ErrorCode::Compacted));
    assert!(watch(&mut last, client, Some(a + 1)).is_ok(), "it has not seen what was lost");
    assert_eq!(told(&mut last, client), [("b".to_owned(), b)]);
}

#[test]
fn a_deleted_key_does_not_come_back_when_the_record_of_its_end_has_gone() {
    let mut scene = scene(Limits::default());
    let client = scene.client();
    put(&mut scene, client, "a");
    put(&mut scene, client, "a");
    // The history ends with this life: whoever has seen "b" may have seen what is lost.
    ask_put(&mut scene, client, "m", Some(Durability::Memory));
    put(&mut scene, client, "b");
    let mut next = restarted_with(Limits { key_history_max: 3, ..Limits::default() }, scene);
    let client = next.client();
    let delete = DeleteKey { key: "a".into(), condition: Condition::Any, fence: None, durability: None };
    let delete = next.ask(client, Operation::DELETE, &delete, b"");
    while next.bus.finish_commit() {}
    assert!(next.take_outcome(client, Operation::DELETE, delete).unwrap().is_ok());
    for key in ["b", "c", "d", "e"] {
        put(&mut next, client, key);
    }
    let mut last = restarted(next);
    let client = last.client();
    assert_eq!(get(&mut last, client, "a"), Err(ErrorCode::NoSuchKey));
}

#[test]
fn a_watch_over_a_store_that_is_gone_begins_anew() {
    let mut scene = scene(Limits::default());
    let client = scene.client();
    let put = put(&mut scene, client, "a");
    assert!(watch(&mut scene, client, Some(put + 1)).is_ok());
    // It has seen a revision that this daemon has never given.
    assert_eq!(watch(&mut scene, client, Some(put + 2)), Err(ErrorCode::Compacted));
}

#[test]
fn a_time_to_live_begins_anew_after_a_restart_and_a_lease_is_over() {
    let mut scene = scene(Limits::default());
    let client = scene.client();
    let ask = |scene: &mut Scene, put: &PutKey| {
        let correlation = scene.ask(client, Operation::PUT, put, b"x");
        while scene.bus.finish_commit() {}
        assert!(outcome(scene, client, correlation).unwrap().is_ok());
    };
    ask(&mut scene, &PutKey { ttl_us: 3_000_000, ..put_of("timed", None) });
    let lease = TakeLease { bind: Bind::Session, ttl_us: 0, durability: None };
    let lease = scene.outcome_of(client, Operation::LEASE, &lease, b"").unwrap().decode::<Granted>().token;
    ask(&mut scene, &PutKey { lease, ..put_of("leased", None) });
    scene.bus.wait(Duration::from_secs(2));
    let mut scene = restarted(scene);
    let client = scene.client();
    while scene.bus.finish_commit() {}
    assert_eq!(get(&mut scene, client, "leased"), Err(ErrorCode::NoSuchKey));
    scene.bus.wait(Duration::from_millis(2999));
    assert!(get(&mut scene, client, "timed").is_ok());
    scene.bus.wait(Duration::from_millis(1));
    assert!(get(&mut scene, client, "timed").is_ok(), "its end is on the way to the disk");
    scene.bus.disk.as_mut().unwrap().fault = Some(Fault::Full("no room".to_owned()));
    while scene.bus.finish_commit() {}
    assert!(get(&mut scene, client, "timed").is_ok());
    scene.bus.disk.as_mut().unwrap().fault = None;
    scene.bus.wait(Duration::from_secs(1));
    while scene.bus.finish_commit() {}
    assert_eq!(get(&mut scene, client, "timed"), Err(ErrorCode::NoSuchKey));
    let mut scene = restarted(scene);
    let client = scene.client();
    assert_eq!(get(&mut scene, client, "timed"), Err(ErrorCode::NoSuchKey));
}

#[test]
fn the_store_holds_what_is_in_force_and_the_history_and_no_more() {
    let mut scene = scene(Limits { key_history_max: 3, ..Limits::default() });
    let client = scene.client();
    for number in 0..100 {
        put(&mut scene, client, ["a", "b", "c"][number % 3]);
    }
    let once = put(&mut scene, client, "once");
    for _ in 0..10 {
        put(&mut scene, client, "a");
    }
    // The numbers, a, b, c, once, the history, and what goes with the next commit.
    let records = scene.bus.disk.as_ref().unwrap().records.len();
    assert!((5..=10).contains(&records), "{records}");
    let mut scene = restarted(scene);
    let client = scene.client();
    assert_eq!(get(&mut scene, client, "once"), Ok(once));
    assert_eq!(watch(&mut scene, client, Some(once)), Err(ErrorCode::Compacted));
}

#[test]
fn without_a_block_of_numbers_nothing_is_given() {
    let fault = Some(Fault::Full("no room".to_owned()));
    let mut scene = Scene::with_disk(Limits::default(), start(), Disk { fault, ..Disk::default() });
    let client = scene.client();
    let claim = Claim { wait: false, ttl_us: 0, delay_us: 0, owner: 0, durability: None };
    let lock = TakeLock { name: "l".into(), mode: LockMode::Exclusive, claim };
    let refused = scene.outcome_of(client, Operation::LOCK, &lock, b"").err();
    assert_eq!(refused, Some(ErrorCode::StorageFailed));
    let memory = put_of("m", Some(Durability::Memory));
    let refused = scene.outcome_of(client, Operation::PUT, &memory, b"x").err();
    assert_eq!(refused, Some(ErrorCode::StorageFailed));
    scene.bus.disk.as_mut().unwrap().fault = None;
    scene.bus.wait(Duration::from_secs(1));
    assert!(scene.outcome_of(client, Operation::LOCK, &lock, b"").is_ok());
}

#[test]
fn an_answer_that_waits_for_the_disk_outlives_the_end_of_the_requests() {
    let mut scene = scene(Limits::default());
    let client = scene.client();
    let correlation = ask_put(&mut scene, client, "a", None);
    scene.bus.end_input(client);
    assert!(!scene.bus.client(client).is_closed);
    assert!(scene.bus.finish_commit());
    assert!(outcome(&mut scene, client, correlation).unwrap().is_ok());
    assert!(scene.bus.client(client).is_closed);
}

#[test]
fn a_daemon_that_stops_finishes_what_is_on_its_way_to_the_disk() {
    let mut scene = scene(Limits::default());
    let client = scene.client();
    let (first, second) = (ask_put(&mut scene, client, "a", None), ask_put(&mut scene, client, "b", None));
    scene.bus.broker.begin_drain();
    assert!(!scene.bus.broker.is_drained());
    while scene.bus.finish_commit() {}
    assert!(scene.bus.broker.is_drained());
    for correlation in [first, second] {
        assert!(outcome(&mut scene, client, correlation).unwrap().is_ok());
    }
}

#[test]
fn what_waits_for_the_disk_is_limited() {
    let refused_at = |limits: Limits, name: &str, clients: usize| {
        let mut scene = scene(limits);
        let clients: Vec<usize> = (0..clients).map(|_| scene.client()).collect();
        let mut refusals = Vec::new();
        for number in 0..6 {
            // A request of ten bytes.
            let from = clients[number % clients.len()];
            let put = put_of("a", None);
            let correlation = scene.ask(from, Operation::PUT, &put, b"123456789");
            let refused = outcome(&mut scene, from, correlation).map(|outcome| outcome.unwrap_err());
            if let Some(refused) = refused {
                assert_eq!(refused.resource.unwrap().0, name);
                refusals.push(number);
            }
        }
        while scene.bus.finish_commit() {}
        let put = put_of("a", None);
        let correlation = scene.ask(clients[0], Operation::PUT, &put, b"123456789");
        while scene.bus.finish_commit() {}
        assert!(outcome(&mut scene, clients[0], correlation).unwrap().is_ok(), "it is given back");
        refusals
    };
    // The first is on its way already.
    let limits = Limits { changes_pending_max: 3, ..Limits::default() };
    assert_eq!(refused_at(limits, "changes_pending_max", 2), [4, 5]);
    let limits = Limits { changes_pending_max_bytes: 30, ..Limits::default() };
    assert_eq!(refused_at(limits, "changes_pending_max_bytes", 2), [4, 5]);
    let limits = Limits { changes_pending_max_bytes: 29, ..Limits::default() };
    assert_eq!(refused_at(limits, "changes_pending_max_bytes", 2), [3, 4, 5]);
    let limits = Limits { changes_pending_per_connection_max: 3, ..Limits::default() };
    assert_eq!(refused_at(limits, "changes_pending_per_connection_max", 1), [3, 4, 5]);
}

#[test]
fn the_next_holder_of_a_lock_sees_what_was_done_under_the_token_before() {
    let mut scene = scene(Limits::default());
    let (one, two) = (scene.client(), scene.client());
    let lock = |wait| {
        let claim = Claim { wait, ttl_us: 0, delay_us: 0, owner: 0, durability: None };
        TakeLock { name: "l".into(), mode: LockMode::Exclusive, claim }
    };
    let token = scene.outcome_of(one, Operation::LOCK, &lock(false), b"").unwrap().decode::<Granted>().token;
    let fence = Some(Fence { lock: "l".into(), token });
    let put = PutKey { fence: fence.clone(), ..put_of("k", None) };
    let done = scene.ask(one, Operation::PUT, &put, b"x");
    let late = scene.ask(one, Operation::PUT, &put, b"y");
    let waiting = scene.ask(two, Operation::LOCK, &lock(true), b"");
    scene.outcome_of(one, Operation::RELEASE, &OfToken { token }, b"").unwrap();
    // The change is on its way to the disk: whoever has the lock next is to find it.
    assert!(scene.take_outcome(two, Operation::LOCK, waiting).is_none());
    assert_eq!(scene.outcome_of(two, Operation::LOCK, &lock(false), b"").err(), Some(ErrorCode::Busy));
    assert!(scene.bus.finish_commit());
    assert!(outcome(&mut scene, one, done).unwrap().is_ok());
    let next = scene.take_outcome(two, Operation::LOCK, waiting).unwrap().unwrap().decode::<Granted>();
    assert!(next.token > token && get(&mut scene, two, "k").is_ok());
    // What had not been begun then is too late.
    while scene.bus.finish_commit() {}
    assert_eq!(code(outcome(&mut scene, one, late)), Some(ErrorCode::StaleFencingToken));
}

#[test]
fn whoever_sends_nothing_more_gets_every_outcome_that_is_due() {
    let mut scene = scene(Limits::default());
    let client = scene.client();
    let durabilities = [Some(Durability::Disk), Some(Durability::Memory), None];
    let asked = durabilities.map(|durability| ask_put(&mut scene, client, "a", durability));
    let other = ask_put(&mut scene, client, "b", Some(Durability::Memory));
    scene.bus.end_input(client);
    assert!(!scene.bus.client(client).is_closed);
    while scene.bus.finish_commit() {}
    for request in asked.into_iter().chain([other]) {
        assert!(matches!(outcome(&mut scene, client, request), Some(Ok(_))), "{request}");
    }
    assert!(scene.bus.client(client).is_closed);
}
