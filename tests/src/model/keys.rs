//! Keys: a map, and a line of requests. What is to be kept is there, and answered, once the disk has said so; until then nobody sees
//! it, and those behind it wait.

use std::collections::{BTreeMap, VecDeque};

use ipc_core::error::ErrorCode;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::{
    Condition, DeleteKey, Durability, GetKey, ListKeys, Operation, PutKey, Selection, StepAct, Transact,
};
use ipc_daemon::broker::Fault;

use super::Model;
use super::came::Came;
use super::expect::Refusal;
use super::shares::{Part, User};
use crate::world::Seen;

/// What a key has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The change that made it so; later ones have higher numbers.
    pub number: u64,
    /// The change before which there was no such key.
    pub created: u64,
    pub version: u64,
    pub kind: u8,
    pub value: Vec<u8>,
    pub durability: Durability,
    /// Who has put it, and pays for it.
    payer: Option<u32>,
}

/// A put or, without an entry, a delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub number: u64,
    pub key: String,
    pub entry: Option<Entry>,
    pub durability: Durability,
}

/// What is to happen to a key.
#[derive(Clone, Debug)]
enum Act {
    Check,
    Put { kind: u8, value: Vec<u8> },
    Delete,
}

/// What is asked of one key.
#[derive(Clone, Debug)]
struct Ask {
    key: String,
    condition: Condition,
    act: Act,
}

/// A request that has no outcome yet.
#[derive(Clone, Debug)]
struct Asked {
    from: usize,
    /// As it was when that came.
    user: User,
    correlation: u64,
    operation: u32,
    asks: Vec<Ask>,
    durability: Durability,
}

/// A request, and what comes of it: the change of each key that it changes.
type Decided = (Asked, Result<Vec<Option<Change>>, Refusal>);

type Entries = BTreeMap<String, Entry>;

/// All of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    pub entries: Entries,
    /// Every change that is not lost, in order.
    pub changes: Vec<Change>,
    line: VecDeque<Asked>,
    /// What is on its way to the disk.
    under_way: Vec<Decided>,
    /// Who was just told an outcome.
    answered: Vec<usize>,
    /// The revisions of changes, as far as anybody was told.
    pub revisions: BTreeMap<u64, u64>,
    /// From this change on nothing was lost in a restart.
    pub loss: u64,
}

impl Model {
    /// A request about keys. `None` when it is a violation.
    pub(super) fn keys(&mut self, from: usize, seen: &Seen) -> Option<Result<(), Refusal>> {
        let correlation = seen.header.correlation;
        Some(match Operation(seen.header.handle.index) {
            Operation::PUT => {
                let body: PutKey = seen.decode()?;
                let act = Act::Put { kind: seen.header.payload_kind.number(), value: seen.payload.clone() };
                let ask = Ask { key: body.key.0, condition: body.condition, act };
                self.change(from, seen, vec![ask], body.durability)
            }
            Operation::DELETE => {
                let body: DeleteKey = seen.decode()?;
                let ask = Ask { key: body.key.0, condition: body.condition, act: Act::Delete };
                self.change(from, seen, vec![ask], body.durability)
            }
            Operation::TRANSACT => {
                let body: Transact = seen.decode()?;
                let mut values = &seen.payload[..];
                let asks = body.steps.0.into_iter().map(|step| {
                    let act = match step.act {
                        StepAct::Check => Act::Check,
                        StepAct::Delete => Act::Delete,
                        StepAct::Put { kind, length, .. } => Act::Put {
                            kind: kind as u8,
                            value: values.split_off(..length as usize)?.to_vec(),
                        },
                    };
                    Some(Ask { key: step.key.0, condition: step.condition, act })
                });
                let asks = asks.collect::<Option<Vec<Ask>>>()?;
                self.change(from, seen, asks, body.durability)
            }
            Operation::GET => {
                let key = seen.decode::<GetKey>()?.key.0;
                self.may_ask(from, correlation, Some(&key)).and_then(|()| {
                    let entry = self.keys.entries.get(&key).cloned();
                    let entry = entry.ok_or(Refusal::of(ErrorCode::NoSuchKey))?;
                    self.came(from, correlation, Operation::GET.0, Came::Got(key, entry));
                    Ok(())
                })
            }
            Operation::LIST => {
                let selection = seen.decode::<ListKeys>()?.selection;
                self.may_select(from, correlation, &selection).map(|()| {
                    let mut entries: Vec<_> = self.keys.entries.clone().into_iter().collect();
                    entries.retain(|(key, _)| is_selected(&selection, key));
                    self.came(from, correlation, Operation::LIST.0, Came::Listed(entries));
                })
            }
            _ => return self.stream(from, seen),
        })
    }

