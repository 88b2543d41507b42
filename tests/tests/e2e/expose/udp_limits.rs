//! Every bound of an exposed UDP port, at the last that is allowed and the first that is not.

use std::net::Ipv4Addr;

use ipc_core::ErrorCode;
use ipc_tests::daemon::{Daemon, Options, eventually};
use ipc_tests::exposed::{Exposed, UdpClient};
use ipc_tests::services::{RawCall, RawService, ask, serve_echo};

/// Sends datagrams one after the other, each once the daemon has dealt with the one before it.
fn send_each(exposed: &Exposed, datagrams: &[(&UdpClient, &str)]) {
    for (client, datagram) in datagrams {
        let seen = |exposed: &Exposed| exposed.number("calls") + exposed.number("dropped");
        let before = seen(exposed);
        client.send(datagram);
        assert!(eventually(|| seen(exposed) == before + 1));
    }
}

/// A client at 127.0.0.`last`, with a port of its own.
fn from(exposed: &Exposed, last: u8) -> UdpClient {
    exposed.datagrams_from(Ipv4Addr::new(127, 0, 0, last))
}

/// The daemon says that in its log.
fn is_said(exposed: &Exposed, text: &str) {
    assert!(eventually(|| exposed.daemon.log().contains(text)), "{}", exposed.daemon.log());
}

fn finish(service: &mut RawService, calls: usize) -> Vec<RawCall> {
    let calls: Vec<_> = (0..calls).map(|_| service.call()).collect();
    for call in &calls {
        service.reply(call, b"done");
    }
    calls
}

#[test]
fn calls_of_one_source_up_to_the_limit() {
    let exposed = Exposed::start_udp("test.raw/m", "expose_udp_calls_per_source_max = 3");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let (first, second) = (exposed.datagrams(), exposed.datagrams());
    send_each(&exposed, &[(&first, "1"), (&first, "2"), (&first, "3")]);
    assert_eq!((exposed.number("open_calls"), exposed.number("dropped")), (3, 0));
    send_each(&exposed, &[(&first, "4"), (&second, "1")]);
    assert_eq!((exposed.number("open_calls"), exposed.number("dropped")), (4, 1));
    finish(&mut service, 4);
    exposed.wait_for("open_calls", 0);
    send_each(&exposed, &[(&first, "5")]);
    assert_eq!((exposed.number("open_calls"), exposed.number("dropped")), (1, 1));
}

#[test]
fn calls_of_one_port_up_to_the_limit() {
    let exposed = Exposed::start_udp("test.raw/m", "expose_udp_calls_max = 3");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let clients = [1, 1, 2, 3].map(|last| from(&exposed, last));
    for (at, client) in clients.iter().enumerate() {
        send_each(&exposed, &[(client, "?")]);
        assert_eq!(exposed.number("open_calls"), (at as u64 + 1).min(3));
    }
    assert_eq!(exposed.number("dropped"), 1);
    finish(&mut service, 3);
    exposed.wait_for("open_calls", 0);
    send_each(&exposed, &[(&clients[3], "?")]);
    assert_eq!((exposed.number("calls"), exposed.number("dropped")), (4, 1));
    is_said(&exposed, "expose_udp_calls_max is at its limit of 3");
}

#[test]
fn bytes_of_open_calls_up_to_the_limit() {
    let exposed = Exposed::start_udp("test.raw/m", "expose_udp_pending_max_bytes = 10");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let clients = [1, 2].map(|last| from(&exposed, last));
    for (at, datagram, pending, dropped) in
        [(0, "123456789", 9, 0), (1, "12", 9, 1), (1, "1", 10, 1), (1, "1", 10, 2)]
    {
        send_each(&exposed, &[(&clients[at], datagram)]);
        assert_eq!((exposed.number("pending_bytes"), exposed.number("dropped")), (pending, dropped));
    }
    finish(&mut service, 2);
    exposed.wait_for("pending_bytes", 0);
    send_each(&exposed, &[(&clients[0], "1234567890")]);
    assert_eq!(exposed.number("pending_bytes"), 10);
    is_said(&exposed, "expose_udp_pending_max_bytes is at its limit of 10");
}

#[test]
fn sources_up_to_the_limit_and_then_instead_of_the_idlest() {
    let exposed = Exposed::start_udp("test.raw/m", "expose_udp_sources_max = 2");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let clients = [1, 2, 3, 4].map(|last| from(&exposed, last));
    send_each(&exposed, &[(&clients[0], "0"), (&clients[1], "1")]);
    assert_eq!(exposed.number("sources"), 2);
    // Both are busy: there is no room for a third.
    send_each(&exposed, &[(&clients[2], "2")]);
    assert_eq!((exposed.number("sources"), exposed.number("dropped")), (2, 1));
    finish(&mut service, 2);
    exposed.wait_for("open_calls", 0);
    send_each(&exposed, &[(&clients[2], "2"), (&clients[3], "3")]);
    assert_eq!((exposed.number("sources"), exposed.number("dropped")), (2, 1));
    finish(&mut service, 2);
    assert_eq!((clients[2].receive(), clients[3].receive()), (b"done".to_vec(), b"done".to_vec()));
    is_said(&exposed, "expose_udp_sources_max is at its limit of 2");
}

/// Half of them, half of what is left, and so on.
const SHARES: [(u8, usize); 4] = [(1, 4), (2, 2), (3, 1), (4, 1)];

