//! What clients have asked to be told of: changes of keys, and who leads. Each stream is in order and complete by itself; only
//! one whose client has no room for more ends early, and its client is told that.

use std::collections::VecDeque;

use ipc_core::error::ErrorCode;
use ipc_core::wire::coordination::{
    ChangeKind, Changed, Leader, Observe, OfToken, Operation, Selection, Told, Unobserve, UnwatchKeys,
    WatchKeys,
};
use ipc_core::wire::message::RevokedWhat;
use ipc_core::wire::{HEADER_BYTES, Kind};

use super::came::{Came, is_led_by};
use super::coordination::Gate;
use super::expect::{Lookup, Refusal, is_revoked, same};
use super::keys::{Change, is_selected};
use super::{Model, Queues};
use crate::world::Seen;

/// Room that the broker keeps for the answer to a call, and for word of what a subscription misses, at most.
const RESERVED_BYTES: u64 = 512;

/// Who leads, and what it proclaims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lead {
    pub connection: usize,
    pub hold: u64,
    pub value: Vec<u8>,
}

/// What a stream is about.
#[derive(Clone, Debug)]
enum About {
    Keys(Selection),
    Election(Gate),
}

/// What is due to come over it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum News {
    /// A change; one of those that come before the outcome, or a later one.
    Change {
        change: Change,
        is_first: bool,
    },
    Leader(Option<Lead>),
    /// That its client may not hear of it any more.
    End,
}

/// A watch or an observation.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    connection: usize,
    correlation: u64,
    about: About,
    due: VecDeque<News>,
    /// Its client has been told that it is there.
    is_begun: bool,
    /// News are added to it.
    is_open: bool,
    /// There may have been no room for something, so that the broker has ended it.
    may_be_lost: bool,
    /// In which batch something was added last, and the longest of that in bytes.
    grown: (u64, u64),
}

impl Model {
    /// A request about streams. `None` when it is a violation.
    pub(super) fn stream(&mut self, from: usize, seen: &Seen) -> Option<Result<(), Refusal>> {
        Some(match Operation(seen.header.handle.index) {
            Operation::WATCH => self.watch_keys(from, seen, seen.decode()?),
            Operation::UNWATCH => self.end_stream(from, seen, seen.decode::<UnwatchKeys>()?.watch),
            Operation::OBSERVE => self.observe(from, seen, &seen.decode::<Observe>()?.name.0),
            Operation::UNOBSERVE => self.end_stream(from, seen, seen.decode::<Unobserve>()?.observation),
            Operation::PROCLAIM => self.proclaim(from, seen, seen.decode()?),
            _ => Err(Refusal::of(ErrorCode::Unsupported)),
        })
    }

    fn watch_keys(&mut self, from: usize, seen: &Seen, body: WatchKeys) -> Result<(), Refusal> {
        let correlation = seen.header.correlation;
        self.may_select(from, correlation, &body.selection)?;
        let mut may_be_refused = false;
        let first = match body.from {
            None => {
                let present = self.keys.entries.clone().into_iter();
                let mut present: Vec<Change> = present
                    .map(|(key, entry)| Change {
                        number: entry.number,
                        key,
                        durability: entry.durability,
                        entry: Some(entry),
                    })
                    .collect();
                present.sort_by_key(|change| change.number);
                present
            }
            Some(revision) => {
                let since = self.changes_since(revision);
                let (later, is_remembered) = since.ok_or(Refusal::of(ErrorCode::Compacted))?;
                may_be_refused = !is_remembered && self.more_streams <= 0;
                later
            }
        };
        self.open_stream(from, correlation, About::Keys(body.selection.clone()), may_be_refused);
        for change in first.into_iter().filter(|change| is_selected(&body.selection, &change.key)) {
            self.add_news(|stream| stream.is(from, correlation), &News::Change { change, is_first: true });
        }
        let last = self.keys.changes.last().map_or(0, |change| change.number);
        self.came(from, correlation, Operation::WATCH.0, Came::Watching { last, may_be_refused });
        Ok(())
    }

