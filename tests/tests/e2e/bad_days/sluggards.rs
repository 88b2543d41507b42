//! Clients that do not read, are stopped, or are killed; and one that goes on meanwhile.

use std::time::Duration;

use ipc_core::blocking::{Delivery, Service, SubscribeOptions};
use ipc_core::id::Handle;
use ipc_core::wire::message::{OnSlow, Resolve, Subscribe};
use ipc_core::wire::{Header, Kind};
use ipc_core::{CallOptions, ErrorCode};
use ipc_tests::daemon::{Daemon, Options, PATIENCE, Signal, eventually};
use ipc_tests::raw::{RawPeer, frame};
use ipc_tests::rng::for_each_seed;
use ipc_tests::services::{RawService, Title, Witness, ask, client, serve};

#[test]
fn a_service_that_is_stopped_delays_nobody_else_and_goes_on_when_it_is_let() {
    let daemon = Daemon::start();
    let witness = Witness::start(&daemon);
    let title = Title::start(&daemon);
    let mut caller = client(&daemon);
    caller.call("demo.title", "title", "before").unwrap();
    title.signal(Signal::STOP);
    let options = CallOptions { deadline: Some(Duration::from_millis(200)), ..CallOptions::default() };
    let error = caller.call_with("demo.title", "title", "meanwhile", options).unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{error}");
    witness.goes_on();
    title.signal(Signal::CONT);
    let reply = caller.call("demo.title", "title", "after it").unwrap();
    assert_eq!(reply.payload.as_text(), Ok("After It"));
}

#[test]
fn a_service_that_does_not_read_is_named_to_those_who_call_it_and_delays_nobody_else() {
    let limits = "[limits]\nqueue_per_connection_max_bytes = 1000000\n";
    let daemon = Daemon::start_with(&Options::with_config(limits));
    let witness = Witness::start(&daemon);
    let _deaf = RawService::register(&daemon, "test.deaf", "m");
    let mut caller = client(&daemon);
    let mut refusal = None;
    for _ in 0..1000 {
        let options = CallOptions { deadline: Some(Duration::from_millis(20)), ..CallOptions::default() };
        match caller.call_with("test.deaf", "m", vec![7; 50_000], options) {
            Err(error) if error.code == ErrorCode::DeadlineExceeded => {}
            Err(error) => {
                refusal = Some(error);
                break;
            }
            Ok(_) => panic!("it answers"),
        }
    }
    let refusal = refusal.expect("there is no end to what it takes");
    assert_eq!(refusal.code, ErrorCode::QuotaExceeded, "{refusal}");
    assert!(refusal.message.contains("queue_per_connection_max_bytes"), "{refusal}");
    witness.goes_on();
    // The caller is not to blame.
    caller.call("test.witness", "echo", "still here").unwrap();
}

#[test]
fn a_subscriber_that_does_not_read_costs_others_nothing_and_misses_what_it_is_told() {
    let daemon = Daemon::start();
    let witness = Witness::start(&daemon);
    let (mut deaf, _) = RawPeer::greeted(&daemon.socket());
    let subscribe = Subscribe {
        filter: "test.news".into(),
        on_slow: OnSlow::DropOldest,
        queue_events_max: 100,
        queue_bytes_max: 1_000_000,
    };
    deaf.send(&frame(Header::new(Kind::SUBSCRIBE).with_correlation(1), &subscribe, &[]));
    assert_eq!(deaf.receive().unwrap().error(), None);
    let mut reader = client(&daemon);
    let news = reader.subscribe("test.news", SubscribeOptions::default()).unwrap();
    let mut publisher = client(&daemon);
    let count = 2000u64;
    for number in 1..=count {
        let published = publisher.publish("test.news", vec![7; 4096]).unwrap();
        assert_eq!((published.sequence, published.subscribers), (number, 2));
        let delivery = reader.next_delivery(&news, PATIENCE).unwrap();
        assert!(matches!(delivery, Some(Delivery::Event(event)) if event.sequence == number));
    }
    witness.goes_on();
    // What it gets at last, events and gaps, is everything, in order.
    let mut next = 1;
    while next <= count {
        let frame = deaf.receive().expect("the connection stays");
        match frame.header.kind {
            Kind::EVENT => {
                assert_eq!(frame.header.sequence, next);
                next += 1;
            }
            Kind::GAP => {
                let gap: ipc_core::wire::message::Gap = frame.decode();
                assert_eq!((gap.from, gap.to - gap.from + 1), (next, gap.count));
                next = gap.to + 1;
            }
            kind => assert!([Kind::PEER_ANNOUNCED, Kind::TOPIC_ANNOUNCED].contains(&kind), "{frame:?}"),
        }
    }
}

