//! The bus protocol over TCP: who comes that way has proved nothing, and gets what `[remote] allow` lists.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ipc_core::blocking::{Client, Service};
use ipc_core::identity::Identity;
use ipc_core::transport::HostPort;
use ipc_core::wire::{Kind, PREAMBLE};
use ipc_core::{Address, Backoff, ConnectOptions, ErrorCode};
use ipc_tests::daemon::{Daemon, Options, PATIENCE, eventually};
use ipc_tests::raw::{RawPeer, greeting};
use ipc_tests::services::{ask, serve, serve_echo};
use serde_json::Value;

const ALLOW_ECHO: &str =
    "tcp = \"127.0.0.1:0\"\n[remote]\nallow = [\"call test.echo/echo\", \"publish news.>\"]\n";

/// Where the daemon speaks TCP, if it does.
fn tcp_address(daemon: &Daemon) -> Option<SocketAddr> {
    let status = ask(daemon, "status", "").unwrap();
    let addresses = status["addresses"].as_array().unwrap().clone();
    let tcp = addresses.iter().find(|address| address["kind"] == "tcp")?;
    Some(tcp["address"].as_str().unwrap().parse().unwrap())
}

fn place(daemon: &Daemon) -> HostPort {
    tcp_address(daemon).expect("it speaks TCP").try_into().unwrap()
}

fn options(place: HostPort) -> ConnectOptions {
    ConnectOptions::new().address(Address::Tcp(place)).call_timeout(PATIENCE)
}

fn remote(daemon: &Daemon) -> Client {
    Client::connect(options(place(daemon))).unwrap()
}

fn raw(daemon: &Daemon) -> RawPeer {
    RawPeer::over(TcpStream::connect(tcp_address(daemon).unwrap()).unwrap())
}

fn tcp_peers(daemon: &Daemon) -> Vec<Value> {
    let peers = ask(daemon, "list", "peers").unwrap();
    peers.as_array().unwrap().iter().filter(|peer| peer["transport"] == "tcp").cloned().collect()
}

#[test]
fn a_remote_client_calls_what_is_listed_and_nothing_else() {
    let daemon = Daemon::start_with(&Options::with_config(ALLOW_ECHO));
    serve_echo(&daemon);
    let mut client = remote(&daemon);
    for size in [0, 1, 100_000] {
        let reply = client.call("test.echo", "echo", vec![7; size]).unwrap();
        assert_eq!(reply.payload.body.len(), size);
    }
    client.publish("news.today", "rain").unwrap();
    for (service, method) in [("test.echo", "other"), ("test.other", "echo"), ("ipc.daemon", "sockets")] {
        let error = client.call(service, method, "").unwrap_err();
        assert_eq!(error.code, ErrorCode::PermissionDenied, "{service}/{method}");
        assert!(error.message.contains("[remote] allow"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("[remote] allow")), "{error:?}");
    }
    let own = Service::new("test.mine").unwrap().method("m", |_| Ok("mine"));
    assert_eq!(client.serve(own).unwrap_err().code, ErrorCode::PermissionDenied);
    assert!(client.call("test.echo", "echo", "still").is_ok(), "a refusal ends no connection");
}

#[test]
fn whoever_comes_over_tcp_is_known_as_anonymous_and_never_as_a_user() {
    let daemon = Daemon::start_with(&Options::with_config(
        "tcp = \"127.0.0.1:0\"\n[remote]\nallow = [\"call test.who/am-i\"]\n",
    ));
    let service = Service::new("test.who").unwrap();
    serve(&daemon, service.method("am-i", |request| Ok(request.sender.identity.to_string())));
    let mut client = remote(&daemon);
    let answer = client.call("test.who", "am-i", "").unwrap();
    let answer = answer.payload.as_text().unwrap();
    assert!(answer.starts_with("remote anonymous at 127.0.0.1:"), "{answer}");
    let peers = tcp_peers(&daemon);
    assert_eq!(peers.len(), 1, "{peers:?}");
    assert_eq!((&peers[0]["principal"], &peers[0]["uid"]), (&"anonymous".into(), &Value::Null));
    assert!(matches!(
        client.call("test.who", "am-i", "").unwrap().responder.identity,
        Identity::Local { .. }
    ));
}

#[test]
fn without_a_list_the_network_may_do_nothing() {
    let daemon = Daemon::start_with(&Options::with_arguments(["--tcp", "127.0.0.1:0"]));
    serve_echo(&daemon);
    let error = remote(&daemon).call("test.echo", "echo", "").unwrap_err();
    assert_eq!(error.code, ErrorCode::PermissionDenied);
    assert!(tcp_address(&Daemon::start()).is_none(), "and without the flag there is no port");
}