    /// The changes from a revision on, unless something was lost that whoever asks has been told of; and whether the broker has to
    /// remember them.
    fn changes_since(&self, revision: u64) -> Option<(Vec<Change>, bool)> {
        let known = match revision {
            1 => 0,
            _ => *self.keys.revisions.iter().find(|(_, known)| **known + 1 == revision)?.0,
        };
        let is_lost = known > 0 && !self.keys.changes.iter().any(|change| change.number == known);
        if is_lost {
            return None;
        }
        let later: Vec<Change> =
            self.keys.changes.iter().filter(|change| change.number > known).cloned().collect();
        let is_remembered = later.len() <= self.limits.key_history_max as usize && known >= self.keys.loss;
        Some((later, is_remembered))
    }

    fn observe(&mut self, from: usize, seen: &Seen, name: &str) -> Result<(), Refusal> {
        let correlation = seen.header.correlation;
        self.may_ask(from, correlation, Some(name))?;
        let gate: Gate = (Operation::CAMPAIGN.0, name.to_owned());
        self.make_resource(from, &gate)?;
        self.came(from, correlation, Operation::OBSERVE.0, Came::Observing(self.lead(&gate)));
        self.open_stream(from, correlation, About::Election(gate), false);
        Ok(())
    }

    fn proclaim(&mut self, from: usize, seen: &Seen, body: OfToken) -> Result<(), Refusal> {
        if self.is_draining {
            return Err(Refusal::of(ErrorCode::ShuttingDown));
        }
        let at = self.hold_of(from, body.token).ok_or(Refusal::of(ErrorCode::LockLost))?;
        let hold = &self.coordination.holds[at];
        let number = hold.number;
        if hold.gate.as_ref().is_none_or(|gate| gate.0 != Operation::CAMPAIGN.0) {
            return Err(Refusal::of(ErrorCode::InvalidArgument));
        }
        if self.is_promised(number) {
            return Err(Refusal::of(ErrorCode::Busy));
        }
        self.promise(number, from, seen.header.correlation, Operation::PROCLAIM.0, seen.payload.clone());
        Ok(())
    }

    /// Who leads.
    fn lead(&self, gate: &Gate) -> Option<Lead> {
        let hold = self.first_told(gate)?;
        Some(Lead { connection: hold.connection?, hold: hold.number, value: hold.value.clone() })
    }

    fn open_stream(&mut self, connection: usize, correlation: u64, about: About, may_be_lost: bool) {
        self.streams.push(Stream {
            connection,
            correlation,
            about,
            due: VecDeque::new(),
            is_begun: false,
            is_open: true,
            may_be_lost,
            grown: (0, 0),
        });
    }

    /// Nobody wants it any more. One that the broker has ended already is not there.
    fn end_stream(&mut self, from: usize, seen: &Seen, stream: u64) -> Result<(), Refusal> {
        let known = self.streams.iter_mut().find(|known| known.is(from, stream) && known.is_open);
        let known = known.ok_or(Refusal::of(ErrorCode::InvalidArgument))?;
        if known.may_be_lost && self.more_streams == 0 {
            return Err(Refusal::of(ErrorCode::InvalidArgument));
        }
        known.is_open = false;
        let operation = seen.header.handle.index;
        self.came(from, seen.header.correlation, operation, Came::StreamEnded { stream });
        Ok(())
    }

    /// Everybody who watches that key is told.
    pub(super) fn tell_of_change(&mut self, change: &Change) {
        let is_about = |stream: &Stream| match &stream.about {
            About::Keys(selection) => is_selected(selection, &change.key),
            About::Election(_) => false,
        };
        self.add_news(is_about, &News::Change { change: change.clone(), is_first: false });
    }

