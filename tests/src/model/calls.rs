//! Calls: who asked, who serves, until when.

use core::time::Duration;

use ipc_core::error::ErrorCode;
use ipc_core::limits::ERROR_REPLY_RESERVE_BYTES;
use ipc_core::time::Instant;
use ipc_core::wire::Flags;

use super::expect::{Content, Expected, Outcome, Refusal};
use super::handles::Target;
use super::{Model, Queues};
use crate::world::Seen;

/// An open call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub caller: usize,
    pub correlation: u64,
    pub callee: usize,
    pub registration: u64,
    pub due: Option<Instant>,
}

/// Whether something fits into a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Yes,
    No,
    /// It depends on what is kept free for gap records.
    Maybe,
}

/// What is kept free for each subscription's gap record, at most.
pub(super) const GAP_RESERVE_MAX_BYTES: u64 = 100;

impl Model {
    pub(super) fn call(
        &mut self,
        from: usize,
        seen: &Seen,
        before: &Queues,
        after: &Queues,
    ) -> Result<(), String> {
        let is_oneway = seen.has(Flags::ONEWAY);
        let mut refusals = Vec::new();
        let (callee, registration, method, there) =
            match self.route(from, seen, is_oneway, before, &mut refusals) {
                Ok(route) => route,
                Err(refusal) => {
                    refusals.push(refusal);
                    if !is_oneway {
                        self.fail(from, seen.header.correlation, refusals);
                    }
                    return Ok(());
                }
            };
        let pending =
            |queues: &Queues| queues.pending_calls(self.connections.get(&from).map_or(0, |one| one.peer));
        let is_taken = pending(after) > pending(before);
        if there != Room::Yes {
            refusals.push(Refusal::of(ErrorCode::QuotaExceeded));
        }
        if is_oneway {
            if there != Room::No {
                self.hand_over(from, seen, None, callee, (registration, method), there == Room::Maybe);
            }
            return Ok(());
        }
        if is_taken && there == Room::No {
            return Err("a call was taken although its service's queue is full".to_owned());
        }
        if !is_taken {
            if refusals.is_empty() {
                return Err("a call was not taken although there was room for it".to_owned());
            }
            self.fail(from, seen.header.correlation, refusals);
            return Ok(());
        }
        let number = self.number();
        let due = due(self.now, seen.header.deadline_us);
        let call = Call { caller: from, correlation: seen.header.correlation, callee, registration, due };
        self.calls.insert(number, call);
        self.hand_over(from, seen, Some(number), callee, (registration, method), false);
        Ok(())
    }

    /// Finds who serves a call: connection, registration, its number of the method, and whether there is room.
    fn route(
        &self,
        from: usize,
        seen: &Seen,
        is_oneway: bool,
        before: &Queues,
        refusals: &mut Vec<Refusal>,
    ) -> Result<(usize, u64, u16, Room), Refusal> {
        let stale = || Refusal::of(ErrorCode::StaleHandle);
        if self.is_draining {
            return Err(Refusal::of(ErrorCode::ShuttingDown));
        }
        let (tenure, service, method) = match self.target(from, seen) {
            Some(Target::Method { tenure, service, method }) => (*tenure, service, method),
            Some(Target::Failed(code)) => return Err(Refusal::of(*code)),
            Some(Target::Topic { .. }) | None => return Err(stale()),
        };
        if !is_oneway {
            let max = self.limits.pending_calls_per_connection_max;
            if self.calls.values().filter(|call| call.caller == from).count() >= max as usize {
                return Err(Refusal::quota("pending_calls_per_connection_max", max));
            }
            let max = self.limits.queue_per_connection_max_bytes;
            let full = Refusal::quota("queue_per_connection_max_bytes", max);
            match self.room_of_connection(from, ERROR_REPLY_RESERVE_BYTES as u64, before) {
                Room::Yes => {}
                Room::No => return Err(full),
                Room::Maybe => refusals.push(full),
            }
        }
        let known = self.services.get(service).filter(|known| known.tenure == tenure).ok_or_else(stale)?;
        let open =
            |registration: u64| self.calls.values().filter(|call| call.registration == registration).count();
        let offering = known.instances.iter().filter(|instance| instance.methods.contains(method));
        let chosen = offering.min_by_key(|instance| open(instance.registration)).ok_or_else(stale)?;
        let at = chosen.methods.iter().position(|own| own == method).unwrap_or(0);
        let there = self.room(chosen.connection, Content::of(seen).frame_bytes(), before);
        let there =
            self.room_of_share(from, chosen.connection, Content::of(seen).frame_bytes(), before, there);
        Ok((chosen.connection, chosen.registration, at as u16, there))
    }

    fn hand_over(
        &mut self,
        from: usize,
        seen: &Seen,
        call: Option<u64>,
        callee: usize,
        (registration, method): (u64, u16),
        is_optional: bool,
    ) {
        let due = due(self.now, seen.header.deadline_us).map(Instant::as_nanos);
        let given_us = seen.header.deadline_us;
        let content = Content::of(seen);
        let what = Expected::Call { call, registration, method, from, content, due, given_us };
        if is_optional {
            self.push_optional(callee, what);
        } else {
            self.push(callee, what);
        }
    }

    /// Whether a frame of that length fits into the queue of a connection, and into its payer's share.
    pub(super) fn room(&self, to: usize, bytes: u64, before: &Queues) -> Room {
        let Some(connection) = self.connections.get(&to) else { return Room::Yes };
        let payer = super::payer(&connection.identity);
        let queued = before.queued_of_payer(&payer);
        let max = u64::from(self.limits.queue_per_uid_max_bytes);
        let of_payer = |one: &&super::Connection| {
            one.phase != super::Phase::Gone && super::payer(&one.identity) == payer
        };
        let share = max / self.connections.values().filter(of_payer).count().max(1) as u64;
        let is_over = queued > 0 && queued + bytes > max && before.queued(connection.peer) + bytes > share;
        match self.room_of_connection(to, bytes, before) {
            Room::No => Room::No,
            _ if is_over => Room::No,
            room => room,
        }
    }

