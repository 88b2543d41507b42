//! Events: who gets them, in which order, and what becomes of those that do not fit.

use ipc_core::limits::Limits;
use ipc_core::wire::Kind;

use crate::bus::News::{Event, Gap};
use crate::bus::{Bus, News};

fn event(number: u64) -> News {
    Event(number, number.to_string())
}

/// A topic has one order. Its events are numbered from 1, whoever publishes them, and every subscriber gets them all in
/// that order.
#[test]
fn every_subscriber_sees_the_same_order() {
    let mut bus = Bus::new();
    let [alice, bob, reader, other_reader] = bus.people();
    for who in [reader, other_reader] {
        bus.subscribes(who, "news.local");
    }
    let (by_alice, by_bob) = (bus.opens(alice, "news.local").unwrap(), bus.opens(bob, "news.local").unwrap());
    for number in 1..=6 {
        let (who, topic) = if number % 2 == 0 { (alice, by_alice) } else { (bob, by_bob) };
        let published = bus.publishes(who, topic, &number.to_string());
        assert_eq!((published.sequence, published.subscribers), (number, 2));
    }
    let expected: Vec<News> = (1..=6).map(event).collect();
    assert_eq!(bus.news(reader), expected);
    assert_eq!(bus.news(other_reader), expected);
}

/// `*` stands for one part of a topic, `>` for all the rest. Somebody with several filters that match gets the event
/// once for each, because each is a subscription with bounds of its own.
#[test]
fn filters_choose_topics() {
    let mut bus = Bus::new();
    let [publisher, exact, star, rest, both] = bus.people();
    bus.subscribes(exact, "home.kitchen.heat");
    bus.subscribes(star, "home.*.heat");
    bus.subscribes(rest, "home.>");
    bus.subscribes(both, "home.>");
    bus.subscribes(both, "*.*.heat");
    for topic in ["home.kitchen.heat", "home.cellar.heat", "home.cellar.light", "home"] {
        let handle = bus.opens(publisher, topic).unwrap();
        bus.publishes(publisher, handle, topic);
    }
    for (who, count) in [(exact, 1), (star, 2), (rest, 3), (both, 5)] {
        assert_eq!(bus.news(who).len(), count);
    }
}

/// Whoever subscribes is told the last number that was given: its first event is the next one, and none is lost between
/// asking and listening.
#[test]
fn a_subscription_begins_where_its_answer_says() {
    let mut bus = Bus::new();
    let [publisher, early, late] = bus.people();
    bus.subscribes(early, "news");
    let topic = bus.opens(publisher, "news").unwrap();
    for number in 1..=3 {
        bus.publishes(publisher, topic, &number.to_string());
    }
    assert_eq!(bus.subscribes(late, "news").sequence, 3);
    bus.publishes(publisher, topic, "4");
    assert_eq!(bus.news(late), [event(4)]);
}

/// A subscriber that does not read costs the others nothing and the daemon no more than its bounds: the oldest events
/// go, and before the next one comes it is told exactly which are missing.
#[test]
fn a_slow_subscriber_is_told_exactly_what_it_missed() {
    let mut bus = Bus::new();
    let [publisher, slow, quick] = bus.people();
    bus.subscribe(slow, "news", 3, 0).unwrap();
    bus.subscribes(quick, "news");
    let topic = bus.opens(publisher, "news").unwrap();
    bus.publishes(publisher, topic, "1");
    bus.stops_reading(slow);
    for number in 2..=10 {
        bus.publishes(publisher, topic, &number.to_string());
    }
    assert_eq!(bus.news(quick).len(), 10);
    bus.reads_again(slow);
    assert_eq!(bus.news(slow), [event(1), Gap(2, 7, 6), event(8), event(9), event(10)]);
    bus.publishes(publisher, topic, "11");
    assert_eq!(bus.news(slow), [event(11)]);
}

