//! Events, gaps and changes of names.

use ipc_core::ErrorCode;
use ipc_core::blocking::{Delivery, DeliveryRef, NameChange, NameEvent, SubscribeOptions};
use ipc_tests::daemon::{Daemon, PATIENCE};

use super::{client, echo};

#[test]
fn events_arrive_in_order_and_with_their_sender() {
    let daemon = Daemon::start();
    let (mut publisher, mut subscriber) = (client(&daemon), client(&daemon));
    let all = subscriber.subscribe("test.>", SubscribeOptions::default()).unwrap();
    let one = subscriber.subscribe("test.a", SubscribeOptions::default()).unwrap();
    for n in 1..=3_u64 {
        let published = publisher.publish("test.a", format!("event {n}")).unwrap();
        assert_eq!((published.sequence, published.subscribers), (n, 2));
    }
    for subscription in [one, all] {
        for n in 1..=3 {
            let Some(Delivery::Event(event)) = subscriber.next_delivery(&subscription, PATIENCE).unwrap()
            else {
                panic!("no event {n}")
            };
            assert_eq!((event.topic.as_str(), event.sequence), ("test.a", n));
            assert_eq!(event.payload.as_text().unwrap(), format!("event {n}"));
            assert_eq!(event.sender.id, publisher.daemon().unwrap().peer);
        }
        assert_eq!(subscriber.try_next(&subscription), Ok(None));
    }
    subscriber.unsubscribe(one).unwrap();
    assert_eq!(publisher.publish("test.a", "").unwrap().subscribers, 1);
}

#[test]
fn what_a_slow_subscriber_misses_is_counted_exactly() {
    const EVENTS: u64 = 50_000;
    let daemon = Daemon::start();
    let (mut publisher, mut subscriber) = (client(&daemon), client(&daemon));
    let options = SubscribeOptions { queue_events_max: 100, ..SubscribeOptions::default() };
    let subscription = subscriber.subscribe("test.a", options).unwrap();
    for _ in 0..EVENTS {
        publisher.queue_publish("test.a", vec![0; 256]).unwrap();
    }
    assert_eq!(publisher.publish("test.a", "last").unwrap().sequence, EVENTS + 1);
    let (mut expected, mut missed, mut is_over) = (1, 0, false);
    while !is_over {
        let count = subscriber
            .drain(&subscription, PATIENCE, |delivery| match delivery {
                DeliveryRef::Event(event) => {
                    assert_eq!(event.sequence, expected);
                    expected += 1;
                    is_over = event.payload == b"last";
                }
                DeliveryRef::Gap(gap) => {
                    assert_eq!((gap.from, gap.to - gap.from + 1), (expected, gap.count));
                    expected = gap.to + 1;
                    missed += gap.count;
                }
                DeliveryRef::Lost(_) => panic!("the connection stands"),
            })
            .unwrap();
        assert!(count > 0, "nothing within {PATIENCE:?}");
    }
    assert_eq!(expected, EVENTS + 2);
    assert!(missed > 0, "the subscriber did not read while all were published");
}

#[test]
fn names_come_and_go() {
    let daemon = Daemon::start();
    let (mut watcher, mut server) = (client(&daemon), client(&daemon));
    let _present = server.serve(echo("test.present")).unwrap();
    let watch = watcher.watch_names("test.*").unwrap();
    let serving = server.serve(echo("test.new")).unwrap();
    server.unserve(serving).unwrap();
    for expected in [
        ("test.present", NameChange::Acquired),
        ("test.new", NameChange::Acquired),
        ("test.new", NameChange::Lost),
    ] {
        let event = watcher.next_name_event(&watch, PATIENCE).unwrap();
        let Some(NameEvent::Changed { service, change, .. }) = event else { panic!("{event:?}") };
        assert_eq!((service.as_str(), change), expected);
    }
    watcher.unwatch_names(watch).unwrap();
}

#[test]
fn a_filter_that_is_none_is_refused() {
    let daemon = Daemon::start();
    let error = client(&daemon).subscribe("a.>.b", SubscribeOptions::default()).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArgument);
}
