//! Keys as sessions use them: what is asked of them, and watches that miss nothing. `group` makes the changes.

use core::time::Duration;
use std::sync::Arc;

use ipc_core::limits::Limits;
use ipc_core::name::ResourceName;
use ipc_core::payload::Payload;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::Durability;
use ipc_core::{Error, ErrorCode};

use super::hold::Hand;
use super::keys::{Change, Condition, Entry, Selection};
use super::{Asker, Coordination, Effect, Noun, WaitId};
use crate::broker::keys::PeerKey;

/// The token of a lock that a change is made under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Fence {
    pub(in crate::broker) lock: ResourceName,
    pub(in crate::broker) token: u64,
}

/// A value to be put.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Value {
    pub(in crate::broker) payload: Payload,
    pub(in crate::broker) ttl: Option<Duration>,
    /// 0 for none.
    pub(in crate::broker) lease: u64,
}

/// What is to happen to a key.
#[derive(Clone, Debug)]
pub(in crate::broker) enum Act {
    /// Nothing: its condition has to hold.
    Check,
    Put(Value),
    Delete,
}

/// What is asked of one key.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Ask {
    pub(in crate::broker) key: ResourceName,
    pub(in crate::broker) condition: Condition,
    pub(in crate::broker) act: Act,
}

/// A request for changes: all of them are made, or none.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Request {
    /// Who is told the outcome; `None` for what the daemon does by itself.
    pub(in crate::broker) asker: Option<Asker>,
    pub(in crate::broker) hand: Hand,
    pub(in crate::broker) asks: Vec<Ask>,
    pub(in crate::broker) fence: Option<Fence>,
    /// What the changes are to survive at least.
    pub(in crate::broker) durability: Durability,
    /// What its user may have; `None` for what the daemon does by itself.
    pub(in crate::broker) limits: Option<Arc<Limits>>,
}

impl Request {
    /// Bytes that it holds while it waits.
    pub(super) fn bytes(&self) -> usize {
        let of = |ask: &Ask| match &ask.act {
            Act::Put(value) => ask.key.as_str().len() + value.payload.len(),
            Act::Check | Act::Delete => ask.key.as_str().len(),
        };
        self.asks.iter().map(of).sum()
    }
}

impl Coordination {
    /// Takes a request for changes. It is carried out in its turn, and its asker is told what came of it.
    ///
    /// # Errors
    /// `quota_exceeded`, `permission_denied`, `storage_failed`.
    pub(in crate::broker) fn ask(
        &mut self,
        now: Instant,
        request: Request,
        limits: &Limits,
    ) -> Result<(), Error> {
        self.begin_keys(now, limits);
        self.numbers.check()?;
        let puts = request.asks.iter().any(|ask| matches!(ask.act, Act::Put(_)));
        if puts && request.hand.uid.is_none() {
            return Err(Error::new(ErrorCode::PermissionDenied, "only users of this machine put keys"));
        }
        self.line.check(&request, limits)?;
        if let Some(asker) = &request.asker {
            self.check_changes(asker, limits)?;
            self.begin_change(asker);
        }
        self.line.push(request);
        Ok(())
    }

    /// Whether another request of the session, and of its user, may wait for the disk.
    ///
    /// # Errors
    /// `quota_exceeded`.
    pub(super) fn check_changes(&self, asker: &Asker, limits: &Limits) -> Result<(), Error> {
        let max = limits.changes_pending_per_connection_max;
        if self.changes_pending(asker.peer) >= max {
            return Err(Error::quota("changes_pending_per_connection_max", max.into()));
        }
        let max = limits.changes_pending_per_uid_max;
        if self.changes.of(asker.user.uid) >= max.into() {
            return Err(Error::quota("changes_pending_per_uid_max", max.into()));
        }
        Ok(())
    }

    /// A request waits for the disk.
    pub(super) fn begin_change(&mut self, asker: &Asker) {
        self.peers.entry(asker.peer).or_default().changes += 1;
        self.changes.add(asker.user.uid, 1);
    }

    /// It does not wait any more.
    pub(super) fn end_change(&mut self, asker: &Asker) {
        self.changes.remove(asker.user.uid, 1);
        if let Some(of) = self.peers.get_mut(&asker.peer) {
            of.changes -= 1;
            if of.is_empty() {
                self.peers.remove(&asker.peer);
            }
        }
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

    /// The keys from one name to before another or to the last, behind `after`, in order.
    pub(in crate::broker) fn list_between<'a>(
        &'a self,
        from: &str,
        to: Option<&'a str>,
        after: &str,
    ) -> impl Iterator<Item = (&'a ResourceName, &'a Entry)> {
        self.keys.between(from, to, after)
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
        self.check_from(from)?;
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
        let first = self.first_of(&selection, from, limits)?;
        self.key_watchers.insert(&selection, to);
        self.peers.entry(to.peer).or_default().watches.insert(to.correlation, selection);
        self.charge(to.peer, 0, 0, 1);
        self.effects.extend(first.into_iter().map(|change| Effect::Changed { to, change }));
        self.effects.push_back(Effect::Watches { to, revision: self.keys.last() });
        Ok(())
    }

