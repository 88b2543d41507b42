//! What the daemon says: one function for each kind of frame.

use crate::error::{Error, ErrorCode};
use crate::id::Handle;
use crate::identity::Peer;
use crate::name::{ServiceName, TopicName};
use crate::payload::Payload;
use crate::time::Instant;
use crate::wire::message::{
    Close, ErrorBody, Forget, ForgetWhat, Gap, NameChange, NameChanged, PeerInfo, Published, Registered,
    Subscribed, TopicInfo, Welcome,
};
use crate::wire::{Flags, Frame, Header, Kind, WireError};

use core::time::Duration;

use super::addressed::send_addressed;
use super::event::{
    self, Answer, Event, Incoming, Missed, NameEvent, Received, RegistrationKey, Reply, SubscriptionKey,
    WatchKey,
};
use super::handles::HandleKey;
use super::inflight::Purpose;
use super::slab::Key;
use super::state::{State, Trigger};
use super::tag::Tag;
use super::{Session, foreign, handshake};

impl Session {
    /// Handles one frame. An error is a violation by the daemon.
    pub(super) fn handle_frame(&mut self, now: Instant, frame: Frame<'_>) -> Result<(), WireError> {
        let kind = frame.header.kind;
        if self.state == State::Greeting {
            return match kind {
                Kind::WELCOME => self.on_welcome(&frame),
                Kind::CLOSE => self.on_close(&frame),
                _ => Err(WireError::UnexpectedKind(kind.0)),
            };
        }
        match kind {
            Kind::REPLY => self.on_reply(now, frame),
            Kind::EVENT => self.on_event(frame),
            Kind::CALL => self.on_call(now, frame),
            Kind::DONE => self.on_done(now, &frame),
            Kind::CANCEL => {
                self.on_cancel(frame.header.correlation);
                Ok(())
            }
            Kind::PONG => self.on_pong(frame.header.correlation),
            Kind::GAP => self.on_gap(&frame),
            Kind::NAME_CHANGED => self.on_name_changed(&frame),
            Kind::ACQUIRED => self.on_acquired(frame.header.handle.index),
            Kind::PEER_ANNOUNCED => {
                self.announced.insert_peer(frame.header.sender, Peer::from(frame.decode::<PeerInfo>()?))
            }
            Kind::TOPIC_ANNOUNCED => {
                let topic = TopicName::parse(&frame.decode::<TopicInfo>()?.name.0)
                    .map_err(|_| WireError::Envelope("it announces what is no topic"))?;
                self.announced.insert_topic(frame.header.handle, topic)
            }
            Kind::FORGET => {
                match frame.decode::<Forget>()?.what {
                    ForgetWhat::Peer => self.announced.forget_peer(frame.header.sender),
                    ForgetWhat::Topic => self.announced.forget_topic(frame.header.handle.index),
                }
                Ok(())
            }
            Kind::OUTCOME => self.on_outcome(now, frame),
            Kind::WAITING => self.on_waiting(&frame),
            Kind::NOTICE => self.on_notice(frame),
            Kind::REVOKED => self.on_revoked(&frame),
            Kind::CLOSE => self.on_close(&frame),
            _ => Err(WireError::UnexpectedKind(kind.0)),
        }
    }

    fn on_welcome(&mut self, frame: &Frame<'_>) -> Result<(), WireError> {
        let daemon = match handshake::accept(frame.decode::<Welcome>()?) {
            Ok(daemon) => daemon,
            Err(error) => {
                self.end(error);
                return Ok(());
            }
        };
        if let Some(state) = self.state.next(Trigger::Welcome) {
            self.state = state;
        }
        self.handles.set_max(daemon.handles_max);
        let epoch_changed = self.epoch_before.map(|before| before != daemon.epoch);
        self.daemon = Some(daemon);
        self.events.push_back(Event::Connected { epoch_changed });
        Ok(())
    }

    fn on_close(&mut self, frame: &Frame<'_>) -> Result<(), WireError> {
        let close = frame.decode::<Close>()?;
        let code = ErrorCode::from_number(close.code).unwrap_or(ErrorCode::Unreachable);
        self.end(Error::new(code, format!("the daemon closed the connection: {}", close.message.0)));
        Ok(())
    }

