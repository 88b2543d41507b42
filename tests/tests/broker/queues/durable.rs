//! Work queues on a disk: when an entry is seen, what a failure takes back, what is there after a restart.

use core::time::Duration;

use ipc_core::ErrorCode;
use ipc_core::limits::Limits;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::{Bind, Durability, Operation};
use ipc_core::wire::queue::{Ack, Enqueue, Enqueued, Overflow, Peek, Peeked, Purge, Purged};
use ipc_daemon::broker::Fault;
use ipc_tests::disk::Disk;

use super::{Bench, Got, entry, take};
use crate::coordination::Scene;
use crate::durable::start;

fn bench_with(limits: Limits, now: Instant, disk: Disk) -> Bench {
    let mut scene = Scene::with_disk(limits, now, disk);
    scene.bus.disk.as_mut().expect("a disk").holds = true;
    let mut bench = Bench { scene };
    // The first block of numbers.
    bench.commits();
    bench
}

fn bench() -> Bench {
    bench_with(Limits::default(), start(), Disk::default())
}

impl Bench {
    /// Whatever is on its way to the disk is there.
    fn commits(&mut self) {
        while self.scene.bus.finish_commit() {}
    }

    /// The next commit fails.
    fn fails(&mut self) {
        let full = Some(Fault::Full("no room".to_owned()));
        self.scene.bus.disk.as_mut().expect("a disk").fault = full;
        assert!(self.scene.bus.finish_commit(), "nothing is on its way");
        self.scene.bus.disk.as_mut().expect("a disk").fault = None;
    }

    /// The next life of the daemon, with what the last one has written.
    fn restarts(self) -> Self {
        let Scene { bus, .. } = self.scene;
        let disk = bus.disk.expect("a disk").crash(false);
        bench_with(Limits::default(), bus.now + Duration::from_secs(1), disk)
    }

    fn asks_put(&mut self, who: usize, enqueue: &Enqueue, body: &str) -> u64 {
        self.scene.ask(who, Operation::ENQUEUE, enqueue, body.as_bytes())
    }

    fn came_of(&mut self, who: usize, operation: Operation, request: u64) -> Option<Result<(), ErrorCode>> {
        let outcome = self.scene.take_outcome(who, operation, request)?;
        Some(outcome.map(|_| ()).map_err(|body| ErrorCode::from_number(body.code).expect("a code")))
    }

    fn keeps(&mut self, who: usize, enqueue: &Enqueue, body: &str) -> Enqueued {
        let request = self.asks_put(who, enqueue, body);
        self.commits();
        let outcome = self.scene.take_outcome(who, Operation::ENQUEUE, request).expect("an outcome");
        outcome.expect("it is kept").decode()
    }

    fn asks_ack(&mut self, who: usize, got: &Got) -> u64 {
        let ack = Ack { queue: got.delivered.queue.clone(), delivery: got.delivered.delivery, fence: None };
        self.scene.ask(who, Operation::ACK, &ack, b"")
    }

    fn acked(&mut self, who: usize, got: &Got) {
        let request = self.asks_ack(who, got);
        self.commits();
        assert_eq!(self.came_of(who, Operation::ACK, request), Some(Ok(())));
    }
}

#[test]
fn nobody_gets_an_entry_before_it_is_on_the_disk() {
    let mut bench = bench();
    let [boss, worker] = [(); 2].map(|()| bench.worker());
    let waiting = bench.waits(worker, 0);
    let put = bench.asks_put(boss, &entry("q"), "job");
    assert!(
        bench.came_of(boss, Operation::ENQUEUE, put).is_none() && bench.waited(worker, waiting).is_none()
    );
    assert_eq!(bench.counts(boss, "q").ready, 0);
    bench.commits();
    let outcome = bench.scene.take_outcome(boss, Operation::ENQUEUE, put).expect("an outcome").expect("kept");
    assert_eq!(outcome.decode::<Enqueued>().durability, Durability::Disk);
    let got = bench.waited(worker, waiting).expect("it came").unwrap();
    let ack = bench.asks_ack(worker, &got);
    assert!(bench.came_of(worker, Operation::ACK, ack).is_none());
    // Nobody else gets it meanwhile, and it cannot be acknowledged twice.
    assert_eq!(bench.takes(boss).unwrap_err(), ErrorCode::Busy);
    assert_eq!(bench.acks(worker, &got), Err(ErrorCode::LockLost));
    bench.commits();
    assert_eq!(bench.came_of(worker, Operation::ACK, ack), Some(Ok(())));
    let mut bench = bench.restarts();
    let worker = bench.worker();
    assert_eq!(bench.takes(worker).unwrap_err(), ErrorCode::Busy);
}

