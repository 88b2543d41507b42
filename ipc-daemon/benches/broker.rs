//! What the broker itself costs, without sockets: a routed call with its reply, an event to ten subscribers, and a lock that
//! passes on from a holder that is lost.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipc_core::id::{Epoch, Handle};
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::time::Instant;
use ipc_core::wire::codec::{List, Wire};
use ipc_core::wire::coordination::{Claim, LockMode, Operation, TakeLock};
use ipc_core::wire::message::{
    Hello, MethodInfo, OnSlow, OpenTopic, Register, RegisterMode, Resolve, Subscribe,
};
use ipc_core::wire::{Decoder, Flags, FrameLimits, Header, Kind, encode_frame};
use ipc_daemon::broker::{Access, Broker, Config, Output, PeerKey, Policy, Transport};

const NOW: Instant = Instant::from_nanos(1_000_000_000);
const HANDLE: Handle = Handle { index: 0, generation: 1 };
const LIMITS: FrameLimits = FrameLimits { payload_max_bytes: 1 << 24, frame_max_bytes: None };

struct World {
    broker: Broker,
    scratch: Vec<u8>,
    /// When the last connection came: one user may make only so many in a second.
    connected_at: Instant,
}

impl World {
    fn new() -> Self {
        let config = Config {
            limits: Limits::default(),
            policy: Policy::open(Vec::new()),
            epoch: Epoch(1),
            server: "bench".to_owned(),
        };
        Self { broker: Broker::new(config), scratch: Vec::new(), connected_at: NOW }
    }

    fn connect(&mut self) -> PeerKey {
        let identity = Identity::Local { uid: 1, gid: 1, pid: 1 };
        self.connected_at = self.connected_at + Duration::from_millis(1);
        let now = self.connected_at;
        let peer = self.broker.connect(now, identity, Transport::UnixStream, Access::Granted).unwrap();
        let hello = Hello { version_min: 1, version_max: 1, features: 0, name: "bench".into() };
        self.send(peer, Header::new(Kind::HELLO), &hello, &[]);
        peer
    }

    /// Somebody new asks for the one lock and waits for it.
    fn queue_up(&mut self) -> PeerKey {
        let peer = self.connect();
        let claim = Claim { wait: true, ttl_us: 0, delay_us: 0, owner: 1, durability: None };
        let lock = TakeLock { name: "a".into(), mode: LockMode::Exclusive, claim };
        let mut header = Header::new(Kind::COORDINATE).with_correlation(1);
        header.handle.index = Operation::LOCK.0;
        self.send(peer, header, &lock, &[]);
        peer
    }

    fn send<T: Wire>(&mut self, peer: PeerKey, header: Header, envelope: &T, payload: &[u8]) {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, header, envelope, payload).unwrap();
        self.feed(peer, &bytes);
        self.flush();
    }

    fn feed(&mut self, peer: PeerKey, bytes: &[u8]) {
        let mut decoder = Decoder::new(LIMITS);
        let mut input = bytes;
        while let Some(frame) = decoder.next(&mut input).unwrap() {
            self.broker.handle_frame_of_batch(NOW, peer, frame);
        }
        self.broker.end_batch();
    }

    /// Writes everything and keeps what was written last.
    fn flush(&mut self) {
        while let Some(output) = self.broker.poll_output() {
            let Output::Flush(peer) = output else { continue };
            self.scratch.clear();
            for slice in self.broker.transmit(peer) {
                self.scratch.extend_from_slice(slice);
            }
            self.broker.transmitted(NOW, peer, self.scratch.len());
        }
    }
}

fn routed_call(criterion: &mut Criterion) {
    let mut world = World::new();
    let (service, client) = (world.connect(), world.connect());
    let method = MethodInfo { name: "m".into(), description: "".into() };
    let register = Register {
        service: "a.b".into(),
        mode: RegisterMode::Exclusive,
        queue: false,
        methods: List(vec![method]),
    };
    world.send(service, Header::new(Kind::REGISTER).with_correlation(1), &register, &[]);
    let resolve = Resolve { service: "a.b".into(), method: "m".into() };
    world.send(client, Header::new(Kind::RESOLVE).with_handle(HANDLE).with_correlation(1), &resolve, &[]);

    let mut call = Vec::new();
    let header = Header { deadline_us: 5_000_000, ..Header::new(Kind::CALL).with_handle(HANDLE) };
    encode_frame(&mut call, header.with_correlation(7), &(), &[0; 64]).unwrap();
    world.feed(client, &call);
    world.flush();
    let mut reply = Vec::new();
    criterion.bench_function("routed_call", |bencher| {
        bencher.iter(|| {
            let at_service = world.scratch.first_chunk().map(|bytes| Header::parse(bytes).unwrap());
            let correlation = at_service.map_or(0, |header| header.correlation);
            reply.clear();
            let header = Header::new(Kind::REPLY).with_correlation(correlation);
            encode_frame(&mut reply, header, &(), &[0; 64]).unwrap();
            world.feed(service, black_box(&reply));
            world.flush();
            world.feed(client, black_box(&call));
            world.flush();
        });
    });
}

fn fanout(criterion: &mut Criterion) {
    let mut world = World::new();
    let publisher = world.connect();
    for _ in 0..10 {
        let subscriber = world.connect();
        let subscribe = Subscribe {
            filter: "t".into(),
            on_slow: OnSlow::DropOldest,
            queue_events_max: 0,
            queue_bytes_max: 0,
        };
        world.send(subscriber, Header::new(Kind::SUBSCRIBE).with_correlation(1), &subscribe, &[]);
    }
    let open = OpenTopic { topic: "t".into() };
    world.send(publisher, Header::new(Kind::OPEN_TOPIC).with_handle(HANDLE).with_correlation(1), &open, &[]);
    let mut batch = Vec::new();
    let header = Header { flags: Flags::ONEWAY, ..Header::new(Kind::PUBLISH).with_handle(HANDLE) };
    for _ in 0..1000 {
        encode_frame(&mut batch, header, &(), &[0; 64]).unwrap();
    }
    let mut group = criterion.benchmark_group("fanout");
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("10x64", |bencher| {
        bencher.iter(|| {
            world.feed(publisher, black_box(&batch));
            world.flush();
        });
    });
    group.finish();
}

/// The holder is lost, the first of those who wait has the lock, and somebody else comes and waits.
fn hand_over(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hand_over");
    for waiters in [1, 1000] {
        let mut world = World::new();
        let mut line = VecDeque::new();
        for _ in 0..=waiters {
            line.push_back(world.queue_up());
        }
        group.bench_function(format!("{waiters}_waiters"), |bencher| {
            bencher.iter(|| {
                let holder = line.pop_front().expect("somebody holds it");
                world.broker.disconnect(black_box(holder));
                world.flush();
                line.push_back(world.queue_up());
            });
        });
    }
    group.finish();
}

criterion_group!(benches, routed_call, fanout, hand_over);
criterion_main!(benches);
