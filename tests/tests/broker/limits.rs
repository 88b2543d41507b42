//! Every limit at its last allowed value and at the first that is not: one below, at, and one above.
//!
//! The table names each field of [`Limits`] with its proof. A field without one, or without its line in the
//! specification, fails here; so does a name that `status` does not print.

use ipc_core::id::Handle;
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::wire::message::RegisterMode::{Exclusive, Group};
use ipc_core::wire::message::{Close, Hello, OpenTopic};
use ipc_core::wire::{HEADER_BYTES, Header, Kind, PREAMBLE};
use ipc_core::{Error, ErrorCode};
use ipc_daemon::broker::{Access, Transport};
use ipc_tests::raw::{frame, greeting};

use crate::bus::{Bus, METHOD, News, Who};

/// How a limit is proved.
enum Proof {
    /// By this function, with the limit at a small value.
    Here(fn()),
    /// By a test of this name in this file, where only the whole daemon can show it.
    There(&'static str, &'static str),
}

use Proof::{Here, There};

const COORDINATION: &str = "tests/tests/broker/coordination.rs";
const KEYS: &str = "ipc-daemon/src/broker/coordination/keys.rs";
const DATAGRAMS: &str = "ipc-daemon/src/datagram/tests.rs";
const EXPOSE: &str = "tests/tests/e2e/expose/limits.rs";
const REFUSALS: &str = "tests/tests/wire/refusals.rs";

const PROOFS: &[(&str, Proof)] = &[
    ("connections_max", Here(connections)),
    ("connections_per_uid_max", Here(connections_per_uid)),
    ("unauthenticated_per_uid_max", Here(unauthenticated_per_uid)),
    ("hello_timeout_ms", Here(hello_timeout)),
    (
        "tcp_connections_max",
        There("tests/tests/e2e/tcp.rs", "connections_over_tcp_have_a_limit_of_their_own"),
    ),
    (
        "tcp_first_byte_timeout_ms",
        There(REFUSALS, "a_connection_over_tcp_has_its_own_times_and_its_own_room"),
    ),
    ("tcp_hello_timeout_ms", There(REFUSALS, "a_connection_over_tcp_has_its_own_times_and_its_own_room")),
    ("frame_before_hello_max_bytes", Here(frame_before_hello)),
    ("payload_max_bytes", Here(payload)),
    ("queue_per_connection_max_bytes", Here(queue_per_connection)),
    ("queue_per_uid_max_bytes", Here(queue_per_uid)),
    ("pending_calls_per_connection_max", Here(pending_calls)),
    ("subscriptions_per_connection_max", Here(subscriptions)),
    ("names_per_connection_max", Here(names)),
    ("watches_per_connection_max", Here(watches)),
    ("handles_per_connection_max", Here(handles)),
    ("announced_peers_per_connection_max", Here(announced_peers)),
    ("waiters_per_name_max", Here(waiters)),
    ("instances_per_service_max", Here(instances)),
    ("holds_per_connection_max", There(COORDINATION, "what_one_connection_holds_is_limited")),
    ("waits_per_connection_max", There(COORDINATION, "what_one_connection_waits_for_is_limited")),
    ("observations_per_connection_max", There(COORDINATION, "observations_of_one_connection_are_limited")),
    ("waiters_per_resource_max", There(COORDINATION, "those_who_wait_for_one_thing_are_limited")),
    ("resources_max", There(COORDINATION, "the_things_there_are_at_a_time_are_limited_and_none_is_left_behind")),
    ("detached_leases_per_uid_max", There(COORDINATION, "leases_values_and_watches_have_their_limits")),
    ("keys_max", There(KEYS, "users_pay_for_their_keys")),
    ("key_value_max_bytes", There(COORDINATION, "leases_values_and_watches_have_their_limits")),
    ("key_bytes_per_uid_max", There(KEYS, "users_pay_for_their_keys")),
    ("key_history_max", There(KEYS, "history_is_a_window_and_says_so")),
    ("key_history_max_bytes", There(KEYS, "history_holds_its_bytes")),
    ("key_watches_per_connection_max", There(COORDINATION, "leases_values_and_watches_have_their_limits")),
    ("topics_max", Here(topics)),
    ("queue_events_per_subscription_max", Here(queue_events)),
    ("queue_events_per_subscription_default", Here(queue_events_default)),
    ("queue_bytes_per_subscription_max", Here(queue_bytes)),
    ("datagram_clients_max", There(DATAGRAMS, "a_full_table_refuses_and_forgets_nothing")),
    ("datagram_requests_per_client_max", There(DATAGRAMS, "a_full_table_refuses_and_forgets_nothing")),
    ("datagram_requests_max", There(DATAGRAMS, "a_full_table_refuses_and_forgets_nothing")),
    ("datagram_kept_per_client_max_bytes", There(DATAGRAMS, "an_outcome_is_kept_up_to_the_last_byte")),
    ("datagram_kept_max_bytes", There(DATAGRAMS, "an_outcome_is_kept_up_to_the_last_byte")),
    ("expose_connections_max", There(EXPOSE, "connections_over_the_limit_are_closed_at_once_and_counted")),
    (
        "expose_pending_max_bytes",
        There(EXPOSE, "the_longest_line_is_served_and_one_byte_more_closes_the_connection"),
    ),
    ("expose_idle_timeout_ms", There(EXPOSE, "an_idle_connection_is_closed_and_a_busy_one_is_not")),
    ("bridges_max", There(EXPOSE, "bridges_up_to_the_limit_and_one_more_when_one_is_gone")),
    (
        "drain_timeout_ms",
        There("tests/tests/e2e/shutdown.rs", "a_drain_lasts_as_long_as_it_may_and_no_longer"),
    ),
];

