//! Names that are taken, waited for and shared, and a daemon that is started again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ipc_core::blocking::{Backoff, CallOptions, Client, Delivery, Service, ServingState, SubscribeOptions};
use ipc_core::{ErrorCode, Payload};
use ipc_tests::daemon::{Daemon, Options, PATIENCE};

use super::{client, echo, options, serve};

#[test]
fn a_name_is_taken_waited_for_and_taken_over() {
    let daemon = Daemon::start();
    let (mut owner, mut second) = (client(&daemon), client(&daemon));
    let first = owner.serve(echo("test.echo")).unwrap();
    assert_eq!(owner.serving_state(&first), ServingState::Active);
    let error = second.serve(echo("test.echo")).unwrap_err();
    assert_eq!(error.code, ErrorCode::NameTaken, "{error}");
    let queued = second.serve(echo("test.echo").queue()).unwrap();
    assert_eq!(second.serving_state(&queued), ServingState::Queued);
    owner.unserve(first).unwrap();
    second.ping().unwrap();
    assert_eq!(second.serving_state(&queued), ServingState::Active);
    let error = second.call("test.echo", "echo", "").unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict, "it would wait for itself: {error}");
}

#[test]
fn instances_of_a_group_share_the_calls() {
    let daemon = Daemon::start();
    let served = [0, 1].map(|_| Arc::new(AtomicU32::new(0)));
    let servers = served.each_ref().map(|count| {
        let count = Arc::clone(count);
        let service = Service::new("test.count").unwrap().group().method("count", move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok("")
        });
        serve(&daemon, service)
    });
    let mut client = client(&daemon);
    for _ in 0..20 {
        let _call = client.start_call("test.count", "count", "", CallOptions::new()).unwrap();
    }
    while let Some((_, reply)) = client.wait_any() {
        reply.unwrap();
    }
    let served = served.map(|count| count.load(Ordering::Relaxed));
    assert_eq!(served.iter().sum::<u32>(), 20);
    assert!(served.iter().all(|count| *count > 0), "{served:?}");
    drop(daemon);
    for server in servers {
        assert!(server.join().unwrap().is_err());
    }
}

#[test]
fn a_service_comes_back_with_the_daemon() {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let runtime_dir = Some(directory.path().join("run"));
    let settings = Options { runtime_dir, ..Options::default() };
    let daemon = Daemon::start_with(&settings);
    let backoff = Backoff::default();
    let mut server = Client::connect(options(&daemon).reconnect(backoff)).unwrap();
    let _serving = server.serve(echo("test.echo")).unwrap();
    let server = std::thread::spawn(move || server.run());
    let mut client = Client::connect(options(&daemon).reconnect(backoff)).unwrap();
    let subscription = client.subscribe("test.>", SubscribeOptions::default()).unwrap();
    let watch = client.watch_names("test.echo").unwrap();
    client.call("test.echo", "echo", "x").unwrap();

    daemon.kill();
    let error = client.call("test.echo", "echo", "x").unwrap_err();
    assert!(matches!(error.code, ErrorCode::Unreachable | ErrorCode::OutcomeUnknown), "{error}");
    let _daemon = Daemon::start_with(&settings);
    let reconnected = client.reconnect().unwrap();
    assert!(reconnected.epoch_changed);
    assert!(reconnected.services_lost.is_empty());
    let lost = client.next_delivery(&subscription, PATIENCE).unwrap();
    assert!(matches!(lost, Some(Delivery::Lost(lost)) if lost.epoch_changed), "{lost:?}");
    // Wait for the service to be back, whoever of the two was faster.
    loop {
        match client.call("test.echo", "echo", "back") {
            Ok(reply) => break assert_eq!(reply.payload, Payload::from("back")),
            Err(error) => assert_eq!(error.code, ErrorCode::NoSuchService, "{error}"),
        }
        let event = client.next_name_event(&watch, PATIENCE).unwrap();
        assert!(event.is_some(), "the service does not come back");
    }
    client.call("test.echo", "stop", "").unwrap();
    server.join().unwrap().unwrap();
}
