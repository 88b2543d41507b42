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
    /// Connections in all.
    connections_max: u32 = 16_384, 1, 1_000_000;
    /// Connections of one uid; for a user's own daemon that is everybody.
    connections_per_uid_max: u32 = 16_384, 1, 1_000_000;
    /// Connections of one uid that have not said hello yet.
    unauthenticated_per_uid_max: u32 = 64, 1, 100_000;
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
    /// Calls a connection has open at a time.
    pending_calls_per_connection_max: u32 = 1024, 1, 65_536;
    /// Subscriptions of one connection.
    subscriptions_per_connection_max: u32 = 512, 1, 65_536;
    /// Service registrations of one connection, those that wait their turn included.
    names_per_connection_max: u32 = 512, 1, 65_536;
    /// Name watches of one connection.
    watches_per_connection_max: u32 = 64, 1, 65_536;
    /// Method and topic handles of one connection.
    handles_per_connection_max: u32 = 1024, 1, 65_536;
    /// Peers announced to one connection at a time; past it the oldest is forgotten and announced anew when needed.
    announced_peers_per_connection_max: u32 = 4096, 1, 1_000_000;
    /// Connections that wait their turn for one name.
    waiters_per_name_max: u32 = 64, 1, 65_536;
    /// Instances of one group service.
    instances_per_service_max: u32 = 256, 1, 65_536;
    /// Topics that have a counter.
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
    /// Open connections of one exposed port.
    expose_connections_max: u32 = 256, 1, 65_536;
    /// Bytes of one exposed connection that wait for the call before them, and the longest line.
    expose_pending_max_bytes: u32 = 65_536, 1, 16 << 20;
    /// Idle time after which an exposed connection is closed, in milliseconds.
    expose_idle_timeout_ms: u32 = 300_000, 10, 86_400_000;
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
