//! Locks, semaphores, elections, barriers and leases.

use std::time::Duration;

use super::call::unexpected;
use super::{Client, HoldOptions, Passed, inherited};
use crate::error::{Error, ErrorCode};
use crate::name::ResourceName;
use crate::payload::Payload;
use crate::session::{Answer, Durability, HoldKey, HoldState, Wanted};
use crate::time::Instant;
use crate::transport::clock;

/// A lock, a permit of a semaphore, the leadership of an election, or a lease. Dropping it gives it back.
///
/// It keeps its client; what is to be done while it is held goes through [`client`](Hold::client). Nothing happens between
/// calls: what has a time to live is renewed while the client waits for something, or by [`renew`](Hold::renew). Without one it
/// is held for as long as the connection. When the daemon is started again, [`reconnect`](Client::reconnect) takes it up with the
/// same token, unless it was to survive nothing ([`HoldOptions::durability`]).
///
/// ```no_run
/// use ipc_core::blocking::Client;
///
/// let mut client = Client::connect(Default::default())?;
/// let mut lock = client.lock("deploy/web", Default::default())?;
/// println!("alone, with token {}", lock.token());
/// lock.client().publish("deploy.started", "web")?;
/// lock.release()?;
/// # Ok::<(), ipc_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Hold<'a> {
    client: &'a mut Client,
    key: HoldKey,
    token: u64,
    is_released: bool,
}

impl Hold<'_> {
    /// The fencing token: later holders of the same name have higher ones, also after restarts of the daemon.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// The client that holds it.
    pub fn client(&mut self) -> &mut Client {
        self.client
    }

    /// Until when it is certainly held, on the boot-time clock: the client's last confirmed request and its time to live.
    /// `None` when it is bound to the connection alone, and when it is lost. While that connection is lost, 5 s from when the
    /// client has noticed.
    pub fn deadline(&self) -> Option<Instant> {
        match self.client.session.hold(self.key) {
            Some(HoldState::Held { deadline, .. }) => *deadline,
            _ => None,
        }
    }

    /// What it survives.
    pub fn durability(&self) -> Durability {
        match self.client.session.hold(self.key) {
            Some(HoldState::Held { durability, .. }) => *durability,
            _ => Durability::Memory,
        }
    }

    /// Whether it is certainly held, as far as can be read without waiting.
    ///
    /// # Errors
    /// Why it is not: `lock_lost`; `unreachable` when the connection is lost and it can still be taken up again, until its
    /// [`deadline`](Hold::deadline).
    pub fn check(&mut self) -> Result<(), Error> {
        // That the connection is over shows in what is held.
        let _over = self.client.step(Some(clock::now()));
        match self.client.session.hold(self.key) {
            Some(HoldState::Held { deadline: Some(deadline), .. }) if clock::now() >= *deadline => {
                Err(Error::new(ErrorCode::LockLost, "its time to live has passed without a renewal"))
            }
            Some(HoldState::Held { is_away: true, .. }) => {
                let message = "the connection is lost, and with it the certainty that it is still held";
                Err(Error::new(ErrorCode::Unreachable, message).with_hint("reconnect takes it up again"))
            }
            Some(HoldState::Held { .. }) => Ok(()),
            Some(HoldState::Lost(error)) => Err(error.clone()),
            Some(HoldState::Asked) | None => Err(Error::new(ErrorCode::LockLost, "it is not held")),
        }
    }

    /// Gives it its full time again.
    ///
    /// # Errors
    /// `lock_lost` when it is held no longer.
    pub fn renew(&mut self) -> Result<(), Error> {
        let ticket = self.client.session.renew(clock::now(), self.key)?;
        self.client.outcome(ticket).map(|_| ())
    }

    /// Changes what a leader proclaims; observers are told. At most 4096 bytes.
    ///
    /// # Errors
    /// `lock_lost` when this session does not lead any more, `invalid_argument` when this is no leadership,
    /// `payload_too_large`.
    pub fn proclaim(&mut self, value: impl Into<Payload>) -> Result<(), Error> {
        let ticket = self.client.session.proclaim(clock::now(), self.key, &value.into())?;
        self.client.outcome(ticket).map(|_| ())
    }

    /// Gives it back and waits for the daemon's word.
    ///
    /// # Errors
    /// `lock_lost` when it was lost before, so that something may have happened meanwhile that it was to prevent.
    pub fn release(mut self) -> Result<(), Error> {
        self.is_released = true;
        let ticket = self.client.session.give_back(clock::now(), self.key)?;
        self.client.outcome(ticket).map(|_| ())
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if !self.is_released {
            self.client.session.forget_hold(self.key);
            // What the socket does not take now goes with the next request, or with the end of the connection.
            let _written_or_over = self.client.flush_until(clock::now());
        }
    }
}

