//! SHELL. The service `ipc.daemon`, which answers for the daemon itself, in JSON.
//!
//! - [`service`]: the methods, offered over the same session as any service's;
//! - [`method`]: which methods there are, and who may call them;
//! - [`backup`]: a copy of what is on the disk;
//! - [`explain`]: which rule of the policy decides;
//! - [`metrics`], [`http`]: the numbers, for Prometheus, over the bus and over HTTP;
//! - [`report`]: the answers, as the specification of `ipc-cli --json` has them;
//! - [`sockets`]: every socket of the daemon;
//! - [`process`]: names of processes, read away from the bus.

mod backup;
mod explain;
mod http;
mod method;
mod metrics;
mod process;
mod report;
mod service;
mod sockets;

pub(crate) use http::MetricsPort;
pub(crate) use report::Facts;
pub(crate) use service::start;
pub(crate) use sockets::{Held, HeldSocket};

use ipc_core::Error;
use serde_json::Value;

/// Where something of the daemon listens.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct ListenAddress {
    /// `unix_stream`, `unix_datagram`, `tcp`, `udp`, `expose_tcp`, `expose_udp` or `metrics_http`.
    pub(crate) kind: &'static str,
    /// A path, or address and port as they were bound.
    pub(crate) address: String,
}

/// A part of the daemon that has sockets of its own.
pub(crate) trait Sockets {
    /// Where it listens.
    fn addresses(&self) -> Vec<ListenAddress>;

    /// Every one it holds.
    fn sockets(&self) -> Vec<HeldSocket>;
}

/// The plain network side, as it can be asked for while the daemon runs.
pub(crate) trait Bridge: Sockets {
    /// A row for each.
    fn list(&self) -> Vec<Value>;

    /// Adds one, as `--expose` has it, and answers with its row.
    ///
    /// # Errors
    /// `invalid_argument` for what is no such specification; `io` when it cannot be bound; `quota_exceeded`.
    fn expose(&self, specification: &str) -> Result<Value, Error>;

    /// Adds one, as `--forward` has it, and answers with its row.
    ///
    /// # Errors
    /// `invalid_argument` for what is no such specification; `name_taken`; `quota_exceeded`.
    fn forward(&self, specification: &str) -> Result<Value, Error>;

    /// Ends one, by the number in its row, and answers with that row.
    ///
    /// # Errors
    /// `invalid_argument` when there is none of that number.
    fn remove(&self, id: &str) -> Result<Value, Error>;
}
