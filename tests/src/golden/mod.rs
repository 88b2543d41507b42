//! The golden vectors: at least one frame of each kind, as the library builds it and as `tests/golden/` holds it.
//!
//! A file is lines of hexadecimal bytes; what follows `#` is for people. Vectors that have landed never change: a
//! change of the wire is a new kind, a feature bit or a new version, with vectors of its own.

mod coordination;
mod keys;
mod queues;
mod revoked;

use std::fmt::Write as _;
use std::path::PathBuf;

use ipc_core::PayloadKind;
use ipc_core::error::ErrorCode;
use ipc_core::id::Handle;
use ipc_core::wire::codec::{Blob, List, Wire};
use ipc_core::wire::message::{
    Close, Envelope, ErrorBody, Forget, ForgetWhat, Gap, Hello, IdentityInfo, MethodInfo, NameChange,
    NameChanged, OnSlow, OpenTopic, PeerInfo, Published, Register, RegisterMode, Registered, Resolve,
    Subscribe, Subscribed, TopicInfo, Unsubscribe, UnwatchNames, WatchNames, Welcome,
};
use ipc_core::wire::{Flags, Frame, Header, Kind, encode_frame};

/// One frame with its name.
pub struct Vector {
    /// The name of the file in `tests/golden/`, without `.hex`.
    pub name: &'static str,
    /// What the frame says, for people.
    pub title: &'static str,
    /// The frame as the library encodes it.
    pub bytes: Vec<u8>,
    /// Fails when a decoded frame does not hold what this one was made from.
    pub check: Box<dyn Fn(&Frame<'_>)>,
}

/// Set to `1`, has the tests write files of this folder that are not there yet; one that is there is never written.
pub const WRITE_VARIABLE: &str = "IPC_GOLDEN_WRITE";

/// True when missing files are to be written.
pub fn is_writing() -> bool {
    std::env::var(WRITE_VARIABLE).is_ok_and(|value| value == "1")
}

/// The folder of the vectors.
pub fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"))
}

/// The bytes of a vector's file.
///
/// # Errors
/// A sentence with the line that holds no hexadecimal bytes.
pub fn parse(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let digits = line.split('#').next().unwrap_or_default();
        for pair in digits.split_whitespace() {
            let byte = u8::from_str_radix(pair, 16).ok().filter(|_| pair.len() == 2);
            bytes.push(byte.ok_or_else(|| format!("line {}: `{pair}` is no byte", number + 1))?);
        }
    }
    Ok(bytes)
}

/// The text of a vector's file, with the fields of the header told apart.
pub fn render(vector: &Vector) -> String {
    const FIELDS: [(usize, &str); 12] = [
        (1, "kind"),
        (1, "flags"),
        (1, "payload kind"),
        (1, "descriptors"),
        (4, "payload length"),
        (2, "envelope length"),
        (2, "handle generation"),
        (4, "handle"),
        (8, "correlation"),
        (4, "sender"),
        (4, "remaining deadline, us"),
        (8, "sequence"),
    ];
    render_fields(vector.title, &FIELDS, &vector.bytes)
}

/// The same of bytes with a header of these fields; the length of the envelope is at offset 8.
pub(crate) fn render_fields(title: &str, fields: &[(usize, &str)], bytes: &[u8]) -> String {
    let mut text = format!("# {title}\n");
    let mut line = |bytes: &[u8], note: &str| {
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let padded = format!("{:<48}{}{note}", digits.join(" "), if note.is_empty() { "" } else { "# " });
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", padded.trim_end());
    };
    let mut at = 0;
    for (len, name) in fields {
        line(&bytes[at..at + len], name);
        at += len;
    }
    let envelope_len = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (envelope, payload) = bytes[at..].split_at(envelope_len);
    for (part, name) in [(envelope, "envelope"), (payload, "payload")] {
        for (index, chunk) in part.chunks(16).enumerate() {
            line(chunk, if index == 0 { name } else { "" });
        }
    }
    text
}

/// Every vector: the first exchange, calls, events, names, topics, announcements.
pub fn vectors() -> Vec<Vector> {
    let groups = [
        connection(),
        calls(),
        events(),
        names(),
        name_changes(),
        topics(),
        answers(),
        announcements(),
        coordination::asked_for(),
        coordination::asked_of_others(),
        coordination::answered(),
        keys::all(),
        queues::all(),
        coordination::told(),
        revoked::told(),
    ];
    groups.into_iter().flatten().collect()
}

