//! How connections end, and how the bus does.

use ipc_core::ErrorCode;
use ipc_core::wire::Kind;
use ipc_core::wire::message::RegisterMode::Exclusive;
use ipc_core::wire::message::{Close, NameChange};

use crate::bus::{Bus, METHOD, Who};

fn reason(bus: &mut Bus, who: Who) -> ErrorCode {
    let close = bus.take(who, Kind::CLOSE).pop().expect("it was told why");
    ErrorCode::from_number(close.decode::<Close>().code).expect("a known code")
}

/// Whoever leaves takes everything along: its calls are cancelled at their services, calls to it fail, its names go to
/// their successors, and nothing that it was charged with is left.
#[test]
fn nothing_of_a_departed_connection_is_left() {
    let mut bus = Bus::new();
    let [shop, leaver] = bus.people();
    let stranger = bus.arrives(2000);
    bus.serves(shop, "shop.tea");
    bus.serves(leaver, "shop.cake");
    bus.register(stranger, "shop.cake", Exclusive, true).unwrap();
    bus.subscribes(leaver, "news.>");
    bus.watches(leaver, ">").unwrap();
    bus.opens(leaver, "news.own").unwrap();
    bus.calls(leaver, "shop.tea", "one green");
    let order = bus.calls(stranger, "shop.cake", "one slice");
    bus.memory.leave(leaver);

    assert_eq!(bus.take(shop, Kind::CANCEL).len(), 1);
    assert_eq!(bus.outcome(stranger, order), Some(Err(ErrorCode::ServiceGone)));
    assert_eq!(bus.take(stranger, Kind::ACQUIRED).len(), 1);
    assert!(bus.memory.broker.topics().is_empty());
    let usage = bus.memory.broker.usage();
    let of_user = usage.iter().find(|usage| usage.uid == Some(1000)).expect("the shop is still there");
    let charges = &of_user.charges;
    assert_eq!((charges.connections, charges.names), (1, 1));
    assert_eq!((charges.subscriptions, charges.pending_calls, charges.queued_bytes), (0, 0, 0));
    bus.memory.leave(shop);
    assert!(bus.memory.broker.usage().iter().all(|usage| usage.uid != Some(1000)));
}

/// The order of a departure is fixed: first its calls end, then its names change hands. So a caller that hears of the new
/// owner knows already what became of its call to the former one.
#[test]
fn calls_end_before_names_change_hands() {
    let mut bus = Bus::new();
    let [owner, successor, guest] = bus.people();
    bus.watches(guest, "a.name").unwrap();
    bus.serves(owner, "a.name");
    bus.register(successor, "a.name", Exclusive, true).unwrap();
    bus.calls(guest, "a.name", "?");
    bus.changes(guest);
    bus.memory.client(guest).inbox.clear();
    bus.memory.leave(owner);
    let kinds: Vec<Kind> = bus.memory.client(guest).inbox.iter().map(|frame| frame.header.kind).collect();
    let told: Vec<Kind> = kinds.into_iter().filter(|kind| *kind != Kind::PEER_ANNOUNCED).collect();
    assert_eq!(told, [Kind::REPLY, Kind::NAME_CHANGED, Kind::NAME_CHANGED]);
    let changes: Vec<NameChange> = bus.changes(guest).into_iter().map(|(_, change)| change).collect();
    assert_eq!(changes, [NameChange::Lost, NameChange::Acquired]);
}

/// Whoever ends what it sends, as a pipe does, still gets the outcomes of its calls; then the connection closes.
#[test]
fn a_client_that_only_stops_sending_gets_its_outcomes() {
    let mut bus = Bus::new();
    let [shop, guest] = bus.people();
    bus.serves(shop, "shop.tea");
    let order = bus.calls(guest, "shop.tea", "one green");
    bus.memory.end_input(guest);
    assert!(!bus.is_closed(guest));
    let received = bus.call_of(shop);
    bus.replies(shop, &received, "here it is");
    assert_eq!(bus.outcome(guest, order), Some(Ok("here it is".to_owned())));
    assert!(bus.is_closed(guest));
}

/// Whoever breaks the protocol is told why and closed, and nobody else feels it.
#[test]
fn a_violation_ends_one_connection() {
    let mut bus = Bus::new();
    let [shop, guest, vandal] = bus.people();
    bus.serves(shop, "shop.tea");
    bus.memory.send(vandal, &[0xff; 64]);
    assert!(bus.is_closed(vandal));
    assert_eq!(reason(&mut bus, vandal), ErrorCode::ProtocolViolation);
    bus.calls(guest, "shop.tea", "one green");
    assert_eq!(bus.calls_of(shop).len(), 1);
}

/// While the daemon stops it takes no new work, and what is open may end. When it waits no longer every call that is left
/// is answered, and everybody is told why the connection closes.
#[test]
fn a_daemon_that_stops_answers_every_call() {
    let mut bus = Bus::new();
    let [shop, guest] = bus.people();
    bus.serves(shop, "shop.tea");
    let handle = bus.resolve(guest, "shop.tea", METHOD).unwrap();
    let (quick, slow) = (bus.calls_through(guest, handle, "quick"), bus.calls_through(guest, handle, "slow"));
    bus.memory.broker.begin_drain();
    let late = bus.calls_through(guest, handle, "late");
    assert_eq!(bus.outcome(guest, late), Some(Err(ErrorCode::ShuttingDown)));
    assert!(bus.register(guest, "a.name", Exclusive, false).is_err());
    let calls = bus.calls_of(shop);
    assert_eq!(calls.len(), 2);
    bus.replies(shop, &calls[0], "done");
    assert_eq!(bus.outcome(guest, quick), Some(Ok("done".to_owned())));
    assert!(!bus.memory.broker.is_drained());
    bus.memory.broker.end_drain();
    bus.wait_ms(0);
    assert_eq!(bus.outcome(guest, slow), Some(Err(ErrorCode::ShuttingDown)));
    for who in [shop, guest] {
        assert_eq!(reason(&mut bus, who), ErrorCode::ShuttingDown);
        assert!(bus.is_closed(who));
    }
    assert_eq!(bus.memory.broker.connections(), 0);
}

/// How long a departure takes is bounded by what the bus holds, and not by what it holds times what the connection held.
/// Here a connection leaves with 512 subscriptions, each of which matches each of 20,000 idle topics.
#[test]
fn a_departure_with_many_subscriptions_holds_nobody_up() {
    let mut bus = Bus::new();
    let [reader, publisher] = bus.people();
    for number in 0..512u32 {
        let part = |bit: u32| if number >> bit & 1 == 0 { "t" } else { "*" };
        let parts: Vec<&str> = (0..9).map(part).collect();
        bus.subscribes(reader, &format!("{}.*", parts.join(".")));
    }
    for number in 0..20_000 {
        bus.opens(publisher, &format!("t.t.t.t.t.t.t.t.t.{number}")).unwrap();
    }
    bus.memory.leave(publisher);
    assert_eq!(bus.memory.broker.topics().len(), 20_000);
    let started = std::time::Instant::now();
    bus.memory.leave(reader);
    let taken = started.elapsed();
    assert!(bus.memory.broker.topics().is_empty());
    // Asking each topic once takes some hundredths of a second; asking each for each subscription, ten seconds.
    assert!(taken < core::time::Duration::from_secs(1), "{taken:?}");
}
