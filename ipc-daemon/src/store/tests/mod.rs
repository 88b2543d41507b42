//! The store over a disk that can forget, tear and fail.

mod disk;
mod holds;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::disk::{Cut, Disk, Faults, Kept};
use super::database::{ABOUT, BARE_FORMAT_KEY, Store};
use super::failure::StoreError;
use super::layout::{FORMAT, LOG_BYTES, head};
use super::medium::{Place, StateFile, Watched};
use super::snapshot::{RECORDS, sealed};
use crate::broker::{Fault, Write};

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn put(key: u64, value: Vec<u8>) -> Write {
    Write { key: format!("k{key}").into_bytes(), value: Some(value) }
}

fn delete(key: u64) -> Write {
    Write { key: format!("k{key}").into_bytes(), value: None }
}

/// A commit as a script would have it.
fn some_writes(dice: &mut Dice) -> Vec<Write> {
    let count = 1 + dice.below(6);
    let some = |dice: &mut Dice| {
        let key = dice.below(40);
        if dice.below(4) == 0 {
            return delete(key);
        }
        let length = if dice.below(10) == 0 { 20_000 } else { 300 };
        let value = (0..dice.below(length)).map(|_| dice.below(256) as u8).collect();
        put(key, value)
    };
    (0..count).map(|_| some(dice)).collect()
}

fn apply(records: &mut Records, writes: &[Write]) {
    for write in writes {
        match &write.value {
            Some(value) => drop(records.insert(write.key.clone(), value.clone())),
            None => drop(records.remove(&write.key)),
        }
    }
}

/// So short that it is full after a few commits.
const SHORT_LOG_BYTES: u32 = 8 << 10;

fn open(disk: &Disk) -> Result<Store, StoreError> {
    Store::open_with(Box::new(disk.clone()), SHORT_LOG_BYTES)
}

fn read(store: &Store) -> Result<Records, StoreError> {
    let mut records = Records::new();
    store.read(|key, value| {
        records.insert(key.to_vec(), value.to_vec());
        Ok::<(), StoreError>(())
    })?;
    Ok(records)
}

#[test]
fn what_was_committed_is_there_again_and_in_order() {
    let disk = Disk::default();
    let mut dice = Dice(1);
    let mut due = Records::new();
    for _ in 0..3 {
        let mut store = open(&disk).unwrap();
        assert_eq!(read(&store).unwrap(), due);
        for _ in 0..20 {
            let writes = some_writes(&mut dice);
            store.commit(&writes).unwrap();
            apply(&mut due, &writes);
        }
        store.close().unwrap();
    }
    assert!(due.len() > 10);
}

