//! What other rules take away from those who have it already: exactly that, with a word to its client.

use ipc_core::error::ErrorCode;
use ipc_core::id::Handle;
use ipc_core::limits::Limits;
use ipc_core::wire::codec::{List, Wire};
use ipc_core::wire::coordination::{
    Bind, Claim, Condition, Granted, LockMode, Lost, Observe, Operation, PutKey, Selection, TakeLease,
    TakeLock, Told, WatchKeys,
};
use ipc_core::wire::message::{
    Close, ErrorBody, Hello, MethodInfo, OnSlow, OpenTopic, Register, RegisterMode, Registered, Resolve,
    Revoked, RevokedWhat, Subscribe, Unsubscribe,
};
use ipc_core::wire::queue::{Consume, Delivered, Enqueue, Overflow, Take};
use ipc_core::wire::{FEATURE_REVOCATION, Flags, Header, Kind, PREAMBLE};
use ipc_daemon::broker::{Policy, Rule};
use ipc_tests::memory_bus::{MemoryBus, Received};
use ipc_tests::users::FewUsers;

const ALL: &str = "allow anyone * >";
const DENIED: u16 = ErrorCode::PermissionDenied.number();

fn policy(rules: &[&str]) -> Policy {
    let rules = rules.iter().enumerate();
    let rules = rules.map(|(at, text)| Rule::parse(text, at as u32 + 1, &FewUsers).expect("a rule"));
    Policy::new(rules.collect(), Vec::new())
}

/// A bus where everybody may do everything, with a client of each user that offers these features.
fn bus(uids: &[u32], features: u64) -> MemoryBus {
    let mut bus = MemoryBus::with_policy(Limits::default(), policy(&[ALL]));
    for uid in uids {
        let client = bus.connect(*uid);
        bus.send(client, &PREAMBLE);
        let hello = Hello { version_min: 1, version_max: 1, features, name: "test".into() };
        bus.say(client, Header::new(Kind::HELLO), &hello, b"");
        bus.client(client).inbox.clear();
    }
    bus
}

fn ask<T: Wire>(bus: &mut MemoryBus, from: usize, kind: Kind, correlation: u64, request: &T) -> Received {
    let handle = Handle { index: 1, generation: 1 };
    bus.say(from, Header::new(kind).with_correlation(correlation).with_handle(handle), request, b"");
    let mut answers = bus.client(from).take(Kind::DONE);
    let answer = answers.pop().expect("an answer");
    assert_eq!((answers.len(), answer.header.correlation), (0, correlation));
    assert!(!answer.header.flags.contains(Flags::ERROR), "{:?}", answer.decode::<ErrorBody>());
    answer
}

/// Offers a service, and gives the number of the registration.
fn register(bus: &mut MemoryBus, from: usize, service: &str) -> u32 {
    let methods = List(vec![MethodInfo { name: "m".into(), description: "".into() }]);
    let request = Register { service: service.into(), mode: RegisterMode::Exclusive, queue: true, methods };
    ask(bus, from, Kind::REGISTER, 1, &request).decode::<Registered>().registration
}

fn subscribe(bus: &mut MemoryBus, from: usize, correlation: u64, filter: &str) {
    let filter = filter.into();
    let request = Subscribe { filter, on_slow: OnSlow::DropOldest, queue_events_max: 0, queue_bytes_max: 0 };
    ask(bus, from, Kind::SUBSCRIBE, correlation, &request);
}

/// Says what is asked of coordination; nothing is waited for.
fn coordinate<T: Wire>(bus: &mut MemoryBus, from: usize, operation: Operation, correlation: u64, what: &T) {
    let mut header = Header::new(Kind::COORDINATE).with_correlation(correlation);
    header.handle.index = operation.0;
    bus.say(from, header, what, b"");
}

fn lock(bus: &mut MemoryBus, from: usize, correlation: u64, name: &str) {
    let claim = Claim { wait: true, ttl_us: 0, delay_us: 0, owner: 0, durability: None };
    let request = TakeLock { name: name.into(), mode: LockMode::Exclusive, claim };
    coordinate(bus, from, Operation::LOCK, correlation, &request);
}

fn outcomes(bus: &mut MemoryBus, client: usize) -> Vec<(u64, Result<u64, u16>)> {
    let outcomes = bus.client(client).take(Kind::OUTCOME).into_iter();
    let token = |frame: &Received| match frame.header.flags.contains(Flags::ERROR) {
        true => Err(frame.decode::<ErrorBody>().code),
        false => Ok(frame.decode::<Granted>().token),
    };
    outcomes.map(|frame| (frame.header.correlation, token(&frame))).collect()
}

