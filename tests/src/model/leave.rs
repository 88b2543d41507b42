//! The ends of connections: nothing that they held is left.

use ipc_core::error::ErrorCode;
use ipc_core::id::Epoch;
use ipc_core::time::Instant;

use super::expect::Expected;
use super::{Model, Phase, Queues};

/// How far answers may go past a connection's mark before it is closed, in bytes, and what one frame may add.
const ANSWERS_SLACK_BYTES: u64 = (1 << 20) - (64 << 10);

impl Model {
    /// A connection leaves the bus; it is told why when there are reasons.
    pub(super) fn leave(&mut self, number: usize, codes: Option<Vec<ErrorCode>>) {
        if matches!(self.phase(number), Phase::Left | Phase::Gone) {
            return;
        }
        let was_at_once = self.is_at_once;
        self.is_at_once = true;
        self.abandon_calls(number);
        self.fail_calls_of(|call| call.callee == number, ErrorCode::ServiceGone);
        self.is_at_once = was_at_once;
        self.drop_watches(number);
        for (registration, name) in self.registrations_of(number) {
            let changes = self.give_up(&name, registration);
            self.tell_all(&name, changes);
        }
        self.drop_coordination(number);
        let mut subscriptions: Vec<(u64, u64)> =
            self.subscriptions_of(number).iter().map(|one| (one.correlation, one.number)).collect();
        subscriptions.sort_unstable();
        for (_, subscription) in subscriptions {
            self.end_subscription(subscription);
        }
        self.drop_handles(number);
        if let Some(codes) = codes {
            self.push(number, Expected::Close { codes });
        }
        self.set_phase(number, Phase::Left);
    }

    /// The client has sent its last byte.
    pub fn eof(&mut self, now: Instant, number: usize) {
        self.begin(now);
        if !matches!(self.phase(number), Phase::Greeting | Phase::Active) {
            return;
        }
        if self.registrations_of(number).is_empty() && !self.is_coordinating(number) {
            self.set_phase(number, Phase::InputEnded);
            self.leave_if_finished(number);
        } else {
            self.leave(number, None);
        }
    }

    /// The daemon has closed its end.
    pub fn disconnect(&mut self, now: Instant, number: usize) {
        self.begin(now);
        self.leave(number, None);
        self.set_phase(number, Phase::Gone);
    }

    /// The broker has asked to close a connection.
    ///
    /// # Errors
    /// A sentence, when there is no reason to.
    pub fn closing(&mut self, number: usize) -> Result<(), String> {
        let phase = self.phase(number);
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        let is_due = phase == Phase::Left && !connection.is_closing;
        connection.is_closing = true;
        if is_due { Ok(()) } else { Err(format!("connection {number} is closed while it is {phase:?}")) }
    }

    /// The daemon waits no longer.
    pub fn end_drain(&mut self, now: Instant) {
        self.begin(now);
        self.is_draining = true;
        self.tenures.end();
        self.is_at_once = true;
        self.fail_calls_of(|_| true, ErrorCode::ShuttingDown);
        self.is_at_once = false;
        let mut order: Vec<_> =
            self.connections.iter().filter_map(|(number, one)| Some((one.key?, *number))).collect();
        order.sort();
        for (_, number) in order {
            self.leave(number, Some(vec![ErrorCode::ShuttingDown]));
        }
    }

    /// The client has gone away; nobody sees what is still due to it.
    pub fn abandon(&mut self, number: usize) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.is_deaf = true;
        }
    }

    /// Connections that the broker has closed because they do not read their answers.
    pub(super) fn notice_slow_ones(&mut self, after: &Queues) -> Result<(), String> {
        let max = u64::from(self.limits.queue_per_connection_max_bytes) + ANSWERS_SLACK_BYTES;
        loop {
            let missing = self.connections.iter().find(|(_, one)| {
                let is_here = matches!(one.phase, Phase::Greeting | Phase::Active | Phase::InputEnded);
                is_here && after.row(one.peer).is_none()
            });
            let Some((number, connection)) = missing else { return Ok(()) };
            let (number, peer) = (*number, connection.peer);
            // It sends nothing more, and was told of nothing but what it may have lost.
            if connection.phase == Phase::InputEnded && self.may_have_lost_all_streams(number) {
                self.leave(number, None);
                continue;
            }
            if self.last_queues.queued(peer) < max {
                return Err(format!("connection {number} was closed without a reason"));
            }
            self.leave(number, Some(vec![ErrorCode::SlowConsumer]));
        }
    }

    /// Takes in what the broker has decided because of full queues.
    ///
    /// # Errors
    /// A sentence, when it was not free to decide so.
    pub fn reconcile(&mut self, after: &Queues) -> Result<(), String> {
        self.doubt_streams(after);
        self.notice_slow_ones(after)?;
        self.notice_lost_watches(after)?;
        self.last_queues = after.clone();
        Ok(())
    }

    /// Forgets everything about connections that both ends are done with.
    pub fn sweep(&mut self, number: usize) {
        if self.phase(number) == Phase::Gone {
            self.connections.remove(&number);
            self.forget_streams(number);
        }
    }

    /// The daemon is gone, with all that it did not keep, and another one has begun.
    pub fn restart(&mut self, now: Instant, epoch: Epoch, is_written: bool) {
        let keys = core::mem::take(&mut self.keys).after_crash(is_written, self.last);
        let held = core::mem::take(&mut self.tenures).after_crash(is_written);
        let next = Self::new(self.limits.clone(), epoch, self.has_store);
        *self = Self {
            now,
            reign: self.reign,
            last: self.last,
            batch: self.batch,
            tokens: core::mem::take(&mut self.tokens),
            gate_of: core::mem::take(&mut self.gate_of),
            keys,
            ..next
        };
        self.hold_again(held);
    }
}
