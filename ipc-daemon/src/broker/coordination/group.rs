//! Changes of keys that succeed or fail together.
//!
//! Requests wait in one line. When nothing of the keys is on its way to the disk, those in the line are judged one after the
//! other, each on what those before it have made of the keys, and get their revisions. If any of them is to be kept, all of
//! them wait for that: they go into one commit. When it has succeeded they are made, in order, and everybody is told. When it
//! has failed, none was made: those that were to be kept are refused, and the others are judged anew. So nobody ever sees what is
//! not kept as it was to be, and revisions are seen in order.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use ipc_core::name::ResourceName;
use ipc_core::payload::Payload;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::Durability;
use ipc_core::{Error, ErrorCode};

use super::gate::Gate;
use super::hold::Hand;
use super::keys::{Change, Condition, End, Entry, cost};
use super::kv::{Act, Ask, Request, no_such_key};
use super::{Coordination, Effect, Noun, Timer};
use crate::broker::ledger::Standing;
use crate::broker::records::Write;

/// After this time the end of a key that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A request that was judged.
#[derive(Debug)]
struct Step {
    request: Request,
    outcome: Result<Vec<Change>, Error>,
}

/// What is judged together.
#[derive(Debug, Default)]
pub(super) struct Group {
    steps: Vec<Step>,
    /// What they make of keys; `None` for one that will not be there.
    over: BTreeMap<ResourceName, Option<Entry>>,
    /// Keys more or less.
    keys: i64,
    /// The same, and bytes of them, by user.
    more: BTreeMap<u32, More>,
    /// Whether there are changes among them that will not survive this life.
    has_volatile: bool,
    writes: Vec<Write>,
    /// Locks under whose tokens something of it is done.
    fences: BTreeSet<ResourceName>,
    /// Records that go with it.
    obsolete: Vec<u64>,
}

/// Keys more or less, and bytes of them.
#[derive(Clone, Copy, Debug, Default)]
struct More {
    keys: i64,
    bytes: i64,
}

impl Coordination {
    /// Carries out what waits and need not be kept, as far as nothing that must be is before it.
    pub(in crate::broker) fn advance(&mut self, now: Instant) {
        if self.group.is_some() || self.line.is_empty() {
            return;
        }
        let mut group = Group::default();
        while let Some(first) = self.line.first() {
            if self.kept_as(&group, first) > Durability::Memory {
                break;
            }
            let Some(request) = self.line.pop() else { break };
            self.judge(now, &mut group, request);
        }
        self.publish(group);
    }

    /// Whether there is anything to be written.
    pub(in crate::broker) fn is_draft_due(&self, now: Instant) -> bool {
        let are_changes_due = self.group.is_none() && !self.line.is_empty();
        let is_more_due = self.is_work_draft_due(now) || self.is_tenure_draft_due(now);
        are_changes_due || is_more_due || self.numbers.is_due(now)
    }

    /// Gives what is to be written, now that the disk is free. [`Coordination::settle`] has to follow if there is anything.
    pub(in crate::broker) fn draft(&mut self, now: Instant, writes: &mut Vec<Write>) {
        if self.group.is_none() && !self.line.is_empty() {
            let mut group = Group::default();
            while let Some(request) = self.line.pop() {
                self.judge(now, &mut group, request);
            }
            if group.writes.is_empty() {
                self.publish(group);
            } else {
                group.obsolete = self.keys.take_obsolete();
                writes.append(&mut group.writes);
                writes.extend(group.obsolete.iter().map(|revision| Self::obsolete_record(*revision)));
                self.group = Some(group);
            }
        }
        self.draft_work(now, writes);
        self.draft_tenures(now, writes);
        writes.extend(self.numbers.draft(now));
    }

    /// What was written is kept, or nothing of it is.
    pub(in crate::broker) fn settle(&mut self, now: Instant, result: &Result<(), Error>) {
        self.numbers.settle(now, result.is_ok());
        self.settle_work(now, result);
        self.settle_tenures(now, result);
        let Some(mut group) = self.group.take() else { return };
        let fences = core::mem::take(&mut group.fences);
        match result {
            Ok(()) => self.publish(group),
            Err(error) => self.take_back(now, group, error),
        }
        for lock in fences {
            if let Some(gate) = self.by_name.get(&(Noun::Lock, lock)).copied() {
                self.pump(now, gate);
            }
        }
    }

