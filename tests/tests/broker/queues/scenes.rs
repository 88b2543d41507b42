//! Scenes with work queues that read as stories.

use ipc_core::ErrorCode;
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::wire::coordination::{
    Bind, Claim, Durability, Fence, Granted, LockMode, OfToken, Operation, TakeLock, Told,
};
use ipc_core::wire::message::IdentityInfo;
use ipc_core::wire::queue::{Consume, Enqueue, Overflow, Peek, Peeked, Purge, Purged, Take, Unconsume};
use ipc_core::wire::{Header, Kind};

use super::{Bench, Got, entry, take};

/// What has been delivered to a consumer since.
fn delivered(bench: &mut Bench, who: usize, consumer: u64) -> Vec<Got> {
    let notices = bench.scene.bus.client(who).take(Kind::NOTICE).into_iter();
    let own = notices.filter(|notice| notice.header.correlation == consumer);
    own.map(|notice| {
        assert_eq!(notice.header.handle.index, Told::DELIVERED.0);
        Got { body: String::from_utf8(notice.payload.clone()).expect("text"), delivered: notice.decode() }
    })
    .collect()
}

fn bodies(got: &[Got]) -> Vec<&str> {
    got.iter().map(|got| got.body.as_str()).collect()
}

#[test]
fn the_work_of_a_killed_taker_goes_to_the_next_at_once() {
    let mut bench = Bench::new(Limits::default());
    let [boss, first, second] = [(); 3].map(|()| bench.worker());
    bench.puts(boss, "job");
    assert_eq!(bench.takes(first).unwrap().delivered.deliveries, 1);
    let waiting = bench.waits(second, 0);
    assert!(bench.waited(second, waiting).is_none());
    bench.scene.bus.leave(first);
    let got = bench.waited(second, waiting).expect("it came at once").unwrap();
    assert_eq!((got.body.as_str(), got.delivered.deliveries), ("job", 2));
    assert_eq!(bench.acks(second, &got), Ok(()));
    assert_eq!(bench.takes(second).unwrap_err(), ErrorCode::Busy);
}

#[test]
fn a_worker_that_sends_nothing_more_gives_back_what_it_has() {
    let mut bench = Bench::new(Limits::default());
    let [boss, worker] = [(); 2].map(|()| bench.worker());
    bench.puts(boss, "job");
    bench.takes(worker).unwrap();
    bench.scene.bus.end_input(worker);
    assert!(bench.scene.bus.client(worker).is_closed);
    assert_eq!(bench.takes(boss).unwrap().delivered.deliveries, 2);
}

#[test]
fn work_ends_with_the_process_that_has_it_whoever_has_its_connection() {
    let mut bench = Bench::new(Limits::default());
    let [boss, worker, consumer] = [(); 3].map(|()| bench.worker());
    for body in ["one", "two"] {
        bench.puts(boss, body);
    }
    bench.takes(worker).unwrap();
    bench.consumes(consumer, 1);
    for who in [worker, consumer] {
        bench.scene.bus.end_process(who);
        assert!(bench.scene.bus.client(who).is_closed);
    }
    assert_eq!(bench.counts(boss, "q").ready, 2);
}

#[test]
fn a_detached_delivery_outlives_its_taker_and_anybody_ends_it() {
    let mut bench = Bench::new(Limits::default());
    let [boss, taker, other] = [(); 3].map(|()| bench.worker());
    bench.puts(boss, "job");
    let got = bench.takes_as(taker, &take("q", Bind::Time)).unwrap();
    assert_eq!(got.delivered.visibility_us, 30_000_000);
    bench.scene.bus.leave(taker);
    assert_eq!(bench.takes(other).unwrap_err(), ErrorCode::Busy);
    assert_eq!(bench.acks(other, &got), Ok(()));
    assert_eq!(bench.acks(other, &got), Err(ErrorCode::LockLost));
}