impl Client {
    /// Gives back what a session of the same user held before the daemon was started again, and has not taken up yet: a lock, a
    /// permit, a leadership or a lease, by its token, which `ipc-cli list locks` shows. With the right to `administer release`,
    /// what any user's session held.
    ///
    /// # Errors
    /// `lock_lost` when it has ended, or has been taken up; `permission_denied` when it is another user's; `unreachable`.
    pub fn release_absent(&mut self, token: u64) -> Result<(), Error> {
        let ticket = self.session.release_token(clock::now(), token)?;
        self.outcome(ticket).map(|_| ())
    }

    /// Takes a lock, alone, and waits for it as the options say.
    ///
    /// A lock keeps apart those who ask for it, and nobody else. Where a late writer would do harm, have what is written
    /// to check the [token](Hold::token), and refuse one that is lower than the highest it has seen.
    ///
    /// # Errors
    /// `busy` when it was not to be had in time, `deadlock` when sessions would have waited for one another,
    /// `quota_exceeded`, `permission_denied`, `invalid_argument`, `unreachable`.
    pub fn lock(&mut self, name: &str, options: HoldOptions) -> Result<Hold<'_>, Error> {
        self.acquire_wanted(&Wanted::Lock { name: ResourceName::parse(name)?, shared: false }, options)
    }

    /// Takes a lock together with others who share it; see [`lock`](Client::lock).
    ///
    /// # Errors
    /// As [`lock`](Client::lock).
    pub fn lock_shared(&mut self, name: &str, options: HoldOptions) -> Result<Hold<'_>, Error> {
        self.acquire_wanted(&Wanted::Lock { name: ResourceName::parse(name)?, shared: true }, options)
    }

    /// Takes one permit of a semaphore that has `permits` in all, as everybody who uses it says alike.
    ///
    /// # Errors
    /// As [`lock`](Client::lock); `conflict` when others use it with another number of permits.
    pub fn acquire(&mut self, name: &str, permits: u32, options: HoldOptions) -> Result<Hold<'_>, Error> {
        let name = ResourceName::parse(name)?;
        self.acquire_wanted(&Wanted::Permits { name, permits, count: 1 }, options)
    }

    /// Stands for an election, and waits until this session leads. Observers are shown `value`, at most 4096 bytes.
    ///
    /// # Errors
    /// As [`lock`](Client::lock); `payload_too_large`.
    pub fn campaign(
        &mut self,
        name: &str,
        value: impl Into<Payload>,
        options: HoldOptions,
    ) -> Result<Hold<'_>, Error> {
        let value = value.into();
        self.greet_before(&value)?;
        self.acquire_wanted(&Wanted::Leadership { name: ResourceName::parse(name)?, value }, options)
    }

    /// Takes a lease of this session: what is bound to it ends with it.
    ///
    /// # Errors
    /// `quota_exceeded`, `permission_denied`, `invalid_argument`, `unreachable`.
    pub fn lease(&mut self, ttl: Duration) -> Result<Hold<'_>, Error> {
        self.acquire_wanted(&Wanted::Lease, HoldOptions { ttl: Some(ttl), ..HoldOptions::default() })
    }

    /// Arrives at a barrier and waits until `parties` have. `wait` is how long, `None` without limit.
    ///
    /// # Errors
    /// `busy` when not all came in time, `conflict` when others expect another number of parties; else as
    /// [`lock`](Client::lock).
    pub fn arrive(&mut self, name: &str, parties: u32, wait: Option<Duration>) -> Result<Passed, Error> {
        let name = ResourceName::parse(name)?;
        let ticket = self.session.arrive(clock::now(), &name, parties, wait)?;
        match self.outcome(ticket)? {
            Answer::Passed(passed) => Ok(passed),
            answer => Err(unexpected(&answer)),
        }
    }

    fn acquire_wanted(&mut self, wanted: &Wanted, options: HoldOptions) -> Result<Hold<'_>, Error> {
        // One client is in the hands of one thread, which does one thing at a time.
        let owner = if options.owner == 0 { 1 } else { options.owner };
        let wait = options.wait.into_iter().chain(inherited::remaining()).min();
        let options = HoldOptions { owner, wait, ..options };
        let (key, ticket) = self.session.acquire(clock::now(), wanted, &options)?;
        if let Err(error) = self.outcome(ticket) {
            self.session.forget_hold(key);
            return Err(error);
        }
        match self.session.hold(key).cloned() {
            Some(HoldState::Held { token, .. }) => Ok(Hold { client: self, key, token, is_released: false }),
            Some(HoldState::Lost(error)) => {
                self.session.forget_hold(key);
                Err(error)
            }
            Some(HoldState::Asked) | None => Err(Error::new(ErrorCode::LockLost, "it is not held")),
        }
    }
}
