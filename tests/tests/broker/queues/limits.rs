//! Every limit of work queues one below, at, and one above.

use ipc_core::ErrorCode;
use ipc_core::limits::Limits;
use ipc_core::wire::coordination::{Bind, Operation};
use ipc_core::wire::queue::{Consume, Enqueue, Take};

use super::{Bench, entry, take};

/// What an entry costs beside its id and payload, in bytes.
const OVERHEAD: u32 = 300;

#[test]
fn queues_and_entries_are_limited() {
    let limits = Limits { work_queues_max: 3, work_queue_entries_max: 4, ..Limits::default() };
    let mut bench = Bench::new(limits);
    let worker = bench.worker();
    for number in 0..5 {
        let queue = format!("q{number}");
        let refused = bench.scene.limit(worker, Operation::ENQUEUE, &entry(&queue));
        assert_eq!(refused.as_deref(), (number >= 3).then_some("work_queues_max"), "{number}");
    }
    // One that is waited at counts too.
    let waits = Take { wait: true, ..take("q5", Bind::Session) };
    assert_eq!(bench.scene.limit(worker, Operation::TAKE, &waits).as_deref(), Some("work_queues_max"));
    for number in 3..6 {
        let refused = bench.scene.limit(worker, Operation::ENQUEUE, &entry("q1"));
        assert_eq!(refused.as_deref(), (number >= 4).then_some("work_queue_entries_max"), "{number}");
    }
    let got = bench.takes_as(worker, &take("q0", Bind::Session)).unwrap();
    bench.acks(worker, &got).unwrap();
    assert_eq!(bench.scene.limit(worker, Operation::ENQUEUE, &entry("q9")), None);
}

#[test]
fn a_queue_holds_as_many_as_it_may() {
    let mut bench = Bench::new(Limits { work_queue_length_max: 3, ..Limits::default() });
    let worker = bench.worker();
    // One cannot ask for more than the daemon allows.
    let long = Enqueue { max_length: 100, ..entry("q") };
    for number in 0..5 {
        let refused = bench.scene.limit(worker, Operation::ENQUEUE, &long);
        assert_eq!(refused.as_deref(), (number >= 3).then_some("work_queue_length_max"), "{number}");
    }
    let short = Enqueue { max_length: 2, ..entry("q") };
    assert_eq!(bench.scene.limit(worker, Operation::ENQUEUE, &short).as_deref(), Some("max_length"));
}

#[test]
fn an_entry_has_a_largest_size() {
    let mut bench = Bench::new(Limits { work_queue_entry_max_bytes: 10, ..Limits::default() });
    let worker = bench.worker();
    for (length, fits) in [(9, true), (10, true), (11, false)] {
        let put = bench.put(worker, &entry("q"), &"x".repeat(length));
        assert_eq!(put.map(|_| ()).err(), (!fits).then_some(ErrorCode::PayloadTooLarge), "{length}");
    }
}

#[test]
fn users_pay_for_what_they_put_and_for_their_ids() {
    // An entry with its id, and the id once more while it is remembered.
    let most = 2 * OVERHEAD + 2 * 2 + 1000;
    let limits =
        Limits { work_queue_bytes_per_uid_max: most, work_queue_id_window_ms: 10, ..Limits::default() };
    for (length, fits) in [(999, true), (1000, true), (1001, false)] {
        let mut bench = Bench::new(limits.clone());
        let worker = bench.worker();
        let enqueue = Enqueue { id: Some("id".into()), ..entry("q") };
        let put = bench.put(worker, &enqueue, &"x".repeat(length));
        assert_eq!(put.map(|_| ()).err(), (!fits).then_some(ErrorCode::QuotaExceeded), "{length}");
        if length == 1000 {
            let refused = bench.scene.limit(worker, Operation::ENQUEUE, &entry("q"));
            assert_eq!(refused.as_deref(), Some("work_queue_bytes_per_uid_max"));
            // The id is forgotten, the entry is acknowledged: both are given back.
            bench.wait_ms(10);
            assert!(bench.put(worker, &entry("q"), "").is_ok());
            for _ in 0..2 {
                let got = bench.takes(worker).unwrap();
                bench.acks(worker, &got).unwrap();
            }
            assert!(bench.put(worker, &enqueue, &"x".repeat(length)).is_ok());
        }
    }
}

#[test]
fn ids_are_remembered_up_to_the_limit_and_for_their_time() {
    let limits = Limits { work_queue_ids_max: 2, work_queue_id_window_ms: 10, ..Limits::default() };
    let mut bench = Bench::new(limits);
    let worker = bench.worker();
    let is_duplicate = |bench: &mut Bench, id: &str| {
        let enqueue = Enqueue { id: Some(id.into()), ..entry("q") };
        bench.put(worker, &enqueue, "x").unwrap().is_duplicate
    };
    assert_eq!(["a", "b", "a", "b"].map(|id| is_duplicate(&mut bench, id)), [false, false, true, true]);
    // A third one, and the first is forgotten.
    assert_eq!(["c", "b", "c"].map(|id| is_duplicate(&mut bench, id)), [false, true, true]);
    assert_eq!(["a", "c"].map(|id| is_duplicate(&mut bench, id)), [false, true]);
    for (wait, known) in [(9, true), (1, false)] {
        bench.wait_ms(wait);
        assert_eq!(is_duplicate(&mut bench, "a"), known);
    }
}

#[test]
fn a_delivery_goes_back_at_its_time() {
    let mut bench = Bench::new(Limits { work_queue_visibility_default_ms: 20, ..Limits::default() });
    let worker = bench.worker();
    bench.puts(worker, "job");
    let got = bench.takes_as(worker, &take("q", Bind::Time)).unwrap();
    assert_eq!(got.delivered.visibility_us, 20_000);
    for (wait, is_back) in [(19, false), (1, true)] {
        bench.wait_ms(wait);
        assert_eq!(bench.counts(worker, "q").ready == 1, is_back);
    }
}

#[test]
fn consumers_of_one_connection_are_limited() {
    let mut bench = Bench::new(Limits { work_queue_consumers_per_connection_max: 3, ..Limits::default() });
    let worker = bench.worker();
    let consume = Consume { queue: "q".into(), credit: 1, visibility_us: 0, max_deliveries: 0 };
    for number in 0..5 {
        let refused = bench.scene.limit(worker, Operation::CONSUME, &consume);
        let limit = (number >= 3).then_some("work_queue_consumers_per_connection_max");
        assert_eq!(refused.as_deref(), limit, "{number}");
    }
}
