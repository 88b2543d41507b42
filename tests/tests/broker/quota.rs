//! What one user can take of what all share, and whom a refusal is for.

use ipc_core::Error;
use ipc_core::error::ErrorCode;
use ipc_core::id::Handle;
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::wire::codec::{List, Wire};
use ipc_core::wire::message::{
    ErrorBody, Gap, MethodInfo, OnSlow, OpenTopic, Register, RegisterMode, Resolve, Subscribe, WatchNames,
};
use ipc_core::wire::{Flags, Header, Kind};
use ipc_daemon::broker::{Access, Allowance, Policy, Transport};
use ipc_tests::memory_bus::MemoryBus;
use ipc_tests::raw::greeting;
use ipc_tests::users::FewUsers;

/// A bus with a client of each user, who has said hello.
fn with_users(limits: Limits, allowances: &[&str], uids: &[u32]) -> MemoryBus {
    let allowances = allowances.iter().map(|text| Allowance::parse(text, &FewUsers).unwrap()).collect();
    let mut bus = MemoryBus::with_policy(limits, Policy::open(Vec::new()).with_allowances(allowances));
    for uid in uids {
        let client = bus.connect(*uid);
        bus.send(client, &greeting("test"));
        bus.client(client).inbox.clear();
    }
    bus
}

/// Asks for something; what comes of it, with the limit that kept it from happening.
fn ask<T: Wire>(bus: &mut MemoryBus, from: usize, header: Header, request: &T) -> Result<(), String> {
    bus.say(from, header, request, &[]);
    let answers = bus.client(from).take(Kind::DONE);
    let answer = answers.last().expect("an answer");
    if !answer.header.flags.contains(Flags::ERROR) {
        return Ok(());
    }
    let body: ErrorBody = answer.decode();
    assert_eq!(body.code, ErrorCode::QuotaExceeded.number(), "{}", body.message.0);
    Err(body.resource.expect("the limit is named").0)
}

fn header(kind: Kind, correlation: u64) -> Header {
    Header::new(kind).with_correlation(correlation)
}

fn register(bus: &mut MemoryBus, from: usize, service: &str) -> Result<(), String> {
    let methods = List(vec![MethodInfo { name: "m".into(), description: "".into() }]);
    let mode = RegisterMode::Exclusive;
    let request = Register { service: service.into(), mode, queue: false, methods };
    ask(bus, from, header(Kind::REGISTER, 1), &request)
}

fn resolve(bus: &mut MemoryBus, from: usize, index: u32) -> Result<(), String> {
    let handle = Handle { index, generation: 1 };
    let request = Resolve { service: "a.b".into(), method: "m".into() };
    ask(bus, from, header(Kind::RESOLVE, 2).with_handle(handle), &request)
}

#[test]
fn nobody_takes_every_connection() {
    let limits = Limits { connections_max: 650, unauthenticated_per_uid_max: 1000, ..Limits::default() };
    let mut bus = MemoryBus::with_policy(limits, Policy::open(Vec::new()));
    let mut connect = |uid: u32| {
        let identity = Identity::Local { uid, gid: uid, pid: 1 };
        bus.broker.connect(bus.now, identity, Transport::UnixStream, Access::Granted)
    };
    connect(999).expect("there is room");
    let counts = [1000, 1001].map(|uid| (0..).take_while(|_| connect(uid).is_ok()).count());
    assert_eq!(counts, [639, 9], "64 for each that is left");
    let limit = |result: Result<_, Error>| {
        let detail = result.expect_err("there is a limit").detail.expect("it is named");
        (detail.resource, detail.hint.is_some_and(|hint| hint.contains("users who have fewer")))
    };
    let named = Some("connections_max".to_owned());
    assert_eq!(limit(connect(1000)), (named.clone(), true));
    connect(1002).expect("the last is for whoever has none");
    assert_eq!(limit(connect(1003)), (named, false));
}

