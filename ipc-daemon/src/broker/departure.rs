//! The one way off the bus: everything a connection held is released here, in one order.

use ipc_core::wire::message::{NameChange, NameChanged};
use ipc_core::wire::{Header, Kind};
use ipc_core::{Error, ErrorCode};

use super::Broker;
use super::event::{Output, Transport};
use super::keys::PeerKey;
use super::names::Change;
use super::peer::{GAP_BYTES, Phase, Target};
use super::policy::Action;

impl Broker {
    /// Releases everything a connection holds. Doing it again does nothing.
    pub(super) fn depart(&mut self, peer: PeerKey) {
        self.depart_with(peer, |_| {});
    }

    /// The same; `last_words` runs after everything was released and before the connection takes nothing more.
    pub(super) fn depart_with(&mut self, peer: PeerKey, last_words: impl FnOnce(&mut Self)) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        if core::mem::replace(&mut state.is_departing, true) {
            return;
        }
        if state.phase == Phase::Active {
            state.phase = Phase::InputEnded;
        }
        self.end_greeting(peer);
        self.release_calls(peer);
        self.release_names(peer);
        self.release_coordination(peer);
        self.release_subscriptions(peer);
        self.release_handles(peer);
        self.calls.forget(peer);
        last_words(self);
        if let Some(state) = self.peers.get_mut(peer) {
            state.phase = Phase::Closing;
        }
    }

    /// The shell keeps that many bytes of memory for a frame of which a part has come. Whoever has more than its user may have
    /// is told so and closed: the rest may never come.
    pub fn note_receiving(&mut self, peer: PeerKey, bytes: usize) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let before = core::mem::replace(&mut state.receiving_bytes, bytes);
        if before == bytes {
            return;
        }
        let account = state.account;
        if let Err(error) = self.quota.receive(account, before, bytes) {
            self.counters.quota_refusals += 1;
            self.quota.note_refused(account, &error);
            self.close(peer, &error);
            self.end_turn();
        }
    }

    /// Has the shell say when the process ends that opened this connection. Where one process cannot be told from another the
    /// end of the connection decides alone.
    pub(super) fn watch_process(&mut self, peer: PeerKey) {
        if let Some(state) = self.peers.get_mut(peer)
            && state.transport == Transport::UnixStream
            && !state.is_process_watched
        {
            state.is_process_watched =
                self.quota.watch_process(state.account, self.config.limits.process_watches_max);
            if state.is_process_watched {
                self.outputs.push_back(Output::WatchProcess(peer));
            }
        }
    }

    /// The process that opened this connection has ended, though others may have the connection. What it holds and waits for
    /// ends with it, and so does the connection then; one that holds nothing stays.
    pub fn handle_process_end(&mut self, peer: PeerKey) {
        self.end_run();
        let Some(state) = self.peers.get_mut(peer) else { return };
        if core::mem::take(&mut state.is_process_watched) {
            self.quota.unwatch_process(state.account);
        }
        let (holds, waits, _) = self.coordination.counts(peer);
        if holds + waits > 0 || self.coordination.is_at_work(peer) {
            let message = "the process that opened this connection, and what it held, has ended";
            self.close(peer, &Error::new(ErrorCode::LockLost, message));
        }
        self.end_turn();
    }

    /// The hello is not waited for any more, because it came or because the connection ends.
    pub(super) fn end_greeting(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        if let Some(deadline) = state.hello_deadline.take() {
            self.deadlines.remove(deadline);
            self.quota.change(state.account, |charges| charges.unauthenticated -= 1);
        }
    }

    /// Its own calls are cancelled at their services; those that wait for it end with `service_gone`.
    fn release_calls(&mut self, peer: PeerKey) {
        while let Some(key) = self.calls.any_outgoing(peer) {
            self.abandon_call(key);
        }
        let gone = self.gone(peer);
        while let Some(key) = self.calls.any_incoming(peer) {
            self.counters.services_gone += 1;
            self.fail_call(key, &gone);
        }
    }

    pub(super) fn gone(&self, peer: PeerKey) -> Error {
        let who = self.peers.get(peer).map_or_else(|| "the service".to_owned(), |peer| peer.who.to_string());
        Error::new(ErrorCode::ServiceGone, format!("{who} went away before it answered"))
            .with_hint("the call may have run; whether to call again depends on what it does")
    }

    fn release_names(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let watches = core::mem::take(&mut state.watches);
        let registrations = core::mem::take(&mut state.registrations);
        self.quota.change(state.account, |charges| {
            charges.names -= registrations.len() as u32;
            charges.watches -= watches.len() as u32;
        });
        for watch in watches {
            self.names.unwatch(peer, watch);
        }
        for (registration, name) in registrations {
            for change in self.names.unregister(&name, peer, registration) {
                self.tell_change(&change);
            }
        }
    }

    /// Tells the watchers of a name, and the new owner, what happened to it.
    pub(super) fn tell_change(&mut self, change: &Change) {
        if let Some(registration) = change.acquired {
            let mut header = Header::new(Kind::ACQUIRED);
            header.handle.index = registration;
            self.answer(change.peer, header, &(), &[]);
        }
        for (watcher, watch) in self.names.watchers(&change.name) {
            if self.check_policy(watcher, &Action::Resolve(&change.name)).is_ok() {
                self.tell_watcher(watcher, watch, change);
            }
        }
    }

    /// Tells one watcher. One that has no room loses its watch, and is told that.
    pub(super) fn tell_watcher(&mut self, watcher: PeerKey, watch: u64, change: &Change) {
        let mut changed = NameChanged { service: change.name.as_str().into(), change: change.change };
        let mut header = Header::new(Kind::NAME_CHANGED).with_correlation(watch);
        let room = self.check_room(watcher, 2 * ipc_core::limits::NAME_MAX_BYTES);
        if room.is_ok() {
            header.sender = self.announce_peer(watcher, change.peer);
        } else {
            changed = NameChanged { service: "".into(), change: NameChange::WatchLost };
            self.names.unwatch(watcher, watch);
            self.forget_watch(watcher, watch);
        }
        self.answer(watcher, header, &changed, &[]);
    }

    /// Takes a watch out of what its connection holds.
    pub(super) fn forget_watch(&mut self, peer: PeerKey, watch: u64) {
        if let Some(state) = self.peers.get_mut(peer)
            && state.watches.remove(&watch)
        {
            self.quota.change(state.account, |charges| charges.watches -= 1);
        }
    }

    /// Its requests end, and what it held goes to those who wait.
    fn release_coordination(&mut self, peer: PeerKey) {
        // Nothing else may be left of it: others end its work by its token.
        self.coordination.orphan_acks(peer);
        if self.coordination.concerns(peer) {
            self.coordination.depart(self.now, peer);
            self.settle_coordination();
        }
    }

    fn release_subscriptions(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let subscriptions = core::mem::take(&mut state.subscriptions);
        state.outbound.release(subscriptions.len() * GAP_BYTES);
        self.quota.change(state.account, |charges| charges.subscriptions -= subscriptions.len() as u32);
        self.topics.unsubscribe(subscriptions.into_values());
    }

    fn release_handles(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let places = state.places();
        self.quota.change(state.account, |charges| charges.handles -= places);
        for target in state.take_targets() {
            if let Target::Topic(topic) = target {
                self.topics.release(topic);
            }
        }
    }
}
