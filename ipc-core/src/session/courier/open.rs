//! Requests without an outcome, and when each is sent again.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::id::Epoch;
use crate::limits::DEADLINE_GRACE;
use crate::time::Instant;

/// Pause before a datagram is sent for the second time. Most answers come well within it.
const FIRST: Duration = Duration::from_millis(20);
/// The longest pause.
const MAX: Duration = Duration::from_secs(1);

/// The pause after the `attempts`th time, counted from 1: twice as long each time, up to a maximum, a part of it at random
/// so that clients who lost together do not come again together.
pub(super) fn pause(attempts: u32, random: f64) -> Duration {
    let full = FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(MAX);
    full.mul_f64(0.75 + random / 2.0)
}

/// A request without an outcome.
#[derive(Debug)]
pub(super) struct Open {
    /// As it is sent; what changes from time to time is put in anew.
    pub(super) datagram: Vec<u8>,
    pub(super) deadline: Instant,
    /// The daemon's life in which it was sent for the first time. It is never sent to another.
    pub(super) sent_under: Option<Epoch>,
    /// It is a hello, which runs nothing.
    pub(super) is_greeting: bool,
    attempts: u32,
    again_at: Instant,
}

/// The requests by number.
#[derive(Debug, Default)]
pub(super) struct OpenRequests {
    open: BTreeMap<u64, Open>,
    /// When something is to be done about each.
    timers: BTreeSet<(Instant, u64)>,
    /// To be sent now.
    ready: BTreeSet<u64>,
}

impl OpenRequests {
    /// A request that is to be sent.
    pub(super) fn insert(&mut self, id: u64, datagram: Vec<u8>, deadline: Instant) {
        let again_at = deadline + DEADLINE_GRACE;
        self.timers.insert((again_at, id));
        self.ready.insert(id);
        let open = Open { datagram, deadline, sent_under: None, is_greeting: false, attempts: 0, again_at };
        self.open.insert(id, open);
    }

    /// The same of a hello, which has been sent.
    pub(super) fn insert_greeting(
        &mut self,
        now: Instant,
        id: u64,
        hello: Vec<u8>,
        deadline: Instant,
        jitter: f64,
    ) {
        self.insert(id, hello, deadline);
        if let Some(open) = self.open.get_mut(&id) {
            open.is_greeting = true;
        }
        self.sent(now, id, Epoch(0), jitter);
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Open> {
        self.open.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Open> {
        let open = self.open.remove(&id)?;
        self.timers.remove(&(open.again_at, id));
        self.ready.remove(&id);
        Some(open)
    }

    /// It was sent. Says whether that was not for the first time.
    pub(super) fn sent(&mut self, now: Instant, id: u64, epoch: Epoch, jitter: f64) -> bool {
        self.ready.remove(&id);
        let Some(open) = self.open.get_mut(&id) else { return false };
        open.sent_under.get_or_insert(epoch);
        open.attempts += 1;
        // Once more at the very end, whatever the pause: the outcome may be there.
        let last = open.deadline + DEADLINE_GRACE;
        let again_at = (now + pause(open.attempts, jitter)).min(last);
        self.timers.remove(&(open.again_at, id));
        self.timers.insert((again_at, id));
        open.again_at = again_at;
        open.attempts > 1
    }

    /// It is to be sent at once.
    pub(super) fn make_ready(&mut self, id: u64) {
        if self.open.contains_key(&id) {
            self.ready.insert(id);
        }
    }

    pub(super) fn is_ready(&self, id: u64) -> bool {
        self.ready.contains(&id)
    }

    /// The eldest that is to be sent.
    pub(super) fn next_ready(&self) -> Option<u64> {
        self.ready.first().copied()
    }

    /// One about which something is to be done, if its time has come. It is not named again before it was sent or its
    /// end has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<u64> {
        let (at, id) = *self.timers.first().filter(|(at, _)| *at <= now)?;
        self.timers.remove(&(at, id));
        if let Some(open) = self.open.get_mut(&id) {
            open.again_at = open.deadline + DEADLINE_GRACE;
            if open.again_at > at {
                self.timers.insert((open.again_at, id));
            }
        }
        Some(id)
    }

    pub(super) fn earliest(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The lowest number that has no outcome. Hellos have higher numbers than all others.
    pub(super) fn low_water(&self) -> Option<u64> {
        self.open.first_key_value().filter(|(_, open)| !open.is_greeting).map(|(id, _)| *id)
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn never_sent(&self) -> Vec<u64> {
        self.ids(|open| open.sent_under.is_none() || open.is_greeting)
    }

    pub(super) fn ever_sent(&self) -> Vec<u64> {
        self.ids(|open| open.sent_under.is_some() && !open.is_greeting)
    }

    /// Those that were sent in another life of the daemon than this.
    pub(super) fn sent_before(&self, epoch: Epoch) -> Vec<u64> {
        self.ids(|open| !open.is_greeting && open.sent_under.is_some_and(|sent| sent != epoch))
    }

    fn ids(&self, which: impl Fn(&Open) -> bool) -> Vec<u64> {
        self.open.iter().filter(|(_, open)| which(open)).map(|(id, _)| *id).collect()
    }

    /// Gives every request another number of its client.
    pub(super) fn readdress(&mut self, client: u32) {
        for open in self.open.values_mut() {
            if let Some(field) = open.datagram.get_mut(32..36) {
                field.copy_from_slice(&client.to_le_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum() {
        assert_eq!(pause(1, 0.5), FIRST);
        assert_eq!(pause(3, 0.5), FIRST * 4);
        assert_eq!((pause(1, 0.0), pause(1, 1.0)), (FIRST * 3 / 4, FIRST * 5 / 4));
        for attempts in [7, 40, u32::MAX] {
            assert_eq!(pause(attempts, 0.5), MAX);
        }
    }
}
