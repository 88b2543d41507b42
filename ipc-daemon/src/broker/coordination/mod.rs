//! PURE. Coordination: who holds what, who waits for it, and when it ends.
//!
//! The methods of [`Coordination`] fall into three classes, to be called in this order:
//!
//! 1. **Requests** `claim`, `arrive`, `lease`, `renew`, `release`, `proclaim`, `observe`, `unobserve`, `ask`, those of
//!    `queue`, `cancel`, `depart`, `refuse_all`, **time** `handle_timeout`, due at `poll_timeout`, and **the disk** `draft` and `settle`.
//! 2. `advance`: what need not wait for the disk is carried out.
//! 3. **Outputs** `poll_effect`, until it gives `None`: what is to be told to whom, in order.
//!
//! | file | noun |
//! |---|---|
//! | `wait_queue` | a fair queue |
//! | `gate`, `claim` | what locks, semaphores and elections have in common, and how they are had |
//! | `hold` | what is held: its token, its time to live, its end |
//! | `tenure`, `saved_hold` | what is held on a disk: on its way there, and as records of the store |
//! | `closure` | what stays closed over a restart because a holder was lost |
//! | `session` | sessions by the names that a later life of the daemon knows them by |
//! | `election` | the leader's value, and who observes it |
//! | `barrier` | parties that wait for one another |
//! | `keys`, `kv`, `watchers` | keys with their history; what is asked of them; and who watches which |
//! | `line`, `group`, `saved` | changes of keys: waiting, made together, and as records of the store |
//! | `numbers` | where tokens and revisions come from |
//! | [`queue`] | work queues: what is put, taken, acknowledged, given back and dead |
//! | `fences` | the last tokens of locks that nobody has to do with any more |
//! | `effect` | what comes of requests: whom to tell what |
//! | `deadlock` | circles of sessions that wait for one another |
//! | `revoke` | all of that as one session has it, and taking it away |
//! | `rows` | what is shown of all this |

mod barrier;
mod claim;
mod closure;
mod deadlock;
mod effect;
mod election;
mod fences;
mod gate;
mod group;
mod hold;
mod keys;
mod kv;
mod line;
mod numbers;
mod queue;
mod revoke;
mod rows;
mod saved;
mod saved_hold;
mod session;
mod tenure;
mod wait_queue;
mod watchers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use core::time::Duration;

use ipc_core::Error;
use ipc_core::name::ResourceName;
use ipc_core::payload::Payload;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::{Durability, Operation};
use slotmap::SlotMap;

use super::keys::PeerKey;
use super::ledger::{Ledger, User};

use self::barrier::Barriers;
pub(super) use self::claim::Want;
pub(super) use self::effect::{Effect, Link, Reason, Why};
use self::fences::Fences;
pub(super) use self::gate::Share;
use self::gate::{Gate, GateKey};
use self::group::Group;
pub(super) use self::hold::Hand;
use self::hold::Hold;
use self::keys::Keys;
pub(super) use self::keys::{Change, Condition, Entry, Selection};
pub(super) use self::kv::{Act, Ask, Fence, Request, Value};
use self::line::Line;
use self::numbers::Numbers;
pub(super) use self::queue::{By, Given, NackTerms, NewEntry, Peekable, Stored, TakeTerms, Taking};
use self::queue::{QueueKey, Queues, Works};
pub(super) use self::revoke::Stake;
use self::saved::Restored;
pub use self::saved::{after_loss, highest_number};
pub(super) use self::session::SessionName;
use self::session::Sessions;
use self::tenure::Tenures;
use self::wait_queue::Place;
use self::watchers::Watchers;

/// A request that waits: whose it is and what its session knows it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WaitId {
    pub(super) peer: PeerKey,
    pub(super) correlation: u64,
}

/// What sort of thing is held by some while others wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Noun {
    Lock,
    Semaphore,
    Election,
}

impl Noun {
    /// The word for it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Noun::Lock => "lock",
            Noun::Semaphore => "semaphore",
            Noun::Election => "election",
        }
    }
}

