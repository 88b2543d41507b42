//! Keys: put, got, deleted, listed and watched.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::call::{Outstanding, misfit, not_made};
use super::{Client, Handle};
use crate::error::{Error, ErrorCode};
use crate::limits::KEYS_LISTED_MAX;
use crate::name::ResourceName;
use crate::payload::Payload;
use crate::session::{
    Answer, Committed, KeyChange, KeyEvent, KeyOptions, KeyPage, KeyValue, KeyWatchKey, Selection, Session,
    Ticket, Transacted, Transaction,
};
use crate::time::Instant;

impl Client {
    /// Puts a key and gives the revision of that, with what it survives. Revisions are one order over all keys.
    ///
    /// # Errors
    /// `revision_mismatch` when the condition does not hold, `stale_fencing_token`, `lock_lost` for a lease that is not
    /// there, `quota_exceeded`, `payload_too_large`, `permission_denied`, `invalid_argument`, `unreachable`; after
    /// `outcome_unknown` and `deadline_exceeded` it may have been put.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the key may have been put.
    ///
    /// ```no_run
    /// # async fn example(client: ipc_core::Client) -> Result<(), ipc_core::Error> {
    /// let put = client.put_key("config/color", "blue", Default::default()).await?;
    /// let found = client.get_key("config/color").await?;
    /// assert_eq!((found.revision, found.value.as_text()?), (put.revision, "blue"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put_key(
        &self,
        key: &str,
        value: impl Into<Payload>,
        options: KeyOptions,
    ) -> Result<Committed, Error> {
        let (key, value) = (ResourceName::parse(key)?, value.into());
        self.changed(|session, now| session.put_key(now, &key, &value, &options)).await
    }

    /// Deletes a key and gives the revision of that, with what it survives.
    ///
    /// # Errors
    /// `no_such_key`, `revision_mismatch`, `stale_fencing_token`, and as [`put_key`](Client::put_key).
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the key may have been deleted.
    pub async fn delete_key(&self, key: &str, options: KeyOptions) -> Result<Committed, Error> {
        let key = ResourceName::parse(key)?;
        self.changed(|session, now| session.delete_key(now, &key, &options)).await
    }

    /// The value of a key.
    ///
    /// # Errors
    /// `no_such_key`, `permission_denied`, `invalid_argument`, `unreachable`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn get_key(&self, key: &str) -> Result<KeyValue, Error> {
        let key = ResourceName::parse(key)?;
        let page = self.page(|session, now| session.get_key(now, &key)).await?;
        match page.changes.into_iter().next() {
            Some(KeyChange::Put(found)) => Ok(found),
            _ => Err(Error::new(ErrorCode::NoSuchKey, format!("there is no key {key}"))),
        }
    }

    /// Every key of a selection, in order. With many keys it takes several requests, and is no picture of one moment.
    ///
    /// # Errors
    /// `permission_denied`, `unreachable`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn list_keys(&self, selection: &Selection) -> Result<Vec<KeyValue>, Error> {
        let mut found: Vec<KeyValue> = Vec::new();
        loop {
            let after = found.last().map_or("", |last| last.key.as_str()).to_owned();
            let count = KEYS_LISTED_MAX as u32;
            let page = self.page(|session, now| session.list_keys(now, selection, &after, count)).await?;
            found.extend(page.changes.into_iter().filter_map(KeyChange::into_put));
            if !page.more {
                return Ok(found);
            }
        }
    }

    /// Every key from `from` on to before `to`, or to the last when that is empty, in order. With many keys it takes several
    /// requests, and is no picture of one moment.
    ///
    /// # Errors
    /// `permission_denied`, `unreachable`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn list_keys_between(&self, from: &str, to: &str) -> Result<Vec<KeyValue>, Error> {
        let mut found: Vec<KeyValue> = Vec::new();
        loop {
            let after = found.last().map_or("", |last| last.key.as_str()).to_owned();
            let count = KEYS_LISTED_MAX as u32;
            let page = self.page(|session, now| session.list_range(now, (from, to), &after, count)).await?;
            found.extend(page.changes.into_iter().filter_map(KeyChange::into_put));
            if !page.more {
                return Ok(found);
            }
        }
    }

    /// Changes several keys together, or none of them, and gives the revision of each.
    ///
    /// # Errors
    /// `revision_mismatch` when a condition does not hold, `no_such_key` for a delete of one that is not there,
    /// `invalid_argument` for none, for more than 64 keys and for a key that is named twice; and as
    /// [`put_key`](Client::put_key).
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it may have happened.
    ///
    /// ```no_run
    /// # async fn example(client: ipc_core::Client) -> Result<(), ipc_core::Error> {
    /// use ipc_core::client::{Condition, Transaction};
    ///
    /// let from = client.get_key("account/a").await?;
    /// let moved = Transaction::new()
    ///     .put("account/a", "90", Condition::Revision(from.revision))
    ///     .put("account/b", "10", Condition::Absent);
    /// client.transact(&moved).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn transact(&self, transaction: &Transaction) -> Result<Transacted, Error> {
        let asked = |session: &mut Session, now| session.transact(now, transaction);
        match Outstanding::begin(self.shared(), |state, now| asked(&mut state.session, now))?.await? {
            Answer::Transacted(transacted) => Ok(transacted),
            other => Err(misfit(&other)),
        }
    }

    /// Every change of a selection from a revision on that is remembered, in order.
    ///
    /// # Errors
    /// `compacted` when some are forgotten; `permission_denied`, `unreachable`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn key_history(&self, selection: &Selection, from: u64) -> Result<Vec<KeyChange>, Error> {
        let mut found: Vec<KeyChange> = Vec::new();
        loop {
            let from = found.last().map_or(from, |last| last.revision() + 1);
            let count = KEYS_LISTED_MAX as u32;
            let page = self.page(|session, now| session.list_history(now, selection, from, count)).await?;
            found.extend(page.changes);
            if !page.more {
                return Ok(found);
            }
        }
    }

    /// Watches keys: first what is there or, with `from`, the changes from that revision on, then each change, in the order of
    /// revisions, each once. It goes on over a reconnect where it was.
    ///
    /// # Errors
    /// `compacted` when changes from that revision on are forgotten; `quota_exceeded`, `permission_denied`, `unreachable`.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, there is no watch.
    pub async fn watch_keys(&self, selection: Selection, from: Option<u64>) -> Result<KeyWatch, Error> {
        KeyWatch::new(Arc::clone(&self.handle), selection, from).await
    }

    async fn changed(
        &self,
        ask: impl FnOnce(&mut Session, Instant) -> Result<Ticket, Error>,
    ) -> Result<Committed, Error> {
        match Outstanding::begin(self.shared(), |state, now| ask(&mut state.session, now))?.await? {
            Answer::Changed(committed) => Ok(committed),
            other => Err(misfit(&other)),
        }
    }

    async fn page(
        &self,
        ask: impl FnOnce(&mut Session, Instant) -> Result<Ticket, Error>,
    ) -> Result<KeyPage, Error> {
        match Outstanding::begin(self.shared(), |state, now| ask(&mut state.session, now))?.await? {
            Answer::Keys(page) => Ok(page),
            other => Err(misfit(&other)),
        }
    }
}

