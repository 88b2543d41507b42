//! What is held on a disk: grants that wait for it, and the ends of what was kept.
//!
//! A grant that is to be kept takes its place at once, so that nobody else gets it, but is nobody's yet: whoever asked is told, and
//! it is shown, when its record is on the disk. When that fails it is as if it had not been granted, and the next in the queue has
//! its turn. What a leader proclaims goes the same way.
//!
//! When something ends that was kept, nobody waits for its record to go: that is written with the next commit, or a little later. A
//! crash in between leaves it with its session, which gives it back, or until its time has passed. Who gets the same thing
//! meanwhile, and it is not to be kept, waits for that record to go: else a restart could make an older token good again. It waits
//! for those too who share it and were let in before: tokens are told in order.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use ipc_core::name::ResourceName;
use ipc_core::payload::Payload;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::{Durability, Operation};
use ipc_core::{Error, ErrorCode};

use super::closure::{Closure, Closures};
use super::gate::Gate;
use super::hold::Hold;
use super::{Coordination, Effect, Noun, Timer, WaitId};
use crate::broker::records::Write;

/// So long the end of something waits for others' commits.
const LAZY: Duration = Duration::from_millis(20);
/// Time between two attempts to write it.
const RETRY: Duration = Duration::from_secs(1);

type Name = (Noun, ResourceName);

/// What is told once it is kept: a grant, or what a leader proclaims.
#[derive(Debug)]
pub(super) struct Promise {
    pub(super) to: WaitId,
    pub(super) operation: Operation,
    pub(super) token: u64,
    /// What a leader proclaims.
    pub(super) value: Payload,
}

/// Promises that wait for the disk, in order. There is one about each token at most.
#[derive(Debug, Default)]
struct Line {
    promises: BTreeMap<u64, Promise>,
    places: BTreeMap<u64, u64>,
    /// The place of the next one.
    next: u64,
}

impl Line {
    fn is_empty(&self) -> bool {
        self.promises.is_empty()
    }

    fn has(&self, token: u64) -> bool {
        self.places.contains_key(&token)
    }

    fn push(&mut self, promise: Promise) {
        self.places.insert(promise.token, self.next);
        self.promises.insert(self.next, promise);
        self.next += 1;
    }

    fn remove(&mut self, token: u64) -> Option<Promise> {
        self.promises.remove(&self.places.remove(&token)?)
    }

    fn take(&mut self) -> Vec<Promise> {
        self.places.clear();
        core::mem::take(&mut self.promises).into_values().collect()
    }
}

/// Something kept that has ended; a lease has no name.
#[derive(Debug)]
struct End {
    token: u64,
    name: Option<Name>,
    /// Its holder was told that it has it, and so a record is there.
    was_told: bool,
}

/// What is on its way to the disk together.
#[derive(Debug, Default)]
struct Group {
    promises: Vec<Promise>,
    ends: Vec<End>,
    closures: Vec<Closure>,
}

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Tenures {
    line: Line,
    ends: Vec<End>,
    group: Option<Group>,
    /// How many records of what has ended are still on the disk, by name.
    remains: BTreeMap<Name, u32>,
    /// What is closed because a holder was lost.
    pub(super) closures: Closures,
    /// When the ends, and what is closed, are written in any case.
    lazy_at: Option<Instant>,
    /// The disk has not taken the last of it.
    is_failing: bool,
    /// The daemon ends: what is on the disk is for the next one.
    is_over: bool,
}

impl Tenures {
    /// What is on the disk stays there from here on, whoever leaves.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    /// Whether a record of an earlier holder is on the disk, or of the delay after it.
    fn has_remains(&self, gate: &Gate) -> bool {
        if self.remains.is_empty() && self.closures.is_empty() {
            return false;
        }
        let name = (gate.noun, gate.name.clone());
        self.remains.contains_key(&name) || self.closures.is_kept(&name)
    }

    /// Something is closed from here on, and stays so over a restart; unless the daemon ends, and the holder is for the next one.
    pub(super) fn note_closed(&mut self, now: Instant, name: Name) {
        if !self.is_over {
            self.closures.begin(name);
            self.lazy_at.get_or_insert(now + LAZY);
        }
    }

    /// It is open again.
    pub(super) fn note_open(&mut self, now: Instant, name: &Name) {
        if self.closures.end(name) {
            self.lazy_at.get_or_insert(now + LAZY);
        }
    }

