//! Whole conversations with a daemon that is played by the test.

use core::time::Duration;

use super::*;
use crate::id::{Handle, PeerId};
use crate::identity::{Identity, Peer};
use crate::limits::DEADLINE_GRACE;
use crate::name::{MethodName, ServiceName};
use crate::payload::Payload;
use crate::wire::codec::Wire;
use crate::wire::message::*;
use crate::wire::{Flags, FrameLimits, encode_frame};

/// The daemon's end: it reads what the session writes and says what the test wants.
struct Pair {
    session: Session,
    decoder: Decoder,
    now: Instant,
    /// What the daemon has received.
    received: VecDeque<(Header, Vec<u8>, Vec<u8>)>,
    /// Input reaches the session in pieces of this size.
    piece: usize,
}

const LIMITS: FrameLimits = FrameLimits { payload_max_bytes: 1 << 20, frame_max_bytes: None };

fn welcome(epoch: u64) -> Welcome {
    Welcome {
        version: 1,
        features: 0,
        epoch,
        peer: 5,
        payload_max_bytes: 1 << 20,
        handles_max: 4,
        pending_calls_max: 3,
        server: "test".into(),
    }
}

fn caller() -> Peer {
    Peer { id: PeerId(9), identity: Identity::Local { uid: 1000, gid: 100, pid: 42 } }
}

impl Pair {
    fn greeting() -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let session = Session::connect(Config { name: "test".into(), ..Config::default() }, now);
        let decoder = Decoder::after_preamble(LIMITS);
        Self { session, decoder, now, received: VecDeque::new(), piece: usize::MAX }
    }

    fn open() -> Self {
        let mut pair = Self::greeting();
        pair.welcome(1);
        pair
    }

    fn welcome(&mut self, epoch: u64) {
        assert_eq!(self.next().kind, Kind::HELLO);
        self.say(Header::new(Kind::WELCOME), &welcome(epoch), b"");
        let mut events = std::iter::from_fn(|| self.session.poll_event());
        assert!(events.any(|event| matches!(event, Event::Connected { .. })));
        let info = PeerInfo::from(&caller());
        self.say(Header { sender: 7, ..Header::new(Kind::PEER_ANNOUNCED) }, &info, b"");
    }

    fn reconnect(&mut self, epoch: u64) {
        self.session.handle_eof(None);
        assert!(matches!(self.session.poll_event(), Some(Event::Closed(_))));
        self.session.restart(self.now);
        self.decoder = Decoder::after_preamble(LIMITS);
        self.received.clear();
        self.welcome(epoch);
    }

    /// Moves what the session has written to the daemon.
    fn flush(&mut self) {
        let bytes: Vec<u8> = self.session.transmit().flatten().copied().collect();
        self.session.transmitted(bytes.len());
        let mut input = &bytes[..];
        while let Some(frame) = self.decoder.next(&mut input).unwrap() {
            self.received.push_back((frame.header, frame.envelope.to_vec(), frame.body.as_slice().to_vec()));
        }
    }

    fn next_frame(&mut self) -> (Header, Vec<u8>, Vec<u8>) {
        self.flush();
        self.received.pop_front().expect("the session has sent a frame")
    }

    fn next(&mut self) -> Header {
        self.next_frame().0
    }

    fn nothing(&mut self) {
        self.flush();
        assert!(self.received.is_empty(), "{:?}", self.received);
    }

    fn say<T: Wire>(&mut self, header: Header, envelope: &T, payload: &[u8]) {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, header, envelope, payload).unwrap();
        for mut piece in bytes.chunks(self.piece.min(bytes.len())) {
            self.session.handle_input(self.now, &mut piece);
        }
    }

    fn done<T: Wire>(&mut self, correlation: u64, envelope: &T) {
        self.say(Header::new(Kind::DONE).with_correlation(correlation), envelope, b"");
    }

    fn refuse(&mut self, kind: Kind, correlation: u64, code: ErrorCode) {
        let header = Header { flags: Flags::ERROR, ..Header::new(kind).with_correlation(correlation) };
        self.say(header, &ErrorBody::from(&Error::new(code, "refused")), b"");
    }

    fn reply(&mut self, correlation: u64, payload: &[u8]) {
        let header = Header { sender: 7, ..Header::new(Kind::REPLY).with_correlation(correlation) };
        self.say(header, &(), payload);
    }

    fn call(&mut self, service: &str, deadline: Option<Duration>) -> Ticket {
        let method = self.session.method(service, "m").unwrap();
        let options =
            CallOptions { deadline: deadline.map(|deadline| self.now + deadline), traceparent: None };
        self.session.call(self.now, method, Payload::from("question"), options).unwrap()
    }

    fn outcome(&mut self, ticket: Ticket) -> Outcome {
        self.session.take(ticket).expect("the request has an outcome")
    }

    fn failure(&mut self, ticket: Ticket) -> ErrorCode {
        self.outcome(ticket).unwrap_err().code
    }

    /// A call whose handle is bound; its header on the wire.
    fn bound_call(&mut self, service: &str) -> (Ticket, Header) {
        let ticket = self.call(service, None);
        let resolve = self.next();
        assert_eq!(resolve.kind, Kind::RESOLVE);
        self.done(resolve.correlation, &());
        (ticket, self.next())
    }
}