fn vector<T>(
    name: &'static str,
    title: &'static str,
    header: Header,
    envelope: T,
    payload: &'static [u8],
) -> Vector
where
    T: Wire + PartialEq + std::fmt::Debug + 'static,
{
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, header, &envelope, payload).expect("a golden frame is within the limits");
    let check = Box::new(move |frame: &Frame<'_>| {
        let envelope_len = frame.header.envelope_len;
        let payload_len = frame.header.payload_len;
        assert_eq!(frame.header, Header { envelope_len, payload_len, ..header }, "{name}: header");
        assert_eq!(frame.decode::<T>().as_ref(), Ok(&envelope), "{name}: envelope");
        assert_eq!(frame.body.as_slice(), payload, "{name}: payload");
    });
    Vector { name, title, bytes, check }
}

fn header(kind: Kind, correlation: u64) -> Header {
    Header::new(kind).with_correlation(correlation)
}

fn handle(index: u32, generation: u16) -> Handle {
    Handle { index, generation }
}

fn connection() -> Vec<Vector> {
    let hello = Hello { version_min: 1, version_max: 1, features: 0, name: "demo".into() };
    let welcome = Welcome {
        version: 1,
        features: 0,
        epoch: 0x0123_4567_89ab_cdef,
        peer: 7,
        payload_max_bytes: 16 << 20,
        handles_max: 1024,
        pending_calls_max: 1024,
        server: "ipc-daemon 0.1.0".into(),
    };
    let close =
        Close { code: ErrorCode::ProtocolViolation.number(), message: "flags 0x80 are not defined".into() };
    vec![
        vector(
            "hello",
            "hello, client to daemon: versions 1 to 1, no features",
            header(Kind::HELLO, 0),
            hello,
            b"",
        ),
        vector("welcome", "welcome, daemon to client: version 1", header(Kind::WELCOME, 0), welcome, b""),
        vector("close", "close, either way: protocol_violation", header(Kind::CLOSE, 0), close, b""),
        vector("ping", "ping, client to daemon: four bytes to be echoed", header(Kind::PING, 1), (), b"ping"),
        vector("pong", "pong, daemon to client: the same four bytes", header(Kind::PONG, 1), (), b"ping"),
    ]
}

fn calls() -> Vec<Vector> {
    let text = |header: Header| Header { payload_kind: PayloadKind::Text, ..header };
    let to_daemon = text(header(Kind::CALL, 5)).with_handle(handle(3, 1));
    let to_service =
        Header { sender: 9, ..text(header(Kind::CALL, 0x0004_0000_0002)).with_handle(handle(2, 0)) };
    let traced = Envelope {
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        extensions: List(vec![(300, Blob(vec![1, 2, 3]))]),
    };
    let failed = ErrorBody {
        code: ErrorCode::Application.number(),
        message: "no such book".into(),
        hint: None,
        resource: None,
        limit: None,
        application_code: Some("not_found".into()),
    };
    let reply = Header { sender: 9, ..text(header(Kind::REPLY, 5)) };
    vec![
        vector(
            "call",
            "call, client to daemon: handle 3, 5 s left, \"hello world\"",
            Header { deadline_us: 5_000_000, ..to_daemon },
            (),
            b"hello world",
        ),
        vector(
            "call_traced",
            "call with a traceparent and extension 300",
            Header { deadline_us: 5_000_000, ..to_daemon },
            traced,
            b"hello world",
        ),
        vector(
            "call_oneway",
            "call without an answer: the empty envelope written out",
            Header { flags: Flags::ONEWAY, ..to_daemon },
            Envelope::default(),
            b"hello world",
        ),
        vector(
            "call_to_service",
            "call, daemon to service: registration 2, method 0, from peer handle 9",
            Header { deadline_us: 4_999_000, ..to_service },
            (),
            b"hello world",
        ),
        vector(
            "reply_to_daemon",
            "reply, service to daemon: the daemon's correlation",
            text(header(Kind::REPLY, 0x0004_0000_0002)),
            (),
            b"Hello World",
        ),
        vector("reply", "reply, daemon to client: the caller's correlation", reply, (), b"Hello World"),
        vector(
            "reply_error",
            "reply with the error flag: application, the service's code not_found",
            Header { flags: Flags::ERROR, payload_kind: PayloadKind::Json, ..reply },
            failed,
            b"{\"isbn\":\"0\"}",
        ),
        vector("cancel", "cancel, client to daemon: call 5", header(Kind::CANCEL, 5), (), b""),
    ]
}

