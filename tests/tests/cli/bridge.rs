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
fn a_server_is_forwarded_to_listed_called_and_removed() {
    let daemon = Daemon::start();
    let at = |arguments: &[&str]| run_at(daemon.runtime_dir(), arguments);
    let server = ipc_tests::servers::Script::python(ipc_tests::servers::PYTHON_TCP);
    let spec = format!("demo.net=tcp:localhost:{}", server.port);
    assert_eq!(at(&["bridge", "forward", &spec]).succeeded().trim_end(), "demo.net/send");
    assert_eq!(at(&["call", "demo.net", "send", "hello world"]).succeeded(), "Hello World");
    let listed = at(&["--json", "bridge", "list"]).objects();
    assert_eq!((&listed[0]["kind"], &listed[0]["spec"]), (&"forward_tcp".into(), &spec.as_str().into()));
    assert_eq!((&listed[0]["calls"], &listed[0]["idle"]), (&1.into(), &1.into()));
    let listing = at(&["bridge", "list"]);
    let table = listing.succeeded();
    assert!(table.contains("forward_tcp") && table.contains("demo.net/send"), "{table}");
    at(&["bridge", "remove", &listed[0]["id"].to_string()]).succeeded();
    at(&["--json", "call", "demo.net", "send", "x"]).failed_with(69, "no_such_service");
}

#[test]
fn a_server_that_is_absent_is_an_error_of_the_service() {
    let daemon = Daemon::start();
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    run_at(daemon.runtime_dir(), &["bridge", "forward", &format!("demo.net=tcp:{free}")]).succeeded();
    let failed = run_at(daemon.runtime_dir(), &["--json", "call", "demo.net", "send", "x"]);
    failed.failed_with(1, "application");
}

#[test]
fn a_specification_that_is_none_is_refused() {
    let daemon = Daemon::start();
    for spec in ["", "tcp", "tcp:127.0.0.1:0", "tcp:127.0.0.1:0=demo", "tcp:127.0.0.1:0=a/b,speed=9"] {
        run_at(daemon.runtime_dir(), &["--json", "bridge", "expose", spec])
            .failed_with(2, "invalid_argument");
    }
    let stream = "tcp:127.0.0.1:0=a/b,framing=stream";
    run_at(daemon.runtime_dir(), &["--json", "bridge", "expose", stream]).failed_with(76, "unsupported");
    for spec in ["", "a", "a=tcp:h", "a=tcp:h:0", "a=udp:h:1,framing=line"] {
        run_at(daemon.runtime_dir(), &["--json", "bridge", "forward", spec])
            .failed_with(2, "invalid_argument");
    }
    run_at(daemon.runtime_dir(), &["--json", "bridge", "remove", "99"]).failed_with(2, "invalid_argument");
}
