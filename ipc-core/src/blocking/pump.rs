//! Bytes out, bytes in, and waiting for an outcome.

use rustix::io::Errno;

use super::Client;
use super::link::{Read, Wait};
use crate::error::{Error, ErrorCode};
use crate::session::{Drain, Event, Outcome, State, Ticket};
use crate::time::Instant;
use crate::transport::{clock, datagrams};

/// Size of the buffer that is read into, in bytes: a few hundred small frames for one system call.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Once so many bytes wait to be written, they are.
const FLUSH_MARK_BYTES: u64 = 64 * 1024;

impl Client {
    /// Writes everything that waits to be written. Requests do that by themselves; it is needed after
    /// [`start_call`](Client::start_call) when nothing is waited for, and before the program sleeps elsewhere.
    ///
    /// While the daemon does not take it, what it sends is read, so that two full sockets never wait for each other.
    ///
    /// # Errors
    /// `unreachable` when the connection is lost; `deadline_exceeded` when the daemon takes nothing for
    /// [`timeout`](Client::timeout): what is left is written next time.
    pub fn flush(&mut self) -> Result<(), Error> {
        let patience = self.options.call_timeout;
        if self.flush_until(clock::now() + patience)? {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::DeadlineExceeded,
            format!("the daemon did not take what was written for {patience:?}"),
        )
        .with_hint("see whether it is stopped or overloaded"))
    }

    /// Writes what waits to be written; says whether all of it was written by `until`.
    pub(super) fn flush_until(&mut self, until: Instant) -> Result<bool, Error> {
        while self.session.pending_bytes() > 0 || self.session.is_holding() {
            if self.session.is_holding() {
                // What is to go out waits for what is to come in.
                if !self.await_word(until)? {
                    return Ok(false);
                }
                continue;
            }
            match self.link.write(self.session.transmit()) {
                Ok(0) => {
                    let left = until.since(clock::now());
                    if left.is_zero() {
                        return Ok(false);
                    }
                    if self.link.wait_until_writable(left).map_err(io_error)? {
                        self.read(Wait::No)?;
                    }
                }
                Ok(count) => self.session.transmitted(count),
                Err(errno) if self.session.is_over_datagrams() => {
                    self.session.handle_failure(datagrams::refusal(errno).as_deref());
                }
                Err(errno) => self.write_failed(errno)?,
            }
            if self.session.state() == State::Closed {
                self.sort_out();
                break;
            }
        }
        self.check_connected()?;
        Ok(true)
    }

    /// Reads once, for the daemon's first answer or until it is to be asked again. Says whether it is not too late.
    fn await_word(&mut self, until: Instant) -> Result<bool, Error> {
        let now = clock::now();
        if now >= until {
            return Ok(false);
        }
        let due = self.session.poll_timeout().map_or(until, |due| due.min(until));
        let left = due.since(now);
        self.read(if left.is_zero() { Wait::No } else { Wait::For(left) })?;
        self.check_connected()?;
        Ok(true)
    }

    /// Writes what waits only when it is much.
    pub(super) fn flush_if_much(&mut self) -> Result<(), Error> {
        if self.session.pending_bytes() >= FLUSH_MARK_BYTES { self.flush() } else { Ok(()) }
    }

    /// The daemon takes nothing more; what it said last may still be there to be read, and says why.
    fn write_failed(&mut self, errno: Errno) -> Result<(), Error> {
        while self.session.state() != State::Closed {
            if !self.read(Wait::No)? {
                self.session.handle_eof(Some(&format!("writing to the daemon failed: {errno}")));
                self.sort_out();
            }
        }
        Ok(())
    }

    /// Writes what waits, reads once and handles what came. Waits until `until`, without limit if that is `None`, and no
    /// longer than until something is due in the session.
    ///
    /// # Errors
    /// Why the connection is over, once it is.
    pub(super) fn step(&mut self, until: Option<Instant>) -> Result<(), Error> {
        self.step_with(until, None)
    }

    /// As [`step`](Client::step), handing the events of one subscription on.
    pub(super) fn step_with(
        &mut self,
        until: Option<Instant>,
        drain: Option<Drain<'_>>,
    ) -> Result<(), Error> {
        if self.session.is_over_datagrams() {
            // Answers that keep coming must not keep what was lost from being sent again.
            self.session.handle_timeout(clock::now());
        }
        let first = self.session.poll_timeout().into_iter().chain(until).min();
        if self.session.pending_bytes() > 0 {
            let reads = self.reads;
            match first {
                Some(first) if !self.flush_until(first)? => {
                    self.session.handle_timeout(clock::now());
                    self.sort_out();
                    return Ok(());
                }
                Some(_) => {}
                None => self.flush()?,
            }
            if self.reads != reads {
                // It read while it could not write; whoever waits looks at that before it waits on.
                return Ok(());
            }
        } else {
            self.check_connected()?;
        }
        let first = match self.session.is_over_datagrams() {
            // What was sent just now is to be sent again before long.
            true => self.session.poll_timeout().into_iter().chain(until).min(),
            false => first,
        };
        let wait = match first {
            None => Wait::Forever,
            Some(first) => match first.since(clock::now()) {
                left if left.is_zero() => Wait::No,
                left => Wait::For(left),
            },
        };
        self.read_with(wait, drain)?;
        Ok(())
    }

    /// Reads once and handles what came; says whether anything did. That the connection was lost shows in the session.
    fn read(&mut self, wait: Wait) -> Result<bool, Error> {
        self.read_with(wait, None)
    }

    fn read_with(&mut self, wait: Wait, drain: Option<Drain<'_>>) -> Result<bool, Error> {
        self.read_buffer.clear();
        let read = match self.session.direct() {
            // A large frame is read straight to where it will stay.
            Some((buffer, room)) => self.link.read(buffer, room, wait),
            None => self.link.read(&mut self.read_buffer, READ_BUFFER_BYTES, wait),
        };
        match read {
            Ok(Read::Some(_)) => {
                self.reads += 1;
                self.session.handle_input_with(clock::now(), &mut &self.read_buffer[..], drain);
            }
            Ok(Read::Nothing) => self.session.handle_timeout(clock::now()),
            // An empty datagram.
            Ok(Read::End) if self.session.is_over_datagrams() => {}
            Ok(Read::End) => self.session.handle_eof(None),
            Err(errno) if self.session.is_over_datagrams() => {
                if let Some(reason) = datagrams::refusal(errno) {
                    self.session.handle_failure(Some(&reason));
                }
            }
            // The daemon closed while something of ours was unread.
            Err(errno @ (Errno::CONNRESET | Errno::PIPE)) => {
                self.session.handle_eof(Some(&format!("the daemon closed the connection: {errno}")));
            }
            Err(errno) => return Err(io_error(errno)),
        }
        self.sort_out();
        Ok(read != Ok(Read::Nothing))
    }

    /// Waits for the outcome of one request.
    pub(super) fn outcome(&mut self, ticket: Ticket) -> Outcome {
        loop {
            if let Some(outcome) = self.session.take(ticket) {
                return outcome;
            }
            if let Err(error) = self.step(None) {
                // A lost connection has given every request its outcome, which tells more.
                let outcome = self.session.take(ticket);
                if outcome.is_none() {
                    self.session.abandon(ticket);
                }
                return outcome.unwrap_or(Err(error));
            }
        }
    }

    /// What the session has to tell: who is done, what became of our services.
    pub(super) fn sort_out(&mut self) {
        if self.session.state() == State::Closed {
            // What may be taken up again has its time from now on.
            self.session.handle_timeout(clock::now());
        }
        while let Some(ticket) = self.session.poll_completed() {
            self.started.completed(ticket);
        }
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Connected { epoch_changed } => self.epoch_changed = epoch_changed.unwrap_or(false),
                Event::Acquired(key) => self.services.acquired(key),
                Event::RegistrationLost(key, error) => self.services.lost(key, error),
                Event::CallCancelled(key) => self.services.cancelled(key),
                // Whoever waits for these looks at the session itself.
                Event::Delivered(_)
                | Event::NamesChanged(_)
                | Event::HoldLost(_)
                | Event::HoldTakenUp(_)
                | Event::Observed(_)
                | Event::KeysChanged(_)
                | Event::Work(_)
                | Event::Closed(_) => {}
            }
        }
    }

    /// The error that ended the connection, if it has ended.
    pub(super) fn check_connected(&self) -> Result<(), Error> {
        match self.session.ended() {
            Some(error) if self.session.state() == State::Closed => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

fn io_error(errno: Errno) -> Error {
    Error::new(ErrorCode::Io, format!("the connection to the daemon failed: {errno}"))
}
