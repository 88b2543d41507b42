//! A new connection with everything made again.

use super::Client;
use super::client::open_link;
use crate::error::{Error, ErrorCode};
use crate::name::ServiceName;
use crate::options::Backoff;
use crate::session::State;
use crate::transport::clock;

/// What a reconnect found, and what was lost by it.
///
/// Calls that were open ended with `outcome_unknown` or, when they had not been sent, `unreachable`. Each subscription gives a
/// [`Delivery::Lost`](super::Delivery::Lost) at the place where events may be missing, each watch a
/// [`NameEvent::Restarted`](super::NameEvent::Restarted).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconnected {
    /// Whether it is another life of the daemon: event numbers begin anew, and nothing of before is known to it.
    pub epoch_changed: bool,
    /// Attempts it took.
    pub attempts: u32,
    /// Services that could not be offered again, with the reason.
    pub services_lost: Vec<(ServiceName, Error)>,
}

impl Client {
    /// Connects again, whether the connection was lost or not, and subscribes, watches and offers services as before; takes up
    /// again what was held and a daemon that was started again has kept. Between attempts it pauses as [`ConnectOptions::reconnect`](crate::ConnectOptions::reconnect) says; without that there is one
    /// attempt.
    ///
    /// # Errors
    /// As [`connect`](Client::connect), of the last attempt; errors that time does not heal end it at once.
    pub fn reconnect(&mut self) -> Result<Reconnected, Error> {
        let once = Backoff { attempts_max: Some(1), ..Backoff::default() };
        let backoff = self.options.reconnect.unwrap_or(once);
        if self.session.state() != State::Closed {
            self.session.handle_eof(Some("the client connects anew"));
            self.sort_out();
        }
        let mut attempts = 0;
        loop {
            attempts += 1;
            let Err(error) = self.try_reconnect() else { break };
            let heals = error.code.is_retryable() || error.code == ErrorCode::OutcomeUnknown;
            match backoff.pause(attempts, spread()) {
                Some(pause) if heals => std::thread::sleep(pause),
                Some(_) | None => return Err(error),
            }
        }
        let services_lost = self.services.take_lost();
        Ok(Reconnected { epoch_changed: self.epoch_changed, attempts, services_lost })
    }

    fn try_reconnect(&mut self) -> Result<(), Error> {
        (_, self.link) = open_link(&self.options)?;
        self.session.restart(clock::now());
        self.greet()?;
        // The daemon answers in order: with this, everything that was asked for again has its answer.
        self.ping()?;
        Ok(())
    }

    /// After `error` in a loop that is to go on: connects again when the options say so. It does not go on when a service was
    /// lost by that.
    pub(super) fn reconnect_or(&mut self, error: Error) -> Result<(), Error> {
        if self.session.state() != State::Closed || self.options.reconnect.is_none() {
            return Err(error);
        }
        let lost = self.reconnect()?.services_lost;
        lost.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }
}

/// A number that differs from process to process and from time to time, which is all that a pause needs.
fn spread() -> u32 {
    let seed = clock::now().as_nanos() ^ u64::from(std::process::id()) << 32;
    // The upper half of a multiplication mixes all bits (Knuth's multiplicative method).
    (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}
