//! Work queues against the obvious ones, in random runs, each from one seed.

use core::time::Duration;
use std::collections::BTreeMap;

use ipc_core::ErrorCode;
use ipc_core::limits::Limits;
use ipc_core::time::Instant;
use ipc_core::wire::Kind;
use ipc_core::wire::coordination::{Bind, Operation, Told as ToldWhat};
use ipc_core::wire::queue::{
    Ack, Consume, CountQueue, Delivered, Enqueue, Enqueued, Nack, Nacked, Overflow, Peek, Peeked, Purge,
    Purged, QueueCounts, Take, Unconsume,
};
use ipc_core::wire::{Flags, Header};
use ipc_tests::disk::Disk;
use ipc_tests::rng::{Rng, for_each_seed};

use super::model::{At, Model, New, Put, Terms, Told};
use super::rules::{Denied, uid_at};
use crate::coordination::Scene;

pub(super) const QUEUES: [&str; 3] = ["a", "a.dead", "b/c"];
pub(super) const CLIENTS: usize = 4;

pub(super) struct World {
    pub(super) scene: Scene,
    pub(super) model: Model,
    /// Clients that are there.
    pub(super) clients: Vec<usize>,
    pub(super) denied: Denied,
    /// Numbers of entries, by their bodies.
    numbers: BTreeMap<String, u64>,
    puts: u64,
    last_token: u64,
    /// Makes times that never fall together.
    times: u64,
}

impl World {
    fn new(limits: &Limits, disk: Option<Disk>) -> Self {
        let start = Instant::from_nanos(1_000_000_000);
        let mut scene = match disk {
            Some(disk) => Scene::with_disk(limits.clone(), start, disk),
            None => Scene::new(limits.clone()),
        };
        let clients = (0..CLIENTS).map(|place| scene.client_of(uid_at(place))).collect();
        let model = Model::new(limits.clone());
        let numbers = BTreeMap::new();
        Self { scene, model, clients, denied: None, numbers, puts: 0, last_token: 0, times: 0 }
    }

    /// A time in microseconds, of which no two are due at once: the clock itself goes by milliseconds.
    fn time(&mut self, rng: &mut Rng) -> u64 {
        self.times += 1;
        10_000 + rng.below(40) * 1000 + self.times % 999 + 1
    }

    fn step(&mut self, rng: &mut Rng) {
        let client = *rng.pick(&self.clients.clone());
        let queue = *rng.pick(&QUEUES);
        match rng.below(24) {
            0..=7 => self.put(rng, client, queue),
            8..=12 => self.take(rng, client, queue),
            13..=15 => self.ack(rng, client),
            16 | 17 => self.nack(rng, client),
            18 => self.consume(rng, client, queue),
            19 => self.unconsume(rng),
            20 => self.die(client),
            21 if rng.chance(1, 6) => self.purge(client, queue),
            21 if rng.chance(1, 2) => self.reload(rng),
            22 if self.scene.bus.disk.is_some() && rng.chance(1, 3) => self.restart(),
            _ => self.pass(rng.below(30) * if rng.chance(1, 20) { 100 } else { 1 }),
        }
        self.hear();
        self.count(client, queue);
    }

    fn ask<T: ipc_core::wire::codec::Wire>(
        &mut self,
        client: usize,
        operation: Operation,
        envelope: &T,
        payload: &[u8],
    ) -> Result<ipc_tests::memory_bus::Received, ErrorCode> {
        self.scene.outcome_of(client, operation, envelope, payload)
    }

