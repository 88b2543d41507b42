//! Serving calls.

use std::io::Write;
use std::time::{Duration, Instant};

use super::fake::*;
use crate::blocking::{Client, Service, ServiceError, remaining};
use crate::error::{Error, ErrorCode};
use crate::wire::message::ErrorBody;
use crate::wire::{Flags, Header, Kind};

fn echo() -> Service {
    Service::new("x.y").unwrap().method("m", |request| Ok(request.payload.clone())).describe("says it again")
}

#[test]
fn calls_are_answered_in_one_write_when_they_come_together() {
    with_client(
        |mut daemon| {
            daemon.registered();
            let calls: Vec<u8> = (0..3).flat_map(|n| call(n, 0, &[n as u8])).collect();
            daemon.stream.write_all(&calls).unwrap();
            for n in 0..3 {
                let reply = daemon.expect_kind(Kind::REPLY);
                assert_eq!((reply.header.correlation, &reply.body[..]), (n, &[n as u8][..]));
            }
            daemon.stream.write_all(&call(9, 0, b"stop")).unwrap();
            assert_eq!(daemon.expect().header.correlation, 9);
        },
        |mut client| {
            let service =
                Service::new("x.y").unwrap().method_with_client("m", |request, client: &mut Client| {
                    if request.payload.body == "stop" {
                        client.stop();
                    }
                    Ok(request.payload.clone())
                });
            let _serving = client.serve(service).unwrap();
            client.run().unwrap();
        },
    );
}

#[test]
fn one_call_at_a_time_and_in_bounded_time() {
    with_client(
        |mut daemon| {
            daemon.registered();
            daemon.pong();
            daemon.stream.write_all(&call(1, 0, b"a")).unwrap();
            assert_eq!(daemon.expect().header.kind, Kind::REPLY);
            while daemon.next().is_some() {}
        },
        |mut client| {
            let _serving = client.serve(echo()).unwrap();
            assert!(!client.serve_next(Duration::from_millis(10)).unwrap());
            client.ping().unwrap();
            assert!(client.serve_next(PATIENCE).unwrap());
            let start = Instant::now();
            assert_eq!(client.run_for(Duration::from_millis(10)).unwrap(), 0);
            assert!(start.elapsed() >= Duration::from_millis(10));
        },
    );
}

#[test]
fn a_nested_call_inherits_what_is_left_of_the_deadline() {
    with_client(
        |mut daemon| {
            daemon.registered();
            daemon.stream.write_all(&call(1, 400_000, b"")).unwrap();
            let nested = daemon.expect_kind(Kind::CALL);
            assert!((1..=400_000).contains(&nested.header.deadline_us), "{:?}", nested.header);
            // Another call comes meanwhile, and waits.
            daemon.stream.write_all(&call(2, 0, b"")).unwrap();
            daemon.reply(&nested, b"inner");
            for (correlation, body) in [(1, &b"inner"[..]), (2, b"no deadline")] {
                let mut reply = daemon.expect();
                while reply.header.kind == Kind::CALL {
                    daemon.reply(&reply, b"no deadline");
                    reply = daemon.expect();
                }
                assert_eq!((reply.header.correlation, &reply.body[..]), (correlation, body));
            }
        },
        |mut client| {
            let mut round = 0;
            let service = Service::new("x.y").unwrap().method_with_client("m", move |request, client| {
                round += 1;
                assert_eq!(request.remaining().is_some(), round == 1);
                assert_eq!(remaining().is_some(), round == 1);
                Ok(client.call("a.b", "m", "")?.payload)
            });
            let _serving = client.serve(service).unwrap();
            for _ in 0..2 {
                assert!(client.serve_next(PATIENCE).unwrap());
            }
            assert_eq!(remaining(), None);
        },
    );
}

#[test]
fn a_handler_cannot_wait_for_itself() {
    with_client(
        |mut daemon| {
            daemon.registered();
            daemon.stream.write_all(&call(1, 0, b"")).unwrap();
            let reply = daemon.expect();
            assert!(reply.header.flags.contains(Flags::ERROR));
            let error = Error::from(reply.decode::<ErrorBody>());
            assert_eq!(error.code, ErrorCode::Application);
            assert_eq!(error.detail.unwrap().application_code.as_deref(), Some("conflict"));
        },
        |mut client| {
            let service = Service::new("x.y").unwrap().method_with_client("m", |_, client| {
                assert_eq!(client.run().unwrap_err().code, ErrorCode::Conflict);
                client.call("x.y", "m", "").map(|reply| reply.payload).map_err(ServiceError::from)
            });
            let _serving = client.serve(service).unwrap();
            assert!(client.serve_next(PATIENCE).unwrap());
        },
    );
}

