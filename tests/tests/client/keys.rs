//! Keys through the async client.

use std::time::Duration;

use ipc_core::ErrorCode;
use ipc_core::client::{
    Backoff, Client, Condition, Durability, KeyChange, KeyEvent, KeyOptions, KeyWatch, Selection, Transaction,
};
use ipc_core::name::ResourceName;
use ipc_tests::daemon::{Daemon, Options};

use crate::{Bus, on_each_runtime};

fn when(condition: Condition) -> KeyOptions {
    KeyOptions { condition, ..KeyOptions::default() }
}

fn prefix(text: &str) -> Selection {
    Selection::Prefix(text.to_owned())
}

/// The next change of a watch as a line, or what else it says.
async fn told(watch: &mut KeyWatch) -> String {
    match watch.next().await.unwrap().unwrap() {
        KeyEvent::Changed(KeyChange::Put(put)) => format!("put {} {}", put.key, put.value.as_text().unwrap()),
        KeyEvent::Changed(KeyChange::Delete { key, .. }) => format!("delete {key}"),
        KeyEvent::UpToDate { .. } => "up to date".to_owned(),
        KeyEvent::Restarted => "restarted".to_owned(),
        KeyEvent::Ended(error) => error.to_string(),
    }
}

#[test]
fn a_key_has_its_last_value_and_conditions_hold() {
    on_each_runtime(async |bus| {
        let (one, two) = (bus.client().await, bus.client().await);
        assert_eq!(one.get_key("a/b").await.unwrap_err().code, ErrorCode::NoSuchKey);
        let first = one.put_key("a/b", "one", when(Condition::Absent)).await.unwrap();
        assert_eq!(first.durability, Durability::Disk);
        let second = two.put_key("a/b", "two", when(Condition::Revision(first.revision))).await.unwrap();
        assert!(second.revision > first.revision);
        let found = one.get_key("a/b").await.unwrap();
        assert_eq!(
            (found.value.as_text().unwrap(), found.revision, found.created, found.version),
            ("two", second.revision, first.revision, 2)
        );
        for condition in [Condition::Absent, Condition::Revision(first.revision)] {
            let error = one.put_key("a/b", "x", when(condition)).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::RevisionMismatch);
            let error = one.delete_key("a/b", when(condition)).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::RevisionMismatch);
        }
        let deleted = two.delete_key("a/b", KeyOptions::default()).await.unwrap();
        assert!(deleted.revision > second.revision);
        assert_eq!(
            one.delete_key("a/b", KeyOptions::default()).await.unwrap_err().code,
            ErrorCode::NoSuchKey
        );
        let (memory, os, disk) = (Durability::Memory, Durability::Os, Durability::Disk);
        // What is on the disk is changed on the disk.
        for (asked, kept) in [(memory, memory), (os, os), (memory, os), (disk, disk), (os, disk)] {
            let options = KeyOptions { durability: Some(asked), ..KeyOptions::default() };
            assert_eq!(one.put_key("kept", "x", options).await.unwrap().durability, kept, "{asked:?}");
        }
        let large = vec![0; (1 << 20) + 1];
        assert_eq!(
            one.put_key("a/b", large, KeyOptions::default()).await.unwrap_err().code,
            ErrorCode::PayloadTooLarge
        );
    });
}

#[test]
fn many_keys_are_listed_in_order_with_their_values() {
    on_each_runtime(async |bus| {
        let client = bus.client().await;
        let names: Vec<String> = (0..250).map(|number| format!("k/{number:03}")).collect();
        for name in &names {
            client.put_key(name, name.repeat(100), KeyOptions::default()).await.unwrap();
        }
        client.put_key("other", "x", KeyOptions::default()).await.unwrap();
        let found = client.list_keys(&prefix("k/")).await.unwrap();
        assert_eq!(found.len(), names.len());
        for (found, name) in found.iter().zip(&names) {
            assert_eq!(
                (found.key.as_str(), found.value.as_text().unwrap()),
                (name.as_str(), name.repeat(100).as_str())
            );
        }
        let one = Selection::Key(ResourceName::parse("other").unwrap());
        assert_eq!(client.list_keys(&one).await.unwrap().len(), 1);
        let changes = client.key_history(&prefix(""), found[0].revision).await.unwrap();
        assert_eq!(changes.len(), names.len() + 1);
        assert!(changes.is_sorted_by(|one, two| one.revision() < two.revision()));
        assert_eq!(client.key_history(&prefix(""), 2).await.unwrap_err().code, ErrorCode::Compacted);
    });
}

