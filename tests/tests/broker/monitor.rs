//! What crosses the bus, as those see it who may look.

use ipc_core::error::ErrorCode;
use ipc_core::id::Handle;
use ipc_core::limits::Limits;
use ipc_core::time::Instant;
use ipc_core::wire::codec::{List, Wire};
use ipc_core::wire::coordination::{
    Claim, Condition, Durability, GetKey, ListKeys, LockMode, OfToken, Operation, PutKey, Selection,
    TakeLock, WatchKeys,
};
use ipc_core::wire::message::{
    ErrorBody, Gap, MethodInfo, OnSlow, OpenTopic, PeerInfo, Register, RegisterMode, Resolve, Revoked,
    Subscribe, WatchNames,
};
use ipc_core::wire::{Flags, Header, Kind};
use ipc_daemon::broker::{Policy, Rule};
use ipc_tests::disk::Disk;
use ipc_tests::memory_bus::{MemoryBus, Received};
use ipc_tests::raw::{frame, greeting};
use ipc_tests::users::FewUsers;
use serde_json::{Value, json};

const ALL: &str = "allow anyone * >";
const METHOD: Handle = Handle { index: 1, generation: 1 };
const TOPIC: Handle = Handle { index: 2, generation: 1 };

fn policy(rules: &[&str]) -> Policy {
    let rules = rules.iter().enumerate();
    let rules = rules.map(|(at, text)| Rule::parse(text, at as u32 + 1, &FewUsers).expect("a rule"));
    Policy::new(rules.collect(), Vec::new())
}

#[test]
fn nothing_is_shown_of_somebody_who_is_gone() {
    let disk = Disk { holds: true, ..Disk::default() };
    let mut bus = MemoryBus::with_disk(Limits::default(), Instant::from_nanos(1), disk);
    while bus.finish_commit() {}
    for uid in [1, 2] {
        let client = bus.connect(uid);
        bus.send(client, &greeting("test"));
    }
    for is_gone in [false, true] {
        let durability = Some(Durability::Disk);
        let put = PutKey {
            key: "a/key".into(),
            condition: Condition::Any,
            ttl_us: 0,
            lease: 0,
            fence: None,
            durability,
        };
        let asked = Header::new(Kind::COORDINATE).with_correlation(7);
        bus.say(0, asked.with_handle(Handle { index: Operation::PUT.0, generation: 0 }), &put, b"x");
        if is_gone {
            bus.leave(0);
        } else {
            assert_eq!(subscribe(&mut bus, 1, "ipc.monitor"), None);
        }
        bus.client(1).inbox.clear();
        while bus.finish_commit() {}
        assert_eq!(bus.client(1).take(Kind::EVENT).is_empty(), is_gone);
    }
}

/// A bus with a service `a.b`, a caller that is also a publisher on `t.x`, and one who wants to look: users 1, 2 and 3.
fn bus() -> MemoryBus {
    let mut bus = MemoryBus::with_policy(Limits::default(), policy(&[ALL]));
    for uid in [1, 2, 3] {
        let client = bus.connect(uid);
        bus.send(client, &greeting("test"));
    }
    let methods = List(vec![MethodInfo { name: "m".into(), description: "".into() }]);
    let mode = RegisterMode::Exclusive;
    ask(
        &mut bus,
        0,
        Kind::REGISTER,
        METHOD,
        &Register { service: "a.b".into(), mode, queue: false, methods },
    );
    ask(&mut bus, 1, Kind::RESOLVE, METHOD, &Resolve { service: "a.b".into(), method: "m".into() });
    ask(&mut bus, 1, Kind::OPEN_TOPIC, TOPIC, &OpenTopic { topic: "t.x".into() });
    bus
}

fn ask<T: Wire>(
    bus: &mut MemoryBus,
    from: usize,
    kind: Kind,
    handle: Handle,
    request: &T,
) -> Option<ErrorCode> {
    bus.say(from, Header::new(kind).with_correlation(9).with_handle(handle), request, b"");
    let answer = bus.client(from).take(Kind::DONE).pop().expect("an answer");
    let is_refused = answer.header.flags.contains(Flags::ERROR);
    is_refused
        .then(|| ErrorCode::from_number(answer.decode::<ErrorBody>().code).expect("a code of the table"))
}

fn subscribe(bus: &mut MemoryBus, from: usize, filter: &str) -> Option<ErrorCode> {
    let filter = filter.into();
    let request = Subscribe { filter, on_slow: OnSlow::DropOldest, queue_events_max: 0, queue_bytes_max: 0 };
    ask(bus, from, Kind::SUBSCRIBE, Handle::default(), &request)
}

