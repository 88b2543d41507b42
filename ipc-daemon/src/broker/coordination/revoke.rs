//! What a session has to do with coordination, and how it is taken away from it.

use ipc_core::Error;
use ipc_core::name::ResourceName;
use ipc_core::time::Instant;
use ipc_core::wire::message::RevokedWhat;

use super::gate::GateKey;
use super::keys::Selection;
use super::{Coordination, Effect, WaitId, WaitsAt};
use crate::broker::keys::PeerKey;

/// Something that a session has: by its correlation, or its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Stake {
    Wait(u64),
    Observation(u64),
    KeyWatch(u64),
    Consumer(u64),
    Delivery(u64),
    Hold(u64),
}

impl Coordination {
    /// All that a session has, with the name that it is about; leases and prefixes are about none.
    pub(in crate::broker) fn stakes(&self, peer: PeerKey) -> Vec<(Stake, Option<ResourceName>)> {
        let Some(of) = self.peers.get(&peer) else { return Vec::new() };
        let waits = of.waits.iter().map(|(correlation, wait)| {
            let name = match &wait.at {
                WaitsAt::Gate { gate, .. } => self.gate_name(*gate),
                WaitsAt::Barrier { name, .. } => Some(name.clone()),
                WaitsAt::Queue { queue, .. } => self.queue_name(*queue),
            };
            (Stake::Wait(*correlation), name)
        });
        let observations = of.observes.iter();
        let observations =
            observations.map(|(correlation, gate)| (Stake::Observation(*correlation), self.gate_name(*gate)));
        let watches = of.watches.iter().map(|(correlation, selection)| {
            let name = match selection {
                Selection::Key(name) => Some(name.clone()),
                Selection::Prefix(_) => None,
            };
            (Stake::KeyWatch(*correlation), name)
        });
        let holds = of.holds.iter().map(|token| {
            let gate = self.holds.get(token).and_then(|hold| hold.gate);
            (Stake::Hold(*token), gate.and_then(|gate| self.gate_name(gate)))
        });
        let work = self.work_stakes(of).into_iter();
        waits.chain(observations).chain(watches).chain(work).chain(holds).collect()
    }

    fn gate_name(&self, gate: GateKey) -> Option<ResourceName> {
        self.gates.get(gate).map(|gate| gate.name.clone())
    }

    /// Takes these away from a session, each for its reason, in this order; others may have what it held, after the delay
    /// that was asked for.
    pub(in crate::broker) fn revoke(&mut self, now: Instant, peer: PeerKey, lost: Vec<(Stake, Error)>) {
        let waits = lost.iter().filter_map(|(stake, error)| match *stake {
            Stake::Wait(correlation) => Some((WaitId { peer, correlation }, error.clone())),
            Stake::Observation(_)
            | Stake::KeyWatch(_)
            | Stake::Consumer(_)
            | Stake::Delivery(_)
            | Stake::Hold(_) => None,
        });
        let waits: Vec<(WaitId, Error)> = waits.collect();
        self.refuse_waits(now, waits);
        for (stake, error) in lost {
            match stake {
                Stake::Wait(_) => {}
                Stake::Observation(correlation) => {
                    if self.unobserve(peer, correlation) {
                        self.tell_revoked(peer, correlation, RevokedWhat::Observation, error);
                    }
                }
                Stake::KeyWatch(correlation) => {
                    if self.unwatch(peer, correlation) {
                        self.tell_revoked(peer, correlation, RevokedWhat::KeyWatch, error);
                    }
                }
                // It asks anew, and is refused then with the reason.
                Stake::Consumer(correlation) => {
                    if self.unconsume(peer, correlation) {
                        self.effects.push_back(Effect::ConsumerLost { to: WaitId { peer, correlation } });
                    }
                }
                Stake::Delivery(token) => self.lose_delivery(now, token),
                Stake::Hold(token) => {
                    self.tell_lost(token, error);
                    self.lose(now, token);
                }
            }
        }
    }

    fn tell_revoked(&mut self, peer: PeerKey, correlation: u64, what: RevokedWhat, error: Error) {
        let to = WaitId { peer, correlation };
        self.effects.push_back(Effect::Revoked { to, what, error });
    }
}
