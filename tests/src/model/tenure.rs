//! What is held on the disk. Whoever is to have something over a restart has it when the disk has answered; until then it is nobody
//! else's, and nobody is told. What was kept and has ended goes from the disk a little later; until then nobody has the same thing who
//! would not have it after a crash.

use core::time::Duration;

use ipc_core::error::ErrorCode;
use ipc_core::limits::HOLD_TAKE_UP_MAX;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::{Durability, Identify, Operation, Secret};

use super::Model;
use super::came::Came;
use super::coordination::{Gate, Hold};
use super::expect::Refusal;
use super::rights::Wish;
use crate::world::Seen;

/// So long the end of something waits for a commit of others.
const LAZY: Duration = Duration::from_millis(20);
/// Time between two attempts to write it.
const RETRY: Duration = Duration::from_secs(1);

/// By what a session is known after a restart: its user and its secret.
pub(super) type Session = (u32, Secret);

/// What is told once it is kept: a grant, or what a leader proclaims.
#[derive(Clone, Debug)]
struct Promise {
    hold: u64,
    to: usize,
    correlation: u64,
    operation: u32,
    value: Vec<u8>,
}

/// Something that is kept no more.
#[derive(Clone, Debug)]
struct End {
    /// The number of its grant.
    number: u64,
    /// A lease has none.
    gate: Option<Gate>,
    /// Its holder was told that it has it, and so a record is there.
    was_told: bool,
}

type Ends = Vec<End>;

/// Promises on their way to the disk, each with the record that is written.
type Promises = Vec<(Promise, Option<Hold>)>;

/// What is on the disk of what is held, and what is to come there.
#[derive(Clone, Debug, Default)]
pub(super) struct Tenures {
    line: Vec<Promise>,
    ends: Ends,
    /// What is on its way.
    under_way: (Promises, Ends),
    /// What another life of the daemon would find.
    records: Vec<Hold>,
    /// When the ends are written in any case.
    lazy_at: Option<Instant>,
    /// The disk has not taken the last of it.
    is_failing: bool,
    /// The daemon ends, and leaves what is on the disk to the next one.
    is_over: bool,
}

impl Tenures {
    /// Whether something of it is on its way to the disk.
    pub(super) fn is_under_way(&self) -> bool {
        !self.under_way.0.is_empty() || !self.under_way.1.is_empty()
    }

    /// Whether the disk is wanted.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.is_under_way() && (!self.line.is_empty() || self.lazy_at.is_some_and(|at| at <= now))
    }

    /// Whether somebody waits for the disk, or something that has ended is to go.
    pub(super) fn is_pending(&self) -> bool {
        !self.line.is_empty() || self.is_under_way() || (!self.ends.is_empty() && !self.is_failing)
    }

    /// Whether a record of something that has ended may still be there.
    fn has_remains(&self, gate: &Gate) -> bool {
        self.ends.iter().chain(&self.under_way.1).any(|end| end.gate.as_ref() == Some(gate))
    }

    /// The daemon ends.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    /// What another life finds: what was kept, and what was on its way and got there.
    pub(super) fn after_crash(mut self, is_written: bool) -> Vec<Hold> {
        if is_written {
            self.write();
        }
        self.records
    }

    fn write(&mut self) -> Vec<Promise> {
        let (promises, ends) = core::mem::take(&mut self.under_way);
        for record in promises.iter().filter_map(|(_, record)| record.clone()) {
            self.records.retain(|before| before.number != record.number);
            self.records.push(record);
        }
        self.records.retain(|record| !ends.iter().any(|end| end.number == record.number));
        promises.into_iter().map(|(promise, _)| promise).collect()
    }
}

impl Model {
    /// What something held is to survive: the disk for a session that would be known again, unless something else is said.
    pub(super) fn hold_durability(
        &self,
        from: usize,
        wanted: Option<Durability>,
    ) -> Result<Durability, Refusal> {
        if self.session_of(from).is_some() {
            return self.durability(wanted);
        }
        match self.durability(Some(wanted.unwrap_or(Durability::Memory)))? {
            Durability::Memory => Ok(Durability::Memory),
            Durability::Os | Durability::Disk => Err(Refusal::of(ErrorCode::InvalidArgument)),
        }
    }

