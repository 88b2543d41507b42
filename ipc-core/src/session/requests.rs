//! What the user asks for: requests become bytes, and most of them a ticket.

use core::time::Duration;

use crate::error::{Error, ErrorCode};
use crate::id::Handle;
use crate::limits::{PAYLOAD_BEFORE_WELCOME_MAX_BYTES, TRACEPARENT_MAX_BYTES};
use crate::name::{Filter, ResourceName};
use crate::payload::Payload;
use crate::time::Instant;
use crate::wire::message::{ErrorBody, OpenTopic, Resolve, Subscribe, Unsubscribe, UnwatchNames, WatchNames};
use crate::wire::{Flags, Header, Kind};

use super::addressed::{Addressed, send_addressed};
use super::event::{InboundKey, NameEvent, RegistrationKey, SubscriptionKey, Ticket, WatchKey};
use super::handles::{HandleKey, Release, Target};
use super::inflight::{Open, Purpose, expiry};
use super::output::Output;
use super::registrations::{Offer, Registration};
use super::subscriptions::{Deliveries, SubscribeOptions, Subscription};
use super::tag::Tag;
use super::watches::Watch;
use super::{Delivery, Event, Session};

/// How long one-way calls rely on a method that was looked up. After a service was replaced, they miss it for no longer.
const ONEWAY_BINDING_MAX_AGE: Duration = Duration::from_secs(1);

/// What may be said about one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallOptions {
    /// When the caller stops waiting; at most an hour ahead, `None` for no limit.
    pub deadline: Option<Instant>,
    /// W3C Trace Context, passed on to the service; at most 55 bytes.
    pub traceparent: Option<Box<str>>,
    /// A lock and the token of its holder: with an older one than the last that was given the call is not handed on, and ends
    /// with `stale_fencing_token`.
    pub fence: Option<(ResourceName, u64)>,
}

/// Requests. All of them fail at once when the session is closed, with the error that ended it as the reason.
impl Session {
    /// The handle of a method, looked up or made; nothing is sent before its first use.
    ///
    /// # Errors
    /// `invalid_argument` for texts that are no names.
    pub fn method(&mut self, service: &str, method: &str) -> Result<HandleKey, Error> {
        if let Some(key) = self.handles.find_method(service, method) {
            return Ok(key);
        }
        let (key, release) = self.handles.insert_method(service, method)?;
        self.release(release);
        Ok(key)
    }

    /// The handle of a topic, looked up or made; nothing is sent before its first use.
    ///
    /// # Errors
    /// `invalid_argument` for a text that is no topic.
    pub fn topic(&mut self, topic: &str) -> Result<HandleKey, Error> {
        if let Some(key) = self.handles.find_topic(topic) {
            return Ok(key);
        }
        let (key, release) = self.handles.insert_topic(topic)?;
        self.release(release);
        Ok(key)
    }

    /// Whether a handle can still be used; if not, its name has to be looked up anew.
    pub fn knows(&self, handle: HandleKey) -> bool {
        self.handles.knows(handle)
    }

    /// Calls a method. The outcome is [`Answer::Reply`](super::Answer::Reply) or an error.
    ///
    /// # Errors
    /// At once and without having sent anything: `payload_too_large`, `quota_exceeded` for too many open calls,
    /// `deadline_exceeded`, `stale_handle` for a handle that is not [known](Session::knows).
    pub fn call(
        &mut self,
        now: Instant,
        method: HandleKey,
        payload: Payload,
        options: CallOptions,
    ) -> Result<Ticket, Error> {
        if self.mail.is_some() {
            return self.mail_call(now, method, &payload, options);
        }
        self.check(&payload, options.traceparent.as_deref())?;
        check_deadline(now, options.deadline)?;
        self.check_fence(options.fence.is_some())?;
        if let Some(daemon) = &self.daemon
            && self.inflight.calls() >= daemon.pending_calls_max as usize
        {
            let limit = u64::from(daemon.pending_calls_max);
            return Err(Error::quota("pending_calls_per_connection_max", limit)
                .with_hint("wait for answers before calling again"));
        }
        let wire = self.wire_handle(now, method)?;
        let CallOptions { deadline, traceparent, fence } = options;
        let fence = fence.map(Box::new);
        let call = Addressed { handle: method, wire, payload, deadline, traceparent, fence, retried: false };
        let correlation = self.inflight.next_key().bits();
        let header = Header::new(Kind::CALL).with_correlation(correlation);
        send_addressed(&mut self.output, now, header, &call);
        let sent_end = self.output.end();
        Ok(self.inflight.insert(Open { purpose: Purpose::Call(call), expires: expiry(deadline), sent_end }))
    }

