//! Claiming a gate: at once, after a wait, or not.

use ipc_core::limits::Limits;
use ipc_core::name::ResourceName;
use ipc_core::payload::Payload;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::{Operation, Waiting};
use ipc_core::{Error, ErrorCode};

use super::deadlock::{self, Party};
use super::gate::{Gate, GateKey, Share};
use super::hold::{Hold, Keeper};
use super::tenure::Promise;
use super::wait_queue::Place;
use super::{Asker, Coordination, Effect, Link, Noun, Reason, Terms, Timer, User, WaitId, WaitsAt, Why};
use crate::broker::keys::PeerKey;

/// What is claimed, and how.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Want {
    pub(in crate::broker) noun: Noun,
    pub(in crate::broker) name: ResourceName,
    pub(in crate::broker) share: Share,
    /// Permits of the semaphore in all, 0 for others.
    pub(in crate::broker) permits: u32,
    pub(in crate::broker) terms: Terms,
    /// What a leader proclaims.
    pub(in crate::broker) value: Payload,
    pub(in crate::broker) wait: bool,
    pub(in crate::broker) owner: u64,
}

/// Who is let in.
#[derive(Clone, Debug)]
struct Entrant {
    id: WaitId,
    operation: Operation,
    owner: u64,
    share: Share,
    terms: Terms,
    /// What a leader proclaims.
    value: Payload,
}

impl Coordination {
    /// Gives the asker what it wants, or lets it wait.
    pub(in crate::broker) fn claim(
        &mut self,
        now: Instant,
        asker: Asker,
        want: Want,
        limits: &Limits,
    ) -> Result<(), Reason> {
        self.check_wait(&asker, limits)?;
        self.numbers.check()?;
        let (holds, waits, _) = self.counts(asker.peer);
        if holds + waits >= limits.holds_per_connection_max as usize {
            return Err(
                Error::quota("holds_per_connection_max", limits.holds_per_connection_max.into()).into()
            );
        }
        self.check_absent(asker.peer, want.terms.durability, limits)?;
        let key = self.gate(&want, asker.user, limits)?;
        let Some(gate) = self.gates.get(key) else { return Err(self.busy(key)) };
        let is_open = gate.closed_until.is_none() && !self.is_outstanding(gate);
        let is_free = gate.queue.is_empty() && is_open && gate.has_room(want.share);
        if is_free {
            let Want { share, terms, owner, value, .. } = want;
            let (id, operation) = (asker.id(), asker.operation);
            self.grant(now, key, Entrant { id, operation, owner, share, terms, value });
            return Ok(());
        }
        if !want.wait {
            return Err(self.busy(key));
        }
        if gate.queue.len() >= limits.waiters_per_resource_max as usize {
            return Err(
                Error::quota("waiters_per_resource_max", limits.waiters_per_resource_max.into()).into()
            );
        }
        if let Some(circle) = self.circle(&asker, want.owner, key) {
            return Err(Reason::Deadlock(circle));
        }
        self.wait(asker, want, key);
        Ok(())
    }

    /// The gate of that name, made if nobody has anything to do with it so far: the user is charged with it then.
    fn gate(&mut self, want: &Want, user: User, limits: &Limits) -> Result<GateKey, Error> {
        let name = (want.noun, want.name.clone());
        if let Some(key) = self.by_name.get(&name).copied() {
            let permits = self.gates.get(key).map_or(want.permits, |gate| gate.permits);
            if permits != want.permits {
                let message = format!(
                    "semaphore {} has {permits} permits as long as it is used, not {}",
                    want.name, want.permits
                );
                return Err(Error::new(ErrorCode::Conflict, message));
            }
            return Ok(key);
        }
        self.open_gate(name.0, name.1, want.permits, user, limits)
    }

    pub(super) fn open_gate(
        &mut self,
        noun: Noun,
        name: ResourceName,
        permits: u32,
        user: User,
        limits: &Limits,
    ) -> Result<GateKey, Error> {
        self.check_resource(user, limits)?;
        let fence = if noun == Noun::Lock { self.fences.take(&name) } else { None };
        let mut gate = Gate::new(noun, name, permits, user.uid);
        if let Some(fence) = fence {
            gate.remember_fence(fence);
        }
        self.fences_max = limits.resources_max as usize;
        Ok(self.insert_gate(gate))
    }

