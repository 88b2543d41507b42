//! Topics and the subscriptions to them.
//!
//! A topic has a counter while somebody publishes on it or subscribes to it. Who gets its events is worked out when the
//! first event comes after a change, and kept; what is kept in all is bounded, and dropping it costs only time.
//!
//! Whoever makes a topic, or takes up an idle one, pays for it until it is idle or gone.

use std::collections::{BTreeMap, BTreeSet};

use ipc_core::name::{Filter, TopicName};
use ipc_core::{Error, limits::Limits};
use slotmap::SlotMap;

use super::filters::FilterTree;
use super::keys::{PeerKey, SubscriptionKey, TopicKey};
use super::ledger::{Ledger, User};

/// The topic on which what crosses the bus is told. Only who subscribes to exactly this gets it.
pub(super) const MONITOR_TOPIC: &str = "ipc.monitor";
/// How topics of the daemon's own begin, which no wildcard matches.
const RESERVED: &str = "ipc.";

/// Most kept matches of all topics; past it all are dropped and worked out anew.
const KEPT_MATCHES_MAX: usize = 1 << 20;

/// A subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) peer: PeerKey,
    /// What its client knows it by.
    pub(super) id: u64,
    pub(super) filter: Filter,
    pub(super) events_max: u32,
    pub(super) bytes_max: u32,
}

/// A subscription that gets the events of a topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Match {
    pub(super) subscription: SubscriptionKey,
    pub(super) peer: PeerKey,
    pub(super) id: u64,
    pub(super) events_max: u32,
    pub(super) bytes_max: u32,
    /// Whether the topic's handle was announced to the peer.
    pub(super) is_announced: bool,
}

/// A topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: TopicName,
    /// The number given last.
    pub(super) sequence: u64,
    /// Handles that publish on it.
    publishers: u32,
    /// Who pays for it unless it is idle.
    payer: Option<u32>,
    /// Place in the order in which topics were left by their publishers.
    idle_since: Option<u64>,
    matches: Vec<Match>,
    /// Whether several peers match, each of them once.
    is_shared: bool,
    /// The state of the subscriptions that `matches` was worked out for.
    version: u64,
}

#[derive(Debug, Default)]
pub(super) struct Topics {
    topics: SlotMap<TopicKey, Topic>,
    by_name: BTreeMap<TopicName, TopicKey>,
    subscriptions: SlotMap<SubscriptionKey, Subscription>,
    /// Subscriptions of exactly one topic, by its name.
    literal: BTreeMap<String, BTreeSet<SubscriptionKey>>,
    /// All others.
    wildcard: FilterTree<SubscriptionKey>,
    /// Topics without publishers and without a subscription of exactly their name, oldest first: they make room.
    idle: BTreeMap<u64, TopicKey>,
    idle_clock: u64,
    /// How many topics that are not idle there are, by who pays for them.
    counts: Ledger<Option<u32>>,
    /// Grows with each change of the subscriptions.
    version: u64,
    kept_matches: usize,
    /// The topic of what crosses the bus, while somebody subscribes to it.
    monitor: Option<TopicKey>,
}

impl Topics {
    /// Opens a topic for a publisher.
    ///
    /// # Errors
    /// `quota_exceeded` when there are too many topics, or the user has its part of them.
    pub(super) fn open(&mut self, name: TopicName, user: User, limits: &Limits) -> Result<TopicKey, Error> {
        let key = self.ensure(name, user, limits)?;
        if let Some(topic) = self.topics.get_mut(key) {
            topic.publishers += 1;
        }
        Ok(key)
    }

    /// A publisher leaves. The topic goes with the last one when nobody subscribes to it.
    pub(super) fn release(&mut self, key: TopicKey) {
        if let Some(topic) = self.topics.get_mut(key) {
            topic.publishers = topic.publishers.saturating_sub(1);
            self.remove_if_unused(key);
        }
    }

    /// How many topics have a counter.
    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    /// How many topics a user pays for.
    pub(super) fn used_by(&self, uid: u32) -> u64 {
        self.counts.of(Some(uid))
    }

