//! Services, subscriptions and watches: what the daemon sends unasked.

use super::*;

#[test]
fn calls_are_served() {
    let mut pair = Pair::open();
    let (key, ticket) = pair.session.register(pair.now, offer()).unwrap();
    let register = pair.next();
    pair.done(register.correlation, &Registered { registration: 77, queued: false });
    assert_eq!(pair.outcome(ticket), Ok(Answer::Registered { queued: false }));
    let call = |correlation: u64, method: u16| Header {
        sender: 7,
        deadline_us: 1000,
        ..Header::new(Kind::CALL)
            .with_correlation(correlation)
            .with_handle(Handle { index: 77, generation: method })
    };
    let envelope = Envelope { traceparent: Some("00-trace".into()), ..Envelope::default() };
    pair.say(call(500, 1), &envelope, b"hello");
    let incoming = pair.session.poll_call().unwrap();
    assert_eq!((incoming.registration, incoming.method, incoming.oneway), (key, 1, false));
    assert_eq!((&incoming.payload.body[..], &incoming.sender), (&b"hello"[..], &caller()));
    assert_eq!(incoming.deadline, Some(pair.now + Duration::from_millis(1)));
    assert_eq!(incoming.traceparent.as_deref(), Some("00-trace"));
    pair.session.reply(incoming.key, Ok(Payload::from("Hello")));
    let (reply, _, payload) = pair.next_frame();
    assert_eq!((reply.kind, reply.correlation, &payload[..]), (Kind::REPLY, 500, &b"Hello"[..]));
    pair.session.reply(incoming.key, Ok(Payload::from("again")));
    pair.nothing();

    // Cancelled while it is served, and before it was taken.
    pair.say(call(501, 0), &(), b"");
    let incoming = pair.session.poll_call().unwrap();
    pair.say(call(502, 0), &(), b"");
    pair.say(Header::new(Kind::CANCEL).with_correlation(501), &(), b"");
    pair.say(Header::new(Kind::CANCEL).with_correlation(502), &(), b"");
    assert!(matches!(pair.session.poll_event(), Some(Event::CallCancelled(key)) if key == incoming.key));
    assert!(pair.session.poll_call().is_none() && pair.session.poll_event().is_none());
    assert_eq!(pair.session.open_inbound(), 0);

    // Too large an answer is an error to the caller.
    pair.say(call(503, 0), &(), b"");
    let incoming = pair.session.poll_call().unwrap();
    pair.session.reply(incoming.key, Ok(Payload::bytes(vec![0; (1 << 20) + 1])));
    let (reply, envelope, _) = pair.next_frame();
    let body: ErrorBody = crate::wire::codec::decode(&envelope).unwrap();
    assert!(reply.flags.contains(Flags::ERROR));
    assert_eq!(body.code, ErrorCode::PayloadTooLarge.number());

    // One-way: counted until ended, never answered.
    pair.say(Header { flags: Flags::ONEWAY, ..call(0, 0) }, &(), b"");
    let incoming = pair.session.poll_call().unwrap();
    pair.session.reply(incoming.key, Ok(Payload::from("unwanted")));
    pair.nothing();

    pair.session.forget_registration(key);
    assert_eq!((pair.next().kind, pair.session.is_listening()), (Kind::UNREGISTER, false));
    pair.say(call(504, 0), &(), b"");
    assert!(pair.next().flags.contains(Flags::ERROR));
}

#[test]
fn a_registration_that_is_given_up_is_taken_back_when_it_comes() {
    let mut pair = Pair::open();
    let (_, ticket) = pair.session.register(pair.now, offer()).unwrap();
    let register = pair.next();
    pair.session.abandon(ticket);
    pair.done(register.correlation, &Registered { registration: 77, queued: false });
    let unregister = pair.next();
    assert_eq!((unregister.kind, unregister.handle.index), (Kind::UNREGISTER, 77));
}

#[test]
fn events_and_gaps_arrive_in_order() {
    let mut pair = Pair::open();
    let (key, correlation) = subscribed(&mut pair, "a.>");
    announce_topic(&mut pair, "a.b");
    pair.say(event(correlation, 4), &(), b"four");
    let gap = Header { kind: Kind::GAP, sender: 0, sequence: 0, ..event(correlation, 0) };
    pair.say(gap, &Gap { from: 5, to: 6, count: 2 }, b"");
    pair.say(gap.with_handle(Handle::MERGED), &Gap { from: 0, to: 0, count: 9 }, b"");
    assert!(matches!(pair.session.poll_event(), Some(Event::Delivered(at)) if at == key));
    assert!(pair.session.poll_event().is_none());
    let Some(Ok(Delivery::Event(received))) = pair.session.next_delivery(key) else { panic!("no event") };
    assert_eq!((received.topic.as_str(), received.sequence, received.sender), ("a.b", 4, caller()));
    let Some(Ok(Delivery::Gap(missed))) = pair.session.next_delivery(key) else { panic!("no gap") };
    assert_eq!((missed.topic.unwrap().as_str(), missed.from, missed.to, missed.count), ("a.b", 5, 6, 2));
    let Some(Ok(Delivery::Gap(missed))) = pair.session.next_delivery(key) else { panic!("no gap") };
    assert_eq!((missed.topic, missed.count), (None, 9));
    pair.session.forget_subscription(key);
    assert_eq!(pair.next().kind, Kind::UNSUBSCRIBE);
    pair.say(event(correlation, 5), &(), b"late");
    assert_eq!(pair.session.state(), State::Open);
}

#[test]
fn names_are_watched() {
    let mut pair = Pair::open();
    let (key, ticket) = pair.session.watch_names(pair.now, "demo.*").unwrap();
    let watch = pair.next().correlation;
    let header = Header { sender: 7, ..Header::new(Kind::NAME_CHANGED).with_correlation(watch) };
    let changed = |service: &str, change| NameChanged { service: service.into(), change };
    pair.say(header, &changed("demo.a", NameChange::Acquired), b"");
    pair.done(watch, &());
    assert_eq!(pair.outcome(ticket), Ok(Answer::Done));
    assert!(matches!(pair.session.poll_event(), Some(Event::NamesChanged(at)) if at == key));
    assert!(matches!(pair.session.next_name_event(key), Some(NameEvent::Changed { .. })));
    pair.say(header, &changed("", NameChange::WatchLost), b"");
    assert_eq!(pair.session.next_name_event(key), Some(NameEvent::Overflowed));
    pair.session.forget_watch(key);
    assert_eq!(pair.next().kind, Kind::UNWATCH_NAMES);
}
