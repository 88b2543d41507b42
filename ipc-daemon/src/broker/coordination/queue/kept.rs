//! What of work queues is kept on a disk: what waits for it, and what becomes of that.
//!
//! A request that is to be kept is judged when it comes, and what it takes is taken at once: room, a number, the entries that make
//! room for it. But nobody sees anything of it before it is kept. It waits, goes into the next commit with all others that wait,
//! and is then done and answered, or taken back and refused.
//!
//! What the daemon does by itself is seen at once, and written with the next commit or a little later: how often an entry was
//! delivered, that it is a dead letter, that an id is forgotten. A crash in between makes that undone: the entry is then delivered
//! once more often, which it may be.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ipc_core::Error;
use ipc_core::limits::Limits;
use ipc_core::name::ResourceName;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::Durability;

use super::delivery::Delivery;
use super::entries::{Entry, State};
use super::put::Stored;
use super::{QueueKey, saved};
use crate::broker::coordination::line::Pending;
use crate::broker::coordination::{Asker, Coordination, Effect, Noun};
use crate::broker::keys::PeerKey;
use crate::broker::ledger::{Ledger, User};
use crate::broker::records::Write;

/// So long what the daemon does by itself waits for others' commits.
const LAZY: Duration = Duration::from_secs(1);

/// An entry on its way into a queue.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) queue: QueueKey,
    pub(super) number: u64,
    pub(super) entry: Entry,
    pub(super) delay: Duration,
    /// Its id was given with it, and is remembered.
    pub(super) is_named: bool,
    /// Those that make room for it, and where they were.
    pub(super) victims: Vec<(u64, State)>,
}

/// What is to be done once it is kept.
#[derive(Debug)]
pub(super) enum Act {
    Put(Box<Arrival>),
    /// Of one before it.
    Duplicate(Stored),
    Ack {
        token: u64,
        delivery: Delivery,
    },
    Purge {
        queue: QueueKey,
        victims: Vec<(u64, State)>,
    },
}

/// A request that is to be kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) asker: Asker,
    /// The lock under whose token it is asked for.
    pub(super) fence: Option<ResourceName>,
    pub(super) act: Act,
}

/// What is on its way to the disk together.
#[derive(Debug, Default)]
struct Group {
    kept: Vec<Kept>,
    /// Entries whose state is written.
    states: BTreeMap<u64, QueueKey>,
    /// Ids that are forgotten.
    ids: Vec<u64>,
}

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    line: VecDeque<Kept>,
    group: Option<Group>,
    /// How many of both are asked for under a token of which lock.
    fenced: BTreeMap<ResourceName, u32>,
    /// How many of both are acknowledgements of deliveries that are bound to which session.
    acks: Ledger<PeerKey>,
    /// Those of these sessions that have ended.
    orphaned: BTreeSet<PeerKey>,
    /// How many entries wait to be put.
    pending: Pending,
    /// Entries whose state has changed since it was written.
    states: BTreeMap<u64, QueueKey>,
    /// Ids that were forgotten and are still on the disk.
    ids: Vec<u64>,
    /// When that is written in any case.
    lazy_at: Option<Instant>,
}

impl Keeping {
    /// The state of an entry is another than on the disk.
    pub(super) fn note_state(&mut self, now: Instant, number: u64, queue: QueueKey) {
        self.states.insert(number, queue);
        self.lazy_at.get_or_insert(now + LAZY);
    }

    /// What was noted could not be written. Where it has been noted anew since, that is how it stands.
    fn note_state_again(&mut self, now: Instant, number: u64, queue: QueueKey) {
        self.states.entry(number).or_insert(queue);
        self.lazy_at.get_or_insert(now + LAZY);
    }

    /// An id is forgotten that is on the disk.
    pub(super) fn note_forgotten(&mut self, now: Instant, number: u64) {
        self.ids.push(number);
        self.lazy_at.get_or_insert(now + LAZY);
    }

    /// The entry is gone, and its state with it.
    pub(super) fn forget_state(&mut self, number: u64) {
        self.states.remove(&number);
    }