/// Gaps are told topic by topic. When there is no room even for their records they become one, which names no topic and
/// still has the exact count.
#[test]
fn gap_records_merge_when_there_is_no_room_for_them() {
    let most = 4096;
    let limits = Limits { queue_per_connection_max_bytes: most, ..Limits::default() };
    let mut bus = Bus::with(limits);
    let [publisher, slow] = bus.people();
    bus.subscribe(slow, "news.>", 1, 0).unwrap();
    bus.stops_reading(slow);
    let count = 200;
    for number in 0..count {
        let topic = bus.opens(publisher, &format!("news.{number}")).unwrap();
        bus.publishes(publisher, topic, "x");
    }
    assert!(bus.queued(slow) <= most as usize);
    bus.reads_again(slow);
    let merged = bus.take(slow, Kind::GAP);
    assert_eq!(merged.len(), 1);
    assert_eq!(merged[0].header.handle, ipc_core::id::Handle::MERGED);
    let gap = merged[0].decode::<ipc_core::wire::message::Gap>();
    let received = bus.news(slow).len() as u64;
    assert_eq!(gap.count + received, count);
}

/// One subscription's bounds are its own: another of the same client loses nothing.
#[test]
fn subscriptions_of_one_client_do_not_take_each_others_room() {
    let mut bus = Bus::new();
    let [publisher, reader] = bus.people();
    bus.subscribe(reader, "noise", 2, 0).unwrap();
    bus.subscribe(reader, "news", 2, 0).unwrap();
    bus.stops_reading(reader);
    let (noise, news) = (bus.opens(publisher, "noise").unwrap(), bus.opens(publisher, "news").unwrap());
    bus.publishes(publisher, news, "1");
    for number in 1..=9 {
        bus.publishes(publisher, noise, &number.to_string());
    }
    bus.reads_again(reader);
    assert_eq!(bus.news(reader), [event(1), Gap(1, 7, 7), event(8), event(9)]);
}

/// A topic's counter lives while somebody publishes on it or subscribes to it. A later one begins at 1 again, under
/// another handle, so that nobody takes it for the former.
#[test]
fn a_topic_that_everybody_left_begins_anew() {
    let mut bus = Bus::new();
    let [publisher, reader] = bus.people();
    bus.subscribes(reader, "news");
    let topic = bus.opens(publisher, "news").unwrap();
    bus.publishes(publisher, topic, "1");
    let before = bus.take(reader, Kind::TOPIC_ANNOUNCED)[0].header.handle;
    bus.memory.leave(publisher);
    bus.memory.leave(reader);
    assert!(bus.memory.broker.topics().is_empty());
    let [publisher, reader] = bus.people();
    bus.subscribes(reader, "news");
    let topic = bus.opens(publisher, "news").unwrap();
    assert_eq!(bus.publishes(publisher, topic, "1").sequence, 1);
    assert_ne!(bus.take(reader, Kind::TOPIC_ANNOUNCED)[0].header.handle, before);
}

/// Before the first event of a topic, or of a publisher, its subscriber is told who or what that is. These announcements
/// are bounded with the events: however many new topics and publishers there are, whoever does not read costs no more
/// than its mark, and still learns exactly how much it has missed.
#[test]
fn announcements_to_one_who_does_not_read_are_bounded() {
    let most = 4096;
    let limits = Limits { queue_per_connection_max_bytes: most, topics_max: 10, ..Limits::default() };
    let mut bus = Bus::with(limits);
    let [slow, quick] = bus.people();
    bus.subscribes(slow, ">");
    bus.subscribes(quick, ">");
    bus.stops_reading(slow);
    let count = 300;
    for number in 0..count {
        let [publisher] = bus.people();
        let topic = bus.opens(publisher, &format!("news.{number}")).unwrap();
        bus.publishes(publisher, topic, "new");
        bus.memory.leave(publisher);
        assert!(bus.queued(slow) <= most as usize, "{} bytes after {number} events", bus.queued(slow));
    }
    assert_eq!(bus.news(quick).len() as u64, count);
    bus.reads_again(slow);
    let seen = bus.news(slow).into_iter().map(|news| match news {
        Event(..) => 1,
        Gap(_, _, count) => count,
    });
    assert_eq!(seen.sum::<u64>(), count);
    let [publisher] = bus.people();
    let topic = bus.opens(publisher, "news.at.last").unwrap();
    bus.publishes(publisher, topic, "heard");
    assert_eq!(bus.news(slow), [Event(1, "heard".to_owned())]);
    assert!(!bus.take(slow, Kind::TOPIC_ANNOUNCED).is_empty());
}