    fn on_reply(&mut self, now: Instant, frame: Frame<'_>) -> Result<(), WireError> {
        let header = frame.header;
        let key = Key::from_bits(header.correlation);
        let Some(open) = self.inflight.get_mut(key) else {
            // It came after its caller had stopped waiting.
            return Ok(());
        };
        if !matches!(open.purpose, Purpose::Call(_)) {
            return Err(WireError::UnexpectedKind(header.kind.0));
        }
        if header.flags.contains(Flags::ERROR) {
            // Only the daemon's word counts for whether the call has run; a service may send any code, and any bytes.
            if header.sender == 0 {
                let error = Error::from(frame.decode::<ErrorBody>()?);
                self.fail_addressed(now, key, error);
            } else {
                self.inflight.complete(key, Err(foreign::error(&frame)));
            }
            return Ok(());
        }
        let responder = self.announced.peer(header.sender)?.clone();
        let payload = Payload { kind: header.payload_kind, body: frame.body.into_bytes() };
        self.inflight.complete(key, Ok(Answer::Reply(Reply { payload, responder })));
        Ok(())
    }

    /// A call or publish was refused. A stale handle is bound anew, once: the request certainly did not run.
    fn fail_addressed(&mut self, now: Instant, key: Key, error: Error) {
        if error.code != ErrorCode::StaleHandle || !self.send_again(now, key) {
            self.inflight.complete(key, Err(error));
        }
    }

    fn send_again(&mut self, now: Instant, key: Key) -> bool {
        let Some(open) = self.inflight.get_mut(key) else { return false };
        let (Purpose::Call(sent) | Purpose::Publish(sent)) = &open.purpose else { return false };
        if sent.retried || sent.deadline.is_some_and(|deadline| deadline <= now) {
            return false;
        }
        let (handle, wire) = (sent.handle, sent.wire);
        let release = self.handles.went_stale(handle, wire);
        self.release(release);
        let Ok(wire) = self.wire_handle(now, handle) else { return false };
        let Some(open) = self.inflight.get_mut(key) else { return false };
        let (kind, sent) = match &mut open.purpose {
            Purpose::Call(sent) => (Kind::CALL, sent),
            Purpose::Publish(sent) => (Kind::PUBLISH, sent),
            _ => return false,
        };
        sent.wire = wire;
        sent.retried = true;
        send_addressed(&mut self.output, now, Header::new(kind).with_correlation(key.bits()), sent);
        open.sent_end = self.output.end();
        true
    }

    fn on_pong(&mut self, correlation: u64) -> Result<(), WireError> {
        let key = Key::from_bits(correlation);
        match self.inflight.get_mut(key).map(|open| &open.purpose) {
            Some(Purpose::Ping) => {
                self.inflight.complete(key, Ok(Answer::Done));
                Ok(())
            }
            Some(_) => Err(WireError::UnexpectedKind(Kind::PONG.0)),
            None => Ok(()),
        }
    }

    fn on_done(&mut self, now: Instant, frame: &Frame<'_>) -> Result<(), WireError> {
        let result = if frame.header.flags.contains(Flags::ERROR) {
            Err(Error::from(frame.decode::<ErrorBody>()?))
        } else {
            Ok(())
        };
        let (tag, key) = Tag::split(frame.header.correlation);
        match tag {
            Tag::Request => self.on_request_done(now, key, result, frame),
            Tag::Subscription => self.on_subscribed(SubscriptionKey(key), result, frame),
            Tag::Watch => {
                self.on_watching(WatchKey(key), result);
                Ok(())
            }
            Tag::Registration => self.on_registered(RegistrationKey(key), result, frame),
        }
    }

    fn on_request_done(
        &mut self,
        now: Instant,
        key: Key,
        result: Result<(), Error>,
        frame: &Frame<'_>,
    ) -> Result<(), WireError> {
        let Some(open) = self.inflight.get_mut(key) else { return Ok(()) };
        let answer = match &open.purpose {
            Purpose::Bind { handle, wire } => {
                let (handle, wire) = (*handle, *wire);
                self.inflight.remove(key);
                if let Err(error) = result {
                    self.on_bind_failed(handle, wire, &error);
                }
                return Ok(());
            }
            Purpose::Publish(_) => match result {
                Ok(()) => {
                    let Published { sequence, subscribers } = frame.decode()?;
                    Ok(Answer::Published(event::Published { sequence, subscribers }))
                }
                Err(error) => {
                    self.fail_addressed(now, key, error);
                    return Ok(());
                }
            },
            // The daemon may refuse any request in this way.
            Purpose::Call(_) | Purpose::Ping => match result {
                Ok(()) => return Err(WireError::UnexpectedKind(Kind::DONE.0)),
                Err(error) => {
                    self.fail_addressed(now, key, error);
                    return Ok(());
                }
            },
            Purpose::Unregister | Purpose::Forget => result.map(|()| Answer::Done),
            // A daemon that does not know coordination refuses it like any kind that it does not know.
            Purpose::Acquire(_)
            | Purpose::Renew { .. }
            | Purpose::Identify { .. }
            | Purpose::Coordinate(_)
            | Purpose::Observe(_)
            | Purpose::WatchKeys { .. }
            | Purpose::Consume { .. } => {
                let Err(error) = result else { return Err(WireError::UnexpectedKind(Kind::DONE.0)) };
                self.fail_coordination(key, error);
                return Ok(());
            }
            // Their answers carry keys of their own.
            Purpose::Register(_) | Purpose::Subscribe(_) | Purpose::Watch(_) | Purpose::Mail(_) => {
                return Err(WireError::UnexpectedKind(Kind::DONE.0));
            }
        };
        self.inflight.complete(key, answer);
        Ok(())
    }

