//! Barriers: whoever arrives waits until all have arrived.

use std::collections::BTreeMap;

use ipc_core::limits::Limits;
use ipc_core::name::ResourceName;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::Waiting;
use ipc_core::{Error, ErrorCode};

use super::wait_queue::{Place, WaitQueue};
use super::{Asker, Coordination, Effect, Reason, WaitId, WaitsAt, Why};

/// Parties that have arrived at one barrier.
#[derive(Debug)]
pub(super) struct Barrier {
    /// How many it takes.
    pub(super) parties: u32,
    /// Who has arrived first, and pays for it.
    payer: Option<u32>,
    pub(super) arrived: WaitQueue<WaitId>,
}

/// What an arrival comes to.
#[derive(Debug)]
pub(super) enum Arrival {
    /// It waits, at that place; so many have not arrived.
    Waits(Place, u32),
    /// It was the last: those behind which the barrier is gone may go on, if there were any.
    Passes(Option<Barrier>),
}

/// The barriers somebody waits at.
#[derive(Debug, Default)]
pub(super) struct Barriers(BTreeMap<ResourceName, Barrier>);

impl Barriers {
    pub(super) fn get(&self, name: &ResourceName) -> Option<&Barrier> {
        self.0.get(name)
    }

    /// Whether one more arrival would be the last.
    pub(super) fn is_last(&self, name: &ResourceName, parties: u32) -> bool {
        self.get(name).map_or(0, |barrier| barrier.arrived.len()) + 1 >= parties as usize
    }

    /// One more party has arrived. Nobody passes twice: the next to arrive begins anew.
    fn arrive(&mut self, name: &ResourceName, parties: u32, who: WaitId, payer: Option<u32>) -> Arrival {
        if self.is_last(name, parties) {
            return Arrival::Passes(self.0.remove(name));
        }
        let new = || Barrier { parties, payer, arrived: WaitQueue::default() };
        let barrier = self.0.entry(name.clone()).or_insert_with(new);
        let place = barrier.arrived.push(who);
        Arrival::Waits(place, parties - barrier.arrived.len() as u32)
    }

    /// A party does not wait any more. Gives the barrier if it was the last, and that is gone.
    fn leave(&mut self, name: &ResourceName, place: Place) -> Option<Barrier> {
        let barrier = self.0.get_mut(name)?;
        barrier.arrived.remove(place);
        if barrier.arrived.is_empty() { self.0.remove(name) } else { None }
    }

    /// Every barrier, in order of its name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ResourceName, &Barrier)> {
        self.0.iter()
    }
}

impl Coordination {
    /// A party arrives at a barrier: it waits, or all go on.
    pub(in crate::broker) fn arrive(
        &mut self,
        now: Instant,
        asker: Asker,
        name: ResourceName,
        parties: u32,
        wait: bool,
        limits: &Limits,
    ) -> Result<(), Reason> {
        self.check_wait(&asker, limits)?;
        self.numbers.check()?;
        self.check_arrival(&asker, &name, parties, limits)?;
        if !wait && !self.barriers.is_last(&name, parties) {
            return Err(Reason::Busy { what: format!("barrier {name}"), why: Why::Unknown });
        }
        let is_known = self.barriers.get(&name).is_some();
        match self.barriers.arrive(&name, parties, asker.id(), asker.user.uid) {
            Arrival::Waits(place, missing) => {
                if !is_known {
                    self.resources.add(asker.user.uid, 1);
                }
                self.begin_wait(&asker, 0, WaitsAt::Barrier { name, place });
                let waiting = Waiting { ahead: 0, holders: 0, token: 0, missing };
                let (to, operation) = (asker.id(), asker.operation);
                self.effects.push_back(Effect::Waits { to, operation, holder: None, waiting });
            }
            Arrival::Passes(barrier) => self.pass(now, barrier, asker.id()),
        }
        Ok(())
    }

    fn check_arrival(
        &self,
        asker: &Asker,
        name: &ResourceName,
        parties: u32,
        limits: &Limits,
    ) -> Result<(), Error> {
        let Some(barrier) = self.barriers.get(name) else {
            // The only party passes at once, and leaves nothing.
            return if parties > 1 { self.check_resource(asker.user, limits) } else { Ok(()) };
        };
        let (others, max) = (barrier.parties, limits.waiters_per_resource_max);
        if others != parties {
            let message =
                format!("barrier {name} is waited at by parties that expect {others}, not {parties}");
            return Err(Error::new(ErrorCode::Conflict, message));
        }
        if barrier.arrived.len() >= max as usize {
            return Err(Error::quota("waiters_per_resource_max", max.into()));
        }
        Ok(())
    }

    fn pass(&mut self, now: Instant, barrier: Option<Barrier>, last: WaitId) {
        let generation = self.next_token(now);
        let others: Vec<WaitId> = barrier.iter().flat_map(|barrier| barrier.arrived.iter()).collect();
        for (place, to) in others.iter().enumerate() {
            self.forget_wait(*to);
            self.effects.push_back(Effect::Passed { to: *to, generation, place: place as u32 });
        }
        self.effects.push_back(Effect::Passed { to: last, generation, place: others.len() as u32 });
        self.refund_barrier(barrier);
    }

    /// A party does not wait any more.
    pub(super) fn leave_barrier(&mut self, name: &ResourceName, place: Place) {
        let gone = self.barriers.leave(name, place);
        self.refund_barrier(gone);
    }

    fn refund_barrier(&mut self, gone: Option<Barrier>) {
        if let Some(barrier) = gone {
            self.resources.remove(barrier.payer, 1);
        }
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
        let arrive = |barriers: &mut Barriers, parties, number| match barriers.arrive(
            &name,
            parties,
            who(number),
            Some(7),
        ) {
            Arrival::Waits(place, missing) => Err((place, missing)),
            Arrival::Passes(None) => Ok(vec![]),
            Arrival::Passes(Some(barrier)) => Ok(barrier.arrived.iter().collect()),
        };
        assert!(matches!(arrive(&mut barriers, 3, 1), Err((_, 2))));
        let (place, missing) = arrive(&mut barriers, 3, 2).unwrap_err();
        assert_eq!(missing, 1);
        assert!(barriers.leave(&name, place).is_none(), "somebody waits");
        assert!(!barriers.is_last(&name, 3));
        assert!(matches!(arrive(&mut barriers, 3, 3), Err((_, 1))));
        assert_eq!(arrive(&mut barriers, 3, 4), Ok(vec![who(1), who(3)]));
        assert_eq!(barriers.iter().count(), 0);
        let (place, _) = arrive(&mut barriers, 2, 5).unwrap_err();
        assert_eq!(barriers.leave(&name, place).and_then(|gone| gone.payer), Some(7));
        assert!(matches!(arrive(&mut barriers, 2, 6), Err((_, 1))));
        assert_eq!(arrive(&mut barriers, 2, 7), Ok(vec![who(6)]));
        assert_eq!(arrive(&mut barriers, 1, 8), Ok(vec![]));
    }
}
