//! What the daemon says about coordination, and what time says.

use core::time::Duration;

use crate::error::{Error, ErrorCode};
use crate::payload::Payload;
use crate::time::Instant;
use crate::wire::coordination::{self as wire, Granted, Operation, Told, Waiting};
use crate::wire::message::ErrorBody;
use crate::wire::{Flags, Frame, Kind, WireError};

use super::event::{Answer, Event, HoldKey, Leader, ObservationKey, Observed, Passed};
use super::inflight::{Open, Purpose};
use super::key::Committed;
use super::slab::Key;
use super::{Session, State, keys, queues};

impl Session {
    pub(super) fn on_outcome(&mut self, now: Instant, frame: Frame<'_>) -> Result<(), WireError> {
        let key = Key::from_bits(frame.header.correlation);
        let Some(open) = self.inflight.get_mut(key) else { return self.on_unwanted(&frame) };
        if frame.header.flags.contains(Flags::ERROR) {
            let error = Error::from(frame.decode::<ErrorBody>()?);
            match open.purpose {
                Purpose::WatchKeys { watch, is_own } => {
                    self.on_watching_keys((key, is_own), watch, Err(error));
                }
                Purpose::Consume { consumer, is_own } => {
                    self.on_consuming((key, is_own), consumer, Err(error))
                }
                _ => self.fail_coordination(key, error),
            }
            return Ok(());
        }
        match open.purpose {
            Purpose::Acquire(hold) => self.on_granted(now, key, hold, frame.decode()?),
            Purpose::Renew { hold, asked_at, is_own } => {
                let granted: Granted = frame.decode()?;
                let Granted { token, ttl_us, durability } = granted;
                self.holds.confirm(hold, (token, ttl(ttl_us), durability), asked_at);
                self.end_renewal(key, hold, is_own, Ok(Answer::Held));
            }
            Purpose::Identify { .. } => {
                frame.decode::<wire::Identified>()?;
                self.on_identified(key);
            }
            Purpose::Observe(observation) => {
                self.on_leader(observation, &frame)?;
                self.inflight.complete(key, Ok(Answer::Done));
            }
            Purpose::WatchKeys { watch, is_own } => {
                let watching = frame.decode()?;
                self.on_watching_keys((key, is_own), watch, Ok(watching));
            }
            Purpose::Consume { consumer, is_own } => {
                frame.decode::<()>()?;
                self.on_consuming((key, is_own), consumer, Ok(()));
            }
            Purpose::Coordinate(operation) => {
                let answer = match operation {
                    Operation::ARRIVE => {
                        let wire::Passed { generation, place } = frame.decode()?;
                        Answer::Passed(Passed { generation, place })
                    }
                    Operation::LEASE | Operation::RENEW => {
                        let Granted { token, ttl_us, .. } = frame.decode()?;
                        Answer::Granted { token, ttl: ttl(ttl_us) }
                    }
                    Operation::PUT | Operation::DELETE => {
                        let wire::KeyChanged { revision, durability } = frame.decode()?;
                        Answer::Changed(Committed { revision, durability })
                    }
                    Operation::GET => keys::got(&frame)?,
                    Operation::TRANSACT => keys::transacted(&frame)?,
                    Operation::LIST | Operation::LIST_RANGE | Operation::HISTORY => keys::listed(&frame)?,
                    _ => queues::answered(operation, &frame)?,
                };
                self.inflight.complete(key, Ok(answer));
            }
            _ => return Err(WireError::UnexpectedKind(Kind::OUTCOME.0)),
        }
        Ok(())
    }

    /// It came after its request was given up: what it gives is given back.
    fn on_unwanted(&mut self, frame: &Frame<'_>) -> Result<(), WireError> {
        let gives = [Operation::LEASE, Operation::LOCK, Operation::ACQUIRE, Operation::CAMPAIGN];
        let operation = Operation(frame.header.handle.index);
        if !frame.header.flags.contains(Flags::ERROR) && operation == Operation::TAKE {
            let work = queues::delivered(frame)?;
            self.forget_work(&work.queue, work.delivery, true);
        }
        if !frame.header.flags.contains(Flags::ERROR) && gives.contains(&operation) {
            let Granted { token, .. } = frame.decode()?;
            self.send_release(token);
        }
        Ok(())
    }

    fn on_granted(&mut self, now: Instant, key: Key, hold: HoldKey, granted: Granted) {
        let Granted { token, ttl_us, durability } = granted;
        let ttl = ttl(ttl_us);
        let asked_at = self.holds.get(hold).map_or(now, |hold| hold.asked_at);
        let has_waited = ttl.is_some_and(|ttl| now.since(asked_at) > ttl / 4);
        // After a wait nobody knows how long ago it was granted: it counts once it is renewed.
        let since = if has_waited { now } else { asked_at };
        self.holds.confirm(hold, (token, ttl, durability), since);
        if !has_waited || !self.renew_by_itself(now, hold) {
            self.inflight.complete(key, Ok(Answer::Held));
        }
    }

    /// Sends a renewal that nobody but the session waits for.
    pub(super) fn renew_by_itself(&mut self, now: Instant, hold: HoldKey) -> bool {
        let is_sent = self.send_renew(hold).is_ok();
        if is_sent {
            let purpose = Purpose::Renew { hold, asked_at: now, is_own: true };
            // Should the answer not come, the deadline of the hold decides.
            self.inflight.insert(Open { purpose, expires: None, sent_end: self.output.end() });
        }
        is_sent
    }