    fn put(&mut self, rng: &mut Rng, client: usize, queue: &str) {
        self.puts += 1;
        let new = New {
            payer: self.uid(client),
            queue: queue.to_owned(),
            id: rng.chance(1, 3).then(|| format!("id{}", rng.below(8))),
            body: format!("work {}", self.puts),
            priority: *rng.pick(&[0, 0, 0, 7, 255]),
            delay: if rng.chance(1, 4) { self.time(rng) } else { 0 },
            max: *rng.pick(&[0, 0, 1, 2, 3]),
            max_length: *rng.pick(&[0, 0, 0, 3, 100]),
            overflow: *rng.pick(&[Overflow::Reject, Overflow::DropOldest]),
        };
        let enqueue = Enqueue {
            queue: queue.into(),
            id: new.id.as_deref().map(Into::into),
            priority: new.priority.into(),
            delay_us: new.delay,
            max_deliveries: new.max,
            max_length: new.max_length,
            overflow: new.overflow,
            fence: None,
            durability: None,
        };
        let (body, is_named) = (new.body.clone(), new.id.is_some());
        let expected = match self.may(client, queue) {
            true => self.model.put(new),
            false => Put::Refused(ErrorCode::PermissionDenied),
        };
        let outcome = self.ask(client, Operation::ENQUEUE, &enqueue, body.as_bytes());
        match (outcome, expected) {
            (Ok(done), Put::Stored { dropped }) => {
                let stored: Enqueued = done.decode();
                assert_eq!((stored.is_duplicate, stored.dropped), (false, dropped), "{enqueue:?}");
                if !is_named {
                    self.model.named(&body, &stored.id.0);
                }
                assert!(self.numbers.values().all(|number| *number < stored.number));
                self.numbers.insert(body, stored.number);
            }
            (Ok(done), Put::Duplicate) => assert!(done.decode::<Enqueued>().is_duplicate, "{enqueue:?}"),
            (Err(code), Put::Refused(expected)) => assert_eq!(code, expected, "{enqueue:?}"),
            (outcome, expected) => panic!("{enqueue:?}: {outcome:?}, due was {expected:?}"),
        }
    }

    fn terms(&mut self, rng: &mut Rng, is_bound: bool) -> Terms {
        let visibility = (!is_bound || rng.chance(1, 3)).then(|| self.time(rng));
        Terms { is_bound, visibility, max: *rng.pick(&[0, 0, 0, 1, 2]) }
    }

    fn take(&mut self, rng: &mut Rng, client: usize, queue: &str) {
        let is_bound = rng.chance(1, 2);
        let terms = self.terms(rng, is_bound);
        let wait = match rng.below(3) {
            0 => None,
            1 => Some(None),
            _ => Some(Some(self.time(rng))),
        };
        let take = Take {
            queue: queue.into(),
            bind: if is_bound { Bind::Session } else { Bind::Time },
            visibility_us: terms.visibility.unwrap_or(0),
            max_deliveries: terms.max,
            wait: wait.is_some(),
            fence: None,
        };
        let deadline_us = wait.flatten().unwrap_or(0) as u32;
        let correlation = self.scene.ask_with(client, Operation::TAKE, deadline_us, &take, b"");
        if !self.may(client, queue) {
            let outcome = self.outcome(client, Operation::TAKE, correlation);
            return assert_eq!(outcome, Err(ErrorCode::PermissionDenied));
        }
        self.model.take(client, correlation, queue, terms, wait);
    }

    fn consume(&mut self, rng: &mut Rng, client: usize, queue: &str) {
        let terms = self.terms(rng, true);
        let credit = 1 + rng.below(3) as u32;
        let consume = Consume {
            queue: queue.into(),
            credit,
            visibility_us: terms.visibility.unwrap_or(0),
            max_deliveries: terms.max,
        };
        let open = self.model.consumers.iter().filter(|one| one.is_open && one.client == client).count();
        let correlation = self.scene.ask_with(client, Operation::CONSUME, 0, &consume, b"");
        let outcome = self.outcome(client, Operation::CONSUME, correlation);
        if !self.may(client, queue) {
            assert_eq!(outcome, Err(ErrorCode::PermissionDenied));
        } else if open >= self.model.limits.work_queue_consumers_per_connection_max as usize {
            assert_eq!(outcome, Err(ErrorCode::QuotaExceeded));
        } else {
            assert_eq!(outcome, Ok(()));
            self.model.consume(client, correlation, queue, terms, credit);
        }
    }

    /// Takes the outcome of that request, which has come.
    fn outcome(&mut self, client: usize, operation: Operation, correlation: u64) -> Result<(), ErrorCode> {
        let outcome = self.scene.take_outcome(client, operation, correlation).expect("an outcome");
        outcome.map(|_| ()).map_err(|body| ErrorCode::from_number(body.code).expect("a code"))
    }

    fn unconsume(&mut self, rng: &mut Rng) {
        let open: Vec<usize> =
            (0..self.model.consumers.len()).filter(|at| self.model.consumers[*at].is_open).collect();
        if open.is_empty() {
            return;
        }
        self.end_consumer(*rng.pick(&open));
    }

