//! The same requests over datagrams instead of a stream: a [`Courier`] carries them, the session keeps their outcomes.
//!
//! One piece of [`transmit`](Session::transmit) is one datagram, and what is handed to
//! [`handle_input`](Session::handle_input) is one.

use core::time::Duration;
use std::collections::BTreeMap;

use super::courier::{self, Courier, RequestId, RequestOptions};
use super::event::{Event, Ticket};
use super::handles::{HandleKey, Target};
use super::inflight::{Open, Purpose};
use super::requests::CallOptions;
use super::state::{State, Trigger};
use super::{Config, Session};
use crate::error::{Error, ErrorCode};
use crate::limits::DEADLINE_MAX;
use crate::name::ResourceName;
use crate::payload::Payload;
use crate::time::Instant;

/// Handles are no more than names here, and cost the daemon nothing.
const HANDLES_MAX: u32 = 65_536;

/// What carries the requests of a session without a stream.
#[derive(Debug)]
pub(super) struct Mail {
    courier: Courier,
    tickets: BTreeMap<RequestId, Ticket>,
    /// The datagram that is to be sent next.
    staged: Option<Vec<u8>>,
    /// The last time that was told.
    now: Instant,
}

impl Mail {
    /// The datagram that is to be sent next.
    pub(super) fn staged(&self) -> Option<&[u8]> {
        self.staged.as_deref()
    }

    pub(super) fn pending_bytes(&self) -> u64 {
        self.staged.as_ref().map_or(0, |datagram| datagram.len() as u64)
    }

    /// The staged datagram was sent, or is given up.
    pub(super) fn posted(&mut self) {
        if self.staged.take().is_some() {
            self.courier.transmitted(self.now);
        }
        self.stage();
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.courier.poll_timeout()
    }

    /// Lets go of everything that is open, and says so to the daemon.
    pub(super) fn close(&mut self) {
        self.courier.close();
        self.stage();
    }

    fn stage(&mut self) {
        if self.staged.is_none() {
            self.staged = self.courier.transmit(self.now).map(<[u8]>::to_vec);
        }
    }
}

/// A session over datagrams.
impl Session {
    /// A session at the beginning of a conversation over datagrams. What they cannot do, subscribe, watch and serve, is
    /// refused with `unsupported`.
    pub fn over_datagrams(config: Config, carrier: courier::Config, now: Instant) -> Self {
        let mut session = Self::new(config, now);
        session.handles.set_max(HANDLES_MAX);
        let courier = Courier::new(carrier);
        session.mail = Some(Mail { courier, tickets: BTreeMap::new(), staged: None, now });
        session.greet_by_mail(now);
        session
    }

    /// Whether it is one over datagrams.
    pub fn is_over_datagrams(&self) -> bool {
        self.mail.is_some()
    }

    /// Whether something that wants no answer waits for the daemon's first one.
    pub fn is_holding(&self) -> bool {
        let is_held = |mail: &Mail| mail.staged.is_none() && mail.courier.is_holding();
        self.state.takes_requests() && self.mail.as_ref().is_some_and(is_held)
    }

    /// Over datagrams: the system says that nobody has the daemon's address any more. A daemon of this machine has ended
    /// then; one in the network may come back.
    fn handle_refused(&mut self, reason: &str) {
        let is_local = self.mail.as_ref().is_none_or(|mail| mail.courier.is_local());
        if is_local || self.state == State::Greeting {
            return self.handle_eof(Some(reason));
        }
        if let Some(mail) = &mut self.mail {
            mail.courier.handle_refused(reason);
            mail.staged = None;
        }
        self.settle_mail();
    }

    /// Sending or receiving a datagram has failed: nobody receives any more, for the reason given, or else one datagram is
    /// lost.
    pub fn handle_failure(&mut self, refusal: Option<&str>) {
        match (refusal, &mut self.mail) {
            (Some(reason), _) => self.handle_refused(reason),
            (None, Some(mail)) => mail.posted(),
            (None, None) => {}
        }
    }