#[test]
fn whoever_takes_too_long_loses_it_and_learns_so() {
    let mut bench = Bench::new(Limits::default());
    let [slow, other] = [(); 2].map(|()| bench.worker());
    bench.puts(slow, "job");
    let late = bench.takes_as(slow, &Take { visibility_us: 50_000, ..take("q", Bind::Session) }).unwrap();
    bench.wait_ms(49);
    assert_eq!(bench.takes(other).unwrap_err(), ErrorCode::Busy);
    bench.wait_ms(1);
    let got = bench.takes(other).unwrap();
    assert_eq!(got.delivered.deliveries, 2);
    assert_eq!(bench.acks(slow, &late), Err(ErrorCode::LockLost));
    assert_eq!(bench.nacks(slow, &late, 0), Err(ErrorCode::LockLost));
    assert_eq!(bench.acks(other, &got), Ok(()));
}

#[test]
fn what_fails_too_often_is_dead_and_says_why() {
    let mut bench = Bench::new(Limits::default());
    let worker = bench.worker();
    let enqueue = Enqueue { max_deliveries: 2, id: Some("p1".into()), ..entry("q") };
    bench.put(worker, &enqueue, "poison").unwrap();
    let got = bench.takes(worker).unwrap();
    assert_eq!(bench.nacks(worker, &got, 0), Ok(false));
    let got = bench.takes(worker).unwrap();
    assert_eq!(bench.nacks(worker, &got, 0), Ok(true));
    assert_eq!(bench.takes(worker).unwrap_err(), ErrorCode::Busy);
    let counts = bench.counts(worker, "q");
    assert_eq!((counts.ready, counts.dead), (0, 1));
    let peek = Peek { queue: "q.dead".into(), count: 5 };
    let peeked: Peeked = bench.scene.outcome_of(worker, Operation::PEEK, &peek, b"").unwrap().decode();
    let [letter] = &peeked.entries.0[..] else { panic!("{peeked:?}") };
    let why = "delivered 2 times from q, as often as it may be; it was given back: no paper";
    assert_eq!(
        (letter.id.0.as_str(), letter.death.as_ref().map(|death| death.0.as_str())),
        ("p1", Some(why))
    );
    // A queue like any other.
    let got = bench.takes_as(worker, &take("q.dead", Bind::Session)).unwrap();
    assert_eq!((got.body.as_str(), got.delivered.deliveries), ("poison", 1));
    assert_eq!(got.delivered.death.as_ref().map(|death| death.0.as_str()), Some(why));
    assert_eq!(bench.nacks(worker, &got, 0), Ok(false));
    let purge = Purge { queue: "q.dead".into(), fence: None };
    let purged: Purged = bench.scene.outcome_of(worker, Operation::PURGE, &purge, b"").unwrap().decode();
    assert_eq!((purged.count, bench.counts(worker, "q").dead), (1, 0));
}

#[test]
fn a_taker_can_bound_deliveries_too() {
    let mut bench = Bench::new(Limits::default());
    let worker = bench.worker();
    bench.puts(worker, "poison");
    bench.puts(worker, "job");
    let got = bench.takes(worker).unwrap();
    bench.nacks(worker, &got, 0).unwrap();
    // It was delivered once, and this taker lets nothing be delivered twice.
    let once = Take { max_deliveries: 1, ..take("q", Bind::Session) };
    let got = bench.takes_as(worker, &once).unwrap();
    assert_eq!((got.body.as_str(), bench.counts(worker, "q").dead), ("job", 1));
    assert_eq!(bench.nacks(worker, &got, 0), Ok(true));
    let long = "q".repeat(510);
    let refused = bench.takes_as(worker, &Take { max_deliveries: 1, ..take(&long, Bind::Session) });
    assert_eq!(refused.unwrap_err(), ErrorCode::InvalidArgument, "its dead letters would have no name");
}

#[test]
fn work_is_taken_by_priority_and_not_before_its_time() {
    let mut bench = Bench::new(Limits::default());
    let worker = bench.worker();
    for (body, priority, delay_us) in [("low", 0, 0), ("high", 9, 0), ("higher", 10, 20_000), ("last", 0, 0)]
    {
        bench.put(worker, &Enqueue { priority, delay_us, ..entry("q") }, body).unwrap();
    }
    assert_eq!(bench.takes(worker).unwrap().body, "high");
    bench.wait_ms(20);
    assert_eq!(bench.takes(worker).unwrap().body, "higher");
    let low = bench.takes(worker).unwrap();
    bench.nacks(worker, &low, 30_000).unwrap();
    assert_eq!(bench.takes(worker).unwrap().body, "last");
    assert_eq!(bench.takes(worker).unwrap_err(), ErrorCode::Busy);
    bench.wait_ms(30);
    assert_eq!(bench.takes(worker).unwrap().body, "low");
}

