//! A daemon that lies: whatever it sends, every request of the session has exactly one outcome.

use core::time::Duration;

use ipc_core::limits::DEADLINE_GRACE;
use ipc_core::name::{MethodName, ServiceName};
use ipc_core::payload::Payload;
use ipc_core::session::{
    CallOptions, Config, Offer, OfferedMethod, Session, State, SubscribeOptions, SubscriptionKey, Ticket,
    WatchKey,
};
use ipc_core::time::Instant;
use ipc_core::wire::message::{RegisterMode, Welcome};
use ipc_core::wire::{Decoder, Header, Kind, encode_frame};

use super::LIMITS;
use crate::golden::vectors;

/// What a daemon that tells the truth would send to a session that it has greeted: golden frames, each with the place
/// of the request that it answers.
const TRUTH: [(&str, u64); 20] = [
    ("done_subscribed", 1),
    ("done", 2),
    ("done", 3),
    ("done", 6),
    ("done_registered", 8),
    ("peer_announced", 0),
    ("topic_announced", 0),
    ("event", 1),
    ("gap", 1),
    ("gap_merged", 1),
    ("name_changed", 2),
    ("call_to_service", 1 << 34),
    ("reply", 4),
    ("reply_error", 5),
    ("done_published", 7),
    ("pong", 9),
    ("name_changed_watch_lost", 2),
    ("acquired", 0),
    ("forget_topic", 0),
    ("forget_peer", 0),
];

/// What a truthful daemon would send, as an input of [`session`].
pub fn truthful_daemon() -> Vec<u8> {
    let vectors = vectors();
    let mut bytes = vec![1];
    for (name, correlation) in TRUTH {
        let vector = vectors.iter().find(|vector| vector.name == name).expect("the vector exists");
        bytes.extend(&vector.bytes[..16]);
        bytes.extend(u64::to_le_bytes(correlation));
        bytes.extend(&vector.bytes[24..]);
    }
    bytes
}

/// The first byte says whether the daemon has answered the hello before (bit 0); the rest is what it sends. Numbers of
/// requests below 16 stand for those that the session has sent, in that order.
pub fn session(data: &[u8]) {
    let Some((how, stream)) = data.split_first() else { return };
    let whole = conversation(how & 1 == 1, stream, usize::MAX);
    let pieces = conversation(how & 1 == 1, stream, 7);
    assert_eq!(whole, pieces, "the daemon means something else when its bytes arrive in pieces");
}

/// Has a conversation; gives everything that the session's user has seen.
fn conversation(is_greeted: bool, stream: &[u8], piece: usize) -> Vec<String> {
    let mut now = Instant::from_nanos(1_000_000_000);
    let mut session = Session::connect(Config { name: "test".into(), ..Config::default() }, now);
    if is_greeted {
        session.handle_input(now, &mut &welcome()[..]);
    }
    let Asked { tickets, subscription, watch } = requests(&mut session, now);
    let stream = addressed_to(&session, stream);
    let sent = usize::try_from(session.pending_bytes()).expect("it is in memory");
    session.transmitted(sent);
    let mut seen = Vec::new();
    for chunk in stream.chunks(piece.min(stream.len()).max(1)) {
        let mut input = chunk;
        session.handle_input(now, &mut input);
        assert!(input.is_empty(), "input is taken in whole");
    }
    serve(&mut session, &mut seen);
    now = now + Duration::from_secs(3600) + DEADLINE_GRACE;
    session.handle_timeout(now);
    session.handle_eof(None);
    assert_eq!(session.state(), State::Closed);
    while let Some(event) = session.poll_event() {
        seen.push(format!("{event:?}"));
    }
    while let Some(delivery) = session.next_delivery(subscription) {
        seen.push(format!("{delivery:?}"));
    }
    while let Some(change) = session.next_name_event(watch) {
        seen.push(format!("{change:?}"));
    }
    for ticket in tickets {
        let outcome = session.take(ticket);
        assert!(outcome.is_some(), "a request has no outcome although the conversation is over");
        seen.push(format!("{outcome:?}"));
        assert!(session.take(ticket).is_none(), "a request has two outcomes");
    }
    assert_eq!(session.open_requests(), 0);
    restarts(&mut session, now);
    seen
}

fn welcome() -> Vec<u8> {
    let welcome = Welcome {
        version: 1,
        features: 0,
        epoch: 1,
        peer: 5,
        payload_max_bytes: 1 << 20,
        handles_max: 16,
        pending_calls_max: 16,
        server: "test".into(),
    };
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, Header::new(Kind::WELCOME), &welcome, b"").expect("a welcome fits");
    bytes
}

