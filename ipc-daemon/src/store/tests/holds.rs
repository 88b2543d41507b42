//! What is held, over losses of power: a bus writes to a store, and another bus reads what is left of it.

use std::collections::BTreeMap;

use ipc_core::id::Epoch;
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::time::Instant;
use ipc_core::wire::codec::{self, Wire};
use ipc_core::wire::coordination::{
    Bind, Claim, Durability, Granted, Identified, Identify, LockMode, OfToken, Operation, TakeLease,
    TakeLock, TakenUp, Told,
};
use ipc_core::wire::message::Hello;
use ipc_core::wire::{Decoder, Flags, FrameLimits, Header, Kind, encode_frame};

use super::disk::{Disk, Kept};
use super::{Dice, open};
use crate::broker::{Access, Broker, Config, Output, PeerKey, Policy, Transport};
use crate::store::Store;

const NOW: Instant = Instant::from_nanos(1_000_000_000);
const LOCKS: u64 = 4;
const OURS: Identify = Identify { secret: *b"of this script's" };
const THEIRS: Identify = Identify { secret: *b"of somebody else" };

/// What a session has been told: its grants by token, with the name, none for a lease.
#[derive(Clone, Debug, Default)]
struct Known {
    held: BTreeMap<u64, String>,
    /// A crash may give it back to its session, which gives it up.
    given_back: BTreeMap<u64, String>,
    last: u64,
}

/// A bus that writes to a store, and what the sessions on it have received.
struct Bus {
    broker: Broker,
    store: Store,
    said: u64,
}

impl Bus {
    fn begin(disk: &Disk) -> Self {
        let policy = Policy::open(Vec::new());
        let config = Config { limits: Limits::default(), policy, epoch: Epoch(1), server: "test".to_owned() };
        let mut broker = Broker::new(config);
        let store = open(disk).expect("the store opens");
        let restored = store.read(|key, value| broker.restore(NOW, key, value).map_err(Trouble::Record));
        assert!(restored.is_ok(), "{restored:?}");
        broker.open_store(NOW).expect("the records fit together");
        let mut bus = Self { broker, store, said: 0 };
        bus.commit();
        bus
    }

    /// Writes all that is to be written.
    fn commit(&mut self) {
        while let Some(output) = self.broker.poll_output() {
            if output == Output::Commit {
                let commit = self.broker.take_commit().expect("a commit");
                let result = self.store.commit(&commit.writes);
                self.broker.handle_stored(NOW, commit.sequence, result);
            }
        }
    }

    fn say<T: Wire>(&mut self, from: PeerKey, header: Header, envelope: &T) -> Vec<(Header, Vec<u8>)> {
        let limits = FrameLimits { payload_max_bytes: u32::MAX, frame_max_bytes: None };
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, header, envelope, &[]).expect("a legal frame");
        let frame = Decoder::new(limits).next(&mut &bytes[..]).map(|frame| {
            self.broker.handle_frame(NOW, from, frame.expect("all of it"));
        });
        frame.expect("a legal frame");
        self.commit();
        let heard: Vec<u8> = self.broker.transmit(from).flatten().copied().collect();
        self.broker.transmitted(NOW, from, heard.len());
        let (mut decoder, mut rest, mut frames) = (Decoder::new(limits), &heard[..], Vec::new());
        while let Some(frame) = decoder.next(&mut rest).expect("legal frames") {
            frames.push((frame.header, frame.envelope.to_vec()));
        }
        frames
    }

    /// Asks for something, and gives its outcome, behind the notices that came before it.
    fn ask<T: Wire>(&mut self, from: PeerKey, operation: Operation, envelope: &T) -> Vec<(Header, Vec<u8>)> {
        self.said += 1;
        let mut header = Header::new(Kind::COORDINATE).with_correlation(self.said);
        header.handle.index = operation.0;
        let mut heard = self.say(from, header, envelope);
        heard.retain(|(header, _)| matches!(header.kind, Kind::OUTCOME | Kind::NOTICE));
        heard
    }

    /// A session, and what it is told that it holds.
    fn session(&mut self, secret: &Identify) -> (PeerKey, BTreeMap<u64, String>) {
        let identity = Identity::Local { uid: 1000, gid: 1000, pid: 1 };
        let access = Access::Granted;
        let peer = self.broker.connect(NOW, identity, Transport::UnixStream, access).expect("there is room");
        let hello = Hello { version_min: 1, version_max: 1, features: 0, name: "test".into() };
        self.say(peer, Header::new(Kind::HELLO), &hello);
        let mut heard = self.ask(peer, Operation::IDENTIFY, secret);
        let identified: Identified = decode(&heard.pop().expect("an outcome").1);
        let told = heard.iter().map(|(header, envelope)| {
            assert_eq!(header.handle.index, Told::TAKEN_UP.0);
            let TakenUp { token, name, .. } = decode(envelope);
            (token, name.0)
        });
        let told: BTreeMap<u64, String> = told.collect();
        assert_eq!(told.len(), identified.holds as usize);
        (peer, told)
    }

    /// Asks for something to hold, and gives its token, or none when somebody else has it.
    fn hold<T: Wire>(&mut self, from: PeerKey, operation: Operation, envelope: &T) -> Option<u64> {
        let (header, outcome) = self.ask(from, operation, envelope).pop().expect("an outcome");
        (!header.flags.contains(Flags::ERROR)).then(|| decode::<Granted>(&outcome).token)
    }
}

