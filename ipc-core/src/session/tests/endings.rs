//! How conversations end, and go on.

use super::*;

#[test]
fn a_lost_connection_gives_every_request_its_outcome() {
    let mut pair = Pair::open();
    let (sent, _) = pair.bound_call("a.b");
    let ping = pair.session.ping(pair.now).unwrap();
    pair.next();
    let unsent = pair.call("a.b", None);
    pair.session.transmitted(10);
    pair.session.handle_eof(Some("reading failed"));
    assert_eq!(pair.failure(sent), ErrorCode::OutcomeUnknown);
    assert_eq!(pair.failure(ping), ErrorCode::OutcomeUnknown);
    assert_eq!(pair.failure(unsent), ErrorCode::Unreachable);
    assert!(matches!(pair.session.poll_event(), Some(Event::Closed(_))));
    pair.session.handle_eof(None);
    assert!(pair.session.poll_event().is_none());
    assert_eq!(pair.session.open_requests(), 0);
    let method = pair.session.method("a.b", "m").unwrap();
    let refused = pair.session.call(pair.now, method, Payload::default(), CallOptions::default());
    assert_eq!(refused.unwrap_err().code, ErrorCode::Unreachable);
}

#[test]
fn a_restart_asks_again_and_says_what_was_lost() {
    let mut pair = Pair::open();
    let (subscription, correlation) = subscribed(&mut pair, "a.b");
    announce_topic(&mut pair, "a.b");
    pair.say(event(correlation, 4), &(), b"");
    let (registration, _) = pair.session.register(pair.now, offer()).unwrap();
    let register = pair.next();
    pair.done(register.correlation, &Registered { registration: 77, queued: false });
    let (watch, _) = pair.session.watch_names(pair.now, ">").unwrap();
    let watching = pair.next().correlation;
    pair.done(watching, &());
    let (lost, _) = pair.bound_call("a.b");
    while pair.session.poll_event().is_some() {}

    pair.reconnect(2);
    assert_eq!(pair.failure(lost), ErrorCode::OutcomeUnknown);
    let kinds: Vec<Kind> = (0..3).map(|_| pair.next().kind).collect();
    assert_eq!(kinds, [Kind::REGISTER, Kind::SUBSCRIBE, Kind::WATCH_NAMES]);
    pair.nothing();
    pair.done(register.correlation, &Registered { registration: 3, queued: false });
    pair.done(correlation, &Subscribed { sequence: 1 });
    let events: Vec<Event> = std::iter::from_fn(|| pair.session.poll_event()).collect();
    assert!(events.iter().any(|event| matches!(event, Event::Acquired(key) if *key == registration)));
    assert_eq!(pair.session.next_name_event(watch), Some(NameEvent::Restarted));
    let deliveries: Vec<_> = std::iter::from_fn(|| pair.session.next_delivery(subscription)).collect();
    let expected = Lost { epoch_changed: true, sequence_before: Some(4), sequence_after: 1 };
    assert_eq!(deliveries.len(), 2);
    assert_eq!(deliveries[1], Ok(Delivery::Lost(expected)));
    // Handles are bound anew, announcements of the old connection are gone.
    pair.call("a.b", None);
    assert_eq!((pair.next().kind, pair.next().kind), (Kind::RESOLVE, Kind::CALL));
    pair.say(event(correlation, 2), &(), b"");
    assert_eq!(pair.session.state(), State::Closed);
}

#[test]
fn what_cannot_be_had_again_after_a_restart_is_reported() {
    let mut pair = Pair::open();
    let (subscription, correlation) = subscribed(&mut pair, "a.b");
    let (registration, _) = pair.session.register(pair.now, offer()).unwrap();
    let register = pair.next();
    pair.done(register.correlation, &Registered { registration: 77, queued: false });
    pair.reconnect(1);
    pair.refuse(Kind::DONE, register.correlation, ErrorCode::NameTaken);
    pair.refuse(Kind::DONE, correlation, ErrorCode::QuotaExceeded);
    let events: Vec<Event> = std::iter::from_fn(|| pair.session.poll_event()).collect();
    assert!(matches!(&events[0], Event::RegistrationLost(key, error)
        if *key == registration && error.code == ErrorCode::NameTaken));
    assert!(matches!(pair.session.next_delivery(subscription), Some(Err(error))
        if error.code == ErrorCode::QuotaExceeded));
}

