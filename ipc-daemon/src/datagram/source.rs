//! Who sent a datagram.

use core::net::SocketAddr;

use ipc_core::identity::Identity;

/// Whoever has proved nothing.
const ANONYMOUS: &str = "anonymous";

/// The sender of a datagram, as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A process of this machine, by the credentials that came with this very datagram.
    Local {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Process id.
        pid: u32,
        /// The address of its socket, which answers go to; none when it is not bound.
        address: Option<Box<[u8]>>,
    },
    /// Somebody on the network, by an address that may be forged.
    Network(SocketAddr),
}

impl Source {
    /// The identity on the bus. An address is nobody.
    pub fn identity(&self) -> Identity {
        match self {
            Source::Local { uid, gid, pid, .. } => Identity::Local { uid: *uid, gid: *gid, pid: *pid },
            Source::Network(address) => {
                Identity::Remote { principal: ANONYMOUS.to_owned(), address: address.to_string() }
            }
        }
    }

    /// Whether it is a process of this machine.
    pub fn is_local(&self) -> bool {
        matches!(self, Source::Local { .. })
    }

    /// Whether an answer can be sent.
    pub(super) fn is_addressed(&self) -> bool {
        match self {
            Source::Local { address, .. } => address.is_some(),
            Source::Network(_) => true,
        }
    }

    /// The same process, whichever of its sockets it sent from.
    pub(super) fn process(self) -> Self {
        match self {
            Source::Local { uid, gid, pid, .. } => Source::Local { uid, gid, pid, address: None },
            network @ Source::Network(_) => network,
        }
    }
}

/// A source, and which of those who have had its address: clients draw a number for themselves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Sender {
    pub(super) source: Source,
    pub(super) client: u32,
}
