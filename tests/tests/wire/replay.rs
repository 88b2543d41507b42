//! The conversation that was recorded when the protocol first landed: every later broker and daemon says the same.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::panic::catch_unwind;

use ipc_core::id::Handle;
use ipc_core::limits::Limits;
use ipc_core::wire::codec::{self, List};
use ipc_core::wire::coordination::{Granted, OfToken, Operation};
use ipc_core::wire::message::{MethodInfo, OpenTopic, Register, RegisterMode, Resolve};
use ipc_core::wire::{Decoder, Flags, FrameLimits, HEADER_BYTES, Header, Kind, PREAMBLE, encode_frame};
use ipc_tests::daemon::{Daemon, PATIENCE};
use ipc_tests::golden::{WRITE_VARIABLE, folder, is_writing, vectors};
use ipc_tests::memory_bus::{MemoryBus, Received};
use ipc_tests::raw::{frame, greeting};
use ipc_tests::transcript::{Bus, Step, parse, render, replay};

/// A broker without sockets.
struct InMemory {
    bus: MemoryBus,
    clients: BTreeMap<String, usize>,
}

impl InMemory {
    fn new() -> Self {
        Self { bus: MemoryBus::new(Limits::default()), clients: BTreeMap::new() }
    }
}

impl Bus for InMemory {
    fn connect(&mut self, client: &str) {
        self.clients.insert(client.to_owned(), self.bus.connect(1000));
    }

    fn send(&mut self, client: &str, bytes: &[u8]) {
        self.bus.send(self.clients[client], bytes);
    }

    fn receive(&mut self, client: &str) -> Option<Received> {
        let inbox = &mut self.bus.client(self.clients[client]).inbox;
        (!inbox.is_empty()).then(|| inbox.remove(0))
    }

    fn end(&mut self, client: &str) {
        self.bus.end_input(self.clients[client]);
    }

    fn leave(&mut self, client: &str) {
        self.bus.leave(self.clients[client]);
    }

    fn is_closed(&mut self, client: &str) -> bool {
        self.bus.client(self.clients[client]).is_closed
    }

    fn pass(&mut self, duration: Duration) {
        self.bus.wait(duration);
    }

    fn unread(&mut self) -> Option<String> {
        let unread = self.clients.iter().find(|(_, at)| !self.bus.client(**at).inbox.is_empty());
        unread.map(|(client, _)| client.clone())
    }
}

/// A daemon behind its socket.
struct OverSocket {
    daemon: Daemon,
    clients: BTreeMap<String, UnixStream>,
}

impl Bus for OverSocket {
    fn connect(&mut self, client: &str) {
        let stream = UnixStream::connect(self.daemon.socket()).expect("the daemon is ready");
        stream.set_read_timeout(Some(PATIENCE)).expect("a bound on every wait");
        stream.set_write_timeout(Some(PATIENCE)).expect("a bound on every wait");
        self.clients.insert(client.to_owned(), stream);
    }

    fn send(&mut self, client: &str, bytes: &[u8]) {
        (&self.clients[client]).write_all(bytes).expect("the daemon reads");
    }

    fn receive(&mut self, client: &str) -> Option<Received> {
        let mut stream = &self.clients[client];
        let mut bytes = vec![0; HEADER_BYTES];
        match stream.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::WouldBlock) => {
                return None;
            }
            Err(error) => panic!("{client} reads: {error}"),
        }
        let header =
            Header::parse(bytes.first_chunk().expect("a header")).expect("the daemon speaks the protocol");
        let mut rest = vec![0; header.frame_bytes() - HEADER_BYTES];
        stream.read_exact(&mut rest).expect("the frame is complete");
        let payload = rest.split_off(header.envelope_len.into());
        Some(Received { header, envelope: rest, payload })
    }

    fn end(&mut self, client: &str) {
        self.clients[client].shutdown(Shutdown::Write).expect("the connection is open");
    }

    fn leave(&mut self, client: &str) {
        self.clients.remove(client);
    }

    fn is_closed(&mut self, client: &str) -> bool {
        matches!((&self.clients[client]).read(&mut [0]), Ok(0))
    }

    fn pass(&mut self, _: Duration) {
        // It passes by itself, and the next frame is waited for.
    }

    fn unread(&mut self) -> Option<String> {
        // More may be on its way, so only the broker in memory can tell.
        None
    }
}

