//! What comes of requests: whom to tell what.

use core::time::Duration;

use ipc_core::Error;
use ipc_core::name::ResourceName;
use ipc_core::payload::Payload;
use ipc_core::wire::coordination::{Durability, Operation, Waiting};
use ipc_core::wire::message::RevokedWhat;

use super::WaitId;
use super::keys::Change;
use super::queue::{Given, Stored};
use crate::broker::keys::PeerKey;

/// One session of a circle: it holds what the one before wants, and waits for this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Link {
    pub(in crate::broker) peer: PeerKey,
    pub(in crate::broker) waits_for: String,
}

/// Why something is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Why {
    /// There is nobody to be named.
    Unknown,
    /// Others hold it; this is the eldest of them.
    Held(PeerKey),
    /// The eldest is a session of that user, which has not come back since the daemon was started again.
    Absent(u32),
    /// A holder was lost a while ago.
    Closed,
}

/// Why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Reason {
    Error(Error),
    /// It was not to be had.
    Busy {
        what: String,
        why: Why,
    },
    /// Each waits for the next, and the last for the first.
    Deadlock(Vec<Link>),
}

impl From<Error> for Reason {
    fn from(error: Error) -> Self {
        Reason::Error(error)
    }
}

/// What is to be told, or charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Effect {
    /// A request has got what it wants.
    Granted { to: WaitId, operation: Operation, token: u64, ttl: Option<Duration>, durability: Durability },
    /// A leader has changed what it proclaims.
    Proclaimed { to: WaitId },
    /// A session holds again what an earlier life of the daemon has kept; a lease has no name.
    TakenUp {
        to: WaitId,
        token: u64,
        operation: Operation,
        name: Option<ResourceName>,
        ttl: Option<Duration>,
        durability: Durability,
    },
    /// A session has a name, and has been told what it holds under it.
    Identified { to: WaitId, holds: u32 },
    /// All parties have arrived.
    Passed { to: WaitId, generation: u64, place: u32 },
    /// A request came to nothing.
    Refused { to: WaitId, operation: Operation, reason: Reason },
    /// A request waits.
    Waits { to: WaitId, operation: Operation, holder: Option<PeerKey>, waiting: Waiting },
    /// A session has lost what it held.
    Lost { to: WaitId, token: u64, error: Error },
    /// A session may not observe or watch any more.
    Revoked { to: WaitId, what: RevokedWhat, error: Error },
    /// An observer is told who leads.
    Leads { to: WaitId, leader: Option<PeerKey>, token: u64, value: Payload, is_answer: bool },
    /// A request for changes of keys was carried out: a revision for each.
    KeysChanged { to: WaitId, operation: Operation, revisions: Vec<u64>, durability: Durability },
    /// A watch is told of a change of a key.
    Changed { to: WaitId, change: Change },
    /// A watch has been told what it was to be told at first.
    Watches { to: WaitId, revision: u64 },
    /// An entry was put into a work queue, or had been.
    Enqueued { to: WaitId, stored: Stored },
    /// An entry was acknowledged.
    Acked { to: WaitId },
    /// So many entries were thrown away.
    Purged { to: WaitId, count: u64 },
    /// An entry of a work queue is delivered: to a request as its answer, or to a consumer.
    Delivered { to: WaitId, is_answer: bool, given: Box<Given> },
    /// A consumer is there.
    Consumes { to: WaitId },
    /// A consumer is there no more.
    ConsumerLost { to: WaitId },
    /// An entry has become a dead letter.
    Buried,
    /// A session holds so much more, waits for so much more, observes so much more.
    Charged { peer: PeerKey, holds: i32, waits: i32, observations: i32 },
}

impl Effect {
    /// Whose request, of those that may have waited for the disk or for others, has ended with this.
    pub(in crate::broker) fn answered(&self) -> Option<PeerKey> {
        let (Effect::Refused { to, .. }
        | Effect::KeysChanged { to, .. }
        | Effect::Enqueued { to, .. }
        | Effect::Acked { to }
        | Effect::Purged { to, .. }) = self
        else {
            return None;
        };
        Some(to.peer)
    }
}