#[test]
fn keys_end_with_their_time_and_their_lease() {
    on_each_runtime(async |bus| {
        let client = bus.client().await;
        let lease = client.lease(Duration::from_secs(60)).await.unwrap();
        let leased = KeyOptions { lease: Some(lease.token()), ..KeyOptions::default() };
        client.put_key("leased", "x", leased.clone()).await.unwrap();
        assert_eq!(client.get_key("leased").await.unwrap().lease, Some(lease.token()));
        let brief = KeyOptions { ttl: Some(Duration::from_millis(20)), ..KeyOptions::default() };
        let mut watch = bus.client().await.watch_keys(prefix(""), None).await.unwrap();
        assert_eq!(
            (told(&mut watch).await, told(&mut watch).await),
            ("put leased x".to_owned(), "up to date".to_owned())
        );
        client.put_key("brief", "y", brief).await.unwrap();
        assert_eq!(
            (told(&mut watch).await, told(&mut watch).await),
            ("put brief y".to_owned(), "delete brief".to_owned())
        );
        client.close().await;
        assert_eq!(told(&mut watch).await, "delete leased");
        assert_eq!(bus.client().await.put_key("a", "x", leased).await.unwrap_err().code, ErrorCode::LockLost);
    });
}

#[test]
fn a_late_holder_is_fenced_off() {
    on_each_runtime(async |bus| {
        let (one, two) = (bus.client().await, bus.client().await);
        let lock = ResourceName::parse("deploy").unwrap();
        let under = |token| KeyOptions { fence: Some((lock.clone(), token)), ..KeyOptions::default() };
        let first = one.lock("deploy", Default::default()).await.unwrap();
        one.put_key("state", "first", under(first.token())).await.unwrap();
        let late = first.token();
        drop(first);
        let second = two.lock("deploy", Default::default()).await.unwrap();
        let error = one.put_key("state", "late", under(late)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::StaleFencingToken);
        two.put_key("state", "second", under(second.token())).await.unwrap();
        assert_eq!(one.get_key("state").await.unwrap().value.as_text().unwrap(), "second");
    });
}

#[test]
fn a_watch_that_is_not_taken_in_time_misses_nothing() {
    on_each_runtime(async |bus| {
        const PUTS: u32 = 6000;
        let (writer, watcher) = (bus.client().await, bus.client().await);
        let mut watch = watcher.watch_keys(prefix("k"), None).await.unwrap();
        assert_eq!(told(&mut watch).await, "up to date");
        for number in 0..PUTS {
            writer.put_key("k", number.to_string(), KeyOptions::default()).await.unwrap();
        }
        for number in 0..PUTS {
            let mut next = told(&mut watch).await;
            // It was asked for again in between.
            while next == "up to date" {
                next = told(&mut watch).await;
            }
            assert_eq!(next, format!("put k {number}"));
        }
    });
}

async fn staying(bus: &Bus) -> Client {
    let brief =
        Backoff { first: Duration::from_millis(1), max: Duration::from_millis(20), ..Backoff::default() };
    Client::connect(bus.options().reconnect(brief)).await.unwrap()
}

#[test]
fn a_watch_says_when_the_daemon_has_forgotten_everything() {
    let directory = tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").unwrap();
    let options = Options { runtime_dir: Some(directory.path().join("run")), ..Options::default() };
    let first = Bus { daemon: Daemon::start_with(&options), polls: true };
    crate::current_thread().block_on(async {
        let watcher = staying(&first).await;
        let mut watch = watcher.watch_keys(prefix(""), None).await.unwrap();
        assert_eq!(told(&mut watch).await, "up to date");
        let put = watcher.put_key("a", "x", KeyOptions::default()).await.unwrap();
        assert_eq!(told(&mut watch).await, "put a x");
        first.daemon.kill();
        // It has another state directory.
        let second = Bus { daemon: Daemon::start_with(&options), polls: true };
        let writer = second.client().await;
        let again = writer.put_key("b", "y", KeyOptions::default()).await.unwrap();
        assert!(again.revision > put.revision, "{again:?} after {put:?}");
        assert_eq!(told(&mut watch).await, "restarted");
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.push(told(&mut watch).await);
        }
        seen.sort();
        assert_eq!(seen, ["put b y", "up to date"]);
    });
}