    /// Whether a session may hold something more that outlives the daemon, beside what nobody of its user has taken up yet.
    pub(super) fn may_outlive(&self, from: usize, durability: Durability) -> Result<(), Refusal> {
        let session = self.session_of(from).filter(|_| durability > Durability::Memory);
        let is_of_user = |hold: &&Hold| hold.absent.map(|(uid, _)| uid) == session.map(|(uid, _)| uid);
        let max = self.limits.absent_holds_per_uid_max;
        if session.is_some() && self.coordination.holds.iter().filter(is_of_user).count() >= max as usize {
            return Err(Refusal::quota("absent_holds_per_uid_max", max));
        }
        Ok(())
    }

    fn session_of(&self, connection: usize) -> Option<Session> {
        self.connections.get(&connection)?.session
    }

    /// A session says who it is, and is told what it holds.
    pub(super) fn identify(&mut self, from: usize, seen: &Seen, body: Identify) -> Result<(), Refusal> {
        let correlation = seen.header.correlation;
        self.may_ask(from, correlation, None)?;
        let uid = self.uid_of(from).ok_or(Refusal::of(ErrorCode::PermissionDenied))?;
        let session = (uid, body.secret);
        let is_other = |(number, one): &(&usize, &super::Connection)| {
            **number != from && one.session == Some(session) && self.is_here(**number)
        };
        if let Some(other) = self.connections.iter().find(is_other).map(|(number, _)| *number) {
            self.leave(other, Some(vec![ErrorCode::Conflict]));
        }
        let kept = self.coordination.holds.iter().filter(|hold| hold.absent == Some(session));
        let kept: Vec<Hold> = kept.cloned().collect();
        for hold in &kept {
            let name = hold.gate.as_ref().map(|gate| gate.1.as_str());
            if name.is_some() && self.may(from, Wish::Coordinate(name)).is_err() {
                self.lose_hold(hold.number);
            }
        }
        if self.session_of(from).is_some_and(|known| known != session) {
            return Err(Refusal::of(ErrorCode::Conflict));
        }
        if let Some(connection) = self.connections.get_mut(&from) {
            connection.session = Some(session);
        }
        let mut holds = 0;
        for Hold { number, .. } in kept {
            let now = self.now;
            let hold = self.coordination.holds.iter_mut().find(|hold| hold.number == number);
            let Some(hold) = hold else { continue };
            (hold.connection, hold.absent, hold.correlation) = (Some(from), None, correlation);
            hold.expires = hold.ttl.map(|ttl| now + ttl);
            let came = Came::TakenUp {
                hold: number,
                gate: hold.gate.clone(),
                ttl: hold.ttl,
                durability: hold.durability,
            };
            let gate = hold.gate.clone();
            holds += 1;
            self.came(from, correlation, 0, came);
            if let Some(gate) = gate {
                self.tell_who_leads(&gate);
            }
        }
        self.came(from, correlation, Operation::IDENTIFY.0, Came::Identified { holds });
        Ok(())
    }

    /// Something is to be told about something held: when it is kept, or at once where it needs no disk.
    pub(super) fn promise(&mut self, hold: u64, to: usize, correlation: u64, operation: u32, value: Vec<u8>) {
        let promise = Promise { hold, to, correlation, operation, value };
        let Some(of) = self.coordination.holds.iter().find(|of| of.number == hold) else { return };
        let is_kept = of.durability > Durability::Memory;
        // Those who share something are told in the order in which they got it.
        let is_behind = |gate: &Gate| {
            let untold = self.holders(gate).into_iter().filter(|holder| holder.is_pending).count();
            self.tenures.has_remains(gate) || untold > 1
        };
        if is_kept || of.gate.as_ref().is_some_and(is_behind) {
            self.tenures.line.push(promise);
        } else {
            self.fulfil(promise);
        }
    }

    /// Whether the last word about something held is not kept yet.
    pub(super) fn is_promised(&self, hold: u64) -> bool {
        self.tenures.line.iter().any(|promise| promise.hold == hold)
    }

    fn fulfil(&mut self, promise: Promise) {
        let Promise { hold: number, to, correlation, operation, value } = promise;
        let now = self.now;
        let Some(hold) = self.coordination.holds.iter_mut().find(|hold| hold.number == number) else {
            return self.came(to, correlation, operation, Came::Refused(Refusal::of(ErrorCode::LockLost)));
        };
        let is_grant = core::mem::take(&mut hold.is_pending);
        hold.value = value;
        let (gate, ttl, durability) = (hold.gate.clone(), hold.ttl, hold.durability);
        if is_grant {
            hold.expires = ttl.map(|ttl| now + ttl);
            self.came(to, correlation, operation, Came::Granted { hold: Some(number), ttl, durability });
        } else {
            self.came(to, correlation, operation, Came::Done);
        }
        if let Some(gate) = gate {
            self.tell_who_leads(&gate);
        }
    }