    /// Whether a change under an earlier token of that lock is on its way to the disk. The next holder is to see it, so it gets
    /// the lock after that.
    pub(super) fn is_outstanding(&self, gate: &Gate) -> bool {
        let group = self.group.as_ref();
        let is_of_keys = group.is_some_and(|group| group.fences.contains(&gate.name));
        gate.noun == Noun::Lock && (is_of_keys || self.is_work_outstanding(&gate.name))
    }

    /// Whether something waits, or is on its way to the disk.
    pub(in crate::broker) fn has_changes_pending(&self) -> bool {
        let is_more_pending = self.is_work_pending() || self.is_tenure_pending();
        self.group.is_some() || !self.line.is_empty() || is_more_pending
    }

    /// How well the changes of a request are kept: as is asked for, and as well as what they replace.
    fn kept_as(&self, group: &Group, request: &Request) -> Durability {
        let changed = request.asks.iter().filter(|ask| !matches!(ask.act, Act::Check));
        let before = changed.filter_map(|ask| self.state(group, &ask.key));
        before
            .map(|entry| entry.durability)
            .max()
            .map_or(request.durability, |least| least.max(request.durability))
    }

    /// A key as those before have left it.
    fn state<'a>(&'a self, group: &'a Group, key: &ResourceName) -> Option<&'a Entry> {
        match group.over.get(key) {
            Some(over) => over.as_ref(),
            None => self.keys.get(key),
        }
    }

    fn judge(&mut self, now: Instant, group: &mut Group, request: Request) {
        let durability = self.kept_as(group, &request);
        let outcome = self.check(group, &request);
        let outcome = outcome.map(|()| self.change_all(now, group, &request, durability));
        if let (Ok(_), Some(fence)) = (&outcome, &request.fence) {
            group.fences.insert(fence.lock.clone());
        }
        group.steps.push(Step { request, outcome });
    }

    /// Whether everything that is asked for can be done.
    fn check(&self, group: &Group, request: &Request) -> Result<(), Error> {
        self.check_fence(request.fence.as_ref())?;
        let (mut more, mut others) = (More::default(), 0);
        for ask in &request.asks {
            let before = self.state(group, &ask.key);
            check_condition(&ask.key, before, ask.condition)?;
            match &ask.act {
                Act::Check => continue,
                Act::Delete if before.is_none() => return Err(no_such_key(&ask.key)),
                Act::Delete => {}
                Act::Put(value) => {
                    if value.lease != 0 {
                        self.check_lease(request.hand, value.lease)?;
                    }
                    more.put(&ask.key, &value.payload);
                }
            }
            match before {
                Some(entry) if Some(entry.uid) == request.hand.uid => more.end(&ask.key, entry),
                Some(_) => others -= 1,
                None => {}
            }
        }
        self.check_user(group, request, more, others)
    }

    /// Whether a user may have so many keys more, of which others have so many more then.
    fn check_user(&self, group: &Group, request: &Request, more: More, others: i64) -> Result<(), Error> {
        let (Some(uid), Some(asker), Some(limits)) = (request.hand.uid, &request.asker, &request.limits)
        else {
            return Ok(());
        };
        let had = group.more.get(&uid).copied().unwrap_or_default();
        if more.keys > 0 {
            let others = others + group.keys - had.keys;
            let before = self.keys.counts().standing(uid);
            let own = before.own.saturating_add_signed(had.keys);
            let standing = Standing { own, others: before.others.saturating_add_signed(others) };
            let (keys, max) = (more.keys.unsigned_abs(), limits.keys_per_uid_max);
            if own + keys > max.into() {
                return Err(Error::quota("keys_per_uid_max", max.into()));
            }
            standing.check(keys, "keys_max", limits.keys_max.into(), asker.user.is_alone)?;
        }
        let bytes = self.keys.bytes().of(uid).saturating_add_signed(had.bytes + more.bytes);
        let max = limits.key_bytes_per_uid_max;
        if more.bytes > 0 && bytes > max.into() {
            return Err(Error::quota("key_bytes_per_uid_max", max.into()));
        }
        Ok(())
    }

