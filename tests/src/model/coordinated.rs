//! The ends of what is held and awaited, and what is shown of it.

use ipc_core::error::ErrorCode;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::Operation;

use super::came::Came;
use super::coordination::{Gate, Hold, Wait};
use super::expect::Refusal;
use super::shares::Part;
use super::{Model, Phase};

/// What is due first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Hold(u64),
    Gate(Gate),
    Wait(ipc_daemon::broker::PeerKey, u64),
}

impl Model {
    /// A request is not wanted any more. Says whether there was one.
    pub(super) fn cancel_wait(&mut self, from: usize, correlation: u64) -> bool {
        let is_it = |wait: &Wait| (wait.connection, wait.correlation) == (from, correlation);
        let Some(at) = self.coordination.waits.iter().position(is_it) else { return false };
        let wait = self.coordination.waits.remove(at);
        self.pump(&wait.gate);
        self.came(from, correlation, wait.operation, Came::Refused(Refusal::of(ErrorCode::Cancelled)));
        true
    }

    /// A connection ends: nothing of it waits or holds any more.
    pub(super) fn drop_coordination(&mut self, connection: usize) {
        self.close_streams(connection);
        let mut gates: Vec<Gate> = Vec::new();
        for wait in self.coordination.waits.extract_if(.., |wait| wait.connection == connection) {
            gates.push(wait.gate);
        }
        for gate in gates {
            self.pump(&gate);
        }
        let held: Vec<u64> = self
            .coordination
            .holds
            .iter()
            .filter(|hold| hold.connection == Some(connection))
            .map(|hold| hold.number)
            .collect();
        for number in held {
            self.lose_hold(number);
        }
    }

    /// A hold ends without having been given back.
    pub(super) fn lose_hold(&mut self, number: u64) {
        let Some(at) = self.coordination.holds.iter().position(|hold| hold.number == number) else { return };
        let hold = self.coordination.holds.remove(at);
        self.end_tenure(&hold);
        let Some(gate) = hold.gate else { return };
        if !hold.delay.is_zero() && !hold.is_pending {
            let until = self.now + hold.delay;
            match self.coordination.closed.iter_mut().find(|(closed, _)| *closed == gate) {
                Some((_, before)) => *before = until.max(*before),
                None => self.coordination.closed.push((gate.clone(), until)),
            }
        }
        self.let_others_in(&gate);
    }

    /// Nobody has something any more that was held.
    pub(super) fn let_others_in(&mut self, gate: &Gate) {
        self.pump(gate);
        // Of a successor they have heard.
        if self.first_told(gate).is_none() {
            self.tell_who_leads(gate);
        }
    }

    /// Nobody waits any more, because the daemon stops.
    pub(super) fn refuse_waits(&mut self, code: ErrorCode) {
        for wait in core::mem::take(&mut self.coordination.waits) {
            let came = Came::Refused(Refusal::of(code));
            self.came(wait.connection, wait.correlation, wait.operation, came);
        }
    }

    fn due(&self) -> Vec<(Instant, Due)> {
        let coordination = &self.coordination;
        let holds =
            coordination.holds.iter().filter_map(|hold| Some((hold.expires?, Due::Hold(hold.number))));
        let gates = coordination.closed.iter().map(|(gate, at)| (*at, Due::Gate(gate.clone())));
        let waits = coordination.waits.iter().filter_map(|wait| {
            let key = self.connections.get(&wait.connection)?.key?;
            Some((wait.until?, Due::Wait(key, wait.correlation)))
        });
        holds.chain(gates).chain(waits).collect()
    }

