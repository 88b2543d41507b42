//! PURE. The whole bus as one state machine.
//!
//! It owns no socket, reads no clock and never waits. The methods of [`Broker`] fall into three classes, to be called
//! in this order:
//!
//! 1. **Inputs** `connect`, `handle_frame`, `handle_violation`, `handle_eof`, `disconnect`, `handle_timeout`,
//!    `writable`, `handle_stored`, `begin_drain`, `end_drain`: something happened at `now`. Before all of them, where there is
//!    a store: `restore` for each record of it, then `open_store`.
//! 2. **Outputs** [`Broker::poll_output`], until it gives `None`: connections to flush or to close. For each of them
//!    [`Broker::transmit`] says what to write and [`Broker::transmitted`] takes what the kernel took. And records to
//!    store: [`Broker::take_commit`].
//! 3. **Time** [`Broker::poll_timeout`]: when `handle_timeout` is due.
//!
//! The registries (names, topics, calls, coordination, quota, deadlines) do not know one another; what concerns
//! several of them is composed in `dispatch` and `departure` alone.

mod calls;
mod coordination;
mod deadlines;
mod departure;
mod dispatch;
mod event;
mod filters;
mod journal;
mod keys;
pub(crate) mod ledger;
mod names;
mod peer;
mod policy;
mod quota;
mod records;
mod refusals;
mod snapshot;
mod stats;
mod topics;
mod turns;

use std::collections::VecDeque;

use core::time::Duration;

use ipc_core::id::PeerId;
use ipc_core::identity::{Identity, Peer as PeerIdentity};
use ipc_core::time::Instant;
use ipc_core::wire::message::Close;
use ipc_core::wire::{Frame, FrameLimits, Header, Kind, WireError, encode_frame};
use ipc_core::{Error, ErrorCode};
use slotmap::SlotMap;

use self::calls::Calls;
use self::coordination::Coordination;
pub use self::coordination::{after_loss, highest_number};
use self::deadlines::Deadlines;
use self::dispatch::permission::access_denied;
use self::dispatch::{Run, takes_turns};
pub use self::event::{Access, Commit, Config, Fault, Output, Side, Transport};
use self::journal::Journal;
use self::keys::CallKey;
pub use self::keys::{AccountKey, PeerKey};
use self::names::Names;
use self::peer::{BufferPool, Peer, Phase};
pub use self::policy::{Allowance, Directory, Grant, Policy, Question, Reason, Rule, Subject};
pub use self::quota::Charges;
use self::quota::{Payer, Quota};
pub use self::records::{RecordKind, Write};
pub use self::refusals::Refusal;
use self::refusals::Refusals;
pub use self::snapshot::{
    BarrierRow, GateRow, HolderRow, LeaseRow, MethodRow, PeerRow, Present, QueueRow, QuotaRow, ServiceRow,
    Status, TopicRow, Usage, View,
};
pub use self::stats::Counters;
use self::topics::Topics;
pub use self::turns::Room;
use self::turns::Turns;

/// What a deadline is for.
#[derive(Clone, Copy, Debug)]
enum Due {
    Call(CallKey),
    Hello(PeerKey),
}

/// Whether the bus takes new work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    Draining,
}

/// The bus.
#[derive(Debug)]
pub struct Broker {
    config: Config,
    peers: SlotMap<PeerKey, Peer>,
    names: Names,
    topics: Topics,
    calls: Calls,
    coordination: Coordination,
    journal: Journal,
    quota: Quota,
    turns: Turns,
    deadlines: Deadlines<Due>,
    counters: Counters,
    refusals: Refusals,
    pool: BufferPool,
    /// Events that are on their way to their subscribers' queues.
    run: Option<Run>,
    outputs: VecDeque<Output>,
    /// Work done so far, beside what the counters tell.
    work: u64,
    /// All that had been done when the connection asked for its turn that has it now.
    work_before: u64,
    /// Connections to close at the end of this turn.
    condemned: Vec<PeerKey>,
    next_peer: u64,
    /// Connections over TCP.
    tcp_connections: u32,
    stage: Stage,
    /// The time of what happens now.
    now: Instant,
}

