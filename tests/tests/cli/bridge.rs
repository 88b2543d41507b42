//! `bridge`: plain TCP ports, from the command line.

use std::io::{Read, Write};
use std::net::TcpStream;

use ipc_tests::daemon::Daemon;

use crate::command::{Running, run_at};

#[test]
fn a_port_is_exposed_listed_used_and_removed() {
    let daemon = Daemon::start();
    let arguments = ["serve", "demo.cat", "run", "--", "cat"];
    let _service = Running::start(daemon.runtime_dir(), &arguments, "serving demo.cat/run");
    let spec = "tcp:127.0.0.1:0=demo.cat/run";
    let bridge = run_at(daemon.runtime_dir(), &["--json", "bridge", "expose", spec]).object();
    let listed = run_at(daemon.runtime_dir(), &["--json", "bridge", "list"]).objects();
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0]["id"], &listed[0]["address"]), (&bridge["id"], &bridge["address"]));
    assert!(run_at(daemon.runtime_dir(), &["bridge", "list"]).succeeded().contains("demo.cat/run"));
    let mut stream = TcpStream::connect(bridge["address"].as_str().expect("an address")).expect("connects");
    stream.write_all(b"hello").expect("written");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer, b"hello");
    let id = bridge["id"].to_string();
    run_at(daemon.runtime_dir(), &["bridge", "remove", id.trim_matches('"')]).succeeded();
    assert!(run_at(daemon.runtime_dir(), &["--json", "bridge", "list"]).objects().is_empty());
}

#[test]
fn a_specification_that_is_none_is_refused() {
    let daemon = Daemon::start();
    for spec in ["", "tcp", "tcp:127.0.0.1:0", "tcp:127.0.0.1:0=demo", "tcp:127.0.0.1:0=a/b,speed=9"] {
        run_at(daemon.runtime_dir(), &["--json", "bridge", "expose", spec])
            .failed_with(2, "invalid_argument");
    }
    let udp = run_at(daemon.runtime_dir(), &["--json", "bridge", "expose", "udp:127.0.0.1:0=a/b"]);
    udp.failed_with(76, "unsupported");
    run_at(daemon.runtime_dir(), &["--json", "bridge", "remove", "99"]).failed_with(2, "invalid_argument");
}
