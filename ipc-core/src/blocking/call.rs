//! Calls: one at a time, or many at once.

use std::collections::VecDeque;
use std::time::Duration;

use super::{CallOptions, Client, Reply, inherited};
use crate::error::{Error, ErrorCode};
use crate::limits::DEADLINE_MAX;
use crate::name::{MethodName, ServiceName};
use crate::payload::Payload;
use crate::session::{self, Answer, HandleKey, Outcome, Ticket};
use crate::time::Instant;
use crate::transport::clock;

/// A method of a service that was looked up by a client, for calls in close succession.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    service: ServiceName,
    method: MethodName,
    handle: HandleKey,
    client: u64,
}

impl Method {
    /// Calls the method over `client`. See [`Client::call`].
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn call(&self, client: &mut Client, payload: impl Into<Payload>) -> Result<Reply, Error> {
        self.call_with(client, payload, CallOptions::default())
    }

    /// Calls the method over `client`. See [`Client::call_with`].
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn call_with(
        &self,
        client: &mut Client,
        payload: impl Into<Payload>,
        options: CallOptions,
    ) -> Result<Reply, Error> {
        client.services.refuse_own(self.service.as_str())?;
        let handle = self.handle_for(client)?;
        let ticket = client.begin(handle, payload.into(), options)?;
        into_reply(client.outcome(ticket))
    }

    /// Calls the method over `client`, wanting no answer. See [`Client::call_oneway`].
    ///
    /// # Errors
    /// As [`Client::call_oneway`].
    pub fn call_oneway(&self, client: &mut Client, payload: impl Into<Payload>) -> Result<(), Error> {
        let handle = self.handle_for(client)?;
        client.begin_oneway(handle, payload.into())
    }

    /// Starts a call over `client`. See [`Client::start_call`].
    ///
    /// # Errors
    /// As [`Client::start_call`].
    pub fn start_call(
        &self,
        client: &mut Client,
        payload: impl Into<Payload>,
        options: CallOptions,
    ) -> Result<PendingCall, Error> {
        let handle = self.handle_for(client)?;
        client.start(handle, payload.into(), options)
    }

    /// The handle, looked up again when it is another client's or had to make room.
    fn handle_for(&self, client: &mut Client) -> Result<HandleKey, Error> {
        if self.client == client.id && client.session.knows(self.handle) {
            return Ok(self.handle);
        }
        client.session.method(self.service.as_str(), self.method.as_str())
    }
}

/// A call that was started, by [`Client::start_call`]. It is a number; the client keeps the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a call that nobody waits for keeps its place until the client is closed; cancel it"]
pub struct PendingCall {
    ticket: Ticket,
    client: u64,
}

/// Calls that were started and not waited for.
#[derive(Debug, Default)]
pub(super) struct Started {
    /// By slot of the ticket.
    open: Vec<Option<Ticket>>,
    count: usize,
    /// Those that have their outcome, in order, and some that were waited for since.
    completed: VecDeque<Ticket>,
}

impl Started {
    fn insert(&mut self, ticket: Ticket) {
        if self.open.len() <= ticket.slot() {
            self.open.resize(ticket.slot() + 1, None);
        }
        self.open[ticket.slot()] = Some(ticket);
        self.count += 1;
    }

    fn contains(&self, ticket: Ticket) -> bool {
        self.open.get(ticket.slot()).copied().flatten() == Some(ticket)
    }

    fn remove(&mut self, ticket: Ticket) -> bool {
        let found = self.contains(ticket);
        if found {
            self.open[ticket.slot()] = None;
            self.count -= 1;
        }
        found
    }

    /// A request has its outcome, which need not be one of these.
    pub(super) fn completed(&mut self, ticket: Ticket) {
        if !self.contains(ticket) {
            return;
        }
        if self.completed.len() > 64 + 2 * self.count {
            let open = &self.open;
            self.completed.retain(|old| open.get(old.slot()).copied().flatten() == Some(*old));
        }
        self.completed.push_back(ticket);
    }

    fn next_completed(&mut self) -> Option<Ticket> {
        while let Some(ticket) = self.completed.pop_front() {
            if self.remove(ticket) {
                return Some(ticket);
            }
        }
        None
    }
}

