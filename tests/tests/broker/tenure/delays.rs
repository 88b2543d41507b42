//! Delays after lost holders, over restarts.

use core::time::Duration;

use ipc_core::ErrorCode;
use ipc_core::limits::{HOLD_TAKE_UP_MAX, Limits};
use ipc_core::time::Instant;
use ipc_core::wire::coordination::{Acquire, Claim, Durability, Granted, Operation, TakeLock};
use ipc_daemon::broker::Fault;
use ipc_tests::disk::Disk;

use super::{MILLI, ONE, TWO, after_lazy, claim, lock};
use crate::coordination::Scene;
use crate::durable::{restarted, scene};

const DELAY: Duration = Duration::from_secs(10);
/// So long the end of something waits to be written.
const LAZY: Duration = Duration::from_millis(20);

fn with_delay(durability: Option<Durability>) -> TakeLock {
    let claim = Claim { delay_us: DELAY.as_micros() as u64, ..claim(false, durability) };
    TakeLock { claim, ..lock(false, None) }
}

impl Scene {
    fn closures(&self) -> usize {
        let records = &self.bus.disk.as_ref().expect("a disk").records;
        records.keys().filter(|key| matches!(key.first(), Some(7 | 8))).count()
    }

    /// The lock is closed until `left` has passed, and then somebody gets it who waits.
    fn opens_after(&mut self, left: Duration) -> Granted {
        let other = self.client();
        self.bus.wait(left - MILLI);
        assert!(self.is_busy(other), "it is open {MILLI:?} too early");
        let asked = self.ask(other, Operation::LOCK, &lock(true, Some(Durability::Memory)), b"");
        self.bus.wait(MILLI);
        self.finish();
        let granted = self.take_outcome(other, Operation::LOCK, asked).expect("its turn");
        granted.expect("a grant").decode()
    }
}

/// A scene in which somebody has been lost, with the token.
fn lost() -> (Scene, u64) {
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    let held = scene.locked(client, &with_delay(None));
    scene.bus.leave(client);
    after_lazy(&mut scene);
    assert_eq!((scene.records(), scene.closures()), (0, 1));
    (scene, held.token)
}

#[test]
fn a_delay_that_runs_when_the_daemon_dies_runs_after_the_restart() {
    let (scene, token) = lost();
    let mut scene = restarted(scene);
    let client = scene.client();
    assert!(scene.take_up(client, ONE).is_empty(), "it was lost for good");
    // What its holder has still under way is good during the delay, as it was before.
    assert!(scene.put_under(client, token).is_ok());
    let next = scene.opens_after(DELAY - LAZY);
    assert!(next.token > token);
    assert_eq!(scene.put_under(client, token).unwrap_err(), ErrorCode::StaleFencingToken);
    assert_eq!(scene.closures(), 0);
    let mut scene = restarted(scene);
    let other = scene.client();
    assert!(!scene.is_busy(other));
}

#[test]
fn a_daemon_that_stops_leaves_the_next_no_more_of_a_delay_than_is_left() {
    let (mut scene, _) = lost();
    scene.bus.wait(Duration::from_secs(6));
    scene.bus.broker.begin_drain();
    assert!(!scene.bus.broker.is_drained());
    after_lazy(&mut scene);
    assert!(scene.bus.broker.is_drained());
    scene.bus.broker.end_drain();
    scene.bus.wait(MILLI);
    let mut scene = restarted(scene);
    scene.opens_after(Duration::from_secs(4) - 2 * LAZY);
}

#[test]
fn until_a_delay_is_on_the_disk_its_holder_is() {
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    scene.locked(client, &with_delay(None));
    scene.bus.leave(client);
    // Nothing of the loss has been written: it is kept for its session first, and the delay follows.
    let mut scene = restarted(scene);
    assert_eq!((scene.records(), scene.closures()), (1, 0));
    scene.bus.wait(HOLD_TAKE_UP_MAX);
    after_lazy(&mut scene);
    assert_eq!((scene.records(), scene.closures()), (0, 1));
    let mut scene = restarted(scene);
    scene.opens_after(DELAY - LAZY);
}

#[test]
fn a_delay_that_the_disk_does_not_take_is_written_when_it_does() {
    let mut scene = scene(Limits::default());
    let client = scene.named(ONE);
    scene.locked(client, &with_delay(None));
    scene.fail(Some(Fault::Full("no room".to_owned())));
    scene.bus.leave(client);
    after_lazy(&mut scene);
    assert_eq!((scene.records(), scene.closures()), (1, 0), "one of the two is there");
    scene.fail(None);
    scene.bus.wait(Duration::from_secs(1));
    scene.finish();
    assert_eq!((scene.records(), scene.closures()), (0, 1));
    // So much has passed until it was written.
    let mut scene = restarted(scene);
    scene.opens_after(DELAY - LAZY - Duration::from_secs(1));
}

#[test]
fn nobody_holds_it_before_the_record_of_its_delay_has_gone() {
    let (mut scene, _) = lost();
    let other = scene.client();
    let asked = scene.ask(other, Operation::LOCK, &lock(true, Some(Durability::Memory)), b"");
    scene.bus.wait(DELAY);
    assert!(scene.take_outcome(other, Operation::LOCK, asked).is_none(), "a crash would close it");
    scene.finish();
    assert!(scene.take_outcome(other, Operation::LOCK, asked).unwrap().is_ok());
    assert_eq!(scene.closures(), 0);
}

