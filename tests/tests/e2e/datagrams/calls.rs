//! What works as over the stream, and what says that it does not.

use ipc_core::blocking::{Service, SubscribeOptions};
use ipc_core::{CallOptions, Client as AsyncClient, Error, ErrorCode, Identity, Payload, PayloadKind};
use ipc_tests::daemon::{Daemon, PATIENCE};
use ipc_tests::services::{RawService, client, serve_echo};

use super::{SHORT, addresses, connect, counter, daemon, options};

#[test]
fn calls_have_their_answers_and_their_errors() {
    let daemon = daemon();
    serve_echo(&daemon);
    for (address, is_local) in addresses(&daemon).iter().zip([true, false]) {
        let mut client = connect(address);
        for payload in
            [Payload::from("grüß"), Payload::bytes(vec![7; 60_000]), Payload::json("{}"), Payload::default()]
        {
            let reply = client.call("test.echo", "echo", payload.clone()).unwrap();
            assert_eq!(reply.payload, payload);
            assert!(
                matches!(reply.responder.identity, Identity::Local { pid, .. } if pid == std::process::id())
            );
        }
        let expected = if is_local { ErrorCode::NoSuchService } else { ErrorCode::PermissionDenied };
        assert_eq!(client.call("test.nobody", "echo", "").unwrap_err().code, expected);
        let started: Vec<_> = (0..100)
            .map(|number| {
                let call = client
                    .start_call("test.echo", "echo", format!("{number}"), CallOptions::default())
                    .unwrap();
                (number, call)
            })
            .collect();
        for (number, call) in started {
            assert_eq!(client.wait(call).unwrap().payload.as_text().unwrap(), number.to_string());
        }
        assert!(client.ping().unwrap() < PATIENCE);
        client.close().unwrap();
    }
    assert_eq!(counter(&daemon, "datagrams_malformed"), 0);
}

#[test]
fn the_caller_is_who_the_kernel_says_it_is_and_the_network_is_nobody() {
    let daemon = daemon();
    let mut service = RawService::register(&daemon, "test.count", "who");
    for (address, is_local) in addresses(&daemon).iter().zip([true, false]) {
        let mut client = connect(address);
        client.call_oneway("test.count", "who", "x").unwrap();
        let caller = service.call().caller;
        let uid = rustix::process::geteuid().as_raw();
        match caller {
            Identity::Local { uid: found, pid, .. } if is_local => {
                assert_eq!((found, pid), (uid, std::process::id()));
            }
            Identity::Remote { principal, address } if !is_local => {
                assert_eq!(principal, "anonymous");
                assert!(address.starts_with("127.0.0.1:"), "{address}");
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn events_arrive_with_and_without_an_answer() {
    let daemon = daemon();
    let mut subscriber = client(&daemon);
    let subscription = subscriber.subscribe("test.>", SubscribeOptions::default()).unwrap();
    for address in &addresses(&daemon) {
        let mut publisher = connect(address);
        assert_eq!(publisher.publish("test.a", "acknowledged").unwrap().subscribers, 1);
        publisher.publish_oneway("test.a", "one way").unwrap();
        for expected in ["acknowledged", "one way"] {
            let delivery = subscriber.next_delivery(&subscription, PATIENCE).unwrap().unwrap();
            let ipc_core::blocking::Delivery::Event(event) = delivery else { panic!("{delivery:?}") };
            assert_eq!((event.payload.as_text().unwrap(), event.payload.kind), (expected, PayloadKind::Text));
        }
    }
}

#[test]
fn what_datagrams_cannot_do_is_said() {
    let daemon = daemon();
    serve_echo(&daemon);
    for address in &addresses(&daemon) {
        let mut client = connect(address);
        let refusals: [Error; 3] = [
            client.subscribe("test.>", SubscribeOptions::default()).unwrap_err(),
            client.watch_names("test.>").unwrap_err(),
            client.serve(Service::new("test.own").unwrap().method("m", |_| Ok(""))).unwrap_err(),
        ];
        for error in refusals {
            assert_eq!(error.code, ErrorCode::Unsupported, "{error}");
            assert!(error.hint().unwrap().contains("unix:"), "{error}");
        }
        let error = client.call("test.echo", "echo", vec![0; 70_000]).unwrap_err();
        assert_eq!(error.code, ErrorCode::PayloadTooLarge);
        // One byte over what fits: header, two names with their lengths, no traceparent, no extensions.
        let room = 65_507 - 48 - 10 - 5 - 2;
        for (length, fits) in [(room - 1, true), (room, true), (room + 1, false)] {
            let outcome = client.call("test.echo", "echo", vec![0; length]);
            match outcome {
                // The answer says who gives it, which takes a few bytes more.
                Ok(reply) => assert!(fits && reply.payload.len() == length),
                Err(error) => assert_eq!(error.code, ErrorCode::PayloadTooLarge, "{length}"),
            }
        }
        assert!(client.call("test.echo", "echo", "still here").is_ok());
    }
}

#[test]
fn a_deadline_is_kept_by_the_daemon_and_a_dropped_call_is_cancelled() {
    let daemon = daemon();
    let mut service = RawService::register(&daemon, "test.count", "never");
    for address in &addresses(&daemon) {
        let mut client = connect(address);
        let options = CallOptions::new().deadline(SHORT);
        let call = client.start_call("test.count", "never", "", options).unwrap();
        client.flush().unwrap();
        let taken = service.call();
        assert!(taken.deadline_us > 0 && taken.deadline_us <= 200_000);
        assert_eq!(client.wait(call).unwrap_err().code, ErrorCode::DeadlineExceeded);
        service.cancelled(&taken);
        let call = client.start_call("test.count", "never", "", CallOptions::default()).unwrap();
        client.flush().unwrap();
        let taken = service.call();
        client.cancel(call).unwrap();
        service.cancelled(&taken);
    }
}

#[test]
fn the_async_client_does_it_too() {
    let daemon = daemon();
    serve_echo(&daemon);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for address in &addresses(&daemon) {
            let client = AsyncClient::connect(options(address)).await.unwrap();
            let reply = client.call("test.echo", "echo", "alone").await.unwrap();
            assert_eq!(reply.payload.as_text().unwrap(), "alone");
            let tasks: Vec<_> = (0..64)
                .map(|number: u32| {
                    let client = client.clone();
                    tokio::spawn(async move { client.call("test.echo", "echo", number.to_string()).await })
                })
                .collect();
            for (number, task) in tasks.into_iter().enumerate() {
                let reply = task.await.unwrap().unwrap();
                assert_eq!(reply.payload.as_text().unwrap(), number.to_string());
            }
            assert_eq!(client.publish("test.a", "x").await.unwrap().subscribers, 0);
            client.publish_oneway("test.a", "x").await.unwrap();
            let error = client.subscribe("test.>", Default::default()).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::Unsupported);
            assert!(client.ping().await.is_ok());
            client.close().await;
        }
    });
}

#[test]
fn nobody_there_is_unreachable() {
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = Daemon::start();
    let path = gone.datagram_socket();
    gone.kill();
    for address in [format!("udp:127.0.0.1:{port}"), format!("dgram:{}", path.display())] {
        let address = ipc_core::Address::parse(&address).unwrap();
        let error = ipc_core::blocking::Client::connect(options(&address)).unwrap_err();
        assert_eq!(error.code, ErrorCode::Unreachable, "{error}");
    }
}
