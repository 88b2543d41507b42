//! PURE. Every maximum of the protocol with its unit, and the limits a daemon can be configured with.
//!
//! The constants are the same for every peer of this protocol version. [`Limits`] is what one daemon allows; it shows
//! in `ipc-cli status` under the same names.

use core::time::Duration;

/// Longest service name, topic or filter, in bytes.
pub const NAME_MAX_BYTES: usize = 255;
/// Longest method name, in bytes.
pub const METHOD_NAME_MAX_BYTES: usize = 64;
/// Longest envelope, in bytes; its length field has 16 bits.
pub const ENVELOPE_MAX_BYTES: usize = 65_535;
/// Largest payload any daemon can be configured to take, in bytes.
pub const PAYLOAD_MAX_CEILING_BYTES: u32 = 64 << 20;
/// Largest payload of a ping, in bytes.
pub const PING_PAYLOAD_MAX_BYTES: usize = 4096;
/// Longest name a client or a daemon gives itself in the first exchange, in bytes.
pub const PROGRAM_NAME_MAX_BYTES: usize = 64;
/// Longest message of an error, in bytes; longer ones are cut at a character.
pub const ERROR_MESSAGE_MAX_BYTES: usize = 4096;
/// Most methods of one service.
pub const METHODS_PER_SERVICE_MAX: usize = 256;
/// Longest description of a method, in bytes.
pub const METHOD_DESCRIPTION_MAX_BYTES: usize = 1024;
/// Longest traceparent, in bytes (W3C Trace Context, level 1).
pub const TRACEPARENT_MAX_BYTES: usize = 55;
/// Most extensions in one envelope.
pub const EXTENSIONS_MAX: usize = 16;
/// Longest remaining deadline on the wire.
pub const DEADLINE_MAX: Duration = Duration::from_secs(3600);
/// Longest name of a lock or of anything else that is coordinated, in bytes.
pub const RESOURCE_NAME_MAX_BYTES: usize = 512;
/// Shortest time to live of what is held.
pub const TTL_MIN: Duration = Duration::from_millis(10);
/// Longest time to live of what is held: a week.
pub const TTL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longest time a lock stays closed after its holder was lost.
pub const HOLD_DELAY_MAX: Duration = Duration::from_secs(3600);
/// How long what is held for as long as its connection stays with its session after a restart of the daemon.
pub const HOLD_TAKE_UP_MAX: Duration = Duration::from_secs(5);
/// Bytes of the secret by which a session takes up what it held.
pub const SECRET_BYTES: usize = 16;
/// Largest value that a leader proclaims, in bytes.
pub const LEADER_VALUE_MAX_BYTES: usize = 4096;
/// Most keys, or changes of keys, in one answer to a list.
pub const KEYS_LISTED_MAX: usize = 100;
/// Most keys in one transaction.
pub const TRANSACTION_KEYS_MAX: usize = 64;
/// Changes of keys that a watch keeps for a program that does not take them; the rest waits at the daemon.
pub const KEY_EVENTS_QUEUED_MAX: usize = 4096;
/// Longest id of an entry of a work queue, in bytes.
pub const ENTRY_ID_MAX_BYTES: usize = 128;
/// Longest time for which an entry of a work queue cannot be taken: a week.
pub const ENTRY_DELAY_MAX: Duration = TTL_MAX;
/// Longest reason for which an entry is given back, in bytes; longer ones are cut at a character.
pub const NACK_REASON_MAX_BYTES: usize = 256;
/// Most entries of a work queue in one answer to a peek.
pub const ENTRIES_LISTED_MAX: usize = 100;
/// Most deliveries that a consumer has open at a time.
pub const CREDIT_MAX: u32 = 65_536;
/// Most permits of a semaphore, and most parties of a barrier.
pub const PARTIES_MAX: u32 = 65_536;
/// Room a call reserves in its caller's queue for an error reply, in bytes.
pub const ERROR_REPLY_RESERVE_BYTES: usize = 512;

