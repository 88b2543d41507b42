//! PURE. Work queues: entries that are put, delivered to whoever takes them, and gone once they are acknowledged.
//!
//! An entry is in one place at a time: it waits (ready, or delayed), or it is in one delivery. A delivery has a token, and
//! ends with it: by an ack, by a nack, with its time, or with the session it is bound to. Every end but the ack puts the
//! entry back where it stood, or, when it was delivered as often as it may be, among the dead letters: into the queue
//! `NAME.dead`, which is a queue like any other. Nothing else takes an entry away but a purge, and a put into a full queue that
//! was told to make room.
//!
//! | file | noun |
//! |---|---|
//! | `entries`, `ids` | the entries of a queue in their order, and the ids that were put lately |
//! | `put` | entries that come, make room or are purged |
//! | `line` | those who take and consume, served in turn |
//! | `delivery` | what is being worked on, and how that ends |
//! | `kept`, `saved` | what waits for the disk, and entries as records of the store |
//! | `rows` | what is shown of all this |

mod delivery;
mod entries;
mod ids;
mod kept;
mod line;
mod put;
mod rows;
mod saved;

use std::collections::{BTreeMap, BTreeSet};

use ipc_core::limits::Limits;
use ipc_core::name::ResourceName;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::Durability;
use ipc_core::{Error, ErrorCode};
use slotmap::{SlotMap, new_key_type};

use self::delivery::Delivery;
pub(in crate::broker) use self::delivery::{Given, NackTerms};
use self::entries::Entries;
pub(in crate::broker) use self::entries::{Entry, State};
use self::ids::{Forgotten, Ids, Window};
use self::kept::Keeping;
use self::line::{Claimant, Consumer};
pub(in crate::broker) use self::line::{TakeTerms, Taking};
pub(in crate::broker) use self::put::{By, NewEntry, Stored};
pub(in crate::broker) use self::rows::Peekable;
use super::wait_queue::WaitQueue;
use super::{Coordination, Timer, User};
use crate::broker::ledger::Ledger;

new_key_type! {
    /// A work queue.
    pub(super) struct QueueKey;
}

/// What has happened to a queue so far.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    puts: u64,
    duplicates: u64,
    acks: u64,
    redeliveries: u64,
    deaths: u64,
    drops: u64,
}

/// One work queue.
#[derive(Debug)]
struct Queue {
    name: ResourceName,
    /// Who has made it, and pays for it.
    payer: Option<u32>,
    entries: Entries,
    /// Requests that wait for an entry, and consumers that have credit: each is served one entry in its turn.
    line: WaitQueue<Claimant>,
    /// How many requests of those in the line wait.
    waiting: u32,
    consumers: u32,
    /// Entries that wait for the disk, and the ids of those that have been given one.
    arriving: usize,
    arriving_ids: BTreeMap<Box<str>, (u64, Durability)>,
    ids: Ids,
    /// When the timer for them is set to.
    ids_due: Option<Instant>,
    tally: Tally,
}

impl Queue {
    fn new(name: ResourceName, payer: Option<u32>) -> Self {
        Self {
            name,
            payer,
            entries: Entries::default(),
            line: WaitQueue::default(),
            waiting: 0,
            consumers: 0,
            arriving: 0,
            arriving_ids: BTreeMap::new(),
            ids: Ids::default(),
            ids_due: None,
            tally: Tally::default(),
        }
    }

    /// Whether nothing is in it, is awaited from it or is remembered of it.
    fn is_idle(&self) -> bool {
        let is_used = !self.line.is_empty() || self.consumers > 0 || self.arriving > 0;
        self.entries.is_empty() && !is_used && self.ids.is_empty()
    }
}

/// Every work queue.
#[derive(Debug, Default)]
pub(super) struct Queues {
    queues: SlotMap<QueueKey, Queue>,
    by_name: BTreeMap<ResourceName, QueueKey>,
    /// What is being worked on, by token.
    deliveries: BTreeMap<u64, Delivery>,
    /// How many there are, by who has made them.
    counts: Ledger<Option<u32>>,
    /// Entries of all queues, by who has put them.
    entries: Ledger<u32>,
    /// What the entries and the remembered ids of each user cost, in bytes.
    bytes: Ledger<u32>,
    /// How long, and how many, ids are remembered.
    window: Window,
    keeping: Keeping,
    /// Where the entries are that have been restored so far.
    restored: BTreeMap<u64, QueueKey>,
}

