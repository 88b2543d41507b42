//! One user floods with all it may, and another one calls.
//!
//! What the second one waits for is the machine's doing and the bus's. To tell them apart, everything is measured twice: while
//! the first one floods another daemon of the same machine, and while it floods the one that is measured. And it is measured in
//! two places: `apart`, where those who flood have a processor with their services and the other daemon, and the daemon has one
//! with whoever is measured and its service, who run there whenever they can (SCHED_FIFO), so that what is left is what the bus
//! adds; and `free`, where the kernel puts everybody where it likes, and the daemon, which is busy all the time then, waits for
//! its processor as everybody does.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ipc_core::blocking::{Client, Service};
use ipc_core::wire::coordination::{Claim, LockMode, Operation, TakeLock};
use ipc_core::wire::{Header, Kind};
use ipc_core::{Address, ConnectOptions, Error, id::Handle};
use ipc_tests::daemon::{Daemon, PATIENCE};
use ipc_tests::raw::{RawPeer, frame};
use ipc_tests::services::{serve, serve_echo};
use ipc_tests::users::{STRANGERS, as_user, become_user, shared_bus};
use rustix::process::Pid;
use rustix::thread::{CpuSet, gettid, sched_setaffinity};

use super::{PAYLOAD, median, rate, report};

/// How long the one who does not flood is measured at a time.
const CALM: Duration = Duration::from_secs(1);
/// How often; the figure is the median.
const ROUNDS: usize = 3;
/// What one who floods sends at a time where it does not wait for each answer.
const BATCH: u64 = 256;
/// A bus where everybody may do everything.
const OPEN: &str = "[socket]\nmode = \"0666\"\n[policy]\nrules = [\"allow anyone * >\"]\n";

/// A way to flood; each is a thread with a connection.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Calls, 64 of them open.
    Calls,
    /// Events that nobody gets.
    Events,
    /// Calls of 1 MiB, one after the other.
    Payloads,
    /// Connections that say hello and end.
    Connections,
    /// Calls over datagrams, 64 of them open.
    Datagrams,
    /// Requests for locks.
    Requests,
    /// Lists of all there is.
    Lists,
}

const WAYS: [(&str, &[Way]); 8] = [
    ("calls", &[Way::Calls]),
    ("events", &[Way::Events]),
    ("payloads", &[Way::Payloads]),
    ("connections", &[Way::Connections]),
    ("datagrams", &[Way::Datagrams]),
    ("requests", &[Way::Requests]),
    ("lists", &[Way::Lists]),
    (
        "all",
        &[
            Way::Calls,
            Way::Events,
            Way::Payloads,
            Way::Connections,
            Way::Datagrams,
            Way::Requests,
            Way::Lists,
        ],
    ),
];

/// Where everybody runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    Apart,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Place::Free => "free",
            Place::Apart => "apart",
        }
    }
}

/// The p99 of a call of one user to a service of its own that nobody else calls: alone, while another user floods a bus of its own
/// beside it, and while that one floods the same bus. With names of ways only these.
pub(super) fn measure(asked: &[String]) {
    let is_asked = |name: &str| asked.iter().any(|word| word == name);
    let mut ways: Vec<_> = WAYS.into_iter().filter(|(name, _)| is_asked(name)).collect();
    if ways.is_empty() {
        ways.extend(WAYS);
    }
    for place in [Place::Apart, Place::Free] {
        let (daemon, _directory) = shared_bus(OPEN);
        let (other, _other_directory) = shared_bus(OPEN);
        settle(place, &daemon, 0);
        settle(place, &other, 1);
        // On a thread of its own, whose place services inherit.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if place == Place::Apart {
                    pin(None, 1);
                }
                for daemon in [&daemon, &other] {
                    serve_echo(daemon);
                }
                if place == Place::Apart {
                    pin(None, 0);
                    schedule(&["--fifo", "--pid", "1"]);
                }
                compare(place, &ways, &daemon, &other);
            });
        });
    }
}

fn compare(place: Place, ways: &[(&str, &[Way])], daemon: &Daemon, other: &Daemon) {
    let echo =
        Service::new("test.calm").expect("a name").method("echo", |request| Ok(request.payload.clone()));
    as_user(STRANGERS[1], &[], || serve(daemon, echo));
    let mut calm = connect_as(Address::Unix(daemon.socket()), STRANGERS[1]);
    let name = place.name();
    report(&format!("flood_{name}_none_p99"), "us", p99(&mut calm));
    for (way, threads) in ways {
        let rounds: Vec<[f64; 2]> = (0..ROUNDS)
            .map(|_| {
                [other, daemon].map(|flooded| beside_a_flood(place, threads, flooded, || p99(&mut calm)))
            })
            .collect();
        let [elsewhere, here] = [0, 1].map(|at| median(rounds.iter().map(|round| round[at]).collect()));
        report(&format!("flood_{name}_{way}_elsewhere_p99"), "us", elsewhere);
        report(&format!("flood_{name}_{way}_here_p99"), "us", here);
        report(&format!("flood_{name}_{way}_ratio"), "", here / elsewhere);
    }
}

