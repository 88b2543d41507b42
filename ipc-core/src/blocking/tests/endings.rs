//! Daemons that are not there, leave, or come back.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use super::fake::*;
use crate::blocking::{Backoff, Client, Delivery, NameEvent, Service, ServingState};
use crate::error::{Error, ErrorCode};
use crate::wire::message::{Close, ErrorBody};
use crate::wire::{Flags, Header, Kind};

#[test]
fn a_daemon_that_does_not_answer_the_hello_is_given_up_on() {
    with_fake(
        // Accepts and says nothing, as a stopped process does whose kernel goes on.
        |listener| {
            let mut daemon = Fake::accept(&listener);
            while daemon.next().is_some() {}
        },
        |options| {
            let error = Client::connect(options.connect_timeout(Duration::from_millis(30))).unwrap_err();
            assert_eq!(error.code, ErrorCode::Unreachable);
            assert!(error.message.contains("hello"), "{error}");
        },
    );
}

#[test]
fn an_opened_client_asks_before_it_is_answered() {
    with_fake(
        |listener| {
            let mut daemon = Fake::greet_late(&listener);
            let call = daemon.expect_kind(Kind::CALL);
            daemon.reply(&call, b"x");
            let call = daemon.expect_kind(Kind::CALL);
            daemon.reply(&call, b"y");
        },
        |options| {
            let mut client = Client::open(options).unwrap();
            assert_eq!(client.daemon(), None);
            assert!(!client.is_connected());
            assert_eq!(&client.call("a.b", "m", "").unwrap().payload.body[..], b"x");
            assert!(client.is_connected());
            assert_eq!(&client.call("a.b", "m", vec![0; 10_000]).unwrap().payload.body[..], b"y");
        },
    );
    with_fake(
        |listener| {
            // What is larger than a frame may be before the welcome waits for it.
            let mut daemon = Fake::greet(&listener);
            let call = daemon.expect_kind(Kind::CALL);
            daemon.reply(&call, b"z");
        },
        |options| {
            let mut client = Client::open(options).unwrap();
            assert_eq!(&client.call("a.b", "m", vec![0; 10_000]).unwrap().payload.body[..], b"z");
        },
    );
}

#[test]
fn a_refusal_instead_of_a_welcome_is_passed_on() {
    with_fake(
        |listener| {
            let mut daemon = Fake::accept(&listener);
            let code = ErrorCode::UnsupportedVersion.number();
            let close = Close { code, message: "this daemon speaks 9".into() };
            daemon.send(Header::new(Kind::CLOSE), &close, b"");
        },
        |options| {
            let error = Client::connect(options).unwrap_err();
            assert_eq!(error.code, ErrorCode::UnsupportedVersion);
            assert!(error.message.contains("speaks 9"), "{error}");
        },
    );
}

#[test]
fn what_is_no_daemon_is_told_apart() {
    for (bytes, code) in [
        (&b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..], ErrorCode::ProtocolViolation),
        (b"", ErrorCode::Unreachable),
    ] {
        with_fake(
            |listener| {
                let mut daemon = Fake::accept(&listener);
                daemon.expect();
                daemon.stream.write_all(bytes).unwrap();
            },
            |options| assert_eq!(Client::connect(options).unwrap_err().code, code),
        );
    }
}

#[test]
fn a_call_that_was_sent_may_have_run_and_the_next_was_not_sent() {
    with_client(
        |mut daemon| {
            daemon.expect_kind(Kind::CALL);
        },
        |mut client| {
            let error = client.call("a.b", "m", "").unwrap_err();
            assert_eq!(error.code, ErrorCode::OutcomeUnknown, "{error}");
            assert!(!client.is_connected());
            let error = client.call("a.b", "m", "").unwrap_err();
            assert_eq!(error.code, ErrorCode::Unreachable, "{error}");
            assert_eq!(client.ping().unwrap_err().code, ErrorCode::Unreachable);
            assert_eq!(client.run().unwrap_err().code, ErrorCode::Unreachable);
            assert_eq!(client.close().unwrap_err().code, ErrorCode::Unreachable);
        },
    );
}

