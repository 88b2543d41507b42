//! `lock`, `semaphore`, `elect`, `barrier`, `lease` and `list locks`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ipc_tests::daemon::{Daemon, Options, Signal};

use crate::command::{Running, at, finish, is_running, run_at, tool, wait_until};

/// A holder whose command leaves its number in a file and runs until it is ended, not by SIGTERM if it is `stubborn`.
struct Holder {
    running: Running,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Holder {
    fn start(daemon: &Daemon, arguments: &[&str], said: &str, stubborn: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("pids");
        let trap = if stubborn { "trap '' TERM;" } else { "" };
        let script = format!(
            "{trap} sleep 1000 & echo $$ $! $IPC_FENCING_TOKEN > {0}.new; mv {0}.new {0}; wait; wait",
            file.display()
        );
        let command = ["--json", "--", "sh", "-c", &script];
        let arguments: Vec<&str> = arguments.iter().copied().chain(command).collect();
        let mut child = Running::start_silent(daemon.runtime_dir(), &arguments);
        let object = child.object();
        assert!(object.get(said).is_some() && object["token"].is_u64(), "{object}");
        assert!(object["ttl_ms"].is_null() || object["ttl_ms"].is_u64(), "{object}");
        Self { running: child, file, _directory: directory }
    }

    /// The processes of the command, and the token in its environment.
    fn told(&self) -> (Vec<String>, String) {
        let text = wait_until("the command runs", || std::fs::read_to_string(&self.file).ok());
        let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let token = words.pop().expect("a token");
        (words, token)
    }
}

fn all_gone(pids: &[String]) {
    wait_until("no process of the command is left", || {
        (!pids.iter().any(|pid| is_running(pid))).then_some(())
    });
}

fn json_of(runtime_dir: &Path, arguments: &[&str]) -> Vec<serde_json::Value> {
    run_at(runtime_dir, &[&["--json"], arguments].concat()).objects()
}

#[test]
fn a_command_runs_under_a_lock_and_its_status_is_ours() {
    let daemon = Daemon::start();
    let run = |arguments: &[&str]| run_at(daemon.runtime_dir(), arguments);
    let ran = run(&["lock", "deploy/web", "--quiet", "--", "sh", "-c", "echo $IPC_FENCING_TOKEN"]);
    let first: u64 = ran.succeeded().trim().parse().expect("a token");
    let ran = run(&["lock", "deploy/web", "--quiet", "--", "sh", "-c", "echo $IPC_FENCING_TOKEN"]);
    assert!(ran.succeeded().trim().parse::<u64>().expect("a token") > first);
    for (script, status) in [("exit 3", 3), ("kill -9 $$", 137), ("exit 0", 0)] {
        assert_eq!(run(&["lock", "a", "--", "sh", "-c", script]).status, Some(status), "{script}");
    }
    // Without a command it ends with its input, and its output is the token.
    let ran = run(&["lock", "a", "--quiet"]);
    assert!(ran.succeeded().trim().parse::<u64>().is_ok(), "{ran:?}");
    let ran = run(&["--json", "lock", "a", "--ttl", "2s"]);
    let object = ran.object();
    assert_eq!((&object["lock"], &object["ttl_ms"]), (&"a".into(), &2000.into()));
    run(&["--json", "lock", "a", "--", "/nonexistent/program"]).failed_with(2, "invalid_argument");
    run(&["--json", "lock", "a//b"]).failed_with(2, "invalid_argument");
    run(&["--json", "lock", "ipc.a"]).failed_with(77, "permission_denied");
}

#[test]
fn a_held_lock_is_busy_and_shown_and_passes_on_when_its_holder_is_killed() {
    let daemon = Daemon::start();
    let dir = daemon.runtime_dir();
    let holder = Holder::start(&daemon, &["lock", "deploy"], "lock", false);
    let (pids, token) = holder.told();
    for wait in ["0", "30ms"] {
        let error = run_at(dir, &["--json", "lock", "deploy", "--wait", wait]).failed_with(75, "busy");
        let named = format!("pid={}", holder.running.pid());
        assert!(error["message"].as_str().is_some_and(|message| message.contains(&named)), "{error}");
    }
    let waiter = tool(&at(dir, &["lock", "deploy", "--quiet", "--", "sh", "-c", "echo $IPC_FENCING_TOKEN"]))
        .spawn()
        .expect("ipc-cli starts");
    let row = wait_until("somebody waits", || {
        json_of(dir, &["list", "locks"]).into_iter().find(|row| row["waiting"] == 1)
    });
    assert_eq!(
        (&row["kind"], &row["name"], &row["mode"]),
        (&"lock".into(), &"deploy".into(), &"exclusive".into())
    );
    assert_eq!(
        (row["token"].to_string(), &row["holder"]["pid"]),
        (token.clone(), &holder.running.pid().into())
    );
    assert!(row["age_ms"].is_u64() && row["holder"]["process"] == "ipc-cli");
    let table = run_at(dir, &["list", "locks"]);
    assert!(table.succeeded().contains("deploy") && table.text().contains(&token), "{table:?}");
    holder.running.signal(Signal::KILL);
    let next: u64 = finish(waiter).succeeded().trim().parse().expect("a token");
    assert!(next > token.parse().expect("a token"));
    // The command dies with the tool, and what it has started.
    all_gone(&pids);
    assert_eq!(json_of(dir, &["list", "locks"]).len(), 0);
}

#[test]
fn a_lock_stays_closed_for_its_delay_when_its_holder_is_killed_and_not_when_it_is_given_back() {
    let daemon = Daemon::start();
    let dir = daemon.runtime_dir();
    let lock = |more: &[&str]| run_at(dir, &[&["--json", "lock", "deploy", "--wait", "0"], more].concat());
    lock(&["--delay", "1m", "--", "true"]).succeeded();
    let holder = Holder::start(&daemon, &["lock", "deploy", "--delay", "1m"], "lock", false);
    holder.told();
    holder.running.signal(Signal::KILL);
    let row = wait_until("the lock is closed", || {
        json_of(dir, &["list", "locks"]).into_iter().find(|row| row["mode"] == "closed")
    });
    assert!(row["closed_ms"].as_u64().is_some_and(|left| left <= 60_000), "{row}");
    lock(&["--", "true"]).failed_with(75, "busy");
}

#[test]
fn a_lost_lock_ends_the_command() {
    for (stubborn, status) in [(false, 143), (true, 137)] {
        let daemon = Daemon::start();
        let lock = ["lock", "deploy", "--durability", "memory"];
        let mut holder = Holder::start(&daemon, &lock, "lock", stubborn);
        let (pids, _) = holder.told();
        daemon.signal(Signal::KILL);
        assert_eq!(holder.running.ended(), Some(status), "stubborn: {stubborn}");
        all_gone(&pids);
    }
}

#[test]
fn a_stopped_daemon_costs_a_timed_lock_and_its_command() {
    let daemon = Daemon::start();
    let mut holder = Holder::start(&daemon, &["lock", "deploy", "--ttl", "200ms"], "lock", false);
    let (pids, _) = holder.told();
    daemon.signal(Signal::STOP);
    assert_eq!(holder.running.ended(), Some(143));
    all_gone(&pids);
    daemon.signal(Signal::CONT);
}

#[test]
fn a_signal_ends_the_command_and_gives_the_lock_back() {
    let daemon = Daemon::start();
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut holder = Holder::start(&daemon, &["lock", "deploy"], "lock", false);
        let (pids, _) = holder.told();
        holder.running.signal(signal);
        assert_eq!(holder.running.ended(), Some(status));
        all_gone(&pids);
        assert_eq!(
            run_at(daemon.runtime_dir(), &["lock", "deploy", "--wait", "0", "--", "true"]).status,
            Some(0)
        );
    }
}