/// Who asks, for what, and until when it waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) peer: PeerKey,
    pub(super) user: User,
    pub(super) correlation: u64,
    pub(super) operation: Operation,
    pub(super) until: Option<Instant>,
}

impl Asker {
    pub(super) fn id(&self) -> WaitId {
        WaitId { peer: self.peer, correlation: self.correlation }
    }
}

/// How long something is held, and what happens when its holder is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// Time to live; `None` for as long as the connection.
    pub(super) ttl: Option<Duration>,
    /// How long it stays closed when the holder is lost.
    pub(super) delay: Duration,
    /// What it survives.
    pub(super) durability: Durability,
}

/// What one session has to do with coordination.
#[derive(Debug, Default)]
struct OfPeer {
    holds: BTreeSet<u64>,
    waits: BTreeMap<u64, Wait>,
    observes: BTreeMap<u64, GateKey>,
    watches: BTreeMap<u64, Selection>,
    /// Requests for changes of keys, and of what is kept of work queues, that have not come to anything yet.
    changes: u32,
    works: Works,
}

impl OfPeer {
    fn is_empty(&self) -> bool {
        let is_told_nothing = self.observes.is_empty() && self.watches.is_empty();
        let is_idle = self.works.is_empty() && self.changes == 0;
        self.holds.is_empty() && self.waits.is_empty() && is_told_nothing && is_idle
    }
}

/// A request that waits.
#[derive(Debug)]
struct Wait {
    operation: Operation,
    owner: u64,
    until: Option<Instant>,
    at: WaitsAt,
}

/// Where a request waits.
#[derive(Debug)]
enum WaitsAt {
    Gate { gate: GateKey, place: Place, share: Share, terms: Terms, value: Payload },
    Barrier { name: ResourceName, place: Place },
    Queue { queue: QueueKey, place: Place, terms: TakeTerms, fence: Option<Fence> },
}

/// Something that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// What is held ends, by its token.
    Hold(u64),
    /// A key ends, by the revision of its put.
    Key(u64),
    /// A gate opens again.
    Gate(GateKey),
    /// A request waits no longer.
    Wait(WaitId),
    /// A delivery ends, by its token.
    Delivery(u64),
    /// An entry of a work queue can be taken.
    Entry(QueueKey, u64),
    /// A work queue forgets an id.
    Ids(QueueKey),
}

/// Everything that is coordinated.
#[derive(Debug, Default)]
pub(super) struct Coordination {
    gates: SlotMap<GateKey, Gate>,
    by_name: BTreeMap<(Noun, ResourceName), GateKey>,
    barriers: Barriers,
    /// How many gates and barriers there are, by who has made them.
    resources: Ledger<Option<u32>>,
    holds: BTreeMap<u64, Hold>,
    tenures: Tenures,
    sessions: Sessions,
    peers: BTreeMap<PeerKey, OfPeer>,
    /// Leases that outlive their connection, by user.
    detached: BTreeMap<u32, u32>,
    keys: Keys,
    line: Line,
    /// Requests that have not come to anything yet, by user.
    changes: Ledger<Option<u32>>,
    /// What of the keys is on its way to the disk.
    group: Option<Group>,
    restored: Restored,
    /// Keys by the lease they end with.
    leased: BTreeMap<u64, BTreeSet<ResourceName>>,
    /// Keys that end by themselves, by the revision of their put.
    expiring: BTreeMap<u64, ResourceName>,
    key_watchers: Watchers,
    queues: Queues,
    fences: Fences,
    /// How many of them are remembered.
    fences_max: usize,
    timers: BTreeSet<(Instant, Timer)>,
    effects: VecDeque<Effect>,
    numbers: Numbers,
}

impl Coordination {
    /// The next thing to be told or charged.
    pub(super) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Coordination::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// When a commit is to be tried again, if none is under way.
    pub(super) fn poll_commit_timeout(&self) -> Option<Instant> {
        self.numbers.poll_timeout().into_iter().chain(self.lazy_at()).chain(self.tenures_due_at()).min()
    }

