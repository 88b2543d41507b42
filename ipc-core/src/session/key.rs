//! What is said of keys.

use core::time::Duration;

use crate::error::Error;
use crate::name::ResourceName;
use crate::payload::Payload;
use crate::wire::codec::Text;
use crate::wire::coordination as wire;
pub use crate::wire::coordination::Durability;

/// Which keys are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// One key.
    Key(ResourceName),
    /// Every key that begins so; the empty one means all.
    Prefix(String),
}

impl From<&Selection> for wire::Selection {
    fn from(selection: &Selection) -> Self {
        match selection {
            Selection::Key(key) => wire::Selection::Key { key: key.as_str().into() },
            Selection::Prefix(prefix) => wire::Selection::Prefix { prefix: Text(prefix.clone()) },
        }
    }
}

/// What has to be so for a change of a key to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Condition {
    /// Nothing.
    #[default]
    Any,
    /// The key does not exist.
    Absent,
    /// The key's last change has this revision.
    Revision(u64),
}

impl From<Condition> for wire::Condition {
    fn from(condition: Condition) -> Self {
        match condition {
            Condition::Any => wire::Condition::Any,
            Condition::Absent => wire::Condition::Absent,
            Condition::Revision(revision) => wire::Condition::Revision { revision },
        }
    }
}

/// How a key is put or deleted.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct KeyOptions {
    /// What has to be so, else `revision_mismatch`.
    pub condition: Condition,
    /// The key ends after so long, from 10 ms to a week; not for deletes.
    pub ttl: Option<Duration>,
    /// The key ends with this lease; not for deletes.
    pub lease: Option<u64>,
    /// A lock and the token of its holder: an older one than the last that was given is `stale_fencing_token`.
    pub fence: Option<(ResourceName, u64)>,
    /// What the change is to survive; `None` leaves it to the daemon, which keeps it on disk. It is kept at least as well as what
    /// it replaces.
    pub durability: Option<Durability>,
}

/// A change that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The revision of the change.
    pub revision: u64,
    /// What it survives.
    pub durability: Durability,
}

/// Changes of several keys that happen together or not at all.
///
/// First all conditions are compared with what is there, then all changes are made, with revisions that follow one another. Nobody
/// ever sees some of them without the others.
///
/// ```
/// use ipc_core::client::{Condition, Transaction};
///
/// let moved = Transaction::new().delete("jobs/7", Condition::Revision(41)).put("done/7", "ok", Condition::Absent);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "it does nothing before a client is given it"]
pub struct Transaction {
    pub(super) steps: Vec<(String, Condition, TransactionStep)>,
    pub(super) fence: Option<(ResourceName, u64)>,
    pub(super) durability: Option<Durability>,
}

#[derive(Clone, Debug)]
pub(super) enum TransactionStep {
    Check,
    Put { value: Payload, ttl: Option<Duration>, lease: Option<u64> },
    Delete,
}

impl Transaction {
    /// One without a key; it needs at least one, and has at most 64, each once.
    pub fn new() -> Self {
        Self::default()
    }

    /// The key is left alone, but what is said of it has to be so.
    pub fn check(self, key: &str, condition: Condition) -> Self {
        self.step(key, condition, TransactionStep::Check)
    }

    /// The key is put.
    pub fn put(self, key: &str, value: impl Into<Payload>, condition: Condition) -> Self {
        self.step(key, condition, TransactionStep::Put { value: value.into(), ttl: None, lease: None })
    }

    /// The key is put, and ends after so long or with that lease.
    pub fn put_for(
        self,
        key: &str,
        value: impl Into<Payload>,
        condition: Condition,
        ttl: Option<Duration>,
        lease: Option<u64>,
    ) -> Self {
        self.step(key, condition, TransactionStep::Put { value: value.into(), ttl, lease })
    }

    /// The key is deleted; it has to be there.
    pub fn delete(self, key: &str, condition: Condition) -> Self {
        self.step(key, condition, TransactionStep::Delete)
    }

    /// Nobody may have got this lock since that token was given.
    pub fn under(mut self, lock: ResourceName, token: u64) -> Self {
        self.fence = Some((lock, token));
        self
    }

    /// What the changes are to survive at least; the disk unless something else is said.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    fn step(mut self, key: &str, condition: Condition, step: TransactionStep) -> Self {
        self.steps.push((key.to_owned(), condition, step));
        self
    }
}

/// A transaction that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transacted {
    /// The revision of each of its keys, in the order in which they were named; 0 for one that was only checked.
    pub revisions: Vec<u64>,
    /// What the changes survive.
    pub durability: Durability,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: ResourceName,
    /// Revision of its last change; revisions grow over all keys.
    pub revision: u64,
    /// Revision of the put that made it.
    pub created: u64,
    /// Puts since it was made.
    pub version: u64,
    /// The lease it ends with.
    pub lease: Option<u64>,
    /// Its value.
    pub value: Payload,
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// It has this value from here on.
    Put(KeyValue),
    /// It is no more.
    Delete {
        /// The key.
        key: ResourceName,
        /// Revision of the delete.
        revision: u64,
    },
}

impl KeyChange {
    /// The key.
    pub fn key(&self) -> &ResourceName {
        match self {
            KeyChange::Put(put) => &put.key,
            KeyChange::Delete { key, .. } => key,
        }
    }

    /// What was put; `None` for a delete.
    pub fn into_put(self) -> Option<KeyValue> {
        match self {
            KeyChange::Put(put) => Some(put),
            KeyChange::Delete { .. } => None,
        }
    }

    /// The revision of the change.
    pub fn revision(&self) -> u64 {
        match self {
            KeyChange::Put(put) => put.revision,
            KeyChange::Delete { revision, .. } => *revision,
        }
    }
}

/// What a watch gives, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyEvent {
    /// A key was put or deleted, or was there when the watch began.
    Changed(KeyChange),
    /// Everything that was asked for at first has been told: what was there, or the changes since; later changes follow.
    UpToDate {
        /// The revision of that.
        revision: u64,
    },
    /// Changes are forgotten that this watch has not seen: forget what was known, what is there follows.
    Restarted,
    /// The daemon refused to let it go on after a reconnect: nothing more comes.
    Ended(Error),
}

/// A part of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPage {
    /// Keys in order, or changes in order of their revision.
    pub changes: Vec<KeyChange>,
    /// Whether there is more behind the last one.
    pub more: bool,
}