/// Largest datagram, header included, in bytes: what IPv4 carries over UDP, and no more over `AF_UNIX`.
pub const DATAGRAM_MAX_BYTES: usize = 65_507;

/// How much longer than a call's deadline a client waits for the daemon to say so.
pub const DEADLINE_GRACE: Duration = Duration::from_millis(250);
/// Most peers, and most topics, that a client remembers as announced.
pub const ANNOUNCED_MAX: usize = 1_000_000;
/// Most calls that one client serves or keeps waiting to be served.
pub const INBOUND_CALLS_MAX: usize = 65_536;
/// Most bytes of payload in the calls that one client serves or keeps waiting to be served.
pub const INBOUND_MAX_BYTES: usize = 256 << 20;
/// Bytes on their way to the daemon past which a client's one-way requests wait.
pub const OUTPUT_MARK_BYTES: u64 = 1 << 20;
/// Most changes of names that one watch keeps for its user.
pub const NAME_EVENTS_QUEUED_MAX: usize = 4096;
/// Largest payload that a client sends before it knows the daemon's limit, in bytes.
pub const PAYLOAD_BEFORE_WELCOME_MAX_BYTES: u32 = 1024;
/// Handles that a client uses before it knows how many the daemon allows.
pub const HANDLES_BEFORE_WELCOME_MAX: u32 = 32;

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr, $low:expr, $high:expr;)*) => {
        /// What one daemon allows. Each field is a key of `[limits]` in the configuration.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits {
            $($(#[$doc])* pub $name: $type,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Limits {
            /// Every limit by name, in the order of their declaration.
            pub fn by_name(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), u64::from(self.$name)),)*]
            }

            /// Sets the limit called `name`.
            ///
            /// # Errors
            /// A sentence, when there is no such limit or the value is outside its range.
            pub fn set(&mut self, name: &str, value: u64) -> Result<(), String> {
                match name {
                    $(stringify!($name) => {
                        let range = u64::from($low as $type)..=u64::from($high as $type);
                        if !range.contains(&value) {
                            return Err(format!("{name} is {value}, outside {}..={}", range.start(), range.end()));
                        }
                        self.$name = <$type>::try_from(value).map_err(|_| format!("{name} is {value}, too large"))?;
                        Ok(())
                    })*
                    _ => Err(format!("there is no limit called {name}")),
                }
            }
        }
    };
}