#[test]
fn what_need_not_be_kept_waits_for_nothing() {
    let mut bench = bench();
    let worker = bench.worker();
    let memory = Enqueue { durability: Some(Durability::Memory), ..entry("q") };
    assert_eq!(bench.put(worker, &memory, "job").unwrap().durability, Durability::Memory);
    let got = bench.takes(worker).unwrap();
    assert_eq!(bench.acks(worker, &got), Ok(()));
    bench.put(worker, &memory, "job").unwrap();
    assert!(!bench.scene.bus.finish_commit(), "nothing of it is written");
    let mut bench = bench.restarts();
    let worker = bench.worker();
    assert_eq!(bench.takes(worker).unwrap_err(), ErrorCode::Busy);
}

#[test]
fn a_failed_commit_is_as_if_nothing_had_been_asked() {
    let mut bench = bench();
    let [boss, worker] = [(); 2].map(|()| bench.worker());
    bench.keeps(boss, &entry("q"), "old");
    let got = bench.takes(worker).unwrap();
    let enqueue = Enqueue { id: Some("j".into()), ..entry("q") };
    // All of this goes into one commit, behind the first.
    let first = bench.asks_put(boss, &entry("q"), "first");
    let (put, double) = (bench.asks_put(boss, &enqueue, "job"), bench.asks_put(boss, &enqueue, "job"));
    let ack = bench.asks_ack(worker, &got);
    assert!(bench.scene.bus.finish_commit());
    assert_eq!(bench.came_of(boss, Operation::ENQUEUE, first), Some(Ok(())));
    bench.fails();
    let failed = Some(Err(ErrorCode::StorageFailed));
    assert_eq!(bench.came_of(boss, Operation::ENQUEUE, put), failed);
    assert_eq!(bench.came_of(boss, Operation::ENQUEUE, double), failed);
    assert_eq!(bench.came_of(worker, Operation::ACK, ack), failed);
    let counts = bench.counts(boss, "q");
    assert_eq!((counts.ready, counts.delivered), (1, 1));
    // The delivery is as it was, and the id was never put.
    bench.acked(worker, &got);
    assert!(!bench.keeps(boss, &enqueue, "job").is_duplicate);
    assert!(bench.keeps(boss, &enqueue, "job").is_duplicate);
}

#[test]
fn a_taker_that_dies_while_its_ack_is_written_has_acknowledged_or_not() {
    for is_kept in [true, false] {
        let mut bench = bench();
        let [boss, worker] = [(); 2].map(|()| bench.worker());
        bench.keeps(boss, &entry("q"), "job");
        let got = bench.takes(worker).unwrap();
        bench.asks_ack(worker, &got);
        bench.scene.bus.leave(worker);
        assert_eq!(bench.takes(boss).unwrap_err(), ErrorCode::Busy);
        if is_kept {
            bench.commits();
            assert_eq!(bench.takes(boss).unwrap_err(), ErrorCode::Busy);
        } else {
            bench.fails();
            assert_eq!(bench.takes(boss).unwrap().delivered.deliveries, 2);
        }
    }
}

#[test]
fn what_another_has_acknowledged_in_vain_comes_back_although_its_taker_has_gone() {
    let mut bench = bench();
    let [boss, worker] = [(); 2].map(|()| bench.worker());
    bench.keeps(boss, &entry("q"), "job");
    let got = bench.takes(worker).unwrap();
    bench.asks_ack(boss, &got);
    bench.scene.bus.leave(worker);
    bench.fails();
    assert_eq!(bench.takes(boss).unwrap().delivered.deliveries, 2);
}

