//! Every limit at its last allowed value and at the first that is not: one below, at, and one above.
//!
//! The table names each field of [`Limits`] with its proof. A field without one, or without its line in the
//! specification, fails here; so does a name that `status` does not print.

mod queues;

use ipc_core::id::Handle;
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::wire::message::RegisterMode::{Exclusive, Group};
use ipc_core::wire::message::{Close, Hello, OpenTopic};
use ipc_core::wire::{Header, Kind, PREAMBLE};
use ipc_core::{Error, ErrorCode};
use ipc_daemon::broker::{Access, Transport};
use ipc_tests::raw::{frame, greeting};

use self::queues::{queue_bytes, queue_events, queue_events_default, queue_per_connection, queue_per_uid};
use crate::bus::{Bus, METHOD};

/// How a limit is proved.
enum Proof {
    /// By this function, with the limit at a small value.
    Here(fn()),
    /// By a test of this name in this file, where only the whole daemon can show it.
    There(&'static str, &'static str),
}

use Proof::{Here, There};

const ABSENT: &str = "tests/tests/broker/tenure/absent.rs";
const COORDINATION: &str = "tests/tests/broker/coordination.rs";
const DATAGRAMS: &str = "tests/tests/broker/datagrams/bounds.rs";
const DURABLE: &str = "tests/tests/broker/durable.rs";
const KEYS: &str = "ipc-daemon/src/broker/coordination/keys.rs";
const QUOTA: &str = "ipc-daemon/src/broker/quota/mod.rs";
const OF_A_USER: &str = "each_resource_is_refused_past_its_limit_and_given_back";
const EXPOSE: &str = "tests/tests/e2e/expose/limits.rs";
const EXPOSE_UDP: &str = "tests/tests/e2e/expose/udp_limits.rs";
const REAPER: &str = "ipc-daemon/src/bus/reaper.rs";
const PROCESSES: &str = "tests/tests/broker/processes.rs";
const SHARES: &str = "tests/tests/broker/shares/mod.rs";
const SHARES_LINE: &str = "tests/tests/broker/shares/line.rs";
const FORWARD: &str = "tests/tests/e2e/forward/limits.rs";
const WORK: &str = "tests/tests/broker/queues/limits.rs";
const REFUSALS: &str = "tests/tests/wire/refusals.rs";

