//! Through a proxy that loses, doubles and reorders datagrams: every call has one outcome and ran at most once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipc_core::Address;
use ipc_core::blocking::{Client, Service};
use ipc_tests::daemon::Daemon;
use ipc_tests::lossy::{Proxy, Weather};
use ipc_tests::rng::{amount, for_each_seed};
use ipc_tests::services::serve;
use std::sync::atomic::Ordering;

use super::{addresses, counter, daemon, options};

type Runs = Arc<Mutex<HashMap<String, u32>>>;

/// A service that counts how often each payload has run.
fn serve_counting(daemon: &Daemon) -> Runs {
    let runs = Runs::default();
    let counted = Arc::clone(&runs);
    let service = Service::new("test.count").unwrap().method("count", move |request| {
        let text = request.payload.as_text()?.to_owned();
        *counted.lock().unwrap().entry(text.clone()).or_default() += 1;
        Ok(text)
    });
    serve(daemon, service);
    runs
}

/// Some clients call side by side; every call must succeed, and have run once.
fn call_through(proxy: &Proxy, name: &str, clients: usize, calls: usize) -> usize {
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..clients)
            .map(|number| {
                let address = proxy.address.clone();
                scope.spawn(move || {
                    let mut client = Client::connect(options(&address)).unwrap();
                    for call in 0..calls {
                        let text = format!("{name}-{number}-{call}");
                        let reply = client.call("test.count", "count", text.as_str()).unwrap();
                        assert_eq!(reply.payload.as_text().unwrap(), text);
                    }
                    calls
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).sum()
    })
}

fn in_bad_weather(which: usize) {
    let daemon = daemon();
    let runs = serve_counting(&daemon);
    let address: Address = addresses(&daemon)[which].clone();
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let delay = Duration::from_millis(amount(5, 100));
    let (clients, calls) = (amount(8, 16), amount(15, 30));
    let mut expected = 0;
    let (mut lost, mut doubled) = (0, 0);
    for_each_seed(2, 20, |seed, _| {
        let proxy = Proxy::start(&address, directory.path(), Weather::bad(delay), seed);
        expected += call_through(&proxy, &format!("seed-{seed}"), clients, calls);
        lost += proxy.toll.lost.load(Ordering::Relaxed);
        doubled += proxy.toll.doubled.load(Ordering::Relaxed);
    });
    let runs = runs.lock().unwrap();
    assert_eq!(runs.len(), expected, "every call that was answered has run");
    let twice: Vec<_> = runs.iter().filter(|(_, count)| **count != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(lost > 0 && doubled > 0, "the weather was fair");
    assert!(counter(&daemon, "datagrams_doubled") > 0);
}

#[test]
fn local_calls_run_once_in_bad_weather() {
    in_bad_weather(0);
}

#[test]
fn network_calls_run_once_in_bad_weather() {
    in_bad_weather(1);
}
