//! `demo`: what a newcomer sees first.

use std::path::Path;
use std::time::Duration;

use ipc_tests::daemon::Signal;

use crate::command::{finish, is_running, tool, wait_until};

const STEPS: [&str; 14] = [
    "daemon",
    "service",
    "call",
    "identity",
    "events",
    "datagram",
    "tcp",
    "expose",
    "forward",
    "no_such_service",
    "deadline",
    "service_gone",
    "group",
    "cleanup",
];

/// What is left in a directory.
fn entries(directory: &Path) -> Vec<String> {
    let read = std::fs::read_dir(directory).expect("the directory is there");
    read.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn for_programs_each_step_is_an_object() {
    let place = tempfile::tempdir_in("/tmp").expect("a directory");
    let child = tool(&["demo", "--json"]).env("TMPDIR", place.path()).spawn().expect("ipc-cli starts");
    let ran = finish(child);
    let steps = ran.objects();
    let names: Vec<&str> = steps.iter().map(|step| step["step"].as_str().expect("a name")).collect();
    assert_eq!(names, STEPS);
    assert!(steps.iter().all(|step| step["ok"] == true), "{steps:#?}");
    assert!(ran.duration < Duration::from_secs(10), "{:?}", ran.duration);
    assert!(entries(place.path()).is_empty(), "{:?}", entries(place.path()));
}

#[test]
fn people_read_a_story() {
    let place = tempfile::tempdir_in("/tmp").expect("a directory");
    let child = tool(&["demo"]).env("TMPDIR", place.path()).spawn().expect("ipc-cli starts");
    let ran = finish(child);
    for part in [
        "Hello World",
        "no_such_service",
        "deadline_exceeded",
        "service_gone",
        "21.5",
        "That Asks Twice",
        "CAN YOU HEAR ME?",
    ] {
        assert!(ran.text().contains(part), "{part}: {ran:?}");
    }
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    assert!(ran.text().lines().all(|line| line.chars().count() <= 130), "{}", ran.text());
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let place = tempfile::tempdir_in("/tmp").expect("a directory");
    let child = tool(&["demo"]).env("TMPDIR", place.path()).spawn().expect("ipc-cli starts");
    let begun = wait_until("the demo has begun", || entries(place.path()).pop());
    let socket = place.path().join(begun).join("run/bus.sock");
    wait_until("its daemon runs", || socket.exists().then_some(()));
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("not zero");
    rustix::process::kill_process(pid, Signal::INT).expect("it runs");
    let ran = finish(child);
    assert_eq!(ran.status, Some(130), "{ran:?}");
    assert!(entries(place.path()).is_empty(), "{:?}", entries(place.path()));
    let mark = place.path().to_string_lossy().into_owned();
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten().filter(|entry| {
        let command_line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command_line).contains(&mark)
            && is_running(&entry.file_name().to_string_lossy())
    });
    assert_eq!(processes.count(), 0, "a process of the demo still runs");
}