#[test]
fn whoever_is_alone_takes_every_connection() {
    let limits = Limits { connections_max: 650, unauthenticated_per_uid_max: 1000, ..Limits::default() };
    let mut bus = MemoryBus::with_policy(limits, Policy::open(Vec::new()));
    let identity = Identity::Local { uid: 1000, gid: 1000, pid: 1 };
    let mut connect =
        || bus.broker.connect(bus.now, identity.clone(), Transport::UnixStream, Access::Granted);
    assert_eq!((0..).take_while(|_| connect().is_ok()).count(), 650);
}

fn used(bus: &MemoryBus, uid: u32, resource: &str) -> (u64, u64) {
    let viewer = bus.broker.peers()[0].peer.id;
    let rows = bus.broker.view(viewer).quota();
    let row = rows.iter().find(|row| row.uid == Some(uid) && row.resource == resource);
    row.map_or((0, 0), |row| (row.used, row.refused))
}

#[test]
fn the_connections_of_a_user_share_its_quota_and_others_have_their_own() {
    let quota =
        "uid:1 names_per_uid_max=2 subscriptions_per_uid_max=2 watches_per_uid_max=2 handles_per_uid_max=3";
    let mut bus = with_users(Limits::default(), &[quota], &[0, 1, 1, 2]);
    register(&mut bus, 0, "a.b").unwrap();
    let full = |limit: &str| Err(limit.to_owned());
    register(&mut bus, 1, "x.a").unwrap();
    register(&mut bus, 2, "x.b").unwrap();
    assert_eq!(register(&mut bus, 1, "x.c"), full("names_per_uid_max"));
    assert_eq!(register(&mut bus, 2, "x.c"), full("names_per_uid_max"));
    register(&mut bus, 3, "x.c").unwrap();
    assert_eq!(used(&bus, 1, "names_per_uid_max"), (2, 2));
    assert_eq!(used(&bus, 2, "names_per_uid_max"), (1, 0));
    for (number, from, expected) in
        [(10, 1, Ok(())), (11, 2, Ok(())), (12, 1, full("subscriptions_per_uid_max"))]
    {
        let (filter, on_slow) = ("a.>".into(), OnSlow::DropOldest);
        let request = Subscribe { filter, on_slow, queue_events_max: 0, queue_bytes_max: 0 };
        assert_eq!(ask(&mut bus, from, header(Kind::SUBSCRIBE, number), &request), expected, "{number}");
    }
    for (number, from, expected) in [(20, 1, Ok(())), (21, 2, Ok(())), (22, 2, full("watches_per_uid_max"))] {
        let request = WatchNames { filter: "none".into() };
        assert_eq!(ask(&mut bus, from, header(Kind::WATCH_NAMES, number), &request), expected, "{number}");
    }
    for (index, from, expected) in
        [(0, 1, Ok(())), (1, 2, Ok(())), (1, 1, full("handles_per_uid_max")), (0, 2, Ok(()))]
    {
        assert_eq!(resolve(&mut bus, from, index), expected, "{index} of {from}");
    }
    // Everything comes back with the connection.
    bus.leave(1);
    register(&mut bus, 2, "x.d").unwrap();
    bus.leave(2);
    assert_eq!(used(&bus, 1, "handles_per_uid_max"), (0, 1), "what was refused is remembered");
}

#[test]
fn a_user_has_no_more_calls_open_than_its_quota() {
    let mut bus = with_users(Limits::default(), &["uid:1 pending_calls_per_uid_max=3"], &[0, 1, 1]);
    register(&mut bus, 0, "a.b").unwrap();
    for from in [1, 2] {
        resolve(&mut bus, from, 0).unwrap();
    }
    let handle = Handle { index: 0, generation: 1 };
    for (number, from, expected) in [(1, 1, true), (2, 2, true), (3, 1, true), (4, 2, false)] {
        bus.say(from, header(Kind::CALL, number).with_handle(handle), &(), b"");
        assert_eq!(bus.client(from).take(Kind::REPLY).is_empty(), expected, "{number}");
    }
    let calls = bus.client(0).take(Kind::CALL);
    bus.say(0, header(Kind::REPLY, calls[0].header.correlation), &(), b"");
    bus.client(1).take(Kind::REPLY);
    bus.say(2, header(Kind::CALL, 5).with_handle(handle), &(), b"");
    assert_eq!(bus.client(0).take(Kind::CALL).len(), 1);
}

