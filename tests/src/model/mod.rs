//! The reference model: what the bus is meant to do, said as simply as possible and with no code of the broker.
//!
//! It is given what the daemon's end of each connection has read, in the same order, and keeps its own tables of
//! names, calls, topics and subscriptions, looked through from front to back. From them it knows what each client is
//! to receive, in order. Where the broker is free to choose because a queue may be full, the model lets the broker's own
//! account ([`Queues`]) decide, and then holds it to that choice.

mod announced;
mod audit;
mod barrier;
mod calls;
mod came;
mod connect;
mod coordinated;
mod coordination;
mod datagrams;
mod expect;
mod filter;
mod handles;
mod inbox;
mod keys;
mod leave;
mod names;
mod receive;
mod reload;
mod rights;
mod shares;
mod streams;
mod tenure;
mod topics;

pub use audit::{Charged, GateSeen, QueueRow, Queues, ServiceSeen, Snapshot, TopicSeen};
pub use datagrams::Ledger;
pub use expect::is_of_share;
pub use rights::{REIGNS, policy};

use std::collections::{BTreeMap, BTreeSet};

use core::time::Duration;

use ipc_core::error::ErrorCode;
use ipc_core::id::Epoch;
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::time::Instant;
use ipc_core::wire::message::Hello;
use ipc_core::wire::{FEATURE_REVOCATION, Flags, Kind};
use ipc_daemon::broker::PeerKey;

use self::announced::Announced;
use self::calls::Call;
use self::connect::payer;
use self::coordination::{Coordination, Gate};
use self::expect::{Answer, Expected, Refusal};
use self::handles::Target;
use self::inbox::{Due, Inbox};
use self::keys::Keys;
use self::names::{Service, Watch};
use self::streams::Stream;
use self::tenure::{Session, Tenures};
use self::topics::{Subscription, Topic};
use crate::world::Seen;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Greeting,
    Active,
    /// It sends nothing more and waits for the outcomes of its calls.
    InputEnded,
    /// It has left the bus and is still written to.
    Left,
    /// Its end at the daemon is closed.
    Gone,
}

/// A connection.
#[derive(Debug)]
struct Connection {
    peer: u64,
    key: Option<PeerKey>,
    identity: Identity,
    only: Option<(String, String)>,
    is_tcp: bool,
    /// As what it would be known again.
    session: Option<Session>,
    phase: Phase,
    accepted_at: Instant,
    hello_due: Instant,
    handles: BTreeMap<u32, (u16, Target)>,
    /// Model's number to the daemon's, once the owner was told.
    registrations: BTreeMap<u64, u32>,
    inbox: Inbox,
    announced: Announced,
    /// What the client has not read was written after this.
    written_since: Instant,
    /// The daemon's numbers of calls that this connection was handed, by the model's.
    handed: BTreeMap<u64, u64>,
    /// It can be told what is taken away from it.
    may_be_told: bool,
    /// The client has gone away and hears nothing.
    is_deaf: bool,
    /// The broker has asked to close it.
    is_closing: bool,
}

/// The reference model.
#[derive(Debug)]
pub struct Model {
    limits: Limits,
    /// Which of [`REIGNS`] holds.
    reign: usize,
    now: Instant,
    connections: BTreeMap<usize, Connection>,
    services: BTreeMap<String, Service>,
    watches: Vec<Watch>,
    calls: BTreeMap<u64, Call>,
    topics: BTreeMap<String, Topic>,
    subscriptions: Vec<Subscription>,
    coordination: Coordination,
    tenures: Tenures,
    /// Permits of semaphores, as they were used last.
    permits: BTreeMap<Gate, u32>,
    /// Tokens that holders were told, by the model's number of the grant.
    tokens: BTreeMap<u64, u64>,
    /// What each of these grants was of.
    gate_of: BTreeMap<u64, Option<Gate>>,
    /// Passages of barriers as parties were told, by the model's number.
    generations: BTreeMap<u64, u64>,
    keys: Keys,
    /// What clients have asked to be told of, of keys and elections.
    streams: Vec<Stream>,
    /// Streams more or less, as the broker says, since the frame came that is dealt with.
    more_streams: isize,
    has_store: bool,
    /// The disk has failed.
    is_disk_dead: bool,
    /// This life of the daemon.
    epoch: Epoch,
    is_draining: bool,
    /// The last number given to anything.
    last: u64,
    /// Grows with everything that happens.
    batch: u64,
    /// What happens now happens to several at once, in no order.
    is_at_once: bool,
    /// Name changes told in this batch: connection and watch, in order.
    told: Vec<(usize, u64)>,
    /// Who has ever had which connection number of the daemon's: the model's number and the identity.
    people: BTreeMap<u64, (usize, Identity)>,
    /// Subscriptions whose events may have been dropped.
    excused: BTreeSet<u64>,
    /// The broker's account of its queues after the last thing that happened.
    last_queues: Queues,
}

