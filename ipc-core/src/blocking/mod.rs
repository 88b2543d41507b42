//! SHELL. The client for programs without a runtime: plain sockets, no hidden threads.
//!
//! [`Client`] is one connection in the hands of one thread. It is the same state machine as the async client's over plain
//! reads and writes: a call is one system call to send and one to receive. Nothing happens between calls: events and calls
//! to one's own services wait in the socket until [`Client`] reads again.
//!
//! ```no_run
//! use ipc_core::blocking::Client;
//!
//! let mut client = Client::connect(Default::default())?;
//! let reply = client.call("demo.title", "title", "hello world")?;
//! println!("{}", reply.payload.as_text()?);
//! # Ok::<(), ipc_core::Error>(())
//! ```
//!
//! | file | noun |
//! |---|---|
//! | `client` | connecting, closing, and what the daemon said about itself |
//! | `pump` | bytes out, bytes in, and waiting for an outcome |
//! | `link` | the socket |
//! | `call` | calls, one at a time or many at once |
//! | `publish` | publishing, subscriptions and watches over names |
//! | `hold` | locks, semaphores, elections, barriers and leases |
//! | `keys` | keys and watches over them |
//! | `queues` | work queues |
//! | `service`, `serve` | offering methods, and serving their calls |
//! | `inherited` | the deadline of the call that is being served |
//! | `reconnect` | a new connection with everything made again |
//!
//! # Deadlines
//!
//! Every call has one: its own, else [`ConnectOptions::call_timeout`](crate::ConnectOptions::call_timeout). The daemon keeps it and answers
//! `deadline_exceeded`; only when the daemon itself does not answer does the client give up, a little later. While a call is
//! being served, calls made by the same thread, over whichever client, inherit what is left of that call's deadline.
//!
//! # Without waiting
//!
//! [`Client::try_next`], [`Client::serve_next`] with no time and [`Client::try_wait`] read what is there and return. To wait for
//! the bus among other things, poll(2) the client's descriptor ([`AsFd`](std::os::fd::AsFd)) for reading, call these until they
//! have nothing more, and call [`Client::flush`] before sleeping again.

mod call;
mod client;
mod hold;
mod inherited;
mod keys;
mod link;
mod publish;
mod pump;
mod queues;
mod reconnect;
mod serve;
mod service;
#[cfg(test)]
mod tests;

pub use call::{Method, PendingCall};
pub use client::Client;
pub use hold::Hold;
pub use inherited::remaining;
pub use keys::KeyWatch;
pub use publish::{NameWatch, Subscription};
pub use queues::{Consumer, Taken};
pub use reconnect::Reconnected;
pub use serve::{Serving, ServingState};
pub use service::{Request, Service};

pub use crate::error::ServiceError;
pub use crate::options::{Backoff, CallOptions, ConnectOptions};
pub use crate::session::{
    Committed, Condition, ConsumeOptions, DaemonInfo, Delivery, DeliveryRef, Durability, EntryOptions,
    EntryPut, EntryState, EventRef, HoldOptions, KeyChange, KeyEvent, KeyOptions, KeyValue, Lost, Missed,
    NackOptions, NameChange, NameEvent, Overflow, Passed, PeekedEntry, Published, QueueCounts, Received,
    Reply, Selection, SubscribeOptions, TakeOptions, Transacted, Transaction, Work,
};
