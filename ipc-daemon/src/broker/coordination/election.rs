//! Elections: a leader with a value, and those who want to know who leads.

use ipc_core::limits::Limits;
use ipc_core::name::ResourceName;
use ipc_core::payload::Payload;
use ipc_core::time::Instant;
use ipc_core::{Error, ErrorCode};

use super::gate::GateKey;
use super::hold::Hand;
use super::tenure::Promise;
use super::{Asker, Coordination, Effect, Noun, WaitId};
use crate::broker::keys::PeerKey;

impl Coordination {
    /// A new leader has this value; observers are told.
    pub(super) fn set_value(&mut self, key: GateKey, value: Payload) {
        if let Some(gate) = self.gates.get_mut(key).filter(|gate| gate.noun == Noun::Election) {
            gate.value = value;
            self.tell_observers(key);
        }
    }

    /// The leader changes its value; observers are told, and it is, once that is kept as the leadership is.
    ///
    /// # Errors
    /// `lock_lost` for who does not lead, `invalid_argument` for what is no leadership, `busy` while the value before waits for
    /// the disk.
    pub(in crate::broker) fn proclaim(
        &mut self,
        now: Instant,
        asker: &Asker,
        hand: Hand,
        token: u64,
        value: Payload,
    ) -> Result<(), Error> {
        self.check_hand(hand, token)?;
        let key = self.holds.get(&token).and_then(|hold| hold.gate);
        let is_election =
            |key: &GateKey| self.gates.get(*key).is_some_and(|gate| gate.noun == Noun::Election);
        if !key.is_some_and(|key| is_election(&key)) {
            return Err(Error::new(ErrorCode::InvalidArgument, format!("{token} is no leadership")));
        }
        if self.is_promised(token) {
            let message = format!("what was proclaimed before under {token} still waits for the disk");
            return Err(Error::new(ErrorCode::Busy, message).with_hint("wait for its outcome"));
        }
        let (to, operation) = (asker.id(), asker.operation);
        self.promise(now, Promise { to, operation, token, value });
        Ok(())
    }

    /// Tells the asker who leads, now and from here on.
    pub(in crate::broker) fn observe(
        &mut self,
        asker: &Asker,
        name: ResourceName,
        limits: &Limits,
    ) -> Result<(), Error> {
        if let Some(of) = self.peers.get(&asker.peer) {
            if of.observes.contains_key(&asker.correlation) {
                let message = format!("observation {} is open already", asker.correlation);
                return Err(Error::new(ErrorCode::Conflict, message));
            }
            let max = limits.observations_per_connection_max;
            if of.observes.len() >= max as usize {
                return Err(Error::quota("observations_per_connection_max", max.into()));
            }
        }
        let known = self.by_name.get(&(Noun::Election, name.clone())).copied();
        let key = match known {
            Some(key) => key,
            None => self.open_gate(Noun::Election, name, 0, asker.user, limits)?,
        };
        let id = asker.id();
        if let Some(gate) = self.gates.get_mut(key) {
            gate.observers.insert((id.peer, id.correlation));
        }
        self.peers.entry(id.peer).or_default().observes.insert(id.correlation, key);
        self.charge(id.peer, 0, 0, 1);
        self.tell_observer(key, id, true);
        Ok(())
    }

    /// Ends an observation. Says whether there was one.
    pub(in crate::broker) fn unobserve(&mut self, peer: PeerKey, observation: u64) -> bool {
        let of = self.peers.get_mut(&peer);
        let Some(key) = of.and_then(|of| of.observes.remove(&observation)) else { return false };
        self.charge(peer, 0, 0, -1);
        if let Some(gate) = self.gates.get_mut(key) {
            gate.observers.remove(&(peer, observation));
        }
        self.close_if_idle(key);
        true
    }

    /// Tells everybody who observes an election how it stands.
    pub(super) fn tell_observers(&mut self, key: GateKey) {
        let Some(gate) = self.gates.get(key).filter(|gate| !gate.observers.is_empty()) else { return };
        let observers: Vec<(PeerKey, u64)> = gate.observers.iter().copied().collect();
        for (peer, correlation) in observers {
            self.tell_observer(key, WaitId { peer, correlation }, false);
        }
    }

    fn tell_observer(&mut self, key: GateKey, to: WaitId, is_answer: bool) {
        let Some(gate) = self.gates.get(key) else { return };
        // One that has not come back since the daemon was started again does not lead just now.
        let here = |token: u64| self.holder(token).map(|leader| (token, leader));
        let (token, leader) = gate.first_told().and_then(here).unzip();
        let value = if token.is_some() { gate.value.clone() } else { Payload::default() };
        let token = token.unwrap_or(0);
        self.effects.push_back(Effect::Leads { to, leader, token, value, is_answer });
    }
}