fn offer() -> Offer {
    let method =
        |name: &str| OfferedMethod { name: MethodName::parse(name).unwrap(), description: String::new() };
    Offer {
        service: ServiceName::parse("demo.title").unwrap(),
        mode: RegisterMode::Exclusive,
        queue: false,
        methods: vec![method("title"), method("lower")],
    }
}

#[test]
fn a_call_is_pipelined_behind_hello_and_resolve() {
    let mut pair = Pair::greeting();
    let ticket = pair.call("a.b", Some(Duration::from_secs(2)));
    let kinds: Vec<Kind> = (0..3).map(|_| pair.next().kind).collect();
    assert_eq!(kinds, [Kind::HELLO, Kind::RESOLVE, Kind::CALL]);
    assert!(pair.session.take(ticket).is_none());
}

#[test]
fn a_call_gets_its_reply() {
    for piece in [1, 7, usize::MAX] {
        let mut pair = Pair::open();
        pair.piece = piece;
        let ticket = pair.call("a.b", Some(Duration::from_secs(2)));
        let (resolve, envelope, _) = pair.next_frame();
        let resolved: Resolve = crate::wire::codec::decode(&envelope).unwrap();
        assert_eq!((resolved.service.0.as_str(), resolved.method.0.as_str()), ("a.b", "m"));
        let (call, envelope, payload) = pair.next_frame();
        assert_eq!((call.kind, call.handle, call.deadline_us), (Kind::CALL, resolve.handle, 2_000_000));
        assert_eq!((envelope.len(), &payload[..]), (0, &b"question"[..]));
        pair.done(resolve.correlation, &());
        pair.reply(call.correlation, b"answer");
        assert_eq!(pair.session.poll_completed(), Some(ticket));
        let Ok(Answer::Reply(reply)) = pair.outcome(ticket) else { panic!("no reply") };
        assert_eq!((&reply.payload.body[..], reply.responder), (&b"answer"[..], caller()));
        // The second call needs no name.
        pair.call("a.b", None);
        assert_eq!(pair.next().kind, Kind::CALL);
        pair.nothing();
    }
}

#[test]
fn large_payloads_go_both_ways() {
    let mut pair = Pair::open();
    let method = pair.session.method("a.b", "m").unwrap();
    let body = vec![3; 100_000];
    let ticket =
        pair.session.call(pair.now, method, Payload::bytes(body.clone()), CallOptions::default()).unwrap();
    pair.next();
    let (call, _, payload) = pair.next_frame();
    assert!(payload == body);
    pair.piece = 10_000;
    pair.reply(call.correlation, &body);
    let Ok(Answer::Reply(reply)) = pair.outcome(ticket) else { panic!("no reply") };
    assert!(reply.payload.body == body);
}

#[test]
fn an_unknown_service_fails_what_was_sent_in_good_hope() {
    let mut pair = Pair::open();
    let tickets = [pair.call("a.b", None), pair.call("a.b", None)];
    let resolve = pair.next();
    let calls = [pair.next(), pair.next()];
    pair.refuse(Kind::DONE, resolve.correlation, ErrorCode::NoSuchService);
    for (ticket, call) in tickets.into_iter().zip(calls) {
        assert_eq!(pair.failure(ticket), ErrorCode::NoSuchService);
        pair.refuse(Kind::REPLY, call.correlation, ErrorCode::StaleHandle);
    }
    assert_eq!(pair.next().kind, Kind::RELEASE);
    pair.nothing();
    // The next call asks anew.
    pair.call("a.b", None);
    let again = pair.next();
    assert_eq!((again.kind, again.handle.generation), (Kind::RESOLVE, resolve.handle.generation + 1));
}

