//! Work queues through the async client.

use std::collections::BTreeSet;
use std::time::Duration;

use ipc_core::ErrorCode;
use ipc_core::client::{
    Backoff, Client, ConsumeOptions, Durability, EntryOptions, EntryState, NackOptions, Overflow, TakeOptions,
};
use ipc_core::identity::Identity;
use ipc_tests::daemon::{Daemon, Options};

use crate::{Bus, on_each_runtime};

fn once() -> TakeOptions {
    TakeOptions { wait: Some(Duration::ZERO), ..TakeOptions::default() }
}

async fn put(client: &Client, body: &str) {
    client.put_entry("q", body, EntryOptions::default()).await.unwrap();
}

async fn busy(client: &Client) {
    assert_eq!(client.take_entry("q", once()).await.unwrap_err().code, ErrorCode::Busy);
}

#[test]
fn work_is_done_once_it_is_acknowledged_and_comes_back_when_it_is_dropped() {
    on_each_runtime(async |bus| {
        let (one, two) = (bus.client().await, bus.client().await);
        let options = EntryOptions { id: Some("job-1".into()), priority: 3, ..EntryOptions::default() };
        let stored = one.put_entry("q", "job", options.clone()).await.unwrap();
        assert_eq!((stored.id.as_str(), stored.durability), ("job-1", Durability::Disk));
        assert!(one.put_entry("q", "job", options).await.unwrap().is_duplicate);
        let work = two.take_entry("q", once()).await.unwrap();
        assert_eq!((work.id.as_str(), work.deliveries, work.priority), ("job-1", 1, 3));
        assert_eq!(work.payload.as_text().unwrap(), "job");
        assert!(matches!(work.sender, Identity::Local { pid, .. } if pid == std::process::id()));
        busy(&one).await;
        drop(work);
        let again = one.take_entry("q", TakeOptions::default()).await.unwrap();
        assert_eq!((again.number, again.deliveries), (stored.number, 2));
        assert!(!again.nack(NackOptions::default()).await.unwrap());
        let last = two.take_entry("q", TakeOptions::default()).await.unwrap();
        last.ack().await.unwrap();
        busy(&one).await;
    });
}

#[test]
fn a_detached_delivery_is_anybodys_and_has_its_time() {
    on_each_runtime(async |bus| {
        let (one, two) = (bus.client().await, bus.client().await);
        put(&one, "job").await;
        let work = one.take_entry_detached("q", once()).await.unwrap();
        one.close().await;
        busy(&two).await;
        two.ack_entry("q", work.delivery, None).await.unwrap();
        assert_eq!(two.ack_entry("q", work.delivery, None).await.unwrap_err().code, ErrorCode::LockLost);
        put(&two, "job").await;
        let short = TakeOptions { visibility: Some(Duration::from_millis(10)), ..once() };
        let work = two.take_entry_detached("q", short).await.unwrap();
        let again = two.take_entry("q", TakeOptions::default()).await.unwrap();
        assert_eq!((again.id.as_str(), again.deliveries), (work.id.as_str(), 2));
        let late = two.nack_entry("q", work.delivery, NackOptions::default()).await;
        assert_eq!(late.unwrap_err().code, ErrorCode::LockLost);
    });
}

#[test]
fn what_nobody_waits_for_any_more_goes_back_untouched() {
    on_each_runtime(async |bus| {
        let (one, two) = (bus.client().await, bus.client().await);
        for _ in 0..20 {
            let mut taking = Box::pin(one.take_entry("q", TakeOptions::default()));
            // It waits once the daemon has answered what was sent behind it.
            tokio::select! {
                biased;
                _ = &mut taking => panic!("there is nothing"),
                pong = async { one.ping().await } => drop(pong.unwrap()),
            }
            put(&two, "job").await;
            // Whether it has got the entry or not: it is given back, and nobody has touched it.
            drop(taking);
            let work = two.take_entry("q", TakeOptions::default()).await.unwrap();
            assert_eq!(work.payload.as_text().unwrap(), "job");
            work.ack().await.unwrap();
        }
        busy(&two).await;
    });
}

#[test]
fn consumers_share_the_work_within_their_credit() {
    on_each_runtime(async |bus| {
        let (boss, one, two) = (bus.client().await, bus.client().await, bus.client().await);
        let credit = |credit| ConsumeOptions { credit, ..ConsumeOptions::default() };
        let mut first = one.consume_queue("q", credit(2)).await.unwrap();
        let mut second = two.consume_queue("q", credit(1)).await.unwrap();
        for number in 0..30 {
            put(&boss, &number.to_string()).await;
        }
        let counts = boss.count_queue("q").await.unwrap();
        assert_eq!((counts.ready, counts.delivered, counts.consumers), (27, 3, 2));
        let mut seen = BTreeSet::new();
        while seen.len() < 29 {
            let consumer = if seen.len() % 3 == 0 { &mut second } else { &mut first };
            let work = consumer.next().await.unwrap().unwrap();
            assert!(seen.insert(work.payload.as_text().unwrap().to_owned()), "it was delivered twice");
            work.ack().await.unwrap();
        }
        // What a consumer has received and nobody took goes back when it ends, untouched.
        drop((first, second));
        let work = boss.take_entry("q", TakeOptions::default()).await.unwrap();
        assert!(seen.insert(work.payload.as_text().unwrap().to_owned()));
        assert_eq!(work.deliveries, 1);
        let [shown] = &boss.peek_entries("q", 5).await.unwrap()[..] else { panic!("one is there") };
        assert_eq!((shown.state, shown.due), (EntryState::Delivered, None));
        work.ack().await.unwrap();
        assert_eq!(boss.purge_queue("q", None).await.unwrap(), 0);
    });
}

#[test]
fn a_full_queue_says_so() {
    on_each_runtime(async |bus| {
        let client = bus.client().await;
        let full = EntryOptions { max_length: Some(1), ..EntryOptions::default() };
        client.put_entry("q", "one", full.clone()).await.unwrap();
        let error = client.put_entry("q", "two", full.clone()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::QuotaExceeded, "{error}");
        let drop = EntryOptions { overflow: Overflow::DropOldest, ..full };
        assert_eq!(client.put_entry("q", "three", drop).await.unwrap().dropped, 1);
        let memory = EntryOptions { durability: Some(Durability::Memory), ..EntryOptions::default() };
        assert_eq!(client.put_entry("r", "x", memory).await.unwrap().durability, Durability::Memory);
    });
}

#[test]
fn a_consumer_goes_on_over_a_restart_of_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let options = || Options { runtime_dir: Some(directory.path().join("run")), ..Options::default() };
    crate::current_thread().block_on(async {
        let bus = Bus { daemon: Daemon::start_with(&options()), polls: true };
        let client = Client::connect(bus.options().reconnect(Backoff::default())).await.unwrap();
        let mut consumer = client.consume_queue("q", ConsumeOptions::default()).await.unwrap();
        put(&client, "before").await;
        let work = consumer.next().await.unwrap().unwrap();
        bus.daemon.kill();
        let bus = Bus { daemon: Daemon::start_with(&options()), polls: true };
        put(&bus.client().await, "after").await;
        let next = consumer.next().await.unwrap().unwrap();
        assert_eq!(next.payload.as_text().unwrap(), "after");
        assert_eq!(work.ack().await.unwrap_err().code, ErrorCode::LockLost);
        next.ack().await.unwrap();
    });
}