    fn begin(&mut self, kept: Kept) {
        if let Some(lock) = &kept.fence {
            *self.fenced.entry(lock.clone()).or_default() += 1;
        }
        if let Some(peer) = kept.ack_of() {
            self.acks.add(peer, 1);
        }
        if let Some(bytes) = kept.put_bytes() {
            self.pending.add(kept.asker.user.uid, bytes);
        }
        self.line.push_back(kept);
    }

    /// Whether a user may have one more wait to be put, which costs so much.
    ///
    /// # Errors
    /// `quota_exceeded`.
    pub(super) fn check(&self, user: User, bytes: usize, limits: &Limits) -> Result<(), Error> {
        self.pending.check(user, bytes, limits)
    }

    /// One of them has come to an end.
    fn end(&mut self, kept: &Kept) {
        if let Some(peer) = kept.ack_of() {
            self.acks.remove(peer, 1);
            if self.acks.of(peer) == 0 {
                self.orphaned.remove(&peer);
            }
        }
        if let Some(bytes) = kept.put_bytes() {
            self.pending.remove(kept.asker.user.uid, bytes);
        }
        if let Some(lock) = &kept.fence
            && let Some(count) = self.fenced.get_mut(lock)
        {
            *count -= 1;
            if *count == 0 {
                self.fenced.remove(lock);
            }
        }
    }

    fn is_lazy(&self) -> bool {
        !self.states.is_empty() || !self.ids.is_empty()
    }
}

impl Kept {
    /// The session of the delivery that it acknowledges.
    fn ack_of(&self) -> Option<PeerKey> {
        if let Act::Ack { delivery, .. } = &self.act { delivery.bound_to } else { None }
    }

    /// What an entry costs that is put, and is to be kept itself. Others are there for what goes with them.
    fn put_bytes(&self) -> Option<usize> {
        match &self.act {
            Act::Put(put) if put.entry.durability > Durability::Memory => Some(put.entry.cost()),
            _ => None,
        }
    }

    /// Entries that go with it.
    fn going(&self) -> Vec<u64> {
        let numbers = |victims: &[(u64, State)]| victims.iter().map(|(number, _)| *number).collect();
        match &self.act {
            Act::Put(put) => numbers(&put.victims),
            Act::Duplicate(_) => Vec::new(),
            Act::Ack { delivery, .. } => vec![delivery.number],
            Act::Purge { victims, .. } => numbers(victims),
        }
    }
}

/// When the disk is asked.
impl Coordination {
    /// Whether something waits, or is on its way to the disk.
    pub(in crate::broker::coordination) fn is_work_pending(&self) -> bool {
        self.queues.keeping.group.is_some() || !self.queues.keeping.line.is_empty()
    }

    /// Whether something under a token of that lock is on its way to the disk.
    pub(in crate::broker::coordination) fn is_work_outstanding(&self, lock: &ResourceName) -> bool {
        self.queues.keeping.fenced.contains_key(lock)
    }

    /// When what the daemon does by itself is to be written.
    pub(in crate::broker::coordination) fn lazy_at(&self) -> Option<Instant> {
        let keeping = &self.queues.keeping;
        keeping.lazy_at.filter(|_| keeping.group.is_none() && keeping.is_lazy())
    }

    pub(in crate::broker::coordination) fn is_work_draft_due(&self, now: Instant) -> bool {
        let keeping = &self.queues.keeping;
        let is_late = self.lazy_at().is_some_and(|at| at <= now);
        keeping.group.is_none() && (!keeping.line.is_empty() || is_late)
    }

    /// Whether any of those is on the disk.
    pub(super) fn are_kept(&self, key: QueueKey, victims: &[(u64, State)]) -> bool {
        victims.iter().any(|(number, _)| self.is_durable(key, *number))
    }

    fn is_durable(&self, key: QueueKey, number: u64) -> bool {
        let entry = self.queues.get(key).and_then(|queue| queue.entries.get(number));
        entry.is_some_and(|entry| entry.durability > Durability::Memory)
    }

    /// A request waits for the disk.
    pub(super) fn keep(&mut self, kept: Kept) {
        self.begin_change(&kept.asker);
        self.queues.keeping.begin(kept);
    }