    fn end_consumer(&mut self, number: usize) {
        let consumer = self.model.consumers[number].clone();
        if !consumer.is_open {
            return;
        }
        let end = Unconsume { consumer: consumer.correlation };
        self.ask(consumer.client, Operation::UNCONSUME, &end, b"").expect("it is there");
        self.model.unconsume(number);
    }

    /// An open delivery, or one that was open once, with the queue it is asked for in.
    fn some_delivery(&self, rng: &mut Rng) -> Option<(usize, String)> {
        let known = self.model.outs.len();
        let open: Vec<usize> = (0..known).filter(|out| self.model.outs[*out].is_open).collect();
        if known == 0 {
            return None;
        }
        let out = if open.is_empty() || rng.chance(1, 8) { rng.index(known) } else { *rng.pick(&open) };
        let queue = if self.model.outs[out].is_open {
            let of = self.model.piece_of(out);
            QUEUES.iter().copied().find(|queue| self.model.in_queue(queue).any(|one| one.order == of.order))
        } else {
            Some(QUEUES[0])
        };
        Some((out, queue.unwrap_or("a.dead.dead").to_owned()))
    }

    fn ack(&mut self, rng: &mut Rng, client: usize) {
        let Some((out, queue)) = self.some_delivery(rng) else { return };
        let (delivery, is_open) = (self.model.outs[out].token, self.model.outs[out].is_open);
        let is_wrong = rng.chance(1, 10);
        let named = if is_wrong { "another" } else { &queue };
        let ack = Ack { queue: named.into(), delivery, fence: None };
        let outcome = self.ask(client, Operation::ACK, &ack, b"").map(|_| ());
        if !self.may(client, named) {
            assert_eq!(outcome, Err(ErrorCode::PermissionDenied), "{ack:?}");
        } else if is_open && !is_wrong {
            assert_eq!(outcome, Ok(()), "{ack:?}");
            self.model.ack(out);
        } else {
            assert_eq!(outcome, Err(ErrorCode::LockLost), "{ack:?}");
        }
    }

    fn nack(&mut self, rng: &mut Rng, client: usize) {
        let Some((out, queue)) = self.some_delivery(rng) else { return };
        let delay_us = if rng.chance(1, 3) { self.time(rng) } else { 0 };
        let (delivery, is_open) = (self.model.outs[out].token, self.model.outs[out].is_open);
        let is_untouched = rng.chance(1, 4);
        let named = queue.as_str().into();
        let nack = Nack { queue: named, delivery, delay_us, reason: "no".into(), is_untouched, fence: None };
        let outcome = self.ask(client, Operation::NACK, &nack, b"");
        if !self.may(client, &queue) {
            assert_eq!(outcome.map(|_| ()), Err(ErrorCode::PermissionDenied), "{nack:?}");
        } else if is_open {
            let is_dead = outcome.expect("it is open").decode::<Nacked>().is_dead;
            let last = "it was given back: no";
            assert_eq!(is_dead, self.model.nack(out, delay_us, is_untouched, last), "{nack:?}");
        } else {
            assert_eq!(outcome.map(|_| ()), Err(ErrorCode::LockLost), "{nack:?}");
        }
    }

    fn purge(&mut self, client: usize, queue: &str) {
        let purge = Purge { queue: queue.into(), fence: None };
        let outcome = self.ask(client, Operation::PURGE, &purge, b"");
        if self.may(client, queue) {
            assert_eq!(outcome.expect("it may").decode::<Purged>().count, self.model.purge(queue));
        } else {
            assert_eq!(outcome.map(|_| ()), Err(ErrorCode::PermissionDenied));
        }
    }

    fn die(&mut self, client: usize) {
        self.scene.bus.leave(client);
        self.model.leave(client);
        let place = self.clients.iter().position(|one| *one == client).expect("it was there");
        self.clients[place] = self.scene.client_of(uid_at(place));
    }

    /// The daemon is killed, at a moment at which everything it does by itself has been written: nobody has been given anything
    /// for twice the time that may wait.
    fn restart(&mut self) {
        for number in 0..self.model.consumers.len() {
            self.end_consumer(number);
        }
        let mut quiet = 0;
        while quiet < 2 {
            self.pass(1_000);
            quiet = if self.model.told.is_empty() { quiet + 1 } else { 0 };
            self.hear();
        }
        let now = self.scene.bus.now;
        let disk = self.scene.bus.disk.take().expect("a disk").crash(false);
        let limits = self.model.limits.clone();
        self.scene = Scene::with_disk(limits, now, disk);
        self.model.restart();
        self.rule();
        self.clients = (0..CLIENTS).map(|place| self.scene.client_of(uid_at(place))).collect();
    }

