//! Coordination: requests taken apart, effects told.

use core::time::Duration;

use bytes::Bytes;
use ipc_core::limits::{HOLD_DELAY_MAX, LEADER_VALUE_MAX_BYTES, PARTIES_MAX, TTL_MAX, TTL_MIN};
use ipc_core::name::ResourceName;
use ipc_core::payload::Payload;
use ipc_core::time::{Instant, whole_micros};
use ipc_core::wire::codec::{Text, Wire};
use ipc_core::wire::coordination::{
    Acquire, Arrive, Bind, Campaign, Claim, Durability, Granted, Identified, Leader, LockMode, Lost, Observe,
    OfToken, Operation, Passed, TakeLease, TakeLock, Told, Unobserve,
};
use ipc_core::wire::message::RevokedWhat;
use ipc_core::wire::{Frame, Header, Kind, WireError};
use ipc_core::{Error, ErrorCode};

use super::Outcome;
use crate::broker::Broker;
use crate::broker::coordination::{Asker, Effect, Link, Noun, Reason, Share, Terms, WaitId, Want, Why};
use crate::broker::keys::PeerKey;
use crate::broker::policy::Action;
use crate::broker::quota::Resource;

/// The outcome of a request that was understood.
pub(super) type Done = Result<(), Reason>;

impl Broker {
    pub(super) fn coordinate(&mut self, now: Instant, peer: PeerKey, frame: &Frame<'_>) -> Outcome {
        let header = frame.header;
        let operation = Operation(header.handle.index);
        let deadline = Duration::from_micros(header.deadline_us.into());
        let until = (header.deadline_us > 0).then(|| now + deadline);
        let user = self.user(peer);
        let asker = Asker { peer, user, correlation: header.correlation, operation, until };
        let takes_payload = matches!(
            operation,
            Operation::CAMPAIGN
                | Operation::PROCLAIM
                | Operation::PUT
                | Operation::TRANSACT
                | Operation::ENQUEUE
        );
        if !takes_payload && header.payload_len > 0 && Operation::ALL.contains(&operation) {
            return Err(WireError::Envelope("this operation has no payload"));
        }
        if self.is_monitored() {
            self.show_request(peer, frame);
        }
        if let Err(error) = self.check_memory(peer, operation) {
            self.refuse_request(asker, &error.into());
            return Ok(());
        }
        let done = match operation {
            Operation::LEASE => self.lease(now, asker, frame.decode()?),
            Operation::RENEW => self.renew(now, asker, frame.decode()?),
            Operation::RELEASE => self.release(now, asker, frame.decode()?),
            Operation::LOCK => self.lock(now, asker, frame.decode()?),
            Operation::ACQUIRE => self.acquire(now, asker, frame.decode()?),
            Operation::CAMPAIGN => self.campaign(now, asker, frame.decode()?, frame),
            Operation::IDENTIFY => self.identify(now, asker, frame.decode()?),
            Operation::PROCLAIM => self.proclaim(now, asker, frame.decode()?, frame),
            Operation::OBSERVE => self.observe(asker, frame.decode()?),
            Operation::UNOBSERVE => self.unobserve(asker, frame.decode()?),
            Operation::ARRIVE => self.arrive(now, asker, frame.decode()?),
            Operation::PUT => self.put_key(now, asker, frame.decode()?, frame),
            Operation::GET => self.get_key(asker, &frame.decode()?),
            Operation::DELETE => self.delete_key(now, asker, frame.decode()?),
            Operation::LIST => self.list_keys(asker, frame.decode()?),
            Operation::WATCH => self.watch_keys(now, asker, frame.decode()?),
            Operation::UNWATCH => self.unwatch_keys(asker, frame.decode()?),
            Operation::TRANSACT => self.transact(now, asker, frame.decode()?, frame)?,
            Operation::LIST_RANGE => self.list_range(asker, frame.decode()?),
            Operation::HISTORY => self.list_history(now, asker, frame.decode()?),
            Operation::ENQUEUE => self.enqueue(now, asker, frame.decode()?, frame),
            Operation::TAKE => self.take_entry(now, asker, frame.decode()?),
            Operation::ACK => self.ack_entry(now, asker, frame.decode()?),
            Operation::NACK => self.nack_entry(now, asker, frame.decode()?),
            Operation::PEEK => self.peek_entries(now, asker, &frame.decode()?),
            Operation::COUNT => self.count_queue(now, asker, &frame.decode()?),
            Operation::PURGE => self.purge_queue(now, asker, frame.decode()?),
            Operation::CONSUME => self.consume_queue(now, asker, frame.decode()?),
            Operation::UNCONSUME => self.unconsume_queue(asker, frame.decode()?),
            Operation(number) => {
                let message = format!("this daemon does not know operation {number} of coordination");
                let error = Error::new(ErrorCode::Unsupported, message);
                Err(error.with_hint("a newer daemon may know it").into())
            }
        };
        if let Err(reason) = done {
            self.refuse_request(asker, &reason);
        }
        self.settle_coordination();
        Ok(())
    }

