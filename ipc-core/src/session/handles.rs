//! The numbers we have chosen for methods and topics: found by name once, used by position after.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::error::Error;
use crate::id::Handle;
use crate::limits::HANDLES_BEFORE_WELCOME_MAX;
use crate::name::{MethodName, ServiceName, TopicName};
use crate::time::Instant;

use super::slab::{Key, Slab};

/// A method or topic that was looked up, to be used again without its name.
///
/// It stays valid over restarts of the session and becomes unknown when its place was needed for another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleKey(pub(super) Key);

impl HandleKey {
    /// The key as a number, to keep it in an atomic.
    pub const fn bits(self) -> u64 {
        self.0.bits()
    }

    /// The key made of such a number; 0 is never one.
    pub const fn from_bits(bits: u64) -> Self {
        Self(Key::from_bits(bits))
    }
}

/// What a handle stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Method(ServiceName, MethodName),
    Topic(TopicName),
}

#[derive(Debug)]
struct Entry {
    target: Target,
    /// The generation under which the daemon was asked to bind it, while that holds.
    bound: Option<u16>,
    /// When that was.
    bound_at: Instant,
    used: u64,
}

/// All handles of a connection. The index on the wire is the slot.
#[derive(Debug)]
pub(super) struct Handles {
    entries: Slab<Entry>,
    methods: BTreeMap<ServiceName, BTreeMap<MethodName, HandleKey>>,
    topics: BTreeMap<TopicName, HandleKey>,
    /// By slot: the last generation that was on this connection's wire, 0 for none.
    generations: Vec<u16>,
    max: u32,
    clock: u64,
}

/// What has to be told to the daemon to make room or to bind anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Release(pub(super) Handle);

impl Handles {
    pub(super) fn new() -> Self {
        Self {
            entries: Slab::new(),
            methods: BTreeMap::new(),
            topics: BTreeMap::new(),
            generations: Vec::new(),
            max: HANDLES_BEFORE_WELCOME_MAX,
            clock: 0,
        }
    }

    /// A new connection: the names stay, none is bound.
    pub(super) fn restart(&mut self) {
        self.generations.clear();
        for (_, entry) in self.entries.iter_mut() {
            entry.bound = None;
        }
    }

    /// How many the daemon allows.
    pub(super) fn set_max(&mut self, max: u32) {
        self.max = max.max(1);
    }

    pub(super) fn find_method(&self, service: &str, method: &str) -> Option<HandleKey> {
        self.methods.get(service)?.get(method).copied()
    }

    pub(super) fn find_topic(&self, topic: &str) -> Option<HandleKey> {
        self.topics.get(topic).copied()
    }

    /// What a handle stands for.
    pub(super) fn target(&self, key: HandleKey) -> Option<&Target> {
        self.entries.get(key.0).map(|entry| &entry.target)
    }

    pub(super) fn knows(&self, key: HandleKey) -> bool {
        self.entries.get(key.0).is_some()
    }

    /// Gives a method a handle; the least recently used one makes room.
    ///
    /// # Errors
    /// `invalid_argument` for a text that is no such name.
    pub(super) fn insert_method(
        &mut self,
        service: &str,
        method: &str,
    ) -> Result<(HandleKey, Option<Release>), Error> {
        let (service, method) = (ServiceName::parse(service)?, MethodName::parse(method)?);
        let (key, release) = self.insert(Target::Method(service.clone(), method.clone()));
        self.methods.entry(service).or_default().insert(method, key);
        Ok((key, release))
    }

    /// Gives a topic a handle; the least recently used one makes room.
    ///
    /// # Errors
    /// `invalid_argument` for a text that is no such name.
    pub(super) fn insert_topic(&mut self, topic: &str) -> Result<(HandleKey, Option<Release>), Error> {
        let topic = TopicName::parse(topic)?;
        let (key, release) = self.insert(Target::Topic(topic.clone()));
        self.topics.insert(topic, key);
        Ok((key, release))
    }

