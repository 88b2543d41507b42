//! What several processes see while the daemon is killed again and again, and some of them too, could have happened one after
//! the other: for keys, locks and work queues.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use ipc_tests::daemon::{Daemon, Options};
use ipc_tests::histories::entries::Entry;
use ipc_tests::histories::gather::{Account, Crash, Durable, Histories};
use ipc_tests::histories::keys::Key;
use ipc_tests::histories::locks::Lock;
use ipc_tests::histories::record::Line;
use ipc_tests::histories::{Event, Spec, check};
use ipc_tests::pace::pass;
use ipc_tests::programs::program;
use ipc_tests::rng::{Rng, amount, for_each_seed};

const WORKERS: usize = 4;
const STEPS_MAX: usize = 5_000_000;

fn now() -> u64 {
    ipc_core::transport::clock::now().as_nanos()
}

/// A process at work, and the thread that reads what it writes.
struct Worker {
    child: Child,
    reader: JoinHandle<Vec<Line>>,
}

impl Worker {
    fn start(socket: &std::path::Path, seed: &str, durable: Durable) -> Self {
        let word = |is_durable| if is_durable { "disk" } else { "memory" };
        let mut child = Command::new(program("ipc-history-worker"))
            .arg(socket)
            .args([seed, word(durable.keys), word(durable.entries), word(durable.locks)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let reader = std::thread::spawn(move || {
            let mut stdout = stdout;
            let mut lines = Vec::new();
            let mut line = String::new();
            while stdout.read_line(&mut line).is_ok_and(|length| length > 0) {
                lines.extend(Line::parse(&line));
                line.clear();
            }
            lines
        });
        Self { child, reader }
    }

    /// Kills it.
    fn kill(mut self) -> Account {
        let killed = Some(now());
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
        Account { lines: self.reader.join().expect("the reader ends"), killed }
    }

    /// Lets it end.
    fn finish(mut self) -> Account {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("it ends");
        let lines = self.reader.join().expect("the reader ends");
        assert!(status.success(), "{status} after {:?}", lines.last());
        Account { lines, killed: None }
    }
}

/// Everything that was seen in one run.
struct Seen {
    accounts: Vec<Account>,
    crashes: Vec<Crash>,
    end: u64,
}

impl Seen {
    /// How many locks were granted by one daemon and given back to another.
    fn released_over_restarts(&self) -> usize {
        let mut count = 0;
        for account in &self.accounts {
            let mut granted_at = None;
            let mut asked = "";
            for line in &account.lines {
                match line {
                    Line::Asked { words, .. } => asked = words.first().map_or("", String::as_str),
                    Line::Ended { time, words, .. } if words.first().is_some_and(|word| word == "ok") => {
                        match (asked, granted_at) {
                            ("lock", _) => granted_at = Some(*time),
                            ("unlock", Some(from)) => {
                                let is_between = |crash: &Crash| from < crash.begun && crash.gone < *time;
                                count += usize::from(self.crashes.iter().any(is_between));
                            }
                            _ => {}
                        }
                    }
                    Line::Ended { .. } | Line::Parted { .. } => {}
                }
            }
        }
        count
    }
}

fn run(rng: &mut Rng, restarts: usize, durable: Durable) -> Seen {
    let places = tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").expect("a directory");
    let options = Options {
        runtime_dir: Some(places.path().join("run")),
        state_dir: Some(places.path().join("state")),
        ..Options::default()
    };
    let mut daemon = Daemon::start_with(&options);
    let socket = daemon.socket();
    let start = |rng: &mut Rng| Worker::start(&socket, &rng.next_u32().to_string(), durable);
    let mut workers: Vec<Worker> = (0..WORKERS).map(|_| start(rng)).collect();
    let (mut accounts, mut crashes) = (Vec::new(), Vec::new());
    for _ in 0..restarts {
        pass(Duration::from_millis(rng.between(50, 500)));
        if rng.chance(1, 3) {
            let victim = workers.remove(rng.index(workers.len()));
            accounts.push(victim.kill());
            workers.push(start(rng));
            pass(Duration::from_millis(rng.below(20)));
        }
        let begun = now();
        daemon.kill();
        let gone = now();
        daemon = Daemon::start_with(&options);
        crashes.push(Crash { begun, gone, back: now() });
    }
    pass(Duration::from_millis(200));
    accounts.extend(workers.into_iter().map(Worker::finish));
    accounts.push(Worker::start(&socket, "drain", durable).finish());
    Seen { accounts, crashes, end: now() }
}

#[track_caller]
fn judge<S: Spec>(what: &str, spec: &S, history: &[Event<S::Op>]) {
    if let Err(violation) = check(spec, history, STEPS_MAX) {
        panic!("{what} cannot have been: {violation}");
    }
}

fn hold_against_their_promises(durable: Durable) {
    for_each_seed(1, 1, |_, mut rng| {
        let restarts = amount(30, 500);
        let seen = run(&mut rng, restarts, durable);
        let histories = Histories::gather(&seen.accounts, &seen.crashes, durable, seen.end);
        for (key, history) in &histories.keys {
            judge(key, &Key, history);
        }
        for (lock, history) in &histories.locks {
            judge(lock, &Lock, history);
        }
        for ((queue, id), history) in &histories.entries {
            judge(&format!("{id} of {queue}"), &Entry, history);
        }
        let over_restarts = seen.released_over_restarts();
        let lengths = [
            histories.keys.values().map(Vec::len).sum::<usize>(),
            histories.locks.values().map(Vec::len).sum(),
            histories.entries.len(),
        ];
        eprintln!("{restarts} restarts, {lengths:?} operations and entries, {} unknown", histories.unknown);
        assert_eq!(seen.crashes.len(), restarts);
        assert!(!durable.locks || over_restarts > 0, "no lock was held over a restart");
        eprintln!("{over_restarts} locks were held over restarts and given back");
        // A run in which no daemon died in the middle of something has shown nothing.
        assert!(histories.unknown >= restarts / 3, "{} unknown", histories.unknown);
        assert!(lengths.iter().all(|length| *length > 10 * restarts), "{lengths:?}");
    });
}

#[test]
fn what_is_on_the_disk_keeps_its_promises_whenever_the_daemon_dies() {
    hold_against_their_promises(Durable { keys: true, entries: true, locks: true });
}

#[test]
fn what_is_in_memory_keeps_its_promises_until_the_daemon_dies_and_is_gone_then() {
    hold_against_their_promises(Durable { keys: false, entries: false, locks: false });
}
