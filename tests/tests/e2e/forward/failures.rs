//! Servers that are absent, slow, gone in the middle, or say too much. What the caller is told, and that nothing of one call
//! reaches another.

use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use ipc_tests::daemon::{PATIENCE, Signal};
use ipc_tests::servers::{Forwarded, Server, code_of, send, timed};
use ipc_tests::services::Witness;

const SHORT: Option<Duration> = Some(Duration::from_millis(300));

#[test]
fn a_server_that_is_absent_is_named_with_what_was_tried() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (server, tried) in [
        (format!("tcp:{tcp}"), vec![tcp.to_string()]),
        (format!("tcp:localhost:{}", tcp.port()), vec![tcp.to_string()]),
        (format!("udp:{udp}"), vec![udp.to_string()]),
    ] {
        let forwarded = Forwarded::start(&server, "");
        let error = send(&mut forwarded.client(), "?", None).unwrap_err();
        assert_eq!(code_of(&error), "cannot_connect", "{server}: {error}");
        for part in tried.iter().chain([&server, &"refused".to_owned()]) {
            assert!(error.message.contains(part), "{part} is missing in {error}");
        }
        assert!(error.hint().is_some());
        assert_eq!(forwarded.number("errors"), 1);
        let log = forwarded.daemon.stop().stderr;
        assert!(log.contains("cannot connect"), "{log}");
    }
}

#[test]
fn a_name_that_cannot_be_looked_up_is_named() {
    // A part of a name has at most 63 bytes, so nobody else needs to be asked.
    let forwarded = Forwarded::start(&format!("tcp:{}:1", "x".repeat(64)), "");
    let error = send(&mut forwarded.client(), "?", None).unwrap_err();
    assert_eq!(code_of(&error), "cannot_resolve", "{error}");
}

#[test]
fn a_server_that_is_slow_ends_the_call_at_its_deadline_and_never_answers_another() {
    for framing in ["", ",framing=line", ",framing=until-close"] {
        let server = Server::start();
        let forwarded = Forwarded::start(&format!("tcp:{}{framing}", server.address()), "");
        let mut client = forwarded.client();
        let (error, took) = timed(|| send(&mut client, "first", SHORT).unwrap_err());
        assert_eq!(code_of(&error), "deadline_exceeded", "{error}");
        assert!(took >= Duration::from_millis(250) && took < PATIENCE, "after {took:?}");
        let mut late = server.accept();
        late.expect("first");
        // Who is first to see it, the forward or the bus, does not matter.
        assert_eq!(forwarded.number("late") + forwarded.number("cancelled"), 1);
        assert_eq!(forwarded.number("idle"), 0);
        let call = forwarded.call_later("second");
        let mut next = server.accept();
        next.expect("second");
        // Too late, and on a connection that has no reader any more: it may not even be sent.
        let _ = std::io::Write::write_all(&mut late.0, b"to the first\n");
        next.send("to the second\n");
        drop(next);
        assert_eq!(call.join().unwrap().unwrap().trim_end(), "to the second");
    }
}

#[test]
fn a_late_datagram_never_answers_another_call() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let forwarded = Forwarded::start(&format!("udp:{}", server.local_addr().unwrap()), "");
    let mut client = forwarded.client();
    let mut buffer = [0; 64];
    let mut ports = Vec::new();
    for _ in 0..5 {
        let error = send(&mut client, "first", Some(Duration::from_millis(50))).unwrap_err();
        assert_eq!(code_of(&error), "deadline_exceeded", "{error}");
        let (_, late) = server.recv_from(&mut buffer).unwrap();
        let call = forwarded.call_later("second");
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"second");
        assert!(from != late && !ports.contains(&from), "a port was used again");
        server.send_to(b"to the first", late).unwrap();
        server.send_to(b"to the second", from).unwrap();
        assert_eq!(call.join().unwrap().unwrap(), "to the second");
        ports.push(late);
    }
    assert_eq!(forwarded.number("late") + forwarded.number("cancelled"), 5);
}

#[test]
fn a_datagram_from_somebody_else_is_no_reply() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let forwarded = Forwarded::start(&format!("udp:{}", server.local_addr().unwrap()), "");
    let call = forwarded.call_later("?");
    let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    // The kernel lets nobody but the server answer: it may even say so.
    let _ = stranger.send_to(b"forged", from);
    server.send_to(b"genuine", from).unwrap();
    assert_eq!(call.join().unwrap().unwrap(), "genuine");
}

#[test]
fn a_call_that_nobody_wants_any_more_ends_its_connection() {
    let server = Server::start();
    let forwarded = Forwarded::start(&format!("tcp:{}", server.address()), "");
    let mut caller = ipc_tests::raw::RawPeer::greeted(&forwarded.daemon.socket()).0;
    caller.call("test.net", "send", b"first");
    let mut connection = server.accept();
    connection.expect("first");
    drop(caller);
    assert!(connection.rest().is_empty());
    forwarded.wait_for("cancelled", 1);
    assert_eq!((forwarded.number("open_calls"), forwarded.number("idle")), (0, 0));
}

#[test]
fn a_server_that_closes_in_the_middle_is_an_error_that_says_how_far_it_came() {
    for (framing, answer, received) in
        [("", "", "0 bytes"), (",framing=line", "", "0 bytes"), (",framing=line", "half a l", "8 bytes")]
    {
        let server = Server::start();
        let forwarded = Forwarded::start(&format!("tcp:{}{framing}", server.address()), "");
        let call = forwarded.call_later("?");
        let mut connection = server.accept();
        connection.expect("?");
        connection.send(answer);
        connection.end();
        let error = call.join().unwrap().unwrap_err();
        assert_eq!(code_of(&error), "connection_lost", "{error}");
        assert!(error.message.contains(received), "{error}");
        assert_eq!(forwarded.number("idle"), 0);
    }
}