fn settle(place: Place, daemon: &Daemon, cpu: usize) {
    if place == Place::Apart {
        let pid = i32::try_from(daemon.pid()).expect("a process id");
        pin(Pid::from_raw(pid), cpu);
    }
}

/// The calling thread for none.
fn pin(thread: Option<Pid>, cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(thread, &set).expect("there are two processors");
}

/// Has the calling thread, and what it starts from here on, scheduled in that way (chrt(1)).
fn schedule(how: &[&str]) {
    let thread = gettid().as_raw_nonzero().to_string();
    let scheduled = Command::new("chrt").args(how).arg(thread).status().expect("chrt is installed");
    assert!(scheduled.success(), "root may");
}

fn connect_as(address: Address, uid: u32) -> Client {
    as_user(uid, &[], || connect(address))
}

fn connect(address: Address) -> Client {
    let options = ConnectOptions::new().address(address).call_timeout(PATIENCE);
    Client::connect(options).expect("everybody may connect")
}

fn p99(client: &mut Client) -> f64 {
    let begun = Instant::now();
    let mut times = Vec::new();
    while begun.elapsed() < CALM {
        let asked = Instant::now();
        client.call("test.calm", "echo", PAYLOAD.to_vec()).expect("an answer");
        times.push(asked.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() * 99 / 100]
}

/// Runs `work` while a user floods that bus in these ways.
fn beside_a_flood<T>(place: Place, ways: &[Way], daemon: &Daemon, work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    let ready = std::sync::Barrier::new(ways.len() + 1);
    std::thread::scope(|scope| {
        for way in ways {
            let (stop, ready) = (&stop, &ready);
            scope.spawn(move || {
                if place == Place::Apart {
                    pin(None, 1);
                    schedule(&["--other", "--pid", "0"]);
                }
                become_user(STRANGERS[0], &[]);
                let mut wave = wave(*way, daemon);
                ready.wait();
                while !stop.load(Ordering::Relaxed) {
                    // What is refused is refused; it goes on.
                    drop(wave());
                }
            });
        }
        ready.wait();
        let done = work();
        stop.store(true, Ordering::Relaxed);
        done
    })
}

/// A part of the flood, to be repeated.
fn wave(way: Way, daemon: &Daemon) -> Box<dyn FnMut() -> Result<(), Error>> {
    let stream = Address::Unix(daemon.socket());
    match way {
        Way::Calls => {
            let mut client = connect(stream);
            Box::new(move || {
                rate(&mut client);
                Ok(())
            })
        }
        Way::Datagrams => {
            let mut client = connect(Address::Dgram(daemon.datagram_socket()));
            Box::new(move || {
                rate(&mut client);
                Ok(())
            })
        }
        Way::Events => {
            let mut client = connect(stream);
            Box::new(move || {
                (0..BATCH).try_for_each(|_| client.queue_publish("flood.topic", PAYLOAD.to_vec()))?;
                client.flush()
            })
        }
        Way::Payloads => {
            let mut client = connect(stream);
            Box::new(move || client.call("test.echo", "echo", vec![7; 1 << 20]).map(drop))
        }
        Way::Connections => {
            let socket = daemon.socket();
            Box::new(move || {
                drop(RawPeer::greeted(&socket));
                Ok(())
            })
        }
        Way::Requests => {
            let (mut peer, _) = RawPeer::greeted(&daemon.socket());
            let requests: Vec<u8> = (1..=BATCH).flat_map(request).collect();
            Box::new(move || {
                peer.send(&requests);
                (0..BATCH).for_each(|_| drop(peer.receive()));
                Ok(())
            })
        }
        Way::Lists => {
            let mut client = connect(stream);
            Box::new(move || client.call("ipc.daemon", "list", "all").map(drop))
        }
    }
}

/// A try for a lock.
fn request(number: u64) -> Vec<u8> {
    let handle = Handle { index: Operation::LOCK.0, generation: 0 };
    let claim = Claim { wait: false, ttl_us: 0, delay_us: 0, owner: 1, durability: None };
    let lock = TakeLock { name: "flood/lock".into(), mode: LockMode::Exclusive, claim };
    frame(Header::new(Kind::COORDINATE).with_correlation(number).with_handle(handle), &lock, &[])
}