    /// Everybody who observes that election is told; other gates have no observers.
    pub(super) fn tell_who_leads(&mut self, gate: &Gate) {
        let news = News::Leader(self.lead(gate));
        self.add_news(|stream| matches!(&stream.about, About::Election(observed) if observed == gate), &news);
    }

    fn add_news(&mut self, is_told: impl Fn(&Stream) -> bool, news: &News) {
        let bytes = news.bytes();
        for stream in self.streams.iter_mut().filter(|stream| stream.is_open && is_told(stream)) {
            stream.due.push_back(news.clone());
            let longest = if stream.grown.0 == self.batch { stream.grown.1.max(bytes) } else { bytes };
            stream.grown = (self.batch, longest);
        }
    }

    /// Elections that somebody observes.
    pub(super) fn observed(&self) -> impl Iterator<Item = &Gate> {
        self.streams.iter().filter(|stream| stream.is_open).filter_map(|stream| match &stream.about {
            About::Election(gate) => Some(gate),
            About::Keys(_) => None,
        })
    }

    /// Takes from a connection what it may not hear of any more.
    pub(super) fn lose_streams(&mut self, number: usize) {
        for at in 0..self.streams.len() {
            let Stream { connection, is_open, about, .. } = &self.streams[at];
            let name = match about {
                About::Keys(Selection::Key { key }) => Some(&*key.0),
                About::Keys(Selection::Prefix { .. }) => None,
                About::Election((_, name)) => Some(name.as_str()),
            };
            if *connection == number && *is_open && !self.may_coordinate(number, name) {
                self.streams[at].due.push_back(News::End);
                self.streams[at].is_open = false;
            }
        }
    }

    /// A connection ends: nothing is added to what it still has to receive.
    pub(super) fn close_streams(&mut self, connection: usize) {
        self.streams_of_mut(connection).for_each(|stream| stream.is_open = false);
    }

    /// Both ends are done with a connection.
    pub(super) fn forget_streams(&mut self, connection: usize) {
        self.streams.retain(|stream| stream.connection != connection);
    }

    fn streams_of_mut(&mut self, connection: usize) -> impl Iterator<Item = &mut Stream> {
        self.streams.iter_mut().filter(move |stream| stream.connection == connection)
    }

    fn open_streams_of(&self, connection: usize) -> impl Iterator<Item = &Stream> {
        self.streams.iter().filter(move |stream| stream.connection == connection && stream.is_open)
    }

    /// Whether a connection has any, as far as it knows.
    pub(super) fn has_streams(&self, connection: usize) -> bool {
        self.open_streams_of(connection).next().is_some()
    }

    /// Whether all that a connection has may be lost.
    pub(super) fn may_have_lost_all_streams(&self, connection: usize) -> bool {
        self.open_streams_of(connection).all(|stream| stream.may_be_lost)
    }

    /// How many the broker has for a connection.
    pub(super) fn streams_of_row(&self, connection: usize, queues: &Queues) -> isize {
        let row = self.connections.get(&connection).and_then(|one| queues.row(one.peer));
        row.map_or(0, |row| row.streams as isize)
    }

    /// Says which of those that something was added to may have had no room for it. Room only shrinks in a batch.
    pub(super) fn doubt_streams(&mut self, after: &Queues) {
        for stream in self.streams.iter_mut().filter(|stream| stream.grown.0 == self.batch) {
            let Some(connection) = self.connections.get(&stream.connection) else { continue };
            let room = after.row(connection.peer).map(|row| {
                let reserved = (row.subscriptions + row.pending_calls) as u64 * RESERVED_BYTES;
                let own = u64::from(self.limits.queue_per_connection_max_bytes);
                let all = u64::from(self.limits.queue_per_uid_max_bytes);
                let used = after.queued_of_payer(&super::payer(&connection.identity));
                own.saturating_sub(row.queued + reserved).min(all.saturating_sub(used))
            });
            stream.may_be_lost |= room.is_none_or(|room| room < stream.grown.1);
        }
        self.notice_lost_streams(after);
    }

