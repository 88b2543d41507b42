//! What is being worked on, and how that ends.

use core::time::Duration;

use ipc_core::Error;
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::name::ResourceName;
use ipc_core::payload::Payload;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::Durability;

use super::entries::State;
use super::kept::{Act, Kept};
use super::line::TakeTerms;
use super::{QueueKey, lower_of, not_delivered};
use crate::broker::coordination::{Asker, Coordination, Effect, Fence, Timer, WaitId};
use crate::broker::keys::PeerKey;

/// To whom an entry is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recipient {
    /// Who asked for one.
    Asker(WaitId),
    /// A consumer.
    Consumer(WaitId),
}

/// One entry in the hands of somebody.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    pub(super) queue: QueueKey,
    pub(super) number: u64,
    /// The session it ends with.
    pub(super) bound_to: Option<PeerKey>,
    /// The consumer that gets its credit back.
    consumer: Option<WaitId>,
    terms: TakeTerms,
    /// When it ends by itself.
    pub(super) until: Option<Instant>,
}

/// An entry as it is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Given {
    pub(in crate::broker) queue: ResourceName,
    pub(in crate::broker) token: u64,
    pub(in crate::broker) number: u64,
    pub(in crate::broker) id: Box<str>,
    pub(in crate::broker) deliveries: u32,
    pub(in crate::broker) priority: u8,
    pub(in crate::broker) visibility: Option<Duration>,
    pub(in crate::broker) age: Duration,
    pub(in crate::broker) sender: Identity,
    pub(in crate::broker) death: Option<String>,
    pub(in crate::broker) payload: Payload,
}

/// How an entry is given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct NackTerms {
    pub(in crate::broker) delay: Duration,
    pub(in crate::broker) reason: String,
    /// The delivery does not count.
    pub(in crate::broker) is_untouched: bool,
}

impl Coordination {
    pub(super) fn deliver(
        &mut self,
        now: Instant,
        key: QueueKey,
        number: u64,
        recipient: Recipient,
        terms: TakeTerms,
    ) {
        let token = self.next_token(now);
        self.move_entry(key, number, State::Delivered(token));
        let Some(queue) = self.queues.get_mut(key) else { return };
        let Some(entry) = queue.entries.get_mut(number) else { return };
        entry.deliveries = entry.deliveries.saturating_add(1);
        let is_durable = entry.durability > Durability::Memory;
        queue.tally.redeliveries += u64::from(entry.deliveries > 1);
        let given = Given {
            queue: queue.name.clone(),
            token,
            number,
            id: entry.id.clone(),
            deliveries: entry.deliveries,
            priority: entry.priority,
            visibility: terms.visibility,
            age: now.since(entry.put_at),
            sender: entry.sender.clone(),
            death: entry.death.clone(),
            payload: entry.payload.clone(),
        };
        let (to, consumer) = match recipient {
            Recipient::Asker(to) => (to, None),
            Recipient::Consumer(to) => (to, Some(to)),
        };
        let until = terms.visibility.map(|visibility| now + visibility);
        let bound_to = terms.is_bound.then_some(to.peer);
        self.open_delivery(token, Delivery { queue: key, number, bound_to, consumer, terms, until });
        if is_durable {
            self.queues.keeping.note_state(now, number, key);
        }
        let is_answer = consumer.is_none();
        self.effects.push_back(Effect::Delivered { to, is_answer, given: Box::new(given) });
    }

    fn open_delivery(&mut self, token: u64, delivery: Delivery) {
        if let Some(until) = delivery.until {
            self.timers.insert((until, Timer::Delivery(token)));
        }
        if let Some(peer) = delivery.bound_to {
            self.peers.entry(peer).or_default().works.deliveries.insert(token);
            self.charge(peer, 1, 0, 0);
        }
        self.queues.deliveries.insert(token, delivery);
    }

