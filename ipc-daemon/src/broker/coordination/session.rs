//! Sessions by the names they give themselves, so that a later life of the daemon knows them again.
//!
//! A session draws a secret, and tells it to nobody but the daemon. What it holds on a disk is kept under its user and that
//! secret. After a restart nobody has it, and nobody else gets it, until a session of the same user comes with the same secret, or
//! its time has passed. Only processes of one user can try secrets against one another's, and those can look into one another.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use ipc_core::limits::Limits;
use ipc_core::name::ResourceName;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::{Durability, Operation, Secret};
use ipc_core::{Error, ErrorCode};

use super::hold::Keeper;
use super::{Asker, Coordination, Effect, Noun};
use crate::broker::keys::PeerKey;
use crate::broker::ledger::Ledger;

/// What a session is known by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::broker) struct SessionName {
    pub(super) uid: u32,
    pub(super) secret: Secret,
}

impl SessionName {
    pub(in crate::broker) fn new(uid: u32, secret: Secret) -> Self {
        Self { uid, secret }
    }
}

impl fmt::Debug for SessionName {
    /// Secrets are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionName").field("uid", &self.uid).finish_non_exhaustive()
    }
}

/// Which connection a session has, and what waits for those that have none.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    names: BTreeMap<PeerKey, SessionName>,
    connections: BTreeMap<SessionName, PeerKey>,
    /// Tokens of what an earlier life of the daemon has kept, and nobody has taken up.
    absent: BTreeMap<SessionName, BTreeSet<u64>>,
    /// How many of them are whose.
    absent_by_uid: Ledger<u32>,
}

impl Sessions {
    pub(super) fn name(&self, peer: PeerKey) -> Option<SessionName> {
        self.names.get(&peer).copied()
    }

    /// Its connection ends.
    pub(super) fn leave(&mut self, peer: PeerKey) {
        if let Some(name) = self.names.remove(&peer) {
            self.connections.remove(&name);
        }
    }

    pub(super) fn add_absent(&mut self, name: SessionName, token: u64) {
        self.absent.entry(name).or_default().insert(token);
        self.absent_by_uid.add(name.uid, 1);
    }

    pub(super) fn remove_absent(&mut self, name: SessionName, token: u64) {
        let Some(tokens) = self.absent.get_mut(&name).filter(|tokens| tokens.contains(&token)) else {
            return;
        };
        tokens.remove(&token);
        if tokens.is_empty() {
            self.absent.remove(&name);
        }
        self.absent_by_uid.remove(name.uid, 1);
    }

    /// All of them that are kept for that session.
    fn take_absent(&mut self, name: SessionName) -> BTreeSet<u64> {
        let tokens = self.absent.remove(&name).unwrap_or_default();
        self.absent_by_uid.remove(name.uid, tokens.len() as u64);
        tokens
    }

    /// How many of them each user has.
    pub(super) fn absent(&self) -> &Ledger<u32> {
        &self.absent_by_uid
    }
}

impl Coordination {
    /// Whether the session would be known again.
    pub(in crate::broker) fn is_identified(&self, peer: PeerKey) -> bool {
        self.sessions.names.contains_key(&peer)
    }

    /// The connection that a session has.
    pub(in crate::broker) fn connection_of(&self, name: SessionName) -> Option<PeerKey> {
        self.sessions.connections.get(&name).copied()
    }

    /// What waits for a session to come back, with the name of what it is; a lease has none.
    pub(in crate::broker) fn kept_for(&self, name: SessionName) -> Vec<(u64, Option<ResourceName>)> {
        let tokens = self.sessions.absent.get(&name).into_iter().flatten();
        tokens.map(|token| (*token, self.gate_of(*token).map(|gate| gate.name.clone()))).collect()
    }

    /// The user whose session has held that, and has not taken it up since the daemon was started again.
    pub(in crate::broker) fn absent_user(&self, token: u64) -> Option<u32> {
        match self.holds.get(&token)?.keeper {
            Keeper::Absent { session, .. } => Some(session.uid),
            Keeper::Session { .. } | Keeper::User(_) => None,
        }
    }

    /// Whether the session may have something more that outlives the daemon: restarts are not to add up.
    ///
    /// # Errors
    /// `quota_exceeded`.
    pub(super) fn check_absent(
        &self,
        peer: PeerKey,
        durability: Durability,
        limits: &Limits,
    ) -> Result<(), Error> {
        let name = self.sessions.name(peer).filter(|_| durability > Durability::Memory);
        let max = limits.absent_holds_per_uid_max;
        if name.is_none_or(|name| self.sessions.absent().of(name.uid) < max.into()) {
            return Ok(());
        }
        Err(Error::quota("absent_holds_per_uid_max", max.into())
            .with_hint("it ends with its time, or when it is given back: `ipc-cli lock NAME --release`"))
    }

    /// The session has a name from here on, and holds again what was kept under it.
    ///
    /// # Errors
    /// `conflict` when it has another name.
    pub(in crate::broker) fn identify(
        &mut self,
        now: Instant,
        asker: &Asker,
        name: SessionName,
    ) -> Result<(), Error> {
        if self.sessions.name(asker.peer).is_some_and(|known| known != name) {
            return Err(Error::new(ErrorCode::Conflict, "this session has identified itself otherwise"));
        }
        self.sessions.names.insert(asker.peer, name);
        self.sessions.connections.insert(name, asker.peer);
        let tokens = self.sessions.take_absent(name);
        for token in &tokens {
            self.take_up(now, asker, *token);
        }
        self.effects.push_back(Effect::Identified { to: asker.id(), holds: tokens.len() as u32 });
        Ok(())
    }

    fn take_up(&mut self, now: Instant, asker: &Asker, token: u64) {
        let Some(hold) = self.holds.get_mut(&token) else { return };
        let Keeper::Absent { owner, .. } = hold.keeper else { return };
        hold.keeper = Keeper::Session { id: asker.id(), owner };
        let (key, ttl, durability) = (hold.gate, hold.terms.ttl, hold.terms.durability);
        self.begin_time(now, token);
        self.peers.entry(asker.peer).or_default().holds.insert(token);
        self.charge(asker.peer, 1, 0, 0);
        let gate = self.gate_of(token);
        let operation = match gate.map(|gate| gate.noun) {
            None => Operation::LEASE,
            Some(Noun::Lock) => Operation::LOCK,
            Some(Noun::Semaphore) => Operation::ACQUIRE,
            Some(Noun::Election) => Operation::CAMPAIGN,
        };
        let name = gate.map(|gate| gate.name.clone());
        self.effects.push_back(Effect::TakenUp { to: asker.id(), token, operation, name, ttl, durability });
        if let Some(key) = key {
            self.tell_observers(key);
        }
    }
}