/// What one session has to do with work queues.
#[derive(Debug, Default)]
pub(super) struct Works {
    /// Its consumers, by their correlation.
    consumers: BTreeMap<u64, Consumer>,
    /// Deliveries that are bound to it.
    deliveries: BTreeSet<u64>,
    /// Requests for such that wait.
    waiting: u32,
    /// How many more its consumers may have open.
    credit: u32,
}

impl Works {
    pub(super) fn is_empty(&self) -> bool {
        self.consumers.is_empty() && self.deliveries.is_empty()
    }

    /// A request for a delivery begins to wait, or waits no longer.
    pub(super) fn wait(&mut self, terms: TakeTerms, more: i32) {
        if terms.is_bound {
            self.waiting = self.waiting.saturating_add_signed(more);
        }
    }

    /// How many deliveries it has open, or is to be given as they come.
    fn deliveries_due(&self) -> u64 {
        self.deliveries.len() as u64 + u64::from(self.waiting) + u64::from(self.credit)
    }
}

impl Queues {
    fn key(&self, name: &ResourceName) -> Option<QueueKey> {
        self.by_name.get(name).copied()
    }

    fn get(&self, key: QueueKey) -> Option<&Queue> {
        self.queues.get(key)
    }

    fn get_mut(&mut self, key: QueueKey) -> Option<&mut Queue> {
        self.queues.get_mut(key)
    }

    /// The queue of that name, made if there is none: the user is charged with it then.
    ///
    /// # Errors
    /// `quota_exceeded`.
    fn open(&mut self, name: &ResourceName, user: User, limits: &Limits) -> Result<QueueKey, Error> {
        if let Some(key) = self.key(name) {
            return Ok(key);
        }
        let standing = self.counts.standing(user.uid);
        let max = limits.work_queues_per_uid_max;
        if standing.own >= max.into() {
            return Err(Error::quota("work_queues_per_uid_max", max.into()));
        }
        standing.check(1, "work_queues_max", limits.work_queues_max.into(), user.is_alone)?;
        Ok(self.open_in_any_case(name, user.uid))
    }

    fn open_in_any_case(&mut self, name: &ResourceName, payer: Option<u32>) -> QueueKey {
        if let Some(key) = self.key(name) {
            return key;
        }
        let key = self.queues.insert(Queue::new(name.clone(), payer));
        self.by_name.insert(name.clone(), key);
        self.counts.add(payer, 1);
        key
    }

    /// A user pays for an entry from here on.
    fn charge_entry(&mut self, entry: &Entry) {
        self.entries.add(entry.uid, 1);
        self.bytes.add(entry.uid, entry.cost() as u64);
    }

    fn refund_entry(&mut self, entry: &Entry) {
        self.entries.remove(entry.uid, 1);
        self.bytes.remove(entry.uid, entry.cost() as u64);
    }

    /// An entry is gone for good.
    fn remove_entry(&mut self, key: QueueKey, number: u64) -> Option<Entry> {
        let entry = self.get_mut(key)?.entries.remove(number)?;
        self.refund_entry(&entry);
        self.keeping.forget_state(number);
        Some(entry)
    }
}

impl Coordination {
    /// An entry is somewhere else from here on, and its timer with it. Gives where it was.
    fn move_entry(&mut self, key: QueueKey, number: u64, state: State) -> Option<State> {
        let before = self.queues.get_mut(key)?.entries.set_state(number, state)?;
        if let State::Delayed(until) = before {
            self.timers.remove(&(until, Timer::Entry(key, number)));
        }
        if let State::Delayed(until) = state {
            self.timers.insert((until, Timer::Entry(key, number)));
        }
        Some(before)
    }

    fn refund_ids(&mut self, now: Instant, forgotten: Vec<Forgotten>) {
        for Forgotten { uid, bytes, kept } in forgotten {
            self.queues.bytes.remove(uid, bytes as u64);
            if let Some(number) = kept {
                self.queues.keeping.note_forgotten(now, number);
            }
        }
    }

