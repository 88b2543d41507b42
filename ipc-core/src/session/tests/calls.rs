//! Calls going out.

use super::*;

#[test]
fn a_call_is_pipelined_behind_hello_and_resolve() {
    let mut pair = Pair::greeting();
    let ticket = pair.call("a.b", Some(Duration::from_secs(2)));
    let kinds: Vec<Kind> = (0..3).map(|_| pair.next().kind).collect();
    assert_eq!(kinds, [Kind::HELLO, Kind::RESOLVE, Kind::CALL]);
    assert!(pair.session.take(ticket).is_none());
}

#[test]
fn a_call_gets_its_reply() {
    for piece in [1, 7, usize::MAX] {
        let mut pair = Pair::open();
        pair.piece = piece;
        let ticket = pair.call("a.b", Some(Duration::from_secs(2)));
        let (resolve, envelope, _) = pair.next_frame();
        let resolved: Resolve = crate::wire::codec::decode(&envelope).unwrap();
        assert_eq!((resolved.service.0.as_str(), resolved.method.0.as_str()), ("a.b", "m"));
        let (call, envelope, payload) = pair.next_frame();
        assert_eq!((call.kind, call.handle, call.deadline_us), (Kind::CALL, resolve.handle, 2_000_000));
        assert_eq!((envelope.len(), &payload[..]), (0, &b"question"[..]));
        pair.done(resolve.correlation, &());
        pair.reply(call.correlation, b"answer");
        assert_eq!(pair.session.poll_completed(), Some(ticket));
        let Ok(Answer::Reply(reply)) = pair.outcome(ticket) else { panic!("no reply") };
        assert_eq!((&reply.payload.body[..], reply.responder), (&b"answer"[..], caller()));
        // The second call needs no name.
        pair.call("a.b", None);
        assert_eq!(pair.next().kind, Kind::CALL);
        pair.nothing();
    }
}

#[test]
fn a_traceparent_has_as_many_bytes_as_the_standard_gives_it() {
    let mut pair = Pair::open();
    let method = pair.session.method("a.b", "m").unwrap();
    for (length, fits) in
        [(TRACEPARENT_MAX_BYTES - 1, true), (TRACEPARENT_MAX_BYTES, true), (TRACEPARENT_MAX_BYTES + 1, false)]
    {
        let traceparent = Some("0".repeat(length).into());
        let options = CallOptions { traceparent, ..CallOptions::default() };
        let asked = pair.session.call(pair.now, method, Payload::default(), options);
        assert_eq!(asked.is_ok(), fits, "{length} bytes");
        assert!(asked.err().is_none_or(|error| error.code == ErrorCode::InvalidArgument));
    }
}

#[test]
fn large_payloads_go_both_ways() {
    let mut pair = Pair::open();
    let method = pair.session.method("a.b", "m").unwrap();
    let body = vec![3; 100_000];
    let ticket =
        pair.session.call(pair.now, method, Payload::bytes(body.clone()), CallOptions::default()).unwrap();
    pair.next();
    let (call, _, payload) = pair.next_frame();
    assert!(payload == body);
    pair.piece = 10_000;
    pair.reply(call.correlation, &body);
    let Ok(Answer::Reply(reply)) = pair.outcome(ticket) else { panic!("no reply") };
    assert!(reply.payload.body == body);
}

#[test]
fn an_unknown_service_fails_what_was_sent_in_good_hope() {
    let mut pair = Pair::open();
    let tickets = [pair.call("a.b", None), pair.call("a.b", None)];
    let resolve = pair.next();
    let calls = [pair.next(), pair.next()];
    pair.refuse(Kind::DONE, resolve.correlation, ErrorCode::NoSuchService);
    for (ticket, call) in tickets.into_iter().zip(calls) {
        assert_eq!(pair.failure(ticket), ErrorCode::NoSuchService);
        pair.refuse(Kind::REPLY, call.correlation, ErrorCode::StaleHandle);
    }
    assert_eq!(pair.next().kind, Kind::RELEASE);
    pair.nothing();
    // The next call asks anew.
    pair.call("a.b", None);
    let again = pair.next();
    assert_eq!((again.kind, again.handle.generation), (Kind::RESOLVE, resolve.handle.generation + 1));
}

