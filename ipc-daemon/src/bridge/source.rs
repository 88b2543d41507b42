//! The sources of datagrams that an exposed UDP port knows: a way that they come by each, with its peer on the bus.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use ipc_core::Error;
use ipc_core::session::Ticket;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::caller::{Caller, Outcome};
use super::origin::Origin;
use crate::broker::ledger::{Ledger, is_fair};

/// Which way datagrams come, and their replies go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    /// Who sends them.
    pub(super) client: SocketAddr,
    /// Which address of this machine they are sent to, where the port has more than one.
    pub(super) local: Option<IpAddr>,
}

impl Way {
    /// Who shares as one with its client.
    pub(super) fn origin(&self) -> Origin {
        Origin::of(self.client.ip())
    }
}

/// One source.
pub(super) struct Source {
    /// Where its datagrams come from, and the replies go to.
    pub(super) way: Way,
    caller: RefCell<Caller>,
    /// The length of the datagram behind each open call.
    open: RefCell<BTreeMap<Ticket, usize>>,
    /// Where it stands in the order of the idle ones; `None` while it is busy.
    rank: Cell<Option<Rank>>,
}

/// The order in which sources became idle.
type Rank = u64;

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
    /// How many there are, by where they come from.
    known: Ledger<Origin>,
    /// How many of them are busy.
    busy: Ledger<Origin>,
    /// The idle ones, and since when they are.
    idle: BTreeMap<Rank, (Instant, Way)>,
    idle_of: BTreeSet<(Origin, Rank)>,
    next: Rank,
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

    /// Whether one more of that origin may be busy. Idle ones are in nobody's way.
    ///
    /// # Errors
    /// `quota_exceeded`.
    pub(super) fn check_busy(&self, origin: Origin, max: u32) -> Result<(), Error> {
        // Nobody is alone here: whoever else may want to come is not known.
        self.busy.standing(origin).check(1, "expose_udp_sources_max", max.into(), false)
    }

    /// Makes room for one more of that origin, for which the check has been made: where it would have more than are left, its own
    /// that has been idle for the longest time is forgotten, so that whoever comes from ever new ports pushes nobody out.
    pub(super) fn make_room(&mut self, origin: Origin, max: u32) {
        let left = u64::from(max).saturating_sub(self.known.total());
        if is_fair(self.known.of(origin), 1, left) {
            return;
        }
        let own = self.idle_of.range((origin, Rank::MIN)..=(origin, Rank::MAX)).next();
        match own.map(|(_, rank)| *rank) {
            Some(rank) => self.forget_idle(rank),
            None if left == 0 => self.forget_idlest(),
            None => {}
        }
    }

    /// Takes a source in, idle.
    pub(super) fn insert(&mut self, source: Rc<Source>, task: AbortHandle, now: Instant) {
        let (way, origin) = (source.way, source.way.origin());
        self.known.add(origin, 1);
        self.enqueue(&source, now);
        self.entries.insert(way, Entry { source, task });
    }

    /// The source has a call.
    pub(super) fn busy(&mut self, source: &Source) {
        if self.dequeue(source) {
            self.busy.add(source.way.origin(), 1);
        }
    }

    /// The source has no call any more.
    pub(super) fn idle(&mut self, source: &Source, now: Instant) {
        if !self.dequeue(source) {
            self.busy.remove(source.way.origin(), 1);
        }
        self.enqueue(source, now);
    }

    /// When the source that has been idle for the longest time became idle.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.idle.values().next().map(|(since, _)| *since)
    }

    /// Forgets the source that has been idle for the longest time, if there is one.
    pub(super) fn forget_idlest(&mut self) {
        if let Some(rank) = self.idle.keys().next().copied() {
            self.forget_idle(rank);
        }
    }

    fn forget_idle(&mut self, rank: Rank) {
        let way = self.idle.get(&rank).map(|(_, way)| *way);
        if let Some(source) = way.and_then(|way| self.get(way)) {
            self.forget(&source);
        }
    }

    /// Forgets a source.
    pub(super) fn forget(&mut self, source: &Source) {
        let origin = source.way.origin();
        if self.entries.remove(&source.way).is_some() {
            self.known.remove(origin, 1);
            if !self.dequeue(source) {
                self.busy.remove(origin, 1);
            }
        }
    }

    fn enqueue(&mut self, source: &Source, now: Instant) {
        let rank = self.next;
        self.next += 1;
        source.rank.set(Some(rank));
        self.idle.insert(rank, (now, source.way));
        self.idle_of.insert((source.way.origin(), rank));
    }

    /// Takes a source out of the order of the idle ones. Says whether it was there.
    fn dequeue(&mut self, source: &Source) -> bool {
        let Some(rank) = source.rank.take() else { return false };
        self.idle.remove(&rank);
        self.idle_of.remove(&(source.way.origin(), rank));
        true
    }
}
