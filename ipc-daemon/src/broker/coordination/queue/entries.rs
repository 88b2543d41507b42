//! The entries of one work queue, and in which order they are taken.

use core::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ipc_core::identity::Identity;
use ipc_core::payload::Payload;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::Durability;

/// What an entry costs beyond its id and payload, in bytes: the nodes and counters around it.
pub(super) const OVERHEAD_BYTES: usize = 300;

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum State {
    /// It can be taken.
    Ready,
    /// It can be taken from then on.
    Delayed(Instant),
    /// It is being worked on, in the delivery with that token.
    Delivered(u64),
    /// It is about to make room, or to be purged.
    Leaving,
}

/// One piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Entry {
    pub(in crate::broker) id: Box<str>,
    pub(in crate::broker) payload: Payload,
    pub(in crate::broker) priority: u8,
    /// How often it is delivered at most; 0 without limit.
    pub(super) max_deliveries: u32,
    pub(in crate::broker) deliveries: u32,
    pub(in crate::broker) put_at: Instant,
    pub(in crate::broker) sender: Identity,
    /// Who pays for it.
    pub(super) uid: u32,
    /// What became of it, of a dead letter.
    pub(in crate::broker) death: Option<String>,
    /// What it survives.
    pub(in crate::broker) durability: Durability,
    pub(in crate::broker) state: State,
}

impl Entry {
    /// What it costs, in bytes: with what became of it.
    pub(super) fn cost(&self) -> usize {
        cost(&self.id, &self.payload) + self.death.as_ref().map_or(0, String::len)
    }
}

pub(super) fn cost(id: &str, payload: &Payload) -> usize {
    OVERHEAD_BYTES + id.len() + payload.len()
}

