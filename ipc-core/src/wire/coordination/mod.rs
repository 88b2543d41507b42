//! PURE. The operations of coordination, and what their envelopes hold; `keys` has those of keys.
//!
//! There is one kind of frame for all that is asked for, [`Kind::COORDINATE`](super::Kind::COORDINATE): the handle field of
//! its header is the number of the operation. So an operation that a daemon does not know is refused without its
//! envelope being looked at. Fields are positional and never change once landed; new things get a new operation.

mod keys;

use core::fmt;

pub use self::keys::{
    ChangeKind, Changed, Condition, DeleteKey, Fence, GetKey, Got, KeyChanged, KeyState, ListHistory,
    ListKeys, ListRange, Listed, ListedKey, PutKey, Selection, Step, StepAct, Transact, Transacted,
    UnwatchKeys, WatchKeys, Watching,
};

use super::codec::{self, Decode, Encode, Text};
use crate::limits::SECRET_BYTES;
use crate::name::ResourceName;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operation(pub u32);

/// What a notice tells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Told(pub u32);

macro_rules! numbers {
    ($type:ident: $($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        impl $type {
            $($(#[$doc])* pub const $name: $type = $type($number);)*

            /// Every number of this version.
            pub const ALL: &'static [$type] = &[$($type::$name,)*];

            /// The name used in the specification, or `unknown`.
            pub const fn name(self) -> &'static str {
                match self.0 { $($number => $text,)* _ => "unknown" }
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", self.name(), self.0)
            }
        }
    };
}

numbers! { Operation:
    /// Takes a lease.
    LEASE = 1, "lease";
    /// Gives what is held its full time to live again.
    RENEW = 2, "renew";
    /// Gives back what is held.
    RELEASE = 3, "release";
    /// Names the session, and takes up what an earlier life of the daemon has kept for it.
    IDENTIFY = 4, "identify";
    /// Takes a lock.
    LOCK = 16, "lock";
    /// Takes permits of a semaphore.
    ACQUIRE = 17, "acquire";
    /// Stands for an election.
    CAMPAIGN = 18, "campaign";
    /// Changes a leader's value.
    PROCLAIM = 19, "proclaim";
    /// Asks who leads, now and from here on.
    OBSERVE = 20, "observe";
    /// Ends an observation.
    UNOBSERVE = 21, "unobserve";
    /// Arrives at a barrier.
    ARRIVE = 22, "arrive";
    /// Puts a key.
    PUT = 32, "put";
    /// Gets a key.
    GET = 33, "get";
    /// Deletes a key.
    DELETE = 34, "delete";
    /// Lists keys.
    LIST = 35, "list";
    /// Tells of keys as they are, and as they change.
    WATCH = 36, "watch";
    /// Ends that.
    UNWATCH = 37, "unwatch";
    /// Lists changes of keys.
    HISTORY = 38, "history";
    /// Changes several keys, or none.
    TRANSACT = 39, "transact";
    /// Lists keys from one to another.
    LIST_RANGE = 40, "list_range";
    /// Puts an entry into a work queue.
    ENQUEUE = 48, "enqueue";
    /// Takes an entry out of a work queue, to work on it.
    TAKE = 49, "take";
    /// Says that the work is done.
    ACK = 50, "ack";
    /// Gives an entry back.
    NACK = 51, "nack";
    /// Shows what is in a work queue.
    PEEK = 52, "peek";
    /// Counts what is in a work queue.
    COUNT = 53, "count";
    /// Throws away what waits in a work queue.
    PURGE = 54, "purge";
    /// Has entries delivered as they come, as many at a time as there are credits.
    CONSUME = 55, "consume";
    /// Ends that.
    UNCONSUME = 56, "unconsume";
}

numbers! { Told:
    /// What was held is lost.
    LOST = 1, "lost";
    /// Somebody leads, or nobody any more.
    LEADER = 2, "leader";
    /// The observer did not read in time: the observation has ended.
    OBSERVATION_LOST = 3, "observation_lost";
    /// A key was put or deleted.
    CHANGED = 4, "changed";
    /// The watcher of keys did not read in time: the watch has ended, and goes on where it is asked to.
    WATCH_LOST = 5, "watch_lost";
    /// An entry of a work queue, to be worked on.
    DELIVERED = 6, "delivered";
    /// The consumer did not read in time: it gets nothing more until it asks anew.
    CONSUMER_LOST = 7, "consumer_lost";
    /// Something is held again that an earlier life of the daemon has kept.
    TAKEN_UP = 8, "taken_up";
}

impl Operation {
    /// The name that a request is about, by its envelope: of the lock, the key or the queue, or how those begin that are listed or
    /// watched. `None` for a request that names none, or more than one, or nothing that could be one.
    pub fn subject(self, envelope: &[u8]) -> Option<ResourceName> {
        let name = match self {
            Self::LOCK
            | Self::ACQUIRE
            | Self::CAMPAIGN
            | Self::OBSERVE
            | Self::ARRIVE
            | Self::PUT
            | Self::GET
            | Self::DELETE
            | Self::ENQUEUE
            | Self::TAKE
            | Self::ACK
            | Self::NACK
            | Self::PEEK
            | Self::COUNT
            | Self::PURGE
            | Self::CONSUME => codec::decode_first::<Text>(envelope).ok()?,
            Self::LIST | Self::WATCH | Self::HISTORY => {
                match codec::decode_first::<Selection>(envelope).ok()? {
                    Selection::Key { key } => key,
                    Selection::Prefix { prefix } => prefix,
                }
            }
            _ => return None,
        };
        ResourceName::parse(name.0.trim_end_matches(['/', '.'])).ok()
    }
}

/// What a promise survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Durability {
    /// Nothing: it is gone with the daemon.
    Memory,
    /// The end of the daemon.
    Os,
    /// The loss of power.
    Disk,
}

impl Durability {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Durability::Memory => "memory",
            Durability::Os => "os",
            Durability::Disk => "disk",
        }
    }
}

