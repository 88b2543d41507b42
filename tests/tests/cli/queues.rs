//! `queue` and `list queues`.

use std::path::Path;

use ipc_tests::daemon::{Daemon, Signal};

use crate::command::{Ran, Running, is_running, run_at, wait_until};

fn counts(dir: &Path, queue: &str) -> serde_json::Value {
    run_at(dir, &["--json", "queue", "stats", queue]).object()
}

/// Takes without a command: the object that is shown.
fn taken(dir: &Path, arguments: &[&str]) -> serde_json::Value {
    run_at(dir, &[&["--json", "queue", "take"], arguments].concat()).object()
}

fn ran(dir: &Path, arguments: &[&str]) -> Ran {
    run_at(dir, arguments)
}

#[test]
fn an_entry_is_put_taken_and_acknowledged_by_its_token() {
    let daemon = Daemon::start();
    let dir = daemon.runtime_dir();
    ran(dir, &["--json", "queue", "take", "jobs"]).failed_with(75, "busy");
    let put = ran(dir, &["--json", "queue", "put", "jobs", "one", "--id", "j-1"]).object();
    let shown = (&put["queue"], &put["id"], &put["duplicate"], &put["durability"]);
    assert_eq!(shown, (&"jobs".into(), &"j-1".into(), &false.into(), &"disk".into()));
    let again = ran(dir, &["--json", "queue", "put", "jobs", "one", "--id", "j-1"]).object();
    assert_eq!((&again["duplicate"], &again["number"]), (&true.into(), &put["number"]));
    let number = ran(dir, &["queue", "put", "jobs", "-5"]).succeeded().trim().to_owned();
    assert!(number.parse::<u64>().is_ok(), "{number}");
    let first = taken(dir, &["jobs"]);
    assert_eq!(
        (&first["queue"], &first["id"], &first["text"]),
        (&"jobs".into(), &"j-1".into(), &"one".into())
    );
    assert_eq!((&first["deliveries"], &first["visibility_ms"]), (&1.into(), &30_000.into()));
    assert!(first["sender"]["uid"].is_u64() && first["delivery"].is_u64(), "{first}");
    let second = ran(dir, &["queue", "take", "jobs"]);
    assert_eq!(second.succeeded(), "-5");
    let delivery = first["delivery"].to_string();
    assert!(second.stderr.contains("ipc-cli queue ack jobs "), "{second:?}");
    ran(dir, &["queue", "ack", "jobs", &delivery]).succeeded();
    ran(dir, &["--json", "queue", "ack", "jobs", &delivery]).failed_with(75, "lock_lost");
    let left = counts(dir, "jobs");
    assert_eq!((&left["ready"], &left["delivered"], &left["acks"]), (&0.into(), &1.into(), &1.into()));
    ran(dir, &["--json", "queue", "put", "a//b", "x"]).failed_with(2, "invalid_argument");
    ran(dir, &["--json", "queue", "put", "ipc.a", "x"]).failed_with(77, "permission_denied");
    let memory = ran(dir, &["--json", "queue", "put", "a", "x", "--durability", "memory"]).object();
    assert_eq!(memory["durability"], "memory");
    ran(dir, &["--json", "queue", "put", "a", "x", "--fence", "nobody:7"])
        .failed_with(75, "stale_fencing_token");
}

#[test]
fn visibility_runs_out_and_too_many_deliveries_are_dead_letters() {
    let daemon = Daemon::start();
    let dir = daemon.runtime_dir();
    ran(dir, &["queue", "put", "jobs", "poison", "--max-deliveries", "2"]).succeeded();
    let first = taken(dir, &["jobs", "--visibility", "20ms"]);
    // It comes back by itself.
    let second = taken(dir, &["jobs", "--wait", "5s"]);
    assert_eq!((&second["id"], &second["deliveries"]), (&first["id"], &2.into()));
    let delivery = second["delivery"].to_string();
    let nacked = ran(dir, &["--json", "queue", "nack", "jobs", &delivery, "--reason", "no paper"]).object();
    assert_eq!(nacked["dead"], true);
    ran(dir, &["--json", "queue", "take", "jobs", "--wait", "10ms"]).failed_with(75, "busy");
    let letter = ran(dir, &["--json", "queue", "peek", "jobs.dead"]).object();
    assert_eq!((&letter["text"], &letter["state"]), (&"poison".into(), &"ready".into()));
    assert!(letter["death"].as_str().is_some_and(|death| death.contains("no paper")), "{letter}");
    let table = ran(dir, &["queue", "peek", "jobs.dead"]);
    assert!(table.succeeded().contains("poison") && table.text().contains("no paper"), "{table:?}");
    let rows = ran(dir, &["--json", "list", "queues"]).objects();
    let row = rows.iter().find(|row| row["name"] == "jobs.dead").expect("it is listed");
    assert_eq!((&row["kind"], &row["ready"]), (&"queue".into(), &1.into()));
    assert!(ran(dir, &["list", "queues"]).succeeded().contains("jobs.dead"));
    assert!(ran(dir, &["queue", "stats", "jobs.dead"]).succeeded().contains("ready"));
    assert_eq!(ran(dir, &["--json", "queue", "purge", "jobs.dead"]).object()["purged"], 1);
    assert_eq!(counts(dir, "jobs")["dead"], 0);
}