#[test]
fn a_long_call_learns_that_it_is_not_wanted_any_more() {
    with_client(
        |mut daemon| {
            daemon.registered();
            daemon.stream.write_all(&call(1, 0, b"")).unwrap();
            daemon.send_bare(Header::new(Kind::CANCEL).with_correlation(1), b"");
            daemon.pong();
        },
        |mut client| {
            let service = Service::new("x.y").unwrap().method_with_client("m", |_, client| {
                let start = Instant::now();
                while !client.is_cancelled() {
                    assert!(start.elapsed() < PATIENCE);
                }
                Ok("thrown away")
            });
            let _serving = client.serve(service).unwrap();
            // Not when the cancellation came in the same read as the call: then it is not served at all.
            client.run_for(Duration::from_millis(10)).unwrap();
            client.ping().unwrap();
        },
    );
}

#[test]
fn a_call_that_waited_past_its_deadline_is_not_served() {
    with_client(
        |mut daemon| {
            daemon.registered();
            let calls = [call(1, 0, b""), call(2, 1_000, b"")].concat();
            daemon.stream.write_all(&calls).unwrap();
            assert!(!daemon.expect().header.flags.contains(Flags::ERROR));
            let error = Error::from(daemon.expect().decode::<ErrorBody>());
            assert_eq!(error.code, ErrorCode::DeadlineExceeded);
        },
        |mut client| {
            let mut served = 0;
            let service = Service::new("x.y").unwrap().method("m", move |_| {
                served += 1;
                assert_eq!(served, 1);
                // For as long as the second call is waited for.
                let start = Instant::now();
                while start.elapsed() < Duration::from_millis(2) {
                    std::hint::spin_loop();
                }
                Ok("")
            });
            let _serving = client.serve(service).unwrap();
            for _ in 0..2 {
                assert!(client.serve_next(PATIENCE).unwrap());
            }
        },
    );
}

#[test]
fn a_client_can_be_sent_to_another_thread() {
    fn sent<T: Send>() {}
    sent::<Client>();
    sent::<Service>();
}

#[test]
fn a_panic_is_an_answer_and_the_service_goes_on() {
    with_client(
        |mut daemon| {
            daemon.registered();
            daemon.stream.write_all(&call(1, 0, b"")).unwrap();
            let error = Error::from(daemon.expect().decode::<ErrorBody>());
            assert_eq!(error.detail.unwrap().application_code.as_deref(), Some("panic"));
            daemon.stream.write_all(&call(2, 0, b"again")).unwrap();
            assert_eq!(&daemon.expect().body[..], b"again");
        },
        |mut client| {
            let service = Service::new("x.y").unwrap().method("m", |request| {
                assert!(!request.payload.is_empty(), "an empty payload, as the test wants");
                Ok(request.payload.clone())
            });
            let _serving = client.serve(service).unwrap();
            for _ in 0..2 {
                assert!(client.serve_next(PATIENCE).unwrap());
            }
        },
    );
}

#[test]
fn a_service_can_be_taken_back() {
    with_client(
        |mut daemon| {
            daemon.registered();
            let unregister = daemon.expect();
            assert_eq!((unregister.header.kind, unregister.header.handle.index), (Kind::UNREGISTER, 4));
            daemon.send_bare(Header::new(Kind::DONE).with_correlation(unregister.header.correlation), b"");
        },
        |mut client| {
            let serving = client.serve(echo()).unwrap();
            client.unserve(serving).unwrap();
            client.unserve(serving).unwrap();
        },
    );
}

#[test]
fn mistakes_are_told_before_anything_is_sent() {
    with_client(
        |mut daemon| assert!(daemon.next().is_none()),
        |mut client| {
            assert!(Service::new("no name").is_err());
            let error = client.serve(echo().method("no name", |_| Ok(""))).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument);
            let error = client.serve(echo().method("m", |_| Ok(""))).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument);
        },
    );
}
