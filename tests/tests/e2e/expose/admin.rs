//! Ports on the command line, in the configuration, and while the daemon runs.

use std::net::{TcpListener, TcpStream};

use ipc_core::ErrorCode;
use ipc_tests::daemon::{Daemon, Options};
use ipc_tests::exposed::NetClient;
use ipc_tests::services::{ask, serve_echo};

#[test]
fn a_port_is_exposed_listed_and_removed_while_the_daemon_runs() {
    let daemon = Daemon::start();
    serve_echo(&daemon);
    assert_eq!(ask(&daemon, "bridge-list", "").unwrap(), serde_json::json!([]));
    let spec = "tcp:127.0.0.1:0=test.echo/echo,framing=line,idle=1m";
    let exposed = ask(&daemon, "bridge-expose", spec).unwrap();
    assert_eq!((&exposed["spec"], &exposed["framing"]), (&spec.into(), &"line".into()));
    assert_eq!((&exposed["service"], &exposed["method"]), (&"test.echo".into(), &"echo".into()));
    let address = exposed["address"].as_str().unwrap().parse().unwrap();
    let mut client = NetClient::connect(address);
    client.exchange("hello\n", "hello\n");
    let rows = ask(&daemon, "bridge-list", "").unwrap();
    for (name, value) in
        [("connections", 1), ("accepted", 1), ("calls", 1), ("errors", 0), ("bytes_in", 6), ("bytes_out", 6)]
    {
        assert_eq!(rows[0][name], value, "{name}");
    }
    let status = ask(&daemon, "status", "").unwrap();
    let shown = serde_json::json!({ "kind": "expose_tcp", "address": exposed["address"] });
    assert!(status["addresses"].as_array().unwrap().contains(&shown), "{}", status["addresses"]);

    let removed = ask(&daemon, "bridge-remove", &rows[0]["id"].to_string()).unwrap();
    assert_eq!(removed["id"], rows[0]["id"]);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    assert!(client.rest().is_empty(), "its connections are closed");
    assert_eq!(ask(&daemon, "bridge-list", "").unwrap(), serde_json::json!([]));
    let again = format!("tcp:{address}=test.echo/echo");
    ask(&daemon, "bridge-expose", &again).unwrap();
    NetClient::connect(address).exchange("hello", "hello");
}

#[test]
fn what_cannot_be_exposed_or_removed_is_refused_with_a_reason() {
    let daemon = Daemon::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = format!("tcp:{}=a/b", taken.local_addr().unwrap());
    for (method, argument, code, message) in [
        ("bridge-expose", &*in_use, ErrorCode::Io, "in use"),
        ("bridge-expose", "tcp:192.0.2.1:0=a/b", ErrorCode::Io, "192.0.2.1:0"),
        ("bridge-expose", "tcp:localhost:1=a/b", ErrorCode::InvalidArgument, "no IP address"),
        ("bridge-expose", "", ErrorCode::InvalidArgument, "no \"=\""),
        ("bridge-expose", "udp:127.0.0.1:0=a/b", ErrorCode::Unsupported, "not supported"),
        ("bridge-expose", "tcp:127.0.0.1:0=ipc.daemon/status", ErrorCode::InvalidArgument, "the daemon"),
        ("bridge-remove", "1", ErrorCode::InvalidArgument, "no bridge \"1\""),
        ("bridge-remove", "", ErrorCode::InvalidArgument, "no bridge"),
        ("bridge-remove", "first", ErrorCode::InvalidArgument, "no bridge \"first\""),
    ] {
        let error = ask(&daemon, method, argument).unwrap_err();
        assert_eq!(error.code, code, "{method} {argument}: {error}");
        assert!(error.message.contains(message), "{method} {argument}: {error}");
        assert!(error.hint().is_some(), "{method} {argument}: {error}");
    }
    assert_eq!(ask(&daemon, "bridge-list", "").unwrap(), serde_json::json!([]));
}

#[test]
fn a_port_that_is_in_use_keeps_the_daemon_from_starting() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let spec = format!("tcp:{}=a/b", taken.local_addr().unwrap());
    let ended = Daemon::try_start(&Options::with_arguments(["--expose", &spec])).unwrap_err();
    assert_eq!(ended.status.code(), Some(74), "{ended:#?}");
    for part in [&*spec, "in use", "another program"] {
        assert!(ended.stderr.contains(part), "{part} is missing in {}", ended.stderr);
    }
}

#[test]
fn a_wrong_port_is_a_wrong_command_line_or_a_wrong_configuration() {
    for spec in ["tcp:127.0.0.1=a/b", "tcp:127.0.0.1:0=a/b,framing=stream", "udp:127.0.0.1:0=a/b"] {
        let ended = Daemon::try_start(&Options::with_arguments(["--expose", spec])).unwrap_err();
        assert_eq!(ended.status.code(), Some(2), "{ended:#?}");
        let config = Options::with_config(format!("\nexpose = [\"{spec}\"]\n"));
        let ended = Daemon::try_start(&config).unwrap_err();
        assert_eq!(ended.status.code(), Some(78), "{ended:#?}");
        assert!(ended.stderr.contains("daemon.toml:2:10:"), "{}", ended.stderr);
    }
}

#[test]
fn ports_of_the_configuration_are_exposed_on_both_families() {
    let specs = ["tcp:127.0.0.1:0=test.echo/echo", "tcp:[::1]:0=test.echo/echo"];
    let daemon = Daemon::start_with(&Options::with_config(format!("expose = {specs:?}\n")));
    serve_echo(&daemon);
    let rows = ask(&daemon, "bridge-list", "").unwrap();
    for (row, spec) in rows.as_array().unwrap().iter().zip(specs) {
        assert_eq!(row["spec"], spec);
        NetClient::connect(row["address"].as_str().unwrap().parse().unwrap()).exchange("hello", "hello");
    }
    assert_eq!(rows.as_array().unwrap().len(), 2);
}