    pub(super) fn insert_gate(&mut self, gate: Gate) -> GateKey {
        let (name, payer) = ((gate.noun, gate.name.clone()), gate.payer);
        let key = self.gates.insert(gate);
        self.by_name.insert(name, key);
        self.resources.add(payer, 1);
        key
    }

    /// Whether a user may make one more gate or barrier.
    pub(super) fn check_resource(&self, user: User, limits: &Limits) -> Result<(), Error> {
        let standing = self.resources.standing(user.uid);
        standing.check(1, "resources_max", limits.resources_max.into(), user.is_alone)
    }

    fn wait(&mut self, asker: Asker, want: Want, key: GateKey) {
        let id = asker.id();
        let Some(gate) = self.gates.get_mut(key) else { return };
        let ahead = gate.queue.len() as u32;
        let place = gate.queue.push(id);
        let holders = gate.holders.len() as u32;
        let token = self.gates.get(key).and_then(Gate::first_told);
        let holder = token.and_then(|token| self.holder(token));
        let waiting = Waiting { ahead, holders, token: token.unwrap_or(0), missing: 0 };
        let Want { share, terms, value, owner, .. } = want;
        self.begin_wait(&asker, owner, WaitsAt::Gate { gate: key, place, share, terms, value });
        self.effects.push_back(Effect::Waits { to: id, operation: asker.operation, holder, waiting });
    }

    /// Lets those in who stand first in the queue, as long as there is room, and forgets the gate when nobody is left.
    pub(super) fn pump(&mut self, now: Instant, key: GateKey) {
        if self.gates.get(key).is_some_and(|gate| self.is_outstanding(gate)) {
            // It is done when that has come to an end.
            return;
        }
        while let Some(gate) = self.gates.get_mut(key) {
            let Some(first) = gate.queue.first().filter(|_| gate.closed_until.is_none()) else { break };
            let of = self.peers.get(&first.peer).and_then(|of| of.waits.get(&first.correlation));
            let Some(WaitsAt::Gate { place, share, terms, .. }) = of.map(|wait| &wait.at) else { break };
            let (place, share, terms) = (*place, *share, *terms);
            if !gate.has_room(share) {
                break;
            }
            gate.queue.remove(place);
            let Some(wait) = self.forget_wait(first) else { break };
            let (operation, owner) = (wait.operation, wait.owner);
            let value = if let WaitsAt::Gate { value, .. } = wait.at { value } else { Payload::default() };
            self.grant(now, key, Entrant { id: first, operation, owner, share, terms, value });
        }
        self.close_if_idle(key);
    }

    /// Forgets a gate that nobody has to do with, but not the last token of a lock.
    pub(super) fn close_if_idle(&mut self, key: GateKey) {
        if !self.gates.get(key).is_some_and(Gate::is_idle) {
            return;
        }
        if let Some(gate) = self.gates.remove(key) {
            self.by_name.remove(&(gate.noun, gate.name.clone()));
            self.resources.remove(gate.payer, 1);
            if gate.noun == Noun::Lock && gate.fence > 0 {
                self.fences.keep(gate.name, gate.fence, self.fences_max);
            }
        }
    }

    fn grant(&mut self, now: Instant, key: GateKey, entrant: Entrant) {
        let Entrant { id: to, operation, owner, share, terms, value } = entrant;
        let token = self.next_token(now);
        if let Some(gate) = self.gates.get_mut(key) {
            gate.hold(token, share);
        }
        let keeper = Keeper::Session { id: to, owner };
        let hold = Hold { keeper, gate: Some(key), terms, since: now, expires: None, is_pending: true };
        self.begin_hold(token, hold);
        self.promise(now, Promise { to, operation, token, value });
    }

    /// A gate that was closed because a holder was lost opens again.
    pub(super) fn reopen(&mut self, now: Instant, key: GateKey) {
        if let Some(gate) = self.gates.get_mut(key) {
            gate.closed_until = None;
            self.tenures.note_open(now, &(gate.noun, gate.name.clone()));
        }
        self.pump(now, key);
    }