    /// What a watch is told of at first: the changes from a revision on, or what is there, in the order of the revisions.
    /// It ends behind what no connection has room for: by then the watch is lost.
    fn first_of(
        &self,
        selection: &Selection,
        from: Option<u64>,
        limits: &Limits,
    ) -> Result<Vec<Change>, Error> {
        let mut left = Some(limits.queue_per_connection_max_bytes as usize);
        let mut fits = |bytes: usize| {
            let had = left;
            left = left.and_then(|left| left.checked_sub(bytes));
            had.is_some()
        };
        if let Some(from) = from {
            self.check_from(from)?;
            let changes = self.keys.since(selection, from)?;
            return Ok(changes.take_while(|change| fits(change.told_bytes())).cloned().collect());
        }
        let present = self.keys.range(selection, "").map(|(key, entry)| Change {
            revision: entry.revision,
            key: key.clone(),
            entry: Some(entry.clone()),
            durability: entry.durability,
        });
        let mut present: Vec<Change> = present.take_while(|change| fits(change.told_bytes())).collect();
        present.sort_by_key(|change| change.revision);
        Ok(present)
    }

    /// Ends a watch over keys. Says whether there was one.
    pub(in crate::broker) fn unwatch(&mut self, peer: PeerKey, correlation: u64) -> bool {
        let of = self.peers.get_mut(&peer);
        let Some(selection) = of.and_then(|of| of.watches.remove(&correlation)) else { return false };
        self.key_watchers.remove(&selection, WaitId { peer, correlation });
        self.charge(peer, 0, 0, -1);
        true
    }

    /// Whether there is such a watch.
    pub(in crate::broker) fn has_watch(&self, to: WaitId) -> bool {
        self.peers.get(&to.peer).is_some_and(|of| of.watches.contains_key(&to.correlation))
    }

    pub(super) fn tell_watches(&mut self, change: &Change) {
        for to in self.key_watchers.of(&change.key) {
            self.effects.push_back(Effect::Changed { to, change: change.clone() });
        }
    }

    pub(super) fn check_lease(&self, hand: Hand, lease: u64) -> Result<(), Error> {
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
            Some(last) if (last..=self.numbers.last()).contains(token) => return Ok(()),
            Some(last) if *token < last => {
                format!("token {token} of lock {lock} is older than {last}, which was given since")
            }
            Some(_) => format!("token {token} of lock {lock} was never given"),
            None => format!("lock {lock} was not held lately"),
        };
        Err(Error::new(ErrorCode::StaleFencingToken, message).with_hint("take the lock again"))
    }

    /// Whoever asks from behind all numbers has seen changes of a store that is gone.
    fn check_from(&self, from: u64) -> Result<(), Error> {
        let last = self.numbers.last();
        if from <= last + 1 {
            return Ok(());
        }
        let message = format!("revision {from} was asked for, and none above {last} was ever given here");
        let mut error = Error::new(ErrorCode::Compacted, message)
            .with_hint("begin with what is there now, and go on from its revision");
        error.detail_mut().limit = Some(last);
        Err(error)
    }

    /// So much of the history is remembered.
    pub(in crate::broker) fn remember_within(&mut self, limits: &Limits) {
        self.keys.set_window(limits);
    }

    /// Nothing of earlier lives of the daemon is known, unless a store has told of it.
    fn begin_keys(&mut self, now: Instant, limits: &Limits) {
        self.keys.set_window(limits);
        if !self.keys.has_begun() {
            let revision = self.next_token(now);
            self.keys.begin_at(revision);
        }
    }
}

pub(super) fn no_such_key(key: &ResourceName) -> Error {
    Error::new(ErrorCode::NoSuchKey, format!("there is no key {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_is_lost_at_once_costs_no_more_than_a_connection_has_room_for() {
        let limits = Limits { queue_per_connection_max_bytes: 10 * 11, ..Limits::default() };
        let mut coordination = Coordination::default();
        coordination.begin_keys(Instant::from_nanos(0), &limits);
        for revision in 1..=100 {
            let entry = Entry {
                revision,
                created: revision,
                version: 1,
                value: Payload::bytes(vec![7; 9]),
                uid: 7,
                end: None,
                durability: Durability::Memory,
            };
            let key = ResourceName::parse(&format!("{revision:02}")[..2]).expect("a name");
            let durability = Durability::Memory;
            coordination.keys.apply(Change { revision, key, entry: Some(entry), durability });
        }
        let all = Selection::Prefix(String::new());
        for (from, there) in [(None, 99), (Some(2), 99)] {
            let told = coordination.first_of(&all, from, &limits).expect("nothing is forgotten");
            assert_eq!(told.len(), 11, "of {there}: the last of them does not fit");
        }
    }
}