fn publish(bus: &mut MemoryBus, payload: &[u8]) {
    let header = Header { flags: Flags::ONEWAY, ..Header::new(Kind::PUBLISH) };
    bus.say(1, header.with_handle(TOPIC), &(), payload);
}

/// A call of client 1 and its reply.
fn call(bus: &mut MemoryBus) {
    bus.say(1, Header::new(Kind::CALL).with_correlation(5).with_handle(METHOD), &(), b"secret");
    let call = bus.client(0).take(Kind::CALL).pop().expect("the call");
    bus.say(0, Header::new(Kind::REPLY).with_correlation(call.header.correlation), &(), b"secret too");
}

fn seen(event: &Received) -> Value {
    serde_json::from_slice(&event.payload).expect("an object of JSON")
}

#[test]
fn whoever_looks_sees_who_sends_what_to_whom_and_nothing_of_what_is_in_it() {
    let mut bus = bus();
    assert_eq!(subscribe(&mut bus, 2, "ipc.monitor"), None);
    call(&mut bus);
    publish(&mut bus, b"secret");
    let ids: Vec<u64> = bus.broker.peers().iter().map(|row| row.peer.id.0).collect();
    let announced = bus.client(2).take(Kind::PEER_ANNOUNCED);
    let announced: Vec<(u32, u64)> =
        announced.iter().map(|frame| (frame.header.sender, frame.decode::<PeerInfo>().peer)).collect();
    let events = bus.client(2).take(Kind::EVENT);
    let shown: Vec<(u64, Value)> = events
        .iter()
        .map(|event| {
            let sender =
                announced.iter().find(|(slot, _)| *slot == event.header.sender).expect("it is announced");
            (sender.1, seen(event))
        })
        .collect();
    let expected = [
        (
            ids[1],
            json!({"kind": "call", "service": "a.b", "method": "m", "oneway": false, "to": ids[0], "bytes": 6}),
        ),
        (ids[0], json!({"kind": "reply", "service": "a.b", "error": false, "to": ids[1], "bytes": 10})),
        (ids[1], json!({"kind": "event", "topic": "t.x", "sequence": 1, "subscribers": 0, "bytes": 6})),
    ];
    assert_eq!(shown, expected);
    assert!(events.iter().all(|event| !String::from_utf8_lossy(&event.payload).contains("secret")));
}

#[test]
fn a_wildcard_does_not_look_and_nobody_publishes_there() {
    let mut bus = bus();
    for filter in [">", "ipc.>", "*.monitor"] {
        let client = bus.connect(3);
        bus.send(client, &greeting("wild"));
        assert_eq!(subscribe(&mut bus, client, filter), None, "{filter}");
        assert_eq!(subscribe(&mut bus, 2, "ipc.monitor").is_none(), filter == ">", "{filter}: one is enough");
        call(&mut bus);
        assert!(bus.client(client).take(Kind::EVENT).is_empty(), "{filter}");
    }
    let events = bus.client(2).take(Kind::EVENT);
    assert_eq!(events.iter().filter(|event| seen(event)["kind"] != "refusal").count(), 6);
    let open = OpenTopic { topic: "ipc.monitor".into() };
    assert_eq!(ask(&mut bus, 1, Kind::OPEN_TOPIC, TOPIC, &open), Some(ErrorCode::PermissionDenied));
}

#[test]
fn looking_is_a_right_of_its_own_and_can_be_taken_away() {
    let mut bus = bus();
    let denied = policy(&["deny uid:3 monitor traffic", ALL]);
    bus.set_policy(denied.clone());
    assert_eq!(subscribe(&mut bus, 2, "ipc.monitor"), Some(ErrorCode::PermissionDenied));
    bus.set_policy(policy(&["allow uid:3 monitor traffic", "allow anyone call,own,resolve,publish >"]));
    assert_eq!(subscribe(&mut bus, 2, "ipc.monitor"), None);
    assert_eq!(subscribe(&mut bus, 1, "ipc.monitor"), Some(ErrorCode::PermissionDenied));
    bus.set_policy(denied);
    let revoked: Revoked = bus.client(2).take(Kind::REVOKED).pop().expect("a word").decode();
    assert!(revoked.message.0.contains("monitor traffic"), "{}", revoked.message.0);
    bus.client(2).inbox.clear();
    call(&mut bus);
    assert!(bus.client(2).take(Kind::EVENT).is_empty());
}

