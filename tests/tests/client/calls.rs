//! Calls, alone and in company.

use std::future::Future;
use std::task::Poll;
use std::time::Duration;

use ipc_core::client::CallOptions;
use ipc_core::identity::Identity;
use ipc_core::service::{Request, Service};
use ipc_core::{ErrorCode, Payload, PayloadKind, ServiceError};

use crate::{echo_service, on_each_runtime};

#[test]
fn a_lone_caller_is_answered() {
    on_each_runtime(async |bus| {
        let server = bus.client().await;
        let _serving = server.serve(echo_service()).await.unwrap();
        let client = bus.client().await;
        for round in 0..500 {
            let question = format!("question {round}");
            let reply = client.call("test.echo", "echo", question.as_str()).await.unwrap();
            assert_eq!(reply.payload.as_text().unwrap(), question);
            assert_eq!(reply.payload.kind, PayloadKind::Text);
            assert_eq!(reply.responder.id, server.daemon().peer);
            let Identity::Local { pid, .. } = reply.responder.identity else { panic!() };
            assert_eq!(pid, std::process::id());
        }
        assert!(client.ping().await.unwrap() > Duration::ZERO);
    });
}

#[test]
fn callers_in_company_each_get_their_own_answer() {
    on_each_runtime(async |bus| {
        let server = bus.client().await;
        let _serving = server.serve(echo_service()).await.unwrap();
        let client = bus.client().await;
        let tasks: Vec<_> = (0..64)
            .map(|caller| {
                let method = client.method("test.echo", "echo");
                tokio::spawn(async move {
                    for round in 0..50 {
                        let question = format!("{caller} {round}");
                        let reply = method.call(question.as_str()).await.unwrap();
                        assert_eq!(reply.payload.as_text().unwrap(), question);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// Company comes and goes: the socket changes hands in the middle of waits.
#[test]
fn the_socket_changes_hands_without_losing_an_answer() {
    on_each_runtime(async |bus| {
        let server = bus.client().await;
        let _serving = server.serve(echo_service()).await.unwrap();
        let client = bus.client().await;
        for round in 0..300_u32 {
            let alone = client.call("test.echo", "echo", "alone").await.unwrap();
            assert_eq!(alone.payload.as_text().unwrap(), "alone");
            let other = client.clone();
            let task = tokio::spawn(async move {
                for _ in 0..round % 4 {
                    other.call("test.echo", "echo", "other").await.unwrap();
                }
            });
            client.call("test.echo", "echo", "with company").await.unwrap();
            if round % 3 == 0 {
                let (one, two) = tokio::join!(client.ping(), client.call("test.echo", "echo", "x"));
                one.unwrap();
                two.unwrap();
            }
            task.await.unwrap();
        }
    });
}

#[test]
fn payloads_of_any_size_go_through() {
    on_each_runtime(async |bus| {
        let server = bus.client().await;
        let _serving = server.serve(echo_service()).await.unwrap();
        let client = bus.client().await;
        for bytes in [0, 1, 8191, 8192, 65_536, 1 << 20, 5 << 20] {
            let body: Vec<u8> = (0..bytes).map(|at: u32| (at % 251) as u8).collect();
            let reply = client.call("test.echo", "echo", body.clone()).await.unwrap();
            assert!(reply.payload.body == body, "{bytes}");
        }
        let too_large = vec![0; client.daemon().payload_max_bytes as usize + 1];
        let error = client.call("test.echo", "echo", too_large).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::PayloadTooLarge);
    });
}

#[test]
fn refusals_are_told_apart() {
    on_each_runtime(async |bus| {
        let server = bus.client().await;
        let service = Service::new("test.fails").unwrap().method("fail", async |_request: Request| {
            Err::<Payload, _>(ServiceError::new("out-of-tea", "no tea today"))
        });
        let _serving = server.serve(service).await.unwrap();
        let client = bus.client().await;
        let code =
            async |service: &str, method: &str| client.call(service, method, "").await.unwrap_err().code;
        assert_eq!(code("test.nobody", "m").await, ErrorCode::NoSuchService);
        assert_eq!(code("test.fails", "nothing").await, ErrorCode::NoSuchMethod);
        assert_eq!(code("not a name", "m").await, ErrorCode::InvalidArgument);
        let error = client.call("test.fails", "fail", "").await.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Application, "no tea today"));
        let own_code = error.detail.as_ref().and_then(|detail| detail.application_code.as_deref());
        assert_eq!(own_code, Some("out-of-tea"));
    });
}

#[test]
fn a_missed_deadline_ends_the_call() {
    on_each_runtime(async |bus| {
        let server = bus.client().await;
        let service = Service::new("test.never").unwrap().method("wait", async |_request: Request| {
            std::future::pending::<Result<Payload, ServiceError>>().await
        });
        let _serving = server.serve(service).await.unwrap();
        let client = bus.client().await;
        let options = CallOptions::new().deadline(Duration::from_millis(30));
        let error = client.call_with("test.never", "wait", "", options).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded);
        let options = CallOptions::new().deadline(Duration::ZERO);
        let error = client.call_with("test.never", "wait", "", options).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    });
}

#[test]
fn a_service_that_was_replaced_is_found_anew() {
    on_each_runtime(async |bus| {
        let client = bus.client().await;
        let method = client.method("test.echo", "echo");
        for _ in 0..3 {
            let server = bus.client().await;
            let serving = server.serve(echo_service()).await.unwrap();
            assert!(method.call("here").await.is_ok());
            assert!(method.call("here").await.is_ok());
            serving.close().await.unwrap();
            assert_eq!(method.call("gone").await.unwrap_err().code, ErrorCode::NoSuchService);
        }
    });
}

#[test]
fn oneway_calls_arrive() {
    on_each_runtime(async |bus| {
        let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
        let server = bus.client().await;
        let service = Service::new("test.listens").unwrap().method("hear", move |request: Request| {
            assert!(request.oneway);
            heard.send(request.payload).unwrap();
            async { Ok::<_, ServiceError>("unheard") }
        });
        let _serving = server.serve(service).await.unwrap();
        let client = bus.client().await;
        for round in 0..1000 {
            client.call_oneway("test.listens", "hear", round.to_string()).await.unwrap();
        }
        for round in 0..1000 {
            assert_eq!(hears.recv().await.unwrap().as_text().unwrap(), round.to_string());
        }
    });
}

/// Futures are dropped at every point of their wait, and whoever comes next finds the client in order.
#[test]
fn dropped_calls_leave_nothing_behind() {
    on_each_runtime(async |bus| {
        let server = bus.client().await;
        let _serving = server.serve(echo_service()).await.unwrap();
        let client = bus.client().await;
        let pending_before = client.daemon().pending_calls_max;
        for round in 0..3 * pending_before {
            let mut polls_left = round % 5;
            let mut call = std::pin::pin!(client.call("test.echo", "echo", "dropped"));
            std::future::poll_fn(|cx| {
                if polls_left == 0 || call.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                polls_left -= 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
        let reply = client.call("test.echo", "echo", "kept").await.unwrap();
        assert_eq!(reply.payload.as_text().unwrap(), "kept");
    });
}

#[test]
fn too_many_open_calls_are_refused_by_name() {
    on_each_runtime(async |bus| {
        let server = bus.client().await;
        let service = Service::new("test.never").unwrap().method("wait", async |_request: Request| {
            std::future::pending::<Result<Payload, ServiceError>>().await
        });
        let _serving = server.serve(service).await.unwrap();
        let client = bus.client().await;
        let max = client.daemon().pending_calls_max as usize;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..=max {
            let method = client.method("test.never", "wait");
            calls.spawn(async move { method.call("").await });
        }
        let error = calls.join_next().await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.code, ErrorCode::QuotaExceeded);
        let detail = error.detail.unwrap();
        assert_eq!(detail.resource.as_deref(), Some("pending_calls_per_connection_max"));
        assert_eq!(detail.limit, Some(max as u64));
        calls.shutdown().await;
        assert!(client.ping().await.is_ok());
    });
}
