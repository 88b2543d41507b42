//! When something runs out: descriptors, room in a socket, patience.

use std::io::Write;

use ipc_core::ErrorCode;
use ipc_core::wire::{Header, Kind};
use ipc_tests::daemon::{Daemon, Options};
use ipc_tests::raw::{RawPeer, frame, greeting};

#[test]
fn a_full_file_table_refuses_and_recovers() {
    let options = Options {
        config: Some("[limits]\nconnections_max = 1000\n".to_owned()),
        ..Options::with_script("ulimit -n 40; exec \"$@\"")
    };
    let daemon = Daemon::start_with(&options);
    let (mut first, _) = RawPeer::greeted(&daemon.socket());
    let mut held = Vec::new();
    let mut refused = None;
    for _ in 0..64 {
        let mut peer = RawPeer::connect(&daemon.socket());
        peer.try_send(&greeting("many"));
        let Some(answer) = peer.receive() else { continue };
        if answer.header.kind == Kind::CLOSE {
            refused = Some(answer.close_reason());
            break;
        }
        held.push(peer);
    }
    let (code, message) = refused.expect("64 connections do not fit into 40 descriptors");
    assert_eq!(code, ErrorCode::QuotaExceeded, "{message}");
    assert!(!held.is_empty());
    first.ping(1);
    drop(held);
    first.ping(2);
    RawPeer::greeted(&daemon.socket()).0.ping(3);
}

#[test]
fn one_connection_more_than_the_limit_is_refused_with_its_name() {
    // One of them is the daemon's own.
    let daemon = Daemon::start_with(&Options::with_config("[limits]\nconnections_max = 3\n"));
    let mut held: Vec<RawPeer> = (0..2).map(|_| RawPeer::greeted(&daemon.socket()).0).collect();
    let mut third = RawPeer::connect(&daemon.socket());
    let (code, message) = third.receive().expect("a reason").close_reason();
    assert_eq!(code, ErrorCode::QuotaExceeded);
    assert!(message.contains("connections_max"), "{message}");
    held[0].ping(1);
    drop(held.pop());
    // The place is free as soon as the daemon has seen the end, which comes before anything sent later.
    held[0].ping(2);
    RawPeer::greeted(&daemon.socket()).0.ping(3);
}

#[test]
fn whoever_does_not_read_gets_everything_once_it_does() {
    let daemon = Daemon::start();
    let (mut peer, _) = RawPeer::greeted(&daemon.socket());
    let (mut witness, _) = RawPeer::greeted(&daemon.socket());
    // More than a socket holds, less than the daemon queues for one connection.
    let count = 500u64;
    let payload = vec![7; 4096];
    let mut stream = peer.stream().try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for correlation in 0..count {
            let ping = frame(Header::new(Kind::PING).with_correlation(correlation), &(), &payload);
            stream.write_all(&ping).unwrap();
        }
    });
    sender.join().unwrap();
    witness.ping(1);
    for correlation in 0..count {
        let pong = peer.receive().expect("every ping has its pong");
        assert_eq!((pong.header.kind, pong.header.correlation), (Kind::PONG, correlation));
        assert_eq!(pong.body.len(), 4096);
    }
    peer.ping(count);
}

#[test]
fn a_crowd_that_comes_at_once_is_served_in_turn() {
    let daemon = Daemon::start();
    // More than may be without a hello at a time; all are there before any of them speaks.
    let mut crowd: Vec<RawPeer> = (0..200).map(|_| RawPeer::connect(&daemon.socket())).collect();
    for peer in &mut crowd {
        peer.send(&greeting("crowd"));
    }
    for (at, peer) in crowd.iter_mut().enumerate() {
        let frame = peer.receive().expect("an answer");
        assert_eq!(frame.header.kind, Kind::WELCOME, "{at}: {frame:?}");
    }
}

#[test]
fn who_stays_silent_makes_others_wait_only_while_all_places_are_taken() {
    let daemon = Daemon::start();
    let mut silent: Vec<RawPeer> = (0..64).map(|_| RawPeer::connect(&daemon.socket())).collect();
    let mut waiting = RawPeer::connect(&daemon.socket());
    waiting.send(&greeting("waiting"));
    silent.pop();
    assert_eq!(waiting.receive().expect("an answer").header.kind, Kind::WELCOME);
}

/// The rest of a frame may never come; what has come of it is somebody's memory all the same.
#[test]
fn parts_of_large_frames_are_charged_to_their_user() {
    let config = "[limits]\nmemory_per_uid_max_bytes = 33554432\n";
    let daemon = Daemon::start_with(&Options::with_config(config));
    let mut held = Vec::new();
    let mut refused = None;
    for _ in 0..8 {
        let (mut peer, _) = RawPeer::greeted(&daemon.socket());
        let whole = frame(Header::new(Kind::PING).with_correlation(1), &(), &vec![7; 15 << 20]);
        // Closed in the middle, it takes no more.
        let is_taken = peer.try_send(&whole[..whole.len() - 1]);
        held.push(peer);
        if !is_taken {
            refused = held.pop();
            break;
        }
    }
    let mut refused = refused.expect("eight times 15 MiB do not fit into 32");
    let (code, message) = refused.receive().expect("a reason").close_reason();
    assert_eq!(code, ErrorCode::QuotaExceeded);
    assert!(message.contains("memory_per_uid_max_bytes"), "{message}");
    RawPeer::greeted(&daemon.socket()).0.ping(3);
}
