//! Those who take entries and those who consume them, each served one in its turn.

use core::time::Duration;

use ipc_core::limits::Limits;
use ipc_core::name::ResourceName;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::Waiting;
use ipc_core::{Error, ErrorCode};

use super::delivery::Recipient;
use super::{QueueKey, lower_of};
use crate::broker::coordination::wait_queue::Place;
use crate::broker::coordination::{
    Asker, Coordination, Effect, Fence, OfPeer, Reason, Stake, WaitId, WaitsAt, Why,
};
use crate::broker::keys::PeerKey;

/// What a delivery is bound to, and how often an entry is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) struct TakeTerms {
    /// It ends with the session.
    pub(in crate::broker) is_bound: bool,
    /// It ends after so long.
    pub(in crate::broker) visibility: Option<Duration>,
    /// 0 for no limit.
    pub(in crate::broker) max_deliveries: u32,
}

/// A request for an entry.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Taking {
    pub(in crate::broker) queue: ResourceName,
    pub(in crate::broker) terms: TakeTerms,
    pub(in crate::broker) fence: Option<Fence>,
    pub(in crate::broker) wait: bool,
}

/// Who stands in the line of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claimant {
    /// A request that waits for one entry.
    Request(WaitId),
    /// A consumer that has credit.
    Consumer(WaitId),
}

/// Somebody who is given entries as they come.
#[derive(Debug)]
pub(super) struct Consumer {
    /// Its deliveries have higher tokens: those of one before it may have the same correlation.
    pub(super) since: u64,
    pub(super) queue: QueueKey,
    pub(super) terms: TakeTerms,
    /// How many more deliveries it may have open.
    pub(super) credit: u32,
    /// Where it stands while it has credit.
    pub(super) place: Option<Place>,
}

impl Coordination {
    /// Gives the asker an entry, or lets it wait for one.
    ///
    /// # Errors
    /// `busy` when there is none and it does not wait; `stale_fencing_token`, `quota_exceeded`, `conflict`.
    pub(in crate::broker) fn take(
        &mut self,
        now: Instant,
        asker: Asker,
        taking: Taking,
        limits: &Limits,
    ) -> Result<(), Reason> {
        let Taking { queue: name, terms, fence, wait } = taking;
        let name = &name;
        if terms.max_deliveries > 0 {
            name.dead_letters()?;
        }
        self.numbers.check()?;
        self.check_fence(fence.as_ref())?;
        self.check_wait(&asker, limits)?;
        if terms.is_bound {
            self.check_deliveries(asker.peer, 1, limits)?;
        }
        if let Some(key) = self.queues.key(name)
            && self.queues.get(key).is_some_and(|queue| queue.line.is_empty())
        {
            let mut stirred = Vec::new();
            let found = self.next_entry(now, key, terms, &mut stirred);
            if let Some(number) = found {
                self.deliver(now, key, number, Recipient::Asker(asker.id()), terms);
            }
            self.pump_queues(now, stirred);
            if found.is_some() {
                return Ok(());
            }
            // The last of it may have become a dead letter.
            self.close_queue_if_idle(key);
        }
        if !wait {
            return Err(nothing(name).into());
        }
        let key = self.queues.open(name, asker.user, limits)?;
        let Some(queue) = self.queues.get_mut(key) else { return Err(nothing(name).into()) };
        if queue.line.len() >= limits.waiters_per_resource_max as usize {
            let max = limits.waiters_per_resource_max.into();
            return Err(Error::quota("waiters_per_resource_max", max).into());
        }
        let ahead = queue.line.len() as u32;
        let place = queue.line.push(Claimant::Request(asker.id()));
        queue.waiting += 1;
        let holders = queue.entries.counts().2 as u32;
        self.begin_wait(&asker, 0, WaitsAt::Queue { queue: key, place, terms, fence });
        let waiting = Waiting { ahead, holders, token: 0, missing: 0 };
        let (to, operation) = (asker.id(), asker.operation);
        self.effects.push_back(Effect::Waits { to, operation, holder: None, waiting });
        Ok(())
    }

    /// Whether the session may be given so many more. What it waits for counts as if it had it.
    ///
    /// # Errors
    /// `quota_exceeded`.
    fn check_deliveries(&self, peer: PeerKey, more: u32, limits: &Limits) -> Result<(), Error> {
        let due = self.peers.get(&peer).map_or(0, |of| of.works.deliveries_due());
        let max = limits.work_queue_deliveries_per_connection_max;
        if due + u64::from(more) <= max.into() {
            return Ok(());
        }
        Err(Error::quota("work_queue_deliveries_per_connection_max", max.into())
            .with_hint("acknowledge what is done first, or ask for less credit"))
    }

