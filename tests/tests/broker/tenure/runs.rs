//! Locks that are kept on a disk which is slow, full, fails and is started anew, as their holders see them: nobody believes in a
//! lock beside another who may not, and whatever was granted is there again for whoever comes in time; in random runs, each from one
//! seed.

use core::time::Duration;
use std::collections::BTreeMap;

use ipc_core::ErrorCode;
use ipc_core::limits::{HOLD_TAKE_UP_MAX, Limits};
use ipc_core::time::Instant;
use ipc_core::wire::Kind;
use ipc_core::wire::coordination::{
    Claim, Durability, Granted, Identified, Identify, LockMode, Lost, OfToken, Operation, TakeLock, TakenUp,
    Told,
};
use ipc_daemon::broker::Fault;
use ipc_tests::disk::Disk;
use ipc_tests::rng::{Rng, for_each_seed};

use crate::coordination::Scene;

const LOCKS: [&str; 2] = ["a", "b"];
const SESSIONS: u8 = 4;

/// A request that has no outcome yet.
#[derive(Clone, Debug)]
struct Asked {
    correlation: u64,
    lock: &'static str,
    mode: LockMode,
    durability: Option<Durability>,
    delay: Duration,
    at: Instant,
}

/// What a session believes in.
#[derive(Clone, Debug)]
struct Held {
    lock: &'static str,
    mode: LockMode,
    durability: Durability,
    ttl: Option<Duration>,
    delay: Duration,
    /// Until then; `None` while it is connected.
    until: Option<Instant>,
    /// A daemon that was started then keeps it for its time.
    restarted_at: Option<Instant>,
}

/// A lock that was lost, and that nobody gets before.
#[derive(Clone, Debug)]
struct Closed {
    token: u64,
    lock: &'static str,
    until: Instant,
    is_kept: bool,
}

#[derive(Debug)]
struct Session {
    secret: Identify,
    client: Option<usize>,
    asked: Vec<Asked>,
    held: BTreeMap<u64, Held>,
}

/// What has happened at all, over all runs: a fault that never fired proves nothing.
#[derive(Debug, Default)]
struct Coverage {
    granted: u64,
    waited: u64,
    refused: u64,
    dead: u64,
    stopped: u64,
    killed: u64,
    taken_up: u64,
    given_up: u64,
    too_late: u64,
    closed: u64,
    closed_over_restart: u64,
}

struct World<'a> {
    scene: Scene,
    sessions: Vec<Session>,
    /// The highest token that was told, by lock.
    last: BTreeMap<&'static str, u64>,
    /// What was told to be held alone, by token: the lock, its delay, and whether it is kept.
    alone: BTreeMap<u64, (&'static str, Duration, bool)>,
    closed: Vec<Closed>,
    coverage: &'a mut Coverage,
}

impl<'a> World<'a> {
    fn new(coverage: &'a mut Coverage) -> Self {
        let session = |number: u8| Session {
            secret: Identify { secret: [number + 1; 16] },
            client: None,
            asked: Vec::new(),
            held: BTreeMap::new(),
        };
        let scene = Scene::with_disk(Limits::default(), Instant::from_nanos(1_000_000_000), Disk::default());
        let sessions = (0..SESSIONS).map(session).collect();
        let (last, alone) = (BTreeMap::new(), BTreeMap::new());
        let mut world = Self { scene, sessions, last, alone, closed: Vec::new(), coverage };
        world.disk().holds = true;
        world
    }

    fn disk(&mut self) -> &mut Disk {
        self.scene.bus.disk.as_mut().expect("a disk")
    }

    fn now(&self) -> Instant {
        self.scene.bus.now
    }

    fn step(&mut self, rng: &mut Rng) {
        let at = rng.index(self.sessions.len());
        match rng.below(40) {
            _ if self.sessions[at].client.is_none() && rng.chance(1, 3) => self.connect(at),
            0..=11 => self.claim(rng, at),
            12..=18 => self.of_token(rng, at, Operation::RELEASE),
            19..=20 => self.of_token(rng, at, Operation::RENEW),
            21..=32 => drop(self.scene.bus.finish_commit()),
            33 if rng.chance(1, 2) => self.leave(at),
            34 if rng.chance(1, 2) => {
                let is_full = self.disk().fault.is_some();
                self.disk().fault = (!is_full).then(|| Fault::Full("no room".to_owned()));
            }
            35 if rng.chance(1, 8) => {
                self.disk().fault = Some(Fault::Dead("the sync failed".to_owned()));
                self.coverage.dead += 1;
            }
            36 if rng.chance(1, 2) => self.restart(rng),
            _ => self.scene.bus.wait(Duration::from_millis(rng.below(700))),
        }
        self.hear();
        self.check();
    }

