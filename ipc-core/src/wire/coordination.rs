//! The operations of coordination, and what their envelopes hold.
//!
//! There is one kind of frame for all that is asked for, [`Kind::COORDINATE`](super::Kind::COORDINATE): the handle field of
//! its header is the number of the operation. So an operation that a daemon does not know is refused without its
//! envelope being looked at. Fields are positional and never change once landed; new things get a new operation.

use core::fmt;

use super::codec::{Decode, Encode, List, Text};
use crate::limits::KEYS_LISTED_MAX;

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

/// What has to be so for a key to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Condition {
    /// Nothing.
    Any,
    /// The key does not exist.
    Absent,
    /// The key's last change has this revision.
    Revision {
        /// That revision.
        revision: u64,
    },
}

/// The token of a lock under which a key is changed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Fence {
    /// Name of the lock.
    pub lock: Text,
    /// What its holder was given.
    pub token: u64,
}

/// [`Operation::PUT`]; the payload is the value.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PutKey {
    /// The key.
    pub key: Text,
    /// What has to be so.
    pub condition: Condition,
    /// Time to live in microseconds; 0 without end.
    pub ttl_us: u64,
    /// The lease it ends with; 0 for none.
    pub lease: u64,
    /// The lock it is put under.
    pub fence: Option<Fence>,
    /// What it is to survive; `None` leaves it to the daemon.
    pub durability: Option<Durability>,
}

/// [`Operation::GET`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GetKey {
    /// The key.
    pub key: Text,
}

/// [`Operation::DELETE`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeleteKey {
    /// The key.
    pub key: Text,
    /// What has to be so.
    pub condition: Condition,
    /// The lock it is deleted under.
    pub fence: Option<Fence>,
    /// What that is to survive; `None` leaves it to the daemon.
    pub durability: Option<Durability>,
}

/// Which keys are meant.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Selection {
    /// One key.
    Key {
        /// That key.
        key: Text,
    },
    /// Every key that begins so.
    Prefix {
        /// The beginning; the empty one means all.
        prefix: Text,
    },
}

/// [`Operation::LIST`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListKeys {
    /// Which keys.
    pub selection: Selection,
    /// Behind this one; from the first when it is empty.
    pub after: Text,
    /// At most so many.
    pub count: u32,
}

/// [`Operation::HISTORY`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListHistory {
    /// Changes of which keys.
    pub selection: Selection,
    /// From this revision on.
    pub from: u64,
    /// At most so many.
    pub count: u32,
}

/// [`Operation::WATCH`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WatchKeys {
    /// Which keys.
    pub selection: Selection,
    /// Begin with the changes from this revision on; `None` with what is there.
    pub from: Option<u64>,
}

/// [`Operation::UNWATCH`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UnwatchKeys {
    /// Correlation of the watch.
    pub watch: u64,
}

/// The outcome of [`Operation::PUT`] and [`Operation::DELETE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeyChanged {
    /// The revision of the change.
    pub revision: u64,
    /// What the change survives.
    pub durability: Durability,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeyState {
    /// Revision of its last change.
    pub revision: u64,
    /// Revision of the put that made it.
    pub created: u64,
    /// Puts since it was made.
    pub version: u64,
    /// The lease it ends with; 0 for none.
    pub lease: u64,
}

/// The outcome of [`Operation::GET`]; the payload is the value.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Got {
    /// The key.
    pub key: Text,
    /// What is known of it.
    pub state: KeyState,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ChangeKind {
    /// It was put.
    Put,
    /// It was deleted; only the revision is known.
    Delete,
}

/// One of the outcome of [`Operation::LIST`] and [`Operation::HISTORY`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListedKey {
    /// What happened to it.
    pub change: ChangeKind,
    /// The key.
    pub key: Text,
    /// How to read its value, as the header has it.
    pub kind: u16,
    /// Bytes of its value in the payload, behind those of the keys before.
    pub length: u32,
    /// What is known of it.
    pub state: KeyState,
}

/// The outcome of [`Operation::LIST`] and [`Operation::HISTORY`]; the payload is the values, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Listed {
    /// Whether there is more behind the last one.
    pub more: bool,
    /// Keys in order, or changes in order of their revision.
    pub keys: List<ListedKey, KEYS_LISTED_MAX>,
}

/// The outcome of [`Operation::WATCH`], behind what was to be told at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Watching {
    /// Every change up to this revision has been told; those that follow are later.
    pub revision: u64,
}

/// [`Told::CHANGED`]; the payload is the value.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Changed {
    /// What happened.
    pub change: ChangeKind,
    /// To which key.
    pub key: Text,
    /// What is known of it.
    pub state: KeyState,
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