    /// Gives what is to be written.
    pub(in crate::broker::coordination) fn draft_work(&mut self, now: Instant, writes: &mut Vec<Write>) {
        let keeping = &mut self.queues.keeping;
        if keeping.group.is_some() {
            return;
        }
        let group = Group {
            kept: keeping.line.drain(..).collect(),
            states: core::mem::take(&mut keeping.states),
            ids: core::mem::take(&mut keeping.ids),
        };
        keeping.lazy_at = None;
        let before = writes.len();
        for kept in &group.kept {
            self.write(kept, writes);
        }
        // What goes takes its state along.
        let going: BTreeSet<u64> = group.kept.iter().flat_map(Kept::going).collect();
        for (number, key) in group.states.iter().filter(|(number, _)| !going.contains(number)) {
            if let Some(queue) = self.queues.get(*key)
                && let Some(entry) = queue.entries.get(*number)
            {
                writes.push(saved::state(now, *number, &queue.name, entry));
            }
        }
        writes.extend(group.ids.iter().map(|number| saved::forgotten(*number)));
        if writes.len() > before {
            self.queues.keeping.group = Some(group);
        } else {
            // Nothing of it needs the disk after all.
            self.publish_all(now, group.kept);
        }
    }

    fn write(&self, kept: &Kept, writes: &mut Vec<Write>) {
        match &kept.act {
            Act::Put(put) => {
                if put.entry.durability > Durability::Memory
                    && let Some(queue) = self.queues.get(put.queue)
                {
                    writes.push(saved::entry(put.number, &queue.name, &put.entry, put.delay));
                    if put.is_named {
                        writes.push(saved::id(put.number, &queue.name, &put.entry));
                    }
                }
                self.write_gone(put.queue, &kept.going(), writes);
            }
            Act::Duplicate(_) => {}
            Act::Ack { delivery, .. } => self.write_gone(delivery.queue, &kept.going(), writes),
            Act::Purge { queue, .. } => self.write_gone(*queue, &kept.going(), writes),
        }
    }

    fn write_gone(&self, key: QueueKey, going: &[u64], writes: &mut Vec<Write>) {
        for number in going.iter().filter(|number| self.is_durable(key, **number)) {
            writes.extend(saved::gone(*number));
        }
    }

    /// What was written is kept, or nothing of it is.
    pub(in crate::broker::coordination) fn settle_work(&mut self, now: Instant, result: &Result<(), Error>) {
        let Some(group) = self.queues.keeping.group.take() else { return };
        let locks: BTreeSet<ResourceName> = group.kept.iter().filter_map(|kept| kept.fence.clone()).collect();
        match result {
            Ok(()) => self.publish_all(now, group.kept),
            Err(error) => {
                for (number, queue) in group.states {
                    self.queues.keeping.note_state_again(now, number, queue);
                }
                for number in group.ids {
                    self.queues.keeping.note_forgotten(now, number);
                }
                let put = |kept: &Kept| if let Act::Put(put) = &kept.act { Some(put.number) } else { None };
                let failed: BTreeSet<u64> = group.kept.iter().filter_map(put).collect();
                for kept in group.kept.into_iter().rev() {
                    self.take_back_work(now, kept, error);
                }
                self.refuse_doubles(&failed, error);
            }
        }
        // Whoever waits for one of them was to see this first.
        for lock in locks {
            if let Some(gate) = self.by_name.get(&(Noun::Lock, lock)).copied() {
                self.pump(now, gate);
            }
        }
    }

    fn publish_all(&mut self, now: Instant, all: Vec<Kept>) {
        for kept in all {
            self.end_kept(&kept);
            self.publish_work(now, kept);
        }
    }
}

/// What becomes of it.
impl Coordination {
    /// It is kept as it was to be: it is done, and the asker is told.
    pub(super) fn publish_work(&mut self, now: Instant, kept: Kept) {
        let asker = kept.asker;
        match kept.act {
            Act::Put(put) => self.publish_put(now, &asker, *put),
            Act::Duplicate(stored) => self.tell_stored(&asker, stored),
            Act::Ack { token, delivery } => {
                self.drop_entry(delivery.queue, delivery.number);
                if let Some(queue) = self.queues.get_mut(delivery.queue) {
                    queue.tally.acks += 1;
                }
                self.give_credit(token, &delivery);
                self.effects.push_back(Effect::Acked { to: asker.id() });
                self.pump_queues(now, vec![delivery.queue]);
            }
            Act::Purge { queue, victims } => {
                self.drop_victims(queue, &victims);
                let (to, count) = (asker.id(), victims.len() as u64);
                self.effects.push_back(Effect::Purged { to, count });
                self.close_queue_if_idle(queue);
            }
        }
    }

