//! Keys against the obvious map and the obvious list of changes, in random runs, each from one seed.

use core::time::Duration;
use std::collections::BTreeMap;

use ipc_core::ErrorCode;
use ipc_core::limits::Limits;
use ipc_core::wire::Kind;
use ipc_core::wire::coordination::{
    Bind, ChangeKind, Changed, Claim, Condition, DeleteKey, Fence, GetKey, Got, Granted, KeyChanged,
    ListHistory, ListKeys, Listed, LockMode, OfToken, Operation, PutKey, Selection, TakeLease, TakeLock,
    Told, UnwatchKeys, WatchKeys,
};
use ipc_tests::memory_bus::Received;
use ipc_tests::rng::{Rng, for_each_seed};

use crate::coordination::Scene;

const KEYS: [&str; 4] = ["a", "a/b", "a/c", "b"];
const PREFIXES: [&str; 4] = ["", "a", "a/", "c"];
const CLIENTS: usize = 3;

/// One change as the model has it; a delete has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Put {
    revision: u64,
    key: String,
    value: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
struct Entry {
    revision: u64,
    value: Vec<u8>,
    lease: u64,
    ends: Option<u64>,
}

/// A watch: what it has been told, and from which revision on it was to be told.
#[derive(Debug)]
struct Watch {
    client: usize,
    correlation: u64,
    prefix: String,
    from: u64,
    told: Vec<Put>,
}

/// The obvious map, with everything that ever happened to it.
struct World {
    scene: Scene,
    clients: Vec<usize>,
    entries: BTreeMap<String, Entry>,
    changes: Vec<Put>,
    /// Leases with the time at which they end, in microseconds.
    leases: Vec<(u64, u64)>,
    watches: Vec<Watch>,
    last: u64,
}

impl World {
    fn new() -> Self {
        let limits = Limits::default();
        let mut scene = Scene::new(limits);
        let clients = (0..CLIENTS).map(|_| scene.client()).collect();
        Self {
            scene,
            clients,
            entries: BTreeMap::new(),
            changes: Vec::new(),
            leases: Vec::new(),
            watches: Vec::new(),
            last: 0,
        }
    }

    fn now(&self) -> u64 {
        self.scene.bus.now.as_nanos() / 1000
    }

    fn change(&mut self, revision: u64, key: &str, value: Option<Vec<u8>>) {
        assert!(revision > self.last, "revision {revision} after {}", self.last);
        self.last = revision;
        self.changes.push(Put { revision, key: key.to_owned(), value });
    }

    fn step(&mut self, rng: &mut Rng) {
        let client = *rng.pick(&self.clients.clone());
        let key = *rng.pick(&KEYS);
        match rng.below(14) {
            0..=4 => self.put(rng, client, key),
            5 | 6 => self.delete(rng, client, key),
            7 => self.get(client, key),
            8 => self.list(rng, client),
            9 => self.lease(rng, client),
            10 => self.watch(rng, client),
            11 => self.unwatch(rng),
            12 => self.history(rng, client),
            _ => self.pass(rng.below(40_000)),
        }
        self.hear();
    }

    fn condition(&self, rng: &mut Rng, key: &str) -> (Condition, bool) {
        let is = self.entries.get(key).map(|entry| entry.revision);
        match rng.below(4) {
            0 => (Condition::Absent, is.is_none()),
            1 => {
                let revision = is.filter(|_| rng.chance(2, 3)).unwrap_or(7);
                (Condition::Revision { revision }, is == Some(revision))
            }
            _ => (Condition::Any, true),
        }
    }

