//! SHELL. A process that locks, puts, takes and acknowledges at random, and writes down what it asks and what it hears.
//!
//! `ipc-history-worker SOCKET SEED KEY_DURABILITY QUEUE_DURABILITY LOCK_DURABILITY`, where a durability is `memory` or `disk`. It works until its
//! standard input closes, and begins anew with another connection when one is lost. `drain` instead of the seed takes what is
//! in the queues, and ends. What it writes is in `ipc_tests::histories::record`.

use std::collections::BTreeMap;
use std::io::{Read as _, Stdout, stdin, stdout};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::spawn;
use std::time::Duration;

use ipc_core::blocking::{
    Client, Condition, ConnectOptions, Durability, EntryOptions, HoldOptions, KeyOptions, NackOptions,
    TakeOptions,
};
use ipc_core::{Address, Error, ErrorCode};
use ipc_tests::histories::gather::LOCK_TTL;
use ipc_tests::histories::record::Recorder;
use ipc_tests::pace::pass;
use ipc_tests::rng::Rng;

const KEYS: [&str; 3] = ["k/a", "k/b", "k/c"];
const LOCKS: [&str; 2] = ["l/a", "l/b"];
const QUEUES: [&str; 2] = ["q/a", "q/b"];
/// How long it works on something at most.
const WORK_MAX_US: u64 = 3000;
/// The same, for what is done under a lock now and then.
const LONG_WORK_MAX_MS: u64 = 150;
/// What waits in a queue before nothing more is put, as far as this process knows.
const PUT_SHARE: (u64, u64) = (2, 5);

/// The connection is over.
struct Parted;

type Step = Result<(), Parted>;

struct Worker {
    socket: PathBuf,
    rng: Rng,
    recorder: Recorder<Stdout>,
    key_durability: Durability,
    queue_durability: Durability,
    lock_durability: Durability,
    /// Names what this process puts apart from what others put.
    name: String,
    puts: u64,
    /// The last revision that it has seen of each key.
    seen: BTreeMap<&'static str, u64>,
    /// A put whose outcome is not known: it is asked for again, over another connection.
    doubtful: Option<(&'static str, String)>,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("SOCKET SEED KEY_DURABILITY QUEUE_DURABILITY LOCK_DURABILITY");
    let (socket, seed) = (PathBuf::from(next()), next());
    let is_drain = seed == "drain";
    let seed: u64 = if is_drain { 0 } else { seed.parse().expect("a seed") };
    let mut worker = Worker {
        socket,
        rng: Rng::new(seed),
        recorder: Recorder::new(stdout(), now),
        key_durability: durability(&next()),
        queue_durability: durability(&next()),
        lock_durability: durability(&next()),
        name: format!("{}-{seed}", std::process::id()),
        puts: 0,
        seen: BTreeMap::new(),
        doubtful: None,
    };
    let stopping = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stopping);
    // Ends with the process; it holds nothing.
    spawn(move || {
        let mut nothing = [0; 16];
        while matches!(stdin().read(&mut nothing), Ok(1..)) {}
        told.store(true, Ordering::Release);
    });
    if is_drain {
        return worker.drain();
    }
    while !stopping.load(Ordering::Acquire) {
        let Some(mut client) = worker.connect() else { continue };
        while !stopping.load(Ordering::Acquire) {
            if worker.step(&mut client).is_err() {
                break;
            }
        }
        worker.write(Recorder::parted);
    }
}

fn durability(word: &str) -> Durability {
    match word {
        "memory" => Durability::Memory,
        "disk" => Durability::Disk,
        other => panic!("no durability: {other}"),
    }
}

fn now() -> u64 {
    ipc_core::transport::clock::now().as_nanos()
}

impl Worker {
    fn connect(&mut self) -> Option<Client> {
        let address = Address::Unix(self.socket.clone());
        let options = ConnectOptions { address: Some(address), ..ConnectOptions::default() };
        let connected = Client::connect(options).ok();
        if connected.is_none() {
            pass(Duration::from_millis(1));
        }
        connected
    }