    /// Closes a gate for a while.
    pub(super) fn close_gate(&mut self, key: GateKey, until: Instant) {
        let Some(gate) = self.gates.get_mut(key) else { return };
        if let Some(before) = gate.closed_until {
            self.timers.remove(&(before, Timer::Gate(key)));
        }
        let until = gate.closed_until.map_or(until, |before| before.max(until));
        gate.closed_until = Some(until);
        self.timers.insert((until, Timer::Gate(key)));
    }

    pub(super) fn busy(&self, key: GateKey) -> Reason {
        let Some(gate) = self.gates.get(key) else {
            return Reason::Busy { what: "what was asked for".to_owned(), why: Why::Unknown };
        };
        let keeper = gate.first_told().and_then(|token| self.holds.get(&token)).map(|hold| hold.keeper);
        let why = match keeper {
            Some(keeper) => keeper.peer().map(Why::Held).or(keeper.uid().map(Why::Absent)),
            None => gate.closed_until.map(|_| Why::Closed),
        };
        Reason::Busy { what: format!("{} {}", gate.noun.name(), gate.name), why: why.unwrap_or(Why::Unknown) }
    }

    /// Whose hold that is, unless it outlives sessions.
    pub(super) fn holder(&self, token: u64) -> Option<PeerKey> {
        self.holds.get(&token)?.keeper.peer()
    }

    /// The circle of sessions that would wait for one another if the asker waited too.
    fn circle(&self, asker: &Asker, owner: u64, key: GateKey) -> Option<Vec<Link>> {
        let start = Party { peer: asker.peer, owner };
        // Nobody can wait for one who holds nothing and stands in no queue.
        if owner == 0 || !self.concerns(asker.peer) {
            return None;
        }
        let gate = self.gates.get(key)?;
        let first = self.parties_before(gate, None);
        let circle = deadlock::circle(start, &first, |party| self.waits_for(party))?;
        let link = |party: &Party| {
            let waits_for = if *party == start { self.describe(key) } else { self.describe_wait(*party) };
            Link { peer: party.peer, waits_for }
        };
        Some(circle.iter().map(link).collect())
    }

    fn party(&self, id: WaitId) -> Option<Party> {
        let wait = self.peers.get(&id.peer)?.waits.get(&id.correlation)?;
        Some(Party { peer: id.peer, owner: wait.owner })
    }

    /// For whom somebody at that place waits, or behind all: for the nearest before it that can be told apart, who waits for
    /// all the others, or for those inside.
    fn parties_before(&self, gate: &Gate, place: Option<Place>) -> Vec<Party> {
        let mut ahead = gate.queue.ahead(place).filter_map(|id| self.party(id));
        match ahead.find(|party| party.owner != 0) {
            Some(party) => vec![party],
            None => gate.holders.keys().filter_map(|token| self.holds.get(token)?.keeper.party()).collect(),
        }
    }

    /// For whom a party waits.
    fn waits_for(&self, party: Party) -> Vec<Party> {
        let Some(of) = self.peers.get(&party.peer) else { return Vec::new() };
        let mut parties = Vec::new();
        for wait in of.waits.values().filter(|wait| wait.owner == party.owner) {
            let WaitsAt::Gate { gate, place, .. } = &wait.at else { continue };
            if let Some(gate) = self.gates.get(*gate) {
                parties.extend(self.parties_before(gate, Some(*place)));
            }
        }
        parties
    }

    fn describe(&self, key: GateKey) -> String {
        self.gates.get(key).map_or_else(String::new, |gate| format!("{} {}", gate.noun.name(), gate.name))
    }

    fn describe_wait(&self, party: Party) -> String {
        let waits = self.peers.get(&party.peer).into_iter().flat_map(|of| of.waits.values());
        let mut gates = waits.filter(|wait| wait.owner == party.owner).filter_map(|wait| match &wait.at {
            WaitsAt::Gate { gate, .. } => Some(self.describe(*gate)),
            WaitsAt::Barrier { .. } | WaitsAt::Queue { .. } => None,
        });
        gates.next().unwrap_or_default()
    }
}