#[test]
fn a_semaphore_lets_so_many_in() {
    let daemon = Daemon::start();
    let arguments = ["semaphore", "slots", "--permits", "2"];
    let _one = Holder::start(&daemon, &arguments, "semaphore", false);
    let two = Holder::start(&daemon, &arguments, "semaphore", false);
    let more = ["--json", "semaphore", "slots", "--permits", "2", "--wait", "0"];
    run_at(daemon.runtime_dir(), &more).failed_with(75, "busy");
    let other = ["--json", "semaphore", "slots", "--permits", "3", "--wait", "0"];
    run_at(daemon.runtime_dir(), &other).failed_with(75, "conflict");
    two.running.signal(Signal::KILL);
    let next = run_at(daemon.runtime_dir(), &["semaphore", "slots", "--permits", "2", "--", "true"]);
    assert_eq!(next.status, Some(0), "{next:?}");
}

#[test]
fn a_leader_is_seen_with_its_value_until_it_has_gone() {
    let daemon = Daemon::start();
    let mut observer = Running::start_silent(daemon.runtime_dir(), &["--json", "elect", "boss", "--observe"]);
    let nobody = observer.object();
    assert_eq!((&nobody["election"], &nobody["token"]), (&"boss".into(), &0.into()));
    assert!(nobody["leader"].is_null());
    let leader = Holder::start(&daemon, &["elect", "boss", "--value", "node 1"], "election", false);
    let seen = observer.object();
    let (_, token) = leader.told();
    assert_eq!((&seen["text"], seen["token"].to_string()), (&"node 1".into(), token));
    assert_eq!(seen["leader"]["pid"], leader.running.pid());
    leader.running.signal(Signal::KILL);
    assert_eq!(observer.object()["token"], 0);
}

