//! Locks, semaphores, elections, barriers and leases, as plain lists that are looked through from front to back.

use core::time::Duration;
use std::collections::BTreeMap;

use ipc_core::error::ErrorCode;
use ipc_core::identity::Identity;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::{
    Acquire, Arrive, Bind, Campaign, Claim, Durability, LockMode, OfToken, Operation, TakeLease, TakeLock,
};

use super::Model;
use super::came::Came;
use super::expect::{Expected, Refusal};
use super::rights::Wish;
use super::tenure::Session;
use crate::world::Seen;

/// A lock, a semaphore or an election: the number of its operation, and its name.
pub(super) type Gate = (u32, String);

/// What is held.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    /// Later grants have higher numbers.
    pub number: u64,
    /// Whose it is; a lease that outlives its connection is a user's.
    pub connection: Option<usize>,
    pub uid: Option<u32>,
    /// It is kept for that session, which has not come back since the daemon was started again.
    pub absent: Option<Session>,
    pub correlation: u64,
    pub owner: u64,
    pub gate: Option<Gate>,
    pub share: Share,
    /// Permits of the semaphore in all.
    pub of: u32,
    pub ttl: Option<Duration>,
    pub delay: Duration,
    pub expires: Option<Instant>,
    /// As its holder was told.
    pub token: Option<u64>,
    /// What a leader proclaims.
    pub value: Vec<u8>,
    /// What it survives.
    pub durability: Durability,
    /// It is on its way to the disk, and nobody has been told of it.
    pub is_pending: bool,
}

/// How much of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    All,
    Shared,
    Some(u32),
}

/// A request that waits.
#[derive(Clone, Debug)]
pub(super) struct Wait {
    pub connection: usize,
    pub correlation: u64,
    pub operation: u32,
    pub owner: u64,
    pub until: Option<Instant>,
    pub gate: Gate,
    pub share: Share,
    /// Permits of the semaphore in all, or parties of the barrier.
    pub of: u32,
    pub ttl: Option<Duration>,
    pub delay: Duration,
    /// What a leader proclaims.
    pub value: Vec<u8>,
    pub durability: Durability,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Coordination {
    /// In the order in which they were granted.
    pub holds: Vec<Hold>,
    /// In the order in which they were asked for.
    pub waits: Vec<Wait>,
    /// Gates that are closed because a holder was lost.
    pub closed: Vec<(Gate, Instant)>,
    /// Who has made gates and barriers.
    pub payers: BTreeMap<Gate, Option<u32>>,
}

impl Model {
    /// A request of coordination. `false` when it is a violation.
    pub(super) fn coordinate(&mut self, from: usize, seen: &Seen) -> bool {
        let operation = Operation(seen.header.handle.index);
        let takes_payload = matches!(
            operation,
            Operation::CAMPAIGN | Operation::PROCLAIM | Operation::PUT | Operation::TRANSACT
        );
        if Operation::ALL.contains(&operation) && !takes_payload && !seen.payload.is_empty() {
            return false;
        }
        let done = match operation {
            Operation::LOCK => seen.decode::<TakeLock>().map(|body| {
                let share = if body.mode == LockMode::Shared { Share::Shared } else { Share::All };
                self.take(from, seen, body.name.0, share, 0, body.claim)
            }),
            Operation::ACQUIRE => seen.decode::<Acquire>().map(|body| {
                if body.permits == 0 || body.permits > 65_536 || body.count == 0 || body.count > body.permits
                {
                    return Err(Refusal::of(ErrorCode::InvalidArgument));
                }
                self.take(from, seen, body.name.0, Share::Some(body.count), body.permits, body.claim)
            }),
            Operation::CAMPAIGN => seen
                .decode::<Campaign>()
                .map(|body| self.take(from, seen, body.name.0, Share::All, 0, body.claim)),
            Operation::ARRIVE => seen.decode::<Arrive>().map(|body| self.arrive(from, seen, &body)),
            Operation::LEASE => seen.decode::<TakeLease>().map(|body| self.lease(from, seen, &body)),
            Operation::IDENTIFY => seen.decode().map(|body| self.identify(from, seen, body)),
            Operation::RENEW | Operation::RELEASE => seen
                .decode::<OfToken>()
                .map(|body| self.of_token(from, seen, operation == Operation::RENEW, body.token)),
            _ => self.keys(from, seen),
        };
        let Some(done) = done else { return false };
        if let Err(refusal) = done {
            self.refuse_request(from, seen.header.correlation, operation.0, refusal);
        }
        true
    }

