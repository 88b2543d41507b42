//! `ping`, `status`, `list` and `describe`.

use std::io::{BufRead, BufReader};

use ipc_tests::daemon::{Daemon, Options, Signal};
use ipc_tests::services::serve_echo;
use serde_json::Value;

use crate::command::{Running, at, finish, run_at, tool};

#[test]
fn a_daemon_answers_a_ping() {
    let daemon = Daemon::start();
    let pongs = run_at(daemon.runtime_dir(), &["--json", "ping", "--count", "3"]).objects();
    assert_eq!(pongs.len(), 3);
    for (position, pong) in pongs.iter().enumerate() {
        assert_eq!(pong["seq"], position + 1);
        assert!(pong["round_trip_us"].as_f64().is_some_and(|micros| micros > 0.0), "{pong}");
    }
    let for_people = run_at(daemon.runtime_dir(), &["ping"]);
    assert!(
        for_people.succeeded().ends_with(" us\n") || for_people.text().ends_with(" ms\n"),
        "{for_people:?}"
    );
}

#[test]
fn a_ping_can_wait_for_the_daemon_to_come() {
    let directory = tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").expect("a directory");
    let runtime_dir = directory.path().join("run");
    let child =
        tool(&at(&runtime_dir, &["--timeout", "30s", "ping", "--wait"])).spawn().expect("ipc-cli starts");
    let _daemon = Daemon::start_with(&Options { runtime_dir: Some(runtime_dir), ..Options::default() });
    finish(child).succeeded();
}

#[test]
fn a_daemon_that_stands_still_is_given_up_in_time() {
    let daemon = Daemon::start();
    daemon.signal(Signal::STOP);
    for arguments in [&["ping"][..], &["status"], &["call", "a.b", "m"], &["subscribe", "a"]] {
        let ran = run_at(daemon.runtime_dir(), &[&["--json", "--timeout", "300ms"], arguments].concat());
        ran.failed_with(69, "unreachable");
    }
    daemon.signal(Signal::CONT);
}

#[test]
fn the_status_is_shown_again_and_again() {
    let daemon = Daemon::start();
    let mut watching =
        tool(&at(daemon.runtime_dir(), &["--json", "status", "--watch", "10ms"])).spawn().unwrap();
    let lines = BufReader::new(watching.stdout.take().expect("a pipe")).lines().take(3);
    let uptimes: Vec<u64> = lines
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()["uptime_ms"].as_u64().unwrap())
        .collect();
    assert!(uptimes.len() == 3 && uptimes.is_sorted(), "{uptimes:?}");
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[test]
fn who_uses_what_is_shown() {
    let daemon = Daemon::start();
    let uid = rustix::process::getuid().as_raw();
    let rows = run_at(daemon.runtime_dir(), &["--json", "quota"]).objects();
    let names = rows.iter().find(|row| row["resource"] == "names_per_uid_max").expect("a row");
    assert_eq!((&names["uid"], &names["used"], &names["refused"]), (&uid.into(), &1.into(), &0.into()));
    assert!(names["limit"].is_u64() && names["principal"].is_null(), "{names}");
    let table = run_at(daemon.runtime_dir(), &["quota"]);
    assert!(table.succeeded().contains(&format!("uid {uid}")), "{table:?}");
}

#[test]
fn the_policy_is_explained() {
    let daemon = Daemon::start();
    let uid = rustix::process::getuid().as_raw();
    let own =
        run_at(daemon.runtime_dir(), &["policy", "explain", &format!("uid:{uid}"), "own", "demo.title"]);
    assert!(own.succeeded().starts_with("allowed: a rule that is built in allows it\n"), "{own:?}");
    let other = ["--json", "policy", "explain", "uid:4000000", "call", "demo.title/title"];
    let other = run_at(daemon.runtime_dir(), &other).object();
    assert_eq!((&other["allowed"], &other["rule"]), (&Value::Bool(false), &Value::Null), "{other}");
    run_at(daemon.runtime_dir(), &["--json", "policy", "explain", "bob", "call", "a"])
        .failed_with(2, "invalid_argument");
}

