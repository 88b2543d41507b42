//! Servers of the network, unmodified, that are called from the bus.

mod admin;
mod failures;
mod framing;
mod limits;
mod programs;
