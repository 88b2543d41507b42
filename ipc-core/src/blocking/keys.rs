//! Keys: put, got, deleted, listed and watched.

use std::time::Duration;

use super::Client;
use super::call::unexpected;
use crate::error::{Error, ErrorCode};
use crate::limits::KEYS_LISTED_MAX;
use crate::name::ResourceName;
use crate::payload::Payload;
use crate::session::{
    Answer, Committed, KeyChange, KeyEvent, KeyOptions, KeyValue, KeyWatchKey, Selection, Ticket, Transacted,
    Transaction,
};
use crate::transport::clock;

/// A watch over keys. It is a number; the client keeps what has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "changes come until it is unwatched"]
pub struct KeyWatch {
    key: KeyWatchKey,
    client: u64,
}

impl Client {
    /// Puts a key and gives the revision of that, with what it survives. Revisions are one order over all keys.
    ///
    /// # Errors
    /// `revision_mismatch` when the condition does not hold, `stale_fencing_token`, `lock_lost` for a lease that is not
    /// there, `quota_exceeded`, `payload_too_large`, `permission_denied`, `invalid_argument`, `unreachable`; after
    /// `outcome_unknown` and `deadline_exceeded` it may have been put.
    pub fn put_key(
        &mut self,
        key: &str,
        value: impl Into<Payload>,
        options: &KeyOptions,
    ) -> Result<Committed, Error> {
        let (key, value) = (ResourceName::parse(key)?, value.into());
        self.greet_before(&value)?;
        let ticket = self.session.put_key(clock::now(), &key, &value, options)?;
        self.revision_of(ticket)
    }

    /// Deletes a key and gives the revision of that, with what it survives.
    ///
    /// # Errors
    /// `no_such_key`, `revision_mismatch`, `stale_fencing_token`, and as [`put_key`](Client::put_key).
    pub fn delete_key(&mut self, key: &str, options: &KeyOptions) -> Result<Committed, Error> {
        let ticket = self.session.delete_key(clock::now(), &ResourceName::parse(key)?, options)?;
        self.revision_of(ticket)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// `no_such_key`, `permission_denied`, `invalid_argument`, `unreachable`.
    pub fn get_key(&mut self, key: &str) -> Result<KeyValue, Error> {
        let ticket = self.session.get_key(clock::now(), &ResourceName::parse(key)?)?;
        match self.outcome(ticket)? {
            Answer::Keys(page) => match page.changes.into_iter().next() {
                Some(KeyChange::Put(found)) => Ok(found),
                _ => Err(Error::new(ErrorCode::NoSuchKey, format!("there is no key {key}"))),
            },
            answer => Err(unexpected(&answer)),
        }
    }

    /// Every key of a selection, in order. With many keys it takes several requests, and is no picture of one moment.
    ///
    /// # Errors
    /// `permission_denied`, `unreachable`.
    pub fn list_keys(&mut self, selection: &Selection) -> Result<Vec<KeyValue>, Error> {
        let mut found: Vec<KeyValue> = Vec::new();
        loop {
            let after = found.last().map_or("", |last| last.key.as_str());
            let ticket = self.session.list_keys(clock::now(), selection, after, KEYS_LISTED_MAX as u32)?;
            let page = match self.outcome(ticket)? {
                Answer::Keys(page) => page,
                answer => return Err(unexpected(&answer)),
            };
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
    pub fn list_keys_between(&mut self, from: &str, to: &str) -> Result<Vec<KeyValue>, Error> {
        let mut found: Vec<KeyValue> = Vec::new();
        loop {
            let after = found.last().map_or("", |last| last.key.as_str());
            let ticket = self.session.list_range(clock::now(), (from, to), after, KEYS_LISTED_MAX as u32)?;
            let page = match self.outcome(ticket)? {
                Answer::Keys(page) => page,
                answer => return Err(unexpected(&answer)),
            };
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
    pub fn transact(&mut self, transaction: &Transaction) -> Result<Transacted, Error> {
        let ticket = self.session.transact(clock::now(), transaction)?;
        match self.outcome(ticket)? {
            Answer::Transacted(transacted) => Ok(transacted),
            answer => Err(unexpected(&answer)),
        }
    }

    /// Watches keys: first what is there or, with `from`, the changes from that revision on, then each change, in the order of
    /// revisions, each once. It goes on over a reconnect where it was.
    ///
    /// # Errors
    /// `compacted` when changes from that revision on are forgotten; `quota_exceeded`, `permission_denied`, `unreachable`.
    pub fn watch_keys(&mut self, selection: Selection, from: Option<u64>) -> Result<KeyWatch, Error> {
        let (key, ticket) = self.session.watch_keys(clock::now(), selection, from)?;
        self.outcome(ticket)?;
        Ok(KeyWatch { key, client: self.id })
    }

    /// What happens next to the keys of a watch; `None` when nothing did within `timeout`, give or take a few percent.
    ///
    /// # Errors
    /// Why the connection is over, once everything from before was given.
    pub fn next_key_event(&mut self, watch: &KeyWatch, timeout: Duration) -> Result<Option<KeyEvent>, Error> {
        self.check_client(watch.client)?;
        self.next_of(timeout, |client| Ok(client.session.next_key_event(watch.key)))
    }

    /// Ends a watch.
    ///
    /// # Errors
    /// As [`flush`](Client::flush); the watch is gone in any case.
    pub fn unwatch_keys(&mut self, watch: KeyWatch) -> Result<(), Error> {
        self.check_client(watch.client)?;
        self.session.forget_key_watch(watch.key);
        self.flush()
    }

    fn revision_of(&mut self, ticket: Ticket) -> Result<Committed, Error> {
        match self.outcome(ticket)? {
            Answer::Changed(committed) => Ok(committed),
            answer => Err(unexpected(&answer)),
        }
    }
}
