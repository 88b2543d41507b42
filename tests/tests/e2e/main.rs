//! End to end: real processes, real sockets.

mod bad_days;
mod datagrams;
mod departure;
mod exhaustion;
mod expose;
mod forward;
mod histories;
mod hold_faults;
mod hostile;
mod identity;
mod lifecycle;
mod metrics;
mod packaging;
mod payloads;
mod policy;
mod python_client;
mod shutdown;
mod store;
mod store_faults;
mod strangers;
mod tcp;
mod title;
mod turns;
