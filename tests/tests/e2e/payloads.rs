//! Payloads of every size pass unchanged, in both directions, however they are cut on their way.

use ipc_core::ErrorCode;
use ipc_core::id::Handle;
use ipc_core::limits::Limits;
use ipc_core::wire::{Header, Kind};
use ipc_tests::daemon::Daemon;
use ipc_tests::raw::{RawFrame, RawPeer, frame, open_call};
use ipc_tests::rng::Rng;

/// What [`open_call`] has bound.
const METHOD: Handle = Handle { index: 0, generation: 1 };

fn next(peer: &mut RawPeer, kind: Kind) -> RawFrame {
    loop {
        let frame = peer.receive().expect("a frame");
        if frame.header.kind == kind {
            return frame;
        }
        assert_eq!(frame.header.kind, Kind::PEER_ANNOUNCED, "{:?}", frame.header);
    }
}

#[test]
fn payloads_of_every_size_pass_unchanged() {
    let daemon = Daemon::start();
    let (mut service, mut caller) = open_call(&daemon.socket());
    let mut rng = Rng::new(1);
    let largest = Limits::default().payload_max_bytes as usize;
    let sizes = [0, 1, 4096, 8191, 8192, 8193, 65_536, 262_104, 262_144, 262_145, 1 << 20, largest];
    for (round, size) in sizes.into_iter().enumerate() {
        let payload = rng.bytes(size);
        let header = Header::new(Kind::CALL).with_handle(METHOD).with_correlation(10 + round as u64);
        let call = frame(header, &(), &payload);
        // Cut where it hurts: in the header, right behind it, in the middle.
        let cut = rng.index(call.len().min(100)) + 1;
        caller.send(&call[..cut]);
        caller.send(&call[cut..]);
        let called = next(&mut service, Kind::CALL);
        assert!(called.body == payload, "{size} bytes arrived as {}", called.body.len());
        let reply = Header::new(Kind::REPLY).with_correlation(called.header.correlation);
        service.send(&frame(reply, &(), &payload));
        let replied = next(&mut caller, Kind::REPLY);
        assert_eq!(replied.header.correlation, 10 + round as u64);
        assert!(replied.body == payload, "{size} bytes came back as {}", replied.body.len());
    }
}

#[test]
fn a_payload_over_the_limit_is_refused_before_it_is_there() {
    let daemon = Daemon::start();
    let (mut peer, welcome) = RawPeer::greeted(&daemon.socket());
    let header = Header {
        payload_len: welcome.payload_max_bytes + 1,
        ..Header::new(Kind::CALL).with_handle(METHOD).with_correlation(1)
    };
    peer.send(&header.to_bytes());
    let (code, message) = peer.receive().expect("a reason").close_reason();
    assert_eq!(code, ErrorCode::ProtocolViolation);
    assert!(message.contains(&welcome.payload_max_bytes.to_string()), "{message}");
}

#[test]
fn calls_in_one_write_and_byte_by_byte_are_the_same() {
    let daemon = Daemon::start();
    let (mut service, mut caller) = open_call(&daemon.socket());
    let calls: Vec<u8> = (0..50u64)
        .flat_map(|number| {
            let header = Header::new(Kind::CALL).with_handle(METHOD).with_correlation(100 + number);
            frame(header, &(), number.to_string().as_bytes())
        })
        .collect();
    caller.send(&calls);
    for number in 0..50 {
        assert_eq!(next(&mut service, Kind::CALL).body, number.to_string().as_bytes());
    }
    let (mut service, mut caller) = {
        drop((service, caller));
        open_call(&daemon.socket())
    };
    for byte in calls.chunks(1) {
        caller.send(byte);
    }
    for number in 0..50 {
        assert_eq!(next(&mut service, Kind::CALL).body, number.to_string().as_bytes());
    }
}
