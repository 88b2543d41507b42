//! Work queues: entries put, taken, acknowledged, given back, looked at and consumed.

use std::collections::VecDeque;

use crate::error::Error;
use crate::limits::DEADLINE_MAX;
use crate::name::ResourceName;
use crate::payload::Payload;
use crate::time::{Instant, whole_micros};
use crate::wire::codec::Text;
use crate::wire::coordination::{Bind, Operation};
use crate::wire::queue::{
    self as wire, Ack, Consume, CountQueue, Enqueue, Nack, Peek, Purge, Take, Unconsume,
};
use crate::wire::{Frame, Header, WireError};

use super::Session;
use super::addressed::micros;
use super::coordination::request;
use super::event::{Answer, ConsumerKey, Event, Ticket};
use super::inflight::{Open, Purpose, expiry};
use super::slab::Key;
use super::work::{
    ConsumeOptions, EntryOptions, EntryPut, NackOptions, TakeOptions, Work, WorkEvent, peeked, wire_fence,
    work,
};

/// A consumer, and what it has received.
#[derive(Debug)]
pub(super) struct Consuming {
    queue: ResourceName,
    options: ConsumeOptions,
    /// Under which correlation the daemon delivers to it.
    correlation: u64,
    received: VecDeque<WorkEvent>,
    /// Whether the daemon has agreed to it once.
    is_made: bool,
}

/// Requests.
impl Session {
    /// Puts an entry into a work queue: [`Answer::Put`].
    ///
    /// # Errors
    /// At once: `payload_too_large`, and the error that ended the session.
    pub fn put_entry(
        &mut self,
        now: Instant,
        queue: &ResourceName,
        payload: &Payload,
        options: &EntryOptions,
    ) -> Result<Ticket, Error> {
        self.check_stream()?;
        self.check_size(payload)?;
        let enqueue = Enqueue {
            queue: queue.as_str().into(),
            id: options.id.as_deref().map(Text::from),
            priority: options.priority.into(),
            delay_us: whole_micros(options.delay),
            max_deliveries: options.max_deliveries.unwrap_or(0),
            max_length: options.max_length.unwrap_or(0),
            overflow: options.overflow,
            fence: wire_fence(options.fence.as_ref()),
            durability: options.durability,
        };
        let correlation = self.inflight.next_key().bits();
        self.send_with(request(Operation::ENQUEUE, correlation), &enqueue, payload);
        Ok(self.open(now, Purpose::Coordinate(Operation::ENQUEUE)))
    }

    /// Takes an entry: [`Answer::Taken`]. It goes back when the connection ends if it is bound to it, and is given back when
    /// nobody waits for it any more.
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn take_entry(
        &mut self,
        now: Instant,
        queue: &ResourceName,
        bind: Bind,
        options: &TakeOptions,
    ) -> Result<Ticket, Error> {
        self.check_stream()?;
        let wait = options.wait.map(|wait| wait.min(DEADLINE_MAX));
        let take = Take {
            queue: queue.as_str().into(),
            bind,
            visibility_us: options.visibility.map_or(0, whole_micros),
            max_deliveries: options.max_deliveries.unwrap_or(0),
            wait: wait.is_none_or(|wait| !wait.is_zero()),
            fence: wire_fence(options.fence.as_ref()),
        };
        let correlation = self.inflight.next_key().bits();
        let deadline_us = wait.filter(|wait| !wait.is_zero()).map_or(0, micros);
        self.send_control(Header { deadline_us, ..request(Operation::TAKE, correlation) }, &take);
        let expires = wait.and_then(|wait| expiry(Some(now + wait.max(self.config.operation_timeout))));
        let purpose = Purpose::Coordinate(Operation::TAKE);
        Ok(self.inflight.insert(Open { purpose, expires, sent_end: self.output.end() }))
    }

    /// Says that work is done: [`Answer::Done`].
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn ack_entry(
        &mut self,
        now: Instant,
        queue: &ResourceName,
        delivery: u64,
        fence: Option<&(ResourceName, u64)>,
    ) -> Result<Ticket, Error> {
        self.check_stream()?;
        let ack = Ack { queue: queue.as_str().into(), delivery, fence: wire_fence(fence) };
        Ok(self.ask(now, Operation::ACK, &ack))
    }

    /// Gives work back: [`Answer::Nacked`].
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn nack_entry(
        &mut self,
        now: Instant,
        queue: &ResourceName,
        delivery: u64,
        options: &NackOptions,
    ) -> Result<Ticket, Error> {
        self.check_stream()?;
        Ok(self.ask(now, Operation::NACK, &nack(queue, delivery, options)))
    }