    /// Calls a method without wanting an answer: nobody learns whether it ran.
    ///
    /// # Errors
    /// As for [`call`](Session::call).
    pub fn call_oneway(
        &mut self,
        now: Instant,
        method: HandleKey,
        payload: Payload,
        options: CallOptions,
    ) -> Result<(), Error> {
        if self.mail.is_some() {
            return self.mail_call_oneway(now, method, &payload, options);
        }
        self.check(&payload, options.traceparent.as_deref())?;
        check_deadline(now, options.deadline)?;
        self.check_fence(options.fence.is_some())?;
        // Nobody would hear that the handle has become stale, so it does not get old.
        self.handles.distrust(now, method, ONEWAY_BINDING_MAX_AGE);
        let wire = self.wire_handle(now, method)?;
        let CallOptions { deadline, traceparent, fence } = options;
        let fence = fence.map(Box::new);
        let call = Addressed { handle: method, wire, payload, deadline, traceparent, fence, retried: false };
        let header = Header { flags: Flags::ONEWAY, ..Header::new(Kind::CALL) };
        send_addressed(&mut self.output, now, header, &call);
        Ok(())
    }

    /// Asks the daemon to cancel a call, or a request of coordination that waits, which then ends with `cancelled` or with
    /// what overtook it.
    pub fn cancel(&mut self, ticket: Ticket) {
        self.cancel_mail(ticket);
        let purpose = self.inflight.get_mut(ticket.0).map(|open| &open.purpose);
        if purpose.is_some_and(Purpose::is_cancellable) {
            self.output.bare(Header::new(Kind::CANCEL).with_correlation(ticket.0.bits()));
        }
    }

    /// Nobody waits for this request any more: a call is cancelled, a subscription, watch or registration that was
    /// being made is taken back, and an outcome that was there is thrown away.
    pub fn abandon(&mut self, ticket: Ticket) {
        self.abandon_mail(ticket);
        self.cancel(ticket);
        self.abandon_work(ticket);
        let purpose = self.inflight.remove(ticket.0);
        self.drop_unmade(purpose.into_iter().collect());
    }

    /// Publishes an event and has it acknowledged: [`Answer::Published`](super::Answer::Published).
    ///
    /// # Errors
    /// At once and without having sent anything: `payload_too_large`, `stale_handle`.
    pub fn publish(
        &mut self,
        now: Instant,
        topic: HandleKey,
        payload: Payload,
        traceparent: Option<Box<str>>,
    ) -> Result<Ticket, Error> {
        if self.mail.is_some() {
            return self.mail_publish(now, topic, &payload, traceparent);
        }
        self.check(&payload, traceparent.as_deref())?;
        let wire = self.wire_handle(now, topic)?;
        let event = Addressed::event(topic, wire, payload, traceparent);
        let correlation = self.inflight.next_key().bits();
        let header = Header::new(Kind::PUBLISH).with_correlation(correlation);
        send_addressed(&mut self.output, now, header, &event);
        Ok(self.open(now, Purpose::Publish(event)))
    }