    fn pass(&mut self, millis: u64) {
        self.scene.bus.wait(Duration::from_millis(millis));
        self.model.pass(millis * 1000);
    }

    /// Everybody has been told what they were to be told, in order, and nothing else.
    fn hear(&mut self) {
        let told = std::mem::take(&mut self.model.told);
        let mut tokens = Vec::new();
        for what in &told {
            match what {
                Told::Given { client, correlation, out, deliveries } => {
                    if !self.clients.contains(client) {
                        continue;
                    }
                    let given = self.next_of(*client, *correlation);
                    let delivered: Delivered = given.decode();
                    let body = String::from_utf8(given.payload).expect("text");
                    assert_eq!((&body, delivered.deliveries), (&self.model.outs[*out].body, *deliveries));
                    assert!(self.last_token < delivered.delivery, "a token was given twice");
                    tokens.push(delivered.delivery);
                    self.model.outs[*out].token = delivered.delivery;
                    if let Some(number) = self.numbers.get(&body) {
                        assert_eq!(delivered.number, *number, "an entry stands elsewhere");
                    }
                    let piece = self.model.pieces.iter().find(|piece| piece.body == body);
                    let death = piece.and_then(|piece| piece.death.clone());
                    assert_eq!(delivered.death.map(|death| death.0), death, "{body}");
                }
                Told::Nothing { client, correlation } => {
                    let outcome = self.outcome(*client, Operation::TAKE, *correlation);
                    assert_eq!(outcome, Err(ErrorCode::Busy));
                }
                Told::Denied { client, correlation } => {
                    let outcome = self.outcome(*client, Operation::TAKE, *correlation);
                    assert_eq!(outcome, Err(ErrorCode::PermissionDenied));
                }
                Told::Lost { client, correlation } => self.hears_of_loss(*client, *correlation),
            }
        }
        tokens.sort_unstable();
        assert!(tokens.windows(2).all(|two| two[0] < two[1]), "a token was given twice");
        self.last_token = tokens.last().copied().unwrap_or(self.last_token);
        for client in self.clients.clone() {
            self.scene.bus.client(client).take(Kind::WAITING);
            let inbox = &self.scene.bus.client(client).inbox;
            assert!(inbox.is_empty(), "{client} was told more: {inbox:?}");
        }
    }

    /// The oldest of what has come for a request or a consumer: an entry.
    fn next_of(&mut self, client: usize, correlation: u64) -> ipc_tests::memory_bus::Received {
        let inbox = &mut self.scene.bus.client(client).inbox;
        let is_entry = |header: &Header| {
            let number = header.handle.index;
            let is_answer = header.kind == Kind::OUTCOME && number == Operation::TAKE.0;
            header.correlation == correlation
                && (is_answer || (header.kind == Kind::NOTICE && number == ToldWhat::DELIVERED.0))
        };
        let at = inbox.iter().position(|one| is_entry(&one.header));
        let at = at.unwrap_or_else(|| panic!("nothing came for {correlation} of {client}: {inbox:?}"));
        let given = inbox.remove(at);
        assert!(!given.header.flags.contains(Flags::ERROR), "{given:?}");
        given
    }

