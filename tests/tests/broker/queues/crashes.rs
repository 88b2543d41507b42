//! Work on a disk that is slow, full, fails and is started anew, against a ledger that knows what everybody was told: nobody gets what
//! is not kept yet, nobody gets what is acknowledged, and all else is there until it is; in random runs, each from one seed.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use ipc_core::ErrorCode;
use ipc_core::limits::Limits;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::{Bind, Durability, Operation};
use ipc_core::wire::queue::{Ack, Delivered, Enqueue, Enqueued, Nack, Take};
use ipc_daemon::broker::Fault;
use ipc_tests::disk::Disk;
use ipc_tests::memory_bus::Received;
use ipc_tests::rng::{Rng, for_each_seed};

use super::{entry, take};
use crate::coordination::Scene;

const CLIENTS: usize = 3;

/// What is known of something that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It was not asked for, or refused.
    No,
    /// It was asked for and not answered yet.
    Open,
    Yes,
    /// Whoever asked is gone, or the daemon is.
    Maybe,
}

/// An entry.
#[derive(Clone, Copy, Debug)]
struct Case {
    durability: Durability,
    put: Known,
    ack: Known,
    /// Who has it.
    taker: Option<usize>,
}

/// A request that has no outcome yet; the entries that it is about are numbered.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Put(usize),
    Take,
    Ack(usize),
    Nack(usize),
}

/// What has happened at all, over all runs: a fault that never fired proves nothing.
#[derive(Debug, Default)]
struct Coverage {
    full: u64,
    dead: u64,
    restarts: u64,
    acked: u64,
    redelivered_after_restart: u64,
    found_unanswered: u64,
}

struct World<'a> {
    scene: Scene,
    clients: Vec<usize>,
    open: Vec<(usize, u64, Asked)>,
    cases: Vec<Case>,
    /// Deliveries that are open, by entry.
    tokens: BTreeMap<usize, u64>,
    /// The highest token that was told.
    last: u64,
    /// What the daemon has called entries.
    numbers: BTreeSet<u64>,
    /// The entries that there were when the daemon was started last.
    begun_with: usize,
    coverage: &'a mut Coverage,
}

