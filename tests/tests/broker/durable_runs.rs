//! Keys on a disk that is slow, full, fails and is started anew, against the obvious line of requests and the obvious map; in
//! random runs, each from one seed.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use ipc_core::ErrorCode;
use ipc_core::limits::Limits;
use ipc_core::time::Instant;
use ipc_core::wire::Kind;
use ipc_core::wire::codec::List;
use ipc_core::wire::coordination::{
    ChangeKind, Changed, Condition, DeleteKey, Durability, GetKey, Got, KeyChanged, ListKeys, Listed,
    Operation, PutKey, Selection, Step, StepAct, Told, Transact, Transacted, WatchKeys,
};
use ipc_daemon::broker::Fault;
use ipc_tests::disk::Disk;
use ipc_tests::rng::{Rng, for_each_seed};

use crate::coordination::Scene;

const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const CLIENTS: usize = 3;

/// What is asked of one key.
#[derive(Clone, Debug)]
struct Ask {
    key: &'static str,
    condition: Condition,
    /// `None` deletes it.
    value: Option<Vec<u8>>,
}

/// A request that has no outcome yet.
#[derive(Clone, Debug)]
struct Asked {
    client: usize,
    correlation: u64,
    operation: Operation,
    asks: Vec<Ask>,
    durability: Durability,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    revision: u64,
    value: Vec<u8>,
    durability: Durability,
    /// False for what was found after a restart and never acknowledged: nobody was told how it is kept.
    is_told: bool,
}

/// What is told of a key: its revision, and its value if it is there.
type Change = (u64, String, Option<Vec<u8>>);

#[derive(Debug)]
struct Watch {
    client: usize,
    correlation: u64,
    from: u64,
    told: Vec<Change>,
}

/// What has happened at all, over all runs: a fault that never fired proves nothing.
#[derive(Debug, Default)]
struct Coverage {
    full: u64,
    dead: u64,
    restarts: u64,
    found_unanswered: u64,
    resumed: u64,
    compacted: u64,
}

struct World<'a> {
    scene: Scene,
    clients: Vec<usize>,
    line: VecDeque<Asked>,
    entries: BTreeMap<String, Entry>,
    changes: Vec<Change>,
    watches: Vec<Watch>,
    last: u64,
    is_dead: bool,
    coverage: &'a mut Coverage,
}

