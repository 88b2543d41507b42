//! What ends: outcomes that their client has, requests that are remembered long enough, clients that are gone.

use core::time::Duration;

use ipc_core::time::Instant;

use super::cookie::COOKIE_LIFE;
use super::window::{Entry, Stage};
use super::{ClientKey, Door, Output};

/// How often it is looked for what can be forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How long a client's connection to the bus is kept after it sent something last.
const IDLE_MAX: Duration = Duration::from_secs(10);

impl Door {
    /// Does what is due at `now`; calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, key)) = self.retries.first().copied().filter(|(at, _)| *at <= now) {
            self.retries.remove(&(at, key));
            if let Some(client) = self.clients.get_mut(key) {
                client.flow.retry_at = None;
            }
            self.pump(now, key);
        }
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep(now);
        }
    }

    pub(super) fn sweep_later(&mut self, now: Instant) {
        self.sweep_at.get_or_insert(now + SWEEP_EVERY);
    }

    fn sweep(&mut self, now: Instant) {
        self.sweep_at = None;
        let keys: Vec<ClientKey> = self.clients.keys().collect();
        for key in keys {
            let Some(client) = self.clients.get_mut(key) else { continue };
            let forgotten = client.window.forget(now);
            self.let_go(key, &forgotten);
            self.end_if_idle(now, key);
        }
        if !self.clients.is_empty() {
            self.sweep_later(now);
        }
    }

    fn end_if_idle(&mut self, now: Instant, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let idle = now.since(client.active_at);
        let is_busy = !client.tickets.is_empty() || !client.held.is_empty();
        if idle < IDLE_MAX || is_busy {
            return;
        }
        if client.session.take().is_some() {
            self.outputs.push_back(Output::Disconnect(key));
        }
        // No cookie that it was ever known by is good any more then, so nothing of it can be run again; whoever needs no
        // cookie has nothing that could be.
        if client.window.len() == 0 && (client.proof.is_none() || idle >= COOKIE_LIFE) {
            let retry = client.flow.retry_at;
            if let Some(client) = self.clients.remove(key) {
                self.by_sender.remove(&client.sender);
            }
            if let Some(at) = retry {
                self.retries.remove(&(at, key));
            }
        }
    }

    /// The client has the outcomes of everything below `low`; what still runs there nobody waits for.
    pub(super) fn lift(&mut self, now: Instant, key: ClientKey, low: u64) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let (passed, unseen) = client.window.lift(low);
        if passed.is_empty() && unseen == 0 {
            return;
        }
        self.count_lost(unseen);
        self.let_go(key, &passed);
        self.touch(key);
        self.pump(now, key);
    }

    /// Gives back what was held for requests that are not remembered any more.
    fn let_go(&mut self, key: ClientKey, entries: &[(u64, Entry)]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        for (id, entry) in entries {
            self.remembered -= 1;
            self.kept_bytes -= entry.kept_bytes();
            client.kept_bytes -= entry.kept_bytes();
            client.flow.settle(*id);
            if let Stage::Running(Some(ticket)) = entry.stage {
                client.tickets.remove(&ticket);
                if let Some(session) = &mut client.session {
                    session.abandon(ticket);
                }
            }
        }
    }
}
