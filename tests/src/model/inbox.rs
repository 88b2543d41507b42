//! What one client still has to receive, in order.
//!
//! The daemon has one queue for each connection, so all that is due to a client is due in one order. Only events may be
//! missing from it, and each that is missing has to be reported: in a gap record before the next event of its
//! topic, or in a merged record of its subscription.

use std::collections::{BTreeMap, VecDeque};

use ipc_core::id::Handle;
use ipc_core::wire::Kind;
use ipc_core::wire::message::{Gap, NameChange, NameChanged};

use super::expect::{Expected, Lookup};
use crate::world::Seen;

/// Something due, and how strictly.
#[derive(Clone, Debug)]
pub(super) struct Due {
    /// What.
    pub what: Expected,
    /// What happened that made it due: a number that grows.
    pub batch: u64,
    /// Whether it may come in any order with others of its kind and batch.
    pub is_loose: bool,
    /// Whether it may be missing, because there may have been no room for it.
    pub is_optional: bool,
    /// Whether it may be that the watch was lost instead.
    pub may_be_lost: bool,
}

/// An event that cannot come any more and has not been reported.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owed {
    subscription: u64,
    correlation: u64,
    topic: String,
    life: u64,
    sequence: u64,
}

/// What one client still has to receive.
#[derive(Clone, Debug, Default)]
pub(super) struct Inbox {
    due: VecDeque<Due>,
    owed: VecDeque<Owed>,
    /// Missing events that merged records have reported, by subscription.
    reported: BTreeMap<u64, u64>,
    /// Which life of a topic a handle stands for, once an event has shown it.
    lives: BTreeMap<(u32, u16), u64>,
    is_closed: bool,
}

/// What the receipt of a frame means for the rest of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Receipt {
    /// A watch was lost.
    WatchLost,
    /// It was this.
    Was(Expected),
    /// Events of this subscription were dropped.
    Gap(u64),
}

impl Inbox {
    /// Adds something that is due behind all else.
    pub(super) fn push(&mut self, due: Due) {
        self.due.push_back(due);
    }

    /// All that is due.
    pub(super) fn due(&self) -> impl Iterator<Item = &Due> {
        self.due.iter()
    }

    /// All that is due, to be changed.
    pub(super) fn due_mut(&mut self) -> impl Iterator<Item = &mut Due> {
        self.due.iter_mut()
    }

    /// Takes a frame that the client has received and that announces nothing.
    ///
    /// # Errors
    /// A sentence that says which rule it breaks.
    pub(super) fn receive(&mut self, seen: &Seen, lookup: &dyn Lookup) -> Result<Receipt, String> {
        match seen.kind() {
            Kind::GAP => self.gap(seen, lookup).map(Receipt::Gap),
            _ => self.take(seen, lookup),
        }
    }

    /// Whether the client was told that this is the end.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Finds what the frame is, and passes over what can no longer come.
    fn take(&mut self, seen: &Seen, lookup: &dyn Lookup) -> Result<Receipt, String> {
        let position = self.find(seen, lookup)?;
        if is_watch_lost(seen) {
            return self.lose_watch(position, seen);
        }
        self.pass_over(position)?;
        let position = self.due.iter().position(|due| due.what.is(seen, lookup).is_ok());
        let Some(due) = position.and_then(|at| self.due.remove(at)) else {
            return Err(format!("{} was not due", seen.describe()));
        };
        match &due.what {
            Expected::Close { .. } => self.is_closed = true,
            Expected::Event { .. } => self.judge_event(&due.what, seen)?,
            Expected::NameChanged { watch, .. } if due.is_optional && !self.can_be_lost(*watch) => {
                return Err("a watch was lost, but its client was not told".to_owned());
            }
            _ => {}
        }
        Ok(Receipt::Was(due.what))
    }

    /// Whether the client can still be told that it has lost that watch.
    fn can_be_lost(&self, watch: u64) -> bool {
        self.due.iter().any(|due| due.is_optional && is_change_of(&due.what, watch))
    }

