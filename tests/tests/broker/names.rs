//! Names of services: who holds them, who waits for them, who watches them.

use ipc_core::ErrorCode;
use ipc_core::wire::Kind;
use ipc_core::wire::message::NameChange::{Acquired, InstanceAdded, InstanceRemoved, Lost};
use ipc_core::wire::message::RegisterMode::{Exclusive, Group};

use crate::bus::{Bus, METHOD};

/// A name has one owner. A second one is refused, whether it would have it alone or share it.
#[test]
fn a_name_has_one_owner() {
    let mut bus = Bus::new();
    let [owner, rival] = bus.people();
    bus.serves(owner, "a.name");
    for mode in [Exclusive, Group] {
        let refused = bus.register(rival, "a.name", mode, false).unwrap_err();
        assert_eq!(refused.code, ErrorCode::NameTaken);
    }
    // The other way about as well: nobody gets alone what a group shares.
    bus.joins(rival, "a.group");
    assert_eq!(bus.register(owner, "a.group", Exclusive, true).unwrap_err().code, ErrorCode::NameTaken);
}

/// Whoever asks to queue gets the name in its turn, first come first served, and is told when. A queue that somebody
/// leaves closes up.
#[test]
fn successors_take_over_in_the_order_they_came() {
    let mut bus = Bus::new();
    let [owner, first, second, third] = bus.people();
    let held = bus.serves(owner, "a.name");
    for waiting in [first, second, third] {
        assert!(bus.register(waiting, "a.name", Exclusive, true).unwrap().queued);
    }
    bus.memory.leave(first);
    bus.unregisters(owner, held);
    assert_eq!(bus.take(second, Kind::ACQUIRED).len(), 1);
    assert!(bus.take(third, Kind::ACQUIRED).is_empty());
    bus.memory.leave(second);
    assert_eq!(bus.take(third, Kind::ACQUIRED).len(), 1);
}

/// A handle belongs to one tenure of a name. When the name changes hands what was meant for the former owner never
/// reaches the new one: the caller is told, and the call has surely not run.
#[test]
fn what_was_meant_for_the_former_owner_does_not_reach_the_new_one() {
    let mut bus = Bus::new();
    let [owner, successor, guest] = bus.people();
    bus.serves(owner, "a.name");
    bus.register(successor, "a.name", Exclusive, true).unwrap();
    let handle = bus.resolve(guest, "a.name", METHOD).unwrap();
    bus.memory.leave(owner);
    let call = bus.calls_through(guest, handle, "for the former owner");
    assert_eq!(bus.outcome(guest, call), Some(Err(ErrorCode::StaleHandle)));
    assert!(bus.calls_of(successor).is_empty());
    bus.calls(guest, "a.name", "for the new one");
    assert_eq!(bus.call_of(successor).payload, b"for the new one");
}

/// A group shares the calls: each goes to the instance that has the fewest open.
#[test]
fn a_group_shares_its_calls() {
    let mut bus = Bus::new();
    let [busy, free, guest] = bus.people();
    bus.joins(busy, "a.group");
    bus.joins(free, "a.group");
    for _ in 0..4 {
        bus.calls(guest, "a.group", "work");
    }
    let (of_busy, of_free) = (bus.calls_of(busy), bus.calls_of(free));
    assert_eq!((of_busy.len(), of_free.len()), (2, 2));
    for call in &of_free {
        bus.replies(free, call, "done");
    }
    for _ in 0..2 {
        bus.calls(guest, "a.group", "more work");
    }
    assert_eq!((bus.calls_of(busy).len(), bus.calls_of(free).len()), (0, 2));
}

/// A group goes on when one of its instances leaves, under the same handle; only the calls that were there end.
#[test]
fn a_group_outlives_its_instances() {
    let mut bus = Bus::new();
    let [first, second, guest] = bus.people();
    bus.joins(first, "a.group");
    bus.joins(second, "a.group");
    let handle = bus.resolve(guest, "a.group", METHOD).unwrap();
    bus.memory.leave(first);
    bus.calls_through(guest, handle, "still there?");
    assert_eq!(bus.calls_of(second).len(), 1);
}

/// A watcher first hears what is there, then every change, in the order it happened; and only of names that match.
#[test]
fn watchers_hear_what_is_there_and_what_changes() {
    let mut bus = Bus::new();
    let [early, late, watcher] = bus.people();
    bus.serves(early, "shop.tea");
    bus.watches(watcher, "shop.*").unwrap();
    let changed = |name: &str, change| (name.to_owned(), change);
    assert_eq!(bus.changes(watcher), [changed("shop.tea", Acquired)]);
    bus.joins(early, "shop.cake");
    bus.joins(late, "shop.cake");
    bus.serves(late, "house.tea");
    bus.register(late, "shop.tea", Exclusive, true).unwrap();
    bus.memory.leave(early);
    assert_eq!(
        bus.changes(watcher),
        [
            changed("shop.cake", Acquired),
            changed("shop.cake", InstanceAdded),
            changed("shop.tea", Lost),
            changed("shop.tea", Acquired),
            changed("shop.cake", InstanceRemoved),
        ]
    );
}

/// What the daemon serves itself cannot be taken by anybody.
#[test]
fn the_daemons_own_names_are_not_to_be_had() {
    let mut bus = Bus::new();
    let [somebody] = bus.people();
    let refused = bus.register(somebody, "ipc.daemon", Exclusive, false).unwrap_err();
    assert_eq!(refused.code, ErrorCode::PermissionDenied);
}
