//! What a million keys cost, and changes that a thousand watch.
//!
//! Keys are kept in memory alone, so that no disk is measured. One line of JSON for each figure. Run with
//! `cargo build --release --workspace && cargo bench -p ipc-tests --bench keys`.

#![allow(clippy::print_stdout, reason = "the figures are the output of this program")]

use std::time::{Duration, Instant};

use ipc_core::blocking::{
    Client, Condition, Delivery, Durability, KeyEvent, KeyOptions, KeyWatch, Selection, SubscribeOptions,
    Subscription, Transaction,
};
use ipc_tests::daemon::{Daemon, Options};
use ipc_tests::rng::Rng;
use ipc_tests::services::client;

const FEW: u64 = 1_000;
const MANY: u64 = 1_000_000;
const VALUE: [u8; 100] = [7; 100];
/// Keys that are put in one transaction.
const TOGETHER: u64 = 64;
/// Points are asked for so often, in rounds with few and with many keys.
const POINTS: usize = 20_000;

const WATCHERS: usize = 1_000;
/// Changes that are made before the watchers read: so many fit on the way to each.
const BATCH: usize = 50;
const BATCHES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    let config = "[limits]\nkey_bytes_per_uid_max = 1073741824\n";
    let daemon = Daemon::start_with(&Options::with_config(config));
    million(&daemon);
    drop(daemon);
    fan_out(&Daemon::start());
}

fn report(name: &str, unit: &str, value: f64) {
    println!("{{\"name\":\"{name}\",\"unit\":\"{unit}\",\"value\":{value:.2}}}");
}

fn key(number: u64) -> String {
    format!("bench/{number:07}")
}

fn in_memory() -> KeyOptions {
    KeyOptions { durability: Some(Durability::Memory), ..KeyOptions::default() }
}

fn million(daemon: &Daemon) {
    let mut client = client(daemon);
    fill(&mut client, 0, FEW);
    // The history of changes is as long as it ever is when this has been done.
    let (get_few, put_few) = points(&mut client, FEW);
    let before = daemon.resident_bytes();
    fill(&mut client, FEW, MANY);
    let each = (daemon.resident_bytes() - before) as f64 / (MANY - FEW) as f64;
    let (get_many, put_many) = points(&mut client, MANY);
    report("key_memory", "bytes", each);
    report("key_get_1000", "us", get_few);
    report("key_get_1000000", "us", get_many);
    report("key_get_ratio", "x", get_many / get_few);
    report("key_put_1000", "us", put_few);
    report("key_put_1000000", "us", put_many);
    report("key_put_ratio", "x", put_many / put_few);
}

fn fill(client: &mut Client, from: u64, to: u64) {
    for first in (from..to).step_by(TOGETHER as usize) {
        let puts = (first..to.min(first + TOGETHER)).fold(Transaction::new(), |puts, number| {
            puts.put(&key(number), VALUE.to_vec(), Condition::Absent)
        });
        client.transact(&puts.durability(Durability::Memory)).expect("there is room");
    }
}

/// The medians of gets and of puts of keys drawn at random, in microseconds.
fn points(client: &mut Client, keys: u64) -> (f64, f64) {
    let mut rng = Rng::new(keys);
    let mut time = |ask: &mut dyn FnMut(&str)| {
        let mut times: Vec<f64> = (0..POINTS)
            .map(|_| {
                let key = key(rng.below(keys));
                let begun = Instant::now();
                ask(&key);
                begun.elapsed().as_secs_f64() * 1e6
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[POINTS / 2]
    };
    let get = time(&mut |key| {
        client.get_key(key).expect("it is there");
    });
    let put = time(&mut |key| {
        client.put_key(key, VALUE.to_vec(), &in_memory()).expect("there is room");
    });
    (get, put)
}

/// Changes of one key to those who watch it, beside events to as many subscribers.
fn fan_out(daemon: &Daemon) {
    let mut source = client(daemon);
    let mut watchers: Vec<(Client, KeyWatch)> = (0..WATCHERS)
        .map(|_| {
            let mut client = client(daemon);
            let watch = client.watch_keys(Selection::Prefix("bench/".to_owned()), None).expect("a watch");
            (client, watch)
        })
        .collect();
    for (client, watch) in &mut watchers {
        let first = client.next_key_event(watch, PATIENCE).expect("the daemon answers");
        assert!(matches!(first, Some(KeyEvent::UpToDate { .. })), "{first:?}");
    }
    let begun = Instant::now();
    for _ in 0..BATCHES {
        for _ in 0..BATCH {
            source.put_key("bench/one", VALUE.to_vec(), &in_memory()).expect("there is room");
        }
        for (client, watch) in &mut watchers {
            for _ in 0..BATCH {
                let event = client.next_key_event(watch, PATIENCE).expect("the daemon answers");
                assert!(matches!(event, Some(KeyEvent::Changed(_))), "{event:?}");
            }
        }
    }
    let watched = rate(begun);
    drop(watchers);

    let mut subscribers: Vec<(Client, Subscription)> = (0..WATCHERS)
        .map(|_| {
            let mut client = client(daemon);
            let subscription =
                client.subscribe("bench.>", SubscribeOptions::default()).expect("a subscription");
            (client, subscription)
        })
        .collect();
    let begun = Instant::now();
    for _ in 0..BATCHES {
        for _ in 0..BATCH {
            source.publish("bench.one", VALUE.to_vec()).expect("the daemon takes it");
        }
        for (client, subscription) in &mut subscribers {
            for _ in 0..BATCH {
                let event = client.next_delivery(subscription, PATIENCE).expect("the daemon answers");
                assert!(matches!(event, Some(Delivery::Event(_))), "{event:?}");
            }
        }
    }
    let published = rate(begun);
    report("watch_fanout_1000", "deliveries/s", watched);
    report("event_fanout_1000", "deliveries/s", published);
    report("watch_fanout_ratio", "x", watched / published);
}

fn rate(begun: Instant) -> f64 {
    (WATCHERS * BATCH * BATCHES) as f64 / begun.elapsed().as_secs_f64()
}
