//! Leases: a token and a time by themselves.

use std::sync::Arc;
use std::time::Duration;

use super::call::{self, Outstanding};
use super::{Client, Durability, Hold, HoldOptions};
use crate::error::Error;
use crate::session::{Answer, Wanted};

impl Client {
    /// Takes a lease of this session: what is bound to it ends with it. The session renews it by itself, and takes it up again
    /// after a restart of the daemon.
    ///
    /// # Errors
    /// `quota_exceeded`, `permission_denied`, `invalid_argument`, `unreachable`.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, there is no lease.
    pub async fn lease(&self, ttl: Duration) -> Result<Hold, Error> {
        let options = HoldOptions { ttl: Some(ttl), ..HoldOptions::default() };
        Hold::acquire(Arc::clone(&self.handle), Wanted::Lease, options).await
    }

    /// Takes a lease that outlives this connection, and gives its token. It ends after `ttl` unless some session of the same
    /// user renews it; nobody does so by himself.
    ///
    /// # Errors
    /// As [`lease`](Client::lease).
    ///
    /// # Cancel safety
    /// Dropped before it is ready, there may be a lease for its time.
    pub async fn grant_lease(&self, ttl: Duration) -> Result<u64, Error> {
        self.grant_lease_kept(ttl, None).await
    }

    /// The same, surviving what is said; by default everything, which begins its time anew when the daemon is started again.
    ///
    /// # Errors
    /// As [`lease`](Client::lease); `storage_failed` when the disk did not take it.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, there may be a lease for its time.
    pub async fn grant_lease_kept(
        &self,
        ttl: Duration,
        durability: impl Into<Option<Durability>>,
    ) -> Result<u64, Error> {
        let durability = durability.into();
        let shared = self.shared();
        let request =
            Outstanding::begin(shared, |state, now| state.session.grant_lease(now, ttl, durability))?;
        granted(request.await?).map(|(token, _)| token)
    }

    /// Gives what has that token its full time again, and says how long that is; `None` for as long as its connection.
    ///
    /// # Errors
    /// `lock_lost` when it has ended, or is another user's.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it may have been renewed.
    pub async fn renew_lease(&self, token: u64) -> Result<Option<Duration>, Error> {
        let request = Outstanding::begin(self.shared(), |state, now| state.session.renew_token(now, token))?;
        granted(request.await?).map(|(_, ttl)| ttl)
    }

    /// Ends what has that token.
    ///
    /// # Errors
    /// `lock_lost` when it has ended before, or is another user's.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it may have been ended.
    pub async fn revoke_lease(&self, token: u64) -> Result<(), Error> {
        self.release_token(token).await
    }

    /// Gives back what a session of the same user held before the daemon was started again, and has not taken up yet: a lock, a
    /// permit, a leadership or a lease, by its token, which `ipc-cli list locks` shows. With the right to `administer release`,
    /// what any user's session held.
    ///
    /// # Errors
    /// `lock_lost` when it has ended, or was taken up; `permission_denied` when it is another user's; `unreachable`.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it may have been given back.
    pub async fn release_absent(&self, token: u64) -> Result<(), Error> {
        self.release_token(token).await
    }

    async fn release_token(&self, token: u64) -> Result<(), Error> {
        let request =
            Outstanding::begin(self.shared(), |state, now| state.session.release_token(now, token))?;
        request.await.map(|_| ())
    }
}

fn granted(answer: Answer) -> Result<(u64, Option<Duration>), Error> {
    match answer {
        Answer::Granted { token, ttl } => Ok((token, ttl)),
        other => Err(call::misfit(&other)),
    }
}