    /// Those who pay for topics.
    pub(super) fn users(&self) -> impl Iterator<Item = u32> {
        self.counts.holders().flatten()
    }

    pub(super) fn get(&self, key: TopicKey) -> Option<&Topic> {
        self.topics.get(key)
    }

    /// What a subscription lets pass.
    pub(super) fn filter(&self, key: SubscriptionKey) -> Option<&Filter> {
        self.subscriptions.get(key).map(|subscription| &subscription.filter)
    }

    /// The topic of what crosses the bus, while somebody subscribes to it.
    pub(super) fn monitor(&self) -> Option<TopicKey> {
        self.monitor
    }

    /// Gives the next number and everybody who gets the event.
    pub(super) fn publish(&mut self, key: TopicKey) -> Option<(u64, &mut Vec<Match>)> {
        if self.topics.get(key)?.version != self.version {
            self.work_out(key);
        }
        let topic = self.topics.get_mut(key)?;
        topic.sequence += 1;
        Some((topic.sequence, &mut topic.matches))
    }

    /// Takes out everybody who gets an event, if they are several peers that each get it once. To be
    /// [put back](Topics::put_back).
    pub(super) fn take_shared(&mut self, key: TopicKey) -> Option<Vec<Match>> {
        if self.topics.get(key)?.version != self.version {
            self.work_out(key);
        }
        let topic = self.topics.get_mut(key)?;
        topic.is_shared.then(|| core::mem::take(&mut topic.matches))
    }

    /// The number of the next event.
    pub(super) fn number(&mut self, key: TopicKey) -> u64 {
        self.topics.get_mut(key).map_or(0, |topic| {
            topic.sequence += 1;
            topic.sequence
        })
    }

    /// Puts back what [`Topics::publish`] gave, after it was taken out to be worked on.
    pub(super) fn put_back(&mut self, key: TopicKey, matches: Vec<Match>) {
        if let Some(topic) = self.topics.get_mut(key) {
            topic.matches = matches;
        }
    }

    fn work_out(&mut self, key: TopicKey) {
        if self.kept_matches > KEPT_MATCHES_MAX {
            self.drop_matches();
        }
        let Some(name) = self.topics.get(key).map(|topic| topic.name.clone()) else { return };
        let mut found = self.matching(&name);
        found.sort_unstable();
        let subscriptions = &self.subscriptions;
        let Some(topic) = self.topics.get_mut(key) else { return };
        let before = core::mem::take(&mut topic.matches);
        topic.matches = found
            .into_iter()
            .filter_map(|key| {
                let subscription = subscriptions.get(key)?;
                let old = before.binary_search_by_key(&key, |old| old.subscription).ok();
                Some(Match {
                    subscription: key,
                    peer: subscription.peer,
                    id: subscription.id,
                    events_max: subscription.events_max,
                    bytes_max: subscription.bytes_max,
                    is_announced: old.and_then(|at| before.get(at)).is_some_and(|old| old.is_announced),
                })
            })
            .collect();
        topic.is_shared = topic.matches.len() > 1 && has_distinct_peers(&topic.matches);
        topic.version = self.version;
        self.kept_matches = self.kept_matches + topic.matches.len() - before.len();
    }

    fn drop_matches(&mut self) {
        for topic in self.topics.values_mut() {
            topic.matches = Vec::new();
            topic.is_shared = false;
            topic.version = 0;
        }
        self.kept_matches = 0;
    }

    fn matching(&self, name: &TopicName) -> Vec<SubscriptionKey> {
        let mut found: Vec<SubscriptionKey> =
            self.literal.get(name.as_str()).into_iter().flatten().copied().collect();
        if !name.as_str().starts_with(RESERVED) {
            self.wildcard.find(name.as_str(), &mut found);
        }
        found
    }

    fn is_subscribed(&self, name: &TopicName) -> bool {
        let name = name.as_str();
        self.literal.contains_key(name) || (!name.starts_with(RESERVED) && self.wildcard.is_matched(name))
    }

