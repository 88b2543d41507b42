//! `bench`: that it measures. What it measures is for release builds.

use ipc_tests::daemon::Daemon;
use serde_json::Value;

use crate::command::{finish, run_at, tool};

const SHORT: [&str; 4] = ["--rounds", "1", "--duration", "30ms"];

fn check(line: &Value) {
    for field in ["p50", "p99", "rate", "floor_p50", "floor_rate", "ratio", "cpu_us_per_op"] {
        let is_for_this = match line["unit"].as_str().expect("a unit") {
            "us" => !field.ends_with("rate"),
            _ => !field.contains("p50") && !field.contains("p99"),
        };
        let number = line.get(field).and_then(Value::as_f64);
        assert_eq!(number.is_some_and(|number| number > 0.0), is_for_this, "{field}: {line}");
    }
}

#[test]
fn every_case_is_measured_beside_its_floor() {
    let daemon = Daemon::start();
    let ran = run_at(daemon.runtime_dir(), &[&["--json", "bench"], &SHORT[..]].concat());
    let lines = ran.objects();
    lines.iter().for_each(check);
    for name in [
        "routed_call_blocking",
        "routed_call_async",
        "pipelined_1x64",
        "pipelined_16x16",
        "fanout_10x64",
        "fanout_10x1024",
        "payload_1mib",
        "connect",
        "lock_unlock_disk",
        "lock_hand_over_disk",
    ] {
        assert_eq!(lines.iter().filter(|line| line["name"] == name).count(), 1, "{name}: {lines:#?}");
    }
}

#[test]
fn without_a_daemon_a_private_one_is_measured() {
    let home = tempfile::tempdir_in("/tmp").expect("a directory");
    let child = tool(&[&["bench", "latency"], &SHORT[..]].concat())
        .env("XDG_RUNTIME_DIR", home.path())
        .env("TMPDIR", home.path())
        .spawn()
        .expect("ipc-cli starts");
    let ran = finish(child);
    assert!(ran.succeeded().contains("routed_call_blocking"), "{ran:?}");
    assert_eq!(std::fs::read_dir(home.path()).expect("is there").count(), 0, "nothing is left");
}
