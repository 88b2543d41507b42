//! Keys: put, got, deleted, listed and watched.

use std::collections::VecDeque;

use crate::error::{Error, ErrorCode};
use crate::limits::{KEY_EVENTS_QUEUED_MAX, TRANSACTION_KEYS_MAX};
use crate::name::ResourceName;
use crate::payload::{Payload, PayloadKind};
use crate::time::{Instant, whole_micros};
use crate::wire::codec::List;
use crate::wire::coordination::{
    self as wire, DeleteKey, Fence, GetKey, KeyState, ListHistory, ListKeys, ListRange, Operation, PutKey,
    Transact, UnwatchKeys, WatchKeys, Watching,
};
use crate::wire::{Frame, WireError};

use super::Session;
use super::coordination::request;
use super::event::{Answer, Event, KeyWatchKey, Ticket};
use super::inflight::{Open, Purpose};
use super::key::{
    KeyChange, KeyEvent, KeyOptions, KeyPage, KeyValue, Selection, Transacted, Transaction, TransactionStep,
};
use super::slab::Key;

#[derive(Debug)]
pub(super) struct KeyWatch {
    selection: Selection,
    /// Under which correlation the daemon tells of it.
    correlation: u64,
    queue: VecDeque<KeyEvent>,
    /// Where to go on: behind everything that was told. `None` while what is there at first is being told.
    next: Option<u64>,
    /// Where to go on after that.
    seen: u64,
    /// It waits for its user, and the daemon does not tell of it.
    is_paused: bool,
    /// Who waits for the answer to the first request.
    ticket: Option<Ticket>,
}

impl Session {
    /// Puts a key: [`Answer::Changed`].
    ///
    /// # Errors
    /// At once: `payload_too_large`, and the error that ended the session.
    pub fn put_key(
        &mut self,
        now: Instant,
        key: &ResourceName,
        value: &Payload,
        options: &KeyOptions,
    ) -> Result<Ticket, Error> {
        self.check_stream()?;
        self.check_size(value)?;
        let put = PutKey {
            key: key.as_str().into(),
            condition: options.condition.into(),
            ttl_us: options.ttl.map_or(0, whole_micros),
            lease: options.lease.unwrap_or(0),
            fence: fence(options),
            durability: options.durability,
        };
        let correlation = self.inflight.next_key().bits();
        self.send_with(request(Operation::PUT, correlation), &put, value);
        Ok(self.open(now, Purpose::Coordinate(Operation::PUT)))
    }

    /// Deletes a key: [`Answer::Changed`].
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn delete_key(
        &mut self,
        now: Instant,
        key: &ResourceName,
        options: &KeyOptions,
    ) -> Result<Ticket, Error> {
        self.check_stream()?;
        let condition = options.condition.into();
        let delete = DeleteKey {
            key: key.as_str().into(),
            condition,
            fence: fence(options),
            durability: options.durability,
        };
        Ok(self.ask(now, Operation::DELETE, &delete))
    }

    /// Gets a key: [`Answer::Keys`] with one in it.
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn get_key(&mut self, now: Instant, key: &ResourceName) -> Result<Ticket, Error> {
        self.check_stream()?;
        Ok(self.ask(now, Operation::GET, &GetKey { key: key.as_str().into() }))
    }

    /// Lists keys behind `after`, at most `count`: [`Answer::Keys`].
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn list_keys(
        &mut self,
        now: Instant,
        selection: &Selection,
        after: &str,
        count: u32,
    ) -> Result<Ticket, Error> {
        self.check_stream()?;
        let list = ListKeys { selection: selection.into(), after: after.into(), count };
        Ok(self.ask(now, Operation::LIST, &list))
    }

    /// Changes several keys, or none: [`Answer::Transacted`].
    ///
    /// # Errors
    /// At once: `invalid_argument`, `payload_too_large`, and the error that ended the session.
    pub fn transact(&mut self, now: Instant, transaction: &Transaction) -> Result<Ticket, Error> {
        self.check_stream()?;
        let (transact, values) = packed(transaction)?;
        let values = Payload::from(values);
        self.check_size(&values)?;
        let correlation = self.inflight.next_key().bits();
        self.send_with(request(Operation::TRANSACT, correlation), &transact, &values);
        Ok(self.open(now, Purpose::Coordinate(Operation::TRANSACT)))
    }

