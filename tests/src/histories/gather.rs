//! From what all processes have written down to the histories of single objects.

use core::time::Duration;
use std::collections::BTreeMap;

use super::Event;
use super::entries::EntryOp;
use super::keys::{Condition, KeyOp};
use super::locks::LockOp;
use super::record::Line;

/// The end of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// It ran until then.
    pub begun: u64,
    /// From then on it certainly did not run any more.
    pub gone: u64,
    /// From then on the next one served.
    pub back: u64,
}

/// What survives the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Keys do.
    pub keys: bool,
    /// Entries of work queues do.
    pub entries: bool,
    /// What is held of locks does; it is held for [`LOCK_TTL`] then, and may stay so for somebody who is not there.
    pub locks: bool,
}

/// The time to live of a lock that survives the daemon.
pub const LOCK_TTL: Duration = Duration::from_millis(200);

/// So late a daemon may be in ending it.
const LATE_NS: u64 = 200_000_000;
const TTL_NS: u64 = LOCK_TTL.as_nanos() as u64;

/// What one process wrote down, and when it was killed if it was.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// In order.
    pub lines: Vec<Line>,
    /// Before that it was not.
    pub killed: Option<u64>,
}

/// The histories, by object.
#[derive(Debug, Default)]
pub struct Histories {
    /// Of keys.
    pub keys: BTreeMap<String, Vec<Event<KeyOp>>>,
    /// Of locks.
    pub locks: BTreeMap<String, Vec<Event<LockOp>>>,
    /// Of entries, by queue and id.
    pub entries: BTreeMap<(String, String), Vec<Event<EntryOp>>>,
    /// How many operations have no outcome that anybody knows.
    pub unknown: usize,
    /// What whole queues have said, or may have done.
    queues: BTreeMap<String, Vec<Event<EntryOp>>>,
}

/// What a session has.
#[derive(Debug)]
struct Holdings {
    durable: Durable,
    crashes: Vec<Crash>,
    /// When everything was over.
    end: u64,
    /// By token, with when it was asked for.
    locks: BTreeMap<u64, (String, u64)>,
    entries: BTreeMap<u64, (String, String)>,
}

impl Holdings {
    fn new(crashes: &[Crash], durable: Durable, end: u64) -> Self {
        let (locks, entries) = (BTreeMap::new(), BTreeMap::new());
        Self { durable, crashes: crashes.to_vec(), end, locks, entries }
    }
}

/// When a lock is free for sure that is kept for somebody who does not come: in the next life of a daemon that lasts for longer than
/// its time to live.
fn free_again(crashes: &[Crash], from: u64, end: u64) -> u64 {
    let nexts = crashes.iter().skip(1).map(|crash| (crash.begun, crash.gone)).chain([(u64::MAX, end)]);
    let mut lives = crashes.iter().zip(nexts).filter(|(crash, _)| crash.gone >= from);
    let is_long = |back: u64, begun: u64| begun.saturating_sub(back) > TTL_NS + LATE_NS;
    lives.find(|(crash, (begun, _))| is_long(crash.back, *begun)).map_or(end, |(_, (_, gone))| gone)
}

/// One operation of a process.
#[derive(Clone, Copy, Debug)]
struct Span {
    asked: u64,
    ended: u64,
}

impl Histories {
    /// Puts together what happened until `end`, when nobody did anything any more and every queue was empty.
    ///
    /// # Panics
    /// At a line that says nothing.
    pub fn gather(accounts: &[Account], crashes: &[Crash], durable: Durable, end: u64) -> Self {
        let mut histories = Self::default();
        for account in accounts {
            histories.add(account, crashes, durable, end);
        }
        histories.spread_queues(end);
        histories.end_lives(crashes, durable);
        histories
    }

    fn add(&mut self, account: &Account, crashes: &[Crash], durable: Durable, end: u64) {
        // What somebody asked of a daemon happens in that daemon's life or never.
        let latest =
            |asked: u64| crashes.iter().map(|crash| crash.gone).find(|gone| *gone >= asked).unwrap_or(end);
        let is_kept = |operation: &[String]| {
            durable.locks && operation.first().is_some_and(|word| ["lock", "unlock"].contains(&word.as_str()))
        };
        let until = |operation: &[String], asked: u64| {
            if is_kept(operation) { free_again(crashes, asked, end) } else { latest(asked) }
        };
        let mut holdings = Holdings::new(crashes, durable, end);
        let mut open: BTreeMap<u64, (u64, Vec<String>)> = BTreeMap::new();
        for line in &account.lines {
            match line {
                Line::Asked { number, time, words } => {
                    open.insert(*number, (*time, words.clone()));
                }
                Line::Ended { number, time, words } => {
                    let (asked, operation) = open.remove(number).expect("it was asked for");
                    let is_unknown = words.first().is_some_and(|word| word == "unknown");
                    let ended = if is_unknown { until(&operation, asked) } else { *time };
                    self.one(&operation, words, Span { asked, ended }, &mut holdings);
                }
                Line::Parted { time } => self.part(&mut holdings, *time, latest(*time)),
            }
        }
        for (asked, operation) in open.into_values() {
            let span = Span { asked, ended: until(&operation, asked) };
            self.one(&operation, &["unknown".to_owned()], span, &mut holdings);
        }
        let killed = account.killed.unwrap_or(end);
        self.part(&mut holdings, killed, latest(killed));
    }