    /// Gives work back without waiting for the daemon's word.
    pub fn forget_work(&mut self, queue: &ResourceName, delivery: u64, is_untouched: bool) {
        if self.state.takes_requests() {
            let options = NackOptions { is_untouched, ..NackOptions::default() };
            self.send_control(request(Operation::NACK, 0), &nack(queue, delivery, &options));
        }
    }

    /// Nobody takes the outcome of a request any more: an entry that it gave goes back.
    pub(super) fn abandon_work(&mut self, ticket: Ticket) {
        if let Some(Ok(Answer::Taken(work))) = self.inflight.take(ticket) {
            self.forget_work(&work.queue, work.delivery, true);
        }
    }

    /// Looks at the first entries of a queue, at most `count`, without taking them: [`Answer::Peeked`].
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn peek_entries(&mut self, now: Instant, queue: &ResourceName, count: u32) -> Result<Ticket, Error> {
        self.check_stream()?;
        Ok(self.ask(now, Operation::PEEK, &Peek { queue: queue.as_str().into(), count }))
    }

    /// Counts what is in a queue: [`Answer::Counted`].
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn count_queue(&mut self, now: Instant, queue: &ResourceName) -> Result<Ticket, Error> {
        self.check_stream()?;
        Ok(self.ask(now, Operation::COUNT, &CountQueue { queue: queue.as_str().into() }))
    }

    /// Throws away what nobody is working on: [`Answer::Purged`].
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn purge_queue(
        &mut self,
        now: Instant,
        queue: &ResourceName,
        fence: Option<&(ResourceName, u64)>,
    ) -> Result<Ticket, Error> {
        self.check_stream()?;
        let purge = Purge { queue: queue.as_str().into(), fence: wire_fence(fence) };
        Ok(self.ask(now, Operation::PURGE, &purge))
    }

    /// Has entries delivered as they come. If the outcome is an error, there is no consumer. It goes on over restarts: what was
    /// delivered before is delivered anew then, to this one or another.
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn consume_queue(
        &mut self,
        now: Instant,
        queue: ResourceName,
        options: ConsumeOptions,
    ) -> Result<(ConsumerKey, Ticket), Error> {
        self.check_stream()?;
        let key = ConsumerKey(self.consumers.next_key());
        let correlation = self.inflight.next_key().bits();
        self.send_consume(correlation, &queue, &options);
        let received = VecDeque::new();
        self.consumers.insert(Consuming { queue, options, correlation, received, is_made: false });
        Ok((key, self.open(now, Purpose::Consume { consumer: key, is_own: false })))
    }

    fn send_consume(&mut self, correlation: u64, queue: &ResourceName, options: &ConsumeOptions) {
        let consume = Consume {
            queue: queue.as_str().into(),
            credit: options.credit,
            visibility_us: options.visibility.map_or(0, whole_micros),
            max_deliveries: options.max_deliveries.unwrap_or(0),
        };
        self.send_control(request(Operation::CONSUME, correlation), &consume);
    }

    /// The oldest of what a consumer has received.
    pub fn next_work(&mut self, key: ConsumerKey) -> Option<WorkEvent> {
        self.consumers.get_mut(key.0)?.received.pop_front()
    }

    /// Ends a consumer without waiting for the daemon's word; what it has received and nobody has taken goes back.
    pub fn forget_consumer(&mut self, key: ConsumerKey) {
        let Some(consumer) = self.consumers.remove(key.0) else { return };
        if !self.state.takes_requests() {
            return;
        }
        let end = Unconsume { consumer: consumer.correlation };
        self.send_control(request(Operation::UNCONSUME, 0), &end);
        for event in consumer.received {
            if let WorkEvent::Work(work) = event {
                self.forget_work(&work.queue, work.delivery, true);
            }
        }
    }

    /// A request for a consumer has failed: one that was never made is gone, another is asked for again.
    pub(super) fn forget_unmade_consumer(&mut self, key: ConsumerKey) {
        if self.consumers.get_mut(key.0).is_some_and(|consumer| !consumer.is_made) {
            self.forget_consumer(key);
        }
    }

    /// After a restart every consumer begins anew: the daemon has taken back what it had delivered.
    pub(super) fn consume_again(&mut self) {
        let keys: Vec<ConsumerKey> = self.consumers.iter().map(|(key, _)| ConsumerKey(key)).collect();
        for key in keys {
            if let Some(consumer) = self.consumers.get_mut(key.0) {
                consumer.received.retain(|event| matches!(event, WorkEvent::Ended(_)));
            }
            self.resume_consumer(key);
        }
    }

