//! Calls: handed on, answered, cancelled, timed out.

use core::time::Duration;

use ipc_core::id::Handle;
use ipc_core::limits::ERROR_REPLY_RESERVE_BYTES;
use ipc_core::name::{MethodName, ServiceName};
use ipc_core::time::Instant;
use ipc_core::wire::coordination as wire;
use ipc_core::wire::message::Resolve;
use ipc_core::wire::{Flags, Frame, Header, Kind};
use ipc_core::{Error, ErrorCode};

use super::send::forwarded_bytes;
use super::{Outcome, unusable};
use crate::broker::calls::Call;
use crate::broker::keys::{CallKey, PeerKey, ServiceKey};
use crate::broker::peer::Target;
use crate::broker::policy::Action;
use crate::broker::quota::Resource;
use crate::broker::{Broker, Due};

/// Where a call goes.
struct Route {
    callee: PeerKey,
    service: ServiceKey,
    registration: u32,
    /// The service's number for the method.
    method: u16,
    /// The callee's own number for it.
    own_method: u16,
}

impl Broker {
    pub(super) fn resolve(&mut self, peer: PeerKey, frame: &Frame<'_>) -> Outcome {
        let request: Resolve = frame.decode()?;
        let result = self.check_handle(peer, frame).and_then(|()| {
            let found = self.find_method(peer, &request);
            let target = match &found {
                Ok((service, method)) => Target::Method { service: *service, method: *method },
                Err(error) => Target::Failed(error.code),
            };
            self.bind(peer, frame, target);
            found.map(|_| ())
        });
        if let Err(error) = &result
            && self.is_monitored()
        {
            self.show_refused_resolve(peer, &request, error.code);
        }
        self.conclude(peer, frame.header.correlation, result)
    }

    fn find_method(&self, peer: PeerKey, request: &Resolve) -> Result<(ServiceKey, u16), Error> {
        let service = ServiceName::parse(&request.service.0)?;
        let method = MethodName::parse(&request.method.0)?;
        self.check_policy(peer, &Action::Call(&service, &method))?;
        self.names.resolve(&service, &method)
    }

    pub(super) fn call(&mut self, now: Instant, peer: PeerKey, frame: Frame<'_>) -> Outcome {
        let is_oneway = frame.header.flags.contains(Flags::ONEWAY);
        match self.route(peer, &frame, is_oneway) {
            Ok(route) => self.hand_over(now, peer, frame, &route, is_oneway),
            Err(error) => {
                self.counters.calls_refused += 1;
                if self.is_monitored() {
                    self.show_refused_call(peer, frame.header, error.code);
                }
                if !is_oneway {
                    self.refuse(peer, Kind::REPLY, frame.header.correlation, &error);
                }
            }
        }
        Ok(())
    }

    /// Finds the instance that serves the call, and makes sure that the call and its outcome have room.
    fn route(&mut self, peer: PeerKey, frame: &Frame<'_>, is_oneway: bool) -> Result<Route, Error> {
        self.check_running()?;
        self.pass_fence(peer)?;
        let Some(state) = self.peers.get(peer) else { return Err(unusable(Target::Nothing, "method")) };
        let target = state.target(frame.header.handle);
        let Target::Method { service, method } = target else { return Err(unusable(target, "method")) };
        if !is_oneway {
            let limits = &self.config.limits;
            if !self.calls.has_room(peer, limits) {
                let max = limits.pending_calls_per_connection_max.into();
                return Err(Error::quota("pending_calls_per_connection_max", max));
            }
            self.quota.check(state.account, Resource::PendingCalls, 1)?;
            let max = limits.queue_per_connection_max_bytes as usize;
            if !state.outbound.fits(ERROR_REPLY_RESERVE_BYTES, max) {
                return Err(Error::quota("queue_per_connection_max_bytes", max as u64)
                    .with_hint("read the replies that are due before calling again"));
            }
        }
        let Some((instance, own)) = self.names.choose(service, method) else {
            return Err(unusable(Target::Nothing, "method"));
        };
        let (callee, registration) = (instance.peer, instance.registration);
        self.check_room(callee, forwarded_bytes(frame))?;
        self.check_share(callee, peer, forwarded_bytes(frame))?;
        Ok(Route { callee, service, registration, method, own_method: own })
    }

    /// What the next call is made under. The check is made when that comes: it is the last moment before it is handed on.
    pub(super) fn fence_call(&mut self, peer: PeerKey, frame: &Frame<'_>) -> Outcome {
        let fence: wire::Fence = frame.decode()?;
        let fence = self.fence(peer, Some(fence));
        if let Some(state) = self.peers.get_mut(peer) {
            state.fence = Some(Box::new(fence));
        }
        Ok(())
    }

    /// Whether the token that a call is made under, if it is, is still that of the lock's last holder.
    fn pass_fence(&mut self, peer: PeerKey) -> Result<(), Error> {
        match self.peers.get_mut(peer).and_then(|state| state.fence.take()) {
            Some(fence) => (*fence).and_then(|fence| self.coordination.check_fence(fence.as_ref())),
            None => Ok(()),
        }
    }

