//! End to end: real processes, real sockets.

mod bad_days;
mod datagrams;
mod departure;
mod exhaustion;
mod expose;
mod lifecycle;
mod payloads;
mod python_client;
mod shutdown;
mod strangers;
mod tcp;
mod title;
