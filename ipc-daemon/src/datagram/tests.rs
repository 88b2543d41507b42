//! A door with a bus behind it and couriers before it. What is lost, doubled or late is up to the test.

use core::time::Duration;

use ipc_core::ErrorCode;
use ipc_core::id::Epoch;
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::name::{MethodName, ServiceName};
use ipc_core::payload::Payload;
use ipc_core::session::courier::{self as client, Courier, RequestId, RequestOptions};
use ipc_core::session::{self, Answer, Incoming, Offer, OfferedMethod, Outcome, Session};
use ipc_core::time::Instant;
use ipc_core::wire::datagram::{Datagram, DatagramHeader, DatagramKind, encode_bare};
use ipc_core::wire::message::RegisterMode;
use ipc_core::wire::{Decoder, FrameLimits};

use super::window::REMEMBERED_FOR;
use super::*;
use crate::broker::{self, Access, Broker, Grant, PeerKey, Transport};

const EPOCH: Epoch = Epoch(0xabc);
const SECOND: Duration = Duration::from_secs(1);

/// A door, a bus, and a service on it that is played by the test.
struct Town {
    now: Instant,
    door: Door,
    broker: Broker,
    peers: BTreeMap<ClientKey, (PeerKey, Decoder)>,
    service: Session,
    service_key: PeerKey,
    service_decoder: Decoder,
    calls: Vec<Incoming>,
    /// What the door has sent and nobody has received.
    sent: VecDeque<Outgoing>,
}

impl Town {
    fn new(limits: Limits) -> Self {
        let now = Instant::from_nanos(100_000_000_000);
        let config = Config { limits: limits.clone(), epoch: EPOCH, cookie_key: [3, 4] };
        let mut broker = Broker::new(broker::Config {
            limits,
            policy: broker::Policy::open(vec![
                Grant::parse("call >").unwrap(),
                Grant::parse("publish >").unwrap(),
            ]),
            epoch: EPOCH,
            server: "test".to_owned(),
        });
        let identity = Identity::Local { uid: 1, gid: 1, pid: 1 };
        let service_key = broker.connect(now, identity, Transport::Internal, Access::Granted).unwrap();
        let mut service = Session::connect(config_of("service"), now);
        let offer = Offer {
            service: ServiceName::parse("a").unwrap(),
            mode: RegisterMode::Exclusive,
            queue: false,
            methods: vec![OfferedMethod {
                name: MethodName::parse("m").unwrap(),
                description: String::new(),
            }],
        };
        service.register(now, offer).unwrap();
        let service_decoder = decoder();
        let mut town = Self {
            now,
            door: Door::new(config),
            broker,
            peers: BTreeMap::new(),
            service,
            service_key,
            service_decoder,
            calls: Vec::new(),
            sent: VecDeque::new(),
        };
        town.settle();
        town
    }