const RECORDED: [&str; 3] = ["first_conversation", "second_conversation", "coordination_conversation"];

#[test]
fn every_conversation_replays_against_the_broker() {
    for name in RECORDED {
        replay(&recorded(name), &mut InMemory::new());
    }
}

#[test]
fn every_conversation_replays_against_the_daemon() {
    for name in RECORDED {
        replay(&recorded(name), &mut OverSocket { daemon: Daemon::start(), clients: BTreeMap::new() });
    }
}

#[test]
fn a_broker_that_is_busy_with_others_says_the_same_under_other_numbers() {
    let mut busy = InMemory::new();
    for client in ["gone", "busy"] {
        busy.connect(client);
        busy.send(client, &greeting(client));
        busy.receive(client);
    }
    busy.leave("gone");
    let handle = |index| Handle { index, generation: 1 };
    let header = |kind, index| Header::new(kind).with_correlation(1).with_handle(handle(index));
    let methods = List(vec![MethodInfo { name: "m".into(), description: "".into() }]);
    let (service, mode) = ("elsewhere".into(), RegisterMode::Exclusive);
    for bytes in [
        frame(header(Kind::REGISTER, 0), &Register { service, mode, queue: false, methods }, b""),
        frame(header(Kind::OPEN_TOPIC, 1), &OpenTopic { topic: "elsewhere".into() }, b""),
        frame(header(Kind::RESOLVE, 2), &Resolve { service: "elsewhere".into(), method: "m".into() }, b""),
        frame(header(Kind::CALL, 2), &(), b"never answered"),
    ] {
        busy.send("busy", &bytes);
    }
    while let Some(received) = busy.receive("busy") {
        assert!(!received.header.flags.contains(Flags::ERROR), "{received:?}");
    }
    replay(&recorded("second_conversation"), &mut busy);
}

#[test]
fn another_answer_is_noticed() {
    let steps = recorded("second_conversation");
    let last = |kind: Kind| {
        let is_it = |step: &Step| matches!(step, Step::Receive(_, bytes) if bytes[0] == kind.0);
        steps.iter().rposition(is_it).unwrap_or_else(|| panic!("the conversation has no {kind:?}"))
    };
    for (what, at, place) in [
        ("a payload", last(Kind::EVENT), HEADER_BYTES),
        ("a sequence", last(Kind::EVENT), 32),
        ("a correlation", last(Kind::REPLY), 16),
        ("a flag", last(Kind::DONE), 1),
        ("a change of names", last(Kind::NAME_CHANGED), HEADER_BYTES + 1),
    ] {
        let mut changed = steps.clone();
        if let Step::Receive(_, bytes) = &mut changed[at] {
            bytes[place] ^= 1;
        }
        let replayed = catch_unwind(|| replay(&changed, &mut InMemory::new()));
        assert!(replayed.is_err(), "{what} was changed and nobody noticed");
        let mut shortened = steps.clone();
        shortened.remove(at);
        let replayed = catch_unwind(|| replay(&shortened, &mut InMemory::new()));
        assert!(replayed.is_err(), "step {at} was left out and nobody noticed");
    }
}

