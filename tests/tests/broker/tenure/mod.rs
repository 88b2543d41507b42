//! What is held over restarts, in single scenes: when it is told, what a failure takes back, who takes it up, when it ends.

mod absent;
mod delays;
mod ends;
mod others;
mod runs;

use core::time::Duration;

use ipc_core::ErrorCode;
use ipc_core::limits::{HOLD_TAKE_UP_MAX, Limits};
use ipc_core::wire::coordination::{
    Claim, Condition, Durability, Fence, Granted, Identified, Identify, LockMode, Lost, OfToken, Operation,
    PutKey, TakeLock, TakenUp, Told,
};
use ipc_core::wire::message::{ErrorBody, Hello};
use ipc_core::wire::{Header, Kind};
use ipc_daemon::broker::Fault;
use ipc_tests::disk::Disk;
use ipc_tests::memory_bus::Received;

use crate::coordination::Scene;
use crate::durable::{restarted, scene};

const ONE: Identify = Identify { secret: *b"one of sixteen b" };
const TWO: Identify = Identify { secret: *b"two of sixteen b" };
const MILLI: Duration = Duration::from_millis(1);

fn claim(wait: bool, durability: Option<Durability>) -> Claim {
    Claim { wait, ttl_us: 0, delay_us: 0, owner: 0, durability }
}

fn lock(wait: bool, durability: Option<Durability>) -> TakeLock {
    TakeLock { name: "l".into(), mode: LockMode::Exclusive, claim: claim(wait, durability) }
}

fn living(ttl: Duration) -> TakeLock {
    let claim = Claim { ttl_us: ttl.as_micros() as u64, ..claim(false, None) };
    TakeLock { claim, ..lock(false, None) }
}

fn code(body: &ErrorBody) -> ErrorCode {
    ErrorCode::from_number(body.code).expect("a code of the table")
}

impl Scene {
    fn named(&mut self, secret: Identify) -> usize {
        let client = self.client();
        assert!(self.take_up(client, secret).is_empty());
        client
    }

    /// Names a session, and gives what it is told that it holds.
    fn take_up(&mut self, client: usize, secret: Identify) -> Vec<TakenUp> {
        let correlation = self.ask(client, Operation::IDENTIFY, &secret, b"");
        let identified = self.take_outcome(client, Operation::IDENTIFY, correlation).expect("an answer");
        let identified: Identified = identified.expect("it is taken").decode();
        let notices = self.bus.client(client).take(Kind::NOTICE).into_iter();
        let told: Vec<TakenUp> = notices
            .filter(|notice| notice.header.handle.index == Told::TAKEN_UP.0)
            .map(|notice| {
                assert_eq!(notice.header.correlation, correlation);
                notice.decode()
            })
            .collect();
        assert_eq!(told.len(), identified.holds as usize);
        told
    }

    fn finish(&mut self) {
        while self.bus.finish_commit() {}
    }

    fn fail(&mut self, fault: Option<Fault>) {
        self.bus.disk.as_mut().expect("a disk").fault = fault;
    }

    fn records(&self) -> usize {
        let records = &self.bus.disk.as_ref().expect("a disk").records;
        records.keys().filter(|key| key.first() == Some(&6)).count()
    }

    /// Asks for the lock, and has it on the disk.
    fn locked(&mut self, client: usize, wanted: &TakeLock) -> Granted {
        let correlation = self.ask(client, Operation::LOCK, wanted, b"");
        self.finish();
        let outcome = self.take_outcome(client, Operation::LOCK, correlation).expect("an answer");
        outcome.expect("a grant").decode()
    }

    fn try_lock(&mut self, client: usize) -> Result<Received, ErrorCode> {
        self.outcome_of(client, Operation::LOCK, &lock(false, Some(Durability::Memory)), b"")
    }

    fn is_busy(&mut self, client: usize) -> bool {
        match self.try_lock(client) {
            Ok(granted) => {
                let token = granted.decode::<Granted>().token;
                self.outcome_of(client, Operation::RELEASE, &OfToken { token }, b"").expect("it holds it");
                false
            }
            Err(code) => {
                assert_eq!(code, ErrorCode::Busy);
                true
            }
        }
    }

    fn of_token(&mut self, client: usize, operation: Operation, token: u64) -> Result<Received, ErrorCode> {
        self.outcome_of(client, operation, &OfToken { token }, b"")
    }

