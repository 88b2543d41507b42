//! Service names: registered, taken back, watched.

use ipc_core::limits::METHOD_DESCRIPTION_MAX_BYTES;
use ipc_core::name::{Filter, MethodName, ServiceName};
use ipc_core::wire::message::{Register, Registered, UnwatchNames, WatchNames};
use ipc_core::wire::{Frame, Kind};
use ipc_core::{Error, ErrorCode};

use super::Outcome;
use crate::broker::Broker;
use crate::broker::keys::PeerKey;
use crate::broker::names::{Change, Claim, Method};
use crate::broker::policy::Action;
use crate::broker::quota::Resource;

impl Broker {
    pub(super) fn register(&mut self, peer: PeerKey, frame: &Frame<'_>) -> Outcome {
        let request: Register = frame.decode()?;
        let correlation = frame.header.correlation;
        let result = self.claim(peer, &request).and_then(|claim| self.hold(peer, claim));
        self.show_if_refused(peer, "register", ("service", &request.service.0), &result);
        match result {
            Ok((registered, change)) => {
                self.done(peer, correlation, &registered);
                if let Some(change) = change {
                    self.tell_change(&change);
                }
            }
            Err(error) => self.refuse(peer, Kind::DONE, correlation, &error),
        }
        Ok(())
    }

    fn claim(&self, peer: PeerKey, request: &Register) -> Result<Claim, Error> {
        self.check_running()?;
        let name = ServiceName::parse(&request.service.0)?;
        let methods = parse_methods(request)?;
        let Some(state) = self.peers.get(peer) else { return Err(super::super::shutting_down()) };
        self.check_policy(peer, &Action::Own(&name))?;
        let max = self.config.limits.names_per_connection_max;
        if state.registrations.len() >= max as usize {
            return Err(Error::quota("names_per_connection_max", max.into()));
        }
        self.quota.check(state.account, Resource::Names, 1)?;
        let (mode, queue, registration) = (request.mode, request.queue, state.next_registration);
        Ok(Claim { name, mode, queue, peer, registration, methods })
    }

    fn hold(&mut self, peer: PeerKey, claim: Claim) -> Result<(Registered, Option<Change>), Error> {
        let (name, registration) = (claim.name.clone(), claim.registration);
        let (queued, change) = self.names.register(claim, &self.config.limits)?;
        if let Some(state) = self.peers.get_mut(peer) {
            state.registrations.insert(registration, name);
            // Numbers are given once in the life of a connection, so a late unregister never meets another name.
            state.next_registration += 1;
            self.quota.change(state.account, |charges| charges.names += 1);
        }
        Ok((Registered { registration, queued }, change))
    }

    pub(super) fn unregister(&mut self, peer: PeerKey, frame: &Frame<'_>) -> Outcome {
        frame.decode::<()>()?;
        let registration = frame.header.handle.index;
        let Some(changes) = self.end_registration(peer, registration) else {
            let message = format!("this connection has no registration {registration}");
            let error = Error::new(ErrorCode::InvalidArgument, message);
            return self.conclude::<()>(peer, frame.header.correlation, Err(error));
        };
        self.done(peer, frame.header.correlation, &());
        for change in changes {
            self.tell_change(&change);
        }
        if self.config.policy.asks_for_services() {
            self.enforce(peer);
        }
        Ok(())
    }

    /// Takes a name from whoever has it or waits for it; calls that are with it end. Says what that changes.
    pub(super) fn end_registration(&mut self, peer: PeerKey, registration: u32) -> Option<Vec<Change>> {
        let state = self.peers.get_mut(peer)?;
        let name = state.registrations.remove(&registration)?;
        self.quota.change(state.account, |charges| charges.names -= 1);
        let gone = self.gone(peer);
        for key in self.calls.incoming_of(peer, registration) {
            // The end of one may be the end of its caller, and of all its other calls.
            if self.calls.get(key).is_some() {
                self.counters.services_gone += 1;
                self.fail_call(key, &gone);
            }
        }
        Some(self.names.unregister(&name, peer, registration))
    }

    pub(super) fn watch_names(&mut self, peer: PeerKey, frame: &Frame<'_>) -> Outcome {
        let request: WatchNames = frame.decode()?;
        let id = frame.header.correlation;
        let result = self.check_watch(peer, id).and_then(|()| Filter::parse(&request.filter.0));
        let result = result.map(|filter| {
            if let Some(state) = self.peers.get_mut(peer) {
                state.watches.insert(id);
                self.quota.change(state.account, |charges| charges.watches += 1);
            }
            for change in self.names.watch(peer, id, filter) {
                let is_watched = self.peers.get(peer).is_some_and(|state| state.watches.contains(&id));
                if is_watched && self.check_policy(peer, &Action::Resolve(&change.name)).is_ok() {
                    self.tell_watcher(peer, id, &change);
                }
            }
        });
        self.show_if_refused(peer, "watch_names", ("filter", &request.filter.0), &result);
        self.conclude(peer, id, result)
    }

    fn check_watch(&self, peer: PeerKey, id: u64) -> Result<(), Error> {
        let Some(state) = self.peers.get(peer) else { return Ok(()) };
        self.check_policy(peer, &Action::Watch)?;
        let max = self.config.limits.watches_per_connection_max;
        if state.watches.len() >= max as usize {
            return Err(Error::quota("watches_per_connection_max", max.into()));
        }
        self.quota.check(state.account, Resource::Watches, 1)?;
        if state.watches.contains(&id) {
            return Err(Error::new(ErrorCode::Conflict, format!("watch {id} is open already")));
        }
        Ok(())
    }

    pub(super) fn unwatch_names(&mut self, peer: PeerKey, frame: &Frame<'_>) -> Outcome {
        let request: UnwatchNames = frame.decode()?;
        self.forget_watch(peer, request.watch);
        let result = if self.names.unwatch(peer, request.watch) {
            Ok(())
        } else {
            let message = format!("this connection has no watch {}", request.watch);
            Err(Error::new(ErrorCode::InvalidArgument, message))
        };
        self.conclude(peer, frame.header.correlation, result)
    }
}

fn parse_methods(request: &Register) -> Result<Vec<Method>, Error> {
    let mut methods: Vec<Method> = Vec::new();
    for info in &request.methods.0 {
        let name = MethodName::parse(&info.name.0)?;
        if methods.iter().any(|known| known.name == name) {
            return Err(Error::new(ErrorCode::InvalidArgument, format!("method {name} is there twice")));
        }
        if info.description.0.len() > METHOD_DESCRIPTION_MAX_BYTES {
            let message =
                format!("the description of {name} is longer than {METHOD_DESCRIPTION_MAX_BYTES} bytes");
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        methods.push(Method { name, description: info.description.0.clone(), calls: 0 });
    }
    if methods.is_empty() {
        return Err(Error::new(ErrorCode::InvalidArgument, "a service has at least one method"));
    }
    Ok(methods)
}