    /// Lets everything flow inside the daemon.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            while let Some(output) = self.door.poll_output() {
                moved = true;
                self.obey(output);
            }
            moved |= self.serve();
            while self.broker.poll_output().is_some() {}
            let keys: Vec<(ClientKey, PeerKey)> =
                self.peers.iter().map(|(key, peer)| (*key, peer.0)).collect();
            for (key, peer) in keys {
                let bytes: Vec<u8> = self.broker.transmit(peer).flatten().copied().collect();
                if !bytes.is_empty() {
                    moved = true;
                    self.broker.transmitted(self.now, peer, bytes.len());
                    self.door.handle_input(self.now, key, &bytes);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn obey(&mut self, output: Output) {
        match output {
            Output::Connect(key) => {
                let identity = self.door.identity(key).unwrap();
                match self.broker.connect(self.now, identity, Transport::UnixDatagram, Access::Granted) {
                    Ok(peer) => drop(self.peers.insert(key, (peer, decoder()))),
                    Err(error) => self.door.refused(self.now, key, &error),
                }
            }
            Output::Transmit(key) => {
                let bytes: Vec<u8> = self.door.transmit(key).flatten().copied().collect();
                self.door.transmitted(key, bytes.len());
                if let Some((peer, decoder)) = self.peers.get_mut(&key) {
                    hand_over(&mut self.broker, decoder, *peer, self.now, &bytes);
                }
            }
            Output::Disconnect(key) => {
                if let Some((peer, _)) = self.peers.remove(&key) {
                    self.broker.disconnect(peer);
                }
            }
            Output::Send(outgoing) => self.sent.push_back(outgoing),
        }
    }

    /// Moves bytes between the bus and the service.
    fn serve(&mut self) -> bool {
        let up: Vec<u8> = self.service.transmit().flatten().copied().collect();
        self.service.transmitted(up.len());
        hand_over(&mut self.broker, &mut self.service_decoder, self.service_key, self.now, &up);
        let down: Vec<u8> = self.broker.transmit(self.service_key).flatten().copied().collect();
        self.broker.transmitted(self.now, self.service_key, down.len());
        self.service.handle_input(self.now, &mut &down[..]);
        self.calls.extend(std::iter::from_fn(|| self.service.poll_call()));
        !up.is_empty() || !down.is_empty()
    }

    /// The service answers every call that it has.
    fn answer(&mut self) {
        for call in core::mem::take(&mut self.calls) {
            self.service.reply(call.key, Ok(call.payload));
        }
        self.settle();
    }

    fn receive(&mut self, source: &Source, datagram: &[u8]) {
        self.door.handle_datagram(self.now, source.clone(), datagram);
        self.settle();
    }

    /// Everything that a courier has to say reaches the door, and the other way round.
    fn exchange(&mut self, courier: &mut Courier, source: &Source) {
        loop {
            let mut moved = false;
            while let Some(datagram) = send(courier, self.now) {
                moved = true;
                self.receive(source, &datagram);
            }
            for outgoing in core::mem::take(&mut self.sent) {
                if outgoing.to == *source {
                    moved = true;
                    courier.handle_datagram(self.now, &outgoing.datagram);
                } else {
                    self.sent.push_back(outgoing);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.door.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.door.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }

    fn counter(&self, name: &str) -> u64 {
        self.door.counters().into_iter().find(|(known, _)| *known == name).unwrap().1
    }
}

fn config_of(name: &str) -> session::Config {
    session::Config { name: name.to_owned(), preamble: false, ..session::Config::default() }
}

fn decoder() -> Decoder {
    Decoder::new(FrameLimits { payload_max_bytes: 1 << 20, frame_max_bytes: None })
}

fn hand_over(broker: &mut Broker, decoder: &mut Decoder, peer: PeerKey, now: Instant, mut bytes: &[u8]) {
    while let Some(frame) = decoder.next(&mut bytes).unwrap() {
        broker.handle_frame(now, peer, frame);
    }
}

fn send(courier: &mut Courier, now: Instant) -> Option<Vec<u8>> {
    let datagram = courier.transmit(now).map(<[u8]>::to_vec);
    if datagram.is_some() {
        courier.transmitted(now);
    }
    datagram
}

fn local(address: &str) -> Source {
    Source::Local { uid: 1, gid: 1, pid: 1, address: Some(address.as_bytes().into()) }
}

fn network(port: u16) -> Source {
    Source::Network(([127, 0, 0, 1], port).into())
}

fn courier(client: u32) -> Courier {
    Courier::new(client::Config { client, seed: 1, is_local: false })
}

fn call(town: &Town, courier: &mut Courier, text: &str, time: Duration) -> RequestId {
    let options = RequestOptions { deadline: town.now + time, traceparent: None };
    courier.call(town.now, "a", "m", &Payload::from(text), options).unwrap()
}

fn text(outcome: Option<Outcome>) -> String {
    match outcome {
        Some(Ok(Answer::Reply(reply))) => reply.payload.as_text().unwrap().to_owned(),
        other => panic!("{other:?}"),
    }
}

fn header_of(outgoing: &Outgoing) -> DatagramHeader {
    Datagram::parse(&outgoing.datagram).unwrap().header
}

/// A courier whose call has reached the door, with the datagram that did.
fn called(town: &mut Town, source: &Source) -> (Courier, RequestId, Vec<u8>) {
    let mut courier = courier(1);
    let id = call(town, &mut courier, "x", SECOND * 5);
    let hello = send(&mut courier, town.now).unwrap();
    town.receive(source, &hello);
    let challenge = town.sent.pop_front().unwrap();
    courier.handle_datagram(town.now, &challenge.datagram);
    let datagram = send(&mut courier, town.now).unwrap();
    town.receive(source, &datagram);
    (courier, id, datagram)
}

#[test]
fn a_call_runs_once_however_often_it_comes() {
    for source in [local("x"), network(1)] {
        let mut town = Town::new(Limits::default());
        let (mut courier, id, datagram) = called(&mut town, &source);
        let identity = town.calls[0].sender.identity.clone();
        assert_eq!(identity, source.identity());
        town.receive(&source, &datagram);
        assert_eq!((town.calls.len(), town.sent.len()), (1, 0), "while it runs");
        town.answer();
        let reply = town.sent.pop_front().unwrap();
        // The answer is lost; the client asks again.
        town.receive(&source, &datagram);
        assert_eq!((town.calls.len(), town.sent.len()), (0, 1));
        courier.handle_datagram(town.now, &town.sent[0].datagram.clone());
        courier.handle_datagram(town.now, &reply.datagram);
        assert_eq!(text(courier.take(id)), "x");
        assert_eq!((town.counter("datagrams_doubled"), town.counter("datagrams_answered_again")), (2, 1));
    }
}

#[test]
fn a_large_first_call_waits_for_the_bus_and_runs() {
    let mut town = Town::new(Limits::default());
    let mut courier = courier(1);
    let large = "x".repeat(60_000);
    let id = call(&town, &mut courier, &large, SECOND);
    town.exchange(&mut courier, &local("x"));
    town.answer();
    town.exchange(&mut courier, &local("x"));
    assert_eq!(text(courier.take(id)), large);
}

#[test]
fn nothing_runs_before_the_cookie_and_no_answer_is_longer_than_its_question() {
    let mut town = Town::new(Limits::default());
    let (_, _, good) = called(&mut town, &network(1));
    town.answer();
    town.sent.clear();
    let spoilt = |at: usize| {
        let mut datagram = good.clone();
        datagram[at] ^= 1;
        // Another request, so that it is not taken for the first one.
        datagram[40] += 1;
        datagram
    };
    let mut cases = vec![(network(2), good.clone()), (network(1), spoilt(24)), (network(1), spoilt(32))];
    let unknown = spoilt(16);
    let mut none = spoilt(16);
    none[16..32].fill(0);
    cases.push((network(1), none));
    for (source, datagram) in cases {
        town.receive(&source, &datagram);
        assert!(town.calls.is_empty());
        let answer = town.sent.pop_front().unwrap();
        assert_eq!((header_of(&answer).kind, answer.to), (DatagramKind::Challenge, source));
        assert!(answer.datagram.len() <= datagram.len());
    }
    town.receive(&network(1), &unknown);
    let refused = header_of(&town.sent.pop_front().unwrap());
    assert_eq!(refused.kind, DatagramKind::Refused);
    assert_eq!(refused.number, u32::from(ErrorCode::OutcomeUnknown.number()));
    assert_eq!(town.calls.len(), 0);
    // A later version is told that it is not spoken.
    let mut later = good.clone();
    later[4] = 2;
    town.receive(&network(1), &later);
    let refused = header_of(&town.sent.pop_front().unwrap());
    assert_eq!(refused.number, u32::from(ErrorCode::UnsupportedVersion.number()));
}

#[test]
fn what_is_no_datagram_is_counted() {
    let mut town = Town::new(Limits::default());
    let (_, _, good) = called(&mut town, &network(1));
    let mut trailing = good.clone();
    trailing.push(0);
    let mut from_a_daemon = encode_bare(DatagramHeader::new(DatagramKind::Challenge)).to_vec();
    from_a_daemon[24] = 9;
    for bad in
        [&[][..], &[0x89], &good[..47], &good[..good.len() - 1], &trailing, &[0xff; 70_000], &from_a_daemon]
    {
        town.receive(&network(1), bad);
    }
    assert_eq!((town.counter("datagrams_malformed"), town.sent.len(), town.calls.len()), (7, 0, 1));
    // A well-formed header around a malformed envelope is an outcome like any other.
    let mut bad = good.clone();
    bad[48] = 0xff;
    bad[40] += 1;
    town.receive(&network(1), &bad);
    let reply = town.sent.pop_front().unwrap();
    let body: ipc_core::wire::message::ErrorBody =
        Datagram::parse(&reply.datagram).unwrap().decode().unwrap();
    assert_eq!(body.code, ErrorCode::InvalidArgument.number());
}

#[test]
fn a_sender_without_an_address_can_publish_and_nothing_else() {
    let mut town = Town::new(Limits::default());
    let source = Source::Local { uid: 1, gid: 1, pid: 9, address: None };
    let mut local = Courier::new(client::Config { client: 1, seed: 1, is_local: true });
    local.publish_oneway("t", &Payload::from("x"), None).unwrap();
    let event = send(&mut local, town.now).unwrap();
    town.receive(&source, &event);
    let published = town.broker.status().counters.into_iter().find(|(name, _)| *name == "events_published");
    assert_eq!(published, Some(("events_published", 1)));
    call(&town, &mut local, "x", SECOND);
    let hello = send(&mut local, town.now).unwrap();
    town.receive(&source, &hello);
    assert_eq!((town.sent.len(), town.counter("datagrams_unaddressed")), (0, 1));
    // From the network an event needs a cookie too.
    town.receive(&network(1), &event);
    assert_eq!(header_of(&town.sent[0]).kind, DatagramKind::Challenge);
}

#[test]
fn one_way_requests_run_once_too() {
    let mut town = Town::new(Limits::default());
    let (mut courier, _, _) = called(&mut town, &network(1));
    let options = |town: &Town| RequestOptions { deadline: town.now + SECOND, traceparent: None };
    let mut datagrams = Vec::new();
    for _ in 0..3 {
        courier.call_oneway(town.now, "a", "m", &Payload::from("y"), options(&town)).unwrap();
        datagrams.push(send(&mut courier, town.now).unwrap());
    }
    for at in [2, 2, 0, 0, 2] {
        town.receive(&network(1), &datagrams[at]);
    }
    assert_eq!(town.calls.len(), 3, "the first call and two of these");
    let counters =
        ["datagrams_doubled", "datagrams_reordered", "datagrams_lost"].map(|name| town.counter(name));
    assert_eq!(counters, [3, 1, 1]);
}

#[test]
fn below_the_low_water_mark_nothing_is_run() {
    let mut town = Town::new(Limits::default());
    let source = network(1);
    let (mut courier, id, _) = called(&mut town, &source);
    let late = call(&town, &mut courier, "late", SECOND);
    let late_datagram = send(&mut courier, town.now).unwrap();
    courier.abandon(late);
    town.answer();
    town.exchange(&mut courier, &source);
    assert_eq!(text(courier.take(id)), "x");
    // The cancel came first, so the call is not run when it comes.
    town.receive(&source, &late_datagram);
    assert_eq!((town.calls.len(), town.counter("datagrams_doubled")), (0, 1));
    call(&town, &mut courier, "next", SECOND);
    town.exchange(&mut courier, &source);
    assert_eq!(town.calls.len(), 1);
    town.receive(&source, &late_datagram);
    assert_eq!((town.calls.len(), town.counter("datagrams_late")), (1, 1));
}

#[test]
fn a_cancelled_call_is_cancelled_at_its_service() {
    let mut town = Town::new(Limits::default());
    let source = local("x");
    let (mut courier, id, _) = called(&mut town, &source);
    courier.abandon(id);
    town.exchange(&mut courier, &source);
    let key = town.calls[0].key;
    assert!(!town.service.is_wanted(key));
}

#[test]
fn a_request_is_remembered_for_its_time_and_then_not_run_again() {
    let mut town = Town::new(Limits::default());
    let source = network(1);
    let (mut courier, id, datagram) = called(&mut town, &source);
    town.answer();
    town.exchange(&mut courier, &source);
    assert_eq!(text(courier.take(id)), "x");
    town.pass(SECOND * 5 + REMEMBERED_FOR - SECOND);
    assert_eq!(town.door.remembered().0, 1);
    town.pass(SECOND * 2);
    assert_eq!(town.door.remembered(), (0, 0));
    for _ in 0..100 {
        town.receive(&source, &datagram);
        assert_eq!(town.calls.len(), 0);
        town.pass(SECOND * 3);
    }
    // At the end not even its client is remembered, and its cookie is good for nothing.
    assert_eq!(town.door.clients(), 0);
    assert!(town.counter("datagrams_late") > 0 && town.counter("datagrams_challenged") > 0);
    assert_eq!(town.broker.connections(), 1, "only the service");
}

#[test]
fn a_full_table_refuses_and_forgets_nothing() {
    let limits = Limits {
        datagram_clients_max: 2,
        datagram_requests_per_client_max: 3,
        datagram_requests_max: 4,
        ..Limits::default()
    };
    let mut town = Town::new(limits);
    let quota = u32::from(ErrorCode::QuotaExceeded.number());
    // Of one client: two fit beside the first, the next does not.
    let (mut first, _, datagram) = called(&mut town, &network(1));
    let more = |town: &mut Town, number: u8| {
        let mut datagram = datagram.clone();
        datagram[40] = number;
        datagram[36] = number - 1;
        town.receive(&network(1), &datagram);
        town.calls.len()
    };
    assert_eq!((more(&mut town, 2), more(&mut town, 3), more(&mut town, 4)), (2, 3, 3));
    assert_eq!(header_of(&town.sent.pop_front().unwrap()).number, quota);
    town.answer();
    town.sent.clear();
    assert_eq!((more(&mut town, 4), more(&mut town, 1), more(&mut town, 3)), (0, 0, 0));
    // In all: one fits beside those three.
    let mut others = [courier(1), courier(2)];
    call(&town, &mut others[0], "b", SECOND);
    call(&town, &mut others[0], "c", SECOND);
    town.exchange(&mut others[0], &network(2));
    assert_eq!(town.calls.len(), 1);
    // Senders: a third is not let in.
    call(&town, &mut others[1], "d", SECOND);
    town.exchange(&mut others[1], &network(3));
    assert_eq!((town.calls.len(), town.door.clients()), (1, 2));
    assert!(town.counter("datagrams_refused") >= 4);
    // A client that moves on makes room.
    first.close();
    while let Some(datagram) = send(&mut first, town.now) {
        town.receive(&network(1), &datagram);
    }
    assert_eq!(town.door.remembered().0, 3, "it has the first outcome");
}

#[test]
fn outcomes_are_kept_within_their_bounds() {
    let limits = Limits { datagram_kept_per_client_max_bytes: 65_536, ..Limits::default() };
    let mut town = Town::new(limits);
    let source = network(1);
    let mut courier = courier(1);
    let large = "x".repeat(40_000);
    let first = call(&town, &mut courier, &large, SECOND);
    let second = call(&town, &mut courier, &large, SECOND);
    while let Some(datagram) = send(&mut courier, town.now) {
        town.receive(&source, &datagram);
        for outgoing in core::mem::take(&mut town.sent) {
            courier.handle_datagram(town.now, &outgoing.datagram);
        }
    }
    town.answer();
    // Both outcomes are sent and lost; the second was not kept.
    assert_eq!((town.sent.len(), town.counter("datagrams_outcomes_dropped")), (2, 1));
    town.sent.clear();
    for _ in 0..3 {
        let Some(due) = courier.poll_timeout() else { break };
        town.now = due;
        courier.handle_timeout(town.now);
        town.exchange(&mut courier, &source);
    }
    let mut outcomes = [courier.take(first), courier.take(second)];
    outcomes.sort_by_key(|outcome| outcome.as_ref().unwrap().is_err());
    let [kept, dropped] = outcomes;
    assert_eq!(text(kept), large);
    assert_eq!(dropped.unwrap().unwrap_err().code, ErrorCode::OutcomeUnknown);
}

#[test]
fn an_outcome_is_kept_up_to_the_last_byte() {
    let length = {
        let mut town = Town::new(Limits::default());
        called(&mut town, &network(1));
        town.answer();
        town.sent[0].datagram.len()
    };
    for (most, is_kept) in [(length - 1, false), (length, true), (length + 1, true)] {
        let most = most as u32;
        for limits in [
            Limits { datagram_kept_per_client_max_bytes: most, ..Limits::default() },
            Limits { datagram_kept_max_bytes: most, ..Limits::default() },
        ] {
            let mut town = Town::new(limits);
            called(&mut town, &network(1));
            town.answer();
            assert_eq!(town.sent.len(), 1, "it is sent in any case");
            assert_eq!(town.door.remembered(), (1, if is_kept { length } else { 0 }), "{most}");
        }
    }
}

#[test]
fn an_outcome_that_fits_no_datagram_is_said_to() {
    let mut town = Town::new(Limits::default());
    let (mut courier, id, _) = called(&mut town, &network(1));
    for call in core::mem::take(&mut town.calls) {
        town.service.reply(call.key, Ok(Payload::bytes(vec![0; 70_000])));
    }
    town.settle();
    town.exchange(&mut courier, &network(1));
    let error = courier.take(id).unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::PayloadTooLarge);
    assert!(error.message.contains("has run"), "{error}");
}

#[test]
fn a_client_that_never_reads_holds_little() {
    let mut town = Town::new(Limits::default());
    let source = local("x");
    let (_, _, datagram) = called(&mut town, &source);
    for number in 2..=50 {
        let mut datagram = datagram.clone();
        datagram[40] = number;
        datagram[36] = number - 1;
        town.receive(&source, &datagram);
    }
    town.answer();
    assert_eq!(town.sent.len(), 2);
    // The system does not take even those.
    let mut offered = 0;
    for _ in 0..100 {
        for outgoing in core::mem::take(&mut town.sent) {
            offered += 1;
            town.door.unsent(town.now, outgoing.receipt.unwrap());
        }
        town.pass(Duration::from_millis(100));
    }
    assert!((5..=30).contains(&offered), "{offered}");
    assert_eq!(town.counter("datagrams_unread"), 50);
}

#[test]
fn who_the_bus_does_not_let_in_is_told_why() {
    let mut town = Town::new(Limits { connections_max: 1, ..Limits::default() });
    let (mut courier, id, _) = called(&mut town, &local("x"));
    town.exchange(&mut courier, &local("x"));
    assert_eq!(courier.take(id).unwrap().unwrap_err().code, ErrorCode::QuotaExceeded);
}

#[test]
fn a_daemon_that_stops_answers_what_is_open_and_takes_nothing_new() {
    let mut town = Town::new(Limits::default());
    let source = local("x");
    let (mut courier, id, _) = called(&mut town, &source);
    town.door.begin_drain();
    let new = call(&town, &mut courier, "y", SECOND);
    town.exchange(&mut courier, &source);
    assert_eq!(courier.take(new).unwrap().unwrap_err().code, ErrorCode::ShuttingDown);
    town.broker.begin_drain();
    town.broker.end_drain();
    town.settle();
    town.exchange(&mut courier, &source);
    assert_eq!(courier.take(id).unwrap().unwrap_err().code, ErrorCode::ShuttingDown);
}

#[test]
fn an_acknowledged_event_has_its_number() {
    let mut town = Town::new(Limits::default());
    let mut courier = courier(1);
    let options = RequestOptions { deadline: town.now + SECOND, traceparent: None };
    let id = courier.publish(town.now, "t", &Payload::from("x"), options).unwrap();
    town.exchange(&mut courier, &network(1));
    assert!(matches!(courier.take(id), Some(Ok(Answer::Published(_)))));
}