impl Model {
    /// A bus without connections, with a store or without.
    pub fn new(limits: Limits, epoch: Epoch, has_store: bool) -> Self {
        Self {
            limits,
            reign: 0,
            now: Instant::default(),
            connections: BTreeMap::new(),
            services: BTreeMap::new(),
            watches: Vec::new(),
            calls: BTreeMap::new(),
            topics: BTreeMap::new(),
            subscriptions: Vec::new(),
            coordination: Coordination::default(),
            tenures: Tenures::default(),
            permits: BTreeMap::new(),
            tokens: BTreeMap::new(),
            gate_of: BTreeMap::new(),
            generations: BTreeMap::new(),
            keys: Keys::new(has_store),
            streams: Vec::new(),
            more_streams: 0,
            has_store,
            is_disk_dead: false,
            epoch,
            is_draining: false,
            last: 0,
            batch: 0,
            is_at_once: false,
            told: Vec::new(),
            people: BTreeMap::new(),
            excused: BTreeSet::new(),
            last_queues: Queues::default(),
        }
    }

    /// Which of [`REIGNS`] holds.
    pub fn reign(&self) -> usize {
        self.reign
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn begin(&mut self, now: Instant) {
        self.now = now;
        self.batch += 1;
        self.is_at_once = false;
        self.told.clear();
    }

    /// Makes something due to a connection.
    fn push(&mut self, to: usize, what: Expected) {
        let is_event = matches!(what, Expected::Event { .. });
        let due = Due {
            what,
            batch: self.batch,
            is_loose: is_event || self.is_at_once,
            is_optional: false,
            may_be_lost: false,
        };
        self.push_due(to, due);
    }

    fn push_due(&mut self, to: usize, due: Due) {
        if let Some(connection) = self.connections.get_mut(&to)
            && !matches!(connection.phase, Phase::Left | Phase::Gone)
        {
            connection.inbox.push(due);
        }
    }

    fn done(&mut self, to: usize, correlation: u64, answer: Answer) {
        self.push(to, Expected::Done { correlation, answer });
    }

    fn conclude(&mut self, to: usize, correlation: u64, result: Result<Answer, Refusal>) {
        let answer = result.unwrap_or_else(Answer::Refused);
        self.done(to, correlation, answer);
    }

    fn phase(&self, number: usize) -> Phase {
        self.connections.get(&number).map_or(Phase::Gone, |connection| connection.phase)
    }

    /// Whether a connection is on the bus.
    fn is_here(&self, number: usize) -> bool {
        matches!(self.phase(number), Phase::Greeting | Phase::Active | Phase::InputEnded)
    }

    fn set_phase(&mut self, number: usize, phase: Phase) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.phase = phase;
        }
    }

    /// Bytes of a connection have arrived, no frame yet.
    pub fn first_bytes(&mut self, number: usize) {
        let timeout = Duration::from_millis(self.limits.tcp_hello_timeout_ms.into());
        if let Some(connection) = self.connections.get_mut(&number)
            && connection.is_tcp
        {
            connection.hello_due = connection.accepted_at + timeout;
        }
    }

    /// The daemon has read a frame of a connection and handed it to the broker.
    ///
    /// # Errors
    /// A sentence, when what the broker made of it cannot be.
    pub fn frame(
        &mut self,
        now: Instant,
        from: usize,
        seen: &Seen,
        before: &Queues,
        after: &Queues,
    ) -> Result<(), String> {
        self.begin(now);
        self.more_streams = self.streams_of_row(from, after) - self.streams_of_row(from, before);
        match self.phase(from) {
            Phase::Active => {}
            Phase::Greeting => {
                self.hello(from, seen);
                return self.reconcile(after);
            }
            Phase::InputEnded | Phase::Left | Phase::Gone => return Ok(()),
        }
        let is_known = Kind::ALL.contains(&seen.kind());
        if seen.has(Flags::ERROR) && seen.kind() != Kind::REPLY && is_known {
            self.violate(from);
            return self.reconcile(after);
        }
        let is_fine = match seen.kind() {
            Kind::CALL => self.call(from, seen, before, after).map(|()| true)?,
            Kind::REPLY => {
                self.reply(from, seen, before);
                true
            }
            Kind::PUBLISH => self.publish(from, seen, before),
            Kind::PING => {
                let is_fine = seen.envelope.is_empty();
                if is_fine {
                    self.ping(from, seen);
                }
                is_fine
            }
            Kind::COORDINATE => self.coordinate(from, seen),
            _ if is_known => seen.payload.is_empty() && self.operation(from, seen),
            _ => {
                if seen.header.correlation != 0 {
                    let refusal = Refusal::of(ErrorCode::Unsupported);
                    self.done(from, seen.header.correlation, Answer::Refused(refusal));
                }
                true
            }
        };
        if !is_fine {
            self.violate(from);
        }
        self.reconcile(after)
    }

    /// Handles everything that is rare. `false` when it is a violation.
    fn operation(&mut self, from: usize, seen: &Seen) -> bool {
        let has_no_envelope = matches!(seen.kind(), Kind::CANCEL | Kind::RELEASE | Kind::UNREGISTER);
        if has_no_envelope && !seen.envelope.is_empty() {
            return false;
        }
        match seen.kind() {
            Kind::CANCEL => {
                self.cancel(from, seen.header.correlation);
                true
            }
            Kind::RESOLVE => self.resolve(from, seen),
            Kind::OPEN_TOPIC => self.open_topic(from, seen),
            Kind::RELEASE => {
                self.release(from, seen);
                true
            }
            Kind::REGISTER => self.register(from, seen),
            Kind::UNREGISTER => {
                self.unregister(from, seen);
                true
            }
            Kind::WATCH_NAMES => self.watch(from, seen),
            Kind::UNWATCH_NAMES => self.unwatch(from, seen),
            Kind::SUBSCRIBE => self.subscribe(from, seen),
            Kind::UNSUBSCRIBE => self.unsubscribe(from, seen),
            Kind::CLOSE => {
                self.leave(from, None);
                true
            }
            _ => false,
        }
    }

    fn hello(&mut self, from: usize, seen: &Seen) {
        let is_bare =
            seen.kind() == Kind::HELLO && seen.header.flags == Flags::NONE && seen.payload.is_empty();
        let hello = if is_bare { seen.decode::<Hello>() } else { None };
        let Some(hello) = hello.filter(|hello| hello.name.0.len() <= 64) else {
            self.violate(from);
            return;
        };
        if hello.version_min > 1 || hello.version_max < 1 {
            self.leave(from, Some(vec![ErrorCode::UnsupportedVersion]));
            return;
        }
        self.set_phase(from, Phase::Active);
        if let Some(connection) = self.connections.get_mut(&from) {
            connection.may_be_told = hello.features & FEATURE_REVOCATION != 0;
        }
        let peer = self.connections.get(&from).map_or(0, |connection| connection.peer);
        self.push(from, Expected::Welcome { peer, epoch: self.epoch.0 });
    }

    fn ping(&mut self, from: usize, seen: &Seen) {
        let correlation = seen.header.correlation;
        if seen.payload.len() > 4096 {
            self.done(from, correlation, Answer::Refused(Refusal::of(ErrorCode::PayloadTooLarge)));
        } else {
            self.push(from, Expected::Pong { correlation, payload: seen.payload.clone() });
        }
    }

    fn violate(&mut self, from: usize) {
        self.leave(from, Some(vec![ErrorCode::ProtocolViolation]));
    }

    /// The daemon has read something that is no frame.
    pub fn violation(&mut self, now: Instant, from: usize) {
        self.begin(now);
        self.violate(from);
    }

    /// The clock stands at `now`, and the broker was told.
    pub fn timeout(&mut self, now: Instant) {
        self.begin(now);
        self.is_at_once = true;
        self.calls_out_of_time();
        self.coordination_out_of_time();
        let late = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.phase == Phase::Greeting && connection.hello_due <= now);
        let late: Vec<usize> = late.map(|(number, _)| *number).collect();
        for number in late {
            self.leave(number, Some(vec![ErrorCode::Unauthenticated]));
        }
    }

    /// Whether nothing is overdue.
    ///
    /// # Errors
    /// A sentence that says what the broker has slept through.
    pub fn is_nothing_due(&self, now: Instant) -> Result<(), String> {
        if let Some(call) = self.calls.values().find(|call| call.due.is_some_and(|due| due <= now)) {
            return Err(format!("the deadline of a call was slept through: {call:?}"));
        }
        if let Some(late) = self.coordination_overdue(now) {
            return Err(late);
        }
        let is_late =
            |connection: &Connection| connection.phase == Phase::Greeting && connection.hello_due <= now;
        match self.connections.values().find(|connection| is_late(connection)) {
            Some(connection) => {
                Err(format!("peer {} said no hello in time and is still there", connection.peer))
            }
            None => Ok(()),
        }
    }

    /// The daemon was asked to stop.
    pub fn begin_drain(&mut self, now: Instant) {
        self.begin(now);
        self.is_draining = true;
        self.refuse_waits(ErrorCode::ShuttingDown);
    }
}
