//! Whoever comes to the socket speaking something else is told so where that is possible, and closed within a second.

use std::time::{Duration, Instant};

use ipc_core::ErrorCode;
use ipc_core::wire::{Header, Kind, PREAMBLE};
use ipc_tests::daemon::{Daemon, Options};
use ipc_tests::raw::{RawPeer, frame, greeting};
use ipc_tests::rng::for_each_seed;

/// Everything the daemon says until it closes the connection, which it must do soon.
fn last_words(peer: &mut RawPeer) -> Vec<u8> {
    let start = Instant::now();
    let mut words = Vec::new();
    loop {
        let bytes = peer.receive_bytes();
        if bytes.is_empty() {
            break;
        }
        words.extend(bytes);
    }
    assert!(start.elapsed() < Duration::from_secs(1), "closed after {:?}", start.elapsed());
    words
}

#[test]
fn http_and_text_are_answered_in_kind() {
    let daemon = Daemon::start();
    for (said, expected) in [
        (&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], "HTTP/1.1 400 Bad Request\r\n"),
        (b"P", "HTTP/1.1 400 Bad Request\r\n"),
        (b"hello?\n", "This is the socket of the ipc message bus"),
        (b"{\"id\":1}\n", "This is the socket of the ipc message bus"),
    ] {
        let mut peer = RawPeer::connect(&daemon.socket());
        peer.send(said);
        let answer = String::from_utf8(last_words(&mut peer)).unwrap();
        assert!(answer.starts_with(expected), "{said:?} is answered {answer:?}");
    }
    RawPeer::greeted(&daemon.socket()).0.ping(1);
}

#[test]
fn binary_strangers_get_a_close_frame() {
    let daemon = Daemon::start();
    let hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    for said in [&hello[..], &[0], &[0x89, 0], &[0x89, 0x49, 0x50, 0x44]] {
        let mut peer = RawPeer::connect(&daemon.socket());
        peer.send(said);
        let reason = peer.receive().expect("a reason").close_reason();
        assert_eq!(reason.0, ErrorCode::ProtocolViolation, "{said:?}");
        assert!(last_words(&mut peer).is_empty());
    }
}

#[test]
fn noise_never_hurts_the_daemon() {
    let daemon = Daemon::start();
    let (mut witness, _) = RawPeer::greeted(&daemon.socket());
    for_each_seed(20, 500, |seed, mut rng| {
        let mut noise = if rng.chance(1, 2) { greeting("noise") } else { Vec::new() };
        let length = rng.length(20_000);
        let mut tail = rng.bytes(length);
        if rng.chance(1, 2) {
            tail = frame(Header::new(Kind::PING).with_correlation(seed), &(), &tail[..length.min(4096)]);
            rng.mutate(&mut tail);
        }
        noise.extend(tail);
        let mut peer = RawPeer::connect(&daemon.socket());
        peer.try_send(&noise);
        peer.stream().shutdown(std::net::Shutdown::Write).unwrap();
        // Whatever is answered, it ends.
        while !peer.receive_bytes().is_empty() {}
        witness.ping(seed);
    });
}

#[test]
fn whoever_says_nothing_is_closed_when_the_time_for_the_hello_is_up() {
    let daemon = Daemon::start_with(&Options::with_config("[limits]\nhello_timeout_ms = 50\n"));
    for said in [&b""[..], &PREAMBLE[..2], &PREAMBLE, &greeting("slow")[..10]] {
        let mut peer = RawPeer::connect(&daemon.socket());
        peer.send(said);
        let reason = peer.receive().expect("a reason").close_reason();
        assert_eq!(reason.0, ErrorCode::Unauthenticated, "{said:?}: {reason:?}");
        assert!(last_words(&mut peer).is_empty());
    }
}

#[test]
fn a_frame_split_at_every_byte_is_understood() {
    let daemon = Daemon::start();
    let mut bytes = greeting("split");
    bytes.extend(frame(Header::new(Kind::PING).with_correlation(7), &(), b"ping"));
    for at in 1..bytes.len() {
        let mut peer = RawPeer::connect(&daemon.socket());
        peer.send(&bytes[..at]);
        // Another connection's round trip: the first part has been read by then.
        RawPeer::greeted(&daemon.socket()).0.ping(1);
        peer.send(&bytes[at..]);
        assert_eq!(peer.receive().unwrap().header.kind, Kind::WELCOME, "split at {at}");
        assert_eq!(peer.receive().unwrap().header.kind, Kind::PONG, "split at {at}");
    }
}

#[test]
fn the_end_of_input_still_leaves_time_for_what_is_due() {
    let daemon = Daemon::start();
    let mut peer = RawPeer::connect(&daemon.socket());
    let mut bytes = greeting("half");
    bytes.extend(frame(Header::new(Kind::PING).with_correlation(7), &(), b""));
    peer.send(&bytes);
    peer.stream().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(peer.receive().unwrap().header.kind, Kind::WELCOME);
    assert_eq!(peer.receive().unwrap().header.kind, Kind::PONG);
    assert!(peer.receive().is_none());
}
