//! Existing network clients, unmodified, reach a local service through an exposed port.

mod admin;
mod failures;
mod framing;
mod limits;
mod programs;
mod udp;
mod udp_limits;
