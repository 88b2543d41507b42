//! A service as it is described: its name, its methods and what answers them.

use core::fmt;
use std::time::Duration;

use super::Client;
use crate::error::{Error, ServiceError};
use crate::identity::Peer;
use crate::name::{MethodName, ServiceName};
use crate::payload::Payload;
use crate::session::{Incoming, Offer, OfferedMethod};
use crate::time::Instant;
use crate::transport::clock;
use crate::wire::message::RegisterMode;

/// What answers the calls of one method.
pub(super) type Handler = Box<dyn FnMut(&Request, &mut Client) -> Result<Payload, ServiceError> + Send>;

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
}

impl Request {
    pub(super) fn new(call: Incoming, method: MethodName) -> Self {
        Self {
            method,
            payload: call.payload,
            sender: call.sender,
            traceparent: call.traceparent,
            oneway: call.oneway,
            deadline: call.deadline,
        }
    }

    /// How long the caller still waits; `None` when it set no deadline.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.since(clock::now()))
    }
}

/// A service to be offered with [`Client::serve`].
///
/// ```no_run
/// use ipc_core::blocking::{Client, Service};
///
/// let mut client = Client::connect(Default::default())?;
/// let service = Service::new("demo.echo")?.method("echo", |request| Ok(request.payload.clone()));
/// let _serving = client.serve(service)?;
/// client.run()?;
/// # Ok::<(), ipc_core::Error>(())
/// ```
pub struct Service {
    pub(super) offer: Offer,
    pub(super) handlers: Vec<Option<Handler>>,
    /// What was wrong with a method's name, told when the service is offered.
    pub(super) mistake: Option<Error>,
}

impl Service {
    /// A service without methods, which nobody else may offer at the same time.
    ///
    /// # Errors
    /// `invalid_argument` for a text that is no service name.
    pub fn new(name: &str) -> Result<Self, Error> {
        let service = ServiceName::parse(name)?;
        let offer = Offer { service, mode: RegisterMode::Exclusive, queue: false, methods: Vec::new() };
        Ok(Self { offer, handlers: Vec::new(), mistake: None })
    }

    /// The same as one instance of several that share the calls.
    #[must_use]
    pub fn group(mut self) -> Self {
        self.offer.mode = RegisterMode::Group;
        self
    }

    /// The same, waiting its turn when the name is taken.
    #[must_use]
    pub fn queue(mut self) -> Self {
        self.offer.queue = true;
        self
    }

    /// The same with another method. A name that is none, or is there already, is reported by [`Client::serve`].
    ///
    /// A panic of the handler becomes the `application` error with the code `panic`, and the service goes on.
    #[must_use]
    pub fn method<P: Into<Payload>>(
        self,
        name: &str,
        mut handler: impl FnMut(&Request) -> Result<P, ServiceError> + Send + 'static,
    ) -> Self {
        self.add(name, Box::new(move |request, _| handler(request).map(Into::into)))
    }

    /// The same with another method, whose handler is lent the client to call other services.
    ///
    /// Such calls inherit what is left of the deadline. Calls to be served wait meanwhile; a call to a service of the same
    /// client is refused, because it would wait for itself.
    #[must_use]
    pub fn method_with_client<P: Into<Payload>>(
        self,
        name: &str,
        mut handler: impl FnMut(&Request, &mut Client) -> Result<P, ServiceError> + Send + 'static,
    ) -> Self {
        self.add(name, Box::new(move |request, client| handler(request, client).map(Into::into)))
    }

    /// The same with a description of the method added last, for people; at most 1024 bytes.
    #[must_use]
    pub fn describe(mut self, description: &str) -> Self {
        if let Some(method) = self.offer.methods.last_mut() {
            description.clone_into(&mut method.description);
        }
        self
    }

    fn add(mut self, name: &str, handler: Handler) -> Self {
        match MethodName::parse(name) {
            Ok(name) => {
                self.offer.methods.push(OfferedMethod { name, description: String::new() });
                self.handlers.push(Some(handler));
            }
            Err(error) => self.mistake = self.mistake.or(Some(error)),
        }
        self
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("offer", &self.offer).finish_non_exhaustive()
    }
}
