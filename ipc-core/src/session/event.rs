//! What a session tells its user.

use core::time::Duration;

use crate::error::Error;
use crate::id::{Epoch, PeerId};
use crate::identity::Peer;
use crate::name::{ServiceName, TopicName};
use crate::payload::{Payload, PayloadKind};
use crate::time::Instant;
pub use crate::wire::message::NameChange;

use super::key::{Committed, KeyPage, Transacted};
use super::slab::Key;
use super::work::{EntryPut, PeekedEntry, QueueCounts, Work};

macro_rules! key_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(super) Key);

        impl $name {
            /// A small number, unique among the living of its type: good as an index into a table of one's own.
            pub const fn slot(self) -> usize {
                self.0.slot()
            }
        }
    };
}

key_type! {
    /// One request that waits for its outcome; [`take`](super::Session::take) gives it once.
    Ticket
}
key_type! {
    /// One subscription; it lives over restarts.
    SubscriptionKey
}
key_type! {
    /// One watch over service names; it lives over restarts.
    WatchKey
}
key_type! {
    /// One registration of a service; it lives over restarts.
    RegistrationKey
}
key_type! {
    /// One call that is being served.
    InboundKey
}
key_type! {
    /// Something held, or on its way to be: a lock, permits, a leadership, a lease.
    HoldKey
}
key_type! {
    /// One observation of an election.
    ObservationKey
}
key_type! {
    /// One watch over keys; it lives over restarts.
    KeyWatchKey
}

key_type! {
    /// One consumer of a work queue; it lives over restarts.
    ConsumerKey
}

/// What the daemon said about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonInfo {
    /// The protocol version both speak.
    pub protocol: u16,
    /// The features both use.
    pub features: u64,
    /// This life of the daemon.
    pub epoch: Epoch,
    /// Our own connection.
    pub peer: PeerId,
    /// Largest payload, in bytes.
    pub payload_max_bytes: u32,
    /// Most method and topic handles this connection may have bound.
    pub handles_max: u32,
    /// Most calls this connection may have open.
    pub pending_calls_max: u32,
    /// Name and version of the daemon.
    pub server: String,
}

/// A successful answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What the service answered.
    pub payload: Payload,
    /// Who answered, verified by the daemon.
    pub responder: Peer,
}

/// The acknowledgement of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The event's number in its topic; 0 when nobody subscribes and the topic keeps no count.
    pub sequence: u64,
    /// Subscriptions the event was queued for.
    pub subscribers: u32,
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of a call.
    Reply(Reply),
    /// Of an acknowledged publish.
    Published(Published),
    /// Of a registration: whether it waits its turn.
    Registered {
        /// The name is taken; [`Event::Acquired`] says when the turn has come.
        queued: bool,
    },
    /// Of a request for something to hold; [`hold`](super::Session::hold) says what.
    Held,
    /// Of a lease that outlives the connection, and of a renewal by token.
    Granted {
        /// Names it.
        token: u64,
        /// The time to live that begins anew; `None` for as long as the connection.
        ttl: Option<Duration>,
    },
    /// Of an arrival at a barrier.
    Passed(Passed),
    /// Of a change of a key.
    Changed(Committed),
    /// Of a transaction.
    Transacted(Transacted),
    /// Of what asks for keys.
    Keys(KeyPage),
    /// Of an entry put into a work queue.
    Put(EntryPut),
    /// Of an entry taken.
    Taken(Box<Work>),
    /// Of an entry given back.
    Nacked {
        /// Whether it is a dead letter now.
        is_dead: bool,
    },
    /// Of a queue counted.
    Counted(Box<QueueCounts>),
    /// Of a look into a queue.
    Peeked {
        /// The first entries.
        entries: Vec<PeekedEntry>,
        /// Whether there are more.
        more: bool,
    },
    /// Of a queue purged.
    Purged {
        /// How many entries are gone.
        count: u64,
    },
    /// Of everything else.
    Done,
}

/// All have arrived at a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Which passage this is; later ones of the barrier have higher numbers.
    pub generation: u64,
    /// In which place this party arrived, counted from 0.
    pub place: u32,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The token of the leadership; later leaders have higher ones.
    pub token: u64,
    /// Who it is, verified by the daemon.
    pub peer: Peer,
    /// What it proclaims.
    pub value: Payload,
}

/// What an observation gives, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// This one leads, or, with `None`, nobody does.
    Leader(Option<Leader>),
    /// It was not read in time, or the connection was lost: the observation has ended.
    Ended(Error),
}

/// The one outcome of a request.
pub type Outcome = Result<Answer, Error>;

/// One event as it reached a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The topic it was published to.
    pub topic: TopicName,
    /// Its number in that topic.
    pub sequence: u64,
    /// Who published it, verified by the daemon.
    pub sender: Peer,
    /// What was published.
    pub payload: Payload,
    /// W3C Trace Context, if the publisher gave one.
    pub traceparent: Option<Box<str>>,
}