    /// Where as many are gone as may be lost, all of these are.
    fn notice_lost_streams(&mut self, after: &Queues) {
        let numbers: Vec<usize> = self.connections.keys().copied().collect();
        for number in numbers {
            let Some(row) = self.connections.get(&number).and_then(|one| after.row(one.peer)) else {
                continue;
            };
            let open = self.open_streams_of(number).count();
            let doubtful = self.open_streams_of(number).filter(|stream| stream.may_be_lost).count();
            if open - doubtful == row.streams {
                let lost = self.streams_of_mut(number).filter(|stream| stream.may_be_lost);
                lost.for_each(|stream| stream.is_open = false);
            }
        }
    }

    /// Whether an election has nobody who observes it, but for those who may have lost that.
    pub(super) fn is_hardly_observed(&self, name: &str) -> bool {
        let is_of = |stream: &&Stream| matches!(&stream.about, About::Election(gate) if gate.1 == name);
        let observers: Vec<&Stream> = self.streams.iter().filter(|one| one.is_open).filter(is_of).collect();
        !observers.is_empty() && observers.iter().all(|stream| stream.may_be_lost)
    }

    /// The broker has as many streams for a connection as there are, but for those that may be lost.
    pub(super) fn audit_streams(&self, number: usize, has: usize) -> Result<(), String> {
        let open = self.open_streams_of(number).count();
        let sure = self.open_streams_of(number).filter(|stream| !stream.may_be_lost).count();
        if (sure..=open).contains(&has) {
            return Ok(());
        }
        Err(format!("connection {number} has {has} watches and observations, not {sure} to {open}"))
    }

    /// A client has received news. Says what the model learns of: a change and its revision, or a grant and its token.
    pub(super) fn news(&self, number: usize, seen: &Seen, lookup: &dyn Lookup) -> Result<Heard, String> {
        let correlation = seen.header.correlation;
        let stream = self.streams.iter().find(|stream| stream.is(number, correlation));
        let stream = stream.ok_or_else(|| format!("news of {correlation}, which is no stream"))?;
        let (due, told) = (stream.due.front(), Told(seen.header.handle.index));
        let is_denied = due == Some(&News::End);
        let may_be_told = self.connections.get(&number).is_some_and(|connection| connection.may_be_told);
        if seen.kind() == Kind::REVOKED {
            let what = match stream.about {
                About::Keys(_) => RevokedWhat::KeyWatch,
                About::Election(_) => RevokedWhat::Observation,
            };
            same("denial to one that can be told so", is_denied && may_be_told, true)?;
            return is_revoked(what, seen).map(|()| Heard::Lost);
        }
        match (told, &stream.about, due) {
            (Told::WATCH_LOST, About::Keys(_), _) | (Told::OBSERVATION_LOST, About::Election(_), _) => {
                if stream.may_be_lost || (is_denied && !may_be_told) {
                    return Ok(Heard::Lost);
                }
                Err(format!("the stream {correlation} was lost although there was room"))
            }
            (Told::CHANGED, _, Some(News::Change { change, is_first })) => {
                if !is_first && !stream.is_begun {
                    return Err(format!("a later change came before the outcome of watch {correlation}"));
                }
                Ok(Heard::Change(change.number, is_change(change, seen, lookup)?))
            }
            (Told::LEADER, _, Some(News::Leader(lead))) => {
                is_led_by(lead.as_ref(), seen, lookup)?;
                let token = seen.decode::<Leader>().ok_or("the word about the leader is malformed")?.token;
                Ok(lead.as_ref().map_or(Heard::Nobody, |lead| Heard::Grant(lead.hold, token)))
            }
            _ => Err(format!("{told:?} over stream {correlation}, due was {due:?}")),
        }
    }

