//! The simulated world: one real broker, simulated clients, simulated links between them, and one clock.
//!
//! [`World::step`] does one thing that can happen and lets bytes flow for a while; what flows and how far is decided
//! by the step's own seed, so that a list of steps always plays the same. Every frame that the daemon's end reads
//! goes to the broker and to the reference model, every frame that a client reads is judged by the model, and after
//! each step the broker's own account of itself is held against the model's.

mod apply;
mod client;
mod coordination;
mod coverage;
mod keys;
mod link;
mod mail;
mod seen;
mod shell;
mod store;

pub use client::{Client, Knowledge, Registration};
pub use coverage::Coverage;
pub use link::{Link, Pipe};
pub use mail::Weather;
pub use seen::{Draft, Seen};

use ipc_core::error::ErrorCode;
use ipc_core::id::{Epoch, Handle};
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::Told;
use ipc_core::wire::message::{Close, ErrorBody, NameChanged, Revoked};
use ipc_core::wire::{Decoder, Flags, Kind};
use ipc_daemon::broker::{Broker, PeerKey};
use ipc_daemon::datagram::ClientKey;

use crate::disk::Disk;
use crate::generator::Step;
use crate::model::{Model, is_of_share};
use crate::rng::Rng;
use mail::Mail;

/// The epoch of every simulated daemon in its first life.
pub const EPOCH: Epoch = Epoch(0x5eed);
/// What every simulated daemon calls itself.
pub const SERVER: &str = "simulated";

/// How many bytes of a connection whose bytes arrive one by one arrive in one step at most.
const TRICKLE_ROUNDS_MAX: usize = 200;

/// How the daemon's end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Socket {
    /// It reads and writes.
    Open(PeerKey),
    /// The broker has asked for the end; what is left is written until then.
    Closing(PeerKey, Instant),
    /// It is closed.
    Closed,
}

impl Socket {
    fn key(self) -> Option<PeerKey> {
        match self {
            Socket::Open(key) | Socket::Closing(key, _) => Some(key),
            Socket::Closed => None,
        }
    }
}

/// One connection with both of its ends.
#[derive(Debug)]
struct Connection {
    /// The number by which the model knows it; never given twice.
    number: usize,
    /// Which simulated client it belongs to; a client that reconnects has a new connection.
    slot: usize,
    socket: Socket,
    /// The daemon's decoder.
    decoder: Decoder,
    link: Link,
    client: Client,
    /// The daemon has seen the end of what the client sends.
    has_read_all: bool,
    /// Bytes on their way were lost.
    is_cut: bool,
    /// All that was due was written before the daemon closed its end.
    is_whole: bool,
    /// The client has let go of its end: it reads nothing any more.
    is_abandoned: bool,
    /// The client has seen the end.
    is_over: bool,
    /// It came over TCP.
    is_tcp: bool,
    /// It is the connection of a sender of datagrams, whose end the daemon itself holds.
    visitor: Option<ClientKey>,
}

/// The simulated world.
#[derive(Debug)]
pub struct World {
    /// The time.
    pub now: Instant,
    /// The broker under test.
    pub broker: Broker,
    /// What it is held against.
    pub model: Model,
    /// What has happened so far, by name.
    pub coverage: Coverage,
    limits: Limits,
    connections: Vec<Connection>,
    opened: usize,
    mail: Mail,
    /// Where the daemon keeps things, if it does.
    disk: Option<Disk>,
    /// How often it was killed and started again.
    life: u64,
}

/// What a client says that it is when it connects.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Which simulated client.
    pub slot: usize,
    /// Who the kernel says it is.
    pub identity: Identity,
    /// The one method of an exposed connection.
    pub only: Option<(String, String)>,
    /// How many bytes the kernel's buffer toward the client holds.
    pub capacity: usize,
    /// Whether it is a sender of datagrams.
    pub is_visitor: bool,
}

impl Arrival {
    /// Whether it speaks the bus protocol over TCP.
    pub fn is_tcp(&self) -> bool {
        matches!(self.identity, Identity::Remote { .. }) && self.only.is_none() && !self.is_visitor
    }
}