    /// Takes an entry out for good.
    fn drop_entry(&mut self, key: QueueKey, number: u64) -> Option<Entry> {
        let entry = self.queues.remove_entry(key, number)?;
        if let State::Delayed(until) = entry.state {
            self.timers.remove(&(until, Timer::Entry(key, number)));
        }
        Some(entry)
    }

    /// The delay of an entry has passed.
    pub(super) fn end_delay(&mut self, now: Instant, key: QueueKey, number: u64) {
        let is_due = |entry: &Entry| matches!(entry.state, State::Delayed(until) if until <= now);
        let entry = self.queues.get(key).and_then(|queue| queue.entries.get(number));
        if let Some(entry) = entry.filter(|entry| is_due(entry)) {
            if entry.durability > Durability::Memory {
                self.queues.keeping.note_state(now, number, key);
            }
            self.move_entry(key, number, State::Ready);
            self.pump_queues(now, vec![key]);
        }
    }

    /// Forgets ids whose time has passed.
    pub(super) fn forget_ids(&mut self, now: Instant, key: QueueKey) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let forgotten = queue.ids.forget(now);
        self.time_ids(key);
        self.refund_ids(now, forgotten);
        self.close_queue_if_idle(key);
    }

    /// Sets the one timer for the ids of a queue to when the first of them is forgotten.
    pub(super) fn time_ids(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let due = queue.ids.due();
        let before = core::mem::replace(&mut queue.ids_due, due);
        if before != due {
            if let Some(before) = before {
                self.timers.remove(&(before, Timer::Ids(key)));
            }
            self.timers.extend(due.map(|due| (due, Timer::Ids(key))));
        }
    }

    pub(super) fn close_queue_if_idle(&mut self, key: QueueKey) {
        if self.queues.get(key).is_some_and(Queue::is_idle)
            && let Some(queue) = self.queues.queues.remove(key)
        {
            self.queues.by_name.remove(&queue.name);
            self.queues.counts.remove(queue.payer, 1);
        }
    }

    /// Whether the session works on something, or is to be given work.
    pub(in crate::broker) fn is_at_work(&self, peer: crate::broker::keys::PeerKey) -> bool {
        self.peers.get(&peer).is_some_and(|of| !of.works.is_empty())
    }
}

/// There is no such delivery, or it is not of that queue.
fn not_delivered(queue: &ResourceName, token: u64) -> Error {
    Error::new(ErrorCode::LockLost, format!("{token} is no open delivery of queue {queue}")).with_hint(
        "its work was acknowledged or given back before, or it took too long, and the entry is delivered again",
    )
}

/// The lower of two limits of which 0 is none.
fn lower_of(one: u32, other: u32) -> u32 {
    match (one, other) {
        (0, only) | (only, 0) => only,
        (one, other) => one.min(other),
    }
}

#[cfg(test)]
mod tests {
    use super::ids::{Name, Window};
    use super::*;

    #[test]
    fn no_limit_is_higher_than_any() {
        let cases = [(0, 0, 0), (0, 5, 5), (5, 0, 5), (3, 5, 3), (5, 3, 3)];
        for (one, other, lower) in cases {
            assert_eq!(lower_of(one, other), lower);
        }
    }

    #[test]
    fn the_ids_of_a_queue_have_one_timer_however_many_come_and_go() {
        let mut coordination = Coordination::default();
        coordination.queues.window = Window::of(&Limits { work_queue_ids_max: 2, ..Limits::default() });
        let key = coordination.queues.open_in_any_case(&ResourceName::parse("a").expect("a name"), Some(1));
        for number in 1..=10 {
            let now = Instant::from_nanos(number * 1000);
            let id = number.to_string();
            let name = Name { id: &id, number, uid: 1, durability: Durability::Memory };
            coordination.remember_id(now, key, name);
            coordination.forget_ids(now, key);
            assert_eq!(coordination.timers.len(), 1, "after {number}");
        }
        let due = coordination.poll_timeout().expect("the timer");
        coordination.handle_timeout(due + core::time::Duration::from_secs(1));
        assert!(coordination.timers.is_empty());
    }
}