    /// Delivers entries to the asker as they come, at most `credit` at a time.
    ///
    /// # Errors
    /// `quota_exceeded`, `conflict`.
    pub(in crate::broker) fn consume(
        &mut self,
        now: Instant,
        asker: &Asker,
        name: &ResourceName,
        terms: TakeTerms,
        credit: u32,
        limits: &Limits,
    ) -> Result<(), Error> {
        if terms.max_deliveries > 0 {
            name.dead_letters()?;
        }
        let to = asker.id();
        if let Some(of) = self.peers.get(&to.peer) {
            if of.works.consumers.contains_key(&to.correlation) {
                let message = format!("consumer {} is open already", to.correlation);
                return Err(Error::new(ErrorCode::Conflict, message));
            }
            let max = limits.work_queue_consumers_per_connection_max;
            if of.works.consumers.len() >= max as usize {
                return Err(Error::quota("work_queue_consumers_per_connection_max", max.into()));
            }
        }
        self.check_deliveries(to.peer, credit, limits)?;
        let key = self.queues.open(name, asker.user, limits)?;
        let Some(queue) = self.queues.get_mut(key) else { return Ok(()) };
        let place = Some(queue.line.push(Claimant::Consumer(to)));
        queue.consumers += 1;
        let consumer = Consumer { since: self.numbers.last(), queue: key, terms, credit, place };
        let works = &mut self.peers.entry(to.peer).or_default().works;
        works.credit += credit;
        works.consumers.insert(to.correlation, consumer);
        self.charge(to.peer, 0, 0, 1);
        self.effects.push_back(Effect::Consumes { to });
        self.pump_queues(now, vec![key]);
        Ok(())
    }

    /// Ends a consumer; what it was given stays its own. Says whether there was one.
    pub(in crate::broker) fn unconsume(&mut self, peer: PeerKey, correlation: u64) -> bool {
        let Some(works) = self.peers.get_mut(&peer).map(|of| &mut of.works) else { return false };
        let Some(consumer) = works.consumers.remove(&correlation) else { return false };
        works.credit -= consumer.credit;
        if let Some(queue) = self.queues.get_mut(consumer.queue) {
            queue.consumers -= 1;
            if let Some(place) = consumer.place {
                queue.line.remove(place);
            }
        }
        self.charge(peer, 0, 0, -1);
        self.close_queue_if_idle(consumer.queue);
        true
    }

    /// A session ends: it consumes nothing any more, and what it was working on goes back, in the order in which it was
    /// delivered.
    pub(in crate::broker::coordination) fn leave_work(&mut self, now: Instant, peer: PeerKey) {
        let Some(of) = self.peers.get(&peer) else { return };
        let consumers: Vec<u64> = of.works.consumers.keys().copied().collect();
        let deliveries: Vec<u64> = of.works.deliveries.iter().copied().collect();
        for consumer in consumers {
            self.unconsume(peer, consumer);
        }
        for token in deliveries {
            self.lose_delivery(now, token);
        }
    }

    /// What a session consumes and works on, with the queues.
    pub(in crate::broker::coordination) fn work_stakes(
        &self,
        of: &OfPeer,
    ) -> Vec<(Stake, Option<ResourceName>)> {
        let consumers = of.works.consumers.iter();
        let consumers = consumers
            .map(|(correlation, consumer)| (Stake::Consumer(*correlation), self.queue_name(consumer.queue)));
        let deliveries = of.works.deliveries.iter().map(|token| {
            let delivery = self.queues.deliveries.get(token);
            (Stake::Delivery(*token), delivery.and_then(|delivery| self.queue_name(delivery.queue)))
        });
        consumers.chain(deliveries).collect()
    }

    pub(in crate::broker::coordination) fn queue_name(&self, key: QueueKey) -> Option<ResourceName> {
        self.queues.get(key).map(|queue| queue.name.clone())
    }

    /// A request leaves the line.
    pub(in crate::broker::coordination) fn leave_line(&mut self, key: QueueKey, place: Place) {
        if let Some(queue) = self.queues.get_mut(key)
            && queue.line.remove(place).is_some()
        {
            queue.waiting -= 1;
        }
        self.close_queue_if_idle(key);
    }

    /// Why a request that waited for an entry got none.
    pub(in crate::broker::coordination) fn nothing_in(&self, key: QueueKey) -> Reason {
        match self.queues.get(key) {
            Some(queue) => nothing(&queue.name).into(),
            None => Reason::Busy { what: "an entry".to_owned(), why: Why::Unknown },
        }
    }

