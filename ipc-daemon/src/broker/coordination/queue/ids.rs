//! Ids of entries that were put lately, so that a second put of one is found to be a duplicate.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use ipc_core::limits::Limits;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::Durability;

use super::entries::OVERHEAD_BYTES;

/// An id, and what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name<'a> {
    pub(super) id: &'a str,
    /// The number of the entry that was put with it.
    pub(super) number: u64,
    /// Who pays for it.
    pub(super) uid: u32,
    /// What the entry and its id survive.
    pub(super) durability: Durability,
}

/// What is remembered of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) number: u64,
    pub(super) durability: Durability,
    uid: u32,
}

/// For how long, and how many of a queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    time: Duration,
    count_max: usize,
}

impl Window {
    pub(super) fn of(limits: &Limits) -> Self {
        let time = Duration::from_millis(limits.work_queue_id_window_ms.into());
        Self { time, count_max: limits.work_queue_ids_max as usize }
    }
}

/// An id that is forgotten: who paid for it, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forgotten {
    pub(super) uid: u32,
    pub(super) bytes: usize,
    /// The number that stood with it on the disk.
    pub(super) kept: Option<u64>,
}

/// The last ids of one queue: for a time, and only so many.
#[derive(Debug, Default)]
pub(super) struct Ids {
    by_id: BTreeMap<Box<str>, Known>,
    /// In the order in which they are forgotten.
    order: VecDeque<(Instant, Box<str>)>,
}

/// What an id costs while it is remembered, in bytes.
pub(super) fn cost(id: &str) -> usize {
    OVERHEAD_BYTES + id.len()
}

impl Ids {
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Known> {
        self.by_id.get(id)
    }

    /// When the next one is forgotten.
    pub(super) fn due(&self) -> Option<Instant> {
        self.order.front().map(|(until, _)| *until)
    }

    /// Remembers an id from `now` on. Gives those that are forgotten for it.
    pub(super) fn remember(&mut self, now: Instant, name: Name<'_>, window: Window) -> Vec<Forgotten> {
        let Name { id, number, uid, durability } = name;
        self.by_id.insert(id.into(), Known { number, durability, uid });
        self.order.push_back((now + window.time, id.into()));
        let mut forgotten = Vec::new();
        while self.by_id.len() > window.count_max {
            forgotten.extend(self.forget_first());
        }
        forgotten
    }

    /// Forgets what has been remembered for its time.
    pub(super) fn forget(&mut self, now: Instant) -> Vec<Forgotten> {
        let mut forgotten = Vec::new();
        while self.due().is_some_and(|due| due <= now) {
            forgotten.extend(self.forget_first());
        }
        forgotten
    }

    fn forget_first(&mut self) -> Option<Forgotten> {
        let (_, id) = self.order.pop_front()?;
        let known = self.by_id.remove(&id)?;
        let kept = (known.durability > Durability::Memory).then_some(known.number);
        Some(Forgotten { uid: known.uid, bytes: cost(&id), kept })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn ids_are_remembered_for_their_time_and_only_so_many() {
        let limits = Limits { work_queue_ids_max: 2, work_queue_id_window_ms: 10, ..Limits::default() };
        let mut ids = Ids::default();
        for (number, id) in ["a", "b", "c"].into_iter().enumerate() {
            // The first is on the disk too, and is to be forgotten there.
            let durability = if id == "a" { Durability::Disk } else { Durability::Memory };
            let name = Name { id, number: number as u64, uid: 7, durability };
            let forgotten = ids.remember(at(number as u64), name, Window::of(&limits));
            let first = Forgotten { uid: 7, bytes: cost("a"), kept: Some(0) };
            let due = if id == "c" { vec![first] } else { Vec::new() };
            assert_eq!(forgotten, due, "{id}");
        }
        assert_eq!((ids.get("a"), ids.get("b").map(|known| known.number)), (None, Some(1)));
        for (now, left) in [(10, 2), (11, 1), (12, 0)] {
            ids.forget(at(now));
            assert_eq!(ids.by_id.len(), left, "{now}");
        }
        assert!(ids.is_empty() && ids.due().is_none());
    }
}
