//! Work queues: requests taken apart, deliveries told.

use core::time::Duration;

use bytes::Bytes;
use ipc_core::limits::{
    CREDIT_MAX, ENTRIES_LISTED_MAX, ENTRY_DELAY_MAX, ENTRY_ID_MAX_BYTES, NACK_REASON_MAX_BYTES,
};
use ipc_core::name::ResourceName;
use ipc_core::payload::Payload;
use ipc_core::time::{Instant, whole_micros};
use ipc_core::wire::codec::{List, Text, Wire};
use ipc_core::wire::coordination::{Bind, Operation, Told};
use ipc_core::wire::message::IdentityInfo;
use ipc_core::wire::queue::{
    Ack, Consume, CountQueue, Delivered, Enqueue, Enqueued, Nack, Nacked, Peek, Peeked, PeekedEntry, Purge,
    Purged, Take, Unconsume,
};
use ipc_core::wire::{Frame, HEADER_BYTES, Header};
use ipc_core::{Error, ErrorCode};

use super::coordinate::{Done, invalid, notice, outcome, ttl};
use super::keys::LISTED_MAX_BYTES;
use crate::broker::Broker;
use crate::broker::coordination::{
    Asker, By, Given, NackTerms, NewEntry, Peekable, Stored, TakeTerms, Taking, WaitId,
};

/// What an entry takes in the envelope of an answer to a peek beside its id and its death, in bytes.
const ENTRY_WORDS_BYTES: usize = 128;
/// Such bytes of one answer: the envelope takes no more.
const LISTED_WORDS_MAX_BYTES: usize = 60_000;

impl Broker {
    pub(super) fn enqueue(
        &mut self,
        now: Instant,
        asker: Asker,
        request: Enqueue,
        frame: &Frame<'_>,
    ) -> Done {
        let queue = self.check_queue(asker, &request.queue.0)?;
        let Some(sender) = self.peers.get(asker.peer).map(|state| state.who.identity.clone()) else {
            return Ok(());
        };
        let new = NewEntry {
            id: request.id.map(check_id).transpose()?,
            payload: self.check_work(frame)?,
            priority: priority(request.priority)?,
            delay: delay(request.delay_us)?,
            max_deliveries: request.max_deliveries,
            max_length: request.max_length,
            overflow: request.overflow,
            sender,
            durability: self.durability_of(request.durability)?,
        };
        let (by, fence) = (By { asker, hand: self.hand(asker.peer) }, self.fence(asker.peer, request.fence)?);
        let limits = self.own_limits(asker.peer);
        Ok(self.coordination.enqueue(now, by, &queue, new, fence.as_ref(), &limits)?)
    }

    pub(super) fn tell_stored(&mut self, to: WaitId, stored: Stored) {
        self.counters.work_entries_put += u64::from(!stored.is_duplicate);
        self.counters.work_entries_dropped += u64::from(stored.dropped);
        let enqueued = Enqueued {
            number: stored.number,
            id: Text(stored.id),
            is_duplicate: stored.is_duplicate,
            dropped: stored.dropped,
            durability: stored.durability,
        };
        self.tell_done(to, Operation::ENQUEUE, &enqueued);
    }

    pub(super) fn tell_acked(&mut self, to: WaitId) {
        self.counters.work_entries_acknowledged += 1;
        self.tell_done(to, Operation::ACK, &());
    }

    pub(super) fn tell_purged(&mut self, to: WaitId, count: u64) {
        self.counters.work_entries_dropped += count;
        self.tell_done(to, Operation::PURGE, &Purged { count });
    }

    /// Tells what came of a request that may have waited for the disk.
    fn tell_done<T: Wire>(&mut self, to: WaitId, operation: Operation, result: &T) {
        if to.correlation != 0 {
            self.answer(to.peer, outcome(to, operation), result, &[]);
        }
    }

    /// The payload of an entry, in memory of its own.
    fn check_work(&self, frame: &Frame<'_>) -> Result<Payload, Error> {
        let body = frame.body.as_slice();
        let max = self.config.limits.work_queue_entry_max_bytes;
        if body.len() > max as usize {
            let mut error = Error::quota("work_queue_entry_max_bytes", max.into());
            error.code = ErrorCode::PayloadTooLarge;
            return Err(error);
        }
        Ok(Payload { kind: frame.header.payload_kind, body: Bytes::copy_from_slice(body) })
    }

