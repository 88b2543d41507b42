//! SHELL. The process around the bus: it moves bytes and time, and decides nothing.
//!
//! - [`event_loop`]: the daemon's life, from start to stop;
//! - [`startup`], [`readiness`], [`signals`]: what an operator or a service manager sees of it;
//! - [`keeping`]: what was kept, and what is to be kept;
//! - [`doors`]: what clients connect to, opened and closed while the daemon runs;
//! - [`listener`], [`connection`]: sockets, from accept to close; [`greeting`]: strangers among them;
//! - [`datagram`]: sockets of datagrams, and their senders' connections to the bus;
//! - [`idle`]: looking for work for a moment before sleeping;

mod connection;
mod datagram;
mod doors;
mod event_loop;
mod greeting;
mod idle;
mod keeping;
mod listener;
mod readiness;
mod signals;
mod startup;

pub(crate) use datagram::DatagramSocket;
pub(crate) use event_loop::run;
pub(crate) use readiness::Readiness;
pub(crate) use startup::State;