    fn find(&self, seen: &Seen, lookup: &dyn Lookup) -> Result<usize, String> {
        let mut reasons = Vec::new();
        let mut barrier: Option<u64> = None;
        for (position, due) in self.due.iter().enumerate() {
            if barrier.is_some_and(|batch| batch != due.batch || !due.is_loose) {
                break;
            }
            match Self::is(due, seen, lookup) {
                Ok(()) => return Ok(position),
                Err(reason) => reasons.push(reason),
            }
            let may_pass = due.is_optional || matches!(due.what, Expected::Event { .. });
            if !may_pass && barrier.is_none() {
                if !due.is_loose {
                    break;
                }
                barrier = Some(due.batch);
            }
        }
        let next = self.due.iter().find(|due| !matches!(due.what, Expected::Event { .. }));
        let reason = reasons.last().map_or("nothing was due", String::as_str);
        let next = next.map(|due| &due.what);
        Err(format!("received {}: {reason}; due was {next:?}", seen.describe()))
    }

    fn is(due: &Due, seen: &Seen, lookup: &dyn Lookup) -> Result<(), String> {
        if let Expected::NameChanged { correlation, .. } = &due.what
            && is_watch_lost(seen)
        {
            let fits = (due.is_optional || due.may_be_lost) && seen.header.correlation == *correlation;
            return if fits { Ok(()) } else { Err("no watch can have been lost".to_owned()) };
        }
        due.what.is(seen, lookup)
    }

    /// What stands before `position` cannot come any more, but for what is loose with it.
    fn pass_over(&mut self, position: usize) -> Result<(), String> {
        let (batch, is_loose) = match self.due.get(position) {
            Some(due) => (due.batch, due.is_loose),
            None => return Ok(()),
        };
        let before: Vec<Due> = self.due.drain(..position).collect();
        let mut kept = Vec::new();
        for due in before {
            if is_loose && due.is_loose && due.batch == batch {
                kept.push(due);
            } else if let Expected::Event { subscription, correlation, topic, life, sequence, .. } = due.what
            {
                self.owed.push_back(Owed { subscription, correlation, topic, life, sequence });
            } else if let Expected::NameChanged { .. } = due.what {
                return Err(format!("{:?} is missing", due.what));
            }
        }
        for due in kept.into_iter().rev() {
            self.due.push_front(due);
        }
        Ok(())
    }

    fn lose_watch(&mut self, position: usize, seen: &Seen) -> Result<Receipt, String> {
        let Some(Expected::NameChanged { watch, .. }) = self.due.get(position).map(|due| due.what.clone())
        else {
            return Err(format!("{} was not due", seen.describe()));
        };
        let is_before = |due: &Due| is_change_of(&due.what, watch);
        if self.due.iter().take(position).any(is_before) {
            return Err("a change of a name is missing".to_owned());
        }
        self.pass_over(position)?;
        self.due.retain(|due| !is_change_of(&due.what, watch));
        Ok(Receipt::WatchLost)
    }

    /// Before an event comes, all missing ones of its topic have been reported.
    fn judge_event(&mut self, event: &Expected, seen: &Seen) -> Result<(), String> {
        let Expected::Event { subscription, topic, life, sequence, .. } = event else { return Ok(()) };
        let handle = (seen.header.handle.index, seen.header.handle.generation);
        if *self.lives.entry(handle).or_insert(*life) != *life {
            return Err(format!("handle {handle:?} stands for two lives of the topic {topic}"));
        }
        let is_missing = |owed: &Owed| {
            (owed.subscription, owed.life) == (*subscription, *life)
                && owed.topic == *topic
                && owed.sequence < *sequence
        };
        let missing = self.owed.iter().filter(|owed| is_missing(owed)).count() as u64;
        let reported = self.reported.entry(*subscription).or_default();
        if missing > *reported {
            return Err(format!(
                "{missing} events of {topic} before {sequence} are missing, {reported} reported"
            ));
        }
        *reported -= missing;
        self.owed.retain(|owed| !is_missing(owed));
        Ok(())
    }

    /// Takes a gap record: what it reports must be missing, and exactly that.
    fn gap(&mut self, seen: &Seen, lookup: &dyn Lookup) -> Result<u64, String> {
        let gap: Gap = seen.decode().ok_or("the gap is malformed")?;
        let correlation = seen.header.correlation;
        let subscription = self.subscription_of(correlation)?;
        if gap.count == 0 {
            return Err("a gap of nothing".to_owned());
        }
        if seen.header.handle == Handle::MERGED {
            if (gap.from, gap.to) != (0, 0) {
                return Err("a merged gap names numbers".to_owned());
            }
            *self.reported.entry(subscription).or_default() += gap.count;
            let missing = self.missing(subscription);
            let reported = self.reported.get(&subscription).copied().unwrap_or(0);
            return if reported <= missing {
                Ok(subscription)
            } else {
                Err(format!("{reported} reported, {missing} due"))
            };
        }
        let handle = seen.header.handle;
        let name = lookup.topic(handle.index, handle.generation)?.to_owned();
        self.report(subscription, &name, &gap).map(|()| subscription)
    }

