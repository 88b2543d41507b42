//! How much may be on its way to one client: as much as it shows that it reads.
//!
//! What a local client does not read stays charged to the daemon's one socket, so a few that never read could keep answers
//! from everybody. Each begins with two unread answers and gets one more for each that it has shown to have.

use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use ipc_core::time::Instant;

/// Answers that a client of whom nothing is known may leave unread.
const ALLOWANCE_FIRST: usize = 2;
/// Answers that any client may leave unread.
const ALLOWANCE_MAX: usize = 64;
/// Pause before an answer that the system did not take is offered to it again; twice as long each time.
const RETRY_FIRST: Duration = Duration::from_millis(1);
/// How often it is offered before it is left to the client to ask again.
const RETRIES_MAX: u32 = 8;
/// Pause between answers that are sent again to a client that asks; twice as long each time until it reads.
const AGAIN_FIRST: Duration = Duration::from_millis(5);
/// The longest such pause.
const AGAIN_MAX: Duration = Duration::from_secs(1);

/// What is on its way to one client, by number.
#[derive(Debug)]
pub(super) struct Flow {
    unread: BTreeSet<u64>,
    waiting: VecDeque<u64>,
    allowance: usize,
    /// When the next one is offered to the system again.
    pub(super) retry_at: Option<Instant>,
    retries: u32,
    again_from: Instant,
    again_pause: Duration,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            unread: BTreeSet::new(),
            waiting: VecDeque::new(),
            allowance: ALLOWANCE_FIRST,
            retry_at: None,
            retries: 0,
            again_from: Instant::from_nanos(0),
            again_pause: AGAIN_FIRST,
        }
    }
}

impl Flow {
    /// An answer is to be sent when there is room.
    pub(super) fn push(&mut self, id: u64) {
        if !self.waiting.contains(&id) {
            self.waiting.push_back(id);
        }
    }

    /// The next answer to send, if there is one and there is room.
    pub(super) fn next(&mut self) -> Option<u64> {
        if self.unread.len() >= self.allowance || self.retry_at.is_some() {
            return None;
        }
        let id = self.waiting.pop_front()?;
        self.unread.insert(id);
        Some(id)
    }

    /// Whether an answer that leaves now is to be acknowledged at once, because little room is left.
    pub(super) fn wants_word(&self) -> bool {
        self.unread.len() * 2 >= self.allowance
    }

    /// The client asks for an answer again. Says whether it is to be sent now.
    pub(super) fn ask_again(&mut self, now: Instant, id: u64) -> bool {
        if now < self.again_from {
            return false;
        }
        self.again_from = now + self.again_pause;
        self.again_pause = (self.again_pause * 2).min(AGAIN_MAX);
        self.waiting.retain(|waiting| *waiting != id);
        self.unread.insert(id);
        true
    }

    /// The client has this answer, or does not want it.
    pub(super) fn settle(&mut self, id: u64) {
        self.waiting.retain(|waiting| *waiting != id);
        if self.unread.remove(&id) {
            self.allowance = (self.allowance + 1).min(ALLOWANCE_MAX);
            self.again_pause = AGAIN_FIRST;
            self.again_from = Instant::from_nanos(0);
            self.retries = 0;
        }
    }

    /// The system did not take an answer: it waits. Gives how many are given up instead, because the client does not read.
    pub(super) fn unsent(&mut self, now: Instant, id: u64) -> usize {
        self.unread.remove(&id);
        if self.retries >= RETRIES_MAX {
            self.retries = 0;
            self.retry_at = None;
            let given_up = self.waiting.len() + 1;
            self.waiting.clear();
            return given_up;
        }
        self.waiting.push_front(id);
        if self.retry_at.is_none() {
            self.retry_at = Some(now + RETRY_FIRST * (1 << self.retries));
            self.retries += 1;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000);

    fn sent(flow: &mut Flow) -> Vec<u64> {
        std::iter::from_fn(|| flow.next()).collect()
    }

    #[test]
    fn a_client_gets_as_much_as_it_reads() {
        let mut flow = Flow::default();
        (1..=10).for_each(|id| flow.push(id));
        assert_eq!(sent(&mut flow), [1, 2]);
        assert!(flow.wants_word());
        flow.settle(1);
        assert_eq!(sent(&mut flow), [3, 4], "one that was read makes room for itself and one more");
        flow.settle(7);
        assert_eq!(sent(&mut flow), [0_u64; 0], "what was not sent cannot have been read");
        for id in [2, 3, 4] {
            flow.settle(id);
        }
        assert_eq!(sent(&mut flow), [5, 6, 8, 9, 10]);
    }

    #[test]
    fn the_allowance_has_a_maximum() {
        let mut flow = Flow::default();
        for id in 0..1000 {
            flow.push(id);
            sent(&mut flow);
            flow.settle(id);
        }
        (2000..3000).for_each(|id| flow.push(id));
        assert_eq!(sent(&mut flow).len(), ALLOWANCE_MAX);
    }

    #[test]
    fn what_the_system_does_not_take_is_offered_again_and_then_given_up() {
        let mut flow = Flow::default();
        flow.push(1);
        flow.push(2);
        let mut now = NOW;
        for round in 0..RETRIES_MAX {
            assert_eq!(flow.next(), Some(1));
            assert_eq!(flow.unsent(now, 1), 0);
            assert_eq!((flow.next(), flow.retry_at), (None, Some(now + RETRY_FIRST * (1 << round))));
            now = flow.retry_at.take().unwrap();
        }
        assert_eq!(flow.next(), Some(1));
        assert_eq!(flow.unsent(now, 1), 2);
        assert_eq!((flow.next(), flow.retry_at), (None, None));
    }

    #[test]
    fn a_client_that_only_asks_is_answered_ever_more_rarely() {
        let mut flow = Flow::default();
        let answers = |flow: &mut Flow, from: Instant| {
            (0..4000).filter(|at| flow.ask_again(from + Duration::from_millis(*at), 1)).count()
        };
        assert_eq!(answers(&mut flow, NOW), 11);
        flow.settle(1);
        assert!(flow.ask_again(NOW, 1));
    }
}