    /// Serves those who stand in line, as long as there are entries, in these queues and in those that this stirs.
    pub(super) fn pump_queues(&mut self, now: Instant, mut stirred: Vec<QueueKey>) {
        while let Some(key) = stirred.pop() {
            while self.serve_first(now, key, &mut stirred) {}
            self.close_queue_if_idle(key);
        }
    }

    /// Serves the first in line. Says whether the next one may be served.
    fn serve_first(&mut self, now: Instant, key: QueueKey, stirred: &mut Vec<QueueKey>) -> bool {
        let first = self.queues.get(key).and_then(|queue| queue.line.first());
        match first {
            Some(Claimant::Request(id)) => self.serve_request(now, key, id, stirred),
            Some(Claimant::Consumer(id)) => self.serve_consumer(now, key, id, stirred),
            None => false,
        }
    }

    fn serve_request(
        &mut self,
        now: Instant,
        key: QueueKey,
        to: WaitId,
        stirred: &mut Vec<QueueKey>,
    ) -> bool {
        let wait = self.peers.get(&to.peer).and_then(|of| of.waits.get(&to.correlation));
        let Some(WaitsAt::Queue { place, terms, fence, .. }) = wait.map(|wait| &wait.at) else {
            return false;
        };
        let (place, terms, stale) = (*place, *terms, self.check_fence(fence.as_ref()).err());
        let number = match stale {
            Some(_) => None,
            None => self.next_entry(now, key, terms, stirred),
        };
        if stale.is_none() && number.is_none() {
            return false;
        }
        self.leave_line(key, place);
        let Some(wait) = self.forget_wait(to) else { return false };
        if let Some(error) = stale {
            let reason = Reason::Error(error);
            self.effects.push_back(Effect::Refused { to, operation: wait.operation, reason });
        } else if let Some(number) = number {
            self.deliver(now, key, number, Recipient::Asker(to), terms);
        }
        true
    }

    fn serve_consumer(
        &mut self,
        now: Instant,
        key: QueueKey,
        to: WaitId,
        stirred: &mut Vec<QueueKey>,
    ) -> bool {
        let consumer = self.peers.get(&to.peer).and_then(|of| of.works.consumers.get(&to.correlation));
        let Some(terms) = consumer.map(|consumer| consumer.terms) else { return false };
        let Some(number) = self.next_entry(now, key, terms, stirred) else { return false };
        self.change_credit(to, -1);
        self.deliver(now, key, number, Recipient::Consumer(to), terms);
        true
    }

    /// A consumer has more credit or less, and stands behind all others if it has any.
    pub(super) fn change_credit(&mut self, to: WaitId, more: i32) {
        let Some(works) = self.peers.get_mut(&to.peer).map(|of| &mut of.works) else { return };
        let Some(consumer) = works.consumers.get_mut(&to.correlation) else { return };
        consumer.credit = consumer.credit.saturating_add_signed(more);
        works.credit = works.credit.saturating_add_signed(more);
        let Some(queue) = self.queues.get_mut(consumer.queue) else { return };
        match (consumer.place, consumer.credit) {
            // Whoever has been served makes way; whoever gets credit back keeps its place.
            (Some(place), credit) if more < 0 => {
                queue.line.remove(place);
                consumer.place = (credit > 0).then(|| queue.line.push(Claimant::Consumer(to)));
            }
            (None, 1..) => consumer.place = Some(queue.line.push(Claimant::Consumer(to))),
            (Some(_) | None, _) => {}
        }
    }

    /// The entry to be delivered next. Those that were delivered as often as this taker lets them be are dead.
    fn next_entry(
        &mut self,
        now: Instant,
        key: QueueKey,
        terms: TakeTerms,
        stirred: &mut Vec<QueueKey>,
    ) -> Option<u64> {
        loop {
            let queue = self.queues.get(key)?;
            let number = queue.entries.first_ready()?;
            let entry = queue.entries.get(number)?;
            let max = lower_of(entry.max_deliveries, terms.max_deliveries);
            if max == 0 || entry.deliveries < max {
                return Some(number);
            }
            stirred.extend(Some(self.bury(now, key, number, "its taker takes no more of it")?));
        }
    }
}

fn nothing(queue: &ResourceName) -> Error {
    Error::new(ErrorCode::Busy, format!("nothing was to be taken from queue {queue} in time")).with_hint(
        format!("put something, or wait longer; `ipc-cli queue stats {queue}` shows what is there"),
    )
}