    /// The subscription whose events come next under that correlation.
    fn subscription_of(&self, correlation: u64) -> Result<u64, String> {
        let owed =
            self.owed.iter().find(|owed| owed.correlation == correlation).map(|owed| owed.subscription);
        let due = self.due.iter().find_map(|due| match &due.what {
            Expected::Event { subscription, correlation: other, .. } if *other == correlation => {
                Some(*subscription)
            }
            _ => None,
        });
        owed.or(due).ok_or_else(|| format!("a gap for subscription {correlation}, which misses nothing"))
    }

    /// Events of a subscription that have not come and have not been reported one by one.
    fn missing(&self, subscription: u64) -> u64 {
        let due = self.due.iter().filter(|due| is_event_of(&due.what, subscription)).count();
        let owed = self.owed.iter().filter(|owed| owed.subscription == subscription).count();
        (due + owed) as u64
    }

    fn report(&mut self, subscription: u64, name: &str, gap: &Gap) -> Result<(), String> {
        let range = gap.from..=gap.to;
        let mut found = Vec::new();
        self.owed.retain(|owed| {
            let hit =
                owed.subscription == subscription && owed.topic == name && range.contains(&owed.sequence);
            if hit {
                found.push((owed.life, owed.sequence));
            }
            !hit
        });
        let first_life = found.first().map(|(life, _)| *life);
        let mut life = first_life;
        self.due.retain(|due| {
            let Expected::Event { subscription: of, topic, life: own, sequence, .. } = &due.what else {
                return true;
            };
            if *of != subscription
                || topic != name
                || !range.contains(sequence)
                || *own != *life.get_or_insert(*own)
            {
                return true;
            }
            found.push((*own, *sequence));
            false
        });
        let sequences: Vec<u64> = found.iter().map(|(_, sequence)| *sequence).collect();
        let is_exact = sequences.len() as u64 == gap.count
            && sequences.iter().min() == Some(&gap.from)
            && sequences.iter().max() == Some(&gap.to);
        if is_exact { Ok(()) } else { Err(format!("{gap:?} of {name}, but missing are {sequences:?}")) }
    }

    /// Forgets what an ended subscription still had to come.
    pub(super) fn drop_subscription(&mut self, ended: u64) {
        self.due.retain(|due| !is_event_of(&due.what, ended));
        self.owed.retain(|owed| owed.subscription != ended);
        self.reported.remove(&ended);
    }

    /// Nothing more is on its way: nothing may be due.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub(super) fn is_complete(&mut self) -> Result<(), String> {
        let events = |due: &Due| matches!(due.what, Expected::Event { .. });
        if let Some(due) = self.due.iter().find(|due| !due.is_optional && !events(due)) {
            return Err(format!("nothing is on its way, but this never came: {:?}", due.what));
        }
        self.due.retain(|due| events(due));
        for due in self.due.drain(..) {
            if let Expected::Event { subscription, correlation, topic, life, sequence, .. } = due.what {
                self.owed.push_back(Owed { subscription, correlation, topic, life, sequence });
            }
        }
        let mut missing: BTreeMap<u64, u64> = BTreeMap::new();
        for owed in self.owed.drain(..) {
            *missing.entry(owed.subscription).or_default() += 1;
        }
        let reported = core::mem::take(&mut self.reported);
        let reported: BTreeMap<u64, u64> = reported.into_iter().filter(|(_, count)| *count > 0).collect();
        if missing == reported {
            Ok(())
        } else {
            Err(format!("events missing by subscription: {missing:?}, reported: {reported:?}"))
        }
    }
}

fn is_watch_lost(seen: &Seen) -> bool {
    seen.kind() == Kind::NAME_CHANGED
        && seen.decode::<NameChanged>().is_some_and(|body| body.change == NameChange::WatchLost)
}

fn is_change_of(what: &Expected, wanted: u64) -> bool {
    matches!(what, Expected::NameChanged { watch, .. } if *watch == wanted)
}

fn is_event_of(what: &Expected, wanted: u64) -> bool {
    matches!(what, Expected::Event { subscription, .. } if *subscription == wanted)
}