#[test]
fn every_limit_holds_at_its_edge() {
    for (name, proof) in PROOFS {
        if let Here(prove) = proof {
            // So that a failure says which limit it is about.
            eprintln!("{name}");
            prove();
        }
    }
}

#[test]
fn every_limit_has_a_proof_and_a_line_in_the_specification() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in the tree");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect("the file is there");
    let specification = read("ipc-core/PROTOCOL.md");
    let shown = Bus::new().memory.broker.status().limits;
    for (name, default) in &shown {
        let line = format!("| `{name}` | {default} |");
        assert!(specification.contains(&line), "PROTOCOL.md has no line that begins {line}");
        let Some((_, proof)) = PROOFS.iter().find(|(proved, _)| proved == name) else {
            panic!("no proof that `{name}` holds at its edge: add it to the table of this file");
        };
        if let There(path, test) = proof {
            assert!(read(path).contains(&format!("fn {test}(")), "{name}: {path} has no test {test}");
        }
    }
    let shown: Vec<&str> = shown.iter().map(|(name, _)| *name).collect();
    let proved: Vec<&str> = PROOFS.iter().map(|(name, _)| *name).collect();
    assert_eq!(proved, shown, "the table and what `status` prints, in its order");
}

/// Holds when `attempt` succeeds `most` times and the next one is refused with the name of the limit and its value.
fn at_most(name: &str, most: u32, mut attempt: impl FnMut(u32) -> Result<(), Error>) {
    for number in 1..=most {
        attempt(number).unwrap_or_else(|error| panic!("{name}: {number} of {most}: {error}"));
    }
    is_over(name, most, attempt(most + 1).expect_err("one more than the limit was allowed"));
}

fn is_over(name: &str, most: u32, error: Error) {
    let detail = error.detail.as_deref().expect("it says which limit");
    assert_eq!((detail.resource.as_deref(), detail.limit), (Some(name), Some(most.into())), "{error}");
    assert_eq!(error.code, ErrorCode::QuotaExceeded);
    assert!(error.message.contains(name), "{error}");
}

/// Connects without a word.
fn knocks(bus: &mut Bus, uid: u32) -> Result<ipc_daemon::broker::PeerKey, Error> {
    let identity = Identity::Local { uid, gid: uid, pid: 1 };
    bus.memory.broker.connect(bus.memory.now, identity, Transport::UnixStream, Access::Granted)
}

fn connections() {
    let mut bus = Bus::with(Limits { connections_max: 3, ..Limits::default() });
    let mut keys = Vec::new();
    // Whose they are does not matter.
    at_most("connections_max", 3, |number| knocks(&mut bus, number).map(|key| keys.push(key)));
    bus.memory.broker.disconnect(keys[1]);
    knocks(&mut bus, 9).expect("one has gone");
}

fn connections_per_uid() {
    let mut bus = Bus::with(Limits { connections_per_uid_max: 3, ..Limits::default() });
    at_most("connections_per_uid_max", 3, |_| knocks(&mut bus, 1000).map(|_| ()));
    knocks(&mut bus, 1001).expect("others have places of their own");
}

