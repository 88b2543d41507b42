//! Calls, as those who make them and those who serve them see them.

use ipc_core::ErrorCode;
use ipc_core::limits::Limits;

use crate::bus::{Bus, METHOD};

/// A call reaches the one who serves the name, as it was said. The reply reaches the one who called, and nobody else
/// hears of either.
#[test]
fn a_call_is_answered_by_the_one_who_serves_the_name() {
    let mut bus = Bus::new();
    let [shop, guest, other] = bus.people();
    bus.serves(shop, "shop.tea");
    let order = bus.calls(guest, "shop.tea", "one green");
    let received = bus.call_of(shop);
    assert_eq!(received.payload, b"one green");
    bus.replies(shop, &received, "here it is");
    assert_eq!(bus.outcome(guest, order), Some(Ok("here it is".to_owned())));
    assert!(bus.memory.client(other).inbox.is_empty());
}

/// An error of the service is a reply like any other: it comes back as `application`, and the service goes on.
#[test]
fn an_error_of_the_service_reaches_the_caller() {
    let mut bus = Bus::new();
    let [shop, guest] = bus.people();
    bus.serves(shop, "shop.tea");
    let order = bus.calls(guest, "shop.tea", "one coffee");
    let received = bus.call_of(shop);
    bus.fails(shop, &received, "we have no coffee");
    let error = bus.answer(guest, order).unwrap().unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::Application, "we have no coffee"));
    bus.calls(guest, "shop.tea", "one green");
    assert_eq!(bus.call_of(shop).payload, b"one green");
}

/// Whoever asks for a name that nobody holds is told so at once, and so is who asks for a method that its service does
/// not have. Nobody waits for a service that may come.
#[test]
fn what_is_not_there_is_refused_at_once() {
    let mut bus = Bus::new();
    let [shop, guest] = bus.people();
    assert_eq!(bus.resolve(guest, "shop.tea", METHOD).unwrap_err().code, ErrorCode::NoSuchService);
    bus.serves(shop, "shop.tea");
    assert_eq!(bus.resolve(guest, "shop.tea", "refund").unwrap_err().code, ErrorCode::NoSuchMethod);
    bus.resolve(guest, "shop.tea", METHOD).unwrap();
}

/// When the time for a call is up its caller is told, and the service is told that nobody waits any more. A reply that
/// comes after that reaches nobody: a call has one outcome.
#[test]
fn a_deadline_ends_a_call_at_both_ends() {
    let mut bus = Bus::new();
    let [shop, guest] = bus.people();
    bus.serves(shop, "shop.tea");
    let handle = bus.resolve(guest, "shop.tea", METHOD).unwrap();
    let order = bus.calls_within_ms(guest, handle, 50);
    let received = bus.call_of(shop);
    bus.wait_ms(49);
    assert_eq!(bus.outcome(guest, order), None);
    bus.wait_ms(1);
    assert_eq!(bus.outcome(guest, order), Some(Err(ErrorCode::DeadlineExceeded)));
    let cancelled = bus.take(shop, ipc_core::wire::Kind::CANCEL);
    assert_eq!(cancelled.len(), 1);
    assert_eq!(cancelled[0].header.correlation, received.header.correlation);
    bus.replies(shop, &received, "too late");
    assert_eq!(bus.outcome(guest, order), None);
}

/// A service is told how much time is left, not when the deadline is. What it asks of others while it serves gets what
/// is left then, so that everybody down the line gives up when the first caller does.
#[test]
fn what_is_left_of_a_deadline_travels_on() {
    let mut bus = Bus::new();
    let [kitchen, shop, guest] = bus.people();
    bus.serves(kitchen, "shop.kitchen");
    bus.serves(shop, "shop.tea");
    let to_shop = bus.resolve(guest, "shop.tea", METHOD).unwrap();
    let to_kitchen = bus.resolve(shop, "shop.kitchen", METHOD).unwrap();
    let order = bus.calls_within_ms(guest, to_shop, 100);
    assert_eq!(bus.call_of(shop).header.deadline_us, 100_000);
    bus.wait_ms(30);
    let errand = bus.calls_within_ms(shop, to_kitchen, 70);
    // The kitchen is busy and reads late: the time that its call has waited at the daemon is gone too.
    bus.stops_reading(kitchen);
    let late = bus.calls_within_ms(shop, to_kitchen, 70);
    bus.wait_ms(20);
    bus.reads_again(kitchen);
    let left: Vec<u32> = bus.calls_of(kitchen).iter().map(|call| call.header.deadline_us).collect();
    assert_eq!(left, [70_000, 50_000]);
    bus.wait_ms(50);
    assert_eq!(bus.outcome(guest, order), Some(Err(ErrorCode::DeadlineExceeded)));
    for call in [errand, late] {
        assert_eq!(bus.outcome(shop, call), Some(Err(ErrorCode::DeadlineExceeded)));
    }
}