    /// Comes back, or comes for the first time, and is told what it holds.
    fn connect(&mut self, at: usize) {
        let client = self.scene.client();
        let secret = self.sessions[at].secret;
        let correlation = self.scene.ask(client, Operation::IDENTIFY, &secret, b"");
        let outcome = self.scene.take_outcome(client, Operation::IDENTIFY, correlation).expect("an answer");
        let identified: Identified = outcome.expect("it may").decode();
        let notices = self.scene.bus.client(client).take(Kind::NOTICE);
        assert_eq!(notices.len(), identified.holds as usize);
        let told: Vec<TakenUp> = notices.iter().map(|notice| notice.decode()).collect();
        let now = self.now();
        let session = &mut self.sessions[at];
        session.client = Some(client);
        let mut unwanted = Vec::new();
        for TakenUp { token, name, ttl_us, durability, .. } in &told {
            match session.held.get_mut(token) {
                Some(held) => {
                    assert_eq!((held.lock, held.durability), (name.0.as_str(), *durability));
                    assert_eq!(held.ttl.map_or(0, |ttl| ttl.as_micros() as u64), *ttl_us);
                    held.until = held.ttl.map(|ttl| now + ttl);
                    held.restarted_at = None;
                    self.coverage.taken_up += 1;
                }
                None => unwanted.push(*token),
            }
        }
        let is_told = |token: &u64| told.iter().any(|one| one.token == *token);
        session.held.retain(|token, held| {
            if is_told(token) {
                return true;
            }
            let from = held.restarted_at.expect("it was held before the restart");
            let time = held.ttl.unwrap_or(HOLD_TAKE_UP_MAX);
            assert!(now >= from + time, "{held:?} has ended too early, at {now:?}");
            self.coverage.too_late += 1;
            false
        });
        for token in unwanted {
            self.coverage.given_up += 1;
            let released = self.scene.outcome_of(client, Operation::RELEASE, &OfToken { token }, b"");
            assert!(released.is_ok());
            // Its loss had not come to the disk; so it was given back instead.
            self.closed.retain(|closed| closed.token != token);
        }
    }

    /// Its holder is lost: nobody else gets it during its delay.
    fn close(&mut self, token: u64) {
        let until = |delay| self.scene.bus.now + delay;
        if let Some((lock, delay, is_kept)) =
            self.alone.remove(&token).filter(|(_, delay, _)| !delay.is_zero())
        {
            self.closed.push(Closed { token, lock, until: until(delay), is_kept });
            self.coverage.closed += 1;
        }
    }

    fn claim(&mut self, rng: &mut Rng, at: usize) {
        let Some(client) = self.sessions[at].client else { return };
        let durability =
            *rng.pick(&[None, None, Some(Durability::Memory), Some(Durability::Os), Some(Durability::Disk)]);
        let mode = if rng.chance(1, 3) { LockMode::Shared } else { LockMode::Exclusive };
        let claim = Claim {
            wait: rng.chance(3, 4),
            ttl_us: *rng.pick(&[0, 0, 300_000, 2_000_000]),
            delay_us: *rng.pick(&[0, 0, 0, 100_000, 2_500_000]),
            owner: 0,
            durability,
        };
        let lock = *rng.pick(&LOCKS);
        let wanted = TakeLock { name: lock.into(), mode, claim };
        let correlation = self.scene.ask(client, Operation::LOCK, &wanted, b"");
        let now = self.now();
        let delay = Duration::from_micros(claim.delay_us);
        self.sessions[at].asked.push(Asked { correlation, lock, mode, durability, delay, at: now });
        // What is to be kept is told when the disk has done its work, and not before.
        if durability != Some(Durability::Memory)
            && let Some(outcome) = self.scene.take_outcome(client, Operation::LOCK, correlation)
        {
            let body = outcome.expect_err("nothing is granted that is not kept");
            let code = ErrorCode::from_number(body.code).expect("a code");
            assert!([ErrorCode::Busy, ErrorCode::StorageFailed].contains(&code), "{code:?}");
            self.sessions[at].asked.pop();
        }
    }