    fn put(&mut self, rng: &mut Rng, client: usize, key: &str) {
        let (condition, holds) = self.condition(rng, key);
        let ttl_us = *rng.pick(&[0, 0, 0, 10_000, 30_000]);
        let lease = if rng.chance(1, 4) { self.leases.first().map_or(99, |lease| lease.0) } else { 0 };
        let is_leased = lease == 0 || self.leases.iter().any(|(token, _)| *token == lease);
        let length = rng.length(600);
        let value = rng.bytes(length);
        let put = PutKey { key: key.into(), condition, ttl_us, lease, fence: None, durability: None };
        let outcome = self.scene.outcome_of(client, Operation::PUT, &put, &value);
        match outcome {
            Ok(done) => {
                assert!(holds && is_leased, "{put:?}");
                let revision = done.decode::<KeyChanged>().revision;
                self.change(revision, key, Some(value.clone()));
                let ends = (ttl_us > 0).then(|| self.now() + ttl_us);
                self.entries.insert(key.to_owned(), Entry { revision, value, lease, ends });
            }
            Err(code) if !holds => assert_eq!(code, ErrorCode::RevisionMismatch, "{put:?}"),
            Err(code) => assert!(!is_leased && code == ErrorCode::LockLost, "{put:?}: {code}"),
        }
    }

    fn delete(&mut self, rng: &mut Rng, client: usize, key: &str) {
        let (condition, holds) = self.condition(rng, key);
        let is_there = self.entries.contains_key(key);
        let delete = DeleteKey { key: key.into(), condition, fence: None, durability: None };
        match self.scene.outcome_of(client, Operation::DELETE, &delete, b"") {
            Ok(done) => {
                assert!(holds && is_there, "{delete:?}");
                self.change(done.decode::<KeyChanged>().revision, key, None);
                self.entries.remove(key);
            }
            Err(code) if !holds => assert_eq!(code, ErrorCode::RevisionMismatch),
            Err(code) => assert!(!is_there && code == ErrorCode::NoSuchKey),
        }
    }

    fn get(&mut self, client: usize, key: &str) {
        let outcome = self.scene.outcome_of(client, Operation::GET, &GetKey { key: key.into() }, b"");
        match (outcome, self.entries.get(key)) {
            (Ok(got), Some(entry)) => {
                let state = got.decode::<Got>().state;
                let puts = self.changes.iter().rev().filter(|change| change.key == key);
                let puts: Vec<&Put> = puts.take_while(|change| change.value.is_some()).collect();
                let created = puts.last().map_or(0, |put| put.revision);
                assert_eq!(
                    (state.revision, state.lease, &got.payload),
                    (entry.revision, entry.lease, &entry.value)
                );
                assert_eq!((state.version, state.created), (puts.len() as u64, created));
            }
            (Err(code), None) => assert_eq!(code, ErrorCode::NoSuchKey),
            (outcome, entry) => panic!("{key}: {outcome:?}, due was {entry:?}"),
        }
    }

    fn list(&mut self, rng: &mut Rng, client: usize) {
        let prefix = *rng.pick(&PREFIXES);
        let mut after = String::new();
        let mut found = Vec::new();
        loop {
            let selection = Selection::Prefix { prefix: prefix.into() };
            let list = ListKeys { selection, after: after.as_str().into(), count: 1 + rng.below(3) as u32 };
            let page = self.scene.outcome_of(client, Operation::LIST, &list, b"").expect("a list");
            let listed: Listed = page.decode();
            found.extend(puts_of(&listed, &page.payload));
            after = found.last().map_or(String::new(), |put: &Put| put.key.clone());
            if !listed.more {
                break;
            }
        }
        let due = self.entries.iter().filter(|(key, _)| key.starts_with(prefix));
        let due: Vec<Put> = due
            .map(|(key, entry)| Put {
                revision: entry.revision,
                key: key.clone(),
                value: Some(entry.value.clone()),
            })
            .collect();
        assert_eq!(found, due);
    }

    fn history(&mut self, rng: &mut Rng, client: usize) {
        let prefix = *rng.pick(&PREFIXES);
        let from = if self.changes.is_empty() { return } else { rng.pick(&self.changes.clone()).revision };
        let selection = Selection::Prefix { prefix: prefix.into() };
        let history = ListHistory { selection, from, count: 3 };
        let page = self.scene.outcome_of(client, Operation::HISTORY, &history, b"").expect("the history");
        let listed: Listed = page.decode();
        let due =
            self.changes.iter().filter(|change| change.revision >= from && change.key.starts_with(prefix));
        let due: Vec<Put> = due.cloned().collect();
        assert_eq!(puts_of(&listed, &page.payload), due[..due.len().min(3)]);
        assert_eq!(listed.more, due.len() > 3);
    }

