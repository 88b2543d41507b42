//! Service names: owners, groups, queues, watches.

use std::collections::VecDeque;

use ipc_core::error::ErrorCode;
use ipc_core::wire::message::{NameChange, Register, RegisterMode, UnwatchNames, WatchNames};

use super::expect::{Answer, Expected, Refusal};
use super::rights::Wish;
use super::{Due, Model, Phase, Queues, filter};
use crate::world::Seen;

/// One registration of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instance {
    /// Whose it is.
    pub connection: usize,
    /// Its number with the model.
    pub registration: u64,
    /// Its methods, in its own order.
    pub methods: Vec<String>,
}

/// A name that is held.
#[derive(Clone, Debug)]
pub(super) struct Service {
    /// Changes when the owner does; a group keeps it from its first instance to its last.
    pub tenure: u64,
    pub is_group: bool,
    pub instances: Vec<Instance>,
    pub waiting: VecDeque<Instance>,
}

/// A watch of names.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    number: u64,
    connection: usize,
    correlation: u64,
    filter: String,
}

impl Model {
    pub(super) fn register(&mut self, from: usize, seen: &Seen) -> bool {
        let Some(body) = seen.decode::<Register>() else { return false };
        let correlation = seen.header.correlation;
        match self.claim(from, &body) {
            Err(refusal) => self.done(from, correlation, Answer::Refused(refusal)),
            Ok((instance, queued)) => {
                let registration = instance.registration;
                self.done(from, correlation, Answer::Registered { registration, queued });
                let change = self.hold(&body.service.0, body.mode == RegisterMode::Group, instance, queued);
                if let Some(change) = change {
                    self.tell(&body.service.0, change, from);
                }
            }
        }
        true
    }

    fn claim(&mut self, from: usize, body: &Register) -> Result<(Instance, bool), Refusal> {
        let invalid = || Refusal::of(ErrorCode::InvalidArgument);
        if self.is_draining {
            return Err(Refusal::of(ErrorCode::ShuttingDown));
        }
        let name = &body.service.0;
        let methods: Vec<String> = body.methods.0.iter().map(|method| method.name.0.clone()).collect();
        let is_double = |at: usize| methods[..at].contains(&methods[at]);
        let are_fine = methods.iter().all(|method| filter::is_method(method)) && !methods.is_empty();
        if !filter::is_name(name) || !are_fine || (0..methods.len()).any(is_double) {
            return Err(invalid());
        }
        if name == "ipc" || name.starts_with("ipc.") {
            return Err(Refusal::of(ErrorCode::PermissionDenied));
        }
        self.may(from, Wish::Own(name))?;
        let max = self.limits.names_per_connection_max;
        if self.registrations_of(from).len() >= max as usize {
            return Err(Refusal::quota("names_per_connection_max", max));
        }
        let queued = self.place(from, body)?;
        let instance = Instance { connection: from, registration: self.number(), methods };
        Ok((instance, queued))
    }

    /// Whether the claim would have to wait.
    fn place(&self, from: usize, body: &Register) -> Result<bool, Refusal> {
        let Some(service) = self.services.get(&body.service.0) else { return Ok(false) };
        let is_theirs = |one: &Instance| one.connection == from;
        if service.instances.iter().chain(&service.waiting).any(is_theirs) {
            return Err(Refusal::of(ErrorCode::Conflict));
        }
        match (service.is_group, body.mode) {
            (true, RegisterMode::Group) => {
                let max = self.limits.instances_per_service_max;
                let is_full = service.instances.len() >= max as usize;
                if is_full { Err(Refusal::quota("instances_per_service_max", max)) } else { Ok(false) }
            }
            (false, RegisterMode::Exclusive) if body.queue => {
                let max = self.limits.waiters_per_name_max;
                let is_full = service.waiting.len() >= max as usize;
                if is_full { Err(Refusal::quota("waiters_per_name_max", max)) } else { Ok(true) }
            }
            _ => Err(Refusal::of(ErrorCode::NameTaken)),
        }
    }

    fn hold(&mut self, name: &str, is_group: bool, instance: Instance, queued: bool) -> Option<NameChange> {
        let tenure = self.number();
        match self.services.get_mut(name) {
            None => {
                let service =
                    Service { tenure, is_group, instances: vec![instance], waiting: VecDeque::new() };
                self.services.insert(name.to_owned(), service);
                Some(NameChange::Acquired)
            }
            Some(service) if queued => {
                service.waiting.push_back(instance);
                None
            }
            Some(service) => {
                service.instances.push(instance);
                Some(NameChange::InstanceAdded)
            }
        }
    }