    /// Ends what is due at `now`.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Hold(token) => self.expire(now, token),
                Timer::Key(revision) => self.expire_key(revision),
                Timer::Gate(gate) => self.reopen(now, gate),
                Timer::Wait(id) => self.give_up_waiting(now, id),
                Timer::Delivery(token) => self.expire_delivery(now, token),
                Timer::Entry(queue, number) => self.end_delay(now, queue, number),
                Timer::Ids(queue) => self.forget_ids(now, queue),
            }
        }
    }

    /// Whether the session holds, awaits or observes anything, or would be known again.
    pub(super) fn concerns(&self, peer: PeerKey) -> bool {
        self.peers.contains_key(&peer) || self.is_identified(peer)
    }

    /// What the session holds, waits for, and observes or watches, in numbers.
    pub(super) fn counts(&self, peer: PeerKey) -> (usize, usize, usize) {
        let counts = |of: &OfPeer| (of.holds.len(), of.waits.len(), of.observes.len() + of.watches.len());
        self.peers.get(&peer).map_or((0, 0, 0), counts)
    }

    /// Requests of the session that wait for the disk.
    pub(super) fn changes_pending(&self, peer: PeerKey) -> u32 {
        self.peers.get(&peer).map_or(0, |of| of.changes)
    }

    /// A session ends: its requests, then its observations and watches, then its work, then what it holds, each in the order in
    /// which they came.
    pub(super) fn depart(&mut self, now: Instant, peer: PeerKey) {
        self.sessions.leave(peer);
        let Some(of) = self.peers.get(&peer) else { return };
        let waits: Vec<u64> = of.waits.keys().copied().collect();
        let observes: Vec<u64> = of.observes.keys().copied().collect();
        let watches: Vec<u64> = of.watches.keys().copied().collect();
        let holds: Vec<u64> = of.holds.iter().copied().collect();
        // All of its requests are gone before others are let in: none of them is granted any more.
        let left: Vec<Option<GateKey>> =
            waits.into_iter().map(|correlation| self.leave_queue(WaitId { peer, correlation }).1).collect();
        for gate in left.into_iter().flatten() {
            self.pump(now, gate);
        }
        for observation in observes {
            self.unobserve(peer, observation);
        }
        for watch in watches {
            self.unwatch(peer, watch);
        }
        self.leave_work(now, peer);
        for token in holds {
            self.lose(now, token);
        }
    }

    /// The session does not want the request any more. Says whether there was one.
    pub(super) fn cancel(&mut self, now: Instant, peer: PeerKey, correlation: u64) -> bool {
        let to = WaitId { peer, correlation };
        let Some(wait) = self.end_wait(now, to) else { return false };
        let error = Error::new(ipc_core::ErrorCode::Cancelled, "the request was cancelled while it waited");
        self.effects.push_back(Effect::Refused { to, operation: wait.operation, reason: error.into() });
        true
    }

    /// Every request that waits ends with this error.
    pub(super) fn refuse_all(&mut self, now: Instant, error: &Error) {
        let waits = self.peers.iter().flat_map(|(peer, of)| {
            of.waits.keys().map(|correlation| WaitId { peer: *peer, correlation: *correlation })
        });
        let waits: Vec<(WaitId, Error)> = waits.map(|to| (to, error.clone())).collect();
        self.refuse_waits(now, waits);
    }

    /// These requests that wait end, each with its error.
    fn refuse_waits(&mut self, now: Instant, waits: impl IntoIterator<Item = (WaitId, Error)>) {
        let mut left = Vec::new();
        for (to, error) in waits {
            let (wait, gate) = self.leave_queue(to);
            left.extend(gate);
            if let Some(wait) = wait {
                let reason = error.into();
                self.effects.push_back(Effect::Refused { to, operation: wait.operation, reason });
            }
        }
        // Only now that none of them waits: the end of one wait is not to be the turn of the next.
        for gate in left {
            self.pump(now, gate);
        }
    }

    fn next_token(&mut self, now: Instant) -> u64 {
        self.numbers.next(now)
    }

    fn check_wait(&self, asker: &Asker, limits: &ipc_core::limits::Limits) -> Result<(), Error> {
        let Some(of) = self.peers.get(&asker.peer) else { return Ok(()) };
        if of.waits.contains_key(&asker.correlation) {
            let message = format!("request {} of this connection waits already", asker.correlation);
            return Err(Error::new(ipc_core::ErrorCode::Conflict, message));
        }
        if of.waits.len() >= limits.waits_per_connection_max as usize {
            return Err(Error::quota("waits_per_connection_max", limits.waits_per_connection_max.into()));
        }
        Ok(())
    }

    fn begin_wait(&mut self, asker: &Asker, owner: u64, at: WaitsAt) {
        if let Some(until) = asker.until {
            self.timers.insert((until, Timer::Wait(asker.id())));
        }
        let of = self.peers.entry(asker.peer).or_default();
        if let WaitsAt::Queue { terms, .. } = &at {
            of.works.wait(*terms, 1);
        }
        let wait = Wait { operation: asker.operation, owner, until: asker.until, at };
        of.waits.insert(asker.correlation, wait);
        self.charge(asker.peer, 0, 1, 0);
    }

    /// Takes a request out of the tables, but not out of where it waits.
    fn forget_wait(&mut self, id: WaitId) -> Option<Wait> {
        let of = self.peers.get_mut(&id.peer)?;
        let wait = of.waits.remove(&id.correlation)?;
        if let WaitsAt::Queue { terms, .. } = &wait.at {
            of.works.wait(*terms, -1);
        }
        if let Some(until) = wait.until {
            self.timers.remove(&(until, Timer::Wait(id)));
        }
        self.charge(id.peer, 0, -1, 0);
        Some(wait)
    }

    /// Ends a wait; those behind it may go on.
    fn end_wait(&mut self, now: Instant, id: WaitId) -> Option<Wait> {
        let (wait, gate) = self.leave_queue(id);
        if let Some(gate) = gate {
            self.pump(now, gate);
        }
        wait
    }

    /// Takes a request out of where it waits. Says at which gate that was, where others may go on.
    fn leave_queue(&mut self, id: WaitId) -> (Option<Wait>, Option<GateKey>) {
        let Some(wait) = self.forget_wait(id) else { return (None, None) };
        let gate = match &wait.at {
            WaitsAt::Gate { gate, place, .. } => {
                if let Some(gate) = self.gates.get_mut(*gate) {
                    gate.queue.remove(*place);
                }
                Some(*gate)
            }
            WaitsAt::Barrier { name, place } => {
                self.leave_barrier(name, *place);
                None
            }
            WaitsAt::Queue { queue, place, .. } => {
                self.leave_line(*queue, *place);
                None
            }
        };
        (Some(wait), gate)
    }

    /// A request has waited for as long as it was to.
    fn give_up_waiting(&mut self, now: Instant, to: WaitId) {
        let wait = self.peers.get(&to.peer).and_then(|of| of.waits.get(&to.correlation));
        let Some(wait) = wait else { return };
        let reason = match &wait.at {
            WaitsAt::Gate { gate, .. } => self.busy(*gate),
            WaitsAt::Barrier { name, .. } => {
                Reason::Busy { what: format!("barrier {name}"), why: Why::Unknown }
            }
            WaitsAt::Queue { queue, .. } => self.nothing_in(*queue),
        };
        if let Some(wait) = self.end_wait(now, to) {
            self.effects.push_back(Effect::Refused { to, operation: wait.operation, reason });
        }
    }

    /// Says what a session has more or less of, and forgets it when it has nothing left.
    fn charge(&mut self, peer: PeerKey, holds: i32, waits: i32, observations: i32) {
        self.effects.push_back(Effect::Charged { peer, holds, waits, observations });
        if self.peers.get(&peer).is_some_and(OfPeer::is_empty) {
            self.peers.remove(&peer);
        }
    }
}