fn unauthenticated_per_uid() {
    let mut bus = Bus::with(Limits { unauthenticated_per_uid_max: 3, ..Limits::default() });
    let first = bus.memory.connect(1000);
    at_most("unauthenticated_per_uid_max", 3, |number| match number {
        1 => Ok(()),
        _ => knocks(&mut bus, 1000).map(|_| ()),
    });
    knocks(&mut bus, 1001).expect("others have places of their own");
    bus.memory.send(first, &greeting("late"));
    knocks(&mut bus, 1000).expect("one has said hello");
}

fn hello_timeout() {
    let mut bus = Bus::with(Limits { hello_timeout_ms: 100, ..Limits::default() });
    let [silent, at_last] = [bus.memory.connect(1000), bus.memory.connect(1000)];
    bus.wait_ms(99);
    assert!(!bus.is_closed(silent));
    bus.memory.send(at_last, &greeting("at last"));
    bus.wait_ms(1);
    assert!(bus.is_closed(silent), "at the limit");
    bus.wait_ms(1);
    assert!(!bus.is_closed(at_last), "its hello came in time");
}

fn frame_before_hello() {
    let named = |length: usize| {
        let name = "n".repeat(length);
        let hello = Hello { version_min: 1, version_max: 1, features: 0, name: name.as_str().into() };
        frame(Header::new(Kind::HELLO), &hello, b"")
    };
    let most = named(20).len() as u32;
    for (length, is_taken) in [(19, true), (20, true), (21, false)] {
        let mut bus = Bus::with(Limits { frame_before_hello_max_bytes: most, ..Limits::default() });
        let who = bus.memory.connect(1000);
        bus.memory.send(who, &[&PREAMBLE[..], &named(length)].concat());
        assert_eq!(bus.take(who, Kind::WELCOME).len(), usize::from(is_taken), "{length}");
        assert_eq!(bus.is_closed(who), !is_taken, "{length}");
        if !is_taken {
            let close: Close = bus.take(who, Kind::CLOSE)[0].decode();
            assert!(close.message.0.contains(&most.to_string()), "{}", close.message.0);
        }
        // It holds for the hello and for nothing after it.
        if is_taken {
            bus.say(who, Header::new(Kind::PING), &(), &[7; 4000]);
            assert_eq!(bus.take(who, Kind::PONG).len(), 1);
        }
    }
}

fn payload() {
    for (length, is_taken) in [(1023, true), (1024, true), (1025, false)] {
        let mut bus = Bus::with(Limits { payload_max_bytes: 1024, ..Limits::default() });
        let [service, caller] = bus.people();
        bus.serves(service, "a.service");
        bus.calls(caller, "a.service", &"x".repeat(length));
        assert_eq!(bus.calls_of(service).len(), usize::from(is_taken), "{length}");
        // The client was told the limit in the welcome, so that going past it breaks the protocol.
        assert_eq!(bus.is_closed(caller), !is_taken, "{length}");
    }
}

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

