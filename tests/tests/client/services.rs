//! Serving: cancellation, deadlines that are inherited, concurrency, panics, names.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ipc_core::client::CallOptions;
use ipc_core::service::{Request, Service};
use ipc_core::{ErrorCode, Payload, ServiceError};
use tokio::sync::{Semaphore, mpsc};

use crate::{echo, echo_service, on_each_runtime};

#[test]
fn a_dropped_call_drops_its_handler() {
    on_each_runtime(async |bus| {
        struct Tells(mpsc::UnboundedSender<&'static str>);
        impl Drop for Tells {
            fn drop(&mut self) {
                // The test may be over.
                let _ = self.0.send("dropped");
            }
        }
        let (tell, mut told) = mpsc::unbounded_channel();
        let server = bus.client().await;
        let service = Service::new("test.waits").unwrap().method("wait", move |request: Request| {
            let tell = tell.clone();
            async move {
                let _tells = Tells(tell.clone());
                let cancellation = request.cancellation();
                let also = tell.clone();
                tokio::spawn(async move {
                    cancellation.cancelled().await;
                    assert!(cancellation.is_cancelled());
                    also.send("cancelled").unwrap();
                });
                tell.send("began").unwrap();
                std::future::pending::<Result<Payload, ServiceError>>().await
            }
        });
        let _serving = server.serve(service).await.unwrap();
        let client = bus.client().await;
        let call = tokio::spawn(async move { client.call("test.waits", "wait", "").await });
        assert_eq!(told.recv().await, Some("began"));
        call.abort();
        let mut ends = [told.recv().await.unwrap(), told.recv().await.unwrap()];
        ends.sort_unstable();
        assert_eq!(ends, ["cancelled", "dropped"]);
    });
}

#[test]
fn calls_made_while_serving_inherit_the_deadline() {
    on_each_runtime(async |bus| {
        let server = bus.client().await;
        let never = Service::new("test.never").unwrap().method("wait", async |request: Request| {
            let left = request.remaining().unwrap();
            assert!(left <= Duration::from_millis(300), "{left:?}");
            std::future::pending::<Result<Payload, ServiceError>>().await
        });
        let _never = server.serve(never).await.unwrap();
        let inner = server.clone();
        let relay = Service::new("test.relay").unwrap().method("relay", move |_request: Request| {
            let inner = inner.clone();
            async move {
                let error = inner.call("test.never", "wait", "").await.unwrap_err();
                assert_eq!(error.code, ErrorCode::DeadlineExceeded);
                Err::<Payload, ServiceError>(error.into())
            }
        });
        let _relay = server.serve(relay).await.unwrap();
        let client = bus.client().await;
        let options = CallOptions::new().deadline(Duration::from_millis(300));
        let error = client.call_with("test.relay", "relay", "", options).await.unwrap_err();
        assert!([ErrorCode::DeadlineExceeded, ErrorCode::Application].contains(&error.code), "{error}");
    });
}

#[test]
fn no_more_handlers_run_than_allowed() {
    on_each_runtime(async |bus| {
        let running = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let (began, mut begins) = mpsc::unbounded_channel();
        let server = bus.client().await;
        let service = {
            let (running, gate) = (Arc::clone(&running), Arc::clone(&gate));
            Service::new("test.few").unwrap().concurrency(2).method("work", move |_request: Request| {
                let (running, gate, began) = (Arc::clone(&running), Arc::clone(&gate), began.clone());
                async move {
                    let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                    began.send(now).unwrap();
                    gate.acquire().await?.forget();
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok("done")
                }
            })
        };
        let _serving = server.serve(service).await.unwrap();
        let client = bus.client().await;
        let calls: Vec<_> = (0..10)
            .map(|_| {
                let method = client.method("test.few", "work");
                tokio::spawn(async move { method.call("").await.unwrap() })
            })
            .collect();
        for _ in 0..10 {
            assert!(begins.recv().await.unwrap() <= 2);
            gate.add_permits(1);
        }
        for call in calls {
            call.await.unwrap();
        }
    });
}

#[test]
fn a_panic_is_an_answer() {
    on_each_runtime(async |bus| {
        let server = bus.client().await;
        let service = Service::new("test.panics")
            .unwrap()
            .method("at-once", |_request: Request| -> std::future::Ready<Result<Payload, ServiceError>> {
                panic!("as tested")
            })
            .method("inside", async |_request: Request| -> Result<Payload, ServiceError> {
                panic!("as tested")
            })
            .method("later", async |_request: Request| -> Result<Payload, ServiceError> {
                tokio::task::yield_now().await;
                panic!("as tested")
            })
            .method("fine", echo);
        let _serving = server.serve(service).await.unwrap();
        let client = bus.client().await;
        for method in ["at-once", "inside", "later"] {
            let error = client.call("test.panics", method, "").await.unwrap_err();
            let code = error.detail.as_ref().and_then(|detail| detail.application_code.as_deref());
            assert_eq!((error.code, code), (ErrorCode::Application, Some("panic")), "{method}");
        }
        assert!(client.call("test.panics", "fine", "").await.is_ok());
    });
}

#[test]
fn a_taken_name_is_refused_or_waited_for() {
    on_each_runtime(async |bus| {
        let (first, second) = (bus.client().await, bus.client().await);
        let owner = first.serve(echo_service()).await.unwrap();
        let error = second.serve(echo_service()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::NameTaken);
        let waiting = second.serve(echo_service().queue()).await.unwrap();
        assert!(waiting.is_queued() && !owner.is_queued());
        drop(owner);
        waiting.acquired().await.unwrap();
        assert!(!waiting.is_queued());
        let reply = first.call("test.echo", "echo", "").await.unwrap();
        assert_eq!(reply.responder.id, second.daemon().peer);
    });
}

#[test]
fn instances_of_a_group_share_the_calls() {
    on_each_runtime(async |bus| {
        let clients = [bus.client().await, bus.client().await];
        // Each call waits for the other, so one instance alone would never answer.
        let meeting = Arc::new(tokio::sync::Barrier::new(2));
        let mut servings = Vec::new();
        for client in &clients {
            let meeting = Arc::clone(&meeting);
            let meet = move |_request: Request| {
                let meeting = Arc::clone(&meeting);
                async move {
                    meeting.wait().await;
                    Ok::<_, ServiceError>("met")
                }
            };
            let service = Service::new("test.meets").unwrap().group().concurrency(1).method("meet", meet);
            servings.push(client.serve(service).await.unwrap());
        }
        let caller = bus.client().await;
        for _ in 0..20 {
            let call = || caller.call("test.meets", "meet", "");
            let (one, two) = tokio::join!(call(), call());
            assert_ne!(one.unwrap().responder, two.unwrap().responder);
        }
    });
}

#[test]
fn a_service_calls_itself() {
    on_each_runtime(async |bus| {
        let client = bus.client().await;
        let own = client.clone();
        let service = Service::new("test.self").unwrap().method("echo", echo).method(
            "twice",
            move |request: Request| {
                let own = own.clone();
                async move {
                    let reply = own.call("test.self", "echo", request.payload).await?;
                    Ok::<_, ServiceError>(reply.payload)
                }
            },
        );
        let _serving = client.serve(service).await.unwrap();
        let reply = client.call("test.self", "twice", "hello").await.unwrap();
        assert_eq!(reply.payload.as_text().unwrap(), "hello");
    });
}

#[test]
fn a_service_that_leaves_in_the_middle_is_gone_at_once() {
    on_each_runtime(async |bus| {
        let (began, mut begins) = mpsc::unbounded_channel();
        let server = bus.client().await;
        let service = Service::new("test.waits").unwrap().method("wait", move |_request: Request| {
            began.send(()).unwrap();
            std::future::pending::<Result<Payload, ServiceError>>()
        });
        let serving = server.serve(service).await.unwrap();
        let client = bus.client().await;
        let call = tokio::spawn(async move { client.call("test.waits", "wait", "").await });
        begins.recv().await.unwrap();
        server.close().await;
        assert_eq!(call.await.unwrap().unwrap_err().code, ErrorCode::ServiceGone);
        assert_eq!(serving.closed().await.code, ErrorCode::Cancelled);
    });
}

#[test]
fn wrong_methods_are_reported_when_offered() {
    on_each_runtime(async |bus| {
        let client = bus.client().await;
        for name in ["no.such", "echo"] {
            let service = echo_service().method(name, echo);
            assert_eq!(client.serve(service).await.unwrap_err().code, ErrorCode::InvalidArgument, "{name}");
        }
        assert!(Service::new("no such name").is_err());
    });
}