#[test]
fn an_address_that_other_machines_reach_is_a_wrong_configuration() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:7100"] {
        let ended = Daemon::try_start(&Options::with_arguments(["--tcp", address])).unwrap_err();
        assert_eq!(ended.status.code(), Some(78), "{ended:#?}");
        assert!(ended.stderr.contains("127.0.0.1 or [::1]"), "{}", ended.stderr);
    }
    let ended = Daemon::try_start(&Options::with_config("\ntcp = \"0.0.0.0:1\"\n")).unwrap_err();
    assert_eq!(ended.status.code(), Some(78), "{ended:#?}");
    assert!(ended.stderr.contains("daemon.toml:2:7: "), "{}", ended.stderr);
}

#[test]
fn a_port_that_is_taken_is_an_error_of_the_system() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = Daemon::try_start(&Options::with_arguments(["--tcp", &address])).unwrap_err();
    assert_eq!(ended.status.code(), Some(74), "{ended:#?}");
    assert!(ended.stderr.contains(&address) && ended.stderr.contains("another program"), "{}", ended.stderr);
}

#[test]
fn a_reload_opens_moves_and_closes_the_port() {
    let daemon = Daemon::start_with(&Options::with_config(""));
    assert!(tcp_address(&daemon).is_none());
    daemon.reload(ALLOW_ECHO);
    assert!(eventually(|| tcp_address(&daemon).is_some()));
    let first = tcp_address(&daemon).unwrap();
    let mut client = remote(&daemon);
    daemon.reload(&format!("{ALLOW_ECHO}\n[limits]\ntcp_connections_max = 7\n"));
    let has_reloaded = || ask(&daemon, "status", "").unwrap()["limits"]["tcp_connections_max"] == 7;
    assert!(eventually(has_reloaded));
    assert_eq!(tcp_address(&daemon), Some(first), "the same setting keeps the socket");
    client.ping().unwrap();
    // A wrong one changes nothing.
    daemon.reload("tcp = \"0.0.0.0:0\"\n");
    assert!(eventually(|| daemon.log().contains("the old configuration stays")));
    client.ping().unwrap();
    // Written as the port that it has come to be, it is the same port.
    daemon.reload(&ALLOW_ECHO.replace("127.0.0.1:0", &first.to_string()));
    daemon.reload(&format!("{ALLOW_ECHO}\n[limits]\ntcp_connections_max = 8\n"));
    assert!(eventually(|| ask(&daemon, "status", "").unwrap()["limits"]["tcp_connections_max"] == 8));
    assert_eq!(tcp_address(&daemon), Some(first));
    client.ping().unwrap();
    daemon.reload("");
    assert!(eventually(|| tcp_address(&daemon).is_none()));
    assert!(TcpStream::connect(first).is_err(), "nobody listens there any more");
    assert!(client.ping().is_err(), "who had been let in is closed");
}

#[test]
fn a_reload_that_fails_leaves_no_port_open() {
    let daemon = Daemon::start_with(&Options::with_config(""));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // What is free for a moment, so that it is known where nobody may listen.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let expose = format!("expose = [\"tcp:{}=test.echo/echo\"]\n", taken.local_addr().unwrap());
    daemon.reload(&format!("{expose}{}", ALLOW_ECHO.replace("127.0.0.1:0", &free.to_string())));
    assert!(eventually(|| daemon.log().contains("the old configuration stays")), "{}", daemon.log());
    assert!(tcp_address(&daemon).is_none());
    assert!(eventually(|| TcpStream::connect(free).is_err()), "somebody listens there");
}

#[test]
fn who_is_connected_stays_when_the_port_moves_and_has_the_rights_of_the_new_configuration() {
    let daemon = Daemon::start_with(&Options::with_config(ALLOW_ECHO));
    serve_echo(&daemon);
    let first = tcp_address(&daemon).unwrap();
    let mut client = remote(&daemon);
    assert!(client.call("test.echo", "echo", "before").is_ok());
    daemon.reload(&ALLOW_ECHO.replace("127.0.0.1:0", "127.0.0.2:0"));
    assert!(eventually(|| tcp_address(&daemon).is_some_and(|address| address != first)));
    assert!(TcpStream::connect(first).is_err(), "nobody listens there any more");
    assert!(client.call("test.echo", "echo", "after").is_ok());
    assert!(remote(&daemon).call("test.echo", "echo", "there").is_ok());
    daemon.reload("tcp = \"127.0.0.2:0\"\n");
    let error = || client.call("test.echo", "echo", "not any more").err();
    let mut error = error;
    assert!(eventually(|| error().is_some_and(|error| error.code == ErrorCode::PermissionDenied)));
}

#[test]
fn silence_and_slowness_before_the_hello_have_their_time() {
    let limits =
        "tcp = \"127.0.0.1:0\"\n[limits]\ntcp_first_byte_timeout_ms = 100\ntcp_hello_timeout_ms = 400\n";
    let daemon = Daemon::start_with(&Options::with_config(limits));
    let hello = greeting("slow");
    for (said, least_ms, what) in
        [(&b""[..], 100, "nothing"), (&PREAMBLE[..1], 400, "a byte"), (&hello[..20], 400, "half a hello")]
    {
        let begun = Instant::now();
        let mut peer = raw(&daemon);
        peer.send(said);
        let reason = peer.receive().expect("a reason").close_reason();
        assert_eq!(reason.0, ErrorCode::Unauthenticated, "{what}: {reason:?}");
        // The clock of the daemon begins when it accepts, which may be before connecting returns here.
        assert!(begun.elapsed() >= Duration::from_millis(least_ms - 50), "{what}: {:?}", begun.elapsed());
        assert!(peer.receive_bytes().is_empty());
    }
    let mut peer = raw(&daemon);
    peer.send(&hello);
    assert_eq!(peer.receive().unwrap().header.kind, Kind::WELCOME);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(500) {
        peer.ping(1);
    }
}