impl Broker {
    /// A bus without connections.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            peers: SlotMap::with_key(),
            names: Names::default(),
            topics: Topics::default(),
            calls: Calls::default(),
            coordination: Coordination::default(),
            journal: Journal::default(),
            quota: Quota::default(),
            turns: Turns::default(),
            deadlines: Deadlines::new(),
            counters: Counters::default(),
            refusals: Refusals::default(),
            pool: BufferPool::default(),
            run: None,
            outputs: VecDeque::new(),
            work: 0,
            work_before: 0,
            condemned: Vec::new(),
            next_peer: 1,
            tcp_connections: 0,
            stage: Stage::Running,
            now: Instant::default(),
        }
    }

    /// What happens from here on happens at `now`. Inputs that are given the time themselves need no word before.
    pub fn tick(&mut self, now: Instant) {
        self.now = now;
    }

    /// The limits in force.
    pub fn limits(&self) -> &ipc_core::limits::Limits {
        &self.config.limits
    }

    /// Other limits from here on. What is over a lowered limit stays; only what comes is refused.
    pub fn set_limits(&mut self, limits: ipc_core::limits::Limits) {
        self.end_run();
        self.config.limits = limits;
        self.apply_limits();
    }

    /// Takes a connection whose identity the shell has verified, of somebody without supplementary groups.
    ///
    /// # Errors
    /// As [`Broker::connect_with_groups`].
    pub fn connect(
        &mut self,
        now: Instant,
        identity: Identity,
        transport: Transport,
        access: Access,
    ) -> Result<PeerKey, Error> {
        self.connect_with_groups(now, identity, Box::default(), transport, access)
    }

    /// Takes a connection whose identity the shell has verified, with the supplementary groups of its process.
    ///
    /// # Errors
    /// `permission_denied`, `quota_exceeded` or `shutting_down`: the shell writes [`refusal_frame`] and closes it.
    pub fn connect_with_groups(
        &mut self,
        now: Instant,
        identity: Identity,
        groups: Box<[u32]>,
        transport: Transport,
        access: Access,
    ) -> Result<PeerKey, Error> {
        self.now = now;
        if self.stage == Stage::Draining {
            self.counters.connections_refused += 1;
            return Err(shutting_down());
        }
        let is_policed = access == Access::Granted && transport != Transport::Internal;
        if is_policed && !self.admits(&identity, &groups) {
            self.counters.connections_refused += 1;
            return Err(access_denied(&identity));
        }
        let payer = Payer::of(&identity);
        let own = self.limits_of(&payer);
        let opened =
            self.tcp_room(transport).and_then(|()| self.quota.open(now, payer, &self.config.limits, own));
        let account = opened.inspect_err(|_| self.counters.connections_refused += 1)?;
        self.tcp_connections += u32::from(transport == Transport::Tcp);
        self.counters.connections_accepted += 1;
        let who = PeerIdentity { id: PeerId(self.next_peer), identity };
        self.next_peer += 1;
        let limits = &self.config.limits;
        let timeout_ms = match transport {
            Transport::Tcp => limits.tcp_first_byte_timeout_ms.min(limits.tcp_hello_timeout_ms),
            Transport::UnixStream
            | Transport::UnixDatagram
            | Transport::Udp
            | Transport::Internal
            | Transport::ExposeTcp
            | Transport::ExposeUdp
            | Transport::Forward => limits.hello_timeout_ms,
        };
        let deadlines = &mut self.deadlines;
        let key = self.peers.insert_with_key(|key| {
            let timeout = Duration::from_millis(timeout_ms.into());
            let deadline = deadlines.insert(now + timeout, Due::Hello(key));
            Peer::new(who, transport, access, groups, account, now, deadline)
        });
        self.join_turns(key);
        Ok(key)
    }

    /// Whether the policy lets somebody in at all, a process with those supplementary groups.
    pub fn admits(&self, identity: &Identity, groups: &[u32]) -> bool {
        self.config.policy.admits(&Subject { identity, groups, services: &[] })
    }

    fn tcp_room(&self, transport: Transport) -> Result<(), Error> {
        let max = self.config.limits.tcp_connections_max;
        if transport != Transport::Tcp || self.tcp_connections < max {
            return Ok(());
        }
        Err(Error::quota("tcp_connections_max", max.into()))
    }

    /// The first bytes of a connection have arrived; there may not be a frame in them yet.
    pub fn handle_first_bytes(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        if state.transport != Transport::Tcp {
            return;
        }
        if let Some(deadline) = state.hello_deadline.take() {
            self.deadlines.remove(deadline);
            let timeout = Duration::from_millis(self.config.limits.tcp_hello_timeout_ms.into());
            let due = state.accepted_at + timeout;
            state.hello_deadline = Some(self.deadlines.insert(due, Due::Hello(peer)));
        }
    }

    /// Whether there is room for a connection that has not said hello yet, whoever comes from that side. While there is none
    /// the shell had better let new ones wait in the kernel: those who come in a crowd are served in turn instead of
    /// refused. A crowd from the network keeps no process of this machine waiting.
    pub fn has_greeting_room(&self, side: Side) -> bool {
        self.quota.has_greeting_room(side)
    }

    /// A frame arrived. Frames of a connection that has departed are ignored.
    pub fn handle_frame(&mut self, now: Instant, peer: PeerKey, frame: Frame<'_>) {
        self.handle_frame_of_batch(now, peer, frame);
        self.end_run();
    }

    /// As [`Broker::handle_frame`], for one of several frames that came together, with [`Broker::end_batch`] behind the last:
    /// what is the same for several of them is done once.
    pub fn handle_frame_of_batch(&mut self, now: Instant, peer: PeerKey, frame: Frame<'_>) {
        self.now = now;
        self.counters.frames_received += 1;
        if self.join_run(peer, &frame) {
            return;
        }
        self.end_run();
        if let Err(error) = self.dispatch(now, peer, frame) {
            self.handle_violation(peer, error);
        }
        self.end_turn();
    }

    /// The last frame of a batch was handled.
    pub fn end_batch(&mut self) {
        self.end_run();
    }

    /// The connection broke the protocol: it is told why and closed.
    pub fn handle_violation(&mut self, peer: PeerKey, error: WireError) {
        self.end_run();
        if self.peers.get(peer).is_some_and(|peer| !peer.is_departed()) {
            self.counters.protocol_violations += 1;
            self.close(peer, &Error::new(ErrorCode::ProtocolViolation, error.to_string()));
            self.end_turn();
        }
    }

    /// The connection sends nothing more, but can still read: it gets the outcomes of its calls and is then closed.
    pub fn handle_eof(&mut self, peer: PeerKey) {
        self.end_run();
        let Some(state) = self.peers.get_mut(peer) else { return };
        if state.is_departed() {
            return;
        }
        state.phase = Phase::InputEnded;
        let (holds, waits, observes) = self.coordination.counts(peer);
        let is_listening = !state.subscriptions.is_empty() || !state.watches.is_empty() || observes > 0;
        // What others wait for it to do, it cannot do any more.
        let is_needed =
            !state.registrations.is_empty() || holds + waits > 0 || self.coordination.is_at_work(peer);
        let is_answered = self.calls.outgoing(peer) == 0 && self.coordination.changes_pending(peer) == 0;
        if is_needed || (!is_listening && is_answered) {
            self.depart(peer);
            self.outputs.push_back(Output::Close(peer));
        }
        self.end_turn();
    }

    /// The connection is gone: its socket ended or failed, or closing it is finished.
    pub fn disconnect(&mut self, peer: PeerKey) {
        self.end_run();
        self.depart(peer);
        if let Some(mut state) = self.peers.remove(peer) {
            self.tcp_connections -= u32::from(state.transport == Transport::Tcp);
            if takes_turns(&state) {
                self.turns.leave(state.account, peer);
            }
            self.quota.requeue(state.account, state.outbound.queued_bytes(), 0);
            // Nothing is over that goes.
            let _less = self.quota.receive(state.account, state.receiving_bytes, 0);
            state.outbound.clear(&mut self.pool);
            if state.is_process_watched {
                self.quota.unwatch_process(state.account);
            }
            self.quota.close(state.account);
        }
        self.end_turn();
    }

    /// The kernel takes bytes for this connection again, after [`Broker::transmitted`] left some.
    pub fn writable(&mut self, now: Instant, peer: PeerKey) {
        self.end_run();
        if let Some(state) = self.peers.get_mut(peer) {
            state.outbound.restamp(now);
        }
    }

    /// What the connection's decoder may let through.
    pub fn frame_limits(&self, peer: PeerKey) -> FrameLimits {
        let limits = &self.config.limits;
        let is_greeting = self.peers.get(peer).is_none_or(|peer| peer.phase == Phase::Greeting);
        FrameLimits {
            payload_max_bytes: limits.payload_max_bytes,
            frame_max_bytes: is_greeting.then_some(limits.frame_before_hello_max_bytes),
        }
    }

    /// The next thing to do for the shell.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.end_run();
        self.begin_commit();
        let output = self.outputs.pop_front()?;
        if let Output::Flush(peer) = output
            && let Some(state) = self.peers.get_mut(peer)
        {
            state.is_touched = false;
        }
        Some(output)
    }

    /// What the policy has refused, oldest first, to be asked for after each batch like an output.
    pub fn poll_refusal(&mut self) -> Option<Refusal> {
        self.refusals.take()
    }

    /// What to write to a connection, in order. Nothing for one that is gone.
    pub fn transmit(&self, peer: PeerKey) -> impl Iterator<Item = &[u8]> {
        self.peers.get(peer).map_or_else(Default::default, |peer| peer.outbound.slices())
    }

    /// The kernel took that many bytes; 0 when it would have blocked. Afterwards there may be more to transmit.
    pub fn transmitted(&mut self, now: Instant, peer: PeerKey, bytes: usize) {
        if let Some(state) = self.peers.get_mut(peer) {
            let before = state.outbound.queued_bytes();
            state.outbound.advance(&mut self.pool, now, bytes);
            self.quota.requeue(state.account, before, state.outbound.queued_bytes());
        }
    }

    /// A buffer for a large frame that is being received, if one is at hand that is not in use.
    pub fn spare_buffer(&mut self, at_least_bytes: usize) -> Option<Vec<u8>> {
        self.pool.take_large(at_least_bytes)
    }

    /// Whether [`Broker::transmit`] has anything.
    pub fn has_pending(&self, peer: PeerKey) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.outbound.queued_bytes() > 0)
    }

    /// When [`Broker::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let retry = self.coordination.poll_commit_timeout().filter(|_| self.journal.is_free());
        self.deadlines.earliest().into_iter().chain(self.coordination.poll_timeout()).chain(retry).min()
    }

    /// Ends what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.end_run();
        self.now = now;
        while let Some(due) = self.deadlines.take_due(now) {
            match due {
                Due::Call(key) => self.call_timed_out(key),
                Due::Hello(peer) => {
                    self.counters.hello_timeouts += 1;
                    let error = Error::new(ErrorCode::Unauthenticated, "no hello came in time")
                        .with_hint("the first frame of a connection is the hello");
                    self.close(peer, &error);
                }
            }
        }
        self.coordination.handle_timeout(now);
        self.settle_coordination();
        self.end_turn();
    }

    /// Closes every connection that came over `transport`, telling it why.
    pub fn close_transport(&mut self, transport: Transport, reason: &Error) {
        self.end_run();
        let of_it = |(key, peer): (PeerKey, &Peer)| (peer.transport == transport).then_some(key);
        let peers: Vec<PeerKey> = self.peers.iter().filter_map(of_it).collect();
        for peer in peers {
            self.close(peer, reason);
        }
        self.end_turn();
    }

    /// The number that a connection is known by.
    pub fn peer_id(&self, peer: PeerKey) -> Option<PeerId> {
        self.peers.get(peer).map(|peer| peer.who.id)
    }

    /// Takes no new connections and no new calls from here on; open calls may end. Nobody waits any more for what others
    /// hold.
    pub fn begin_drain(&mut self) {
        self.end_run();
        self.stage = Stage::Draining;
        self.coordination.refuse_all(self.now, &shutting_down());
        self.coordination.renew_closures(self.now);
        self.settle_coordination();
        self.end_turn();
    }

    /// Whether no call is open any more, and no change of a key is on its way to the disk.
    pub fn is_drained(&self) -> bool {
        self.calls.len() == 0 && !self.coordination.has_changes_pending()
    }

    /// Answers every open call with `shutting_down` and closes every connection.
    pub fn end_drain(&mut self) {
        self.end_run();
        self.stage = Stage::Draining;
        self.coordination.leave_tenures();
        for key in self.calls.all() {
            self.fail_call(key, &shutting_down());
        }
        let peers: Vec<PeerKey> = self.peers.keys().collect();
        for peer in peers {
            self.close(peer, &shutting_down());
        }
        self.end_turn();
    }
}

fn shutting_down() -> Error {
    Error::new(ErrorCode::ShuttingDown, "the daemon is stopping").with_hint("connect again when it is back")
}

/// The frame for a connection that was refused before it became a peer.
pub fn refusal_frame(error: &Error) -> Vec<u8> {
    let close = Close { code: error.code.number(), message: error.message.as_str().into() };
    let mut frame = Vec::new();
    // Without the frame the connection is closed without a reason, which is still a refusal.
    if encode_frame(&mut frame, Header::new(Kind::CLOSE), &close, &[]).is_err() {
        frame.clear();
    }
    frame
}