    /// Ends what is due now, the earliest first.
    pub(super) fn coordination_out_of_time(&mut self) {
        while let Some((_, due)) = self.due().into_iter().filter(|(at, _)| *at <= self.now).min() {
            match due {
                Due::Hold(number) => {
                    let hold = self.coordination.holds.iter().find(|hold| hold.number == number);
                    if let Some(Hold { connection: Some(to), correlation, .. }) = hold {
                        let (to, correlation) = (*to, *correlation);
                        self.came(to, correlation, 0, Came::Lost { hold: number, code: ErrorCode::LockLost });
                    }
                    self.lose_hold(number);
                }
                Due::Gate(gate) => {
                    self.coordination.closed.retain(|(closed, _)| *closed != gate);
                    self.pump(&gate);
                }
                Due::Wait(key, correlation) => {
                    let is_it = |wait: &Wait| {
                        let own = self.connections.get(&wait.connection).and_then(|one| one.key);
                        own == Some(key) && wait.correlation == correlation
                    };
                    let Some(at) = self.coordination.waits.iter().position(is_it) else { continue };
                    let wait = self.coordination.waits.remove(at);
                    self.pump(&wait.gate);
                    let came = Came::Refused(Refusal::of(ErrorCode::Busy));
                    self.came(wait.connection, correlation, wait.operation, came);
                }
            }
        }
    }

    /// Something of coordination that was slept through.
    pub(super) fn coordination_overdue(&self, now: Instant) -> Option<String> {
        let late = self.due().into_iter().find(|(at, _)| *at <= now)?;
        Some(format!("{:?} was due at {:?} and was slept through", late.1, late.0))
    }

    /// A holder was told its token: later grants of that name have higher ones, and nobody else has it.
    pub(super) fn learn_token(&mut self, number: u64, token: u64) -> Result<(), String> {
        if self.tokens.get(&number) == Some(&token) {
            return Ok(());
        }
        let gate = self.gate_of.get(&number).cloned().flatten();
        for (other, known) in &self.tokens {
            let is_same = gate.is_some() && self.gate_of.get(other).cloned().flatten() == gate;
            if *known == token || (is_same && (other < &number) != (known < &token)) {
                return Err(format!("token {token} of {gate:?}, and {known} was given too"));
            }
        }
        self.tokens.insert(number, token);
        if let Some(hold) = self.coordination.holds.iter_mut().find(|hold| hold.number == number) {
            hold.token = Some(token);
        }
        Ok(())
    }

    /// Whoever makes a gate or a barrier pays for it until nobody has to do with it.
    pub(super) fn make_resource(&mut self, from: usize, gate: &Gate) -> Result<(), Refusal> {
        let (resources, user) = (self.resources(), self.user(from));
        self.coordination.payers.retain(|gate, _| resources.contains(gate));
        if resources.contains(gate) {
            return Ok(());
        }
        let own = self.coordination.payers.values().filter(|payer| **payer == user.uid).count();
        let limit = ("resources_max", self.limits.resources_max);
        Part { own, total: resources.len() }.check(1, user, limit)?;
        self.coordination.payers.insert(gate.clone(), user.uid);
        Ok(())
    }

    /// Whether the connection holds or awaits something, so that it cannot go on without being able to ask.
    pub(super) fn is_coordinating(&self, connection: usize) -> bool {
        self.coordinated(connection) != (0, 0) && self.phase(connection) == Phase::Active
    }

    /// Gates with their holders' connections and how many wait, as they are shown.
    pub(super) fn gates_shown(&self) -> Vec<(String, String, Vec<u64>, usize)> {
        let mut shown = Vec::new();
        for gate in self.resources() {
            let noun = match Operation(gate.0) {
                Operation::LOCK => "lock",
                Operation::ACQUIRE => "semaphore",
                Operation::CAMPAIGN => "election",
                _ => continue,
            };
            let holders = self.holders(&gate).into_iter().filter(|hold| !hold.is_pending);
            let peer = |hold: &Hold| {
                let connection = hold.connection.and_then(|number| self.connections.get(&number));
                connection.map_or(0, |connection| connection.peer)
            };
            let waiting = self.coordination.waits.iter().filter(|wait| wait.gate == gate).count();
            shown.push((noun.to_owned(), gate.1.clone(), holders.map(peer).collect(), waiting));
        }
        shown
    }
}