/// A watch over keys. Dropping it ends it.
#[derive(Debug)]
pub struct KeyWatch {
    handle: Arc<Handle>,
    key: KeyWatchKey,
    is_over: bool,
}

impl KeyWatch {
    async fn new(handle: Arc<Handle>, selection: Selection, from: Option<u64>) -> Result<Self, Error> {
        let mut made = None;
        let request = Outstanding::begin(handle.shared(), |state, now| {
            let (key, ticket) = state.session.watch_keys(now, selection, from)?;
            // From here on dropping it ends the watch, made or not.
            made = Some(Self { handle: Arc::clone(&handle), key, is_over: false });
            Ok(ticket)
        })?;
        let outcome = request.await;
        made.map_or_else(|| Err(not_made()), |made| outcome.map(|_| made))
    }

    /// What happens next. `None` when the client was closed, and after an error.
    ///
    /// # Errors
    /// The connection is lost for good.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<Result<KeyEvent, Error>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same for a future of one's own: the task is woken when something happens.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<KeyEvent, Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let taken = self.handle.shared().with(|state, wakes| {
            let event = state.session.next_key_event(self.key);
            if event.is_some() && state.session.pending_bytes() > 0 {
                state.notify_driver(wakes);
            }
            if event.is_none() && state.gone.is_none() {
                state.key_watch_wakers.set(self.key.slot(), cx.waker());
            }
            (event, state.gone.clone().filter(|_| !state.was_asked_to_stop()), state.gone.is_some())
        });
        match taken {
            (Some(event), ..) => {
                self.is_over = matches!(event, KeyEvent::Ended(_));
                Poll::Ready(Some(Ok(event)))
            }
            (None, error, true) => {
                self.is_over = true;
                Poll::Ready(error.map(Err))
            }
            (None, _, false) => Poll::Pending,
        }
    }
}

impl Drop for KeyWatch {
    fn drop(&mut self) {
        self.handle.shared().with(|state, wakes| {
            state.session.forget_key_watch(self.key);
            state.notify_driver(wakes);
        });
    }
}