    /// A change under a token of the lock, kept in memory.
    fn put_under(&mut self, client: usize, token: u64) -> Result<Received, ErrorCode> {
        let fence = Some(Fence { lock: "l".into(), token });
        let durability = Some(Durability::Memory);
        let put =
            PutKey { key: "k".into(), condition: Condition::Any, ttl_us: 0, lease: 0, fence, durability };
        self.outcome_of(client, Operation::PUT, &put, b"x")
    }
}

fn after_lazy(scene: &mut Scene) {
    scene.bus.wait(Duration::from_millis(20));
    scene.finish();
}

#[test]
fn nobody_is_told_of_a_grant_before_it_is_on_the_disk() {
    let mut scene = scene(Limits::default());
    let (client, other) = (scene.named(ONE), scene.client());
    let asked = scene.ask(client, Operation::LOCK, &lock(true, None), b"");
    assert!(scene.take_outcome(client, Operation::LOCK, asked).is_none());
    // It is nobody else's, but nobody hears whose it will be.
    let busy = scene.ask(other, Operation::LOCK, &lock(false, None), b"");
    let busy = scene.take_outcome(other, Operation::LOCK, busy).unwrap().unwrap_err();
    assert_eq!(code(&busy), ErrorCode::Busy);
    assert!(!busy.message.0.contains("held by"), "{}", busy.message.0);
    let waits = scene.ask(other, Operation::LOCK, &lock(true, None), b"");
    let waiting = scene.bus.client(other).take(Kind::WAITING).remove(0);
    assert_eq!(waiting.decode::<ipc_core::wire::coordination::Waiting>().token, 0);
    let now = scene.bus.now;
    assert!(scene.bus.broker.gates(now).iter().all(|row| row.holders.is_empty()));
    assert!(scene.bus.finish_commit());
    let granted: Granted = scene.take_outcome(client, Operation::LOCK, asked).unwrap().unwrap().decode();
    assert_eq!(granted.durability, Durability::Disk);
    assert_eq!(scene.bus.broker.gates(now)[0].holders[0].token, granted.token);
    // The next needs no disk, but the record before it is to go first.
    scene.of_token(client, Operation::RELEASE, granted.token).unwrap();
    assert!(scene.take_outcome(other, Operation::LOCK, waits).is_none());
    scene.finish();
    let next: Granted = scene.take_outcome(other, Operation::LOCK, waits).unwrap().unwrap().decode();
    assert_eq!((next.durability, scene.records()), (Durability::Memory, 0));
    assert!(next.token > granted.token);
}

#[test]
fn a_time_to_live_begins_when_it_is_granted() {
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    let ttl = Duration::from_secs(1);
    let asked = scene.ask(client, Operation::LOCK, &living(ttl), b"");
    scene.bus.wait(2 * ttl);
    scene.finish();
    let granted: Granted = scene.take_outcome(client, Operation::LOCK, asked).unwrap().unwrap().decode();
    scene.bus.wait(ttl - MILLI);
    assert!(scene.of_token(client, Operation::RENEW, granted.token).is_ok());
    scene.bus.wait(ttl);
    assert_eq!(scene.of_token(client, Operation::RENEW, granted.token).unwrap_err(), ErrorCode::LockLost);
    after_lazy(&mut scene);
    assert_eq!(scene.records(), 0);
}

#[test]
fn a_failed_commit_takes_the_grant_back_and_the_next_has_its_turn() {
    let mut scene = scene(Limits::default());
    let (first, second, third) = (scene.named(ONE), scene.named(TWO), scene.client());
    let before = scene.locked(first, &lock(false, None));
    scene.of_token(first, Operation::RELEASE, before.token).unwrap();
    let asked = scene.ask(first, Operation::LOCK, &lock(true, None), b"");
    let waits = scene.ask(second, Operation::LOCK, &lock(true, None), b"");
    scene.fail(Some(Fault::Full("no room".to_owned())));
    assert!(scene.bus.finish_commit());
    let refused = scene.take_outcome(first, Operation::LOCK, asked).unwrap().unwrap_err();
    assert_eq!(code(&refused), ErrorCode::StorageFailed);
    assert!(scene.take_outcome(second, Operation::LOCK, waits).is_none());
    scene.fail(None);
    scene.finish();
    let granted: Granted = scene.take_outcome(second, Operation::LOCK, waits).unwrap().unwrap().decode();
    assert!(granted.token > before.token);
    // Those who were never told have fenced off nobody; who was, has.
    assert_eq!(scene.put_under(third, before.token).unwrap_err(), ErrorCode::StaleFencingToken);
    assert!(scene.put_under(third, granted.token).is_ok());
}

