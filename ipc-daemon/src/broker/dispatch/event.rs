//! Events: published, numbered, queued for everybody who subscribes.

use ipc_core::name::{Filter, TopicName};
use ipc_core::wire::message::{OnSlow, OpenTopic, Published, Subscribe, Subscribed, Unsubscribe};
use ipc_core::wire::{Flags, Frame, Header, Kind};
use ipc_core::{Error, ErrorCode};

use super::monitor::listening;
use super::turn::LOOK_WORK;
use super::{Outcome, unusable};
use crate::broker::Broker;
use crate::broker::keys::{PeerKey, TopicKey};
use crate::broker::peer::{EventRule, GAP_BYTES, Target};
use crate::broker::policy::Action;
use crate::broker::quota::Resource;
use crate::broker::topics::{Match, Subscription};

impl Broker {
    pub(super) fn open_topic(&mut self, peer: PeerKey, frame: &Frame<'_>) -> Outcome {
        let request: OpenTopic = frame.decode()?;
        let result = self.check_handle(peer, frame).and_then(|()| {
            let opened = self.find_topic(peer, &request);
            let target = match &opened {
                Ok(topic) => Target::Topic(*topic),
                Err(error) => Target::Failed(error.code),
            };
            self.bind(peer, frame, target);
            opened.map(|_| ())
        });
        self.show_if_refused(peer, "open_topic", ("topic", &request.topic.0), &result);
        self.conclude(peer, frame.header.correlation, result)
    }

    fn find_topic(&mut self, peer: PeerKey, request: &OpenTopic) -> Result<TopicKey, Error> {
        let name = TopicName::parse(&request.topic.0)?;
        self.check_policy(peer, &Action::Publish(&name))?;
        self.topics.open(name, self.user(peer), &self.config.limits)
    }

    pub(super) fn publish(&mut self, peer: PeerKey, frame: &Frame<'_>) -> Outcome {
        let wants_answer = !frame.header.flags.contains(Flags::ONEWAY);
        let target = self.peers.get(peer).map_or(Target::Nothing, |state| state.target(frame.header.handle));
        let result = match target {
            Target::Topic(topic) => match self.check_running() {
                Ok(()) if !wants_answer && self.begin_run(peer, topic, frame) => return Ok(()),
                running => running.map(|()| self.deliver(peer, topic, frame)),
            },
            other => Err(unusable(other, "topic")),
        };
        match result {
            Ok(published) if wants_answer => self.done(peer, frame.header.correlation, &published),
            Err(error) if wants_answer => {
                self.refuse(peer, Kind::DONE, frame.header.correlation, &error);
            }
            Ok(_) | Err(_) => {}
        }
        Ok(())
    }

    /// Numbers the event and queues it for every subscription of its topic.
    fn deliver(&mut self, publisher: PeerKey, topic: TopicKey, frame: &Frame<'_>) -> Published {
        self.counters.events_published += 1;
        let Some((sequence, matches)) = self.topics.publish(topic) else {
            return Published { sequence: 0, subscribers: 0 };
        };
        // Taken out while they are worked on, because announcing needs the topics.
        let mut matches = core::mem::take(matches);
        let mut shared = None;
        let header = event_header(frame, topic, sequence);
        for matched in &mut matches {
            self.deliver_to(publisher, topic, matched, header, frame, &mut shared);
        }
        let subscribers = matches.len() as u32;
        self.counters.events_delivered += u64::from(subscribers);
        self.work += u64::from(subscribers) * frame.body.as_slice().len() as u64;
        self.topics.put_back(topic, matches);
        if self.is_monitored() {
            self.show_event(publisher, topic, (sequence, subscribers), frame.body.as_slice().len());
        }
        Published { sequence, subscribers }
    }

    /// Queues an event under the rule of its subscription.
    pub(super) fn deliver_to(
        &mut self,
        publisher: PeerKey,
        topic: TopicKey,
        matched: &mut Match,
        mut header: Header,
        frame: &Frame<'_>,
        shared: &mut Option<(bytes::Bytes, bytes::Bytes)>,
    ) {
        let Some(state) = self.peers.get_mut(matched.peer) else { return };
        let is_known = matched.is_announced && state.known.knows(publisher);
        let limits = &self.config.limits;
        let queued = state.outbound.queued_bytes();
        let room = self.quota.queue_room(state.account, queued);
        let rule = EventRule {
            subscription: matched.id,
            events_max: matched.events_max as usize,
            bytes_max: matched.bytes_max as usize,
            queue_max_bytes: room.min(limits.queue_per_connection_max_bytes as usize),
            shared_max_bytes: limits.queue_per_connection_max_bytes as usize,
        };
        if queued == 0 && header.frame_bytes() > room {
            self.miss_event(matched.peer, &rule);
            return;
        }
        if !is_known && !self.announce_event(publisher, topic, matched, &rule, header.frame_bytes()) {
            return;
        }
        header.sender = publisher.slot();
        header.correlation = matched.id;
        let sender = self.sharer(matched.peer, publisher);
        let Some(state) = self.peers.get_mut(matched.peer) else { return };
        let before = state.outbound.queued_bytes();
        let event = ((frame.envelope, &frame.body), sender);
        state.outbound.push_event(&mut self.pool, &rule, &header, event, shared);
        self.quota.requeue(state.account, before, state.outbound.queued_bytes());
        self.touch(matched.peer);
    }

    /// Counts an event as missing for a subscriber whose queue is empty, because its user's other connections leave no
    /// room for it.
    fn miss_event(&mut self, subscriber: PeerKey, rule: &EventRule) {
        let Some(state) = self.peers.get_mut(subscriber) else { return };
        let before = state.outbound.queued_bytes();
        state.outbound.push_missing(&mut self.pool, rule.subscription);
        self.quota.requeue(state.account, before, state.outbound.queued_bytes());
        self.touch(subscriber);
    }

