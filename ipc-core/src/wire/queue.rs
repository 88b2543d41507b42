//! What the envelopes of work queues hold.
//!
//! They are operations of coordination like any other: see [`coordination`](super::coordination).

use super::codec::{Decode, Encode, List, Text};
use super::coordination::{Bind, Durability, Fence};
use super::message::IdentityInfo;
use crate::limits::ENTRIES_LISTED_MAX;

/// What happens to a put when a queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub enum Overflow {
    /// It is refused.
    #[default]
    Reject,
    /// The oldest entry of the lowest priority makes room, and is gone.
    DropOldest,
}

/// [`Operation::ENQUEUE`](super::coordination::Operation::ENQUEUE); the payload is the entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Enqueue {
    /// Name of the queue.
    pub queue: Text,
    /// What the entry is known by: another put with it is a duplicate. `None` leaves it to the daemon.
    pub id: Option<Text>,
    /// Higher ones are taken first, 0 to 255.
    pub priority: u16,
    /// Time for which it cannot be taken, in microseconds.
    pub delay_us: u64,
    /// How often it is delivered at most; 0 without limit.
    pub max_deliveries: u32,
    /// How many entries may wait in the queue; 0 for as many as the daemon allows.
    pub max_length: u32,
    /// What happens when as many do.
    pub overflow: Overflow,
    /// The lock it is put under.
    pub fence: Option<Fence>,
    /// What it is to survive; `None` leaves it to the daemon.
    pub durability: Option<Durability>,
}

/// The outcome of [`Operation::ENQUEUE`](super::coordination::Operation::ENQUEUE).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Enqueued {
    /// Where it stands: of one priority, lower numbers are taken first.
    pub number: u64,
    /// What it is known by.
    pub id: Text,
    /// Whether it had been put before, and was not put again.
    pub is_duplicate: bool,
    /// Entries that made room for it.
    pub dropped: u32,
    /// What the entry survives.
    pub durability: Durability,
}

/// [`Operation::TAKE`](super::coordination::Operation::TAKE).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Take {
    /// Name of the queue.
    pub queue: Text,
    /// Whether the entry goes back when the connection ends, or only when its time has passed.
    pub bind: Bind,
    /// After so long it goes back, in microseconds. 0: bound to the connection, never; else the daemon's default.
    pub visibility_us: u64,
    /// How often an entry may be delivered, by this delivery at the latest; 0 without limit.
    pub max_deliveries: u32,
    /// Whether to wait; the deadline of the header says for how long, 0 without limit.
    pub wait: bool,
    /// The lock it is taken under.
    pub fence: Option<Fence>,
}

/// The outcome of [`Operation::TAKE`](super::coordination::Operation::TAKE), and
/// [`Told::DELIVERED`](super::coordination::Told::DELIVERED); the payload is the entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Delivered {
    /// Name of the queue.
    pub queue: Text,
    /// Token of this delivery: whoever has it says what became of the work.
    pub delivery: u64,
    /// What the entry is known by.
    pub id: Text,
    /// Where it stands in its queue.
    pub number: u64,
    /// How often it has been delivered, this time included.
    pub deliveries: u32,
    /// Its priority.
    pub priority: u16,
    /// After so long it goes back, in microseconds; 0 for as long as the connection.
    pub visibility_us: u64,
    /// How long it has been in the queue, in microseconds.
    pub age_us: u64,
    /// Who put it, as the kernel or the bridge had verified it.
    pub sender: IdentityInfo,
    /// Of a dead letter: what became of it.
    pub death: Option<Text>,
}

/// [`Operation::ACK`](super::coordination::Operation::ACK).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ack {
    /// Name of the queue.
    pub queue: Text,
    /// Token of the delivery.
    pub delivery: u64,
    /// The lock it is done under.
    pub fence: Option<Fence>,
}

/// [`Operation::NACK`](super::coordination::Operation::NACK).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Nack {
    /// Name of the queue.
    pub queue: Text,
    /// Token of the delivery.
    pub delivery: u64,
    /// Time for which it cannot be taken, in microseconds.
    pub delay_us: u64,
    /// Why, for people: shown when it becomes a dead letter.
    pub reason: Text,
    /// Nobody has begun with it: this delivery does not count.
    pub is_untouched: bool,
    /// The lock it is done under.
    pub fence: Option<Fence>,
}

