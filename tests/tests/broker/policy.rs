//! What the policy lets a connection do, asked in frames.

use ipc_core::error::ErrorCode;
use ipc_core::id::Handle;
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::wire::codec::{List, Wire};
use ipc_core::wire::message::{
    Close, ErrorBody, MethodInfo, NameChanged, OnSlow, OpenTopic, Register, RegisterMode, Registered,
    Resolve, Subscribe, WatchNames,
};
use ipc_core::wire::{Flags, Header, Kind};
use ipc_daemon::broker::{Grant, Policy, Rule};
use ipc_tests::memory_bus::MemoryBus;
use ipc_tests::raw::greeting;
use ipc_tests::users::FewUsers;

const ASKED: u64 = 7;

fn register(service: &str) -> Register {
    let methods = ["m", "n"].map(|name| MethodInfo { name: name.into(), description: "".into() });
    Register {
        service: service.into(),
        mode: RegisterMode::Exclusive,
        queue: false,
        methods: List(methods.to_vec()),
    }
}

fn subscribe(filter: &str) -> Subscribe {
    let filter = filter.into();
    Subscribe { filter, on_slow: OnSlow::DropOldest, queue_events_max: 0, queue_bytes_max: 0 }
}

fn resolve(service: &str, method: &str) -> Resolve {
    Resolve { service: service.into(), method: method.into() }
}

/// Asks for something; what comes of it.
fn ask<T: Wire>(bus: &mut MemoryBus, from: usize, kind: Kind, request: &T) -> Result<(), ErrorCode> {
    let handle = Handle { index: 1, generation: 1 };
    bus.say(from, Header::new(kind).with_correlation(ASKED).with_handle(handle), request, &[]);
    let answers = bus.client(from).take(Kind::DONE);
    let [answer] = &answers[..] else { panic!("{kind:?}: {answers:?}") };
    assert_eq!(answer.header.correlation, ASKED);
    if answer.header.flags.contains(Flags::ERROR) {
        let body: ErrorBody = answer.decode();
        return Err(ErrorCode::from_number(body.code).expect("a code of the table"));
    }
    Ok(())
}

/// A bus with the service `a.b` and, as client 1, an anonymous network peer.
fn with_anonymous(allow: &[&str]) -> MemoryBus {
    let allow = allow.iter().map(|text| Grant::parse(text).unwrap()).collect();
    let mut bus = MemoryBus::with_policy(Limits::default(), Policy::open(allow));
    bus.connect(1000);
    bus.connect_as(Identity::Remote { principal: "anonymous".into(), address: "127.0.0.1:1".into() });
    for client in [0, 1] {
        bus.send(client, &greeting("test"));
    }
    ask(&mut bus, 0, Kind::REGISTER, &register("a.b")).unwrap();
    bus
}

#[test]
fn an_anonymous_peer_does_what_is_listed_and_nothing_else() {
    let mut bus = with_anonymous(&["call a.b/m", "publish news.>", "subscribe sensor.>"]);
    let denied = Err(ErrorCode::PermissionDenied);
    for (service, method, expected) in [
        ("a.b", "m", Ok(())),
        ("a.b", "n", denied),
        ("ipc.daemon", "status", denied),
        // Whether it is there is not told either.
        ("a.c", "m", denied),
    ] {
        assert_eq!(
            ask(&mut bus, 1, Kind::RESOLVE, &resolve(service, method)),
            expected,
            "{service}/{method}"
        );
    }
    for (topic, expected) in [("news.today", Ok(())), ("news", denied), ("sensor.a", denied)] {
        let request = OpenTopic { topic: topic.into() };
        assert_eq!(ask(&mut bus, 1, Kind::OPEN_TOPIC, &request), expected, "{topic}");
    }
    for (filter, expected) in [(">", denied), ("news.>", denied), ("sensor.*", Ok(()))] {
        assert_eq!(ask(&mut bus, 1, Kind::SUBSCRIBE, &subscribe(filter)), expected, "{filter}");
    }
    assert_eq!(ask(&mut bus, 1, Kind::REGISTER, &register("a.d")), denied);
    assert_eq!(ask(&mut bus, 1, Kind::WATCH_NAMES, &WatchNames { filter: ">".into() }), denied);
    assert!(!bus.client(1).is_closed, "a refusal ends no connection");
}

#[test]
fn a_handle_that_was_refused_carries_nothing() {
    let mut bus = with_anonymous(&["call a.b/m"]);
    ask(&mut bus, 1, Kind::RESOLVE, &resolve("a.b", "n")).unwrap_err();
    let handle = Handle { index: 1, generation: 1 };
    bus.say(1, Header::new(Kind::CALL).with_correlation(9).with_handle(handle), &(), &[]);
    let replies = bus.client(1).take(Kind::REPLY);
    assert_eq!(replies[0].decode::<ErrorBody>().code, ErrorCode::PermissionDenied.number());
    assert!(bus.client(0).take(Kind::CALL).is_empty());
}

