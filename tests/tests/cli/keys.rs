//! `kv`.

use std::io::Write;

use ipc_tests::daemon::{Daemon, Signal};
use rustix::process::{Pid, kill_process};

use crate::command::{Running, at, finish, listens, run_at, tool, wait_until};

#[test]
fn a_key_is_put_got_and_deleted_under_conditions() {
    let daemon = Daemon::start();
    let run = |arguments: &[&str]| run_at(daemon.runtime_dir(), arguments);
    let put = run(&["--json", "kv", "put", "config/color", "blue", "--if-absent"]).object();
    assert_eq!((&put["key"], &put["durability"]), (&"config/color".into(), &"disk".into()));
    let revision = put["revision"].to_string();
    assert_eq!(run(&["kv", "get", "config/color"]).succeeded(), "blue");
    let got = run(&["--json", "kv", "get", "config/color"]).object();
    assert_eq!(
        (&got["key"], got["revision"].to_string(), &got["text"]),
        (&"config/color".into(), revision.clone(), &"blue".into())
    );
    assert!(got["lease"].is_null());
    run(&["--json", "kv", "put", "config/color", "red", "--if-absent"]).failed_with(75, "revision_mismatch");
    run(&["--json", "kv", "put", "config/color", "red", "--if-revision", "7"])
        .failed_with(75, "revision_mismatch");
    assert_eq!(run(&["kv", "put", "config/color", "red", "--if-revision", &revision]).status, Some(0));
    assert_eq!(run(&["kv", "delete", "config/color"]).status, Some(0));
    for arguments in
        [&["--json", "kv", "get", "config/color"][..], &["--json", "kv", "delete", "config/color"]]
    {
        run(arguments).failed_with(1, "no_such_key");
    }
    for (durability, kept) in [("memory", "memory"), ("os", "os"), ("disk", "disk"), ("memory", "disk")] {
        let put = run(&["--json", "kv", "put", "a", "x", "--durability", durability]).object();
        assert_eq!(put["durability"], kept, "asked for {durability}");
    }
    run(&["--json", "kv", "put", "a", "x", "--fence", "nobody:7"]).failed_with(75, "stale_fencing_token");
    run(&["--json", "kv", "put", "a", "x", "--fence", "nobody"]).failed_with(2, "invalid_argument");
    run(&["--json", "kv", "put", "a", "x", "--lease", "7"]).failed_with(75, "lock_lost");
    run(&["--json", "kv", "put", "a//b", "x"]).failed_with(2, "invalid_argument");
}

