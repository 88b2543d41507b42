//! What comes of requests of coordination.

use core::time::Duration;

use ipc_core::error::ErrorCode;
use ipc_core::wire::coordination::{
    Durability, Got, Granted, Identified, KeyChanged, KeyState, Leader, Listed, Lost, Operation, Passed,
    TakenUp, Told, Transacted, Waiting, Watching,
};
use ipc_core::wire::{Flags, Kind};

use super::coordination::Gate;
use super::expect::{Lookup, Refusal, same};
use super::keys::Entry;
use super::streams::Lead;
use crate::world::Seen;

/// What becomes of a request of coordination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It is held, under this number of the model's, or was renewed.
    Granted { hold: Option<u64>, ttl: Option<Duration>, durability: Durability },
    /// It is held again.
    TakenUp { hold: u64, gate: Option<Gate>, ttl: Option<Duration>, durability: Durability },
    /// The session has a name, and has been told of so much that it holds.
    Identified { holds: u32 },
    /// All parties have arrived.
    Passed { generation: u64, place: usize },
    /// It is done.
    Done,
    /// It was refused.
    Refused(Refusal),
    /// It waits.
    Waits { ahead: usize, holders: usize, holder: Option<usize>, missing: usize },
    /// What was held is lost.
    Lost { hold: u64, code: ErrorCode },
    /// Keys were changed, each by the change of this number, or only compared.
    Changed { changes: Vec<Option<u64>>, durability: Durability },
    /// This is what the key has.
    Got(String, Entry),
    /// These are all keys.
    Listed(Vec<(String, Entry)>),
    /// A watch has been told what it was to be told at first; the last change so far is this one. Where nobody can say how far
    /// the broker remembers, it may have been refused.
    Watching { last: u64, may_be_refused: bool },
    /// This is the leader; changes of that will be told.
    Observing(Option<Lead>),
    /// A stream has ended; nothing of it comes any more.
    StreamEnded { stream: u64 },
}

impl Came {
    /// Whether a frame is this.
    ///
    /// # Errors
    /// A sentence that says how it differs.
    pub(super) fn is(&self, operation: u32, seen: &Seen, lookup: &dyn Lookup) -> Result<(), String> {
        let (kind, number) = match self {
            Came::Waits { .. } => (Kind::WAITING, operation),
            Came::Lost { .. } => (Kind::NOTICE, Told::LOST.0),
            Came::TakenUp { .. } => (Kind::NOTICE, Told::TAKEN_UP.0),
            _ => (Kind::OUTCOME, operation),
        };
        same("kind", seen.kind(), kind)?;
        same("number", seen.header.handle.index, number)?;
        if let Came::Watching { may_be_refused: true, .. } = self
            && seen.has(Flags::ERROR)
        {
            return Refusal::of(ErrorCode::Compacted).is(&seen.decode().ok_or("the error is malformed")?);
        }
        same("error flag", seen.has(Flags::ERROR), matches!(self, Came::Refused(_)))?;
        match self {
            Came::Granted { ttl, durability, .. } => {
                let body: Granted = seen.decode().ok_or("the grant is malformed")?;
                same("durability", body.durability, *durability)?;
                same("time to live", body.ttl_us, ttl.map_or(0, |ttl| ttl.as_micros() as u64))
            }
            Came::TakenUp { hold, gate, ttl, durability } => {
                let body: TakenUp = seen.decode().ok_or("what is taken up is malformed")?;
                let lease = (Operation::LEASE.0, String::new());
                let (operation, name) = gate.as_ref().unwrap_or(&lease);
                same("what is held", (body.operation, &*body.name.0), (*operation, name))?;
                let ttl_us = ttl.map_or(0, |ttl| ttl.as_micros() as u64);
                same("its terms", (body.ttl_us, body.durability), (ttl_us, *durability))?;
                lookup.token(*hold).map_or(Ok(()), |known| same("token", body.token, known))
            }
            Came::Identified { holds } => {
                let body: Identified = seen.decode().ok_or("the identity is malformed")?;
                same("count of what is held", body.holds, *holds)
            }
            Came::Passed { place, .. } => {
                let body: Passed = seen.decode().ok_or("the passage is malformed")?;
                same("place", body.place as usize, *place)
            }
            Came::Done | Came::StreamEnded { .. } => same("envelope", seen.envelope.len(), 0),
            Came::Refused(refusal) => refusal.is(&seen.decode().ok_or("the error is malformed")?),
            Came::Waits { .. } => self.is_waiting(seen, lookup),
            Came::Lost { hold, code } => {
                let body: Lost = seen.decode().ok_or("the notice is malformed")?;
                same("token", Some(body.token), lookup.token(*hold))?;
                same("code", body.code, code.number())
            }
            Came::Changed { changes, durability } => is_changed(changes, *durability, seen, lookup),
            Came::Got(key, entry) => {
                let body: Got = seen.decode().ok_or("the key is malformed")?;
                same("key", &*body.key.0, key)?;
                entry.is(body.state, seen.header.payload_kind.number(), &seen.payload, lookup)
            }
            Came::Listed(entries) => is_listed(entries, seen, lookup),
            Came::Watching { last, .. } => {
                let body: Watching = seen.decode().ok_or("the word about the watch is malformed")?;
                match lookup.revision(*last) {
                    Some(last) if body.revision < last => Err(format!("the last revision is {last}")),
                    Some(_) | None => Ok(()),
                }
            }
            Came::Observing(lead) => is_led_by(lead.as_ref(), seen, lookup),
        }
    }
}