    fn write(&mut self, line: impl FnOnce(&mut Recorder<Stdout>) -> std::io::Result<()>) {
        line(&mut self.recorder).expect("somebody reads");
    }

    fn asks(&mut self, operation: &str) -> u64 {
        self.recorder.asks(operation).expect("somebody reads")
    }

    /// Writes down what became of it: as the words say, or why it is not known.
    fn heard(&mut self, number: u64, outcome: Result<String, Error>) -> Step {
        let (words, goes_on) = match outcome {
            Ok(words) => (words, true),
            Err(error) => match error.code {
                ErrorCode::Busy => ("busy".to_owned(), true),
                ErrorCode::LockLost => ("lost".to_owned(), true),
                ErrorCode::RevisionMismatch | ErrorCode::NoSuchKey => ("no".to_owned(), true),
                ErrorCode::Unreachable => ("unsent".to_owned(), false),
                ErrorCode::OutcomeUnknown | ErrorCode::DeadlineExceeded | ErrorCode::StorageFailed => {
                    ("unknown".to_owned(), false)
                }
                // It was refused, and nothing has happened.
                ErrorCode::ShuttingDown => ("unsent".to_owned(), false),
                other => panic!("{other}: {error}"),
            },
        };
        self.write(|recorder| recorder.ended(number, &words));
        if goes_on { Ok(()) } else { Err(Parted) }
    }

    fn step(&mut self, client: &mut Client) -> Step {
        if let Some((queue, id)) = self.doubtful.take() {
            return self.enqueue(client, queue, id);
        }
        match self.rng.below(10) {
            0..=3 => self.key(client),
            4 | 5 => self.lock(client),
            _ if self.rng.chance(PUT_SHARE.0, PUT_SHARE.1) => {
                self.puts += 1;
                let queue = *self.rng.pick(&QUEUES);
                let id = format!("{}-{}", self.name, self.puts);
                self.enqueue(client, queue, id)
            }
            _ => self.take(client),
        }
    }

    fn key(&mut self, client: &mut Client) -> Step {
        let key = *self.rng.pick(&KEYS);
        match self.rng.below(6) {
            0 => {
                let number = self.asks(&format!("delete {key}"));
                let options = KeyOptions { durability: Some(self.key_durability), ..KeyOptions::default() };
                let deleted = client.delete_key(key, &options);
                self.heard(number, deleted.map(|done| format!("ok {}", done.revision)))
            }
            1..=3 => self.put(client, key),
            _ => {
                let number = self.asks(&format!("get {key}"));
                let words = match client.get_key(key) {
                    Ok(found) => {
                        self.seen.insert(key, found.revision);
                        let value = found.value.as_text().expect("text");
                        Ok(format!("some {} {value}", found.revision))
                    }
                    Err(error) if error.code == ErrorCode::NoSuchKey => Ok("none".to_owned()),
                    Err(error) => Err(error),
                };
                self.heard(number, words)
            }
        }
    }

    fn put(&mut self, client: &mut Client, key: &'static str) -> Step {
        self.puts += 1;
        // Unlike all others of this history: nothing else has this process and this count.
        let value = u64::from(std::process::id()) * 1_000_000 + self.puts;
        let (condition, words) = match (self.rng.below(4), self.seen.get(key).copied()) {
            (0, _) => (Condition::Absent, " absent".to_owned()),
            (1 | 2, Some(revision)) => (Condition::Revision(revision), format!(" revision {revision}")),
            _ => (Condition::Any, String::new()),
        };
        let number = self.asks(&format!("put {key} {value}{words}"));
        let durability = Some(self.key_durability);
        let options = KeyOptions { condition, durability, ..KeyOptions::default() };
        let put = client.put_key(key, value.to_string(), &options);
        if let Ok(done) = &put {
            self.seen.insert(key, done.revision);
        }
        self.heard(number, put.map(|done| format!("ok {}", done.revision)))
    }