    fn insert(&mut self, target: Target) -> (HandleKey, Option<Release>) {
        let mut release = None;
        if self.entries.len() >= self.max as usize {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key);
            release = oldest.and_then(|key| self.remove(HandleKey(key)));
        }
        self.clock += 1;
        let key = HandleKey(self.entries.insert(Entry {
            target,
            bound: None,
            bound_at: Instant::default(),
            used: self.clock,
        }));
        (key, release)
    }

    fn remove(&mut self, key: HandleKey) -> Option<Release> {
        let release = self.unbind(key);
        let entry = self.entries.remove(key.0)?;
        match entry.target {
            Target::Method(service, method) => {
                if let Some(methods) = self.methods.get_mut(&service) {
                    methods.remove(&method);
                    if methods.is_empty() {
                        self.methods.remove(&service);
                    }
                }
            }
            Target::Topic(topic) => {
                self.topics.remove(&topic);
            }
        }
        release
    }

    /// The handle to put on the wire, if it is bound.
    pub(super) fn bound(&mut self, key: HandleKey) -> Option<Handle> {
        let entry = self.entries.get_mut(key.0)?;
        self.clock += 1;
        entry.used = self.clock;
        entry.bound.map(|generation| Handle { index: key.0.slot() as u32, generation })
    }

    /// Forgets a binding that is older than `age`. The daemon needs no word: the next one takes its place.
    pub(super) fn distrust(&mut self, now: Instant, key: HandleKey, age: Duration) {
        if let Some(entry) = self.entries.get_mut(key.0)
            && now.since(entry.bound_at) > age
        {
            entry.bound = None;
        }
    }

    /// Binds a handle under a generation that was not on this connection before; the daemon must be told.
    pub(super) fn bind(&mut self, now: Instant, key: HandleKey) -> Option<(Handle, &Target)> {
        let entry = self.entries.get_mut(key.0)?;
        let slot = key.0.slot();
        if self.generations.len() <= slot {
            self.generations.resize(slot + 1, 0);
        }
        let last = self.generations.get_mut(slot)?;
        *last = if *last == u16::MAX { 1 } else { *last + 1 };
        entry.bound = Some(*last);
        entry.bound_at = now;
        Some((Handle { index: slot as u32, generation: *last }, &entry.target))
    }

    /// The daemon says that `wire` stands for nothing: it has to be bound anew, unless that has happened already.
    pub(super) fn went_stale(&mut self, key: HandleKey, wire: Handle) -> Option<Release> {
        let entry = self.entries.get(key.0)?;
        if entry.bound == Some(wire.generation) { self.unbind(key) } else { None }
    }

    fn unbind(&mut self, key: HandleKey) -> Option<Release> {
        let entry = self.entries.get_mut(key.0)?;
        let generation = entry.bound.take()?;
        Some(Release(Handle { index: key.0.slot() as u32, generation }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(0);

    #[test]
    fn names_are_looked_up_once() {
        let mut handles = Handles::new();
        assert_eq!(handles.find_method("a.b", "m"), None);
        let (key, release) = handles.insert_method("a.b", "m").unwrap();
        assert_eq!((handles.find_method("a.b", "m"), release), (Some(key), None));
        assert_eq!(handles.bound(key), None);
        let (wire, target) = handles.bind(NOW, key).unwrap();
        assert_eq!(
            *target,
            Target::Method(ServiceName::parse("a.b").unwrap(), MethodName::parse("m").unwrap())
        );
        assert_eq!(handles.bound(key), Some(wire));
        assert!(handles.insert_method("a..b", "m").is_err());
        assert!(handles.insert_topic("a.>").is_err());
    }

    #[test]
    fn before_the_welcome_there_are_as_many_as_every_daemon_allows() {
        let mut handles = Handles::new();
        let keys: Vec<HandleKey> = (1..=HANDLES_BEFORE_WELCOME_MAX)
            .map(|number| handles.insert_topic(&format!("t{number}")).unwrap().0)
            .collect();
        assert!(keys.iter().all(|key| handles.knows(*key)));
        handles.insert_topic("one.more").unwrap();
        assert!(!handles.knows(keys[0]), "the oldest made room");
        assert!(keys[1..].iter().all(|key| handles.knows(*key)));
        handles.set_max(HANDLES_BEFORE_WELCOME_MAX + 1);
        handles.insert_topic("another").unwrap();
        assert!(handles.knows(keys[1]), "the daemon allows more");
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut handles = Handles::new();
        handles.set_max(2);
        let (first, _) = handles.insert_topic("a").unwrap();
        let (second, _) = handles.insert_topic("b").unwrap();
        let (wire, _) = handles.bind(NOW, second).unwrap();
        handles.bound(second);
        handles.bound(first);
        let (third, release) = handles.insert_method("s", "m").unwrap();
        assert_eq!(release, Some(Release(wire)));
        assert!(!handles.knows(second) && handles.knows(first));
        assert_eq!(handles.find_topic("b"), None);
        let (reused, _) = handles.bind(NOW, third).unwrap();
        assert_eq!(reused, Handle { index: wire.index, generation: wire.generation + 1 });
    }

    #[test]
    fn only_the_current_binding_becomes_stale() {
        let mut handles = Handles::new();
        let (key, _) = handles.insert_topic("a").unwrap();
        let (first, _) = handles.bind(NOW, key).unwrap();
        assert_eq!(handles.went_stale(key, first), Some(Release(first)));
        assert_eq!(handles.bound(key), None);
        let (second, _) = handles.bind(NOW, key).unwrap();
        assert_ne!(first, second);
        assert_eq!(handles.went_stale(key, first), None);
        assert_eq!(handles.bound(key), Some(second));
    }

    #[test]
    fn a_restart_keeps_names_and_begins_generations_anew() {
        let mut handles = Handles::new();
        let (key, _) = handles.insert_topic("a").unwrap();
        handles.bind(NOW, key);
        handles.restart();
        assert_eq!(handles.bound(key), None);
        assert!(handles.knows(key));
        assert_eq!(handles.bind(NOW, key).unwrap().0.generation, 1);
    }

    #[test]
    fn generations_wrap_past_zero() {
        let mut handles = Handles::new();
        let (key, _) = handles.insert_topic("a").unwrap();
        handles.bind(NOW, key);
        handles.generations[0] = u16::MAX;
        assert_eq!(handles.bind(NOW, key).unwrap().0.generation, 1);
    }
}
