//! Keys as sessions use them: conditions, leases, fences, and watches that miss nothing.

use ipc_core::limits::Limits;
use ipc_core::name::ResourceName;
use ipc_core::payload::Payload;
use ipc_core::time::Instant;
use ipc_core::{Error, ErrorCode};

use core::time::Duration;

use super::hold::Hand;
use super::keys::{Change, Condition, Entry, Put, Selection};
use super::{Asker, Coordination, Effect, Noun, Timer, WaitId};
use crate::broker::keys::PeerKey;

/// The token of a lock that a change is made under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Fence {
    pub(in crate::broker) lock: ResourceName,
    pub(in crate::broker) token: u64,
}

/// What a change of a key is bound to.
#[derive(Clone, Debug)]
pub(in crate::broker) struct KeyTerms {
    pub(in crate::broker) condition: Condition,
    pub(in crate::broker) fence: Option<Fence>,
}

/// A value to be put.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Value {
    pub(in crate::broker) payload: Payload,
    pub(in crate::broker) ttl: Option<Duration>,
    /// 0 for none.
    pub(in crate::broker) lease: u64,
}

/// A watch over keys.
#[derive(Clone, Debug)]
pub(super) struct KeyWatch {
    pub(super) selection: Selection,
}

impl Coordination {
    /// Puts a value, and gives the revision of that.
    ///
    /// # Errors
    /// `revision_mismatch`, `stale_fencing_token`, `lock_lost` for a lease that is not there, `quota_exceeded`.
    pub(in crate::broker) fn put(
        &mut self,
        now: Instant,
        hand: Hand,
        key: &ResourceName,
        value: Value,
        terms: &KeyTerms,
        limits: &Limits,
    ) -> Result<u64, Error> {
        self.begin_keys(now, limits);
        let Some(uid) = hand.uid else {
            return Err(Error::new(ErrorCode::PermissionDenied, "only users of this machine put keys"));
        };
        self.keys.check(key, terms.condition)?;
        self.check_fence(terms.fence.as_ref())?;
        if value.lease != 0 {
            self.check_lease(hand, value.lease)?;
        }
        let expires = value.ttl.map(|ttl| now + ttl);
        let put = Put { value: value.payload, lease: value.lease, uid, expires };
        self.keys.check_room(key, &put, limits)?;
        let revision = self.next_token(now);
        let (change, before) = self.keys.put(revision, key, put);
        self.forget_entry(key, before.as_ref());
        if value.lease != 0 {
            self.leased.entry(value.lease).or_default().insert(key.clone());
        }
        if let Some(expires) = expires {
            self.expiring.insert(revision, key.clone());
            self.timers.insert((expires, Timer::Key(revision)));
        }
        self.tell_watches(&change);
        Ok(revision)
    }

    /// Deletes a key, and gives the revision of that.
    ///
    /// # Errors
    /// `no_such_key`, `revision_mismatch`, `stale_fencing_token`.
    pub(in crate::broker) fn delete(
        &mut self,
        now: Instant,
        key: &ResourceName,
        terms: &KeyTerms,
        limits: &Limits,
    ) -> Result<u64, Error> {
        self.begin_keys(now, limits);
        self.keys.check(key, terms.condition)?;
        self.check_fence(terms.fence.as_ref())?;
        self.remove_key(now, key).ok_or_else(|| no_such_key(key))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// `no_such_key`.
    pub(in crate::broker) fn get(&self, key: &ResourceName) -> Result<&Entry, Error> {
        self.keys.get(key).ok_or_else(|| no_such_key(key))
    }

    /// The keys of a selection behind `after`, in order.
    pub(in crate::broker) fn list<'a>(
        &'a self,
        selection: &'a Selection,
        after: &str,
    ) -> impl Iterator<Item = (&'a ResourceName, &'a Entry)> {
        self.keys.range(selection, after)
    }

