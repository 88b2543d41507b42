//! Servers that have never heard of the bus, as real processes.

use std::process::{Command, Stdio};

use ipc_tests::exposed::{NetClient, UdpClient};
use ipc_tests::servers::{Forwarded, PYTHON_TCP, PYTHON_UDP, Script, send};
use ipc_tests::services::ask;

#[test]
fn a_python_server_is_called_over_one_connection_again_and_again() {
    let server = Script::python(PYTHON_TCP);
    let forwarded = Forwarded::start(&format!("tcp:127.0.0.1:{}", server.port), "");
    let mut client = forwarded.client();
    for _ in 0..50 {
        assert_eq!(send(&mut client, "hello world", None).unwrap(), "Hello World");
        assert_eq!(send(&mut client, "x", None).unwrap(), "X");
    }
    for (name, value) in [("calls", 100), ("errors", 0), ("connected", 1), ("idle", 1), ("open_calls", 0)] {
        assert_eq!(forwarded.number(name), value, "{name}");
    }
    assert_eq!(forwarded.number("bytes_in"), forwarded.number("bytes_out"));
    let sockets = ask(&forwarded.daemon, "sockets", "").unwrap();
    let own = sockets.as_array().unwrap().iter().find(|socket| socket["role"] == "forwarded");
    assert_eq!(own.expect("it is shown")["peer"], format!("127.0.0.1:{}", server.port));
}

#[test]
fn a_python_server_is_called_by_datagram() {
    let server = Script::python(PYTHON_UDP);
    let forwarded = Forwarded::start(&format!("udp:127.0.0.1:{}", server.port), "");
    let mut client = forwarded.client();
    for _ in 0..50 {
        assert_eq!(send(&mut client, "hello world", None).unwrap(), "Hello World");
    }
    for (name, value) in [("calls", 50), ("errors", 0), ("connected", 50), ("bytes_in", 50 * 11)] {
        assert_eq!(forwarded.number(name), value, "{name}");
    }
}

#[test]
fn a_name_is_looked_up_and_every_address_of_it_is_tried() {
    // Of the addresses that localhost has, they listen at one.
    let servers = [("tcp", Script::python(PYTHON_TCP)), ("udp", Script::python(PYTHON_UDP))];
    for (protocol, server) in &servers {
        let forwarded = Forwarded::start(&format!("{protocol}:localhost:{}", server.port), "");
        assert_eq!(send(&mut forwarded.client(), "hello", None).unwrap(), "Hello", "{protocol}");
    }
}

#[test]
fn many_callers_at_once_each_get_their_own_answers() {
    for (protocol, program) in [("tcp", PYTHON_TCP), ("udp", PYTHON_UDP)] {
        let server = Script::python(program);
        let forwarded =
            Forwarded::start(&format!("{protocol}:127.0.0.1:{}", server.port), "forward_calls_max = 4");
        std::thread::scope(|scope| {
            for number in 0..16 {
                let forwarded = &forwarded;
                scope.spawn(move || {
                    let mut client = forwarded.client();
                    for round in 0..20 {
                        let text = format!("client {number} round {round}");
                        let title = format!("Client {number} Round {round}");
                        assert_eq!(send(&mut client, &text, None).unwrap(), title);
                    }
                });
            }
        });
        assert_eq!((forwarded.number("calls"), forwarded.number("errors")), (320, 0), "{protocol}");
        if protocol == "tcp" {
            let connected = forwarded.number("connected");
            assert!((1..=4).contains(&connected), "{connected} connections");
        }
    }
}

#[test]
fn network_clients_reach_network_servers_over_the_bus() {
    let server = Script::python(PYTHON_TCP);
    let forwarded = Forwarded::start(&format!("tcp:127.0.0.1:{}", server.port), "");
    let expose = |door: &str| {
        let row = ask(&forwarded.daemon, "bridge-expose", &format!("{door}=test.net/send")).unwrap();
        row["address"].as_str().unwrap().parse().unwrap()
    };
    NetClient::connect(expose("tcp:127.0.0.1:0")).exchange("over tcp", "Over Tcp");
    UdpClient::new(expose("udp:127.0.0.1:0")).exchange("over udp", "Over Udp");
}

#[test]
fn socat_answers_until_it_closes() {
    // Serves one connection: half-closed by its client, it answers with all it got and closes.
    let script = "port=$(python3 -c 'import socket; s = socket.create_server((\"127.0.0.1\", 0)); print(s.getsockname()[1])')\n\
                  echo $port\nexec socat TCP-LISTEN:$port,bind=127.0.0.1,reuseaddr,fork SYSTEM:'tr a-z A-Z'\n";
    if Command::new("socat").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("left out: this machine has no socat");
        return;
    }
    let server = Script::run("sh", script);
    let forwarded = Forwarded::start(&format!("tcp:127.0.0.1:{},framing=until-close", server.port), "");
    let mut client = forwarded.client();
    // It listens a moment after it has said where.
    let mut answer = Err(());
    ipc_tests::daemon::eventually(|| {
        answer = send(&mut client, "hello\nworld", None).map_err(|_| ());
        answer.is_ok()
    });
    assert_eq!(answer.as_deref(), Ok("HELLO\nWORLD"));
    let large = "x".repeat(1 << 20);
    assert_eq!(send(&mut client, &large, None).unwrap(), large.to_uppercase());
    assert_eq!(forwarded.number("idle"), 0);
}