    /// Whoever has all the memory that its user may have is given nothing more to hold, to wait for or to watch.
    fn check_memory(&self, peer: PeerKey, operation: Operation) -> Result<(), Error> {
        let takes_memory = matches!(
            operation,
            Operation::LEASE
                | Operation::LOCK
                | Operation::ACQUIRE
                | Operation::CAMPAIGN
                | Operation::OBSERVE
                | Operation::ARRIVE
                | Operation::WATCH
                | Operation::TAKE
                | Operation::CONSUME
        );
        match self.peers.get(peer) {
            Some(state) if takes_memory => self.quota.check(state.account, Resource::Memory, 0),
            Some(_) | None => Ok(()),
        }
    }

    /// What gives something to hold needs somebody who is told.
    pub(super) fn check_asker(&self, asker: Asker, name: Option<&ResourceName>) -> Result<(), Error> {
        self.check_running()?;
        if asker.correlation == 0 {
            return Err(Error::new(ErrorCode::InvalidArgument, "nobody waits for the answer"));
        }
        self.check_policy(asker.peer, &Action::Coordinate(name))
    }

    /// Whether the policy lets it have to do with that name.
    pub(super) fn check_coordinate(&self, peer: PeerKey, name: &ResourceName) -> Result<(), Error> {
        self.check_policy(peer, &Action::Coordinate(Some(name)))
    }

    fn lease(&mut self, now: Instant, asker: Asker, request: TakeLease) -> Done {
        self.check_asker(asker, None)?;
        let durability = match request.bind {
            Bind::Session => self.hold_durability(asker.peer, request.durability)?,
            Bind::Time => self.durability_of(request.durability)?,
        };
        let terms = Terms { ttl: ttl(request.ttl_us)?, delay: Duration::ZERO, durability };
        let user = match request.bind {
            Bind::Session => None,
            Bind::Time if terms.ttl.is_none() => {
                return Err(invalid("a lease that is bound to nothing but time needs a time to live"));
            }
            Bind::Time => match self.hand(asker.peer).uid {
                Some(uid) => Some(uid),
                None => {
                    return Err(denied("only users of this machine have leases that outlive a connection"));
                }
            },
        };
        let limits = self.own_limits(asker.peer);
        Ok(self.coordination.lease(now, asker, terms, user, &limits)?)
    }

    fn renew(&mut self, now: Instant, asker: Asker, OfToken { token }: OfToken) -> Done {
        let (ttl, durability) = self.coordination.renew(now, self.hand(asker.peer), token)?;
        self.conclude_request(asker, &granted(token, ttl, durability));
        Ok(())
    }

    fn release(&mut self, now: Instant, asker: Asker, OfToken { token }: OfToken) -> Done {
        let mut hand = self.hand(asker.peer);
        if let Some(uid) = self.coordination.absent_user(token).filter(|uid| hand.uid != Some(*uid)) {
            // Who administers the daemon does it in the place of its user.
            self.check_policy(asker.peer, &Action::Administer("release"))?;
            hand.uid = Some(uid);
        }
        self.coordination.release(now, hand, token)?;
        self.conclude_request(asker, &());
        Ok(())
    }

    fn lock(&mut self, now: Instant, asker: Asker, request: TakeLock) -> Done {
        let share = match request.mode {
            LockMode::Exclusive => Share::Exclusive,
            LockMode::Shared => Share::Shared,
        };
        let want = self.want(asker, Noun::Lock, &request.name.0, share, request.claim)?;
        self.coordination.claim(now, asker, want, &self.own_limits(asker.peer))
    }