    fn resume_consumer(&mut self, key: ConsumerKey) {
        if !self.state.takes_requests() {
            return;
        }
        let correlation = self.inflight.next_key().bits();
        let Some(consumer) = self.consumers.get_mut(key.0) else { return };
        consumer.correlation = correlation;
        let (queue, options) = (consumer.queue.clone(), consumer.options.clone());
        self.send_consume(correlation, &queue, &options);
        let purpose = Purpose::Consume { consumer: key, is_own: true };
        self.inflight.insert(Open { purpose, expires: None, sent_end: self.output.end() });
    }
}

/// What the daemon says.
impl Session {
    /// A request for a consumer has its outcome.
    pub(super) fn on_consuming(
        &mut self,
        request: (Key, bool),
        key: ConsumerKey,
        outcome: Result<(), Error>,
    ) {
        let (ticket, is_own) = request;
        if let (Ok(()), Some(consumer)) = (&outcome, self.consumers.get_mut(key.0)) {
            consumer.is_made = true;
        }
        let failed = outcome.as_ref().err().cloned();
        if is_own {
            self.inflight.remove(ticket);
        } else {
            self.inflight.complete(ticket, outcome.map(|()| Answer::Done));
        }
        match failed {
            Some(error) if is_own => self.work_event(key, WorkEvent::Ended(error)),
            Some(_) => {
                self.consumers.remove(key.0);
            }
            None => {}
        }
    }

    pub(super) fn on_delivered(&mut self, frame: &Frame<'_>) -> Result<(), WireError> {
        let work = delivered(frame)?;
        match self.consumer(frame.header.correlation) {
            Some(key) => self.work_event(key, WorkEvent::Work(Box::new(work))),
            // It was on its way when its consumer was forgotten.
            None => self.forget_work(&work.queue, work.delivery, true),
        }
        Ok(())
    }

    /// The daemon had no room for what it had for a consumer: there is room now that this has come.
    pub(super) fn on_consumer_lost(&mut self, correlation: u64) {
        if let Some(key) = self.consumer(correlation) {
            self.resume_consumer(key);
        }
    }

    fn consumer(&self, correlation: u64) -> Option<ConsumerKey> {
        let mut known = self.consumers.iter();
        known.find(|(_, one)| one.correlation == correlation).map(|(key, _)| ConsumerKey(key))
    }

    fn work_event(&mut self, key: ConsumerKey, event: WorkEvent) {
        let Some(consumer) = self.consumers.get_mut(key.0) else { return };
        let was_empty = consumer.received.is_empty();
        consumer.received.push_back(event);
        if was_empty {
            self.events.push_back(Event::Work(key));
        }
    }
}

fn nack(queue: &ResourceName, delivery: u64, options: &NackOptions) -> Nack {
    Nack {
        queue: queue.as_str().into(),
        delivery,
        delay_us: whole_micros(options.delay),
        reason: Text::clipped(&options.reason, crate::limits::NACK_REASON_MAX_BYTES),
        is_untouched: options.is_untouched,
        fence: wire_fence(options.fence.as_ref()),
    }
}

/// An entry as it was delivered.
pub(super) fn delivered(frame: &Frame<'_>) -> Result<Work, WireError> {
    let payload = Payload { kind: frame.header.payload_kind, body: frame.body.clone().into_bytes() };
    work(frame.decode()?, payload)
}

/// The answer to what is asked about a work queue.
pub(super) fn answered(operation: Operation, frame: &Frame<'_>) -> Result<Answer, WireError> {
    Ok(match operation {
        Operation::ENQUEUE => {
            let put: wire::Enqueued = frame.decode()?;
            Answer::Put(EntryPut {
                id: put.id.0,
                number: put.number,
                is_duplicate: put.is_duplicate,
                dropped: put.dropped,
                durability: put.durability,
            })
        }
        Operation::TAKE => Answer::Taken(Box::new(delivered(frame)?)),
        Operation::NACK => Answer::Nacked { is_dead: frame.decode::<wire::Nacked>()?.is_dead },
        Operation::COUNT => Answer::Counted(Box::new(frame.decode()?)),
        Operation::PURGE => Answer::Purged { count: frame.decode::<wire::Purged>()?.count },
        Operation::PEEK => {
            let listed: wire::Peeked = frame.decode()?;
            let mut body = frame.body.clone().into_bytes();
            let mut entries = Vec::new();
            for entry in listed.entries.0 {
                let length = entry.length as usize;
                if length > body.len() {
                    return Err(WireError::Envelope("its entries are longer than its payload"));
                }
                entries.push(peeked(entry, body.split_to(length))?);
            }
            Answer::Peeked { entries, more: listed.more }
        }
        _ => Answer::Done,
    })
}