#[test]
fn a_barrier_is_passed_together_or_not() {
    let daemon = Daemon::start();
    let arguments = at(daemon.runtime_dir(), &["--json", "barrier", "ready", "--parties", "2"]);
    let one = tool(&arguments).spawn().expect("ipc-cli starts");
    let two = tool(&arguments).spawn().expect("ipc-cli starts");
    let (one, two) = (finish(one).object(), finish(two).object());
    assert_eq!(one["generation"], two["generation"]);
    assert_eq!(one["place"].as_u64().zip(two["place"].as_u64()).map(|(one, two)| one + two), Some(1));
    let alone = ["--json", "barrier", "ready", "--parties", "2", "--wait", "20ms"];
    run_at(daemon.runtime_dir(), &alone).failed_with(75, "busy");
}

#[test]
fn a_lease_lasts_for_its_time_and_no_command() {
    let daemon = Daemon::start();
    let dir = daemon.runtime_dir();
    let granted = run_at(dir, &["--json", "lease", "grant", "--ttl", "1m"]).object();
    let id = granted["lease"].to_string();
    assert_eq!(granted["ttl_ms"], 60_000);
    assert_eq!(run_at(dir, &["--json", "lease", "renew", &id]).object()["ttl_ms"], 60_000);
    let rows = json_of(dir, &["lease", "list"]);
    assert_eq!((rows.len(), rows[0]["lease"].to_string()), (1, id.clone()));
    assert!(rows[0]["remaining_ms"].as_u64().is_some_and(|left| (1..=60_000).contains(&left)));
    assert!(run_at(dir, &["lease", "list"]).succeeded().contains(&id));
    assert_eq!(run_at(dir, &["lease", "revoke", &id]).status, Some(0));
    run_at(dir, &["--json", "lease", "renew", &id]).failed_with(75, "lock_lost");
    let brief = run_at(dir, &["lease", "grant", "--ttl", "10ms"]);
    assert!(brief.succeeded().trim().parse::<u64>().is_ok());
    wait_until("its time has passed", || json_of(dir, &["lease", "list"]).is_empty().then_some(()));
    assert!(brief.duration < Duration::from_secs(60));
}

/// A daemon that can be started again where the last one was.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").expect("a directory"))
    }

    fn start(&self) -> Daemon {
        let [runtime_dir, state_dir] = ["run", "state"].map(|name| Some(self.0.path().join(name)));
        Daemon::start_with(&Options { runtime_dir, state_dir, ..Options::default() })
    }
}

#[test]
fn a_command_goes_on_under_its_lock_while_the_daemon_is_started_again() {
    let place = Place::new();
    let mut daemon = place.start();
    let dir = daemon.runtime_dir().to_owned();
    let holders = [
        (&["lock", "deploy"][..], "lock"),
        (&["lock", "deploy2", "--ttl", "1m"], "lock"),
        (&["semaphore", "slots", "--permits", "1"], "semaphore"),
        (&["elect", "boss", "--value", "node 1"], "election"),
    ];
    let holders = holders.map(|(arguments, said)| Holder::start(&daemon, arguments, said, false));
    let told: Vec<(Vec<String>, String)> = holders.iter().map(Holder::told).collect();
    let script = "echo $IPC_FENCING_TOKEN";
    let waiter = at(&dir, &["lock", "deploy", "--quiet", "--", "sh", "-c", script]);
    let waiter = tool(&waiter).spawn().expect("ipc-cli starts");
    wait_until("somebody waits", || {
        json_of(&dir, &["list", "locks"]).into_iter().find(|row| row["waiting"] == 1)
    });
    let held = |row: &serde_json::Value| (row["name"].to_string(), row["token"].to_string());
    let before: Vec<_> = json_of(&dir, &["list", "locks"]).iter().map(held).collect();
    assert_eq!(before.len(), 4);
    for is_killed in [true, false, true] {
        if is_killed {
            daemon.kill()
        } else {
            daemon.stop()
        };
        daemon = place.start();
        let rows = wait_until("all are back, and the waiter waits anew", || {
            let rows = json_of(&dir, &["list", "locks"]);
            let are_back =
                rows.iter().all(|row| row["holder"].is_object() && row["absent"] == serde_json::json!([]));
            let is_waiting = rows.iter().any(|row| row["name"] == "deploy" && row["waiting"] == 1);
            (are_back && is_waiting).then_some(rows)
        });
        assert_eq!(rows.iter().map(held).collect::<Vec<_>>(), before);
    }
    for ((pids, token), holder) in told.iter().zip(holders) {
        assert!(pids.iter().all(|pid| is_running(pid)));
        assert!(before.iter().any(|(_, listed)| listed == token));
        let mut running = holder.running;
        running.signal(Signal::TERM);
        assert_eq!(running.ended(), Some(143));
        all_gone(pids);
    }
    let next: u64 = finish(waiter).succeeded().trim().parse().expect("a token");
    assert!(next > told[0].1.parse().expect("a token"));
}