    /// A session is over, and what it had goes to others between then and then.
    fn part(&mut self, holdings: &mut Holdings, from: u64, until: u64) {
        for (token, (lock, asked)) in core::mem::take(&mut holdings.locks) {
            let span = if holdings.durable.locks {
                Span {
                    asked: from.min(asked + TTL_NS),
                    ended: free_again(&holdings.crashes, from, holdings.end),
                }
            } else {
                Span { asked: from, ended: until }
            };
            self.lock(&lock, LockOp::Ended(token), span);
        }
        for (token, entry) in core::mem::take(&mut holdings.entries) {
            self.entry(&entry, EntryOp::MayBeGivenBack(token), Span { asked: from, ended: until });
        }
    }

    fn one(&mut self, operation: &[String], outcome: &[String], span: Span, holdings: &mut Holdings) {
        let words: Vec<&str> = operation.iter().map(String::as_str).collect();
        let ends: Vec<&str> = outcome.iter().map(String::as_str).collect();
        if ends == ["unsent"] {
            return;
        }
        self.unknown += usize::from(ends == ["unknown"]);
        match &words[..] {
            ["put" | "delete" | "get", key, ..] => self.of_key(key, &words, &ends, span),
            ["lock" | "unlock", lock, ..] => self.of_lock(lock, &words, &ends, span, holdings),
            ["enqueue" | "take" | "ack" | "nack", queue, ..] => {
                self.of_queue(queue, &words, &ends, span, holdings);
            }
            other => panic!("no operation: {other:?}"),
        }
    }

    fn of_key(&mut self, key: &str, words: &[&str], ends: &[&str], span: Span) {
        let changed = match ends {
            ["ok", revision] => Ok(number(revision)),
            ["no"] => Err(true),
            _ => Err(false),
        };
        let op = match (words, ends) {
            (["put", _, value, condition @ ..], _) => {
                let condition = match condition {
                    ["absent"] => Condition::Absent,
                    ["revision", revision] => Condition::Revision(number(revision)),
                    _ => Condition::Any,
                };
                KeyOp::Put { value: number(value), condition, outcome: changed }
            }
            (["delete", _], _) => KeyOp::Delete { outcome: changed },
            (["get", _], ["some", revision, value]) => KeyOp::Get(Some((number(revision), number(value)))),
            (["get", _], ["none"]) => KeyOp::Get(None),
            (["get", _], ["unknown"]) => return,
            other => panic!("no operation on a key: {other:?}"),
        };
        let event = Event { op, invoked: span.asked, returned: span.ended };
        self.keys.entry(key.to_owned()).or_default().push(event);
    }

    fn of_lock(&mut self, lock: &str, words: &[&str], ends: &[&str], span: Span, holdings: &mut Holdings) {
        let op = match (words, ends) {
            (["lock", _], ["ok", token]) => {
                holdings.locks.insert(number(token), (lock.to_owned(), span.asked));
                LockOp::Granted(number(token))
            }
            (["lock", _], ["busy"]) => LockOp::Busy,
            (["lock", _], ["unknown"]) => LockOp::Asked,
            (["unlock", _, token], ends) => {
                let held = holdings.locks.remove(&number(token));
                match ends {
                    ["ok"] => LockOp::Released(number(token)),
                    // Its time had passed; the daemon may have begun it anew, and ends it later.
                    ["lost"] if holdings.durable.locks => {
                        let asked = held.map_or(span.asked, |(_, asked)| asked + TTL_NS);
                        let span = Span {
                            asked: asked.min(span.asked),
                            ended: free_again(&holdings.crashes, span.asked, holdings.end),
                        };
                        return self.lock(lock, LockOp::Ended(number(token)), span);
                    }
                    ["lost"] => LockOp::Lost(number(token)),
                    ["unknown"] => LockOp::Ended(number(token)),
                    other => panic!("no outcome: {other:?}"),
                }
            }
            other => panic!("no operation on a lock: {other:?}"),
        };
        self.lock(lock, op, span);
    }

