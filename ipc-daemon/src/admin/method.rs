//! Which methods `ipc.daemon` has, and who may call them.

use ipc_core::identity::{Identity, Peer};
use ipc_core::{Error, ErrorCode};

/// A method of `ipc.daemon`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Status,
    List,
    Describe,
    Sockets,
    BridgeList,
    BridgeExpose,
    BridgeForward,
    BridgeRemove,
}

impl Method {
    /// All of them, in the order of the registration.
    pub(super) const ALL: [Method; 7] = [
        Method::Status,
        Method::List,
        Method::Describe,
        Method::Sockets,
        Method::BridgeList,
        Method::BridgeExpose,
        Method::BridgeForward,
        Method::BridgeRemove,
    ];

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Method::Status => "status",
            Method::List => "list",
            Method::Describe => "describe",
            Method::Sockets => "sockets",
            Method::BridgeList => "bridge-list",
            Method::BridgeExpose => "bridge-expose",
            Method::BridgeForward => "bridge-forward",
            Method::BridgeRemove => "bridge-remove",
        }
    }

    /// What it does, for people.
    pub(super) const fn description(self) -> &'static str {
        match self {
            Method::Status => "the daemon: version, addresses, counters, limits, usage; no payload",
            Method::List => "what is on the bus; payload: services, peers, topics or all",
            Method::Describe => "one service with its methods and instances; payload: its name",
            Method::Sockets => "every socket of the daemon; no payload",
            Method::BridgeList => "the exposed ports and the forwards; no payload",
            Method::BridgeExpose => {
                "exposes a method at a port; payload: tcp|udp:ADDR:PORT=SERVICE/METHOD[,...]"
            }
            Method::BridgeForward => "makes a server a service; payload: SERVICE=tcp|udp:HOST:PORT[,...]",
            Method::BridgeRemove => "closes an exposed port or a forward; payload: its number",
        }
    }

    /// Whether the method changes what the daemon does.
    const fn is_administrative(self) -> bool {
        match self {
            Method::Status | Method::List | Method::Describe | Method::Sockets | Method::BridgeList => false,
            Method::BridgeExpose | Method::BridgeForward | Method::BridgeRemove => true,
        }
    }

    /// Whether the answer is the same for whoever may see it, and not for the network.
    const fn is_local(self) -> bool {
        matches!(self, Method::Sockets)
    }

    /// Whether `caller`, for whom the policy has let the call through, may have it done. The daemon shows itself to whoever
    /// may call it, and obeys its own user, `owner`, and root. It never obeys the network.
    ///
    /// # Errors
    /// `permission_denied`.
    pub(super) fn check(self, caller: &Peer, owner: u32) -> Result<(), Error> {
        match &caller.identity {
            Identity::Local { .. } if !self.is_administrative() => Ok(()),
            Identity::Remote { .. } if !self.is_administrative() && !self.is_local() => Ok(()),
            Identity::Local { uid, .. } if *uid == owner || *uid == 0 => Ok(()),
            Identity::Local { .. } | Identity::Remote { .. } => {
                let message = format!("{} of ipc.daemon is not open to {caller}", self.name());
                Err(Error::new(ErrorCode::PermissionDenied, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_core::id::PeerId;

    fn caller(identity: Identity) -> Peer {
        Peer { id: PeerId(1), identity }
    }

    #[test]
    fn the_network_and_strangers_change_nothing() {
        let local = |uid| caller(Identity::Local { uid, gid: 0, pid: 1 });
        let remote = caller(Identity::Remote { principal: "1000".to_owned(), address: "0".to_owned() });
        for method in Method::ALL {
            assert!(method.check(&local(1000), 1000).is_ok());
            assert!(method.check(&local(0), 1000).is_ok());
            let is_looking = !method.is_administrative();
            for stranger in [&local(1001), &remote] {
                let is_shown = is_looking && !(method == Method::Sockets && stranger == &remote);
                assert_eq!(method.check(stranger, 1000).is_ok(), is_shown, "{method:?} by {stranger}");
            }
        }
    }
}
