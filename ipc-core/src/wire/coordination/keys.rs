//! The envelopes of keys.

use super::Durability;
#[cfg(doc)]
use super::{Operation, Told};
use crate::limits::{KEYS_LISTED_MAX, TRANSACTION_KEYS_MAX};
use crate::wire::codec::{Decode, Encode, List, Text};

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

/// [`Operation::LIST_RANGE`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListRange {
    /// From this one on.
    pub from: Text,
    /// Up to before this one; to the last when it is empty.
    pub to: Text,
    /// Behind this one, if it is not empty.
    pub after: Text,
    /// At most so many.
    pub count: u32,
}

/// What is to happen to a key of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum StepAct {
    /// Nothing: its condition has to hold.
    Check,
    /// It is put.
    Put {
        /// Time to live in microseconds; 0 without end.
        ttl_us: u64,
        /// The lease it ends with; 0 for none.
        lease: u64,
        /// How to read its value, as the header has it.
        kind: u16,
        /// Bytes of its value in the payload, behind those of the keys before.
        length: u32,
    },
    /// It is deleted.
    Delete,
}

/// One key of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Step {
    /// The key; each at most once.
    pub key: Text,
    /// What has to be so, before anything is changed.
    pub condition: Condition,
    /// What is to happen.
    pub act: StepAct,
}

/// [`Operation::TRANSACT`]; the payload is the values, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Transact {
    /// Its keys; all of it happens or nothing.
    pub steps: List<Step, TRANSACTION_KEYS_MAX>,
    /// The lock it is done under.
    pub fence: Option<Fence>,
    /// What it is to survive; `None` leaves it to the daemon.
    pub durability: Option<Durability>,
}

/// The outcome of [`Operation::TRANSACT`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Transacted {
    /// The revision of each step, in their order; 0 for one that changed nothing.
    pub revisions: List<u64, TRANSACTION_KEYS_MAX>,
    /// What the changes survive.
    pub durability: Durability,
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
