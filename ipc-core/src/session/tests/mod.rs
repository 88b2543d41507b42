//! Whole conversations with a daemon that is played by the test.

mod calls;
mod endings;
mod listening;
mod tenure;

use core::time::Duration;

use super::*;
use crate::id::{Handle, PeerId};
use crate::identity::{Identity, Peer};
use crate::limits::{DEADLINE_GRACE, TRACEPARENT_MAX_BYTES};
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
            CallOptions { deadline: deadline.map(|deadline| self.now + deadline), ..CallOptions::default() };
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
