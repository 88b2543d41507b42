//! PURE. One end of one conversation with the daemon, as a state machine that is given bytes and time.
//!
//! [`Session`] is the heart of the async client, the blocking client, the daemon's own service and the plain TCP door;
//! they differ only in how they move bytes.
//!
//! | file | noun |
//! |---|---|
//! | `config` | how a session presents itself |
//! | `state`, `handshake` | where the conversation stands, and how it begins |
//! | `requests`, `dispatch` | what goes out, what comes in |
//! | `mail`, [`courier`] | the same requests over datagrams instead of a stream |
//! | `drain` | events handed on without being kept |
//! | `foreign` | what other clients wrote, which the daemon has not read |
//! | `addressed` | calls and events on their way |
//! | `inflight` | requests that wait for their one outcome |
//! | `handles`, `announced` | our numbers for names, the daemon's numbers for peers and topics |
//! | `registrations`, `inbound` | services we offer, calls we are serving |
//! | `holds`, `coordination`, `coordinated` | locks and the like, with their time to live; what is asked for and told of them |
//! | `tenure` | what is held over a restart of the daemon |
//! | `key`, `keys` | what is said of keys; keys and watches over them |
//! | `work`, `queues` | what is said of work queues; entries and consumers |
//! | `subscriptions`, `watches` | events and changes of names, with what was not taken yet |
//! | `revoked` | what is taken away when the daemon's rules change |
//! | `output` | bytes on their way to the daemon |
//! | `slab`, `tag` | slots with generations, under most of these; whose key a correlation is |

mod addressed;
mod announced;
mod config;
mod coordinated;
mod coordination;
pub mod courier;
mod dispatch;
mod drain;
mod event;
mod foreign;
mod handles;
mod handshake;
mod holds;
mod inbound;
mod inflight;
mod key;
mod keys;
mod mail;
mod output;
mod queues;
mod registrations;
mod requests;
mod revoked;
mod slab;
mod state;
mod subscriptions;
mod tag;
mod tenure;
#[cfg(test)]
mod tests;
mod watches;
mod work;

use std::collections::VecDeque;

pub use config::Config;
pub use coordination::{HoldOptions, Wanted};
pub use drain::Drain;
pub use event::{
    Answer, ConsumerKey, DaemonInfo, Delivery, DeliveryRef, Event, EventRef, HoldKey, InboundKey, Incoming,
    KeyWatchKey, Leader, Lost, Missed, NameChange, NameEvent, ObservationKey, Observed, Outcome, Passed,
    Published, Received, RegistrationKey, Reply, SubscriptionKey, Ticket, WatchKey,
};
pub use handles::HandleKey;
pub use holds::HoldState;
pub use key::{
    Committed, Condition, Durability, KeyChange, KeyEvent, KeyOptions, KeyPage, KeyValue, Selection,
    Transacted, Transaction,
};
pub use registrations::{Offer, OfferedMethod};
pub use requests::CallOptions;
pub use state::{State, Trigger};
pub use subscriptions::{Deliveries, SubscribeOptions};
pub use tenure::{SECRET_BYTES, Secret};
pub use work::{
    ConsumeOptions, EntryOptions, EntryPut, EntryState, NackOptions, Overflow, PeekedEntry, QueueCounts,
    TakeOptions, Work, WorkEvent,
};

use crate::error::{Error, ErrorCode};
use crate::id::Epoch;
use crate::limits::OUTPUT_MARK_BYTES;
use crate::time::Instant;
use crate::wire::codec::Wire;
use crate::wire::message::Close;
use crate::wire::{Decoder, Header, Kind, PREAMBLE, WireError};

use announced::Announced;
use coordination::Observation;
use handles::Handles;
use holds::Holds;
use inbound::Inbound;
use inflight::{Inflight, Purpose};
use keys::KeyWatch;
use mail::Mail;
use output::Output;
use queues::Consuming;
use registrations::Registrations;
use slab::Slab;
use subscriptions::Subscription;
use watches::Watch;