#[test]
fn everything_is_there_after_a_restart() {
    let mut bench = bench();
    let worker = bench.worker();
    let named = Enqueue { id: Some("j-1".into()), priority: 7, ..entry("q") };
    let first = bench.keeps(worker, &named, "first");
    bench.keeps(worker, &Enqueue { delay_us: 500_000, ..entry("q") }, "later");
    bench.keeps(worker, &Enqueue { max_deliveries: 1, ..entry("q") }, "poison");
    bench.keeps(worker, &entry("q"), "done");
    let got = bench.takes(worker).unwrap();
    assert_eq!(got.body, "first");
    let poison = bench.takes(worker).unwrap();
    assert_eq!(bench.nacks(worker, &poison, 0), Ok(true));
    let done = bench.takes(worker).unwrap();
    bench.acked(worker, &done);
    let mut bench = bench.restarts();
    let worker = bench.worker();
    // What was being worked on is there at once, as often delivered as it was.
    let again = bench.takes(worker).unwrap();
    assert_eq!((again.body.as_str(), again.delivered.deliveries), ("first", 2));
    assert_eq!((again.delivered.number, again.delivered.priority), (first.number, 7));
    assert!(again.delivered.delivery > got.delivered.delivery);
    assert_eq!(bench.acks(worker, &got), Err(ErrorCode::LockLost), "its delivery ended with the daemon");
    assert!(bench.keeps(worker, &named, "first").is_duplicate);
    let peek = Peek { queue: "q.dead".into(), count: 5 };
    let peeked: Peeked = bench.scene.outcome_of(worker, Operation::PEEK, &peek, b"").unwrap().decode();
    assert!(peeked.entries.0[0].death.as_ref().is_some_and(|death| death.0.contains("no paper")));
    assert_eq!(bench.takes(worker).unwrap_err(), ErrorCode::Busy);
    bench.wait_ms(500);
    assert_eq!(bench.takes(worker).unwrap().body, "later");
    // A second life later the delay is over.
    bench.wait_ms(2_000);
    bench.commits();
    let mut bench = bench.restarts();
    let worker = bench.worker();
    let all = [bench.takes(worker).unwrap().body, bench.takes(worker).unwrap().body];
    assert_eq!(all, ["first", "later"]);
}

#[test]
fn room_is_made_and_queues_are_purged_for_good() {
    let mut bench = bench();
    let worker = bench.worker();
    for body in ["one", "two"] {
        bench.keeps(worker, &entry("q"), body);
    }
    let drop = Enqueue { max_length: 2, overflow: Overflow::DropOldest, ..entry("q") };
    let put = bench.asks_put(worker, &drop, "three");
    // It makes room, but nobody gets it before it has.
    assert_eq!(bench.takes(worker).unwrap().body, "two");
    bench.fails();
    assert_eq!(bench.came_of(worker, Operation::ENQUEUE, put), Some(Err(ErrorCode::StorageFailed)));
    assert_eq!(bench.takes(worker).unwrap().body, "one");
    for body in ["four", "five"] {
        bench.keeps(worker, &entry("q"), body);
    }
    assert_eq!(bench.keeps(worker, &drop, "six").dropped, 1);
    let mut bench = bench.restarts();
    let worker = bench.worker();
    let peek = Peek { queue: "q".into(), count: 9 };
    let peeked = bench.scene.outcome_of(worker, Operation::PEEK, &peek, b"").unwrap();
    assert_eq!(peeked.payload, b"onetwofivesix");
    let purge = Purge { queue: "q".into(), fence: None };
    let purging = bench.scene.ask(worker, Operation::PURGE, &purge, b"");
    bench.fails();
    assert_eq!(bench.came_of(worker, Operation::PURGE, purging), Some(Err(ErrorCode::StorageFailed)));
    assert_eq!(bench.counts(worker, "q").ready, 4);
    let purging = bench.scene.ask(worker, Operation::PURGE, &purge, b"");
    bench.commits();
    let outcome = bench.scene.take_outcome(worker, Operation::PURGE, purging).expect("an outcome");
    assert_eq!(outcome.expect("it may").decode::<Purged>().count, 4);
    let mut bench = bench.restarts();
    let worker = bench.worker();
    assert_eq!(bench.takes(worker).unwrap_err(), ErrorCode::Busy);
    let records = bench.scene.bus.disk.expect("a disk").records;
    assert_eq!(records.len(), 1, "only the numbers are left: {records:?}");
}

#[test]
fn what_the_daemon_does_by_itself_is_written_a_little_later() {
    let mut bench = bench();
    let worker = bench.worker();
    bench.keeps(worker, &entry("q"), "job");
    bench.takes_as(worker, &take("q", Bind::Time)).unwrap();
    assert!(!bench.scene.bus.finish_commit());
    bench.wait_ms(1000);
    assert!(bench.scene.bus.finish_commit());
    let named = Enqueue { id: Some("j".into()), ..entry("q") };
    bench.keeps(worker, &named, "job");
    bench.wait_ms(300_000);
    bench.wait_ms(1_000);
    bench.commits();
    // The id is forgotten, on the disk too.
    let mut bench = bench.restarts();
    let worker = bench.worker();
    assert!(!bench.keeps(worker, &named, "job").is_duplicate);
    let twice =
        [bench.takes(worker).unwrap(), bench.takes(worker).unwrap()].map(|got| got.delivered.deliveries);
    assert_eq!(twice, [2, 1], "the first went back by its time, and is delivered again");
}

