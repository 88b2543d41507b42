//! Keys through the blocking client.

use std::time::Duration;

use ipc_core::ErrorCode;
use ipc_core::blocking::{Condition, KeyChange, KeyEvent, KeyOptions, Selection, Transaction};
use ipc_tests::daemon::{Daemon, PATIENCE};

use super::client;

#[test]
fn keys_are_put_got_listed_watched_and_deleted() {
    let daemon = Daemon::start();
    let (mut one, mut two) = (client(&daemon), client(&daemon));
    let absent = KeyOptions { condition: Condition::Absent, ..KeyOptions::default() };
    let put = one.put_key("a", "x", &absent).unwrap();
    assert_eq!(one.put_key("a", "y", &absent).unwrap_err().code, ErrorCode::RevisionMismatch);
    assert_eq!(two.get_key("a").unwrap().revision, put.revision);
    let watch = two.watch_keys(Selection::Prefix(String::new()), None).unwrap();
    let deleted = one.delete_key("a", &KeyOptions::default()).unwrap();
    assert_eq!(one.get_key("a").unwrap_err().code, ErrorCode::NoSuchKey);
    let mut revisions = Vec::new();
    while revisions.len() < 2 {
        match two.next_key_event(&watch, PATIENCE).unwrap() {
            Some(KeyEvent::Changed(change)) => {
                revisions.push((change.revision(), matches!(change, KeyChange::Put(_))))
            }
            Some(KeyEvent::UpToDate { revision }) => assert!(revision >= put.revision),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(revisions, [(put.revision, true), (deleted.revision, false)]);
    assert_eq!(two.next_key_event(&watch, Duration::ZERO).unwrap(), None);
    two.unwatch_keys(watch).unwrap();
    assert!(one.list_keys(&Selection::Prefix(String::new())).unwrap().is_empty());
}

#[test]
fn a_counter_that_everybody_raises_loses_nothing() {
    const THREADS: u64 = 6;
    const RAISES: u64 = 40;
    let daemon = Daemon::start();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut client = client(&daemon);
                let mut raised = 0;
                while raised < RAISES {
                    let (condition, value) = match client.get_key("n") {
                        Ok(found) => {
                            let value: u64 = found.value.as_text().unwrap().parse().unwrap();
                            (Condition::Revision(found.revision), value)
                        }
                        Err(_) => (Condition::Absent, 0),
                    };
                    let options = KeyOptions { condition, ..KeyOptions::default() };
                    raised += u64::from(client.put_key("n", (value + 1).to_string(), &options).is_ok());
                }
            });
        }
    });
    let found = client(&daemon).get_key("n").unwrap();
    assert_eq!(
        (found.value.as_text().unwrap(), found.version),
        ((THREADS * RAISES).to_string().as_str(), THREADS * RAISES)
    );
}

#[test]
fn several_keys_change_together_and_are_listed_by_range() {
    let daemon = Daemon::start();
    let mut client = client(&daemon);
    let made = Transaction::new().put("a", "1", Condition::Absent).put("b", "2", Condition::Absent);
    let made = client.transact(&made).unwrap();
    let moved = Transaction::new()
        .delete("a", Condition::Revision(made.revisions[0]))
        .put("c", "1", Condition::Absent)
        .check("b", Condition::Absent);
    assert_eq!(client.transact(&moved).unwrap_err().code, ErrorCode::RevisionMismatch);
    client.put_key("d", "4", &KeyOptions::default()).unwrap();
    let found = client.list_keys_between("a", "d").unwrap();
    let found: Vec<&str> = found.iter().map(|found| found.key.as_str()).collect();
    assert_eq!(found, ["a", "b"]);
    assert_eq!(client.list_keys_between("b", "").unwrap().len(), 2);
}
