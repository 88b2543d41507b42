//! PURE. Calls and events over datagrams, made dependable: one client's side, without sockets and without a clock.
//!
//! A datagram may be lost, come twice or come late. [`Courier`] numbers each request, sends it again until its outcome
//! is there, and takes the first outcome alone; the daemon remembers the numbers and runs each at most once. What it
//! cannot know it says: a daemon that has been restarted leaves `outcome_unknown`.
//!
//! | file | noun |
//! |---|---|
//! | `requests` | what is asked for becomes a datagram with a number |
//! | `arrivals` | what a received datagram means |
//! | `open` | requests without an outcome, and when each is sent again |
//! | `acquaintance` | what the daemon gave at the first exchange, and how that is asked for |

mod acquaintance;
mod arrivals;
mod open;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

pub use requests::RequestOptions;

use crate::error::{Error, ErrorCode};
use crate::id::{Epoch, PeerId};
use crate::limits::DEADLINE_GRACE;
use crate::session::{DaemonInfo, Outcome};
use crate::time::Instant;
use crate::wire::datagram::{DATAGRAM_CONTENT_MAX_BYTES, restamp};

use acquaintance::{Acquaintance, Greeting};
use open::{Open, OpenRequests};

/// The first number of a hello.
const HELLO_NUMBERS: u64 = 1 << 63;

/// How a courier presents itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its number for itself: drawn at random for each socket, so that whoever has the same address later is another.
    pub client: u32,
    /// Where the jitter of its pauses begins.
    pub seed: u64,
    /// Whether the kernel tells the daemon who sends, so that a one-way event needs nothing before it.
    pub is_local: bool,
}

/// One request that waits for its outcome; [`Courier::take`] gives it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

impl RequestId {
    /// The number on the wire.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// What a courier has seen of the transport. The numbers only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Datagrams sent once more.
    pub retransmitted: u64,
    /// Datagrams received that say what is known already, or answer nothing that is open.
    pub duplicates: u64,
    /// Received bytes that are no datagram for this client.
    pub malformed: u64,
}

/// Where the datagram that is to be sent next is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    /// At the front of those that are complete in themselves.
    Free,
    /// At the front of those that need epoch and cookie.
    Proven,
    /// In the request of this number.
    Request(u64),
}

/// One client's side of calls and events over datagrams.
///
/// The classes of methods, and the order to call them in:
///
/// 1. Requests ([`call`](Courier::call), [`publish`](Courier::publish), [`ping`](Courier::ping), and those that want no
///    answer).
/// 2. Output: as long as [`transmit`](Courier::transmit) gives a datagram, send it and say so with
///    [`transmitted`](Courier::transmitted).
/// 3. Input: [`handle_datagram`](Courier::handle_datagram) for each received one,
///    [`handle_refused`](Courier::handle_refused) and [`restart`](Courier::restart) when the socket fails,
///    [`handle_timeout`](Courier::handle_timeout) when the time of [`poll_timeout`](Courier::poll_timeout) has come. Then
///    2 again.
/// 4. [`poll_completed`](Courier::poll_completed) names requests that have their outcome.
///
/// Every request has exactly one outcome. A request that nobody waits for is [`abandon`](Courier::abandon)ed.
#[derive(Debug)]
pub struct Courier {
    config: Config,
    daemon: Option<Acquaintance>,
    greeting: Option<Greeting>,
    requests: OpenRequests,
    outcomes: BTreeMap<u64, Outcome>,
    completed: VecDeque<RequestId>,
    /// Complete in themselves.
    free: VecDeque<Vec<u8>>,
    /// Those that need the daemon's epoch and cookie.
    proven: VecDeque<Vec<u8>>,
    /// What was given to be sent and is not said to be sent yet.
    offer: Option<Offer>,
    proven_bytes: usize,
    next_id: u64,
    /// Hellos are numbered by themselves: the daemon does not remember them, and would miss them among the others.
    next_hello: u64,
    /// What wants no answer is numbered by itself, so that it never holds the low-water mark back.
    next_oneway: u64,
    random: u64,
    tally: Tally,
}

