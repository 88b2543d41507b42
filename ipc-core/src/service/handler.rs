//! What a method is given and what it answers.

use core::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::inherit::poll_inheriting;
use crate::error::{Error, ServiceError};
use crate::identity::Peer;
use crate::name::MethodName;
use crate::payload::Payload;
use crate::session::InboundKey;
use crate::time::Instant;
use crate::transport::clock;

/// A call to be answered.
#[derive(Debug)]
pub struct Request {
    /// What was sent.
    pub payload: Payload,
    /// Who calls, verified by the daemon.
    pub sender: Peer,
    /// The method that is called.
    pub method: MethodName,
    /// W3C Trace Context, if the caller gave one.
    pub traceparent: Option<Box<str>>,
    /// Whether the caller wants no answer.
    pub oneway: bool,
    pub(super) deadline: Option<Instant>,
    pub(super) cancellation: Cancellation,
}

impl Request {
    /// How long the caller still waits, zero if it does not any more; `None` if it waits without limit.
    ///
    /// Calls made by the handler end by then on their own account.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.since(clock::now()))
    }

    /// Waits until nobody waits for the answer any more.
    ///
    /// The handler's future is dropped then, so this is of use in what it has started elsewhere: see
    /// [`cancellation`](Request::cancellation).
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn cancelled(&self) {
        self.cancellation.cancelled().await;
    }

    /// Tells tasks and threads that the handler starts whether the answer is still wanted.
    pub fn cancellation(&self) -> Cancellation {
        self.cancellation.clone()
    }
}

/// Knows which calls are still wanted.
pub(crate) trait Wanted: fmt::Debug + Send + Sync {
    fn is_wanted(&self, key: InboundKey) -> bool;
    fn poll_unwanted(&self, cx: &mut Context<'_>, key: InboundKey) -> Poll<()>;
}

/// Whether somebody still waits for the answer to a call.
#[derive(Clone, Debug)]
pub struct Cancellation {
    pub(super) wanted: Arc<dyn Wanted>,
    pub(super) key: InboundKey,
}

impl Cancellation {
    /// Whether nobody waits any more: the caller cancelled, its deadline passed, it is gone, or it was answered.
    pub fn is_cancelled(&self) -> bool {
        !self.wanted.is_wanted(self.key)
    }

    /// Waits until nobody waits any more.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn cancelled(&self) {
        poll_fn(|cx| self.wanted.poll_unwanted(cx, self.key)).await;
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Payload, ServiceError>> + Send>>;

/// One method's handler.
pub(super) struct Handler(Box<dyn Fn(Request) -> Answering + Send + Sync>);

impl Handler {
    pub(super) fn new<H, F, P>(handler: H) -> Self
    where
        H: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output = Result<P, ServiceError>> + Send + 'static,
        P: Into<Payload>,
    {
        Self(Box::new(move |request| {
            let answer = handler(request);
            Box::pin(async move { answer.await.map(Into::into) })
        }))
    }

    /// Begins to serve; a panic is an answer too.
    pub(super) fn begin(&self, request: Request) -> Result<Run, Error> {
        let deadline = request.deadline;
        // The handler is not used again by the call that it panicked in.
        catch_unwind(AssertUnwindSafe(|| (self.0)(request)))
            .map(|answering| Run { answering, deadline })
            .map_err(|panic| panicked(&*panic))
    }
}

/// A handler that runs.
pub(super) struct Run {
    answering: Answering,
    deadline: Option<Instant>,
}

impl Future for Run {
    type Output = Result<Payload, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let deadline = self.deadline;
        let polled =
            catch_unwind(AssertUnwindSafe(|| poll_inheriting(self.answering.as_mut(), deadline, cx)));
        match polled {
            Ok(polled) => polled.map(|answer| answer.map_err(Error::from)),
            Err(panic) => Poll::Ready(Err(panicked(&*panic))),
        }
    }
}

/// What the caller is told: that it happened, not what the handler's innards said.
fn panicked(panic: &(dyn core::any::Any + Send)) -> Error {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(message, "a handler panicked");
    ServiceError::new("panic", "the service failed in an unforeseen way").into()
}