    /// Publishes an event; nobody learns what became of it.
    ///
    /// # Errors
    /// At once and without having sent anything: `payload_too_large`, `stale_handle`.
    pub fn publish_oneway(
        &mut self,
        now: Instant,
        topic: HandleKey,
        payload: Payload,
        traceparent: Option<Box<str>>,
    ) -> Result<(), Error> {
        if self.mail.is_some() {
            return self.mail_publish_oneway(topic, &payload, traceparent);
        }
        self.check(&payload, traceparent.as_deref())?;
        let wire = self.wire_handle(now, topic)?;
        let event = Addressed::event(topic, wire, payload, traceparent);
        let header = Header { flags: Flags::ONEWAY, ..Header::new(Kind::PUBLISH) };
        send_addressed(&mut self.output, now, header, &event);
        Ok(())
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// The error that ended the session.
    pub fn ping(&mut self, now: Instant) -> Result<Ticket, Error> {
        if self.mail.is_some() {
            return self.mail_ping(now);
        }
        self.check_open()?;
        let correlation = self.inflight.next_key().bits();
        self.output.bare(Header::new(Kind::PING).with_correlation(correlation));
        Ok(self.open(now, Purpose::Ping))
    }

    /// Subscribes to the topics that pass `filter`. If the outcome is an error, the subscription is gone.
    ///
    /// # Errors
    /// At once: `invalid_argument` for a text that is no filter.
    pub fn subscribe(
        &mut self,
        now: Instant,
        filter: &str,
        options: SubscribeOptions,
    ) -> Result<(SubscriptionKey, Ticket), Error> {
        self.check_stream()?;
        let filter = Filter::parse(filter)?;
        let request = Subscribe {
            filter: filter.as_str().into(),
            on_slow: options.on_slow,
            queue_events_max: options.queue_events_max,
            queue_bytes_max: options.queue_bytes_max,
        };
        let key = SubscriptionKey(self.subscriptions.next_key());
        let header = Header::new(Kind::SUBSCRIBE).with_correlation(Tag::Subscription.on(key.0));
        self.send_control(header, &request);
        let ticket = self.open(now, Purpose::Subscribe(key));
        self.subscriptions.insert(Subscription::new(request, filter.is_literal(), ticket));
        Ok((key, ticket))
    }

    /// The oldest of what a subscription has received.
    pub fn next_delivery(&mut self, key: SubscriptionKey) -> Option<Result<Delivery, Error>> {
        self.subscriptions.get_mut(key.0)?.pop()
    }

    /// Exchanges all that a subscription has received for `empty`, which must be empty.
    pub fn take_deliveries(&mut self, key: SubscriptionKey, empty: &mut Deliveries) {
        if let Some(subscription) = self.subscriptions.get_mut(key.0) {
            subscription.swap(empty);
        }
    }

    /// Ends a subscription; what it had received is gone.
    ///
    /// # Errors
    /// The error that ended the session; the subscription is gone in any case.
    pub fn unsubscribe(&mut self, now: Instant, key: SubscriptionKey) -> Result<Ticket, Error> {
        self.subscriptions.remove(key.0);
        self.check_open()?;
        let correlation = self.inflight.next_key().bits();
        self.send_unsubscribe(correlation, Tag::Subscription.on(key.0));
        Ok(self.open(now, Purpose::Forget))
    }

    /// Ends a subscription without waiting for the daemon's word.
    pub fn forget_subscription(&mut self, key: SubscriptionKey) {
        if self.subscriptions.remove(key.0).is_some() && self.state.takes_requests() {
            self.send_unsubscribe(0, Tag::Subscription.on(key.0));
        }
    }

    pub(super) fn send_unsubscribe(&mut self, correlation: u64, subscription: u64) {
        let header = Header::new(Kind::UNSUBSCRIBE).with_correlation(correlation);
        self.send_control(header, &Unsubscribe { subscription });
    }

    /// Watches the service names that pass `filter`. If the outcome is an error, the watch is gone.
    ///
    /// # Errors
    /// At once: `invalid_argument` for a text that is no filter.
    pub fn watch_names(&mut self, now: Instant, filter: &str) -> Result<(WatchKey, Ticket), Error> {
        self.check_stream()?;
        let request = WatchNames { filter: Filter::parse(filter)?.as_str().into() };
        let key = WatchKey(self.watches.next_key());
        let header = Header::new(Kind::WATCH_NAMES).with_correlation(Tag::Watch.on(key.0));
        self.send_control(header, &request);
        let ticket = self.open(now, Purpose::Watch(key));
        self.watches.insert(Watch::new(request, ticket));
        Ok((key, ticket))
    }

    /// The oldest change of a name that a watch has received.
    pub fn next_name_event(&mut self, key: WatchKey) -> Option<NameEvent> {
        self.watches.get_mut(key.0)?.pop()
    }

    /// Ends a watch without waiting for the daemon's word.
    pub fn forget_watch(&mut self, key: WatchKey) {
        if self.watches.remove(key.0).is_some() && self.state.takes_requests() {
            self.send_unwatch(Tag::Watch.on(key.0));
        }
    }

    pub(super) fn send_unwatch(&mut self, watch: u64) {
        self.send_control(Header::new(Kind::UNWATCH_NAMES), &UnwatchNames { watch });
    }

    /// Offers a service: [`Answer::Registered`](super::Answer::Registered). If the outcome is an error, the
    /// registration is gone.
    ///
    /// # Errors
    /// At once, for an offer that no daemon would take: `invalid_argument`, `quota_exceeded`.
    pub fn register(&mut self, now: Instant, offer: Offer) -> Result<(RegistrationKey, Ticket), Error> {
        self.check_stream()?;
        let request = offer.into_request()?;
        let key = RegistrationKey(self.registrations.entries.next_key());
        let header = Header::new(Kind::REGISTER).with_correlation(Tag::Registration.on(key.0));
        self.output.frame(header, &request, &Payload::default()).map_err(|error| {
            Error::new(ErrorCode::InvalidArgument, format!("the service does not fit into a frame: {error}"))
                .with_hint("give it fewer methods or shorter descriptions")
        })?;
        let ticket = self.open(now, Purpose::Register(key));
        self.registrations.entries.insert(Registration { request, id: None, ticket: Some(ticket) });
        Ok((key, ticket))
    }

    /// Takes a service back. Calls that are being served may still be answered if the daemon waits for them.
    ///
    /// # Errors
    /// The error that ended the session; the registration is gone in any case.
    pub fn unregister(&mut self, now: Instant, key: RegistrationKey) -> Result<Option<Ticket>, Error> {
        let id = self.registrations.remove(key).and_then(|registration| registration.id);
        self.check_open()?;
        let Some(id) = id else { return Ok(None) };
        let correlation = self.inflight.next_key().bits();
        self.send_unregister(correlation, id);
        Ok(Some(self.open(now, Purpose::Unregister)))
    }

    /// Takes a service back without waiting for the daemon's word.
    pub fn forget_registration(&mut self, key: RegistrationKey) {
        let id = self.registrations.remove(key).and_then(|registration| registration.id);
        if let Some(id) = id
            && self.state.takes_requests()
        {
            self.send_unregister(0, id);
        }
    }

    pub(super) fn send_unregister(&mut self, correlation: u64, id: u32) {
        let handle = Handle { index: id, generation: 0 };
        self.output.bare(Header::new(Kind::UNREGISTER).with_correlation(correlation).with_handle(handle));
    }

    /// Whether somebody still waits for the answer to a call that is being served.
    pub fn is_wanted(&self, key: InboundKey) -> bool {
        self.inbound.contains(key)
    }

    /// Answers a call that is being served, or just ends it if it wants no answer or is not wanted any more.
    /// A payload that is too large becomes the error `payload_too_large`.
    pub fn reply(&mut self, key: InboundKey, outcome: Result<Payload, Error>) {
        let Some(call) = self.inbound.complete(key) else { return };
        let outcome = outcome.and_then(|payload| self.check_size(&payload).map(|()| payload));
        let header = Header::new(Kind::REPLY).with_correlation(call);
        match outcome {
            Ok(payload) => self.output.plain(header, &payload),
            Err(error) => self.send_error_reply(header, &error),
        }
    }

    pub(super) fn send_error_reply(&mut self, header: Header, error: &Error) {
        self.send_control(Header { flags: Flags::ERROR, ..header }, &ErrorBody::from(error));
    }

    /// After a restart: everything that lives over restarts is asked for again.
    pub(super) fn ask_again(&mut self) {
        self.registrations.restart();
        for (key, registration) in self.registrations.entries.iter() {
            let header = Header::new(Kind::REGISTER).with_correlation(Tag::Registration.on(key));
            send_known(&mut self.output, header, &registration.request);
        }
        for (key, subscription) in self.subscriptions.iter_mut() {
            subscription.restart();
            let header = Header::new(Kind::SUBSCRIBE).with_correlation(Tag::Subscription.on(key));
            send_known(&mut self.output, header, &subscription.request);
        }
        for (key, watch) in self.watches.iter_mut() {
            if watch.restart() {
                self.events.push_back(Event::NamesChanged(WatchKey(key)));
            }
            if !watch.is_ended() {
                let header = Header::new(Kind::WATCH_NAMES).with_correlation(Tag::Watch.on(key));
                send_known(&mut self.output, header, &watch.request);
            }
        }
    }

    pub(super) fn open(&mut self, now: Instant, purpose: Purpose) -> Ticket {
        let expires = Some(now + self.config.operation_timeout);
        let sent_end = self.output.end();
        self.inflight.insert(Open { purpose, expires, sent_end })
    }

    /// The handle to put on the wire; binds it first, in the same write, if need be.
    pub(super) fn wire_handle(&mut self, now: Instant, key: HandleKey) -> Result<Handle, Error> {
        if let Some(wire) = self.handles.bound(key) {
            return Ok(wire);
        }
        let Some((wire, target)) = self.handles.bind(now, key) else {
            return Err(Error::new(ErrorCode::StaleHandle, "the handle had to make room for another")
                .with_hint("look the name up again"));
        };
        let correlation = self.inflight.next_key().bits();
        match target {
            Target::Method(service, method) => {
                let header = Header::new(Kind::RESOLVE).with_handle(wire).with_correlation(correlation);
                let resolve = Resolve { service: service.as_str().into(), method: method.as_str().into() };
                send_known(&mut self.output, header, &resolve);
            }
            Target::Topic(topic) => {
                let header = Header::new(Kind::OPEN_TOPIC).with_handle(wire).with_correlation(correlation);
                send_known(&mut self.output, header, &OpenTopic { topic: topic.as_str().into() });
            }
        }
        let purpose = Purpose::Bind { handle: key, wire };
        self.inflight.insert(Open { purpose, expires: None, sent_end: self.output.end() });
        Ok(wire)
    }

    pub(super) fn release(&mut self, release: Option<Release>) {
        if let (Some(Release(handle)), None) = (release, &self.mail) {
            self.output.bare(Header::new(Kind::RELEASE).with_handle(handle));
        }
    }

    pub(super) fn check_open(&self) -> Result<(), Error> {
        if self.state.takes_requests() {
            return Ok(());
        }
        let reason = self.ended.as_ref().map_or("it was never made", |error| error.message.as_str());
        Err(Error::new(ErrorCode::Unreachable, format!("there is no connection to the daemon: {reason}")))
    }

    fn check(&self, payload: &Payload, traceparent: Option<&str>) -> Result<(), Error> {
        self.check_open()?;
        self.check_size(payload)?;
        match traceparent {
            Some(text) if text.len() > TRACEPARENT_MAX_BYTES => {
                let message = format!("a traceparent has at most {TRACEPARENT_MAX_BYTES} bytes");
                Err(Error::new(ErrorCode::InvalidArgument, message))
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn check_size(&self, payload: &Payload) -> Result<(), Error> {
        let limit =
            self.daemon.as_ref().map_or(PAYLOAD_BEFORE_WELCOME_MAX_BYTES, |daemon| daemon.payload_max_bytes);
        if payload.len() <= limit as usize {
            return Ok(());
        }
        let message = format!("a payload of {} bytes is over the daemon's limit of {limit}", payload.len());
        let mut error = Error::new(ErrorCode::PayloadTooLarge, message)
            .with_hint("send it in parts, or raise payload_max_bytes in the daemon's configuration");
        let detail = error.detail_mut();
        detail.resource = Some("payload_max_bytes".to_owned());
        detail.limit = Some(u64::from(limit));
        Err(error)
    }
}

fn send_known<T: crate::wire::codec::Wire>(output: &mut Output, header: Header, envelope: &T) {
    let sent = output.frame(header, envelope, &Payload::default());
    debug_assert!(sent.is_ok(), "a control frame did not fit: {sent:?}");
}

fn check_deadline(now: Instant, deadline: Option<Instant>) -> Result<(), Error> {
    if deadline.is_some_and(|deadline| deadline <= now) {
        return Err(Error::new(ErrorCode::DeadlineExceeded, "the deadline passed before the call was sent"));
    }
    Ok(())
}
