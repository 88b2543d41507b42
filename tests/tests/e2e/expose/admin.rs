//! Ports on the command line, in the configuration, and while the daemon runs.

use std::net::{TcpListener, TcpStream, UdpSocket};

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
        ("bridge-expose", "udp:127.0.0.1:0=a/b,framing=line", ErrorCode::InvalidArgument, "no option"),
        ("bridge-forward", "a=tcp:127.0.0.1", ErrorCode::InvalidArgument, "no port"),
        ("bridge-forward", "ipc.daemon=tcp:127.0.0.1:1", ErrorCode::InvalidArgument, "the daemon"),
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
    let taken_udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    for spec in [
        format!("tcp:{}=a/b", taken.local_addr().unwrap()),
        format!("udp:{}=a/b", taken_udp.local_addr().unwrap()),
    ] {
        let ended = Daemon::try_start(&Options::with_arguments(["--expose", &spec])).unwrap_err();
        assert_eq!(ended.status.code(), Some(74), "{ended:#?}");
        for part in [&*spec, "in use", "another program"] {
            assert!(ended.stderr.contains(part), "{part} is missing in {}", ended.stderr);
        }
    }
}

#[test]
fn a_wrong_port_is_a_wrong_command_line_or_a_wrong_configuration() {
    for spec in ["tcp:127.0.0.1=a/b", "tcp:127.0.0.1:0=a/b,framing=stream", "udp:127.0.0.1:0=a/b,idle=1s"] {
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

#[test]
fn a_reload_opens_and_closes_ports_and_leaves_the_others_alone() {
    let specs = |specs: &[&str]| format!("expose = {specs:?}\n[limits]\nbridges_max = 4\n");
    let (stays, goes) = ("tcp:127.0.0.1:0=test.echo/echo", "tcp:127.0.0.1:0=test.echo/echo,idle=1h");
    let daemon = Daemon::start_with(&Options::with_config(specs(&[stays, goes])));
    serve_echo(&daemon);
    let own = ask(&daemon, "bridge-expose", "tcp:[::1]:0=test.echo/echo").unwrap();
    let rows = || ask(&daemon, "bridge-list", "").unwrap().as_array().unwrap().clone();
    let specs_of = |rows: &[serde_json::Value]| -> Vec<String> {
        rows.iter().map(|row| row["spec"].as_str().unwrap().to_owned()).collect()
    };
    let address = |row: &serde_json::Value| row["address"].as_str().unwrap().parse().unwrap();
    let before = rows();
    let mut staying = NetClient::connect(address(&before[0]));
    let mut going = NetClient::connect(address(&before[1]));
    staying.exchange("before", "before");
    going.exchange("before", "before");

    // The same address with another framing: the port stays the same, also one that the system has chosen.
    let changed = "tcp:127.0.0.1:0=test.echo/echo,framing=line";
    daemon.reload(&specs(&[stays, changed, "tcp:[::1]:0=test.echo/echo,idle=2h"]));
    assert!(ipc_tests::daemon::eventually(|| rows().len() == 4), "{:?}", rows());
    let after = rows();
    let own_spec = own["spec"].as_str().unwrap();
    assert_eq!(specs_of(&after), [stays, own_spec, changed, "tcp:[::1]:0=test.echo/echo,idle=2h"]);
    assert_eq!(after[2]["address"], before[1]["address"]);
    assert!(going.rest().is_empty());
    staying.exchange("after", "after");
    NetClient::connect(address(&after[2])).exchange("line\n", "line\n");

    daemon.reload(&specs(&[stays]));
    assert!(ipc_tests::daemon::eventually(|| rows().len() == 2), "{:?}", rows());
    assert_eq!(specs_of(&rows()), [stays, own_spec]);
    staying.exchange("at last", "at last");
    assert_eq!(daemon.stop().status.code(), Some(0));
}

#[test]
fn a_reload_that_cannot_be_followed_changes_nothing_and_says_so() {
    let spec = "tcp:127.0.0.1:0=test.echo/echo";
    let daemon = Daemon::start_with(&Options::with_config(format!("expose = [{spec:?}]\n")));
    serve_echo(&daemon);
    let before = ask(&daemon, "bridge-list", "").unwrap();
    let mut client = NetClient::connect(before[0]["address"].as_str().unwrap().parse().unwrap());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = format!("tcp:{}=a/b", taken.local_addr().unwrap());
    let other = "tcp:127.0.0.1:0=test.echo/echo,framing=line";
    for (config, reason) in [
        (format!("expose = [{other:?}, {in_use:?}]\n[limits]\nbridges_max = 5\n"), "in use"),
        (
            format!("expose = [{other:?}, {other:?}]\n[limits]\nbridges_max = 1\n"),
            "bridges_max is at its limit",
        ),
        ("expose = [\"nonsense\"]\n".to_owned(), "daemon.toml:1:10"),
    ] {
        daemon.reload(&config);
        assert!(ipc_tests::daemon::eventually(|| daemon.log().contains(reason)), "{}", daemon.log());
        let after = ask(&daemon, "bridge-list", "").unwrap();
        assert_eq!((&after[0]["id"], &after[0]["spec"]), (&before[0]["id"], &before[0]["spec"]));
        assert_eq!(after.as_array().unwrap().len(), 1);
        let status = ask(&daemon, "status", "").unwrap();
        assert_eq!(status["limits"]["bridges_max"], 64);
        client.exchange("still there", "still there");
    }
    daemon.reload(&format!("expose = [{other:?}]\n"));
    let is_changed = || ask(&daemon, "bridge-list", "").unwrap()[0]["framing"] == "line";
    assert!(ipc_tests::daemon::eventually(is_changed));
    assert_eq!(ask(&daemon, "bridge-list", "").unwrap()[0]["address"], before[0]["address"]);
}
