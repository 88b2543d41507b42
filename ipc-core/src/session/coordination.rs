//! Coordination: locks, semaphores, elections, barriers and leases, as they are asked for and told of.

use core::time::Duration;
use std::collections::VecDeque;

use crate::error::{Error, ErrorCode};
use crate::limits::{DEADLINE_MAX, LEADER_VALUE_MAX_BYTES, NAME_EVENTS_QUEUED_MAX};
use crate::name::ResourceName;
use crate::payload::Payload;
use crate::time::{Instant, whole_micros};
use crate::wire::codec::Wire;
use crate::wire::coordination::{
    Acquire, Arrive, Bind, Campaign, Claim, Durability, LockMode, Observe, OfToken, Operation, TakeLease,
    TakeLock, Unobserve,
};
use crate::wire::{Header, Kind};

use super::Session;
use super::addressed::micros;
use super::event::{HoldKey, ObservationKey, Observed, Ticket};
use super::holds::HoldState;
use super::inflight::{Open, Purpose, expiry};

/// What is to be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A lock.
    Lock {
        /// Its name.
        name: ResourceName,
        /// Together with others who share it.
        shared: bool,
    },
    /// Permits of a semaphore.
    Permits {
        /// Its name.
        name: ResourceName,
        /// How many it has in all; everybody who uses it says the same.
        permits: u32,
        /// How many are wanted.
        count: u32,
    },
    /// The leadership of an election.
    Leadership {
        /// Its name.
        name: ResourceName,
        /// What observers are shown.
        value: Payload,
    },
    /// A lease by itself.
    Lease,
}

/// How something is to be held, and how long it is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct HoldOptions {
    /// It is lost unless it is renewed within this time, which the session does by itself; `None` binds it to the connection
    /// alone. From 10 ms to a week.
    pub ttl: Option<Duration>,
    /// How long to wait for it, at most an hour; `None` without limit, zero to try once.
    pub wait: Option<Duration>,
    /// How long it stays closed to others when it is lost without having been given back; at most an hour. That survives what
    /// `durability` says.
    pub delay: Duration,
    /// Which thread of control asks, so that circles of sessions that wait for one another are found; 0 for none.
    pub owner: u64,
    /// What it survives: with `Os` or `Disk` the client takes it up again when the daemon was started anew and it has connected
    /// again, which is to be within the time to live, or within 5 s for what is bound to the connection alone. Default:
    /// `None`, which leaves it to the daemon: it keeps it on disk if it has a store and knows the session, as it does that of
    /// each client. Each grant waits for the disk then; `Memory` is faster, and gone with the daemon.
    pub durability: Option<Durability>,
}

/// What an observation has received.
#[derive(Debug)]
pub(super) struct Observation {
    /// Under which correlation the daemon tells of it.
    pub(super) correlation: u64,
    queue: VecDeque<Observed>,
    is_over: bool,
}

impl Observation {
    /// Something has come; says whether there is something to take where there was nothing.
    pub(super) fn push(&mut self, observed: Observed) -> bool {
        if self.is_over {
            return false;
        }
        self.is_over = matches!(observed, Observed::Ended(_));
        let was_empty = self.queue.is_empty();
        // Who leads now is what counts: of what nobody takes, the oldest goes.
        if self.queue.len() >= NAME_EVENTS_QUEUED_MAX {
            self.queue.pop_front();
        }
        self.queue.push_back(observed);
        was_empty
    }
}

/// Requests.
impl Session {
    /// Asks for something to hold: [`Answer::Held`](super::Answer::Held). If the outcome is an error, nothing is held.
    ///
    /// # Errors
    /// At once and without having sent anything: `payload_too_large` for a leader's value, and the error that ended the
    /// session.
    pub fn acquire(
        &mut self,
        now: Instant,
        wanted: &Wanted,
        options: &HoldOptions,
    ) -> Result<(HoldKey, Ticket), Error> {
        self.check_stream()?;
        if let Wanted::Leadership { value, .. } = wanted {
            self.check_value(value)?;
        }
        let wait = options.wait.map(|wait| wait.min(DEADLINE_MAX));
        self.identify_for(now, options.durability);
        let correlation = self.inflight.next_key().bits();
        self.send_wanted(correlation, wanted, options, wait);
        let key = self.holds.insert(now);
        let operation_timeout = self.config.operation_timeout;
        let expires = wait.and_then(|wait| expiry(Some(now + wait.max(operation_timeout))));
        let purpose = Purpose::Acquire(key);
        let ticket = self.inflight.insert(Open { purpose, expires, sent_end: self.output.end() });
        Ok((key, ticket))
    }

