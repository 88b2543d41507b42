//! Offering services and serving their calls.

use core::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::Client;
use super::call::unexpected;
use super::inherited;
use super::service::{Handler, Request, Service};
use crate::error::{Error, ErrorCode, ServiceError};
use crate::name::{MethodName, ServiceName};
use crate::session::{Answer, InboundKey, Incoming, RegistrationKey};
use crate::time::Instant;
use crate::transport::clock;
use crate::wire::message::RegisterMode;

/// Replies wait for one another so long at most before they are written together.
const REPLY_DELAY_MAX: Duration = Duration::from_micros(50);

/// A service that a client offers. It is a number; the client keeps the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Serving {
    key: RegistrationKey,
    client: u64,
}

/// Where an offered service stands, as far as was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServingState {
    /// The name is taken and the service waits its turn.
    Queued,
    /// Calls come here.
    Active,
    /// It could not be offered again after a reconnect, or was taken back.
    Gone(Option<Error>),
}

struct Entry {
    key: RegistrationKey,
    name: ServiceName,
    is_exclusive: bool,
    state: ServingState,
    /// By position of the method; `None` while it runs.
    handlers: Vec<Option<Handler>>,
    methods: Vec<MethodName>,
}

/// All services of a client, by slot.
#[derive(Default)]
pub(super) struct Services {
    entries: Vec<Option<Entry>>,
    /// Those that could not be offered again, with the reason, until somebody asks.
    lost: Vec<(ServiceName, Error)>,
    /// The call that is being served, and whether it is still wanted.
    current: Option<(InboundKey, bool)>,
    stop: bool,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().flatten().map(|entry| &entry.name)).finish()
    }
}

impl Services {
    fn get_mut(&mut self, key: RegistrationKey) -> Option<&mut Entry> {
        self.entries.get_mut(key.slot())?.as_mut().filter(|entry| entry.key == key)
    }

    fn insert(&mut self, entry: Entry) {
        let slot = entry.key.slot();
        if self.entries.len() <= slot {
            self.entries.resize_with(slot + 1, || None);
        }
        self.entries[slot] = Some(entry);
    }

    fn remove(&mut self, key: RegistrationKey) -> Option<Entry> {
        self.get_mut(key)?;
        self.entries.get_mut(key.slot())?.take()
    }

    pub(super) fn acquired(&mut self, key: RegistrationKey) {
        if let Some(entry) = self.get_mut(key) {
            entry.state = ServingState::Active;
        }
    }

    pub(super) fn lost(&mut self, key: RegistrationKey, error: Error) {
        if let Some(entry) = self.get_mut(key) {
            entry.state = ServingState::Gone(Some(error.clone()));
            entry.handlers.clear();
            let name = entry.name.clone();
            self.lost.push((name, error));
        }
    }

    pub(super) fn take_lost(&mut self) -> Vec<(ServiceName, Error)> {
        core::mem::take(&mut self.lost)
    }

    pub(super) fn cancelled(&mut self, key: InboundKey) {
        if let Some((current, is_wanted)) = &mut self.current
            && *current == key
        {
            *is_wanted = false;
        }
    }

    /// A call to a service that this client alone serves would wait for itself.
    pub(super) fn refuse_own(&self, service: &str) -> Result<(), Error> {
        let own = self.entries.iter().flatten().any(|entry| {
            entry.is_exclusive && entry.state == ServingState::Active && entry.name.as_str() == service
        });
        if !own {
            return Ok(());
        }
        let message = format!("{service} is served by this client itself, and would wait for its own answer");
        Err(Error::new(ErrorCode::Conflict, message)
            .with_hint("call the function behind it, use start_call, or call over another client"))
    }
}

impl Client {
    /// Offers a service. Its calls are answered while [`run`](Client::run), [`run_for`](Client::run_for) or
    /// [`serve_next`](Client::serve_next) runs, and wait at other times, until their deadlines.
    ///
    /// # Errors
    /// `name_taken`, `permission_denied`, `quota_exceeded`; `invalid_argument` for methods that are not valid.
    pub fn serve(&mut self, service: Service) -> Result<Serving, Error> {
        if let Some(mistake) = service.mistake {
            return Err(mistake);
        }
        let name = service.offer.service.clone();
        let methods = service.offer.methods.iter().map(|method| method.name.clone()).collect();
        let is_exclusive = service.offer.mode == RegisterMode::Exclusive;
        let (key, ticket) = self.session.register(clock::now(), service.offer)?;
        let queued = match self.outcome(ticket)? {
            Answer::Registered { queued } => queued,
            answer => return Err(unexpected(&answer)),
        };
        let state = if queued { ServingState::Queued } else { ServingState::Active };
        self.services.insert(Entry { key, name, is_exclusive, state, handlers: service.handlers, methods });
        Ok(Serving { key, client: self.id })
    }

    /// Where an offered service stands, as far as was read.
    pub fn serving_state(&mut self, serving: &Serving) -> ServingState {
        let is_mine = serving.client == self.id;
        let entry = if is_mine { self.services.get_mut(serving.key) } else { None };
        entry.map_or(ServingState::Gone(None), |entry| entry.state.clone())
    }

