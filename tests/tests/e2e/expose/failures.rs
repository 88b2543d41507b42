//! Services and clients that come, go and fail.

use std::time::Instant;

use ipc_core::blocking::Service;
use ipc_core::identity::Identity;
use ipc_tests::daemon::Signal;
use ipc_tests::exposed::Exposed;
use ipc_tests::services::{RawService, ask, serve, serve_echo};

#[test]
fn a_call_names_the_network_client_and_carries_the_deadline() {
    let exposed = Exposed::start("test.raw/m", "");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let mut client = exposed.connect();
    client.send("?");
    let call = service.call();
    let address = client.0.local_addr().unwrap().to_string();
    assert_eq!(call.caller, Identity::Remote { principal: "anonymous".to_owned(), address });
    assert!(call.deadline_us > 1_000_000 && call.deadline_us <= 5_000_000, "{}", call.deadline_us);
    let peers = ask(&exposed.daemon, "list", "peers").unwrap();
    let remote = peers.as_array().unwrap().iter().find(|peer| peer["transport"] == "expose_tcp");
    let remote = remote.expect("the network client is listed");
    assert_eq!(remote["principal"], "anonymous");
    assert!(remote["uid"].is_null(), "a network client has no uid: {remote}");
}

#[test]
fn without_a_service_the_connection_is_closed_and_counted() {
    let exposed = Exposed::start("no.such/method", "");
    let mut client = exposed.connect();
    client.send("hello");
    assert!(client.rest().is_empty());
    exposed.wait_for("errors", 1);
    exposed.wait_for("connections", 0);
    let ended = exposed.daemon.stop();
    assert!(ended.stderr.contains("no_such_service"), "{}", ended.stderr);
}

#[test]
fn a_service_may_come_after_the_port_and_go_and_come_again() {
    let exposed = Exposed::start("test.raw/m", "");
    let mut waiting = exposed.connect();
    for round in ["first", "second"] {
        let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
        waiting.send("?");
        let call = service.call();
        service.reply(&call, round.as_bytes());
        assert_eq!(waiting.receive(round.len()), round);
    }
    assert_eq!(exposed.number("errors"), 0);
}

#[test]
fn a_service_that_dies_closes_the_connections_that_wait_for_it() {
    let exposed = Exposed::start("test.raw/m", "");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let mut waiting = exposed.connect();
    let mut idle = exposed.connect();
    waiting.send("?");
    service.call();
    drop(service);
    assert!(waiting.rest().is_empty());
    exposed.wait_for("errors", 1);
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    idle.send("?");
    let call = service.call();
    service.reply(&call, b"alive");
    assert_eq!(idle.receive(5), "alive");
}

#[test]
fn an_error_of_the_service_closes_the_connection_and_is_not_quoted_in_the_log() {
    let exposed = Exposed::start("test.raw/m,framing=line", "");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let mut client = exposed.connect();
    client.send("one\nsecret\nthree\n");
    let call = service.call();
    service.reply(&call, b"ONE");
    let call = service.call();
    service.fail(&call, "cannot parse \"secret\"");
    assert_eq!(client.rest(), b"ONE\n", "what was answered before is not taken back");
    exposed.wait_for("errors", 1);
    let ended = exposed.daemon.stop();
    assert!(ended.stderr.contains("the service answered with an error"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
}

#[test]
fn a_missed_deadline_closes_the_connection_and_cancels_the_call() {
    let exposed = Exposed::start("test.raw/m", "expose_pending_max_bytes = 10");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let mut client = exposed.connect();
    let start = Instant::now();
    client.send("?");
    let call = service.call();
    // Readable, at its end, and with no room for what comes: no reason to look again and again.
    client.send([b'x'; 100]);
    client.end();
    let before = exposed.daemon.cpu_time();
    assert!(client.rest().is_empty());
    let used = exposed.daemon.cpu_time() - before;
    assert!(used.as_millis() < 1000, "waiting for {:?} has cost {used:?}", start.elapsed());
    assert!(start.elapsed().as_millis() >= 4900, "after {:?}", start.elapsed());
    service.cancelled(&call);
    exposed.wait_for("errors", 1);
}

#[test]
fn the_call_of_a_client_that_vanishes_is_cancelled() {
    let exposed = Exposed::start("test.raw/m", "");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    for (what, has_ended) in [("while it may still send", false), ("after its half-close", true)] {
        let mut client = exposed.connect();
        client.send(what);
        if has_ended {
            client.end();
        }
        let call = service.call();
        client.vanish();
        service.cancelled(&call);
        exposed.wait_for("connections", 0);
    }
    assert_eq!(exposed.number("errors"), 0);
}

#[test]
fn a_client_that_vanishes_with_more_to_say_is_noticed_although_nothing_is_read() {
    let exposed = Exposed::start("test.raw/m", "expose_pending_max_bytes = 4");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let mut client = exposed.connect();
    client.send("0123456789");
    let call = service.call();
    exposed.wait_for("bytes_in", 8);
    client.vanish();
    service.cancelled(&call);
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let exposed = Exposed::start("test.echo/echo", "");
    serve_echo(&exposed.daemon);
    for round in 0..50 {
        let mut client = exposed.connect();
        match round % 4 {
            0 => {}
            1 => client.send("never read"),
            2 => client.exchange("read", "read"),
            _ => {
                client.send("half");
                client.end();
            }
        }
        if round % 2 == 0 { client.vanish() } else { drop(client) }
    }
    exposed.wait_for("connections", 0);
    let status = ask(&exposed.daemon, "status", "").unwrap();
    assert!(status["usage"]["remote:anonymous"].is_null(), "{}", status["usage"]);
    let mut client = exposed.connect();
    client.exchange("still there", "still there");
}

#[test]
fn an_open_call_may_end_while_the_daemon_drains() {
    let mut exposed = Exposed::start("test.raw/m", "");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let mut client = exposed.connect();
    let mut idle = exposed.connect();
    client.send("?");
    let call = service.call();
    exposed.daemon.signal(Signal::TERM);
    while exposed.daemon.socket().exists() {
        std::thread::yield_now();
    }
    service.reply(&call, &vec![b'x'; 1 << 20]);
    assert_eq!(client.rest().len(), 1 << 20, "the whole reply is written before the end");
    assert!(idle.rest().is_empty());
    let ended = exposed.daemon.wait();
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
}

#[test]
fn two_ports_of_one_service_and_a_local_client_do_not_mix() {
    let exposed = Exposed::start("test.echo/echo", "");
    serve_echo(&exposed.daemon);
    let other = Service::new("test.shout").unwrap();
    serve(&exposed.daemon, other.method("shout", |_| Ok("SHOUT")));
    let row = ask(&exposed.daemon, "bridge-expose", "tcp:127.0.0.1:0=test.shout/shout").unwrap();
    let mut loud = ipc_tests::exposed::NetClient::connect(row["address"].as_str().unwrap().parse().unwrap());
    let mut quiet = exposed.connect();
    loud.exchange("quiet", "SHOUT");
    quiet.exchange("quiet", "quiet");
}