    fn lease(&mut self, rng: &mut Rng, client: usize) {
        if let Some((token, _)) = self.leases.first().copied().filter(|_| rng.chance(1, 2)) {
            self.scene.outcome_of(client, Operation::RELEASE, &OfToken { token }, b"").expect("it is there");
            self.leases.remove(0);
            self.end_lease(token);
            return;
        }
        let ttl_us = 20_000 + rng.below(50_000);
        let lease = TakeLease { bind: Bind::Time, ttl_us, durability: None };
        let granted = self.scene.outcome_of(client, Operation::LEASE, &lease, b"").expect("a lease");
        self.leases.push((granted.decode::<Granted>().token, self.now() + ttl_us));
    }

    /// What a lease or time has ended shows in the history alone, so it is looked up there, and nothing else may be.
    fn end_lease(&mut self, token: u64) {
        let ended = self.entries.iter().filter(|(_, entry)| entry.lease == token);
        let ended: Vec<String> = ended.map(|(key, _)| key.clone()).collect();
        self.ended(ended);
    }

    fn ended(&mut self, keys: Vec<String>) {
        for key in &keys {
            self.entries.remove(key);
        }
        let selection = Selection::Prefix { prefix: "".into() };
        if keys.is_empty() {
            return;
        }
        let history = ListHistory { selection, from: self.last + 1, count: 100 };
        let client = self.clients[0];
        let page = self.scene.outcome_of(client, Operation::HISTORY, &history, b"").expect("the history");
        let found = puts_of(&page.decode(), &page.payload);
        let mut names: Vec<String> = found.iter().map(|put| put.key.clone()).collect();
        for put in found {
            assert_eq!(put.value, None);
            self.change(put.revision, &put.key, None);
        }
        names.sort();
        let mut keys = keys;
        keys.sort();
        assert_eq!(names, keys);
    }

    fn pass(&mut self, micros: u64) {
        self.scene.bus.wait(Duration::from_micros(micros));
        let now = self.now();
        let over: Vec<u64> =
            self.leases.iter().filter(|(_, ends)| *ends <= now).map(|(token, _)| *token).collect();
        self.leases.retain(|(_, ends)| *ends > now);
        let has_ended =
            |entry: &Entry| over.contains(&entry.lease) || entry.ends.is_some_and(|ends| ends <= now);
        let ended = self.entries.iter().filter(|(_, entry)| has_ended(entry));
        let ended: Vec<String> = ended.map(|(key, _)| key.clone()).collect();
        self.ended(ended);
    }

    fn watch(&mut self, rng: &mut Rng, client: usize) {
        let prefix = (*rng.pick(&PREFIXES)).to_owned();
        let from =
            (rng.chance(1, 2) && !self.changes.is_empty()).then(|| rng.pick(&self.changes.clone()).revision);
        let mut watch = Watch { client, correlation: 0, prefix, from: 0, told: Vec::new() };
        match from {
            Some(from) => watch.from = from,
            None => {
                // What is there comes first, as if it had just been put.
                let present = self.entries.iter().filter(|(key, _)| key.starts_with(&watch.prefix));
                let last = present.map(|(_, entry)| entry.revision).max();
                watch.from = last.map_or(self.last + 1, |_| 0);
            }
        }
        let is_snapshot = from.is_none();
        watch.correlation = self.ask_watch(client, &watch.prefix, from);
        if is_snapshot {
            self.check_snapshot(&mut watch);
        }
        self.watches.push(watch);
    }

    fn ask_watch(&mut self, client: usize, prefix: &str, from: Option<u64>) -> u64 {
        let selection = Selection::Prefix { prefix: prefix.into() };
        self.scene.ask(client, Operation::WATCH, &WatchKeys { selection, from }, b"")
    }

