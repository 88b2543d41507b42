//! A door for datagrams with a bus behind it and couriers before it. What is lost, doubled or late is up to the test.

mod bounds;
mod calls;

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use ipc_core::ErrorCode;
use ipc_core::id::Epoch;
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::name::{MethodName, ServiceName, TopicName};
use ipc_core::payload::Payload;
use ipc_core::session::courier::{self as client, Courier, RequestId, RequestOptions};
use ipc_core::session::{self, Answer, Incoming, Offer, OfferedMethod, Outcome, Session};
use ipc_core::time::Instant;
use ipc_core::wire::datagram::{Datagram, DatagramHeader, DatagramKind, encode_bare};
use ipc_core::wire::message::RegisterMode;
use ipc_core::wire::{Decoder, FrameLimits};

use ipc_daemon::broker::{self, Access, Broker, Grant, PeerKey, Transport};
use ipc_daemon::datagram::{ClientKey, Config, Door, Outgoing, Output, Source};

const EPOCH: Epoch = Epoch(0xabc);
const SECOND: Duration = Duration::from_secs(1);

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

fn method(name: &str) -> MethodName {
    MethodName::parse(name).unwrap()
}

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

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
    courier.call(town.now, &service("a"), &method("m"), &Payload::from(text), options).unwrap()
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
