//! The page for Prometheus: it is what a server of Prometheus reads, and its linter has nothing to say.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use ipc_tests::daemon::Daemon;
use ipc_tests::services::client;

fn page(daemon: &Daemon) -> String {
    let reply = client(daemon).call("ipc.daemon", "metrics", "").unwrap();
    reply.payload.as_text().unwrap().to_owned()
}

/// Reads `name{label="text",...} value`; what stands in the label is not looked at beyond its quotes.
fn sample(line: &str) -> (&str, u64) {
    let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}")));
    let value = match rest.strip_prefix('{') {
        Some(labels) => {
            let end = labels.rfind("\"} ").unwrap_or_else(|| panic!("{line}"));
            &labels[end + 3..]
        }
        None => &rest[1..],
    };
    (name, value.parse().unwrap_or_else(|_| panic!("{line}")))
}

#[test]
fn the_page_has_the_form_that_prometheus_reads() {
    let daemon = Daemon::start();
    let text = page(&daemon);
    assert!(text.ends_with('\n'));
    let (mut current, mut kind, mut seen) = (String::new(), String::new(), BTreeSet::new());
    let (mut families, mut samples) = (0, 0);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, says) = help.split_once(' ').unwrap();
            assert!(!says.is_empty(), "{line}");
            assert!(name.starts_with("ipc_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
            assert!(seen.insert(name.to_owned()), "{name} is there twice");
            let declared = lines.next().unwrap();
            kind = declared.strip_prefix(&format!("# TYPE {name} ")).unwrap_or_else(|| panic!("{declared}")).to_owned();
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            current = name.to_owned();
            families += 1;
        } else {
            assert_eq!(sample(line).0, current, "a sample stands under its own heading");
            samples += 1;
        }
    }
    assert!(families > 20 && samples > families && !kind.is_empty(), "{text}");
    let accepted = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("ipc_connections_accepted_total")).unwrap();
        sample(line).1
    };
    let before = accepted(&text);
    assert!(accepted(&page(&daemon)) > before, "counters count");
}

#[test]
fn the_linter_of_prometheus_finds_nothing() {
    let daemon = Daemon::start();
    let linter = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut linter) = linter else {
        eprintln!("left out: there is no promtool here (Debian has it in the package prometheus)");
        return;
    };
    linter.stdin.take().unwrap().write_all(page(&daemon).as_bytes()).unwrap();
    let said = linter.wait_with_output().unwrap();
    let text = [said.stdout, said.stderr].concat();
    assert!(said.status.success() && text.is_empty(), "{}", String::from_utf8_lossy(&text));
}