    fn hand_over(&mut self, now: Instant, peer: PeerKey, frame: Frame<'_>, route: &Route, is_oneway: bool) {
        self.names.count_call(route.service, route.method);
        let deadline_us = frame.header.deadline_us;
        let deadline = (deadline_us > 0).then(|| now + Duration::from_micros(deadline_us.into()));
        let correlation = if is_oneway {
            self.counters.calls_oneway += 1;
            0
        } else {
            self.counters.calls_routed += 1;
            self.open_call(peer, frame.header.correlation, route, deadline).correlation()
        };
        let header = Header {
            handle: Handle { index: route.registration, generation: route.own_method },
            correlation,
            sender: self.announce_peer(route.callee, peer),
            sequence: 0,
            ..frame.header
        };
        let bytes = frame.body.as_slice().len();
        self.send_encoded(route.callee, header, frame.envelope, frame.body, (deadline, Some(peer)));
        if self.is_monitored() {
            self.show_call(peer, route.callee, (route.service, route.method), (bytes, is_oneway));
        }
    }

    fn open_call(
        &mut self,
        peer: PeerKey,
        correlation: u64,
        route: &Route,
        deadline: Option<Instant>,
    ) -> CallKey {
        let key = self.calls.insert(peer, correlation, route.callee, (route.service, route.registration));
        if let Some(deadline) = deadline {
            let deadline = self.deadlines.insert(deadline, Due::Call(key));
            self.calls.set_deadline(key, deadline);
        }
        self.names.engage(route.service, route.callee, route.registration);
        if let Some(state) = self.peers.get_mut(peer) {
            state.outbound.reserve(ERROR_REPLY_RESERVE_BYTES);
            self.quota.change(state.account, |charges| charges.pending_calls += 1);
        }
        key
    }

    /// Takes a call out of every registry. What is left to do is to tell its two ends.
    fn end_call(&mut self, key: CallKey) -> Option<Call> {
        let call = self.calls.remove(key)?;
        if let Some(deadline) = call.deadline {
            self.deadlines.remove(deadline);
        }
        self.names.settle(call.service, call.callee, call.registration);
        if let Some(state) = self.peers.get_mut(call.caller) {
            state.outbound.release(ERROR_REPLY_RESERVE_BYTES);
            self.quota.change(state.account, |charges| charges.pending_calls -= 1);
        }
        Some(call)
    }

    pub(super) fn reply(&mut self, peer: PeerKey, frame: Frame<'_>) -> Outcome {
        let key = CallKey::from_correlation(frame.header.correlation);
        let theirs = key.filter(|key| self.calls.get(*key).is_some_and(|call| call.callee == peer));
        let Some(call) = theirs.and_then(|key| self.end_call(key)) else {
            // The call ended while the reply was on its way; or somebody guesses. Neither reaches anybody.
            self.counters.replies_unexpected += 1;
            return Ok(());
        };
        let bytes = forwarded_bytes(&frame);
        let room = self.check_room(call.caller, bytes);
        match room.and_then(|()| self.check_share(call.caller, peer, bytes)) {
            Ok(()) => {
                self.counters.replies_routed += 1;
                let header = Header {
                    correlation: call.caller_correlation,
                    sender: self.announce_peer(call.caller, peer),
                    handle: Handle::default(),
                    deadline_us: 0,
                    sequence: 0,
                    ..frame.header
                };
                let shown = (frame.body.as_slice().len(), header.flags.contains(Flags::ERROR));
                self.send_encoded(call.caller, header, frame.envelope, frame.body, (None, Some(peer)));
                if self.is_monitored() {
                    self.show_reply(peer, &call, shown.0, shown.1);
                }
            }
            Err(error) => {
                self.counters.replies_dropped += 1;
                let error = Error { code: ErrorCode::SlowConsumer, ..error };
                self.refuse(call.caller, Kind::REPLY, call.caller_correlation, &error);
            }
        }
        self.close_if_finished(call.caller);
        Ok(())
    }

    pub(super) fn cancel(&mut self, peer: PeerKey, frame: &Frame<'_>) -> Outcome {
        frame.decode::<()>()?;
        // A call that has just ended is past cancelling; its outcome is on its way.
        if let Some(key) = self.calls.find(peer, frame.header.correlation) {
            self.counters.calls_cancelled += 1;
            self.tell_callee(key);
            let error = Error::new(ErrorCode::Cancelled, "the caller cancelled the call");
            self.fail_call(key, &error);
        } else if self.coordination.cancel(self.now, peer, frame.header.correlation) {
            self.settle_coordination();
        }
        Ok(())
    }

    pub(in crate::broker) fn call_timed_out(&mut self, key: CallKey) {
        self.counters.deadlines_exceeded += 1;
        self.tell_callee(key);
        let error = Error::new(ErrorCode::DeadlineExceeded, "the service did not answer within the deadline")
            .with_hint("the call may have run");
        self.fail_call(key, &error);
    }

    /// Ends a call with an error for its caller.
    pub(in crate::broker) fn fail_call(&mut self, key: CallKey, error: &Error) {
        if let Some(call) = self.end_call(key) {
            if self.is_monitored() {
                self.show_failed_call(&call, error.code);
            }
            self.refuse(call.caller, Kind::REPLY, call.caller_correlation, error);
            self.close_if_finished(call.caller);
        }
    }

    /// Ends a call whose caller is gone.
    pub(in crate::broker) fn abandon_call(&mut self, key: CallKey) {
        self.tell_callee(key);
        self.end_call(key);
    }

    /// Tells the service that nobody waits for this call any more.
    fn tell_callee(&mut self, key: CallKey) {
        if let Some(callee) = self.calls.get(key).map(|call| call.callee) {
            let header = Header::new(Kind::CANCEL).with_correlation(key.correlation());
            self.send(callee, header, &(), &[]);
        }
    }
}