fn events() -> Vec<Vector> {
    let json = |header: Header| Header { payload_kind: PayloadKind::Json, ..header };
    let event = Header { sender: 9, sequence: 42, ..json(header(Kind::EVENT, 6)).with_handle(handle(1, 2)) };
    let publish = json(header(Kind::PUBLISH, 8)).with_handle(handle(4, 1));
    let gap = Gap { from: 43, to: 50, count: 8 };
    let merged = Gap { from: 0, to: 0, count: 300 };
    vec![
        vector("publish", "publish, client to daemon: topic handle 4, answered", publish, (), b"21.5"),
        vector(
            "publish_oneway",
            "publish without an answer",
            Header { flags: Flags::ONEWAY, ..publish.with_correlation(0) },
            (),
            b"21.5",
        ),
        vector("event", "event, daemon to client: subscription 6, number 42 of topic 1", event, (), b"21.5"),
        vector(
            "gap",
            "gap, daemon to client: 43 to 50 of topic 1 were dropped",
            header(Kind::GAP, 6).with_handle(handle(1, 2)),
            gap,
            b"",
        ),
        vector(
            "gap_merged",
            "gap over several topics of the filter: 300 events",
            header(Kind::GAP, 6).with_handle(Handle::MERGED),
            merged,
            b"",
        ),
    ]
}

fn names() -> Vec<Vector> {
    let method =
        |name: &str, description: &str| MethodInfo { name: name.into(), description: description.into() };
    let register =
        |mode, queue, methods| Register { service: "demo.title".into(), mode, queue, methods: List(methods) };
    let one = vec![method("title", "Text in title case")];
    vec![
        vector(
            "resolve",
            "resolve, client to daemon: handle 3, generation 1, is to be demo.title/title",
            header(Kind::RESOLVE, 2).with_handle(handle(3, 1)),
            Resolve { service: "demo.title".into(), method: "title".into() },
            b"",
        ),
        vector(
            "release",
            "release, client to daemon: handle 3 is free",
            header(Kind::RELEASE, 0).with_handle(handle(3, 1)),
            (),
            b"",
        ),
        vector(
            "register",
            "register, client to daemon: exclusive, one method",
            header(Kind::REGISTER, 3),
            register(RegisterMode::Exclusive, true, one.clone()),
            b"",
        ),
        vector(
            "register_group",
            "register an instance of a group with two methods",
            header(Kind::REGISTER, 4),
            register(RegisterMode::Group, false, [one, vec![method("upper", "")]].concat()),
            b"",
        ),
        vector(
            "unregister",
            "unregister, client to daemon: registration 2",
            header(Kind::UNREGISTER, 10).with_handle(handle(2, 0)),
            (),
            b"",
        ),
        vector(
            "watch_names",
            "watch_names, client to daemon: demo.*",
            header(Kind::WATCH_NAMES, 12),
            WatchNames { filter: "demo.*".into() },
            b"",
        ),
        vector(
            "unwatch_names",
            "unwatch_names, client to daemon: the watch 12",
            header(Kind::UNWATCH_NAMES, 13),
            UnwatchNames { watch: 12 },
            b"",
        ),
    ]
}

fn name_changes() -> Vec<Vector> {
    let changed = |service: &str, change| NameChanged { service: service.into(), change };
    let watched = Header { sender: 9, ..header(Kind::NAME_CHANGED, 12) };
    vec![
        vector(
            "name_changed",
            "name_changed, daemon to client: peer handle 9 owns demo.title",
            watched,
            changed("demo.title", NameChange::Acquired),
            b"",
        ),
        vector(
            "name_changed_lost",
            "name_changed: nobody owns demo.title any more",
            watched,
            changed("demo.title", NameChange::Lost),
            b"",
        ),
        vector(
            "name_changed_watch_lost",
            "name_changed: the watch has ended",
            header(Kind::NAME_CHANGED, 12),
            changed("", NameChange::WatchLost),
            b"",
        ),
        vector(
            "acquired",
            "acquired, daemon to client: registration 2 owns its name",
            header(Kind::ACQUIRED, 0).with_handle(handle(2, 0)),
            (),
            b"",
        ),
    ]
}

