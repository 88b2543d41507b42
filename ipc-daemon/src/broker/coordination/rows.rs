//! What is shown of coordination.

use std::collections::BTreeSet;

use ipc_core::limits::Limits;
use ipc_core::time::Instant;

use super::gate::{Gate, GateKey, Share};
use super::hold::Keeper;
use super::{Coordination, Noun};
use crate::broker::keys::PeerKey;

/// A lock, a semaphore or an election.
#[derive(Clone, Debug)]
pub(in crate::broker) struct GateState {
    pub(in crate::broker) noun: &'static str,
    pub(in crate::broker) name: String,
    pub(in crate::broker) is_shared: bool,
    /// Permits in all and those held, of a semaphore.
    pub(in crate::broker) permits: Option<(u32, u32)>,
    pub(in crate::broker) holders: Vec<HolderState>,
    /// Nobody gets it before, because a holder was lost.
    pub(in crate::broker) closed_until: Option<Instant>,
    pub(in crate::broker) waiting: usize,
    pub(in crate::broker) observers: usize,
}

/// Who holds something.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct HolderState {
    /// `None` when it has not come back since the daemon was started again.
    pub(in crate::broker) session: Option<PeerKey>,
    /// Its user then.
    pub(in crate::broker) uid: Option<u32>,
    pub(in crate::broker) token: u64,
    pub(in crate::broker) since: Instant,
    /// When it ends unless it is renewed, or taken up.
    pub(in crate::broker) expires: Option<Instant>,
}

/// A barrier.
#[derive(Clone, Debug)]
pub(in crate::broker) struct BarrierState {
    pub(in crate::broker) name: String,
    pub(in crate::broker) parties: u32,
    pub(in crate::broker) arrived: usize,
}

/// A lease by itself.
#[derive(Clone, Debug)]
pub(in crate::broker) struct LeaseState {
    pub(in crate::broker) token: u64,
    pub(in crate::broker) session: Option<PeerKey>,
    pub(in crate::broker) uid: Option<u32>,
    /// Whether its session has not come back since the daemon was started again.
    pub(in crate::broker) is_absent: bool,
    pub(in crate::broker) ttl: Option<core::time::Duration>,
    pub(in crate::broker) expires: Option<Instant>,
}

impl Coordination {
    /// Users who have anything that is counted here, connected or not.
    pub(in crate::broker) fn users(&self) -> BTreeSet<u32> {
        let held = self.detached.keys().copied().chain(self.sessions.absent().holders());
        let made = self.resources.holders().flatten().chain(self.users_of_queues());
        self.keys.counts().holders().chain(made).chain(held).collect()
    }

    /// What a user has, with the name of the limit, and the most that it, or of what is everybody's all together, may have.
    pub(in crate::broker) fn used_by(&self, uid: u32, limits: &Limits) -> Vec<(&'static str, u64, u64)> {
        let detached = self.detached.get(&uid).copied().unwrap_or(0);
        let keys_max = limits.keys_per_uid_max.min(limits.keys_max);
        let absent = self.sessions.absent().of(uid);
        let mut used = vec![
            ("absent_holds_per_uid_max", absent, limits.absent_holds_per_uid_max.into()),
            ("resources_max", self.resources.of(Some(uid)), limits.resources_max.into()),
            ("detached_leases_per_uid_max", detached.into(), limits.detached_leases_per_uid_max.into()),
            ("keys_per_uid_max", self.keys.counts().of(uid), keys_max.into()),
            ("key_bytes_per_uid_max", self.keys.bytes().of(uid), limits.key_bytes_per_uid_max.into()),
            (
                "changes_pending_per_uid_max",
                self.changes.of(Some(uid)),
                limits.changes_pending_per_uid_max.into(),
            ),
        ];
        used.extend(self.queues_used_by(uid, limits));
        used
    }

    /// Every lock, semaphore and election, in order of sort and name.
    pub(in crate::broker) fn gates(&self) -> Vec<GateState> {
        self.by_name.values().filter_map(|key| self.gate_state(*key)).collect()
    }

    fn gate_state(&self, key: GateKey) -> Option<GateState> {
        let gate = self.gates.get(key)?;
        let holders = gate.holders.keys().filter_map(|token| {
            let hold = self.told(*token)?;
            let (session, uid) = (hold.keeper.peer(), hold.keeper.uid());
            Some(HolderState { session, uid, token: *token, since: hold.since, expires: hold.expires })
        });
        Some(GateState {
            noun: gate.noun.name(),
            name: gate.name.to_string(),
            is_shared: gate.noun == Noun::Lock && !gate.holders.is_empty() && gate.is_shared(),
            permits: (gate.noun == Noun::Semaphore).then(|| (gate.permits, self.permits_told(gate))),
            holders: holders.collect(),
            closed_until: gate.closed_until,
            waiting: gate.queue.len(),
            observers: gate.observers.len(),
        })
    }

    /// Permits of those who hold some and have been told.
    fn permits_told(&self, gate: &Gate) -> u32 {
        let told = gate.holders.iter().filter(|(token, _)| self.told(**token).is_some());
        told.map(|(_, share)| if let Share::Permits(count) = share { *count } else { 0 }).sum()
    }

    /// Every barrier somebody waits at, in order of its name.
    pub(in crate::broker) fn barriers(&self) -> Vec<BarrierState> {
        let rows = self.barriers.iter().map(|(name, barrier)| BarrierState {
            name: name.to_string(),
            parties: barrier.parties,
            arrived: barrier.arrived.len(),
        });
        rows.collect()
    }

    /// Every lease by itself, in order of its grant.
    pub(in crate::broker) fn leases(&self) -> Vec<LeaseState> {
        let told = self.holds.keys().filter_map(|token| Some((*token, self.told(*token)?)));
        let rows = told.filter(|(_, hold)| hold.gate.is_none()).map(|(token, hold)| LeaseState {
            token,
            session: hold.keeper.peer(),
            uid: hold.keeper.uid(),
            is_absent: matches!(hold.keeper, Keeper::Absent { .. }),
            ttl: hold.terms.ttl,
            expires: hold.expires,
        });
        rows.collect()
    }
}