impl World {
    /// A world with a broker that has these limits, with a store or without, and nobody in it.
    ///
    /// # Panics
    /// When the broker does not begin on an empty disk.
    pub fn new(limits: Limits, has_store: bool) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let mut disk = has_store.then(Disk::default);
        let mut broker = store::broker(&limits, 0, EPOCH);
        store::begin(&mut broker, now, disk.as_mut()).expect("an empty disk is no trouble");
        Self {
            now,
            broker,
            model: Model::new(limits.clone(), EPOCH, has_store),
            coverage: Coverage::default(),
            mail: Mail::new(&limits),
            limits,
            connections: Vec::new(),
            opened: 0,
            disk,
            life: 0,
        }
    }

    /// What the broker allows.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the client in `slot` knows, while it is connected.
    pub fn knows(&self, slot: usize) -> Option<&Knowledge> {
        self.position(slot).map(|at| &self.connections[at].client.knows)
    }

    /// The link of the client in `slot`, while it is connected.
    pub fn link(&self, slot: usize) -> Option<&Link> {
        self.position(slot).map(|at| &self.connections[at].link)
    }

    /// The number by which the model knows the connection of the client in `slot`.
    pub fn number(&self, slot: usize) -> Option<usize> {
        self.position(slot).map(|at| self.connections[at].number)
    }

    /// Handles of the client in `slot` that stand for methods of services that are there.
    pub fn method_handles(&self, slot: usize) -> Vec<u32> {
        self.number(slot).map_or_else(Vec::new, |number| self.model.method_handles(number))
    }

    /// Handles of the client in `slot` that stand for topics.
    pub fn topic_handles(&self, slot: usize) -> Vec<u32> {
        self.number(slot).map_or_else(Vec::new, |number| self.model.topic_handles(number))
    }

    fn position(&self, slot: usize) -> Option<usize> {
        self.connections.iter().position(|connection| connection.slot == slot && !connection.is_abandoned)
    }

    fn position_of_key(&self, key: PeerKey) -> Option<usize> {
        self.connections.iter().position(|connection| connection.socket.key() == Some(key))
    }

    /// Does one thing, lets bytes flow, and holds everything against the model.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn step(&mut self, step: &Step) -> Result<(), String> {
        let mut rng = Rng::new(step.seed);
        self.mail.reseed(rng.fork());
        self.apply(step.slot, &step.action, &mut rng)?;
        self.flow(&mut rng)?;
        self.check()
    }

    /// Holds the broker's account of itself against the model's.
    ///
    /// # Errors
    /// A sentence that says where they differ.
    pub fn check(&mut self) -> Result<(), String> {
        let snapshot = crate::model::Snapshot::of(&self.broker);
        self.model.audit(&snapshot)?;
        self.audit_links(&snapshot.queues)
    }

    /// Lets bytes flow for a while, or until nothing moves any more.
    fn flow(&mut self, rng: &mut Rng) -> Result<(), String> {
        if rng.chance(3, 4) {
            return self.settle(rng);
        }
        for _ in 0..rng.below(12) {
            if rng.chance(1, 4) {
                self.mail_flows()?;
            }
            if self.connections.is_empty() {
                break;
            }
            let at = rng.index(self.connections.len());
            let max = rng.length(4096).max(1);
            match rng.below(3) {
                0 => self.daemon_reads(at, max)?,
                1 => self.daemon_writes(at, max)?,
                _ => self.client_reads(at, max)?,
            };
            self.sweep();
        }
        Ok(())
    }

    /// Lets bytes flow until nothing moves any more.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn settle(&mut self, rng: &mut Rng) -> Result<(), String> {
        for round in 0.. {
            let mut moved = self.mail_flows()?;
            for at in 0..self.connections.len() {
                // Byte by byte it would take for ever.
                if round > TRICKLE_ROUNDS_MAX && self.connections[at].link.up.read_max == 1 {
                    continue;
                }
                let max = if rng.chance(1, 4) { rng.length(4096).max(1) } else { usize::MAX };
                moved |= self.daemon_reads(at, max)?;
                moved |= self.daemon_writes(at, usize::MAX)?;
                moved |= self.client_reads(at, max)?;
            }
            self.sweep();
            if !moved {
                break;
            }
        }
        Ok(())
    }

    /// Ends everything: links work again, everything flows, and then every client leaves. Nothing may be left.
    ///
    /// # Errors
    /// A sentence that says what is missing or left.
    pub fn wind_down(&mut self, rng: &mut Rng) -> Result<(), String> {
        for connection in &mut self.connections {
            connection.link.down.is_stalled = false;
            connection.link.down.capacity = usize::MAX;
            connection.link.up.read_max = usize::MAX;
            connection.link.down.read_max = usize::MAX;
        }
        self.calm_disk(rng)?;
        self.check()?;
        self.wind_down_mail(rng)?;
        self.all_leave(rng)?;
        self.last_look(rng)?;
        self.all_leave(rng)
    }

    fn all_leave(&mut self, rng: &mut Rng) -> Result<(), String> {
        for slot in 0..crate::generator::CLIENTS {
            self.apply(slot, &crate::generator::Action::Disconnect, rng)?;
        }
        self.calm_disk(rng)?;
        self.advance(10_000_000_000, false)?;
        self.calm_disk(rng)?;
        self.check()?;
        if self.broker.connections() > 0 || self.broker.poll_timeout().is_some() {
            return Err(format!("{} connections are left", self.broker.connections()));
        }
        Ok(())
    }

    /// Forgets connections that both ends are done with.
    fn sweep(&mut self) {
        let model = &mut self.model;
        self.connections.retain(|connection| {
            let is_done = connection.is_over || connection.is_abandoned;
            let is_kept = connection.socket != Socket::Closed || !is_done;
            if !is_kept {
                model.sweep(connection.number);
            }
            is_kept
        });
    }

    /// Moves the clock, waking the broker when it asked to be woken, or only at the end as after a suspend.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn advance(&mut self, nanos: u64, at_once: bool) -> Result<(), String> {
        let target = Instant::from_nanos(self.now.as_nanos().saturating_add(nanos));
        let mut wakeups = 0;
        loop {
            let due = self.next_wakeup().filter(|due| *due <= target);
            let Some(due) = due else { break };
            self.now = if at_once { target } else { due.max(self.now) };
            self.broker.tick(self.now);
            self.wake()?;
            wakeups += 1;
            if wakeups > 100_000 {
                return Err(format!("the broker asks to be woken at {due:?} again and again"));
            }
        }
        self.now = target;
        self.broker.tick(self.now);
        self.model.is_nothing_due(self.now)
    }

    fn next_wakeup(&self) -> Option<Instant> {
        let closing = self.connections.iter().filter_map(|connection| match connection.socket {
            Socket::Closing(_, until) => Some(until),
            Socket::Open(_) | Socket::Closed => None,
        });
        closing.chain(self.broker.poll_timeout()).chain(self.mail.poll_timeout()).min()
    }
}

