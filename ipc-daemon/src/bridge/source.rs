//! The sources of datagrams that an exposed UDP port knows: a way that they come by each, with its peer on the bus.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use ipc_core::Error;
use ipc_core::session::Ticket;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::caller::{Caller, Outcome};

/// Which way datagrams come, and their replies go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    /// Who sends them.
    pub(super) client: SocketAddr,
    /// Which address of this machine they are sent to, where the port has more than one.
    pub(super) local: Option<IpAddr>,
}

/// One source.
pub(super) struct Source {
    /// Where its datagrams come from, and the replies go to.
    pub(super) way: Way,
    caller: RefCell<Caller>,
    /// The length of the datagram behind each open call.
    open: RefCell<BTreeMap<Ticket, usize>>,
    /// Where it stands in the order of the idle ones.
    rank: Cell<Option<Rank>>,
}

/// The order in which sources became idle.
type Rank = (Instant, u64);

impl Source {
    /// A source whose calls go through `caller`.
    pub(super) fn new(way: Way, caller: Caller) -> Self {
        Self { way, caller: RefCell::new(caller), open: RefCell::default(), rank: Cell::new(None) }
    }

    /// How many calls are open.
    pub(super) fn open_calls(&self) -> usize {
        self.caller.borrow().open()
    }

    /// Makes a datagram a call.
    ///
    /// # Errors
    /// When the call cannot even be made.
    pub(super) fn call(&self, datagram: Bytes) -> Result<(), Error> {
        let length = datagram.len();
        let ticket = self.caller.borrow_mut().call(datagram)?;
        self.open.borrow_mut().insert(ticket, length);
        Ok(())
    }

    /// What the next call came to, with the length of its datagram; the error when the bus has closed the peer.
    pub(super) fn poll_outcome(&self, context: &mut Context<'_>) -> Poll<Result<(usize, Outcome), Error>> {
        self.caller
            .borrow_mut()
            .poll_outcome(context)
            .map_ok(|(ticket, outcome)| (self.open.borrow_mut().remove(&ticket).unwrap_or_default(), outcome))
    }
}

/// A source with the task that writes its replies. The task ends when this is dropped.
struct Entry {
    source: Rc<Source>,
    task: AbortHandle,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All sources of a port. Those without an open call are idle, and can be forgotten, the one that has been idle for
/// the longest time first.
#[derive(Default)]
pub(super) struct Sources {
    entries: BTreeMap<Way, Entry>,
    idle: BTreeMap<Rank, Way>,
    next: u64,
}

impl Sources {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The source whose datagrams come that way.
    pub(super) fn get(&self, way: Way) -> Option<Rc<Source>> {
        self.entries.get(&way).map(|entry| Rc::clone(&entry.source))
    }

    /// Takes a source in, busy.
    pub(super) fn insert(&mut self, source: Rc<Source>, task: AbortHandle) {
        self.entries.insert(source.way, Entry { source, task });
    }

    /// The source has a call.
    pub(super) fn busy(&mut self, source: &Source) {
        if let Some(rank) = source.rank.take() {
            self.idle.remove(&rank);
        }
    }

    /// The source has no call any more.
    pub(super) fn idle(&mut self, source: &Source, now: Instant) {
        self.busy(source);
        let rank = (now, self.next);
        self.next += 1;
        source.rank.set(Some(rank));
        self.idle.insert(rank, source.way);
    }

    /// When the source that has been idle for the longest time became idle.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.idle.keys().next().map(|(since, _)| *since)
    }

    /// Forgets the source that has been idle for the longest time. Says whether there was one.
    pub(super) fn forget_idlest(&mut self) -> bool {
        let Some((_, way)) = self.idle.pop_first() else { return false };
        self.entries.remove(&way).is_some()
    }

    /// Forgets a source.
    pub(super) fn forget(&mut self, source: &Source) {
        self.busy(source);
        self.entries.remove(&source.way);
    }
}