    /// Takes a service back. Calls that wait for it end with `service_gone`.
    ///
    /// # Errors
    /// As [`flush`](Client::flush); the service is gone in any case.
    pub fn unserve(&mut self, serving: Serving) -> Result<(), Error> {
        if serving.client != self.id || self.services.remove(serving.key).is_none() {
            return Ok(());
        }
        if let Some(ticket) = self.session.unregister(clock::now(), serving.key)? {
            self.outcome(ticket)?;
        }
        Ok(())
    }

    /// Serves calls until a handler asks to [`stop`](Client::stop). When the connection is lost and
    /// [`ConnectOptions::reconnect`](crate::ConnectOptions::reconnect) is set, connects again and goes on.
    ///
    /// # Errors
    /// Why the connection is over, or why a service could not be offered again; `conflict` when called by a handler.
    pub fn run(&mut self) -> Result<(), Error> {
        self.serve_until(None)?;
        Ok(())
    }

    /// As [`run`](Client::run) for so long; says how many calls were served.
    ///
    /// # Errors
    /// As [`run`](Client::run).
    pub fn run_for(&mut self, time: Duration) -> Result<u64, Error> {
        self.serve_until(Some(clock::now() + time))
    }

    /// Serves one call, waiting for it at most so long; says whether there was one. It has been answered when it returns.
    ///
    /// # Errors
    /// As [`run`](Client::run), and never reconnects.
    pub fn serve_next(&mut self, timeout: Duration) -> Result<bool, Error> {
        self.check_not_serving()?;
        let until = clock::now() + timeout;
        let mut has_read = false;
        loop {
            if let Some(call) = self.session.poll_call() {
                self.serve_call(call);
                self.flush()?;
                return Ok(true);
            }
            if has_read && clock::now() >= until {
                return Ok(false);
            }
            self.step(Some(until))?;
            has_read = true;
        }
    }

    /// Lets [`run`](Client::run) return once the handler that calls this has returned and its answer is written.
    pub fn stop(&mut self) {
        self.services.stop = true;
    }

    /// Whether the call that is being served is not wanted any more: cancelled, past its deadline, or its caller gone. Reads
    /// what is there without waiting. For handlers that work for long and can end early.
    pub fn is_cancelled(&mut self) -> bool {
        // A lost connection cancels every call, so the answer tells that too.
        let _ = self.step(Some(clock::now()));
        self.services.current.is_some_and(|(_, is_wanted)| !is_wanted)
    }

    fn check_not_serving(&self) -> Result<(), Error> {
        if self.services.current.is_none() {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::Conflict,
            "a handler cannot serve other calls before it has answered its own",
        ))
    }

    fn serve_until(&mut self, until: Option<Instant>) -> Result<u64, Error> {
        self.check_not_serving()?;
        self.services.stop = false;
        let mut served = 0;
        let mut has_read = false;
        loop {
            let mut round = self.serve_waiting(&mut served);
            let is_over = has_read && until.is_some_and(|until| clock::now() >= until);
            if round.is_ok() && (self.services.stop || is_over) {
                self.flush()?;
                return Ok(served);
            }
            has_read = true;
            if round.is_ok() {
                round = self.step(until);
            }
            if let Err(error) = round {
                self.reconnect_or(error)?;
            }
        }
    }

    /// Serves what was read. Replies that are due soon after one another are written together.
    fn serve_waiting(&mut self, served: &mut u64) -> Result<(), Error> {
        let mut unwritten_since = None;
        while let Some(call) = self.session.poll_call() {
            self.serve_call(call);
            *served += 1;
            if self.services.stop || self.session.open_inbound() == 0 {
                return Ok(());
            }
            let now = clock::now();
            if now.since(*unwritten_since.get_or_insert(now)) >= REPLY_DELAY_MAX {
                self.flush()?;
                unwritten_since = None;
            } else {
                self.flush_if_much()?;
            }
        }
        Ok(())
    }

    fn serve_call(&mut self, call: Incoming) {
        let (key, registration, method) = (call.key, call.registration, call.method);
        if call.deadline.is_some_and(|deadline| deadline <= clock::now()) {
            // It waited behind others for too long; its caller has been told.
            let error =
                Error::new(ErrorCode::DeadlineExceeded, "the deadline passed before the call was served");
            self.session.reply(key, Err(error));
            return;
        }
        let taken = self.services.get_mut(registration).and_then(|entry| {
            Some((entry.handlers.get_mut(method)?.take()?, entry.methods.get(method)?.clone()))
        });
        let Some((mut handler, name)) = taken else {
            let error = Error::new(ErrorCode::ServiceGone, "nothing answers this method any more");
            self.session.reply(key, Err(error));
            return;
        };
        let request = Request::new(call, name);
        self.services.current = Some((key, true));
        let deadline = inherited::Serving::until(request.deadline);
        let outcome = catch_unwind(AssertUnwindSafe(|| handler(&request, self))).unwrap_or_else(|_| {
            Err(ServiceError::new("panic", format!("the handler of {} panicked", request.method)))
        });
        drop(deadline);
        self.services.current = None;
        let place = self.services.get_mut(registration).and_then(|entry| entry.handlers.get_mut(method));
        if let Some(place) = place {
            *place = Some(handler);
        }
        self.session.reply(key, outcome.map_err(Error::from));
    }
}
