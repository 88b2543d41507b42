//! Publishing and subscribing.

use std::future::Future;
use std::task::{Context, Poll, Waker};

use ipc_core::ErrorCode;
use ipc_core::client::{Client, Delivery, PublishOptions, Received, SubscribeOptions, Subscription};
use ipc_tests::daemon::Signal;

use crate::on_each_runtime;

async fn next_event(subscription: &mut Subscription) -> Received {
    match subscription.next().await.unwrap().unwrap() {
        Delivery::Event(received) => received,
        other => panic!("no event: {other:?}"),
    }
}

async fn subscribe(client: &Client, filter: &str) -> Subscription {
    client.subscribe(filter, SubscribeOptions::default()).await.unwrap()
}

#[test]
fn events_arrive_in_order_with_number_and_sender() {
    on_each_runtime(async |bus| {
        let (publisher, subscriber) = (bus.client().await, bus.client().await);
        let mut subscription = subscribe(&subscriber, "sensor.*.heat").await;
        let mut all = subscribe(&subscriber, ">").await;
        for round in 1..=100_u64 {
            let published = publisher.publish("sensor.kitchen.heat", round.to_string()).await.unwrap();
            assert_eq!((published.sequence, published.subscribers), (round, 2));
            publisher.publish("sensor.kitchen.light", "on").await.unwrap();
        }
        for round in 1..=100_u64 {
            let received = next_event(&mut subscription).await;
            assert_eq!((received.topic.as_str(), received.sequence), ("sensor.kitchen.heat", round));
            assert_eq!(received.payload.as_text().unwrap(), round.to_string());
            assert_eq!(received.sender.id, publisher.daemon().peer);
            assert_eq!(next_event(&mut all).await.topic.as_str(), "sensor.kitchen.heat");
            assert_eq!(next_event(&mut all).await.topic.as_str(), "sensor.kitchen.light");
        }
        let error = subscriber.subscribe("a.>.b", SubscribeOptions::default()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
    });
}

#[test]
fn many_events_are_all_delivered_or_counted() {
    on_each_runtime(async |bus| {
        const EVENTS: u64 = 50_000;
        let (publisher, subscriber) = (bus.client().await, bus.client().await);
        let mut subscription = subscribe(&subscriber, "flood").await;
        let publishing = tokio::spawn(async move {
            let topic = publisher.topic("flood");
            for _ in 0..EVENTS {
                topic.publish_oneway("x").await.unwrap();
            }
            publisher.ping().await.unwrap();
        });
        let mut last = 0;
        while last < EVENTS {
            match subscription.next().await.unwrap().unwrap() {
                Delivery::Event(received) => {
                    assert_eq!(received.sequence, last + 1);
                    last = received.sequence;
                }
                Delivery::Gap(missed) => {
                    assert_eq!((missed.from, missed.count), (last + 1, missed.to - last));
                    last = missed.to;
                }
                Delivery::Lost(lost) => panic!("{lost:?}"),
            }
        }
        publishing.await.unwrap();
    });
}

#[test]
fn a_slow_reader_is_told_exactly_what_is_missing() {
    on_each_runtime(async |bus| {
        let (publisher, subscriber) = (bus.client().await, bus.client().await);
        let options = SubscribeOptions { queue_events_max: 10, ..SubscribeOptions::default() };
        let mut subscription = subscriber.subscribe("t", options).await.unwrap();
        for _ in 0..100 {
            publisher.publish("t", "x").await.unwrap();
        }
        // A later event proves that the earlier ones have been read by the client.
        let mut mark = subscribe(&subscriber, "mark").await;
        publisher.publish("mark", "").await.unwrap();
        next_event(&mut mark).await;
        let Delivery::Gap(missed) = subscription.next().await.unwrap().unwrap() else { panic!("no gap") };
        assert_eq!((missed.topic.unwrap().as_str(), missed.from, missed.to, missed.count), ("t", 1, 90, 90));
        for sequence in 91..=100 {
            assert_eq!(next_event(&mut subscription).await.sequence, sequence);
        }
    });
}

#[test]
fn a_subscription_that_ended_gets_nothing_more() {
    on_each_runtime(async |bus| {
        let client = bus.client().await;
        let dropped = subscribe(&client, "t").await;
        let closed = subscribe(&client, "t").await;
        assert_eq!(client.publish("t", "").await.unwrap().subscribers, 2);
        drop(dropped);
        closed.close().await.unwrap();
        assert_eq!(client.publish("t", "").await.unwrap().subscribers, 0);
        let mut last = subscribe(&client, "t").await;
        client.close().await;
        assert!(last.next().await.is_none());
        assert_eq!(client.publish("t", "").await.unwrap_err().code, ErrorCode::Unreachable);
    });
}

#[test]
fn a_trace_context_travels_with_an_event() {
    on_each_runtime(async |bus| {
        let client = bus.client().await;
        let mut subscription = subscribe(&client, "t").await;
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        client.publish_with("t", "", PublishOptions::new().traceparent(traceparent)).await.unwrap();
        assert_eq!(next_event(&mut subscription).await.traceparent.as_deref(), Some(traceparent));
        let too_long = PublishOptions::new().traceparent("0".repeat(56));
        let error = client.publish_with("t", "", too_long).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
    });
}

/// A publisher does not fill its memory while the daemon does not read.
#[test]
fn publishing_waits_for_a_daemon_that_does_not_read() {
    on_each_runtime(async |bus| {
        const EVENT_BYTES: usize = 4096;
        let client = bus.client().await;
        let topic = client.topic("t");
        topic.publish(vec![0; EVENT_BYTES]).await.unwrap();
        bus.daemon.signal(Signal::STOP);
        let mut published = 0;
        let waiting = loop {
            let mut next =
                Box::pin(tokio::task::coop::unconstrained(topic.publish_oneway(vec![0; EVENT_BYTES])));
            match next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(done) => done.unwrap(),
                Poll::Pending => break next,
            }
            published += 1;
            assert!(published * EVENT_BYTES < 4 << 20, "nothing holds the publisher up");
        };
        bus.daemon.signal(Signal::CONT);
        waiting.await.unwrap();
        assert!(client.ping().await.is_ok());
    });
}