#[test]
fn who_was_never_told_has_fenced_off_nobody() {
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    let before = scene.locked(client, &lock(false, None));
    scene.of_token(client, Operation::RELEASE, before.token).unwrap();
    let asked = scene.ask(client, Operation::LOCK, &lock(true, None), b"");
    assert_eq!(scene.put_under(client, before.token).unwrap_err(), ErrorCode::StaleFencingToken);
    scene.fail(Some(Fault::Full("no room".to_owned())));
    scene.finish();
    assert!(scene.take_outcome(client, Operation::LOCK, asked).unwrap().is_err());
    assert!(scene.put_under(client, before.token).is_ok());
}

#[test]
fn after_a_failed_sync_nothing_is_granted_that_is_to_be_kept() {
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    let asked = scene.ask(client, Operation::LOCK, &lock(true, None), b"");
    scene.fail(Some(Fault::Dead("sync failed".to_owned())));
    scene.finish();
    let refused = scene.take_outcome(client, Operation::LOCK, asked).unwrap().unwrap_err();
    assert_eq!(code(&refused), ErrorCode::StorageFailed);
    let refused = scene.outcome_of(client, Operation::LOCK, &lock(true, None), b"").unwrap_err();
    assert_eq!(refused, ErrorCode::StorageFailed);
    assert!(scene.try_lock(client).is_ok(), "what is kept in memory goes on");
}

#[test]
fn its_session_takes_a_lock_up_after_a_restart_and_nobody_else() {
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    let held = scene.locked(client, &lock(false, None));
    let mut scene = restarted(scene);
    let (now, other) = (scene.bus.now, scene.named(TWO));
    assert!(scene.is_busy(other));
    let rows = scene.bus.broker.gates(now);
    let row = &rows[0].holders[0];
    assert_eq!((row.token, row.uid, row.peer.is_none()), (held.token, Some(1000), true));
    // Another user with the same secret, and its own user without.
    let stranger = scene.client_of(1001);
    assert!(scene.take_up(stranger, ONE).is_empty());
    assert!(scene.of_token(other, Operation::RENEW, held.token).is_err());
    let waits = scene.ask(other, Operation::LOCK, &lock(true, None), b"");
    let client = scene.client();
    let taken_up = scene.take_up(client, ONE);
    let lock = Operation::LOCK.0;
    let durability = Durability::Disk;
    assert_eq!(
        taken_up,
        [TakenUp { token: held.token, operation: lock, name: "l".into(), ttl_us: 0, durability }]
    );
    assert!(scene.take_up(client, ONE).is_empty(), "it has been told");
    assert!(scene.bus.broker.gates(now)[0].holders[0].peer.is_some());
    assert!(scene.put_under(client, held.token).is_ok());
    scene.bus.wait(2 * HOLD_TAKE_UP_MAX);
    assert!(scene.of_token(client, Operation::RENEW, held.token).is_ok());
    scene.of_token(client, Operation::RELEASE, held.token).unwrap();
    scene.finish();
    let next: Granted = scene.take_outcome(other, Operation::LOCK, waits).unwrap().unwrap().decode();
    assert!(next.token > held.token);
    assert_eq!(scene.put_under(client, held.token).unwrap_err(), ErrorCode::StaleFencingToken);
}

#[test]
fn what_nobody_takes_up_ends_after_5_s_or_its_time_to_live() {
    for (wanted, time) in [
        (lock(false, None), HOLD_TAKE_UP_MAX),
        (living(Duration::from_secs(60)), Duration::from_secs(60)),
        (living(Duration::from_millis(100)), Duration::from_millis(100)),
    ] {
        let mut scene = scene(Limits::default());
        let client = scene.named(ONE);
        let held = scene.locked(client, &wanted);
        let mut scene = restarted(scene);
        let other = scene.client();
        scene.bus.wait(time - MILLI);
        assert!(scene.is_busy(other), "{time:?}");
        let asked = scene.ask(other, Operation::LOCK, &lock(true, Some(Durability::Memory)), b"");
        scene.bus.wait(MILLI);
        scene.finish();
        let next: Granted = scene.take_outcome(other, Operation::LOCK, asked).unwrap().unwrap().decode();
        assert!(next.token > held.token);
        let client = scene.client();
        assert!(scene.take_up(client, ONE).is_empty());
        assert_eq!(scene.records(), 0);
    }
}