    /// It is not kept: as if it had not been asked for.
    fn take_back_work(&mut self, now: Instant, kept: Kept, error: &Error) {
        let is_orphan = kept.ack_of().is_some_and(|peer| self.queues.keeping.orphaned.contains(&peer));
        self.refuse_kept(&kept, error);
        match kept.act {
            Act::Put(put) => self.take_back_put(now, *put),
            Act::Duplicate(_) => {}
            Act::Ack { token, delivery } => self.reopen_delivery(now, token, delivery, is_orphan),
            Act::Purge { queue, victims } => self.spare_victims(now, queue, &victims),
        }
    }

    /// Refuses what was put again while the first, which has failed, was on its way.
    fn refuse_doubles(&mut self, failed: &BTreeSet<u64>, error: &Error) {
        let is_double =
            |kept: &Kept| matches!(&kept.act, Act::Duplicate(stored) if failed.contains(&stored.number));
        let line = core::mem::take(&mut self.queues.keeping.line);
        let (doubles, others): (VecDeque<Kept>, VecDeque<Kept>) = line.into_iter().partition(is_double);
        self.queues.keeping.line = others;
        for double in doubles {
            self.refuse_kept(&double, error);
        }
    }

    fn take_back_put(&mut self, now: Instant, put: Arrival) {
        let Arrival { queue: key, entry, victims, .. } = put;
        self.queues.refund_entry(&entry);
        if let Some(queue) = self.queues.get_mut(key) {
            queue.arriving -= 1;
            queue.arriving_ids.remove(&entry.id);
        }
        self.spare_victims(now, key, &victims);
    }

    /// A request does not wait for the disk any more.
    fn end_kept(&mut self, kept: &Kept) {
        self.queues.keeping.end(kept);
        self.end_change(&kept.asker);
    }

    fn refuse_kept(&mut self, kept: &Kept, error: &Error) {
        self.end_kept(kept);
        let (to, operation) = (kept.asker.id(), kept.asker.operation);
        self.effects.push_back(Effect::Refused { to, operation, reason: error.clone().into() });
    }

    /// Those that were to go stay.
    fn spare_victims(&mut self, now: Instant, key: QueueKey, victims: &[(u64, State)]) {
        for (number, state) in victims {
            self.move_entry(key, *number, *state);
        }
        self.pump_queues(now, vec![key]);
    }

    pub(super) fn drop_victims(&mut self, key: QueueKey, victims: &[(u64, State)]) {
        for (number, _) in victims {
            self.drop_entry(key, *number);
        }
        if let Some(queue) = self.queues.get_mut(key) {
            queue.tally.drops += victims.len() as u64;
        }
    }

    /// A session ends: what it was working on and somebody has acknowledged goes on, but does not come back to it.
    pub(in crate::broker) fn orphan_acks(&mut self, peer: PeerKey) {
        if self.queues.keeping.acks.of(peer) > 0 {
            self.queues.keeping.orphaned.insert(peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use ipc_core::wire::coordination::Operation;

    use super::*;
    use crate::broker::coordination::User;

    #[test]
    fn a_lock_is_known_as_long_as_something_under_its_token_is_on_its_way() {
        let lock = ResourceName::parse("l").expect("a name");
        let kept = |fence: bool| {
            let (peer, user) = (PeerKey::default(), User { uid: Some(7), is_alone: true });
            let asker = Asker { peer, user, correlation: 1, operation: Operation::ACK, until: None };
            let stored = Stored {
                number: 1,
                id: String::new(),
                is_duplicate: true,
                dropped: 0,
                durability: Durability::Disk,
            };
            Kept { asker, fence: fence.then(|| lock.clone()), act: Act::Duplicate(stored) }
        };
        let mut keeping = Keeping::default();
        [true, false, true].map(kept).into_iter().for_each(|kept| keeping.begin(kept));
        for (fence, is_known) in [(true, true), (false, true), (true, false)] {
            keeping.end(&kept(fence));
            assert_eq!(keeping.fenced.contains_key(&lock), is_known);
        }
        assert!(keeping.fenced.is_empty());
    }
}