#[test]
fn a_stale_handle_is_bound_anew_and_the_call_sent_once_more() {
    let mut pair = Pair::open();
    let (ticket, call) = pair.bound_call("a.b");
    let (other, second) = (pair.call("a.b", None), pair.next());
    pair.refuse(Kind::REPLY, call.correlation, ErrorCode::StaleHandle);
    pair.refuse(Kind::REPLY, second.correlation, ErrorCode::StaleHandle);
    let frames: Vec<Header> = (0..4).map(|_| pair.next()).collect();
    let kinds: Vec<Kind> = frames.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [Kind::RELEASE, Kind::RESOLVE, Kind::CALL, Kind::CALL]);
    assert_eq!(frames[1].handle, frames[2].handle);
    assert_ne!(frames[1].handle, call.handle);
    assert_eq!(frames[2].correlation, call.correlation);
    pair.reply(call.correlation, b"late but fine");
    assert!(pair.outcome(ticket).is_ok());
    // There is no third time.
    pair.refuse(Kind::REPLY, frames[3].correlation, ErrorCode::StaleHandle);
    assert_eq!(pair.failure(other), ErrorCode::StaleHandle);
    pair.nothing();
}

#[test]
fn a_deadline_passes_even_if_the_daemon_is_silent() {
    let mut pair = Pair::open();
    let limit = Duration::from_secs(1);
    let ticket = pair.call("a.b", Some(limit));
    assert_eq!(pair.session.poll_timeout(), Some(pair.now + limit + DEADLINE_GRACE));
    pair.session.handle_timeout(pair.now + limit);
    assert!(pair.session.take(ticket).is_none());
    pair.session.handle_timeout(pair.now + limit + DEADLINE_GRACE);
    assert_eq!(pair.failure(ticket), ErrorCode::DeadlineExceeded);
    assert_eq!(pair.session.poll_timeout(), None);
    let method = pair.session.method("a.b", "m").unwrap();
    let options = CallOptions { deadline: Some(pair.now), traceparent: None };
    let refused = pair.session.call(pair.now, method, Payload::default(), options);
    assert_eq!(refused.unwrap_err().code, ErrorCode::DeadlineExceeded);
}

#[test]
fn an_abandoned_call_is_cancelled_and_its_reply_ignored() {
    let mut pair = Pair::open();
    let (ticket, call) = pair.bound_call("a.b");
    pair.session.abandon(ticket);
    let cancel = pair.next();
    assert_eq!((cancel.kind, cancel.correlation), (Kind::CANCEL, call.correlation));
    let (next, _) = (pair.call("a.b", None), pair.next());
    pair.refuse(Kind::REPLY, call.correlation, ErrorCode::Cancelled);
    assert!(pair.session.take(next).is_none());
    assert_eq!(pair.session.open_requests(), 1);
    pair.session.abandon(ticket);
    assert_eq!(pair.session.open_requests(), 1);
}

#[test]
fn open_calls_and_payloads_hold_the_daemons_limits() {
    let mut pair = Pair::open();
    for _ in 0..3 {
        pair.call("a.b", None);
    }
    let method = pair.session.method("a.b", "m").unwrap();
    let call = |pair: &mut Pair, bytes: usize| {
        pair.session.call(pair.now, method, Payload::bytes(vec![0; bytes]), CallOptions::default())
    };
    assert_eq!(call(&mut pair, 0).unwrap_err().code, ErrorCode::QuotaExceeded);
    let mut pair = Pair::open();
    let method = pair.session.method("a.b", "m").unwrap();
    for (bytes, fits) in [((1 << 20) - 1, true), (1 << 20, true), ((1 << 20) + 1, false)] {
        let called =
            pair.session.call(pair.now, method, Payload::bytes(vec![0; bytes]), CallOptions::default());
        assert_eq!(called.is_ok(), fits, "{bytes}");
    }
}