#[test]
fn a_script_under_a_lock_writes_with_its_token() {
    let daemon = Daemon::start();
    let program = ipc_tests::programs::program("ipc-cli");
    let place = daemon.runtime_dir().display();
    let script = format!(
        "{} --runtime-dir {place} kv put state done --fence deploy:$IPC_FENCING_TOKEN",
        program.display()
    );
    let ran = run_at(daemon.runtime_dir(), &["lock", "deploy", "--", "sh", "-c", &script]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert_eq!(run_at(daemon.runtime_dir(), &["kv", "get", "state"]).succeeded(), "done");
}

#[test]
fn keys_are_listed_and_their_history_is_shown() {
    let daemon = Daemon::start();
    let run = |arguments: &[&str]| run_at(daemon.runtime_dir(), arguments);
    for (key, value) in [("a", "1"), ("b/x", "2"), ("b/y", "3"), ("b/x", "4")] {
        assert_eq!(run(&["kv", "put", key, value]).status, Some(0));
    }
    assert_eq!(run(&["kv", "list"]).succeeded(), "a\t1\nb/x\t4\nb/y\t3\n");
    assert_eq!(run(&["kv", "list", "--prefix", "b/"]).succeeded(), "b/x\t4\nb/y\t3\n");
    assert_eq!(run(&["--json", "kv", "list", "b/x"]).object()["version"], 2);
    let history = run(&["--json", "kv", "history", "b/x"]).objects();
    let values: Vec<_> = history.iter().map(|row| (row["type"].clone(), row["text"].clone())).collect();
    assert_eq!(values, [("put".into(), "2".into()), ("put".into(), "4".into())]);
    let from = history[1]["revision"].to_string();
    assert_eq!(run(&["--json", "kv", "history", "--from-revision", &from]).objects().len(), 1);
    run(&["--json", "kv", "history", "--from-revision", "2"]).failed_with(75, "compacted");
}

#[test]
fn a_watch_shows_what_is_there_and_then_each_change() {
    let daemon = Daemon::start();
    let dir = daemon.runtime_dir();
    run_at(dir, &["kv", "put", "config/a", "1"]).succeeded();
    let mut watch = Running::start_silent(dir, &["--json", "kv", "watch", "--prefix", "config/"]);
    let first = watch.object();
    assert_eq!(
        (&first["type"], &first["key"], &first["text"]),
        (&"put".into(), &"config/a".into(), &"1".into())
    );
    run_at(dir, &["kv", "put", "other", "x"]).succeeded();
    run_at(dir, &["kv", "delete", "config/a"]).succeeded();
    let second = watch.object();
    assert_eq!((&second["type"], &second["key"]), (&"delete".into(), &"config/a".into()));
    assert!(second["revision"].as_u64() > first["revision"].as_u64());
    watch.signal(Signal::INT);
    assert_eq!(watch.ended(), Some(130));
}

#[test]
fn a_watch_runs_a_command_for_each_change() {
    let daemon = Daemon::start();
    let dir = daemon.runtime_dir();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("seen");
    let script = format!("echo $IPC_CHANGE $IPC_KEY $(cat) >> {}", file.display());
    let _watch = Running::start(dir, &["kv", "watch", "--", "sh", "-c", &script], "watching");
    run_at(dir, &["kv", "put", "a", "x"]).succeeded();
    run_at(dir, &["kv", "delete", "a"]).succeeded();
    wait_until("both changes are seen", || {
        let seen = std::fs::read_to_string(&file).unwrap_or_default();
        (seen == "put a x\ndelete a\n").then_some(())
    });
}

#[test]
fn several_keys_change_together_or_not_at_all() {
    let daemon = Daemon::start();
    let run = |arguments: &[&str]| run_at(daemon.runtime_dir(), arguments);
    let made = run(&["--json", "kv", "txn", "--put", "a=1", "--put", "b=x=y", "--if-absent", "a"]).object();
    assert_eq!(made["durability"], "disk");
    assert_eq!((&made["changes"][0]["key"], &made["changes"][1]["key"]), (&"a".into(), &"b".into()));
    let revision = format!("a={}", made["changes"][0]["revision"]);
    assert_eq!(run(&["kv", "get", "b"]).succeeded(), "x=y");
    let moved = ["kv", "txn", "--delete", "a", "--put", "c=3", "--if-revision", &revision];
    assert_eq!(run(&moved).status, Some(0));
    run(&["--json", "kv", "txn", "--delete", "b", "--if-revision", &revision])
        .failed_with(75, "revision_mismatch");
    assert_eq!(run(&["kv", "list"]).succeeded(), "b\tx=y\nc\t3\n");
    assert_eq!(run(&["kv", "list", "--from", "c"]).succeeded(), "c\t3\n");
    assert_eq!(run(&["kv", "list", "--to", "c"]).succeeded(), "b\tx=y\n");
    run(&["--json", "kv", "txn", "--put", "a"]).failed_with(2, "invalid_argument");
    assert_eq!(run(&["kv", "txn"]).status, Some(2));
}

#[test]
fn a_put_whose_value_does_not_come_ends_with_an_interrupt() {
    let daemon = Daemon::start();
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut command = tool(&at(daemon.runtime_dir(), &["kv", "put", "a", "-"]));
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().expect("ipc-cli starts");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(b"the beginning").expect("it reads");
        wait_until("it listens and reads", || {
            let is_read = rustix::io::ioctl_fionread(&input).is_ok_and(|left| left == 0);
            (is_read && listens(child.id())).then_some(())
        });
        kill_process(Pid::from_child(&child), signal).expect("it runs");
        let ran = finish(child);
        drop(input);
        assert_eq!((ran.status, ran.text(), ran.stderr.as_str()), (Some(status), "", ""));
    }
}
