//! Topics with their counters, and the subscriptions to them.

use ipc_core::error::ErrorCode;
use ipc_core::limits::ERROR_REPLY_RESERVE_BYTES;
use ipc_core::wire::Flags;
use ipc_core::wire::message::{Subscribe, Unsubscribe};

use super::calls::GAP_RESERVE_MAX_BYTES;
use super::expect::{Answer, Content, Expected, Refusal};
use super::handles::Target;
use super::rights::Wish;
use super::shares::Part;
use super::{Model, Queues, filter, payer};
use crate::world::Seen;

/// What announcing a publisher and a topic takes at most.
const ANNOUNCEMENTS_MAX_BYTES: u64 = 1024;

/// A topic that has a counter.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    /// Which counter of that name this is.
    pub life: u64,
    /// The number given last.
    pub sequence: u64,
    publishers: usize,
    /// Who pays for it unless it is idle.
    payer: Option<u32>,
    /// Grows with the time at which it was left by its publishers, if nobody subscribes to exactly it.
    idle_since: Option<u64>,
}

/// A subscription.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub number: u64,
    pub connection: usize,
    pub correlation: u64,
    pub filter: String,
    events_max: u64,
    bytes_max: u64,
}

impl Model {
    pub(super) fn subscriptions_of(&self, connection: usize) -> Vec<&Subscription> {
        self.subscriptions.iter().filter(|one| one.connection == connection).collect()
    }

    /// How many subscriptions get the events of a topic.
    pub(super) fn subscribers(&self, topic: &str) -> usize {
        self.subscriptions.iter().filter(|one| filter::passes(&one.filter, topic)).count()
    }

    pub(super) fn gain_publisher(&mut self, from: usize, name: &str) -> Result<(), Refusal> {
        self.ensure_topic(from, name)?;
        if let Some(topic) = self.topics.get_mut(name) {
            topic.publishers += 1;
        }
        self.settle_idle(name);
        Ok(())
    }

    pub(super) fn lose_publisher(&mut self, name: &str) {
        if let Some(topic) = self.topics.get_mut(name) {
            topic.publishers -= 1;
        }
        self.drop_topic_if_unused(name);
    }

    /// Makes a counter, or takes up an idle one. The topic that has been idle for longest makes room for a new one.
    fn ensure_topic(&mut self, from: usize, name: &str) -> Result<(), Refusal> {
        if self.topics.get(name).is_some_and(|topic| topic.idle_since.is_none()) {
            return Ok(());
        }
        let (max, user) = (self.limits.topics_max, self.user(from));
        let payer = user.uid;
        let paid = || self.topics.values().filter(|topic| topic.idle_since.is_none());
        let own = paid().filter(|topic| topic.payer == payer).count();
        Part { own, total: paid().count() }.check(1, user, ("topics_max", max))?;
        if let Some(topic) = self.topics.get_mut(name) {
            (topic.payer, topic.idle_since) = (payer, None);
            return Ok(());
        }
        let idle = self.topics.iter().filter_map(|(name, topic)| Some((topic.idle_since?, name.clone())));
        if self.topics.len() >= max as usize
            && let Some((_, oldest)) = idle.min()
        {
            self.topics.remove(&oldest);
        }
        let topic = Topic { life: self.number(), sequence: 0, publishers: 0, payer, idle_since: None };
        self.topics.insert(name.to_owned(), topic);
        Ok(())
    }

    fn drop_topic_if_unused(&mut self, name: &str) {
        let is_left = self.topics.get(name).is_some_and(|topic| topic.publishers == 0);
        if is_left && self.subscribers(name) == 0 {
            self.topics.remove(name);
        } else {
            self.settle_idle(name);
        }
    }

    fn settle_idle(&mut self, name: &str) {
        let is_named = self.subscriptions.iter().any(|one| one.filter == name);
        let number = self.number();
        let Some(topic) = self.topics.get_mut(name) else { return };
        let is_idle = topic.publishers == 0 && !is_named;
        topic.idle_since = if is_idle { topic.idle_since.or(Some(number)) } else { None };
    }

    /// `false` never: nothing about publishing is a violation.
    pub(super) fn publish(&mut self, from: usize, seen: &Seen, before: &Queues) -> bool {
        let result = self.deliver(from, seen, before);
        if !seen.has(Flags::ONEWAY) {
            self.conclude(from, seen.header.correlation, result);
        }
        true
    }

    fn deliver(&mut self, from: usize, seen: &Seen, before: &Queues) -> Result<Answer, Refusal> {
        let name = match self.target(from, seen) {
            Some(Target::Topic { name }) => name.clone(),
            Some(Target::Failed(code)) => return Err(Refusal::of(*code)),
            Some(Target::Method { .. }) | None => return Err(Refusal::of(ErrorCode::StaleHandle)),
        };
        if self.is_draining {
            return Err(Refusal::of(ErrorCode::ShuttingDown));
        }
        let Some(topic) = self.topics.get_mut(&name) else { return Err(Refusal::of(ErrorCode::StaleHandle)) };
        topic.sequence += 1;
        let (life, sequence) = (topic.life, topic.sequence);
        let content = Content::of(seen);
        let matching = self.subscriptions.iter().filter(|one| filter::passes(&one.filter, &name));
        let matching: Vec<Subscription> = matching.cloned().collect();
        for one in &matching {
            self.excuse(one, from, &content, before, matching.len());
            let event = Expected::Event {
                subscription: one.number,
                correlation: one.correlation,
                topic: name.clone(),
                life,
                sequence,
                from,
                content: content.clone(),
            };
            self.push(one.connection, event);
        }
        Ok(Answer::Published { sequence, subscribers: matching.len() as u32 })
    }

