//! Who pays for what a session asks for, and what that one may have.

use std::sync::Arc;

use ipc_core::identity::Identity;
use ipc_core::limits::Limits;

use crate::broker::Broker;
use crate::broker::coordination::Hand;
use crate::broker::keys::PeerKey;
use crate::broker::ledger::User;

impl Broker {
    pub(super) fn hand(&self, peer: PeerKey) -> Hand {
        Hand { peer, uid: self.user(peer).uid }
    }

    /// Who pays for what a session makes.
    pub(super) fn user(&self, peer: PeerKey) -> User {
        let uid = match self.peers.get(peer).map(|state| &state.who.identity) {
            Some(Identity::Local { uid, .. }) => Some(*uid),
            Some(Identity::Remote { .. }) | None => None,
        };
        User { uid, is_alone: uid.is_some() && self.quota.has_one_user() }
    }

    /// What the user of a session may have.
    pub(super) fn own_limits(&self, peer: PeerKey) -> Arc<Limits> {
        let own = self.peers.get(peer).and_then(|state| self.quota.limits(state.account));
        own.map_or_else(|| Arc::new(self.config.limits.clone()), Arc::clone)
    }
}