/// What was taken away: of what kind, which registration, which correlation.
fn revoked(bus: &mut MemoryBus, client: usize) -> Vec<(RevokedWhat, u32, u64)> {
    let frames = bus.client(client).take(Kind::REVOKED).into_iter();
    let read = |frame: Received| {
        let body: Revoked = frame.decode();
        assert_eq!(body.code, DENIED);
        assert!(body.message.0.contains("denies it"), "{}", body.message.0);
        (body.what, frame.header.handle.index, frame.header.correlation)
    };
    frames.map(read).collect()
}

#[test]
fn a_name_goes_to_the_next_and_everything_else_stays() {
    let mut bus = bus(&[1, 2, 3], FEATURE_REVOCATION);
    let lost = register(&mut bus, 0, "a.b");
    let kept = register(&mut bus, 0, "b.c");
    register(&mut bus, 1, "a.b");
    subscribe(&mut bus, 0, 5, "t");
    for (index, service) in [(1, "a.b"), (2, "b.c")] {
        let handle = Handle { index, generation: 1 };
        let request = Resolve { service: service.into(), method: "m".into() };
        bus.say(2, Header::new(Kind::RESOLVE).with_correlation(9).with_handle(handle), &request, b"");
        bus.say(2, Header::new(Kind::CALL).with_correlation(index.into()).with_handle(handle), &(), b"");
    }
    let calls = bus.client(0).take(Kind::CALL);
    assert_eq!(calls.len(), 2);
    bus.set_policy(policy(&["deny uid:1 own a.>", ALL]));
    assert_eq!(revoked(&mut bus, 0), [(RevokedWhat::Name, lost, 0)]);
    assert_eq!(bus.client(1).take(Kind::ACQUIRED).len(), 1, "who has waited owns it now");
    // The call that was with it has ended, the other one goes on.
    let replies = bus.client(2).take(Kind::REPLY);
    assert_eq!((replies.len(), replies[0].header.correlation), (1, 1));
    assert_eq!(replies[0].decode::<ErrorBody>().code, ErrorCode::ServiceGone.number());
    let other = calls.iter().find(|call| call.header.handle.index == kept).expect("a call of b.c");
    bus.say(0, Header::new(Kind::REPLY).with_correlation(other.header.correlation), &(), b"done");
    assert_eq!(bus.client(2).take(Kind::REPLY)[0].header.correlation, 2);
    let rows = bus.broker.peers();
    assert_eq!((rows[0].names, rows[0].subscriptions), (1, 1));
    // The number means nothing any more.
    let handle = Handle { index: lost, generation: 0 };
    bus.say(0, Header::new(Kind::UNREGISTER).with_correlation(7).with_handle(handle), &(), b"");
    let refused = bus.client(0).take(Kind::DONE).pop().expect("an answer");
    assert_eq!(refused.decode::<ErrorBody>().code, ErrorCode::InvalidArgument.number());
    assert!(!bus.client(0).is_closed);
}

#[test]
fn a_place_in_the_queue_for_a_name_is_taken_too() {
    let mut bus = bus(&[1, 2], FEATURE_REVOCATION);
    register(&mut bus, 0, "a.b");
    let waiting = register(&mut bus, 1, "a.b");
    bus.set_policy(policy(&["deny uid:2 own a.>", ALL]));
    assert_eq!(revoked(&mut bus, 1), [(RevokedWhat::Name, waiting, 0)]);
    bus.leave(0);
    assert!(bus.client(1).take(Kind::ACQUIRED).is_empty());
    assert!(bus.broker.services().is_empty());
}

#[test]
fn a_subscription_ends_and_the_others_hear_on() {
    let mut bus = bus(&[1, 2], FEATURE_REVOCATION);
    for (correlation, filter) in [(11, "a.>"), (12, "a.open"), (13, "b")] {
        subscribe(&mut bus, 0, correlation, filter);
    }
    ask(&mut bus, 1, Kind::OPEN_TOPIC, 1, &OpenTopic { topic: "a.open".into() });
    bus.set_policy(policy(&["deny uid:1 subscribe a.secret", ALL]));
    assert_eq!(revoked(&mut bus, 0), [(RevokedWhat::Subscription, 0, 11)]);
    let handle = Handle { index: 1, generation: 1 };
    bus.say(1, Header::new(Kind::PUBLISH).with_correlation(2).with_handle(handle), &(), b"news");
    let events = bus.client(0).take(Kind::EVENT);
    assert_eq!((events.len(), events[0].header.correlation), (1, 12));
    bus.say(0, Header::new(Kind::UNSUBSCRIBE).with_correlation(14), &Unsubscribe { subscription: 11 }, b"");
    let refused = bus.client(0).take(Kind::DONE).pop().expect("an answer");
    assert_eq!(refused.decode::<ErrorBody>().code, ErrorCode::InvalidArgument.number());
    subscribe(&mut bus, 0, 11, "a.*.x");
}

