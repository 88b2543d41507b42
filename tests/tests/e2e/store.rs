//! What outlives the daemon: killed, started again, and asked.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ipc_core::blocking::Client;
use ipc_core::client::{Condition, ConnectOptions, Durability, KeyOptions, Selection};
use ipc_core::{Address, Error, ErrorCode};
use ipc_tests::daemon::{Daemon, Options, PATIENCE, eventually};
use ipc_tests::programs::program;
use tempfile::TempDir;

/// A place for several lives of a daemon.
pub(crate) struct Place {
    directory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").unwrap() }
    }

    pub(crate) fn options(&self) -> Options {
        Options { state_dir: Some(self.directory.path().join("state")), ..Options::default() }
    }

    pub(crate) fn start(&self) -> Daemon {
        Daemon::start_with(&self.options())
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("state/store.redb")
    }
}

impl Place {
    /// Runs the daemon's program for what it does without serving.
    fn upkeep(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let state = self.directory.path().join("state");
        let ran = Command::new(program("ipc-daemon"))
            .arg("--runtime-dir")
            .arg(self.directory.path().join("run"))
            .arg("--state-dir")
            .arg(state)
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
        (ran.status.code(), said)
    }

    /// Changes every value of this one byte, wherever it stands in the file, and says how many there were.
    fn damage(&self, byte: u8) -> usize {
        let mut bytes = std::fs::read(self.store()).unwrap();
        let mut damaged = 0;
        let mut at = 0;
        while let Some(found) = bytes[at..].windows(100).position(|window| window == [byte; 100]) {
            bytes[at + found + 50] ^= 1;
            at += found + 100;
            damaged += 1;
        }
        std::fs::write(self.store(), bytes).unwrap();
        damaged
    }
}

fn address(daemon: &Daemon) -> Address {
    Address::parse(&daemon.address().to_string_lossy()).unwrap()
}

pub(crate) fn try_client(daemon: &Daemon) -> Result<Client, Error> {
    Client::connect(ConnectOptions::new().address(address(daemon)).call_timeout(PATIENCE))
}

pub(crate) fn client(daemon: &Daemon) -> Client {
    try_client(daemon).unwrap()
}

/// What one writer knows when its daemon is gone.
#[derive(Default)]
struct Known {
    /// The last value of each key that was acknowledged.
    values: BTreeMap<String, String>,
    revisions: Vec<u64>,
    /// The key of the put that was under way: nobody knows what it holds.
    open: String,
}

/// Puts one value after the other until the daemon is gone.
fn write_until_gone(address: Address, name: &str, acknowledged: &AtomicUsize) -> Known {
    let mut known = Known::default();
    let Ok(mut client) = Client::connect(ConnectOptions::new().address(address)) else { return known };
    for number in 0.. {
        let (key, value) = (format!("{name}/{}", number % 20), number.to_string());
        match client.put_key(&key, value.as_str(), &KeyOptions::default()) {
            Ok(put) => {
                known.revisions.push(put.revision);
                known.values.insert(key, value);
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                known.open = key;
                break;
            }
        }
    }
    known
}

#[test]
fn whatever_was_acknowledged_outlives_a_killed_daemon() {
    let place = Place::new();
    let lives = if std::env::var_os("IPC_TEST_LONG").is_some() { 500 } else { 15 };
    let (mut last, mut written) = (0, 0);
    let mut due: BTreeMap<String, String> = BTreeMap::new();
    for life in 0..lives {
        let daemon = place.start();
        let mut reader = client(&daemon);
        for (key, value) in &due {
            assert_eq!(reader.get_key(key).unwrap().value.as_text().unwrap(), value, "life {life}, {key}");
        }
        drop(reader);
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (address, name) = (address(&daemon), format!("{life}/{writer}"));
                let acknowledged = Arc::clone(&acknowledged);
                std::thread::spawn(move || write_until_gone(address, &name, &acknowledged))
            })
            .collect();
        // Any moment will do.
        let some = 1 + life * 37 % 200;
        assert!(eventually(|| acknowledged.load(Ordering::Relaxed) >= some), "nothing is acknowledged");
        daemon.kill();
        due.clear();
        let before = last;
        for writer in writers {
            let mut known = writer.join().unwrap();
            for revision in &known.revisions {
                assert!(*revision > before, "revision {revision} after {before}");
                last = last.max(*revision);
            }
            written += known.revisions.len();
            known.values.remove(&known.open);
            due.append(&mut known.values);
        }
    }
    assert!(written > lives, "hardly anything was written before the kills: {written}");
}

