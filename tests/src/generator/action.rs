//! Everything that can happen, as one enum, with how often it is proposed.

use ipc_core::wire::coordination::Durability;

use super::{Claimed, Index, Since, Way, When, Will};

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident $({ $($field:ident: $type:ty),* })? = $text:literal, $weight:literal;)*) => {
        /// Everything that can happen.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Action {
            $($(#[$doc])* $name $({ $(
                #[doc = "As the action says."]
                $field: $type
            ),* })?,)*
        }

        /// The actions without what they carry.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Verb { $($name,)* }

        /// How often the generator proposes each.
        pub(super) const WEIGHTS: &[(u64, Verb)] = &[$(($weight, Verb::$name),)*];

        impl Action {
            /// Every action's name, for the count of what occurred.
            pub const NAMES: &'static [&'static str] = &[$(concat!("step.", $text),)*];

            /// The action's name.
            pub fn name(&self) -> &'static str {
                match self { $(Action::$name { .. } => concat!("step.", $text),)* }
            }
        }
    };
}

actions! {
    /// The client connects.
    Connect { way: Way, capacity: usize } = "connect", 0;
    /// It says hello, with these versions; and that it can be told what is taken away from it, or not.
    Hello { version_min: u16, version_max: u16, revocation: bool } = "hello", 1;
    /// It offers a service with that many methods.
    Register { service: usize, group: bool, queue: bool, methods: usize } = "register", 18;
    /// It takes the nth of its registrations back, or one that it does not have.
    Unregister { nth: Option<usize> } = "unregister", 6;
    /// It binds a handle to a method.
    Resolve { index: u32, service: usize, method: usize } = "resolve", 36;
    /// It binds a handle to a topic.
    OpenTopic { index: u32, topic: usize } = "open_topic", 22;
    /// It frees a handle.
    Release { at: Index } = "release", 5;
    /// It calls, with a deadline or none, under a new correlation or that of an open call.
    Call { at: Index, payload: usize, deadline_us: u32, again: bool } = "call", 110;
    /// It calls without wanting an answer.
    Oneway { at: Index, payload: usize } = "oneway", 16;
    /// It answers the nth call that it has received.
    Reply { nth: usize, payload: usize } = "reply", 90;
    /// It answers it with an error.
    ReplyError { nth: usize } = "reply_error", 14;
    /// It answers a call that another client has received, or one that nobody has.
    Forge { victim: usize, nth: Option<usize> } = "forge", 6;
    /// It answers a call for a second time.
    ReplyTwice { nth: usize } = "reply_twice", 5;
    /// It cancels the nth call that it waits for, or one that it never made.
    Cancel { nth: Option<usize> } = "cancel", 14;
    /// It publishes, and wants to hear that it was taken or not.
    Publish { at: Index, payload: usize, acknowledged: bool } = "publish", 120;
    /// It subscribes, under a new correlation or that of another subscription.
    Subscribe { filter: usize, events_max: u32, bytes_max: u32, again: bool } = "subscribe", 26;
    /// It ends its nth subscription, or one that it does not have.
    Unsubscribe { nth: Option<usize> } = "unsubscribe", 9;
    /// It watches names.
    Watch { filter: usize, again: bool } = "watch", 8;
    /// It ends its nth watch, or one that it does not have.
    Unwatch { nth: Option<usize> } = "unwatch", 4;
    /// It says who it is, so that it is known again.
    Identify = "identify", 6;
    /// It claims a lock, permits or a leadership.
    Claim {
        what: Claimed, name: usize, permits: u32, wait: bool, deadline_us: u32, ttl_us: u64, delay_us: u64, owner: u64,
        durability: Option<Durability>
    } = "claim", 70;
    /// It arrives at a barrier.
    Arrive { name: usize, parties: u32, wait: bool, deadline_us: u32 } = "arrive", 12;
    /// It takes a lease.
    Lease { ttl_us: u64, outlives: bool, durability: Option<Durability> } = "lease", 24;
    /// A leader proclaims something else, by the nth of what it holds.
    Proclaim { nth: usize, payload: usize } = "proclaim", 6;
    /// It asks to be told who leads.
    Observe { name: usize } = "observe", 8;
    /// It ends its nth observation.
    Unobserve { nth: usize } = "unobserve", 2;
    /// It puts a key.
    Put { key: usize, when: When, durability: Option<Durability>, payload: usize } = "put", 60;
    /// It deletes one.
    DeleteKey { key: usize, when: When, durability: Option<Durability> } = "delete_key", 14;
    /// It changes several at once, each its own key.
    Transact { steps: Vec<(usize, When, Will)>, durability: Option<Durability>, payload: usize } = "transact", 14;
    /// It asks for a key.
    GetKey { key: usize } = "get_key", 16;
    /// It asks for all keys.
    ListKeys = "list_keys", 6;
    /// It watches one key, or all that begin somehow.
    WatchKeys { key: Option<usize>, since: Since } = "watch_keys", 14;
    /// It ends its nth watch over keys.
    UnwatchKeys { nth: usize } = "unwatch_keys", 3;
    /// It gives back or renews the nth of what it holds, or of what another client holds.
    OfHold { nth: usize, renew: bool, victim: Option<usize> } = "of_hold", 40;
    /// It does not want the nth of its requests any more that wait.
    CancelWait { nth: usize } = "cancel_wait", 10;
    /// It asks for a sign of life.
    Ping { payload: usize } = "ping", 10;
    /// Time passes; a sleeping machine wakes everything at once.
    Advance { micros: u64, at_once: bool } = "advance", 40;
    /// Time passes until the next thing is due.
    RunOut = "run_out", 6;
    /// The client stops reading.
    Stall = "stall", 16;
    /// It reads again.
    Unstall = "unstall", 22;
    /// Its bytes arrive one at a time, both ways.
    Trickle = "trickle", 3;
    /// They arrive as they come.
    Untrickle = "untrickle", 6;
    /// The connection breaks: of what is on its way, the first bytes still arrive.
    Cut { up: usize, down: usize } = "cut", 2;
    /// The client has sent its last byte, and reads on.
    HalfClose = "half_close", 2;
    /// The client goes away without a word.
    Disconnect = "disconnect", 2;
    /// It says that it goes.
    SayClose = "say_close", 1;
    /// It sends bytes that are no frames.
    Garbage { bytes: Vec<u8> } = "garbage", 1;
    /// It sends a frame of a kind that nobody knows.
    UnknownKind { kind: u8 } = "unknown_kind", 4;
    /// It sends a frame of a kind that only the daemon sends.
    WrongKind { kind: u8 } = "wrong_kind", 1;
    /// It sends an envelope that is none.
    Malformed { kind: u8, envelope: Vec<u8> } = "malformed", 1;
    /// It announces a payload over the limit.
    Oversized { over: u32 } = "oversized", 1;
    /// It gives a name that breaks the rules.
    BadName { what: usize } = "bad_name", 4;
    /// It asks for more signs of life at once than a client is owed that does not read.
    Flood = "flood", 1;
    /// A client over datagrams calls, and wants an outcome or not.
    DatagramCall { service: usize, method: usize, payload: usize, deadline_us: u32, oneway: bool } = "datagram_call", 50;
    /// It publishes.
    DatagramPublish { topic: usize, payload: usize } = "datagram_publish", 8;
    /// It does not want the outcome of its oldest call any more.
    DatagramAbandon = "datagram_abandon", 5;
    /// The transport of its datagrams changes.
    Weather { lost_percent: u64, doubled_percent: u64, reorders: bool } = "weather", 8;
    /// The daemon forgets everything about datagrams, as if it had been restarted.
    DoorRestart = "door_restart", 1;
    /// Everything that can flow flows.
    Drain = "drain", 20;
    /// The daemon reads other rules.
    Reload { reign: usize } = "reload", 8;
    /// The disk has done what it was asked for, or says that it cannot.
    DiskAnswers = "disk_answers", 100;
    /// It is full from here on, or there is room again.
    DiskFills { is_full: bool } = "disk_fills", 8;
    /// It fails, for as long as this daemon lives.
    DiskDies = "disk_dies", 1;
    /// The daemon is killed and started again; what the disk was about to write is there or not.
    Crash { is_written: bool, millis: u64 } = "crash", 2;
    /// The daemon is asked to stop.
    BeginDrain = "begin_drain", 0;
    /// It has waited long enough.
    EndDrain = "end_drain", 0;
}