limits! {
    /// Connections in all; of more than 64 nobody has more than 64 for each that is left, unless nobody else has any.
    connections_max: u32 = 16_384, 1, 1_000_000;
    /// Connections of one uid; for a user's own daemon that is everybody.
    connections_per_uid_max: u32 = 16_384, 1, 1_000_000;
    /// New connections of one uid in a second; as many may come at once.
    connections_per_uid_per_second_max: u32 = 1_000_000, 1, 1_000_000;
    /// Connections of one uid that have not said hello yet.
    unauthenticated_per_uid_max: u32 = 64, 1, 100_000;
    /// Descriptors that one user has sent over one socket of the daemon, where the kernel lets them through, and that wait to be
    /// closed. Past it none is taken in: a connection that sends one is closed with it, and the local datagram socket waits.
    descriptors_unclosed_max: u32 = 1024, 1, 1_000_000;
    /// Time for the hello, in milliseconds.
    hello_timeout_ms: u32 = 10_000, 10, 600_000;
    /// Connections of the bus protocol over TCP.
    tcp_connections_max: u32 = 1024, 1, 1_000_000;
    /// Time for the first byte of a connection over TCP, in milliseconds.
    tcp_first_byte_timeout_ms: u32 = 2000, 10, 600_000;
    /// Time for the hello of a connection over TCP, from when it was accepted, in milliseconds.
    tcp_hello_timeout_ms: u32 = 5000, 10, 600_000;
    /// Largest frame before the hello was answered, in bytes.
    frame_before_hello_max_bytes: u32 = 4096, 256, 65_536;
    /// Largest payload, in bytes.
    payload_max_bytes: u32 = 16 << 20, PAYLOAD_BEFORE_WELCOME_MAX_BYTES, PAYLOAD_MAX_CEILING_BYTES;
    /// Bytes queued toward one connection; an empty queue takes one frame of any legal size.
    queue_per_connection_max_bytes: u32 = 8 << 20, 4096, 1 << 30;
    /// Bytes queued toward all connections of one uid; past it each of them still has an equal share of as much.
    queue_per_uid_max_bytes: u32 = 64 << 20, 4096, u32::MAX;
    /// Memory that all connections of one uid take in the daemon, in bytes, by what each thing takes at most.
    memory_per_uid_max_bytes: u32 = 1 << 30, 65_536, u32::MAX;
    /// Calls a connection has open at a time.
    pending_calls_per_connection_max: u32 = 1024, 1, 65_536;
    /// Calls that all connections of one uid have open at a time.
    pending_calls_per_uid_max: u32 = 1_000_000, 1, 16_777_216;
    /// Subscriptions of one connection.
    subscriptions_per_connection_max: u32 = 512, 1, 65_536;
    /// Subscriptions of one uid.
    subscriptions_per_uid_max: u32 = 1_000_000, 1, 16_777_216;
    /// Service registrations of one connection, those that wait their turn included.
    names_per_connection_max: u32 = 512, 1, 65_536;
    /// Service registrations of one uid.
    names_per_uid_max: u32 = 1_000_000, 1, 16_777_216;
    /// Name watches of one connection.
    watches_per_connection_max: u32 = 64, 1, 65_536;
    /// Name watches of one uid.
    watches_per_uid_max: u32 = 1_000_000, 1, 16_777_216;
    /// Method and topic handles of one connection.
    handles_per_connection_max: u32 = 1024, 1, 65_536;
    /// Places in the tables of handles of one uid: of each connection the highest index it has used, and one.
    handles_per_uid_max: u32 = 16_777_216, 1, 16_777_216;
    /// Peers announced to one connection at a time; past it the oldest is forgotten and announced anew when needed.
    announced_peers_per_connection_max: u32 = 4096, 1, 1_000_000;
    /// Connections that wait their turn for one name.
    waiters_per_name_max: u32 = 64, 1, 65_536;
    /// Instances of one group service.
    instances_per_service_max: u32 = 256, 1, 65_536;
    /// Locks, permits, leaderships and leases of one connection.
    holds_per_connection_max: u32 = 4096, 1, 1_000_000;
    /// Processes that are watched because a connection of theirs holds something; past it the end of the connection decides alone.
    /// Nobody has more of them than are left, unless nobody else is connected.
    process_watches_max: u32 = 4096, 1, 1_000_000;
    /// Requests of one connection that wait for a lock, a permit, a leadership or a barrier.
    waits_per_connection_max: u32 = 4096, 1, 1_000_000;
    /// Elections one connection observes.
    observations_per_connection_max: u32 = 256, 1, 65_536;
    /// Requests that wait for one lock, semaphore, election, barrier or work queue.
    waiters_per_resource_max: u32 = 16_384, 1, 1_000_000;
    /// Locks, semaphores, elections and barriers that are held, waited for, observed or closed. No user has more of them than are
    /// left, unless no other is connected.
    resources_max: u32 = 65_536, 1, 10_000_000;
    /// Leases of one uid that outlive their connection.
    detached_leases_per_uid_max: u32 = 1024, 1, 1_000_000;
    /// Locks, permits, leaderships and leases of one uid that nobody has taken up since the daemon was started again; with as many
    /// it gets nothing more that outlives the daemon.
    absent_holds_per_uid_max: u32 = 65_536, 1, 10_000_000;
    /// Keys in all. No user has more of them than are left, unless no other is connected.
    keys_max: u32 = 1_000_000, 1, 100_000_000;
    /// Keys that one uid has put last.
    keys_per_uid_max: u32 = 100_000_000, 1, 100_000_000;
    /// Largest value of a key, in bytes.
    key_value_max_bytes: u32 = 1 << 20, 1, PAYLOAD_MAX_CEILING_BYTES;
    /// Bytes of the keys of one uid: names, values and 200 bytes for each.
    key_bytes_per_uid_max: u32 = 256 << 20, 1024, u32::MAX;
    /// Requests for changes of keys that wait for the disk, and as many entries of work queues. No user has more of them than
    /// are left, unless no other is connected.
    changes_pending_max: u32 = 16_384, 1, 10_000_000;
    /// Bytes of the keys and values in them, and of such entries, shared in the same way.
    changes_pending_max_bytes: u32 = 64 << 20, 1024, u32::MAX;
    /// Requests of one connection that wait for the disk, about keys and about work queues alike.
    changes_pending_per_connection_max: u32 = 4096, 1, 1_000_000;
    /// The same of one uid.
    changes_pending_per_uid_max: u32 = 65_536, 1, 10_000_000;
    /// Changes of keys that are remembered.
    key_history_max: u32 = 10_000, 1, 10_000_000;
    /// Bytes of them: names, values and 200 bytes for each.
    key_history_max_bytes: u32 = 16 << 20, 1024, u32::MAX;
    /// Watches over keys of one connection.
    key_watches_per_connection_max: u32 = 256, 1, 65_536;
    /// Work queues in which something is, is awaited or is remembered. No user has made more of them than are left, unless no
    /// other is connected.
    work_queues_max: u32 = 65_536, 1, 10_000_000;
    /// Work queues that one uid has made, by the first that it put there or asked for.
    work_queues_per_uid_max: u32 = 10_000_000, 1, 10_000_000;
    /// Entries of all work queues. No user has put more of them than are left, unless no other is connected.
    work_queue_entries_max: u32 = 1_000_000, 1, 100_000_000;
    /// Entries that one uid has put.
    work_queue_entries_per_uid_max: u32 = 100_000_000, 1, 100_000_000;
    /// Entries that wait in one work queue.
    work_queue_length_max: u32 = 100_000, 1, 100_000_000;
    /// Largest entry of a work queue, in bytes.
    work_queue_entry_max_bytes: u32 = 1 << 20, 1, PAYLOAD_MAX_CEILING_BYTES;
    /// Bytes of the entries that one uid has put: ids, payloads, the reasons of dead letters and 300 bytes for each; and of the ids
    /// that are remembered.
    work_queue_bytes_per_uid_max: u32 = 256 << 20, 1024, u32::MAX;
    /// Ids that one work queue remembers to find duplicates; past it the oldest are forgotten.
    work_queue_ids_max: u32 = 100_000, 1, 10_000_000;
    /// Time for which they are remembered, in milliseconds.
    work_queue_id_window_ms: u32 = 300_000, 1, 604_800_000;
    /// Time after which a delivery goes back whose taker does not say, in milliseconds.
    work_queue_visibility_default_ms: u32 = 30_000, 10, 604_800_000;
    /// Consumers of work queues of one connection.
    work_queue_consumers_per_connection_max: u32 = 256, 1, 65_536;
    /// Deliveries bound to one connection that are open, with the requests of it that wait for one and the credit that its
    /// consumers have left.
    work_queue_deliveries_per_connection_max: u32 = 131_072, 1, 16_777_216;
    /// Topics that have a counter, shared in the same way.
    topics_max: u32 = 65_536, 1, 10_000_000;
    /// Events one subscription may have queued.
    queue_events_per_subscription_max: u32 = 65_536, 1, 1_000_000;
    /// Events one subscription has queued at most when it does not say.
    queue_events_per_subscription_default: u32 = 4096, 1, 1_000_000;
    /// Bytes of events one subscription may have queued, and what it gets when it does not say.
    queue_bytes_per_subscription_max: u32 = 4 << 20, 1024, 1 << 30;
    /// Senders of datagrams that something is remembered of, of each socket.
    datagram_clients_max: u32 = 16_384, 1, 1_000_000;
    /// Requests over datagrams that are open or remembered, of one sender.
    datagram_requests_per_client_max: u32 = 1024, 1, 65_536;
    /// Requests over datagrams that are open or remembered, of all senders of a socket.
    datagram_requests_max: u32 = 262_144, 1, 10_000_000;
    /// Bytes of outcomes that are kept to be sent again, of one sender of datagrams.
    datagram_kept_per_client_max_bytes: u32 = 1 << 20, 65_536, 1 << 30;
    /// Bytes of outcomes that are kept to be sent again, of all senders of a datagram socket.
    datagram_kept_max_bytes: u32 = 32 << 20, 65_536, 1 << 30;
    /// Open connections of one exposed port. No address, and no IPv6 network of 64 bits, has more of them than are left.
    expose_connections_max: u32 = 512, 1, 65_536;
    /// Bytes of one exposed connection that wait for the call before them, and the longest line.
    expose_pending_max_bytes: u32 = 65_536, 1, 16 << 20;
    /// Idle time after which an exposed connection is closed, and a source of an exposed UDP port forgotten, in milliseconds.
    expose_idle_timeout_ms: u32 = 300_000, 10, 86_400_000;
    /// Sources that one exposed UDP port knows at a time. A new one takes the place of one without an open call, and no address, and
    /// no IPv6 network of 64 bits, has more of them with open calls than are left.
    expose_udp_sources_max: u32 = 1024, 1, 65_536;
    /// Calls that one exposed UDP port has open at a time. No address, and no IPv6 network of 64 bits, has more of them than are left.
    expose_udp_calls_max: u32 = 1024, 1, 65_536;
    /// Calls that one source of an exposed UDP port has open at a time.
    expose_udp_calls_per_source_max: u32 = 64, 1, 65_536;
    /// Bytes of the datagrams behind the open calls of one exposed UDP port. No address, and no IPv6 network of 64 bits, has more of
    /// them than are left.
    expose_udp_pending_max_bytes: u32 = 16 << 20, 1, 1 << 30;
    /// Calls that one forward has under way with its server at a time.
    forward_calls_max: u32 = 64, 1, 4096;
    /// Calls of one forward that wait for their turn.
    forward_waiting_max: u32 = 1024, 0, 65_536;
    /// Bytes of the replies that one forward is receiving.
    forward_pending_max_bytes: u32 = 64 << 20, 1, 1 << 30;
    /// Connections to its server that one forward keeps for later calls.
    forward_idle_max: u32 = 8, 0, 1024;
    /// Time for which a forward keeps them, in milliseconds.
    forward_idle_timeout_ms: u32 = 30_000, 10, 86_400_000;
    /// Time for a forwarded call, also when its caller would wait longer, in milliseconds.
    forward_timeout_ms: u32 = 60_000, 10, 3_600_000;
    /// Exposed ports and forwards in all.
    bridges_max: u32 = 64, 1, 1024;
    /// Time for open calls to end when the daemon stops, in milliseconds.
    drain_timeout_ms: u32 = 5000, 0, 60_000;
}

// A frame that carries nothing but a name must fit before the hello, and an error reply into its reserve.
const _: () = assert!(NAME_MAX_BYTES + METHOD_NAME_MAX_BYTES + 64 < 4096);
const _: () = assert!(METHODS_PER_SERVICE_MAX * (METHOD_NAME_MAX_BYTES + 8) < ENVELOPE_MAX_BYTES);
const _: () = assert!(INBOUND_MAX_BYTES > PAYLOAD_MAX_CEILING_BYTES as usize);
const _: () = assert!(DEADLINE_MAX.as_micros() <= u32::MAX as u128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_set_by_name_within_their_range() {
        let mut limits = Limits::default();
        for (low, value, fits) in [("below", 0, false), ("at", 1, true), ("above", 2, true)] {
            assert_eq!(limits.set("connections_max", value).is_ok(), fits, "{low}");
        }
        assert_eq!(limits.connections_max, 2);
        assert!(limits.set("connections_max", 1_000_001).is_err());
        assert!(limits.set("no_such_limit", 1).is_err());
        let defaults = Limits::default();
        for (name, value) in defaults.by_name() {
            assert!(limits.set(name, value).is_ok(), "{name}");
        }
        assert_eq!(limits, defaults);
    }
}