    /// The same for a sender that is charged to somebody else than the receiver: it has a share of the queue, of which is not
    /// known here how much is left.
    fn room_of_share(&self, from: usize, to: usize, bytes: u64, before: &Queues, room: Room) -> Room {
        let may_be_full = self.may_exceed_share(from, to, bytes, before);
        if may_be_full && room == Room::Yes { Room::Maybe } else { room }
    }

    /// Whether that many bytes more may be past a sender's share of what waits for the receiver.
    pub(super) fn may_exceed_share(&self, from: usize, to: usize, bytes: u64, before: &Queues) -> bool {
        let (Some(sender), Some(receiver)) = (self.connections.get(&from), self.connections.get(&to)) else {
            return false;
        };
        let (own, theirs) = (super::payer(&sender.identity), super::payer(&receiver.identity));
        let queued = before.queued(receiver.peer);
        let payers: std::collections::BTreeSet<_> =
            self.connections.values().map(|connection| super::payer(&connection.identity)).collect();
        let least = u64::from(self.limits.queue_per_connection_max_bytes) / (payers.len() as u64 + 1);
        own != theirs && queued > 0 && queued + bytes > least
    }

    fn room_of_connection(&self, to: usize, bytes: u64, before: &Queues) -> Room {
        let Some(connection) = self.connections.get(&to) else { return Room::Yes };
        let queued = before.queued(connection.peer);
        let calls = self.calls.values().filter(|call| call.caller == to).count() as u64;
        let least = queued + calls * ERROR_REPLY_RESERVE_BYTES as u64 + bytes;
        let most = least + self.subscriptions_of(to).len() as u64 * GAP_RESERVE_MAX_BYTES;
        let max = self.limits.queue_per_connection_max_bytes.into();
        if queued == 0 || most <= max {
            Room::Yes
        } else if least > max {
            Room::No
        } else {
            Room::Maybe
        }
    }

    fn fail(&mut self, caller: usize, correlation: u64, refusals: Vec<Refusal>) {
        self.push(caller, Expected::Reply { correlation, outcome: Outcome::Failed(refusals) });
    }

    pub(super) fn reply(&mut self, from: usize, seen: &Seen, before: &Queues) {
        let Some(connection) = self.connections.get(&from) else { return };
        let asked = seen.header.correlation;
        let number = connection.handed.iter().find(|(_, known)| **known == asked).map(|(number, _)| *number);
        let Some(call) = number.and_then(|number| self.calls.remove(&number)) else { return };
        let content = Content::of(seen);
        let room = self.room(call.caller, content.frame_bytes(), before);
        let room = self.room_of_share(from, call.caller, content.frame_bytes(), before, room);
        let outcome = match room {
            Room::No => Outcome::Failed(vec![Refusal::of(ErrorCode::SlowConsumer)]),
            Room::Yes | Room::Maybe => {
                Outcome::Answered { by: from, content, may_be_dropped: room == Room::Maybe }
            }
        };
        self.push(call.caller, Expected::Reply { correlation: call.correlation, outcome });
        self.leave_if_finished(call.caller);
    }

    pub(super) fn cancel(&mut self, from: usize, correlation: u64) {
        let is_it = |call: &Call| call.caller == from && call.correlation == correlation;
        let found = self.calls.iter().find(|(_, call)| is_it(call)).map(|(number, _)| *number);
        if let Some(number) = found {
            self.end_call(number, true, ErrorCode::Cancelled);
        } else {
            self.cancel_wait(from, correlation);
        }
    }

    /// Ends a call with an error for its caller, and tells its service when that is to be told.
    fn end_call(&mut self, number: u64, tell_service: bool, code: ErrorCode) {
        let Some(call) = self.calls.remove(&number) else { return };
        if tell_service {
            self.push(call.callee, Expected::Cancel { call: number });
        }
        self.fail(call.caller, call.correlation, vec![Refusal::of(code)]);
        self.leave_if_finished(call.caller);
    }

    pub(super) fn calls_out_of_time(&mut self) {
        let now = self.now;
        let late = self.calls.iter().filter(|(_, call)| call.due.is_some_and(|due| due <= now));
        let late: Vec<u64> = late.map(|(number, _)| *number).collect();
        for number in late {
            self.end_call(number, true, ErrorCode::DeadlineExceeded);
        }
    }

    /// Ends calls whose service is gone.
    pub(super) fn fail_calls_of(&mut self, wanted: impl Fn(&Call) -> bool, code: ErrorCode) {
        let found: Vec<u64> =
            self.calls.iter().filter(|(_, call)| wanted(call)).map(|(number, _)| *number).collect();
        for number in found {
            self.end_call(number, false, code);
        }
    }

    /// Ends calls whose caller is gone.
    pub(super) fn abandon_calls(&mut self, caller: usize) {
        let found: Vec<(u64, usize)> = self
            .calls
            .iter()
            .filter(|(_, call)| call.caller == caller)
            .map(|(number, call)| (*number, call.callee))
            .collect();
        for (call, callee) in found {
            self.push(callee, Expected::Cancel { call });
            self.calls.remove(&call);
        }
    }
}

fn due(now: Instant, deadline_us: u32) -> Option<Instant> {
    if deadline_us == 0 { None } else { Some(now + Duration::from_micros(deadline_us.into())) }
}
