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
    /// Permits in all, of a semaphore.
    pub(super) permits: u32,
    /// Who holds it, by token.
    pub(super) holders: BTreeMap<u64, Share>,
    pub(super) queue: WaitQueue<WaitId>,
    /// The token of the last grant beside which nobody held it: older ones are stale.
    pub(super) fence: u64,
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
    pub(super) fn new(noun: Noun, name: ResourceName, permits: u32) -> Self {
        Self {
            noun,
            name,
            permits,
            holders: BTreeMap::new(),
            queue: WaitQueue::default(),
            fence: 0,
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

    pub(super) fn hold(&mut self, token: u64, share: Share) {
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

    pub(super) fn give_back(&mut self, token: u64) {
        match self.holders.remove(&token) {
            Some(Share::Exclusive) => self.exclusive -= 1,
            Some(Share::Permits(count)) => self.used -= count,
            Some(Share::Shared) | None => {}
        }
    }

    /// Permits that are held.
    pub(super) fn used(&self) -> u32 {
        self.used
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
        let mut lock = Gate::new(Noun::Lock, name(), 0);
        assert!(lock.has_room(Share::Exclusive) && lock.has_room(Share::Shared));
        lock.hold(1, Share::Shared);
        assert!(!lock.has_room(Share::Exclusive) && lock.has_room(Share::Shared));
        lock.give_back(1);
        lock.hold(2, Share::Exclusive);
        assert!(!lock.has_room(Share::Exclusive) && !lock.has_room(Share::Shared));
        lock.give_back(2);
        lock.give_back(2);
        assert!(lock.is_idle());
        let mut semaphore = Gate::new(Noun::Semaphore, name(), 5);
        semaphore.hold(1, Share::Permits(3));
        for (count, fits) in [(1, true), (2, true), (3, false), (u32::MAX, false)] {
            assert_eq!(semaphore.has_room(Share::Permits(count)), fits, "{count}");
        }
        semaphore.give_back(1);
        assert!(semaphore.has_room(Share::Permits(5)) && semaphore.used() == 0);
    }
}