/// What the user of the session waits for.
struct Asked {
    tickets: Vec<Ticket>,
    subscription: SubscriptionKey,
    watch: WatchKey,
}

/// Makes one request of each sort.
fn requests(session: &mut Session, now: Instant) -> Asked {
    let method = session.method("demo.title", "title").expect("a good name");
    let topic = session.topic("sensor.kitchen").expect("a good name");
    let options = CallOptions { deadline: Some(now + Duration::from_secs(5)), ..CallOptions::default() };
    let offer = Offer {
        service: ServiceName::parse("demo.echo").expect("a good name"),
        mode: RegisterMode::Group,
        queue: false,
        methods: vec![OfferedMethod {
            name: MethodName::parse("echo").expect("a good name"),
            description: String::new(),
        }],
    };
    let small =
        SubscribeOptions { queue_events_max: 4, queue_bytes_max: 4096, ..SubscribeOptions::default() };
    let (subscription, subscribed) = session.subscribe(now, "sensor.>", small).expect("the session is open");
    let (watch, watched) = session.watch_names(now, "demo.*").expect("the session is open");
    let tickets = vec![
        session.call(now, method, Payload::from("one"), options).expect("the session is open"),
        session.call(now, method, Payload::from("two"), CallOptions::default()).expect("the session is open"),
        session.publish(now, topic, Payload::from("three"), None).expect("the session is open"),
        subscribed,
        watched,
        session.register(now, offer).expect("the session is open").1,
        session.ping(now).expect("the session is open"),
    ];
    Asked { tickets, subscription, watch }
}

/// The stream with the small numbers replaced by those of the requests that wait to be written. What is no frame stays.
fn addressed_to(session: &Session, stream: &[u8]) -> Vec<u8> {
    let sent: Vec<u8> = session.transmit().flatten().copied().collect();
    let mut decoder = Decoder::after_preamble(LIMITS);
    let mut correlations = Vec::new();
    let mut input = &sent[..];
    while let Some(frame) = decoder.next(&mut input).expect("the session speaks the protocol") {
        correlations.push(frame.header.correlation);
    }
    let mut decoder = Decoder::new(LIMITS);
    let mut addressed = Vec::new();
    let mut rest = stream;
    let mut input = stream;
    while let Ok(Some(frame)) = decoder.next(&mut input) {
        let number = usize::try_from(frame.header.correlation).unwrap_or(usize::MAX);
        let correlation = correlations.get(number).copied().unwrap_or(frame.header.correlation);
        addressed.extend(frame.header.with_correlation(correlation).to_bytes());
        addressed.extend(frame.envelope);
        addressed.extend(frame.body.as_slice());
        rest = &stream[stream.len() - input.len()..];
    }
    addressed.extend(rest);
    addressed
}

/// Answers every call, and takes everything there is to take.
fn serve(session: &mut Session, seen: &mut Vec<String>) {
    while let Some(call) = session.poll_call() {
        seen.push(format!("{call:?}"));
        session.reply(call.key, Ok(call.payload));
    }
    assert_eq!(session.open_inbound(), 0, "a call was answered and is still open");
    let pending = usize::try_from(session.pending_bytes()).expect("it is in memory");
    assert_eq!(session.transmit().map(<[u8]>::len).sum::<usize>(), pending);
    session.transmitted(pending);
    assert_eq!(session.pending_bytes(), 0);
}

/// After all that the session can begin anew.
fn restarts(session: &mut Session, now: Instant) {
    session.restart(now);
    session.handle_input(now, &mut &welcome()[..]);
    assert_eq!(session.state(), State::Open, "{:?}", session.ended());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_reaches_the_user() {
        let seen = conversation(true, &truthful_daemon()[1..], usize::MAX);
        for wanted in [
            "Connected",
            "Incoming",
            "Ok(Event(",
            "Ok(Gap(Missed { topic: Some(",
            "Ok(Gap(Missed { topic: None",
            "Changed {",
            "Overflowed",
            "Some(Ok(Reply(",
            "Application",
            "Some(Ok(Published(",
            "Some(Ok(Registered {",
            "Some(Ok(Done))",
        ] {
            assert!(seen.iter().any(|line| line.contains(wanted)), "no {wanted} in {seen:#?}");
        }
        let unanswered = seen.iter().find(|line| {
            line.starts_with("Some(Err") && (line.contains("OutcomeUnknown") || line.contains("Unreachable"))
        });
        assert_eq!(unanswered, None, "{seen:#?}");
    }
}
