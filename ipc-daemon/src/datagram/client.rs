//! One sender of datagrams: its connection to the bus and its requests.

use std::collections::{BTreeMap, VecDeque};

use ipc_core::session::{self, HandleKey, Session, State, Ticket};
use ipc_core::time::Instant;

use super::flow::Flow;
use super::recent::Recent;
use super::source::Sender;
use super::window::Window;
use super::{ClientKey, Door, Output};

/// What the peer of a sender of datagrams calls itself.
const PROGRAM: &str = "datagrams";
/// The longest envelope that is remembered: the longest names are longer, and seldom.
pub(super) const NAMED_MAX_BYTES: usize = 128;
/// Datagrams that wait until the bus has answered the hello of their client.
const HELD_MAX: usize = 1024;

/// A cookie that came back, so that answers reach its sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof {
    pub(super) cookie: u64,
    /// Until when it was found to be good, so that it need not be computed for each datagram.
    pub(super) until: Instant,
}

/// The method that a sender has called last, and the envelope by which it named it.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) envelope: Box<[u8]>,
    pub(super) method: HandleKey,
}

/// What is remembered of one sender.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) sender: Sender,
    /// What it has proved last; none for one that needs no cookie.
    pub(super) proof: Option<Proof>,
    /// When it sent something last.
    pub(super) active_at: Instant,
    pub(super) window: Window,
    pub(super) recent: Recent,
    pub(super) flow: Flow,
    /// Bytes of outcomes that are kept for it.
    pub(super) kept_bytes: usize,
    /// Its end of its connection to the bus, while there is one.
    pub(super) session: Option<Session>,
    /// What it has called last, by the handle of its session.
    pub(super) named: Option<Named>,
    /// Which request a ticket of the session is for.
    pub(super) tickets: BTreeMap<Ticket, u64>,
    /// Datagrams that wait until the bus has answered the hello.
    pub(super) held: VecDeque<Vec<u8>>,
    /// The shell has been told to hand bytes to the bus, and has not done so.
    pub(super) is_touched: bool,
}

impl Client {
    pub(super) fn new(now: Instant, sender: Sender, proof: Option<Proof>, low_water: u64) -> Self {
        Self {
            sender,
            proof,
            active_at: now,
            window: Window::new(low_water),
            recent: Recent::default(),
            flow: Flow::default(),
            kept_bytes: 0,
            session: None,
            named: None,
            tickets: BTreeMap::new(),
            held: VecDeque::new(),
            is_touched: false,
        }
    }

    /// The cookie it is known by, 0 for none.
    pub(super) fn cookie(&self) -> u64 {
        self.proof.map_or(0, |proof| proof.cookie)
    }
}

impl Door {
    /// Has a request run, now or as soon as its client is connected to the bus. `false` when too many wait.
    pub(super) fn run(&mut self, now: Instant, key: ClientKey, datagram: &[u8]) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return false };
        let state = client.session.as_ref().map(Session::state);
        if state == Some(State::Open) {
            self.start(now, key, datagram);
            return true;
        }
        if client.held.len() >= HELD_MAX {
            return false;
        }
        client.held.push_back(datagram.to_vec());
        if state.is_none() {
            let config =
                session::Config { name: PROGRAM.to_owned(), preamble: false, ..session::Config::default() };
            client.session = Some(Session::connect(config, now));
            // Handles are those of a session.
            client.named = None;
            self.outputs.push_back(Output::Connect(key));
            self.touch(key);
        }
        true
    }

    /// Runs what has waited for the bus's answer to the hello.
    pub(super) fn start_held(&mut self, now: Instant, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.session.as_ref().map(Session::state) != Some(State::Open) {
            return;
        }
        for datagram in core::mem::take(&mut client.held) {
            self.start(now, key, &datagram);
        }
    }

    /// Sees to it that the shell hands what is due to the bus.
    pub(super) fn touch(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key)
            && !client.is_touched
            && client.session.as_ref().is_some_and(|session| session.pending_bytes() > 0)
        {
            client.is_touched = true;
            self.outputs.push_back(Output::Transmit(key));
        }
    }
}
