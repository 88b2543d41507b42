//! What the daemon refuses, what it ignores, and what ends a connection: section 16 of PROTOCOL.md, line by line.

use core::time::Duration;

use ipc_core::error::ErrorCode;
use ipc_core::id::Handle;
use ipc_core::identity::Identity;
use ipc_core::limits::{DEADLINE_MAX, Limits, PING_PAYLOAD_MAX_BYTES, PROGRAM_NAME_MAX_BYTES};
use ipc_core::wire::codec::List;
use ipc_core::wire::message::{
    Close, ErrorBody, Hello, MethodInfo, OnSlow, OpenTopic, Register, RegisterMode, Resolve, Subscribe,
    Unsubscribe, UnwatchNames, WatchNames, Welcome,
};
use ipc_core::wire::{FEATURES, Flags, Header, Kind, PREAMBLE};
use ipc_daemon::broker::{Access, Side, Transport, refusal_frame};
use ipc_tests::memory_bus::{MemoryBus, Received};
use ipc_tests::raw::{frame, greeting};

/// What becomes of what a client sends.
enum Judgement {
    /// The connection is closed with `protocol_violation` and a message that holds this.
    Violation(&'static str),
    /// It is answered with this kind of frame and this error.
    Refusal(Kind, ErrorCode),
    /// Nothing happens.
    Silence,
}

use Judgement::{Refusal, Silence, Violation};

const SAID: u64 = 77;
const PING: u64 = 999;

fn hello() -> Hello {
    Hello { version_min: 1, version_max: 1, features: 0, name: "test".into() }
}

/// A frame whose envelope is given as bytes, with lengths that are true.
fn raw(header: Header, envelope: &[u8], payload: &[u8]) -> Vec<u8> {
    let (envelope_len, payload_len) = (envelope.len() as u16, payload.len() as u32);
    let header = Header { envelope_len, payload_len, ..header };
    [&header.to_bytes(), envelope, payload].concat()
}

fn header(kind: Kind) -> Header {
    Header::new(kind).with_correlation(SAID)
}

fn with_handle(kind: Kind, index: u32) -> Header {
    header(kind).with_handle(Handle { index, generation: 1 })
}

/// A bus with one client, which has said hello.
fn greeted() -> MemoryBus {
    let mut bus = connected();
    bus.send(0, &greeting("test"));
    assert_eq!(read(&mut bus).len(), 1);
    bus
}

/// A bus with one client, which has said nothing.
fn connected() -> MemoryBus {
    let mut bus = MemoryBus::new(Limits::default());
    assert_eq!(bus.connect(1000), 0);
    bus
}

/// What the client has received since it was asked last.
fn read(bus: &mut MemoryBus) -> Vec<Received> {
    core::mem::take(&mut bus.client(0).inbox)
}

fn close_of(frames: &[Received]) -> Close {
    let last = frames.last().expect("there is a last frame");
    assert_eq!(last.header.kind, Kind::CLOSE);
    last.decode()
}

/// A client that has sent `before` sends `bytes`, then a ping.
fn judge(what: &str, before: &[u8], bytes: &[u8], judgement: &Judgement) {
    let mut bus = greeted();
    bus.send(0, before);
    read(&mut bus);
    assert!(!bus.client(0).is_closed, "{what}: closed before it began");
    bus.send(0, &[bytes, &raw(Header::new(Kind::PING).with_correlation(PING), b"", b"")].concat());
    let mut frames = read(&mut bus);
    let last = frames.pop().unwrap_or_else(|| panic!("{what}: no answer at all"));
    assert_eq!(bus.client(0).is_closed, matches!(judgement, Violation(_)), "{what}: {last:?}");
    if let Violation(why) = judgement {
        let Close { code, message } = close_of(&[last]);
        assert_eq!(code, ErrorCode::ProtocolViolation.number(), "{what}");
        assert!(message.0.contains(why), "{what}: {}", message.0);
        return;
    }
    assert_eq!((last.header.kind, last.header.correlation), (Kind::PONG, PING), "{what}");
    match (judgement, &frames[..]) {
        (Refusal(kind, code), [answer]) => {
            assert_eq!((answer.header.kind, answer.header.correlation), (*kind, SAID), "{what}");
            assert!(answer.header.flags.contains(Flags::ERROR), "{what}: {answer:?}");
            let body: ErrorBody = answer.decode();
            assert_eq!(body.code, code.number(), "{what}: {}", body.message.0);
            assert_eq!(body.resource.is_some(), body.limit.is_some(), "{what}");
        }
        (Silence, []) => {}
        _ => panic!("{what}: {frames:?}"),
    }
}

fn judge_all(cases: &[(&str, Vec<u8>, Judgement)]) {
    for (what, bytes, judgement) in cases {
        judge(what, b"", bytes, judgement);
    }
}

/// A ping whose header has `value` at `at`.
fn patched(at: usize, value: u8) -> Vec<u8> {
    let mut bytes = raw(header(Kind::PING), b"", b"");
    bytes[at] = value;
    bytes
}

fn register(service: &str, method: &str) -> Vec<u8> {
    let methods = List(vec![MethodInfo { name: method.into(), description: "".into() }]);
    let register = Register { service: service.into(), mode: RegisterMode::Exclusive, queue: false, methods };
    frame(header(Kind::REGISTER), &register, b"")
}

fn subscribe(filter: &str, queue_events_max: u32, queue_bytes_max: u32) -> Vec<u8> {
    let on_slow = OnSlow::DropOldest;
    let subscribe = Subscribe { filter: filter.into(), on_slow, queue_events_max, queue_bytes_max };
    frame(header(Kind::SUBSCRIBE), &subscribe, b"")
}

fn watch(filter: &str) -> Vec<u8> {
    frame(header(Kind::WATCH_NAMES), &WatchNames { filter: filter.into() }, b"")
}

#[test]
fn headers_that_break_a_rule_are_violations() {
    let late = Header { deadline_us: DEADLINE_MAX.as_micros() as u32 + 1, ..header(Kind::PING) };
    let mut large = raw(header(Kind::CALL), b"", b"");
    large[4..8].copy_from_slice(&(Limits::default().payload_max_bytes + 1).to_le_bytes());
    judge_all(&[
        ("an undefined flag", patched(1, 4), Violation("flags 0x04")),
        ("an error that is no reply", patched(1, 1), Violation("flags 0x01")),
        ("a payload kind", patched(2, 4), Violation("payload kind 4")),
        ("descriptors", patched(3, 1), Violation("1 descriptors")),
        ("a deadline over one hour", raw(late, b"", b""), Violation("over one hour")),
        ("a payload over the limit", large, Violation("over the limit of 16777216")),
    ]);
}

#[test]
fn frames_that_do_not_belong_to_a_client_are_violations() {
    judge_all(&[(
        "a second hello",
        frame(header(Kind::HELLO), &hello(), b""),
        Violation("0x01 does not belong"),
    )]);
    for kind in [
        Kind::WELCOME,
        Kind::PONG,
        Kind::EVENT,
        Kind::GAP,
        Kind::NAME_CHANGED,
        Kind::ACQUIRED,
        Kind::DONE,
        Kind::PEER_ANNOUNCED,
        Kind::TOPIC_ANNOUNCED,
        Kind::FORGET,
    ] {
        judge(kind.name(), b"", &raw(header(kind), b"", b""), &Violation("does not belong"));
    }
}

#[test]
fn malformed_operations_are_violations() {
    let resolve = Resolve { service: "a".into(), method: "b".into() };
    judge_all(&[
        (
            "a payload where there is none",
            frame(header(Kind::RESOLVE), &resolve, b"x"),
            Violation("no payload"),
        ),
        (
            "bytes behind the last field",
            raw(header(Kind::RESOLVE), &[1, b'a', 1, b'b', 0], b""),
            Violation("behind"),
        ),
        ("an end too early", raw(header(Kind::RESOLVE), &[1, b'a', 2, b'b'], b""), Violation("too early")),
        ("text that is not UTF-8", raw(header(Kind::OPEN_TOPIC), &[1, 0xff], b""), Violation("UTF-8")),
        ("an undefined choice", raw(header(Kind::SUBSCRIBE), &[1, b'a', 1, 0, 0], b""), Violation("variant")),
        (
            "too many methods",
            raw(header(Kind::REGISTER), &[1, b'a', 0, 0, 251, 1, 1], b""),
            Violation("too long"),
        ),
    ]);
    for kind in [Kind::PING, Kind::CANCEL, Kind::RELEASE, Kind::UNREGISTER] {
        judge(kind.name(), b"", &raw(header(kind), &[0], b""), &Violation("behind its last field"));
    }
}

#[test]
fn what_is_not_there_or_not_valid_is_refused() {
    let resolve = |service: &str, method: &str| {
        frame(with_handle(Kind::RESOLVE, 0), &Resolve { service: service.into(), method: method.into() }, b"")
    };
    let open = |topic: &str| frame(with_handle(Kind::OPEN_TOPIC, 0), &OpenTopic { topic: topic.into() }, b"");
    let done = |code| Refusal(Kind::DONE, code);
    judge_all(&[
        ("no such service", resolve("a.b", "c"), done(ErrorCode::NoSuchService)),
        ("a service that is no name", resolve("a..b", "c"), done(ErrorCode::InvalidArgument)),
        ("a method that is no name", resolve("a.b", "c.d"), done(ErrorCode::InvalidArgument)),
        ("a topic with a wildcard", open("a.*"), done(ErrorCode::InvalidArgument)),
        ("the daemon's topic", open("ipc.news"), done(ErrorCode::PermissionDenied)),
        ("the daemon's name", register("ipc.mine", "m"), done(ErrorCode::PermissionDenied)),
        ("a filter that is none", subscribe("a.>.b", 0, 0), done(ErrorCode::InvalidArgument)),
        ("a watch that is no filter", watch(""), done(ErrorCode::InvalidArgument)),
        ("no such registration", raw(header(Kind::UNREGISTER), b"", b""), done(ErrorCode::InvalidArgument)),
        (
            "no such subscription",
            frame(header(Kind::UNSUBSCRIBE), &Unsubscribe { subscription: 1 }, b""),
            done(ErrorCode::InvalidArgument),
        ),
        (
            "no such watch",
            frame(header(Kind::UNWATCH_NAMES), &UnwatchNames { watch: 1 }, b""),
            done(ErrorCode::InvalidArgument),
        ),
        ("a kind of later", raw(header(Kind(0x7f)), &[1, 2, 3], b"later"), done(ErrorCode::Unsupported)),
        (
            "a kind of later with an error",
            raw(Header { flags: Flags::ERROR, ..header(Kind(0x7f)) }, b"", b""),
            done(ErrorCode::Unsupported),
        ),
    ]);
    judge("twice the same name", &register("a.b", "m"), &register("a.b", "m"), &done(ErrorCode::Conflict));
    let again = subscribe("a.*", 0, 0);
    judge("twice the same subscription", &again, &again, &done(ErrorCode::Conflict));
    judge("twice the same watch", &watch("b.*"), &watch("a.*"), &done(ErrorCode::Conflict));
}

#[test]
fn what_is_over_a_limit_is_refused() {
    let limits = Limits::default();
    let over = vec![7; PING_PAYLOAD_MAX_BYTES + 1];
    let handle = with_handle(Kind::OPEN_TOPIC, limits.handles_per_connection_max);
    let quota = || Refusal(Kind::DONE, ErrorCode::QuotaExceeded);
    judge_all(&[
        (
            "a large ping",
            raw(header(Kind::PING), b"", &over),
            Refusal(Kind::DONE, ErrorCode::PayloadTooLarge),
        ),
        ("a handle over the limit", frame(handle, &OpenTopic { topic: "a".into() }, b""), quota()),
        ("too many events", subscribe("a", limits.queue_events_per_subscription_max + 1, 0), quota()),
        ("too many bytes", subscribe("a", 0, limits.queue_bytes_per_subscription_max + 1), quota()),
    ]);
}

#[test]
fn handles_that_stand_for_nothing_are_stale() {
    let call = raw(with_handle(Kind::CALL, 0), b"", b"x");
    let publish = raw(with_handle(Kind::PUBLISH, 0), b"", b"x");
    let topic = frame(with_handle(Kind::OPEN_TOPIC, 0), &OpenTopic { topic: "a".into() }, b"");
    let missing =
        frame(with_handle(Kind::RESOLVE, 0), &Resolve { service: "a".into(), method: "m".into() }, b"");
    let release = raw(with_handle(Kind::RELEASE, 0), b"", b"");
    let other = raw(header(Kind::PUBLISH).with_handle(Handle { index: 0, generation: 2 }), b"", b"");
    let stale = |kind| Refusal(kind, ErrorCode::StaleHandle);
    judge("call: not bound", b"", &call, &stale(Kind::REPLY));
    judge("publish: not bound", b"", &publish, &stale(Kind::DONE));
    judge("call: a topic", &topic, &call, &stale(Kind::REPLY));
    judge("publish: another generation", &topic, &other, &stale(Kind::DONE));
    judge("publish: released", &[&topic[..], &release].concat(), &publish, &stale(Kind::DONE));
    judge("call: binding failed", &missing, &call, &Refusal(Kind::REPLY, ErrorCode::NoSuchService));
    judge(
        "call: binding failed, then released",
        &[&missing[..], &release].concat(),
        &call,
        &stale(Kind::REPLY),
    );
}

#[test]
fn what_asks_for_nothing_gets_nothing() {
    let oneway = |kind| raw(Header { flags: Flags::ONEWAY, ..with_handle(kind, 0) }, b"", b"x");
    judge_all(&[
        ("a kind of later without a correlation", raw(Header::new(Kind(0x7f)), b"", b""), Silence),
        ("a reply to nothing", raw(header(Kind::REPLY), b"", b"x"), Silence),
        ("a cancel of nothing", raw(header(Kind::CANCEL), b"", b""), Silence),
        ("a release of nothing", raw(with_handle(Kind::RELEASE, 3), b"", b""), Silence),
        ("a one-way call of nothing", oneway(Kind::CALL), Silence),
        ("a one-way publish on nothing", oneway(Kind::PUBLISH), Silence),
    ]);
}

#[test]
fn the_first_frame_is_a_hello() {
    let first = |header: Header, hello: &Hello, payload: &[u8]| {
        [&PREAMBLE[..], &frame(header, hello, payload)].concat()
    };
    let plain = Header::new(Kind::HELLO);
    let named = |length: usize| Hello { name: "n".repeat(length).as_str().into(), ..hello() };
    let violation = ErrorCode::ProtocolViolation;
    let mut large = greeting("test");
    large[PREAMBLE.len() + 4..][..4].copy_from_slice(&4096u32.to_le_bytes());
    for (what, bytes, code, why) in [
        ("a preamble of others", b"GET /".to_vec(), violation, "first bytes"),
        ("another frame", [&PREAMBLE[..], &patched(0, 8)].concat(), violation, "does not belong here"),
        ("a payload", first(plain, &hello(), b"x"), violation, "no payload"),
        ("a flag", first(Header { flags: Flags::ONEWAY, ..plain }, &hello(), b""), violation, "flags 0x02"),
        ("a long name", first(plain, &named(PROGRAM_NAME_MAX_BYTES + 1), b""), violation, "64 bytes"),
        ("a long frame", large, violation, "before the hello is over the limit of 4096"),
        (
            "a version of later",
            first(plain, &Hello { version_min: 2, version_max: 9, ..hello() }, b""),
            ErrorCode::UnsupportedVersion,
            "versions 1 to 1",
        ),
    ] {
        let mut bus = connected();
        bus.send(0, &bytes);
        assert!(bus.client(0).is_closed, "{what}");
        let frames = read(&mut bus);
        let Close { code: said, message } = close_of(&frames);
        assert_eq!((frames.len(), said), (1, code.number()), "{what}: {}", message.0);
        assert!(message.0.contains(why), "{what}: {}", message.0);
    }
    for longest in [1, PROGRAM_NAME_MAX_BYTES] {
        let mut bus = connected();
        let offered = Hello { version_min: 0, version_max: 9, features: u64::MAX, ..named(longest) };
        bus.send(0, &first(plain.with_correlation(5), &offered, b""));
        let welcome = &read(&mut bus)[0];
        let Welcome { version, features, .. } = welcome.decode();
        assert_eq!((welcome.header.correlation, version, features), (5, 1, FEATURES));
    }
}

#[test]
fn silence_is_closed_and_newcomers_are_told_why_they_may_not_come_in() {
    let mut bus = MemoryBus::new(Limits { connections_per_uid_max: 1, ..Limits::default() });
    bus.connect(1000);
    bus.wait(Duration::from_millis(10_000 - 1));
    assert!(!bus.client(0).is_closed);
    let again = Identity::Local { uid: 1000, gid: 1, pid: 1 };
    let refused =
        bus.broker.connect(bus.now, again.clone(), Transport::UnixStream, Access::Granted).unwrap_err();
    assert_eq!(refused.code, ErrorCode::QuotaExceeded);
    assert_eq!(refusal_frame(&refused)[0], Kind::CLOSE.0);
    bus.wait(Duration::from_millis(1));
    assert!(bus.client(0).is_closed);
    assert_eq!(close_of(&read(&mut bus)).code, ErrorCode::Unauthenticated.number());
    bus.broker.begin_drain();
    let refused = bus.broker.connect(bus.now, again, Transport::UnixStream, Access::Granted).unwrap_err();
    assert_eq!(refused.code, ErrorCode::ShuttingDown);
}

/// The network has less time: little for the first byte, and little from then on for the whole hello.
#[test]
fn a_connection_over_tcp_has_its_own_times_and_its_own_room() {
    let limits = Limits { tcp_connections_max: 2, unauthenticated_per_uid_max: 2, ..Limits::default() };
    let (first, hello) =
        (u64::from(limits.tcp_first_byte_timeout_ms), u64::from(limits.tcp_hello_timeout_ms));
    let mut bus = MemoryBus::new(limits);
    let anonymous = || Identity::Remote { principal: "anonymous".into(), address: "127.0.0.1:1".into() };
    let silent = bus.connect_as(anonymous());
    assert!(bus.broker.has_greeting_room(Side::Remote));
    let slow = bus.connect_as(anonymous());
    assert!(!bus.broker.has_greeting_room(Side::Remote) && bus.broker.has_greeting_room(Side::Local));
    let refused = bus.broker.connect(bus.now, anonymous(), Transport::Tcp, Access::Granted).unwrap_err();
    assert_eq!(refused.detail.unwrap().resource.as_deref(), Some("tcp_connections_max"));
    let key = bus.client(slow).key();
    bus.broker.handle_first_bytes(key);
    bus.wait(Duration::from_millis(first - 1));
    assert!(!bus.client(silent).is_closed);
    bus.wait(Duration::from_millis(1));
    assert!(bus.client(silent).is_closed && !bus.client(slow).is_closed);
    bus.broker.handle_first_bytes(key);
    bus.wait(Duration::from_millis(hello - first - 1));
    assert!(!bus.client(slow).is_closed);
    bus.wait(Duration::from_millis(1));
    assert!(bus.client(slow).is_closed, "counted from when it was accepted");
    for client in [silent, slow] {
        let key = bus.client(client).key();
        bus.broker.disconnect(key);
    }
    for _ in 0..2 {
        bus.connect_as(anonymous());
    }
}

/// The envelope of a call comes from another client; the daemon passes it on whatever it holds.
#[test]
fn what_one_client_says_to_another_is_passed_on_unread() {
    let mut bus = greeted();
    bus.send(0, &register("a.b", "m"));
    let resolve = Resolve { service: "a.b".into(), method: "m".into() };
    bus.send(0, &frame(with_handle(Kind::RESOLVE, 0), &resolve, b""));
    read(&mut bus);
    let call = Header { deadline_us: 5, flags: Flags::NONE, ..with_handle(Kind::CALL, 0) };
    bus.send(0, &raw(call, &[0xff; 9], b"payload"));
    let frames = read(&mut bus);
    let arrived = frames.last().expect("the call arrived");
    assert_eq!((arrived.header.kind, &arrived.envelope[..]), (Kind::CALL, &[0xff; 9][..]));
    let failed = Header { flags: Flags::ERROR, ..Header::new(Kind::REPLY) };
    bus.send(0, &raw(failed.with_correlation(arrived.header.correlation), &[0xfe; 3], b""));
    let frames = read(&mut bus);
    let reply = frames.last().expect("the reply arrived");
    assert_eq!((reply.header.kind, reply.header.correlation), (Kind::REPLY, SAID));
    assert!(reply.header.flags.contains(Flags::ERROR) && reply.header.sender != 0);
    assert_eq!(reply.envelope, [0xfe; 3]);
}