#[test]
fn nothing_large_is_taken_before_the_hello() {
    let daemon = Daemon::start_with(&Options::with_arguments(["--tcp", "127.0.0.1:0"]));
    let mut large = greeting("test");
    large[PREAMBLE.len() + 4..][..4].copy_from_slice(&4096_u32.to_le_bytes());
    let mut peer = raw(&daemon);
    peer.send(&large);
    assert_eq!(peer.receive().expect("a reason").close_reason().0, ErrorCode::ProtocolViolation);
    let mut browser = raw(&daemon);
    browser.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = String::from_utf8(browser.receive_bytes()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[test]
fn connections_over_tcp_have_a_limit_of_their_own() {
    let limits = "tcp = \"127.0.0.1:0\"\n[limits]\ntcp_connections_max = 3\n";
    let daemon = Daemon::start_with(&Options::with_config(limits));
    let mut held: Vec<Client> = (0..3).map(|_| remote(&daemon)).collect();
    let error = Client::connect(options(place(&daemon))).unwrap_err();
    assert_eq!(error.code, ErrorCode::QuotaExceeded, "{error}");
    assert!(error.message.contains("tcp_connections_max"), "{error}");
    RawPeer::greeted(&daemon.socket()).0.ping(1);
    held.pop();
    assert!(eventually(|| Client::connect(options(place(&daemon))).is_ok()), "one that ends makes room");
}

#[test]
fn a_crowd_from_the_network_that_says_nothing_keeps_no_local_client_waiting() {
    let limits = "tcp = \"127.0.0.1:0\"\n[limits]\nunauthenticated_per_uid_max = 2\n\
                  tcp_first_byte_timeout_ms = 60000\ntcp_hello_timeout_ms = 60000\n";
    let daemon = Daemon::start_with(&Options::with_config(limits));
    let address = tcp_address(&daemon).unwrap();
    let crowd: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert!(eventually(|| tcp_peers(&daemon).len() == 2), "two are let in, the others wait");
    for _ in 0..5 {
        RawPeer::greeted(&daemon.socket()).0.ping(1);
    }
    drop(crowd);
    remote(&daemon).ping().unwrap();
}

#[test]
fn a_daemon_that_stops_says_so_over_tcp() {
    let daemon = Daemon::start_with(&Options::with_config(ALLOW_ECHO));
    let address = tcp_address(&daemon).unwrap();
    let mut peer = raw(&daemon);
    peer.send(&greeting("witness"));
    assert_eq!(peer.receive().unwrap().header.kind, Kind::WELCOME);
    assert_eq!(daemon.stop().status.code(), Some(0));
    assert_eq!(peer.receive().expect("a reason").close_reason().0, ErrorCode::ShuttingDown);
    assert!(peer.receive().is_none());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn both_clients_come_back_to_a_daemon_that_was_started_anew() {
    let daemon = Daemon::start_with(&Options::with_config(ALLOW_ECHO));
    serve_echo(&daemon);
    let port = tcp_address(&daemon).unwrap().port();
    let again = ALLOW_ECHO.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let named = HostPort::new("localhost", port).unwrap();
    let backoff = Backoff { first: Duration::from_millis(1), ..Backoff::default() };
    let options = options(named).reconnect(backoff);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(ipc_core::Client::connect(options.clone())).unwrap();
    let mut blocking = Client::connect(options).unwrap();
    assert!(runtime.block_on(client.call("test.echo", "echo", "one")).is_ok());
    daemon.kill();
    let daemon = Daemon::start_with(&Options::with_config(again));
    serve_echo(&daemon);
    let came_back = runtime.block_on(async {
        let again = async {
            while client.call("test.echo", "echo", "two").await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, again).await
    });
    assert!(came_back.is_ok());
    blocking.reconnect().unwrap();
    assert!(blocking.call("test.echo", "echo", "three").is_ok());
}

#[test]
fn nobody_there_is_said_as_it_is_by_both_clients() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = options(free.try_into().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let from_async = runtime.block_on(ipc_core::Client::connect(options.clone())).unwrap_err();
    let from_blocking = Client::connect(options).unwrap_err();
    for error in [from_async, from_blocking] {
        assert_eq!(error.code, ErrorCode::Unreachable, "{error}");
        assert!(error.message.contains(&format!("tcp:{free}: nobody listens")), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("--tcp")), "{error:?}");
    }
}
