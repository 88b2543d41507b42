//! A courier against a daemon that is played here.

use core::time::Duration;

use super::*;
use crate::identity::{Identity, Peer};
use crate::name::{MethodName, ServiceName, TopicName};
use crate::payload::Payload;
use crate::session::Answer;
use crate::wire::Flags;
use crate::wire::datagram::{
    CallNamed, Datagram, DatagramHeader, DatagramKind, encode_bare, encode_datagram,
};
use crate::wire::message::{ErrorBody, PeerInfo};

const START: Instant = Instant::from_nanos(1_000_000_000);
const MILLISECOND: Duration = Duration::from_millis(1);
const EPOCH: u64 = 77;

fn courier() -> Courier {
    Courier::new(Config { client: 5, seed: 1, is_local: false })
}

fn options() -> RequestOptions {
    RequestOptions { deadline: START + Duration::from_secs(5), traceparent: None }
}

/// The next datagram that is sent, if there is one.
fn send(courier: &mut Courier, now: Instant) -> Option<Vec<u8>> {
    let datagram = courier.transmit(now).map(<[u8]>::to_vec);
    if datagram.is_some() {
        courier.transmitted(now);
    }
    datagram
}

fn header(bytes: &[u8]) -> DatagramHeader {
    Datagram::parse(bytes).unwrap().header
}

fn answer(to: &DatagramHeader, kind: DatagramKind, epoch: u64, number: u32) -> Vec<u8> {
    let header = DatagramHeader { kind, flags: Flags::NONE, number, epoch, cookie: 9, ..*to };
    encode_bare(header).to_vec()
}

fn challenge(to: &DatagramHeader, epoch: u64) -> Vec<u8> {
    answer(to, DatagramKind::Challenge, epoch, 16)
}

fn reply(to: &DatagramHeader, text: &str) -> Vec<u8> {
    let responder = Peer { id: PeerId(3), identity: Identity::Local { uid: 1, gid: 2, pid: 3 } };
    let header = DatagramHeader { kind: DatagramKind::Reply, flags: Flags::NONE, number: 0, ..*to };
    encode_datagram(header, &PeerInfo::from(&responder), text.as_bytes()).unwrap()
}

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

fn method(name: &str) -> MethodName {
    MethodName::parse(name).unwrap()
}

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

/// A courier with one call that has reached the daemon, and its header there.
fn called() -> (Courier, RequestId, DatagramHeader) {
    let mut courier = courier();
    let id = courier
        .call(START, &service("demo.title"), &method("title"), &Payload::from("hello"), options())
        .unwrap();
    let hello = send(&mut courier, START).unwrap();
    assert_eq!(header(&hello).kind, DatagramKind::Hello);
    assert_eq!(send(&mut courier, START), None, "nothing before the challenge");
    courier.handle_datagram(START, &challenge(&header(&hello), EPOCH));
    let call = send(&mut courier, START).unwrap();
    let seen = header(&call);
    assert_eq!((seen.kind, seen.epoch, seen.cookie), (DatagramKind::Call, EPOCH, 9));
    assert_eq!((seen.low_water(), seen.number), (seen.id, 5_000_000));
    let named: CallNamed = Datagram::parse(&call).unwrap().decode().unwrap();
    assert_eq!((named.service.0.as_str(), named.method.0.as_str()), ("demo.title", "title"));
    (courier, id, seen)
}

fn error_code(courier: &mut Courier, id: RequestId) -> Option<ErrorCode> {
    courier.take(id).map(|outcome| outcome.unwrap_err().code)
}

#[test]
fn what_was_given_is_what_was_sent_whatever_came_between() {
    let mut courier = Courier::new(Config { client: 5, seed: 1, is_local: true });
    let id = courier.call(START, &service("a"), &method("m"), &Payload::from("hello"), options()).unwrap();
    let hello = send(&mut courier, START).unwrap();
    courier.handle_datagram(START, &challenge(&header(&hello), EPOCH));
    let call = header(courier.transmit(START).unwrap());
    // It needs nothing, so that it would go first.
    courier.publish_oneway(&topic("t"), &Payload::from("x"), None).unwrap();
    assert_eq!(header(courier.transmit(START).unwrap()), call);
    courier.transmitted(START);
    assert_eq!(header(&send(&mut courier, START).unwrap()).kind, DatagramKind::Publish);
    assert_eq!(send(&mut courier, START), None, "the call was sent once");
    // Its answer is that of a call that was sent.
    courier.handle_datagram(START, &reply(&call, "Hello"));
    assert!(courier.take(id).unwrap().is_ok());
}

