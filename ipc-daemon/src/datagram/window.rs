//! The requests of one client that are remembered, so that none runs twice.
//!
//! Nothing is run below the floor. The client lifts it: it has the outcomes of everything below. Time lifts it too: what
//! is forgotten, and all before it, is not run any more.

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;
use ipc_core::session::Ticket;
use ipc_core::time::Instant;

/// How long a request is remembered after its deadline.
pub(super) const REMEMBERED_FOR: Duration = Duration::from_secs(30);

/// Where a request stands.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// It waits for the connection to the bus, or runs under this ticket.
    Running(Option<Ticket>),
    /// It has its outcome, which is kept as the datagram it is sent in, unless the client has it or there was no room.
    Done(Option<Bytes>),
}

/// A remembered request.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) stage: Stage,
    forget_at: Instant,
}

impl Entry {
    pub(super) fn kept_bytes(&self) -> usize {
        match &self.stage {
            Stage::Done(Some(datagram)) => datagram.len(),
            Stage::Done(None) | Stage::Running(_) => 0,
        }
    }
}

/// What a number is.
#[derive(Clone, Debug)]
pub(super) enum Judgement {
    /// It was not seen before; it is, or is not, behind a higher one.
    New {
        /// Whether it is.
        is_reordered: bool,
    },
    /// It is worked on.
    Running(Option<Ticket>),
    /// It has its outcome.
    Done(Option<Bytes>),
    /// It is below the floor.
    Late,
}

/// The requests by number.
#[derive(Debug)]
pub(super) struct Window {
    floor: u64,
    highest: u64,
    entries: BTreeMap<u64, Entry>,
    /// No entry is to be forgotten before that.
    forget_first: Instant,
}

impl Window {
    /// An empty window of a client whose low-water mark is `floor`.
    pub(super) fn new(floor: u64) -> Self {
        Self { floor, highest: 0, entries: BTreeMap::new(), forget_first: Instant::from_nanos(u64::MAX) }
    }

    pub(super) fn judge(&self, id: u64) -> Judgement {
        match self.entries.get(&id).map(|entry| &entry.stage) {
            Some(Stage::Running(ticket)) => Judgement::Running(*ticket),
            Some(Stage::Done(outcome)) => Judgement::Done(outcome.clone()),
            None if id < self.floor => Judgement::Late,
            None => Judgement::New { is_reordered: id < self.highest },
        }
    }

    /// Remembers a request until its deadline and [`REMEMBERED_FOR`].
    pub(super) fn insert(&mut self, id: u64, stage: Stage, deadline: Instant) {
        let forget_at = deadline + REMEMBERED_FOR;
        self.highest = self.highest.max(id);
        self.forget_first = self.forget_first.min(forget_at);
        self.entries.insert(id, Entry { stage, forget_at });
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Entry> {
        self.entries.get_mut(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The numbers of requests that are worked on.
    pub(super) fn running(&self) -> Vec<u64> {
        let running = self.entries.iter().filter(|(_, entry)| matches!(entry.stage, Stage::Running(_)));
        running.map(|(id, _)| *id).collect()
    }

    /// The client has the outcomes of everything below `low`. Gives what was remembered there, and how many numbers were
    /// never seen.
    pub(super) fn lift(&mut self, low: u64) -> (Vec<(u64, Entry)>, u64) {
        if low <= self.floor {
            return (Vec::new(), 0);
        }
        let mut passed = Vec::new();
        while let Some(first) = self.entries.first_entry().filter(|first| *first.key() < low) {
            passed.push(first.remove_entry());
        }
        // Of a client that has not said before where it stands nothing is known to be missing.
        let unseen = if self.floor == 0 { 0 } else { (low - self.floor).saturating_sub(passed.len() as u64) };
        self.floor = low;
        (passed, unseen)
    }

    /// Takes out what is due to be forgotten.
    pub(super) fn forget(&mut self, now: Instant) -> Vec<(u64, Entry)> {
        if now < self.forget_first {
            return Vec::new();
        }
        let is_due = |entry: &Entry| entry.forget_at <= now && matches!(entry.stage, Stage::Done(_));
        let due: Vec<u64> =
            self.entries.iter().filter(|(_, entry)| is_due(entry)).map(|(id, _)| *id).collect();
        let mut forgotten = Vec::new();
        for id in due {
            self.floor = self.floor.max(id.saturating_add(1));
            forgotten.extend(self.entries.remove(&id).map(|entry| (id, entry)));
        }
        let first = self.entries.values().map(|entry| entry.forget_at).min();
        self.forget_first = first.unwrap_or(Instant::from_nanos(u64::MAX));
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(5_000_000_000);

    fn done(window: &mut Window, id: u64, deadline: Instant) {
        window.insert(id, Stage::Done(Some(Bytes::from_static(b"x"))), deadline);
    }

    #[test]
    fn a_request_is_remembered_until_its_deadline_and_then_for_a_time() {
        let mut window = Window::new(1);
        done(&mut window, 2, NOW);
        let nanosecond = Duration::from_nanos(1);
        for (at, kept) in [
            (NOW + (REMEMBERED_FOR - nanosecond), 1),
            (NOW + REMEMBERED_FOR, 0),
            (NOW + (REMEMBERED_FOR + nanosecond), 0),
        ] {
            window.forget(at);
            assert_eq!(window.len(), kept);
        }
        // It and what is before it is not run any more; what is behind it is.
        assert!(matches!(window.judge(2), Judgement::Late));
        assert!(matches!(window.judge(1), Judgement::Late));
        assert!(matches!(window.judge(3), Judgement::New { is_reordered: false }));
    }

    #[test]
    fn the_client_lifts_the_floor_and_never_lowers_it() {
        let mut window = Window::new(1);
        done(&mut window, 2, NOW);
        window.insert(5, Stage::Running(None), NOW);
        assert!(matches!(window.judge(4), Judgement::New { is_reordered: true }));
        let (passed, unseen) = window.lift(4);
        assert_eq!((passed.len(), unseen), (1, 2), "1 and 3 never came");
        assert_eq!(window.lift(3).0.len(), 0);
        assert!(matches!(window.judge(3), Judgement::Late));
        assert!(matches!(window.judge(4), Judgement::New { .. }));
        assert!(matches!(window.judge(5), Judgement::Running(None)));
        assert_eq!(window.running(), [5]);
        assert_eq!(window.lift(u64::MAX).0.len(), 1);
    }

    #[test]
    fn what_runs_is_not_forgotten() {
        let mut window = Window::new(1);
        window.insert(1, Stage::Running(None), NOW);
        done(&mut window, 2, NOW);
        assert_eq!(window.forget(NOW + REMEMBERED_FOR).len(), 1);
        assert!(matches!(window.judge(1), Judgement::Running(None)));
    }
}