#[test]
fn a_stale_handle_is_bound_anew_and_the_call_sent_once_more() {
    let mut pair = Pair::open();
    let (ticket, call) = pair.bound_call("a.b");
    let (other, second) = (pair.call("a.b", None), pair.next());
    pair.refuse(Kind::REPLY, call.correlation, ErrorCode::StaleHandle);
    pair.refuse(Kind::REPLY, second.correlation, ErrorCode::StaleHandle);
    let frames: Vec<Header> = (0..4).map(|_| pair.next()).collect();
    let kinds: Vec<Kind> = frames.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [Kind::RELEASE, Kind::RESOLVE, Kind::CALL, Kind::CALL]);
    assert_eq!(frames[1].handle, frames[2].handle);
    assert_ne!(frames[1].handle, call.handle);
    assert_eq!(frames[2].correlation, call.correlation);
    pair.reply(call.correlation, b"late but fine");
    assert!(pair.outcome(ticket).is_ok());
    // There is no third time.
    pair.refuse(Kind::REPLY, frames[3].correlation, ErrorCode::StaleHandle);
    assert_eq!(pair.failure(other), ErrorCode::StaleHandle);
    pair.nothing();
}

#[test]
fn a_service_that_says_stale_has_run_and_is_not_called_again() {
    let mut pair = Pair::open();
    let (ticket, call) = pair.bound_call("a.b");
    let refusal = ErrorBody::from(&Error::new(ErrorCode::StaleHandle, "so it says"));
    let answered = Header { flags: Flags::ERROR, sender: 7, ..Header::new(Kind::REPLY) };
    pair.say(answered.with_correlation(call.correlation), &refusal, b"");
    assert_eq!(pair.failure(ticket), ErrorCode::StaleHandle);
    pair.nothing();
}

#[test]
fn what_another_client_broke_ends_nothing() {
    let mut pair = Pair::open();
    let (ticket, call) = pair.bound_call("a.b");
    let answered = Header { flags: Flags::ERROR, sender: 7, ..Header::new(Kind::REPLY) };
    // The first byte of a number, and no more.
    pair.say(answered.with_correlation(call.correlation), &252u8, b"");
    assert_eq!(pair.failure(ticket), ErrorCode::Application);
    pair.session.register(pair.now, offer()).unwrap();
    let register = pair.next();
    pair.done(register.correlation, &Registered { registration: 1, queued: false });
    // An option that is neither there nor not.
    let called = Header { sender: 7, ..Header::new(Kind::CALL).with_correlation(3) };
    pair.say(called.with_handle(Handle { index: 1, generation: 0 }), &2u8, b"still a call");
    let incoming = pair.session.poll_call().expect("the call is served");
    assert_eq!((&incoming.payload.body[..], incoming.traceparent), (&b"still a call"[..], None));
    assert_eq!(pair.session.state(), State::Open);
}

#[test]
fn oneway_calls_do_not_rely_on_an_old_binding() {
    let mut pair = Pair::open();
    let method = pair.session.method("a.b", "m").unwrap();
    let kinds = |pair: &mut Pair| {
        let sent = pair.session.call_oneway(pair.now, method, Payload::default(), CallOptions::default());
        sent.unwrap();
        pair.flush();
        pair.received.drain(..).map(|(header, ..)| header.kind).collect::<Vec<Kind>>()
    };
    assert_eq!(kinds(&mut pair), [Kind::RESOLVE, Kind::CALL]);
    pair.now = pair.now + Duration::from_secs(1);
    assert_eq!(kinds(&mut pair), [Kind::CALL]);
    pair.now = pair.now + Duration::from_nanos(1);
    assert_eq!(kinds(&mut pair), [Kind::RESOLVE, Kind::CALL]);
}