#[test]
fn the_least_recently_used_handle_makes_room() {
    let mut pair = Pair::open();
    for topic in ["t1", "t2", "t3", "t4"] {
        let topic = pair.session.topic(topic).unwrap();
        pair.session.publish_oneway(pair.now, topic, Payload::from("x"), None).unwrap();
        assert_eq!((pair.next().kind, pair.next().kind), (Kind::OPEN_TOPIC, Kind::PUBLISH));
    }
    let old = pair.session.topic("t1").unwrap();
    let fifth = pair.session.topic("t5").unwrap();
    assert!(!pair.session.knows(old));
    pair.session.publish_oneway(pair.now, fifth, Payload::from("x"), None).unwrap();
    let (release, open) = (pair.next(), pair.next());
    assert_eq!((release.kind, open.kind), (Kind::RELEASE, Kind::OPEN_TOPIC));
    assert_eq!((open.handle.index, open.handle.generation), (release.handle.index, 2));
    let refused = pair.session.publish_oneway(pair.now, old, Payload::from("x"), None);
    assert_eq!(refused.unwrap_err().code, ErrorCode::StaleHandle);
}

#[test]
fn a_lost_connection_gives_every_request_its_outcome() {
    let mut pair = Pair::open();
    let (sent, _) = pair.bound_call("a.b");
    let ping = pair.session.ping(pair.now).unwrap();
    pair.next();
    let unsent = pair.call("a.b", None);
    pair.session.transmitted(10);
    pair.session.handle_eof(Some("reading failed"));
    assert_eq!(pair.failure(sent), ErrorCode::OutcomeUnknown);
    assert_eq!(pair.failure(ping), ErrorCode::OutcomeUnknown);
    assert_eq!(pair.failure(unsent), ErrorCode::Unreachable);
    assert!(matches!(pair.session.poll_event(), Some(Event::Closed(_))));
    pair.session.handle_eof(None);
    assert!(pair.session.poll_event().is_none());
    assert_eq!(pair.session.open_requests(), 0);
    let method = pair.session.method("a.b", "m").unwrap();
    let refused = pair.session.call(pair.now, method, Payload::default(), CallOptions::default());
    assert_eq!(refused.unwrap_err().code, ErrorCode::Unreachable);
}

#[test]
fn calls_are_served() {
    let mut pair = Pair::open();
    let (key, ticket) = pair.session.register(pair.now, offer()).unwrap();
    let register = pair.next();
    pair.done(register.correlation, &Registered { registration: 77, queued: false });
    assert_eq!(pair.outcome(ticket), Ok(Answer::Registered { queued: false }));
    let call = |correlation: u64, method: u16| Header {
        sender: 7,
        deadline_us: 1000,
        ..Header::new(Kind::CALL)
            .with_correlation(correlation)
            .with_handle(Handle { index: 77, generation: method })
    };
    let envelope = Envelope { traceparent: Some("00-trace".into()), ..Envelope::default() };
    pair.say(call(500, 1), &envelope, b"hello");
    let incoming = pair.session.poll_call().unwrap();
    assert_eq!((incoming.registration, incoming.method, incoming.oneway), (key, 1, false));
    assert_eq!((&incoming.payload.body[..], &incoming.sender), (&b"hello"[..], &caller()));
    assert_eq!(incoming.deadline, Some(pair.now + Duration::from_millis(1)));
    assert_eq!(incoming.traceparent.as_deref(), Some("00-trace"));
    pair.session.reply(incoming.key, Ok(Payload::from("Hello")));
    let (reply, _, payload) = pair.next_frame();
    assert_eq!((reply.kind, reply.correlation, &payload[..]), (Kind::REPLY, 500, &b"Hello"[..]));
    pair.session.reply(incoming.key, Ok(Payload::from("again")));
    pair.nothing();

    // Cancelled while it is served, and before it was taken.
    pair.say(call(501, 0), &(), b"");
    let incoming = pair.session.poll_call().unwrap();
    pair.say(call(502, 0), &(), b"");
    pair.say(Header::new(Kind::CANCEL).with_correlation(501), &(), b"");
    pair.say(Header::new(Kind::CANCEL).with_correlation(502), &(), b"");
    assert!(matches!(pair.session.poll_event(), Some(Event::CallCancelled(key)) if key == incoming.key));
    assert!(pair.session.poll_call().is_none() && pair.session.poll_event().is_none());
    assert_eq!(pair.session.open_inbound(), 0);

    // Too large an answer is an error to the caller.
    pair.say(call(503, 0), &(), b"");
    let incoming = pair.session.poll_call().unwrap();
    pair.session.reply(incoming.key, Ok(Payload::bytes(vec![0; (1 << 20) + 1])));
    let (reply, envelope, _) = pair.next_frame();
    let body: ErrorBody = crate::wire::codec::decode(&envelope).unwrap();
    assert!(reply.flags.contains(Flags::ERROR));
    assert_eq!(body.code, ErrorCode::PayloadTooLarge.number());

    // One-way: counted until ended, never answered.
    pair.say(Header { flags: Flags::ONEWAY, ..call(0, 0) }, &(), b"");
    let incoming = pair.session.poll_call().unwrap();
    pair.session.reply(incoming.key, Ok(Payload::from("unwanted")));
    pair.nothing();

    pair.session.forget_registration(key);
    assert_eq!((pair.next().kind, pair.session.is_listening()), (Kind::UNREGISTER, false));
    pair.say(call(504, 0), &(), b"");
    assert!(pair.next().flags.contains(Flags::ERROR));
}

