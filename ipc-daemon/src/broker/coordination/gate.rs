//! What locks, semaphores and elections have in common: some hold it, the others wait in a fair queue.

use std::collections::{BTreeMap, BTreeSet};

use ipc_core::name::ResourceName;
use ipc_core::payload::Payload;
use ipc_core::time::Instant;
use slotmap::new_key_type;

use super::wait_queue::WaitQueue;
use super::{Noun, WaitId};
use crate::broker::keys::PeerKey;

new_key_type! {
    /// A gate.
    pub(super) struct GateKey;
}

/// How much of a gate somebody holds or wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Share {
    /// All of it.
    Exclusive,
    /// Together with others who share it.
    Shared,
    /// So many permits.
    Permits(u32),
}

/// What can be held by some while others wait.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) noun: Noun,
    pub(super) name: ResourceName,
    /// Who has made it, and pays for it.
    pub(super) payer: Option<u32>,
    /// Permits in all, of a semaphore.
    pub(super) permits: u32,
    /// Who holds it, by token.
    pub(super) holders: BTreeMap<u64, Share>,
    pub(super) queue: WaitQueue<WaitId>,
    /// The token of the last grant beside which nobody held it: older ones are stale.
    pub(super) fence: u64,
    /// The same, of grants that have been told.
    settled_fence: u64,
    /// How many of the holders have not been told yet.
    untold: u32,
    /// Nobody gets it before: a holder was lost.
    pub(super) closed_until: Option<Instant>,
    /// What the leader of an election proclaims.
    pub(super) value: Payload,
    /// Who observes an election, and under which correlation.
    pub(super) observers: BTreeSet<(PeerKey, u64)>,
    /// Permits that are held.
    used: u32,
    exclusive: u32,
}

impl Gate {
    pub(super) fn new(noun: Noun, name: ResourceName, permits: u32, payer: Option<u32>) -> Self {
        Self {
            noun,
            name,
            payer,
            permits,
            holders: BTreeMap::new(),
            queue: WaitQueue::default(),
            fence: 0,
            settled_fence: 0,
            untold: 0,
            closed_until: None,
            value: Payload::default(),
            observers: BTreeSet::new(),
            used: 0,
            exclusive: 0,
        }
    }

    /// Whether that share can be had beside what is held.
    pub(super) fn has_room(&self, share: Share) -> bool {
        match share {
            Share::Exclusive => self.holders.is_empty(),
            Share::Shared => self.exclusive == 0,
            Share::Permits(count) => self.used.saturating_add(count) <= self.permits,
        }
    }

    /// Whether nobody holds it, waits for it or watches it.
    pub(super) fn is_idle(&self) -> bool {
        self.holders.is_empty()
            && self.queue.is_empty()
            && self.observers.is_empty()
            && self.closed_until.is_none()
    }

    /// The last token of the gate of that name before this one.
    pub(super) fn remember_fence(&mut self, token: u64) {
        self.fence = token;
        self.settled_fence = token;
    }

    /// The last token beside which nobody held it, of those that have been told.
    pub(super) fn settled_fence(&self) -> u64 {
        self.settled_fence
    }

    /// One of those who hold it is told.
    pub(super) fn settle(&mut self) {
        self.settled_fence = self.fence;
        self.untold -= 1;
    }

    /// Whether there are others beside one that has not been told.
    pub(super) fn has_untold_beside(&self) -> bool {
        self.untold > 1
    }

    /// The token of the eldest of those who hold it and have been told so. They are told in the order of their tokens, so it is the
    /// first of all, unless nobody has been told.
    pub(super) fn first_told(&self) -> Option<u64> {
        let first = self.holders.first_key_value()?;
        ((self.untold as usize) < self.holders.len()).then_some(*first.0)
    }

    /// Somebody gets it, who is to be told.
    pub(super) fn hold(&mut self, token: u64, share: Share) {
        self.untold += 1;
        if self.holders.is_empty() {
            self.fence = token;
        }
        match share {
            Share::Exclusive => self.exclusive += 1,
            Share::Shared => {}
            Share::Permits(count) => self.used += count,
        }
        self.holders.insert(token, share);
    }

    /// It is given back, by somebody who was told or never was.
    pub(super) fn give_back(&mut self, token: u64, was_told: bool) {
        self.untold -= u32::from(!was_told && self.holders.contains_key(&token));
        match self.holders.remove(&token) {
            Some(Share::Exclusive) => self.exclusive -= 1,
            Some(Share::Permits(count)) => self.used -= count,
            Some(Share::Shared) | None => {}
        }
        // Who was never told that it held it has fenced off nobody.
        if self.holders.is_empty() {
            self.fence = self.settled_fence;
        }
    }

    /// Whether the holders share it.
    pub(super) fn is_shared(&self) -> bool {
        self.exclusive == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_fit_beside_one_another_or_not() {
        let name = || ResourceName::parse("a").unwrap();
        let mut lock = Gate::new(Noun::Lock, name(), 0, None);
        assert!(lock.has_room(Share::Exclusive) && lock.has_room(Share::Shared));
        lock.hold(1, Share::Shared);
        assert!(!lock.has_room(Share::Exclusive) && lock.has_room(Share::Shared));
        lock.give_back(1, false);
        lock.hold(2, Share::Exclusive);
        assert!(!lock.has_room(Share::Exclusive) && !lock.has_room(Share::Shared));
        lock.settle();
        lock.give_back(2, true);
        lock.give_back(2, false);
        assert!(lock.is_idle() && lock.untold == 0);
        let mut semaphore = Gate::new(Noun::Semaphore, name(), 5, None);
        semaphore.hold(1, Share::Permits(3));
        for (count, fits) in [(1, true), (2, true), (3, false), (u32::MAX, false)] {
            assert_eq!(semaphore.has_room(Share::Permits(count)), fits, "{count}");
        }
        semaphore.give_back(1, false);
        assert!(semaphore.has_room(Share::Permits(5)) && semaphore.used == 0);
    }

    #[test]
    fn the_eldest_who_was_told_is_the_first_of_those_who_hold_it() {
        let mut lock = Gate::new(Noun::Lock, ResourceName::parse("a").unwrap(), 0, None);
        assert_eq!(lock.first_told(), None);
        for token in 1..=3 {
            lock.hold(token, Share::Shared);
        }
        assert_eq!(lock.first_told(), None, "nobody was told");
        lock.settle();
        assert_eq!(lock.first_told(), Some(1));
        lock.give_back(2, false);
        lock.settle();
        lock.give_back(1, true);
        assert_eq!(lock.first_told(), Some(3));
        lock.hold(4, Share::Shared);
        lock.give_back(3, true);
        assert_eq!(lock.first_told(), None, "who is left was not told");
    }

    #[test]
    fn who_was_never_told_fences_off_nobody() {
        let mut lock = Gate::new(Noun::Lock, ResourceName::parse("a").unwrap(), 0, None);
        lock.hold(1, Share::Exclusive);
        lock.settle();
        lock.give_back(1, true);
        lock.hold(2, Share::Shared);
        assert!(!lock.has_untold_beside());
        lock.hold(3, Share::Shared);
        assert!(lock.has_untold_beside());
        assert_eq!(lock.fence, 2);
        lock.give_back(2, false);
        assert_eq!(lock.fence, 2, "somebody is inside");
        lock.give_back(3, false);
        assert_eq!((lock.fence, lock.untold), (1, 0));
    }
}