    /// Takes what came before the outcome of a watch: each key that is there, in order of revisions.
    fn check_snapshot(&mut self, watch: &mut Watch) {
        let notices = self.scene.bus.client(watch.client).take(Kind::NOTICE);
        let told: Option<Vec<Put>> = take_told(notices, watch.correlation).into_iter().collect();
        let mut due: Vec<Put> = self
            .entries
            .iter()
            .filter(|(key, _)| key.starts_with(&watch.prefix))
            .map(|(key, entry)| Put {
                revision: entry.revision,
                key: key.clone(),
                value: Some(entry.value.clone()),
            })
            .collect();
        due.sort_by_key(|put| put.revision);
        assert_eq!(told, Some(due));
        watch.from = self.last + 1;
    }

    fn unwatch(&mut self, rng: &mut Rng) {
        if self.watches.is_empty() {
            return;
        }
        let at = rng.index(self.watches.len());
        let watch = self.watches.remove(at);
        self.scene.ask(watch.client, Operation::UNWATCH, &UnwatchKeys { watch: watch.correlation }, b"");
    }

    /// Every watch has been told what it was to be told.
    fn hear(&mut self) {
        for client in self.clients.clone() {
            let notices = self.scene.bus.client(client).take(Kind::NOTICE);
            self.scene.bus.client(client).take(Kind::OUTCOME);
            for watch in self.watches.iter_mut().filter(|watch| watch.client == client) {
                let told: Option<Vec<Put>> =
                    take_told(notices.clone(), watch.correlation).into_iter().collect();
                watch.told.extend(told.expect("there was room"));
                let changes = self.changes.iter().filter(|change| change.revision >= watch.from);
                let due: Vec<&Put> = changes.filter(|change| change.key.starts_with(&watch.prefix)).collect();
                assert!(watch.told.iter().eq(due.iter().copied()), "told {:?}, due {due:?}", watch.told);
            }
        }
    }
}

fn puts_of(listed: &Listed, mut values: &[u8]) -> Vec<Put> {
    let mut puts = Vec::new();
    for one in &listed.keys.0 {
        let (value, rest) = values.split_at(one.length as usize);
        values = rest;
        let value = (one.change == ChangeKind::Put).then(|| value.to_vec());
        puts.push(Put { revision: one.state.revision, key: one.key.0.clone(), value });
    }
    assert!(values.is_empty());
    puts
}

/// What a watch was told; `None` that it was lost.
fn take_told(notices: Vec<Received>, correlation: u64) -> Vec<Option<Put>> {
    let own = notices.into_iter().filter(|notice| notice.header.correlation == correlation);
    let told = own.map(|notice| {
        if notice.header.handle.index == Told::WATCH_LOST.0 {
            return None;
        }
        assert_eq!(notice.header.handle.index, Told::CHANGED.0);
        let changed: Changed = notice.decode();
        let value = (changed.change == ChangeKind::Put).then(|| notice.payload.clone());
        Some(Put { revision: changed.state.revision, key: changed.key.0, value })
    });
    told.collect()
}

#[test]
fn keys_are_the_obvious_map_and_watches_miss_nothing() {
    for_each_seed(200, 20_000, |_, mut rng| {
        let mut world = World::new();
        for _ in 0..200 {
            world.step(&mut rng);
        }
        for client in world.clients.clone() {
            world.scene.bus.leave(client);
        }
        world.scene.bus.wait(Duration::from_secs(3600));
        let broker = &world.scene.bus.broker;
        assert!(broker.usage().is_empty() && broker.poll_timeout().is_none());
    });
}