impl Client {
    /// Calls a method and waits for the outcome, at most until the deadline: [`timeout`](Client::timeout), or what is left of
    /// the call that this thread is serving.
    ///
    /// # Errors
    /// - `no_such_service`, `no_such_method`: nobody offers it; the call did not run;
    /// - `application`: the service answered with an error, whose own code is in the detail;
    /// - `deadline_exceeded`, `service_gone`, `outcome_unknown`: it may have run;
    /// - `quota_exceeded`, `payload_too_large`, `invalid_argument`: it did not run;
    /// - `unreachable`: there is no connection; it did not run.
    pub fn call(&mut self, service: &str, method: &str, payload: impl Into<Payload>) -> Result<Reply, Error> {
        self.call_with(service, method, payload, CallOptions::default())
    }

    /// [`call`](Client::call) with a deadline of its own or a trace context.
    ///
    /// # Errors
    /// As [`call`](Client::call).
    pub fn call_with(
        &mut self,
        service: &str,
        method: &str,
        payload: impl Into<Payload>,
        options: CallOptions,
    ) -> Result<Reply, Error> {
        self.services.refuse_own(service)?;
        let handle = self.session.method(service, method)?;
        let ticket = self.begin(handle, payload.into(), options)?;
        into_reply(self.outcome(ticket))
    }

    /// Calls a method without wanting to know what became of it; returns once it is written. The service is found anew
    /// once a second; calls to one that was replaced since are lost.
    ///
    /// # Errors
    /// `payload_too_large`, `invalid_argument`, `unreachable`: it did not run.
    pub fn call_oneway(
        &mut self,
        service: &str,
        method: &str,
        payload: impl Into<Payload>,
    ) -> Result<(), Error> {
        let handle = self.session.method(service, method)?;
        self.begin_oneway(handle, payload.into())
    }

    /// Looks a method up, to be called again and again without its names. Nothing is sent before the first call.
    ///
    /// # Errors
    /// `invalid_argument` for texts that are no names.
    pub fn method(&mut self, service: &str, method: &str) -> Result<Method, Error> {
        let handle = self.session.method(service, method)?;
        let (service, method) = (ServiceName::parse(service)?, MethodName::parse(method)?);
        Ok(Method { service, method, handle, client: self.id })
    }

    /// Starts a call and does not wait: many calls started one after the other travel together. It is written with the next
    /// request or wait, when enough has come together, or by [`flush`](Client::flush).
    ///
    /// # Errors
    /// `quota_exceeded` when as many calls are open as the daemon allows: wait for one first. Else as
    /// [`call`](Client::call), for what is known before it is sent.
    pub fn start_call(
        &mut self,
        service: &str,
        method: &str,
        payload: impl Into<Payload>,
        options: CallOptions,
    ) -> Result<PendingCall, Error> {
        let handle = self.session.method(service, method)?;
        self.start(handle, payload.into(), options)
    }

    /// Waits for the outcome of a call that was started.
    ///
    /// # Errors
    /// As [`call`](Client::call); `invalid_argument` when it was waited for before, or is another client's.
    pub fn wait(&mut self, call: PendingCall) -> Result<Reply, Error> {
        self.check_mine(call)?;
        let outcome = self.outcome(call.ticket);
        self.started.remove(call.ticket);
        into_reply(outcome)
    }

    /// The outcome of a call that was started, if it is there or can be read without waiting; it is given once.
    ///
    /// # Errors
    /// Within the outcome, as [`wait`](Client::wait).
    pub fn try_wait(&mut self, call: PendingCall) -> Option<Result<Reply, Error>> {
        if let Err(error) = self.check_mine(call) {
            return Some(Err(error));
        }
        let mut outcome = self.session.take(call.ticket);
        if outcome.is_none() {
            // When the connection is lost the call has its outcome too.
            let stepped = self.step(Some(clock::now()));
            outcome = self.session.take(call.ticket).or_else(|| stepped.err().map(Err));
        }
        let outcome = outcome?;
        self.started.remove(call.ticket);
        Some(into_reply(outcome))
    }

