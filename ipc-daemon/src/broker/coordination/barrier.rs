//! Barriers: whoever arrives waits until all have arrived.

use std::collections::BTreeMap;

use ipc_core::name::ResourceName;

use super::WaitId;
use super::wait_queue::{Place, WaitQueue};

/// Parties that have arrived at one barrier.
#[derive(Debug)]
pub(super) struct Barrier {
    /// How many it takes.
    pub(super) parties: u32,
    pub(super) arrived: WaitQueue<WaitId>,
}

/// What an arrival comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It waits, at that place; so many have not arrived.
    Waits(Place, u32),
    /// It was the last: these may go on, in the order of their arrival, the last one not among them.
    Passes(Vec<WaitId>),
}

/// The barriers somebody waits at.
#[derive(Debug, Default)]
pub(super) struct Barriers(BTreeMap<ResourceName, Barrier>);

impl Barriers {
    pub(super) fn get(&self, name: &ResourceName) -> Option<&Barrier> {
        self.0.get(name)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether one more arrival would be the last.
    pub(super) fn is_last(&self, name: &ResourceName, parties: u32) -> bool {
        self.get(name).map_or(0, |barrier| barrier.arrived.len()) + 1 >= parties as usize
    }

    /// One more party has arrived. Nobody passes twice: the next to arrive begins anew.
    pub(super) fn arrive(&mut self, name: &ResourceName, parties: u32, who: WaitId) -> Arrival {
        if self.is_last(name, parties) {
            let barrier = self.0.remove(name);
            return Arrival::Passes(
                barrier.map_or_else(Vec::new, |barrier| barrier.arrived.iter().collect()),
            );
        }
        let barrier =
            self.0.entry(name.clone()).or_insert_with(|| Barrier { parties, arrived: WaitQueue::default() });
        let place = barrier.arrived.push(who);
        Arrival::Waits(place, parties - barrier.arrived.len() as u32)
    }

    /// A party does not wait any more.
    pub(super) fn leave(&mut self, name: &ResourceName, place: Place) {
        let Some(barrier) = self.0.get_mut(name) else { return };
        barrier.arrived.remove(place);
        if barrier.arrived.is_empty() {
            self.0.remove(name);
        }
    }

    /// Every barrier, in order of its name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ResourceName, &Barrier)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::keys::PeerKey;

    #[test]
    fn all_pass_together_and_the_next_begin_anew() {
        let mut barriers = Barriers::default();
        let name = ResourceName::parse("a").unwrap();
        let who = |correlation| WaitId { peer: PeerKey::default(), correlation };
        let Arrival::Waits(_, 2) = barriers.arrive(&name, 3, who(1)) else { panic!("passed alone") };
        let Arrival::Waits(place, 1) = barriers.arrive(&name, 3, who(2)) else { panic!("passed") };
        barriers.leave(&name, place);
        assert!(!barriers.is_last(&name, 3));
        assert!(matches!(barriers.arrive(&name, 3, who(3)), Arrival::Waits(_, 1)));
        assert_eq!(barriers.arrive(&name, 3, who(4)), Arrival::Passes(vec![who(1), who(3)]));
        assert_eq!(barriers.len(), 0);
        assert!(matches!(barriers.arrive(&name, 2, who(5)), Arrival::Waits(_, 1)));
        assert_eq!(barriers.arrive(&name, 2, who(6)), Arrival::Passes(vec![who(5)]));
        assert_eq!(barriers.arrive(&name, 1, who(7)), Arrival::Passes(vec![]));
    }
}
