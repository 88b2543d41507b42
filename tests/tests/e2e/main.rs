//! End to end: real processes, real sockets.

mod bad_days;
mod departure;
mod exhaustion;
mod expose;
mod forward;
mod lifecycle;
mod packaging;
mod payloads;
mod python_client;
mod shutdown;
mod strangers;
mod tcp;
mod title;
