//! A stranger on the bus: whatever it sends, others go on, and nothing of it is left when it has gone.

use core::time::Duration;

use ipc_core::error::ErrorCode;
use ipc_core::id::Handle;
use ipc_core::limits::Limits;
use ipc_core::wire::codec::List;
use ipc_core::wire::message::{Close, Hello, MethodInfo, Register, RegisterMode, Resolve};
use ipc_core::wire::{Decoder, Flags, FrameLimits, Header, Kind, PREAMBLE};

use crate::golden::vectors;
use crate::memory_bus::MemoryBus;

/// What a client that knows what it does would send: golden frames.
const SENSE: [&str; 16] = [
    "watch_names",
    "register_group",
    "open_topic",
    "subscribe",
    "resolve",
    "call",
    "call_oneway",
    "publish",
    "publish_oneway",
    "ping",
    "cancel",
    "unsubscribe",
    "unwatch_names",
    "release",
    "unregister",
    "close",
];

/// Frames that make sense, as an input of [`broker`], which begins with `how`.
pub fn sensible_client(how: u8) -> Vec<u8> {
    let vectors = vectors();
    let mut bytes = vec![how];
    for name in SENSE {
        let vector = vectors.iter().find(|vector| vector.name == name).expect("the vector exists");
        bytes.extend(&vector.bytes);
    }
    bytes
}

const OWN_UID: u32 = 1000;
const STRANGER_UID: u32 = 1001;
const HANDLE: Handle = Handle { index: 3, generation: 1 };

/// The first byte says whether the stranger has said hello before (bit 0) and whether it reads what it is sent (bit 1);
/// the rest is what it sends.
pub fn broker(data: &[u8]) {
    let Some((how, stream)) = data.split_first() else { return };
    let mut bus = MemoryBus::new(limits());
    let service = greeted(&mut bus, OWN_UID);
    let caller = greeted(&mut bus, OWN_UID);
    offer(&mut bus, service);
    let resolve = Resolve { service: "demo.title".into(), method: "title".into() };
    let header = Header::new(Kind::RESOLVE).with_correlation(1).with_handle(HANDLE);
    bus.say(caller, header, &resolve, b"");
    call_works(&mut bus, caller, service);

    let stranger = if how & 1 == 0 { bus.connect(STRANGER_UID) } else { greeted(&mut bus, STRANGER_UID) };
    bus.client(stranger).reads = how & 2 == 0;
    bus.send(stranger, stream);
    serve(&mut bus, service);
    call_works(&mut bus, caller, service);
    queue_is_bounded(&mut bus, stranger, stream.len());

    bus.wait(Duration::from_secs(7200));
    if !bus.client(stranger).is_closed {
        bus.resume(stranger);
    }
    answers_are_fewer_than_questions(&mut bus, stranger, stream);
    if !bus.client(stranger).is_closed {
        bus.leave(stranger);
    }
    call_works(&mut bus, caller, service);
    nothing_is_left(&mut bus, &[caller, service]);
}

/// Small, so that inputs reach them.
fn limits() -> Limits {
    Limits {
        queue_per_connection_max_bytes: 8192,
        pending_calls_per_connection_max: 4,
        subscriptions_per_connection_max: 4,
        names_per_connection_max: 4,
        watches_per_connection_max: 4,
        handles_per_connection_max: 16,
        announced_peers_per_connection_max: 2,
        payload_max_bytes: 65_536,
        ..Limits::default()
    }
}

fn greeted(bus: &mut MemoryBus, uid: u32) -> usize {
    let at = bus.connect(uid);
    bus.send(at, &PREAMBLE);
    let hello = Hello { version_min: 1, version_max: 1, features: 0, name: "test".into() };
    bus.say(at, Header::new(Kind::HELLO), &hello, b"");
    assert_eq!(bus.client(at).take(Kind::WELCOME).len(), 1);
    at
}

fn offer(bus: &mut MemoryBus, service: usize) {
    let methods = List(vec![MethodInfo { name: "title".into(), description: "".into() }]);
    let register =
        Register { service: "demo.title".into(), mode: RegisterMode::Exclusive, queue: false, methods };
    bus.say(service, Header::new(Kind::REGISTER).with_correlation(1), &register, b"");
    let done = bus.client(service).take(Kind::DONE);
    assert!(done.len() == 1 && !done[0].header.flags.contains(Flags::ERROR));
}

/// Answers every call that has reached the service with its own payload.
fn serve(bus: &mut MemoryBus, service: usize) {
    for call in bus.client(service).take(Kind::CALL) {
        if !call.header.flags.contains(Flags::ONEWAY) {
            let reply = Header::new(Kind::REPLY).with_correlation(call.header.correlation);
            bus.say(service, reply, &(), &call.payload);
        }
    }
}