#[test]
fn the_reason_for_closing_is_read_even_when_writing_fails_first() {
    with_client(
        |mut daemon| {
            daemon.pong();
            let close = Close { code: ErrorCode::ShuttingDown.number(), message: "going home".into() };
            daemon.send(Header::new(Kind::CLOSE), &close, b"");
        },
        |mut client| {
            client.ping().unwrap();
            // Whether this fails at once depends on who is faster; soon it must, and say why.
            let mut failed = None;
            while failed.is_none() {
                failed = client.publish_oneway("a.b", "").err();
            }
            let error = failed.unwrap();
            assert!(error.message.contains("going home"), "{error}");
        },
    );
}

#[test]
fn a_goodbye_is_sent() {
    with_client(
        |mut daemon| {
            let close = daemon.expect();
            assert_eq!(close.header.kind, Kind::CLOSE);
            assert!(daemon.next().is_none());
        },
        |client| client.close().unwrap(),
    );
}

#[test]
fn a_reconnect_makes_everything_again_and_says_what_was_lost() {
    fn first(listener: &UnixListener) {
        let mut daemon = Fake::greet_as(listener, 1);
        let subscription = daemon.subscribed();
        daemon.stream.write_all(&event(subscription, 5, b"x")).unwrap();
        let watch = daemon.expect_kind(Kind::WATCH_NAMES).header.correlation;
        daemon.send_bare(Header::new(Kind::DONE).with_correlation(watch), b"");
        daemon.registered();
    }
    fn second(listener: &UnixListener) {
        let mut daemon = Fake::greet_as(listener, 2);
        let register = daemon.expect_kind(Kind::REGISTER).header.correlation;
        let error = Error::new(ErrorCode::NameTaken, "somebody else was faster");
        let done = Header { flags: Flags::ERROR, ..Header::new(Kind::DONE).with_correlation(register) };
        daemon.send(done, &ErrorBody::from(&error), b"");
        daemon.subscribed();
        daemon.pong();
    }
    with_fake(
        |listener| {
            first(&listener);
            // Accepted and dropped: an attempt that fails.
            drop(Fake::accept(&listener));
            second(&listener);
        },
        |options| {
            let backoff = Backoff { first: Duration::from_millis(1), ..Backoff::default() };
            let mut client = Client::connect(options.reconnect(backoff)).unwrap();
            let subscription = client.subscribe("a.b", Default::default()).unwrap();
            let watch = client.watch_names(">").unwrap();
            let service = Service::new("x.y").unwrap().method("m", |_| Ok(""));
            let serving = client.serve(service).unwrap();
            assert_eq!(client.serving_state(&serving), ServingState::Active);
            let event = client.next_delivery(&subscription, PATIENCE).unwrap();
            assert!(matches!(event, Some(Delivery::Event(event)) if event.sequence == 5));
            assert!(client.next_delivery(&subscription, PATIENCE).is_err());

            let reconnected = client.reconnect().unwrap();
            assert!(reconnected.epoch_changed);
            assert_eq!(reconnected.attempts, 2);
            let [(name, error)] = &reconnected.services_lost[..] else { panic!("{reconnected:?}") };
            assert_eq!((name.as_str(), error.code), ("x.y", ErrorCode::NameTaken));
            assert!(matches!(client.serving_state(&serving), ServingState::Gone(Some(_))));
            let lost = client.try_next(&subscription).unwrap();
            assert!(matches!(lost, Some(Delivery::Lost(lost)) if lost.sequence_before == Some(5)));
            let restarted = client.next_name_event(&watch, PATIENCE).unwrap();
            assert_eq!(restarted, Some(NameEvent::Restarted));
        },
    );
}

#[test]
fn a_reconnect_ends_when_there_is_nobody() {
    let mut client = with_client(|_| {}, |client| client);
    let error = client.reconnect().unwrap_err();
    assert_eq!(error.code, ErrorCode::Unreachable);
    assert!(error.message.contains("no such file"), "{error}");
}