impl Came {
    fn is_waiting(&self, seen: &Seen, lookup: &dyn Lookup) -> Result<(), String> {
        let Came::Waits { ahead, holders, holder, missing } = self else { return Ok(()) };
        let body: Waiting = seen.decode().ok_or("the word about the wait is malformed")?;
        let counts = (body.ahead as usize, body.holders as usize, body.missing as usize);
        same("ahead, holders and missing", counts, (*ahead, *holders, *missing))?;
        match holder {
            Some(holder) => same("holder", lookup.sender(seen.header.sender)?, *holder),
            None => same("holder", seen.header.sender, 0),
        }
    }
}

/// Whether a number that the daemon gave is that of this change, as far as anybody knows.
fn is_revision(number: u64, revision: u64, lookup: &dyn Lookup) -> Result<(), String> {
    lookup.revision(number).map_or(Ok(()), |known| same("revision", revision, known))
}

fn is_changed(
    changes: &[Option<u64>],
    durability: Durability,
    seen: &Seen,
    lookup: &dyn Lookup,
) -> Result<(), String> {
    let (revisions, kept_as) = revisions(seen)?;
    same("durability", kept_as, durability)?;
    same("count of revisions", revisions.len(), changes.len())?;
    for (revision, change) in revisions.into_iter().zip(changes) {
        match change {
            Some(number) => is_revision(*number, revision, lookup)?,
            None => same("revision of what is only compared", revision, 0)?,
        }
    }
    Ok(())
}

/// The revisions that an outcome tells, one for each key that was named, and how they are kept.
pub(super) fn revisions(seen: &Seen) -> Result<(Vec<u64>, Durability), String> {
    if seen.header.handle.index == Operation::TRANSACT.0 {
        let body: Transacted = seen.decode().ok_or("the outcome of the transaction is malformed")?;
        return Ok((body.revisions.0, body.durability));
    }
    let body: KeyChanged = seen.decode().ok_or("the outcome of the change is malformed")?;
    Ok((vec![body.revision], body.durability))
}

fn is_listed(entries: &[(String, Entry)], seen: &Seen, lookup: &dyn Lookup) -> Result<(), String> {
    let body: Listed = seen.decode().ok_or("the list is malformed")?;
    let names: Vec<&str> = body.keys.0.iter().map(|listed| &*listed.key.0).collect();
    let due: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
    same("keys", (names, body.more), (due, false))?;
    let mut values = &seen.payload[..];
    for (listed, (_, entry)) in body.keys.0.iter().zip(entries) {
        let value = values.split_off(..listed.length as usize).ok_or("the values are too short")?;
        entry.is(listed.state, listed.kind as u8, value, lookup)?;
    }
    same("bytes behind the values", values.len(), 0)
}

/// Whether a frame tells of this leader, or of none.
pub(super) fn is_led_by(lead: Option<&Lead>, seen: &Seen, lookup: &dyn Lookup) -> Result<(), String> {
    let body: Leader = seen.decode().ok_or("the word about the leader is malformed")?;
    let Some(lead) = lead else {
        return same(
            "sender, token and value",
            (seen.header.sender, body.token, seen.payload.len()),
            (0, 0, 0),
        );
    };
    same("leader", lookup.sender(seen.header.sender)?, lead.connection)?;
    same("value", &seen.payload, &lead.value)?;
    lookup.token(lead.hold).map_or(Ok(()), |known| same("token", body.token, known))
}

impl Entry {
    /// Whether that is what a client is told of it.
    pub(super) fn is(
        &self,
        state: KeyState,
        kind: u8,
        value: &[u8],
        lookup: &dyn Lookup,
    ) -> Result<(), String> {
        is_revision(self.number, state.revision, lookup)?;
        is_revision(self.created, state.created, lookup)?;
        same("version and lease", (state.version, state.lease), (self.version, 0))?;
        same("kind and value", (kind, value), (self.kind, &self.value[..]))
    }
}