#[test]
fn another_policy_holds_for_open_connections() {
    let mut bus = with_anonymous(&[]);
    ask(&mut bus, 1, Kind::RESOLVE, &resolve("a.b", "m")).unwrap_err();
    bus.broker.set_policy(Policy::open(vec![Grant::parse("call a.b").unwrap()]));
    ask(&mut bus, 1, Kind::RESOLVE, &resolve("a.b", "m")).unwrap();
}

#[test]
fn an_anonymous_peer_sees_what_it_may_resolve_and_no_other_connection() {
    let mut bus = with_anonymous(&["resolve a.>"]);
    ask(&mut bus, 0, Kind::REGISTER, &register("b.c")).unwrap();
    let rows = bus.broker.peers();
    let [local, remote] = &rows[..] else { panic!("{rows:?}") };
    let seen = |view: ipc_daemon::broker::View<'_>| {
        let services: Vec<_> = view
            .services()
            .into_iter()
            .map(|row| (row.name, row.instance_count, row.instances.len()))
            .collect();
        (services, view.peers().len(), view.topics().len(), view.status().usage.len())
    };
    let (a, b) = ("a.b".to_owned(), "b.c".to_owned());
    assert_eq!(seen(bus.broker.view(local.peer.id)), (vec![(a.clone(), 1, 1), (b, 1, 1)], 2, 0, 2));
    assert_eq!(seen(bus.broker.view(remote.peer.id)), (vec![(a, 1, 0)], 1, 0, 1));
    bus.leave(1);
    let gone = ipc_core::id::PeerId(2);
    assert_eq!(seen(bus.broker.view(gone)), (Vec::new(), 0, 0, 0));
}

fn policy(rules: &[&str]) -> Policy {
    Policy::new(rules.iter().map(|text| Rule::parse(text, 1, &FewUsers).unwrap()).collect(), Vec::new())
}

/// A bus with these rules and a client of each user, who has said hello.
fn with_rules(rules: &[&str], uids: &[u32]) -> MemoryBus {
    let mut bus = MemoryBus::with_policy(Limits::default(), policy(rules));
    for uid in uids {
        let client = bus.connect(*uid);
        bus.send(client, &greeting("test"));
        bus.client(client).inbox.clear();
    }
    bus
}

/// The reason with which the daemon has closed the connection.
fn closed(bus: &mut MemoryBus, client: usize) -> (ErrorCode, String) {
    assert!(bus.client(client).is_closed);
    let close: Close = bus.client(client).inbox.last().expect("a last frame").decode();
    (ErrorCode::from_number(close.code).expect("a code of the table"), close.message.0)
}

fn call(bus: &mut MemoryBus, from: usize, correlation: u64) {
    let handle = Handle { index: 1, generation: 1 };
    bus.say(from, Header::new(Kind::CALL).with_correlation(correlation).with_handle(handle), &(), &[]);
}

const ALL: &str = "allow anyone * >";

#[test]
fn whoever_may_not_be_there_any_more_is_told_and_closed() {
    let mut bus = with_rules(&[ALL], &[1, 2]);
    bus.set_policy(policy(&["deny uid:1 * >", ALL]));
    let (code, message) = closed(&mut bus, 0);
    assert_eq!(code, ErrorCode::PermissionDenied);
    assert!(message.contains("uid=1"), "{message}");
    assert!(!bus.client(1).is_closed);
    assert_eq!(bus.broker.status().counters.iter().find(|(name, _)| *name == "rights_revoked").unwrap().1, 1);
}

#[test]
fn a_handle_loses_its_right_and_a_call_under_way_ends_as_it_would_have() {
    let mut bus = with_rules(&[ALL], &[1, 2]);
    ask(&mut bus, 0, Kind::REGISTER, &register("a.b")).unwrap();
    ask(&mut bus, 1, Kind::RESOLVE, &resolve("a.b", "m")).unwrap();
    call(&mut bus, 1, 21);
    let calls = bus.client(0).take(Kind::CALL);
    bus.set_policy(policy(&["deny uid:2 call a.b/m", ALL]));
    call(&mut bus, 1, 22);
    let replies = bus.client(1).take(Kind::REPLY);
    assert_eq!(replies[0].decode::<ErrorBody>().code, ErrorCode::PermissionDenied.number());
    assert!(bus.client(0).take(Kind::CALL).is_empty());
    bus.say(0, Header::new(Kind::REPLY).with_correlation(calls[0].header.correlation), &(), b"done");
    let replies = bus.client(1).take(Kind::REPLY);
    assert_eq!((replies[0].header.correlation, &*replies[0].payload), (21, &b"done"[..]));
    // Given back, it can be bound again.
    bus.set_policy(policy(&[ALL]));
    ask(&mut bus, 1, Kind::RESOLVE, &resolve("a.b", "m")).unwrap();
    call(&mut bus, 1, 23);
    assert_eq!(bus.client(0).take(Kind::CALL).len(), 1);
}