#[test]
fn a_registration_that_is_given_up_is_taken_back_when_it_comes() {
    let mut pair = Pair::open();
    let (_, ticket) = pair.session.register(pair.now, offer()).unwrap();
    let register = pair.next();
    pair.session.abandon(ticket);
    pair.done(register.correlation, &Registered { registration: 77, queued: false });
    let unregister = pair.next();
    assert_eq!((unregister.kind, unregister.handle.index), (Kind::UNREGISTER, 77));
}

fn subscribed(pair: &mut Pair, filter: &str) -> (SubscriptionKey, u64) {
    let (key, ticket) = pair.session.subscribe(pair.now, filter, SubscribeOptions::default()).unwrap();
    let subscribe = pair.next();
    pair.done(subscribe.correlation, &Subscribed { sequence: 3 });
    assert_eq!(pair.outcome(ticket), Ok(Answer::Done));
    (key, subscribe.correlation)
}

fn event(correlation: u64, sequence: u64) -> Header {
    let handle = Handle { index: 1_000_000, generation: 4 };
    Header {
        sender: 7,
        sequence,
        ..Header::new(Kind::EVENT).with_correlation(correlation).with_handle(handle)
    }
}

fn announce_topic(pair: &mut Pair, topic: &str) {
    let header = Header::new(Kind::TOPIC_ANNOUNCED).with_handle(event(0, 0).handle);
    pair.say(header, &TopicInfo { name: topic.into() }, b"");
}

#[test]
fn events_and_gaps_arrive_in_order() {
    let mut pair = Pair::open();
    let (key, correlation) = subscribed(&mut pair, "a.>");
    announce_topic(&mut pair, "a.b");
    pair.say(event(correlation, 4), &(), b"four");
    let gap = Header { kind: Kind::GAP, sender: 0, sequence: 0, ..event(correlation, 0) };
    pair.say(gap, &Gap { from: 5, to: 6, count: 2 }, b"");
    pair.say(gap.with_handle(Handle::MERGED), &Gap { from: 0, to: 0, count: 9 }, b"");
    assert!(matches!(pair.session.poll_event(), Some(Event::Delivered(at)) if at == key));
    assert!(pair.session.poll_event().is_none());
    let Some(Ok(Delivery::Event(received))) = pair.session.next_delivery(key) else { panic!("no event") };
    assert_eq!((received.topic.as_str(), received.sequence, received.sender), ("a.b", 4, caller()));
    let Some(Ok(Delivery::Gap(missed))) = pair.session.next_delivery(key) else { panic!("no gap") };
    assert_eq!((missed.topic.unwrap().as_str(), missed.from, missed.to, missed.count), ("a.b", 5, 6, 2));
    let Some(Ok(Delivery::Gap(missed))) = pair.session.next_delivery(key) else { panic!("no gap") };
    assert_eq!((missed.topic, missed.count), (None, 9));
    pair.session.forget_subscription(key);
    assert_eq!(pair.next().kind, Kind::UNSUBSCRIBE);
    pair.say(event(correlation, 5), &(), b"late");
    assert_eq!(pair.session.state(), State::Open);
}