impl<'a> World<'a> {
    fn new(coverage: &'a mut Coverage) -> Self {
        let scene = Scene::with_disk(Limits::default(), Instant::from_nanos(1_000_000_000), Disk::default());
        let mut world = Self {
            scene,
            clients: Vec::new(),
            open: Vec::new(),
            cases: Vec::new(),
            tokens: BTreeMap::new(),
            last: 0,
            numbers: BTreeSet::new(),
            begun_with: 0,
            coverage,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.disk().holds = true;
        self.clients = (0..CLIENTS).map(|_| self.scene.client()).collect();
    }

    fn disk(&mut self) -> &mut Disk {
        self.scene.bus.disk.as_mut().expect("a disk")
    }

    /// Whether nothing is written any more until a restart.
    fn is_disk_dead(&mut self) -> bool {
        matches!(self.disk().fault, Some(Fault::Dead(_)))
    }

    fn step(&mut self, rng: &mut Rng) {
        let client = *rng.pick(&self.clients);
        match rng.below(40) {
            0..=8 => self.put(rng, client),
            9..=15 => self.take(rng, client),
            16..=22 => self.settle(rng, client),
            23..=33 => drop(self.scene.bus.finish_commit()),
            34 if !self.is_disk_dead() => {
                let is_full = self.disk().fault.is_some();
                self.disk().fault = (!is_full).then(|| Fault::Full("no room".to_owned()));
            }
            35 if rng.chance(1, 6) => self.disk().fault = Some(Fault::Dead("the sync failed".to_owned())),
            36 if rng.chance(1, 2) => self.restart(rng.chance(1, 2), rng.below(2000)),
            37 if rng.chance(1, 2) => self.leave(client),
            _ => self.scene.bus.wait(Duration::from_millis(rng.below(1500))),
        }
        self.hear();
    }

    fn put(&mut self, rng: &mut Rng, client: usize) {
        let durability = *rng.pick(&[Durability::Memory, Durability::Os, Durability::Disk, Durability::Disk]);
        let priority = rng.below(3) as u16;
        let enqueue = Enqueue { durability: Some(durability), priority, ..entry("q") };
        let number = self.cases.len();
        let request = self.scene.ask(client, Operation::ENQUEUE, &enqueue, number.to_string().as_bytes());
        self.cases.push(Case { durability, put: Known::Open, ack: Known::No, taker: None });
        self.open.push((client, request, Asked::Put(number)));
    }

    fn take(&mut self, rng: &mut Rng, client: usize) {
        let take = Take { wait: rng.chance(1, 3), ..take("q", Bind::Session) };
        let request = self.scene.ask(client, Operation::TAKE, &take, b"");
        self.open.push((client, request, Asked::Take));
    }

    /// Acknowledges what the client has, or gives it back.
    fn settle(&mut self, rng: &mut Rng, client: usize) {
        let is_own = |number: &usize| {
            let case = &self.cases[*number];
            case.taker == Some(client) && case.ack != Known::Open
        };
        let own: Vec<usize> = self.tokens.keys().copied().filter(is_own).collect();
        if own.is_empty() {
            return;
        }
        let number = *rng.pick(&own);
        let delivery = self.tokens[&number];
        if rng.chance(1, 3) {
            let nack = Nack {
                queue: "q".into(),
                delivery,
                delay_us: 0,
                reason: "no".into(),
                is_untouched: false,
                fence: None,
            };
            let request = self.scene.ask(client, Operation::NACK, &nack, b"");
            self.open.push((client, request, Asked::Nack(number)));
        } else {
            self.ack(client, number);
        }
    }

    fn ack(&mut self, client: usize, number: usize) {
        let ack = Ack { queue: "q".into(), delivery: self.tokens[&number], fence: None };
        let request = self.scene.ask(client, Operation::ACK, &ack, b"");
        self.cases[number].ack = Known::Open;
        self.open.push((client, request, Asked::Ack(number)));
    }

    /// Takes every outcome that has come: what is given out after what was settled.
    fn hear(&mut self) {
        let mut given = Vec::new();
        for (client, request, asked) in core::mem::take(&mut self.open) {
            let operation = match asked {
                Asked::Put(_) => Operation::ENQUEUE,
                Asked::Take => Operation::TAKE,
                Asked::Ack(_) => Operation::ACK,
                Asked::Nack(_) => Operation::NACK,
            };
            let Some(outcome) = self.scene.take_outcome(client, operation, request) else {
                self.open.push((client, request, asked));
                continue;
            };
            let outcome = outcome.map_err(|body| ErrorCode::from_number(body.code).expect("a code"));
            match (asked, outcome) {
                (Asked::Put(number), Ok(done)) => self.was_put(number, &done.decode()),
                (Asked::Put(number), Err(code)) => {
                    self.was_refused(code, self.cases[number]);
                    self.cases[number].put = Known::No;
                }
                (Asked::Ack(number), Ok(_)) => {
                    self.coverage.acked += 1;
                    self.cases[number].ack = Known::Yes;
                    self.is_free(number);
                }
                (Asked::Ack(number), Err(code)) => {
                    self.was_refused(code, self.cases[number]);
                    self.cases[number].ack = Known::No;
                }
                (Asked::Nack(number), Ok(_)) => self.is_free(number),
                (Asked::Nack(number), Err(code)) => self.was_refused(code, self.cases[number]),
                (Asked::Take, Ok(done)) => given.push((client, done)),
                (Asked::Take, Err(code)) => assert_eq!(code, ErrorCode::Busy),
            }
        }
        for (client, done) in given {
            self.was_given(client, &done);
        }
    }

    fn is_free(&mut self, number: usize) {
        self.cases[number].taker = None;
        self.tokens.remove(&number);
    }

    fn was_put(&mut self, number: usize, done: &Enqueued) {
        let case = &mut self.cases[number];
        assert_eq!((done.durability, done.is_duplicate), (case.durability, false));
        case.put = Known::Yes;
        assert!(self.numbers.insert(done.number), "two entries are {}", done.number);
    }

    /// Only the disk refuses anything here, and only what is to be kept.
    fn was_refused(&mut self, code: ErrorCode, case: Case) {
        assert_eq!(code, ErrorCode::StorageFailed, "{case:?}");
        assert!(case.durability > Durability::Memory, "{case:?} has nothing to do with the disk");
        match self.disk().fault {
            Some(Fault::Full(_)) => self.coverage.full += 1,
            Some(Fault::Dead(_)) => self.coverage.dead += 1,
            None => panic!("{case:?} was refused by a disk that works"),
        }
    }

    fn was_given(&mut self, client: usize, done: &Received) {
        let number: usize = core::str::from_utf8(&done.payload).expect("text").parse().expect("a number");
        let delivery = done.decode::<Delivered>().delivery;
        let case = &mut self.cases[number];
        assert!(matches!(case.put, Known::Yes | Known::Maybe), "{number} is given out: {case:?}");
        assert!(matches!(case.ack, Known::No | Known::Maybe), "{number} is given out again: {case:?}");
        assert_eq!(case.taker, None, "{number} is given to {client} too");
        assert!(!self.tokens.values().any(|token| *token == delivery) && delivery > 0);
        self.coverage.redelivered_after_restart += u64::from(number < self.begun_with);
        self.coverage.found_unanswered += u64::from(case.put == Known::Maybe);
        // It was there, and is.
        (case.put, case.ack, case.taker) = (Known::Yes, Known::No, Some(client));
        self.tokens.insert(number, delivery);
        self.last = self.last.max(delivery);
    }

    /// A client goes: what it has not acknowledged is for others, and of what it has asked nobody hears.
    fn leave(&mut self, client: usize) {
        self.scene.bus.leave(client);
        self.forget(|of| of == client);
        let place = self.clients.iter().position(|one| *one == client).expect("it was there");
        self.clients[place] = self.scene.client();
    }

    fn forget(&mut self, is_gone: impl Fn(usize) -> bool) {
        for (client, request, asked) in core::mem::take(&mut self.open) {
            match asked {
                _ if !is_gone(client) => self.open.push((client, request, asked)),
                Asked::Put(number) => self.cases[number].put = Known::Maybe,
                Asked::Ack(number) => self.cases[number].ack = Known::Maybe,
                Asked::Take | Asked::Nack(_) => {}
            }
        }
        let is_left = |number: &usize| self.cases[*number].taker.is_some_and(&is_gone);
        let left: Vec<usize> = self.tokens.keys().copied().filter(is_left).collect();
        left.into_iter().for_each(|number| self.is_free(number));
    }

    /// The daemon is killed, and another one starts with what is on the disk. Of the commit that was under way there is all or
    /// nothing.
    fn restart(&mut self, is_written: bool, millis: u64) {
        self.hear();
        self.coverage.restarts += 1;
        let disk = core::mem::take(self.disk()).crash(is_written);
        let now = self.scene.bus.now + Duration::from_millis(millis);
        self.forget(|_| true);
        for case in self.cases.iter_mut().filter(|case| case.durability == Durability::Memory) {
            case.put = Known::No;
        }
        self.scene = Scene::with_disk(Limits::default(), now, disk);
        self.begun_with = self.cases.len();
        let before = self.last;
        self.begin();
        // No token is given twice: the first of this life is above all before.
        let client = self.clients[0];
        let probe = self.scene.ask(client, Operation::TAKE, &take("q", Bind::Session), b"");
        self.open.push((client, probe, Asked::Take));
        self.hear();
        assert!(self.tokens.values().all(|token| *token > before), "{:?} after {before}", self.tokens);
    }

    /// Everything that was put and is not acknowledged is there, once, and nothing else.
    fn end(&mut self) {
        if self.is_disk_dead() {
            self.restart(false, 1);
        }
        self.disk().fault = None;
        while self.scene.bus.finish_commit() {}
        self.hear();
        self.restart(true, 1);
        for client in self.clients.clone() {
            self.leave(client);
        }
        let client = self.clients[0];
        let mut found = Vec::new();
        loop {
            self.take_all(client);
            let Some(number) = self.tokens.keys().copied().next() else { break };
            found.push(number);
            self.ack(client, number);
            while self.scene.bus.finish_commit() {}
            self.hear();
            assert_eq!(self.cases[number].ack, Known::Yes, "{number}");
        }
        for (number, case) in self.cases.iter().enumerate() {
            let is_due = case.put == Known::Yes && case.ack == Known::No;
            assert!(!is_due, "{number} is lost: {case:?}, found were {found:?}");
        }
    }

    fn take_all(&mut self, client: usize) {
        if self.tokens.is_empty() {
            let request = self.scene.ask(client, Operation::TAKE, &take("q", Bind::Session), b"");
            self.open.push((client, request, Asked::Take));
            self.hear();
        }
    }
}

#[test]
fn whatever_the_disk_does_work_is_done_once_it_is_kept_and_until_it_is_acknowledged() {
    let coverage = std::cell::RefCell::new(Coverage::default());
    for_each_seed(300, 20_000, |_, mut rng| {
        let mut coverage = coverage.borrow_mut();
        let mut world = World::new(&mut coverage);
        for _ in 0..250 {
            world.step(&mut rng);
        }
        world.end();
    });
    let coverage = coverage.into_inner();
    let Coverage { full, dead, restarts, acked, redelivered_after_restart, found_unanswered } = coverage;
    let fired = [full, dead, restarts, acked, redelivered_after_restart, found_unanswered];
    let is_one = std::env::var_os("IPC_TEST_SEED").is_some();
    assert!(is_one || fired.iter().all(|count| *count > 0), "not everything happened: {coverage:?}");
}
