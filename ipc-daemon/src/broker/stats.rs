//! What has happened so far, in numbers.

macro_rules! counters {
    ($(#[doc = $doc:literal] $name:ident,)*) => {
        /// Counters since the daemon started. They only grow.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $(#[doc = $doc] pub $name: u64,)*
        }

        impl Counters {
            /// Every counter by name, in the order of their declaration.
            pub fn by_name(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }

            /// What every counter counts, in the same order.
            pub const DESCRIPTIONS: &'static [&'static str] = &[$($doc,)*];
        }
    };
}

counters! {
    /// Connections that were taken.
    connections_accepted,
    /// Connections that were refused because of a limit.
    connections_refused,
    /// Frames received.
    frames_received,
    /// Calls handed to a service.
    calls_routed,
    /// Calls refused before they reached a service.
    calls_refused,
    /// One-way calls handed to a service.
    calls_oneway,
    /// Replies handed to their callers.
    replies_routed,
    /// Replies for calls that had already ended, or were never asked of that service.
    replies_unexpected,
    /// Replies that did not fit into their caller's queue.
    replies_dropped,
    /// Calls whose deadline passed.
    deadlines_exceeded,
    /// Calls that were cancelled.
    calls_cancelled,
    /// Calls whose service went away.
    services_gone,
    /// Events taken from publishers.
    events_published,
    /// Events queued for subscribers.
    events_delivered,
    /// Locks, permits, leaderships and leases that were granted.
    holds_granted,
    /// Those that their session took up again after a restart of the daemon.
    holds_taken_up,
    /// Those whose holder was told that its time has passed.
    holds_expired,
    /// Requests for such that had to wait.
    holds_awaited,
    /// Circles of sessions that would have waited for one another.
    deadlocks_found,
    /// Entries put into work queues.
    work_entries_put,
    /// Entries of work queues handed to somebody.
    work_entries_delivered,
    /// Of those, the ones that had been handed to somebody before.
    work_entries_redelivered,
    /// Entries of work queues acknowledged.
    work_entries_acknowledged,
    /// Entries of work queues that became dead letters.
    work_entries_buried,
    /// Entries of work queues that made room for others, or were purged.
    work_entries_dropped,
    /// Commits to the disk.
    commits_made,
    /// Commits that failed.
    commits_failed,
    /// Requests refused because of a limit.
    quota_refusals,
    /// Rights that were taken away from open connections because the policy or the names they own changed.
    rights_revoked,
    /// Requests refused by the policy.
    permission_refusals,
    /// Connections closed because they broke the protocol.
    protocol_violations,
    /// Connections closed because they said no hello in time.
    hello_timeouts,
    /// Connections closed because they did not read the answers to their own requests.
    slow_connections_closed,
}