#[test]
fn who_sends_nothing_more_is_closed_with_its_last_subscription() {
    let mut bus = bus(&[1], FEATURE_REVOCATION);
    subscribe(&mut bus, 0, 11, "a.>");
    bus.end_input(0);
    assert!(!bus.client(0).is_closed);
    bus.set_policy(policy(&["deny uid:1 subscribe a.>", ALL]));
    assert_eq!(revoked(&mut bus, 0).len(), 1);
    assert!(bus.client(0).is_closed);
}

/// Client 0 holds `a.b` and `b.b` and a lease, waits for `a.c`, observes `a.d`, watches `a.e` and everything below `b`;
/// client 1 holds `a.c` and waits for `a.b`.
fn coordinated(features: u64) -> MemoryBus {
    let mut bus = bus(&[1, 2], features);
    lock(&mut bus, 0, 21, "a.b");
    lock(&mut bus, 0, 22, "b.b");
    lock(&mut bus, 1, 31, "a.c");
    lock(&mut bus, 1, 32, "a.b");
    lock(&mut bus, 0, 23, "a/c");
    lock(&mut bus, 0, 24, "a.c");
    let lease = TakeLease { ttl_us: 0, bind: Bind::Session, durability: None };
    coordinate(&mut bus, 0, Operation::LEASE, 25, &lease);
    coordinate(&mut bus, 0, Operation::OBSERVE, 26, &Observe { name: "a.d".into() });
    let key = Selection::Key { key: "a.e".into() };
    coordinate(&mut bus, 0, Operation::WATCH, 27, &WatchKeys { selection: key, from: None });
    for client in [0, 1] {
        bus.client(client).take(Kind::OUTCOME);
        bus.client(client).take(Kind::WAITING);
    }
    bus
}

#[test]
fn of_coordination_goes_what_is_about_the_name_and_no_more() {
    let mut bus = coordinated(FEATURE_REVOCATION);
    bus.set_policy(policy(&["deny uid:1 coordinate a.b", "deny uid:1 coordinate a.c", ALL]));
    let notices = bus.client(0).take(Kind::NOTICE);
    for notice in &notices {
        assert_eq!(notice.header.handle.index, Told::LOST.0);
        let lost: Lost = notice.decode();
        assert_eq!(lost.code, DENIED);
        assert!(lost.message.0.contains("denies it"), "{}", lost.message.0);
    }
    let lost: Vec<u64> = notices.iter().map(|notice| notice.header.correlation).collect();
    assert_eq!(lost, [21, 23, 25], "a/c is a.c for the rules, and a lease may be for any name");
    assert_eq!(outcomes(&mut bus, 0), [(24, Err(DENIED))]);
    let granted = outcomes(&mut bus, 1);
    assert!(matches!(granted[..], [(32, Ok(_))]), "who has waited holds it now: {granted:?}");
    assert!(revoked(&mut bus, 0).is_empty());
    let row = &bus.broker.peers()[0];
    assert_eq!((row.holds, row.waits), (1, 0), "the lock b.b is left");
}

#[test]
fn observations_and_watches_end_with_a_word() {
    let mut bus = coordinated(FEATURE_REVOCATION);
    bus.set_policy(policy(&["deny uid:1 coordinate a.d", "deny uid:1 coordinate a.e", ALL]));
    let expected = [(RevokedWhat::Observation, 0, 26), (RevokedWhat::KeyWatch, 0, 27)];
    assert_eq!(revoked(&mut bus, 0), expected);
    let notices = bus.client(0).take(Kind::NOTICE);
    assert_eq!(notices.iter().map(|notice| notice.header.correlation).collect::<Vec<_>>(), [25], "the lease");
    let put = PutKey {
        key: "a.e".into(),
        condition: Condition::Any,
        ttl_us: 0,
        lease: 0,
        fence: None,
        durability: None,
    };
    coordinate(&mut bus, 1, Operation::PUT, 33, &put);
    assert!(bus.client(0).take(Kind::NOTICE).is_empty(), "it hears of no change any more");
}

#[test]
fn leases_and_watches_over_prefixes_need_the_right_to_everything() {
    let mut bus = coordinated(FEATURE_REVOCATION);
    let all = Selection::Prefix { prefix: "b".into() };
    coordinate(&mut bus, 0, Operation::WATCH, 28, &WatchKeys { selection: all, from: None });
    bus.set_policy(policy(&["deny uid:1 coordinate z", ALL]));
    let lost: Vec<u64> =
        bus.client(0).take(Kind::NOTICE).iter().map(|notice| notice.header.correlation).collect();
    assert_eq!(lost, [25]);
    assert_eq!(revoked(&mut bus, 0), [(RevokedWhat::KeyWatch, 0, 28)]);
}