    fn refuse_request(&mut self, to: usize, correlation: u64, operation: u32, refusal: Refusal) {
        if correlation != 0 {
            self.came(to, correlation, operation, Came::Refused(refusal));
        }
    }

    /// Something of coordination is due; with others of the same moment in any order.
    pub(super) fn came(&mut self, to: usize, correlation: u64, operation: u32, came: Came) {
        let was_at_once = core::mem::replace(&mut self.is_at_once, true);
        self.push(to, Expected::Came { correlation, operation, came });
        self.is_at_once = was_at_once;
    }

    /// Whether a connection may ask for something of that name, or for anything.
    pub(super) fn may_ask(&self, from: usize, correlation: u64, name: Option<&str>) -> Result<(), Refusal> {
        let is_part = |part: &str| {
            !part.is_empty() && part.chars().all(|one| one.is_ascii_alphanumeric() || "_-".contains(one))
        };
        if name.is_some_and(|name| name.len() > 512 || !name.split(['.', '/']).all(is_part)) {
            return Err(Refusal::of(ErrorCode::InvalidArgument));
        }
        if self.is_draining {
            return Err(Refusal::of(ErrorCode::ShuttingDown));
        }
        if correlation == 0 {
            return Err(Refusal::of(ErrorCode::InvalidArgument));
        }
        self.may(from, Wish::Coordinate(name))?;
        match name.and_then(|name| name.split(['.', '/']).next()) {
            Some("ipc") => Err(Refusal::of(ErrorCode::PermissionDenied)),
            _ => Ok(()),
        }
    }

    pub(super) fn may_wait(&self, from: usize, correlation: u64) -> Result<(), Refusal> {
        let own = || self.coordination.waits.iter().filter(|wait| wait.connection == from);
        if own().any(|wait| wait.correlation == correlation) {
            return Err(Refusal::of(ErrorCode::Conflict));
        }
        let max = self.limits.waits_per_connection_max;
        if own().count() >= max as usize {
            Err(Refusal::quota("waits_per_connection_max", max))
        } else {
            Ok(())
        }
    }

    fn may_hold(&self, from: usize, durability: Durability) -> Result<(), Refusal> {
        let (holds, waits) = self.coordinated(from);
        let max = self.limits.holds_per_connection_max;
        if holds + waits >= max as usize {
            return Err(Refusal::quota("holds_per_connection_max", max));
        }
        self.may_outlive(from, durability)
    }

    /// How much a connection holds, and how many of its requests wait.
    pub(super) fn coordinated(&self, connection: usize) -> (usize, usize) {
        let holds = self.coordination.holds.iter().filter(|hold| hold.connection == Some(connection));
        let waits = self.coordination.waits.iter().filter(|wait| wait.connection == connection);
        (holds.count(), waits.count())
    }

    /// Gates and barriers that somebody has to do with.
    pub(super) fn resources(&self) -> Vec<Gate> {
        let coordination = &self.coordination;
        let mut all: Vec<Gate> = coordination.holds.iter().filter_map(|hold| hold.gate.clone()).collect();
        all.extend(coordination.waits.iter().map(|wait| wait.gate.clone()));
        all.extend(coordination.closed.iter().map(|(gate, _)| gate.clone()));
        all.extend(self.observed().cloned());
        all.sort();
        all.dedup();
        all
    }

    fn take(
        &mut self,
        from: usize,
        seen: &Seen,
        name: String,
        share: Share,
        of: u32,
        claim: Claim,
    ) -> Result<(), Refusal> {
        let (correlation, operation) = (seen.header.correlation, seen.header.handle.index);
        self.may_ask(from, correlation, Some(&name))?;
        let durability = self.hold_durability(from, claim.durability)?;
        let ttl = lives(claim.ttl_us)?;
        self.may_wait(from, correlation)?;
        self.may_hold(from, durability)?;
        let gate: Gate = (operation, name);
        self.make_resource(from, &gate)?;
        if let Some(others) = self.permits_of(&gate)
            && others != of
        {
            return Err(Refusal::of(ErrorCode::Conflict));
        }
        let wait = Wait {
            connection: from,
            correlation,
            operation,
            owner: claim.owner,
            until: until(self.now, seen),
            gate: gate.clone(),
            share,
            of,
            ttl,
            delay: Duration::from_micros(claim.delay_us),
            value: seen.payload.clone(),
            durability,
        };
        let ahead = self.coordination.waits.iter().filter(|other| other.gate == gate).count();
        if ahead == 0 && self.has_room(&wait) {
            self.grant(wait);
            return Ok(());
        }
        if !claim.wait {
            return Err(Refusal::of(ErrorCode::Busy));
        }
        let max = self.limits.waiters_per_resource_max;
        if ahead >= max as usize {
            return Err(Refusal::quota("waiters_per_resource_max", max));
        }
        if self.closes_a_circle(&wait) {
            return Err(Refusal::of(ErrorCode::Deadlock));
        }
        let holders = self.holders(&gate).len();
        let holder = self.first_told(&gate).and_then(|hold| hold.connection);
        self.coordination.waits.push(wait);
        self.came(from, correlation, operation, Came::Waits { ahead, holders, holder, missing: 0 });
        Ok(())
    }

