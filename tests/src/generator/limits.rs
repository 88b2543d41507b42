//! The limits of one world.

use ipc_core::limits::Limits;

use crate::rng::Rng;

/// Small limits drawn for one world, so that all of them are reached.
pub fn small_limits(rng: &mut Rng) -> Limits {
    let mut draw = |low: u64, high: u64| rng.between(low, high) as u32;
    Limits {
        connections_max: draw(5, 7),
        connections_per_uid_max: draw(1, 4),
        unauthenticated_per_uid_max: draw(1, 3),
        hello_timeout_ms: draw(10, 100),
        tcp_connections_max: draw(1, 3),
        tcp_first_byte_timeout_ms: draw(10, 60),
        tcp_hello_timeout_ms: draw(10, 100),
        frame_before_hello_max_bytes: draw(256, 4096),
        payload_max_bytes: draw(1024, 3000),
        queue_per_connection_max_bytes: draw(4096, 12_000),
        queue_per_uid_max_bytes: draw(4096, 24_000),
        pending_calls_per_connection_max: draw(2, 6),
        subscriptions_per_connection_max: draw(2, 5),
        names_per_connection_max: draw(1, 4),
        watches_per_connection_max: draw(1, 3),
        handles_per_connection_max: draw(3, 8),
        announced_peers_per_connection_max: draw(1, 4),
        waiters_per_name_max: draw(1, 3),
        instances_per_service_max: draw(2, 4),
        holds_per_connection_max: draw(2, 6),
        waits_per_connection_max: draw(1, 4),
        waiters_per_resource_max: draw(1, 4),
        resources_max: draw(2, 8),
        detached_leases_per_uid_max: draw(1, 2),
        absent_holds_per_uid_max: draw(1, 3),
        topics_max: draw(2, 7),
        queue_events_per_subscription_max: draw(4, 80),
        queue_events_per_subscription_default: draw(2, 40),
        queue_bytes_per_subscription_max: draw(1024, 8192),
        keys_max: draw(2, 6),
        keys_per_uid_max: draw(1, 6),
        changes_pending_max: draw(2, 10),
        changes_pending_max_bytes: draw(100, 1000),
        changes_pending_per_connection_max: draw(1, 5),
        changes_pending_per_uid_max: draw(1, 6),
        key_history_max: draw(3, 40),
        datagram_clients_max: draw(1, 3),
        datagram_requests_per_client_max: draw(2, 6),
        datagram_requests_max: draw(3, 10),
        datagram_kept_per_client_max_bytes: draw(200, 2000),
        datagram_kept_max_bytes: draw(300, 3000),
        ..Limits::default()
    }
}
