//! SHELL. Datagram sockets: moves datagrams between the kernel and a [`crate::datagram::Door`], and bytes between that and
//! the bus.
//!
//! - [`socket`]: receiving with the kernel's word of who sent it, sending without waiting;
//! - [`keeper`]: one socket with its door: what was received goes in, what comes out is done;
//! - [`visitor`]: the connections to the bus that senders have.
//!
//! The queue of a local datagram socket is short and everybody's: while it is full nobody can send. So it is read as long
//! as there is something, a budget at a time, and nothing that is done with a datagram ever waits.

mod keeper;
mod socket;
mod visitor;

pub(crate) use keeper::Keeper;
pub(crate) use socket::DatagramSocket;
