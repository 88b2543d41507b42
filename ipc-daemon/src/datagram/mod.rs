//! PURE. The daemon's side of datagrams: from what a sender says in one datagram to a call on the bus that runs at most once.
//!
//! Each sender is a client of the bus with a [`Session`] of its own, like the daemon's own service; here is what makes its
//! calls dependable: who has proved that answers reach it, which requests are remembered and with which outcome, and when an
//! answer is sent again.
//!
//! | file | noun |
//! |---|---|
//! | `source`, `cookie` | who sent a datagram, and the proof that answers reach it |
//! | `arrivals` | what a received datagram means |
//! | `client` | one sender: its session and its requests |
//! | `window`, `recent` | requests that are remembered, one-way requests that have come |
//! | `outcomes`, `flow` | what a request came to, and how much of it may be on its way to its client |
//! | `forgetting` | what ends with time |
//! | `counters` | what has happened so far, in numbers |

mod arrivals;
mod client;
mod cookie;
mod counters;
mod flow;
mod forgetting;
mod outcomes;
mod recent;
mod source;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use ipc_core::id::Epoch;
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::session::Session;
use ipc_core::time::Instant;
use ipc_core::{Error, ErrorCode};
use slotmap::SlotMap;

use client::Client;
use cookie::Cookies;
pub use counters::Counters;
use source::Sender;
pub use source::Source;

slotmap::new_key_type! {
    /// One sender of datagrams, as long as something is remembered of it.
    pub struct ClientKey;
}

/// What a door is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// What it allows.
    pub limits: Limits,
    /// This life of the daemon.
    pub epoch: Epoch,
    /// The key of the cookies; the shell draws it at random.
    pub cookie_key: [u64; 2],
}

/// A datagram to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// To whom.
    pub to: Source,
    /// All of it.
    pub datagram: Bytes,
    /// What to give back to [`Door::unsent`] when the system does not take it; without one it is just lost.
    pub receipt: Option<Receipt>,
}

/// Which outcome a datagram holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    client: ClientKey,
    id: u64,
}

/// What the shell is to do. It asks for these after each input, until there are none.
#[derive(Debug)]
pub enum Output {
    /// Connect this client to the bus, as [`Door::identity`] says; if the bus refuses, call [`Door::refused`].
    Connect(ClientKey),
    /// Hand what [`Door::transmit`] gives to the bus.
    Transmit(ClientKey),
    /// End this client's connection to the bus.
    Disconnect(ClientKey),
    /// Send a datagram, without waiting.
    Send(Outgoing),
}

/// All senders of datagrams.
///
/// The classes of methods, and the order to call them in:
///
/// 1. **Inputs** [`handle_datagram`](Door::handle_datagram), [`handle_input`](Door::handle_input) and
///    [`handle_end`](Door::handle_end) of a client's connection to the bus, [`refused`](Door::refused),
///    [`unsent`](Door::unsent), [`handle_timeout`](Door::handle_timeout).
/// 2. **Outputs** [`poll_output`](Door::poll_output), until it gives `None`.
/// 3. **Time** [`poll_timeout`](Door::poll_timeout): when `handle_timeout` is due.
#[derive(Debug)]
pub struct Door {
    config: Config,
    cookies: Cookies,
    clients: SlotMap<ClientKey, Client>,
    by_sender: BTreeMap<Sender, ClientKey>,
    outputs: VecDeque<Output>,
    /// Clients to whom something is to be sent again, because the system did not take it.
    retries: BTreeSet<(Instant, ClientKey)>,
    /// When to look for what can be forgotten.
    sweep_at: Option<Instant>,
    /// Requests remembered in all.
    remembered: usize,
    /// Bytes of outcomes kept in all.
    kept_bytes: usize,
    counters: Counters,
    is_draining: bool,
}

impl Door {
    /// A door that nobody has come to.
    pub fn new(config: Config) -> Self {
        Self {
            cookies: Cookies::new(config.cookie_key),
            clients: SlotMap::with_key(),
            by_sender: BTreeMap::new(),
            outputs: VecDeque::new(),
            retries: BTreeSet::new(),
            sweep_at: None,
            remembered: 0,
            kept_bytes: 0,
            counters: Counters::default(),
            is_draining: false,
            config,
        }
    }

    /// Other limits from here on. What is over a lowered limit stays.
    pub fn set_limits(&mut self, limits: Limits) {
        self.config.limits = limits;
    }

    /// Takes no new requests from here on; open ones may end.
    pub fn begin_drain(&mut self) {
        self.is_draining = true;
    }

    /// The next thing to do for the shell.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front()?;
        if let Output::Transmit(key) = output
            && let Some(client) = self.clients.get_mut(key)
        {
            client.is_touched = false;
        }
        Some(output)
    }

    /// When [`handle_timeout`](Door::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let retry = self.retries.first().map(|(at, _)| *at);
        retry.into_iter().chain(self.sweep_at).min()
    }

    /// Who a client is, as the kernel or its address says.
    pub fn identity(&self, client: ClientKey) -> Option<Identity> {
        self.clients.get(client).map(|client| client.sender.source.identity())
    }

    /// Whether a client is a process of this machine.
    pub fn is_local(&self, client: ClientKey) -> bool {
        self.clients.get(client).is_some_and(|client| client.sender.source.is_local())
    }

    /// What to hand to the bus for a client, in order.
    pub fn transmit(&self, client: ClientKey) -> impl Iterator<Item = &[u8]> {
        let session = self.clients.get(client).and_then(|client| client.session.as_ref());
        session.map(Session::transmit).into_iter().flatten()
    }

    /// The bus has that many bytes of what [`transmit`](Door::transmit) gave.
    pub fn transmitted(&mut self, client: ClientKey, bytes: usize) {
        if let Some(session) = self.clients.get_mut(client).and_then(|client| client.session.as_mut()) {
            session.transmitted(bytes);
        }
    }

    /// Bytes from the bus for a client.
    pub fn handle_input(&mut self, now: Instant, key: ClientKey, mut bytes: &[u8]) {
        let Some(session) = self.clients.get_mut(key).and_then(|client| client.session.as_mut()) else {
            return;
        };
        session.handle_input(now, &mut bytes);
        self.start_held(now, key);
        self.collect(now, key);
    }

    /// The bus has ended a client's connection.
    pub fn handle_end(&mut self, now: Instant, key: ClientKey) {
        let Some(mut session) = self.clients.get_mut(key).and_then(|client| client.session.take()) else {
            return;
        };
        session.handle_eof(Some("the bus has ended the connection of this client"));
        let tickets = self.clients.get_mut(key).map(|client| core::mem::take(&mut client.tickets));
        for (ticket, id) in tickets.unwrap_or_default() {
            if let Some(outcome) = session.take(ticket) {
                self.conclude(now, key, id, outcome);
            }
        }
        let ended = session.ended().cloned();
        let unknown = || Error::new(ErrorCode::Unreachable, "the connection to the bus has ended");
        self.refused(now, key, &ended.unwrap_or_else(unknown));
    }

    /// The bus has not let a client in, or not for longer: what has not begun by now does not run.
    pub fn refused(&mut self, now: Instant, key: ClientKey, error: &Error) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.session = None;
        client.held.clear();
        for id in client.window.running() {
            self.conclude(now, key, id, Err(error.clone()));
        }
    }

    /// What has happened so far.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.counters.by_name()
    }

    /// Senders that something is remembered of.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Requests that are remembered, and bytes of their outcomes.
    pub fn remembered(&self) -> (usize, usize) {
        (self.remembered, self.kept_bytes)
    }
}