#[test]
fn what_was_given_back_or_held_in_memory_is_not_closed_over_a_restart() {
    for is_released in [true, false] {
        let mut scene = scene(Limits::default());
        let client = scene.named(ONE);
        if is_released {
            let held = scene.locked(client, &with_delay(None));
            scene.of_token(client, Operation::RELEASE, held.token).unwrap();
        } else {
            scene.locked(client, &with_delay(Some(Durability::Memory)));
            scene.bus.leave(client);
            let other = scene.client();
            assert!(scene.is_busy(other));
        }
        after_lazy(&mut scene);
        assert_eq!((scene.records(), scene.closures()), (0, 0));
        let mut scene = restarted(scene);
        let other = scene.client();
        assert!(!scene.is_busy(other));
    }
}

#[test]
fn a_semaphore_one_of_whose_holders_was_lost_gives_out_no_permit_during_the_delay() {
    let mut scene = scene(Limits::default());
    let (one, two) = (scene.named(ONE), scene.named(TWO));
    let acquire = |wait| {
        let claim = Claim { delay_us: DELAY.as_micros() as u64, ..claim(wait, None) };
        Acquire { name: "s".into(), permits: 3, count: 1, claim }
    };
    for client in [one, two] {
        let asked = scene.ask(client, Operation::ACQUIRE, &acquire(false), b"");
        scene.finish();
        assert!(scene.take_outcome(client, Operation::ACQUIRE, asked).unwrap().is_ok());
    }
    scene.bus.leave(one);
    after_lazy(&mut scene);
    let mut scene = restarted(scene);
    let (two, other) = (scene.client(), scene.client());
    assert_eq!(scene.take_up(two, TWO).len(), 1, "who is left has it");
    let asked = scene.ask(other, Operation::ACQUIRE, &acquire(false), b"");
    let busy = scene.take_outcome(other, Operation::ACQUIRE, asked).unwrap();
    assert_eq!(busy.err().map(|error| error.code), Some(ErrorCode::Busy.number()));
    let asked = scene.ask(two, Operation::ACQUIRE, &acquire(true), b"");
    scene.bus.wait(DELAY - LAZY - MILLI);
    scene.finish();
    assert!(scene.take_outcome(two, Operation::ACQUIRE, asked).is_none());
    scene.bus.wait(MILLI);
    scene.finish();
    assert!(scene.take_outcome(two, Operation::ACQUIRE, asked).unwrap().is_ok());
    assert_eq!(scene.closures(), 0);
}

/// A daemon that finds that record.
fn found(record: (Vec<u8>, Vec<u8>)) -> Scene {
    let mut disk = Disk::default();
    disk.records.insert(vec![1], 100u64.to_le_bytes().to_vec());
    disk.records.extend([record]);
    let mut scene = Scene::with_disk(Limits::default(), Instant::from_nanos(0), disk);
    scene.bus.disk.as_mut().unwrap().holds = true;
    scene
}

/// The layout of a record never changes: this one was written when it landed.
#[test]
fn a_record_of_a_delay_is_read_for_ever() {
    let mut value = 77u64.to_le_bytes().to_vec();
    value.extend([0; 4]);
    value.extend(9_000_000u64.to_le_bytes());
    value.extend([1]);
    value.extend(7u32.to_le_bytes());
    let record = (vec![8, 1, b'l'], value);
    let mut read = found(record.clone());
    let client = read.client();
    assert!(read.put_under(client, 77).is_ok() && read.put_under(client, 76).is_err());
    read.opens_after(Duration::from_secs(9));
    // And it is what is written.
    let (scene, token) = lost();
    let records = &scene.bus.disk.as_ref().unwrap().records;
    let (key, value) = records.iter().find(|(key, _)| key[0] == 8).unwrap();
    assert_eq!((key, &value[8..12]), (&record.0, &record.1[8..12]));
    assert_eq!(value[..8], token.to_le_bytes());
    let left = u64::from_le_bytes(value[12..20].try_into().unwrap());
    assert_eq!(Duration::from_micros(left), DELAY - LAZY);
    assert_eq!(value[20..], [1, 0xe8, 3, 0, 0], "uid 1000 pays");
}

/// That of a daemon that did not write down who pays; it leaves nothing behind, whether it is over or written again.
#[test]
fn a_record_of_a_delay_that_nobody_pays_for_is_read_for_ever() {
    let mut value = 77u64.to_le_bytes().to_vec();
    value.extend([0; 4]);
    value.extend(9_000_000u64.to_le_bytes());
    let record = (vec![7, 1, b'l'], value);
    let mut read = found(record.clone());
    let client = read.client();
    assert!(read.put_under(client, 77).is_ok() && read.put_under(client, 76).is_err());
    read.opens_after(Duration::from_secs(9));
    assert_eq!(read.closures(), 0);

    let mut stopped = found(record);
    stopped.bus.wait(Duration::from_secs(5));
    stopped.bus.broker.begin_drain();
    // What the disk does not take it is given once more.
    stopped.fail(Some(Fault::Full("no room".to_owned())));
    after_lazy(&mut stopped);
    assert_eq!(stopped.closures(), 1);
    stopped.fail(None);
    stopped.bus.wait(Duration::from_secs(1));
    stopped.finish();
    let kinds: Vec<u8> = stopped.bus.disk.as_ref().unwrap().records.keys().map(|key| key[0]).collect();
    assert!(kinds.contains(&8) && !kinds.contains(&7), "{kinds:?}");
    let mut next = restarted(stopped);
    next.opens_after(Duration::from_secs(3) - LAZY);
}