#[test]
fn a_time_to_live_begins_anew_when_it_is_taken_up() {
    let ttl = Duration::from_secs(60);
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    let held = scene.locked(client, &living(ttl));
    let mut scene = restarted(scene);
    scene.bus.wait(ttl - MILLI);
    let client = scene.client();
    assert_eq!(scene.take_up(client, ONE)[0].ttl_us, ttl.as_micros() as u64);
    scene.bus.wait(ttl - MILLI);
    assert!(scene.bus.client(client).take(Kind::NOTICE).is_empty());
    scene.bus.wait(MILLI);
    let lost = scene.bus.client(client).take(Kind::NOTICE).remove(0);
    assert_eq!(lost.decode::<Lost>().token, held.token);
}

#[test]
fn what_was_taken_up_is_kept_over_the_next_restart_too() {
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    let held = scene.locked(client, &lock(false, None));
    for _ in 0..3 {
        scene = restarted(scene);
        let client = scene.client();
        assert_eq!(scene.take_up(client, ONE)[0].token, held.token);
        // And what is asked for then is its own too.
        assert!(scene.is_busy(client));
    }
}

#[test]
fn what_was_given_back_is_free_after_a_restart() {
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    let held = scene.locked(client, &lock(false, None));
    scene.of_token(client, Operation::RELEASE, held.token).unwrap();
    after_lazy(&mut scene);
    let mut scene = restarted(scene);
    let other = scene.client();
    assert!(!scene.is_busy(other));
}

#[test]
fn a_record_that_is_late_to_go_makes_no_older_token_good() {
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    let held = scene.locked(client, &lock(false, None));
    scene.of_token(client, Operation::RELEASE, held.token).unwrap();
    assert_eq!(scene.records(), 1);
    // Somebody who wants it in memory waits until the record is gone.
    let other = scene.client();
    let asked = scene.ask(other, Operation::LOCK, &lock(false, Some(Durability::Memory)), b"");
    assert!(scene.take_outcome(other, Operation::LOCK, asked).is_none());
    // If the daemon dies now, its session is told of it, and gives it back.
    let records = scene.bus.disk.as_ref().unwrap().records.clone();
    let mut next = Scene::with_disk(Limits::default(), scene.bus.now, Disk { records, ..Disk::default() });
    let again = next.client();
    assert_eq!(next.take_up(again, ONE)[0].token, held.token);
    scene.finish();
    let granted: Granted = scene.take_outcome(other, Operation::LOCK, asked).unwrap().unwrap().decode();
    assert_eq!((granted.durability, scene.records()), (Durability::Memory, 0));
    let mut scene = restarted(scene);
    let other = scene.client();
    assert!(!scene.is_busy(other));
}

#[test]
fn a_session_has_one_name_and_one_connection() {
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    let refused = scene.outcome_of(client, Operation::IDENTIFY, &TWO, b"").unwrap_err();
    assert_eq!(refused, ErrorCode::Conflict);
    let held = scene.locked(client, &lock(false, None));
    // It comes over another connection: what was held over the one before ends with that.
    let again = scene.named(ONE);
    assert!(scene.bus.client(client).is_closed);
    let next = scene.locked(again, &lock(false, None));
    assert!(next.token > held.token);
    // Who has no name asks in vain for what could never be taken up.
    let nameless = scene.client();
    let refused = scene.outcome_of(nameless, Operation::LOCK, &lock(false, Some(Durability::Os)), b"");
    assert_eq!(refused.unwrap_err(), ErrorCode::InvalidArgument);
    let other = TakeLock { name: "other".into(), ..lock(false, None) };
    let granted = scene.outcome_of(nameless, Operation::LOCK, &other, b"").unwrap();
    assert_eq!(granted.decode::<Granted>().durability, Durability::Memory);
}

#[test]
fn without_a_disk_nothing_is_kept_and_said_so() {
    let mut scene = Scene::new(Limits::default());
    let client = scene.named(ONE);
    let granted = scene.outcome_of(client, Operation::LOCK, &lock(false, None), b"").unwrap();
    assert_eq!(granted.decode::<Granted>().durability, Durability::Memory);
    let refused = scene.outcome_of(client, Operation::LOCK, &lock(false, Some(Durability::Disk)), b"");
    assert_eq!(refused.unwrap_err(), ErrorCode::Unsupported);
}

#[test]
fn many_grants_share_a_commit() {
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    let before = scene.bus.disk.as_ref().unwrap().commits;
    for number in 0..50 {
        let name = format!("l{number}").as_str().into();
        scene.ask(client, Operation::LOCK, &TakeLock { name, ..lock(false, None) }, b"");
    }
    scene.finish();
    assert_eq!(scene.bus.disk.as_ref().unwrap().commits, before + 2);
    assert_eq!(scene.records(), 50);
    let mut scene = restarted(scene);
    let client = scene.client();
    assert_eq!(scene.take_up(client, ONE).len(), 50);
}