    /// Makes the topic and the publisher of an event known to its subscriber. `false` when there is no room for that and
    /// for an event of `length` bytes: what is said of topics and publishers is bounded with the events.
    fn announce_event(
        &mut self,
        publisher: PeerKey,
        topic: TopicKey,
        matched: &mut Match,
        rule: &EventRule,
        length: usize,
    ) -> bool {
        let Some(state) = self.peers.get_mut(matched.peer) else { return false };
        let knows_publisher = state.known.knows(publisher);
        let of_topic = if matched.is_announced { 0 } else { self.topic_announcement_bytes(topic) };
        let of_peer = if knows_publisher { 0 } else { self.peer_announcement_bytes(publisher) };
        let Some(state) = self.peers.get_mut(matched.peer) else { return false };
        let before = state.outbound.queued_bytes();
        let has_room = state.outbound.make_room(rule, of_topic + of_peer + length);
        self.quota.requeue(state.account, before, state.outbound.queued_bytes());
        if !has_room {
            self.touch(matched.peer);
            return false;
        }
        if !matched.is_announced {
            matched.is_announced = true;
            self.announce_topic(matched.peer, topic);
        }
        self.announce_peer(matched.peer, publisher);
        true
    }

    pub(super) fn subscribe(&mut self, peer: PeerKey, frame: &Frame<'_>) -> Outcome {
        let request: Subscribe = frame.decode()?;
        let id = frame.header.correlation;
        let result = Filter::parse(&request.filter.0).and_then(|filter| {
            self.check_subscribe(peer, id, &filter)?;
            let subscription = self.describe_subscription(peer, id, filter, &request)?;
            let (key, sequence) =
                self.topics.subscribe(subscription, self.user(peer), &self.config.limits)?;
            if let Some(state) = self.peers.get_mut(peer) {
                state.subscriptions.insert(id, key);
                state.outbound.reserve(GAP_BYTES);
                self.quota.change(state.account, |charges| charges.subscriptions += 1);
            }
            Ok(Subscribed { sequence })
        });
        self.show_if_refused(peer, "subscribe", ("filter", &request.filter.0), &result);
        self.conclude(peer, id, result)
    }

    fn check_subscribe(&self, peer: PeerKey, id: u64, filter: &Filter) -> Result<(), Error> {
        self.check_policy(peer, &listening(filter))?;
        let Some(state) = self.peers.get(peer) else { return Ok(()) };
        let max = self.config.limits.subscriptions_per_connection_max;
        if state.subscriptions.len() >= max as usize {
            return Err(Error::quota("subscriptions_per_connection_max", max.into()));
        }
        self.quota.check(state.account, Resource::Subscriptions, 1)?;
        if state.subscriptions.contains_key(&id) {
            return Err(Error::new(ErrorCode::Conflict, format!("subscription {id} is open already")));
        }
        Ok(())
    }

    fn describe_subscription(
        &self,
        peer: PeerKey,
        id: u64,
        filter: Filter,
        request: &Subscribe,
    ) -> Result<Subscription, Error> {
        let limits = &self.config.limits;
        let bound = |asked: u32, default: u32, max: u32, name: &str| match asked {
            0 => Ok(default.min(max)),
            asked if asked <= max => Ok(asked),
            _ => Err(Error::quota(name, max.into())),
        };
        let events_max = bound(
            request.queue_events_max,
            limits.queue_events_per_subscription_default,
            limits.queue_events_per_subscription_max,
            "queue_events_per_subscription_max",
        )?;
        let bytes = limits.queue_bytes_per_subscription_max;
        let bytes_max = bound(request.queue_bytes_max, bytes, bytes, "queue_bytes_per_subscription_max")?;
        // The backlog drops the oldest; another policy would be a field of the subscription.
        let OnSlow::DropOldest = request.on_slow;
        Ok(Subscription { peer, id, filter, events_max, bytes_max })
    }

    pub(super) fn unsubscribe(&mut self, peer: PeerKey, frame: &Frame<'_>) -> Outcome {
        let request: Unsubscribe = frame.decode()?;
        let id = request.subscription;
        let result = if self.end_subscription(peer, id) {
            Ok(())
        } else {
            let message = format!("this connection has no subscription {id}");
            Err(Error::new(ErrorCode::InvalidArgument, message))
        };
        self.conclude(peer, frame.header.correlation, result)
    }

    /// Ends a subscription, and drops what waits for it. Says whether there was one.
    pub(super) fn end_subscription(&mut self, peer: PeerKey, id: u64) -> bool {
        let Some(state) = self.peers.get_mut(peer) else { return false };
        let Some(key) = state.subscriptions.remove(&id) else { return false };
        let before = state.outbound.queued_bytes();
        state.outbound.drop_subscription(id);
        state.outbound.release(GAP_BYTES);
        self.quota.requeue(state.account, before, state.outbound.queued_bytes());
        self.quota.change(state.account, |charges| charges.subscriptions -= 1);
        self.work += self.topics.unsubscribe([key]) as u64 * LOOK_WORK;
        true
    }
}

/// The header of an event as its subscribers get it, but for sender and subscription.
pub(super) fn event_header(frame: &Frame<'_>, topic: TopicKey, sequence: u64) -> Header {
    Header {
        kind: Kind::EVENT,
        flags: Flags::NONE,
        handle: topic.handle(),
        deadline_us: 0,
        sequence,
        ..frame.header
    }
}
