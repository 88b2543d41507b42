//! SHELL. How a process offers methods: a [`Service`] is a name and its handlers, and
//! [`Client::serve`](crate::client::Client::serve) puts it on the bus.
//!
//! - `handler`: what a method is given and what it answers;
//! - `dispatch`: calls become running handlers, and their outcomes replies;
//! - `inherit`: calls made while serving a call end with its deadline.

mod dispatch;
mod handler;
mod inherit;

use core::fmt;
use std::future::Future;
use std::sync::Arc;

pub(crate) use dispatch::{Dispatcher, Job, Replies};
pub(crate) use handler::Wanted;
pub use handler::{Cancellation, Request};
pub(crate) use inherit::inherited_deadline;

use crate::error::{Error, ServiceError};
use crate::name::{MethodName, ServiceName};
use crate::payload::Payload;
use crate::session::{Offer, OfferedMethod};
use crate::wire::message::RegisterMode;
use handler::Handler;

/// A service: a name, methods, and how it shares the name with others.
///
/// ```
/// use ipc_core::service::{Request, Service};
/// use ipc_core::{Payload, ServiceError};
///
/// async fn shout(request: Request) -> Result<Payload, ServiceError> {
///     Ok(request.payload.as_text()?.to_uppercase().into())
/// }
///
/// # fn main() -> Result<(), ipc_core::Error> {
/// let service = Service::new("demo.shout")?.method("shout", shout).describe("upper case of a text");
/// # Ok(())
/// # }
/// ```
pub struct Service {
    name: ServiceName,
    mode: RegisterMode,
    queue: bool,
    concurrency_max: usize,
    methods: Vec<OfferedMethod>,
    handlers: Vec<Handler>,
    /// The first thing that was wrong with a method.
    wrong: Option<Error>,
}

impl Service {
    /// A service without methods that wants the name for itself.
    ///
    /// # Errors
    /// `invalid_argument` for a text that is no service name.
    pub fn new(name: &str) -> Result<Self, Error> {
        Ok(Self {
            name: ServiceName::parse(name)?,
            mode: RegisterMode::Exclusive,
            queue: false,
            concurrency_max: usize::MAX,
            methods: Vec::new(),
            handlers: Vec::new(),
            wrong: None,
        })
    }

    /// The same as one instance of several that share the name and its calls.
    #[must_use]
    pub fn group(mut self) -> Self {
        self.mode = RegisterMode::Group;
        self
    }

    /// The same, waiting its turn when the name is taken.
    #[must_use]
    pub fn queue(mut self) -> Self {
        self.queue = true;
        self
    }

    /// The same, running at most `calls` handlers at a time, at least 1; further calls wait in the order they came, until
    /// their deadlines pass. Default: no limit.
    #[must_use]
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency_max = calls.max(1);
        self
    }

    /// The same with one more method.
    ///
    /// `handler` is called for each call. If its future is ready at once, nothing is spawned for it; otherwise it goes on
    /// as a task of its own. It runs between the client's reads, so it must not block and not compute for long before its
    /// first await; `tokio::task::spawn_blocking` is the place for that. When the caller does not wait any more, the
    /// future is dropped. A panic becomes the `application` error with the code `panic`.
    ///
    /// A name that is no method name, or is there already, is reported when the service is offered.
    #[must_use]
    pub fn method<H, F, P>(mut self, name: &str, handler: H) -> Self
    where
        H: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output = Result<P, ServiceError>> + Send + 'static,
        P: Into<Payload>,
    {
        match MethodName::parse(name) {
            Ok(name) => {
                self.methods.push(OfferedMethod { name, description: String::new() });
                self.handlers.push(Handler::new(handler));
            }
            Err(error) => self.wrong = self.wrong.or(Some(error)),
        }
        self
    }

    /// The same with a description of the method added last, for people; at most 1024 bytes.
    #[must_use]
    pub fn describe(mut self, description: &str) -> Self {
        if let Some(method) = self.methods.last_mut() {
            description.clone_into(&mut method.description);
        }
        self
    }

    /// What goes to the daemon, and what stays.
    pub(crate) fn into_parts(self) -> Result<(Offer, Arc<Offered>), Error> {
        if let Some(error) = self.wrong {
            return Err(error);
        }
        let offered = Offered {
            handlers: self.handlers,
            methods: self.methods.iter().map(|method| method.name.clone()).collect(),
            concurrency_max: self.concurrency_max,
        };
        let offer = Offer { service: self.name, mode: self.mode, queue: self.queue, methods: self.methods };
        Ok((offer, Arc::new(offered)))
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("methods", &self.methods)
            .finish_non_exhaustive()
    }
}

/// The handlers of a service that was offered.
pub(crate) struct Offered {
    handlers: Vec<Handler>,
    methods: Vec<MethodName>,
    concurrency_max: usize,
}

impl fmt::Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offered").field("methods", &self.methods).finish_non_exhaustive()
    }
}