#[test]
fn a_daemon_that_stays_away_costs_a_lock_and_its_command() {
    let place = Place::new();
    let daemon = place.start();
    let mut holder = Holder::start(&daemon, &["lock", "deploy", "--ttl", "500ms"], "lock", false);
    let (pids, token) = holder.told();
    let dir = daemon.runtime_dir().to_owned();
    daemon.kill();
    assert_eq!(holder.running.ended(), Some(143));
    all_gone(&pids);
    // Nobody comes for it: until its time has passed it is shown as it is.
    let _daemon = place.start();
    let lock = ["lock", "deploy", "--quiet", "--", "sh", "-c", "echo $IPC_FENCING_TOKEN"];
    let next: u64 = run_at(&dir, &lock).succeeded().trim().parse().expect("a token");
    assert!(next > token.parse().expect("a token"));
}

#[test]
fn what_nobody_has_taken_up_yet_is_shown_so() {
    let place = Place::new();
    let daemon = place.start();
    let dir = daemon.runtime_dir().to_owned();
    let holder = Holder::start(&daemon, &["lock", "deploy", "--ttl", "1m"], "lock", false);
    let (pids, token) = holder.told();
    let lease = run_at(&dir, &["--json", "lease", "grant", "--ttl", "1m"]).object()["lease"].to_string();
    let brief = ["--json", "lease", "grant", "--ttl", "1m", "--durability", "memory"];
    run_at(&dir, &brief).succeeded();
    daemon.kill();
    holder.running.signal(Signal::KILL);
    all_gone(&pids[..1]);
    let _daemon = place.start();
    let rows = json_of(&dir, &["list", "locks"]);
    assert_eq!((rows.len(), rows[0]["token"].to_string()), (1, token));
    let absent = &rows[0]["absent"][0];
    assert!(rows[0]["holder"].is_null() && absent["uid"].is_u64(), "{rows:?}");
    assert!(absent["remaining_ms"].as_u64().is_some_and(|left| left > 0 && left <= 60_000), "{rows:?}");
    assert!(run_at(&dir, &["list", "locks"]).succeeded().contains("not back yet, uid"));
    run_at(&dir, &["--json", "lock", "deploy", "--wait", "0"]).failed_with(75, "busy");
    let leases = json_of(&dir, &["lease", "list"]);
    assert_eq!((leases.len(), leases[0]["lease"].to_string()), (1, lease.clone()));
    assert_eq!(run_at(&dir, &["lease", "renew", &lease]).status, Some(0));
}

#[test]
fn what_nobody_has_taken_up_is_given_back_by_its_user() {
    const HELD: [(&str, &str, &str); 3] =
        [("lock", "deploy", "lock"), ("semaphore", "slots", "semaphore"), ("elect", "boss", "election")];
    let place = Place::new();
    let daemon = place.start();
    let dir = daemon.runtime_dir().to_owned();
    let holders = HELD.map(|(verb, name, noun)| {
        let permits: &[&str] = if verb == "semaphore" { &["--permits", "1"] } else { &[] };
        Holder::start(&daemon, &[&[verb, name, "--ttl", "1m"], permits].concat(), noun, false)
    });
    let told = holders.each_ref().map(Holder::told);
    // Of one who is there nobody gives anything back.
    let refused = run_at(&dir, &["--json", "lock", "--release", "deploy"]).failed_with(75, "busy");
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("is there")), "{refused}");
    daemon.kill();
    for ((pids, _), holder) in told.iter().zip(&holders) {
        holder.running.signal(Signal::KILL);
        all_gone(&pids[..1]);
    }
    let _daemon = place.start();
    for ((verb, name, noun), (_, token)) in HELD.into_iter().zip(&told) {
        let rows = run_at(&dir, &["--json", verb, name, "--release"]).objects();
        let token: u64 = token.parse().expect("a token");
        assert_eq!(rows, [serde_json::json!({ noun: name, "token": token, "released": true })]);
        // What nobody holds is free: there is nothing to do.
        assert_eq!(run_at(&dir, &["--json", verb, name, "--release"]).succeeded(), "");
    }
    assert_eq!(run_at(&dir, &["lock", "deploy", "--wait", "0", "--", "true"]).status, Some(0));
}