    /// Whether a connection may ask for those keys.
    pub(super) fn may_select(&self, from: usize, correlation: u64, keys: &Selection) -> Result<(), Refusal> {
        self.may_ask(from, correlation, if let Selection::Key { key } = keys { Some(&key.0) } else { None })
    }

    fn change(
        &mut self,
        from: usize,
        seen: &Seen,
        asks: Vec<Ask>,
        wanted: Option<Durability>,
    ) -> Result<(), Refusal> {
        let (correlation, operation) = (seen.header.correlation, seen.header.handle.index);
        for ask in &asks {
            self.may_ask(from, correlation, Some(&ask.key))?;
        }
        let durability = self.durability(wanted)?;
        let asked = Asked { from, user: self.user(from), correlation, operation, asks, durability };
        self.may_stand_in_line(&asked)?;
        self.keys.line.push_back(asked);
        self.advance();
        Ok(())
    }

    /// Whether one more request may wait. Those on their way to the disk do not stand in the line any more, but still count for
    /// their connection and their user.
    fn may_stand_in_line(&self, asked: &Asked) -> Result<(), Refusal> {
        let (limits, user) = (&self.limits, asked.user);
        let own: Vec<&Asked> = self.keys.line.iter().filter(|other| other.user.uid == user.uid).collect();
        let part = Part { own: own.len(), total: self.keys.line.len() };
        part.check(1, user, ("changes_pending_max", limits.changes_pending_max))?;
        let total: usize = self.keys.line.iter().map(Asked::bytes).sum();
        // With nothing there one of any size is taken.
        if total > 0 {
            let part = Part { own: own.into_iter().map(Asked::bytes).sum(), total };
            let max = limits.changes_pending_max_bytes;
            part.check(asked.bytes(), user, ("changes_pending_max_bytes", max))?;
        }
        let max = limits.changes_pending_per_connection_max;
        if self.changes_of(asked.from) >= max as usize {
            return Err(Refusal::quota("changes_pending_per_connection_max", max));
        }
        let max = limits.changes_pending_per_uid_max;
        if self.requests().filter(|other| other.user.uid == user.uid).count() >= max as usize {
            return Err(Refusal::quota("changes_pending_per_uid_max", max));
        }
        Ok(())
    }

    /// What is kept how: on the disk where there is one, if nothing is said.
    pub(super) fn durability(&self, wanted: Option<Durability>) -> Result<Durability, Refusal> {
        let usual = if self.has_store { Durability::Disk } else { Durability::Memory };
        match wanted.unwrap_or(usual) {
            Durability::Memory => Ok(Durability::Memory),
            _ if !self.has_store => Err(Refusal::of(ErrorCode::Unsupported)),
            _ if self.is_disk_dead => Err(Refusal::of(ErrorCode::StorageFailed)),
            more => Ok(more),
        }
    }

    /// What need not be kept happens at once, unless something before it waits for the disk.
    fn advance(&mut self) {
        while self.keys.under_way.is_empty()
            && let Some(first) = self.keys.line.front()
            && kept_as(&self.keys.entries, first) == Durability::Memory
            && let Some(asked) = self.keys.line.pop_front()
        {
            let decided = self.decide(&mut self.keys.entries.clone(), asked);
            self.carry_out(decided);
        }
        self.let_those_go_who_are_finished();
    }

    /// Whoever sends nothing more stays until all that it has asked for has an outcome.
    fn let_those_go_who_are_finished(&mut self) {
        let answered = core::mem::take(&mut self.keys.answered);
        answered.into_iter().for_each(|number| self.leave_if_finished(number));
    }

    /// The disk has nothing to do: all that waits is decided, in order, and goes there together.
    pub fn disk_is_free(&mut self, now: Instant) {
        let is_busy = !self.keys.under_way.is_empty() || self.tenures.is_under_way();
        if is_busy || (self.keys.line.is_empty() && !self.tenures.is_due(now)) {
            return;
        }
        self.begin(now);
        self.draft_changes();
        self.draft_tenures();
    }