impl<'a> World<'a> {
    fn new(coverage: &'a mut Coverage) -> Self {
        let mut world = Self {
            scene: Scene::with_disk(Limits::default(), Instant::from_nanos(1_000_000_000), Disk::default()),
            clients: Vec::new(),
            line: VecDeque::new(),
            entries: BTreeMap::new(),
            changes: Vec::new(),
            watches: Vec::new(),
            last: 0,
            is_dead: false,
            coverage,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.disk().holds = true;
        self.clients = (0..CLIENTS).map(|_| self.scene.client()).collect();
    }

    fn disk(&mut self) -> &mut Disk {
        self.scene.bus.disk.as_mut().expect("a disk")
    }

    fn step(&mut self, rng: &mut Rng) {
        let client = *rng.pick(&self.clients);
        match rng.below(40) {
            0..=15 => self.ask(rng, client),
            16..=27 => drop(self.scene.bus.finish_commit()),
            28..=31 => self.get(rng, client),
            32 | 33 => self.list(client),
            34 => self.watch(client),
            35 => {
                let is_full = self.disk().fault.is_some();
                self.disk().fault = (!is_full).then(|| Fault::Full("no room".to_owned()));
            }
            36 if rng.chance(1, 4) => self.disk().fault = Some(Fault::Dead("the sync failed".to_owned())),
            37 if rng.chance(1, 3) => self.restart(rng),
            _ => self.scene.bus.wait(Duration::from_millis(rng.below(700))),
        }
        self.hear();
    }

    fn ask(&mut self, rng: &mut Rng, client: usize) {
        let durability = *rng.pick(&[Durability::Memory, Durability::Os, Durability::Disk, Durability::Disk]);
        let mut keys = KEYS.to_vec();
        let count = if rng.chance(1, 4) { 2 } else { 1 };
        let mut asks = Vec::new();
        for _ in 0..count {
            let key = keys.remove(rng.index(keys.len()));
            let revision = self.entries.get(key).map_or(7, |entry| entry.revision);
            let condition = *rng.pick(&[
                Condition::Any,
                Condition::Any,
                Condition::Absent,
                Condition::Revision { revision },
            ]);
            let value = rng.chance(3, 4).then(|| rng.bytes(8));
            asks.push(Ask { key, condition, value });
        }
        let (operation, correlation) = self.send(client, &asks, durability);
        self.line.push_back(Asked { client, correlation, operation, asks, durability });
    }

    fn send(&mut self, client: usize, asks: &[Ask], durability: Durability) -> (Operation, u64) {
        let durability = Some(durability);
        let scene = &mut self.scene;
        match asks {
            [Ask { key, condition, value: Some(value) }] => {
                let (key, condition) = ((*key).into(), *condition);
                let put = PutKey { key, condition, ttl_us: 0, lease: 0, fence: None, durability };
                (Operation::PUT, scene.ask(client, Operation::PUT, &put, value))
            }
            [Ask { key, condition, value: None }] => {
                let delete = DeleteKey { key: (*key).into(), condition: *condition, fence: None, durability };
                (Operation::DELETE, scene.ask(client, Operation::DELETE, &delete, b""))
            }
            several => {
                let values: Vec<u8> = several.iter().filter_map(|ask| ask.value.clone()).flatten().collect();
                let steps = several.iter().map(|ask| Step {
                    key: ask.key.into(),
                    condition: ask.condition,
                    act: match &ask.value {
                        Some(value) => {
                            StepAct::Put { ttl_us: 0, lease: 0, kind: 0, length: value.len() as u32 }
                        }
                        None => StepAct::Delete,
                    },
                });
                let transact = Transact { steps: List(steps.collect()), fence: None, durability };
                (Operation::TRANSACT, scene.ask(client, Operation::TRANSACT, &transact, &values))
            }
        }
    }

    /// Takes every outcome that has come. They come in the order of the requests, except for what the disk did not take.
    fn hear(&mut self) {
        let mut at = 0;
        while at < self.line.len() {
            let Asked { client, correlation, operation, .. } = self.line[at].clone();
            let Some(outcome) = self.scene.take_outcome(client, operation, correlation) else {
                at += 1;
                continue;
            };
            let asked = self.line.remove(at).expect("it is there");
            match outcome {
                Ok(done) => {
                    assert_eq!(at, 0, "{asked:?} has its outcome before those that were asked before");
                    let (revisions, durability) = if operation == Operation::TRANSACT {
                        let Transacted { revisions, durability } = done.decode();
                        (revisions.0, durability)
                    } else {
                        let KeyChanged { revision, durability } = done.decode();
                        (vec![revision], durability)
                    };
                    self.apply(&asked, &revisions, durability);
                }
                Err(body) => {
                    let code = ErrorCode::from_number(body.code).expect("a known code");
                    if code == ErrorCode::StorageFailed {
                        self.count_refusal(&asked);
                    } else {
                        assert_eq!(at, 0, "{asked:?} has its outcome before those that were asked before");
                        assert_eq!(Some(code), self.refusal(&asked), "{asked:?}");
                    }
                }
            }
        }
        self.hear_watches();
    }

    fn count_refusal(&mut self, asked: &Asked) {
        let is_kept = asked.durability > Durability::Memory
            || asked.asks.iter().any(|ask| self.durability_of(ask.key) > Durability::Memory);
        assert!(is_kept, "{asked:?} has nothing to do with the disk");
        match self.disk().fault {
            Some(Fault::Full(_)) => self.coverage.full += 1,
            Some(Fault::Dead(_)) => {
                self.is_dead = true;
                self.coverage.dead += 1;
            }
            // It was refused at once, because of a failure before.
            None => assert!(self.is_dead, "{asked:?} was refused by a disk that works"),
        }
    }

    fn durability_of(&self, key: &str) -> Durability {
        self.entries.get(key).map_or(Durability::Memory, |entry| entry.durability)
    }

    /// What the request is refused with, as things are.
    fn refusal(&self, asked: &Asked) -> Option<ErrorCode> {
        for ask in &asked.asks {
            let is = self.entries.get(ask.key).map(|entry| entry.revision);
            let holds = match ask.condition {
                Condition::Any => true,
                Condition::Absent => is.is_none(),
                Condition::Revision { revision } => is == Some(revision),
            };
            if !holds {
                return Some(ErrorCode::RevisionMismatch);
            }
            if ask.value.is_none() && is.is_none() {
                return Some(ErrorCode::NoSuchKey);
            }
        }
        None
    }

    fn apply(&mut self, asked: &Asked, revisions: &[u64], durability: Durability) {
        assert_eq!(self.refusal(asked), None, "{asked:?}");
        let before = asked.asks.iter().filter_map(|ask| self.entries.get(ask.key));
        let least = before.clone().map(|entry| entry.durability).chain([asked.durability]).max();
        assert!(Some(durability) >= least, "{asked:?} is kept as {durability:?}");
        if before.clone().all(|entry| entry.is_told) {
            assert_eq!(Some(durability), least, "{asked:?}");
        }
        for (ask, revision) in asked.asks.iter().zip(revisions) {
            assert!(*revision > self.last, "revision {revision} after {}", self.last);
            self.last = *revision;
            self.changes.push((*revision, ask.key.to_owned(), ask.value.clone()));
            match &ask.value {
                Some(value) => {
                    let entry =
                        Entry { revision: *revision, value: value.clone(), durability, is_told: true };
                    self.entries.insert(ask.key.to_owned(), entry);
                }
                None => drop(self.entries.remove(ask.key)),
            }
        }
    }

    fn get(&mut self, rng: &mut Rng, client: usize) {
        let key = *rng.pick(&KEYS);
        let got = self.scene.outcome_of(client, Operation::GET, &GetKey { key: key.into() }, b"");
        // What is answered in the same turn is seen with it.
        self.hear();
        let found = got.map(|got| (got.decode::<Got>().state.revision, got.payload));
        let due = self.entries.get(key).map(|entry| (entry.revision, entry.value.clone()));
        assert_eq!(found.ok(), due, "{key}");
    }

    fn present(&mut self, client: usize) -> Vec<Change> {
        let selection = Selection::Prefix { prefix: "".into() };
        let list = ListKeys { selection, after: "".into(), count: 100 };
        let page = self.scene.outcome_of(client, Operation::LIST, &list, b"").expect("a list");
        let listed: Listed = page.decode();
        let mut values = &page.payload[..];
        let mut found = Vec::new();
        for one in listed.keys.0 {
            let (value, rest) = values.split_at(one.length as usize);
            values = rest;
            found.push((one.state.revision, one.key.0, Some(value.to_vec())));
        }
        found
    }

    fn list(&mut self, client: usize) {
        let found = self.present(client);
        self.hear();
        let due = self.entries.iter();
        let due: Vec<Change> =
            due.map(|(key, entry)| (entry.revision, key.clone(), Some(entry.value.clone()))).collect();
        assert_eq!(found, due);
    }

    fn watch(&mut self, client: usize) {
        let from = Some(self.last + 1);
        let selection = Selection::Prefix { prefix: "".into() };
        let correlation = self.scene.ask(client, Operation::WATCH, &WatchKeys { selection, from }, b"");
        let outcome = self.scene.take_outcome(client, Operation::WATCH, correlation);
        if outcome.expect("an outcome").is_ok() {
            self.watches.push(Watch { client, correlation, from: self.last + 1, told: Vec::new() });
        }
    }

    /// Every watch has been told each change, in order, and nothing that was not acknowledged.
    fn hear_watches(&mut self) {
        for client in self.clients.clone() {
            for notice in self.scene.bus.client(client).take(Kind::NOTICE) {
                assert_eq!(notice.header.handle.index, Told::CHANGED.0);
                let changed: Changed = notice.decode();
                let value = (changed.change == ChangeKind::Put).then(|| notice.payload.clone());
                let correlation = notice.header.correlation;
                let mut open = self.watches.iter_mut();
                let watch = open.find(|watch| watch.client == client && watch.correlation == correlation);
                let watch = watch.expect("it was asked for");
                watch.told.push((changed.state.revision, changed.key.0, value));
            }
        }
        for watch in &self.watches {
            let due = self.changes.iter().filter(|change| change.0 >= watch.from);
            assert!(watch.told.iter().eq(due), "told {:?} of {:?}", watch.told, self.changes);
        }
    }

    /// The daemon is gone, and another one starts with what is on the disk. Of the commit that was under way there is all or
    /// nothing.
    fn restart(&mut self, rng: &mut Rng) {
        self.coverage.restarts += 1;
        let is_written = rng.chance(1, 2) && self.disk().fault.is_none();
        let disk = core::mem::take(self.disk()).crash(is_written);
        let has_volatile = self.entries.values().any(|entry| entry.durability == Durability::Memory);
        let now = self.scene.bus.now + Duration::from_millis(rng.below(2000));
        self.scene = Scene::with_disk(Limits::default(), now, disk);
        self.is_dead = false;
        self.watches.clear();
        self.begin();
        let line = core::mem::take(&mut self.line);
        self.entries.retain(|_, entry| entry.durability > Durability::Memory);
        let client = self.clients[0];
        let found = self.present(client);
        // What differs was asked for, and not answered.
        for key in KEYS {
            let is = found.iter().find(|change| change.1 == key);
            let was = self.entries.get(key);
            if is.map(|is| is.0) == was.map(|was| was.revision) {
                assert_eq!(is.and_then(|is| is.2.clone()), was.map(|was| was.value.clone()));
                continue;
            }
            assert!(is_written, "{key} is {is:?}, not {was:?}");
            self.coverage.found_unanswered += 1;
            let mut asked = line.iter().flat_map(|asked| asked.asks.iter()).filter(|ask| ask.key == key);
            let value = is.and_then(|is| is.2.clone());
            assert!(asked.any(|ask| ask.value == value), "nobody asked for {key} to be {is:?}");
            match is {
                Some((revision, key, _)) => {
                    assert!(*revision > self.last, "revision {revision} after {}", self.last);
                    let value = value.unwrap_or_default();
                    // At least as well as this it is kept: it is there.
                    let entry =
                        Entry { revision: *revision, value, durability: Durability::Os, is_told: false };
                    self.entries.insert(key.clone(), entry);
                }
                None => drop(self.entries.remove(key)),
            }
        }
        self.resume(client, has_volatile, is_written);
    }

    /// A watch that had seen everything goes on, unless it had seen what is lost.
    fn resume(&mut self, client: usize, has_volatile: bool, is_written: bool) {
        let from = Some(self.last + 1);
        let selection = Selection::Prefix { prefix: "".into() };
        let watching = self.scene.outcome_of(client, Operation::WATCH, &WatchKeys { selection, from }, b"");
        let told = self.scene.bus.client(client).take(Kind::NOTICE);
        match watching {
            Ok(_) => {
                assert!(!has_volatile, "it has seen what is lost");
                assert!(told.is_empty() || is_written);
                // A delete that was never answered shows in the history alone.
                let revisions = told.iter().map(|notice| notice.decode::<Changed>().state.revision);
                self.last = self.last.max(revisions.max().unwrap_or(0));
                self.coverage.resumed += 1;
            }
            Err(code) => {
                assert_eq!(code, ErrorCode::Compacted);
                self.coverage.compacted += 1;
            }
        }
        let unwatch = self.clients[0];
        self.scene.bus.leave(unwatch);
        self.clients[0] = self.scene.client();
        // What an unanswered request has made of keys is as it is; its revisions are below those to come.
        self.last = self.last.max(self.entries.values().map(|entry| entry.revision).max().unwrap_or(0));
        self.changes.clear();
    }
}

#[test]
fn whatever_the_disk_does_keys_are_the_obvious_line_and_the_obvious_map() {
    let coverage = std::cell::RefCell::new(Coverage::default());
    for_each_seed(300, 20_000, |_, mut rng| {
        let mut coverage = coverage.borrow_mut();
        let mut world = World::new(&mut coverage);
        for _ in 0..200 {
            world.step(&mut rng);
        }
        world.disk().fault = None;
        while world.scene.bus.finish_commit() {}
        world.hear();
        assert!(world.line.is_empty(), "never answered: {:?}", world.line);
        world.restart(&mut rng);
        for client in world.clients.clone() {
            world.scene.bus.leave(client);
        }
        assert!(world.scene.bus.broker.usage().is_empty());
    });
    let coverage = coverage.into_inner();
    let fired = [
        coverage.full,
        coverage.dead,
        coverage.restarts,
        coverage.found_unanswered,
        coverage.resumed,
        coverage.compacted,
    ];
    let is_one = std::env::var_os("IPC_TEST_SEED").is_some();
    assert!(is_one || fired.iter().all(|count| *count > 0), "not everything happened: {coverage:?}");
}