/// Under which name the receipt of a frame is counted.
fn coverage_name(seen: &Seen) -> String {
    let can_fail = matches!(seen.kind(), Kind::DONE | Kind::REPLY | Kind::OUTCOME);
    let is_answer = can_fail && seen.has(Flags::ERROR);
    let body = if is_answer { seen.decode::<ErrorBody>() } else { None };
    let code = body.as_ref().and_then(|body| ErrorCode::from_number(body.code));
    let is_share = body.as_ref().is_some_and(is_of_share);
    match (code, body.and_then(|body| body.resource)) {
        (Some(ErrorCode::QuotaExceeded), Some(resource)) => {
            let what = if is_share { "share" } else { "refused" };
            format!("{what}.{}", resource.0)
        }
        (Some(code), _) => format!("{}.{code}", seen.kind().name()),
        (None, _) if seen.kind() == Kind::CLOSE => {
            let code = seen.decode::<Close>().and_then(|close| ErrorCode::from_number(close.code));
            format!("close.{}", code.map_or("unknown", ErrorCode::name))
        }
        (None, _) if seen.kind() == Kind::NAME_CHANGED => {
            let change = seen.decode::<NameChanged>().map(|body| format!("{:?}", body.change));
            format!("name.{}", change.unwrap_or_default().to_lowercase())
        }
        (None, _) if seen.kind() == Kind::NOTICE => {
            format!("notice.{}", Told(seen.header.handle.index).name())
        }
        (None, _) if seen.kind() == Kind::REVOKED => {
            let what = seen.decode::<Revoked>().map(|body| format!("{:?}", body.what));
            format!("revoked.{}", what.unwrap_or_default().to_lowercase())
        }
        (None, _) if seen.kind() == Kind::GAP && seen.header.handle == Handle::MERGED => {
            "received.gap_merged".to_owned()
        }
        (None, _) => format!("received.{}", seen.kind().name()),
    }
}