    fn draft_changes(&mut self) {
        let mut entries = self.keys.entries.clone();
        let line = core::mem::take(&mut self.keys.line);
        let decided: Vec<Decided> = line.into_iter().map(|asked| self.decide(&mut entries, asked)).collect();
        let mut changes = decided.iter().filter_map(|(_, changes)| changes.as_ref().ok()).flatten().flatten();
        if changes.any(|change| change.durability > Durability::Memory) {
            self.keys.under_way = decided;
        } else {
            decided.into_iter().for_each(|decided| self.carry_out(decided));
            self.let_those_go_who_are_finished();
        }
    }

    /// The disk has answered: all of it is there, or nothing. What was refused or is not kept has its turn again then.
    pub fn stored(&mut self, now: Instant, result: &Result<(), Fault>) {
        self.begin(now);
        self.is_disk_dead |= matches!(result, Err(Fault::Dead(_)));
        self.settle_tenures(result.is_ok());
        let under_way = core::mem::take(&mut self.keys.under_way);
        if result.is_ok() {
            under_way.into_iter().for_each(|decided| self.carry_out(decided));
        } else {
            for (asked, outcome) in under_way.into_iter().rev() {
                if outcome.is_err() || kept_as(&self.keys.entries, &asked) == Durability::Memory {
                    self.keys.line.push_front(asked);
                } else {
                    self.carry_out((asked, Err(Refusal::of(ErrorCode::StorageFailed))));
                }
            }
        }
        self.advance();
    }

    /// What comes of a request when keys are so; afterwards they are as it leaves them.
    fn decide(&mut self, entries: &mut Entries, asked: Asked) -> Decided {
        let durability = kept_as(entries, &asked);
        let refused = asked.asks.iter().find_map(|ask| {
            let is = entries.get(&ask.key);
            let holds = match ask.condition {
                Condition::Any => true,
                Condition::Absent => is.is_none(),
                Condition::Revision { revision } => {
                    is.is_some_and(|is| self.keys.revisions.get(&is.number) == Some(&revision))
                }
            };
            match ask.act {
                _ if !holds => Some(ErrorCode::RevisionMismatch),
                Act::Delete if is.is_none() => Some(ErrorCode::NoSuchKey),
                _ => None,
            }
        });
        if let Some(code) = refused {
            return (asked, Err(Refusal::of(code)));
        }
        let mut after = entries.clone();
        let change_one = |ask| self.change_one(&mut after, ask, asked.user.uid, durability);
        let changes = asked.asks.iter().map(change_one).collect();
        if let Err(refusal) = self.may_keep(asked.user, entries, &after) {
            return (asked, Err(refusal));
        }
        *entries = after;
        (asked, Ok(changes))
    }

    /// Whether a user who changes keys to these may have as many of them. What it takes from others is not left for it.
    fn may_keep(&self, user: User, before: &Entries, after: &Entries) -> Result<(), Refusal> {
        let count = |entries: &Entries| entries.values().filter(|entry| entry.payer == user.uid).count();
        let (had, has) = (count(before), count(after));
        if has <= had {
            return Ok(());
        }
        let (max, limits) = (self.limits.keys_per_uid_max, &self.limits);
        if has > max as usize {
            return Err(Refusal::quota("keys_per_uid_max", max));
        }
        let part = Part { own: had, total: after.len() - (has - had) };
        part.check(has - had, user, ("keys_max", limits.keys_max))
    }

    fn change_one(
        &mut self,
        entries: &mut Entries,
        ask: &Ask,
        payer: Option<u32>,
        durability: Durability,
    ) -> Option<Change> {
        let before = entries.get(&ask.key).map(|entry| (entry.created, entry.version));
        let entry = match &ask.act {
            Act::Check => return None,
            Act::Delete => None,
            Act::Put { kind, value } => Some((*kind, value.clone())),
        };
        let number = self.number();
        let (created, version) = before.map_or((number, 1), |(created, version)| (created, version + 1));
        let entry =
            entry.map(|(kind, value)| Entry { number, created, version, kind, value, durability, payer });
        let change = Change { number, key: ask.key.clone(), entry, durability };
        change.make(entries);
        Some(change)
    }

    /// What was decided becomes true, and is told.
    fn carry_out(&mut self, (asked, outcome): Decided) {
        let Asked { from, correlation, operation, durability, .. } = asked;
        let came = match outcome {
            Err(refusal) => Came::Refused(refusal),
            Ok(changes) => {
                for change in changes.iter().flatten() {
                    self.tell_of_change(change);
                    self.keys.make(change);
                }
                let made = changes.iter().flatten().map(|change| change.durability);
                let durability = made.max().unwrap_or(durability);
                let changes = changes.iter().map(|change| change.as_ref().map(|change| change.number));
                Came::Changed { changes: changes.collect(), durability }
            }
        };
        self.came(from, correlation, operation, came);
        self.keys.answered.push(from);
    }

