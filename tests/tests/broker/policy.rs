//! What the policy lets a connection do, asked in frames.

use ipc_core::error::ErrorCode;
use ipc_core::id::Handle;
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::wire::codec::{List, Wire};
use ipc_core::wire::message::{
    ErrorBody, MethodInfo, OnSlow, OpenTopic, Register, RegisterMode, Resolve, Subscribe, WatchNames,
};
use ipc_core::wire::{Flags, Header, Kind};
use ipc_daemon::broker::{Grant, Policy};
use ipc_tests::memory_bus::MemoryBus;
use ipc_tests::raw::greeting;

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
    let mut bus = MemoryBus::with_policy(Limits::default(), Policy::new(allow));
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
    bus.broker.set_policy(Policy::new(vec![Grant::parse("call a.b").unwrap()]));
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
