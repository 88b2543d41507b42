//! Calls: one at a time, many at once, and those that fail.

use std::time::Duration;

use ipc_core::blocking::{CallOptions, Service};
use ipc_core::{ErrorCode, Identity, PayloadKind, ServiceError};
use ipc_tests::daemon::{Daemon, PATIENCE};

use super::{client, echo, serve};

#[test]
fn a_call_and_its_answer() {
    let daemon = Daemon::start();
    let server = serve(&daemon, echo("test.echo"));
    let mut client = client(&daemon);
    assert!(client.ping().unwrap() < PATIENCE);
    for payload in ["", "hello", &"long ".repeat(400_000)] {
        let reply = client.call("test.echo", "echo", payload).unwrap();
        assert_eq!(reply.payload.kind, PayloadKind::Text);
        assert!(reply.payload.as_text().unwrap() == payload);
        let Identity::Local { pid, .. } = reply.responder.identity else { panic!("{}", reply.responder) };
        assert_eq!(pid, std::process::id());
    }
    client.call("test.echo", "stop", "").unwrap();
    server.join().unwrap().unwrap();
    client.close().unwrap();
}

#[test]
fn many_calls_at_once() {
    const CALLS: u32 = 3000;
    const DEPTH: usize = 64;
    let daemon = Daemon::start();
    let server = serve(&daemon, echo("test.echo"));
    let mut client = client(&daemon);
    let method = client.method("test.echo", "echo").unwrap();
    let (mut sent, mut seen) = (0, vec![false; CALLS as usize]);
    let mut asked = std::collections::HashMap::new();
    loop {
        while sent < CALLS && client.started_calls() < DEPTH {
            let payload = sent.to_le_bytes().to_vec();
            asked.insert(method.start_call(&mut client, payload, CallOptions::new()).unwrap(), sent);
            sent += 1;
        }
        let Some((call, reply)) = client.wait_any() else { break };
        let reply = reply.unwrap().payload.body;
        let number = u32::from_le_bytes(reply[..].try_into().unwrap());
        assert_eq!(asked.remove(&call), Some(number));
        assert!(!std::mem::replace(&mut seen[number as usize], true), "one outcome for each call");
    }
    assert!(asked.is_empty() && seen.iter().all(|seen| *seen));
    client.call_oneway("test.echo", "stop", "").unwrap();
    server.join().unwrap().unwrap();
}

#[test]
fn each_failure_has_its_code() {
    let daemon = Daemon::start();
    let service = echo("test.echo")
        .method("fail", |_| Err::<&str, _>(ServiceError::new("teapot", "short and stout")))
        .method("sleep", |request| {
            // As a handler that hangs: longer than any caller here waits, and no longer than it is waited for.
            std::thread::park_timeout(request.remaining().unwrap_or_default());
            Ok("too late")
        });
    let server = serve(&daemon, service);
    let mut client = client(&daemon);
    let error = client.call("test.nobody", "echo", "").unwrap_err();
    assert_eq!(error.code, ErrorCode::NoSuchService, "{error}");
    let error = client.call("test.echo", "nothing", "").unwrap_err();
    assert_eq!(error.code, ErrorCode::NoSuchMethod, "{error}");
    let error = client.call("test.echo", "fail", "").unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::Application, "short and stout"));
    assert_eq!(error.detail.unwrap().application_code.as_deref(), Some("teapot"));
    let options = CallOptions::new().deadline(Duration::from_millis(50));
    let error = client.call_with("test.echo", "sleep", "", options).unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{error}");
    let payload_max = client.daemon().unwrap().payload_max_bytes as usize;
    let error = client.call("test.echo", "echo", vec![0; payload_max + 1]).unwrap_err();
    assert_eq!(error.code, ErrorCode::PayloadTooLarge, "{error}");
    let error = client.call("no name", "echo", "").unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArgument, "{error}");
    client.call("test.echo", "stop", "").unwrap();
    server.join().unwrap().unwrap();
}

#[test]
fn services_that_call_one_another_in_a_circle_end_with_the_deadline() {
    let daemon = Daemon::start();
    let to = |own: &str, other: &'static str| {
        Service::new(own)
            .unwrap()
            .method_with_client("go", move |_, client| Ok(client.call(other, "go", "")?.payload))
    };
    let servers = [serve(&daemon, to("test.a", "test.b")), serve(&daemon, to("test.b", "test.a"))];
    let mut client = client(&daemon);
    let options = CallOptions::new().deadline(Duration::from_millis(100));
    let error = client.call_with("test.a", "go", "", options).unwrap_err();
    assert!(
        matches!(error.code, ErrorCode::DeadlineExceeded | ErrorCode::Application),
        "either hears of it first: {error}"
    );
    // Both serve on: a chain that ends is answered.
    let last = serve(&daemon, echo("test.echo"));
    let middle = Service::new("test.middle").unwrap().method_with_client("go", |request, client| {
        let left = request.remaining().unwrap();
        let reply = client.call("test.echo", "echo", format!("{}", left <= PATIENCE))?;
        Ok(reply.payload)
    });
    let middle = serve(&daemon, middle);
    assert_eq!(client.call("test.middle", "go", "").unwrap().payload.as_text(), Ok("true"));
    assert!(daemon.stop().status.success());
    for server in servers.into_iter().chain([last, middle]) {
        let error = server.join().unwrap().unwrap_err();
        assert!(matches!(error.code, ErrorCode::ShuttingDown | ErrorCode::Unreachable), "{error}");
    }
}

#[test]
fn a_service_that_leaves_in_the_middle_ends_its_calls() {
    let daemon = Daemon::start();
    let mut server = client(&daemon);
    let _serving = server.serve(echo("test.echo")).unwrap();
    let mut client = client(&daemon);
    let call = client.start_call("test.echo", "echo", "", CallOptions::new()).unwrap();
    client.ping().unwrap();
    drop(server);
    let error = client.wait(call).unwrap_err();
    assert_eq!(error.code, ErrorCode::ServiceGone, "{error}");
}