    /// Requests that have no outcome yet.
    fn requests(&self) -> impl Iterator<Item = &Asked> {
        self.keys.under_way.iter().map(|(asked, _)| asked).chain(&self.keys.line)
    }

    /// Requests of a connection that have no outcome yet.
    pub(super) fn changes_of(&self, connection: usize) -> usize {
        self.requests().filter(|asked| asked.from == connection).count()
    }

    /// Whether anybody waits for the disk, or something is to be written.
    pub(super) fn has_changes_pending(&self) -> bool {
        self.has_changes_under_way() || !self.keys.line.is_empty() || self.tenures.is_pending()
    }

    /// Whether changes of keys are on their way to the disk.
    pub fn has_changes_under_way(&self) -> bool {
        !self.keys.under_way.is_empty()
    }

    /// A change has this revision: later ones have higher ones, and no token is the same.
    pub(super) fn learn_revision(&mut self, number: u64, revision: u64) -> Result<(), String> {
        let revisions = &mut self.keys.revisions;
        if revisions.get(&number) == Some(&revision) {
            return Ok(());
        }
        let before = revisions.range(..number).next_back().map_or(0, |(_, before)| *before);
        let after = revisions.range(number..).next().map_or(u64::MAX, |(_, after)| *after);
        if revision <= before || revision >= after || self.tokens.values().any(|token| *token == revision) {
            return Err(format!("revision {revision} after {before} and before {after}, or it is a token"));
        }
        revisions.insert(number, revision);
        Ok(())
    }

    /// The revision that a key has, if anybody was told of it.
    pub fn revision_of(&self, key: &str) -> Option<u64> {
        let entry = self.keys.entries.get(key)?;
        self.keys.revisions.get(&entry.number).copied()
    }

    /// The revision of the nth last change that anybody was told of.
    pub fn known_revision(&self, nth: usize) -> Option<u64> {
        self.keys.revisions.values().rev().nth(nth).copied()
    }
}

impl Asked {
    /// Bytes of names and values in it.
    fn bytes(&self) -> usize {
        let of =
            |ask: &Ask| ask.key.len() + if let Act::Put { value, .. } = &ask.act { value.len() } else { 0 };
        self.asks.iter().map(of).sum()
    }
}

impl Change {
    fn make(&self, entries: &mut Entries) {
        match &self.entry {
            Some(entry) => drop(entries.insert(self.key.clone(), entry.clone())),
            None => drop(entries.remove(&self.key)),
        }
    }
}

impl Keys {
    /// None so far. Without a store nobody knows what was before.
    pub(super) fn new(has_store: bool) -> Self {
        Self { loss: u64::from(!has_store), ..Self::default() }
    }

    fn make(&mut self, change: &Change) {
        change.make(&mut self.entries);
        self.changes.push(change.clone());
    }

    /// What another life of the daemon has of it: what was kept, and what was on its way to the disk and got there.
    pub(super) fn after_crash(mut self, is_written: bool, last: u64) -> Self {
        let under_way = core::mem::take(&mut self.under_way);
        let decided = under_way.into_iter().filter_map(|(_, changes)| changes.ok().filter(|_| is_written));
        decided.flatten().flatten().for_each(|change| self.make(&change));
        if self.changes.iter().any(|change| change.durability == Durability::Memory) {
            self.loss = last + 1;
        }
        self.changes.retain(|change| change.durability > Durability::Memory);
        self.entries.retain(|_, entry| entry.durability > Durability::Memory);
        self.line.clear();
        self
    }
}

/// Whether that key is meant.
pub(super) fn is_selected(selection: &Selection, key: &str) -> bool {
    match selection {
        Selection::Key { key: one } => *one.0 == *key,
        Selection::Prefix { prefix } => key.starts_with(&*prefix.0),
    }
}

/// How well a request is kept: as is asked for, and as well as what it replaces.
fn kept_as(entries: &Entries, asked: &Asked) -> Durability {
    let changed = asked.asks.iter().filter(|ask| !matches!(ask.act, Act::Check));
    let before = changed.filter_map(|ask| Some(entries.get(&ask.key)?.durability));
    before.fold(asked.durability, Durability::max)
}