    /// The registrations of a connection, waiting ones included, with their names, in the order they were made.
    pub(super) fn registrations_of(&self, connection: usize) -> Vec<(u64, String)> {
        let mut own = Vec::new();
        for (name, service) in &self.services {
            let all = service.instances.iter().chain(&service.waiting);
            let theirs = all.filter(|one| one.connection == connection);
            own.extend(theirs.map(|one| (one.registration, name.clone())));
        }
        own.sort();
        own
    }

    pub(super) fn unregister(&mut self, from: usize, seen: &Seen) {
        let correlation = seen.header.correlation;
        let asked = Some(seen.header.handle.index);
        let own = self.registrations_of(from);
        let known = self.connections.get(&from).map(|connection| &connection.registrations);
        let found = own
            .into_iter()
            .find(|(number, _)| known.is_some_and(|known| known.get(number).copied() == asked));
        let Some((registration, name)) = found else {
            self.done(from, correlation, Answer::Refused(Refusal::of(ErrorCode::InvalidArgument)));
            return;
        };
        self.is_at_once = true;
        self.fail_calls_of(|call| call.registration == registration, ErrorCode::ServiceGone);
        self.is_at_once = false;
        let changes = self.give_up(&name, registration);
        self.done(from, correlation, Answer::Ok);
        self.tell_all(&name, changes);
    }

    /// Takes a registration out of the table. Says what changes, with whom it is about and who has had to wait.
    pub(super) fn give_up(&mut self, name: &str, registration: u64) -> Vec<(NameChange, usize, Option<u64>)> {
        let tenure = self.number();
        let Some(service) = self.services.get_mut(name) else { return Vec::new() };
        service.waiting.retain(|one| one.registration != registration);
        let Some(at) = service.instances.iter().position(|one| one.registration == registration) else {
            return Vec::new();
        };
        let leaver = service.instances.remove(at).connection;
        if !service.instances.is_empty() {
            return vec![(NameChange::InstanceRemoved, leaver, None)];
        }
        let mut changes = vec![(NameChange::Lost, leaver, None)];
        match service.waiting.pop_front() {
            None => {
                self.services.remove(name);
            }
            Some(next) => {
                changes.push((NameChange::Acquired, next.connection, Some(next.registration)));
                service.tenure = tenure;
                service.instances.push(next);
            }
        }
        changes
    }

    pub(super) fn tell_all(&mut self, name: &str, changes: Vec<(NameChange, usize, Option<u64>)>) {
        for (change, about, acquired) in changes {
            if let Some(registration) = acquired {
                self.push(about, Expected::Acquired { registration });
            }
            self.tell(name, change, about);
        }
    }

    fn tell(&mut self, name: &str, change: NameChange, about: usize) {
        let mut watches: Vec<Watch> =
            self.watches.iter().filter(|watch| filter::passes(&watch.filter, name)).cloned().collect();
        watches.sort_by_key(|watch| (watch.connection, watch.correlation));
        for watch in watches {
            self.tell_one(&watch, name, change, about);
        }
    }

    fn tell_one(&mut self, watch: &Watch, name: &str, change: NameChange, about: usize) {
        self.told.push((watch.connection, watch.number));
        let (number, correlation) = (watch.number, watch.correlation);
        let service = name.to_owned();
        self.push(
            watch.connection,
            Expected::NameChanged { watch: number, correlation, service, change, from: about },
        );
    }

    pub(super) fn watch(&mut self, from: usize, seen: &Seen) -> bool {
        let Some(body) = seen.decode::<WatchNames>() else { return false };
        let correlation = seen.header.correlation;
        let result = self.check_watch(from, correlation, &body.filter.0);
        if result.is_ok() {
            let watch =
                Watch { number: self.number(), connection: from, correlation, filter: body.filter.0.clone() };
            let present: Vec<(String, usize, bool)> = self.present(&watch.filter);
            for (name, about, is_first) in present {
                let change = if is_first { NameChange::Acquired } else { NameChange::InstanceAdded };
                self.tell_one(&watch, &name, change, about);
            }
            self.watches.push(watch);
        }
        self.conclude(from, correlation, result.map(|()| Answer::Ok));
        true
    }

    fn present(&self, filter: &str) -> Vec<(String, usize, bool)> {
        let mut present = Vec::new();
        for (name, service) in self.services.iter().filter(|(name, _)| filter::passes(filter, name)) {
            for (at, instance) in service.instances.iter().enumerate() {
                present.push((name.clone(), instance.connection, at == 0));
            }
        }
        present
    }