    fn send_wanted(
        &mut self,
        correlation: u64,
        wanted: &Wanted,
        options: &HoldOptions,
        wait: Option<Duration>,
    ) {
        let ttl_us = options.ttl.map_or(0, whole_micros);
        let claim = Claim {
            wait: wait.is_none_or(|wait| !wait.is_zero()),
            ttl_us,
            delay_us: whole_micros(options.delay),
            owner: options.owner,
            durability: options.durability,
        };
        let deadline_us = wait.filter(|wait| !wait.is_zero()).map_or(0, micros);
        let header = |operation: Operation| Header { deadline_us, ..request(operation, correlation) };
        match wanted {
            Wanted::Lock { name, shared } => {
                let mode = if *shared { LockMode::Shared } else { LockMode::Exclusive };
                let lock = TakeLock { name: name.as_str().into(), mode, claim };
                self.send_control(header(Operation::LOCK), &lock);
            }
            Wanted::Permits { name, permits, count } => {
                let acquire = Acquire { name: name.as_str().into(), permits: *permits, count: *count, claim };
                self.send_control(header(Operation::ACQUIRE), &acquire);
            }
            Wanted::Leadership { name, value } => {
                let campaign = Campaign { name: name.as_str().into(), claim };
                self.send_with(header(Operation::CAMPAIGN), &campaign, value);
            }
            Wanted::Lease => {
                let lease = TakeLease { bind: Bind::Session, ttl_us, durability: options.durability };
                self.send_control(header(Operation::LEASE), &lease);
            }
        }
    }

    /// What is known of something held.
    pub fn hold(&self, key: HoldKey) -> Option<&HoldState> {
        self.holds.get(key).map(|hold| &hold.state)
    }

    /// Gives back what is held: [`Answer::Done`](super::Answer::Done), or `lock_lost` when it was not held any more.
    ///
    /// # Errors
    /// Why it was lost before; the error that ended the session. It is not held any more in any case.
    pub fn give_back(&mut self, now: Instant, key: HoldKey) -> Result<Ticket, Error> {
        let lost = match self.hold(key) {
            Some(HoldState::Lost(error)) => Some(error.clone()),
            _ => None,
        };
        let token = self.holds.remove(key);
        if let Some(error) = lost {
            return Err(error);
        }
        self.check_stream()?;
        let Some(token) = token else {
            return Err(Error::new(ErrorCode::LockLost, "it was given back before"));
        };
        Ok(self.ask(now, Operation::RELEASE, &OfToken { token }))
    }

    /// Gives back what is held, or is about to be, without waiting for the daemon's word.
    pub fn forget_hold(&mut self, key: HoldKey) {
        if let Some(token) = self.holds.remove(key) {
            self.send_release(token);
        }
    }

    /// Gives what is held its full time again now, and not only when it is due.
    ///
    /// # Errors
    /// Why it was lost; the error that ended the session.
    pub fn renew(&mut self, now: Instant, key: HoldKey) -> Result<Ticket, Error> {
        self.check_stream()?;
        self.send_renew(key)?;
        Ok(self.open(now, Purpose::Renew { hold: key, asked_at: now, is_own: false }))
    }

    /// Sends it under the key of the request that is opened next.
    pub(super) fn send_renew(&mut self, key: HoldKey) -> Result<(), Error> {
        let token = self.token_of(key)?;
        self.holds.renewing(key);
        let correlation = self.inflight.next_key().bits();
        self.send_control(request(Operation::RENEW, correlation), &OfToken { token });
        Ok(())
    }

    /// Changes what a leader proclaims.
    ///
    /// # Errors
    /// Why the leadership was lost; `payload_too_large`; the error that ended the session.
    pub fn proclaim(&mut self, now: Instant, key: HoldKey, value: &Payload) -> Result<Ticket, Error> {
        let token = self.token_of(key)?;
        self.check_stream()?;
        self.check_value(value)?;
        let correlation = self.inflight.next_key().bits();
        self.send_with(request(Operation::PROCLAIM, correlation), &OfToken { token }, value);
        Ok(self.open(now, Purpose::Coordinate(Operation::PROCLAIM)))
    }

    fn token_of(&self, key: HoldKey) -> Result<u64, Error> {
        match self.hold(key) {
            Some(HoldState::Held { token, .. }) => Ok(*token),
            Some(HoldState::Lost(error)) => Err(error.clone()),
            Some(HoldState::Asked) | None => Err(Error::new(ErrorCode::LockLost, "it is not held")),
        }
    }