#[test]
fn a_watch_goes_on_over_a_killed_daemon_without_loss_and_without_doubles() {
    let directory = tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").unwrap();
    let options = Options {
        runtime_dir: Some(directory.path().join("run")),
        state_dir: Some(directory.path().join("state")),
        ..Options::default()
    };
    crate::current_thread().block_on(async {
        let mut bus = Bus { daemon: Daemon::start_with(&options), polls: true };
        let watcher = staying(&bus).await;
        let mut watch = watcher.watch_keys(prefix("k/"), None).await.unwrap();
        let mut seen = Vec::new();
        let mut last = 0;
        for life in 0..4 {
            let writer = bus.client().await;
            for number in 0..5 {
                let key = format!("k/{life}{number}");
                let put = writer.put_key(&key, "x", KeyOptions::default()).await.unwrap();
                assert!(put.revision > last, "{put:?} after {last}");
                last = put.revision;
            }
            // The watch may have heard of some of them, or of all.
            bus.daemon.kill();
            bus = Bus { daemon: Daemon::start_with(&options), polls: true };
        }
        while seen.len() < 20 {
            let line = told(&mut watch).await;
            if line != "up to date" {
                seen.push(line);
            }
        }
        let due = (0..4).flat_map(|life| (0..5).map(move |number| format!("put k/{life}{number} x")));
        assert_eq!(seen, due.collect::<Vec<_>>());
    });
}

#[test]
fn a_transaction_changes_all_of_its_keys_or_none() {
    on_each_runtime(async |bus| {
        let client = bus.client().await;
        let mut watch = client.watch_keys(prefix(""), None).await.unwrap();
        assert_eq!(told(&mut watch).await, "up to date");
        let first = Transaction::new().put("a", "1", Condition::Absent).put("b", "2", Condition::Absent);
        let made = client.transact(&first).await.unwrap();
        assert_eq!(made.durability, Durability::Disk);
        assert!(made.revisions[0] < made.revisions[1]);
        assert_eq!((told(&mut watch).await, told(&mut watch).await), ("put a 1".into(), "put b 2".into()));

        let revision = Condition::Revision(made.revisions[0]);
        let wrong = Transaction::new()
            .put("c", "3", Condition::Any)
            .delete("b", Condition::Any)
            .check("a", Condition::Revision(made.revisions[1]));
        assert_eq!(client.transact(&wrong).await.unwrap_err().code, ErrorCode::RevisionMismatch);
        let missing = Transaction::new().put("c", "3", Condition::Any).delete("x", Condition::Any);
        assert_eq!(client.transact(&missing).await.unwrap_err().code, ErrorCode::NoSuchKey);
        let twice = Transaction::new().put("c", "3", Condition::Any).check("c", Condition::Any);
        assert_eq!(client.transact(&twice).await.unwrap_err().code, ErrorCode::InvalidArgument);
        assert_eq!(client.get_key("c").await.unwrap_err().code, ErrorCode::NoSuchKey);

        let moved = Transaction::new()
            .delete("a", revision)
            .put_for("c", "3", Condition::Absent, Some(Duration::from_secs(60)), None)
            .check("b", Condition::Revision(made.revisions[1]));
        let made = client.transact(&moved).await.unwrap();
        assert_eq!(made.revisions[2], 0, "it was only checked");
        assert_eq!((told(&mut watch).await, told(&mut watch).await), ("delete a".into(), "put c 3".into()));
        assert_eq!(client.get_key("c").await.unwrap().revision, made.revisions[1]);
    });
}

#[test]
fn a_transaction_has_so_many_keys_and_no_more() {
    on_each_runtime(async |bus| {
        let client = bus.client().await;
        for (count, is_taken) in [(0, false), (1, true), (63, true), (64, true), (65, false)] {
            let all = (0..count).fold(Transaction::new(), |transaction, number| {
                transaction.put(&format!("k/{number}"), "x", Condition::Any)
            });
            assert_eq!(client.transact(&all).await.is_ok(), is_taken, "{count}");
        }
    });
}

#[test]
fn keys_are_listed_from_one_to_before_another() {
    on_each_runtime(async |bus| {
        let client = bus.client().await;
        for number in 0..250 {
            client.put_key(&format!("k/{number:03}"), "x", KeyOptions::default()).await.unwrap();
        }
        for (from, to, count, first) in
            [("k/100", "k/110", 10, "k/100"), ("k/", "", 250, "k/000"), ("", "k/01", 10, "k/000")]
        {
            let found = client.list_keys_between(from, to).await.unwrap();
            assert_eq!((found.len(), found[0].key.as_str()), (count, first), "{from} to {to}");
        }
        assert!(client.list_keys_between("k/5", "k/4").await.unwrap().is_empty());
    });
}