#[test]
fn memory_is_counted_over_everything() {
    let quota = "uid:1 memory_per_uid_max_bytes=65536";
    let mut bus = with_users(Limits::default(), &[quota], &[0, 1]);
    register(&mut bus, 0, "a.b").unwrap();
    let mut refused = None;
    for number in 0..100 {
        if let Err(limit) = register(&mut bus, 1, &format!("x.n{number}")) {
            refused = Some((number, limit));
            break;
        }
    }
    let (count, limit) = refused.expect("there is an end to it");
    assert_eq!(limit, "memory_per_uid_max_bytes");
    assert!((50..70).contains(&count), "{count} names of a kibibyte");
    assert_eq!(resolve(&mut bus, 1, 0), Err("memory_per_uid_max_bytes".to_owned()));
}

#[test]
fn whoever_comes_too_often_is_refused_and_nobody_else() {
    let limits = Limits { connections_per_uid_per_second_max: 3, ..Limits::default() };
    let mut bus = with_users(limits, &["uid:9 connections_per_uid_per_second_max=1000"], &[]);
    let connect = |bus: &mut MemoryBus, uid: u32| {
        let identity = Identity::Local { uid, gid: uid, pid: 1 };
        bus.broker.connect(bus.now, identity, Transport::UnixStream, Access::Granted).map(|_| ())
    };
    for (number, expected) in [(1, true), (2, true), (3, true), (4, false)] {
        assert_eq!(connect(&mut bus, 1).is_ok(), expected, "{number}");
    }
    let error = connect(&mut bus, 1).unwrap_err();
    assert_eq!(error.code, ErrorCode::QuotaExceeded);
    assert!(error.message.contains("connections_per_uid_per_second_max"), "{error}");
    for uid in [2, 9, 9, 9, 9] {
        connect(&mut bus, uid).unwrap();
    }
    bus.wait(core::time::Duration::from_millis(400));
    connect(&mut bus, 1).unwrap();
    assert!(connect(&mut bus, 1).is_err());
}

/// Calls until it is refused; says how often it was not, and why it was.
fn flood(bus: &mut MemoryBus, from: usize) -> (u64, ErrorBody) {
    let handle = Handle { index: 0, generation: 1 };
    for number in 0..1000 {
        bus.say(from, header(Kind::CALL, number).with_handle(handle), &(), &[7; 10_000]);
        if let Some(reply) = bus.client(from).take(Kind::REPLY).first() {
            return (number, reply.decode());
        }
    }
    panic!("there is no end to what it takes");
}

#[test]
fn nobody_fills_the_queue_of_a_receiver_against_others() {
    let limits = Limits { queue_per_connection_max_bytes: 1_000_000, ..Limits::default() };
    let mut bus = with_users(limits, &[], &[0, 1, 2, 0]);
    register(&mut bus, 0, "a.b").unwrap();
    for from in [1, 2, 3] {
        resolve(&mut bus, from, 0).unwrap();
    }
    bus.client(0).reads = false;
    let (first, why) = flood(&mut bus, 1);
    assert!((45..=52).contains(&first), "half of the queue, in frames of 10 kB: {first}");
    assert_eq!((why.code, why.limit), (ErrorCode::QuotaExceeded.number(), Some(500_000)));
    assert!(why.message.0.contains("share of this user"), "{}", why.message.0);
    let (second, why) = flood(&mut bus, 2);
    assert!((30..=34).contains(&second), "a third of it: {second}");
    assert_eq!(why.limit, Some(333_333));
    // Who pays for the queue has the rest.
    let (own, why) = flood(&mut bus, 3);
    assert!((10..=22).contains(&own), "{own}");
    assert_eq!(why.limit, Some(1_000_000));
    assert_eq!(used(&bus, 1, "queue_per_connection_max_bytes"), (0, 1), "the one at fault is noted");
    bus.resume(0);
    assert_eq!(bus.client(0).take(Kind::CALL).len() as u64, first + second + own);
    bus.client(0).reads = false;
    assert_eq!(flood(&mut bus, 2).1.limit, Some(500_000), "what was read makes room again");
}