    pub(super) fn holders(&self, gate: &Gate) -> Vec<&Hold> {
        self.coordination.holds.iter().filter(|hold| hold.gate.as_ref() == Some(gate)).collect()
    }

    /// The eldest of those who hold it and know that.
    pub(super) fn first_told(&self, gate: &Gate) -> Option<&Hold> {
        self.holders(gate).into_iter().find(|hold| !hold.is_pending)
    }

    /// Permits of a semaphore that is used; remembered by whoever waits, or by those who hold.
    fn permits_of(&self, gate: &Gate) -> Option<u32> {
        self.permits.get(gate).copied().filter(|_| self.resources().contains(gate))
    }

    fn has_room(&self, wait: &Wait) -> bool {
        if self.coordination.closed.iter().any(|(gate, _)| *gate == wait.gate) {
            return false;
        }
        let holders = self.holders(&wait.gate);
        let used: u32 =
            holders.iter().map(|hold| if let Share::Some(count) = hold.share { count } else { 0 }).sum();
        match wait.share {
            Share::All => holders.is_empty(),
            Share::Shared => holders.iter().all(|hold| hold.share == Share::Shared),
            Share::Some(count) => used + count <= wait.of,
        }
    }

    fn grant(&mut self, wait: Wait) {
        let number = self.number();
        let Wait { connection, correlation, operation, value, .. } = wait;
        self.permits.insert(wait.gate.clone(), wait.of);
        self.gate_of.insert(number, Some(wait.gate.clone()));
        self.coordination.holds.push(Hold {
            number,
            connection: Some(connection),
            uid: None,
            absent: None,
            correlation,
            owner: wait.owner,
            gate: Some(wait.gate),
            share: wait.share,
            of: wait.of,
            ttl: wait.ttl,
            delay: wait.delay,
            expires: None,
            token: None,
            value: Vec::new(),
            durability: wait.durability,
            is_pending: true,
        });
        self.promise(number, connection, correlation, operation, value);
    }

    /// Whoever stands first and finds room goes in.
    pub(super) fn pump(&mut self, gate: &Gate) {
        if gate.0 == Operation::ARRIVE.0 {
            return;
        }
        while let Some(at) = self.coordination.waits.iter().position(|wait| wait.gate == *gate) {
            let wait = self.coordination.waits[at].clone();
            if !self.has_room(&wait) {
                return;
            }
            self.coordination.waits.remove(at);
            self.grant(wait);
        }
    }

    /// Whether somebody who is waited for waits, over however many others, for the one who asks, and another session is among
    /// them.
    fn closes_a_circle(&self, wait: &Wait) -> bool {
        let start = (wait.connection, wait.owner);
        if wait.owner == 0 {
            return false;
        }
        let mut reached: Vec<((usize, u64), bool)> = Vec::new();
        let mut next = self.stands_before(wait, self.coordination.waits.len(), false);
        while let Some((party, is_foreign)) = next.pop() {
            if party == start && is_foreign {
                return true;
            }
            if party.1 == 0 || reached.contains(&(party, is_foreign)) {
                continue;
            }
            reached.push((party, is_foreign));
            for (at, other) in self.coordination.waits.iter().enumerate() {
                if (other.connection, other.owner) == party && other.operation != Operation::ARRIVE.0 {
                    let before = self.stands_before(other, at, is_foreign);
                    next.extend(
                        before.into_iter().map(|(party, foreign)| (party, foreign || party.0 != start.0)),
                    );
                }
            }
        }
        false
    }

