//! Many who do not read, and one who does not stop.

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ipc_core::blocking::{Client, SubscribeOptions};
use ipc_tests::daemon::Daemon;
use ipc_tests::rng::amount;
use ipc_tests::services::{client, serve_echo};

use super::bad_days::Raw;
use super::{addresses, connect, counter, daemon};

/// Clients that never read their answers.
const DEAF: usize = 100;

/// How much of one processor the daemon has used while `during` ran.
fn load(daemon: &Daemon, during: impl FnOnce()) -> f64 {
    let (before, started) = (daemon.cpu_time(), Instant::now());
    during();
    (daemon.cpu_time() - before).as_secs_f64() / started.elapsed().as_secs_f64()
}

fn is_served(client: &mut Client) {
    let reply = client.call("test.echo", "echo", "hello").unwrap();
    assert_eq!(reply.payload.as_text().unwrap(), "hello");
}

#[test]
fn those_who_never_read_cost_little_and_hurt_nobody() {
    let daemon = daemon();
    serve_echo(&daemon);
    let [local, _] = addresses(&daemon);
    let deaf: Vec<Raw> = (0..DEAF).map(|_| Raw::greeted(&local)).collect();
    for raw in &deaf {
        for id in 1..=20 {
            // Each may be open as well as all before it.
            let mut call = raw.call(id);
            call[36..40].copy_from_slice(&(id as u32 - 1).to_le_bytes());
            raw.socket.send(&call).unwrap();
        }
    }
    let mut stream = client(&daemon);
    let silence = stream.subscribe("test.silence", SubscribeOptions::default()).unwrap();
    let mut datagrams = connect(&local);
    let time = Duration::from_millis(amount(1500, 10_000));
    let share = load(&daemon, || {
        let end = Instant::now() + time;
        while Instant::now() < end {
            // They ask again and again, and never read.
            for raw in &deaf {
                raw.socket.send(&raw.call(1)).unwrap();
            }
            is_served(&mut stream);
            is_served(&mut datagrams);
            // Nobody publishes: that is what a bus in peace sounds like.
            let heard = stream.next_delivery(&silence, Duration::from_millis(100)).unwrap();
            assert_eq!(heard, None);
        }
    });
    println!("the daemon used {:.1} % of a processor", share * 100.0);
    assert!(share < 0.2, "{share}");
    drop(deaf);
    is_served(&mut datagrams);
}

#[test]
fn a_flood_from_one_sender_starves_nobody() {
    let daemon = daemon();
    serve_echo(&daemon);
    let [local, _] = addresses(&daemon);
    let stop = AtomicBool::new(false);
    let path = daemon.datagram_socket();
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let socket = UnixDatagram::unbound().unwrap();
            socket.connect(&path).unwrap();
            let mut sent = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                socket.send(&[0x89; 100]).unwrap();
                sent += 1;
            }
            sent
        });
        let mut stream = client(&daemon);
        let mut datagrams = connect(&local);
        for _ in 0..amount(50, 1000) {
            is_served(&mut stream);
            is_served(&mut datagrams);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(flood.join().unwrap() > 0);
    });
    assert!(counter(&daemon, "datagrams_malformed") > 0);
}