/// One call between two well-behaved connections has its one outcome, at once.
fn call_works(bus: &mut MemoryBus, caller: usize, service: usize) {
    let before = bus.client(caller).take(Kind::REPLY);
    assert!(before.is_empty(), "a reply that nobody asked for: {before:?}");
    let call = Header::new(Kind::CALL).with_correlation(7).with_handle(HANDLE);
    bus.say(caller, call, &(), b"hello world");
    let reached = bus.client(service).inbox.iter().filter(|frame| frame.payload == b"hello world").count();
    assert!(reached >= 1, "the call did not reach its service");
    serve(bus, service);
    let replies = bus.client(caller).take(Kind::REPLY);
    assert_eq!(replies.len(), 1, "{replies:?}");
    assert_eq!((replies[0].header.correlation, &replies[0].payload[..]), (7, &b"hello world"[..]));
    assert!(!replies[0].header.flags.contains(Flags::ERROR));
}

/// A connection that does not read holds its limit, one frame, and answers to its own requests: not more than it sent
/// questions for.
fn queue_is_bounded(bus: &mut MemoryBus, stranger: usize, sent: usize) {
    let limits = limits();
    let key = bus.client(stranger).key();
    let rows = bus.broker.peers();
    let Some(row) = rows.iter().find(|row| row.key == key) else { return };
    let questions = sent / ipc_core::wire::HEADER_BYTES + 1;
    let most = (limits.queue_per_connection_max_bytes + limits.payload_max_bytes) as usize + questions * 1024;
    assert!(row.queued_bytes <= most, "{} bytes wait for a connection that sent {sent}", row.queued_bytes);
    assert!(row.names <= limits.names_per_connection_max as usize);
    assert!(row.subscriptions <= limits.subscriptions_per_connection_max as usize);
    assert!(row.pending_calls <= limits.pending_calls_per_connection_max as usize);
}

/// Every reply belongs to a call; a close says why with a code that is in the table and is the last frame.
fn answers_are_fewer_than_questions(bus: &mut MemoryBus, stranger: usize, stream: &[u8]) {
    let mut decoder = Decoder::new(FrameLimits { payload_max_bytes: u32::MAX, frame_max_bytes: None });
    let (mut calls, mut input) = (0, stream);
    while let Ok(Some(frame)) = decoder.next(&mut input) {
        calls += usize::from(frame.header.kind == Kind::CALL);
    }
    let client = bus.client(stranger);
    let closes = client.inbox.iter().position(|frame| frame.header.kind == Kind::CLOSE);
    if let Some(at) = closes {
        assert_eq!(at + 1, client.inbox.len(), "frames behind the close");
        let close: Close = client.inbox[at].decode();
        assert!(ErrorCode::from_number(close.code).is_some() && !close.message.0.is_empty());
    }
    let replies = client.take(Kind::REPLY);
    // Without a hello the stream begins with the preamble, and is cut elsewhere than here.
    assert!(replies.len() <= calls || !stream.is_empty() && stream[0] == PREAMBLE[0]);
}

/// What remains is what the two others hold, and then nothing.
fn nothing_is_left(bus: &mut MemoryBus, others: &[usize]) {
    let status = bus.broker.status();
    assert!(status.usage.iter().all(|usage| usage.uid == Some(OWN_UID)), "{:?}", status.usage);
    let names: Vec<String> = bus.broker.services().into_iter().map(|service| service.name).collect();
    assert_eq!(names, ["demo.title"]);
    assert!(bus.broker.topics().is_empty() && bus.broker.is_drained());
    for other in others {
        bus.leave(*other);
    }
    assert!(bus.broker.services().is_empty() && bus.broker.peers().is_empty());
    assert!(bus.broker.status().usage.is_empty() && bus.broker.connections() == 0);
    assert_eq!(bus.broker.poll_timeout(), None, "a deadline of a connection that is gone");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensible_client_gets_its_answers() {
        let mut bus = MemoryBus::new(limits());
        let service = greeted(&mut bus, OWN_UID);
        offer(&mut bus, service);
        let client = greeted(&mut bus, STRANGER_UID);
        bus.send(client, &sensible_client(1)[1..]);
        for kind in [
            Kind::PEER_ANNOUNCED,
            Kind::NAME_CHANGED,
            Kind::TOPIC_ANNOUNCED,
            Kind::EVENT,
            Kind::REPLY,
            Kind::PONG,
            Kind::DONE,
        ] {
            assert!(!bus.client(client).take(kind).is_empty(), "no {kind:?}");
        }
        assert_eq!(bus.client(service).take(Kind::CALL).len(), 2);
        assert_eq!(bus.client(service).take(Kind::CANCEL).len(), 1);
        assert!(bus.client(client).is_closed && bus.client(client).take(Kind::CLOSE).is_empty());
    }
}