    /// The news were what was due.
    pub(super) fn take_news(&mut self, number: usize, seen: &Seen, heard: &Heard) -> Result<(), String> {
        let correlation = seen.header.correlation;
        if *heard == Heard::Lost {
            self.streams.retain(|stream| !stream.is(number, correlation));
        }
        let stream = self.streams.iter_mut().find(|stream| stream.is(number, correlation));
        drop(stream.and_then(|stream| stream.due.pop_front()));
        match heard {
            Heard::Change(change, revision) => self.learn_revision(*change, *revision),
            Heard::Grant(hold, token) => self.learn_token(*hold, *token),
            Heard::Nobody | Heard::Lost => Ok(()),
        }
    }

    /// A client was told that its watch is there: it has been told all that is told before. Or that it is not.
    pub(super) fn begin_stream(
        &mut self,
        number: usize,
        correlation: u64,
        is_refused: bool,
    ) -> Result<(), String> {
        if is_refused {
            self.streams.retain(|stream| !stream.is(number, correlation));
            return Ok(());
        }
        let stream = self.streams.iter_mut().find(|stream| stream.is(number, correlation));
        let Some(stream) = stream else { return Ok(()) };
        stream.is_begun = true;
        let is_first = |news: &News| matches!(news, News::Change { is_first: true, .. });
        if stream.due.iter().any(is_first) && !stream.may_be_lost {
            return Err(format!("watch {correlation} was not told all that there is: {:?}", stream.due));
        }
        Ok(())
    }

    /// A client was told that one of its streams has ended: nothing of it is missing.
    pub(super) fn finish_stream(&mut self, number: usize, correlation: u64) -> Result<(), String> {
        let at = self.streams.iter().position(|stream| stream.is(number, correlation));
        let stream = at.map(|at| self.streams.remove(at));
        stream.map_or(Ok(()), |stream| stream.is_complete())
    }

    /// Nothing is on its way to a client.
    pub(super) fn are_streams_complete(&self, number: usize) -> Result<(), String> {
        let mut own = self.streams.iter().filter(|stream| stream.connection == number);
        own.try_for_each(Stream::is_complete)
    }
}

/// What a client learns from news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The change of this number has this revision.
    Change(u64, u64),
    /// The grant of this number has this token.
    Grant(u64, u64),
    Nobody,
    Lost,
}

impl Stream {
    fn is(&self, connection: usize, correlation: u64) -> bool {
        (self.connection, self.correlation) == (connection, correlation)
    }

    fn is_complete(&self) -> Result<(), String> {
        if self.due.is_empty() {
            return Ok(());
        }
        Err(format!("over stream {} this never came: {:?}", self.correlation, self.due))
    }
}

impl News {
    /// The room that it takes, at most.
    fn bytes(&self) -> u64 {
        let bytes = match self {
            News::Change { change, .. } => {
                change.key.len() + change.entry.as_ref().map_or(0, |entry| entry.value.len())
            }
            News::Leader(lead) => lead.as_ref().map_or(0, |lead| lead.value.len()),
            News::End => 0,
        };
        (bytes + 2 * HEADER_BYTES) as u64
    }
}

/// Whether a frame tells of this change; gives the revision.
fn is_change(change: &Change, seen: &Seen, lookup: &dyn Lookup) -> Result<u64, String> {
    let body: Changed = seen.decode().ok_or("the change is malformed")?;
    let kind = if change.entry.is_some() { ChangeKind::Put } else { ChangeKind::Delete };
    same("change", (&*body.key.0, body.change), (change.key.as_str(), kind))?;
    if let Some(entry) = &change.entry {
        entry.is(body.state, seen.header.payload_kind.number(), &seen.payload, lookup)?;
    }
    if lookup.revision(change.number).is_some_and(|known| known != body.state.revision) {
        return Err(format!("revision {} of {change:?}", body.state.revision));
    }
    Ok(body.state.revision)
}