#[test]
fn priority_delay_and_length_are_kept() {
    let daemon = Daemon::start();
    let dir = daemon.runtime_dir();
    for (body, flags) in [("low", &[][..]), ("high", &["--priority", "9"]), ("later", &["--delay", "1h"])] {
        ran(dir, &[&["queue", "put", "jobs", body], flags].concat()).succeeded();
    }
    assert_eq!(taken(dir, &["jobs"])["text"], "high");
    ran(dir, &["--json", "queue", "put", "jobs", "x", "--max-length", "2"]).failed_with(75, "quota_exceeded");
    let put = ["--json", "queue", "put", "jobs", "x", "--max-length", "2", "--overflow", "drop-oldest"];
    assert_eq!(ran(dir, &put).object()["dropped"], 1);
    let left = counts(dir, "jobs");
    assert_eq!((&left["ready"], &left["delayed"], &left["drops"]), (&1.into(), &1.into(), &1.into()));
}

#[test]
fn a_command_works_on_an_entry_and_its_status_is_ours() {
    let daemon = Daemon::start();
    let dir = daemon.runtime_dir();
    let script = "echo $IPC_QUEUE $IPC_ENTRY_ID $IPC_DELIVERIES $(cat)";
    ran(dir, &["queue", "put", "jobs", "one", "--id", "j-1"]).succeeded();
    let worked = ran(dir, &["queue", "take", "jobs", "--", "sh", "-c", script]);
    assert_eq!(worked.succeeded(), "jobs j-1 1 one\n");
    assert_eq!(counts(dir, "jobs")["acks"], 1);
    ran(dir, &["queue", "put", "jobs", "two", "--max-deliveries", "2"]).succeeded();
    for (script, status) in [("exit 3", 3), ("kill -9 $$", 137)] {
        assert_eq!(ran(dir, &["queue", "take", "jobs", "--", "sh", "-c", script]).status, Some(status));
    }
    let letter = ran(dir, &["--json", "queue", "peek", "jobs.dead"]).object();
    assert!(letter["death"].as_str().is_some_and(|death| death.contains("signal-9")), "{letter}");
    ran(dir, &["--json", "queue", "take", "jobs", "--", "/nonexistent/program"])
        .failed_with(2, "invalid_argument");
    ran(dir, &["--json", "queue", "take", "jobs", "--", "true"]).failed_with(75, "busy");
    // A command that takes too long is ended, and its entry goes to the next.
    ran(dir, &["queue", "put", "slow", "x"]).succeeded();
    let late = ran(dir, &["--json", "queue", "take", "slow", "--visibility", "50ms", "--", "sleep", "100"]);
    assert_eq!((late.status, late.stderr.contains("lock_lost")), (Some(75), true), "{late:?}");
    assert_eq!(taken(dir, &["slow", "--wait", "5s"])["deliveries"], 2);
}

#[test]
fn workers_go_on_until_nothing_is_left() {
    let daemon = Daemon::start();
    let dir = daemon.runtime_dir();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("seen");
    for number in 0..20 {
        ran(dir, &["queue", "put", "jobs", &number.to_string()]).succeeded();
    }
    let script = format!("read number; echo $number >> {}; test $number != 7", file.display());
    let worked = ran(dir, &["queue", "take", "jobs", "--workers", "4", "--", "sh", "-c", &script]);
    assert_eq!(worked.status, Some(1), "one of them failed: {worked:?}");
    let seen = std::fs::read_to_string(&file).expect("they have worked");
    let mut seen: Vec<u32> = seen.lines().map(|line| line.parse().expect("a number")).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
    // The one that failed is there again, a little later.
    assert_eq!(taken(dir, &["jobs", "--wait", "5s"])["text"], "7");
    ran(dir, &["--json", "queue", "take", "jobs", "--workers", "2", "--", "true"]).failed_with(75, "busy");
}

/// A worker whose command has begun and goes on for long; gives the process of the command.
fn busy_worker(dir: &Path, file: &Path, arguments: &[&str]) -> (Running, String) {
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 1000", file.display());
    let arguments = [&["queue", "take", "jobs"], arguments, &["--", "sh", "-c", &script]].concat();
    let worker = Running::start_silent(dir, &arguments);
    let pid = wait_until("the command runs", || std::fs::read_to_string(file).ok());
    (worker, pid.trim().to_owned())
}

#[test]
fn the_work_of_a_killed_worker_is_there_at_once() {
    let daemon = Daemon::start();
    let dir = daemon.runtime_dir();
    let directory = tempfile::tempdir().expect("a directory");
    ran(dir, &["queue", "put", "jobs", "one"]).succeeded();
    let (mut worker, pid) = busy_worker(dir, &directory.path().join("pid"), &[]);
    worker.signal(Signal::KILL);
    assert_eq!(worker.ended(), None);
    let next = taken(dir, &["jobs", "--wait", "5s"]);
    assert_eq!((&next["text"], &next["deliveries"]), (&"one".into(), &2.into()));
    // Nobody can end the command of a killed tool; the test does.
    let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw).expect("a process");
    rustix::process::kill_process_group(pid, Signal::KILL).expect("it runs");
}

#[test]
fn an_interrupted_worker_ends_its_command_and_gives_the_work_back() {
    let daemon = Daemon::start();
    let dir = daemon.runtime_dir();
    let directory = tempfile::tempdir().expect("a directory");
    ran(dir, &["queue", "put", "jobs", "one"]).succeeded();
    for (at, arguments) in [&[][..], &["--workers", "2"]].into_iter().enumerate() {
        let (mut worker, pid) = busy_worker(dir, &directory.path().join(format!("pid{at}")), arguments);
        worker.signal(Signal::TERM);
        assert_eq!(worker.ended(), Some(143));
        wait_until("the command is gone", || (!is_running(&pid)).then_some(()));
        assert_eq!(counts(dir, "jobs")["ready"], 1, "{arguments:?}");
    }
}