    fn acquire(&mut self, now: Instant, asker: Asker, request: Acquire) -> Done {
        let Acquire { permits, count, .. } = request;
        if !(1..=PARTIES_MAX).contains(&permits) || !(1..=permits).contains(&count) {
            let message =
                format!("{count} of {permits} permits: there are 1 to {PARTIES_MAX}, and 1 to all are taken");
            return Err(invalid(&message));
        }
        let want =
            self.want(asker, Noun::Semaphore, &request.name.0, Share::Permits(count), request.claim)?;
        self.coordination.claim(now, asker, Want { permits, ..want }, &self.own_limits(asker.peer))
    }

    fn campaign(&mut self, now: Instant, asker: Asker, request: Campaign, frame: &Frame<'_>) -> Done {
        let value = value(frame)?;
        let want = self.want(asker, Noun::Election, &request.name.0, Share::Exclusive, request.claim)?;
        self.coordination.claim(now, asker, Want { value, ..want }, &self.own_limits(asker.peer))
    }

    /// What is claimed, checked.
    fn want(&self, asker: Asker, noun: Noun, name: &str, share: Share, claim: Claim) -> Result<Want, Error> {
        let name = ResourceName::parse(name)?;
        self.check_asker(asker, Some(&name))?;
        let durability = self.hold_durability(asker.peer, claim.durability)?;
        let delay = Duration::from_micros(claim.delay_us);
        if delay > HOLD_DELAY_MAX {
            let message = format!("a delay of {delay:?} is longer than {HOLD_DELAY_MAX:?}");
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        Ok(Want {
            noun,
            name,
            share,
            permits: 0,
            terms: Terms { ttl: ttl(claim.ttl_us)?, delay, durability },
            value: Payload::default(),
            wait: claim.wait,
            owner: claim.owner,
        })
    }

    fn proclaim(
        &mut self,
        now: Instant,
        asker: Asker,
        OfToken { token }: OfToken,
        frame: &Frame<'_>,
    ) -> Done {
        self.check_running()?;
        let value = value(frame)?;
        Ok(self.coordination.proclaim(now, &asker, self.hand(asker.peer), token, value)?)
    }

    fn observe(&mut self, asker: Asker, request: Observe) -> Done {
        let name = ResourceName::parse(&request.name.0)?;
        self.check_asker(asker, Some(&name))?;
        Ok(self.coordination.observe(&asker, name, &self.config.limits)?)
    }

    fn unobserve(&mut self, asker: Asker, request: Unobserve) -> Done {
        let observation = request.observation;
        if !self.coordination.unobserve(asker.peer, observation) {
            return Err(invalid(&format!("this connection has no observation {observation}")));
        }
        self.conclude_request(asker, &());
        Ok(())
    }

    fn arrive(&mut self, now: Instant, asker: Asker, request: Arrive) -> Done {
        let Arrive { parties, wait, .. } = request;
        if !(1..=PARTIES_MAX).contains(&parties) {
            return Err(invalid(&format!("a barrier has 1 to {PARTIES_MAX} parties, not {parties}")));
        }
        let name = ResourceName::parse(&request.name.0)?;
        self.check_asker(asker, Some(&name))?;
        self.coordination.arrive(now, asker, name, parties, wait, &self.config.limits)
    }

    pub(super) fn conclude_request<T: Wire>(&mut self, asker: Asker, result: &T) {
        self.conclude_for(asker.id(), asker.operation, result);
    }

    fn conclude_for<T: Wire>(&mut self, to: WaitId, operation: Operation, result: &T) {
        if to.correlation != 0 {
            self.answer(to.peer, outcome(to, operation), result, &[]);
        }
    }

    fn refuse_request(&mut self, asker: Asker, reason: &Reason) {
        if asker.correlation != 0 {
            let to = WaitId { peer: asker.peer, correlation: asker.correlation };
            self.refuse_for(to, asker.operation, reason);
        }
    }

    /// Tells and charges everything that has come of coordination.
    pub(in crate::broker) fn settle_coordination(&mut self) {
        self.coordination.advance(self.now);
        // More than one of these may be due to somebody who sends nothing more: the connection is closed behind the last.
        let mut answered = Vec::new();
        while let Some(effect) = self.coordination.poll_effect() {
            answered.extend(effect.answered());
            self.tell_effect(effect);
        }
        for peer in answered {
            self.close_if_finished(peer);
        }
    }

    fn tell_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Granted { to, operation, token, ttl, durability } => {
                self.counters.holds_granted += 1;
                self.answer(to.peer, outcome(to, operation), &granted(token, ttl, durability), &[]);
            }
            Effect::Proclaimed { to } => {
                self.conclude_for(to, Operation::PROCLAIM, &());
            }
            Effect::TakenUp { to, token, operation, name, ttl, durability } => {
                self.tell_taken_up(to, operation, name, granted(token, ttl, durability));
            }
            Effect::Identified { to, holds } => {
                self.conclude_for(to, Operation::IDENTIFY, &Identified { holds });
            }
            Effect::Passed { to, generation, place } => {
                let passed = Passed { generation, place };
                self.answer(to.peer, outcome(to, Operation::ARRIVE), &passed, &[]);
            }
            Effect::Refused { to, operation, reason } => {
                if to.correlation != 0 {
                    self.refuse_for(to, operation, &reason);
                }
            }
            Effect::Waits { to, operation, holder, waiting } => {
                self.counters.holds_awaited += 1;
                let sender = holder.map_or(0, |holder| self.announce_peer(to.peer, holder));
                let header = Header { kind: Kind::WAITING, sender, ..outcome(to, operation) };
                self.answer(to.peer, header, &waiting, &[]);
            }
            Effect::Lost { to, token, error } => {
                self.counters.holds_expired += u64::from(error.code == ErrorCode::LockLost);
                let lost = Lost { token, code: error.code.number(), message: Text(error.message) };
                self.answer(to.peer, notice(to, Told::LOST), &lost, &[]);
            }
            Effect::Revoked { to, what, error } => self.tell_unwatched(to, what, &error),
            Effect::Leads { to, leader, token, value, is_answer } => {
                self.tell_leader(to, leader, token, &value, is_answer);
            }
            Effect::KeysChanged { to, operation, revisions, durability } => {
                self.tell_keys_changed(to, operation, &revisions, durability);
            }
            Effect::Changed { to, change } => self.tell_key_change(to, &change),
            Effect::Watches { to, revision } => self.tell_watching(to, revision),
            Effect::Enqueued { to, stored } => self.tell_stored(to, stored),
            Effect::Acked { to } => self.tell_acked(to),
            Effect::Purged { to, count } => self.tell_purged(to, count),
            Effect::Delivered { to, is_answer, given } => self.tell_delivery(to, is_answer, &given),
            Effect::Consumes { to } => self.answer(to.peer, outcome(to, Operation::CONSUME), &(), &[]),
            Effect::ConsumerLost { to } => self.answer(to.peer, notice(to, Told::CONSUMER_LOST), &(), &[]),
            Effect::Buried => self.counters.work_entries_buried += 1,
            Effect::Charged { peer, holds, waits, observations } => {
                self.charge_coordination(peer, holds, waits, observations);
            }
        }
    }

    fn charge_coordination(&mut self, peer: PeerKey, holds: i32, waits: i32, observations: i32) {
        if holds > 0 {
            self.watch_process(peer);
        }
        if let Some(state) = self.peers.get(peer) {
            self.quota.change(state.account, |charges| {
                charges.holds = charges.holds.saturating_add_signed(holds);
                charges.waits = charges.waits.saturating_add_signed(waits);
                charges.observations = charges.observations.saturating_add_signed(observations);
            });
        }
    }

    /// Tells a client that it observes or watches no more. One that does not know that frame hears of it as if it had not
    /// read in time, asks again, and is refused.
    fn tell_unwatched(&mut self, to: WaitId, what: RevokedWhat, error: &Error) {
        if self.can_be_told(to.peer) {
            let header = Header::new(Kind::REVOKED).with_correlation(to.correlation);
            return self.tell_revoked(to.peer, header, what, error);
        }
        let told = if what == RevokedWhat::KeyWatch { Told::WATCH_LOST } else { Told::OBSERVATION_LOST };
        self.answer(to.peer, notice(to, told), &(), &[]);
    }

    /// Tells one observer who leads. One that has no room loses its observation, and is told that.
    fn tell_leader(
        &mut self,
        to: WaitId,
        leader: Option<PeerKey>,
        token: u64,
        value: &Payload,
        is_answer: bool,
    ) {
        let room = self.check_room(to.peer, value.len() + 2 * ipc_core::wire::HEADER_BYTES);
        if !is_answer && room.is_err() {
            self.coordination.unobserve(to.peer, to.correlation);
            self.answer(to.peer, notice(to, Told::OBSERVATION_LOST), &(), &[]);
            return;
        }
        let header = if is_answer { outcome(to, Operation::OBSERVE) } else { notice(to, Told::LEADER) };
        let sender = leader.map_or(0, |leader| self.announce_peer(to.peer, leader));
        let header = Header { sender, payload_kind: value.kind, ..header };
        self.answer(to.peer, header, &Leader { token }, &value.body);
    }

    pub(super) fn refuse_for(&mut self, to: WaitId, operation: Operation, reason: &Reason) {
        let error = match reason {
            Reason::Error(error) => error.clone(),
            Reason::Busy { what, why } => self.busy(what, *why),
            Reason::Deadlock(circle) => {
                self.counters.deadlocks_found += 1;
                self.deadlock(circle)
            }
        };
        self.refuse_as(to.peer, outcome(to, operation), &error);
    }

    fn busy(&self, what: &str, why: Why) -> Error {
        let why = match why {
            Why::Unknown => String::new(),
            Why::Held(holder) => format!(", held by {}", self.name_of(holder)),
            Why::Absent(uid) => {
                format!(", held by uid {uid}, whose session is not back since the daemon was started")
            }
            Why::Closed => ", closed for a while because a holder was lost".to_owned(),
        };
        Error::new(ErrorCode::Busy, format!("{what} was not to be had in time{why}"))
            .with_hint("try again later, or wait longer; `ipc-cli list locks` shows who holds it")
    }

    fn deadlock(&self, circle: &[Link]) -> Error {
        let waits = circle.iter().map(|link| format!("{} for {}", self.name_of(link.peer), link.waits_for));
        let message = format!(
            "each would wait for the next, and the last for the first: {}",
            waits.collect::<Vec<_>>().join("; ")
        );
        Error::new(ErrorCode::Deadlock, message)
            .with_hint("give back what is held and try again; take locks in the same order everywhere")
    }

    fn name_of(&self, peer: PeerKey) -> String {
        self.peers.get(peer).map_or_else(|| "somebody".to_owned(), |state| state.who.to_string())
    }
}