#[test]
fn a_caller_that_does_not_read_its_replies_is_closed_and_nobody_else() {
    let limits = "[limits]\nqueue_per_connection_max_bytes = 1000000\n";
    let daemon = Daemon::start_with(&Options::with_config(limits));
    let witness = Witness::start(&daemon);
    let (mut deaf, _) = RawPeer::greeted(&daemon.socket());
    let handle = Handle { index: 0, generation: 1 };
    let resolve = Resolve { service: "test.witness".into(), method: "echo".into() };
    deaf.send(&frame(Header::new(Kind::RESOLVE).with_handle(handle).with_correlation(1), &resolve, &[]));
    let call = |number: u64| {
        let header = Header::new(Kind::CALL).with_handle(handle).with_correlation(number);
        frame(header, &(), &vec![7; 16_384])
    };
    // Refusals are answers too; whoever reads none of them is closed at last.
    deaf.stream().set_nonblocking(true).unwrap();
    let mut number = 1;
    let mut rest = Vec::new();
    let is_closed = eventually(|| {
        if rest.is_empty() {
            number += 1;
            rest = call(number);
        }
        match std::io::Write::write(&mut deaf.stream(), &rest) {
            Ok(count) => {
                rest.drain(..count);
                false
            }
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        }
    });
    assert!(is_closed, "{number} calls were taken");
    witness.goes_on();
    let counters = ask(&daemon, "status", "").unwrap()["counters"].clone();
    assert_eq!(counters["slow_connections_closed"], 1, "{counters}");
}

#[test]
fn clients_that_are_killed_at_any_byte_leave_nothing_behind() {
    let daemon = Daemon::start();
    let witness = Witness::start(&daemon);
    let at_first = usage(&daemon);
    for_each_seed(300, 5000, |seed, mut rng| {
        let (service, handle) = (format!("test.doomed-{seed}"), Handle { index: 0, generation: 1 });
        let methods = ipc_core::wire::codec::List(vec![ipc_core::wire::message::MethodInfo {
            name: "m".into(),
            description: "".into(),
        }]);
        let mode = ipc_core::wire::message::RegisterMode::Exclusive;
        let register = ipc_core::wire::message::Register {
            service: service.as_str().into(),
            mode,
            queue: false,
            methods,
        };
        let target = *rng.pick(&["test.witness", &service]);
        let method = if target == "test.witness" { "echo" } else { "m" };
        let resolve = Resolve { service: target.into(), method: method.into() };
        let subscribe = Subscribe {
            filter: ">".into(),
            on_slow: OnSlow::DropOldest,
            queue_events_max: 0,
            queue_bytes_max: 0,
        };
        let header = |kind, correlation| Header::new(kind).with_correlation(correlation);
        let mut life = ipc_tests::raw::greeting("doomed");
        life.extend(frame(header(Kind::REGISTER, 1), &register, &[]));
        life.extend(frame(header(Kind::SUBSCRIBE, 2), &subscribe, &[]));
        life.extend(frame(header(Kind::RESOLVE, 3).with_handle(handle), &resolve, &[]));
        for correlation in 4..8 {
            life.extend(frame(header(Kind::CALL, correlation).with_handle(handle), &(), &[7; 100]));
        }
        life.truncate(1 + rng.index(life.len()));
        let mut peer = RawPeer::connect(&daemon.socket());
        peer.send(&life);
        if rng.chance(1, 2) {
            // It sees some of what comes back before it dies.
            peer.stream().set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let _ = std::io::Read::read(&mut peer.stream(), &mut [0; 64]);
        }
    });
    witness.goes_on();
    assert!(eventually(|| usage(&daemon) == at_first), "{} after {at_first}", usage(&daemon));
    let services = ask(&daemon, "list", "services").unwrap();
    let names: Vec<_> = services.as_array().unwrap().iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["ipc.daemon", "test.witness"]);
}

/// Everything that is held by anybody, without what comes and goes with the witness's calls.
fn usage(daemon: &Daemon) -> serde_json::Value {
    let mut usage = ask(daemon, "status", "").unwrap()["usage"].clone();
    for row in usage.as_object_mut().unwrap().values_mut() {
        row["pending_calls"].take();
        row["queued_bytes"].take();
    }
    usage
}

#[test]
fn a_daemon_that_was_stopped_goes_on_where_it_was() {
    let daemon = Daemon::start();
    let service = Service::new("test.echo").unwrap();
    serve(&daemon, service.method("echo", |request| Ok(request.payload.clone())));
    let mut caller = client(&daemon);
    caller.call("test.echo", "echo", "before").unwrap();
    daemon.signal(Signal::STOP);
    let calls: Vec<_> = (0..10)
        .map(|number: u32| {
            caller.start_call("test.echo", "echo", number.to_string(), CallOptions::default()).unwrap()
        })
        .collect();
    caller.flush().unwrap();
    daemon.signal(Signal::CONT);
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(caller.wait(call).unwrap().payload.as_text(), Ok(&*number.to_string()));
    }
}