fn recorded(name: &str) -> Vec<Step> {
    let path = folder().join(format!("{name}.txt"));
    // The second one was written by hand.
    let script = if name == RECORDED[0] { Some(script()) } else { (name == RECORDED[2]).then(coordination) };
    if let Some(script) = script.filter(|_| is_writing() && !path.exists()) {
        std::fs::write(&path, render(&record(script))).unwrap();
    }
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; {WRITE_VARIABLE}=1 records it", path.display()));
    parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Has the conversation with the broker as it is, and writes down what it says.
fn record(script: Script) -> Vec<Step> {
    let mut bus = InMemory::new();
    let mut steps = Vec::new();
    for (client, frames) in script {
        if !bus.clients.contains_key(client) {
            bus.connect(client);
            steps.push(Step::Connect(client.to_owned()));
        }
        for mut bytes in frames {
            answer_the_latest_call(&steps, &mut bytes);
            name_the_latest_token(&steps, client, &mut bytes);
            bus.send(client, &bytes);
            steps.push(Step::Send(client.to_owned(), bytes));
        }
        for client in bus.clients.keys().cloned().collect::<Vec<_>>() {
            while let Some(received) = bus.receive(&client) {
                let bytes = [&received.header.to_bytes()[..], &received.envelope, &received.payload].concat();
                steps.push(Step::Receive(client.clone(), bytes));
            }
        }
    }
    steps
}

/// A reply carries the number that the daemon gave the call.
fn answer_the_latest_call(steps: &[Step], bytes: &mut [u8]) {
    if bytes[0] != Kind::REPLY.0 {
        return;
    }
    let call = steps.iter().rev().find_map(|step| match step {
        Step::Receive(_, frame) if frame[0] == Kind::CALL.0 => Some(&frame[16..24]),
        _ => None,
    });
    bytes[16..24].copy_from_slice(call.expect("there was a call"));
}

/// What is asked about something held is asked about what the client was granted last.
fn name_the_latest_token(steps: &[Step], client: &str, bytes: &mut Vec<u8>) {
    let Some(Ok(header)) = bytes.first_chunk::<HEADER_BYTES>().map(Header::parse) else { return };
    let operation = Operation(header.handle.index);
    let is_about_it = [Operation::RENEW, Operation::RELEASE, Operation::PROCLAIM].contains(&operation);
    if header.kind != Kind::COORDINATE || !is_about_it {
        return;
    }
    let wanted = if operation == Operation::PROCLAIM { Operation::CAMPAIGN } else { Operation::LOCK };
    let granted = steps.iter().rev().find_map(|step| match step {
        Step::Receive(to, frame) if to == client && frame[0] == Kind::OUTCOME.0 => {
            let is_it = frame[12..16] == wanted.0.to_le_bytes();
            is_it.then(|| codec::decode::<Granted>(&frame[HEADER_BYTES..]).expect("a grant"))
        }
        _ => None,
    });
    let token = granted.expect("something was granted").token;
    let payload = bytes.split_off(HEADER_BYTES + usize::from(header.envelope_len));
    bytes.clear();
    encode_frame(bytes, header, &OfToken { token }, &payload).expect("a small frame");
}

/// Who sends what, in order.
type Script = Vec<(&'static str, Vec<Vec<u8>>)>;

/// Locks and the like, asked for with golden frames.
fn coordination() -> Script {
    let vectors = vectors();
    let golden = |name: &str| vectors.iter().find(|vector| vector.name == name).expect(name).bytes.clone();
    let all =
        |names: &[&str]| names.iter().map(|name| golden(&format!("coordinate_{name}"))).collect::<Vec<_>>();
    let hello = || vec![PREAMBLE.to_vec(), golden("hello")];
    let mut cancelled = golden("cancel");
    cancelled[16..24].copy_from_slice(&29_u64.to_le_bytes());
    vec![
        ("one", [hello(), all(&["lock", "acquire", "campaign", "observe"])].concat()),
        ("two", [hello(), all(&["lock", "lock_shared", "arrive", "lease"])].concat()),
        ("one", all(&["renew", "proclaim", "unobserve", "arrive", "release"])),
        ("three", [hello(), all(&["lock_shared", "arrive"])].concat()),
        ("two", all(&["release"])),
        ("one", [all(&["arrive"]), vec![cancelled]].concat()),
        ("three", all(&["observe"])),
        ("one", vec![golden("close")]),
    ]
}

/// Golden frames and a few that break something.
fn script() -> Script {
    let vectors = vectors();
    let golden = |name: &str| vectors.iter().find(|vector| vector.name == name).expect(name).bytes.clone();
    let all = |names: &[&str]| names.iter().map(|name| golden(name)).collect::<Vec<_>>();
    let hello = || vec![PREAMBLE.to_vec(), golden("hello")];
    let numbered = |name: &str, correlation: u64| {
        let mut bytes = golden(name);
        bytes[16..24].copy_from_slice(&correlation.to_le_bytes());
        bytes
    };
    let mut unknown = golden("ping");
    unknown[0] = 0xee;
    let mut bad_flags = golden("ping");
    bad_flags[1] = 0x80;
    vec![
        ("service", [hello(), all(&["register"])].concat()),
        ("caller", [hello(), all(&["watch_names"])].concat()),
        ("caller", all(&["resolve", "call"])),
        ("service", all(&["reply_to_daemon"])),
        ("caller", vec![golden("call_traced")]),
        ("service", vec![golden("reply_error")]),
        ("caller", all(&["call_oneway"])),
        ("caller", vec![numbered("call", 20)]),
        ("caller", vec![numbered("cancel", 20)]),
        ("caller", vec![numbered("call", 21), numbered("release", 0), numbered("call", 22)]),
        ("service", all(&["reply_to_daemon"])),
        ("caller", all(&["subscribe", "open_topic", "publish", "publish_oneway"])),
        ("service", all(&["subscribe", "open_topic", "publish"])),
        ("caller", all(&["unsubscribe", "ping"])),
        ("caller", vec![nobody(30), unknown]),
        ("second", [hello(), all(&["register"])].concat()),
        ("service", vec![unregister_first()]),
        ("caller", all(&["unwatch_names"])),
        ("stranger", [hello(), vec![bad_flags]].concat()),
        ("caller", all(&["close"])),
    ]
}

/// Asks for a service that is not there.
fn nobody(correlation: u64) -> Vec<u8> {
    let handle = Handle { index: 9, generation: 1 };
    let header = Header::new(Kind::RESOLVE).with_correlation(correlation).with_handle(handle);
    let mut bytes = Vec::new();
    let resolve = Resolve { service: "demo.nobody".into(), method: "title".into() };
    encode_frame(&mut bytes, header, &resolve, b"").expect("a small frame");
    bytes
}

/// Takes back the registration that the daemon in memory numbers first.
fn unregister_first() -> Vec<u8> {
    let handle = Handle { index: 1, generation: 0 };
    Header::new(Kind::UNREGISTER).with_correlation(31).with_handle(handle).to_bytes().to_vec()
}

#[test]
fn the_recorded_conversations_hold_what_can_be_said() {
    let steps: Vec<Step> = RECORDED.iter().flat_map(|name| recorded(name)).collect();
    let limits = FrameLimits { payload_max_bytes: u32::MAX, frame_max_bytes: None };
    let mut seen = BTreeSet::new();
    for step in steps {
        let (Step::Send(_, bytes) | Step::Receive(_, bytes)) = step else { continue };
        if bytes != PREAMBLE && bytes[1] & 0x80 == 0 {
            assert!(Decoder::new(limits).next(&mut &bytes[..]).is_ok_and(|frame| frame.is_some()));
            seen.insert(bytes[0]);
        }
    }
    for kind in Kind::ALL {
        // What comes of a slow reader or of many peers depends on how much a daemon buffers, what is revoked on its rules.
        // Nobody there offers the feature of fences.
        let depends = [Kind::GAP, Kind::FORGET, Kind::REVOKED, Kind::FENCE].contains(kind);
        assert!(depends || seen.contains(&kind.0), "the conversations have no {kind:?}");
    }
}