#[test]
fn no_address_has_every_source_of_a_port_busy() {
    let exposed = Exposed::start_udp("test.raw/m", "expose_udp_sources_max = 8");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let mut inside = Vec::new();
    for (at, (address, fit)) in SHARES.into_iter().enumerate() {
        for _ in 0..fit {
            let client = from(&exposed, address);
            send_each(&exposed, &[(&client, "in")]);
            inside.push(client);
        }
        send_each(&exposed, &[(&from(&exposed, address), "too many")]);
        let seen = (exposed.number("open_calls"), exposed.number("dropped"));
        assert_eq!(seen, (inside.len() as u64, at as u64 + 1), "127.0.0.{address} has more than {fit}");
    }
    // One call of the first is over, and what is left is still for others; its source is there, but may not be busy again.
    let call = service.call();
    service.reply(&call, b"done");
    assert_eq!(inside[0].receive(), b"done");
    send_each(&exposed, &[(&inside[0], "again"), (&from(&exposed, 1), "another")]);
    assert_eq!((exposed.number("dropped"), exposed.number("sources")), (6, 8));
    send_each(&exposed, &[(&from(&exposed, 5), "in the place of the idle one")]);
    assert_eq!((exposed.number("dropped"), exposed.number("sources")), (6, 8));
}

#[test]
fn no_address_has_every_call_of_a_port_open_and_every_byte_of_them() {
    for limit in ["expose_udp_calls_max = 8", "expose_udp_pending_max_bytes = 16"] {
        let exposed = Exposed::start_udp("test.raw/m", limit);
        let _service = RawService::register(&exposed.daemon, "test.raw", "m");
        // As many sources, or one: it is the address that counts.
        for (at, (address, fit)) in SHARES.into_iter().enumerate() {
            let clients = [from(&exposed, address), from(&exposed, address)];
            for number in 0..=fit {
                send_each(&exposed, &[(&clients[number % 2], "12")]);
            }
            let open = SHARES[..=at].iter().map(|(_, fit)| *fit as u64).sum();
            let seen = (exposed.number("open_calls"), exposed.number("dropped"));
            assert_eq!(seen, (open, at as u64 + 1), "127.0.0.{address} with {limit}");
        }
        assert_eq!(exposed.number("pending_bytes"), 16);
    }
}

#[test]
fn whoever_comes_from_ever_new_ports_pushes_nobody_out() {
    let exposed = Exposed::start_udp("test.raw/m", "expose_udp_sources_max = 8");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let mut ask = |client: &UdpClient| {
        client.send("?");
        let call = service.call();
        service.reply(&call, b"done");
        assert_eq!(client.receive(), b"done");
        call.frame.header.sender
    };
    let stays = from(&exposed, 2);
    let before = ask(&stays);
    for number in 1..=10 {
        ask(&from(&exposed, 1));
        assert_eq!(exposed.number("sources"), 1 + number.min(4), "after {number}");
    }
    assert_eq!(ask(&stays), before, "it is another to the service");
}

#[test]
fn a_source_is_forgotten_when_it_has_been_idle_and_served_when_it_comes_again() {
    let exposed = Exposed::start_udp("test.echo/echo", "expose_idle_timeout_ms = 50");
    serve_echo(&exposed.daemon);
    let client = exposed.datagrams();
    for _ in 0..2 {
        client.exchange("hello", "hello");
        exposed.wait_for("sources", 0);
        assert!(ask(&exposed.daemon, "status", "").unwrap()["usage"]["remote:anonymous"].is_null());
    }
}

#[test]
fn a_source_with_an_open_call_is_not_idle() {
    let exposed = Exposed::start_udp("test.raw/m", "expose_idle_timeout_ms = 10");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let (busy, other) = (exposed.datagrams(), exposed.datagrams());
    busy.send("busy");
    let call = service.call();
    for _ in 0..3 {
        // Each of these comes and goes while the busy one is waited for.
        other.send("other");
        let call = service.call();
        service.reply(&call, b"done");
        other.receive();
        exposed.wait_for("sources", 1);
    }
    service.reply(&call, b"at last");
    assert_eq!(busy.receive(), b"at last");
    exposed.wait_for("sources", 0);
}

#[test]
fn the_sources_of_a_port_count_among_the_connections() {
    // One is the daemon's own, one the service's, one is for asking.
    let exposed = Exposed::start_udp("test.echo/echo", "connections_max = 4");
    serve_echo(&exposed.daemon);
    let clients = [exposed.datagrams(), exposed.datagrams()];
    for client in &clients {
        client.exchange("in", "in");
    }
    // Another source would take the place of an idle one only if those were too many.
    exposed.datagrams().send("out");
    assert!(eventually(|| exposed.daemon.log().contains("connections_max is at its limit of 4")));
    for client in &clients {
        client.exchange("still in", "still in");
    }
}

#[test]
fn a_datagram_over_the_largest_payload_is_dropped() {
    let exposed = Exposed::start_udp("test.echo/echo", "payload_max_bytes = 8192");
    serve_echo(&exposed.daemon);
    let client = exposed.datagrams();
    for length in [8191, 8192] {
        let text = "x".repeat(length);
        client.exchange(&text, &text);
    }
    client.send("x".repeat(8193));
    exposed.wait_for("dropped", 1);
    assert_eq!(exposed.number("errors"), 0);
}

#[test]
fn bridges_of_every_kind_count_together() {
    let daemon = Daemon::start_with(&Options::with_config("[limits]\nbridges_max = 3\n"));
    ask(&daemon, "bridge-expose", "udp:127.0.0.1:0=a/b").unwrap();
    ask(&daemon, "bridge-forward", "a=tcp:127.0.0.1:1").unwrap();
    ask(&daemon, "bridge-expose", "tcp:127.0.0.1:0=a/b").unwrap();
    let error = ask(&daemon, "bridge-forward", "b=udp:127.0.0.1:1").unwrap_err();
    assert_eq!(error.code, ErrorCode::QuotaExceeded);
    assert!(error.message.contains("bridges_max"), "{error}");
}