#[test]
fn a_call_gets_its_answer_once() {
    let (mut courier, id, seen) = called();
    courier.handle_datagram(START, &reply(&seen, "Hello"));
    courier.handle_datagram(START, &reply(&seen, "Hello"));
    assert_eq!(courier.poll_completed(), Some(id));
    let Some(Ok(Answer::Reply(reply))) = courier.take(id) else { panic!() };
    assert_eq!((reply.payload.as_text().unwrap(), reply.responder.id), ("Hello", PeerId(3)));
    assert_eq!((courier.take(id), courier.poll_completed(), courier.tally().duplicates), (None, None, 1));
    // The next one says that the first has its outcome.
    courier.call(START, &service("a"), &method("b"), &Payload::default(), options()).unwrap();
    let next = header(&send(&mut courier, START).unwrap());
    assert_eq!(next.low_water(), next.id);
    assert_eq!(courier.poll_timeout().map(|at| at > START), Some(true));
}

#[test]
fn what_is_lost_is_sent_again_under_the_same_number() {
    let (mut courier, id, seen) = called();
    let mut now = START;
    for _ in 0..6 {
        now = courier.poll_timeout().unwrap();
        courier.handle_timeout(now);
        let again = header(&send(&mut courier, now).unwrap());
        assert_eq!((again.id, again.kind), (seen.id, DatagramKind::Call));
        assert_eq!(u128::from(again.number), (options().deadline - now).as_micros());
        assert_eq!(send(&mut courier, now), None);
    }
    assert_eq!(courier.tally().retransmitted, 6);
    courier.handle_datagram(now, &reply(&seen, "late"));
    assert!(matches!(courier.take(id), Some(Ok(Answer::Reply(_)))));
    assert_eq!(courier.poll_timeout(), None);
}

#[test]
fn without_an_answer_it_ends_with_its_deadline() {
    let (mut courier, id, _) = called();
    let mut rounds = 0;
    while let Some(at) = courier.poll_timeout() {
        courier.handle_timeout(at);
        while let Some(datagram) = send(&mut courier, at) {
            if at >= options().deadline {
                assert_eq!(header(&datagram).number, 0, "it only asks what became of it");
            }
        }
        rounds += 1;
        assert!(rounds < 50);
    }
    assert_eq!(error_code(&mut courier, id), Some(ErrorCode::DeadlineExceeded));
}

#[test]
fn what_never_left_is_unreachable() {
    let mut courier = courier();
    let id = courier.call(START, &service("a"), &method("b"), &Payload::default(), options()).unwrap();
    let ping = courier.ping(START, options().deadline);
    while let Some(at) = courier.poll_timeout() {
        while let Some(datagram) = send(&mut courier, at) {
            assert_eq!(header(&datagram).kind, DatagramKind::Hello);
        }
        courier.handle_timeout(at);
    }
    assert_eq!(error_code(&mut courier, id), Some(ErrorCode::Unreachable));
    assert_eq!(error_code(&mut courier, ping), Some(ErrorCode::Unreachable));
    let id = courier.call(START, &service("a"), &method("b"), &Payload::default(), options()).unwrap();
    courier.handle_refused("nobody listens");
    assert_eq!(error_code(&mut courier, id), Some(ErrorCode::Unreachable));
}

#[test]
fn another_life_of_the_daemon_leaves_the_outcome_unknown_and_runs_nothing_again() {
    // Said of the call itself, or found out by a hello.
    for by_refusal in [true, false] {
        let (mut courier, id, seen) = called();
        let now = START + Duration::from_secs(4);
        if by_refusal {
            let unknown = ErrorCode::OutcomeUnknown.number().into();
            courier.handle_datagram(now, &answer(&seen, DatagramKind::Refused, EPOCH + 1, unknown));
        } else {
            courier.handle_datagram(now, &challenge(&seen, EPOCH + 1));
        }
        assert_eq!(error_code(&mut courier, id), Some(ErrorCode::OutcomeUnknown));
        assert_eq!(send(&mut courier, now), None, "it is not sent to the new daemon");
        // What comes next goes to the new one at once.
        courier.call(now, &service("a"), &method("b"), &Payload::default(), options()).unwrap();
        let next = header(&send(&mut courier, now).unwrap());
        assert_eq!((next.kind, next.epoch), (DatagramKind::Call, EPOCH + 1));
        // A late answer of the old one counts for nothing.
        courier.handle_datagram(now, &reply(&seen, "late"));
        assert_eq!(courier.take(id), None);
    }
}

#[test]
fn a_new_cookie_is_used_at_once() {
    let (mut courier, id, seen) = called();
    let mut bytes = challenge(&seen, EPOCH);
    bytes[24] = 42;
    courier.handle_datagram(START + MILLISECOND, &bytes);
    let again = header(&send(&mut courier, START + MILLISECOND).unwrap());
    assert_eq!((again.id, again.cookie), (seen.id, 42));
    courier.handle_datagram(START, &reply(&again, "x"));
    assert!(matches!(courier.take(id), Some(Ok(_))));
}

