//! Every limit of work queues one below, at, and one above.

use ipc_core::ErrorCode;
use ipc_core::limits::Limits;
use ipc_core::wire::coordination::{Bind, Operation};
use ipc_core::wire::queue::{Consume, Enqueue, Take, Unconsume};

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

#[test]
fn deliveries_of_one_connection_are_limited_with_what_it_is_to_be_given() {
    const LIMIT: &str = "work_queue_deliveries_per_connection_max";
    let mut bench = Bench::new(Limits { work_queue_deliveries_per_connection_max: 3, ..Limits::default() });
    let (boss, worker) = (bench.worker(), bench.worker());
    for _ in 0..6 {
        bench.puts(boss, "job");
    }
    // Open deliveries count, also when others than their taker end them.
    let mut got = Vec::new();
    for number in 0..5 {
        let refused = bench.scene.limit(worker, Operation::TAKE, &take("q", Bind::Time));
        assert_eq!(refused, None, "{number}: what is bound to nobody is nobody's");
    }
    bench.puts(boss, "job");
    bench.puts(boss, "job");
    for number in 0..3 {
        got.push(bench.takes(worker).unwrap_or_else(|code| panic!("{number}: {code:?}")));
    }
    assert_eq!(bench.scene.limit(worker, Operation::TAKE, &take("q", Bind::Session)).as_deref(), Some(LIMIT));
    bench.acks(boss, &got[0]).unwrap();
    // So do requests that wait, until they do not.
    let waiting = bench.waits(worker, 10_000);
    assert!(bench.waited(worker, waiting).is_none());
    assert_eq!(bench.scene.limit(worker, Operation::TAKE, &take("q", Bind::Session)).as_deref(), Some(LIMIT));
    bench.wait_ms(10);
    assert_eq!(bench.waited(worker, waiting).unwrap().unwrap_err(), ErrorCode::Busy);
    // And credit, whether it is used or not.
    bench.acks(boss, &got[1]).unwrap();
    let consume = |credit| Consume { queue: "q".into(), credit, visibility_us: 0, max_deliveries: 0 };
    assert_eq!(bench.scene.limit(worker, Operation::CONSUME, &consume(3)).as_deref(), Some(LIMIT));
    assert_eq!(bench.scene.limit(worker, Operation::CONSUME, &consume(1)), None);
    bench.puts(boss, "job");
    let consumer = bench.consumes(worker, 1);
    assert_eq!(bench.scene.limit(worker, Operation::TAKE, &take("q", Bind::Session)).as_deref(), Some(LIMIT));
    let unconsume = Unconsume { consumer };
    bench.scene.outcome_of(worker, Operation::UNCONSUME, &unconsume, b"").unwrap();
    bench.puts(boss, "job");
    assert_eq!(bench.scene.limit(worker, Operation::TAKE, &take("q", Bind::Session)), None);
    // A connection that ends takes all of it along.
    bench.scene.bus.leave(worker);
    let next = bench.worker();
    for number in 0..4 {
        let refused = bench.scene.limit(next, Operation::TAKE, &take("q", Bind::Session));
        assert_eq!(refused.as_deref(), (number >= 3).then_some(LIMIT), "{number}");
    }
}

#[test]
fn who_puts_an_entry_pays_for_the_reason_of_its_death_too() {
    let reason = "delivered once from q, as often as it may be; it was given back: no paper".len();
    // An entry with an id of one byte, and that id once more while it is remembered.
    let each = 2 * OVERHEAD as usize + 2;
    for (less, fits) in [(1, false), (0, true)] {
        let most = (2 * each + 1000 + 500 + reason - less) as u32;
        let mut bench = Bench::new(Limits { work_queue_bytes_per_uid_max: most, ..Limits::default() });
        let worker = bench.worker();
        let named = |id: &str| Enqueue { id: Some(id.into()), max_deliveries: 1, ..entry("q") };
        bench.put(worker, &named("i"), &"x".repeat(1000)).unwrap();
        let got = bench.takes(worker).unwrap();
        assert_eq!(bench.nacks(worker, &got, 0), Ok(true));
        let put = bench.put(worker, &named("j"), &"x".repeat(500));
        assert_eq!(put.map(|_| ()).err(), (!fits).then_some(ErrorCode::QuotaExceeded));
        if fits {
            // It is given back with the dead letter, of which an id is left.
            let letter = bench.takes_as(worker, &take("q.dead", Bind::Session)).unwrap();
            assert!(letter.delivered.death.as_ref().is_some_and(|death| death.0.len() == reason));
            bench.acks(worker, &letter).unwrap();
            let room = 1000 + reason - each / 2;
            for (length, fits) in [(room + 1, false), (room, true)] {
                let put = bench.put(worker, &named("k"), &"x".repeat(length));
                assert_eq!(put.map(|_| ()).err(), (!fits).then_some(ErrorCode::QuotaExceeded), "{length}");
            }
        }
    }
}
