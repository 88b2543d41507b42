//! Events that come together: handled as one batch or one by one, every subscriber gets the same bytes.

use ipc_core::id::{Epoch, Handle};
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::time::Instant;
use ipc_core::wire::message::{OnSlow, OpenTopic, Subscribe};
use ipc_core::wire::{Decoder, Flags, FrameLimits, Header, Kind};
use ipc_daemon::broker::{Access, Broker, Config, PeerKey, Policy, Transport};
use ipc_tests::raw::{frame, greeting};
use ipc_tests::rng::{Rng, for_each_seed};

const NOW: Instant = Instant::from_nanos(1_000_000_000);
const LIMITS: FrameLimits = FrameLimits { payload_max_bytes: 1 << 20, frame_max_bytes: None };
const TOPICS: [&str; 2] = ["a", "b"];

/// A broker with one publisher and its subscribers.
struct Bus {
    broker: Broker,
    peers: Vec<PeerKey>,
    is_batching: bool,
}

impl Bus {
    fn new(limits: &Limits, peers: usize, is_batching: bool) -> Self {
        let policy = Policy::open(Vec::new());
        let config = Config { limits: limits.clone(), policy, epoch: Epoch(1), server: String::new() };
        let mut broker = Broker::new(config);
        let identity = Identity::Local { uid: 1, gid: 1, pid: 1 };
        let connect = |_| broker.connect(NOW, identity.clone(), Transport::UnixStream, Access::Granted);
        let peers = (0..peers).map(connect).collect::<Result<_, _>>().expect("there is room");
        Self { broker, peers, is_batching }
    }

    fn feed(&mut self, peer: usize, mut bytes: &[u8]) {
        let mut decoder = Decoder::new(LIMITS);
        while let Some(frame) = decoder.next(&mut bytes).expect("the frames are legal") {
            if self.is_batching {
                self.broker.handle_frame_of_batch(NOW, self.peers[peer], frame);
            } else {
                self.broker.handle_frame(NOW, self.peers[peer], frame);
            }
        }
        self.broker.end_batch();
        while self.broker.poll_output().is_some() {}
    }

    fn pending(&self, peer: usize) -> Vec<u8> {
        self.broker.transmit(self.peers[peer]).flatten().copied().collect()
    }

    /// The kernel takes so many bytes.
    fn take(&mut self, peer: usize, bytes: usize) {
        self.broker.writable(NOW, self.peers[peer]);
        self.broker.transmitted(NOW, self.peers[peer], bytes);
    }
}

fn publish(rng: &mut Rng, topic: u32) -> Vec<u8> {
    let handle = Handle { index: topic, generation: 1 };
    let size = if rng.chance(1, 50) { 9_000 } else { rng.length(300) };
    let payload = rng.bytes(size);
    let flags = if rng.chance(1, 20) { Flags::NONE } else { Flags::ONEWAY };
    let header = Header { flags, ..Header::new(Kind::PUBLISH).with_handle(handle) };
    frame(header.with_correlation(9), &(), &payload)
}

fn batch(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rng.between(1, 8) {
        if rng.chance(1, 6) {
            bytes.extend(frame(Header::new(Kind::PING).with_correlation(3), &(), &[]));
        }
        let topic = rng.below(2) as u32;
        for _ in 0..rng.between(1, 30) {
            bytes.extend(publish(rng, topic));
        }
    }
    bytes
}

fn subscribe(rng: &mut Rng) -> Vec<u8> {
    let filter = *rng.pick(&["a", "b", "*", ">"]);
    let subscribe = Subscribe {
        filter: filter.into(),
        on_slow: OnSlow::DropOldest,
        queue_events_max: rng.between(1, 40) as u32,
        queue_bytes_max: 0,
    };
    frame(Header::new(Kind::SUBSCRIBE).with_correlation(rng.between(1, 3)), &subscribe, &[])
}

#[test]
fn a_batch_gives_every_subscriber_the_bytes_of_single_events() {
    let mut longest = 0;
    for_each_seed(300, 30_000, |_, mut rng| {
        let queue_per_connection_max_bytes = *rng.pick(&[5_000, 40_000, 8 << 20]);
        let limits = Limits { queue_per_connection_max_bytes, ..Limits::default() };
        let count = rng.between(2, 7) as usize;
        let mut buses = [true, false].map(|is_batching| Bus::new(&limits, count, is_batching));
        let feed = |buses: &mut [Bus; 2], peer: usize, bytes: &[u8]| {
            buses.iter_mut().for_each(|bus| bus.feed(peer, bytes));
        };
        for peer in 0..count {
            feed(&mut buses, peer, &greeting("runs")[ipc_core::wire::PREAMBLE.len()..]);
            for _ in 0..rng.between(1, 2) {
                feed(&mut buses, peer, &subscribe(&mut rng));
            }
        }
        for (index, topic) in TOPICS.iter().enumerate() {
            let handle = Handle { index: index as u32, generation: 1 };
            let open = frame(
                Header::new(Kind::OPEN_TOPIC).with_handle(handle),
                &OpenTopic { topic: (*topic).into() },
                &[],
            );
            feed(&mut buses, 0, &open);
        }
        for _ in 0..20 {
            feed(&mut buses, 0, &batch(&mut rng));
            for peer in 0..count {
                let [one, other] = [0, 1].map(|bus: usize| buses[bus].pending(peer));
                assert!(one == other, "peer {peer}: {} and {} bytes", one.len(), other.len());
                longest = longest.max(one.len());
                let taken =
                    if rng.chance(1, 3) { rng.below(one.len() as u64 + 1) as usize } else { one.len() };
                buses.iter_mut().for_each(|bus| bus.take(peer, taken));
            }
            let [one, other] = [0, 1].map(|bus: usize| format!("{:?}", buses[bus].broker.status()));
            assert_eq!(one, other);
        }
    });
    assert!(longest > 1_000, "no queue was ever long: {longest}");
}
