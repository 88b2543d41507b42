//! Publishing and subscriptions.

use std::io::Write;
use std::time::{Duration, Instant};

use super::fake::*;
use crate::blocking::{Delivery, DeliveryRef};
use crate::error::ErrorCode;
use crate::id::Handle;
use crate::wire::message::{Gap, Published};
use crate::wire::{Flags, Header, Kind};

#[test]
fn events_are_given_one_by_one_or_all_at_once_in_order() {
    with_client(
        |mut daemon| {
            let subscription = daemon.subscribed();
            let mut bytes = Vec::new();
            for sequence in 1..=3 {
                bytes.extend(event(subscription, sequence, &[sequence as u8]));
            }
            daemon.stream.write_all(&bytes).unwrap();
            // The rest once the client has asked for it, so that both ways of reading are taken.
            daemon.pong();
            daemon.stream.write_all(&event(subscription, 4, b"4")).unwrap();
            let gap = Header::new(Kind::GAP).with_correlation(subscription).with_handle(TOPIC);
            daemon.send(gap, &Gap { from: 5, to: 6, count: 2 }, b"");
            daemon.stream.write_all(&event(subscription, 7, b"7")).unwrap();
            let merged = gap.with_handle(Handle::MERGED);
            daemon.send(merged, &Gap { from: 0, to: 0, count: 9 }, b"");
            daemon.pong();
        },
        |mut client| {
            let subscription = client.subscribe("a.>", Default::default()).unwrap();
            let first = client.next_delivery(&subscription, PATIENCE).unwrap();
            let Some(Delivery::Event(event)) = first else { panic!("{first:?}") };
            assert_eq!((event.topic.as_str(), event.sequence), ("a.b", 1));
            assert_eq!(&event.payload.body[..], [1]);
            client.ping().unwrap();
            let mut seen = Vec::new();
            while seen.len() < 6 {
                let count = client
                    .drain(&subscription, PATIENCE, |delivery| {
                        seen.push(match delivery {
                            DeliveryRef::Event(event) => (event.sequence, event.payload.len() as u64),
                            DeliveryRef::Gap(missed) => (missed.from, missed.count),
                            DeliveryRef::Lost(_) => panic!("nothing was lost"),
                        });
                    })
                    .unwrap();
                assert!(count > 0);
            }
            assert_eq!(seen, [(2, 1), (3, 1), (4, 1), (5, 2), (7, 1), (0, 9)]);
            client.ping().unwrap();
            assert_eq!(client.try_next(&subscription).unwrap(), None);
        },
    );
}

#[test]
fn waiting_for_events_ends_in_time() {
    with_client(
        |mut daemon| {
            daemon.subscribed();
            while daemon.next().is_some() {}
        },
        |mut client| {
            let subscription = client.subscribe("a.>", Default::default()).unwrap();
            let time = Duration::from_millis(20);
            for _ in 0..2 {
                let start = Instant::now();
                assert_eq!(client.next_delivery(&subscription, time).unwrap(), None);
                assert!(start.elapsed() >= time);
                let start = Instant::now();
                assert_eq!(client.drain(&subscription, time, |_| panic!("no event was sent")).unwrap(), 0);
                assert!(start.elapsed() >= time);
            }
        },
    );
}

#[test]
fn what_came_before_the_end_is_given_before_the_end() {
    with_client(
        |mut daemon| {
            let subscription = daemon.subscribed();
            daemon.stream.write_all(&event(subscription, 1, b"")).unwrap();
            daemon.stream.write_all(&event(subscription, 2, b"")).unwrap();
        },
        |mut client| {
            let subscription = client.subscribe("a.b", Default::default()).unwrap();
            for _ in 0..2 {
                assert!(client.next_delivery(&subscription, PATIENCE).unwrap().is_some());
            }
            let error = client.next_delivery(&subscription, PATIENCE).unwrap_err();
            assert_eq!(error.code, ErrorCode::Unreachable);
        },
    );
}

#[test]
fn publishing_is_acknowledged_or_not() {
    with_client(
        |mut daemon| {
            let publish = daemon.expect_kind(Kind::PUBLISH);
            let done = Header::new(Kind::DONE).with_correlation(publish.header.correlation);
            daemon.send(done, &Published { sequence: 8, subscribers: 2 }, b"");
            for _ in 0..2 {
                assert!(daemon.expect_kind(Kind::PUBLISH).header.flags.contains(Flags::ONEWAY));
            }
            daemon.subscribed();
            let unsubscribe = daemon.expect();
            assert_eq!(unsubscribe.header.kind, Kind::UNSUBSCRIBE);
            daemon.send_bare(Header::new(Kind::DONE).with_correlation(unsubscribe.header.correlation), b"");
        },
        |mut client| {
            let published = client.publish("a.b", "x").unwrap();
            assert_eq!((published.sequence, published.subscribers), (8, 2));
            client.publish_oneway("a.b", "y").unwrap();
            client.queue_publish("a.b", "z").unwrap();
            client.flush().unwrap();
            assert_eq!(client.publish("no topic", "").unwrap_err().code, ErrorCode::InvalidArgument);
            // A filter that is none never reaches the daemon.
            let error = client.subscribe("a..b", Default::default()).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument);
            let subscription = client.subscribe("a.b", Default::default()).unwrap();
            client.unsubscribe(subscription).unwrap();
        },
    );
}