    /// The work is done: the entry is gone, and the asker is told once that is as durable as the entry was.
    ///
    /// # Errors
    /// `lock_lost` when the delivery is not open any more; `stale_fencing_token`, `quota_exceeded`.
    pub(in crate::broker) fn ack(
        &mut self,
        now: Instant,
        asker: Asker,
        name: &ResourceName,
        token: u64,
        fence: Option<&Fence>,
        limits: &Limits,
    ) -> Result<(), Error> {
        self.check_delivery(name, token)?;
        self.check_fence(fence)?;
        self.check_changes(&asker, limits)?;
        let Some(delivery) = self.close_delivery(token) else { return Err(not_delivered(name, token)) };
        let fence = fence.map(|fence| fence.lock.clone());
        let ack = Kept { asker, fence, act: Act::Ack { token, delivery } };
        let entry = self.queues.get(delivery.queue).and_then(|queue| queue.entries.get(delivery.number));
        if entry.is_some_and(|entry| entry.durability > Durability::Memory) {
            self.keep(ack);
        } else {
            self.publish_work(now, ack);
        }
        Ok(())
    }

    /// The end of a delivery could not be kept: it is open again, unless it would have ended meanwhile.
    pub(super) fn reopen_delivery(&mut self, now: Instant, token: u64, delivery: Delivery, is_orphan: bool) {
        if is_orphan {
            self.give_credit(token, &delivery);
            self.give_back(now, &delivery, &at_once(false), "its taker ended");
        } else {
            // One whose time has passed ends at the next look at the clock.
            self.open_delivery(token, delivery);
        }
    }

    /// The entry is given back. Says whether it is dead now.
    ///
    /// # Errors
    /// `lock_lost` when the delivery is not open any more; `stale_fencing_token`.
    pub(in crate::broker) fn nack(
        &mut self,
        now: Instant,
        name: &ResourceName,
        token: u64,
        terms: &NackTerms,
        fence: Option<&Fence>,
    ) -> Result<bool, Error> {
        self.check_delivery(name, token)?;
        self.check_fence(fence)?;
        let Some(delivery) = self.end_delivery(token) else { return Err(not_delivered(name, token)) };
        let said = if terms.reason.is_empty() { String::new() } else { format!(": {}", terms.reason) };
        let last = format!("it was given back{said}");
        let is_dead = self.give_back(now, &delivery, terms, &last);
        Ok(is_dead)
    }

    /// Whether that is an open delivery of that queue.
    fn check_delivery(&self, name: &ResourceName, token: u64) -> Result<(), Error> {
        let delivery = self.queues.deliveries.get(&token);
        let queue = delivery.and_then(|delivery| self.queues.get(delivery.queue));
        match queue {
            Some(queue) if queue.name == *name => Ok(()),
            Some(_) | None => Err(not_delivered(name, token)),
        }
    }

    /// The time of a delivery has passed.
    pub(in crate::broker::coordination) fn expire_delivery(&mut self, now: Instant, token: u64) {
        let Some(delivery) = self.end_delivery(token) else { return };
        let visibility = delivery.terms.visibility.unwrap_or_default();
        let last = format!("its time of {visibility:?} passed without a word");
        self.give_back(now, &delivery, &at_once(false), &last);
    }

    /// Who was working on it is gone.
    pub(in crate::broker::coordination) fn lose_delivery(&mut self, now: Instant, token: u64) {
        if let Some(delivery) = self.end_delivery(token) {
            self.give_back(now, &delivery, &at_once(false), "its taker ended");
        }
    }

    /// It could not be handed over: as if it had not been delivered.
    pub(in crate::broker) fn undeliver(&mut self, now: Instant, token: u64) {
        if let Some(delivery) = self.end_delivery(token) {
            self.give_back(now, &delivery, &at_once(true), "");
        }
    }