#[test]
fn names_are_watched() {
    let mut pair = Pair::open();
    let (key, ticket) = pair.session.watch_names(pair.now, "demo.*").unwrap();
    let watch = pair.next().correlation;
    let header = Header { sender: 7, ..Header::new(Kind::NAME_CHANGED).with_correlation(watch) };
    let changed = |service: &str, change| NameChanged { service: service.into(), change };
    pair.say(header, &changed("demo.a", NameChange::Acquired), b"");
    pair.done(watch, &());
    assert_eq!(pair.outcome(ticket), Ok(Answer::Done));
    assert!(matches!(pair.session.poll_event(), Some(Event::NamesChanged(at)) if at == key));
    assert!(matches!(pair.session.next_name_event(key), Some(NameEvent::Changed { .. })));
    pair.say(header, &changed("", NameChange::WatchLost), b"");
    assert_eq!(pair.session.next_name_event(key), Some(NameEvent::Overflowed));
    pair.session.forget_watch(key);
    assert_eq!(pair.next().kind, Kind::UNWATCH_NAMES);
}

#[test]
fn a_restart_asks_again_and_says_what_was_lost() {
    let mut pair = Pair::open();
    let (subscription, correlation) = subscribed(&mut pair, "a.b");
    announce_topic(&mut pair, "a.b");
    pair.say(event(correlation, 4), &(), b"");
    let (registration, _) = pair.session.register(pair.now, offer()).unwrap();
    let register = pair.next();
    pair.done(register.correlation, &Registered { registration: 77, queued: false });
    let (watch, _) = pair.session.watch_names(pair.now, ">").unwrap();
    let watching = pair.next().correlation;
    pair.done(watching, &());
    let (lost, _) = pair.bound_call("a.b");
    while pair.session.poll_event().is_some() {}

    pair.reconnect(2);
    assert_eq!(pair.failure(lost), ErrorCode::OutcomeUnknown);
    let kinds: Vec<Kind> = (0..3).map(|_| pair.next().kind).collect();
    assert_eq!(kinds, [Kind::REGISTER, Kind::SUBSCRIBE, Kind::WATCH_NAMES]);
    pair.nothing();
    pair.done(register.correlation, &Registered { registration: 3, queued: false });
    pair.done(correlation, &Subscribed { sequence: 1 });
    let events: Vec<Event> = std::iter::from_fn(|| pair.session.poll_event()).collect();
    assert!(events.iter().any(|event| matches!(event, Event::Acquired(key) if *key == registration)));
    assert_eq!(pair.session.next_name_event(watch), Some(NameEvent::Restarted));
    let deliveries: Vec<_> = std::iter::from_fn(|| pair.session.next_delivery(subscription)).collect();
    let expected = Lost { epoch_changed: true, sequence_before: Some(4), sequence_after: 1 };
    assert_eq!(deliveries.len(), 2);
    assert_eq!(deliveries[1], Ok(Delivery::Lost(expected)));
    // Handles are bound anew, announcements of the old connection are gone.
    pair.call("a.b", None);
    assert_eq!((pair.next().kind, pair.next().kind), (Kind::RESOLVE, Kind::CALL));
    pair.say(event(correlation, 2), &(), b"");
    assert_eq!(pair.session.state(), State::Closed);
}

#[test]
fn what_cannot_be_had_again_after_a_restart_is_reported() {
    let mut pair = Pair::open();
    let (subscription, correlation) = subscribed(&mut pair, "a.b");
    let (registration, _) = pair.session.register(pair.now, offer()).unwrap();
    let register = pair.next();
    pair.done(register.correlation, &Registered { registration: 77, queued: false });
    pair.reconnect(1);
    pair.refuse(Kind::DONE, register.correlation, ErrorCode::NameTaken);
    pair.refuse(Kind::DONE, correlation, ErrorCode::QuotaExceeded);
    let events: Vec<Event> = std::iter::from_fn(|| pair.session.poll_event()).collect();
    assert!(matches!(&events[0], Event::RegistrationLost(key, error)
        if *key == registration && error.code == ErrorCode::NameTaken));
    assert!(matches!(pair.session.next_delivery(subscription), Some(Err(error))
        if error.code == ErrorCode::QuotaExceeded));
}