/// Events that were dropped because they were not read in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The topic, or `None` when events of several topics of the filter are missing.
    pub topic: Option<TopicName>,
    /// First missing number; 0 without a topic.
    pub from: u64,
    /// Last missing number; 0 without a topic.
    pub to: u64,
    /// How many are missing; always exact.
    pub count: u64,
}

/// The connection was lost and the subscription was made anew: events in between did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Whether the daemon was restarted: numbers begin anew.
    pub epoch_changed: bool,
    /// For a filter without wildcards, the number of the last event before the loss, if there was one.
    pub sequence_before: Option<u64>,
    /// For a filter without wildcards, the last number given before the new subscription.
    pub sequence_after: u64,
}

/// What a subscription gives, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// An event.
    Event(Received),
    /// Events are missing here, exactly these.
    Gap(Missed),
    /// The connection was lost here; it is not known how many events are missing.
    Lost(Lost),
}

/// An event as it lies in what was read: nothing was copied for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRef<'a> {
    /// The topic it was published to.
    pub topic: &'a TopicName,
    /// Its number in that topic.
    pub sequence: u64,
    /// Who published it, verified by the daemon.
    pub sender: &'a Peer,
    /// How to read the payload.
    pub kind: PayloadKind,
    /// What was published.
    pub payload: &'a [u8],
    /// W3C Trace Context, if the publisher gave one.
    pub traceparent: Option<&'a str>,
}

impl<'a> From<&'a Received> for EventRef<'a> {
    fn from(event: &'a Received) -> Self {
        Self {
            topic: &event.topic,
            sequence: event.sequence,
            sender: &event.sender,
            kind: event.payload.kind,
            payload: &event.payload.body,
            traceparent: event.traceparent.as_deref(),
        }
    }
}

/// What a subscription gives, without owning it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryRef<'a> {
    /// See [`Delivery::Event`].
    Event(EventRef<'a>),
    /// See [`Delivery::Gap`].
    Gap(&'a Missed),
    /// See [`Delivery::Lost`].
    Lost(&'a Lost),
}

impl<'a> From<&'a Delivery> for DeliveryRef<'a> {
    fn from(delivery: &'a Delivery) -> Self {
        match delivery {
            Delivery::Event(event) => DeliveryRef::Event(EventRef::from(event)),
            Delivery::Gap(missed) => DeliveryRef::Gap(missed),
            Delivery::Lost(lost) => DeliveryRef::Lost(lost),
        }
    }
}

/// A change of a service name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameEvent {
    /// A name was acquired, lost, or got or lost an instance.
    Changed {
        /// The name.
        service: ServiceName,
        /// What happened.
        change: NameChange,
        /// Whose doing it was.
        peer: Peer,
    },
    /// The connection was lost and the watch was made anew: forget what was known, the names that are present follow.
    Restarted,
    /// The changes were not read in time; the watch has ended and must be asked for anew.
    Overflowed,
}

/// A call to be served.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Names the call in [`reply`](super::Session::reply). A one-way call has one too, and needs no reply.
    pub key: InboundKey,
    /// The registration it is for.
    pub registration: RegistrationKey,
    /// Position of the method in the registration.
    pub method: usize,
    /// Who calls, verified by the daemon.
    pub sender: Peer,
    /// What was sent.
    pub payload: Payload,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// W3C Trace Context, if the caller gave one.
    pub traceparent: Option<Box<str>>,
    /// Whether the caller wants no answer.
    pub oneway: bool,
}

/// What happened, in order.
#[derive(Clone, Debug)]
pub enum Event {
    /// The daemon answered the hello; [`daemon`](super::Session::daemon) knows what it said.
    Connected {
        /// After a restart of the session: whether it is another life of the daemon. `None` the first time.
        epoch_changed: Option<bool>,
    },
    /// A subscription that was empty has something to [`take`](super::Session::take_deliveries).
    Delivered(SubscriptionKey),
    /// A watch that was empty has something to take.
    NamesChanged(WatchKey),
    /// A call that is being served is not wanted any more; a reply would be thrown away.
    CallCancelled(InboundKey),
    /// A registration that waited its turn owns the name.
    Acquired(RegistrationKey),
    /// Something that was held is lost; [`hold`](super::Session::hold) says why.
    HoldLost(HoldKey),
    /// Something that was held when the connection was lost is certainly held again.
    HoldTakenUp(HoldKey),
    /// A watch over keys that was empty has something to take.
    KeysChanged(KeyWatchKey),
    /// An observation that was empty has something to take.
    Observed(ObservationKey),
    /// A consumer that was empty has something to take.
    Work(ConsumerKey),
    /// A registration could not be made again after a restart, and is gone.
    RegistrationLost(RegistrationKey, Error),
    /// The conversation is over. Every open request has its outcome already.
    Closed(Error),
}
