//! What has happened to datagrams so far, in numbers.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters since the daemon started. They only grow.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Every counter by name, in the order of their declaration.
            pub fn by_name(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Datagrams received.
    datagrams_received,
    /// Datagrams sent, or given to the system to be sent.
    datagrams_sent,
    /// Received bytes that are no datagram, or none that a client sends.
    datagrams_malformed,
    /// Datagrams from a socket without an address that would have needed an answer; they were dropped.
    datagrams_unaddressed,
    /// Datagrams answered with a challenge because they came without a cookie that is good.
    datagrams_challenged,
    /// Datagrams meant for another life of the daemon.
    datagrams_foreign_epoch,
    /// Requests that came again: the first one or its answer was lost, late, or doubled by the transport.
    datagrams_doubled,
    /// Requests that came behind one with a higher id.
    datagrams_reordered,
    /// Requests that never came: their client has moved on.
    datagrams_lost,
    /// Requests that came when their client had moved on, or so late that nothing is known of them; they were not run.
    datagrams_late,
    /// Requests refused because a table was full.
    datagrams_refused,
    /// Answers sent once more.
    datagrams_answered_again,
    /// Answers that were not sent because their client does not read.
    datagrams_unread,
    /// Outcomes that were not kept because there was no room.
    datagrams_outcomes_dropped,
}
