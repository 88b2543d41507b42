//! Users take turns, however much the input of one of them is.

use std::io::{ErrorKind, Write};

use ipc_core::blocking::SubscribeOptions;
use ipc_core::id::Handle;
use ipc_core::wire::message::{OpenTopic, Published};
use ipc_core::wire::{Flags, Header, Kind};
use ipc_tests::daemon::{Daemon, Signal, eventually};
use ipc_tests::raw::{RawPeer, frame};
use ipc_tests::services::client;
use ipc_tests::users::{STRANGERS, as_user, can_switch, shared_bus};

const ALICE: u32 = STRANGERS[0];
const BOB: u32 = STRANGERS[1];
/// Connections that the first of them fills.
const CONNECTIONS: usize = 16;
const TOPIC: Handle = Handle { index: 0, generation: 1 };

/// A connection of that user with a handle for the topic that all publish on.
fn publisher(daemon: &Daemon, uid: u32) -> RawPeer {
    let (mut peer, _) = as_user(uid, &[], || RawPeer::greeted(&daemon.socket()));
    let header = Header::new(Kind::OPEN_TOPIC).with_correlation(1).with_handle(TOPIC);
    peer.send(&frame(header, &OpenTopic { topic: "test.turns".into() }, &[]));
    assert_eq!(peer.receive().expect("an answer").error(), None);
    peer
}

/// Publishes an event and asks for its number.
fn publish(peer: &mut RawPeer) {
    let header = Header::new(Kind::PUBLISH).with_correlation(2).with_handle(TOPIC);
    peer.send(&frame(header, &(), b"one"));
}

fn number(peer: &mut RawPeer) -> u64 {
    let done = peer.receive().expect("an answer");
    assert_eq!((done.header.kind, done.error()), (Kind::DONE, None));
    done.decode::<Published>().sequence
}

/// Sends events until the kernel takes no more. Says how many it took.
fn fill(peer: &RawPeer) -> usize {
    let header = Header { flags: Flags::ONEWAY, ..Header::new(Kind::PUBLISH).with_handle(TOPIC) };
    let event = frame(header, &(), b"one of many");
    let events = event.repeat(1000);
    let mut stream = peer.stream();
    stream.set_nonblocking(true).expect("it can be");
    let mut sent = 0;
    loop {
        match stream.write(&events[sent % event.len()..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return sent / event.len(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn is_stopped(daemon: &Daemon) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("it runs");
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}

/// A bus open to everybody on which one user has as much input waiting as it may. Gives how many events those were, and how many
/// of them came before the one that `last` sent last.
fn events_before(last: u32) -> (u64, u64) {
    let open = "[socket]\nmode = \"0666\"\n[policy]\nrules = [\"allow anyone * >\"]\n";
    let (daemon, _directory) = shared_bus(open);
    // So that events are numbered.
    let mut subscriber = client(&daemon);
    let _subscription = subscriber.subscribe("test.turns", SubscribeOptions::default()).unwrap();
    let floods: Vec<RawPeer> = (0..CONNECTIONS).map(|_| publisher(&daemon, ALICE)).collect();
    let mut one = publisher(&daemon, last);
    publish(&mut one);
    let before = number(&mut one);
    daemon.signal(Signal::STOP);
    assert!(eventually(|| is_stopped(&daemon)));
    let sent: usize = floods.iter().map(fill).sum();
    publish(&mut one);
    daemon.signal(Signal::CONT);
    (sent as u64, number(&mut one) - before)
}

#[test]
fn a_user_with_a_lot_of_input_does_not_go_before_another() {
    if !can_switch() {
        return;
    }
    let (sent, before) = events_before(BOB);
    assert!(sent > 10_000, "{sent} are not much");
    assert!(before < 1000, "{before} of the {sent} events of one user came before the one of another");
}

#[test]
fn the_connections_of_one_user_take_turns_beside_those_of_another() {
    if !can_switch() {
        return;
    }
    let (sent, before) = events_before(ALICE);
    assert!(before < sent / 4, "{before} of {sent} events came before the one of another connection");
}