#[test]
fn a_put_that_is_repeated_is_put_once() {
    let mut bench = Bench::new(Limits::default());
    let worker = bench.worker();
    let enqueue = Enqueue { id: Some("mail-7".into()), ..entry("q") };
    let first = bench.put(worker, &enqueue, "job").unwrap();
    let got = bench.takes(worker).unwrap();
    bench.acks(worker, &got).unwrap();
    let again = bench.put(worker, &enqueue, "job").unwrap();
    assert_eq!((again.number, again.is_duplicate), (first.number, true));
    assert_eq!(bench.takes(worker).unwrap_err(), ErrorCode::Busy);
    // Of another queue it is another.
    let elsewhere = Enqueue { queue: "other".into(), ..enqueue };
    assert!(!bench.put(worker, &elsewhere, "job").unwrap().is_duplicate);
}

#[test]
fn a_full_queue_refuses_or_makes_room_as_it_is_told() {
    let mut bench = Bench::new(Limits::default());
    let worker = bench.worker();
    let full = Enqueue { max_length: 2, ..entry("q") };
    for body in ["one", "two"] {
        bench.put(worker, &full, body).unwrap();
    }
    assert_eq!(bench.put(worker, &full, "three").unwrap_err(), ErrorCode::QuotaExceeded);
    let drop = Enqueue { overflow: Overflow::DropOldest, ..full.clone() };
    assert_eq!(bench.put(worker, &drop, "four").unwrap().dropped, 1);
    let left = [bench.takes(worker).unwrap().body, bench.takes(worker).unwrap().body];
    assert_eq!(left, ["two", "four"]);
    assert_eq!(bench.counts(worker, "q").drops, 1);
    // What is being worked on does not fill it.
    assert!(bench.put(worker, &full, "five").is_ok());
}

#[test]
fn work_goes_round_and_nobody_gets_more_than_its_credit() {
    let mut bench = Bench::new(Limits::default());
    let [boss, eager, modest] = [(); 3].map(|()| bench.worker());
    let (many, one) = (bench.consumes(eager, 3), bench.consumes(modest, 1));
    let asked = bench.waits(boss, 0);
    for body in ["1", "2", "3", "4", "5", "6"] {
        bench.puts(boss, body);
    }
    let first = delivered(&mut bench, eager, many);
    assert_eq!(bodies(&first), ["1", "4", "5"]);
    let second = delivered(&mut bench, modest, one);
    assert_eq!(bodies(&second), ["2"]);
    assert_eq!(bench.waited(boss, asked).unwrap().unwrap().body, "3");
    bench.acks(modest, &second[0]).unwrap();
    assert_eq!(bodies(&delivered(&mut bench, modest, one)), ["6"]);
    // Whoever ends keeps what it has, and gets no more.
    bench.scene.outcome_of(eager, Operation::UNCONSUME, &Unconsume { consumer: many }, b"").unwrap();
    bench.puts(boss, "7");
    assert!(delivered(&mut bench, eager, many).is_empty());
    assert_eq!(bench.acks(eager, &first[0]), Ok(()));
    assert_eq!(bench.counts(boss, "q").ready, 1);
    bench.scene.bus.leave(eager);
    assert_eq!(bench.counts(boss, "q").ready, 3);
}

#[test]
fn a_consumer_has_nothing_of_one_that_had_its_correlation_before() {
    let mut bench = Bench::new(Limits::default());
    let (boss, worker) = (bench.worker(), bench.worker());
    for body in ["1", "2", "3"] {
        bench.puts(boss, body);
    }
    let consumer = bench.consumes(worker, 1);
    let first = delivered(&mut bench, worker, consumer);
    bench.scene.outcome_of(worker, Operation::UNCONSUME, &Unconsume { consumer }, b"").unwrap();
    let consume = Consume { queue: "q".into(), credit: 1, visibility_us: 0, max_deliveries: 0 };
    bench.scene.ask_again(worker, Operation::CONSUME, consumer, &consume);
    let second = delivered(&mut bench, worker, consumer);
    assert_eq!((bodies(&first), bodies(&second)), (vec!["1"], vec!["2"]));
    bench.acks(worker, &first[0]).unwrap();
    assert!(delivered(&mut bench, worker, consumer).is_empty(), "one is open, and there is credit for one");
    bench.acks(worker, &second[0]).unwrap();
    assert_eq!(bodies(&delivered(&mut bench, worker, consumer)), ["3"]);
}