    fn check_watch(&self, from: usize, correlation: u64, text: &str) -> Result<(), Refusal> {
        self.may(from, Wish::Other)?;
        let own: Vec<&Watch> = self.watches.iter().filter(|watch| watch.connection == from).collect();
        let max = self.limits.watches_per_connection_max;
        if own.len() >= max as usize {
            return Err(Refusal::quota("watches_per_connection_max", max));
        }
        if own.iter().any(|watch| watch.correlation == correlation) {
            return Err(Refusal::of(ErrorCode::Conflict));
        }
        if filter::is_filter(text) { Ok(()) } else { Err(Refusal::of(ErrorCode::InvalidArgument)) }
    }

    pub(super) fn unwatch(&mut self, from: usize, seen: &Seen) -> bool {
        let Some(body) = seen.decode::<UnwatchNames>() else { return false };
        let is_it = |watch: &Watch| watch.connection == from && watch.correlation == body.watch;
        let result = match self.watches.iter().position(is_it) {
            Some(at) => {
                self.watches.remove(at);
                Ok(Answer::Ok)
            }
            None => Err(Refusal::of(ErrorCode::InvalidArgument)),
        };
        self.conclude(from, seen.header.correlation, result);
        true
    }

    /// How many watches a connection has.
    pub(super) fn watches_of(&self, connection: usize) -> usize {
        self.watches.iter().filter(|watch| watch.connection == connection).count()
    }

    /// Watches that the broker has ended in this batch because their clients had no room for more.
    ///
    /// Room only shrinks within a batch, so they are the ones that were told last.
    pub(super) fn notice_lost_watches(&mut self, after: &Queues) -> Result<(), String> {
        let numbers: Vec<usize> = self.connections.keys().copied().collect();
        for number in numbers {
            let Some(row) = self.connections.get(&number).and_then(|one| after.row(one.peer)) else {
                self.doubt_watches(number);
                continue;
            };
            let held = self.watches_of(number);
            if row.watches > held {
                return Err(format!("connection {number} has {} watches, not {held}", row.watches));
            }
            let mut lost = Vec::new();
            for (connection, watch) in self.told.iter().rev() {
                if lost.len() < held - row.watches && *connection == number && !lost.contains(watch) {
                    lost.push(*watch);
                }
            }
            if lost.len() < held - row.watches {
                return Err(format!(
                    "connection {number} has lost a watch that there was nothing to tell of"
                ));
            }
            for watch in lost {
                self.lose_watch(number, watch);
            }
        }
        Ok(())
    }

    fn lose_watch(&mut self, number: usize, lost: u64) {
        self.watches.retain(|watch| watch.number != lost);
        let batch = self.batch;
        let Some(connection) = self.connections.get_mut(&number) else { return };
        for due in connection.inbox.due_mut() {
            let is_change = matches!(&due.what, Expected::NameChanged { watch, .. } if *watch == lost);
            if is_change && due.batch == batch {
                due.is_optional = true;
            }
        }
    }

    /// A connection that was told of changes and then left: whether it had room for them is not known any more.
    fn doubt_watches(&mut self, number: usize) {
        let batch = self.batch;
        let Some(connection) = self.connections.get_mut(&number) else { return };
        for due in connection.inbox.due_mut().filter(|due| due.batch == batch) {
            due.may_be_lost = matches!(due.what, Expected::NameChanged { .. });
        }
    }

    /// Ends the watches of a connection.
    pub(super) fn drop_watches(&mut self, connection: usize) {
        self.watches.retain(|watch| watch.connection != connection);
    }

    /// Whether a connection hears of anything without asking again.
    pub(super) fn is_listening(&self, connection: usize) -> bool {
        self.watches_of(connection) > 0
            || !self.subscriptions_of(connection).is_empty()
            || self.has_streams(connection)
    }

    /// Closes a connection that sends nothing more once nothing is due to it.
    pub(super) fn leave_if_finished(&mut self, connection: usize) {
        let calls = self.calls.values().filter(|call| call.caller == connection).count();
        let waits = calls + self.changes_of(connection) > 0;
        if self.phase(connection) == Phase::InputEnded && !waits && !self.is_listening(connection) {
            self.leave(connection, None);
        }
    }

    /// Makes something due that may be missing.
    pub(super) fn push_optional(&mut self, to: usize, what: Expected) {
        let due = Due { what, batch: self.batch, is_loose: false, is_optional: true, may_be_lost: false };
        self.push_due(to, due);
    }
}
