//! Random worlds, each from one seed: whatever happens, the broker does what the reference model says.

use ipc_tests::generator::Action;
use ipc_tests::simulation::run_all;

const STEPS: usize = 500;

/// What happens on links beside what the steps do.
const FAULTS: &[&str] =
    &["fault.split_read", "fault.partial_write", "fault.cut_up", "fault.cut_down", "fault.lingering_close"];

/// What clients are told only when something has gone wrong: a bound was reached, a peer has gone, time is up.
const TOLD: &[&str] = &[
    "received.gap",
    "received.gap_merged",
    "name.watchlost",
    "reply.service_gone",
    "reply.deadline_exceeded",
    "reply.cancelled",
    "reply.stale_handle",
    "reply.slow_consumer",
    "reply.shutting_down",
    "close.protocol_violation",
    "close.unauthenticated",
    "close.slow_consumer",
    "close.shutting_down",
    "close.quota_exceeded",
    "refused.queue_per_connection_max_bytes",
    "refused.queue_per_uid_max_bytes",
    "refused.pending_calls_per_connection_max",
];

/// What becomes of datagrams and of the calls that they carry.
const DATAGRAMS: &[&str] = &[
    "fault.datagram_lost",
    "fault.datagram_doubled",
    "fault.datagram_reordered",
    "fault.datagram_unsent",
    "datagram.ok",
    "datagram.application",
    "datagram.outcome_unknown",
    "datagram.deadline_exceeded",
    "datagram.unreachable",
    "datagram.no_such_service",
    "datagram.not_let_in",
];

/// What becomes of the disk and of the daemon, and what clients are told of keys and elections.
const KEPT: &[&str] = &[
    "disk.written",
    "fault.disk_full",
    "fault.disk_dead",
    "fault.crash",
    "fault.crash_before_the_answer",
    "fault.crash_before_the_write",
    "outcome.storage_failed",
    "outcome.revision_mismatch",
    "outcome.no_such_key",
    "outcome.compacted",
    "notice.changed",
    "notice.watch_lost",
    "notice.leader",
    "notice.taken_up",
    "notice.observation_lost",
];

/// Every way to the bus, and what an anonymous peer over TCP is told.
const WAYS: &[&str] = &[
    "transport.unix_stream",
    "transport.unix_datagram",
    "transport.expose_tcp",
    "transport.tcp",
    "refused.tcp_connections_max",
    "tcp.received.welcome",
    "tcp.received.reply",
    "tcp.received.event",
    "tcp.done.permission_denied",
    "tcp.reply.deadline_exceeded",
    "tcp.close.unauthenticated",
    "tcp.close.slow_consumer",
];

#[test]
fn whatever_happens_the_broker_keeps_its_promises() {
    let coverage = run_all(1_000, 100_000, STEPS);
    eprintln!("{}", coverage.report());
    let missing =
        [Action::NAMES, FAULTS, TOLD, DATAGRAMS, KEPT, WAYS].map(|names| coverage.missing(names)).concat();
    assert!(missing.is_empty(), "never occurred: {missing:?}");
    let missing = coverage.missing(&[
        "close.permission_denied",
        "done.permission_denied",
        "reply.permission_denied",
        "outcome.permission_denied",
        "revoked.name",
        "revoked.subscription",
        "revoked.observation",
        "revoked.keywatch",
        "received.waiting",
        "notice.lost",
        "outcome.busy",
        "outcome.deadlock",
        "outcome.lock_lost",
        "outcome.conflict",
        "outcome.cancelled",
        "outcome.shutting_down",
        "refused.holds_per_connection_max",
        "refused.waits_per_connection_max",
        "refused.waiters_per_resource_max",
        "refused.resources_max",
        "refused.keys_max",
        "refused.keys_per_uid_max",
        "refused.changes_pending_max",
        "refused.changes_pending_max_bytes",
        "refused.changes_pending_per_connection_max",
        "refused.changes_pending_per_uid_max",
        "share.topics_max",
        "share.resources_max",
        "share.keys_max",
        "share.changes_pending_max",
        "share.changes_pending_max_bytes",
        "refused.detached_leases_per_uid_max",
        "refused.absent_holds_per_uid_max",
    ]);
    assert!(missing.is_empty(), "never occurred: {missing:?}");
}