    /// What the request makes of its keys, for those who are judged after it.
    fn change_all(
        &mut self,
        now: Instant,
        group: &mut Group,
        request: &Request,
        durability: Durability,
    ) -> Vec<Change> {
        let mut changes = Vec::with_capacity(request.asks.len());
        for ask in request.asks.iter().filter(|ask| !matches!(ask.act, Act::Check)) {
            let before = self.state(group, &ask.key).cloned();
            let revision = self.next_token(now);
            let entry = entry(now, revision, request.hand, ask, before.as_ref(), durability);
            let change = Change { revision, key: ask.key.clone(), entry, durability };
            if durability > Durability::Memory {
                let ttl = if let Act::Put(value) = &ask.act { value.ttl } else { None };
                let write = self.record(&change, ttl, group);
                group.writes.push(write);
            }
            group.has_volatile |= durability == Durability::Memory;
            group.account(&change, before.as_ref());
            changes.push(change);
        }
        changes
    }

    /// The changes are made, and everybody is told.
    fn publish(&mut self, group: Group) {
        for Step { request, outcome } in group.steps {
            self.finish(&request);
            let changes = match outcome {
                Ok(changes) => changes,
                Err(error) => {
                    self.refuse_changes(&request, &error);
                    continue;
                }
            };
            let durability = changes.iter().map(|change| change.durability).max();
            let mut made = changes.iter().map(|change| change.revision);
            let revision_of = |ask: &Ask| match ask.act {
                Act::Check => 0,
                Act::Put(_) | Act::Delete => made.next().unwrap_or_default(),
            };
            let revisions: Vec<u64> = request.asks.iter().map(revision_of).collect();
            for change in changes {
                self.tell_watches(&change);
                let (key, revision) = (change.key.clone(), change.revision);
                let lease = change.entry.as_ref().map_or(0, Entry::lease);
                self.make(change);
                // It may have ended while that was on its way to the disk.
                if lease != 0 && !self.holds.contains_key(&lease) {
                    self.end_key(key, revision);
                }
            }
            if let Some(asker) = request.asker {
                let (to, operation) = (asker.id(), asker.operation);
                let durability = durability.unwrap_or(request.durability);
                self.effects.push_back(Effect::KeysChanged { to, operation, revisions, durability });
            }
        }
    }

    /// Nothing of it was written: what was to be kept is refused, the rest is judged anew.
    fn take_back(&mut self, now: Instant, group: Group, error: &Error) {
        self.keys.keep_obsolete(group.obsolete);
        for step in group.steps.into_iter().rev() {
            let kept_as = self.kept_as(&Group::default(), &step.request);
            if step.outcome.is_err() || kept_as == Durability::Memory {
                self.line.push_front(step.request);
                continue;
            }
            self.finish(&step.request);
            match step.request.asker {
                Some(_) => self.refuse_changes(&step.request, error),
                None => step.request.asks.iter().for_each(|ask| self.end_later(now, ask)),
            }
        }
    }

    /// The end of a key could not be written: it is tried again.
    fn end_later(&mut self, now: Instant, ask: &Ask) {
        if let Condition::Revision(revision) = ask.condition {
            self.expiring.insert(revision, ask.key.clone());
            self.timers.insert((now + RETRY, Timer::Key(revision)));
        }
    }

    /// A request does not wait any more.
    fn finish(&mut self, request: &Request) {
        if let Some(asker) = &request.asker {
            self.end_change(asker);
        }
    }

    fn refuse_changes(&mut self, request: &Request, error: &Error) {
        if let Some(asker) = request.asker {
            let (to, operation) = (asker.id(), asker.operation);
            self.effects.push_back(Effect::Refused { to, operation, reason: error.clone().into() });
        }
    }

    /// Makes a change, with what is bound to it.
    pub(super) fn make(&mut self, change: Change) {
        let Change { revision, key, entry, .. } = &change;
        let (revision, key) = (*revision, key.clone());
        let (lease, expires) = entry.as_ref().map_or((0, None), |entry| (entry.lease(), entry.expires()));
        let before = self.keys.apply(change);
        self.forget_entry(&key, before.as_ref());
        if let Some(expires) = expires {
            self.expiring.insert(revision, key.clone());
            self.timers.insert((expires, Timer::Key(revision)));
        }
        if lease != 0 {
            self.leased.entry(lease).or_default().insert(key);
        }
    }