    /// The changes of a selection from a revision on.
    ///
    /// # Errors
    /// `compacted`.
    pub(in crate::broker) fn changes<'a>(
        &'a mut self,
        now: Instant,
        selection: &'a Selection,
        from: u64,
        limits: &Limits,
    ) -> Result<impl Iterator<Item = &'a Change>, Error> {
        self.begin_keys(now, limits);
        self.keys.since(selection, from)
    }

    /// Tells the asker of what is there, or of the changes from a revision on, and then of each change.
    ///
    /// # Errors
    /// `compacted`, `conflict`, `quota_exceeded`.
    pub(in crate::broker) fn watch(
        &mut self,
        now: Instant,
        asker: &Asker,
        selection: Selection,
        from: Option<u64>,
        limits: &Limits,
    ) -> Result<(), Error> {
        self.begin_keys(now, limits);
        let to = asker.id();
        if let Some(of) = self.peers.get(&to.peer) {
            if of.watches.contains_key(&to.correlation) {
                return Err(Error::new(
                    ErrorCode::Conflict,
                    format!("watch {} is open already", to.correlation),
                ));
            }
            let max = limits.key_watches_per_connection_max;
            if of.watches.len() >= max as usize {
                return Err(Error::quota("key_watches_per_connection_max", max.into()));
            }
        }
        let first: Vec<Change> = match from {
            Some(from) => self.keys.since(&selection, from)?.cloned().collect(),
            None => {
                let present = self.keys.range(&selection, "");
                let mut present: Vec<Change> = present
                    .map(|(key, entry)| Change {
                        revision: entry.revision,
                        key: key.clone(),
                        entry: Some(entry.clone()),
                    })
                    .collect();
                present.sort_by_key(|change| change.revision);
                present
            }
        };
        self.peers.entry(to.peer).or_default().watches.insert(to.correlation, KeyWatch { selection });
        self.key_watchers.insert(to);
        self.charge(to.peer, 0, 0, 1);
        self.effects.extend(first.into_iter().map(|change| Effect::Changed { to, change }));
        self.effects.push_back(Effect::Watches { to, revision: self.last_token });
        Ok(())
    }

    /// Ends a watch over keys. Says whether there was one.
    pub(in crate::broker) fn unwatch(&mut self, peer: PeerKey, correlation: u64) -> bool {
        let of = self.peers.get_mut(&peer);
        if of.and_then(|of| of.watches.remove(&correlation)).is_none() {
            return false;
        }
        self.key_watchers.remove(&WaitId { peer, correlation });
        self.charge(peer, 0, 0, -1);
        true
    }

    /// Whether there is such a watch.
    pub(in crate::broker) fn has_watch(&self, to: WaitId) -> bool {
        self.key_watchers.contains(&to)
    }

    fn tell_watches(&mut self, change: &Change) {
        for to in &self.key_watchers {
            let watch = self.peers.get(&to.peer).and_then(|of| of.watches.get(&to.correlation));
            if watch.is_some_and(|watch| watch.selection.has(&change.key)) {
                self.effects.push_back(Effect::Changed { to: *to, change: change.clone() });
            }
        }
    }

    /// A lease has ended, and every key that was bound to it ends too.
    pub(super) fn end_leased(&mut self, now: Instant, lease: u64) {
        for key in self.leased.remove(&lease).unwrap_or_default() {
            self.remove_key(now, &key);
        }
    }

    /// The time of a key has passed.
    pub(super) fn expire_key(&mut self, now: Instant, revision: u64) {
        if let Some(key) = self.expiring.remove(&revision) {
            self.remove_key(now, &key);
        }
    }

    fn remove_key(&mut self, now: Instant, key: &ResourceName) -> Option<u64> {
        self.keys.get(key)?;
        let revision = self.next_token(now);
        let (change, before) = self.keys.delete(revision, key)?;
        self.forget_entry(key, Some(&before));
        self.tell_watches(&change);
        Some(revision)
    }

    /// What was bound to an entry that is no more.
    fn forget_entry(&mut self, key: &ResourceName, before: Option<&Entry>) {
        let Some(before) = before else { return };
        if let Some(keys) = self.leased.get_mut(&before.lease) {
            keys.remove(key);
            if keys.is_empty() {
                self.leased.remove(&before.lease);
            }
        }
        if let Some(expires) = before.expires {
            self.expiring.remove(&before.revision);
            self.timers.remove(&(expires, Timer::Key(before.revision)));
        }
    }

    fn check_lease(&self, hand: Hand, lease: u64) -> Result<(), Error> {
        self.check_hand(hand, lease)?;
        if self.holds.get(&lease).is_some_and(|hold| hold.gate.is_none()) {
            return Ok(());
        }
        Err(Error::new(ErrorCode::InvalidArgument, format!("{lease} is no lease")))
    }

    /// Whether nobody has got the lock since that token was given.
    ///
    /// # Errors
    /// `stale_fencing_token`.
    pub(in crate::broker) fn check_fence(&self, fence: Option<&Fence>) -> Result<(), Error> {
        let Some(Fence { lock, token }) = fence else { return Ok(()) };
        let gate = self.by_name.get(&(Noun::Lock, lock.clone())).and_then(|gate| self.gates.get(*gate));
        let last = gate.map(|gate| gate.fence).or_else(|| self.fences.get(lock)).filter(|last| *last > 0);
        let message = match last {
            Some(last) if (last..=self.last_token).contains(token) => return Ok(()),
            Some(last) if *token < last => {
                format!("token {token} of lock {lock} is older than {last}, which was given since")
            }
            Some(_) => format!("token {token} of lock {lock} was never given"),
            None => format!("lock {lock} was not held lately"),
        };
        Err(Error::new(ErrorCode::StaleFencingToken, message).with_hint("take the lock again"))
    }

    /// Nothing of earlier lives of the daemon is known.
    fn begin_keys(&mut self, now: Instant, limits: &Limits) {
        self.keys.set_window(limits);
        if !self.keys.has_begun() {
            let revision = self.next_token(now);
            self.keys.begin_at(revision);
        }
    }
}

fn no_such_key(key: &ResourceName) -> Error {
    Error::new(ErrorCode::NoSuchKey, format!("there is no key {key}"))
}
