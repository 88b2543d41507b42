//! Requests and their futures.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::task::coop;

use super::Handle;
use super::shared::{Shared, State};
use super::wakers::Wakes;
use crate::error::{Error, ErrorCode};
use crate::options::{CallOptions, PublishOptions};
use crate::payload::Payload;
use crate::service::inherited_deadline;
use crate::session::{self, Answer, HandleKey, Outcome, Published, Reply, Session, Ticket};
use crate::time::Instant;

/// One-way requests are written at once when this much waits.
const WRITE_AT_ONCE_BYTES: u64 = 32 * 1024;

/// A request whose outcome is waited for. Dropping it cancels the request.
#[derive(Debug)]
#[must_use = "a request that nobody waits for is cancelled"]
pub(super) struct Outstanding<'a> {
    shared: &'a Shared,
    /// `None` once the outcome has been taken.
    ticket: Option<Ticket>,
}

impl<'a> Outstanding<'a> {
    /// Makes a request; nothing is written before the first poll.
    pub(super) fn begin(
        shared: &'a Shared,
        request: impl FnOnce(&mut State, Instant) -> Result<Ticket, Error>,
    ) -> Result<Self, Error> {
        let mut state = shared.lock();
        let now = state.tick();
        let ticket = request(&mut state, now)?;
        state.waiting += 1;
        Ok(Self { shared, ticket: Some(ticket) })
    }
}

impl Future for Outstanding<'_> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Some(ticket) = self.ticket else {
            return Poll::Ready(Err(Error::new(ErrorCode::Conflict, "the outcome was given before")));
        };
        let turn = ready!(coop::poll_proceed(cx));
        let outcome = ready!(self.shared.with(|state, wakes| state.poll_request(ticket, cx, wakes)));
        turn.made_progress();
        self.ticket = None;
        Poll::Ready(outcome)
    }
}

impl Drop for Outstanding<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared.with(|state, wakes| state.abandon_request(ticket, wakes));
        }
    }
}

/// An answer that does not fit its question.
pub(super) fn misfit(answer: &Answer) -> Error {
    Error::new(
        ErrorCode::ProtocolViolation,
        format!("the daemon's answer does not fit the question: {answer:?}"),
    )
}

/// A request succeeded whose object is missing.
pub(super) fn not_made() -> Error {
    Error::new(ErrorCode::Conflict, "the request was answered before it was made")
}

/// The deadline of a call: its own or the client's, and never later than that of the call being served.
fn deadline(shared: &Shared, options: &CallOptions, now: Instant) -> Instant {
    let own = now + options.deadline.unwrap_or(shared.options.call_timeout);
    inherited_deadline().map_or(own, |inherited| own.min(inherited))
}

fn session_options(shared: &Shared, options: CallOptions, now: Instant) -> session::CallOptions {
    session::CallOptions {
        deadline: Some(deadline(shared, &options, now)),
        traceparent: options.traceparent.map(String::into_boxed_str),
        fence: options.fence,
    }
}

/// Calls the method that `find` finds.
pub(super) async fn call(
    shared: &Shared,
    find: impl FnOnce(&mut Session) -> Result<HandleKey, Error>,
    payload: Payload,
    options: CallOptions,
) -> Result<Reply, Error> {
    let request = Outstanding::begin(shared, |state, now| {
        let method = find(&mut state.session)?;
        state.session.call(now, method, payload, session_options(shared, options, now))
    })?;
    match request.await? {
        Answer::Reply(reply) => Ok(reply),
        other => Err(misfit(&other)),
    }
}

/// Calls the method that `find` finds and waits for nothing but room in the output.
pub(super) async fn call_oneway(
    shared: &Shared,
    find: impl FnOnce(&mut Session) -> Result<HandleKey, Error>,
    payload: Payload,
    options: CallOptions,
) -> Result<(), Error> {
    oneway(shared, |session, now| {
        let method = find(session)?;
        session.call_oneway(now, method, payload, session_options(shared, options, now))
    })
    .await
}

/// Publishes to the topic that `find` finds.
pub(super) async fn publish(
    shared: &Shared,
    find: impl FnOnce(&mut Session) -> Result<HandleKey, Error>,
    payload: Payload,
    options: PublishOptions,
) -> Result<Published, Error> {
    let request = Outstanding::begin(shared, |state, now| {
        let topic = find(&mut state.session)?;
        let traceparent = options.traceparent.map(String::into_boxed_str);
        state.session.publish(now, topic, payload, traceparent)
    })?;
    match request.await? {
        Answer::Published(published) => Ok(published),
        other => Err(misfit(&other)),
    }
}

/// Publishes to the topic that `find` finds and waits for nothing but room in the output.
pub(super) async fn publish_oneway(
    shared: &Shared,
    find: impl FnOnce(&mut Session) -> Result<HandleKey, Error>,
    payload: Payload,
) -> Result<(), Error> {
    oneway(shared, |session, now| {
        let topic = find(session)?;
        session.publish_oneway(now, topic, payload, None)
    })
    .await
}