    /// Waits for the next outcome among all calls that were started, in the order in which they come; `None` when none is
    /// open.
    ///
    /// # Errors
    /// Within the outcome, as [`call`](Client::call).
    pub fn wait_any(&mut self) -> Option<(PendingCall, Result<Reply, Error>)> {
        loop {
            if let Some(ticket) = self.started.next_completed()
                && let Some(outcome) = self.session.take(ticket)
            {
                return Some((PendingCall { ticket, client: self.id }, into_reply(outcome)));
            }
            if self.started.count == 0 {
                return None;
            }
            if let Err(error) = self.step(None) {
                self.abandon_if_stuck(&error);
            }
        }
    }

    /// How many calls were started and not waited for.
    pub fn started_calls(&self) -> usize {
        self.started.count
    }

    /// Cancels a call that was started: the service is told, and nobody learns the outcome.
    ///
    /// # Errors
    /// As [`flush`](Client::flush); `invalid_argument` when it was waited for before, or is another client's.
    pub fn cancel(&mut self, call: PendingCall) -> Result<(), Error> {
        self.check_mine(call)?;
        self.started.remove(call.ticket);
        self.session.abandon(call.ticket);
        self.flush()
    }

    /// Asks the daemon for a sign of life; says how long it took.
    ///
    /// # Errors
    /// `deadline_exceeded` when none came in time, `unreachable` when the connection is lost.
    pub fn ping(&mut self) -> Result<Duration, Error> {
        let start = clock::now();
        let ticket = self.session.ping(start)?;
        self.outcome(ticket)?;
        Ok(clock::now().since(start))
    }

    fn begin(&mut self, handle: HandleKey, payload: Payload, options: CallOptions) -> Result<Ticket, Error> {
        self.greet_before(&payload)?;
        if options.fence.is_some() {
            self.greet_if_needed()?;
        }
        let now = clock::now();
        let options = self.call_options(now, options);
        self.session.call(now, handle, payload, options)
    }

    fn begin_oneway(&mut self, handle: HandleKey, payload: Payload) -> Result<(), Error> {
        self.greet_before(&payload)?;
        let now = clock::now();
        let options = self.call_options(now, CallOptions::default());
        self.session.call_oneway(now, handle, payload, options)?;
        self.flush()
    }

    fn start(
        &mut self,
        handle: HandleKey,
        payload: Payload,
        options: CallOptions,
    ) -> Result<PendingCall, Error> {
        let ticket = self.begin(handle, payload, options)?;
        self.started.insert(ticket);
        // If writing fails the call has its outcome, or gets it when its time is up.
        let written = self.flush_if_much();
        debug_assert!(written.is_ok() || self.started.contains(ticket));
        Ok(PendingCall { ticket, client: self.id })
    }

    fn call_options(&self, now: Instant, options: CallOptions) -> session::CallOptions {
        let time = options.deadline.unwrap_or(self.options.call_timeout).min(DEADLINE_MAX);
        let own = now + time;
        let deadline = inherited::deadline().map_or(own, |inherited| inherited.min(own));
        session::CallOptions {
            deadline: Some(deadline),
            traceparent: options.traceparent.map(String::into_boxed_str),
            fence: options.fence,
        }
    }

    fn check_mine(&self, call: PendingCall) -> Result<(), Error> {
        if call.client == self.id && self.started.contains(call.ticket) {
            return Ok(());
        }
        Err(Error::new(ErrorCode::InvalidArgument, "the call was waited for before, or is another client's"))
    }

    /// Something is wrong with the socket itself: every open call ends, so that whoever waits for all of them comes to an end.
    fn abandon_if_stuck(&mut self, error: &Error) {
        self.session.handle_eof(Some(&error.message));
        self.sort_out();
    }
}

fn into_reply(outcome: Outcome) -> Result<Reply, Error> {
    match outcome? {
        Answer::Reply(reply) => Ok(reply),
        answer => Err(unexpected(&answer)),
    }
}

/// The session gives each request the kind of answer it asked for.
pub(super) fn unexpected(answer: &Answer) -> Error {
    Error::new(ErrorCode::ProtocolViolation, format!("an answer of another kind came: {answer:?}"))
}