    /// Takes a delivery out of the tables. Its entry is to be moved, and its queue to be pumped.
    fn end_delivery(&mut self, token: u64) -> Option<Delivery> {
        let delivery = self.close_delivery(token)?;
        self.give_credit(token, &delivery);
        Some(delivery)
    }

    /// The consumer of a delivery may have another one, if it is still there.
    pub(super) fn give_credit(&mut self, token: u64, delivery: &Delivery) {
        let Some(to) = delivery.consumer else { return };
        let consumer = self.peers.get(&to.peer).and_then(|of| of.works.consumers.get(&to.correlation));
        if consumer.is_some_and(|consumer| token > consumer.since) {
            self.change_credit(to, 1);
        }
    }

    /// The same; its consumer has not got its credit back.
    fn close_delivery(&mut self, token: u64) -> Option<Delivery> {
        let delivery = self.queues.deliveries.remove(&token)?;
        if let Some(until) = delivery.until {
            self.timers.remove(&(until, Timer::Delivery(token)));
        }
        if let Some(peer) = delivery.bound_to {
            if let Some(of) = self.peers.get_mut(&peer) {
                of.works.deliveries.remove(&token);
            }
            self.charge(peer, -1, 0, 0);
        }
        Some(delivery)
    }

    /// The entry goes back where it stood, or among the dead. Says whether it is dead now.
    fn give_back(&mut self, now: Instant, delivery: &Delivery, terms: &NackTerms, last: &str) -> bool {
        let (key, number) = (delivery.queue, delivery.number);
        let entry = self.queues.get_mut(key).and_then(|queue| queue.entries.get_mut(number));
        let Some(entry) = entry else { return false };
        entry.deliveries -= u32::from(terms.is_untouched);
        let is_durable = entry.durability > Durability::Memory;
        let max = lower_of(entry.max_deliveries, delivery.terms.max_deliveries);
        let is_worn = !terms.is_untouched && max > 0 && entry.deliveries >= max;
        if is_durable {
            self.queues.keeping.note_state(now, number, key);
        }
        let mut stirred = vec![key];
        let dead = if is_worn { self.bury(now, key, number, last) } else { None };
        if dead.is_none() {
            let is_delayed = !terms.delay.is_zero();
            let state = if is_delayed { State::Delayed(now + terms.delay) } else { State::Ready };
            self.move_entry(key, number, state);
        }
        stirred.extend(dead);
        self.pump_queues(now, stirred);
        dead.is_some()
    }

    /// An entry becomes a dead letter. Gives the queue it is in from here on, which is to be pumped.
    pub(super) fn bury(&mut self, now: Instant, key: QueueKey, number: u64, last: &str) -> Option<QueueKey> {
        let from = self.queues.get(key)?.name.clone();
        let name = from.dead_letters().ok()?;
        self.move_entry(key, number, State::Ready);
        let queue = self.queues.get_mut(key)?;
        queue.tally.deaths += 1;
        let mut entry = queue.entries.remove(number)?;
        // Who put it pays for the reason too; that may be more than it may have, since giving up never fails.
        self.queues.refund_entry(&entry);
        let times = if entry.deliveries == 1 { "once" } else { "times" };
        let count = if entry.deliveries == 1 { String::new() } else { format!("{} ", entry.deliveries) };
        entry.death = Some(format!("delivered {count}{times} from {from}, as often as it may be; {last}"));
        entry.deliveries = 0;
        entry.max_deliveries = 0;
        self.queues.charge_entry(&entry);
        let dead = self.queues.open_in_any_case(&name, Some(entry.uid));
        if entry.durability > Durability::Memory {
            self.queues.keeping.note_state(now, number, dead);
        }
        self.queues.get_mut(dead)?.entries.insert(number, entry);
        self.effects.push_back(Effect::Buried);
        Some(dead)
    }
}

fn at_once(is_untouched: bool) -> NackTerms {
    NackTerms { delay: Duration::ZERO, reason: String::new(), is_untouched }
}
