//! Calls, one at a time and many at once.

use std::io::Write;
use std::time::{Duration, Instant};

use super::fake::*;
use crate::blocking::CallOptions;
use crate::error::{Error, ErrorCode};
use crate::identity::Identity;
use crate::payload::PayloadKind;
use crate::wire::message::Resolve;
use crate::wire::{Flags, Header, Kind};

#[test]
fn a_call_goes_out_in_one_write_and_its_reply_may_come_byte_by_byte() {
    with_client(
        |mut daemon| {
            let resolve = daemon.expect();
            assert_eq!(resolve.decode::<Resolve>(), Resolve { service: "a.b".into(), method: "m".into() });
            let call = daemon.expect();
            assert_eq!((call.header.kind, call.header.handle), (Kind::CALL, resolve.header.handle));
            assert_eq!((call.header.payload_kind, &call.body[..]), (PayloadKind::Text, &b"hello"[..]));
            assert!((4_000_000..=5_000_000).contains(&call.header.deadline_us), "the default of 5 s");
            for byte in plain(reply_header(&call), b"world") {
                daemon.stream.write_all(&[byte]).unwrap();
            }
        },
        |mut client| {
            let reply = client.call("a.b", "m", "hello").unwrap();
            assert_eq!(&reply.payload.body[..], b"world");
            assert_eq!(reply.responder.identity, Identity::Local { uid: 5, gid: 6, pid: 7 });
        },
    );
}

#[test]
fn payloads_larger_than_every_buffer_pass() {
    let payload: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    with_client(
        |mut daemon| {
            let call = daemon.expect_kind(Kind::CALL);
            daemon.reply(&call, &call.body);
        },
        |mut client| {
            let reply = client.call("a.b", "m", &payload[..]).unwrap();
            assert!(reply.payload.body == payload);
        },
    );
}

#[test]
fn a_service_error_keeps_its_code() {
    with_client(
        |mut daemon| {
            let call = daemon.expect_kind(Kind::CALL);
            let mut error = Error::new(ErrorCode::Application, "no such city");
            error.detail_mut().application_code = Some("unknown_city".to_owned());
            daemon.reply_error(&call, &error);
        },
        |mut client| {
            let error = client.call("a.b", "m", "").unwrap_err();
            assert_eq!(error.code, ErrorCode::Application);
            assert_eq!(error.detail.unwrap().application_code.as_deref(), Some("unknown_city"));
        },
    );
}

#[test]
fn a_daemon_that_never_answers_is_given_up_on() {
    with_client(
        |mut daemon| while daemon.next().is_some() {},
        |mut client| {
            let start = Instant::now();
            let options = CallOptions::new().deadline(Duration::from_millis(30));
            let error = client.call_with("a.b", "m", "", options).unwrap_err();
            assert_eq!(error.code, ErrorCode::DeadlineExceeded);
            assert!(start.elapsed() >= Duration::from_millis(30));
            assert!(client.is_connected(), "one late answer is no lost connection");
        },
    );
}

#[test]
fn many_calls_travel_together_and_end_in_any_order() {
    with_client(
        |mut daemon| {
            let calls: Vec<_> = (0..4).map(|_| daemon.expect_kind(Kind::CALL)).collect();
            for at in [2, 0, 3, 1] {
                daemon.reply(&calls[at], &calls[at].body);
            }
            assert!(daemon.next().is_none());
        },
        |mut client| {
            let method = client.method("a.b", "m").unwrap();
            let options = CallOptions::default();
            let calls: Vec<_> = (0..4_u8)
                .map(|n| method.start_call(&mut client, vec![n], options.clone()).unwrap())
                .collect();
            assert_eq!(client.started_calls(), 4);
            let (first, reply) = client.wait_any().unwrap();
            assert_eq!((first, &reply.unwrap().payload.body[..]), (calls[2], &[2][..]));
            assert_eq!(&client.wait(calls[3]).unwrap().payload.body[..], [3]);
            let rest: Vec<_> = std::iter::from_fn(|| client.wait_any()).map(|(call, _)| call).collect();
            assert_eq!(rest, [calls[0], calls[1]]);
            assert_eq!(client.wait(calls[0]).unwrap_err().code, ErrorCode::InvalidArgument);
        },
    );
}