#[test]
fn the_status_has_what_scripts_rely_on() {
    let daemon = Daemon::start();
    let status = run_at(daemon.runtime_dir(), &["--json", "status"]).object();
    assert_eq!(status["pid"], daemon.pid());
    assert_eq!(status["protocol"], 1);
    assert!(status["version"].is_string() && status["epoch"].is_string(), "{status}");
    assert!(status["uptime_ms"].is_u64(), "{status}");
    assert_eq!(status["addresses"][0]["kind"], "unix_stream");
    assert_eq!(status["addresses"][0]["address"], daemon.socket().to_str().unwrap());
    for numbers in ["counters", "limits"] {
        let numbers = status[numbers].as_object().expect("an object");
        assert!(!numbers.is_empty() && numbers.values().all(Value::is_u64), "{numbers:?}");
    }
    let uid = rustix::process::getuid().as_raw().to_string();
    for field in ["connections", "queued_bytes", "names", "subscriptions", "pending_calls", "fds"] {
        assert!(status["usage"][&uid][field].is_u64(), "{field}: {status}");
    }
    let for_people = run_at(daemon.runtime_dir(), &["status"]);
    for part in ["ipc-daemon ", "Addresses", "Limits", "payload_max_bytes", "16 MiB"] {
        assert!(for_people.succeeded().contains(part), "{part}: {for_people:?}");
    }
}

#[test]
fn what_is_on_the_bus_is_listed_with_who_it_is() {
    let daemon = Daemon::start();
    let arguments = ["serve", "demo.cat", "run", "--", "cat"];
    let service = Running::start(daemon.runtime_dir(), &arguments, "serving demo.cat/run");
    let _subscriber =
        Running::start(daemon.runtime_dir(), &["subscribe", "a.topic"], "subscribed to a.topic");
    let all = run_at(daemon.runtime_dir(), &["--json", "list"]).objects();
    let of = |kind: &str, name: &str| all.iter().find(|row| row["kind"] == kind && row["name"] == name);
    let row = of("service", "demo.cat").unwrap_or_else(|| panic!("{all:?}"));
    assert_eq!(row["instances"], 1);
    assert_eq!(row["owner"]["pid"], service.pid());
    assert!(of("topic", "a.topic").is_some(), "{all:?}");
    let peer = all.iter().find(|row| row["kind"] == "peer" && row["pid"] == service.pid()).expect("a peer");
    assert_eq!(peer["uid"], rustix::process::getuid().as_raw());
    assert_eq!(peer["gid"], rustix::process::getgid().as_raw());
    assert_eq!((&peer["process"], &peer["principal"]), (&"ipc-cli".into(), &Value::Null));
    assert!(peer["id"].is_u64() && peer["queued_bytes"].is_u64() && peer["transport"].is_string(), "{peer}");
    for (what, kind) in [("services", "service"), ("peers", "peer"), ("topics", "topic")] {
        let rows = run_at(daemon.runtime_dir(), &["--json", "list", what]).objects();
        assert!(!rows.is_empty() && rows.iter().all(|row| row["kind"] == kind), "{what}: {rows:?}");
    }
    let for_people = run_at(daemon.runtime_dir(), &["list"]);
    for part in ["Services\n", "\nPeers\n", "\nTopics\n", "demo.cat", "ipc-cli", "a.topic"] {
        assert!(for_people.succeeded().contains(part), "{part}: {for_people:?}");
    }
}

#[test]
fn a_service_is_described() {
    let daemon = Daemon::start();
    let arguments = ["serve", "demo.cat", "run", "--", "cat"];
    let service = Running::start(daemon.runtime_dir(), &arguments, "serving demo.cat/run");
    run_at(daemon.runtime_dir(), &["call", "demo.cat", "run", "x"]).succeeded();
    let description = run_at(daemon.runtime_dir(), &["--json", "describe", "demo.cat"]).object();
    assert_eq!(description["service"], "demo.cat");
    assert_eq!(
        (&description["methods"][0]["name"], &description["methods"][0]["calls"]),
        (&"run".into(), &1.into())
    );
    assert_eq!(description["instances"][0]["pid"], service.pid());
    let for_people = run_at(daemon.runtime_dir(), &["describe", "demo.cat"]);
    for part in ["demo.cat (exclusive)\n", "METHOD", "run", "OFFERED BY", "pid"] {
        assert!(for_people.succeeded().contains(part), "{part}: {for_people:?}");
    }
    assert!(run_at(daemon.runtime_dir(), &["describe", "ipc.daemon"]).succeeded().contains("status"));
}