/// One end of one conversation.
///
/// The classes of methods, and the order to call them in:
///
/// 1. [`connect`](Session::connect) makes a session whose hello waits to be written. Requests may follow at once,
///    without waiting for the daemon.
/// 2. Requests ([`call`](Session::call), [`publish`](Session::publish), [`subscribe`](Session::subscribe),
///    [`register`](Session::register), ...) queue bytes and mostly give a [`Ticket`].
/// 3. Output: write the pieces of [`transmit`](Session::transmit) and say with
///    [`transmitted`](Session::transmitted) how many bytes the kernel took, until nothing is left.
/// 4. Input: [`handle_input`](Session::handle_input) with what was read, [`handle_eof`](Session::handle_eof) when
///    the stream has ended or failed, [`handle_timeout`](Session::handle_timeout) when the time of
///    [`poll_timeout`](Session::poll_timeout) has come.
/// 5. After each input, until all say `None`: [`poll_call`](Session::poll_call),
///    [`poll_completed`](Session::poll_completed) and [`poll_event`](Session::poll_event). Whoever waits for one
///    request alone asks [`take`](Session::take) directly. Input may have produced output: go to 3.
/// 6. Once [`state`](Session::state) is [`State::Closed`], write what is left and drop the connection.
///    [`restart`](Session::restart) goes on over a new one, with the same subscriptions and registrations.
///
/// Every request has exactly one outcome. A request whose future is gone is [`abandon`](Session::abandon)ed.
#[derive(Debug)]
pub struct Session {
    config: Config,
    state: State,
    decoder: Decoder,
    output: Output,
    inflight: Inflight,
    handles: Handles,
    registrations: Registrations,
    inbound: Inbound,
    subscriptions: Slab<Subscription>,
    watches: Slab<Watch>,
    holds: Holds,
    /// The daemon has been told, or is being told, who this is.
    is_identified: bool,
    observations: Slab<Observation>,
    key_watches: Slab<KeyWatch>,
    consumers: Slab<Consuming>,
    announced: Announced,
    calls: VecDeque<Incoming>,
    events: VecDeque<Event>,
    daemon: Option<DaemonInfo>,
    /// The life of the daemon that the connection before this one was to, after a restart.
    epoch_before: Option<Epoch>,
    hello_deadline: Instant,
    /// Why the conversation is over.
    ended: Option<Error>,
    /// What carries it, when that is no stream.
    mail: Option<Mail>,
}

impl Session {
    /// A session at the beginning of a conversation: its hello waits to be written.
    pub fn connect(config: Config, now: Instant) -> Self {
        let mut session = Self::new(config, now);
        session.greet();
        session
    }

    fn new(config: Config, now: Instant) -> Self {
        Self {
            state: State::Greeting,
            decoder: Decoder::new(handshake::LIMITS_BEFORE_WELCOME),
            output: Output::default(),
            inflight: Inflight::new(config.reports_completions),
            handles: Handles::new(),
            registrations: Registrations::new(),
            inbound: Inbound::new(),
            subscriptions: Slab::new(),
            watches: Slab::new(),
            holds: Holds::default(),
            is_identified: false,
            observations: Slab::new(),
            key_watches: Slab::new(),
            consumers: Slab::new(),
            announced: Announced::default(),
            calls: VecDeque::new(),
            events: VecDeque::new(),
            daemon: None,
            epoch_before: None,
            hello_deadline: now + config.hello_timeout,
            ended: None,
            mail: None,
            config,
        }
    }

    /// Goes on over a new connection: says hello, subscribes, watches and registers again, all in one go.
    /// Does nothing unless the session is closed.
    pub fn restart(&mut self, now: Instant) {
        let Some(state) = self.state.next(Trigger::Restart) else { return };
        self.state = state;
        self.decoder = Decoder::new(handshake::LIMITS_BEFORE_WELCOME);
        self.output.clear();
        self.handles.restart();
        self.announced.clear();
        self.calls.clear();
        self.epoch_before = self.daemon.as_ref().map(|daemon| daemon.epoch).or(self.epoch_before);
        self.hello_deadline = now + self.config.hello_timeout;
        self.ended = None;
        if self.mail.is_some() {
            return self.restart_mail(now);
        }
        self.greet();
        self.identify_again(now);
        self.ask_again();
        self.watch_keys_again();
        self.consume_again();
    }

    fn greet(&mut self) {
        if self.config.preamble {
            self.output.raw(&PREAMBLE);
        }
        let hello = handshake::hello(&self.config.name);
        self.send_control(Header::new(Kind::HELLO), &hello);
    }

    /// Takes in what was read; all of it is consumed.
    pub fn handle_input(&mut self, now: Instant, input: &mut &[u8]) {
        self.handle_input_with(now, input, None);
    }

