//! Publishing, subscriptions and watches over names.

use std::time::Duration;

use super::call::unexpected;
use super::{Client, Delivery, DeliveryRef, NameEvent, Published, SubscribeOptions};
use crate::error::{Error, ErrorCode};
use crate::payload::Payload;
use crate::session::{Answer, Drain, HandleKey, SubscriptionKey, WatchKey};
use crate::transport::clock;

/// A subscription of a client. It is a number; the client keeps what has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "events come until it is unsubscribed"]
pub struct Subscription {
    key: SubscriptionKey,
    client: u64,
}

/// A watch over service names. It is a number; the client keeps what has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "changes come until it is unwatched"]
pub struct NameWatch {
    key: WatchKey,
    client: u64,
}

impl Client {
    /// Publishes an event and waits until the daemon has given it its number and queued it for its subscribers.
    ///
    /// # Errors
    /// `invalid_argument`, `payload_too_large`, `permission_denied`: it was not published; `outcome_unknown`,
    /// `deadline_exceeded`: it may have been.
    pub fn publish(&mut self, topic: &str, payload: impl Into<Payload>) -> Result<Published, Error> {
        let (topic, payload) = self.event(topic, payload.into())?;
        let ticket = self.session.publish(clock::now(), topic, payload, None)?;
        match self.outcome(ticket)? {
            Answer::Published(published) => Ok(published),
            answer => Err(unexpected(&answer)),
        }
    }

    /// Publishes an event and returns once it is written; nobody learns what became of it.
    ///
    /// # Errors
    /// `invalid_argument`, `payload_too_large`, and as [`flush`](Client::flush).
    pub fn publish_oneway(&mut self, topic: &str, payload: impl Into<Payload>) -> Result<(), Error> {
        let (topic, payload) = self.event(topic, payload.into())?;
        self.session.publish_oneway(clock::now(), topic, payload, None)?;
        self.flush()
    }

    /// As [`publish_oneway`](Client::publish_oneway) for many events in close succession: they are written when enough has come
    /// together, with the next request or wait, or by [`flush`](Client::flush).
    ///
    /// # Errors
    /// As [`publish_oneway`](Client::publish_oneway).
    pub fn queue_publish(&mut self, topic: &str, payload: impl Into<Payload>) -> Result<(), Error> {
        let (topic, payload) = self.event(topic, payload.into())?;
        self.session.publish_oneway(clock::now(), topic, payload, None)?;
        self.flush_if_much()
    }

    /// Subscribes to the topics that pass `filter`: `*` stands for one part, `>` for all the rest.
    ///
    /// Events wait in the socket, and then at the daemon, until they are taken. When too many wait, the oldest are dropped
    /// and a [`Delivery::Gap`] says which.
    ///
    /// # Errors
    /// `invalid_argument` for a text that is no filter, `quota_exceeded`, `permission_denied`.
    pub fn subscribe(&mut self, filter: &str, options: SubscribeOptions) -> Result<Subscription, Error> {
        let (key, ticket) = self.session.subscribe(clock::now(), filter, options)?;
        self.outcome(ticket)?;
        Ok(Subscription { key, client: self.id })
    }

    /// The next thing that happened to a subscription; `None` when nothing did within `timeout`.
    ///
    /// # Errors
    /// Why the connection or the subscription is over, once everything from before was given.
    pub fn next_delivery(
        &mut self,
        subscription: &Subscription,
        timeout: Duration,
    ) -> Result<Option<Delivery>, Error> {
        self.check_client(subscription.client)?;
        self.next_of(timeout, |client| client.session.next_delivery(subscription.key).transpose())
    }

    /// The next thing that happened to a subscription, if it is there or can be read without waiting.
    ///
    /// # Errors
    /// As [`next_delivery`](Client::next_delivery).
    pub fn try_next(&mut self, subscription: &Subscription) -> Result<Option<Delivery>, Error> {
        self.next_delivery(subscription, Duration::ZERO)
    }