    /// Lists keys from one to before another, behind `after`, at most `count`: [`Answer::Keys`].
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn list_range(
        &mut self,
        now: Instant,
        (from, to): (&str, &str),
        after: &str,
        count: u32,
    ) -> Result<Ticket, Error> {
        self.check_stream()?;
        let range = ListRange { from: from.into(), to: to.into(), after: after.into(), count };
        Ok(self.ask(now, Operation::LIST_RANGE, &range))
    }

    /// Lists changes from a revision on, at most `count`: [`Answer::Keys`].
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn list_history(
        &mut self,
        now: Instant,
        selection: &Selection,
        from: u64,
        count: u32,
    ) -> Result<Ticket, Error> {
        self.check_stream()?;
        let history = ListHistory { selection: selection.into(), from, count };
        Ok(self.ask(now, Operation::HISTORY, &history))
    }

    /// Watches keys: what is there, or the changes from a revision on, and then each change. If the outcome is an error, the
    /// watch is gone. It goes on over restarts, without loss and without doubles, or says that it has restarted.
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn watch_keys(
        &mut self,
        now: Instant,
        selection: Selection,
        from: Option<u64>,
    ) -> Result<(KeyWatchKey, Ticket), Error> {
        self.check_stream()?;
        let key = KeyWatchKey(self.key_watches.next_key());
        let correlation = self.inflight.next_key().bits();
        let watch = KeyWatch {
            selection,
            correlation,
            queue: VecDeque::new(),
            next: from,
            seen: from.unwrap_or(0),
            is_paused: false,
            ticket: None,
        };
        self.send_watch(correlation, &watch.selection, from);
        self.key_watches.insert(watch);
        let ticket = self.open(now, Purpose::WatchKeys { watch: key, is_own: false });
        if let Some(watch) = self.key_watches.get_mut(key.0) {
            watch.ticket = Some(ticket);
        }
        Ok((key, ticket))
    }

    fn send_watch(&mut self, correlation: u64, selection: &Selection, from: Option<u64>) {
        self.send_control(
            request(Operation::WATCH, correlation),
            &WatchKeys { selection: selection.into(), from },
        );
    }

    /// The oldest of what a watch has received.
    pub fn next_key_event(&mut self, key: KeyWatchKey) -> Option<KeyEvent> {
        let watch = self.key_watches.get_mut(key.0)?;
        let event = watch.queue.pop_front()?;
        if watch.is_paused && watch.queue.len() <= KEY_EVENTS_QUEUED_MAX / 2 {
            self.resume_watch(key);
        }
        Some(event)
    }

    /// Ends a watch without waiting for the daemon's word.
    pub fn forget_key_watch(&mut self, key: KeyWatchKey) {
        if let Some(watch) = self.key_watches.remove(key.0)
            && !watch.is_paused
        {
            self.send_unwatch_keys(watch.correlation);
        }
    }

    /// A request for a watch has failed: one that was never made is gone, another is asked for again.
    pub(super) fn forget_unmade_key_watch(&mut self, key: KeyWatchKey) {
        if self.key_watches.get_mut(key.0).is_some_and(|watch| watch.ticket.is_some()) {
            self.forget_key_watch(key);
        }
    }

    fn send_unwatch_keys(&mut self, watch: u64) {
        if self.state.takes_requests() {
            self.send_control(request(Operation::UNWATCH, 0), &UnwatchKeys { watch });
        }
    }

    /// Asks anew for what a watch has not been told.
    fn resume_watch(&mut self, key: KeyWatchKey) {
        if !self.state.takes_requests() {
            return;
        }
        let correlation = self.inflight.next_key().bits();
        let Some(watch) = self.key_watches.get_mut(key.0) else { return };
        watch.correlation = correlation;
        watch.is_paused = false;
        let (selection, next) = (watch.selection.clone(), watch.next);
        self.send_watch(correlation, &selection, next);
        let purpose = Purpose::WatchKeys { watch: key, is_own: true };
        self.inflight.insert(Open { purpose, expires: None, sent_end: self.output.end() });
    }

    /// After a restart every watch goes on where it was.
    pub(super) fn watch_keys_again(&mut self) {
        let keys: Vec<KeyWatchKey> = self.key_watches.iter().map(|(key, _)| KeyWatchKey(key)).collect();
        for key in keys {
            self.resume_watch(key);
        }
    }