    /// Notes that events of a subscription may be dropped from here on, when one of its bounds may be reached.
    fn excuse(&mut self, one: &Subscription, from: usize, content: &Content, before: &Queues, copies: usize) {
        let bytes = content.frame_bytes();
        let own = self.subscriptions_of(one.connection).len() as u64;
        let calls = self.calls.values().filter(|call| call.caller == one.connection).count() as u64;
        let Some(connection) = self.connections.get(&one.connection) else { return };
        // Announcements and the copies for other subscriptions may go first.
        let ahead = ANNOUNCEMENTS_MAX_BYTES + bytes * (copies as u64 - 1);
        let free = calls * ERROR_REPLY_RESERVE_BYTES as u64 + own * GAP_RESERVE_MAX_BYTES;
        let queued = before.queued(connection.peer) + ahead;
        let of_payer = before.queued_of_payer(&payer(&connection.identity)) + ahead;
        let is_full = queued + free + bytes > self.limits.queue_per_connection_max_bytes.into()
            || of_payer + free + bytes > self.limits.queue_per_uid_max_bytes.into()
            || self.may_exceed_share(from, one.connection, ahead + bytes, before);
        let events = connection.inbox.due().filter_map(|due| match &due.what {
            Expected::Event { subscription, content, .. } if *subscription == one.number => {
                Some(content.frame_bytes())
            }
            _ => None,
        });
        let (count, sum) = events.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes));
        let is_past = count >= one.events_max || sum + bytes > one.bytes_max;
        if is_full || (before.queued(connection.peer) > 0 && is_past) {
            self.excused.insert(one.number);
        }
    }

    pub(super) fn subscribe(&mut self, from: usize, seen: &Seen) -> bool {
        let Some(body) = seen.decode::<Subscribe>() else { return false };
        let correlation = seen.header.correlation;
        let result = self.try_subscribe(from, correlation, &body);
        self.conclude(from, correlation, result);
        true
    }

    fn try_subscribe(&mut self, from: usize, correlation: u64, body: &Subscribe) -> Result<Answer, Refusal> {
        let text = body.filter.0.clone();
        if !filter::is_filter(&text) {
            return Err(Refusal::of(ErrorCode::InvalidArgument));
        }
        self.may(from, Wish::Subscribe(&text))?;
        let own = self.subscriptions_of(from);
        let max = self.limits.subscriptions_per_connection_max;
        if own.len() >= max as usize {
            return Err(Refusal::quota("subscriptions_per_connection_max", max));
        }
        if own.iter().any(|one| one.correlation == correlation) {
            return Err(Refusal::of(ErrorCode::Conflict));
        }
        let limits = &self.limits;
        let (events, bytes) =
            (limits.queue_events_per_subscription_max, limits.queue_bytes_per_subscription_max);
        if body.queue_events_max > events {
            return Err(Refusal::quota("queue_events_per_subscription_max", events));
        }
        if body.queue_bytes_max > bytes {
            return Err(Refusal::quota("queue_bytes_per_subscription_max", bytes));
        }
        let default = limits.queue_events_per_subscription_default.min(events);
        let or = |asked: u32, default: u32| u64::from(if asked == 0 { default } else { asked });
        let (events_max, bytes_max) = (or(body.queue_events_max, default), or(body.queue_bytes_max, bytes));
        let is_literal = filter::is_name(&text);
        if is_literal {
            self.ensure_topic(from, &text)?;
        }
        let number = self.number();
        self.subscriptions.push(Subscription {
            number,
            connection: from,
            correlation,
            filter: text.clone(),
            events_max,
            bytes_max,
        });
        if is_literal {
            self.settle_idle(&text);
        }
        let sequence = self.topics.get(&text).map_or(0, |topic| topic.sequence);
        Ok(Answer::Subscribed { sequence })
    }

    pub(super) fn unsubscribe(&mut self, from: usize, seen: &Seen) -> bool {
        let Some(body) = seen.decode::<Unsubscribe>() else { return false };
        let own = self.subscriptions_of(from);
        let found = own.iter().find(|one| one.correlation == body.subscription).map(|one| one.number);
        let result = match found {
            Some(subscription) => {
                self.end_subscription(subscription);
                Ok(Answer::Unsubscribed { subscription })
            }
            None => Err(Refusal::of(ErrorCode::InvalidArgument)),
        };
        self.conclude(from, seen.header.correlation, result);
        true
    }

    /// Ends a subscription and drops the counters that only it kept.
    pub(super) fn end_subscription(&mut self, number: u64) {
        let Some(at) = self.subscriptions.iter().position(|one| one.number == number) else { return };
        let text = self.subscriptions.remove(at).filter;
        let mut kept: Vec<(Option<u64>, String)> = self
            .topics
            .iter()
            .filter(|(name, topic)| {
                **name == text || (topic.idle_since.is_some() && filter::passes(&text, name))
            })
            .map(|(name, topic)| (topic.idle_since, name.clone()))
            .collect();
        kept.sort();
        for (_, name) in kept {
            self.drop_topic_if_unused(&name);
        }
    }
}
