//! What the daemon gave at the first exchange, and how that is asked for.

use core::time::Duration;

use super::Courier;
use super::open::pause;
use crate::id::Epoch;
use crate::time::Instant;
use crate::wire::datagram::{DatagramHeader, DatagramKind, encode_bare};

/// How long what the daemon gave is taken for good while nothing is heard of it. Well below the time for which the daemon
/// itself does, so that a restart while nothing is under way costs a round trip and no outcome.
const TRUSTED_FOR: Duration = Duration::from_secs(10);

/// What the daemon is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acquaintance {
    pub(super) epoch: Epoch,
    pub(super) cookie: u64,
    /// Most requests it lets this client have open.
    pub(super) requests_max: u32,
    pub(super) heard_at: Instant,
}

/// A hello without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) id: u64,
    pub(super) attempts: u32,
    pub(super) again_at: Instant,
}

impl Courier {
    /// Says hello when something waits that needs the daemon's word, and there is none, or an old one.
    pub(super) fn greet_if_needed(&mut self, now: Instant) {
        if self.greeting.is_some() || (self.proven.is_empty() && self.requests.next_ready().is_none()) {
            return;
        }
        if self.daemon.is_some_and(|daemon| now.since(daemon.heard_at) < TRUSTED_FOR) {
            return;
        }
        let id = self.next_hello();
        let again_at = now + pause(1, self.draw());
        self.greeting = Some(Greeting { id, attempts: 1, again_at });
        self.queue_hello(id);
    }

    /// Repeats a hello that was not answered, as long as somebody waits for it.
    pub(super) fn greet_again(&mut self, now: Instant) {
        let Some(greeting) = self.greeting.filter(|greeting| now >= greeting.again_at) else { return };
        if self.proven.is_empty() && self.requests.next_ready().is_none() {
            self.greeting = None;
            return;
        }
        let attempts = greeting.attempts + 1;
        let again_at = now + pause(attempts, self.draw());
        self.greeting = Some(Greeting { attempts, again_at, ..greeting });
        self.tally.retransmitted += 1;
        self.queue_hello(greeting.id);
    }

    fn queue_hello(&mut self, id: u64) {
        let hello = self.hello(id);
        self.free.push_back(hello);
    }

    /// A hello with that number.
    pub(super) fn hello(&self, id: u64) -> Vec<u8> {
        let header =
            DatagramHeader { client: self.config.client, id, ..DatagramHeader::new(DatagramKind::Hello) };
        encode_bare(header).to_vec()
    }

    /// The daemon has said who it is.
    pub(super) fn acquaint(&mut self, now: Instant, header: &DatagramHeader) {
        let requests_max = match (header.kind, self.daemon) {
            (DatagramKind::Challenge, _) => header.number.max(1),
            (_, Some(known)) => known.requests_max,
            (_, None) => 1,
        };
        let epoch = Epoch(header.epoch);
        self.daemon = Some(Acquaintance { epoch, cookie: header.cookie, requests_max, heard_at: now });
    }

    /// A sign of life of the daemon that is known.
    pub(super) fn heard(&mut self, now: Instant, header: &DatagramHeader) {
        if let Some(daemon) = &mut self.daemon
            && daemon.epoch.0 == header.epoch
        {
            daemon.heard_at = now;
        }
    }
}