    /// A request for a watch has its outcome, behind everything that was to be told at first.
    pub(super) fn on_watching_keys(
        &mut self,
        request: (Key, bool),
        watch: KeyWatchKey,
        outcome: Result<Watching, Error>,
    ) {
        // One that was lost meanwhile has been asked for anew, under another correlation.
        let known = self.key_watches.get_mut(watch.0);
        let is_current = known.is_some_and(|known| known.correlation == request.0.bits());
        let is_forgotten = matches!(&outcome, Err(error) if error.code == ErrorCode::Compacted) && request.1;
        self.end_watch_request(request, outcome.as_ref().map(|_| Answer::Done).map_err(Error::clone));
        if !is_current {
            return;
        }
        match outcome {
            Ok(Watching { revision }) => {
                if let Some(entry) = self.key_watches.get_mut(watch.0) {
                    entry.ticket = None;
                    entry.seen = entry.seen.max(revision + 1);
                    entry.next = Some(entry.seen);
                }
                self.key_event(watch, KeyEvent::UpToDate { revision });
            }
            // It is known from where on: what is there is told instead.
            Err(_) if is_forgotten => {
                if let Some(entry) = self.key_watches.get_mut(watch.0) {
                    entry.next = None;
                }
                self.key_event(watch, KeyEvent::Restarted);
                self.resume_watch(watch);
            }
            Err(_) if !request.1 => {
                self.key_watches.remove(watch.0);
            }
            Err(error) => self.key_event(watch, KeyEvent::Ended(error)),
        }
    }

    fn end_watch_request(&mut self, (key, is_own): (Key, bool), outcome: Result<Answer, Error>) {
        if is_own {
            self.inflight.remove(key);
        } else {
            self.inflight.complete(key, outcome);
        }
    }

    pub(super) fn on_key_changed(&mut self, frame: Frame<'_>) -> Result<(), WireError> {
        let correlation = frame.header.correlation;
        let wire::Changed { change, key, state } = frame.decode()?;
        let name = ResourceName::parse(&key.0).map_err(|_| WireError::Envelope("it names what is no key"))?;
        let found =
            self.key_watches.iter().find(|(_, watch)| watch.correlation == correlation && !watch.is_paused);
        let Some(watch) = found.map(|(key, _)| KeyWatchKey(key)) else { return Ok(()) };
        let revision = state.revision;
        let change = match change {
            wire::ChangeKind::Delete => KeyChange::Delete { key: name, revision },
            wire::ChangeKind::Put => {
                let value = Payload { kind: frame.header.payload_kind, body: frame.body.into_bytes() };
                KeyChange::Put(key_value(name, &state, value))
            }
        };
        if let Some(entry) = self.key_watches.get_mut(watch.0) {
            entry.seen = entry.seen.max(revision + 1);
            if entry.next.is_some() {
                entry.next = Some(entry.seen);
            }
        }
        self.key_event(watch, KeyEvent::Changed(change));
        let is_full = |watch: &KeyWatch| watch.queue.len() >= KEY_EVENTS_QUEUED_MAX && watch.next.is_some();
        if let Some(entry) = self.key_watches.get_mut(watch.0).filter(|watch| is_full(watch)) {
            entry.is_paused = true;
            self.send_unwatch_keys(correlation);
        }
        Ok(())
    }

    /// The daemon had no room for it: it is asked for anew from there on.
    pub(super) fn on_key_watch_lost(&mut self, correlation: u64) {
        let found =
            self.key_watches.iter().find(|(_, watch)| watch.correlation == correlation && !watch.is_paused);
        let Some(watch) = found.map(|(key, _)| KeyWatchKey(key)) else { return };
        if self.key_watches.get_mut(watch.0).is_some_and(|watch| watch.next.is_none()) {
            // What is there was not told to its end.
            self.key_event(watch, KeyEvent::Restarted);
        }
        self.resume_watch(watch);
    }

    /// The daemon has ended it for good.
    pub(super) fn end_key_watch(&mut self, correlation: u64, error: Error) {
        let found = self.key_watches.iter().find(|(_, watch)| watch.correlation == correlation);
        if let Some(key) = found.map(|(key, _)| KeyWatchKey(key)) {
            self.key_event(key, KeyEvent::Ended(error));
        }
    }