/// What may be found after a loss of power: the commits that were acknowledged, and of the one under way all or nothing.
fn check(cut: &Cut, image: Vec<u8>, states: &[Records], what: &str) -> bool {
    let store = open(&Disk::with(image)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = read(&store).unwrap_or_else(|error| panic!("{what}: {error}"));
    let old = &states[cut.acknowledged];
    let new = states.get(cut.acknowledged + 1).unwrap_or(old);
    assert!(found == *old || found == *new, "{what}: neither {} commits nor one more", cut.acknowledged);
    found != *old
}

#[test]
fn a_loss_of_power_at_any_moment_costs_nothing_that_was_acknowledged() {
    let seeds = if std::env::var_os("IPC_TEST_LONG").is_some() { 200 } else { 4 };
    let (mut lost, mut torn, mut whole) = (0, 0, 0);
    for seed in 0..seeds {
        let disk = Disk::default();
        let mut store = open(&disk).unwrap();
        let mut dice = Dice(seed);
        let mut states = vec![Records::new()];
        disk.record();
        for number in 1..=12 {
            let writes = some_writes(&mut dice);
            let mut next = states.last().unwrap().clone();
            apply(&mut next, &writes);
            states.push(next);
            store.commit(&writes).unwrap();
            disk.acknowledge(number);
        }
        for (at, cut) in disk.cuts().iter().enumerate() {
            let what = format!("seed {seed}, moment {at}");
            // Nothing of what was not synced; all of it; some of it, in any combination; and some of it torn.
            check(cut, cut.image(|_| Kept::Nothing), &states, &what);
            whole += u32::from(check(cut, cut.image(|_| Kept::All), &states, &what));
            if cut.unsynced() == 0 {
                continue;
            }
            lost += 1;
            check(
                cut,
                cut.image(|_| if dice.below(2) == 0 { Kept::All } else { Kept::Nothing }),
                &states,
                &what,
            );
            let image = cut.image(|_| match dice.below(3) {
                0 => Kept::All,
                1 => Kept::Torn(dice.below(256) as u8),
                _ => Kept::Nothing,
            });
            torn += 1;
            check(cut, image, &states, &what);
        }
    }
    assert!(lost > 50 && torn > 50 && whole > 10, "the faults did not happen: {lost}, {torn}, {whole}");
}

#[test]
fn a_full_disk_refuses_wholly_and_takes_again_when_there_is_room() {
    let disk = Disk::default();
    let mut store = open(&disk).unwrap();
    store.commit(&[put(1, vec![1])]).unwrap();
    let room = disk.bytes().len() as u64;
    disk.set(Faults { room: Some(room), ..Faults::default() });
    // Some fit into what the file has already.
    let mut due = read(&store).unwrap();
    let mut refused = 0;
    for number in 2..40 {
        let writes = [put(number, vec![7; 100_000]), delete(number - 1)];
        match store.commit(&writes) {
            Ok(()) => apply(&mut due, &writes),
            Err(Fault::Full(why)) => {
                assert!(why.contains("full"), "{why}");
                refused += 1;
            }
            Err(Fault::Dead(why)) => panic!("{why}"),
        }
    }
    assert!(refused > 0 && disk.fired() > 0, "the disk was never full");
    let begun = Instant::now();
    disk.set(Faults::default());
    while let Err(fault) = store.commit(&[put(99, vec![9])]) {
        assert!(matches!(fault, Fault::Full(_)), "{fault:?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "it does not come back");
        std::thread::yield_now();
    }
    apply(&mut due, &[put(99, vec![9])]);
    assert_eq!(read(&store).unwrap(), due);
    drop(store);
    assert_eq!(read(&open(&disk).unwrap()).unwrap(), due);
}

#[test]
fn after_a_failed_sync_or_write_only_a_restart_writes_again() {
    for faults in
        [Faults { no_sync: true, ..Faults::default() }, Faults { no_write: true, ..Faults::default() }]
    {
        let disk = Disk::default();
        let mut store = open(&disk).unwrap();
        store.commit(&[put(1, vec![1])]).unwrap();
        disk.set(faults);
        assert!(matches!(store.commit(&[put(2, vec![2])]), Err(Fault::Dead(_))), "{faults:?}");
        assert!(disk.fired() > 0);
        disk.set(Faults::default());
        assert!(matches!(store.commit(&[put(3, vec![3])]), Err(Fault::Dead(_))), "{faults:?}");
        drop(store);
        let mut store = open(&disk).unwrap();
        let found = read(&store).unwrap();
        assert_eq!(found.get(b"k1".as_slice()), Some(&vec![1]));
        assert!(!found.contains_key(b"k3".as_slice()));
        store.commit(&[put(4, vec![4])]).unwrap();
    }
}

#[test]
fn damage_is_named_and_never_read() {
    let disk = Disk::default();
    let mut store = open(&disk).unwrap();
    let mut dice = Dice(3);
    for number in 0..60 {
        store.commit(&[put(number, (0..200).map(|_| dice.below(256) as u8).collect())]).unwrap();
    }
    let due = read(&store).unwrap();
    store.close().unwrap();
    let bytes = disk.bytes();
    let mut found = 0;
    for _ in 0..300 {
        let mut damaged = bytes.clone();
        let at = dice.below(damaged.len() as u64) as usize;
        damaged[at] ^= 1 << dice.below(8);
        // Free pages hold nothing, so that the change may be nobody's.
        let opened = std::panic::catch_unwind(|| open(&Disk::with(damaged)).and_then(|store| read(&store)));
        match opened {
            Ok(Ok(records)) => assert_eq!(records, due, "byte {at}"),
            Ok(Err(StoreError::Damaged(_))) | Err(_) => found += 1,
            Ok(Err(error)) => panic!("byte {at}: {error}"),
        }
    }
    assert!(found > 10, "no damage was found: {found}");
    for bytes in [b"this is no store".to_vec(), bytes[..bytes.len() / 2].to_vec(), vec![0; 8192]] {
        let opened = std::panic::catch_unwind(|| open(&Disk::with(bytes)).map(drop));
        assert!(matches!(opened, Ok(Err(StoreError::Damaged(_) | StoreError::Io(_))) | Err(_)), "{opened:?}");
    }
}

#[test]
fn what_a_later_version_has_written_is_not_read() {
    let disk = Disk::default();
    drop(open(&disk).unwrap());
    let mut bytes = disk.bytes();
    let head = head(FORMAT + 1, SHORT_LOG_BYTES);
    bytes[..head.len()].copy_from_slice(&head);
    let disk = Disk::with(bytes);
    for _ in 0..2 {
        assert!(matches!(open(&disk), Err(StoreError::Newer(format)) if format == FORMAT + 1));
    }
}

#[test]
fn a_head_is_not_believed_what_the_file_is_too_short_for() {
    let disk = Disk::default();
    drop(open(&disk).unwrap());
    let whole = disk.bytes();
    let with = |log_bytes: u32| {
        let mut bytes = whole.clone();
        bytes[..4096].copy_from_slice(&head(FORMAT, log_bytes));
        Disk::with(bytes)
    };
    for log_bytes in [0, whole.len() as u32, (64 << 20) + 1, u32::MAX] {
        assert!(matches!(open(&with(log_bytes)), Err(StoreError::Damaged(_))), "{log_bytes}");
    }
    assert!(open(&with(SHORT_LOG_BYTES)).is_ok());
}

/// A store as format 1 had it, with these records and with what it says of itself.
fn bare(records: &Records, format: u32) -> Disk {
    let disk = Disk::with(Vec::new());
    let bytes = Watched::new(disk.open().unwrap().unwrap(), Arc::default());
    let database = redb::Builder::new().create_with_backend(bytes).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut about = transaction.open_table(ABOUT).unwrap();
        about.insert(BARE_FORMAT_KEY, format.to_le_bytes().as_slice()).unwrap();
        let mut table = transaction.open_table(RECORDS).unwrap();
        for (key, value) in records {
            table.insert(key.as_slice(), sealed(key, value).as_slice()).unwrap();
        }
    }
    transaction.commit().unwrap();
    drop(database);
    disk
}

#[test]
fn a_store_of_the_first_format_is_made_anew_in_this_one() {
    let mut due = Records::new();
    apply(&mut due, &[put(1, vec![1; 5]), put(2, vec![2; 5000])]);
    let disk = bare(&due, 1);
    let mut store = open(&disk).unwrap();
    assert_eq!(read(&store).unwrap(), due);
    store.commit(&[delete(1)]).unwrap();
    apply(&mut due, &[delete(1)]);
    drop(store);
    assert_eq!(disk.bytes()[..12], head(FORMAT, 0)[..12]);
    assert_eq!(read(&open(&disk).unwrap()).unwrap(), due);
    assert!(
        matches!(open(&bare(&due, 7)), Err(StoreError::Damaged(_))),
        "there was no format 7 of that kind"
    );
}

#[test]
fn a_commit_is_one_write_and_one_sync_until_the_log_is_full() {
    let disk = Disk::default();
    let mut store = Store::open_with(Box::new(disk.clone()), SHORT_LOG_BYTES).unwrap();
    disk.record();
    // With 27 bytes of header, lengths and key a KiB each: eight of them are the log.
    let kibi = |number| [put(number, vec![7; 1024 - 27])];
    for number in 10..18 {
        store.commit(&kibi(number)).unwrap();
        assert_eq!(disk.cuts().len(), 2, "commit {number}");
        disk.record();
    }
    store.commit(&kibi(18)).unwrap();
    assert!(disk.cuts().len() > 3, "the ninth one goes into the database with the eight");
    disk.record();
    store.commit(&kibi(19)).unwrap();
    assert_eq!(disk.cuts().len(), 2, "there is room again");
    assert_eq!(read(&store).unwrap().len(), 10);
    assert_eq!(read(&open(&disk).unwrap()).unwrap().len(), 10);
}

#[test]
fn damage_to_what_was_folded_last_is_named_and_nothing_older_is_taken_for_it() {
    let disk = Disk::default();
    let mut store = open(&disk).unwrap();
    let kibi = |number: u64, byte: u8| [put(number, vec![byte; 1000])];
    for number in 0..12 {
        store.commit(&kibi(number, 0x5a)).unwrap();
    }
    // The log has begun again, over what was in it before the fold.
    let bytes = disk.bytes();
    drop(store);
    let folded = (SHORT_LOG_BYTES as usize + 4096..bytes.len() - 1000).step_by(8);
    let mut named = 0;
    for at in folded.filter(|at| bytes[*at..at + 500] == [0x5a; 500]).step_by(20) {
        let mut damaged = bytes.clone();
        damaged[at + 250] ^= 1;
        match std::panic::catch_unwind(|| open(&Disk::with(damaged)).and_then(|store| read(&store))) {
            Ok(Ok(records)) => assert_eq!(records.len(), 12, "byte {at}"),
            Ok(Err(StoreError::Damaged(_))) | Err(_) => named += 1,
            Ok(Err(error)) => panic!("byte {at}: {error}"),
        }
    }
    assert!(named > 3, "{named}");
}

#[test]
fn damage_to_the_log_of_a_store_that_was_not_closed_is_named() {
    let disk = Disk::default();
    let mut store = Store::open_with(Box::new(disk.clone()), LOG_BYTES).unwrap();
    for number in 0..20 {
        store.commit(&[put(number, vec![0x5a; 100])]).unwrap();
    }
    let bytes = disk.bytes();
    drop(store);
    let places: Vec<usize> =
        (0..bytes.len() - 100).filter(|at| bytes[*at..at + 100] == [0x5a; 100]).collect();
    assert_eq!(places.len(), 20);
    for (number, place) in places.iter().enumerate() {
        let mut damaged = bytes.clone();
        damaged[*place] = 0;
        match open(&Disk::with(damaged)) {
            Err(StoreError::Damaged(why)) => assert!(why.contains(&format!("commit {number} of")), "{why}"),
            // One that is not whole at the end was under way.
            opened => assert!(number == 19 && read(&opened.unwrap()).unwrap().len() == 19, "{number}"),
        }
    }
}

#[test]
fn a_file_is_whole_or_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let place = || {
        let handle = OwnedFd::from(std::fs::File::open(directory.path()).unwrap());
        StateFile::new(handle, directory.path(), "s")
    };
    assert!(place().open().unwrap().is_none());
    // What an attempt before has left is not in the way.
    std::fs::write(directory.path().join("s.new"), "rubbish").unwrap();
    let mut store = Store::open(Box::new(place())).unwrap();
    store.commit(&[put(1, vec![1])]).unwrap();
    store.close().unwrap();
    assert!(!directory.path().join("s.new").exists());
    let store = Store::open(Box::new(place())).unwrap();
    assert_eq!(read(&store).unwrap().len(), 1);
    drop(store);
    std::fs::remove_file(directory.path().join("s")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", directory.path().join("s")).unwrap();
    assert!(place().open().is_err(), "a link is not followed");
}