impl Courier {
    /// A courier that has said nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            daemon: None,
            greeting: None,
            requests: OpenRequests::default(),
            outcomes: BTreeMap::new(),
            completed: VecDeque::new(),
            free: VecDeque::new(),
            proven: VecDeque::new(),
            offer: None,
            proven_bytes: 0,
            next_id: 1,
            next_hello: HELLO_NUMBERS,
            next_oneway: 1,
            // Zero would stay zero.
            random: config.seed | 1,
            tally: Tally::default(),
            config,
        }
    }

    /// The next datagram to send. Asked again it gives the same one, whatever came between, until
    /// [`transmitted`](Courier::transmitted).
    pub fn transmit(&mut self, now: Instant) -> Option<&[u8]> {
        self.greet_if_needed(now);
        let offer = self.offer.filter(|offer| self.is_there(*offer)).or_else(|| self.next_offer())?;
        self.offer = Some(offer);
        let daemon = self.daemon;
        match offer {
            Offer::Free => self.free.front().map(Vec::as_slice),
            Offer::Proven => {
                let daemon = daemon?;
                let datagram = self.proven.front_mut()?;
                let number = u32::from_le_bytes(datagram.get(12..16)?.try_into().ok()?);
                let open = u32::from_le_bytes(datagram.get(36..40)?.try_into().ok()?);
                restamp(datagram, number, daemon.epoch.0, daemon.cookie, open);
                Some(datagram)
            }
            Offer::Request(id) => {
                let daemon = daemon?;
                let low = self.requests.low_water().unwrap_or(id).min(id);
                let request = self.requests.get_mut(id)?;
                let open = u32::try_from(id - low).unwrap_or(u32::MAX);
                let left = u32::try_from(request.deadline.since(now).as_micros()).unwrap_or(u32::MAX);
                restamp(&mut request.datagram, left, daemon.epoch.0, daemon.cookie, open);
                Some(&request.datagram)
            }
        }
    }

    /// The datagram that [`transmit`](Courier::transmit) gave was sent, or is given up: what matters comes again.
    pub fn transmitted(&mut self, now: Instant) {
        match self.offer.take() {
            Some(Offer::Free) => drop(self.free.pop_front()),
            Some(Offer::Proven) => {
                self.proven_bytes -= self.proven.pop_front().map_or(0, |datagram| datagram.len());
            }
            Some(Offer::Request(id)) => {
                let Some(daemon) = self.daemon else { return };
                let jitter = self.draw();
                self.tally.retransmitted += u64::from(self.requests.sent(now, id, daemon.epoch, jitter));
            }
            None => {}
        }
    }

    fn next_offer(&self) -> Option<Offer> {
        if !self.free.is_empty() {
            return Some(Offer::Free);
        }
        self.daemon.filter(|_| self.greeting.is_none())?;
        if !self.proven.is_empty() {
            return Some(Offer::Proven);
        }
        self.requests.next_ready().map(Offer::Request)
    }

    fn is_there(&self, offer: Offer) -> bool {
        match offer {
            Offer::Free => !self.free.is_empty(),
            Offer::Proven => !self.proven.is_empty(),
            Offer::Request(id) => self.requests.is_ready(id),
        }
    }

    /// Does what is due at `now`; calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(id) = self.requests.take_due(now) {
            let Some(request) = self.requests.get_mut(id) else { continue };
            if now >= request.deadline + DEADLINE_GRACE {
                let error = expired(request, self.daemon.is_some());
                self.conclude(id, Err(error));
            } else if request.is_greeting {
                let hello = request.datagram.clone();
                self.free.push_back(hello);
                let jitter = self.draw();
                self.tally.retransmitted += u64::from(self.requests.sent(now, id, Epoch(0), jitter));
            } else {
                self.requests.make_ready(id);
            }
        }
        self.greet_again(now);
    }

    /// When to call [`handle_timeout`](Courier::handle_timeout) next. It may be early, never late.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let greeting = self.greeting.as_ref().map(|greeting| greeting.again_at);
        greeting.into_iter().chain(self.requests.earliest()).min()
    }

    /// The system says that nobody has the address any more: what was not sent will not be. What was sent is sent again
    /// until its deadline: the daemon may come back, and then says that it does not know.
    pub fn handle_refused(&mut self, reason: &str) {
        let error = Error::new(ErrorCode::Unreachable, format!("the daemon is not there: {reason}"))
            .with_hint("is ipc-daemon running? start it with `ipc-daemon`");
        for id in self.requests.never_sent() {
            self.conclude(id, Err(error.clone()));
        }
        self.greeting = None;
        self.offer = None;
        self.free.clear();
        self.proven.clear();
        self.proven_bytes = 0;
    }

    /// Goes on over a new socket under another number, because the daemon that the old one led to has ended. What was
    /// sent to that one has an unknown outcome; the rest goes to whoever is there now.
    pub fn restart(&mut self) {
        let client = self.config.client.wrapping_add(1);
        for id in self.requests.ever_sent() {
            self.conclude(id, Err(outcome_unknown("the daemon ended before it answered")));
        }
        self.config.client = client;
        self.requests.readdress(client);
        for datagram in &mut self.proven {
            datagram[32..36].copy_from_slice(&client.to_le_bytes());
        }
        self.daemon = None;
        self.greeting = None;
        self.offer = None;
        self.free.clear();
    }

    /// The next request that has got its outcome.
    pub fn poll_completed(&mut self) -> Option<RequestId> {
        self.completed.pop_front()
    }

    /// The outcome of a request, once it is there; it is given once.
    pub fn take(&mut self, request: RequestId) -> Option<Outcome> {
        self.outcomes.remove(&request.0)
    }

    /// Nobody waits for this request any more: a call is cancelled, an outcome that was there is thrown away.
    pub fn abandon(&mut self, request: RequestId) {
        self.outcomes.remove(&request.0);
        self.completed.retain(|completed| *completed != request);
        if let Some(open) = self.requests.remove(request.0)
            && open.sent_under.is_some()
            && !open.is_greeting
        {
            self.queue_cancel(request.0);
        }
    }

    /// Asks the daemon to cancel a request, which then ends with `cancelled` or with what overtook it.
    pub fn cancel(&mut self, request: RequestId) {
        if self.requests.get_mut(request.0).is_some_and(|open| open.sent_under.is_some() && !open.is_greeting)
        {
            self.queue_cancel(request.0);
        }
    }

    /// Whether a daemon of this machine is spoken to over a socket of its file system.
    pub fn is_local(&self) -> bool {
        self.config.is_local
    }

    /// Requests without an outcome.
    pub fn open_requests(&self) -> usize {
        self.requests.len()
    }

    /// Whether something that wants no answer waits for the daemon's first one.
    pub fn is_holding(&self) -> bool {
        !self.proven.is_empty()
    }

    /// Whether the daemon has answered at all.
    pub fn is_acquainted(&self) -> bool {
        self.daemon.is_some()
    }

    /// What is known of the daemon. Over datagrams that is its epoch and how much it allows.
    pub fn daemon(&self) -> Option<DaemonInfo> {
        let daemon = self.daemon?;
        Some(DaemonInfo {
            protocol: crate::wire::VERSION_MAX,
            features: 0,
            epoch: daemon.epoch,
            peer: PeerId(0),
            // Below 64 KiB.
            payload_max_bytes: DATAGRAM_CONTENT_MAX_BYTES as u32,
            handles_max: 0,
            pending_calls_max: daemon.requests_max,
            server: String::new(),
        })
    }

    /// What was seen of the transport.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    fn conclude(&mut self, id: u64, outcome: Outcome) {
        if self.requests.remove(id).is_some() {
            self.outcomes.insert(id, outcome);
            self.completed.push_back(RequestId(id));
        }
    }

    /// A number between 0 and 1 for the next pause (xorshift64, Marsaglia 2003).
    fn draw(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 40) as f64 / (1u64 << 24) as f64
    }
}

fn expired(request: &Open, was_heard: bool) -> Error {
    if request.sent_under.is_none() || (request.is_greeting && !was_heard) {
        return Error::new(
            ErrorCode::Unreachable,
            "the daemon did not answer in time; the request did not run",
        )
        .with_hint(
            "see whether ipc-daemon runs and listens there, and whether the transport loses everything",
        );
    }
    Error::new(ErrorCode::DeadlineExceeded, "no outcome came in time; the request may have run")
}

fn outcome_unknown(what: &str) -> Error {
    Error::new(ErrorCode::OutcomeUnknown, format!("{what}; the request may have run"))
        .with_hint("whether to ask again depends on what it does")
}
