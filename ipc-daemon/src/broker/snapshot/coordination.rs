//! What is held, awaited and observed.

use core::time::Duration;

use ipc_core::identity::Peer as PeerIdentity;
use ipc_core::name::ResourceName;
use ipc_core::time::Instant;
use ipc_core::wire::queue::QueueCounts;

use super::View;
use crate::broker::Broker;
use crate::broker::keys::PeerKey;
use crate::broker::policy::Action;
use crate::broker::quota::Payer;

/// Who holds something.
#[derive(Clone, Debug)]
pub struct HolderRow {
    /// Number and identity; `None` when it has not come back since the daemon was started again.
    pub peer: Option<PeerIdentity>,
    /// Its user then.
    pub uid: Option<u32>,
    /// Names what is held.
    pub token: u64,
    /// For how long.
    pub age: Duration,
    /// For how long still, unless it is renewed, or taken up; `None` without a time.
    pub remaining: Option<Duration>,
}

/// A lock, a semaphore or an election.
#[derive(Clone, Debug)]
pub struct GateRow {
    /// `lock`, `semaphore` or `election`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Whether the holders of a lock share it.
    pub is_shared: bool,
    /// Permits of a semaphore in all, and those held.
    pub permits: Option<(u32, u32)>,
    /// Who holds it, the eldest first.
    pub holders: Vec<HolderRow>,
    /// For how long nobody else gets it, because a holder was lost.
    pub closed: Option<Duration>,
    /// Requests that wait.
    pub waiting: usize,
    /// Who observes an election.
    pub observers: usize,
}

/// A barrier somebody waits at.
#[derive(Clone, Debug)]
pub struct BarrierRow {
    /// Its name.
    pub name: String,
    /// How many it takes.
    pub parties: u32,
    /// How many have arrived.
    pub arrived: usize,
}

/// A lease by itself.
#[derive(Clone, Debug)]
pub struct LeaseRow {
    /// Its name.
    pub token: u64,
    /// The session it ends with.
    pub peer: Option<PeerIdentity>,
    /// The user it belongs to, when it outlives sessions, or its session is not there.
    pub uid: Option<u32>,
    /// Whether its session has not come back since the daemon was started again.
    pub is_absent: bool,
    /// Time to live.
    pub ttl: Option<Duration>,
    /// What is left of it.
    pub remaining: Option<Duration>,
}

/// A work queue.
#[derive(Clone, Debug)]
pub struct QueueRow {
    /// Its name.
    pub name: String,
    /// What is in it, in numbers.
    pub counts: QueueCounts,
}

impl View<'_> {
    /// The locks, semaphores and elections that it may take, in order of sort and name.
    pub fn gates(&self, now: Instant) -> Vec<GateRow> {
        let mut rows = self.broker.gates(now);
        rows.retain(|row| self.may_coordinate(&row.name));
        // Behind the eldest those of its own user come first: not all who are absent may be shown, and these it may give back.
        for row in &mut rows {
            if let Some((_, others)) = row.holders.split_first_mut() {
                others.sort_by_key(|holder| !self.pays(holder.uid, None));
            }
        }
        rows
    }

    /// The barriers that it may arrive at, in order of their names.
    pub fn barriers(&self) -> Vec<BarrierRow> {
        let mut rows = self.broker.barriers();
        rows.retain(|row| self.may_coordinate(&row.name));
        rows
    }

    /// The work queues that it may use, in order of their names.
    pub fn queues(&self, now: Instant) -> Vec<QueueRow> {
        let mut rows = self.broker.queues(now);
        rows.retain(|row| self.may_coordinate(&row.name));
        rows
    }

    /// The leases that it sees, in order of their grant: those of its user, or with `monitor`, all.
    pub fn leases(&self, now: Instant) -> Vec<LeaseRow> {
        let mut rows = self.broker.leases(now);
        if self.check(&Action::Monitor("peers")).is_err() {
            let own = self.payer();
            rows.retain(|row| {
                let payer = row.peer.as_ref().map(|peer| Payer::of(&peer.identity));
                own.is_some() && payer.or(row.uid.map(Payer::Uid)) == own
            });
        }
        rows
    }

    fn may_coordinate(&self, name: &str) -> bool {
        ResourceName::parse(name).is_ok_and(|name| self.check(&Action::Coordinate(Some(&name))).is_ok())
    }
}

impl Broker {
    /// Every lock, semaphore and election that somebody holds, awaits or observes, in order of sort and name.
    pub fn gates(&self, now: Instant) -> Vec<GateRow> {
        let rows = self.coordination.gates().into_iter().map(|gate| GateRow {
            kind: gate.noun,
            name: gate.name,
            is_shared: gate.is_shared,
            permits: gate.permits,
            holders: gate
                .holders
                .into_iter()
                .map(|holder| HolderRow {
                    peer: self.identity(holder.session),
                    uid: holder.uid,
                    token: holder.token,
                    age: now.since(holder.since),
                    remaining: holder.expires.map(|expires| expires.since(now)),
                })
                .collect(),
            closed: gate.closed_until.map(|until| until.since(now)),
            waiting: gate.waiting,
            observers: gate.observers,
        });
        rows.collect()
    }

    /// Every barrier somebody waits at, in order of its name.
    pub fn barriers(&self) -> Vec<BarrierRow> {
        let rows = self.coordination.barriers().into_iter();
        rows.map(|row| BarrierRow { name: row.name, parties: row.parties, arrived: row.arrived }).collect()
    }

    /// Every work queue in which something is, is awaited or is remembered, in order of its name.
    pub fn queues(&self, now: Instant) -> Vec<QueueRow> {
        let rows = self.coordination.queue_states(now).into_iter();
        rows.map(|row| QueueRow { name: row.name, counts: row.counts }).collect()
    }

    /// Every lease by itself, in order of its grant.
    pub fn leases(&self, now: Instant) -> Vec<LeaseRow> {
        let rows = self.coordination.leases().into_iter().map(|lease| LeaseRow {
            token: lease.token,
            peer: self.identity(lease.session),
            uid: lease.uid,
            is_absent: lease.is_absent,
            ttl: lease.ttl,
            remaining: lease.expires.map(|expires| expires.since(now)),
        });
        rows.collect()
    }

    fn identity(&self, peer: Option<PeerKey>) -> Option<PeerIdentity> {
        peer.and_then(|peer| self.peers.get(peer)).map(|peer| peer.who.clone())
    }
}