#[test]
fn memory_is_gone_and_os_and_disk_are_there_after_a_kill() {
    let place = Place::new();
    let daemon = place.start();
    let mut before = client(&daemon);
    for durability in [Durability::Memory, Durability::Os, Durability::Disk] {
        let options = KeyOptions { durability: Some(durability), ..KeyOptions::default() };
        assert_eq!(before.put_key(durability.name(), "x", &options).unwrap().durability, durability);
    }
    daemon.kill();
    let daemon = place.start();
    let mut after = client(&daemon);
    assert_eq!(after.get_key("memory").unwrap_err().code, ErrorCode::NoSuchKey);
    for key in ["os", "disk"] {
        assert_eq!(after.get_key(key).unwrap().value.as_text().unwrap(), "x");
    }
    let again = KeyOptions { condition: Condition::Absent, ..KeyOptions::default() };
    assert_eq!(after.put_key("disk", "y", &again).unwrap_err().code, ErrorCode::RevisionMismatch);
}

#[test]
fn a_damaged_store_is_named_and_the_daemon_does_not_start() {
    let place = Place::new();
    let daemon = place.start();
    let mut writer = client(&daemon);
    for number in 0..200 {
        writer.put_key(&format!("k/{number}"), "x".repeat(100), &KeyOptions::default()).unwrap();
    }
    drop(writer);
    daemon.stop();
    assert_eq!(std::fs::metadata(place.store()).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(place.damage(b'x') >= 200);
    let ended = Daemon::try_start(&place.options()).expect_err("it starts with a damaged store");
    assert_eq!(ended.status.code(), Some(74), "{ended:?}");
    assert!(ended.stderr.contains("store.redb is damaged"), "{ended:?}");
}

fn fill(client: &mut Client, byte: &str, count: usize) -> u64 {
    let put = |number| client.put_key(&format!("{byte}/{number}"), byte.repeat(100), &KeyOptions::default());
    (0..count).map(put).map(|put| put.unwrap().revision).max().unwrap()
}

#[test]
fn a_store_is_checked_and_what_is_damaged_is_named() {
    let place = Place::new();
    assert_eq!(place.upkeep(&["--check-store"]).0, Some(0), "there is none yet");
    let daemon = place.start();
    fill(&mut client(&daemon), "x", 30);
    let (status, said) = place.upkeep(&["--check-store"]);
    assert_eq!(status, Some(75), "a daemon runs on it: {said}");
    daemon.kill();
    let before = std::fs::read(place.store()).unwrap();
    let (status, said) = place.upkeep(&["--check-store"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("sound") && said.contains("30 changes of keys"), "{said}");
    assert!(std::fs::read(place.store()).unwrap() == before, "nothing is changed");
    assert!(place.damage(b'x') > 0);
    let (status, said) = place.upkeep(&["--check-store"]);
    assert_eq!(status, Some(74), "{said}");
    assert!(said.contains("damaged") && said.contains("--repair"), "{said}");
}

#[test]
fn what_can_be_read_of_a_damaged_store_is_saved_and_numbers_go_on_above() {
    let place = Place::new();
    let daemon = place.start();
    let mut writer = client(&daemon);
    fill(&mut writer, "a", 300);
    fill(&mut writer, "x", 20);
    let last = fill(&mut writer, "b", 300);
    drop(writer);
    daemon.stop();
    assert!(place.damage(b'x') >= 20);
    let (status, said) = place.upkeep(&["--repair"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("store.redb.damaged-1"), "{said}");
    assert_eq!(place.upkeep(&["--check-store"]).0, Some(0));
    let daemon = place.start();
    let mut client = client(&daemon);
    let found =
        |client: &mut Client, prefix: &str| client.list_keys_between(prefix, &format!("{prefix}~")).unwrap();
    assert!(found(&mut client, "x/").is_empty(), "a damaged value is shown");
    let saved = found(&mut client, "a/").len() + found(&mut client, "b/").len();
    assert!(saved > 300, "{saved} were saved");
    assert!(client.put_key("c", "x", &KeyOptions::default()).unwrap().revision > last);
    // Nobody knows what the watches had seen.
    let all = Selection::Prefix(String::new());
    assert_eq!(client.watch_keys(all, Some(last)).unwrap_err().code, ErrorCode::Compacted);
}

#[test]
fn a_backup_of_a_running_daemon_is_restored_above_every_number() {
    let place = Place::new();
    let daemon = place.start();
    let mut writer = client(&daemon);
    fill(&mut writer, "a", 50);
    let backup = place.directory.path().join("backup");
    let cli = |arguments: &[&str]| {
        let ran = Command::new(program("ipc-cli"))
            .arg("--runtime-dir")
            .arg(daemon.runtime_dir())
            .args(arguments)
            .output();
        ran.unwrap()
    };
    let made = cli(&["backup", backup.to_str().unwrap()]);
    assert!(made.status.success(), "{made:?}");
    let pipe = place.directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let inside = cli(&["backup", pipe.join("x").to_str().unwrap()]);
    assert_eq!(inside.status.code(), Some(74), "nobody waits for the other end: {inside:?}");
    let again = cli(&["backup", backup.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(74), "it is there already: {again:?}");
    let last = fill(&mut writer, "b", 50);
    drop(writer);
    assert_eq!(place.upkeep(&["--restore", backup.to_str().unwrap()]).0, Some(75), "a daemon runs on it");
    daemon.kill();
    let (status, said) = place.upkeep(&["--restore", backup.to_str().unwrap()]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("50 changes of keys") && said.contains("replaced-1"), "{said}");
    let daemon = place.start();
    let mut client = client(&daemon);
    assert!(client.get_key("a/49").is_ok());
    assert_eq!(client.get_key("b/0").unwrap_err().code, ErrorCode::NoSuchKey);
    assert!(client.put_key("c", "x", &KeyOptions::default()).unwrap().revision > last);
    let all = Selection::Prefix(String::new());
    assert_eq!(client.watch_keys(all, Some(last + 1)).unwrap_err().code, ErrorCode::Compacted);
    daemon.stop();

    // Where nothing is known of the numbers that were given since, they begin far above.
    let other = Place::new();
    assert_eq!(other.upkeep(&["--restore", backup.to_str().unwrap()]).0, Some(0));
    let daemon = other.start();
    let put = self::client(&daemon).put_key("c", "x", &KeyOptions::default()).unwrap();
    assert!(put.revision > last + (1 << 40), "{put:?}");
    std::fs::write(&backup, "no backup").unwrap();
    daemon.stop();
    assert_eq!(other.upkeep(&["--restore", backup.to_str().unwrap()]).0, Some(74));
}

#[test]
fn a_full_disk_is_refused_and_taken_up_again_when_there_is_room() {
    let place = Place::new();
    // The limit of a file's size stands for a disk: past it there is no room. Without the trap it would end the process.
    let daemon = Daemon::start_with(&Options {
        state_dir: place.options().state_dir,
        ..Options::with_script("trap '' XFSZ; exec \"$@\"")
    });
    let limit = |room: Option<u64>| {
        let pid = rustix::process::Pid::from_raw(daemon.pid() as i32);
        let limit = rustix::process::Rlimit { current: room, maximum: None };
        rustix::process::prlimit(pid, rustix::process::Resource::Fsize, limit).unwrap();
    };
    let mut client = client(&daemon);
    client.put_key("before", "x", &KeyOptions::default()).unwrap();
    limit(Some(std::fs::metadata(place.store()).unwrap().len()));
    let (mut kept, mut refused) = (Vec::new(), 0);
    for number in 0..60 {
        let key = format!("k/{number}");
        match client.put_key(&key, vec![7; 100_000], &KeyOptions::default()) {
            Ok(_) => kept.push(key),
            Err(error) => {
                assert_eq!(error.code, ErrorCode::StorageFailed, "{error}");
                assert!(error.message.contains("full"), "{error}");
                assert_eq!(client.get_key(&key).unwrap_err().code, ErrorCode::NoSuchKey);
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "the disk was never full");
    // What needs no disk goes on.
    let memory = KeyOptions { durability: Some(Durability::Memory), ..KeyOptions::default() };
    client.put_key("memory", "x", &memory).unwrap();
    assert_eq!(client.get_key("before").unwrap().value.as_text().unwrap(), "x");
    limit(None);
    let begun = Instant::now();
    while client.put_key("after", "x", &KeyOptions::default()).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5), "it does not come back");
        std::thread::yield_now();
    }
    kept.extend(["before".to_owned(), "after".to_owned()]);
    daemon.kill();
    let daemon = place.start();
    let mut client = self::client(&daemon);
    let mut found: Vec<String> =
        client.list_keys_between("", "").unwrap().into_iter().map(|found| found.key.to_string()).collect();
    found.sort();
    kept.sort();
    assert_eq!(found, kept);
}
