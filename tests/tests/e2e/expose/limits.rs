//! Every bound of an exposed port, at the last that is allowed and the first that is not.

use std::io::{ErrorKind, Write};
use std::net::Ipv4Addr;
use std::time::Instant;

use ipc_core::ErrorCode;
use ipc_core::blocking::Service;
use ipc_tests::daemon::{Daemon, Options};
use ipc_tests::exposed::Exposed;
use ipc_tests::services::{RawService, ask, serve, serve_echo};

#[test]
fn bridges_up_to_the_limit_and_one_more_when_one_is_gone() {
    let daemon = Daemon::start_with(&Options::with_config("[limits]\nbridges_max = 3\n"));
    let expose = || ask(&daemon, "bridge-expose", "tcp:127.0.0.1:0=a/b");
    let ids: Vec<_> = (0..3).map(|_| expose().unwrap()["id"].clone()).collect();
    let error = expose().unwrap_err();
    assert_eq!(error.code, ErrorCode::QuotaExceeded);
    assert!(error.message.contains("bridges_max"), "{error}");
    ask(&daemon, "bridge-remove", &ids[1].to_string()).unwrap();
    let next = expose().unwrap();
    assert!(!ids.contains(&next["id"]), "an id is never given twice");
    assert!(expose().is_err());
}

#[test]
fn one_port_too_many_in_the_configuration_is_a_wrong_configuration() {
    let port = "\"tcp:127.0.0.1:0=a/b\"";
    let config = |count| {
        let ports = vec![port; count].join(", ");
        Options::with_config(format!("expose = [{ports}]\n[limits]\nbridges_max = 2\n"))
    };
    assert_eq!(ask(&Daemon::start_with(&config(2)), "bridge-list", "").unwrap().as_array().unwrap().len(), 2);
    let ended = Daemon::try_start(&config(3)).unwrap_err();
    assert_eq!(ended.status.code(), Some(78), "{ended:#?}");
    assert!(ended.stderr.contains("bridges_max"), "{}", ended.stderr);
}

#[test]
fn connections_over_the_limit_are_closed_at_once_and_counted() {
    let exposed = Exposed::start("test.echo/echo", "expose_connections_max = 3");
    serve_echo(&exposed.daemon);
    let from = |last: u8| exposed.connect_from(Ipv4Addr::new(127, 0, 0, last));
    let mut clients: Vec<_> = [1, 1, 2].map(from).into();
    for client in &mut clients {
        client.exchange("in", "in");
    }
    assert!(from(3).rest().is_empty());
    assert_eq!((exposed.number("refused"), exposed.number("connections")), (1, 3));
    clients.pop();
    exposed.wait_for("connections", 2);
    from(3).exchange("in", "in");
    for client in &mut clients {
        client.exchange("still in", "still in");
    }
    let ended = exposed.daemon.stop();
    assert!(ended.stderr.contains("expose_connections_max is at its limit of 3"), "{}", ended.stderr);
}

#[test]
fn no_address_takes_every_connection_of_a_port() {
    let exposed = Exposed::start("test.echo/echo", "expose_connections_max = 8");
    serve_echo(&exposed.daemon);
    let from = |last: u8| exposed.connect_from(Ipv4Addr::new(127, 0, 0, last));
    let mut inside = Vec::new();
    // Half of them, half of what is left, and so on.
    for (address, fit) in [(1, 4), (2, 2), (3, 1), (4, 1)] {
        for _ in 0..fit {
            let mut client = from(address);
            client.exchange("in", "in");
            inside.push(client);
        }
        assert!(from(address).rest().is_empty(), "127.0.0.{address} has more than {fit}");
    }
    assert_eq!((exposed.number("refused"), exposed.number("connections")), (4, 8));
    // One of the first has gone, and what is left is still for others.
    inside.swap_remove(0);
    exposed.wait_for("connections", 7);
    assert!(from(1).rest().is_empty());
    from(5).exchange("in", "in");
}

#[test]
fn the_connections_of_a_port_count_among_all() {
    // One is the daemon's own, one the service's, one is for asking.
    let exposed = Exposed::start("test.echo/echo", "connections_max = 4");
    serve_echo(&exposed.daemon);
    let mut first = exposed.connect();
    first.exchange("in", "in");
    exposed.wait_for("connections", 1);
    let mut second = exposed.connect();
    second.exchange("in", "in");
    assert!(exposed.connect().rest().is_empty(), "refused by the bus");
    drop(second);
    exposed.wait_for("refused", 1);
}

