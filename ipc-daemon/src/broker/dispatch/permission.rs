//! Asking the policy.

use ipc_core::id::PeerId;
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::name::ServiceName;
use ipc_core::{Error, ErrorCode};

use crate::broker::Broker;
use crate::broker::keys::PeerKey;
use crate::broker::peer::Peer;
use crate::broker::policy::{Action, Asker, Policy, Subject};
use crate::broker::quota::Payer;

impl Broker {
    /// Another policy from here on, for open connections too.
    ///
    /// A handle that may not be used any more answers `permission_denied` from its next use on; calls that are under way
    /// end as they would have. A name, a subscription, or what is held, waited for or watched of coordination is taken away
    /// and its client told, with the end of the connection if it knows no other way. A connection that may not be here any
    /// more is told so and closed.
    pub fn set_policy(&mut self, policy: Policy) {
        self.end_run();
        self.config.policy = policy;
        self.apply_limits();
        let peers: Vec<PeerKey> = self.peers.keys().collect();
        for peer in peers {
            self.enforce(peer);
        }
        self.end_turn();
    }

    /// Gives every payer its limits anew.
    pub(in crate::broker) fn apply_limits(&mut self) {
        let (policy, limits) = (&self.config.policy, &self.config.limits);
        self.quota.set_limits(|payer| limits_for(policy, payer, limits));
    }

    /// The limits of a payer: those of the daemon, with what rules set otherwise for it.
    pub(in crate::broker) fn limits_of(&self, payer: &Payer) -> Limits {
        limits_for(&self.config.policy, payer, &self.config.limits)
    }

    /// Whether somebody may still be connected.
    pub(super) fn is_admitted(&self, state: &Peer) -> bool {
        self.config.policy.admits(&Subject { services: &[], ..self.subject(state, &[]) })
    }

    /// Whether the policy, or what the connection was accepted for, lets it do that.
    pub(in crate::broker) fn check_policy(&self, peer: PeerKey, action: &Action<'_>) -> Result<(), Error> {
        let Some(state) = self.peers.get(peer) else {
            return Err(Error::new(ErrorCode::PermissionDenied, format!("nobody is left to {action}")));
        };
        let services = self.services_of(peer, state);
        let subject = self.subject(state, &services);
        self.config
            .policy
            .check(&Asker { subject, transport: state.transport, access: &state.access }, action)
    }

    fn subject<'a>(&self, state: &'a Peer, services: &'a [ServiceName]) -> Subject<'a> {
        Subject { identity: &state.who.identity, groups: &state.groups, services }
    }

    /// The names it owns, if a rule asks for that.
    fn services_of(&self, key: PeerKey, state: &Peer) -> Vec<ServiceName> {
        if !self.config.policy.asks_for_services() {
            return Vec::new();
        }
        let names = state.registrations.values();
        names.filter(|name| self.names.is_served_by(name, key)).cloned().collect()
    }

    /// Takes note of a refusal by a service of the daemon that has asked the policy.
    pub fn note_denied(&mut self, who: PeerId, error: &Error) {
        if let Some(peer) = self.peer_of(who) {
            self.counters.permission_refusals += 1;
            self.note_refusal(peer, error);
        }
    }

    /// Takes note of a refusal by the policy, for the log of whoever runs the daemon.
    pub(super) fn note_refusal(&mut self, peer: PeerKey, error: &Error) {
        if let Some(state) = self.peers.get(peer) {
            self.refusals.note(&state.who, error);
        }
    }
}

fn limits_for(policy: &Policy, payer: &Payer, limits: &Limits) -> Limits {
    match payer {
        Payer::Uid(uid) => policy.limits_for(Some(*uid), None, limits),
        Payer::Remote(principal) => policy.limits_for(None, Some(principal), limits),
    }
}

/// The refusal of a connection whose user is not allowed on this bus.
pub(in crate::broker) fn access_denied(identity: &Identity) -> Error {
    Error::new(
        ErrorCode::PermissionDenied,
        format!("this bus is not open to {identity}: no rule allows it anything"),
    )
    .with_hint("whoever runs the daemon can allow it with a rule in [policy] of its configuration")
}