    /// What is counted and shown is what is there.
    fn count(&mut self, client: usize, queue: &str) {
        let mut permitted = self.clients.iter().copied().filter(|one| self.may(*one, queue));
        let client = permitted.clone().find(|one| *one == client).or(permitted.next()).expect("somebody");
        let counts: QueueCounts = self
            .ask(client, Operation::COUNT, &CountQueue { queue: queue.into() }, b"")
            .expect("it may")
            .decode();
        let of =
            |is: fn(&At) -> bool| self.model.in_queue(queue).filter(|piece| is(&piece.at)).count() as u64;
        let ready = of(|at| *at == At::Ready);
        let delayed = of(|at| matches!(at, At::Delayed(_)));
        let delivered = of(|at| matches!(at, At::Out(_)));
        assert_eq!((counts.ready, counts.delayed, counts.delivered), (ready, delayed, delivered), "{queue}");
        let dead = self.model.in_queue(&format!("{queue}.dead")).count() as u64;
        assert_eq!(counts.dead, dead, "{queue}");
        let peek = Peek { queue: queue.into(), count: 100 };
        let peeked = self.ask(client, Operation::PEEK, &peek, b"").expect("it may");
        let listed: Peeked = peeked.decode();
        let mut at = 0;
        let bodies: Vec<String> = listed
            .entries
            .0
            .iter()
            .take(ready as usize)
            .map(|entry| {
                at += entry.length as usize;
                String::from_utf8_lossy(&peeked.payload[at - entry.length as usize..at]).into_owned()
            })
            .collect();
        let mut due: Vec<_> = self.model.in_queue(queue).filter(|piece| piece.at == At::Ready).collect();
        due.sort_by_key(|piece| (u8::MAX - piece.priority, piece.order));
        let due: Vec<String> = due.iter().take(100).map(|piece| piece.body.clone()).collect();
        assert_eq!(bodies, due, "{queue}");
        let inbox = &self.scene.bus.client(client).inbox;
        assert!(inbox.is_empty(), "{inbox:?}");
    }

    /// Everything that was put and is not gone is there at the end, once.
    fn drain(&mut self) {
        self.denied = None;
        self.rule();
        for client in self.clients.clone() {
            self.scene.bus.leave(client);
            self.model.leave(client);
        }
        self.model.told.clear();
        let last = self.scene.client();
        self.clients = vec![last];
        self.pass(1_000_000);
        self.model.told.clear();
        let mut due: Vec<String> = self.model.pieces.iter().map(|piece| piece.body.clone()).collect();
        let mut found = Vec::new();
        for queue in ["a", "a.dead", "a.dead.dead", "a.dead.dead.dead", "b/c", "b/c.dead", "b/c.dead.dead"] {
            let take = Take {
                queue: queue.into(),
                bind: Bind::Session,
                visibility_us: 0,
                max_deliveries: 0,
                wait: false,
                fence: None,
            };
            while let Ok(taken) = self.ask(last, Operation::TAKE, &take, b"") {
                let delivery = taken.decode::<Delivered>().delivery;
                found.push(String::from_utf8(taken.payload).expect("text"));
                let ack = Ack { queue: queue.into(), delivery, fence: None };
                self.ask(last, Operation::ACK, &ack, b"").expect("it is open");
            }
        }
        due.sort();
        found.sort();
        assert_eq!(found, due);
        self.scene.bus.leave(last);
        self.scene.bus.wait(Duration::from_secs(3600));
        // What the daemon does by itself is written a little later.
        self.scene.bus.wait(Duration::from_secs(2));
        let broker = &self.scene.bus.broker;
        assert!(broker.queues(self.scene.bus.now).is_empty(), "a queue was left behind");
        assert!(broker.usage().is_empty() && broker.poll_timeout().is_none());
    }
}

fn small(rng: &mut Rng) -> Limits {
    Limits {
        work_queue_entries_max: *rng.pick(&[8, 30, 1000]),
        work_queue_length_max: *rng.pick(&[4, 12, 1000]),
        work_queue_ids_max: *rng.pick(&[2, 5, 1000]),
        work_queue_id_window_ms: *rng.pick(&[20, 100, 3_600_000]),
        work_queue_bytes_per_uid_max: *rng.pick(&[4000, 20_000, 1 << 30]),
        work_queue_consumers_per_connection_max: 3,
        ..Limits::default()
    }
}

#[test]
fn queues_on_a_disk_are_the_obvious_ones_over_restarts_too() {
    for_each_seed(100, 20_000, |_, mut rng| {
        let mut world = World::new(&small(&mut rng), Some(Disk::default()));
        for _ in 0..200 {
            world.step(&mut rng);
        }
        world.drain();
        let records = world.scene.bus.disk.expect("a disk").records;
        assert!(records.len() <= 1, "only the numbers are left: {records:?}");
    });
}

#[test]
fn queues_are_the_obvious_ones_and_lose_nothing() {
    for_each_seed(150, 20_000, |_, mut rng| {
        let mut world = World::new(&small(&mut rng), None);
        for _ in 0..200 {
            world.step(&mut rng);
        }
        world.drain();
    });
}
