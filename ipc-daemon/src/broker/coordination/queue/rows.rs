//! What is shown of work queues.

use core::time::Duration;

use ipc_core::limits::Limits;
use ipc_core::name::ResourceName;
use ipc_core::time::{Instant, whole_micros};
use ipc_core::wire::queue::{EntryState, QueueCounts};

use super::{Entry, Queue, State};
use crate::broker::coordination::Coordination;

/// A queue, in numbers.
#[derive(Clone, Debug)]
pub(in crate::broker) struct QueueState {
    pub(in crate::broker) name: String,
    pub(in crate::broker) counts: QueueCounts,
}

/// An entry, and where it is.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Peekable<'a> {
    pub(in crate::broker) number: u64,
    pub(in crate::broker) entry: &'a Entry,
    pub(in crate::broker) state: EntryState,
    /// When it can be taken, as far as that is known.
    pub(in crate::broker) due: Option<Duration>,
}

impl Coordination {
    /// Users who have made a queue that is there, or have put something that is remembered.
    pub(in crate::broker::coordination) fn users_of_queues(&self) -> impl Iterator<Item = u32> {
        self.queues.counts.holders().flatten().chain(self.queues.bytes.holders())
    }

    /// What a user has of queues, with the name of the limit of each user, and the most that it may have.
    pub(in crate::broker::coordination) fn queues_used_by(
        &self,
        uid: u32,
        limits: &Limits,
    ) -> [(&'static str, u64, u64); 3] {
        let queues_max = limits.work_queues_per_uid_max.min(limits.work_queues_max);
        let entries_max = limits.work_queue_entries_per_uid_max.min(limits.work_queue_entries_max);
        let bytes_max = limits.work_queue_bytes_per_uid_max;
        [
            ("work_queues_per_uid_max", self.queues.counts.of(Some(uid)), queues_max.into()),
            ("work_queue_entries_per_uid_max", self.queues.entries.of(uid), entries_max.into()),
            ("work_queue_bytes_per_uid_max", self.queues.bytes.of(uid), bytes_max.into()),
        ]
    }

    /// Every work queue, in order of its name.
    pub(in crate::broker) fn queue_states(&self, now: Instant) -> Vec<QueueState> {
        let queues = self.queues.by_name.values().filter_map(|key| self.queues.get(*key));
        queues
            .map(|queue| QueueState { name: queue.name.to_string(), counts: self.counts_of(now, queue) })
            .collect()
    }

    /// A work queue, in numbers. One that nobody has anything to do with has none.
    pub(in crate::broker) fn queue_counts(&self, now: Instant, name: &ResourceName) -> QueueCounts {
        let queue = self.queues.key(name).and_then(|key| self.queues.get(key));
        let empty = || QueueCounts { dead: self.dead_letters_of(name), ..QueueCounts::default() };
        queue.map_or_else(empty, |queue| self.counts_of(now, queue))
    }

    fn counts_of(&self, now: Instant, queue: &Queue) -> QueueCounts {
        let (ready, delayed, delivered) = queue.entries.counts();
        let tally = queue.tally;
        QueueCounts {
            ready: ready as u64,
            delayed: delayed as u64,
            delivered: delivered as u64,
            dead: self.dead_letters_of(&queue.name),
            waiting: queue.waiting,
            consumers: queue.consumers,
            bytes: queue.entries.bytes() as u64,
            oldest_us: queue.entries.oldest().map_or(0, |oldest| whole_micros(now.since(oldest))),
            puts: tally.puts,
            duplicates: tally.duplicates,
            acks: tally.acks,
            redeliveries: tally.redeliveries,
            deaths: tally.deaths,
            drops: tally.drops,
        }
    }

    fn dead_letters_of(&self, name: &ResourceName) -> u64 {
        let dead = name.dead_letters().ok().and_then(|dead| self.queues.key(&dead));
        dead.and_then(|key| self.queues.get(key)).map_or(0, |queue| queue.entries.len() as u64)
    }

    /// The entries of a queue: those that are ready in the order in which they are taken, then the others.
    pub(in crate::broker) fn peek<'a>(
        &'a self,
        now: Instant,
        name: &ResourceName,
    ) -> impl Iterator<Item = Peekable<'a>> {
        let queue = self.queues.key(name).and_then(|key| self.queues.get(key));
        queue.into_iter().flat_map(|queue| queue.entries.in_order()).map(move |(number, entry)| {
            let (state, due) = match entry.state {
                State::Ready | State::Leaving => (EntryState::Ready, None),
                State::Delayed(until) => (EntryState::Delayed, Some(until)),
                State::Delivered(token) => {
                    let delivery = self.queues.deliveries.get(&token);
                    (EntryState::Delivered, delivery.and_then(|delivery| delivery.until))
                }
            };
            Peekable { number, entry, state, due: due.map(|due| due.since(now)) }
        })
    }
}
