//! Changes of keys as records of the store.
//!
//! There is one record for each change that is kept, and none for a key as such: a key is what its last change has made of it.
//! The record of a change goes once it is neither in force nor part of the history.

use core::time::Duration;

use ipc_core::name::ResourceName;
use ipc_core::payload::{Payload, PayloadKind};
use ipc_core::time::{Instant, whole_micros};
use ipc_core::wire::coordination::Durability;

use super::Coordination;
use super::group::Group;
use super::keys::{Change, Condition, End, Entry};
use super::kv::{Act, Ask};
use super::numbers::read_number;
use crate::broker::records::{Fields, Reader, RecordKind, Write};

/// Key of a delete that only says that something before it is missing.
const LOSS_KEY: &str = "ipc/loss";

const IS_PUT: u8 = 1;
/// Changes were told of before this one that are not kept.
const IS_AFTER_VOLATILE: u8 = 2;
const IS_ON_DISK: u8 = 4;
/// It is the first of its life: the life before may have given revisions behind its own last one to changes that were lost.
const IS_FIRST: u8 = 8;

/// What was restored so far.
#[derive(Debug, Default)]
pub(super) struct Restored {
    compacted: u64,
    is_after_volatile: bool,
}

/// The highest number that a record speaks of: no later life may give it again.
pub fn highest_number(key: &[u8], value: &[u8]) -> u64 {
    let Some((kind, id)) = key.split_first() else { return 0 };
    match RecordKind::from_number(*kind) {
        Some(RecordKind::Numbers | RecordKind::UnpaidClosure | RecordKind::Closure) => {
            Reader(value).u64().unwrap_or_default()
        }
        Some(
            RecordKind::Change
            | RecordKind::Entry
            | RecordKind::EntryState
            | RecordKind::EntryId
            | RecordKind::Hold,
        ) => id.try_into().map(u64::from_be_bytes).unwrap_or_default(),
        None => 0,
    }
}

/// What is written beside records of which some may be missing: numbers go on above `highest`, and watches begin anew, because
/// nobody knows what they have seen.
pub fn after_loss(highest: u64) -> [Write; 2] {
    let last = highest + 1;
    let fields = Fields::default().u8(IS_AFTER_VOLATILE | IS_ON_DISK).u64(highest).bytes(LOSS_KEY.as_bytes());
    let numbers = Write::put(RecordKind::Numbers, b"", Fields::default().u64(last).done());
    [numbers, Write::put(RecordKind::Change, &id(last), fields.done())]
}

impl Coordination {
    /// The record of a change that will be told of behind the others of that group.
    pub(super) fn record(&self, change: &Change, ttl: Option<Duration>, group: &Group) -> Write {
        let mut flags = 0;
        if group.has_volatile() || self.keys.has_volatile() {
            flags |= IS_AFTER_VOLATILE;
        }
        if group.keeps_nothing() && self.keys.is_untouched() {
            flags |= IS_FIRST;
        }
        if change.durability == Durability::Disk {
            flags |= IS_ON_DISK;
        }
        if change.entry.is_some() {
            flags |= IS_PUT;
        }
        let fields = Fields::default().u8(flags).u64(self.keys.compacted());
        let mut fields = fields.bytes(change.key.as_str().as_bytes());
        if let Some(entry) = &change.entry {
            let ttl = ttl.map_or(0, whole_micros);
            fields = fields.u64(entry.created).u64(entry.version).u64(entry.lease()).u64(ttl).u32(entry.uid);
            fields = fields.u8(entry.value.kind.number()).rest(&entry.value.body);
        }
        Write::put(RecordKind::Change, &id(change.revision), fields.done())
    }

    /// Takes the record of a change out of the store.
    pub(super) fn obsolete_record(revision: u64) -> Write {
        Write::delete(RecordKind::Change, &id(revision))
    }

    /// Makes a change again that was kept. Records come in the order of their revisions.
    ///
    /// # Errors
    /// When the record is damaged.
    pub(in crate::broker) fn restore_change(
        &mut self,
        now: Instant,
        id: &[u8],
        value: &[u8],
    ) -> Result<(), &'static str> {
        let revision = read_number(id)?;
        if revision <= self.keys.last() {
            return Err("its revision is not behind the one before");
        }
        let mut reader = Reader(value);
        let (flags, compacted) = reader.u8().zip(reader.u64()).ok_or("it ends before the name of its key")?;
        let key = reader.text().ok_or("it has no name of a key")?;
        let key = ResourceName::parse(key).map_err(|_| "what it names is no key")?;
        let durability = if flags & IS_ON_DISK > 0 { Durability::Disk } else { Durability::Os };
        let entry = if flags & IS_PUT > 0 {
            let entry = restored_entry(now, revision, durability, reader);
            Some(entry.ok_or("it ends before its value, or the kind of that is undefined")?)
        } else {
            None
        };
        self.restored.compacted = compacted;
        self.restored.is_after_volatile = flags & IS_AFTER_VOLATILE > 0;
        if flags & IS_FIRST > 0 {
            self.keys.begin_life(revision);
        }
        self.make(Change { revision, key, entry, durability });
        Ok(())
    }

    /// The records of tokens and revisions.
    ///
    /// # Errors
    /// When it is damaged.
    pub(in crate::broker) fn restore_numbers(&mut self, value: &[u8]) -> Result<(), &'static str> {
        self.numbers.restore(value)
    }

    /// Everything that was kept has been restored, and a store takes what is to be kept from here on.
    pub(in crate::broker) fn open_store(&mut self, now: Instant) -> Result<(), &'static str> {
        if self.keys.last() > self.numbers.last() {
            return Err("a change has a revision that was never reserved");
        }
        if self.restored.compacted > self.numbers.last() {
            return Err("a change that was forgotten has a revision that was never reserved");
        }
        if self.holds.last_key_value().is_some_and(|(token, _)| *token > self.numbers.last()) {
            return Err("something is held under a token that was never reserved");
        }
        if self.gates.values().any(|gate| gate.settled_fence() > self.numbers.last()) {
            return Err("something was held under a token that was never reserved");
        }
        self.open_queues()?;
        self.open_tenures(now);
        self.numbers.open(now);
        let life = self.numbers.last();
        let Restored { compacted, is_after_volatile } = core::mem::take(&mut self.restored);
        // Whoever watched has seen changes that are lost, and nobody knows which.
        self.keys.begin_again(life, if is_after_volatile { life } else { compacted });
        let is_over = |lease: &u64| !self.holds.contains_key(lease);
        let over: Vec<u64> = self.leased.keys().copied().filter(is_over).collect();
        for lease in over {
            self.end_leased(lease);
        }
        Ok(())
    }
}

fn id(revision: u64) -> [u8; 8] {
    revision.to_be_bytes()
}

/// What has a time to live gets all of it again.
fn restored_entry(
    now: Instant,
    revision: u64,
    durability: Durability,
    mut reader: Reader<'_>,
) -> Option<Entry> {
    let (created, version, lease) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let (ttl, uid) = (reader.u64()?, reader.u32()?);
    let kind = PayloadKind::from_number(reader.u8()?)?;
    let value = Payload { kind, body: bytes::Bytes::copy_from_slice(reader.rest()) };
    let expires = (ttl > 0).then(|| now + Duration::from_micros(ttl));
    Some(Entry { revision, created, version, value, uid, durability, end: End::of(lease, expires) })
}

impl Ask {
    /// That the entry of this revision ends.
    pub(super) fn end(key: ResourceName, revision: u64) -> Self {
        Self { key, condition: Condition::Revision(revision), act: Act::Delete }
    }
}
