//! PURE. From a frame to what it asks for. Together with `departure` the only place that knows several registries.
//!
//! An `Err` is a violation and ends the connection; a refusal is an answer and `Ok`.

mod call;
mod coordinate;
mod event;
mod hello;
mod keys;
mod monitor;
mod name;
mod payer;
pub(super) mod permission;
mod queue;
mod revoke;
mod run;
mod send;
mod session;
mod store;
mod transaction;
mod turn;

use ipc_core::time::Instant;
use ipc_core::wire::{Flags, Frame, Kind, WireError};
use ipc_core::{Error, ErrorCode};

use super::Broker;
use super::keys::PeerKey;
use super::peer::{Phase, Target};
use super::quota::Resource;

pub(super) use run::Run;
use turn::REQUEST_WORK;
pub(super) use turn::takes_turns;

type Outcome = Result<(), WireError>;

impl Broker {
    pub(super) fn dispatch(&mut self, now: Instant, peer: PeerKey, frame: Frame<'_>) -> Outcome {
        let Some(state) = self.peers.get(peer) else { return Ok(()) };
        match state.phase {
            Phase::Active => {}
            Phase::Greeting => return self.hello(peer, &frame),
            Phase::InputEnded | Phase::Closing => return Ok(()),
        }
        let kind = frame.header.kind;
        if frame.header.flags.contains(Flags::ERROR) && kind != Kind::REPLY && Kind::ALL.contains(&kind) {
            return Err(WireError::UnknownFlags(frame.header.flags.bits()));
        }
        match kind {
            Kind::CALL => self.call(now, peer, frame),
            Kind::REPLY => self.reply(peer, frame),
            Kind::PUBLISH => self.publish(peer, &frame),
            Kind::PING => self.ping(peer, &frame),
            Kind::COORDINATE => {
                self.work += REQUEST_WORK;
                self.coordinate(now, peer, &frame)
            }
            _ => {
                self.work += REQUEST_WORK;
                self.dispatch_operation(peer, &frame)
            }
        }
    }

    fn dispatch_operation(&mut self, peer: PeerKey, frame: &Frame<'_>) -> Outcome {
        let kind = frame.header.kind;
        let is_known = Kind::ALL.contains(&kind);
        if is_known && frame.header.payload_len != 0 {
            return Err(WireError::Envelope("this kind of frame has no payload"));
        }
        match kind {
            Kind::CANCEL => self.cancel(peer, frame),
            Kind::FENCE => self.fence_call(peer, frame),
            Kind::RESOLVE => self.resolve(peer, frame),
            Kind::RELEASE => self.release_handle(peer, frame),
            Kind::REGISTER => self.register(peer, frame),
            Kind::UNREGISTER => self.unregister(peer, frame),
            Kind::WATCH_NAMES => self.watch_names(peer, frame),
            Kind::UNWATCH_NAMES => self.unwatch_names(peer, frame),
            Kind::OPEN_TOPIC => self.open_topic(peer, frame),
            Kind::SUBSCRIBE => self.subscribe(peer, frame),
            Kind::UNSUBSCRIBE => self.unsubscribe(peer, frame),
            Kind::CLOSE => {
                self.depart(peer);
                self.outputs.push_back(super::Output::Close(peer));
                Ok(())
            }
            _ if is_known => Err(WireError::UnexpectedKind(kind.0)),
            _ => self.unsupported(peer, frame),
        }
    }

    /// An operation of a later version is a refusal; without a correlation nobody waits for one.
    fn unsupported(&mut self, peer: PeerKey, frame: &Frame<'_>) -> Outcome {
        if frame.header.correlation != 0 {
            let message = format!("this daemon does not know frame kind {:#04x}", frame.header.kind.0);
            let error = Error::new(ErrorCode::Unsupported, message).with_hint("a newer daemon may know it");
            self.refuse(peer, Kind::DONE, frame.header.correlation, &error);
        }
        Ok(())
    }

    /// Answers an operation with what it came to.
    fn conclude<T: ipc_core::wire::codec::Wire>(
        &mut self,
        peer: PeerKey,
        correlation: u64,
        result: Result<T, Error>,
    ) -> Outcome {
        match result {
            Ok(result) => self.done(peer, correlation, &result),
            Err(error) => self.refuse(peer, Kind::DONE, correlation, &error),
        }
        Ok(())
    }

    /// Binds a handle; what its index stood for before is released.
    fn bind(&mut self, peer: PeerKey, frame: &Frame<'_>, target: Target) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let more = state.places_for(frame.header.handle);
        if more > 0 {
            self.quota.change(state.account, |charges| charges.handles += more);
        }
        if let Target::Topic(topic) = state.bind(frame.header.handle, target) {
            self.topics.release(topic);
        }
    }

    fn check_handle(&self, peer: PeerKey, frame: &Frame<'_>) -> Result<(), Error> {
        let max = self.config.limits.handles_per_connection_max;
        if frame.header.handle.index >= max {
            return Err(Error::quota("handles_per_connection_max", max.into()));
        }
        let Some(state) = self.peers.get(peer) else { return Ok(()) };
        match state.places_for(frame.header.handle) {
            0 => Ok(()),
            more => self.quota.check(state.account, Resource::Handles, more),
        }
    }

    fn release_handle(&mut self, peer: PeerKey, frame: &Frame<'_>) -> Outcome {
        frame.decode::<()>()?;
        let known = self.peers.get(peer).map(|state| state.target(frame.header.handle));
        if !matches!(known, None | Some(Target::Nothing)) {
            self.bind(peer, frame, Target::Nothing);
        }
        Ok(())
    }
}

/// What is said of a handle that cannot be used for what was tried.
fn unusable(target: Target, wanted: &str) -> Error {
    match target {
        Target::Failed(code) => Error::new(code, format!("binding this handle to a {wanted} was refused")),
        Target::Nothing | Target::Method { .. } | Target::Topic(_) => {
            Error::new(ErrorCode::StaleHandle, format!("the handle does not stand for a {wanted}"))
                .with_hint("bind it again; the request did not run")
        }
    }
}
