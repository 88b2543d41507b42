//! The limits of what is queued toward a connection, a user and a subscription.

use ipc_core::id::Handle;
use ipc_core::limits::Limits;
use ipc_core::wire::HEADER_BYTES;

use super::is_over;
use crate::bus::{Bus, METHOD, News, Who};

/// A service that does not read and has something queued already, and somebody who calls it.
fn deaf_service(limits: &Limits) -> (Bus, Who, Who, Handle) {
    let mut bus = Bus::with(limits.clone());
    let [deaf, caller] = bus.people();
    bus.serves(deaf, "a.service");
    let handle = bus.resolve(caller, "a.service", METHOD).unwrap();
    bus.stops_reading(deaf);
    bus.calls_through(caller, handle, "announces the caller");
    (bus, deaf, caller, handle)
}

/// How many bytes of payload fill a queue of `most` bytes that holds `queued`.
fn left(most: u32, queued: usize) -> usize {
    most as usize - queued - HEADER_BYTES
}

pub(super) fn queue_per_connection() {
    let most = 5000;
    let limits = Limits { queue_per_connection_max_bytes: most, ..Limits::default() };
    for (over, is_taken) in [(-1, true), (0, true), (1, false)] {
        let (mut bus, deaf, caller, handle) = deaf_service(&limits);
        let length = left(most, bus.queued(deaf)).checked_add_signed(over).unwrap();
        let call = bus.calls_through(caller, handle, &"x".repeat(length));
        match bus.answer(caller, call) {
            None => {
                assert!(is_taken && bus.queued(deaf) == (most as usize).checked_add_signed(over).unwrap())
            }
            Some(answer) => {
                assert!(!is_taken, "{over}");
                is_over("queue_per_connection_max_bytes", most, answer.unwrap_err());
            }
        }
    }
    // An empty queue takes one frame of any legal size.
    let mut bus = Bus::with(limits);
    let [service, caller] = bus.people();
    bus.serves(service, "a.service");
    let handle = bus.resolve(caller, "a.service", METHOD).unwrap();
    bus.calls_through(caller, handle, &"x".repeat(100_000));
    assert_eq!(bus.call_of(service).payload.len(), 100_000);
}

pub(super) fn queue_per_uid() {
    let most = 5000;
    for (over, is_taken) in [(-1, true), (0, true), (1, false)] {
        let limits = Limits { queue_per_uid_max_bytes: most, ..Limits::default() };
        let (mut bus, deaf, caller, _) = deaf_service(&limits);
        // Another connection of the same user, whose own queue is nearly empty.
        let other = bus.arrives(1000);
        bus.serves(other, "another.service");
        let handle = bus.resolve(caller, "another.service", METHOD).unwrap();
        bus.stops_reading(other);
        bus.calls_through(caller, handle, "announces the caller");
        let queued = bus.queued(deaf) + bus.queued(other);
        let length = left(most, queued).checked_add_signed(over).unwrap();
        let call = bus.calls_through(caller, handle, &"x".repeat(length));
        match bus.answer(caller, call) {
            None => assert!(is_taken, "{over}"),
            Some(answer) => {
                assert!(!is_taken, "{over}");
                is_over("queue_per_uid_max_bytes", most, answer.unwrap_err());
                let stranger = bus.arrives(2000);
                bus.serves(stranger, "a.stranger");
                bus.calls(caller, "a.stranger", &"x".repeat(length));
                assert_eq!(bus.calls_of(stranger).len(), 1, "another user has a queue of its own");
            }
        }
    }
    queue_per_uid_of_events();
}