    /// What a courier has seen of the transport, for a session over datagrams.
    pub fn mail_tally(&self) -> Option<courier::Tally> {
        self.mail.as_ref().map(|mail| mail.courier.tally())
    }

    fn greet_by_mail(&mut self, now: Instant) {
        let end = now + self.config.hello_timeout;
        if let Some(mail) = &mut self.mail {
            mail.now = now;
            mail.courier.ping(now, end);
            mail.stage();
        }
    }

    pub(super) fn restart_mail(&mut self, now: Instant) {
        if let Some(mail) = &mut self.mail {
            mail.courier.restart();
            mail.staged = None;
        }
        self.greet_by_mail(now);
        self.settle_mail();
    }

    /// Takes in one datagram.
    pub(super) fn receive_mail(&mut self, now: Instant, datagram: &[u8]) {
        let Some(mail) = &mut self.mail else { return };
        mail.now = now;
        if !self.state.takes_requests() {
            return;
        }
        mail.courier.handle_datagram(now, datagram);
        if let (State::Greeting, Some(daemon)) = (self.state, mail.courier.daemon()) {
            self.state = self.state.next(Trigger::Welcome).unwrap_or(self.state);
            let epoch_changed = self.epoch_before.map(|before| before != daemon.epoch);
            self.daemon = Some(daemon);
            self.events.push_back(Event::Connected { epoch_changed });
        } else if let Some(daemon) = mail.courier.daemon() {
            self.daemon = Some(daemon);
        }
        self.settle_mail();
    }

    pub(super) fn tick_mail(&mut self, now: Instant) {
        if let Some(mail) = &mut self.mail {
            mail.now = now;
            mail.courier.handle_timeout(now);
            self.settle_mail();
        }
    }

    /// The socket is gone: everything that is open ends.
    pub(super) fn lose_mail(&mut self, what: &str) {
        if let Some(mail) = &mut self.mail {
            mail.staged = None;
            mail.courier.handle_refused(what);
            mail.courier.restart();
            self.settle_mail();
        }
    }

    /// Hands outcomes on, and has the next datagram ready.
    fn settle_mail(&mut self) {
        let Some(mail) = &mut self.mail else { return };
        while let Some(id) = mail.courier.poll_completed() {
            let outcome = mail.courier.take(id);
            if let (Some(ticket), Some(outcome)) = (mail.tickets.remove(&id), outcome) {
                self.inflight.complete(ticket.0, outcome);
            }
        }
        if self.state.takes_requests() {
            mail.stage();
        }
    }

    pub(super) fn mail_call(
        &mut self,
        now: Instant,
        method: HandleKey,
        payload: &Payload,
        options: CallOptions,
    ) -> Result<Ticket, Error> {
        let Some(Target::Method(service, method)) = self.mail_target(method)? else { return Err(misfit()) };
        refuse_fence(options.fence.as_ref())?;
        let deadline = options.deadline.unwrap_or(now + DEADLINE_MAX);
        self.post(now, |courier| {
            courier.call(now, &service, &method, payload, request(deadline, options.traceparent))
        })
    }

    pub(super) fn mail_call_oneway(
        &mut self,
        now: Instant,
        method: HandleKey,
        payload: &Payload,
        options: CallOptions,
    ) -> Result<(), Error> {
        let Some(Target::Method(service, method)) = self.mail_target(method)? else { return Err(misfit()) };
        refuse_fence(options.fence.as_ref())?;
        let deadline = options.deadline.unwrap_or(now + DEADLINE_MAX);
        self.post_oneway(|courier| {
            let options = request(deadline, options.traceparent);
            courier.call_oneway(now, &service, &method, payload, options)
        })
    }

    pub(super) fn mail_publish(
        &mut self,
        now: Instant,
        topic: HandleKey,
        payload: &Payload,
        traceparent: Option<Box<str>>,
    ) -> Result<Ticket, Error> {
        let Some(Target::Topic(topic)) = self.mail_target(topic)? else { return Err(misfit()) };
        let deadline = now + self.config.operation_timeout.clamp(Duration::from_micros(1), DEADLINE_MAX);
        self.post(now, |courier| courier.publish(now, &topic, payload, request(deadline, traceparent)))
    }

