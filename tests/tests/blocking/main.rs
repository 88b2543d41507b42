//! The blocking client and service against a real daemon.

mod calls;
mod coordination;
mod events;
mod keys;
mod queues;
mod services;

use std::thread::JoinHandle;

use ipc_core::blocking::{Client, ConnectOptions, Service};
use ipc_core::{Address, Error};
use ipc_tests::daemon::{Daemon, PATIENCE};

fn options(daemon: &Daemon) -> ConnectOptions {
    let address = Address::parse_os(&daemon.address()).unwrap();
    ConnectOptions::new().address(address).connect_timeout(PATIENCE).call_timeout(PATIENCE)
}

fn client(daemon: &Daemon) -> Client {
    Client::connect(options(daemon)).unwrap()
}

/// Offers a service on a thread of its own, until it is stopped or the daemon ends. It is there when this returns.
fn serve(daemon: &Daemon, service: Service) -> JoinHandle<Result<(), Error>> {
    let mut client = client(daemon);
    let _serving = client.serve(service).unwrap();
    std::thread::spawn(move || client.run())
}

/// A service with a method that answers what it got, and one that makes it stop.
fn echo(name: &str) -> Service {
    Service::new(name).unwrap().method("echo", |request| Ok(request.payload.clone())).method_with_client(
        "stop",
        |_, client| {
            client.stop();
            Ok("")
        },
    )
}