    fn lock(&mut self, client: &mut Client) -> Step {
        let lock = *self.rng.pick(&LOCKS);
        let wait = if self.rng.chance(1, 2) { Duration::ZERO } else { Duration::from_millis(20) };
        let number = self.asks(&format!("lock {lock}"));
        let is_kept = self.lock_durability > Durability::Memory;
        let (durability, ttl) = (Some(self.lock_durability), is_kept.then_some(LOCK_TTL));
        let options = HoldOptions { wait: Some(wait), durability, ttl, ..HoldOptions::default() };
        let mut held = match client.lock(lock, options) {
            Ok(held) => held,
            Err(error) => return self.heard(number, Err(error)),
        };
        let token = held.token();
        self.heard(number, Ok(format!("ok {token}")))?;
        if is_kept && self.rng.chance(1, 4) {
            pass(Duration::from_millis(self.rng.below(LONG_WORK_MAX_MS)));
        } else {
            pass(Duration::from_micros(self.rng.below(WORK_MAX_US)));
        }
        if is_kept {
            // A daemon that died meanwhile is waited for, and asked whether it still is.
            while held.check().is_err_and(|error| error.code == ErrorCode::Unreachable) {
                if held.client().reconnect().is_err() {
                    pass(Duration::from_millis(1));
                }
            }
        }
        let number = self.asks(&format!("unlock {lock} {token}"));
        self.heard(number, held.release().map(|()| "ok".to_owned()))
    }

    fn enqueue(&mut self, client: &mut Client, queue: &'static str, id: String) -> Step {
        let number = self.asks(&format!("enqueue {queue} {id}"));
        let durability = Some(self.queue_durability);
        let options = EntryOptions { id: Some(id.clone()), durability, ..EntryOptions::default() };
        let put = client.put_entry(queue, id.as_str(), &options);
        let words = put.map(|done| if done.is_duplicate { "duplicate" } else { "ok" }.to_owned());
        let heard = self.heard(number, words);
        if heard.is_err() {
            self.doubtful = Some((queue, id));
        }
        heard
    }

    fn take(&mut self, client: &mut Client) -> Step {
        let queue = *self.rng.pick(&QUEUES);
        let wait = if self.rng.chance(1, 2) { Duration::ZERO } else { Duration::from_millis(20) };
        let number = self.asks(&format!("take {queue}"));
        let work = match client.take_entry(queue, &TakeOptions { wait: Some(wait), ..TakeOptions::default() })
        {
            Ok(work) => work,
            Err(error) if error.code == ErrorCode::Busy => {
                return self.heard(number, Ok("nothing".to_owned()));
            }
            Err(error) => return self.heard(number, Err(error)),
        };
        let (id, token) = (work.id.clone(), work.delivery);
        self.heard(number, Ok(format!("ok {id} {token}")))?;
        pass(Duration::from_micros(self.rng.below(WORK_MAX_US)));
        if self.rng.chance(1, 4) {
            let number = self.asks(&format!("nack {queue} {id} {token}"));
            return self.heard(number, work.nack(&NackOptions::default()).map(|_| "ok".to_owned()));
        }
        let number = self.asks(&format!("ack {queue} {id} {token}"));
        self.heard(number, work.ack().map(|()| "ok".to_owned()))
    }

    /// Takes and acknowledges what is there.
    fn drain(&mut self) {
        let Some(mut client) = self.connect() else { panic!("no daemon") };
        for queue in QUEUES {
            loop {
                let number = self.asks(&format!("take {queue}"));
                let once = TakeOptions { wait: Some(Duration::ZERO), ..TakeOptions::default() };
                let work = match client.take_entry(queue, &once) {
                    Ok(work) => work,
                    Err(error) if error.code == ErrorCode::Busy => {
                        let _goes_on = self.heard(number, Ok("nothing".to_owned()));
                        break;
                    }
                    Err(error) => panic!("{error}"),
                };
                let (id, token) = (work.id.clone(), work.delivery);
                let _goes_on = self.heard(number, Ok(format!("ok {id} {token}")));
                let number = self.asks(&format!("ack {queue} {id} {token}"));
                work.ack().expect("it is open");
                let _goes_on = self.heard(number, Ok("ok".to_owned()));
            }
        }
    }
}