    /// As [`handle_input`](Session::handle_input), and hands the events of one subscription on at once.
    pub fn handle_input_with(&mut self, now: Instant, input: &mut &[u8], mut drain: Option<Drain<'_>>) {
        if self.mail.is_some() {
            return self.receive_mail(now, core::mem::take(input));
        }
        // Frames borrow from the decoder, so it stands beside the session while they are handled.
        let mut decoder =
            core::mem::replace(&mut self.decoder, Decoder::new(handshake::LIMITS_BEFORE_WELCOME));
        loop {
            if !self.state.takes_requests() {
                // Over, or about to be: what still arrives does not count.
                *input = &[];
                break;
            }
            let was_greeting = self.state == State::Greeting;
            let handled = match decoder.next(input) {
                Ok(Some(frame)) => match &mut drain {
                    Some(drain) if self.can_drain(&frame, drain) => self.drain_event(&frame, drain),
                    Some(_) | None => self.handle_frame(now, frame),
                },
                Ok(None) => break,
                Err(error) => Err(error),
            };
            if let Err(error) = handled {
                self.violated(error);
            }
            if was_greeting && self.state == State::Open {
                decoder.set_limits(handshake::LIMITS_AFTER_WELCOME);
            }
        }
        self.decoder = decoder;
    }

    /// While a large frame is unfinished: the buffer to read into and how many bytes at most, so that they need not be
    /// copied. Call [`handle_input`](Session::handle_input) with an empty input afterwards.
    pub fn direct(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        self.decoder.direct()
    }

    /// The stream has ended, or failed as `failure` says.
    pub fn handle_eof(&mut self, failure: Option<&str>) {
        let what = failure.unwrap_or("the daemon closed the connection");
        self.lose_mail(what);
        let error = match self.state {
            State::Greeting => {
                let message = format!("{what} before it answered the hello");
                Error::new(ErrorCode::Unreachable, message)
                    .with_hint("see whether the socket belongs to an ipc daemon, and what its log says")
            }
            State::Open | State::Closing | State::Closed => Error::new(ErrorCode::Unreachable, what),
        };
        self.end(error);
    }

