//! The tool over TCP, and `sockets`.

use ipc_tests::daemon::{Daemon, Options};
use serde_json::Value;

use crate::command::{Running, run, run_at};

const CONFIG: &str = "tcp = \"127.0.0.1:0\"\nexpose = [\"tcp:127.0.0.1:0=demo.cat/run\"]\n\
                      [remote]\nallow = [\"call demo.cat/run\", \"call ipc.daemon/status\"]\n";

fn tcp(daemon: &Daemon) -> String {
    let status = run_at(daemon.runtime_dir(), &["--json", "status"]).object();
    let addresses = status["addresses"].as_array().expect("a list").clone();
    let tcp = addresses.iter().find(|address| address["kind"] == "tcp").expect("it speaks TCP");
    format!("tcp:{}", tcp["address"].as_str().expect("a text"))
}

#[test]
fn the_tool_reaches_the_bus_over_tcp() {
    let daemon = Daemon::start_with(&Options::with_config(CONFIG));
    let arguments = ["serve", "demo.cat", "run", "--", "cat"];
    let _service = Running::start(daemon.runtime_dir(), &arguments, "serving demo.cat/run");
    let address = tcp(&daemon);
    let called = run(&["--address", &address, "call", "demo.cat", "run", "hello"]);
    assert_eq!(called.succeeded(), "hello");
    run(&["--address", &address, "ping"]).succeeded();
    run(&["--address", &address, "--json", "call", "demo.cat", "other", ""])
        .failed_with(77, "permission_denied");
    run(&["--address", &address, "--json", "sockets"]).failed_with(77, "permission_denied");
    let peers = run(&["--address", &address, "--json", "status"]).object();
    assert!(peers["version"].is_string(), "{peers}");
    let nobody = run(&["--address", "tcp:127.0.0.1:1", "--json", "ping"]);
    nobody.failed_with(69, "unreachable");
    run(&["--address", "udp:127.0.0.1:1", "--json", "ping"]).failed_with(69, "unreachable");
}

#[test]
fn every_socket_of_the_daemon_is_shown() {
    let daemon = Daemon::start_with(&Options::with_config(CONFIG));
    let exposed = run_at(daemon.runtime_dir(), &["--json", "bridge", "list"]).object();
    let mut client = std::net::TcpStream::connect(exposed["address"].as_str().expect("an address")).unwrap();
    let remote = run_at(daemon.runtime_dir(), &["--json", "sockets"]).objects();
    assert!(!remote.is_empty());
    let find = |role: &str, family: &str| -> Value {
        let look = || {
            let sockets = run_at(daemon.runtime_dir(), &["--json", "sockets"]).objects();
            let fits = |socket: &&Value| socket["role"] == role && socket["family"] == family;
            sockets.iter().find(fits).cloned()
        };
        crate::command::wait_until(role, look)
    };
    let bus = find("listener", "AF_UNIX");
    assert_eq!(bus["local"], daemon.socket().to_str().unwrap());
    assert_eq!((&bus["type"], &bus["peer"]), (&"SOCK_STREAM".into(), &Value::Null));
    assert_eq!(bus["options"]["SO_ACCEPTCONN"], true);
    let network = find("listener", "AF_INET");
    assert_eq!(format!("tcp:{}", network["local"].as_str().unwrap()), tcp(&daemon));
    assert_eq!(
        (&network["protocol"], &network["options"]["TCP_NODELAY"]),
        (&"IPPROTO_TCP".into(), &true.into())
    );
    assert_eq!(find("exposed_listener", "AF_INET")["local"], exposed["address"]);
    let connection = find("exposed_connection", "AF_INET");
    assert_eq!(connection["peer"], client.local_addr().unwrap().to_string());
    assert_eq!(connection["options"]["SO_KEEPALIVE"], true);
    let own = find("connection", "AF_UNIX");
    for number in ["fd", "receive_queue", "send_queue", "peer_id"] {
        assert!(own[number].is_u64(), "{number}: {own}");
    }
    let for_people = run_at(daemon.runtime_dir(), &["sockets"]);
    for part in ["FAMILY", "AF_UNIX", "AF_INET", "SOCK_STREAM", "TCP_NODELAY", "exposed_connection"] {
        assert!(for_people.succeeded().contains(part), "{part}: {for_people:?}");
    }
    std::io::Write::write_all(&mut client, b"").unwrap();
}