#[test]
fn a_consumer_that_does_not_read_loses_nothing_for_others() {
    let limits = Limits { queue_per_connection_max_bytes: 4096, ..Limits::default() };
    let mut bench = Bench::new(limits);
    let [boss, deaf] = [(); 2].map(|()| bench.worker());
    let consumer = bench.consumes(deaf, 100);
    bench.scene.bus.client(deaf).reads = false;
    bench.scene.bus.say(deaf, Header::new(Kind::PING).with_correlation(9), &(), b"");
    for _ in 0..10 {
        bench.puts(boss, &"x".repeat(1000));
    }
    let counts = bench.counts(boss, "q");
    assert!(counts.ready > 5 && counts.delivered > 1 && counts.consumers == 0, "{counts:?}");
    // What it could not be given does not count as delivered.
    assert_eq!(bench.takes(boss).unwrap().delivered.deliveries, 1);
    bench.scene.bus.resume(deaf);
    let told = bench.scene.bus.client(deaf).take(Kind::NOTICE);
    let last = told.last().expect("it was told").header;
    assert_eq!((last.handle.index, last.correlation), (Told::CONSUMER_LOST.0, consumer));
    // One that asks for an entry and has no room is refused, and the entry stays.
    bench.scene.bus.client(deaf).reads = false;
    for _ in 0..6 {
        bench.scene.ask(deaf, Operation::TAKE, &take("q", Bind::Session), b"");
    }
    bench.scene.bus.resume(deaf);
    let codes = bench.scene.bus.client(deaf).take(Kind::OUTCOME).into_iter().filter_map(|outcome| {
        let is_error = outcome.header.flags.contains(ipc_core::wire::Flags::ERROR);
        is_error.then(|| outcome.decode::<ipc_core::wire::message::ErrorBody>().code)
    });
    assert!(codes.into_iter().any(|code| code == ErrorCode::SlowConsumer.number()));
}

#[test]
fn a_late_holder_of_a_lock_is_kept_away() {
    let mut bench = Bench::new(Limits::default());
    let worker = bench.worker();
    let claim = Claim { wait: false, ttl_us: 0, delay_us: 0, owner: 0, durability: None };
    let lock = TakeLock { name: "boss".into(), mode: LockMode::Exclusive, claim };
    let hold = |bench: &mut Bench| {
        let granted = bench.scene.outcome_of(worker, Operation::LOCK, &lock, b"").expect("it is free");
        granted.decode::<Granted>().token
    };
    let old = hold(&mut bench);
    bench.scene.outcome_of(worker, Operation::RELEASE, &OfToken { token: old }, b"").unwrap();
    bench.puts(worker, "job");
    let fence = |token| Some(Fence { lock: "boss".into(), token });
    let waiting = Take { wait: true, fence: fence(old), ..take("other", Bind::Session) };
    let waits = bench.scene.ask(worker, Operation::TAKE, &waiting, b"");
    let new = hold(&mut bench);
    let stale = ErrorCode::StaleFencingToken;
    let put = |token| Enqueue { fence: fence(token), ..entry("other") };
    assert_eq!(bench.put(worker, &put(old), "x").unwrap_err(), stale);
    let taking = |token| Take { fence: fence(token), ..take("q", Bind::Session) };
    assert_eq!(bench.takes_as(worker, &taking(old)).unwrap_err(), stale);
    let got = bench.takes_as(worker, &taking(new)).unwrap();
    assert_eq!(bench.acks_under(worker, &got, fence(old)), Err(stale));
    let purge = Purge { queue: "q".into(), fence: fence(old) };
    assert_eq!(bench.scene.outcome_of(worker, Operation::PURGE, &purge, b"").unwrap_err(), stale);
    assert_eq!(bench.acks_under(worker, &got, fence(new)), Ok(()));
    // A request whose token has become stale while it waited gets nothing.
    bench.put(worker, &put(new), "x").unwrap();
    assert_eq!(bench.waited(worker, waits).expect("an outcome").unwrap_err(), stale);
    assert_eq!(bench.counts(worker, "other").ready, 1);
}