    /// A name could not be resolved: what was sent behind it in good hope ends with the same error.
    fn on_bind_failed(&mut self, handle: HandleKey, wire: Handle, error: &Error) {
        let release = self.handles.went_stale(handle, wire);
        self.release(release);
        for key in self.inflight.addressed_with(handle, wire) {
            self.inflight.complete(key, Err(error.clone()));
        }
    }

    fn on_subscribed(
        &mut self,
        key: SubscriptionKey,
        result: Result<(), Error>,
        frame: &Frame<'_>,
    ) -> Result<(), WireError> {
        let epoch_changed = self.epoch_changed();
        let Some(subscription) = self.subscriptions.get_mut(key.0) else {
            // Taken back while it was being made, and the daemon has been told.
            return Ok(());
        };
        let ticket = subscription.ticket.take();
        match result {
            Ok(()) => {
                let Subscribed { sequence } = frame.decode()?;
                if subscription.subscribed(sequence, epoch_changed) {
                    self.events.push_back(Event::Delivered(key));
                }
                if let Some(ticket) = ticket {
                    self.inflight.complete(ticket.0, Ok(Answer::Done));
                }
            }
            Err(error) => match ticket {
                Some(ticket) => {
                    self.subscriptions.remove(key.0);
                    self.inflight.complete(ticket.0, Err(error));
                }
                None => {
                    if subscription.failed(error) {
                        self.events.push_back(Event::Delivered(key));
                    }
                }
            },
        }
        Ok(())
    }

    fn on_watching(&mut self, key: WatchKey, result: Result<(), Error>) {
        let Some(watch) = self.watches.get_mut(key.0) else { return };
        match (watch.ticket.take(), result) {
            (Some(ticket), Ok(())) => {
                self.inflight.complete(ticket.0, Ok(Answer::Done));
            }
            (Some(ticket), Err(error)) => {
                self.watches.remove(key.0);
                self.inflight.complete(ticket.0, Err(error));
            }
            (None, Ok(())) => {}
            (None, Err(_)) => self.name_event(key, NameEvent::Overflowed),
        }
    }

    fn on_registered(
        &mut self,
        key: RegistrationKey,
        result: Result<(), Error>,
        frame: &Frame<'_>,
    ) -> Result<(), WireError> {
        let registered = match result {
            Ok(()) => Ok(frame.decode::<Registered>()?),
            Err(error) => Err(error),
        };
        let Some(registration) = self.registrations.entries.get_mut(key.0) else {
            // Taken back before the daemon had given it a number to take it back by.
            if let Ok(Registered { registration, .. }) = registered {
                self.send_unregister(0, registration);
            }
            return Ok(());
        };
        let ticket = registration.ticket.take();
        match (registered, ticket) {
            (Ok(Registered { registration: id, queued }), ticket) => {
                self.registrations.registered(key, id);
                if let Some(ticket) = ticket {
                    self.inflight.complete(ticket.0, Ok(Answer::Registered { queued }));
                } else if !queued {
                    self.events.push_back(Event::Acquired(key));
                }
            }
            (Err(error), Some(ticket)) => {
                self.registrations.remove(key);
                self.inflight.complete(ticket.0, Err(error));
            }
            (Err(error), None) => {
                self.registrations.remove(key);
                self.events.push_back(Event::RegistrationLost(key, error));
            }
        }
        Ok(())
    }

    fn on_acquired(&mut self, id: u32) -> Result<(), WireError> {
        // A registration that has just been taken back may still acquire its name.
        if let Some((key, _)) = self.registrations.by_id(id) {
            self.events.push_back(Event::Acquired(key));
        }
        Ok(())
    }