/// Publishes `count` events of 10 kB on `topic`, without waiting for an answer.
fn publish(bus: &mut MemoryBus, from: usize, topic: &str, count: u64) {
    let handle = Handle { index: 5, generation: 1 };
    let open = OpenTopic { topic: topic.into() };
    ask(bus, from, header(Kind::OPEN_TOPIC, 3).with_handle(handle), &open).unwrap();
    for _ in 0..count {
        let publish = Header { flags: Flags::ONEWAY, ..Header::new(Kind::PUBLISH) };
        bus.say(from, publish.with_handle(handle), &(), &[7; 10_000]);
    }
}

#[test]
fn nobody_fills_the_queue_of_a_subscriber_against_others() {
    let limits = Limits {
        queue_per_connection_max_bytes: 1_000_000,
        queue_bytes_per_subscription_max: 1_000_000,
        ..Limits::default()
    };
    let mut bus = with_users(limits, &[], &[0, 1, 2]);
    register(&mut bus, 0, "a.b").unwrap();
    for (number, filter) in [(10, "loud"), (11, "quiet")] {
        let (filter, on_slow) = (filter.into(), OnSlow::DropOldest);
        let request = Subscribe { filter, on_slow, queue_events_max: 0, queue_bytes_max: 0 };
        ask(&mut bus, 0, header(Kind::SUBSCRIBE, number), &request).unwrap();
    }
    resolve(&mut bus, 2, 0).unwrap();
    bus.client(0).reads = false;
    publish(&mut bus, 1, "loud", 300);
    // The other user's calls and events have room, whatever the first one publishes.
    publish(&mut bus, 2, "quiet", 10);
    publish(&mut bus, 1, "loud", 300);
    let (calls, why) = flood(&mut bus, 2);
    assert!((20..=24).contains(&calls), "a third of the queue, less ten events: {calls}");
    assert!(why.message.0.contains("share of this user"), "{}", why.message.0);
    bus.resume(0);
    let events = bus.client(0).take(Kind::EVENT);
    let of = |subscription: u64| {
        let own = events.iter().filter(|event| event.header.correlation == subscription);
        own.map(|event| event.header.sequence).collect::<Vec<_>>()
    };
    assert_eq!(of(11), (1..=10).collect::<Vec<_>>(), "every event of the other one arrives");
    let loud = of(10);
    assert!((32..=52).contains(&loud.len()), "{}", loud.len());
    assert_eq!(loud.last(), Some(&600), "the newest are kept");
    let missed: u64 = bus.client(0).take(Kind::GAP).iter().map(|gap| gap.decode::<Gap>().count).sum();
    assert_eq!(missed + loud.len() as u64, 600, "what is missing is counted");
}