    /// Whether something that has ended, or is closed, is to be written.
    fn has_ended(&self) -> bool {
        !self.ends.is_empty() || self.closures.is_changed()
    }

    fn note_end(&mut self, now: Instant, end: End) {
        if let Some(name) = &end.name {
            *self.remains.entry(name.clone()).or_default() += 1;
        }
        self.ends.push(end);
        self.lazy_at.get_or_insert(now + LAZY);
    }

    /// Records of these could not be written. Of what has ended since, and nobody was told of, there is nothing to be taken out
    /// then.
    fn forget_unwritten(&mut self, promises: &[Promise]) {
        let tokens: BTreeSet<u64> = promises.iter().map(|promise| promise.token).collect();
        let is_unwritten = |end: &mut End| !end.was_told && tokens.contains(&end.token);
        let unwritten: Vec<End> = self.ends.extract_if(.., is_unwritten).collect();
        unwritten.into_iter().for_each(|end| self.forget_remains(end));
    }

    fn forget_remains(&mut self, end: End) {
        if let Some(name) = end.name
            && let Some(count) = self.remains.get_mut(&name)
        {
            *count -= 1;
            if *count == 0 {
                self.remains.remove(&name);
            }
        }
    }
}

/// When the disk is asked.
impl Coordination {
    /// Whether somebody waits for the disk, or something that has ended is to be written.
    pub(super) fn is_tenure_pending(&self) -> bool {
        let tenures = &self.tenures;
        let are_ends_due = tenures.has_ended() && !tenures.is_failing;
        !tenures.line.is_empty() || tenures.group.is_some() || are_ends_due
    }

    /// When what has ended is to be written.
    pub(super) fn tenures_due_at(&self) -> Option<Instant> {
        self.tenures.lazy_at.filter(|_| self.tenures.group.is_none())
    }

    pub(super) fn is_tenure_draft_due(&self, now: Instant) -> bool {
        let is_late = self.tenures_due_at().is_some_and(|at| at <= now);
        self.tenures.group.is_none() && (!self.tenures.line.is_empty() || is_late)
    }

    /// Whether what was said last of what is held under that token still waits for its turn on the disk.
    pub(super) fn is_promised(&self, token: u64) -> bool {
        self.tenures.line.has(token)
    }

    /// A promise about something held is kept when its record is on the disk, or at once when it needs none.
    pub(super) fn promise(&mut self, now: Instant, promise: Promise) {
        let hold = self.holds.get(&promise.token);
        let is_kept = hold.is_some_and(|hold| hold.terms.durability > Durability::Memory);
        // Tokens are told in order.
        let is_behind = |gate: &Gate| self.tenures.has_remains(gate) || gate.has_untold_beside();
        if is_kept || self.gate_of(promise.token).is_some_and(is_behind) {
            self.tenures.line.push(promise);
        } else {
            self.fulfil(now, promise);
        }
    }

    /// What was held has ended: its record goes, and what was promised about it comes to nothing.
    pub(super) fn end_tenure(&mut self, now: Instant, token: u64, hold: &Hold, name: Option<Name>) {
        let broken = self.tenures.line.remove(token);
        // One that was never written leaves nothing.
        let is_unwritten = hold.is_pending && broken.is_some();
        if let Some(promise) = broken {
            self.refuse_promise(promise.to, promise.operation, &ended(token));
        }
        if hold.terms.durability > Durability::Memory && !is_unwritten && !self.tenures.is_over {
            self.tenures.note_end(now, End { token, name, was_told: !hold.is_pending });
        }
    }

    /// Gives what is to be written.
    pub(super) fn draft_tenures(&mut self, now: Instant, writes: &mut Vec<Write>) {
        let tenures = &mut self.tenures;
        if tenures.group.is_some() || (tenures.line.is_empty() && !tenures.has_ended()) {
            return;
        }
        let (promises, ends) = (tenures.line.take(), core::mem::take(&mut tenures.ends));
        tenures.lazy_at = None;
        let before = writes.len();
        writes.extend(promises.iter().filter_map(|promise| self.record_of(promise)));
        writes.extend(ends.iter().map(|end| Self::hold_gone(end.token)));
        let closures = self.draft_closures(now, writes);
        if writes.len() > before {
            self.tenures.group = Some(Group { promises, ends, closures });
        } else {
            // What they waited for has gone.
            promises.into_iter().for_each(|promise| self.fulfil(now, promise));
        }
    }

