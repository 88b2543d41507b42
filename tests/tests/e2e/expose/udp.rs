//! Datagrams of network clients that become calls.

use std::net::UdpSocket;
use std::time::Instant;

use ipc_core::blocking::Service;
use ipc_core::identity::Identity;
use ipc_tests::daemon::{Daemon, Options, PATIENCE, Signal, eventually};
use ipc_tests::exposed::{Exposed, UdpClient};
use ipc_tests::services::{RawService, Witness, ask, serve, serve_echo};

#[test]
fn a_datagram_is_a_call_and_its_reply_a_datagram_on_both_families() {
    for door in ["udp:127.0.0.1:0", "udp:[::1]:0"] {
        let exposed = Exposed::start_at(door, "test.echo/echo", "");
        serve_echo(&exposed.daemon);
        let client = exposed.datagrams();
        // The largest that IPv4 carries, as the very first thing that is heard of its source.
        let largest = vec![0xff; 65_507];
        client.send(&largest);
        assert!(client.receive() == largest, "what came back is something else");
        for text in ["hello", "", "x", "gr\u{fc}\u{df} dich\n"] {
            client.exchange(text, text);
        }
        for (name, value) in [("calls", 5), ("errors", 0), ("dropped", 0), ("sources", 1), ("open_calls", 0)]
        {
            assert_eq!(exposed.number(name), value, "{name}");
        }
        assert_eq!(exposed.number("bytes_in"), exposed.number("bytes_out"));
        assert_eq!(exposed.number("pending_bytes"), 0);
        let rows = ask(&exposed.daemon, "bridge-list", "").unwrap();
        assert_eq!((&rows[0]["kind"], &rows[0]["framing"]), (&"expose_udp".into(), &"datagram".into()));
    }
}

/// A client that has connected its socket hears from nobody but the address that it has asked.
#[test]
fn a_port_of_every_address_answers_from_the_one_that_was_asked() {
    for (door, asked) in [
        ("udp:0.0.0.0:0", &["127.0.0.1", "127.0.0.2", "127.1.2.3"][..]),
        ("udp:[::]:0", &["[::1]", "127.0.0.1", "127.0.0.2"]),
    ] {
        let exposed = Exposed::start_at(door, "test.echo/echo", "");
        serve_echo(&exposed.daemon);
        for (at, host) in asked.iter().enumerate() {
            let address = format!("{host}:{}", exposed.address.port()).parse().unwrap();
            let client = UdpClient::new(address);
            client.exchange("hello", "hello");
            client.exchange("", "");
            assert_eq!(exposed.number("calls"), 2 * (at as u64 + 1));
        }
    }
}

/// The same socket may ask at several: each answer is matched by where it comes from.
#[test]
fn one_client_that_asks_at_two_addresses_hears_from_each() {
    let exposed = Exposed::start_at("udp:0.0.0.0:0", "test.raw/m", "");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let places = ["127.0.0.2", "127.0.0.3"].map(|host| (host, exposed.address.port()));
    let calls = places.map(|place| {
        client.send_to(place.0.as_bytes(), place).unwrap();
        service.call()
    });
    for (call, (host, port)) in calls.iter().zip(places).rev() {
        service.reply(call, host.as_bytes());
        let mut buffer = [0; 16];
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from.to_string()), (host.as_bytes(), format!("{host}:{port}")));
    }
}

#[test]
fn a_call_names_the_source_and_carries_the_deadline() {
    let exposed = Exposed::start_udp("test.raw/m", "");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let client = exposed.datagrams();
    client.send("?");
    let call = service.call();
    let address = client.0.local_addr().unwrap().to_string();
    assert_eq!(call.caller, Identity::Remote { principal: "anonymous".to_owned(), address });
    assert!(call.deadline_us > 1_000_000 && call.deadline_us <= 5_000_000, "{}", call.deadline_us);
    let peers = ask(&exposed.daemon, "list", "peers").unwrap();
    let remote = peers.as_array().unwrap().iter().find(|peer| peer["transport"] == "expose_udp");
    assert_eq!(remote.expect("the source is listed")["principal"], "anonymous");
    service.reply(&call, b"!");
    assert_eq!(client.receive(), b"!");
}

