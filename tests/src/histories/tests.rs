//! The checker against histories that are right, and against those that are wrong.

use super::entries::{Entry, EntryOp};
use super::keys::{Condition, Key, KeyOp};
use super::locks::{Lock, LockOp};
use super::{Event, Spec, check};
use crate::rng::{Rng, for_each_seed};

fn event<Op>(op: Op, invoked: u64, returned: u64) -> Event<Op> {
    Event { op, invoked, returned }
}

fn put(value: u64, revision: u64) -> KeyOp {
    KeyOp::Put { value, condition: Condition::Any, outcome: Ok(revision) }
}

fn is_possible<S: Spec>(spec: &S, history: &[Event<S::Op>]) -> bool {
    check(spec, history, 100_000).is_ok()
}

#[test]
fn reads_that_overlap_a_write_see_either_value_and_later_ones_the_new() {
    let key = |first, second| {
        let got = |value: u64| KeyOp::Get(Some((value, value)));
        let history = [
            event(put(1, 1), 0, 1),
            event(put(2, 2), 10, 20),
            event(got(first), 11, 12),
            event(got(second), 13, 21),
        ];
        is_possible(&Key, &history)
    };
    assert!(key(1, 1) && key(1, 2) && key(2, 2));
    assert!(!key(2, 1), "it went back");
}

#[test]
fn a_lost_write_a_stale_read_and_a_revision_that_falls_are_found() {
    let lost = [event(put(1, 1), 0, 1), event(put(2, 2), 2, 3), event(KeyOp::Get(Some((1, 1))), 4, 5)];
    assert!(!is_possible(&Key, &lost));
    let gone = [event(put(1, 1), 0, 1), event(KeyOp::Get(None), 2, 3)];
    assert!(!is_possible(&Key, &gone));
    assert!(is_possible(&Key, &[gone[0].clone(), event(KeyOp::Forgotten, 1, 2), gone[1].clone()]));
    let falls = [event(put(1, 5), 0, 1), event(put(2, 4), 2, 3)];
    assert!(!is_possible(&Key, &falls));
    let twice = |revision| KeyOp::Put { value: 9, condition: Condition::Revision(1), outcome: Ok(revision) };
    assert!(!is_possible(&Key, &[event(put(1, 1), 0, 1), event(twice(2), 2, 9), event(twice(3), 2, 9)]));
    let unknown = KeyOp::Put { value: 7, condition: Condition::Any, outcome: Err(false) };
    for seen in [KeyOp::Get(None), KeyOp::Get(Some((3, 7)))] {
        assert!(is_possible(&Key, &[event(unknown.clone(), 0, 9), event(seen, 1, 2)]));
    }
    let back = [event(unknown, 0, 9), event(KeyOp::Get(Some((3, 7))), 1, 2), event(KeyOp::Get(None), 3, 4)];
    assert!(!is_possible(&Key, &back));
}

#[test]
fn two_holders_and_a_token_that_falls_are_found() {
    let granted = |token, at| event(LockOp::Granted(token), at, at + 1);
    assert!(!is_possible(&Lock, &[granted(1, 0), granted(2, 5)]));
    let released = event(LockOp::Released(1), 2, 3);
    assert!(is_possible(&Lock, &[granted(1, 0), released.clone(), granted(2, 5)]));
    assert!(!is_possible(&Lock, &[granted(2, 0), event(LockOp::Released(2), 2, 3), granted(1, 5)]));
    assert!(!is_possible(&Lock, &[granted(1, 0), released.clone(), event(LockOp::Busy, 5, 6)]));
    assert!(!is_possible(&Lock, &[granted(1, 0), event(LockOp::Lost(1), 2, 3)]));
    // A holder that was killed gives it up some time later, and not before.
    let ended = event(LockOp::Ended(1), 4, 20);
    assert!(is_possible(&Lock, &[granted(1, 0), ended.clone(), granted(2, 5)]));
    assert!(is_possible(&Lock, &[granted(1, 0), ended.clone(), event(LockOp::Busy, 5, 6)]));
    assert!(!is_possible(&Lock, &[granted(1, 0), ended, granted(2, 2)]));
}

#[test]
fn work_that_is_lost_doubled_or_done_twice_is_found() {
    let put = event(EntryOp::Put, 0, 1);
    let delivered = |token, at| event(EntryOp::Delivered(token), at, at + 1);
    let acked = event(EntryOp::Acked(5), 4, 5);
    let over = event(EntryOp::Over, 90, 90);
    assert!(is_possible(&Entry, &[put.clone(), delivered(5, 2), acked.clone(), over.clone()]));
    assert!(!is_possible(&Entry, &[put.clone(), over.clone()]), "it was lost");
    assert!(!is_possible(&Entry, &[put.clone(), event(EntryOp::Nothing, 2, 3)]), "it was hidden");
    assert!(!is_possible(&Entry, &[put.clone(), delivered(5, 2), delivered(6, 4)]), "two have it");
    assert!(
        !is_possible(&Entry, &[put.clone(), delivered(5, 2), acked.clone(), delivered(6, 8)]),
        "it was done"
    );
    assert!(!is_possible(&Entry, &[put.clone(), event(EntryOp::Put, 2, 3)]), "it is doubled");
    assert!(!is_possible(&Entry, &[delivered(5, 2)]), "nobody has put it");
    let restarted = |is_durable| event(EntryOp::Restarted { is_durable }, 6, 7);
    let again =
        [put.clone(), delivered(5, 2), restarted(true), delivered(6, 8), event(EntryOp::Acked(6), 10, 11)];
    assert!(is_possible(&Entry, &again));
    assert!(!is_possible(&Entry, &[put.clone(), delivered(5, 2), restarted(false), delivered(6, 8)]));
    assert!(!is_possible(&Entry, &[put.clone(), delivered(5, 2), acked, restarted(true), delivered(6, 8)]));
    assert!(
        !is_possible(&Entry, &[put.clone(), delivered(5, 2), restarted(true), over]),
        "it was lost at the end"
    );
    let unheard =
        [put, event(EntryOp::MayBeDelivered, 2, 30), event(EntryOp::Nothing, 4, 5), delivered(6, 8)];
    assert!(is_possible(&Entry, &unheard));
}

