//! Claims, barriers, leases, and what is done with what is held.

use ipc_core::wire::coordination::Durability;

use super::{Action, CLIENTS, Generator, Verb};

/// What a client claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// A lock, alone.
    Lock,
    /// A lock, with others.
    SharedLock,
    /// Permits of a semaphore.
    Permits,
    /// The leadership of an election.
    Leadership,
}

impl Generator {
    pub(super) fn coordination(&mut self, verb: Verb) -> Action {
        let rng = &mut self.rng;
        let name = *rng.weighted(&[(20, 0), (20, 1), (20, 2), (1, 3)]);
        let deadline_us = *rng.pick(&[0, 0, 1, 3_000, 50_000]);
        let ttl_us = *rng.weighted(&[(8, 0), (2, 10_000), (3, 60_000), (1, 1_000_000), (1, 9_999)]);
        let wait = rng.chance(4, 5);
        let durability = *rng.weighted(&[
            (12, None),
            (2, Some(Durability::Memory)),
            (1, Some(Durability::Os)),
            (1, Some(Durability::Disk)),
        ]);
        match verb {
            Verb::Claim => Action::Claim {
                what: *rng.weighted(&[
                    (4, Claimed::Lock),
                    (3, Claimed::SharedLock),
                    (2, Claimed::Permits),
                    (3, Claimed::Leadership),
                ]),
                name,
                permits: *rng.weighted(&[(8, 3), (1, 1), (1, 0)]),
                wait,
                deadline_us,
                ttl_us,
                delay_us: *rng.pick(&[0, 0, 0, 5_000]),
                owner: *rng.pick(&[0, 1, 1, 1, 2]),
                durability,
            },
            Verb::Arrive => {
                let parties = *rng.weighted(&[(6, 3), (6, 2), (1, 1), (1, 0)]);
                Action::Arrive { name, parties, wait, deadline_us }
            }
            Verb::Lease => Action::Lease { ttl_us, outlives: rng.chance(1, 2), durability },
            Verb::OfHold => {
                let victim = if rng.chance(1, 8) { Some(rng.index(CLIENTS)) } else { None };
                Action::OfHold { nth: rng.index(4), renew: rng.chance(1, 3), victim }
            }
            Verb::Identify => Action::Identify,
            Verb::Proclaim => Action::Proclaim { nth: rng.index(4), payload: rng.length(200) },
            Verb::Observe => Action::Observe { name },
            Verb::Unobserve => Action::Unobserve { nth: rng.index(4) },
            _ => Action::CancelWait { nth: rng.index(4) },
        }
    }
}
