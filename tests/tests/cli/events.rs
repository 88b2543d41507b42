//! `publish` and `subscribe`.

use ipc_tests::daemon::{Daemon, Signal};

use crate::command::{Running, at, run_at, run_with_input, tool};

fn subscribe(daemon: &Daemon, arguments: &[&str], filters: &str) -> Running {
    let arguments = [&["subscribe"], arguments].concat();
    Running::start(daemon.runtime_dir(), &arguments, &format!("subscribed to {filters}"))
}

#[test]
fn events_are_numbered_and_name_their_sender() {
    let daemon = Daemon::start();
    let mut subscriber =
        subscribe(&daemon, &["sensor.*.temperature", "--count", "3", "--json"], "sensor.*.temperature");
    let publish = |topic: &str, payload: &str| {
        let child =
            tool(&at(daemon.runtime_dir(), &["publish", topic, payload, "--json"])).spawn().expect("starts");
        let pid = child.id();
        (pid, crate::command::finish(child).object())
    };
    let (pid, published) = publish("sensor.kitchen.temperature", "21.5");
    assert_eq!((&published["seq"], &published["subscribers"]), (&1.into(), &1.into()), "{published}");
    let event = subscriber.object();
    assert_eq!(event["topic"], "sensor.kitchen.temperature");
    assert_eq!((&event["seq"], &event["text"]), (&1.into(), &"21.5".into()), "{event}");
    assert_eq!(event["sender"]["pid"], pid);
    assert_eq!(event["sender"]["uid"], rustix::process::getuid().as_raw());
    publish("sensor.kitchen.humidity", "68");
    publish("sensor.kitchen.temperature", "21.6");
    assert_eq!(subscriber.object()["seq"], 2);
    let bytes =
        run_with_input(&at(daemon.runtime_dir(), &["publish", "sensor.cellar.temperature", "-"]), b"\xff");
    bytes.succeeded();
    assert_eq!(subscriber.object()["base64"], "/w==");
    assert_eq!(subscriber.ended(), Some(0), "after as many events as asked for");
}

#[test]
fn raw_output_is_payloads_alone() {
    let daemon = Daemon::start();
    let mut subscriber = subscribe(&daemon, &["a", "b", "--raw", "--count", "2"], "a, b");
    run_at(daemon.runtime_dir(), &["publish", "a", "first"]).succeeded();
    assert_eq!(subscriber.line(), "first");
    run_at(daemon.runtime_dir(), &["publish", "b", "{\"second\": 2}", "--as", "json"]).succeeded();
    assert_eq!(subscriber.line(), "{\"second\": 2}");
    assert_eq!(subscriber.ended(), Some(0));
}

#[test]
fn people_see_who_published_what() {
    let daemon = Daemon::start();
    let mut subscriber = subscribe(&daemon, &[">"], ">");
    let said = run_at(daemon.runtime_dir(), &["publish", "door.front", "open\u{1b}[2J\nnow"]);
    assert_eq!(said.stderr, "published 1 event to door.front, for 1 subscription\n");
    let line = subscriber.line();
    assert!(line.starts_with("door.front #1 from uid "), "{line}");
    assert!(line.ends_with(": open\\u{1b}[2J\\nnow"), "{line}");
    subscriber.signal(Signal::INT);
    assert_eq!(subscriber.ended(), Some(130));
}

#[test]
fn gaps_are_counted_exactly() {
    const EVENTS: u64 = 12_000;
    let daemon = Daemon::start();
    let mut subscriber = subscribe(&daemon, &["flood", "--json"], "flood");
    subscriber.signal(Signal::STOP);
    let count = EVENTS.to_string();
    run_at(
        daemon.runtime_dir(),
        &["--timeout", "30s", "--quiet", "publish", "flood", "drop", "--count", &count],
    )
    .succeeded();
    subscriber.signal(Signal::CONT);
    let (mut next, mut missed) = (1, 0);
    while next <= EVENTS {
        let object = subscriber.object();
        match object.get("gap") {
            Some(gap) => {
                assert_eq!((&gap["topic"], &gap["from"]), (&"flood".into(), &next.into()), "{object}");
                let (to, count) = (gap["to"].as_u64().unwrap(), gap["count"].as_u64().unwrap());
                assert_eq!(to - next + 1, count, "{object}");
                missed += count;
                next = to + 1;
            }
            None => {
                assert_eq!(object["seq"], next, "{object}");
                next += 1;
            }
        }
    }
    assert!(missed > 0, "a stopped subscriber cannot have had room for {EVENTS} events");
}

#[test]
fn a_subscriber_whose_reader_has_gone_ends_quietly() {
    let daemon = Daemon::start();
    let mut subscriber = subscribe(&daemon, &["a"], "a");
    subscriber.stop_reading();
    run_at(daemon.runtime_dir(), &["publish", "a", "x"]).succeeded();
    assert_eq!(subscriber.ended(), Some(0));
}

#[test]
fn a_signal_ends_a_subscriber_that_is_stuck_in_its_output() {
    let daemon = Daemon::start();
    // Nobody reads: the pipe fills and the subscriber waits in write(2).
    let mut subscriber = subscribe(&daemon, &["a"], "a");
    let payload = "x".repeat(60_000);
    run_at(daemon.runtime_dir(), &["publish", "a", &payload, "--count", "8"]).succeeded();
    subscriber.signal(Signal::INT);
    assert_eq!(subscriber.ended(), Some(130));
}

#[test]
fn nobody_has_to_subscribe() {
    let daemon = Daemon::start();
    let said = run_at(daemon.runtime_dir(), &["publish", "lonely", "hello", "--count", "3"]);
    said.succeeded();
    assert_eq!(said.stderr, "published 3 events to lonely, nobody subscribes\n");
    let quiet = run_at(daemon.runtime_dir(), &["publish", "lonely", "hello", "--quiet"]);
    assert_eq!((quiet.succeeded(), quiet.stderr.as_str()), ("", ""));
    run_at(daemon.runtime_dir(), &["--json", "publish", "ipc.mine", "x"])
        .failed_with(77, "permission_denied");
}