    /// Everybody who holds what a request waits for, or asked for it before, among the first `count` that wait.
    fn stands_before(&self, wait: &Wait, count: usize, is_foreign: bool) -> Vec<((usize, u64), bool)> {
        let holders = self.holders(&wait.gate).into_iter();
        let inside = holders.filter_map(|hold| Some((hold.connection?, hold.owner)));
        let ahead = self.coordination.waits.iter().take(count).filter(|other| other.gate == wait.gate);
        let ahead = ahead.map(|other| (other.connection, other.owner));
        inside.chain(ahead).map(|party| (party, is_foreign || party.0 != wait.connection)).collect()
    }

    pub(super) fn uid_of(&self, connection: usize) -> Option<u32> {
        match self.connections.get(&connection).map(|one| &one.identity) {
            Some(Identity::Local { uid, .. }) => Some(*uid),
            _ => None,
        }
    }

    fn lease(&mut self, from: usize, seen: &Seen, body: &TakeLease) -> Result<(), Refusal> {
        let (correlation, operation) = (seen.header.correlation, seen.header.handle.index);
        self.may_ask(from, correlation, None)?;
        let durability = match body.bind {
            Bind::Session => self.hold_durability(from, body.durability)?,
            Bind::Time => self.durability(body.durability)?,
        };
        let ttl = lives(body.ttl_us)?;
        let uid = if body.bind == Bind::Time { self.uid_of(from) } else { None };
        if let Some(uid) = uid {
            if ttl.is_none() {
                return Err(Refusal::of(ErrorCode::InvalidArgument));
            }
            let max = self.limits.detached_leases_per_uid_max;
            let open = self.coordination.holds.iter().filter(|hold| hold.uid == Some(uid)).count();
            if open >= max as usize {
                return Err(Refusal::quota("detached_leases_per_uid_max", max));
            }
        } else {
            self.may_hold(from, durability)?;
        }
        let number = self.number();
        self.coordination.holds.push(Hold {
            number,
            connection: uid.is_none().then_some(from),
            uid,
            absent: None,
            correlation,
            owner: 0,
            gate: None,
            share: Share::All,
            of: 0,
            ttl,
            delay: Duration::ZERO,
            expires: None,
            token: None,
            value: Vec::new(),
            durability,
            is_pending: true,
        });
        self.promise(number, from, correlation, operation, Vec::new());
        Ok(())
    }

    /// What a connection has, or its user, under that token.
    pub(super) fn hold_of(&self, from: usize, token: u64) -> Option<usize> {
        let uid = self.uid_of(from);
        let is_theirs = |hold: &Hold| {
            hold.token == Some(token)
                && !hold.is_pending
                && (hold.connection == Some(from)
                    || (hold.uid.is_some() && (hold.uid == uid || uid == Some(0))))
        };
        self.coordination.holds.iter().position(is_theirs)
    }

    fn of_token(&mut self, from: usize, seen: &Seen, renews: bool, token: u64) -> Result<(), Refusal> {
        let (correlation, operation) = (seen.header.correlation, seen.header.handle.index);
        let at = self.hold_of(from, token).ok_or(Refusal::of(ErrorCode::LockLost))?;
        if renews {
            let hold = &mut self.coordination.holds[at];
            hold.expires = hold.ttl.map(|ttl| self.now + ttl);
            let (hold, ttl, durability) = (None, hold.ttl, hold.durability);
            if correlation != 0 {
                self.came(from, correlation, operation, Came::Granted { hold, ttl, durability });
            }
            return Ok(());
        }
        let hold = self.coordination.holds.remove(at);
        self.end_tenure(&hold);
        if correlation != 0 {
            self.came(from, correlation, operation, Came::Done);
        }
        if let Some(gate) = hold.gate {
            self.let_others_in(&gate);
        }
        Ok(())
    }
}

fn lives(ttl_us: u64) -> Result<Option<Duration>, Refusal> {
    match ttl_us {
        0 => Ok(None),
        10_000..=604_800_000_000 => Ok(Some(Duration::from_micros(ttl_us))),
        _ => Err(Refusal::of(ErrorCode::InvalidArgument)),
    }
}

/// Until when somebody waits.
pub(super) fn until(now: Instant, seen: &Seen) -> Option<Instant> {
    let deadline_us = seen.header.deadline_us;
    (deadline_us > 0).then(|| now + Duration::from_micros(deadline_us.into()))
}
