//! Connecting, losing the connection, and connecting again.

use std::path::PathBuf;
use std::time::Duration;

use ipc_core::client::{
    Backoff, Client, ConnectOptions, ConnectionEvent, Delivery, NameEvent, SubscribeOptions,
};
use ipc_core::service::{Request, Service};
use ipc_core::{Address, ErrorCode, Payload, ServiceError};
use ipc_tests::daemon::{Daemon, Options, PATIENCE, Signal};
use tokio::sync::mpsc;

use crate::{Bus, current_thread, echo_service, multi_thread, on_each_runtime};

#[test]
fn the_daemon_introduces_itself() {
    on_each_runtime(async |bus| {
        let client = bus.client().await;
        let daemon = client.daemon();
        assert_eq!(daemon.protocol, 1);
        assert_ne!(daemon.epoch.0, 0);
        assert!(daemon.payload_max_bytes > 0 && !daemon.server.is_empty());
        client.close().await;
        client.close().await;
        assert_eq!(client.ping().await.unwrap_err().code, ErrorCode::Unreachable);
    });
}

#[test]
fn a_missing_daemon_is_unreachable() {
    let directory = tempfile::tempdir().unwrap();
    let address = Address::Unix(directory.path().join("bus.sock"));
    let error =
        current_thread().block_on(Client::connect(ConnectOptions::new().address(address))).unwrap_err();
    assert_eq!(error.code, ErrorCode::Unreachable);
}

#[test]
fn a_stopped_daemon_does_not_hold_up_connecting() {
    let daemon = Daemon::start();
    daemon.signal(Signal::STOP);
    let bus = Bus { daemon, polls: true };
    let options = bus.options().connect_timeout(Duration::from_millis(50));
    let error = current_thread().block_on(Client::connect(options)).unwrap_err();
    assert_eq!(error.code, ErrorCode::Unreachable);
    assert!(error.message.contains("did not answer the hello"), "{error}");
    bus.daemon.signal(Signal::CONT);
}

#[test]
fn what_is_open_when_the_daemon_dies_has_an_unknown_outcome() {
    on_each_runtime(async |bus| {
        let (began, mut begins) = mpsc::unbounded_channel();
        let client = bus.client().await;
        let mut events = client.events();
        let service = Service::new("test.waits").unwrap().method("wait", move |_request: Request| {
            began.send(()).unwrap();
            std::future::pending::<Result<Payload, ServiceError>>()
        });
        let serving = client.serve(service).await.unwrap();
        let mut subscription = client.subscribe("t", SubscribeOptions::default()).await.unwrap();
        let caller = bus.client().await;
        let call = tokio::spawn(async move { caller.call("test.waits", "wait", "").await });
        begins.recv().await.unwrap();
        bus.daemon.kill();
        assert_eq!(call.await.unwrap().unwrap_err().code, ErrorCode::OutcomeUnknown);
        assert!(subscription.next().await.unwrap().is_err());
        assert!(subscription.next().await.is_none());
        assert_eq!(serving.closed().await.code, ErrorCode::Unreachable);
        assert!(matches!(events.next().await, Some(ConnectionEvent::Closed(_))));
        assert_eq!(client.ping().await.unwrap_err().code, ErrorCode::Unreachable);
    });
}

/// A daemon that can be started again where the last one was.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").unwrap() }
    }

    fn runtime_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    fn start(&self) -> Daemon {
        Daemon::start_with(&Options { runtime_dir: Some(self.runtime_dir()), ..Options::default() })
    }

    async fn client(&self) -> Client {
        let backoff = Backoff { first: Duration::from_millis(1), ..Backoff::default() };
        let address = Address::Unix(self.runtime_dir().join("bus.sock"));
        let options = ConnectOptions::new().address(address).call_timeout(PATIENCE).reconnect(backoff);
        Client::connect(options).await.unwrap()
    }
}

#[test]
fn a_client_comes_back_with_all_it_had() {
    for runtime in [current_thread(), multi_thread()] {
        let place = Place::new();
        let end = runtime.block_on(async { tokio::time::timeout(PATIENCE, comes_back(&place)).await });
        assert!(end.is_ok(), "the test does not end");
    }
}

async fn comes_back(place: &Place) {
    let daemon = place.start();
    let client = place.client().await;
    let mut events = client.events();
    let serving = client.serve(echo_service()).await.unwrap();
    let mut subscription = client.subscribe("t", SubscribeOptions::default()).await.unwrap();
    let mut watch = client.watch_names("test.*").await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(NameEvent::Changed { .. }))));
    client.publish("t", "before").await.unwrap();
    client.call("test.echo", "echo", "before").await.unwrap();
    let epoch_before = client.daemon().epoch;

    daemon.kill();
    assert!(matches!(events.next().await, Some(ConnectionEvent::Disconnected(_))));
    let error = client.ping().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unreachable);
    let _daemon = place.start();
    let Some(ConnectionEvent::Reconnected { epoch, epoch_changed }) = events.next().await else { panic!() };
    assert!(epoch_changed && epoch != epoch_before);
    assert_eq!(client.daemon().epoch, epoch);

    assert!(matches!(watch.next().await, Some(Ok(NameEvent::Restarted))));
    assert!(matches!(watch.next().await, Some(Ok(NameEvent::Changed { .. }))));
    let Some(Ok(Delivery::Event(event))) = subscription.next().await else { panic!() };
    assert_eq!(event.payload.as_text().unwrap(), "before");
    let Some(Ok(Delivery::Lost(lost))) = subscription.next().await else { panic!() };
    assert_eq!((lost.epoch_changed, lost.sequence_before), (true, Some(1)));
    client.publish("t", "after").await.unwrap();
    let Some(Ok(Delivery::Event(event))) = subscription.next().await else { panic!() };
    assert_eq!(event.payload.as_text().unwrap(), "after");
    assert!(client.call("test.echo", "echo", "after").await.is_ok());
    assert!(!serving.is_queued());
}

#[test]
fn a_client_gives_up_when_it_was_told_to() {
    let place = Place::new();
    let ended = current_thread().block_on(async {
        let daemon = place.start();
        let backoff =
            Backoff { first: Duration::from_millis(1), attempts_max: Some(3), ..Backoff::default() };
        let address = Address::Unix(place.runtime_dir().join("bus.sock"));
        let client =
            Client::connect(ConnectOptions::new().address(address).reconnect(backoff)).await.unwrap();
        let mut events = client.events();
        daemon.kill();
        let events = [events.next().await, events.next().await];
        assert!(matches!(events[0], Some(ConnectionEvent::Disconnected(_))), "{events:?}");
        assert!(matches!(events[1], Some(ConnectionEvent::Closed(_))), "{events:?}");
        tokio::time::timeout(PATIENCE, client.close()).await
    });
    assert!(ended.is_ok());
}

#[test]
fn a_client_outlives_its_runtime_without_hanging() {
    let bus = Bus { daemon: Daemon::start(), polls: true };
    let runtime = multi_thread();
    let client = runtime.block_on(bus.client());
    let subscription = runtime.block_on(client.subscribe("t", SubscribeOptions::default())).unwrap();
    drop(runtime);
    let mut subscription = subscription;
    current_thread().block_on(async {
        assert!(subscription.next().await.unwrap().is_err());
        assert_eq!(client.ping().await.unwrap_err().code, ErrorCode::Unreachable);
    });
}