    /// A renewal has its outcome; so has the request that waited for it.
    fn end_renewal(&mut self, key: Key, hold: HoldKey, is_own: bool, outcome: Result<Answer, Error>) {
        if is_own {
            self.inflight.remove(key);
        } else {
            self.inflight.complete(key, outcome.clone());
        }
        if let Some(asked) = self.inflight.acquiring(hold) {
            if outcome.is_err() {
                self.holds.remove(hold);
            }
            self.inflight.complete(asked, outcome);
        }
    }

    /// A request of coordination was refused.
    pub(super) fn fail_coordination(&mut self, key: Key, error: Error) {
        match self.inflight.get_mut(key).map(|open| &open.purpose) {
            Some(Purpose::Renew { hold, is_own, .. }) => {
                let (hold, is_own) = (*hold, *is_own);
                self.lose(hold, error.clone());
                self.end_renewal(key, hold, is_own, Err(error));
            }
            Some(Purpose::Identify { .. }) => self.on_unidentified(key, &error),
            Some(Purpose::Acquire(hold)) => {
                let hold = *hold;
                self.holds.remove(hold);
                self.inflight.complete(key, Err(error));
            }
            Some(Purpose::Observe(observation)) => {
                let observation = *observation;
                self.observations.remove(observation.0);
                self.inflight.complete(key, Err(error));
            }
            _ => {
                self.inflight.complete(key, Err(error));
            }
        }
    }

    /// The request is in a queue; its outcome comes later.
    pub(super) fn on_waiting(&mut self, frame: &Frame<'_>) -> Result<(), WireError> {
        frame.decode::<Waiting>().map(|_| ())
    }

    pub(super) fn on_notice(&mut self, frame: Frame<'_>) -> Result<(), WireError> {
        let correlation = frame.header.correlation;
        match Told(frame.header.handle.index) {
            Told::LOST => {
                let wire::Lost { token, code, message } = frame.decode()?;
                let code = ErrorCode::from_number(code).unwrap_or(ErrorCode::LockLost);
                if let Some(hold) = self.holds.with_token(token) {
                    self.lose(hold, Error::new(code, message.0));
                }
                Ok(())
            }
            Told::LEADER => match self.observation(correlation) {
                Some(key) => self.on_leader(key, &frame),
                None => Ok(()),
            },
            Told::OBSERVATION_LOST => {
                if let Some(key) = self.observation(correlation) {
                    let error = Error::new(ErrorCode::SlowConsumer, "who leads was not read in time");
                    self.observed(key, Observed::Ended(error));
                }
                Ok(())
            }
            Told::TAKEN_UP => self.on_taken_up(&frame),
            Told::DELIVERED => self.on_delivered(&frame),
            Told::CONSUMER_LOST => {
                self.on_consumer_lost(correlation);
                Ok(())
            }
            Told::CHANGED => self.on_key_changed(frame),
            Told::WATCH_LOST => {
                self.on_key_watch_lost(correlation);
                Ok(())
            }
            // Of a later version.
            Told(_) => Ok(()),
        }
    }

    pub(super) fn observation(&self, correlation: u64) -> Option<ObservationKey> {
        let mut known = self.observations.iter();
        known.find(|(_, one)| one.correlation == correlation).map(|(key, _)| ObservationKey(key))
    }

    fn on_leader(&mut self, key: ObservationKey, frame: &Frame<'_>) -> Result<(), WireError> {
        let wire::Leader { token } = frame.decode()?;
        let leader = if token == 0 {
            None
        } else {
            let peer = self.announced.peer(frame.header.sender)?.clone();
            let body = frame.body.clone().into_bytes();
            Some(Leader { token, peer, value: Payload { kind: frame.header.payload_kind, body } })
        };
        self.observed(key, Observed::Leader(leader));
        Ok(())
    }

    pub(super) fn observed(&mut self, key: ObservationKey, observed: Observed) {
        if self.observations.get_mut(key.0).is_some_and(|one| one.push(observed)) {
            self.events.push_back(Event::Observed(key));
        }
    }

    pub(super) fn lose(&mut self, hold: HoldKey, error: Error) -> Option<u64> {
        let token = self.holds.lose(hold, error)?;
        self.events.push_back(Event::HoldLost(hold));
        Some(token)
    }

    /// The connection is over: nothing is held any more but what the daemon may have kept, and nobody tells who leads.
    pub(super) fn lose_everything(&mut self, reason: &Error) {
        // Whoever closes gives back.
        let lost = if self.state == State::Closing { self.holds.held() } else { self.holds.leave() };
        for hold in lost {
            let message = format!("the connection that held it is over: {}", reason.message);
            self.lose(hold, Error::new(ErrorCode::LockLost, message));
        }
        let observations: Vec<ObservationKey> =
            self.observations.iter().map(|(key, _)| ObservationKey(key)).collect();
        for key in observations {
            self.observed(key, Observed::Ended(reason.clone()));
        }
    }
}

pub(super) fn ttl(ttl_us: u64) -> Option<Duration> {
    (ttl_us > 0).then(|| Duration::from_micros(ttl_us))
}