#[test]
fn monitor_shows_what_crosses_the_bus_and_not_what_is_in_it() {
    let daemon = Daemon::start();
    serve_echo(&daemon);
    let at_bus = |arguments: &[&str]| {
        run_at(daemon.runtime_dir(), arguments).succeeded();
    };
    let arguments = ["monitor", "--match", "test.>", "--count", "3", "--json"];
    let mut monitor = Running::start(daemon.runtime_dir(), &arguments, "watching test.>");
    let people = ["monitor", "--match", "news.*", "--count", "1"];
    let mut people = Running::start(daemon.runtime_dir(), &people, "watching news.*");
    at_bus(&["publish", "news.today", "secret"]);
    at_bus(&["call", "test.echo", "echo", "secret"]);
    at_bus(&["publish", "test.topic", "secret"]);
    let [call, reply, event] = [monitor.object(), monitor.object(), monitor.object()];
    assert_eq!(
        (&call["kind"], &call["service"], &call["method"]),
        (&"call".into(), &"test.echo".into(), &"echo".into())
    );
    assert_eq!((&call["bytes"], &reply["bytes"]), (&6.into(), &6.into()));
    assert_eq!(call["to"], reply["sender"]["id"]);
    assert_eq!(reply["to"], call["sender"]["id"]);
    assert_eq!(call["sender"]["uid"], rustix::process::getuid().as_raw());
    assert_eq!((&event["kind"], &event["topic"]), (&"event".into(), &"test.topic".into()));
    assert_eq!(monitor.ended(), Some(0));
    let line = people.line();
    assert!(line.starts_with("event   news.today from uid ") && line.ends_with(": 6 bytes, #1"), "{line}");
    assert!(!line.contains("secret"));
}

#[test]
fn monitor_shows_requests_with_their_outcomes_and_refusals() {
    let daemon = Daemon::start();
    let arguments = ["monitor", "--match", "deploy.>", "--count", "4", "--json"];
    let mut monitor = Running::start(daemon.runtime_dir(), &arguments, "watching deploy.>");
    let people = ["monitor", "--match", "no.*", "--count", "1"];
    let mut people = Running::start(daemon.runtime_dir(), &people, "watching no.*");
    run_at(daemon.runtime_dir(), &["kv", "put", "deploy/color", "secret", "--durability", "memory"])
        .succeeded();
    assert_eq!(run_at(daemon.runtime_dir(), &["kv", "get", "deploy/size"]).status, Some(1));
    assert_eq!(run_at(daemon.runtime_dir(), &["call", "no.such", "thing", "secret"]).status, Some(69));
    let seen: Vec<Value> = (0..4).map(|_| monitor.object()).collect();
    let told = |at: usize, field: &str| seen[at][field].as_str().unwrap_or_default().to_owned();
    let lines: Vec<[String; 4]> =
        (0..4).map(|at| ["kind", "operation", "name", "code"].map(|field| told(at, field))).collect();
    let expected = [
        ["request", "put", "deploy/color", ""],
        ["outcome", "put", "deploy/color", "ok"],
        ["request", "get", "deploy/size", ""],
        ["outcome", "get", "deploy/size", "no_such_key"],
    ];
    assert_eq!(lines, expected.map(|line| line.map(str::to_owned)));
    assert_eq!(seen[0]["request"], seen[1]["request"]);
    assert_eq!(seen[0]["bytes"], 6);
    assert_eq!(monitor.ended(), Some(0));
    let line = people.line();
    assert!(
        line.starts_with("refusal no.such/thing from uid ") && line.ends_with(", no_such_service"),
        "{line}"
    );
}