#[test]
fn calls_of_one_source_and_of_several_are_answered_in_whatever_order() {
    let exposed = Exposed::start_udp("test.raw/m", "");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let clients = [exposed.datagrams(), exposed.datagrams()];
    let mut calls = Vec::new();
    for (round, client) in [(0, &clients[0]), (1, &clients[1]), (2, &clients[0])] {
        client.send(round.to_string());
        calls.push(service.call());
    }
    for call in calls.iter().rev() {
        let reply = call.frame.body.clone();
        service.reply(call, &reply);
    }
    assert_eq!((clients[0].receive(), clients[0].receive()), (b"2".to_vec(), b"0".to_vec()));
    assert_eq!(clients[1].receive(), b"1");
}

#[test]
fn what_comes_to_nothing_is_silence_and_is_counted() {
    let mut exposed = Exposed::start_udp("test.raw/m", "");
    let client = exposed.datagrams();
    client.send("nobody offers this");
    exposed.wait_for("errors", 1);
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    client.send("secret");
    let call = service.call();
    service.fail(&call, "cannot parse \"secret\"");
    exposed.wait_for("errors", 2);
    client.send("dies");
    service.call();
    drop(service);
    exposed.wait_for("errors", 3);
    // After all that the next answer is the first thing that the client hears.
    serve(&exposed.daemon, Service::new("test.raw").unwrap().method("m", |_| Ok("alive")));
    client.exchange("?", "alive");
    assert_eq!(exposed.number("dropped"), 0);
    exposed.daemon.signal(Signal::TERM);
    let log = exposed.daemon.wait().stderr;
    for part in ["no_such_service", "the service answered with an error", "service_gone"] {
        assert!(log.contains(part), "{part} is missing in {log}");
    }
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn a_missed_deadline_is_silence_and_cancels_the_call() {
    let exposed = Exposed::start_udp("test.raw/m", "");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let client = exposed.datagrams();
    let start = Instant::now();
    client.send("?");
    let call = service.call();
    service.cancelled(&call);
    assert!(start.elapsed().as_millis() >= 4900, "after {:?}", start.elapsed());
    exposed.wait_for("errors", 1);
    assert!(client.has_nothing());
}

#[test]
fn a_reply_that_fits_no_datagram_is_counted_and_the_largest_that_does_is_sent() {
    let exposed = Exposed::start_udp("test.size/get", "");
    let size = |text: &str| text.parse::<usize>().expect("a number");
    let service = Service::new("test.size").unwrap();
    serve(
        &exposed.daemon,
        service.method("get", move |request| Ok(vec![b'x'; size(request.payload.as_text()?)])),
    );
    let client = exposed.datagrams();
    for (bytes, too_long) in [(65_506, 0), (65_507, 0), (65_508, 1), (1 << 20, 2)] {
        client.send(bytes.to_string());
        exposed.wait_for("too_long", too_long);
        if bytes <= 65_507 {
            assert_eq!(client.receive().len(), bytes);
        }
    }
    exposed.wait_for("open_calls", 0);
    assert_eq!((exposed.number("errors"), exposed.number("unsent")), (0, 0));
    assert!(client.has_nothing());
}

#[test]
fn a_client_that_went_away_costs_the_others_nothing() {
    let exposed = Exposed::start_udp("test.raw/m", "");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let (gone, stays) = (exposed.datagrams(), exposed.datagrams());
    gone.send("gone");
    let to_nobody = service.call();
    drop(gone);
    service.reply(&to_nobody, b"to nobody");
    for _ in 0..3 {
        stays.send("stays");
        let call = service.call();
        service.reply(&call, b"answered");
        assert_eq!(stays.receive(), b"answered");
    }
    assert_eq!(exposed.number("open_calls"), 0);
}

#[test]
fn a_source_that_floods_stops_nobody() {
    let limits = "expose_udp_calls_per_source_max = 4";
    let exposed = Exposed::start_udp("test.raw/m", limits);
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let witness = Witness::start(&exposed.daemon);
    let flooder = exposed.datagrams();
    // Its share is used up, and nobody answers: whatever else it sends is dropped.
    for _ in 0..20_000 {
        flooder.send("flood");
    }
    witness.goes_on();
    for _ in 0..4 {
        assert_eq!(service.call().frame.body, b"flood");
    }
    let other = exposed.datagrams();
    // What it sends may be lost while the kernel's buffer is full, as on any network.
    other.0.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    let is_served = eventually(|| {
        flooder.send("flood");
        other.send("other");
        if exposed.number("open_calls") > 4 {
            let call = service.call();
            assert_eq!(call.frame.body, b"other");
            service.reply(&call, b"served");
        }
        other.0.recv(&mut [0; 16]).is_ok()
    });
    assert!(is_served, "{} dropped", exposed.number("dropped"));
    assert!(exposed.number("dropped") > 0);
    let log = exposed.daemon.log();
    assert!(log.matches("dropped a datagram").count() < 100, "the log is flooded too");
    assert!(log.contains("expose_udp_calls_per_source_max"), "{log}");
}

#[test]
fn a_port_is_opened_listed_and_removed_while_the_daemon_runs() {
    let daemon = Daemon::start();
    serve_echo(&daemon);
    let row = ask(&daemon, "bridge-expose", "udp:127.0.0.1:0=test.echo/echo").unwrap();
    let address = row["address"].as_str().unwrap();
    let status = ask(&daemon, "status", "").unwrap();
    let shown = serde_json::json!({ "kind": "expose_udp", "address": address });
    assert!(status["addresses"].as_array().unwrap().contains(&shown), "{}", status["addresses"]);
    let sockets = ask(&daemon, "sockets", "").unwrap();
    let socket = sockets.as_array().unwrap().iter().find(|socket| socket["local"] == address);
    assert_eq!(socket.expect("it is shown")["type"], "SOCK_DGRAM");
    let client = UdpClient::new(address.parse().unwrap());
    client.exchange("hello", "hello");
    ask(&daemon, "bridge-remove", &row["id"].to_string()).unwrap();
    assert_eq!(ask(&daemon, "bridge-list", "").unwrap(), serde_json::json!([]));
    // The port is free again, and the peer of its source is gone.
    assert!(eventually(|| UdpSocket::bind(address).is_ok()));
    let has_gone = || ask(&daemon, "status", "").unwrap()["usage"]["remote:anonymous"].is_null();
    assert!(eventually(has_gone));
}

#[test]
fn a_reload_leaves_the_port_to_its_successor() {
    let (echo, shout) = ("udp:127.0.0.1:0=test.echo/echo", "udp:127.0.0.1:0=test.shout/shout");
    let daemon = Daemon::start_with(&Options::with_config(format!("expose = [{echo:?}]\n")));
    serve_echo(&daemon);
    serve(&daemon, Service::new("test.shout").unwrap().method("shout", |_| Ok("SHOUT")));
    let rows = || ask(&daemon, "bridge-list", "").unwrap();
    let before = rows();
    let client = UdpClient::new(before[0]["address"].as_str().unwrap().parse().unwrap());
    client.exchange("quiet", "quiet");
    daemon.reload(&format!("expose = [{shout:?}]\n"));
    assert!(eventually(|| rows()[0]["spec"] == shout));
    assert_eq!(rows()[0]["address"], before[0]["address"]);
    client.exchange("quiet", "SHOUT");
}

#[test]
fn an_open_call_may_end_while_the_daemon_drains() {
    let mut exposed = Exposed::start_udp("test.raw/m", "");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let (client, idle) = (exposed.datagrams(), exposed.datagrams());
    idle.send("?");
    let call = service.call();
    service.reply(&call, b"idle from here on");
    idle.receive();
    client.send("?");
    let call = service.call();
    exposed.daemon.signal(Signal::TERM);
    while exposed.daemon.socket().exists() {
        std::thread::yield_now();
    }
    service.reply(&call, b"at last");
    assert_eq!(client.receive(), b"at last");
    let ended = exposed.daemon.wait();
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
}