/// What a lease is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Bind {
    /// The connection, and its time to live if it has one.
    Session,
    /// Its time to live alone: it outlives the connection.
    Time,
}

/// How something is claimed that others may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Claim {
    /// Whether to wait; the deadline of the header says for how long, 0 without limit.
    pub wait: bool,
    /// Time to live in microseconds; 0 for as long as the connection.
    pub ttl_us: u64,
    /// How long it stays closed when the holder is lost, in microseconds.
    pub delay_us: u64,
    /// Which thread of control of the session asks, to find deadlocks; 0 for none in particular.
    pub owner: u64,
    /// What the grant is to survive; `None` leaves it to the daemon.
    pub durability: Option<Durability>,
}

/// [`Operation::LEASE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TakeLease {
    /// What it is bound to.
    pub bind: Bind,
    /// Time to live in microseconds; 0 for as long as the connection.
    pub ttl_us: u64,
    /// What it is to survive; `None` leaves it to the daemon.
    pub durability: Option<Durability>,
}

/// [`Operation::RENEW`], [`Operation::RELEASE`], [`Operation::PROCLAIM`]: about what is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OfToken {
    /// The token of its grant.
    pub token: u64,
}

/// What a session is known by to later lives of the daemon: bytes that nobody can guess.
pub type Secret = [u8; SECRET_BYTES];

/// [`Operation::IDENTIFY`].
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Identify {
    /// Drawn at random by the session, once, and told to nobody else.
    pub secret: Secret,
}

impl fmt::Debug for Identify {
    /// Secrets are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identify").finish_non_exhaustive()
    }
}

/// The outcome of [`Operation::IDENTIFY`], behind a [`Told::TAKEN_UP`] for each thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Identified {
    /// How many things are held again.
    pub holds: u32,
}

/// [`Told::TAKEN_UP`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TakenUp {
    /// The token of its grant.
    pub token: u64,
    /// The number of the operation that gave it: [`Operation::LOCK`] or the like.
    pub operation: u32,
    /// Its name; empty for a lease.
    pub name: Text,
    /// Time to live in microseconds, which begins anew; 0 for as long as the connection.
    pub ttl_us: u64,
    /// What the grant survives.
    pub durability: Durability,
}

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LockMode {
    /// Alone.
    Exclusive,
    /// With others who share it.
    Shared,
}

/// [`Operation::LOCK`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TakeLock {
    /// Name of the lock.
    pub name: Text,
    /// How it is to be held.
    pub mode: LockMode,
    /// How it is claimed.
    pub claim: Claim,
}

/// [`Operation::ACQUIRE`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Acquire {
    /// Name of the semaphore.
    pub name: Text,
    /// How many permits there are in all; everybody who uses the semaphore says the same.
    pub permits: u32,
    /// How many of them are asked for.
    pub count: u32,
    /// How they are claimed.
    pub claim: Claim,
}

/// [`Operation::CAMPAIGN`]; the payload is the value that observers are shown.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Campaign {
    /// Name of the election.
    pub name: Text,
    /// How the leadership is claimed.
    pub claim: Claim,
}

/// [`Operation::OBSERVE`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Observe {
    /// Name of the election.
    pub name: Text,
}

/// [`Operation::UNOBSERVE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Unobserve {
    /// Correlation of the observation.
    pub observation: u64,
}

/// [`Operation::ARRIVE`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Arrive {
    /// Name of the barrier.
    pub name: Text,
    /// How many have to arrive; everybody who uses the barrier says the same.
    pub parties: u32,
    /// Whether to wait; the deadline of the header says for how long, 0 without limit.
    pub wait: bool,
}

/// The outcome of what gives something to hold, and of [`Operation::RENEW`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Granted {
    /// Names what is held, and fences off earlier holders: later grants have higher ones.
    pub token: u64,
    /// Time to live in microseconds, 0 for as long as the connection.
    pub ttl_us: u64,
    /// What the grant survives.
    pub durability: Durability,
}

/// The outcome of [`Operation::ARRIVE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Passed {
    /// Which passage this is; later ones of the barrier have higher numbers.
    pub generation: u64,
    /// In which place this party arrived, counted from 0.
    pub place: u32,
}

/// The outcome of [`Operation::OBSERVE`], and [`Told::LEADER`]. The sender leads, the payload is its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Leader {
    /// The token of the leadership, 0 when nobody leads.
    pub token: u64,
}

/// `waiting`: what a request waits for. The sender is the oldest of the holders in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Waiting {
    /// Requests whose turn comes before.
    pub ahead: u32,
    /// Holders in the way.
    pub holders: u32,
    /// The token of the oldest of them, 0 for none.
    pub token: u64,
    /// Parties that have not arrived, at a barrier.
    pub missing: u32,
}

/// [`Told::LOST`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Lost {
    /// What was held.
    pub token: u64,
    /// An [`ErrorCode`](crate::ErrorCode) by number.
    pub code: u16,
    /// Why, for people.
    pub message: Text,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_name_each() {
        for (at, operation) in Operation::ALL.iter().enumerate() {
            assert!(Operation::ALL[..at].iter().all(|other| other.0 < operation.0), "{operation:?}");
            assert!(Operation::ALL.iter().filter(|other| other.name() == operation.name()).count() == 1);
        }
        assert_eq!((Operation(99).name(), Told(99).name()), ("unknown", "unknown"));
    }
}
