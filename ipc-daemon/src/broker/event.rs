//! What goes into the broker and comes out of it, beside frames.

use ipc_core::id::Epoch;
use ipc_core::limits::Limits;
use ipc_core::name::{MethodName, ServiceName};

use super::keys::PeerKey;
use super::policy::Policy;
use super::records::Write;

/// What a broker is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// What it allows.
    pub limits: Limits,
    /// Who may do what.
    pub policy: Policy,
    /// This life of the daemon; the shell draws it at random.
    pub epoch: Epoch,
    /// What the daemon calls itself, with its version.
    pub server: String,
}

/// How a connection reached the daemon; for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// An `AF_UNIX` stream socket.
    UnixStream,
    /// The `AF_UNIX` datagram socket.
    UnixDatagram,
    /// A TCP socket that speaks the bus protocol.
    Tcp,
    /// The UDP socket.
    Udp,
    /// The daemon itself.
    Internal,
    /// An exposed TCP port.
    ExposeTcp,
    /// An exposed UDP port.
    ExposeUdp,
    /// A server of the network that appears as a service of the daemon's.
    Forward,
}

impl Transport {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Transport::UnixStream => "unix_stream",
            Transport::UnixDatagram => "unix_datagram",
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Internal => "internal",
            Transport::ExposeTcp => "expose_tcp",
            Transport::ExposeUdp => "expose_udp",
            Transport::Forward => "forward",
        }
    }
}

/// On which side of the machine's edge a connection's other end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A process of this machine, known by its user.
    Local,
    /// The network.
    Remote,
}

/// What decides what a connection may do; set once, when it is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// What the policy grants to its verified identity.
    Granted,
    /// To own one name, which the daemon's operator has given it, and nothing else.
    Offer {
        /// The name.
        service: ServiceName,
    },
    /// Calls of one method and nothing else.
    Only {
        /// The service.
        service: ServiceName,
        /// Its method.
        method: MethodName,
    },
}

/// What the shell is to do. It asks for these after each batch of input, until there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write what [`super::Broker::transmit`] gives, as far as the kernel takes it.
    Flush(PeerKey),
    /// The same, then close the connection and call [`super::Broker::disconnect`].
    Close(PeerKey),
    /// Call [`super::Broker::handle_process_end`] when the process ends that opened this connection, if that can be known:
    /// it holds something that is to end with it, even if others have the connection then.
    WatchProcess(PeerKey),
    /// Hand what [`super::Broker::take_commit`] gives to the store, and tell what became of it with
    /// [`super::Broker::handle_stored`].
    Commit,
}

/// Records that are written together: all of them or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Which commit of this life it is.
    pub sequence: u64,
    /// What is written, in order.
    pub writes: Vec<Write>,
}

/// Why a commit has failed. Nothing of it will be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The disk is full: the next one may succeed.
    Full(String),
    /// What was written may not be there: nothing is written any more in this life of the daemon.
    Dead(String),
}