/// The obvious search: every order there is.
fn is_possible_in_any_order<S: Spec>(spec: &S, history: &[Event<S::Op>]) -> bool {
    fn search<S: Spec>(spec: &S, left: &mut Vec<&Event<S::Op>>, state: &S::State) -> bool {
        if left.is_empty() {
            return true;
        }
        (0..left.len()).any(|at| {
            let next = left.remove(at);
            let may = left.iter().all(|other| other.returned >= next.invoked);
            let found = may && spec.step(state, &next.op).iter().any(|after| search(spec, left, after));
            left.insert(at, next);
            found
        })
    }
    search(spec, &mut history.iter().collect(), &spec.begin())
}

fn some_key_op(rng: &mut Rng) -> KeyOp {
    let small = |rng: &mut Rng| 1 + rng.below(3);
    let condition = match rng.below(3) {
        0 => Condition::Absent,
        1 => Condition::Revision(small(rng)),
        _ => Condition::Any,
    };
    let outcome = match rng.below(4) {
        0 => Err(true),
        1 => Err(false),
        _ => Ok(small(rng)),
    };
    match rng.below(6) {
        0 | 1 => KeyOp::Put { value: small(rng), condition, outcome },
        2 => KeyOp::Delete { outcome },
        3 => KeyOp::Forgotten,
        _ => KeyOp::Get(rng.chance(2, 3).then(|| (small(rng), small(rng)))),
    }
}

fn some_entry_op(rng: &mut Rng) -> EntryOp {
    let token = 1 + rng.below(2);
    match rng.below(11) {
        0 | 1 => EntryOp::Put,
        2 => EntryOp::Asked,
        3 | 4 => EntryOp::Delivered(token),
        5 => EntryOp::Acked(token),
        6 => EntryOp::AckAsked(token),
        7 => EntryOp::MayBeGivenBack(token),
        8 => EntryOp::MayBeDelivered,
        9 => EntryOp::Restarted { is_durable: rng.chance(1, 2) },
        _ => EntryOp::Nothing,
    }
}

fn some_lock_op(rng: &mut Rng) -> LockOp {
    let token = 1 + rng.below(3);
    match rng.below(6) {
        0 | 1 => LockOp::Granted(token),
        2 => LockOp::Released(token),
        3 => LockOp::Busy,
        4 => LockOp::Ended(token),
        _ => LockOp::Asked,
    }
}

fn some_history<Op>(rng: &mut Rng, mut op: impl FnMut(&mut Rng) -> Op) -> Vec<Event<Op>> {
    let count = 1 + rng.below(6);
    (0..count)
        .map(|_| {
            let invoked = rng.below(20);
            event(op(rng), invoked, invoked + rng.below(8))
        })
        .collect()
}

#[test]
fn it_judges_as_a_search_through_every_order_does() {
    let mut verdicts = [0u32; 2];
    for_each_seed(20_000, 2_000_000, |_, mut rng| {
        let keys = some_history(&mut rng, some_key_op);
        let locks = some_history(&mut rng, some_lock_op);
        let entries = some_history(&mut rng, some_entry_op);
        for (judged, due) in [
            (is_possible(&Key, &keys), is_possible_in_any_order(&Key, &keys)),
            (is_possible(&Lock, &locks), is_possible_in_any_order(&Lock, &locks)),
            (is_possible(&Entry, &entries), is_possible_in_any_order(&Entry, &entries)),
        ] {
            assert_eq!(judged, due, "{keys:?}\n{locks:?}\n{entries:?}");
            verdicts[usize::from(judged)] += 1;
        }
    });
    assert!(verdicts[0] > verdicts[1] / 20 && verdicts[1] > verdicts[0] / 20, "{verdicts:?}");
}

#[test]
fn a_long_history_is_judged_in_time_and_one_wrong_read_in_it_is_found() {
    let mut history = Vec::new();
    for number in 1..4000u64 {
        // Each overlaps the next few.
        history.push(event(put(number, number), 10 * number, 10 * number + 5));
        history.push(event(KeyOp::Get(Some((number, number))), 10 * number + 3, 10 * number + 12));
    }
    assert!(check(&Key, &history, 1_000_000).is_ok());
    let wrong = history.len() / 2;
    history[wrong | 1].op = KeyOp::Get(Some((7, 7)));
    let violation = check(&Key, &history, 1_000_000).expect_err("it is wrong");
    assert!(violation.to_string().contains("Get(Some((7, 7)))"), "{violation}");
}