const PROOFS: &[(&str, Proof)] = &[
    ("connections_max", Here(connections)),
    ("connections_per_uid_max", Here(connections_per_uid)),
    (
        "connections_per_uid_per_second_max",
        There("tests/tests/broker/quota.rs", "whoever_comes_too_often_is_refused_and_nobody_else"),
    ),
    ("unauthenticated_per_uid_max", Here(unauthenticated_per_uid)),
    (
        "descriptors_unclosed_max",
        There(REAPER, "past_the_limit_a_connection_is_closed_with_what_it_has_sent"),
    ),
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
    ("memory_per_uid_max_bytes", There(QUOTA, OF_A_USER)),
    ("pending_calls_per_connection_max", Here(pending_calls)),
    ("pending_calls_per_uid_max", There(QUOTA, OF_A_USER)),
    ("subscriptions_per_connection_max", Here(subscriptions)),
    ("subscriptions_per_uid_max", There(QUOTA, OF_A_USER)),
    ("names_per_connection_max", Here(names)),
    ("names_per_uid_max", There(QUOTA, OF_A_USER)),
    ("watches_per_connection_max", Here(watches)),
    ("watches_per_uid_max", There(QUOTA, OF_A_USER)),
    ("handles_per_connection_max", Here(handles)),
    ("handles_per_uid_max", There(QUOTA, OF_A_USER)),
    ("announced_peers_per_connection_max", Here(announced_peers)),
    ("waiters_per_name_max", Here(waiters)),
    ("instances_per_service_max", Here(instances)),
    ("holds_per_connection_max", There(COORDINATION, "what_one_connection_holds_is_limited")),
    ("process_watches_max", There(PROCESSES, "as_many_processes_are_watched_as_there_is_room_for")),
    ("waits_per_connection_max", There(COORDINATION, "what_one_connection_waits_for_is_limited")),
    ("observations_per_connection_max", There(COORDINATION, "observations_of_one_connection_are_limited")),
    ("waiters_per_resource_max", There(COORDINATION, "those_who_wait_for_one_thing_are_limited")),
    (
        "resources_max",
        There(COORDINATION, "the_things_there_are_at_a_time_are_limited_and_none_is_left_behind"),
    ),
    ("detached_leases_per_uid_max", There(COORDINATION, "leases_values_and_watches_have_their_limits")),
    ("absent_holds_per_uid_max", There(ABSENT, "restarts_do_not_add_up_what_nobody_takes_up")),
    ("keys_max", There(COORDINATION, "keys_and_their_bytes_have_their_limits")),
    ("keys_per_uid_max", There(SHARES, "a_rule_says_how_many_keys_and_bytes_of_them_a_user_has")),
    ("key_value_max_bytes", There(COORDINATION, "leases_values_and_watches_have_their_limits")),
    ("key_bytes_per_uid_max", There(COORDINATION, "keys_and_their_bytes_have_their_limits")),
    ("changes_pending_max", There(DURABLE, "what_waits_for_the_disk_is_limited")),
    ("changes_pending_max_bytes", There(DURABLE, "what_waits_for_the_disk_is_limited")),
    ("changes_pending_per_connection_max", There(DURABLE, "what_waits_for_the_disk_is_limited")),
    (
        "changes_pending_per_uid_max",
        There(SHARES_LINE, "requests_of_all_connections_of_a_user_wait_together"),
    ),
    ("key_history_max", There(KEYS, "history_is_a_window_and_says_so")),
    ("key_history_max_bytes", There(KEYS, "history_holds_its_bytes")),
    ("key_watches_per_connection_max", There(COORDINATION, "leases_values_and_watches_have_their_limits")),
    ("work_queues_max", There(WORK, "queues_and_entries_are_limited")),
    ("work_queues_per_uid_max", There(SHARES, "a_rule_says_what_a_user_has_of_work_queues")),
    ("work_queue_entries_max", There(WORK, "queues_and_entries_are_limited")),
    ("work_queue_entries_per_uid_max", There(SHARES, "a_rule_says_what_a_user_has_of_work_queues")),
    ("work_queue_length_max", There(WORK, "a_queue_holds_as_many_as_it_may")),
    ("work_queue_entry_max_bytes", There(WORK, "an_entry_has_a_largest_size")),
    ("work_queue_bytes_per_uid_max", There(WORK, "users_pay_for_what_they_put_and_for_their_ids")),
    ("work_queue_ids_max", There(WORK, "ids_are_remembered_up_to_the_limit_and_for_their_time")),
    ("work_queue_id_window_ms", There(WORK, "ids_are_remembered_up_to_the_limit_and_for_their_time")),
    ("work_queue_visibility_default_ms", There(WORK, "a_delivery_goes_back_at_its_time")),
    ("work_queue_consumers_per_connection_max", There(WORK, "consumers_of_one_connection_are_limited")),
    (
        "work_queue_deliveries_per_connection_max",
        There(WORK, "deliveries_of_one_connection_are_limited_with_what_it_is_to_be_given"),
    ),
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
    ("expose_udp_sources_max", There(EXPOSE_UDP, "sources_up_to_the_limit_and_then_instead_of_the_idlest")),
    ("expose_udp_calls_max", There(EXPOSE_UDP, "calls_of_one_port_up_to_the_limit")),
    ("expose_udp_calls_per_source_max", There(EXPOSE_UDP, "calls_of_one_source_up_to_the_limit")),
    ("expose_udp_pending_max_bytes", There(EXPOSE_UDP, "bytes_of_open_calls_up_to_the_limit")),
    ("forward_calls_max", There(FORWARD, "calls_under_way_and_calls_that_wait_up_to_their_limits")),
    ("forward_waiting_max", There(FORWARD, "calls_under_way_and_calls_that_wait_up_to_their_limits")),
    ("forward_pending_max_bytes", There(FORWARD, "bytes_of_replies_that_are_arriving_up_to_the_limit")),
    ("forward_idle_max", There(FORWARD, "connections_are_kept_up_to_the_limit")),
    ("forward_idle_timeout_ms", There(FORWARD, "a_connection_is_kept_for_its_time")),
    ("forward_timeout_ms", There(FORWARD, "a_caller_that_would_wait_for_ever_does_not")),
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
