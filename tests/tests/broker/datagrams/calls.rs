//! Each call once, whatever comes twice, late or from nowhere.

use super::*;

/// A request is remembered for so long after its deadline.
const REMEMBERED_FOR: Duration = Duration::from_secs(30);

#[test]
fn a_call_runs_once_however_often_it_comes() {
    for source in [local("x"), network(1)] {
        let mut town = Town::new(Limits::default());
        let (mut courier, id, datagram) = called(&mut town, &source);
        let identity = town.calls[0].sender.identity.clone();
        assert_eq!(identity, source.identity());
        town.receive(&source, &datagram);
        assert_eq!((town.calls.len(), town.sent.len()), (1, 0), "while it runs");
        town.answer();
        let reply = town.sent.pop_front().unwrap();
        // The answer is lost; the client asks again.
        town.receive(&source, &datagram);
        assert_eq!((town.calls.len(), town.sent.len()), (0, 1));
        courier.handle_datagram(town.now, &town.sent[0].datagram.clone());
        courier.handle_datagram(town.now, &reply.datagram);
        assert_eq!(text(courier.take(id)), "x");
        assert_eq!((town.counter("datagrams_doubled"), town.counter("datagrams_answered_again")), (2, 1));
    }
}

#[test]
fn a_large_first_call_waits_for_the_bus_and_runs() {
    let mut town = Town::new(Limits::default());
    let mut courier = courier(1);
    let large = "x".repeat(60_000);
    let id = call(&town, &mut courier, &large, SECOND);
    town.exchange(&mut courier, &local("x"));
    town.answer();
    town.exchange(&mut courier, &local("x"));
    assert_eq!(text(courier.take(id)), large);
}

#[test]
fn nothing_runs_before_the_cookie_and_no_answer_is_longer_than_its_question() {
    let mut town = Town::new(Limits::default());
    let (_, _, good) = called(&mut town, &network(1));
    town.answer();
    town.sent.clear();
    let spoilt = |at: usize| {
        let mut datagram = good.clone();
        datagram[at] ^= 1;
        // Another request, so that it is not taken for the first one.
        datagram[40] += 1;
        datagram
    };
    let mut cases = vec![(network(2), good.clone()), (network(1), spoilt(24)), (network(1), spoilt(32))];
    let unknown = spoilt(16);
    let mut none = spoilt(16);
    none[16..32].fill(0);
    cases.push((network(1), none));
    for (source, datagram) in cases {
        town.receive(&source, &datagram);
        assert!(town.calls.is_empty());
        let answer = town.sent.pop_front().unwrap();
        assert_eq!((header_of(&answer).kind, answer.to), (DatagramKind::Challenge, source));
        assert!(answer.datagram.len() <= datagram.len());
    }
    town.receive(&network(1), &unknown);
    let refused = header_of(&town.sent.pop_front().unwrap());
    assert_eq!(refused.kind, DatagramKind::Refused);
    assert_eq!(refused.number, u32::from(ErrorCode::OutcomeUnknown.number()));
    assert_eq!(town.calls.len(), 0);
    // A later version is told that it is not spoken.
    let mut later = good.clone();
    later[4] = 2;
    town.receive(&network(1), &later);
    let refused = header_of(&town.sent.pop_front().unwrap());
    assert_eq!(refused.number, u32::from(ErrorCode::UnsupportedVersion.number()));
}

#[test]
fn what_is_no_datagram_is_counted() {
    let mut town = Town::new(Limits::default());
    let (_, _, good) = called(&mut town, &network(1));
    let mut trailing = good.clone();
    trailing.push(0);
    let mut from_a_daemon = encode_bare(DatagramHeader::new(DatagramKind::Challenge)).to_vec();
    from_a_daemon[24] = 9;
    for bad in
        [&[][..], &[0x89], &good[..47], &good[..good.len() - 1], &trailing, &[0xff; 70_000], &from_a_daemon]
    {
        town.receive(&network(1), bad);
    }
    assert_eq!((town.counter("datagrams_malformed"), town.sent.len(), town.calls.len()), (7, 0, 1));
    // A well-formed header around a malformed envelope is an outcome like any other.
    let mut bad = good.clone();
    bad[48] = 0xff;
    bad[40] += 1;
    town.receive(&network(1), &bad);
    let reply = town.sent.pop_front().unwrap();
    let body: ipc_core::wire::message::ErrorBody =
        Datagram::parse(&reply.datagram).unwrap().decode().unwrap();
    assert_eq!(body.code, ErrorCode::InvalidArgument.number());
}

#[test]
fn a_sender_without_an_address_can_publish_and_nothing_else() {
    let mut town = Town::new(Limits::default());
    let source = Source::Local { uid: 1, gid: 1, pid: 9, address: None };
    let mut local = Courier::new(client::Config { client: 1, seed: 1, is_local: true });
    local.publish_oneway(&topic("t"), &Payload::from("x"), None).unwrap();
    let event = send(&mut local, town.now).unwrap();
    town.receive(&source, &event);
    let published = town.broker.status().counters.into_iter().find(|(name, _)| *name == "events_published");
    assert_eq!(published, Some(("events_published", 1)));
    call(&town, &mut local, "x", SECOND);
    let hello = send(&mut local, town.now).unwrap();
    town.receive(&source, &hello);
    assert_eq!((town.sent.len(), town.counter("datagrams_unaddressed")), (0, 1));
    // From the network an event needs a cookie too.
    town.receive(&network(1), &event);
    assert_eq!(header_of(&town.sent[0]).kind, DatagramKind::Challenge);
}