    /// Adds a subscription. For a filter without wildcards it gives the last number of that topic, which has a counter
    /// from here on.
    ///
    /// # Errors
    /// `quota_exceeded` when there are too many topics, or the user has its part of them.
    pub(super) fn subscribe(
        &mut self,
        subscription: Subscription,
        user: User,
        limits: &Limits,
    ) -> Result<(SubscriptionKey, u64), Error> {
        let literal = TopicName::parse(subscription.filter.as_str()).ok();
        let topic = match &literal {
            Some(name) => Some(self.ensure(name.clone(), user, limits)?),
            None => None,
        };
        let key = self.subscriptions.insert(subscription);
        self.version += 1;
        match (literal, self.subscriptions.get(key)) {
            (Some(name), _) => {
                if name.as_str() == MONITOR_TOPIC {
                    self.monitor = topic;
                }
                self.literal.entry(name.as_str().to_owned()).or_default().insert(key);
            }
            (None, Some(subscription)) => self.wildcard.insert(subscription.filter.as_str(), key),
            (None, None) => {}
        }
        let sequence = topic.and_then(|topic| self.topics.get(topic)).map_or(0, |topic| topic.sequence);
        Ok((key, sequence))
    }

    /// Removes subscriptions, and the topics that only they kept. Many at once cost one look at the idle topics. Says how many of
    /// those were looked at.
    pub(super) fn unsubscribe(&mut self, keys: impl IntoIterator<Item = SubscriptionKey>) -> usize {
        let mut lost_wildcard = false;
        for key in keys {
            let Some(subscription) = self.subscriptions.remove(key) else { continue };
            self.version += 1;
            let filter = subscription.filter.as_str();
            if !subscription.filter.is_literal() {
                // While others have the same filter no topic is without a subscription.
                lost_wildcard |= !self.wildcard.remove(filter, key);
                continue;
            }
            if let Some(keys) = self.literal.get_mut(filter) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.literal.remove(filter);
                    if filter == MONITOR_TOPIC {
                        self.monitor = None;
                    }
                }
            }
            if let Some(topic) = self.by_name.get(filter).copied() {
                self.remove_if_unused(topic);
            }
        }
        if lost_wildcard { self.remove_deserted() } else { 0 }
    }

    /// Removes the topics that nobody publishes on or subscribes to. Says how many it has looked at.
    fn remove_deserted(&mut self) -> usize {
        let is_deserted =
            |key: &TopicKey| self.topics.get(*key).is_some_and(|topic| !self.is_subscribed(&topic.name));
        let deserted: Vec<TopicKey> = self.idle.values().copied().filter(is_deserted).collect();
        let looked_at = self.idle.len();
        for topic in deserted {
            self.remove(topic);
        }
        looked_at
    }

    /// The topic of that name, which the user is about to publish on or to subscribe to: it is charged with it if nobody is.
    fn ensure(&mut self, name: TopicName, user: User, limits: &Limits) -> Result<TopicKey, Error> {
        if let Some(key) = self.by_name.get(&name).copied() {
            self.take_up(key, user, limits)?;
            return Ok(key);
        }
        check(&self.counts, user, limits)?;
        if self.topics.len() >= limits.topics_max as usize
            && let Some(oldest) = self.idle.first_key_value().map(|(_, key)| *key)
        {
            self.remove(oldest);
        }
        let topic = Topic {
            name: name.clone(),
            sequence: 0,
            publishers: 0,
            payer: user.uid,
            idle_since: None,
            matches: Vec::new(),
            is_shared: false,
            version: 0,
        };
        let key = self.topics.insert(topic);
        self.by_name.insert(name, key);
        self.counts.add(user.uid, 1);
        debug_assert_eq!(
            self.counts.total() as usize,
            self.topics.len() - self.idle.len(),
            "who pays for topics"
        );
        Ok(key)
    }

    /// Takes a topic out of the order of idle ones, if it is one.
    fn take_up(&mut self, key: TopicKey, user: User, limits: &Limits) -> Result<(), Error> {
        let Some(topic) = self.topics.get_mut(key) else { return Ok(()) };
        let Some(since) = topic.idle_since else { return Ok(()) };
        check(&self.counts, user, limits)?;
        topic.idle_since = None;
        topic.payer = user.uid;
        self.idle.remove(&since);
        self.counts.add(user.uid, 1);
        Ok(())
    }

    fn remove_if_unused(&mut self, key: TopicKey) {
        let Some(topic) = self.topics.get(key) else { return };
        if topic.publishers == 0 && !self.is_subscribed(&topic.name) {
            self.remove(key);
        } else {
            self.settle_idle(key);
        }
    }

    /// Puts a topic into the order of idle ones if it is one from here on: nobody pays for it then.
    fn settle_idle(&mut self, key: TopicKey) {
        let Some(topic) = self.topics.get_mut(key) else { return };
        let is_idle = topic.publishers == 0 && !self.literal.contains_key(topic.name.as_str());
        if is_idle && topic.idle_since.is_none() {
            self.idle_clock += 1;
            topic.idle_since = Some(self.idle_clock);
            self.idle.insert(self.idle_clock, key);
            self.counts.remove(topic.payer, 1);
        }
    }

    fn remove(&mut self, key: TopicKey) {
        let Some(topic) = self.topics.remove(key) else { return };
        self.by_name.remove(&topic.name);
        self.kept_matches -= topic.matches.len();
        match topic.idle_since {
            Some(since) => {
                self.idle.remove(&since);
            }
            None => self.counts.remove(topic.payer, 1),
        }
    }

    /// Every topic with its key and the number of its subscriptions, in order of its name.
    pub(super) fn all(&self) -> impl Iterator<Item = (TopicKey, &Topic, usize)> {
        let topics = self.by_name.values().filter_map(|key| Some((*key, self.topics.get(*key)?)));
        topics.map(|(key, topic)| (key, topic, self.matching(&topic.name).len()))
    }
}