    pub(super) fn mail_publish_oneway(
        &mut self,
        topic: HandleKey,
        payload: &Payload,
        traceparent: Option<Box<str>>,
    ) -> Result<(), Error> {
        let Some(Target::Topic(topic)) = self.mail_target(topic)? else { return Err(misfit()) };
        let traceparent = traceparent.map(String::from);
        self.post_oneway(|courier| courier.publish_oneway(&topic, payload, traceparent))
    }

    pub(super) fn mail_ping(&mut self, now: Instant) -> Result<Ticket, Error> {
        self.check_open()?;
        let deadline = now + self.config.operation_timeout;
        self.post(now, |courier| Ok(courier.ping(now, deadline)))
    }

    pub(super) fn cancel_mail(&mut self, ticket: Ticket) {
        let purpose = self.inflight.get_mut(ticket.0).map(|open| &open.purpose);
        if let (Some(Purpose::Mail(id)), Some(mail)) = (purpose, &mut self.mail) {
            mail.courier.cancel(*id);
            mail.stage();
        }
    }

    pub(super) fn abandon_mail(&mut self, ticket: Ticket) {
        let purpose = self.inflight.get_mut(ticket.0).map(|open| &open.purpose);
        if let (Some(Purpose::Mail(id)), Some(mail)) = (purpose, &mut self.mail) {
            let id = *id;
            mail.courier.abandon(id);
            mail.tickets.remove(&id);
            self.inflight.remove(ticket.0);
            mail.stage();
        }
    }

    /// Over datagrams there are calls and events on their way out, and nothing that stays.
    pub(super) fn check_stream(&self) -> Result<(), Error> {
        if self.mail.is_some() {
            let message =
                "subscribing, watching, serving and coordination take a connection, which datagrams are not";
            return Err(takes_a_stream(message));
        }
        self.check_open()
    }

    fn mail_target(&self, handle: HandleKey) -> Result<Option<Target>, Error> {
        self.check_open()?;
        Ok(self.handles.target(handle).cloned())
    }

    fn post(
        &mut self,
        now: Instant,
        request: impl FnOnce(&mut Courier) -> Result<RequestId, Error>,
    ) -> Result<Ticket, Error> {
        let Some(mail) = &mut self.mail else { return Err(misfit()) };
        mail.now = now;
        let id = request(&mut mail.courier)?;
        // The courier knows when it ends, and what was sent of it.
        let open = Open { purpose: Purpose::Mail(id), expires: None, sent_end: 0 };
        let ticket = self.inflight.insert(open);
        mail.tickets.insert(id, ticket);
        mail.stage();
        Ok(ticket)
    }

    fn post_oneway(&mut self, request: impl FnOnce(&mut Courier) -> Result<(), Error>) -> Result<(), Error> {
        let Some(mail) = &mut self.mail else { return Err(misfit()) };
        request(&mut mail.courier)?;
        mail.stage();
        Ok(())
    }
}

fn request(deadline: Instant, traceparent: Option<Box<str>>) -> RequestOptions {
    RequestOptions { deadline, traceparent: traceparent.map(String::from) }
}

/// A fence goes before its call, and a datagram may come alone.
fn refuse_fence(fence: Option<&(ResourceName, u64)>) -> Result<(), Error> {
    match fence {
        None => Ok(()),
        Some(_) => Err(takes_a_stream(
            "a call under the token of a lock takes a connection, which datagrams are not",
        )),
    }
}

fn takes_a_stream(message: &str) -> Error {
    Error::new(ErrorCode::Unsupported, message)
        .with_hint("connect to the daemon's stream socket, unix:DIR/bus.sock")
}

fn misfit() -> Error {
    Error::new(ErrorCode::StaleHandle, "the handle does not stand for that any more")
        .with_hint("look the name up again")
}