    /// Does what is due at `now`; calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tick_mail(now);
        let expired = self.inflight.expire(now);
        self.drop_unmade(expired);
        self.keep_holds(now);
        if self.state == State::Greeting && now >= self.hello_deadline {
            let message =
                format!("the daemon did not answer the hello within {:?}", self.config.hello_timeout);
            self.end(Error::new(ErrorCode::Unreachable, message).with_hint(
                "it accepted the connection but does not run: see whether it is stopped or overloaded",
            ));
        }
    }

    /// When to call [`handle_timeout`](Session::handle_timeout) next. It may be early, never late.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let hello = (self.state == State::Greeting).then_some(self.hello_deadline);
        let mail = self.mail.as_ref().and_then(Mail::poll_timeout);
        let holds = self.holds.due();
        hello.into_iter().chain(self.inflight.earliest()).chain(mail).chain(holds).min()
    }

    /// The next call to be served.
    pub fn poll_call(&mut self) -> Option<Incoming> {
        self.calls.pop_front()
    }

    /// The next request that has got its outcome, if the configuration asks for reports.
    pub fn poll_completed(&mut self) -> Option<Ticket> {
        self.inflight.poll_completed()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The outcome of a request, once it is there; it is given once.
    pub fn take(&mut self, ticket: Ticket) -> Option<Outcome> {
        self.inflight.take(ticket)
    }

    /// The pieces to write, in order.
    pub fn transmit(&self) -> impl Iterator<Item = &[u8]> {
        let staged = self.mail.as_ref().and_then(Mail::staged);
        staged.into_iter().chain(self.output.slices())
    }

    /// The kernel has taken the first `bytes` of what [`transmit`](Session::transmit) gave.
    pub fn transmitted(&mut self, bytes: usize) {
        match &mut self.mail {
            Some(mail) => mail.posted(),
            None => self.output.advance(bytes),
        }
    }

    /// Bytes that wait to be written.
    pub fn pending_bytes(&self) -> u64 {
        self.output.pending_bytes() + self.mail.as_ref().map_or(0, Mail::pending_bytes)
    }

    /// Whether so much waits to be written that requests which wait for no answer should wait.
    pub fn is_backed_up(&self) -> bool {
        self.output.pending_bytes() >= OUTPUT_MARK_BYTES
    }

    /// Where the conversation stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why the conversation is over.
    pub fn ended(&self) -> Option<&Error> {
        self.ended.as_ref()
    }

    /// What the daemon said about itself, after a restart what it said last.
    pub fn daemon(&self) -> Option<&DaemonInfo> {
        self.daemon.as_ref()
    }

    /// Whether the daemon may send something that nobody asked for just then: events, changes of names, calls.
    pub fn is_listening(&self) -> bool {
        let names = self.subscriptions.len() + self.watches.len();
        let asked = names + self.observations.len() + self.key_watches.len() + self.consumers.len();
        asked + self.registrations.entries.len() > 0 || self.holds.are_timed()
    }

    /// Requests that are open or have an outcome that nobody took.
    pub fn open_requests(&self) -> usize {
        self.inflight.len()
    }

    /// Calls that are being served.
    pub fn open_inbound(&self) -> usize {
        self.inbound.len()
    }

    /// The user is done: says so to the daemon and ends every open request.
    pub fn close(&mut self) {
        let Some(state) = self.state.next(Trigger::CloseRequested) else { return };
        self.state = state;
        let error = Error::new(ErrorCode::Cancelled, "this side closed the connection");
        self.end_requests(&error);
        match &mut self.mail {
            Some(mail) => mail.close(),
            None => {
                let close = Close { code: ErrorCode::Cancelled.number(), message: "done".into() };
                self.send_control(Header::new(Kind::CLOSE), &close);
            }
        }
        self.ended = Some(error);
    }

    /// The daemon broke a rule of the protocol.
    fn violated(&mut self, error: WireError) {
        let error =
            Error::new(ErrorCode::ProtocolViolation, format!("the daemon broke the protocol: {error}"))
                .with_hint("is the daemon of the same release? its log may say more");
        let close = Close { code: error.code.number(), message: error.message.as_str().into() };
        self.end(error);
        self.send_control(Header::new(Kind::CLOSE), &close);
    }

    /// The conversation is over, for the reason given.
    fn end(&mut self, error: Error) {
        let was_asked_for = self.state == State::Closing;
        let Some(state) = self.state.next(Trigger::Ended) else { return };
        self.state = state;
        if was_asked_for {
            let reason = self.ended.clone().unwrap_or(error);
            self.events.push_back(Event::Closed(reason));
            return;
        }
        self.end_requests(&error);
        self.ended = Some(error.clone());
        self.events.push_back(Event::Closed(error));
    }

    /// Gives every open request its outcome, and tells those who serve that nobody waits any more.
    fn end_requests(&mut self, reason: &Error) {
        let was_refused =
            self.state == State::Closed && self.daemon.is_none() && reason.code != ErrorCode::Unreachable;
        let unsent = match reason.code {
            ErrorCode::Cancelled => reason.clone(),
            _ if was_refused => reason.clone(),
            _ => Error::new(ErrorCode::Unreachable, format!("the request was not sent: {}", reason.message)),
        };
        let unknown = if was_refused {
            reason.clone()
        } else {
            let message = format!("the request was sent and may have run: {}", reason.message);
            Error::new(ErrorCode::OutcomeUnknown, message)
        };
        let failed = self.inflight.fail_all(self.output.sent(), &unsent, &unknown);
        self.drop_unmade(failed);
        self.lose_everything(reason);
        self.calls.clear();
        for key in self.inbound.drain() {
            self.events.push_back(Event::CallCancelled(key));
        }
    }

    /// Forgets subscriptions, watches and registrations whose making failed: their user has been told.
    fn drop_unmade(&mut self, purposes: Vec<Purpose>) {
        for purpose in purposes {
            match purpose {
                Purpose::Register(key) => self.forget_registration(key),
                Purpose::Subscribe(key) => self.forget_subscription(key),
                Purpose::Watch(key) => self.forget_watch(key),
                Purpose::Acquire(key) => self.forget_hold(key),
                Purpose::Observe(key) => self.forget_observation(key),
                Purpose::WatchKeys { watch, .. } => self.forget_unmade_key_watch(watch),
                Purpose::Consume { consumer, .. } => self.forget_unmade_consumer(consumer),
                Purpose::Call(_)
                | Purpose::Publish(_)
                | Purpose::Mail(_)
                | Purpose::Ping
                | Purpose::Bind { .. }
                | Purpose::Unregister
                | Purpose::Renew { .. }
                | Purpose::Identify { .. }
                | Purpose::Coordinate(_)
                | Purpose::Forget => {}
            }
        }
    }

    /// Queues a frame whose envelope is known to fit.
    fn send_control<T: Wire>(&mut self, header: Header, envelope: &T) {
        let sent = self.output.frame(header, envelope, &crate::payload::Payload::default());
        debug_assert!(sent.is_ok(), "a control frame did not fit: {sent:?}");
    }
}