#[test]
fn nobody_answers_the_hello() {
    let mut pair = Pair::greeting();
    let ticket = pair.call("a.b", None);
    assert_eq!(pair.session.poll_timeout(), Some(pair.now + Duration::from_secs(5)));
    pair.session.handle_timeout(pair.now + Duration::from_secs(5));
    assert_eq!(pair.session.state(), State::Closed);
    assert_eq!(pair.failure(ticket), ErrorCode::Unreachable);
    assert_eq!(pair.session.ended().map(|error| error.code), Some(ErrorCode::Unreachable));
}

#[test]
fn a_refused_hello_is_the_outcome_of_what_followed_it() {
    let mut pair = Pair::greeting();
    let ticket = pair.call("a.b", None);
    pair.flush();
    let close = Close { code: ErrorCode::UnsupportedVersion.number(), message: "too old".into() };
    pair.say(Header::new(Kind::CLOSE), &close, b"");
    assert_eq!(pair.failure(ticket), ErrorCode::UnsupportedVersion);
    assert!(matches!(pair.session.poll_event(), Some(Event::Closed(_))));
}

#[test]
fn a_close_ends_what_is_open() {
    let mut pair = Pair::open();
    let (ticket, _) = pair.bound_call("a.b");
    pair.session.close();
    assert_eq!((pair.next().kind, pair.session.state()), (Kind::CLOSE, State::Closing));
    assert_eq!(pair.failure(ticket), ErrorCode::OutcomeUnknown);
    pair.session.close();
    pair.nothing();
    pair.session.handle_eof(None);
    assert!(
        matches!(pair.session.poll_event(), Some(Event::Closed(error)) if error.code == ErrorCode::Cancelled)
    );
}

#[test]
fn what_a_daemon_must_not_send_ends_the_conversation() {
    let unannounced = Header { sender: 99, ..Header::new(Kind::REPLY) };
    let frames = [
        Header::new(Kind::HELLO),
        Header::new(Kind::WELCOME),
        Header::new(Kind::SUBSCRIBE),
        Header::new(Kind(0xee)),
        Header::new(Kind::PEER_ANNOUNCED),
        Header::new(Kind::EVENT),
        Header::new(Kind::NAME_CHANGED),
        unannounced,
    ];
    for header in frames {
        let mut pair = Pair::open();
        let (ticket, call) = pair.bound_call("a.b");
        pair.say(header.with_correlation(call.correlation), &(), b"");
        assert_eq!(pair.session.state(), State::Closed, "{header:?}");
        assert_eq!(pair.failure(ticket), ErrorCode::OutcomeUnknown, "{header:?}");
        assert_eq!(pair.next().kind, Kind::CLOSE, "{header:?}");
        let ended = pair.session.ended().map(|error| error.code);
        assert_eq!(ended, Some(ErrorCode::ProtocolViolation), "{header:?}");
    }
}

#[test]
fn random_frames_never_panic_and_never_answer_twice() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    for _ in 0..20_000 {
        let mut pair = Pair::open();
        let (ticket, call) = pair.bound_call("a.b");
        let (_, subscription) = subscribed(&mut pair, "a.b");
        for _ in 0..3 {
            let kind = Kind::ALL[random(Kind::ALL.len() as u64) as usize];
            let correlation =
                [call.correlation, subscription, random(1 << 40), random(u64::MAX)][random(4) as usize];
            let header = Header {
                flags: [Flags::NONE, Flags::ERROR, Flags::ONEWAY][random(3) as usize],
                sender: [7, 0][random(2) as usize],
                handle: Handle { index: random(3) as u32, generation: random(3) as u16 },
                ..Header::new(kind).with_correlation(correlation)
            };
            let envelope: Vec<u8> = (0..random(12)).map(|_| random(256) as u8).collect();
            let mut bytes = header.to_bytes().to_vec();
            bytes[8..10].copy_from_slice(&(envelope.len() as u16).to_le_bytes());
            bytes.extend(envelope);
            pair.session.handle_input(pair.now, &mut &bytes[..]);
        }
        pair.session.handle_eof(None);
        assert!(pair.session.take(ticket).is_some());
        assert!(pair.session.take(ticket).is_none());
    }
}