    fn of_token(&mut self, rng: &mut Rng, at: usize, operation: Operation) {
        let session = &mut self.sessions[at];
        let Some(client) = session.client else { return };
        let tokens: Vec<u64> = session.held.keys().copied().collect();
        if tokens.is_empty() {
            return;
        }
        let token = *rng.pick(&tokens);
        let now = self.scene.bus.now;
        let done = self.scene.outcome_of(client, operation, &OfToken { token }, b"");
        // Whoever believes in it at that moment has it.
        done.unwrap_or_else(|code| panic!("{token} is not held: {code:?}"));
        if operation == Operation::RELEASE {
            session.held.remove(&token);
            self.alone.remove(&token);
        } else if let Some(held) = session.held.get_mut(&token) {
            held.until = held.ttl.map(|ttl| now + ttl);
        }
    }

    fn leave(&mut self, at: usize) {
        let session = &mut self.sessions[at];
        let Some(client) = session.client.take() else { return };
        let held = core::mem::take(&mut session.held);
        session.asked.clear();
        self.scene.bus.leave(client);
        held.into_keys().for_each(|token| self.close(token));
    }

    /// Takes every outcome and every loss that has come.
    fn hear(&mut self) {
        let now = self.now();
        let (mut granted, mut lost) = (Vec::new(), Vec::new());
        for session in &mut self.sessions {
            let Some(client) = session.client else { continue };
            for asked in core::mem::take(&mut session.asked) {
                match self.scene.take_outcome(client, Operation::LOCK, asked.correlation) {
                    None => session.asked.push(asked),
                    Some(Ok(outcome)) => {
                        let Granted { token, ttl_us, durability } = outcome.decode();
                        let least = asked.durability.unwrap_or(Durability::Disk);
                        assert_eq!(durability, least);
                        let ttl = (ttl_us > 0).then(|| Duration::from_micros(ttl_us));
                        let (lock, mode) = (asked.lock, asked.mode);
                        // A client knows when it has asked, and no better: after a wait it renews first.
                        let until = ttl.map(|ttl| if asked.at + ttl > now { asked.at + ttl } else { now });
                        let (delay, restarted_at) = (asked.delay, None);
                        let held = Held { lock, mode, durability, ttl, delay, until, restarted_at };
                        session.held.insert(token, held.clone());
                        granted.push((token, held));
                        self.coverage.granted += 1;
                        self.coverage.waited += u64::from(asked.at < now);
                    }
                    Some(Err(body)) => {
                        let code = ErrorCode::from_number(body.code).expect("a code");
                        let is_refused = code == ErrorCode::StorageFailed;
                        assert!(is_refused || code == ErrorCode::Busy, "{code:?}");
                        self.coverage.refused += u64::from(is_refused);
                    }
                }
            }
            for notice in self.scene.bus.client(client).take(Kind::NOTICE) {
                assert_eq!(notice.header.handle.index, Told::LOST.0);
                let token = notice.decode::<Lost>().token;
                lost.push(token);
                let held = session.held.remove(&token);
                assert!(held.is_none_or(|held| held.until.is_some_and(|until| until <= now)));
            }
        }
        granted.sort_by_key(|(token, _)| *token);
        for (token, held) in granted {
            let lock = held.lock;
            let before = self.last.insert(lock, token).unwrap_or(0);
            assert!(token > before, "{token} after {before}");
            let early = self.closed.iter().find(|closed| closed.lock == lock && closed.until > now);
            assert!(early.is_none(), "{token} is given at {now:?} although {early:?}");
            self.note_alone(token, &held);
        }
        lost.into_iter().for_each(|token| self.close(token));
        for session in &mut self.sessions {
            // Its deadline has passed: it does not believe in it any more, whatever anybody says.
            // One that was kept is heard of when its session is back.
            session
                .held
                .retain(|_, held| held.until.is_none_or(|until| until > now) || held.restarted_at.is_some());
        }
    }

    /// Remembers with which delay that was taken, if nobody shares it.
    fn note_alone(&mut self, token: u64, held: &Held) {
        if held.mode == LockMode::Exclusive {
            self.alone.insert(token, (held.lock, held.delay, held.durability > Durability::Memory));
        }
    }

    /// Nobody believes in a lock beside somebody who has it alone.
    fn check(&self) {
        let now = self.now();
        for lock in LOCKS {
            let all = self.sessions.iter().flat_map(|session| session.held.values());
            let of_it = all.filter(|held| held.lock == lock);
            let believed: Vec<&Held> =
                of_it.filter(|held| held.until.is_none_or(|until| until > now)).collect();
            let is_alone = believed.iter().any(|held| held.mode == LockMode::Exclusive);
            assert!(!is_alone || believed.len() == 1, "{lock}: {believed:?}");
        }
    }

