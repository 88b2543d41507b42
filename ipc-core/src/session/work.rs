//! What is said of work queues.

use core::time::Duration;

use crate::error::Error;
use crate::identity::Identity;
use crate::name::ResourceName;
use crate::payload::{Payload, PayloadKind};
use crate::wire::coordination::Fence;
pub use crate::wire::queue::{EntryState, Overflow, QueueCounts};
use crate::wire::{WireError, queue as wire};

use super::key::Durability;

/// How an entry is put into a work queue.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct EntryOptions {
    /// What it is known by, 1 to 128 bytes: another put with it within some minutes is a duplicate, and not put again.
    pub id: Option<String>,
    /// Entries with a higher one are taken first; of one priority in the order in which they were put.
    pub priority: u8,
    /// Time for which it cannot be taken; at most a week.
    pub delay: Duration,
    /// How often it is delivered at most; then it is a dead letter. `None` without limit.
    pub max_deliveries: Option<u32>,
    /// How many entries may wait in the queue; `None` for as many as the daemon allows.
    pub max_length: Option<u32>,
    /// What happens when as many do.
    pub overflow: Overflow,
    /// A lock and the token of its holder: an older one than the last that was given is `stale_fencing_token`.
    pub fence: Option<(ResourceName, u64)>,
    /// What the entry is to survive; `None` leaves it to the daemon, and more than it can give is `unsupported`.
    pub durability: Option<Durability>,
}

/// An entry that was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPut {
    /// What it is known by.
    pub id: String,
    /// Where it stands: of one priority, lower numbers are taken first.
    pub number: u64,
    /// Whether it had been put before, and was not put again.
    pub is_duplicate: bool,
    /// Entries that made room for it, and are gone.
    pub dropped: u32,
    /// What it survives.
    pub durability: Durability,
}

/// How an entry is taken.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TakeOptions {
    /// How long to wait for one, at most an hour; `None` without limit, zero to try once.
    pub wait: Option<Duration>,
    /// It goes back unless it is acknowledged within this time, from 10 ms to a week. `None`: never as long as the connection
    /// lives; of a delivery that is not bound to it, after what the daemon has set, 30 s.
    pub visibility: Option<Duration>,
    /// How often an entry may be delivered, by this delivery at the latest; then it is a dead letter. `None` without limit.
    pub max_deliveries: Option<u32>,
    /// A lock and the token of its holder, as in [`EntryOptions`].
    pub fence: Option<(ResourceName, u64)>,
}

/// How entries are consumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumeOptions {
    /// How many deliveries may be open at a time, from 1 to 65,536: each that ends makes room for another.
    pub credit: u32,
    /// As in [`TakeOptions`].
    pub visibility: Option<Duration>,
    /// As in [`TakeOptions`].
    pub max_deliveries: Option<u32>,
}

impl Default for ConsumeOptions {
    fn default() -> Self {
        Self { credit: 16, visibility: None, max_deliveries: None }
    }
}

/// How an entry is given back.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NackOptions {
    /// Time for which it cannot be taken; at most a week.
    pub delay: Duration,
    /// Why, for people, at most 256 bytes: shown when it becomes a dead letter.
    pub reason: String,
    /// Nobody has begun with it: this delivery does not count.
    pub is_untouched: bool,
    /// A lock and the token of its holder, as in [`EntryOptions`].
    pub fence: Option<(ResourceName, u64)>,
}

/// An entry in one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// The queue.
    pub queue: ResourceName,
    /// What the entry is known by.
    pub id: String,
    /// Where it stands in its queue.
    pub number: u64,
    /// Token of this delivery: whoever has it says what became of the work.
    pub delivery: u64,
    /// How often the entry has been delivered, this time included.
    pub deliveries: u32,
    /// Its priority.
    pub priority: u8,
    /// After so long it goes back; `None` for as long as the connection.
    pub visibility: Option<Duration>,
    /// How long it had been in the queue.
    pub age: Duration,
    /// Who put it, as the daemon had verified it.
    pub sender: Identity,
    /// Of a dead letter: what became of it.
    pub death: Option<String>,
    /// What was put.
    pub payload: Payload,
}

/// An entry that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeekedEntry {
    /// What it is known by.
    pub id: String,
    /// Where it stands in its queue.
    pub number: u64,
    /// Where it is.
    pub state: EntryState,
    /// How often it has been delivered.
    pub deliveries: u32,
    /// Its priority.
    pub priority: u8,
    /// How long it has been in the queue.
    pub age: Duration,
    /// Of one that is not ready: when it is, at the latest.
    pub due: Option<Duration>,
    /// Who put it, as the daemon had verified it.
    pub sender: Identity,
    /// Of a dead letter: what became of it.
    pub death: Option<String>,
    /// What was put.
    pub payload: Payload,
}

/// What a consumer gives, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkEvent {
    /// An entry, to be worked on.
    Work(Box<Work>),
    /// The daemon refused to let it go on after a reconnect: nothing more comes.
    Ended(Error),
}

pub(super) fn wire_fence(fence: Option<&(ResourceName, u64)>) -> Option<Fence> {
    fence.map(|(lock, token)| Fence { lock: lock.as_str().into(), token: *token })
}

pub(super) fn work(delivered: wire::Delivered, payload: Payload) -> Result<Work, WireError> {
    let queue = ResourceName::parse(&delivered.queue.0)
        .map_err(|_| WireError::Envelope("it names what is no queue"))?;
    Ok(Work {
        queue,
        id: delivered.id.0,
        number: delivered.number,
        delivery: delivered.delivery,
        deliveries: delivered.deliveries,
        priority: u8::try_from(delivered.priority).unwrap_or(u8::MAX),
        visibility: duration(delivered.visibility_us),
        age: Duration::from_micros(delivered.age_us),
        sender: delivered.sender.into(),
        death: delivered.death.map(|death| death.0),
        payload,
    })
}

pub(super) fn peeked(entry: wire::PeekedEntry, body: bytes::Bytes) -> Result<PeekedEntry, WireError> {
    let kind = u8::try_from(entry.kind).ok().and_then(PayloadKind::from_number);
    let kind = kind.ok_or(WireError::Envelope("it has an entry of an undefined kind"))?;
    Ok(PeekedEntry {
        id: entry.id.0,
        number: entry.number,
        state: entry.state,
        deliveries: entry.deliveries,
        priority: u8::try_from(entry.priority).unwrap_or(u8::MAX),
        age: Duration::from_micros(entry.age_us),
        due: duration(entry.due_us),
        sender: entry.sender.into(),
        death: entry.death.map(|death| death.0),
        payload: Payload { kind, body },
    })
}

fn duration(micros: u64) -> Option<Duration> {
    (micros > 0).then(|| Duration::from_micros(micros))
}