    /// Takes a lease that outlives this connection: [`Answer::Granted`](super::Answer::Granted).
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn grant_lease(
        &mut self,
        now: Instant,
        ttl: Duration,
        durability: Option<Durability>,
    ) -> Result<Ticket, Error> {
        self.check_stream()?;
        let lease = TakeLease { bind: Bind::Time, ttl_us: whole_micros(ttl), durability };
        Ok(self.ask(now, Operation::LEASE, &lease))
    }

    /// Renews what has that token: [`Answer::Granted`](super::Answer::Granted).
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn renew_token(&mut self, now: Instant, token: u64) -> Result<Ticket, Error> {
        self.check_stream()?;
        Ok(self.ask(now, Operation::RENEW, &OfToken { token }))
    }

    /// Gives back what has that token.
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn release_token(&mut self, now: Instant, token: u64) -> Result<Ticket, Error> {
        self.check_stream()?;
        Ok(self.ask(now, Operation::RELEASE, &OfToken { token }))
    }

    /// Arrives at a barrier: [`Answer::Passed`](super::Answer::Passed) once all `parties` have. `wait` is as in
    /// [`HoldOptions`].
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn arrive(
        &mut self,
        now: Instant,
        name: &ResourceName,
        parties: u32,
        wait: Option<Duration>,
    ) -> Result<Ticket, Error> {
        self.check_stream()?;
        let wait = wait.map(|wait| wait.min(DEADLINE_MAX));
        let correlation = self.inflight.next_key().bits();
        let deadline_us = wait.filter(|wait| !wait.is_zero()).map_or(0, micros);
        let header = Header { deadline_us, ..request(Operation::ARRIVE, correlation) };
        let waits = wait.is_none_or(|wait| !wait.is_zero());
        self.send_control(header, &Arrive { name: name.as_str().into(), parties, wait: waits });
        let expires = wait.and_then(|wait| expiry(Some(now + wait.max(self.config.operation_timeout))));
        let purpose = Purpose::Coordinate(Operation::ARRIVE);
        Ok(self.inflight.insert(Open { purpose, expires, sent_end: self.output.end() }))
    }

    /// Observes an election: who leads, now and from here on. If the outcome is an error, there is no observation.
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn observe(&mut self, now: Instant, name: &ResourceName) -> Result<(ObservationKey, Ticket), Error> {
        self.check_stream()?;
        let correlation = self.inflight.next_key().bits();
        self.send_control(request(Operation::OBSERVE, correlation), &Observe { name: name.as_str().into() });
        let observation = Observation { correlation, queue: VecDeque::new(), is_over: false };
        let key = ObservationKey(self.observations.insert(observation));
        Ok((key, self.open(now, Purpose::Observe(key))))
    }

    /// The oldest of what an observation has received.
    pub fn next_observed(&mut self, key: ObservationKey) -> Option<Observed> {
        self.observations.get_mut(key.0)?.queue.pop_front()
    }

    /// Ends an observation without waiting for the daemon's word.
    pub fn forget_observation(&mut self, key: ObservationKey) {
        let observation = self.observations.remove(key.0);
        if let Some(Observation { correlation, is_over: false, .. }) = observation
            && self.state.takes_requests()
        {
            self.send_control(request(Operation::UNOBSERVE, 0), &Unobserve { observation: correlation });
        }
    }

    pub(super) fn ask<T: Wire>(&mut self, now: Instant, operation: Operation, envelope: &T) -> Ticket {
        let correlation = self.inflight.next_key().bits();
        self.send_control(request(operation, correlation), envelope);
        self.open(now, Purpose::Coordinate(operation))
    }

    pub(super) fn send_with<T: Wire>(&mut self, header: Header, envelope: &T, payload: &Payload) {
        let sent = self.output.frame(header, envelope, payload);
        debug_assert!(sent.is_ok(), "a control frame did not fit: {sent:?}");
    }

    pub(super) fn send_release(&mut self, token: u64) {
        if self.state.takes_requests() {
            self.send_control(request(Operation::RELEASE, 0), &OfToken { token });
        }
    }

    fn check_value(&self, value: &Payload) -> Result<(), Error> {
        if value.len() > LEADER_VALUE_MAX_BYTES {
            let message =
                format!("a leader's value has at most {LEADER_VALUE_MAX_BYTES} bytes, not {}", value.len());
            return Err(Error::new(ErrorCode::PayloadTooLarge, message));
        }
        self.check_size(value)
    }
}

pub(super) fn request(operation: Operation, correlation: u64) -> Header {
    let mut header = Header::new(Kind::COORDINATE).with_correlation(correlation);
    header.handle.index = operation.0;
    header
}