    /// The daemon is stopped or killed, and another one starts with what is on the disk. Of the commit that was under way there
    /// is all or nothing.
    fn restart(&mut self, rng: &mut Rng) {
        if rng.chance(1, 3) {
            self.coverage.stopped += 1;
            self.scene.bus.broker.begin_drain();
            self.scene.bus.wait(Duration::from_millis(20));
            while self.scene.bus.finish_commit() && self.disk().fault.is_none() {}
            self.hear_of_the_end();
            self.scene.bus.broker.end_drain();
            self.scene.bus.wait(Duration::ZERO);
        } else {
            self.coverage.killed += 1;
        }
        let disk = core::mem::take(self.disk()).crash(rng.chance(1, 2));
        let gone_at = self.now();
        let now = gone_at + Duration::from_millis(rng.below(2000));
        self.scene = Scene::with_disk(Limits::default(), now, disk);
        self.disk().holds = true;
        self.closed.retain(|closed| closed.is_kept && closed.until > now);
        self.coverage.closed_over_restart += self.closed.len() as u64;
        self.alone.retain(|_, (_, _, is_kept)| *is_kept);
        for session in &mut self.sessions {
            session.client = None;
            session.asked.clear();
            session.held.retain(|_, held| held.durability > Durability::Memory);
            for held in session.held.values_mut() {
                held.until.get_or_insert(gone_at + HOLD_TAKE_UP_MAX);
                held.restarted_at = Some(now);
            }
        }
    }

    /// Those who waited have been refused; what else was under way is answered or not.
    fn hear_of_the_end(&mut self) {
        let mut granted = Vec::new();
        for session in &mut self.sessions {
            let Some(client) = session.client else { continue };
            session.asked.retain(|asked| {
                let outcome = self.scene.take_outcome(client, Operation::LOCK, asked.correlation);
                let Some(Ok(outcome)) = outcome else { return outcome.is_none() };
                let Granted { token, ttl_us, durability } = outcome.decode();
                let ttl = (ttl_us > 0).then(|| Duration::from_micros(ttl_us));
                let (lock, mode, until) = (asked.lock, asked.mode, ttl.map(|ttl| asked.at + ttl));
                let held =
                    Held { lock, mode, durability, ttl, delay: asked.delay, until, restarted_at: None };
                session.held.insert(token, held.clone());
                granted.push((token, held));
                false
            });
        }
        granted.sort_by_key(|(token, _)| *token);
        for (token, held) in granted {
            let before = self.last.insert(held.lock, token).unwrap_or(0);
            assert!(token > before, "{token} after {before}");
            self.note_alone(token, &held);
        }
        self.hear();
    }

    /// When everybody has gone and all time has passed, nothing is left.
    fn end(&mut self, rng: &mut Rng) {
        self.restart(rng);
        self.hear();
        // What nobody takes up ends, then its delay, then the record of that goes.
        for _ in 0..3 {
            self.scene.bus.wait(Duration::from_secs(10));
            while self.scene.bus.finish_commit() {}
        }
        assert!(self.disk().records.keys().all(|key| ![Some(&6), Some(&7)].contains(&key.first())));
        let now = self.now();
        assert!(self.scene.bus.broker.gates(now).is_empty());
        assert!(self.scene.bus.broker.usage().is_empty());
    }
}

#[test]
fn whatever_the_disk_does_a_lock_has_one_holder_who_gets_it_again() {
    let coverage = std::cell::RefCell::new(Coverage::default());
    for_each_seed(300, 20_000, |_, mut rng| {
        let mut coverage = coverage.borrow_mut();
        let mut world = World::new(&mut coverage);
        for _ in 0..300 {
            world.step(&mut rng);
        }
        world.end(&mut rng);
    });
    let coverage = coverage.into_inner();
    let Coverage { granted, waited, refused, dead, stopped, killed, .. } = coverage;
    let Coverage { taken_up, given_up, too_late, closed, closed_over_restart, .. } = coverage;
    let ends = [taken_up, given_up, too_late, closed, closed_over_restart];
    let fired = [granted, waited, refused, dead, stopped, killed].into_iter().chain(ends);
    let is_one = std::env::var_os("IPC_TEST_SEED").is_some();
    assert!(is_one || fired.into_iter().all(|count| count > 0), "not everything happened: {coverage:?}");
}