    /// Waits until something happens to a subscription, then gives `each` all that is there, in order, events as they lie in
    /// what was read: nothing is copied or allocated for them. Says how many there were; 0 when nothing happened within
    /// `timeout`.
    ///
    /// # Errors
    /// As [`next_delivery`](Client::next_delivery).
    pub fn drain(
        &mut self,
        subscription: &Subscription,
        timeout: Duration,
        mut each: impl FnMut(DeliveryRef<'_>),
    ) -> Result<usize, Error> {
        self.check_client(subscription.client)?;
        let mut count = 0;
        let mut counted = |delivery: DeliveryRef<'_>| {
            count += 1;
            each(delivery);
        };
        let subscription = subscription.key;
        self.session.drain(&mut Drain { subscription, each: &mut counted })?;
        if count > 0 {
            return Ok(count);
        }
        let until = clock::now() + timeout;
        loop {
            let mut counted = |delivery: DeliveryRef<'_>| {
                count += 1;
                each(delivery);
            };
            let stepped = self.step_with(Some(until), Some(Drain { subscription, each: &mut counted }));
            let drained = self.session.drain(&mut Drain { subscription, each: &mut counted });
            if count > 0 {
                return Ok(count);
            }
            stepped.and(drained)?;
            if clock::now() >= until {
                return Ok(0);
            }
        }
    }

    /// Ends a subscription; what had come and was not taken is gone.
    ///
    /// # Errors
    /// As [`flush`](Client::flush); the subscription is gone in any case.
    pub fn unsubscribe(&mut self, subscription: Subscription) -> Result<(), Error> {
        self.check_client(subscription.client)?;
        let ticket = self.session.unsubscribe(clock::now(), subscription.key)?;
        self.outcome(ticket)?;
        Ok(())
    }

    /// Watches the service names that pass `filter`; those that are present come first, as acquired.
    ///
    /// # Errors
    /// `invalid_argument` for a text that is no filter, `quota_exceeded`, `permission_denied`.
    pub fn watch_names(&mut self, filter: &str) -> Result<NameWatch, Error> {
        let (key, ticket) = self.session.watch_names(clock::now(), filter)?;
        self.outcome(ticket)?;
        Ok(NameWatch { key, client: self.id })
    }

    /// The next change of a name; `None` when there was none within `timeout`.
    ///
    /// # Errors
    /// Why the connection is over, once everything from before was given.
    pub fn next_name_event(
        &mut self,
        watch: &NameWatch,
        timeout: Duration,
    ) -> Result<Option<NameEvent>, Error> {
        self.check_client(watch.client)?;
        self.next_of(timeout, |client| Ok(client.session.next_name_event(watch.key)))
    }

    /// Ends a watch.
    ///
    /// # Errors
    /// As [`flush`](Client::flush); the watch is gone in any case.
    pub fn unwatch_names(&mut self, watch: NameWatch) -> Result<(), Error> {
        self.check_client(watch.client)?;
        self.session.forget_watch(watch.key);
        self.flush()
    }

    fn event(&mut self, topic: &str, payload: Payload) -> Result<(HandleKey, Payload), Error> {
        self.greet_before(&payload)?;
        Ok((self.session.topic(topic)?, payload))
    }

    pub(super) fn next_of<T>(
        &mut self,
        timeout: Duration,
        mut take: impl FnMut(&mut Self) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        if let Some(item) = take(self)? {
            return Ok(Some(item));
        }
        let until = clock::now() + timeout;
        loop {
            let stepped = self.step(Some(until));
            // What came before the connection was lost is given first.
            if let Some(item) = take(self)? {
                return Ok(Some(item));
            }
            stepped?;
            if clock::now() >= until {
                return Ok(None);
            }
        }
    }

    pub(super) fn check_client(&self, client: u64) -> Result<(), Error> {
        if client == self.id {
            return Ok(());
        }
        Err(Error::new(ErrorCode::InvalidArgument, "it belongs to another client"))
    }
}