#[test]
fn whoever_looks_and_does_not_read_slows_nobody_and_knows_what_is_missing() {
    let mut bus = bus();
    assert_eq!(subscribe(&mut bus, 2, "ipc.monitor"), None);
    assert_eq!(subscribe(&mut bus, 0, "t.>"), None);
    bus.client(2).reads = false;
    for _ in 0..5_000 {
        publish(&mut bus, &[7; 100]);
    }
    assert_eq!(bus.client(0).take(Kind::EVENT).len(), 5_000);
    bus.resume(2);
    let events = bus.client(2).take(Kind::EVENT);
    let missed: u64 = bus.client(2).take(Kind::GAP).iter().map(|gap| gap.decode::<Gap>().count).sum();
    assert!(missed > 0);
    assert_eq!(events.len() as u64 + missed, 5_000);
    assert_eq!(seen(events.last().expect("the newest"))["sequence"], 5_000);
}

#[test]
fn what_several_get_is_seen_once_for_each_event() {
    let mut bus = bus();
    for client in [0, 2] {
        assert_eq!(subscribe(&mut bus, client, "t.x"), None);
    }
    // A run of events to several subscribers is encoded once, unless somebody looks.
    let header = Header { flags: Flags::ONEWAY, ..Header::new(Kind::PUBLISH) };
    let run: Vec<u8> = (0..3).flat_map(|_| frame(header.with_handle(TOPIC), &(), b"x")).collect();
    bus.send(1, &run);
    bus.leave(2);
    let client = bus.connect(3);
    bus.send(client, &greeting("again"));
    assert_eq!(subscribe(&mut bus, client, "ipc.monitor"), None);
    bus.send(1, &run);
    let shown: Vec<Value> = bus.client(client).take(Kind::EVENT).iter().map(seen).collect();
    assert_eq!(shown.len(), 3);
    assert!(shown.iter().all(|event| event["subscribers"] == 1), "{shown:?}");
    assert_eq!(bus.client(0).take(Kind::EVENT).len(), 6);
}

/// What client 2 has been shown, with the parts that say what became of it.
fn shown(bus: &mut MemoryBus) -> Vec<String> {
    let events = bus.client(2).take(Kind::EVENT);
    assert!(events.iter().all(|event| !String::from_utf8_lossy(&event.payload).contains("secret")));
    let line = |seen: Value| {
        let parts = [
            "kind",
            "operation",
            "notice",
            "service",
            "method",
            "topic",
            "filter",
            "name",
            "request",
            "code",
        ];
        let parts = parts.iter().filter_map(|part| match seen.get(*part)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        });
        parts.collect::<Vec<_>>().join(" ")
    };
    events.iter().map(seen).map(line).collect()
}

fn coordinate<T: Wire>(bus: &mut MemoryBus, operation: Operation, correlation: u64, request: &T) {
    let handle = Handle { index: operation.0, generation: 0 };
    let header = Header::new(Kind::COORDINATE).with_correlation(correlation).with_handle(handle);
    bus.say(1, header, request, b"");
}

#[test]
fn requests_and_what_becomes_of_them_are_shown() {
    let mut bus = bus();
    assert_eq!(subscribe(&mut bus, 2, "ipc.monitor"), None);
    let claim = Claim { wait: false, ttl_us: 0, delay_us: 0, owner: 1, durability: None };
    let lock = TakeLock { name: "a/lock".into(), mode: LockMode::Exclusive, claim };
    coordinate(&mut bus, Operation::LOCK, 5, &lock);
    let other = Claim { owner: 2, ..lock.claim };
    coordinate(&mut bus, Operation::LOCK, 6, &TakeLock { claim: other, ..lock });
    coordinate(&mut bus, Operation::GET, 7, &GetKey { key: "no/key".into() });
    let selection = Selection::Prefix { prefix: "config/".into() };
    coordinate(&mut bus, Operation::LIST, 1 << 60, &ListKeys { selection, after: "".into(), count: 10 });
    coordinate(&mut bus, Operation::RENEW, 8, &OfToken { token: 1 });
    coordinate(&mut bus, Operation::GET, 9, &GetKey { key: "\",\"secret\":\"".into() });
    let expected = [
        "request lock a/lock 5",
        "outcome lock 5 ok",
        "request lock a/lock 6",
        "outcome lock 6 busy",
        "request get no/key 7",
        "outcome get 7 no_such_key",
        "request list config",
        "outcome list ok",
        "request renew 8",
        "outcome renew 8 lock_lost",
        "request get 9",
        "outcome get 9 invalid_argument",
    ];
    assert_eq!(shown(&mut bus), expected);
}