#[test]
fn a_service_with_large_replies_leaves_room_for_those_of_others() {
    let limits = Limits { queue_per_connection_max_bytes: 1_000_000, ..Limits::default() };
    let mut bus = with_users(limits, &[], &[0, 1, 2]);
    for (service, index, from) in [("a.b", 1, 1), ("a.c", 2, 2)] {
        register(&mut bus, from, service).unwrap();
        let handle = Handle { index, generation: 1 };
        let request = Resolve { service: service.into(), method: "m".into() };
        ask(&mut bus, 0, header(Kind::RESOLVE, 2).with_handle(handle), &request).unwrap();
        for number in 0..100 {
            let call = header(Kind::CALL, 1000 * u64::from(index) + number).with_handle(handle);
            bus.say(0, call, &(), b"");
        }
    }
    bus.client(0).reads = false;
    for from in [1, 2] {
        for call in bus.client(from).take(Kind::CALL) {
            bus.say(from, header(Kind::REPLY, call.header.correlation), &(), &[7; 10_000]);
        }
    }
    bus.resume(0);
    let replies = bus.client(0).take(Kind::REPLY);
    assert_eq!(replies.len(), 200, "every call has its outcome");
    let answered = |service: u64| {
        let own = replies.iter().filter(|reply| reply.header.correlation / 1000 == service);
        own.filter(|reply| !reply.header.flags.contains(Flags::ERROR)).count()
    };
    assert!((40..=52).contains(&answered(1)), "half of the queue: {}", answered(1));
    assert!((25..=36).contains(&answered(2)), "a third of it: {}", answered(2));
    let dropped = replies.iter().find(|reply| reply.header.flags.contains(Flags::ERROR)).expect("some");
    assert_eq!(dropped.decode::<ErrorBody>().code, ErrorCode::SlowConsumer.number());
}

/// Memory that the user 1000 has.
fn memory(bus: &MemoryBus) -> usize {
    let usage = bus.broker.usage();
    let of_user = usage.iter().find(|usage| usage.uid == Some(1000)).expect("it is there");
    of_user.charges.memory_bytes() as usize
}

#[test]
fn parts_of_frames_are_memory_and_whoever_has_too_much_of_it_is_closed() {
    const MAX: usize = 200_000;
    for (more, is_closed) in [(MAX - 1, false), (MAX, false), (MAX + 1, true)] {
        let limits = Limits { memory_per_uid_max_bytes: MAX as u32, ..Limits::default() };
        let mut bus = with_users(limits, &[], &[1000, 1000]);
        let part = more - memory(&bus);
        bus.keep_part(0, part);
        assert_eq!(bus.client(0).is_closed, is_closed, "{more}");
        assert!(!bus.client(1).is_closed);
        if !is_closed {
            bus.keep_part(0, 0);
            bus.keep_part(1, part);
            assert!(!bus.client(1).is_closed, "the first has given it back");
        }
        bus.leave(1);
        bus.leave(0);
        assert!(bus.broker.usage().iter().all(|usage| usage.uid != Some(1000)));
    }
}

#[test]
fn whoever_has_all_its_memory_is_given_nothing_more_to_hold() {
    use ipc_core::wire::coordination::{Claim, LockMode, Operation, TakeLock};
    const MAX: usize = 200_000;
    let limits = Limits { memory_per_uid_max_bytes: MAX as u32, ..Limits::default() };
    let mut bus = with_users(limits, &[], &[1000]);
    bus.keep_part(0, MAX - memory(&bus));
    for (name, is_refused) in [("a", false), ("b", true)] {
        let claim = Claim { wait: true, ttl_us: 0, delay_us: 0, owner: 0, durability: None };
        let lock = TakeLock { name: name.into(), mode: LockMode::Exclusive, claim };
        let mut header = Header::new(Kind::COORDINATE).with_correlation(1);
        header.handle.index = Operation::LOCK.0;
        bus.say(0, header, &lock, &[]);
        let outcome = bus.client(0).take(Kind::OUTCOME).pop().expect("an outcome");
        assert_eq!(outcome.header.flags.contains(Flags::ERROR), is_refused, "{name}");
        if is_refused {
            let body: ErrorBody = outcome.decode();
            assert_eq!(body.resource.expect("the limit is named").0, "memory_per_uid_max_bytes");
        }
    }
}
