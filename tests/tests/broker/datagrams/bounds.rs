//! What is remembered and kept, up to its bounds.

use super::*;

#[test]
fn a_full_table_refuses_and_forgets_nothing() {
    let limits = Limits {
        datagram_clients_max: 2,
        datagram_requests_per_client_max: 3,
        datagram_requests_max: 4,
        ..Limits::default()
    };
    let mut town = Town::new(limits);
    let quota = u32::from(ErrorCode::QuotaExceeded.number());
    // Of one client: two fit beside the first, the next does not.
    let (mut first, _, datagram) = called(&mut town, &network(1));
    let more = |town: &mut Town, number: u8| {
        let mut datagram = datagram.clone();
        datagram[40] = number;
        datagram[36] = number - 1;
        town.receive(&network(1), &datagram);
        town.calls.len()
    };
    assert_eq!((more(&mut town, 2), more(&mut town, 3), more(&mut town, 4)), (2, 3, 3));
    assert_eq!(header_of(&town.sent.pop_front().unwrap()).number, quota);
    town.answer();
    town.sent.clear();
    assert_eq!((more(&mut town, 4), more(&mut town, 1), more(&mut town, 3)), (0, 0, 0));
    // In all: one fits beside those three.
    let mut others = [courier(1), courier(2)];
    call(&town, &mut others[0], "b", SECOND);
    call(&town, &mut others[0], "c", SECOND);
    town.exchange(&mut others[0], &network(2));
    assert_eq!(town.calls.len(), 1);
    // Senders: a third is not let in.
    call(&town, &mut others[1], "d", SECOND);
    town.exchange(&mut others[1], &network(3));
    assert_eq!((town.calls.len(), town.door.clients()), (1, 2));
    assert!(town.counter("datagrams_refused") >= 4);
    // A client that moves on makes room.
    first.close();
    while let Some(datagram) = send(&mut first, town.now) {
        town.receive(&network(1), &datagram);
    }
    assert_eq!(town.door.remembered().0, 3, "it has the first outcome");
}

#[test]
fn outcomes_are_kept_within_their_bounds() {
    let limits = Limits { datagram_kept_per_client_max_bytes: 65_536, ..Limits::default() };
    let mut town = Town::new(limits);
    let source = network(1);
    let mut courier = courier(1);
    let large = "x".repeat(40_000);
    let first = call(&town, &mut courier, &large, SECOND);
    let second = call(&town, &mut courier, &large, SECOND);
    while let Some(datagram) = send(&mut courier, town.now) {
        town.receive(&source, &datagram);
        for outgoing in core::mem::take(&mut town.sent) {
            courier.handle_datagram(town.now, &outgoing.datagram);
        }
    }
    town.answer();
    // Both outcomes are sent and lost; the second was not kept.
    assert_eq!((town.sent.len(), town.counter("datagrams_outcomes_dropped")), (2, 1));
    town.sent.clear();
    for _ in 0..3 {
        let Some(due) = courier.poll_timeout() else { break };
        town.now = due;
        courier.handle_timeout(town.now);
        town.exchange(&mut courier, &source);
    }
    let mut outcomes = [courier.take(first), courier.take(second)];
    outcomes.sort_by_key(|outcome| outcome.as_ref().unwrap().is_err());
    let [kept, dropped] = outcomes;
    assert_eq!(text(kept), large);
    assert_eq!(dropped.unwrap().unwrap_err().code, ErrorCode::OutcomeUnknown);
}

#[test]
fn an_outcome_is_kept_up_to_the_last_byte() {
    let length = {
        let mut town = Town::new(Limits::default());
        called(&mut town, &network(1));
        town.answer();
        town.sent[0].datagram.len()
    };
    for (most, is_kept) in [(length - 1, false), (length, true), (length + 1, true)] {
        let most = most as u32;
        for limits in [
            Limits { datagram_kept_per_client_max_bytes: most, ..Limits::default() },
            Limits { datagram_kept_max_bytes: most, ..Limits::default() },
        ] {
            let mut town = Town::new(limits);
            called(&mut town, &network(1));
            town.answer();
            assert_eq!(town.sent.len(), 1, "it is sent in any case");
            assert_eq!(town.door.remembered(), (1, if is_kept { length } else { 0 }), "{most}");
        }
    }
}

#[test]
fn a_client_that_never_reads_holds_little() {
    let mut town = Town::new(Limits::default());
    let source = local("x");
    let (_, _, datagram) = called(&mut town, &source);
    for number in 2..=50 {
        let mut datagram = datagram.clone();
        datagram[40] = number;
        datagram[36] = number - 1;
        town.receive(&source, &datagram);
    }
    town.answer();
    assert_eq!(town.sent.len(), 2);
    // The system does not take even those.
    let mut offered = 0;
    for _ in 0..100 {
        for outgoing in core::mem::take(&mut town.sent) {
            offered += 1;
            town.door.unsent(town.now, outgoing.receipt.unwrap());
        }
        town.pass(Duration::from_millis(100));
    }
    assert!((5..=30).contains(&offered), "{offered}");
    assert_eq!(town.counter("datagrams_unread"), 50);
}