#[test]
fn a_server_that_resets_the_connection_is_an_error_whatever_the_framing() {
    for framing in ["", ",framing=line", ",framing=until-close"] {
        let server = Server::start();
        let forwarded = Forwarded::start(&format!("tcp:{}{framing}", server.address()), "");
        let call = forwarded.call_later("?");
        let mut connection = server.accept();
        connection.expect("?");
        rustix::net::sockopt::set_socket_linger(&connection.0, Some(Duration::ZERO)).unwrap();
        drop(connection);
        let error = call.join().unwrap().unwrap_err();
        assert_eq!(code_of(&error), "connection_lost", "{framing}: {error}");
    }
}

#[test]
fn a_server_that_does_not_read_ends_the_call_when_its_time_is_up() {
    let server = Server::start();
    let forwarded = Forwarded::start(&format!("tcp:{}", server.address()), "forward_timeout_ms = 500");
    let witness = Witness::start(&forwarded.daemon);
    let mut client = forwarded.client();
    let payload = "x".repeat(15 << 20);
    let error = send(&mut client, &payload, None).unwrap_err();
    assert_eq!(code_of(&error), "deadline_exceeded", "{error}");
    assert!(error.message.contains("bytes of the payload"), "{error}");
    witness.goes_on();
}

#[test]
fn a_reply_may_be_as_large_as_a_payload_and_no_larger() {
    for (bytes, fits) in [(2047, true), (2048, true), (2049, false), (1 << 20, false)] {
        for framing in ["", ",framing=line", ",framing=until-close"] {
            let server = Server::start();
            let forwarded =
                Forwarded::start(&format!("tcp:{}{framing}", server.address()), "payload_max_bytes = 2048");
            let call = forwarded.call_later("?");
            let mut connection = server.accept();
            connection.expect("?");
            // A line has an end, which is no part of the reply.
            let end = if framing == ",framing=line" { "\n" } else { "" };
            // The daemon may close before it has taken all.
            let _ = std::io::Write::write_all(
                &mut connection.0,
                format!("{}{end}", "x".repeat(bytes)).as_bytes(),
            );
            // Who closes first does not matter, so nothing is done about an end that has come already.
            let _ = connection.0.shutdown(std::net::Shutdown::Write);
            match call.join().unwrap() {
                Ok(reply) => {
                    assert!(fits && reply.len() == bytes, "{framing}: {bytes} gives {}", reply.len())
                }
                Err(error) => {
                    assert!(!fits, "{framing}: {bytes} gives {error}");
                    assert_eq!(code_of(&error), "reply_too_large");
                    assert!(error.message.contains("2048"), "{error}");
                }
            }
        }
    }
}

#[test]
fn a_datagram_reply_may_be_as_large_as_a_payload_and_no_larger() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = server.local_addr().unwrap();
    let forwarded = Forwarded::start(&format!("udp:{address}"), "payload_max_bytes = 2048");
    for (bytes, fits) in [(0, true), (2047, true), (2048, true), (2049, false)] {
        let call = forwarded.call_later("?");
        let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
        server.send_to(&vec![b'x'; bytes], from).unwrap();
        match call.join().unwrap() {
            Ok(reply) => assert!(fits && reply.len() == bytes),
            Err(error) => assert!(!fits && code_of(&error) == "reply_too_large", "{bytes}: {error}"),
        }
    }
}

#[test]
fn a_payload_that_fits_no_datagram_is_refused() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let forwarded = Forwarded::start(&format!("udp:{}", server.local_addr().unwrap()), "");
    for (bytes, fits) in [(65_506, true), (65_507, true), (65_508, false)] {
        let call = forwarded.call_later(&"x".repeat(bytes));
        if fits {
            let (length, from) = server.recv_from(&mut vec![0; 65_536]).unwrap();
            assert_eq!(length, bytes);
            server.send_to(b"!", from).unwrap();
            assert_eq!(call.join().unwrap().unwrap(), "!");
        } else {
            let error = call.join().unwrap().unwrap_err();
            assert_eq!(code_of(&error), "payload_too_large", "{error}");
        }
    }
}

#[test]
fn an_open_call_may_end_while_the_daemon_drains() {
    let server = Server::start();
    let mut forwarded = Forwarded::start(&format!("tcp:{}", server.address()), "");
    let call = forwarded.call_later("?");
    let mut connection = server.accept();
    connection.expect("?");
    forwarded.daemon.signal(Signal::TERM);
    while forwarded.daemon.socket().exists() {
        std::thread::yield_now();
    }
    connection.send("at last");
    assert_eq!(call.join().unwrap().unwrap(), "at last");
    let ended = forwarded.daemon.wait();
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
}

#[test]
fn a_server_that_never_answers_does_not_hold_up_the_end_of_the_daemon() {
    let server = Server::start();
    let mut forwarded = Forwarded::start(&format!("tcp:{}", server.address()), "drain_timeout_ms = 100");
    let call = forwarded.call_later("?");
    let mut connection = server.accept();
    connection.expect("?");
    forwarded.daemon.signal(Signal::TERM);
    let ended = forwarded.daemon.wait();
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    assert!(call.join().unwrap().is_err());
    assert!(connection.rest().is_empty());
}