#[test]
fn a_topic_that_may_not_be_published_on_any_more_is_let_go() {
    let mut bus = with_rules(&[ALL], &[1]);
    ask(&mut bus, 0, Kind::OPEN_TOPIC, &OpenTopic { topic: "a.b".into() }).unwrap();
    assert_eq!(bus.broker.topics().len(), 1);
    bus.set_policy(policy(&["deny anyone publish a.>", ALL]));
    assert_eq!(bus.broker.topics().len(), 0);
    let handle = Handle { index: 1, generation: 1 };
    bus.say(0, Header::new(Kind::PUBLISH).with_correlation(5).with_handle(handle), &(), &[]);
    let answers = bus.client(0).take(Kind::DONE);
    assert_eq!(answers[0].decode::<ErrorBody>().code, ErrorCode::PermissionDenied.number());
}

#[test]
fn what_may_not_be_resolved_is_not_told_to_a_watcher() {
    let mut bus = with_rules(&["deny uid:1 resolve,call secret.>", ALL], &[1, 2]);
    ask(&mut bus, 1, Kind::REGISTER, &register("secret.a")).unwrap();
    ask(&mut bus, 1, Kind::REGISTER, &register("open.a")).unwrap();
    ask(&mut bus, 0, Kind::WATCH_NAMES, &WatchNames { filter: ">".into() }).unwrap();
    ask(&mut bus, 1, Kind::REGISTER, &register("secret.b")).unwrap();
    ask(&mut bus, 1, Kind::REGISTER, &register("open.b")).unwrap();
    bus.leave(1);
    let told: Vec<String> = bus
        .client(0)
        .take(Kind::NAME_CHANGED)
        .iter()
        .map(|frame| frame.decode::<NameChanged>().service.0)
        .collect();
    assert_eq!(told, ["open.a", "open.b", "open.a", "open.b"]);
}

#[test]
fn a_right_of_a_service_lasts_as_long_as_its_name() {
    let mut bus = with_rules(
        &["allow service:a.b call c.d", "allow anyone own >", "allow uid:2 call,resolve >"],
        &[1, 2],
    );
    ask(&mut bus, 1, Kind::REGISTER, &register("c.d")).unwrap();
    let denied = Err(ErrorCode::PermissionDenied);
    assert_eq!(ask(&mut bus, 0, Kind::RESOLVE, &resolve("c.d", "m")), denied);
    let handle = Handle { index: 0, generation: 0 };
    bus.say(0, Header::new(Kind::REGISTER).with_correlation(8).with_handle(handle), &register("a.b"), &[]);
    let registered: Registered = bus.client(0).take(Kind::DONE)[0].decode();
    ask(&mut bus, 0, Kind::RESOLVE, &resolve("c.d", "m")).unwrap();
    call(&mut bus, 0, 41);
    assert_eq!(bus.client(1).take(Kind::CALL).len(), 1);
    let registration = Handle { index: registered.registration, generation: 0 };
    bus.say(0, Header::new(Kind::UNREGISTER).with_correlation(9).with_handle(registration), &(), &[]);
    call(&mut bus, 0, 42);
    assert!(bus.client(1).take(Kind::CALL).is_empty());
    let replies = bus.client(0).take(Kind::REPLY);
    assert_eq!(replies[0].decode::<ErrorBody>().code, ErrorCode::PermissionDenied.number());
}

#[test]
fn somebody_sees_their_own_and_others_with_the_right_to_monitor() {
    let rules = ["allow uid:1 monitor >", "allow uid:1 resolve a.>", "allow uid:2 resolve,own,subscribe a.>"];
    let mut bus = with_rules(&rules, &[1, 2, 2]);
    ask(&mut bus, 1, Kind::REGISTER, &register("a.b")).unwrap();
    ask(&mut bus, 1, Kind::SUBSCRIBE, &subscribe("a.t")).unwrap();
    let ids: Vec<_> = bus.broker.peers().into_iter().map(|row| row.peer.id).collect();
    let seen = |at: usize| {
        let view = bus.broker.view(ids[at]);
        (view.services().len(), view.peers().len(), view.topics().len(), view.status().usage.len())
    };
    assert_eq!((seen(0), seen(1)), ((1, 3, 0, 2), (1, 2, 1, 1)));
    let administer = |at: usize| bus.broker.view(ids[at]).check_administer("bridge-expose").is_ok();
    assert!(!administer(0) && !administer(1));
}

#[test]
fn refusals_are_noted_with_who_was_refused() {
    let mut bus = with_rules(&["allow anyone call >"], &[7]);
    assert!(bus.broker.poll_refusal().is_none());
    ask(&mut bus, 0, Kind::REGISTER, &register("a.b")).unwrap_err();
    let refusal = bus.broker.poll_refusal().expect("a refusal");
    assert!(matches!(refusal.who.identity, Identity::Local { uid: 7, .. }));
    assert!(
        refusal.message.contains("own a.b") && refusal.message.contains("no rule"),
        "{}",
        refusal.message
    );
    assert!(bus.broker.poll_refusal().is_none());
}