/// The outcome of [`Operation::NACK`](super::coordination::Operation::NACK).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Nacked {
    /// Whether it became a dead letter.
    pub is_dead: bool,
}

/// [`Operation::COUNT`](super::coordination::Operation::COUNT).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CountQueue {
    /// Name of the queue.
    pub queue: Text,
}

/// The outcome of [`Operation::COUNT`](super::coordination::Operation::COUNT). What has happened so far is forgotten with a
/// queue that nobody has to do with any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct QueueCounts {
    /// Entries that can be taken.
    pub ready: u64,
    /// Entries that can be taken later.
    pub delayed: u64,
    /// Entries that are being worked on.
    pub delivered: u64,
    /// Entries in the queue of its dead letters.
    pub dead: u64,
    /// Requests that wait for an entry.
    pub waiting: u32,
    /// Consumers.
    pub consumers: u32,
    /// Bytes of all entries.
    pub bytes: u64,
    /// Age of the oldest entry, in microseconds.
    pub oldest_us: u64,
    /// Entries put so far.
    pub puts: u64,
    /// Puts so far that were duplicates.
    pub duplicates: u64,
    /// Entries acknowledged so far.
    pub acks: u64,
    /// Deliveries so far that were not the first of their entry.
    pub redeliveries: u64,
    /// Entries so far that became dead letters.
    pub deaths: u64,
    /// Entries so far that made room for others, or were purged.
    pub drops: u64,
}

/// [`Operation::PEEK`](super::coordination::Operation::PEEK).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Peek {
    /// Name of the queue.
    pub queue: Text,
    /// At most so many.
    pub count: u32,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum EntryState {
    /// It can be taken.
    Ready,
    /// It can be taken later.
    Delayed,
    /// It is being worked on.
    Delivered,
}

impl EntryState {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            EntryState::Ready => "ready",
            EntryState::Delayed => "delayed",
            EntryState::Delivered => "delivered",
        }
    }
}

/// One of the outcome of [`Operation::PEEK`](super::coordination::Operation::PEEK).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PeekedEntry {
    /// What it is known by.
    pub id: Text,
    /// Where it stands.
    pub number: u64,
    /// Where it is.
    pub state: EntryState,
    /// How often it has been delivered.
    pub deliveries: u32,
    /// Its priority.
    pub priority: u16,
    /// How long it has been in the queue, in microseconds.
    pub age_us: u64,
    /// Of one that is not ready: when it is, at the latest, in microseconds; 0 for nobody knows.
    pub due_us: u64,
    /// Who put it.
    pub sender: IdentityInfo,
    /// Of a dead letter: what became of it.
    pub death: Option<Text>,
    /// How to read it, as the header has it.
    pub kind: u16,
    /// Its bytes in the payload, behind those of the entries before.
    pub length: u32,
}

/// The outcome of [`Operation::PEEK`](super::coordination::Operation::PEEK): those that can be taken in the order in which they
/// would be, then those that can be taken later, then those that are being worked on. The payload is the entries, one behind
/// the other.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Peeked {
    /// Whether there is more behind the last one.
    pub more: bool,
    /// The first of them.
    pub entries: List<PeekedEntry, ENTRIES_LISTED_MAX>,
}

/// [`Operation::PURGE`](super::coordination::Operation::PURGE).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Purge {
    /// Name of the queue.
    pub queue: Text,
    /// The lock it is done under.
    pub fence: Option<Fence>,
}

/// The outcome of [`Operation::PURGE`](super::coordination::Operation::PURGE).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Purged {
    /// Entries that are gone. What is being worked on stays.
    pub count: u64,
}

/// [`Operation::CONSUME`](super::coordination::Operation::CONSUME). What is delivered is bound to the connection.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Consume {
    /// Name of the queue.
    pub queue: Text,
    /// How many deliveries may be open at a time; the end of each gives its credit back.
    pub credit: u32,
    /// After so long a delivery goes back, in microseconds; 0 for as long as the connection.
    pub visibility_us: u64,
    /// As in [`Take`].
    pub max_deliveries: u32,
}

/// [`Operation::UNCONSUME`](super::coordination::Operation::UNCONSUME). What was delivered stays so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Unconsume {
    /// Correlation of the consumer.
    pub consumer: u64,
}
