//! Frames that say something else than what they are.

use ipc_core::ErrorCode;
use ipc_core::id::Handle;
use ipc_core::wire::codec::{List, Text};
use ipc_core::wire::message::{
    Envelope, MethodInfo, OnSlow, OpenTopic, Register, RegisterMode, Resolve, Subscribe, Unsubscribe,
    UnwatchNames, WatchNames,
};
use ipc_core::wire::{HEADER_BYTES, Header, Kind};
use ipc_tests::daemon::Daemon;
use ipc_tests::raw::{RawPeer, frame, greeting};
use ipc_tests::rng::amount;
use ipc_tests::services::Witness;

/// One frame of each kind that a client may send, after the hello.
fn every_frame() -> Vec<(&'static str, Vec<u8>)> {
    let header = |kind| Header::new(kind).with_correlation(5);
    let handle = Handle { index: 3, generation: 1 };
    let methods = List(vec![MethodInfo { name: "m".into(), description: "does".into() }]);
    let mode = RegisterMode::Group;
    let traced = Envelope { traceparent: Some(Text::from("00-ab-cd-01")), extensions: List::default() };
    let subscribe = Subscribe {
        filter: "a.>".into(),
        on_slow: OnSlow::DropOldest,
        queue_events_max: 7,
        queue_bytes_max: 7000,
    };
    vec![
        ("resolve", {
            let resolve = Resolve { service: "test.witness".into(), method: "echo".into() };
            frame(header(Kind::RESOLVE).with_handle(handle), &resolve, &[])
        }),
        ("register", {
            let register = Register { service: "lies.b".into(), mode, queue: true, methods };
            frame(header(Kind::REGISTER), &register, &[])
        }),
        ("watch", frame(header(Kind::WATCH_NAMES), &WatchNames { filter: "a.*".into() }, &[])),
        ("unwatch", frame(header(Kind::UNWATCH_NAMES), &UnwatchNames { watch: 9 }, &[])),
        ("open_topic", {
            frame(header(Kind::OPEN_TOPIC).with_handle(handle), &OpenTopic { topic: "a.b".into() }, &[])
        }),
        ("subscribe", frame(header(Kind::SUBSCRIBE), &subscribe, &[])),
        ("unsubscribe", frame(header(Kind::UNSUBSCRIBE), &Unsubscribe { subscription: 9 }, &[])),
        ("call", frame(header(Kind::CALL).with_handle(handle), &traced, b"payload")),
        ("publish", frame(header(Kind::PUBLISH).with_handle(handle), &traced, b"payload")),
        ("reply", frame(header(Kind::REPLY), &traced, b"payload")),
        ("cancel", frame(header(Kind::CANCEL), &(), &[])),
        ("release", frame(header(Kind::RELEASE).with_handle(handle), &(), &[])),
        ("unregister", frame(header(Kind::UNREGISTER).with_handle(handle), &(), &[])),
        ("ping", frame(header(Kind::PING), &(), b"ping")),
    ]
}

/// Sends `bytes` behind a hello, sees what is answered first, and is gone.
fn send(daemon: &Daemon, bytes: &[u8]) {
    let mut peer = RawPeer::connect(&daemon.socket());
    let mut all = greeting("liar");
    all.extend(bytes);
    peer.try_send(&all);
    assert!(peer.receive().is_some(), "the hello at least has an answer");
}

fn memory_kib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("every process has some");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn lies_in_every_byte_of_every_frame_hurt_nobody() {
    let daemon = Daemon::start();
    let witness = Witness::start(&daemon);
    witness.goes_on();
    let before = memory_kib(&daemon);
    // Small and large numbers, and the marks of longer ones in the encoding of the envelope.
    let lies: &[u8] =
        amount(&[0x00, 0x7f, 0xfc, 0xfd, 0xff], &[0, 1, 0x7f, 0x80, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff]);
    for (kind, bytes) in every_frame() {
        // The payload says nothing that the daemon reads.
        for at in 0..bytes.len().min(HEADER_BYTES + 40) {
            for lie in lies.iter().filter(|lie| **lie != bytes[at]) {
                let mut lying = bytes.clone();
                lying[at] = *lie;
                send(&daemon, &lying);
            }
        }
        witness.goes_on();
        let after = memory_kib(&daemon);
        assert!(after < before + 20_000, "{kind}: from {before} to {after} KiB");
    }
}

#[test]
fn a_length_over_the_limit_is_refused_before_anything_of_it_is_there() {
    let daemon = Daemon::start();
    let (_, welcome) = RawPeer::greeted(&daemon.socket());
    let before = memory_kib(&daemon);
    let mut liars = Vec::new();
    for length in [welcome.payload_max_bytes + 1, 1 << 30, u32::MAX] {
        let (mut peer, _) = RawPeer::greeted(&daemon.socket());
        let header = Header { payload_len: length, ..Header::new(Kind::CALL).with_correlation(1) };
        peer.send(&header.to_bytes());
        let (code, message) = peer.receive().expect("a reason").close_reason();
        assert!([ErrorCode::ProtocolViolation, ErrorCode::PayloadTooLarge].contains(&code), "{message}");
        assert!(peer.receive().is_none());
    }
    // As large as allowed, and never sent: a promise takes no memory.
    for _ in 0..64 {
        let (mut peer, _) = RawPeer::greeted(&daemon.socket());
        let payload_len = welcome.payload_max_bytes;
        let header = Header { payload_len, ..Header::new(Kind::CALL).with_correlation(1) };
        peer.send(&header.to_bytes());
        peer.send(b"and no more");
        liars.push(peer);
    }
    RawPeer::greeted(&daemon.socket()).0.ping(1);
    let after = memory_kib(&daemon);
    assert!(after < before + 20_000, "from {before} to {after} KiB");
}

#[test]
fn an_unknown_operation_is_refused_and_the_connection_stays() {
    let daemon = Daemon::start();
    let (mut peer, _) = RawPeer::greeted(&daemon.socket());
    for kind in (0..=u8::MAX).map(Kind).filter(|kind| !Kind::ALL.contains(kind)) {
        peer.send(&frame(Header::new(kind).with_correlation(7), &(), b"what"));
        let answer = peer.receive().expect("an answer");
        assert_eq!((answer.header.kind, answer.header.correlation), (Kind::DONE, 7), "{kind:?}");
        assert_eq!(answer.error().expect("a refusal").code, ErrorCode::Unsupported);
    }
    peer.ping(8);
}