#[test]
fn a_cancelled_call_is_cancelled_at_the_daemon_and_forgotten() {
    with_client(
        |mut daemon| {
            let call = daemon.expect_kind(Kind::CALL);
            let cancel = daemon.expect();
            assert_eq!(
                (cancel.header.kind, cancel.header.correlation),
                (Kind::CANCEL, call.header.correlation)
            );
            daemon.reply(&call, b"late");
            daemon.pong();
        },
        |mut client| {
            let call = client.start_call("a.b", "m", "", CallOptions::default()).unwrap();
            assert!(client.try_wait(call).is_none());
            client.cancel(call).unwrap();
            client.ping().unwrap();
            assert_eq!(client.started_calls(), 0);
            assert!(client.wait_any().is_none());
        },
    );
}

#[test]
fn as_many_calls_as_the_daemon_allows() {
    with_client(
        |mut daemon| while daemon.next().is_some() {},
        |mut client| {
            let options = CallOptions::default();
            for _ in 0..64 {
                let _call = client.start_call("a.b", "m", "", options.clone()).unwrap();
            }
            let error = client.start_call("a.b", "m", "", options.clone()).unwrap_err();
            assert_eq!(error.code, ErrorCode::QuotaExceeded);
        },
    );
}

#[test]
fn a_one_way_call_wants_no_answer() {
    with_client(
        |mut daemon| {
            let call = daemon.expect_kind(Kind::CALL);
            assert!(call.header.flags.contains(Flags::ONEWAY));
        },
        |mut client| client.call_oneway("a.b", "m", "").unwrap(),
    );
}

#[test]
fn a_method_of_another_client_is_looked_up_anew() {
    let method = with_client(|_| {}, |mut client| client.method("a.b", "m").unwrap());
    with_client(
        |mut daemon| {
            let resolves = [daemon.expect_kind(Kind::RESOLVE), daemon.expect_kind(Kind::RESOLVE)];
            assert_eq!(resolves[1].decode::<Resolve>().service, "a.b".into());
            let call = daemon.expect();
            assert_eq!(call.header.handle, resolves[1].header.handle);
            daemon.reply(&call, b"");
        },
        |mut client| {
            let other = client.method("c.d", "x").unwrap();
            let _call = other.start_call(&mut client, "", CallOptions::default()).unwrap();
            method.call(&mut client, "").unwrap();
        },
    );
}

#[test]
fn two_full_sockets_do_not_wait_for_each_other() {
    const EVENTS: u64 = 2000;
    with_client(
        |mut daemon| {
            let subscription = daemon.subscribed();
            // The daemon writes everything before it reads anything.
            for sequence in 1..=EVENTS {
                daemon.stream.write_all(&event(subscription, sequence, &[0; 1000])).unwrap();
            }
            let mut published = 0;
            while published < EVENTS {
                published += u64::from(daemon.expect().header.kind == Kind::PUBLISH);
            }
        },
        |mut client| {
            let subscription = client.subscribe("a.>", Default::default()).unwrap();
            for _ in 0..EVENTS {
                client.queue_publish("c.d", vec![0; 1000]).unwrap();
            }
            client.flush().unwrap();
            let mut seen = 0;
            while seen < EVENTS as usize {
                seen += client.drain(&subscription, PATIENCE, |_| {}).unwrap();
            }
        },
    );
}

#[test]
fn timeouts_can_be_asked_for_and_set() {
    with_client(
        |mut daemon| {
            let call = daemon.expect_kind(Kind::CALL);
            assert!(call.header.deadline_us <= 2_000_000);
            daemon.reply(&call, b"");
            let ping = daemon.expect_kind(Kind::PING);
            daemon.send_bare(Header::new(Kind::PONG).with_correlation(ping.header.correlation), b"");
        },
        |mut client| {
            assert_eq!(client.timeout(), Duration::from_secs(5));
            client.set_timeout(Duration::from_secs(2));
            assert_eq!(client.timeout(), Duration::from_secs(2));
            client.call("a.b", "m", "").unwrap();
            assert!(client.ping().unwrap() < PATIENCE);
        },
    );
}