    pub(super) fn take_entry(&mut self, now: Instant, asker: Asker, request: Take) -> Done {
        let queue = self.check_queue(asker, &request.queue.0)?;
        let is_bound = request.bind == Bind::Session;
        let default = Duration::from_millis(self.config.limits.work_queue_visibility_default_ms.into());
        let visibility = ttl(request.visibility_us)?.or((!is_bound).then_some(default));
        let terms = TakeTerms { is_bound, visibility, max_deliveries: request.max_deliveries };
        let fence = self.fence(asker.peer, request.fence)?;
        let taking = Taking { queue, terms, fence, wait: request.wait };
        let limits = self.own_limits(asker.peer);
        self.coordination.take(now, asker, taking, &limits)
    }

    pub(super) fn consume_queue(&mut self, now: Instant, asker: Asker, request: Consume) -> Done {
        let queue = self.check_queue(asker, &request.queue.0)?;
        if !(1..=CREDIT_MAX).contains(&request.credit) {
            let message = format!("a consumer has a credit of 1 to {CREDIT_MAX}, not {}", request.credit);
            return Err(invalid(&message));
        }
        let visibility = ttl(request.visibility_us)?;
        let terms = TakeTerms { is_bound: true, visibility, max_deliveries: request.max_deliveries };
        let limits = self.own_limits(asker.peer);
        Ok(self.coordination.consume(now, &asker, &queue, terms, request.credit, &limits)?)
    }

    pub(super) fn unconsume_queue(&mut self, asker: Asker, Unconsume { consumer }: Unconsume) -> Done {
        if !self.coordination.unconsume(asker.peer, consumer) {
            return Err(invalid(&format!("this connection has no consumer {consumer}")));
        }
        self.conclude_request(asker, &());
        Ok(())
    }

    pub(super) fn ack_entry(&mut self, now: Instant, asker: Asker, request: Ack) -> Done {
        let queue = self.check_work_of(asker, &request.queue.0)?;
        let fence = self.fence(asker.peer, request.fence)?;
        let limits = self.own_limits(asker.peer);
        Ok(self.coordination.ack(now, asker, &queue, request.delivery, fence.as_ref(), &limits)?)
    }

    pub(super) fn nack_entry(&mut self, now: Instant, asker: Asker, request: Nack) -> Done {
        let queue = self.check_work_of(asker, &request.queue.0)?;
        let terms = NackTerms {
            delay: delay(request.delay_us)?,
            reason: Text::clipped(&request.reason.0, NACK_REASON_MAX_BYTES).0,
            is_untouched: request.is_untouched,
        };
        let fence = self.fence(asker.peer, request.fence)?;
        let is_dead = self.coordination.nack(now, &queue, request.delivery, &terms, fence.as_ref())?;
        self.conclude_request(asker, &Nacked { is_dead });
        Ok(())
    }

    pub(super) fn purge_queue(&mut self, now: Instant, asker: Asker, request: Purge) -> Done {
        let queue = self.check_work_of(asker, &request.queue.0)?;
        let fence = self.fence(asker.peer, request.fence)?;
        let limits = self.own_limits(asker.peer);
        Ok(self.coordination.purge(now, asker, &queue, fence.as_ref(), &limits)?)
    }

    pub(super) fn count_queue(&mut self, now: Instant, asker: Asker, request: &CountQueue) -> Done {
        let queue = self.check_queue(asker, &request.queue.0)?;
        let counts = self.coordination.queue_counts(now, &queue);
        self.conclude_request(asker, &counts);
        Ok(())
    }

    /// As many as were asked for and as fit, but at least one.
    pub(super) fn peek_entries(&mut self, now: Instant, asker: Asker, request: &Peek) -> Done {
        let queue = self.check_queue(asker, &request.queue.0)?;
        let most = (request.count as usize).clamp(1, ENTRIES_LISTED_MAX);
        let (mut payload, mut entries, mut more) = (Vec::new(), Vec::new(), false);
        let mut words = 0;
        for peeked in self.coordination.peek(now, &queue) {
            let body = &peeked.entry.payload.body;
            let listed = listed(now, &peeked);
            words += ENTRY_WORDS_BYTES
                + listed.id.0.len()
                + listed.death.as_ref().map_or(0, |death| death.0.len());
            let is_over = payload.len() + body.len() > LISTED_MAX_BYTES || words > LISTED_WORDS_MAX_BYTES;
            if !entries.is_empty() && (entries.len() >= most || is_over) {
                more = true;
                break;
            }
            payload.extend_from_slice(body);
            entries.push(listed);
        }
        let peeked = Peeked { more, entries: List(entries) };
        self.answer(asker.peer, outcome(asker.id(), asker.operation), &peeked, &payload);
        Ok(())
    }