#[test]
fn a_watch_that_is_not_read_ends_and_goes_on_where_it_was() {
    let limits = Limits { queue_per_connection_max_bytes: 4096, ..Limits::default() };
    let mut scene = Scene::new(limits);
    let (writer, watcher) = (scene.client(), scene.client());
    let selection = || Selection::Prefix { prefix: "".into() };
    let watch = scene.ask(watcher, Operation::WATCH, &WatchKeys { selection: selection(), from: None }, b"");
    scene.bus.client(watcher).reads = false;
    let mut due = Vec::new();
    for _ in 0..20 {
        let put = PutKey {
            key: "a".into(),
            condition: Condition::Any,
            ttl_us: 0,
            lease: 0,
            fence: None,
            durability: None,
        };
        let done = scene.outcome_of(writer, Operation::PUT, &put, &[7; 500]).expect("it is put");
        due.push(done.decode::<KeyChanged>().revision);
    }
    scene.bus.resume(watcher);
    let told = take_told(scene.bus.client(watcher).take(Kind::NOTICE), watch);
    assert!(told.len() > 2 && told.len() < 20 && told.last() == Some(&None));
    let mut seen: Vec<u64> = told.iter().flatten().map(|put| put.revision).collect();
    let mut from = Some(seen[seen.len() - 1] + 1);
    while seen.len() < due.len() {
        let watch = scene.ask(watcher, Operation::WATCH, &WatchKeys { selection: selection(), from }, b"");
        let told = take_told(scene.bus.client(watcher).take(Kind::NOTICE), watch);
        seen.extend(told.iter().flatten().map(|put| put.revision));
        from = Some(seen[seen.len() - 1] + 1);
    }
    assert_eq!(seen, due);
}

#[test]
fn a_fence_lets_the_last_holder_through_and_nobody_before() {
    let mut scene = Scene::new(Limits { resources_max: 4, ..Limits::default() });
    let client = scene.client();
    let claim = Claim { wait: false, ttl_us: 0, delay_us: 0, owner: 0, durability: None };
    let take = |scene: &mut Scene, name: &str, mode| {
        let lock = TakeLock { name: name.into(), mode, claim };
        scene.outcome_of(client, Operation::LOCK, &lock, b"").expect("it is free").decode::<Granted>().token
    };
    let put = |scene: &mut Scene, lock: &str, token: u64| {
        let fence = Some(Fence { lock: lock.into(), token });
        let put = PutKey {
            key: "k".into(),
            condition: Condition::Any,
            ttl_us: 0,
            lease: 0,
            fence,
            durability: None,
        };
        scene.outcome_of(client, Operation::PUT, &put, b"x").err()
    };
    let stale = Some(ErrorCode::StaleFencingToken);
    assert_eq!(put(&mut scene, "a", 1), stale);
    let first = take(&mut scene, "a", LockMode::Exclusive);
    assert_eq!(put(&mut scene, "a", first), None);
    assert_eq!((put(&mut scene, "a", first - 1), put(&mut scene, "a", first + 1_000_000)), (stale, stale));
    scene.outcome_of(client, Operation::RELEASE, &OfToken { token: first }, b"").expect("it is held");
    // Nobody has got it since.
    assert_eq!(put(&mut scene, "a", first), None);
    let (one, two) = (take(&mut scene, "a", LockMode::Shared), take(&mut scene, "a", LockMode::Shared));
    assert_eq!(
        (put(&mut scene, "a", first), put(&mut scene, "a", one), put(&mut scene, "a", two)),
        (stale, None, None)
    );
    for token in [one, two] {
        scene.outcome_of(client, Operation::RELEASE, &OfToken { token }, b"").expect("it is held");
    }
    // Past the limit the oldest is forgotten, which is as good as stale.
    for name in ["b", "c", "d", "e"] {
        let token = take(&mut scene, name, LockMode::Exclusive);
        scene.outcome_of(client, Operation::RELEASE, &OfToken { token }, b"").expect("it is held");
    }
    assert_eq!(put(&mut scene, "a", two), stale);
}

#[test]
fn nothing_begins_with_more_than_a_name_has() {
    let mut scene = Scene::new(Limits::default());
    let client = scene.client();
    for (length, expected) in [(511, None), (512, None), (513, Some(ErrorCode::InvalidArgument))] {
        let prefix = "b".repeat(length).as_str().into();
        let watch = WatchKeys { selection: Selection::Prefix { prefix }, from: None };
        let outcome = scene.outcome_of(client, Operation::WATCH, &watch, b"");
        assert_eq!(outcome.err(), expected, "{length}");
    }
}
