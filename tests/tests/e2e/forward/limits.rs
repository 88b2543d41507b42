//! Every bound of a forward, at the last that is allowed and the first that is not.

use std::time::Duration;

use ipc_core::ErrorCode;
use ipc_tests::servers::{Accepted, Forwarded, Server, send, timed};

fn forwarded(server: &Server, limits: &str) -> Forwarded {
    Forwarded::start(&format!("tcp:{}", server.address()), limits)
}

fn answer(mut connection: Accepted) -> Accepted {
    connection.expect("?");
    connection.send("!");
    connection
}

#[test]
fn calls_under_way_and_calls_that_wait_up_to_their_limits() {
    let server = Server::start();
    let forwarded = forwarded(&server, "forward_calls_max = 2\nforward_waiting_max = 1");
    let calls: Vec<_> = (0..2).map(|_| forwarded.call_later("?")).collect();
    let connections = [server.accept(), server.accept()];
    let waiting = forwarded.call_later("?");
    forwarded.wait_for("waiting", 1);
    assert_eq!(forwarded.number("open_calls"), 2);
    let refused = send(&mut forwarded.client(), "?", None).unwrap_err();
    assert_eq!(refused.code, ErrorCode::QuotaExceeded);
    assert!(refused.message.contains("forward_waiting_max"), "{refused}");
    assert_eq!(forwarded.number("refused"), 1);
    assert!(server.is_alone(), "the one that waits has no connection");
    let [first, second] = connections.map(answer);
    // The connection that is free first serves the one that waits.
    let mut free = [first, second].into_iter().map(|connection| {
        std::thread::spawn(move || {
            let mut connection = connection;
            let mut byte = [0];
            let count = std::io::Read::read(&mut connection.0, &mut byte).unwrap_or(0);
            (count > 0).then(|| connection.send("!"));
            connection
        })
    });
    let served: Vec<_> = free.by_ref().collect();
    assert_eq!(waiting.join().unwrap().unwrap(), "!");
    for call in calls {
        assert_eq!(call.join().unwrap().unwrap(), "!");
    }
    assert_eq!((forwarded.number("connected"), forwarded.number("waiting")), (2, 0));
    drop(forwarded);
    for thread in served {
        thread.join().unwrap();
    }
}

#[test]
fn a_call_that_waits_ends_at_its_deadline_or_when_nobody_wants_it() {
    let server = Server::start();
    let forwarded = forwarded(&server, "forward_calls_max = 1");
    let under_way = forwarded.call_later("?");
    let connection = server.accept();
    let late = send(&mut forwarded.client(), "late", Some(Duration::from_millis(50))).unwrap_err();
    assert_eq!(late.code, ErrorCode::DeadlineExceeded);
    forwarded.wait_for("waiting", 0);
    answer(connection);
    assert_eq!(under_way.join().unwrap().unwrap(), "!");
    assert_eq!(forwarded.number("calls"), 1, "the server has heard of no other");
}

#[test]
fn connections_are_kept_up_to_the_limit() {
    for (max, kept) in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3)] {
        let server = Server::start();
        let forwarded = forwarded(&server, &format!("forward_idle_max = {max}"));
        let calls: Vec<_> = (0..3).map(|_| forwarded.call_later("?")).collect();
        let connections: Vec<_> = (0..3).map(|_| server.accept()).collect();
        let _answered: Vec<_> = connections.into_iter().map(answer).collect();
        for call in calls {
            call.join().unwrap().unwrap();
        }
        forwarded.wait_for("open_calls", 0);
        assert_eq!(forwarded.number("idle"), kept, "at most {max}");
    }
}

#[test]
fn a_connection_is_kept_for_its_time() {
    let server = Server::start();
    let forwarded = forwarded(&server, "forward_idle_timeout_ms = 100");
    let call = forwarded.call_later("?");
    let mut connection = answer(server.accept());
    let (rest, took) = timed(|| connection.rest());
    assert!(rest.is_empty());
    assert!(took >= Duration::from_millis(90), "after {took:?}");
    call.join().unwrap().unwrap();
    assert_eq!((forwarded.number("idle"), forwarded.number("errors")), (0, 0));
}

#[test]
fn a_caller_that_would_wait_for_ever_does_not() {
    let server = Server::start();
    let forwarded = forwarded(&server, "forward_timeout_ms = 100");
    let mut client = forwarded.client();
    let (error, took) = timed(|| send(&mut client, "?", None).unwrap_err());
    assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{error}");
    assert!(took >= Duration::from_millis(100), "after {took:?}");
    for part in ["within 100ms", "had taken the payload", "0 bytes of a reply"] {
        assert!(error.message.contains(part), "{part} is missing in {error}");
    }
    assert_eq!(forwarded.number("late"), 1);
}

#[test]
fn bytes_of_replies_that_are_arriving_up_to_the_limit() {
    let server = Server::start();
    let forwarded = Forwarded::start(
        &format!("tcp:{},framing=until-close", server.address()),
        "forward_pending_max_bytes = 10",
    );
    let first = forwarded.call_later("?");
    let mut first_connection = server.accept();
    first_connection.send("123456789");
    forwarded.wait_for("pending_bytes", 9);
    for (answer, fits) in [("1", true), ("12", false)] {
        let call = forwarded.call_later("?");
        let mut connection = server.accept();
        connection.send(answer);
        connection.end();
        match call.join().unwrap() {
            Ok(reply) => assert!(fits && reply == answer),
            Err(error) => {
                assert!(!fits);
                assert_eq!(error.code, ErrorCode::QuotaExceeded);
                assert!(error.message.contains("forward_pending_max_bytes"), "{error}");
            }
        }
    }
    first_connection.end();
    assert_eq!(first.join().unwrap().unwrap(), "123456789");
    forwarded.wait_for("pending_bytes", 0);
}