    fn check_queue(&self, asker: Asker, name: &str) -> Result<ResourceName, Error> {
        self.check_key(asker, name)
    }

    /// What ends work needs nobody who is told, and goes on while the daemon stops.
    fn check_work_of(&self, asker: Asker, name: &str) -> Result<ResourceName, Error> {
        let queue = ResourceName::parse(name)?;
        self.check_coordinate(asker.peer, &queue)?;
        Ok(queue)
    }

    /// Hands an entry over. If there is no room for it, it is as if it had not been delivered: the request is refused, the
    /// consumer is told that it gets nothing more.
    pub(super) fn tell_delivery(&mut self, to: WaitId, is_answer: bool, given: &Given) {
        let bytes = given.payload.len() + given.id.len() + 2 * HEADER_BYTES;
        if let Err(mut error) = self.check_room(to.peer, bytes) {
            if is_answer {
                error.code = ErrorCode::SlowConsumer;
                self.refuse_for(to, Operation::TAKE, &error.into());
            } else if self.coordination.unconsume(to.peer, to.correlation) {
                self.answer(to.peer, notice(to, Told::CONSUMER_LOST), &(), &[]);
            }
            self.coordination.undeliver(self.now, given.token);
            return;
        }
        self.counters.work_entries_delivered += 1;
        self.counters.work_entries_redelivered += u64::from(given.deliveries > 1);
        let delivered = Delivered {
            queue: Text(given.queue.to_string()),
            delivery: given.token,
            id: Text(given.id.to_string()),
            number: given.number,
            deliveries: given.deliveries,
            priority: given.priority.into(),
            visibility_us: given.visibility.map_or(0, whole_micros),
            age_us: whole_micros(given.age),
            sender: IdentityInfo::from(&given.sender),
            death: given.death.clone().map(Text),
        };
        let header = if is_answer { outcome(to, Operation::TAKE) } else { notice(to, Told::DELIVERED) };
        let header = Header { payload_kind: given.payload.kind, ..header };
        self.answer(to.peer, header, &delivered, &given.payload.body);
    }
}

fn listed(now: Instant, peeked: &Peekable<'_>) -> PeekedEntry {
    let Peekable { number, entry, state, due } = *peeked;
    PeekedEntry {
        id: Text(entry.id.to_string()),
        number,
        state,
        deliveries: entry.deliveries,
        priority: entry.priority.into(),
        age_us: whole_micros(now.since(entry.put_at)),
        due_us: due.map_or(0, whole_micros),
        sender: IdentityInfo::from(&entry.sender),
        death: entry.death.clone().map(Text),
        kind: entry.payload.kind.number().into(),
        length: entry.payload.len() as u32,
    }
}

fn check_id(id: Text) -> Result<String, Error> {
    if (1..=ENTRY_ID_MAX_BYTES).contains(&id.0.len()) {
        return Ok(id.0);
    }
    let message = format!("the id of an entry has 1 to {ENTRY_ID_MAX_BYTES} bytes, not {}", id.0.len());
    Err(Error::new(ErrorCode::InvalidArgument, message))
}

fn priority(priority: u16) -> Result<u8, Error> {
    u8::try_from(priority).map_err(|_| {
        Error::new(ErrorCode::InvalidArgument, format!("a priority is 0 to 255, not {priority}"))
    })
}

fn delay(delay_us: u64) -> Result<Duration, Error> {
    let delay = Duration::from_micros(delay_us);
    if delay <= ENTRY_DELAY_MAX {
        return Ok(delay);
    }
    let message = format!("a delay of {delay:?} is longer than {ENTRY_DELAY_MAX:?}");
    Err(Error::new(ErrorCode::InvalidArgument, message))
}
