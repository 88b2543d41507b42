//! PURE. Who a peer is, as the kernel or the bridge has verified it.

use core::fmt;

use crate::id::PeerId;

/// A verified identity. Made once, when a connection is accepted; there is no default and no way from one arm to the
/// other, so a network peer can never be taken for a user of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A process of this machine, as the kernel named it when it connected (`SO_PEERCRED`, see unix(7)).
    Local {
        /// Effective user id.
        uid: u32,
        /// Effective group id.
        gid: u32,
        /// Process id, for people and logs only: it can be used again after the process ended.
        pid: u32,
    },
    /// A network peer that came over the bridge.
    Remote {
        /// Who it proved to be; `anonymous` when it proved nothing.
        principal: String,
        /// Its address as text, for people and logs only.
        address: String,
    },
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Local { uid, gid, pid } => write!(f, "local uid={uid} gid={gid} pid={pid}"),
            Identity::Remote { principal, address } => write!(f, "remote {principal} at {address}"),
        }
    }
}

/// The verified sender of a message: which connection, and who is behind it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The connection.
    pub id: PeerId,
    /// Who opened it.
    pub identity: Identity,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {} ({})", self.id, self.identity)
    }
}