fn topics() -> Vec<Vector> {
    let subscribe = Subscribe {
        filter: "sensor.>".into(),
        on_slow: OnSlow::DropOldest,
        queue_events_max: 300,
        queue_bytes_max: 70_000,
    };
    vec![
        vector(
            "open_topic",
            "open_topic, client to daemon: handle 4, generation 1, is to be sensor.kitchen",
            header(Kind::OPEN_TOPIC, 7).with_handle(handle(4, 1)),
            OpenTopic { topic: "sensor.kitchen".into() },
            b"",
        ),
        vector(
            "subscribe",
            "subscribe, client to daemon: sensor.>, at most 300 events and 70000 bytes queued",
            header(Kind::SUBSCRIBE, 6),
            subscribe,
            b"",
        ),
        vector(
            "unsubscribe",
            "unsubscribe, client to daemon: the subscription 6",
            header(Kind::UNSUBSCRIBE, 11),
            Unsubscribe { subscription: 6 },
            b"",
        ),
    ]
}

fn answers() -> Vec<Vector> {
    let quota = ErrorBody {
        code: ErrorCode::QuotaExceeded.number(),
        message: "names_per_connection_max is at its limit of 512".into(),
        hint: Some("unregister a service first".into()),
        resource: Some("names_per_connection_max".into()),
        limit: Some(512),
        application_code: None,
    };
    let registered = Registered { registration: 2, queued: false };
    vec![
        vector("done", "done, daemon to client: operation 2 has succeeded", header(Kind::DONE, 2), (), b""),
        vector(
            "done_registered",
            "done of a register: registration 2",
            header(Kind::DONE, 3),
            registered,
            b"",
        ),
        vector(
            "done_subscribed",
            "done of a subscribe: the last number was 41",
            header(Kind::DONE, 6),
            Subscribed { sequence: 41 },
            b"",
        ),
        vector(
            "done_published",
            "done of a publish: number 42, two subscriptions",
            header(Kind::DONE, 8),
            Published { sequence: 42, subscribers: 2 },
            b"",
        ),
        vector(
            "done_error",
            "done with the error flag: quota_exceeded, resource and limit named",
            Header { flags: Flags::ERROR, ..header(Kind::DONE, 4) },
            quota,
            b"",
        ),
    ]
}

fn announcements() -> Vec<Vector> {
    let local = IdentityInfo::Local { uid: 1000, gid: 100, pid: 70_000 };
    let remote = IdentityInfo::Remote { principal: "anonymous".into(), address: "127.0.0.1:50000".into() };
    let announced = Header { sender: 9, ..header(Kind::PEER_ANNOUNCED, 0) };
    vec![
        vector(
            "peer_announced",
            "peer_announced, daemon to client: handle 9 is peer 21, a local process",
            announced,
            PeerInfo { peer: 21, identity: local },
            b"",
        ),
        vector(
            "peer_announced_remote",
            "peer_announced: handle 9 is peer 22, a network client",
            announced,
            PeerInfo { peer: 22, identity: remote },
            b"",
        ),
        vector(
            "topic_announced",
            "topic_announced, daemon to client: handle 1, generation 2, is sensor.kitchen",
            header(Kind::TOPIC_ANNOUNCED, 0).with_handle(handle(1, 2)),
            TopicInfo { name: "sensor.kitchen".into() },
            b"",
        ),
        vector(
            "forget_peer",
            "forget, daemon to client: the peer handle 9",
            Header { sender: 9, ..header(Kind::FORGET, 0) },
            Forget { what: ForgetWhat::Peer },
            b"",
        ),
        vector(
            "forget_topic",
            "forget: the topic handle 1",
            header(Kind::FORGET, 0).with_handle(handle(1, 2)),
            Forget { what: ForgetWhat::Topic },
            b"",
        ),
    ]
}
