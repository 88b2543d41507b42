//! Taking away what a connection may not have any more, item by item, each with a word to its client.

use ipc_core::name::ServiceName;
use ipc_core::wire::codec::Text;
use ipc_core::wire::message::{Revoked, RevokedWhat};
use ipc_core::wire::{FEATURE_REVOCATION, Header, Kind};
use ipc_core::{Error, ErrorCode};

use super::monitor::listening;
use super::permission::access_denied;
use crate::broker::Broker;
use crate::broker::coordination::Stake;
use crate::broker::event::{Access, Transport};
use crate::broker::keys::PeerKey;
use crate::broker::peer::Target;
use crate::broker::policy::Action;

impl Broker {
    /// Takes away what a connection may not have any more; all of it, if it may not be here.
    pub(super) fn enforce(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get(peer) else { return };
        if state.is_departed() || state.transport == Transport::Internal {
            return;
        }
        if state.access == Access::Granted && !self.is_admitted(state) {
            let error = access_denied(&state.who.identity);
            self.note_revoked(peer, &error);
            return self.close(peer, &error);
        }
        // Rights may go with a name that they depended on, also the right to another name.
        while let Some((registration, error)) = self.lost_name(peer) {
            self.revoke_name(peer, registration, &error);
        }
        for (subscription, error) in self.lost_subscriptions(peer) {
            self.revoke_subscription(peer, subscription, &error);
        }
        self.revoke_stakes(peer);
        self.drop_lost_handles(peer);
        self.close_if_finished(peer);
    }

    fn note_revoked(&mut self, peer: PeerKey, error: &Error) {
        self.counters.rights_revoked += 1;
        self.note_refusal(peer, error);
    }

    fn lost_name(&self, peer: PeerKey) -> Option<(u32, Error)> {
        let mut names = self.peers.get(peer)?.registrations.iter();
        names.find_map(|(id, name): (&u32, &ServiceName)| {
            self.check_policy(peer, &Action::Own(name)).err().map(|error| (*id, error))
        })
    }

    fn lost_subscriptions(&self, peer: PeerKey) -> Vec<(u64, Error)> {
        let Some(state) = self.peers.get(peer) else { return Vec::new() };
        let filters =
            state.subscriptions.iter().filter_map(|(id, key)| Some((*id, self.topics.filter(*key)?)));
        let lost =
            filters.filter_map(|(id, filter)| Some((id, self.check_policy(peer, &listening(filter)).err()?)));
        lost.collect()
    }

    /// Whether the client can be told that one thing was taken away. Otherwise it is told with the end of its connection:
    /// it must not go on in the belief that it still has it.
    pub(super) fn can_be_told(&self, peer: PeerKey) -> bool {
        self.peers.get(peer).is_some_and(|state| state.features & FEATURE_REVOCATION != 0)
    }

    fn revoke_name(&mut self, peer: PeerKey, registration: u32, error: &Error) {
        self.note_revoked(peer, error);
        if !self.can_be_told(peer) {
            return self.close(peer, error);
        }
        let changes = self.end_registration(peer, registration).unwrap_or_default();
        let mut header = Header::new(Kind::REVOKED);
        header.handle.index = registration;
        self.tell_revoked(peer, header, RevokedWhat::Name, error);
        for change in changes {
            self.tell_change(&change);
        }
    }

    fn revoke_subscription(&mut self, peer: PeerKey, subscription: u64, error: &Error) {
        if self.peers.get(peer).is_none_or(|state| state.is_departed()) {
            return;
        }
        self.note_revoked(peer, error);
        if !self.can_be_told(peer) {
            return self.close(peer, error);
        }
        self.end_subscription(peer, subscription);
        let header = Header::new(Kind::REVOKED).with_correlation(subscription);
        self.tell_revoked(peer, header, RevokedWhat::Subscription, error);
    }

    /// Locks and what else it has to do with coordination.
    fn revoke_stakes(&mut self, peer: PeerKey) {
        let lost: Vec<(Stake, Error)> = self
            .coordination
            .stakes(peer)
            .into_iter()
            .filter_map(|(stake, name)| {
                Some((stake, self.check_policy(peer, &Action::Coordinate(name.as_ref())).err()?))
            })
            .collect();
        for (_, error) in &lost {
            self.note_revoked(peer, error);
        }
        if !lost.is_empty() {
            self.coordination.revoke(self.now, peer, lost);
            self.settle_coordination();
        }
    }

    /// Tells a client what was taken away.
    pub(super) fn tell_revoked(&mut self, to: PeerKey, header: Header, what: RevokedWhat, error: &Error) {
        let message = Text(error.message.clone());
        self.answer(to, header, &Revoked { what, code: error.code.number(), message }, &[]);
    }

    /// Handles that may not be used any more answer so from their next use on.
    fn drop_lost_handles(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get(peer) else { return };
        let is_lost = |target: &Target| match *target {
            Target::Method { service, method } => {
                let called = self.names.method(service, method);
                called.is_some_and(|(service, method)| {
                    self.check_policy(peer, &Action::Call(service, method)).is_err()
                })
            }
            Target::Topic(topic) => self
                .topics
                .get(topic)
                .is_some_and(|topic| self.check_policy(peer, &Action::Publish(&topic.name)).is_err()),
            Target::Nothing | Target::Failed(_) => false,
        };
        let lost: Vec<usize> =
            state.targets().filter(|(_, target)| is_lost(target)).map(|(at, _)| at).collect();
        let Some(state) = self.peers.get_mut(peer) else { return };
        self.counters.rights_revoked += lost.len() as u64;
        for at in lost {
            if let Some(Target::Topic(topic)) = state.fail_target(at, ErrorCode::PermissionDenied) {
                self.topics.release(topic);
            }
        }
    }
}