#[test]
fn one_way_requests_run_once_too() {
    let mut town = Town::new(Limits::default());
    let (mut courier, _, _) = called(&mut town, &network(1));
    let options = |town: &Town| RequestOptions { deadline: town.now + SECOND, traceparent: None };
    let mut datagrams = Vec::new();
    for _ in 0..3 {
        courier
            .call_oneway(town.now, &service("a"), &method("m"), &Payload::from("y"), options(&town))
            .unwrap();
        datagrams.push(send(&mut courier, town.now).unwrap());
    }
    for at in [2, 2, 0, 0, 2] {
        town.receive(&network(1), &datagrams[at]);
    }
    assert_eq!(town.calls.len(), 3, "the first call and two of these");
    let counters =
        ["datagrams_doubled", "datagrams_reordered", "datagrams_lost"].map(|name| town.counter(name));
    assert_eq!(counters, [3, 1, 1]);
}

#[test]
fn below_the_low_water_mark_nothing_is_run() {
    let mut town = Town::new(Limits::default());
    let source = network(1);
    let (mut courier, id, _) = called(&mut town, &source);
    let late = call(&town, &mut courier, "late", SECOND);
    let late_datagram = send(&mut courier, town.now).unwrap();
    courier.abandon(late);
    town.answer();
    town.exchange(&mut courier, &source);
    assert_eq!(text(courier.take(id)), "x");
    // The cancel came first, so the call is not run when it comes.
    town.receive(&source, &late_datagram);
    assert_eq!((town.calls.len(), town.counter("datagrams_doubled")), (0, 1));
    call(&town, &mut courier, "next", SECOND);
    town.exchange(&mut courier, &source);
    assert_eq!(town.calls.len(), 1);
    town.receive(&source, &late_datagram);
    assert_eq!((town.calls.len(), town.counter("datagrams_late")), (1, 1));
}

#[test]
fn a_cancelled_call_is_cancelled_at_its_service() {
    let mut town = Town::new(Limits::default());
    let source = local("x");
    let (mut courier, id, _) = called(&mut town, &source);
    courier.abandon(id);
    town.exchange(&mut courier, &source);
    let key = town.calls[0].key;
    assert!(!town.service.is_wanted(key));
}

#[test]
fn a_request_is_remembered_for_its_time_and_then_not_run_again() {
    let mut town = Town::new(Limits::default());
    let source = network(1);
    let (mut courier, id, datagram) = called(&mut town, &source);
    town.answer();
    town.exchange(&mut courier, &source);
    assert_eq!(text(courier.take(id)), "x");
    town.pass(SECOND * 5 + REMEMBERED_FOR - SECOND);
    assert_eq!(town.door.remembered().0, 1);
    town.pass(SECOND * 2);
    assert_eq!(town.door.remembered(), (0, 0));
    for _ in 0..100 {
        town.receive(&source, &datagram);
        assert_eq!(town.calls.len(), 0);
        town.pass(SECOND * 3);
    }
    // At the end not even its client is remembered, and its cookie is good for nothing.
    assert_eq!(town.door.clients(), 0);
    assert!(town.counter("datagrams_late") > 0 && town.counter("datagrams_challenged") > 0);
    assert_eq!(town.broker.connections(), 1, "only the service");
}

#[test]
fn an_outcome_that_fits_no_datagram_is_said_to() {
    let mut town = Town::new(Limits::default());
    let (mut courier, id, _) = called(&mut town, &network(1));
    for call in core::mem::take(&mut town.calls) {
        town.service.reply(call.key, Ok(Payload::bytes(vec![0; 70_000])));
    }
    town.settle();
    town.exchange(&mut courier, &network(1));
    let error = courier.take(id).unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::PayloadTooLarge);
    assert!(error.message.contains("has run"), "{error}");
}

#[test]
fn who_the_bus_does_not_let_in_is_told_why() {
    let mut town = Town::new(Limits { connections_max: 1, ..Limits::default() });
    let (mut courier, id, _) = called(&mut town, &local("x"));
    town.exchange(&mut courier, &local("x"));
    assert_eq!(courier.take(id).unwrap().unwrap_err().code, ErrorCode::QuotaExceeded);
}

#[test]
fn a_daemon_that_stops_answers_what_is_open_and_takes_nothing_new() {
    let mut town = Town::new(Limits::default());
    let source = local("x");
    let (mut courier, id, _) = called(&mut town, &source);
    town.door.begin_drain();
    let new = call(&town, &mut courier, "y", SECOND);
    town.exchange(&mut courier, &source);
    assert_eq!(courier.take(new).unwrap().unwrap_err().code, ErrorCode::ShuttingDown);
    town.broker.begin_drain();
    town.broker.end_drain();
    town.settle();
    town.exchange(&mut courier, &source);
    assert_eq!(courier.take(id).unwrap().unwrap_err().code, ErrorCode::ShuttingDown);
}

#[test]
fn an_acknowledged_event_has_its_number() {
    let mut town = Town::new(Limits::default());
    let mut courier = courier(1);
    let options = RequestOptions { deadline: town.now + SECOND, traceparent: None };
    let id = courier.publish(town.now, &topic("t"), &Payload::from("x"), options).unwrap();
    town.exchange(&mut courier, &network(1));
    assert!(matches!(courier.take(id), Some(Ok(Answer::Published(_)))));
}