#[test]
fn a_delay_with_which_work_is_given_back_is_kept() {
    let mut bench = bench();
    let worker = bench.worker();
    for body in ["one", "two"] {
        bench.keeps(worker, &entry("q"), body);
    }
    for got in [bench.takes(worker).unwrap(), bench.takes(worker).unwrap()] {
        assert_eq!(bench.nacks(worker, &got, 10_000_000), Ok(false));
    }
    // It is written a second later at most, with what is left then; and it is kept as long as nobody takes it.
    bench.wait_ms(1_000);
    bench.commits();
    let mut bench = bench.restarts().restarts();
    let worker = bench.worker();
    assert_eq!(bench.counts(worker, "q").delayed, 2);
    bench.wait_ms(8_999);
    assert_eq!(bench.takes(worker).unwrap_err(), ErrorCode::Busy);
    bench.wait_ms(1);
    let got = bench.takes(worker).unwrap();
    assert_eq!((got.body.as_str(), got.delivered.deliveries), ("one", 2));
    // Once it is over it stays over.
    bench.wait_ms(1_000);
    bench.commits();
    let mut bench = bench.restarts();
    let worker = bench.worker();
    let all = [bench.takes(worker).unwrap().body, bench.takes(worker).unwrap().body];
    assert_eq!(all, ["one", "two"]);
}

#[test]
fn a_dead_letter_that_is_given_back_keeps_its_delay_too() {
    let mut bench = bench();
    let worker = bench.worker();
    // The delay with which it was put is over, and no business of the dead letter.
    let once = Enqueue { max_deliveries: 1, delay_us: 1_000, ..entry("q") };
    bench.keeps(worker, &once, "job");
    bench.wait_ms(1);
    let got = bench.takes(worker).unwrap();
    assert_eq!(bench.nacks(worker, &got, 0), Ok(true));
    let dead = take("q.dead", Bind::Session);
    let got = bench.takes_as(worker, &dead).unwrap();
    assert_eq!(bench.nacks(worker, &got, 10_000_000), Ok(false));
    bench.wait_ms(1_000);
    bench.commits();
    let mut bench = bench.restarts();
    let worker = bench.worker();
    bench.wait_ms(8_999);
    assert_eq!(bench.takes_as(worker, &dead).unwrap_err(), ErrorCode::Busy);
    bench.wait_ms(1);
    assert_eq!(bench.takes_as(worker, &dead).unwrap().body, "job");
}

#[test]
fn a_dead_letter_stays_one_when_the_word_of_its_delivery_could_not_be_written() {
    let mut bench = bench();
    let worker = bench.worker();
    bench.keeps(worker, &Enqueue { max_deliveries: 1, ..entry("q") }, "job");
    let got = bench.takes(worker).unwrap();
    // That it was delivered is on its way to the disk when it dies.
    bench.wait_ms(1_000);
    assert_eq!(bench.nacks(worker, &got, 0), Ok(true));
    bench.fails();
    bench.wait_ms(1_000);
    bench.commits();
    let mut bench = bench.restarts();
    let worker = bench.worker();
    assert_eq!((bench.counts(worker, "q").ready, bench.counts(worker, "q.dead").ready), (0, 1));
}

/// The layout of a record never changes: these were written when they landed.
#[test]
fn records_of_how_an_entry_stands_are_read_for_ever() {
    let mut bench = bench();
    let worker = bench.worker();
    let number = bench.keeps(worker, &entry("q"), "job").number;
    let got = bench.takes(worker).unwrap();
    let state = |bench: &Bench| {
        let records = &bench.scene.bus.disk.as_ref().expect("a disk").records;
        records.get(&[&[4][..], &number.to_be_bytes()].concat()).cloned()
    };
    bench.wait_ms(1_000);
    bench.commits();
    assert_eq!(state(&bench), Some(vec![1, 0, 0, 0, 0]));
    bench.nacks(worker, &got, 3_000_000).unwrap();
    bench.wait_ms(1_000);
    bench.commits();
    let delayed = [&[1, 0, 0, 0, 2][..], &2_000_000u64.to_le_bytes()].concat();
    assert_eq!(state(&bench), Some(delayed.clone()));
    for cut in 5..delayed.len() {
        let mut disk = bench.scene.bus.disk.clone().expect("a disk");
        disk.records.insert([&[4][..], &number.to_be_bytes()].concat(), delayed[..cut].to_vec());
        let read = std::panic::catch_unwind(|| Scene::with_disk(Limits::default(), start(), disk));
        assert!(read.is_err(), "{cut} bytes are not all of it");
    }
}