    /// Something held has ended, and was taken out.
    pub(super) fn end_tenure(&mut self, hold: &Hold) {
        let broken: Vec<Promise> =
            self.tenures.line.extract_if(.., |promise| promise.hold == hold.number).collect();
        let is_unwritten = hold.is_pending && !broken.is_empty();
        for Promise { to, correlation, operation, .. } in broken {
            self.came(to, correlation, operation, Came::Refused(Refusal::of(ErrorCode::LockLost)));
        }
        if hold.durability > Durability::Memory && !is_unwritten && !self.tenures.is_over {
            let (number, gate, was_told) = (hold.number, hold.gate.clone(), !hold.is_pending);
            self.tenures.ends.push(End { number, gate, was_told });
            self.tenures.lazy_at.get_or_insert(self.now + LAZY);
        }
    }

    /// The disk has nothing to do, and is asked for all that there is.
    pub(super) fn draft_tenures(&mut self) {
        if self.tenures.is_under_way() {
            return;
        }
        let promises = core::mem::take(&mut self.tenures.line);
        let ends = core::mem::take(&mut self.tenures.ends);
        self.tenures.lazy_at = None;
        let with_record = |promise: Promise| {
            let hold = self.coordination.holds.iter().find(|hold| hold.number == promise.hold);
            let record = hold.filter(|hold| hold.durability > Durability::Memory).map(|hold| {
                let absent = hold.connection.and_then(|connection| self.session_of(connection));
                Hold {
                    connection: None,
                    absent,
                    value: promise.value.clone(),
                    is_pending: false,
                    ..hold.clone()
                }
            });
            (promise, record)
        };
        let promises: Vec<_> = promises.into_iter().map(with_record).collect();
        if ends.is_empty() && promises.iter().all(|(_, record)| record.is_none()) {
            // What they waited for has gone.
            promises.into_iter().for_each(|(promise, _)| self.fulfil(promise));
        } else {
            self.tenures.under_way = (promises, ends);
        }
    }

    /// The disk has answered.
    pub(super) fn settle_tenures(&mut self, is_stored: bool) {
        self.tenures.is_failing = !is_stored;
        if !self.tenures.is_under_way() {
            return;
        }
        if is_stored {
            let promises = self.tenures.write();
            promises.into_iter().for_each(|promise| self.fulfil(promise));
            return;
        }
        let (promises, ends) = core::mem::take(&mut self.tenures.under_way);
        // Of what nobody was told of, and has ended since, there is no record to be taken out.
        let is_unwritten = |number| promises.iter().any(|(promise, _)| promise.hold == number);
        self.tenures.ends.retain(|end| end.was_told || !is_unwritten(end.number));
        self.tenures.ends.extend(ends);
        self.tenures.lazy_at = (!self.tenures.ends.is_empty()).then(|| self.now + RETRY);
        let mut left = Vec::new();
        for (promise, _) in promises.into_iter().rev() {
            let is_grant = |hold: &Hold| hold.number == promise.hold && hold.is_pending;
            let at = self.coordination.holds.iter().position(is_grant);
            left.extend(at.and_then(|at| self.coordination.holds.remove(at).gate));
            let Promise { to, correlation, operation, .. } = promise;
            self.came(to, correlation, operation, Came::Refused(Refusal::of(ErrorCode::StorageFailed)));
        }
        // Only now: the end of one is not to be the turn of the next of them.
        for gate in left.into_iter().rev() {
            self.pump(&gate);
        }
    }

    /// What was kept of what is held is there again, and its time begins anew. It is nobody's until its session comes.
    pub(super) fn hold_again(&mut self, mut records: Vec<Hold>) {
        records.sort_by_key(|record| record.number);
        for hold in &mut records {
            let time = if hold.uid.is_some() { hold.ttl } else { Some(hold.ttl.unwrap_or(HOLD_TAKE_UP_MAX)) };
            hold.expires = time.map(|time| self.now + time);
            hold.token = self.tokens.get(&hold.number).copied();
            if let Some(gate) = &hold.gate {
                self.permits.insert(gate.clone(), hold.of);
                let payer = hold.uid.or(hold.absent.map(|(uid, _)| uid));
                self.coordination.payers.entry(gate.clone()).or_insert(payer);
            }
        }
        self.tenures.records.clone_from(&records);
        self.coordination.holds = records;
    }
}