    /// What was bound to an entry that is no more.
    fn forget_entry(&mut self, key: &ResourceName, before: Option<&Entry>) {
        let Some(before) = before else { return };
        if let Some(keys) = self.leased.get_mut(&before.lease()) {
            keys.remove(key);
            if keys.is_empty() {
                self.leased.remove(&before.lease());
            }
        }
        if self.expiring.remove(&before.revision).is_some()
            && let Some(expires) = before.expires()
        {
            self.timers.remove(&(expires, Timer::Key(before.revision)));
        }
    }

    /// A lease has ended, and every key that is bound to it ends too.
    pub(super) fn end_leased(&mut self, lease: u64) {
        for key in self.leased.get(&lease).cloned().unwrap_or_default() {
            if let Some(revision) = self.keys.get(&key).map(|entry| entry.revision) {
                self.end_key(key, revision);
            }
        }
    }

    /// The time of a key has passed.
    pub(super) fn expire_key(&mut self, revision: u64) {
        if let Some(key) = self.expiring.remove(&revision) {
            self.end_key(key, revision);
        }
    }

    fn end_key(&mut self, key: ResourceName, revision: u64) {
        self.line.push(Request {
            asker: None,
            hand: Hand::nobody(),
            asks: vec![Ask::end(key, revision)],
            fence: None,
            durability: Durability::Memory,
            limits: None,
        });
    }
}

impl More {
    fn put(&mut self, key: &ResourceName, value: &Payload) {
        self.keys += 1;
        self.bytes += cost(key, value) as i64;
    }

    fn end(&mut self, key: &ResourceName, entry: &Entry) {
        self.keys -= 1;
        self.bytes -= cost(key, &entry.value) as i64;
    }
}

impl Group {
    /// Whether there are changes in it that will not survive this life.
    pub(super) fn has_volatile(&self) -> bool {
        self.has_volatile
    }

    /// Whether nothing of it is to be written so far.
    pub(super) fn keeps_nothing(&self) -> bool {
        self.writes.is_empty()
    }

    /// Those who are judged later see the change.
    fn account(&mut self, change: &Change, before: Option<&Entry>) {
        self.keys += i64::from(change.entry.is_some()) - i64::from(before.is_some());
        if let Some(before) = before {
            self.more.entry(before.uid).or_default().end(&change.key, before);
        }
        if let Some(entry) = &change.entry {
            self.more.entry(entry.uid).or_default().put(&change.key, &entry.value);
        }
        self.over.insert(change.key.clone(), change.entry.clone());
    }
}

fn entry(
    now: Instant,
    revision: u64,
    hand: Hand,
    ask: &Ask,
    before: Option<&Entry>,
    durability: Durability,
) -> Option<Entry> {
    let Act::Put(value) = &ask.act else { return None };
    let (created, version) = before.map_or((revision, 1), |entry| (entry.created, entry.version + 1));
    Some(Entry {
        revision,
        created,
        version,
        value: value.payload.clone(),
        uid: hand.uid.unwrap_or_default(),
        durability,
        end: End::of(value.lease, value.ttl.map(|ttl| now + ttl)),
    })
}

/// Whether the condition holds.
///
/// # Errors
/// `revision_mismatch`, saying how it is instead.
fn check_condition(key: &ResourceName, before: Option<&Entry>, condition: Condition) -> Result<(), Error> {
    let is = before.map(|entry| entry.revision);
    let holds = match condition {
        Condition::Any => true,
        Condition::Absent => is.is_none(),
        Condition::Revision(wanted) => is == Some(wanted),
    };
    if holds {
        return Ok(());
    }
    let is = is.map_or_else(|| "does not exist".to_owned(), |is| format!("has revision {is}"));
    let message = match condition {
        Condition::Revision(wanted) => format!("{key} {is}, not {wanted}"),
        Condition::Absent | Condition::Any => format!("{key} {is}"),
    };
    Err(Error::new(ErrorCode::RevisionMismatch, message).with_hint("read it again and decide anew"))
}
