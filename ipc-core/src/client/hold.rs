//! What is held: a lock, a permit, a leadership, a lease.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Handle;
use super::call::{Outstanding, not_made};
use crate::error::{Error, ErrorCode};
use crate::payload::Payload;
use crate::service::inherited_deadline;
use crate::session::{Durability, HoldKey, HoldOptions, HoldState, Wanted};
use crate::time::Instant;
use crate::transport::clock;

/// A lock, a permit of a semaphore, the leadership of an election, or a lease. Dropping it gives it back.
///
/// It is held until it is given back, until its connection ends, or, when it has a time to live, until it could not be renewed
/// in time, which the client does by itself. When the daemon is started again, a client that connects again
/// ([`reconnect`](crate::ConnectOptions::reconnect)) takes it up with the same token, unless it was to survive nothing
/// ([`HoldOptions::durability`]); until then it has a [`deadline`](Hold::deadline) in any case. Once it is lost it says so:
/// [`lost`](Hold::lost) is ready, and [`is_held`](Hold::is_held) is false from the very deadline on.
#[derive(Debug)]
pub struct Hold {
    handle: Arc<Handle>,
    key: HoldKey,
    token: u64,
    ttl: Option<Duration>,
    durability: Durability,
    is_released: bool,
}

impl Hold {
    pub(super) async fn acquire(
        handle: Arc<Handle>,
        wanted: Wanted,
        options: HoldOptions,
    ) -> Result<Self, Error> {
        let mut made = None;
        let options = of_this_task(options);
        let request = Outstanding::begin(handle.shared(), |state, now| {
            let (key, ticket) = state.session.acquire(now, &wanted, &options)?;
            // From here on dropping it gives back what is held.
            let handle = Arc::clone(&handle);
            let (ttl, durability) = (options.ttl, Durability::Memory);
            made = Some(Self { handle, key, token: 0, ttl, durability, is_released: false });
            Ok(ticket)
        })?;
        let outcome = request.await;
        let mut hold = made.ok_or_else(not_made)?;
        outcome?;
        let state = hold.state();
        match state {
            HoldState::Held { token, ttl, durability, .. } => {
                hold.token = token;
                hold.ttl = ttl;
                hold.durability = durability;
                Ok(hold)
            }
            HoldState::Lost(error) => Err(error),
            HoldState::Asked => Err(not_made()),
        }
    }

    /// The fencing token: later holders of the same name have higher ones, also after restarts of the daemon.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// The time to live; `None` when it is bound to the connection alone.
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// What it survives.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Until when it is certainly held, on the boot-time clock: the client's last confirmed request and its time to live.
    /// `None` when it is bound to the connection alone, and when it is lost. While that connection is lost, 5 s from when the
    /// client has noticed; a process that is stopped at that moment notices late.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state() {
            HoldState::Held { deadline, .. } => deadline,
            HoldState::Asked | HoldState::Lost(_) => None,
        }
    }

    /// Whether it is certainly held, as far as this process knows.
    pub fn is_held(&self) -> bool {
        match self.state() {
            HoldState::Held { deadline, .. } => deadline.is_none_or(|deadline| clock::now() < deadline),
            HoldState::Asked | HoldState::Lost(_) => false,
        }
    }

    /// Ready once it is lost, with the reason: `lock_lost`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn lost(&self) -> Error {
        poll_fn(|cx| {
            let mut state = self.handle.shared().lock();
            match state.session.hold(self.key) {
                Some(HoldState::Lost(error)) => return Poll::Ready(error.clone()),
                Some(HoldState::Held { .. } | HoldState::Asked) if state.gone.is_none() => {}
                _ => return Poll::Ready(gone()),
            }
            state.hold_wakers.push(self.key.slot(), cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Gives it its full time again now, and not only when the client would.
    ///
    /// # Errors
    /// `lock_lost` when it is held no longer.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it may have been renewed.
    pub async fn renew(&self) -> Result<(), Error> {
        let shared = self.handle.shared();
        let request = Outstanding::begin(shared, |state, now| state.session.renew(now, self.key))?;
        request.await.map(|_| ())
    }

    /// Changes what a leader proclaims; observers are told. At most 4096 bytes.
    ///
    /// # Errors
    /// `lock_lost` when this session does not lead any more, `invalid_argument` when this is no leadership,
    /// `payload_too_large`.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it may have been changed.
    pub async fn proclaim(&self, value: impl Into<Payload>) -> Result<(), Error> {
        let (shared, value) = (self.handle.shared(), value.into());
        let request = Outstanding::begin(shared, |state, now| state.session.proclaim(now, self.key, &value))?;
        request.await.map(|_| ())
    }

    /// Gives it back and waits for the daemon's word; while the connection is lost, until it is there again, at most until the
    /// [`deadline`](Hold::deadline).
    ///
    /// # Errors
    /// `lock_lost` when it was lost before, so that something may have happened meanwhile that it was to prevent.
    ///
    /// # Cancel safety
    /// It is given back in any case.
    pub async fn release(mut self) -> Result<(), Error> {
        let shared = self.handle.shared();
        poll_fn(|cx| self.poll_certain(cx)).await;
        self.is_released = true;
        let request = Outstanding::begin(shared, |state, now| state.session.give_back(now, self.key))?;
        request.await.map(|_| ())
    }

    /// Ready when it is known whether it is held, which it is not while the connection is lost.
    fn poll_certain(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.handle.shared().lock();
        let is_away = matches!(state.session.hold(self.key), Some(HoldState::Held { is_away: true, .. }));
        if !is_away || state.gone.is_some() {
            return Poll::Ready(());
        }
        state.hold_wakers.push(self.key.slot(), cx.waker());
        Poll::Pending
    }

    fn state(&self) -> HoldState {
        let state = self.handle.shared().lock();
        state.session.hold(self.key).cloned().unwrap_or_else(|| HoldState::Lost(gone()))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.is_released {
            return;
        }
        self.handle.shared().with(|state, wakes| {
            state.session.forget_hold(self.key);
            state.notify_driver(wakes);
        });
    }
}

fn gone() -> Error {
    Error::new(ErrorCode::LockLost, "the client that held it was closed")
}

/// Circles of sessions that wait for one another are looked for by task; and nobody waits longer than the call that is served.
fn of_this_task(options: HoldOptions) -> HoldOptions {
    let owner = match options.owner {
        // A task's number is shown, and not to be had otherwise.
        0 => tokio::task::try_id().and_then(|id| id.to_string().parse().ok()).map_or(1, |id: u64| id + 1),
        owner => owner,
    };
    let inherited = inherited_deadline().map(|deadline| deadline.since(clock::now()));
    let wait = options.wait.into_iter().chain(inherited).min();
    HoldOptions { owner, wait, ..options }
}