/// A caller may change its mind. The service hears of it, the caller is told `cancelled`, and that is the call's one
/// outcome.
#[test]
fn a_cancelled_call_is_cancelled_at_the_service() {
    let mut bus = Bus::new();
    let [shop, guest] = bus.people();
    bus.serves(shop, "shop.tea");
    let order = bus.calls(guest, "shop.tea", "one green");
    let received = bus.call_of(shop);
    bus.cancels(guest, order);
    assert_eq!(bus.outcome(guest, order), Some(Err(ErrorCode::Cancelled)));
    let cancelled = bus.take(shop, ipc_core::wire::Kind::CANCEL);
    assert_eq!(cancelled[0].header.correlation, received.header.correlation);
    bus.replies(shop, &received, "here it is");
    assert_eq!(bus.outcome(guest, order), None);
}

/// When a service goes away its callers are told at once. The call may have run, so it is not given to another instance,
/// which would make it run twice: the caller decides.
#[test]
fn a_call_whose_service_dies_is_over_and_is_not_run_again() {
    let mut bus = Bus::new();
    let [first, second, guest] = bus.people();
    bus.joins(first, "shop.tea");
    bus.joins(second, "shop.tea");
    let order = bus.calls(guest, "shop.tea", "one green");
    assert_eq!(bus.calls_of(first).len(), 1);
    bus.memory.leave(first);
    assert_eq!(bus.outcome(guest, order), Some(Err(ErrorCode::ServiceGone)));
    assert!(bus.calls_of(second).is_empty());
    bus.calls(guest, "shop.tea", "one green, please");
    assert_eq!(bus.calls_of(second).len(), 1);
}

/// Nobody but the one who got a call can answer it, and nobody can answer it twice.
#[test]
fn a_call_has_one_answer_and_it_comes_from_its_service() {
    let mut bus = Bus::new();
    let [shop, guest, impostor] = bus.people();
    bus.serves(shop, "shop.tea");
    let order = bus.calls(guest, "shop.tea", "one green");
    let received = bus.call_of(shop);
    bus.replies(impostor, &received, "poison");
    assert_eq!(bus.outcome(guest, order), None);
    bus.replies(shop, &received, "here it is");
    bus.replies(shop, &received, "here it is again");
    assert_eq!(bus.outcome(guest, order), Some(Ok("here it is".to_owned())));
    assert_eq!(bus.outcome(guest, order), None);
}

/// A service may call itself, and two services each other: nobody waits inside the daemon, so nothing is ever stuck there.
#[test]
fn services_call_themselves_and_one_another() {
    let mut bus = Bus::new();
    let [left, right] = bus.people();
    bus.serves(left, "a.left");
    bus.serves(right, "a.right");
    let to_self = bus.calls(left, "a.left", "self");
    let to_right = bus.calls(left, "a.right", "across");
    let to_left = bus.calls(right, "a.left", "back");
    for who in [left, right] {
        for call in bus.calls_of(who) {
            bus.replies(who, &call, "yes");
        }
    }
    for (who, call) in [(left, to_self), (left, to_right), (right, to_left)] {
        assert_eq!(bus.outcome(who, call), Some(Ok("yes".to_owned())));
    }
}

/// Those who do not read use up what their user may have queued, and still do not silence the user's other services: each
/// connection has a share.
#[test]
fn what_some_leave_unread_does_not_silence_others_of_their_user() {
    let limits =
        Limits { queue_per_uid_max_bytes: 8192, queue_per_connection_max_bytes: 4096, ..Limits::default() };
    let mut bus = Bus::with(limits);
    let [deaf, deaf_too, shop, guest] = bus.people();
    for (who, service) in [(deaf, "shop.deaf"), (deaf_too, "shop.deafer"), (shop, "shop.tea")] {
        bus.serves(who, service);
    }
    for (who, service) in [(deaf, "shop.deaf"), (deaf_too, "shop.deafer")] {
        bus.stops_reading(who);
        for _ in 0..5 {
            bus.calls(guest, service, &"x".repeat(800));
        }
    }
    let unread = bus.queued(deaf) + bus.queued(deaf_too);
    assert!((6000..=8192).contains(&unread), "{unread} bytes");
    let order = bus.calls(guest, "shop.tea", &"one green ".repeat(150));
    let received = bus.call_of(shop);
    bus.replies(shop, &received, "here it is");
    assert_eq!(bus.outcome(guest, order), Some(Ok("here it is".to_owned())));
}

/// A service that does not read delays nobody: past its mark a caller is told so at once, and goes on with others.
#[test]
fn a_service_that_does_not_read_is_not_waited_for() {
    let limits = Limits { queue_per_connection_max_bytes: 4096, ..Limits::default() };
    let mut bus = Bus::with(limits);
    let [deaf, shop, guest] = bus.people();
    bus.serves(deaf, "shop.deaf");
    bus.serves(shop, "shop.tea");
    bus.stops_reading(deaf);
    let first = bus.calls(guest, "shop.deaf", &"x".repeat(2500));
    let second = bus.calls(guest, "shop.deaf", &"x".repeat(2500));
    assert_eq!(bus.outcome(guest, first), None);
    assert_eq!(bus.outcome(guest, second), Some(Err(ErrorCode::QuotaExceeded)));
    bus.calls(guest, "shop.tea", "one green");
    assert_eq!(bus.calls_of(shop).len(), 1);
}
