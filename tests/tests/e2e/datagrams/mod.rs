//! Calls and events over datagrams, local and of the network, with real daemons.

mod bad_days;
mod calls;
mod crowd;
mod restart;
mod weather;

use std::time::Duration;

use ipc_core::blocking::Client;
use ipc_core::{Address, ConnectOptions};
use ipc_tests::daemon::{Daemon, Options, PATIENCE};
use ipc_tests::services::ask;

/// What a network peer may do in these tests.
const REMOTE: &str = "[remote]\nallow = [\"call test.echo/echo\", \"call test.count\", \"publish test.>\"]\n\
                      [limits]\ndrain_timeout_ms = 200\n";

/// A daemon with both kinds of datagram sockets.
fn daemon() -> Daemon {
    Daemon::start_with(&Options {
        config: Some(REMOTE.to_owned()),
        ..Options::with_arguments(["--udp", "127.0.0.1:0"])
    })
}

/// The address of the daemon's local datagram socket, and that of its network one.
fn addresses(daemon: &Daemon) -> [Address; 2] {
    let status = ask(daemon, "status", "").unwrap();
    let of_kind = |kind: &str| {
        let found = status["addresses"].as_array().unwrap().iter().find(|it| it["kind"] == kind).unwrap();
        found["address"].as_str().unwrap().to_owned()
    };
    let local = format!("dgram:{}", of_kind("unix_datagram"));
    assert_eq!(local, format!("dgram:{}", daemon.datagram_socket().display()));
    [local, format!("udp:{}", of_kind("udp"))].map(|text| Address::parse(&text).unwrap())
}

fn connect(address: &Address) -> Client {
    Client::connect(options(address)).unwrap()
}

fn options(address: &Address) -> ConnectOptions {
    ConnectOptions::new().address(address.clone()).call_timeout(PATIENCE)
}

/// A number of the daemon's status.
fn counter(daemon: &Daemon, name: &str) -> u64 {
    ask(daemon, "status", "").unwrap()["counters"][name].as_u64().unwrap_or_else(|| panic!("{name}"))
}

/// Waits until a number of the daemon's status has reached that.
fn wait_for(daemon: &Daemon, name: &str, least: u64) {
    assert!(
        ipc_tests::daemon::eventually(|| counter(daemon, name) >= least),
        "{name}: {}",
        counter(daemon, name)
    );
}

const SHORT: Duration = Duration::from_millis(200);