#[derive(Debug)]
enum Trouble {
    Record(#[expect(dead_code, reason = "it is shown")] ipc_core::Error),
    Store(#[expect(dead_code, reason = "it is shown")] crate::store::StoreError),
}

impl From<crate::store::StoreError> for Trouble {
    fn from(error: crate::store::StoreError) -> Self {
        Trouble::Store(error)
    }
}

fn decode<T: Wire>(envelope: &[u8]) -> T {
    codec::decode(envelope).expect("the envelope is what it says")
}

fn lock(name: &str) -> TakeLock {
    let durability = Some(Durability::Disk);
    let claim = Claim { wait: false, ttl_us: 0, delay_us: 0, owner: 0, durability };
    TakeLock { name: name.into(), mode: LockMode::Exclusive, claim }
}

/// What is known after each thing that a script was told.
fn script(bus: &mut Bus, disk: &Disk, dice: &mut Dice) -> Vec<Known> {
    let (peer, _) = bus.session(&OURS);
    let mut states = vec![Known::default()];
    disk.record();
    for _ in 0..30 {
        let mut known = states.last().expect("there is one").clone();
        let name = format!("l{}", dice.below(LOCKS));
        let of_name = known.held.iter().find(|(_, held)| **held == name).map(|(token, _)| *token);
        let granted = match (of_name, dice.below(8)) {
            (_, 0) => {
                let lease =
                    TakeLease { bind: Bind::Session, ttl_us: 60_000_000, durability: Some(Durability::Disk) };
                Some((bus.hold(peer, Operation::LEASE, &lease).expect("a lease"), String::new()))
            }
            (None, _) => Some((bus.hold(peer, Operation::LOCK, &lock(&name)).expect("it is free"), name)),
            (Some(token), _) => {
                let done = bus.ask(peer, Operation::RELEASE, &OfToken { token });
                assert!(!done[0].0.flags.contains(Flags::ERROR));
                let name = known.held.remove(&token).expect("it was held");
                known.given_back.insert(token, name);
                None
            }
        };
        if let Some((token, name)) = granted {
            assert!(token > known.last, "{token} after {known:?}");
            known.held.insert(token, name);
            known.last = token;
        }
        states.push(known);
        disk.acknowledge(states.len() - 1);
    }
    states
}

/// A bus on what a loss of power has left: the session has what it was told that it holds, and nobody else gets it.
fn check(image: Vec<u8>, states: &[Known], acknowledged: usize, what: &str) {
    let mut bus = Bus::begin(&Disk::with(image));
    let known = &states[acknowledged];
    let next = states.get(acknowledged + 1).unwrap_or(known);
    let (_, told) = bus.session(&OURS);
    // What it was just giving back may be gone already.
    for (token, name) in known.held.iter().filter(|(token, _)| next.held.contains_key(token)) {
        assert_eq!(told.get(token), Some(name), "{what}: token {token} was held");
    }
    for (token, name) in &told {
        let known = [&known.held, &known.given_back, &next.held, &next.given_back];
        assert!(known.iter().any(|known| known.get(token) == Some(name)), "{what}: {token} of {name} is new");
    }
    let (other, nothing) = bus.session(&THEIRS);
    assert!(nothing.is_empty(), "{what}: {nothing:?} is somebody else's");
    let mut last = known.last.max(told.keys().max().copied().unwrap_or(0));
    for number in 0..LOCKS {
        let name = format!("l{number}");
        let is_held = told.values().any(|held| *held == name);
        let token = bus.hold(other, Operation::LOCK, &lock(&name));
        assert_eq!(token.is_none(), is_held, "{what}: {name} is held: {told:?}");
        if let Some(token) = token {
            assert!(token > last, "{what}: token {token} after {last}");
            last = token;
        }
    }
}

#[test]
fn a_loss_of_power_at_any_moment_leaves_everybody_what_he_holds() {
    let seeds = if std::env::var_os("IPC_TEST_LONG").is_some() { 100 } else { 3 };
    let (mut whole, mut torn) = (0, 0);
    for seed in 0..seeds {
        let (disk, mut dice) = (Disk::default(), Dice(seed));
        let mut bus = Bus::begin(&disk);
        let states = script(&mut bus, &disk, &mut dice);
        assert!(states.iter().any(|known| known.held.len() > 2 && known.given_back.len() > 2));
        for (at, cut) in disk.cuts().iter().enumerate() {
            let what = format!("seed {seed}, moment {at}");
            check(cut.image(|_| Kept::Nothing), &states, cut.acknowledged, &what);
            check(cut.image(|_| Kept::All), &states, cut.acknowledged, &what);
            whole += 1;
            if cut.unsynced() == 0 {
                continue;
            }
            torn += 1;
            let image = cut.image(|_| match dice.below(3) {
                0 => Kept::All,
                1 => Kept::Torn(dice.below(256) as u8),
                _ => Kept::Nothing,
            });
            check(image, &states, cut.acknowledged, &what);
        }
    }
    assert!(whole > 50 && torn > 50, "the faults did not happen: {whole}, {torn}");
}