    fn key_event(&mut self, key: KeyWatchKey, event: KeyEvent) {
        let Some(watch) = self.key_watches.get_mut(key.0) else { return };
        let was_empty = watch.queue.is_empty();
        watch.queue.push_back(event);
        if was_empty {
            self.events.push_back(Event::KeysChanged(key));
        }
    }
}

/// A transaction as it travels, with its values one behind the other.
fn packed(transaction: &Transaction) -> Result<(Transact, Vec<u8>), Error> {
    if !(1..=TRANSACTION_KEYS_MAX).contains(&transaction.steps.len()) {
        let count = transaction.steps.len();
        let message = format!("a transaction has 1 to {TRANSACTION_KEYS_MAX} keys, not {count}");
        return Err(Error::new(ErrorCode::InvalidArgument, message));
    }
    let mut values = Vec::new();
    let mut steps = Vec::with_capacity(transaction.steps.len());
    for (key, condition, step) in &transaction.steps {
        let key = ResourceName::parse(key)?;
        let act = match step {
            TransactionStep::Check => wire::StepAct::Check,
            TransactionStep::Delete => wire::StepAct::Delete,
            TransactionStep::Put { value, ttl, lease } => {
                values.extend_from_slice(&value.body);
                wire::StepAct::Put {
                    ttl_us: ttl.map_or(0, whole_micros),
                    lease: lease.unwrap_or(0),
                    kind: value.kind.number().into(),
                    length: u32::try_from(value.len()).unwrap_or(u32::MAX),
                }
            }
        };
        steps.push(wire::Step { key: key.as_str().into(), condition: (*condition).into(), act });
    }
    let fence = transaction.fence.as_ref();
    let fence = fence.map(|(lock, token)| Fence { lock: lock.as_str().into(), token: *token });
    Ok((Transact { steps: List(steps), fence, durability: transaction.durability }, values))
}

/// The answer to a transaction.
pub(super) fn transacted(frame: &Frame<'_>) -> Result<Answer, WireError> {
    let wire::Transacted { revisions, durability } = frame.decode()?;
    Ok(Answer::Transacted(Transacted { revisions: revisions.0, durability }))
}

/// The answer to a get.
pub(super) fn got(frame: &Frame<'_>) -> Result<Answer, WireError> {
    let wire::Got { key, state } = frame.decode()?;
    let name = ResourceName::parse(&key.0).map_err(|_| WireError::Envelope("it names what is no key"))?;
    let value = Payload { kind: frame.header.payload_kind, body: frame.body.clone().into_bytes() };
    let changes = vec![KeyChange::Put(key_value(name, &state, value))];
    Ok(Answer::Keys(KeyPage { changes, more: false }))
}

/// The answer to a list: the values stand in the payload one behind the other.
pub(super) fn listed(frame: &Frame<'_>) -> Result<Answer, WireError> {
    let listed: wire::Listed = frame.decode()?;
    let mut body = frame.body.clone().into_bytes();
    let mut changes = Vec::new();
    for one in listed.keys.0 {
        let key =
            ResourceName::parse(&one.key.0).map_err(|_| WireError::Envelope("it names what is no key"))?;
        let length = one.length as usize;
        if length > body.len() {
            return Err(WireError::Envelope("its values are longer than its payload"));
        }
        let value = body.split_to(length);
        changes.push(match one.change {
            wire::ChangeKind::Delete => KeyChange::Delete { key, revision: one.state.revision },
            wire::ChangeKind::Put => {
                let kind = u8::try_from(one.kind).ok().and_then(PayloadKind::from_number);
                let kind = kind.ok_or(WireError::Envelope("it has a value of an undefined kind"))?;
                KeyChange::Put(key_value(key, &one.state, Payload { kind, body: value }))
            }
        });
    }
    Ok(Answer::Keys(KeyPage { changes, more: listed.more }))
}

fn key_value(key: ResourceName, state: &KeyState, value: Payload) -> KeyValue {
    let KeyState { revision, created, version, lease } = *state;
    KeyValue { key, revision, created, version, lease: (lease > 0).then_some(lease), value }
}

fn fence(options: &KeyOptions) -> Option<Fence> {
    options.fence.as_ref().map(|(lock, token)| Fence { lock: lock.as_str().into(), token: *token })
}