#[test]
fn nobody_answers_the_hello() {
    let mut pair = Pair::greeting();
    let ticket = pair.call("a.b", None);
    assert_eq!(pair.session.poll_timeout(), Some(pair.now + Duration::from_secs(5)));
    pair.session.handle_timeout(pair.now + Duration::from_secs(5));
    assert_eq!(pair.session.state(), State::Closed);
    assert_eq!(pair.failure(ticket), ErrorCode::Unreachable);
    assert_eq!(pair.session.ended().map(|error| error.code), Some(ErrorCode::Unreachable));
}

#[test]
fn a_refused_hello_is_the_outcome_of_what_followed_it() {
    let mut pair = Pair::greeting();
    let ticket = pair.call("a.b", None);
    pair.flush();
    let close = Close { code: ErrorCode::UnsupportedVersion.number(), message: "too old".into() };
    pair.say(Header::new(Kind::CLOSE), &close, b"");
    assert_eq!(pair.failure(ticket), ErrorCode::UnsupportedVersion);
    assert!(matches!(pair.session.poll_event(), Some(Event::Closed(_))));
}

#[test]
fn a_close_ends_what_is_open() {
    let mut pair = Pair::open();
    let (ticket, _) = pair.bound_call("a.b");
    pair.session.close();
    assert_eq!((pair.next().kind, pair.session.state()), (Kind::CLOSE, State::Closing));
    assert_eq!(pair.failure(ticket), ErrorCode::OutcomeUnknown);
    pair.session.close();
    pair.nothing();
    pair.session.handle_eof(None);
    assert!(
        matches!(pair.session.poll_event(), Some(Event::Closed(error)) if error.code == ErrorCode::Cancelled)
    );
}

#[test]
fn what_a_daemon_must_not_send_ends_the_conversation() {
    let unannounced = Header { sender: 99, ..Header::new(Kind::REPLY) };
    let frames = [
        Header::new(Kind::HELLO),
        Header::new(Kind::WELCOME),
        Header::new(Kind::SUBSCRIBE),
        Header::new(Kind(0xee)),
        Header::new(Kind::PEER_ANNOUNCED),
        Header::new(Kind::EVENT),
        Header::new(Kind::NAME_CHANGED),
        unannounced,
    ];
    for header in frames {
        let mut pair = Pair::open();
        let (ticket, call) = pair.bound_call("a.b");
        pair.say(header.with_correlation(call.correlation), &(), b"");
        assert_eq!(pair.session.state(), State::Closed, "{header:?}");
        assert_eq!(pair.failure(ticket), ErrorCode::OutcomeUnknown, "{header:?}");
        assert_eq!(pair.next().kind, Kind::CLOSE, "{header:?}");
        let ended = pair.session.ended().map(|error| error.code);
        assert_eq!(ended, Some(ErrorCode::ProtocolViolation), "{header:?}");
    }
}

#[test]
fn random_frames_never_panic_and_never_answer_twice() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    for _ in 0..20_000 {
        let mut pair = Pair::open();
        let (ticket, call) = pair.bound_call("a.b");
        let (_, subscription) = subscribed(&mut pair, "a.b");
        for _ in 0..3 {
            let kind = Kind::ALL[random(Kind::ALL.len() as u64) as usize];
            let correlation =
                [call.correlation, subscription, random(1 << 40), random(u64::MAX)][random(4) as usize];
            let header = Header {
                flags: [Flags::NONE, Flags::ERROR, Flags::ONEWAY][random(3) as usize],
                sender: [7, 0][random(2) as usize],
                handle: Handle { index: random(3) as u32, generation: random(3) as u16 },
                ..Header::new(kind).with_correlation(correlation)
            };
            let envelope: Vec<u8> = (0..random(12)).map(|_| random(256) as u8).collect();
            let mut bytes = header.to_bytes().to_vec();
            bytes[8..10].copy_from_slice(&(envelope.len() as u16).to_le_bytes());
            bytes.extend(envelope);
            pair.session.handle_input(pair.now, &mut &bytes[..]);
        }
        pair.session.handle_eof(None);
        assert!(pair.session.take(ticket).is_some());
        assert!(pair.session.take(ticket).is_none());
    }
}
