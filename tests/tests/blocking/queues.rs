//! Work queues through the blocking client.

use std::time::Duration;

use ipc_core::ErrorCode;
use ipc_core::blocking::{ConsumeOptions, EntryOptions, NackOptions, TakeOptions};
use ipc_tests::daemon::Daemon;

use super::client;

fn once() -> TakeOptions {
    TakeOptions { wait: Some(Duration::ZERO), ..TakeOptions::default() }
}

#[test]
fn work_that_is_dropped_goes_back_and_work_that_is_done_is_gone() {
    let daemon = Daemon::start();
    let (mut one, mut two) = (client(&daemon), client(&daemon));
    one.put_entry("q", "job", &EntryOptions::default()).unwrap();
    let mut work = one.take_entry("q", &once()).unwrap();
    work.client().ping().unwrap();
    assert_eq!(two.take_entry("q", &once()).unwrap_err().code, ErrorCode::Busy);
    drop(work);
    let work = two.take_entry("q", &TakeOptions::default()).unwrap();
    assert_eq!((work.payload.as_text().unwrap(), work.deliveries), ("job", 2));
    work.ack().unwrap();
    assert_eq!(two.count_queue("q").unwrap().ready, 0);
    one.put_entry("q", "job", &EntryOptions::default()).unwrap();
    let detached = one.take_entry_detached("q", &once()).unwrap();
    drop(one);
    assert_eq!(two.peek_entries("q", 9).unwrap().len(), 1);
    assert!(!two.nack_entry("q", detached.delivery, &NackOptions::default()).unwrap());
    let again = two.take_entry_detached("q", &once()).unwrap();
    two.ack_entry("q", again.delivery, None).unwrap();
    assert_eq!(two.ack_entry("q", again.delivery, None).unwrap_err().code, ErrorCode::LockLost);
    assert_eq!(two.purge_queue("q", None).unwrap(), 0);
}

#[test]
fn a_consumer_gives_one_entry_after_the_other() {
    let daemon = Daemon::start();
    let (mut boss, mut worker) = (client(&daemon), client(&daemon));
    let credit = ConsumeOptions { credit: 2, ..ConsumeOptions::default() };
    let consumer = worker.consume_queue("q", credit).unwrap();
    assert!(worker.next_work(&consumer, Duration::ZERO).unwrap().is_none());
    for number in 0..10 {
        boss.put_entry("q", number.to_string(), &EntryOptions::default()).unwrap();
    }
    for number in 0..9 {
        let work = worker.next_work(&consumer, Duration::from_secs(30)).unwrap().expect("there is more");
        assert_eq!(work.payload.as_text().unwrap(), number.to_string());
        work.ack().unwrap();
    }
    // The last one has come and was not taken: it goes back untouched.
    worker.end_consumer(consumer).unwrap();
    let last = boss.take_entry("q", &TakeOptions::default()).unwrap();
    assert_eq!((last.payload.as_text().unwrap(), last.deliveries), ("9", 1));
    last.ack().unwrap();
}

#[test]
fn whoever_ends_loses_its_work_to_the_next_within_milliseconds() {
    let daemon = Daemon::start();
    let (mut one, mut two) = (client(&daemon), client(&daemon));
    one.put_entry("q", "job", &EntryOptions::default()).unwrap();
    let work = one.take_entry("q", &once()).unwrap();
    let waiting = std::thread::spawn(move || {
        let work = two.take_entry("q", &TakeOptions::default()).unwrap();
        let deliveries = work.deliveries;
        work.ack().unwrap();
        deliveries
    });
    drop(work);
    drop(one);
    assert_eq!(waiting.join().unwrap(), 2);
}