#[test]
fn whoever_waits_can_stop_and_is_stopped_with_the_daemon() {
    let mut bench = Bench::new(Limits::default());
    let [one, two] = [(); 2].map(|()| bench.worker());
    let cancelled = bench.waits(one, 0);
    let late = bench.waits(two, 5_000);
    let stays = bench.waits(two, 0);
    bench.scene.bus.say(one, Header::new(Kind::CANCEL).with_correlation(cancelled), &(), b"");
    assert_eq!(bench.waited(one, cancelled).expect("an outcome").unwrap_err(), ErrorCode::Cancelled);
    bench.wait_ms(5);
    assert_eq!(bench.waited(two, late).expect("an outcome").unwrap_err(), ErrorCode::Busy);
    bench.puts(one, "job");
    let got = bench.waited(two, stays).expect("it came").unwrap();
    let last = bench.waits(one, 0);
    bench.scene.bus.broker.begin_drain();
    bench.wait_ms(0);
    assert_eq!(bench.waited(one, last).expect("an outcome").unwrap_err(), ErrorCode::ShuttingDown);
    // Work that was begun may end.
    assert_eq!(bench.put(one, &entry("q"), "x").unwrap_err(), ErrorCode::ShuttingDown);
    assert_eq!(bench.acks(two, &got), Ok(()));
}

#[test]
fn what_cannot_be_is_refused() {
    let mut bench = Bench::new(Limits::default());
    let worker = bench.worker();
    let invalid = ErrorCode::InvalidArgument;
    for id in ["".to_owned(), "x".repeat(129)] {
        let enqueue = Enqueue { id: Some(id.as_str().into()), ..entry("q") };
        assert_eq!(bench.put(worker, &enqueue, "x").unwrap_err(), invalid);
    }
    let week_us = 7 * 24 * 3_600_000_000;
    assert_eq!(
        bench.put(worker, &Enqueue { delay_us: week_us + 1, ..entry("q") }, "x").unwrap_err(),
        invalid
    );
    assert!(bench.put(worker, &Enqueue { delay_us: week_us, ..entry("q") }, "x").is_ok());
    assert_eq!(bench.put(worker, &Enqueue { priority: 256, ..entry("q") }, "x").unwrap_err(), invalid);
    assert_eq!(bench.put(worker, &entry("ipc/x"), "x").unwrap_err(), ErrorCode::PermissionDenied);
    assert_eq!(bench.put(worker, &entry("a b"), "x").unwrap_err(), invalid);
    let disk = Enqueue { durability: Some(Durability::Disk), ..entry("q") };
    assert_eq!(bench.put(worker, &disk, "x").unwrap_err(), ErrorCode::Unsupported);
    let short = Take { visibility_us: 9_999, ..take("q", Bind::Time) };
    assert_eq!(bench.takes_as(worker, &short).unwrap_err(), invalid);
    for (credit, fits) in [(0, false), (1, true), (65_536, true), (65_537, false)] {
        let consume =
            ipc_core::wire::queue::Consume { queue: "q".into(), credit, visibility_us: 0, max_deliveries: 0 };
        assert_eq!(
            bench.scene.outcome_of(worker, Operation::CONSUME, &consume, b"").is_ok(),
            fits,
            "{credit}"
        );
    }
}

#[test]
fn every_entry_names_who_put_it() {
    let mut bench = Bench::new(Limits::default());
    let boss = bench.scene.bus.connect_as(Identity::Local { uid: 7, gid: 8, pid: 9 });
    bench.scene.bus.send(boss, &ipc_tests::raw::greeting("boss"));
    bench.puts(boss, "job");
    bench.scene.bus.leave(boss);
    let worker = bench.worker();
    let got = bench.takes(worker).unwrap();
    assert_eq!(got.delivered.sender, IdentityInfo::Local { uid: 7, gid: 8, pid: 9 });
}