#[test]
fn a_daemon_without_room_is_asked_again_and_other_refusals_end_the_request() {
    let (mut courier, id, seen) = called();
    let quota = ErrorCode::QuotaExceeded.number().into();
    courier.handle_datagram(START, &answer(&seen, DatagramKind::Refused, EPOCH, quota));
    assert_eq!(courier.take(id), None);
    let at = courier.poll_timeout().unwrap();
    courier.handle_timeout(at);
    assert_eq!(header(&send(&mut courier, at).unwrap()).id, seen.id);
    let stopping = ErrorCode::ShuttingDown.number().into();
    courier.handle_datagram(at, &answer(&seen, DatagramKind::Refused, EPOCH, stopping));
    assert_eq!(error_code(&mut courier, id), Some(ErrorCode::ShuttingDown));
}

#[test]
fn errors_arrive_and_foreign_bytes_do_not() {
    let (mut courier, id, seen) = called();
    let body = ErrorBody::from(&Error::quota("doors", 3));
    let to =
        DatagramHeader { kind: DatagramKind::Reply, flags: Flags::ERROR.with(Flags::ACK), number: 0, ..seen };
    let good = encode_datagram(to, &body, &[]).unwrap();
    let foreign = encode_datagram(DatagramHeader { client: 6, ..to }, &body, &[]).unwrap();
    for bad in [&[][..], &[1], &good[..40], &foreign] {
        courier.handle_datagram(START, bad);
    }
    assert_eq!((courier.tally().malformed, courier.take(id)), (4, None));
    courier.handle_datagram(START, &good);
    assert_eq!(error_code(&mut courier, id), Some(ErrorCode::QuotaExceeded));
    let ack = header(&send(&mut courier, START).unwrap());
    assert_eq!((ack.kind, ack.id, ack.low_water()), (DatagramKind::Ack, seen.id, seen.id));
}

#[test]
fn what_nobody_waits_for_is_cancelled() {
    let (mut courier, id, seen) = called();
    courier.abandon(id);
    let cancel = header(&send(&mut courier, START).unwrap());
    assert_eq!((cancel.kind, cancel.id), (DatagramKind::Cancel, seen.id));
    assert_eq!((courier.poll_timeout(), courier.open_requests()), (None, 0));
}

#[test]
fn an_event_of_a_local_process_needs_nothing_before_it() {
    for is_local in [true, false] {
        let mut courier = Courier::new(Config { client: 5, seed: 1, is_local });
        courier.publish_oneway(&topic("a.b"), &Payload::from("x"), None).unwrap();
        let first = header(&send(&mut courier, START).unwrap());
        let expected = if is_local { DatagramKind::Publish } else { DatagramKind::Hello };
        assert_eq!(first.kind, expected);
        if !is_local {
            courier.handle_datagram(START, &challenge(&first, EPOCH));
            let event = header(&send(&mut courier, START).unwrap());
            assert_eq!((event.kind, event.cookie, event.id), (DatagramKind::Publish, 9, 1));
        }
    }
}

#[test]
fn a_request_is_checked_before_it_is_sent() {
    let mut courier = courier();
    let mut call = |size: usize, deadline: Instant| {
        let options = RequestOptions { deadline, traceparent: None };
        let payload = Payload::bytes(vec![0; size]);
        courier.call(START, &service("a"), &method("b"), &payload, options).map_err(|error| error.code)
    };
    assert_eq!(call(0, START), Err(ErrorCode::DeadlineExceeded));
    // One byte each for the lengths of two names, their two letters, no traceparent, no extensions.
    let room = DATAGRAM_CONTENT_MAX_BYTES - 6;
    assert!(call(room, options().deadline).is_ok());
    assert_eq!(call(room + 1, options().deadline), Err(ErrorCode::PayloadTooLarge));
}

#[test]
fn no_more_requests_are_open_than_the_daemon_allows() {
    let (mut courier, _, _) = called();
    for open in 1..20 {
        let outcome = courier.call(START, &service("a"), &method("b"), &Payload::default(), options());
        assert_eq!(outcome.is_ok(), open < 16, "{open}");
    }
}

#[test]
fn over_a_new_socket_only_what_was_never_sent_goes_on() {
    let (mut courier, sent, seen) = called();
    let waiting = courier.call(START, &service("a"), &method("b"), &Payload::default(), options()).unwrap();
    courier.restart();
    assert_eq!(error_code(&mut courier, sent), Some(ErrorCode::OutcomeUnknown));
    let hello = header(&send(&mut courier, START).unwrap());
    assert_eq!((hello.kind, hello.client), (DatagramKind::Hello, 6));
    courier.handle_datagram(START, &challenge(&hello, EPOCH + 1));
    let call = header(&send(&mut courier, START).unwrap());
    assert_eq!((call.client, call.epoch, call.id), (6, EPOCH + 1, seen.id + 1));
    courier.handle_datagram(START, &reply(&call, "x"));
    assert!(matches!(courier.take(waiting), Some(Ok(_))));
}