#[test]
fn a_deadline_passes_even_if_the_daemon_is_silent() {
    let mut pair = Pair::open();
    let limit = Duration::from_secs(1);
    let ticket = pair.call("a.b", Some(limit));
    assert_eq!(pair.session.poll_timeout(), Some(pair.now + limit + DEADLINE_GRACE));
    pair.session.handle_timeout(pair.now + limit);
    assert!(pair.session.take(ticket).is_none());
    pair.session.handle_timeout(pair.now + limit + DEADLINE_GRACE);
    assert_eq!(pair.failure(ticket), ErrorCode::DeadlineExceeded);
    assert_eq!(pair.session.poll_timeout(), None);
    let method = pair.session.method("a.b", "m").unwrap();
    let options = CallOptions { deadline: Some(pair.now), ..CallOptions::default() };
    let refused = pair.session.call(pair.now, method, Payload::default(), options);
    assert_eq!(refused.unwrap_err().code, ErrorCode::DeadlineExceeded);
}

#[test]
fn an_abandoned_call_is_cancelled_and_its_reply_ignored() {
    let mut pair = Pair::open();
    let (ticket, call) = pair.bound_call("a.b");
    pair.session.abandon(ticket);
    let cancel = pair.next();
    assert_eq!((cancel.kind, cancel.correlation), (Kind::CANCEL, call.correlation));
    let (next, _) = (pair.call("a.b", None), pair.next());
    pair.refuse(Kind::REPLY, call.correlation, ErrorCode::Cancelled);
    assert!(pair.session.take(next).is_none());
    assert_eq!(pair.session.open_requests(), 1);
    pair.session.abandon(ticket);
    assert_eq!(pair.session.open_requests(), 1);
}

#[test]
fn open_calls_and_payloads_hold_the_daemons_limits() {
    let mut pair = Pair::open();
    for _ in 0..3 {
        pair.call("a.b", None);
    }
    let method = pair.session.method("a.b", "m").unwrap();
    let call = |pair: &mut Pair, bytes: usize| {
        pair.session.call(pair.now, method, Payload::bytes(vec![0; bytes]), CallOptions::default())
    };
    assert_eq!(call(&mut pair, 0).unwrap_err().code, ErrorCode::QuotaExceeded);
    let mut pair = Pair::open();
    let method = pair.session.method("a.b", "m").unwrap();
    for (bytes, fits) in [((1 << 20) - 1, true), (1 << 20, true), ((1 << 20) + 1, false)] {
        let called =
            pair.session.call(pair.now, method, Payload::bytes(vec![0; bytes]), CallOptions::default());
        assert_eq!(called.is_ok(), fits, "{bytes}");
    }
}

#[test]
fn the_least_recently_used_handle_makes_room() {
    let mut pair = Pair::open();
    for topic in ["t1", "t2", "t3", "t4"] {
        let topic = pair.session.topic(topic).unwrap();
        pair.session.publish_oneway(pair.now, topic, Payload::from("x"), None).unwrap();
        assert_eq!((pair.next().kind, pair.next().kind), (Kind::OPEN_TOPIC, Kind::PUBLISH));
    }
    let old = pair.session.topic("t1").unwrap();
    let fifth = pair.session.topic("t5").unwrap();
    assert!(!pair.session.knows(old));
    pair.session.publish_oneway(pair.now, fifth, Payload::from("x"), None).unwrap();
    let (release, open) = (pair.next(), pair.next());
    assert_eq!((release.kind, open.kind), (Kind::RELEASE, Kind::OPEN_TOPIC));
    assert_eq!((open.handle.index, open.handle.generation), (release.handle.index, 2));
    let refused = pair.session.publish_oneway(pair.now, old, Payload::from("x"), None);
    assert_eq!(refused.unwrap_err().code, ErrorCode::StaleHandle);
}