#[test]
fn the_longest_line_is_served_and_one_byte_more_closes_the_connection() {
    let exposed = Exposed::start("test.echo/echo,framing=line", "expose_pending_max_bytes = 100");
    serve_echo(&exposed.daemon);
    let mut client = exposed.connect();
    for length in [99, 100] {
        for end in ["\n", "\r\n"] {
            let line = "x".repeat(length);
            client.exchange(&format!("{line}{end}"), &format!("{line}\n"));
        }
    }
    assert_eq!(exposed.number("errors"), 0);
    client.send("x".repeat(101));
    assert!(client.rest().is_empty(), "it is not waited for the end of the line");
    exposed.wait_for("errors", 1);
    let ended = exposed.daemon.stop();
    assert!(ended.stderr.contains("longer than 100 bytes"), "{}", ended.stderr);
}

#[test]
fn bytes_that_wait_for_a_call_are_bounded_and_none_is_lost() {
    let exposed = Exposed::start("test.raw/m", "expose_pending_max_bytes = 1000");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let mut client = exposed.connect();
    client.send("a");
    let mut call = service.call();
    // More than the sockets hold: sending comes to a halt.
    client.0.set_nonblocking(true).unwrap();
    let mut sent = 1;
    let is_halted = ipc_tests::daemon::eventually(|| match client.0.write(&[b'x'; 65_536]) {
        Ok(count) => {
            sent += count;
            false
        }
        Err(error) => error.kind() == ErrorKind::WouldBlock && exposed.number("bytes_in") == 1001,
    });
    assert!(is_halted, "{sent} bytes were taken");
    client.0.set_nonblocking(false).unwrap();
    client.end();
    let mut received = 0;
    loop {
        assert!(call.frame.body.len() <= 1000);
        received += call.frame.body.len();
        service.reply(&call, b"");
        if received == sent {
            break;
        }
        call = service.call();
    }
    assert!(client.rest().is_empty());
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    for (option, limits) in
        [("", "expose_idle_timeout_ms = 50"), (",idle=50ms", "expose_idle_timeout_ms = 86400000")]
    {
        let exposed = Exposed::start(&format!("test.raw/m{option}"), limits);
        let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
        let mut busy = exposed.connect();
        busy.send("?");
        let call = service.call();
        let start = Instant::now();
        let mut idle = exposed.connect();
        assert!(idle.rest().is_empty());
        assert!(start.elapsed().as_millis() >= 50, "after {:?}", start.elapsed());
        service.reply(&call, b"busy");
        assert_eq!(busy.receive(4), "busy");
        assert_eq!(exposed.number("errors"), 0, "to be idle is no error");
        assert!(busy.rest().is_empty());
    }
}

#[test]
fn a_client_that_does_not_read_holds_two_replies_and_not_for_ever() {
    let exposed = Exposed::start("test.large/get,framing=line,idle=200ms", "");
    let service = Service::new("test.large").unwrap();
    serve(&exposed.daemon, service.method("get", |_| Ok(vec![b'x'; 15 << 20])));
    let mut client = exposed.connect();
    client.send("?\n?\n?\n");
    exposed.wait_for("errors", 1);
    assert_eq!(exposed.number("calls"), 2, "the third call waits until the first reply is read");
    exposed.wait_for("connections", 0);
    drop(client);
    let ended = exposed.daemon.stop();
    assert!(ended.stderr.contains("slow_consumer"), "{}", ended.stderr);
}

#[test]
fn replies_that_nobody_reads_are_bounded_for_all_clients_together() {
    let limits = "queue_per_uid_max_bytes = 40000000";
    let exposed = Exposed::start("test.large/get", limits);
    let service = Service::new("test.large").unwrap();
    serve(&exposed.daemon, service.method("get", |_| Ok(vec![b'x'; 15 << 20])));
    let mut clients: Vec<_> = (0..4).map(|_| exposed.connect()).collect();
    for client in &mut clients {
        client.send("?");
    }
    // The sockets take some of it; of four replies there is no room for one or two.
    exposed.wait_for("calls", 4);
    assert!(ipc_tests::daemon::eventually(|| exposed.number("errors") >= 1));
    drop(clients);
    exposed.wait_for("connections", 0);
    let mut next = exposed.connect();
    next.send("?");
    next.end();
    assert_eq!(next.rest().len(), 15 << 20);
}

#[test]
fn whoever_does_not_read_makes_room_for_those_who_do() {
    let exposed = Exposed::start("test.large/get", "queue_per_uid_max_bytes = 16000000");
    let service = Service::new("test.large").unwrap();
    serve(&exposed.daemon, service.method("get", |_| Ok(vec![b'x'; 15 << 20])));
    let mut deaf = exposed.connect();
    deaf.send("?");
    exposed.wait_for("calls", 1);
    // What it has not read is all there may be, but for what the sockets take.
    for number in 2..=4 {
        let mut client = exposed.connect();
        client.send("?");
        client.end();
        assert_eq!(client.rest().len(), 15 << 20, "the client that reads, number {number}");
    }
    assert_eq!(exposed.number("errors"), 1);
    assert!(deaf.rest().len() < 15 << 20, "the one that did not was given up");
    let ended = exposed.daemon.stop();
    assert!(ended.stderr.contains("not read for longest"), "{}", ended.stderr);
}
