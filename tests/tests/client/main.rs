//! The async client and service against a real daemon, on both kinds of runtime.

mod calls;
mod connection;
mod coordination;
mod events;
mod keys;
mod names;
mod queues;
mod services;
mod tenure;

use std::future::Future;

use ipc_core::client::{Client, ConnectOptions};
use ipc_core::service::{Request, Service};
use ipc_core::{Address, Payload, ServiceError};
use ipc_tests::daemon::{Daemon, PATIENCE};
use tokio::runtime::{Builder, Runtime};

/// Runs a test with a daemon of its own on each kind of runtime.
fn on_each_runtime<F: Future<Output = ()>>(test: impl Fn(Bus) -> F) {
    for (name, polls, runtime) in [
        ("current-thread", true, current_thread()),
        ("multi-thread", true, multi_thread()),
        ("current-thread, sleeping at once", false, current_thread()),
    ] {
        let bus = Bus { daemon: Daemon::start(), polls };
        let end = runtime.block_on(async { tokio::time::timeout(PATIENCE, test(bus)).await });
        assert!(end.is_ok(), "the test does not end on the {name} runtime");
    }
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A daemon and how to reach it.
struct Bus {
    daemon: Daemon,
    polls: bool,
}

impl Bus {
    fn options(&self) -> ConnectOptions {
        let address = Address::parse(&self.daemon.address().to_string_lossy()).unwrap();
        ConnectOptions::new().address(address).call_timeout(PATIENCE).poll_before_park(self.polls)
    }

    async fn client(&self) -> Client {
        Client::connect(self.options()).await.unwrap()
    }
}

async fn echo(request: Request) -> Result<Payload, ServiceError> {
    Ok(request.payload)
}

fn echo_service() -> Service {
    Service::new("test.echo").unwrap().method("echo", echo)
}
