//! The page for Prometheus: it is what a server of Prometheus reads, and its linter has nothing to say.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};

use ipc_tests::daemon::{Daemon, Options, PATIENCE, eventually};
use ipc_tests::services::{ask, client};

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
            assert!(
                name.starts_with("ipc_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{line}"
            );
            assert!(seen.insert(name.to_owned()), "{name} is there twice");
            let declared = lines.next().unwrap();
            kind = declared
                .strip_prefix(&format!("# TYPE {name} "))
                .unwrap_or_else(|| panic!("{declared}"))
                .to_owned();
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

#[test]
fn the_page_is_shown_over_http_where_that_is_asked_for() {
    let daemon = Daemon::start_with(&Options::with_config("[metrics]\nhttp = \"127.0.0.1:0\"\n"));
    let status = ask(&daemon, "status", "").unwrap();
    let addresses = status["addresses"].as_array().unwrap();
    let shown = addresses.iter().find(|address| address["kind"] == "metrics_http").expect("it listens");
    let address = shown["address"].as_str().unwrap();
    let sockets = || ask(&daemon, "sockets", "").unwrap().as_array().unwrap().clone();
    let open = TcpStream::connect(address).unwrap();
    let peer = open.local_addr().unwrap().to_string();
    assert!(eventually(|| sockets().iter().any(|row| row["peer"] == *peer && row["local"] == address)));
    let listener = sockets().into_iter().find(|row| row["role"] == "metrics_listener").expect("it is shown");
    assert_eq!((&listener["local"], &listener["options"]["SO_ACCEPTCONN"]), (&address.into(), &true.into()));
    drop(open);
    assert!(eventually(|| sockets().iter().all(|row| row["peer"] != *peer)));
    let get = |request: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        // What was sent beyond the answer may have it cut with a reset.
        let _ = stream.read_to_string(&mut answer);
        let _ = stream.shutdown(Shutdown::Both);
        answer
    };
    let answer = get(&format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    assert!(body.contains("\nipc_connections_accepted_total "), "{body}");
    let rebound = get("GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert!(rebound.starts_with("HTTP/1.1 403 "), "{rebound}");
    assert_eq!(get(&"x".repeat(20_000)), "");
    assert!(get(&format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n")).starts_with("HTTP/1.1 200 "));
}
