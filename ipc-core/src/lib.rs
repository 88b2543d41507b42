//! Wire protocol and client library of the ipc message bus.
//!
//! ```no_run
//! # #[cfg(feature = "client")]
//! # async fn example() -> Result<(), ipc_core::Error> {
//! use ipc_core::{Client, ConnectOptions, Service, ServiceError, service::Request};
//!
//! let client = Client::connect(ConnectOptions::new()).await?;
//! let shout = async |request: Request| Ok::<_, ServiceError>(request.payload.as_text()?.to_uppercase());
//! let _serving = client.serve(Service::new("demo.shout")?.method("shout", shout)).await?;
//! let reply = client.call("demo.shout", "shout", "hello").await?;
//! assert_eq!(reply.payload.as_text()?, "HELLO");
//! # Ok(())
//! # }
//! ```
//!
//! The module map, from the bottom up:
//!
//! | module | colour | what it holds |
//! |---|---|---|
//! | [`name`], [`id`], [`limits`], [`time`], [`identity`], [`payload`], [`error`] | PURE | the vocabulary: parsed once, valid after |
//! | [`wire`] | PURE | bytes to frames and back |
//! | [`session`] | PURE | one end of one conversation, without sockets and without a clock |
//! | [`transport`] | SHELL | kernel sockets, and where they are |
//! | [`client`], [`service`] | SHELL | the async client, and how a process offers methods |
//! | [`ConnectOptions`], [`CallOptions`], [`PublishOptions`], [`Backoff`] | SHELL | what both clients can be told |
//! | [`blocking`] | SHELL | the client for programs without a runtime |

#[cfg(feature = "blocking")]
pub mod blocking;
#[cfg(feature = "client")]
pub mod client;
pub mod error;
pub mod id;
pub mod identity;
pub mod limits;
pub mod name;
#[cfg(feature = "transport")]
mod options;
pub mod payload;
#[cfg(feature = "client")]
pub mod service;
pub mod session;
pub mod time;
#[cfg(feature = "transport")]
pub mod transport;
pub mod wire;

#[cfg(feature = "client")]
pub use client::{Client, Hold};
pub use error::{Error, ErrorCode, ServiceError};
pub use identity::{Identity, Peer};
#[cfg(feature = "transport")]
pub use options::{Backoff, CallOptions, ConnectOptions, PublishOptions};
pub use payload::{Payload, PayloadKind};
#[cfg(feature = "client")]
pub use service::Service;
pub use session::HoldOptions;
#[cfg(feature = "transport")]
pub use transport::Address;