    /// What was written is kept, or nothing of it is.
    pub(super) fn settle_tenures(&mut self, now: Instant, result: &Result<(), Error>) {
        // Of any commit: when others are written, these are worth another try.
        self.tenures.is_failing = result.is_err();
        let Some(Group { promises, ends, closures }) = self.tenures.group.take() else { return };
        match result {
            Ok(()) => {
                ends.into_iter().for_each(|end| self.tenures.forget_remains(end));
                self.tenures.closures.settle(&closures);
                promises.into_iter().for_each(|promise| self.fulfil(now, promise));
            }
            Err(error) => {
                self.tenures.forget_unwritten(&promises);
                self.tenures.ends.extend(ends);
                self.tenures.closures.take_back(closures);
                self.tenures.lazy_at = self.tenures.has_ended().then(|| now + RETRY);
                self.take_back_promises(now, &promises, error);
            }
        }
    }
}

/// What becomes of it.
impl Coordination {
    fn fulfil(&mut self, now: Instant, promise: Promise) {
        let Promise { to, operation, token, value } = promise;
        let Some(hold) = self.holds.get_mut(&token) else {
            return self.refuse_promise(to, operation, &ended(token));
        };
        let is_grant = core::mem::take(&mut hold.is_pending);
        let (key, ttl, durability) = (hold.gate, hold.terms.ttl, hold.terms.durability);
        if is_grant {
            hold.since = now;
            if let Some(gate) = key.and_then(|key| self.gates.get_mut(key)) {
                gate.settle();
            }
            self.begin_time(now, token);
            self.effects.push_back(Effect::Granted { to, operation, token, ttl, durability });
        } else {
            self.effects.push_back(Effect::Proclaimed { to });
        }
        if let Some(key) = key {
            self.set_value(key, value);
        }
    }

    /// The disk has not taken them: as if they had not been asked for.
    fn take_back_promises(&mut self, now: Instant, promises: &[Promise], error: &Error) {
        let mut left = Vec::new();
        for promise in promises.iter().rev() {
            let is_grant = self.told(promise.token).is_none();
            if is_grant && let Some(hold) = self.remove_hold(promise.token) {
                left.extend(hold.gate);
            }
            self.refuse_promise(promise.to, promise.operation, error);
        }
        // Only now: the end of one is not to be the turn of the next of them.
        for gate in left.into_iter().rev() {
            self.pump(now, gate);
        }
    }

    fn refuse_promise(&mut self, to: WaitId, operation: Operation, error: &Error) {
        self.effects.push_back(Effect::Refused { to, operation, reason: error.clone().into() });
    }

    /// Its time begins, or begins anew.
    pub(super) fn begin_time(&mut self, now: Instant, token: u64) {
        let Some(hold) = self.holds.get_mut(&token) else { return };
        let expires = hold.time_to_live().map(|ttl| now + ttl);
        if let Some(before) = core::mem::replace(&mut hold.expires, expires) {
            self.timers.remove(&(before, Timer::Hold(token)));
        }
        if let Some(expires) = expires {
            self.timers.insert((expires, Timer::Hold(token)));
        }
    }

    /// The gate that is held under that token.
    pub(super) fn gate_of(&self, token: u64) -> Option<&Gate> {
        self.holds.get(&token)?.gate.and_then(|gate| self.gates.get(gate))
    }

    /// Whether that is for the next life of the daemon, with what is bound to it.
    pub(super) fn is_for_the_next(&self, hold: &Hold) -> bool {
        self.tenures.is_over && hold.terms.durability > Durability::Memory
    }

    /// Everything held has been restored: its time begins now, when it can be taken up.
    pub(super) fn open_tenures(&mut self, now: Instant) {
        let tokens: Vec<u64> = self.holds.keys().copied().collect();
        for token in tokens {
            self.begin_time(now, token);
        }
    }

    /// The daemon is about to end: what is left of delays is written once more.
    pub(in crate::broker) fn renew_closures(&mut self, now: Instant) {
        self.tenures.closures.renew();
        if self.tenures.closures.is_changed() {
            self.tenures.lazy_at.get_or_insert(now + LAZY);
        }
    }

    /// The daemon ends. What is kept on the disk of what is held is for the next one.
    pub(in crate::broker) fn leave_tenures(&mut self) {
        self.tenures.end();
    }
}

fn ended(token: u64) -> Error {
    Error::new(ErrorCode::LockLost, format!("{token} was lost or given back before that was kept"))
}