/// Waits for room, then makes a request that has no outcome.
async fn oneway(
    shared: &Shared,
    request: impl FnOnce(&mut Session, Instant) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut request = Some(request);
    std::future::poll_fn(|cx| {
        let turn = ready!(coop::poll_proceed(cx));
        let made = ready!(shared.with(|state, wakes| poll_oneway(state, cx, wakes, &mut request)));
        turn.made_progress();
        Poll::Ready(made)
    })
    .await
}

fn poll_oneway<R: FnOnce(&mut Session, Instant) -> Result<(), Error>>(
    state: &mut State,
    cx: &mut Context<'_>,
    wakes: &mut Wakes,
    request: &mut Option<R>,
) -> Poll<Result<(), Error>> {
    ready!(state.poll_room(cx, wakes));
    let Some(request) = request.take() else {
        return Poll::Ready(Err(Error::new(ErrorCode::Conflict, "the request was made before")));
    };
    let now = state.tick();
    let made = request(&mut state.session, now);
    state.written_later(WRITE_AT_ONCE_BYTES, wakes);
    Poll::Ready(made)
}

/// A key of the session, kept where many tasks can use it. A key that has become unknown is looked up anew.
#[derive(Debug, Default)]
struct CachedKey(AtomicU64);

impl CachedKey {
    fn get(
        &self,
        session: &mut Session,
        find: impl FnOnce(&mut Session) -> Result<HandleKey, Error>,
    ) -> Result<HandleKey, Error> {
        // Nothing else is published through it, and the lock orders its users anyway.
        let cached = HandleKey::from_bits(self.0.load(Ordering::Relaxed));
        if session.knows(cached) {
            return Ok(cached);
        }
        let found = find(session)?;
        self.0.store(found.bits(), Ordering::Relaxed);
        Ok(found)
    }
}

/// A method of a service, to be called often: its name is looked up once.
///
/// Made by [`Client::method`](super::Client::method). Nothing is sent before the first call; a service that was replaced
/// in the meantime is found anew.
#[derive(Clone, Debug)]
pub struct Method {
    handle: Arc<Handle>,
    name: Arc<(String, String)>,
    key: Arc<CachedKey>,
}

impl Method {
    pub(super) fn new(handle: Arc<Handle>, service: &str, method: &str) -> Self {
        Self { handle, name: Arc::new((service.to_owned(), method.to_owned())), key: Arc::default() }
    }

    /// Calls the method; see [`Client::call`](super::Client::call).
    ///
    /// # Errors
    /// As [`Client::call`](super::Client::call).
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call; it may have run.
    pub async fn call(&self, payload: impl Into<Payload>) -> Result<Reply, Error> {
        self.call_with(payload, CallOptions::default()).await
    }

    /// Calls the method with a deadline or a trace context of its own.
    ///
    /// # Errors
    /// As [`Client::call`](super::Client::call).
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call; it may have run.
    pub async fn call_with(&self, payload: impl Into<Payload>, options: CallOptions) -> Result<Reply, Error> {
        call(self.handle.shared(), |session| self.find(session), payload.into(), options).await
    }

    /// Calls the method and wants no answer; see [`Client::call_oneway`](super::Client::call_oneway).
    ///
    /// # Errors
    /// As [`Client::call_oneway`](super::Client::call_oneway).
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing was sent.
    pub async fn call_oneway(&self, payload: impl Into<Payload>) -> Result<(), Error> {
        let options = CallOptions::default();
        call_oneway(self.handle.shared(), |session| self.find(session), payload.into(), options).await
    }

    fn find(&self, session: &mut Session) -> Result<HandleKey, Error> {
        let (service, method) = &*self.name;
        self.key.get(session, |session| session.method(service, method))
    }
}

/// A topic to be published to often: its name is looked up once.
///
/// Made by [`Client::topic`](super::Client::topic). Nothing is sent before the first event.
#[derive(Clone, Debug)]
pub struct Topic {
    handle: Arc<Handle>,
    name: Arc<str>,
    key: Arc<CachedKey>,
}

impl Topic {
    pub(super) fn new(handle: Arc<Handle>, topic: &str) -> Self {
        Self { handle, name: Arc::from(topic), key: Arc::default() }
    }

    /// Publishes an event and waits for its number; see [`Client::publish`](super::Client::publish).
    ///
    /// # Errors
    /// As [`Client::publish`](super::Client::publish).
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the event may have been published.
    pub async fn publish(&self, payload: impl Into<Payload>) -> Result<Published, Error> {
        let options = PublishOptions::default();
        publish(self.handle.shared(), |session| self.find(session), payload.into(), options).await
    }

    /// Publishes an event without waiting; see [`Client::publish_oneway`](super::Client::publish_oneway).
    ///
    /// # Errors
    /// As [`Client::publish_oneway`](super::Client::publish_oneway).
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing was sent.
    pub async fn publish_oneway(&self, payload: impl Into<Payload>) -> Result<(), Error> {
        publish_oneway(self.handle.shared(), |session| self.find(session), payload.into()).await
    }

    fn find(&self, session: &mut Session) -> Result<HandleKey, Error> {
        self.key.get(session, |session| session.topic(&self.name))
    }
}