/// Whether a user may have one more topic that is not idle.
fn check(counts: &Ledger<Option<u32>>, user: User, limits: &Limits) -> Result<(), Error> {
    counts.standing(user.uid).check(1, "topics_max", limits.topics_max.into(), user.is_alone)
}

fn has_distinct_peers(matches: &[Match]) -> bool {
    let mut peers: Vec<PeerKey> = matches.iter().map(|matched| matched.peer).collect();
    peers.sort_unstable();
    peers.windows(2).all(|two| two[0] != two[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: User = User { uid: Some(1), is_alone: true };
    const ONE: User = User { uid: Some(1), is_alone: false };
    const OTHER: User = User { uid: Some(2), is_alone: false };

    fn topic(text: &str) -> TopicName {
        TopicName::parse(text).unwrap()
    }

    fn subscription(filter: &str) -> Subscription {
        let filter = Filter::parse(filter).unwrap();
        Subscription { peer: PeerKey::default(), id: 1, filter, events_max: 1, bytes_max: 1 }
    }

    #[test]
    fn a_counter_lives_while_somebody_publishes_or_subscribes() {
        let (mut topics, limits) = (Topics::default(), Limits::default());
        let first = topics.open(topic("a.b"), ALONE, &limits).unwrap();
        assert_eq!(topics.publish(first).unwrap().0, 1);
        let (sub, sequence) = topics.subscribe(subscription("a.b"), ALONE, &limits).unwrap();
        assert_eq!(sequence, 1);
        topics.release(first);
        let again = topics.open(topic("a.b"), ALONE, &limits).unwrap();
        let (sequence, matches) = topics.publish(again).unwrap();
        assert_eq!((again, sequence, matches.len()), (first, 2, 1));
        topics.release(again);
        topics.unsubscribe([sub]);
        assert_eq!(topics.all().count(), 0);
        let later = topics.open(topic("a.b"), ALONE, &limits).unwrap();
        assert_ne!(later.handle(), first.handle());
        assert_eq!(topics.publish(later).unwrap().0, 1);
    }

    #[test]
    fn wildcards_match_topics_that_come_before_and_after_them() {
        let (mut topics, limits) = (Topics::default(), Limits::default());
        let before = topics.open(topic("a.b"), ALONE, &limits).unwrap();
        let (star, _) = topics.subscribe(subscription("a.*"), ALONE, &limits).unwrap();
        let (all, _) = topics.subscribe(subscription(">"), ALONE, &limits).unwrap();
        let after = topics.open(topic("a.c"), ALONE, &limits).unwrap();
        let deep = topics.open(topic("a.c.d"), ALONE, &limits).unwrap();
        for (key, count) in [(before, 2), (after, 2), (deep, 1)] {
            assert_eq!(topics.publish(key).unwrap().1.len(), count);
        }
        topics.publish(after).unwrap().1[0].is_announced = true;
        topics.unsubscribe([all]);
        assert!(topics.publish(after).unwrap().1[0].is_announced);
        topics.unsubscribe([star]);
        assert_eq!(topics.publish(before).unwrap().1.len(), 0);
        for key in [before, after, deep] {
            topics.release(key);
        }
        assert_eq!((topics.all().count(), topics.idle.len(), topics.kept_matches), (0, 0, 0));
    }

    #[test]
    fn idle_topics_make_room_and_others_are_kept() {
        let mut topics = Topics::default();
        let limits = Limits { topics_max: 3, ..Limits::default() };
        topics.subscribe(subscription(">"), ALONE, &limits).unwrap();
        topics.subscribe(subscription("kept"), ALONE, &limits).unwrap();
        for name in ["a", "b", "c"] {
            let key = topics.open(topic(name), ALONE, &limits).unwrap();
            topics.release(key);
        }
        let names: Vec<_> = topics.all().map(|(_, topic, _)| topic.name.to_string()).collect();
        assert_eq!(names, ["b", "c", "kept"]);
        topics.open(topic("d"), ALONE, &limits).unwrap();
        topics.open(topic("e"), ALONE, &limits).unwrap();
        let error = topics.open(topic("f"), ALONE, &limits).unwrap_err();
        assert_eq!(error.detail.unwrap().resource.as_deref(), Some("topics_max"));
    }

    #[test]
    fn nobody_pays_for_an_idle_topic_and_whoever_takes_it_up_does() {
        let mut topics = Topics::default();
        let limits = Limits { topics_max: 4, ..Limits::default() };
        let of = |topics: &Topics| [1, 2].map(|uid| topics.used_by(uid));
        topics.subscribe(subscription(">"), ONE, &limits).unwrap();
        for name in ["a", "b", "c", "d", "e"] {
            let key = topics.open(topic(name), ONE, &limits).unwrap();
            assert_eq!(of(&topics), [1, 0]);
            topics.release(key);
        }
        assert_eq!((topics.len(), of(&topics)), (4, [0, 0]));
        let taken = ["d", "e"].map(|name| topics.open(topic(name), OTHER, &limits).unwrap());
        assert!(topics.open(topic("b"), OTHER, &limits).is_err(), "it has as many as are left");
        assert!(topics.subscribe(subscription("b"), OTHER, &limits).is_err());
        // Who else publishes on what is there pays nothing, and whoever has left goes on paying for it.
        let again = topics.open(topic("d"), ONE, &limits).unwrap();
        topics.release(again);
        assert_eq!((again, of(&topics)), (taken[0], [0, 2]));
        let (one, _) = topics.subscribe(subscription("b"), ONE, &limits).unwrap();
        assert_eq!(of(&topics), [1, 2]);
        topics.unsubscribe([one]);
        topics.release(taken[0]);
        assert_eq!((topics.len(), of(&topics), topics.counts.total()), (4, [0, 1], 1));
        topics.release(taken[1]);
        assert_eq!((topics.idle.len(), topics.counts.total()), (4, 0));
    }
}