fn queue_per_connection() {
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

fn queue_per_uid() {
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

fn pending_calls() {
    let mut bus = Bus::with(Limits { pending_calls_per_connection_max: 3, ..Limits::default() });
    let [service, caller] = bus.people();
    bus.serves(service, "a.service");
    let handle = bus.resolve(caller, "a.service", METHOD).unwrap();
    at_most("pending_calls_per_connection_max", 3, |_| {
        let call = bus.calls_through(caller, handle, "?");
        bus.answer(caller, call).map_or(Ok(()), |answer| answer.map(|_| ()))
    });
    let served = bus.calls_of(service);
    assert_eq!(served.len(), 3);
    bus.replies(service, &served[1], "!");
    bus.calls_through(caller, handle, "one has ended");
    assert_eq!(bus.calls_of(service).len(), 1);
}

fn subscriptions() {
    let mut bus = Bus::with(Limits { subscriptions_per_connection_max: 3, ..Limits::default() });
    let [reader, other] = bus.people();
    at_most("subscriptions_per_connection_max", 3, |number| {
        bus.subscribe(reader, &format!("topic.{number}"), 0, 0).map(|_| ())
    });
    bus.subscribe(other, "topic.1", 0, 0).expect("another connection has its own");
}

fn names() {
    let mut bus = Bus::with(Limits { names_per_connection_max: 3, ..Limits::default() });
    let [owner, waiting] = bus.people();
    let mut last = 0;
    at_most("names_per_connection_max", 3, |number| {
        let registered = bus.register(owner, &format!("name.{number}"), Exclusive, false)?;
        last = registered.registration;
        Ok(())
    });
    // Waiting for a name counts as well.
    at_most("names_per_connection_max", 3, |number| {
        bus.register(waiting, &format!("name.{number}"), Exclusive, true).map(|_| ())
    });
    bus.unregisters(owner, last);
    bus.register(owner, "name.4", Exclusive, false).expect("one was given back");
}

fn watches() {
    let mut bus = Bus::with(Limits { watches_per_connection_max: 3, ..Limits::default() });
    let [watcher] = bus.people();
    at_most("watches_per_connection_max", 3, |_| bus.watches(watcher, ">").map(|_| ()));
}

fn handles() {
    let mut bus = Bus::with(Limits { handles_per_connection_max: 3, ..Limits::default() });
    let [client] = bus.people();
    at_most("handles_per_connection_max", 3, |number| {
        let handle = Handle { index: number - 1, generation: 1 };
        let said = bus.say(
            client,
            Header::new(Kind::OPEN_TOPIC).with_handle(handle),
            &OpenTopic { topic: "a".into() },
            b"",
        );
        bus.answer(client, said).expect("an answer").map(|_| ())
    });
}

fn announced_peers() {
    let mut bus = Bus::with(Limits { announced_peers_per_connection_max: 3, ..Limits::default() });
    let [service] = bus.people();
    bus.serves(service, "a.service");
    for (number, forgotten) in [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1)] {
        let [caller] = bus.people();
        bus.calls(caller, "a.service", "?");
        assert_eq!(bus.take(service, Kind::PEER_ANNOUNCED).len(), 1, "{number}");
        assert_eq!(bus.take(service, Kind::FORGET).len(), forgotten, "{number}");
    }
}

fn waiters() {
    let mut bus = Bus::with(Limits { waiters_per_name_max: 3, ..Limits::default() });
    let [owner] = bus.people();
    bus.serves(owner, "a.name");
    at_most("waiters_per_name_max", 3, |_| {
        let [waiting] = bus.people();
        bus.register(waiting, "a.name", Exclusive, true).map(|_| ())
    });
}

fn instances() {
    let mut bus = Bus::with(Limits { instances_per_service_max: 3, ..Limits::default() });
    at_most("instances_per_service_max", 3, |_| {
        let [instance] = bus.people();
        bus.register(instance, "a.group", Group, false).map(|_| ())
    });
}

fn topics() {
    let mut bus = Bus::with(Limits { topics_max: 3, ..Limits::default() });
    let [publisher, reader] = bus.people();
    at_most("topics_max", 3, |number| bus.opens(publisher, &format!("topic.{number}")).map(|_| ()));
    // A subscription to one topic gives it a counter too.
    is_over("topics_max", 3, bus.subscribe(reader, "topic.4", 0, 0).unwrap_err());
    bus.subscribe(reader, "topic.3", 0, 0).expect("this one is there");
    bus.memory.leave(publisher);
    bus.subscribe(reader, "topic.4", 0, 0).expect("the others have gone with their publisher");
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

fn queue_events() {
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

fn queue_events_default() {
    let limits = Limits { queue_events_per_subscription_default: 5, ..Limits::default() };
    keeps(&limits, (0, 0), 5, 1);
    // The default never goes past the maximum.
    keeps(&Limits { queue_events_per_subscription_max: 3, ..limits }, (0, 0), 3, 1);
}

fn queue_bytes() {
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

/// A daemon may read other limits while it runs. What is over a lowered one stays; only what comes is refused.
#[test]
fn limits_that_are_lowered_keep_what_is_there_and_refuse_what_comes() {
    let mut bus = Bus::new();
    let [reader] = bus.people();
    for number in 1..=3 {
        bus.subscribe(reader, &format!("topic.{number}"), 0, 0).unwrap();
    }
    bus.memory.broker.set_limits(Limits { subscriptions_per_connection_max: 2, ..Limits::default() });
    is_over("subscriptions_per_connection_max", 2, bus.subscribe(reader, "topic.4", 0, 0).unwrap_err());
    let [publisher] = bus.people();
    let topic = bus.opens(publisher, "topic.3").unwrap();
    assert_eq!(bus.publishes(publisher, topic, "still heard").subscribers, 1);
}
