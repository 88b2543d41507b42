//! The broker by itself, without a socket: in scenes that read as a story (`calls`, `names`, `events`, `endings`), at its
//! limits, and in random worlds against a reference model whose own judgement is tested too.

mod bus;
mod calls;
mod checker;
mod coordination;
mod datagrams;
mod durable;
mod durable_runs;
mod endings;
mod events;
mod fenced;
mod forged;
mod keys;
mod limits;
mod monitor;
mod names;
mod policy;
mod policy_matrix;
mod processes;
mod queues;
mod quota;
mod revoked;
mod runs;
mod shares;
mod simulated;
mod tenure;