#[test]
fn an_older_client_is_told_in_the_ways_that_it_knows() {
    for rule in ["deny uid:1 own a.>", "deny uid:1 subscribe a.secret"] {
        let mut bus = bus(&[1, 2], 0);
        register(&mut bus, 0, "a.b");
        subscribe(&mut bus, 0, 11, "a.>");
        bus.set_policy(policy(&[rule, ALL]));
        assert!(bus.client(0).is_closed, "{rule}");
        let close: Close = bus.client(0).inbox.last().expect("a last frame").decode();
        assert_eq!(close.code, DENIED);
        assert!(
            close.message.0.contains(rule.split_once("uid:1 ").expect("a rule").1.get(..3).expect("a verb"))
        );
        assert!(bus.broker.services().is_empty());
    }
    let mut bus = coordinated(0);
    bus.set_policy(policy(&["deny uid:1 coordinate a.d", "deny uid:1 coordinate a.e", ALL]));
    let told: Vec<u32> =
        bus.client(0).take(Kind::NOTICE).iter().map(|notice| notice.header.handle.index).collect();
    assert_eq!(told, [Told::OBSERVATION_LOST.0, Told::WATCH_LOST.0, Told::LOST.0]);
    assert!(!bus.client(0).is_closed && bus.client(0).take(Kind::REVOKED).is_empty());
}

#[test]
fn what_depended_on_a_name_goes_with_it() {
    let mut bus = bus(&[1], FEATURE_REVOCATION);
    for service in ["a", "b", "c"] {
        register(&mut bus, 0, service);
    }
    subscribe(&mut bus, 0, 11, "t");
    let rules =
        ["deny uid:1 own a", "allow service:a own b", "allow service:b own c", "allow service:c subscribe t"];
    // Each of the three names was good for the next, and nothing else allows anything.
    bus.set_policy(policy(&[&rules[..], &["allow uid:1 publish >"]].concat()));
    let taken: Vec<RevokedWhat> =
        bus.client(0).take(Kind::REVOKED).iter().map(|frame| frame.decode::<Revoked>().what).collect();
    let name = RevokedWhat::Name;
    assert_eq!(taken, [name, name, name, RevokedWhat::Subscription]);
    assert!(!bus.client(0).is_closed);
}

#[test]
fn work_goes_back_into_its_queue_and_consumers_end() {
    let mut bus = bus(&[1, 2], FEATURE_REVOCATION);
    let put = Enqueue {
        queue: "a.q".into(),
        id: None,
        priority: 0,
        delay_us: 0,
        max_deliveries: 0,
        max_length: 0,
        overflow: Overflow::Reject,
        fence: None,
        durability: None,
    };
    coordinate(&mut bus, 1, Operation::ENQUEUE, 31, &put);
    for (correlation, queue) in [(21, "a.q"), (22, "b.q")] {
        let consume = Consume { queue: queue.into(), credit: 1, visibility_us: 0, max_deliveries: 0 };
        coordinate(&mut bus, 0, Operation::CONSUME, correlation, &consume);
    }
    bus.set_policy(policy(&["deny uid:1 coordinate a.q", ALL]));
    let notices = bus.client(0).take(Kind::NOTICE).into_iter();
    let told: Vec<_> =
        notices.map(|notice| (notice.header.handle.index, notice.header.correlation)).collect();
    assert_eq!(told, [(Told::DELIVERED.0, 21), (Told::CONSUMER_LOST.0, 21)]);
    bus.client(1).take(Kind::OUTCOME);
    let take = Take {
        queue: "a.q".into(),
        bind: Bind::Session,
        visibility_us: 0,
        max_deliveries: 0,
        wait: false,
        fence: None,
    };
    coordinate(&mut bus, 1, Operation::TAKE, 32, &take);
    let taken = bus.client(1).take(Kind::OUTCOME).pop().expect("an outcome");
    assert_eq!(taken.decode::<Delivered>().deliveries, 2);
}

/// What is under way under a lock's token keeps the lock from the next holder.
#[test]
fn a_change_under_a_lock_needs_the_right_to_the_lock() {
    let mut bus = coordinated(FEATURE_REVOCATION);
    bus.set_policy(policy(&["deny uid:1 coordinate a.>", ALL]));
    outcomes(&mut bus, 0);
    for (correlation, lock, expected) in [(41, "a.b", Err(DENIED)), (42, "c", Ok(()))] {
        let fence = ipc_core::wire::coordination::Fence { lock: lock.into(), token: 0 };
        let put = PutKey {
            key: "b.key".into(),
            condition: Condition::Any,
            ttl_us: 0,
            lease: 0,
            fence: Some(fence),
            durability: None,
        };
        coordinate(&mut bus, 0, Operation::PUT, correlation, &put);
        let codes: Vec<_> = outcomes(&mut bus, 0).into_iter().map(|(_, code)| code == Err(DENIED)).collect();
        assert_eq!(codes, [expected.is_err()], "{lock}");
    }
}