fn queue_per_uid_of_events() {
    let most = 20_000;
    for (over, is_kept) in [(-1, true), (0, true), (1, false)] {
        let mut bus = Bus::with(Limits { queue_per_uid_max_bytes: most, ..Limits::default() });
        let [first, second] = bus.people();
        let publisher = bus.arrives(2000);
        let [to_first, to_second] = [(first, "a"), (second, "b")].map(|(reader, topic)| {
            bus.subscribes(reader, topic);
            let handle = bus.opens(publisher, topic).unwrap();
            bus.publishes(publisher, handle, "announces the topic");
            bus.news(reader);
            bus.stops_reading(reader);
            handle
        });
        bus.publishes(publisher, to_first, &"x".repeat(4000));
        // Room for one gap record is kept free.
        let left = left(most, bus.queued(first) + bus.queued(second)) - (HEADER_BYTES + 27);
        bus.publishes(publisher, to_second, &"x".repeat(left.checked_add_signed(over).unwrap()));
        bus.reads_again(second);
        let is_event = matches!(bus.news(second)[..], [News::Event(2, _)]);
        assert_eq!(is_event, is_kept, "{over}");
        // What is left by those who do not read is not all there is: a connection that reads has its share.
        bus.publishes(publisher, to_second, &"x".repeat(9000));
        assert!(matches!(bus.news(second)[..], [News::Event(3, _)]));
        if is_kept {
            bus.publishes(publisher, to_first, &"x".repeat(5900));
            let large = "x".repeat(12_000);
            bus.publishes(publisher, to_second, &large);
            assert!(matches!(bus.news(second)[..], [News::Gap(0, 0, 1)]), "it is told of that at once");
        }
    }
}

/// What a subscriber finds that did not read while so many events of `length` bytes were published.
fn missed(limits: &Limits, asked: (u32, u32), count: u64, length: usize) -> Vec<News> {
    let mut bus = Bus::with(limits.clone());
    let [publisher, reader] = bus.people();
    bus.subscribe(reader, "a.topic", asked.0, asked.1).unwrap();
    let topic = bus.opens(publisher, "a.topic").unwrap();
    bus.stops_reading(reader);
    for _ in 0..count {
        bus.publishes(publisher, topic, &"x".repeat(length));
    }
    bus.reads_again(reader);
    bus.news(reader)
}

/// Holds when a subscription keeps `most` events of `length` bytes and gives up the oldest for one more.
fn keeps(limits: &Limits, asked: (u32, u32), most: u64, length: usize) {
    for count in [most - 1, most, most + 1] {
        let news = missed(limits, asked, count, length);
        assert_eq!(news.len() as u64, count, "a gap or an event for each");
        let is_gap = matches!(news[0], News::Gap(1, 1, 1));
        assert_eq!(is_gap, count > most, "{count} of {most}: {:?}", news[0]);
    }
}

pub(super) fn queue_events() {
    let limits = Limits { queue_events_per_subscription_max: 8, ..Limits::default() };
    for (asked, is_allowed) in [(7, true), (8, true), (9, false)] {
        let mut bus = Bus::with(limits.clone());
        let [reader] = bus.people();
        let answer = bus.subscribe(reader, "a.topic", asked, 0);
        assert_eq!(answer.is_ok(), is_allowed, "{asked}");
        if let Err(error) = answer {
            is_over("queue_events_per_subscription_max", 8, error);
        }
    }
    keeps(&limits, (7, 0), 7, 1);
    keeps(&limits, (8, 0), 8, 1);
}

pub(super) fn queue_events_default() {
    let limits = Limits { queue_events_per_subscription_default: 5, ..Limits::default() };
    keeps(&limits, (0, 0), 5, 1);
    // The default never goes past the maximum.
    keeps(&Limits { queue_events_per_subscription_max: 3, ..limits }, (0, 0), 3, 1);
}

pub(super) fn queue_bytes() {
    let (length, count) = (1000, 4);
    let most = (count * (HEADER_BYTES + length)) as u32;
    let limits = Limits { queue_bytes_per_subscription_max: most, ..Limits::default() };
    for (asked, is_allowed) in [(most - 1, true), (most, true), (most + 1, false)] {
        let mut bus = Bus::with(limits.clone());
        let [reader] = bus.people();
        let answer = bus.subscribe(reader, "a.topic", 0, asked);
        assert_eq!(answer.is_ok(), is_allowed, "{asked}");
        if let Err(error) = answer {
            is_over("queue_bytes_per_subscription_max", most, error);
        }
    }
    keeps(&limits, (0, 0), count as u64, length);
    keeps(&limits, (0, most - 1), count as u64 - 1, length);
    // One event that is larger than all of it is kept alone.
    let news = missed(&limits, (0, 1024), 2, 2000);
    assert_eq!(news.len(), 2, "{news:?}");
    assert!(matches!((&news[0], &news[1]), (News::Gap(1, 1, 1), News::Event(2, _))), "{news:?}");
}