    fn of_queue(&mut self, queue: &str, words: &[&str], ends: &[&str], span: Span, holdings: &mut Holdings) {
        match (words, ends) {
            (["enqueue", _, id], ends) => {
                let op = match ends {
                    ["ok"] => EntryOp::Put,
                    ["duplicate"] => EntryOp::Duplicate,
                    _ => EntryOp::Asked,
                };
                self.entry(&(queue.to_owned(), (*id).to_owned()), op, span);
            }
            (["take", _], ["ok", id, token]) => {
                let entry = (queue.to_owned(), (*id).to_owned());
                holdings.entries.insert(number(token), entry.clone());
                self.entry(&entry, EntryOp::Delivered(number(token)), span);
            }
            (["take", _], ends) => {
                let op = if ends == ["nothing"] { EntryOp::Nothing } else { EntryOp::MayBeDelivered };
                let event = Event { op, invoked: span.asked, returned: span.ended };
                self.queues.entry(queue.to_owned()).or_default().push(event);
            }
            ([what, _, id, token], ends) => {
                let (entry, token) = ((queue.to_owned(), (*id).to_owned()), number(token));
                if ends != ["unknown"] {
                    holdings.entries.remove(&token);
                }
                let op = match (*what, ends) {
                    ("ack", ["ok"]) => EntryOp::Acked(token),
                    ("nack", ["ok"]) => EntryOp::GivenBack(token),
                    (_, ["lost"]) => EntryOp::Lost(token),
                    ("ack", _) => EntryOp::AckAsked(token),
                    (_, _) => EntryOp::MayBeGivenBack(token),
                };
                self.entry(&entry, op, span);
            }
            other => panic!("no operation on a queue: {other:?}"),
        }
    }

    fn lock(&mut self, lock: &str, op: LockOp, span: Span) {
        let event = Event { op, invoked: span.asked, returned: span.ended };
        self.locks.entry(lock.to_owned()).or_default().push(event);
    }

    fn entry(&mut self, entry: &(String, String), op: EntryOp, span: Span) {
        let event = Event { op, invoked: span.asked, returned: span.ended };
        self.entries.entry(entry.clone()).or_default().push(event);
    }

    /// What a whole queue has said concerns each of its entries, from its first put until it is gone for sure.
    fn spread_queues(&mut self, end: u64) {
        let long = |event: &Event<EntryOp>| event.returned - event.invoked;
        for events in self.queues.values_mut() {
            events.sort_by_key(|event| event.invoked);
        }
        let longest: BTreeMap<&String, u64> = self
            .queues
            .iter()
            .map(|(queue, events)| (queue, events.iter().map(long).max().unwrap_or(0)))
            .collect();
        for ((queue, _), events) in &mut self.entries {
            let first = events.iter().map(|event| event.invoked).min().unwrap_or(end);
            let acked = events.iter().find(|event| matches!(event.op, EntryOp::Acked(_)));
            let acked = acked.map(|event| event.returned);
            let last = acked.unwrap_or(end);
            let of_queue = self.queues.get(queue).map_or(&[][..], Vec::as_slice);
            let earliest = first.saturating_sub(longest.get(queue).copied().unwrap_or(0));
            let begin = of_queue.partition_point(|event| event.invoked < earliest);
            let of_queue = of_queue[begin..].iter().take_while(|event| event.invoked <= last);
            events.extend(of_queue.filter(|event| event.returned >= first).cloned());
            if acked.is_none() {
                events.push(Event { op: EntryOp::Over, invoked: end, returned: end });
            }
        }
    }

    /// What the ends of daemons have done to everything that was there.
    fn end_lives(&mut self, crashes: &[Crash], durable: Durable) {
        for crash in crashes {
            let (invoked, returned) = (crash.begun, crash.gone);
            for events in self.locks.values_mut() {
                // What was given back a moment before may still be kept for a session that is not there.
                let op = if durable.locks { LockOp::Asked } else { LockOp::Forgotten };
                events.push(Event { op, invoked, returned });
            }
            if !durable.keys {
                for events in self.keys.values_mut() {
                    events.push(Event { op: KeyOp::Forgotten, invoked, returned });
                }
            }
            for events in self.entries.values_mut() {
                let first = events.iter().map(|event| event.invoked).min().unwrap_or(0);
                let last = events.iter().map(|event| event.returned).max().unwrap_or(0);
                if returned >= first && invoked <= last {
                    let op = EntryOp::Restarted { is_durable: durable.entries };
                    events.push(Event { op, invoked, returned });
                }
            }
        }
    }
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|error| panic!("{word}: {error}"))
}