/// The entries of one queue. Of those that are ready the one with the highest priority comes first, of those the one with
/// the lowest number, whether it has been delivered before or not.
#[derive(Debug, Default)]
pub(super) struct Entries {
    by_number: BTreeMap<u64, Entry>,
    ready: BTreeSet<(Reverse<u8>, u64)>,
    delayed: BTreeSet<(Instant, u64)>,
    leaving: usize,
    bytes: usize,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// What all of them cost, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many are ready, are delayed, are being worked on.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let (ready, delayed) = (self.ready.len(), self.delayed.len());
        (ready, delayed, self.len() - ready - delayed - self.leaving)
    }

    /// How many are not being worked on.
    pub(super) fn waiting(&self) -> usize {
        self.ready.len() + self.delayed.len()
    }

    pub(super) fn get(&self, number: u64) -> Option<&Entry> {
        self.by_number.get(&number)
    }

    /// The same, for what has no order: neither state, nor priority, nor cost.
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Entry> {
        self.by_number.get_mut(&number)
    }

    pub(super) fn insert(&mut self, number: u64, entry: Entry) {
        self.bytes += entry.cost();
        self.list(number, entry.priority, entry.state);
        self.by_number.insert(number, entry);
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.by_number.remove(&number)?;
        self.bytes -= entry.cost();
        self.unlist(number, entry.priority, entry.state);
        Some(entry)
    }

    /// It is somewhere else from here on. Gives where it was.
    pub(super) fn set_state(&mut self, number: u64, state: State) -> Option<State> {
        let entry = self.by_number.get_mut(&number)?;
        let (priority, before) = (entry.priority, core::mem::replace(&mut entry.state, state));
        self.unlist(number, priority, before);
        self.list(number, priority, state);
        Some(before)
    }

    fn list(&mut self, number: u64, priority: u8, state: State) {
        match state {
            State::Ready => self.ready.insert((Reverse(priority), number)),
            State::Delayed(until) => self.delayed.insert((until, number)),
            State::Delivered(_) => true,
            State::Leaving => {
                self.leaving += 1;
                true
            }
        };
    }

    fn unlist(&mut self, number: u64, priority: u8, state: State) {
        match state {
            State::Ready => self.ready.remove(&(Reverse(priority), number)),
            State::Delayed(until) => self.delayed.remove(&(until, number)),
            State::Delivered(_) => true,
            State::Leaving => {
                self.leaving -= 1;
                true
            }
        };
    }

    /// The one to be taken next.
    pub(super) fn first_ready(&self) -> Option<u64> {
        self.ready.first().map(|(_, number)| *number)
    }

    /// The one that makes room for another: of those that wait with the lowest priority the oldest that is ready, else the one
    /// that is ready soonest.
    pub(super) fn first_to_drop(&self) -> Option<u64> {
        let lowest = self.ready.last().map(|(priority, _)| *priority);
        let ready = lowest.and_then(|priority| self.ready.range((priority, 0)..).next());
        ready.map(|(_, number)| *number).or_else(|| self.delayed.first().map(|(_, number)| *number))
    }

    /// Those that are not being worked on.
    pub(super) fn all_waiting(&self) -> Vec<u64> {
        let ready = self.ready.iter().map(|(_, number)| *number);
        ready.chain(self.delayed.iter().map(|(_, number)| *number)).collect()
    }

    /// Those that are ready in the order in which they are taken, then those that are delayed, then those that are being
    /// worked on.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (u64, &Entry)> {
        let ready = self.ready.iter().map(|(_, number)| *number);
        let delayed = self.delayed.iter().map(|(_, number)| *number);
        let waiting = ready.chain(delayed).filter_map(|number| Some((number, self.get(number)?)));
        let is_delivered = |entry: &Entry| matches!(entry.state, State::Delivered(_));
        let delivered = self.by_number.iter().filter(move |(_, entry)| is_delivered(entry));
        waiting.chain(delivered.map(|(number, entry)| (*number, entry)))
    }

    /// When the oldest was put.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.by_number.first_key_value().map(|(_, entry)| entry.put_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(priority: u8, state: State) -> Entry {
        Entry {
            id: "x".into(),
            payload: Payload::from("work"),
            priority,
            max_deliveries: 0,
            deliveries: 0,
            put_at: Instant::default(),
            sender: Identity::Local { uid: 7, gid: 7, pid: 7 },
            uid: 7,
            death: None,
            durability: Durability::Memory,
            state,
        }
    }

    #[test]
    fn higher_priorities_come_first_and_older_ones_within_them() {
        let mut entries = Entries::default();
        for (number, priority) in [(1, 0), (2, 9), (3, 9), (4, 0), (5, 5)] {
            entries.insert(number, entry(priority, State::Ready));
        }
        entries.insert(6, entry(255, State::Delayed(Instant::from_nanos(5))));
        let order: Vec<u64> = entries.in_order().map(|(number, _)| number).collect();
        assert_eq!(order, [2, 3, 5, 1, 4, 6]);
        assert_eq!((entries.first_ready(), entries.first_to_drop()), (Some(2), Some(1)));
        assert_eq!(entries.set_state(2, State::Delivered(99)), Some(State::Ready));
        assert_eq!((entries.first_ready(), entries.counts()), (Some(3), (4, 1, 1)));
        assert_eq!(entries.in_order().last().map(|(number, _)| number), Some(2));
        entries.set_state(2, State::Ready);
        assert_eq!(entries.first_ready(), Some(2), "one that has come back stands where it stood");
    }

    #[test]
    fn what_is_removed_is_listed_and_charged_nowhere() {
        let mut entries = Entries::default();
        let states = [State::Ready, State::Delayed(Instant::from_nanos(3)), State::Delivered(4)];
        for (number, state) in states.into_iter().enumerate() {
            entries.insert(number as u64, entry(1, state));
        }
        assert_eq!((entries.waiting(), entries.bytes()), (2, 3 * (OVERHEAD_BYTES + 5)));
        assert_eq!(entries.all_waiting(), [0, 1]);
        for number in 0..3 {
            assert!(entries.remove(number).is_some() && entries.remove(number).is_none());
        }
        assert!(entries.is_empty() && entries.bytes() == 0 && entries.counts() == (0, 0, 0));
        assert!(entries.ready.is_empty() && entries.delayed.is_empty() && entries.first_to_drop().is_none());
    }

    #[test]
    fn without_ready_ones_the_soonest_makes_room() {
        let mut entries = Entries::default();
        for (number, due) in [(1, 9), (2, 5)] {
            entries.insert(number, entry(0, State::Delayed(Instant::from_nanos(due))));
        }
        assert_eq!((entries.first_to_drop(), entries.first_ready()), (Some(2), None));
    }
}