#[test]
fn calls_that_come_to_nothing_are_shown_with_the_reason() {
    let mut bus = bus();
    bus.set_policy(policy(&["deny uid:2 call a.b/n", ALL]));
    assert_eq!(subscribe(&mut bus, 2, "ipc.monitor"), None);
    let resolve = |service: &str, method: &str| Resolve { service: service.into(), method: method.into() };
    let other = Handle { index: 3, generation: 1 };
    ask(&mut bus, 1, Kind::RESOLVE, other, &resolve("a.b", "n"));
    ask(&mut bus, 1, Kind::RESOLVE, other, &resolve("no.such", "m"));
    bus.say(1, Header::new(Kind::CALL).with_correlation(5).with_handle(other), &(), b"secret");
    bus.say(1, Header::new(Kind::CALL).with_correlation(6).with_handle(METHOD), &(), b"secret");
    bus.leave(0);
    bus.say(1, Header::new(Kind::CALL).with_correlation(7).with_handle(METHOD), &(), b"secret");
    let expected = [
        "refusal resolve a.b n permission_denied",
        "refusal resolve no.such m no_such_service",
        "refusal call no_such_service",
        "call a.b m",
        "refusal call a.b service_gone",
        "refusal call stale_handle",
    ];
    assert_eq!(shown(&mut bus), expected);
}

#[test]
fn what_else_is_refused_is_shown_by_its_name_if_it_is_one() {
    let mut bus = bus();
    bus.set_policy(policy(&["deny uid:2 own,subscribe,publish,call x.>", ALL]));
    assert_eq!(subscribe(&mut bus, 2, "ipc.monitor"), None);
    let register = |service: &str| {
        let methods = List(vec![MethodInfo { name: "m".into(), description: "".into() }]);
        Register { service: service.into(), mode: RegisterMode::Exclusive, queue: false, methods }
    };
    ask(&mut bus, 1, Kind::REGISTER, METHOD, &register("x.y"));
    ask(&mut bus, 1, Kind::REGISTER, METHOD, &register("a.b"));
    ask(&mut bus, 1, Kind::REGISTER, METHOD, &register("\",\"secret\":\""));
    ask(&mut bus, 1, Kind::REGISTER, METHOD, &register("c.d"));
    subscribe(&mut bus, 1, "x.*");
    let open = OpenTopic { topic: "x.y".into() };
    ask(&mut bus, 1, Kind::OPEN_TOPIC, Handle { index: 5, generation: 1 }, &open);
    ask(&mut bus, 1, Kind::WATCH_NAMES, Handle::default(), &WatchNames { filter: "a..b".into() });
    let expected = [
        "refusal register x.y permission_denied",
        "refusal register a.b name_taken",
        "refusal register invalid_argument",
        "refusal subscribe x.* permission_denied",
        "refusal open_topic x.y permission_denied",
        "refusal watch_names invalid_argument",
    ];
    assert_eq!(shown(&mut bus), expected);
}

#[test]
fn what_the_daemon_tells_by_itself_is_shown() {
    let mut bus = bus();
    assert_eq!(subscribe(&mut bus, 2, "ipc.monitor"), None);
    let selection = Selection::Prefix { prefix: "".into() };
    coordinate(&mut bus, Operation::WATCH, 5, &WatchKeys { selection, from: None });
    let (condition, fence) = (Condition::Any, None);
    let put = PutKey { key: "a/key".into(), condition, ttl_us: 0, lease: 0, fence, durability: None };
    coordinate(&mut bus, Operation::PUT, 6, &put);
    let claim = Claim { wait: false, ttl_us: 10_000, delay_us: 0, owner: 1, durability: None };
    coordinate(
        &mut bus,
        Operation::LOCK,
        7,
        &TakeLock { name: "l".into(), mode: LockMode::Exclusive, claim },
    );
    bus.wait(core::time::Duration::from_millis(10));
    subscribe(&mut bus, 1, "t.x");
    bus.set_policy(policy(&["deny uid:2 subscribe t.x", ALL]));
    let expected = [
        "request watch 5",
        "outcome watch 5 ok",
        "request put a/key 6",
        "notice changed 5",
        "outcome put 6 ok",
        "request lock l 7",
        "outcome lock 7 ok",
        "notice lost 7",
        "notice revoked 9",
    ];
    assert_eq!(shown(&mut bus), expected);
}
