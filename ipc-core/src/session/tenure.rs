//! What is held over a restart of the daemon.
//!
//! The session names itself by its secret before it asks for something that the daemon is to keep. When the connection is lost, what
//! is kept is neither held for sure nor lost: it is *away*. Over the next connection the session names itself again and is told what
//! it still holds. What it is not told of is lost then; and what no daemon has confirmed by its deadline is lost in any case.

use core::fmt;

use crate::error::{Error, ErrorCode};
use crate::time::Instant;
use crate::wire::coordination::{Durability, Identify, Operation, TakenUp};
use crate::wire::{Frame, WireError};

use super::coordinated::ttl;
use super::coordination::request;
use super::event::{Event, HoldKey};
use super::inflight::{Open, Purpose};
use super::slab::Key;
use super::{Session, State};

pub use crate::limits::SECRET_BYTES;

/// What a session is known by to a daemon that was started again. Whoever knows it, and runs as the same user, can take up what
/// the session holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret([u8; SECRET_BYTES]);

impl Secret {
    /// Of bytes that were drawn at random, so that nobody can guess them.
    pub const fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Secret {
    /// Secrets are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Session {
    /// Names the session before something is asked for that is to be kept that well.
    pub(super) fn identify_for(&mut self, now: Instant, durability: Option<Durability>) {
        if durability != Some(Durability::Memory) && !self.is_identified {
            self.identify(now);
        }
    }

    /// After a restart: names the session again if it was named before.
    pub(super) fn identify_again(&mut self, now: Instant) {
        if self.is_identified {
            self.identify(now);
        }
    }

    fn identify(&mut self, now: Instant) {
        let Some(Secret(secret)) = self.config.secret else { return };
        self.is_identified = true;
        let correlation = self.inflight.next_key().bits();
        self.send_control(request(Operation::IDENTIFY, correlation), &Identify { secret });
        let purpose = Purpose::Identify { asked_at: now };
        // Should the answer not come, the deadlines of what is held decide.
        self.inflight.insert(Open { purpose, expires: None, sent_end: self.output.end() });
    }

    /// The daemon still knows something that this session holds.
    pub(super) fn on_taken_up(&mut self, frame: &Frame<'_>) -> Result<(), WireError> {
        let TakenUp { token, ttl_us, durability, .. } = frame.decode()?;
        let open = self.inflight.get_mut(Key::from_bits(frame.header.correlation));
        let Some(Purpose::Identify { asked_at }) = open.map(|open| &open.purpose) else { return Ok(()) };
        let asked_at = *asked_at;
        match self.holds.with_token(token) {
            Some(hold) => {
                self.holds.confirm(hold, (token, ttl(ttl_us), durability), asked_at);
                self.events.push_back(Event::HoldTakenUp(hold));
            }
            // Nobody here wants it any more.
            None => self.send_release(token),
        }
        Ok(())
    }

    /// The daemon has told of everything it knows.
    pub(super) fn on_identified(&mut self, key: Key) {
        self.inflight.remove(key);
        self.lose_away(&Error::new(
            ErrorCode::LockLost,
            "the daemon that was started again does not know it",
        ));
    }

    /// The daemon does not keep anything for this session.
    pub(super) fn on_unidentified(&mut self, key: Key, error: &Error) {
        self.inflight.remove(key);
        self.is_identified = false;
        let message = format!("the daemon has kept nothing: {}", error.message);
        self.lose_away(&Error::new(ErrorCode::LockLost, message));
    }

    /// Gives up what was held over a connection that is lost: there will be no other.
    pub fn lose_away(&mut self, reason: &Error) {
        for hold in self.holds.away() {
            let message = format!("it could not be taken up again: {}", reason.message);
            self.lose(hold, Error::new(ErrorCode::LockLost, message));
        }
    }

    /// Renews what is due, and counts as lost what was not confirmed in time.
    pub(super) fn keep_holds(&mut self, now: Instant) {
        if self.holds.due().is_none_or(|due| due > now) {
            return;
        }
        self.holds.bound_away(now);
        let (renewals, overdue) = self.holds.take_due(now);
        for hold in overdue {
            self.lose_overdue(hold);
        }
        if self.state == State::Open {
            for hold in renewals {
                self.renew_by_itself(now, hold);
            }
        }
    }

    fn lose_overdue(&mut self, hold: HoldKey) {
        let error =
            Error::new(ErrorCode::LockLost, "the daemon did not confirm in time that it is still held");
        if let Some(token) = self.lose(hold, error.clone()) {
            self.send_release(token);
        }
        if let Some(asked) = self.inflight.acquiring(hold) {
            self.inflight.complete(asked, Err(error));
            self.holds.remove(hold);
        }
    }
}