    fn on_call(&mut self, now: Instant, frame: Frame<'_>) -> Result<(), WireError> {
        let header = frame.header;
        let oneway = header.flags.contains(Flags::ONEWAY);
        let reply_to = Header::new(Kind::REPLY).with_correlation(header.correlation);
        let Some((registration, entry)) = self.registrations.by_id(header.handle.index) else {
            // The service was taken back while the call was on its way.
            if !oneway {
                let error = Error::new(ErrorCode::NoSuchService, "the service was just taken back");
                self.send_error_reply(reply_to, &error);
            }
            return Ok(());
        };
        let method = usize::from(header.handle.generation);
        if method >= entry.request.methods.0.len() {
            return Err(WireError::Envelope("it is for a method that was not registered"));
        }
        let sender = self.announced.peer(header.sender)?.clone();
        let traceparent = foreign::traceparent(&frame);
        let call = (!oneway).then_some(header.correlation);
        let key = match self.inbound.insert(call, frame.body.as_slice().len()) {
            Ok(key) => key,
            Err(error) => {
                if !oneway {
                    self.send_error_reply(reply_to, &error);
                }
                return Ok(());
            }
        };
        let remaining = Duration::from_micros(u64::from(header.deadline_us));
        self.calls.push_back(Incoming {
            key,
            registration,
            method,
            sender,
            payload: Payload { kind: header.payload_kind, body: frame.body.into_bytes() },
            deadline: (header.deadline_us > 0).then(|| now + remaining),
            traceparent,
            oneway,
        });
        Ok(())
    }

    fn on_cancel(&mut self, call: u64) {
        // A call that was answered in the meantime is not there any more.
        let Some(key) = self.inbound.cancel(call) else { return };
        match self.calls.iter().position(|incoming| incoming.key == key) {
            Some(at) => {
                self.calls.remove(at);
            }
            None => self.events.push_back(Event::CallCancelled(key)),
        }
    }

    fn on_event(&mut self, frame: Frame<'_>) -> Result<(), WireError> {
        let header = frame.header;
        let (tag, key) = Tag::split(header.correlation);
        if tag != Tag::Subscription {
            return Err(WireError::UnexpectedKind(header.kind.0));
        }
        let Some(subscription) = self.subscriptions.get_mut(key) else {
            // It was on its way when the subscription ended.
            return Ok(());
        };
        let received = Received {
            topic: self.announced.topic(header.handle)?.clone(),
            sequence: header.sequence,
            sender: self.announced.peer(header.sender)?.clone(),
            traceparent: foreign::traceparent(&frame),
            payload: Payload { kind: header.payload_kind, body: frame.body.into_bytes() },
        };
        if subscription.event(received) {
            self.events.push_back(Event::Delivered(SubscriptionKey(key)));
        }
        Ok(())
    }

    fn on_gap(&mut self, frame: &Frame<'_>) -> Result<(), WireError> {
        let (tag, key) = Tag::split(frame.header.correlation);
        if tag != Tag::Subscription {
            return Err(WireError::UnexpectedKind(frame.header.kind.0));
        }
        let Gap { from, to, count } = frame.decode()?;
        let Some(subscription) = self.subscriptions.get_mut(key) else { return Ok(()) };
        let handle = frame.header.handle;
        let topic = if handle == Handle::MERGED { None } else { Some(self.announced.topic(handle)?.clone()) };
        if subscription.gap(Missed { topic, from, to, count }) {
            self.events.push_back(Event::Delivered(SubscriptionKey(key)));
        }
        Ok(())
    }

    fn on_name_changed(&mut self, frame: &Frame<'_>) -> Result<(), WireError> {
        let (tag, key) = Tag::split(frame.header.correlation);
        if tag != Tag::Watch {
            return Err(WireError::UnexpectedKind(frame.header.kind.0));
        }
        let NameChanged { service, change } = frame.decode()?;
        let event = if change == NameChange::WatchLost {
            NameEvent::Overflowed
        } else {
            let service = ServiceName::parse(&service.0)
                .map_err(|_| WireError::Envelope("it names what is no service"))?;
            NameEvent::Changed { service, change, peer: self.announced.peer(frame.header.sender)?.clone() }
        };
        self.name_event(WatchKey(key), event);
        Ok(())
    }

    fn name_event(&mut self, key: WatchKey, event: NameEvent) {
        let Some(watch) = self.watches.get_mut(key.0) else { return };
        let was_ended = watch.is_ended();
        let by_daemon = event == NameEvent::Overflowed;
        if watch.push(event) {
            self.events.push_back(Event::NamesChanged(key));
        }
        // It overflowed here, which the daemon cannot know.
        if !was_ended && !by_daemon && self.watches.get_mut(key.0).is_some_and(|watch| watch.is_ended()) {
            self.send_unwatch(Tag::Watch.on(key.0));
        }
    }

    fn epoch_changed(&self) -> bool {
        let epoch = self.daemon.as_ref().map(|daemon| daemon.epoch);
        self.epoch_before.is_some() && self.epoch_before != epoch
    }
}