/// The header of an outcome.
pub(super) fn outcome(to: WaitId, operation: Operation) -> Header {
    let mut header = Header::new(Kind::OUTCOME).with_correlation(to.correlation);
    header.handle.index = operation.0;
    header
}

pub(super) fn notice(to: WaitId, told: Told) -> Header {
    let mut header = Header::new(Kind::NOTICE).with_correlation(to.correlation);
    header.handle.index = told.0;
    header
}

fn granted(token: u64, ttl: Option<Duration>, durability: Durability) -> Granted {
    let ttl_us = ttl.map_or(0, whole_micros);
    Granted { token, ttl_us, durability }
}

pub(super) fn ttl(ttl_us: u64) -> Result<Option<Duration>, Error> {
    let ttl = Duration::from_micros(ttl_us);
    if ttl_us == 0 {
        return Ok(None);
    }
    if (TTL_MIN..=TTL_MAX).contains(&ttl) {
        return Ok(Some(ttl));
    }
    let message = format!("a time to live of {ttl:?} is not between {TTL_MIN:?} and {TTL_MAX:?}");
    Err(Error::new(ErrorCode::InvalidArgument, message))
}

/// What a leader proclaims, in memory of its own.
fn value(frame: &Frame<'_>) -> Result<Payload, Error> {
    let body = frame.body.as_slice();
    if body.len() <= LEADER_VALUE_MAX_BYTES {
        return Ok(Payload { kind: frame.header.payload_kind, body: Bytes::copy_from_slice(body) });
    }
    let mut error = Error::quota("LEADER_VALUE_MAX_BYTES", LEADER_VALUE_MAX_BYTES as u64);
    error.code = ErrorCode::PayloadTooLarge;
    Err(error)
}

pub(super) fn invalid(message: &str) -> Reason {
    Error::new(ErrorCode::InvalidArgument, message).into()
}

pub(super) fn denied(message: &str) -> Reason {
    Error::new(ErrorCode::PermissionDenied, message).into()
}
