//! `call SERVICE METHOD [PAYLOAD]`: one call, the reply to standard output byte for byte.

use std::time::Instant;

use ipc_core::client::{CallOptions, Client};
use ipc_core::{Error, ErrorCode, Payload};
use serde::Serialize;

use super::rows;
use crate::args::{CallArgs, Globals, PayloadArgument};
use crate::bus;
use crate::error::Failure;
use crate::output::Output;
use crate::render::{PayloadJson, PeerJson};

#[derive(Serialize)]
struct Answered<'a> {
    service: &'a str,
    method: &'a str,
    duration_us: f64,
    responder: PeerJson,
    #[serde(flatten)]
    payload: PayloadJson,
}

#[derive(Serialize)]
struct Sent<'a> {
    service: &'a str,
    method: &'a str,
    oneway: bool,
}

/// Makes the call.
pub(crate) async fn run(args: CallArgs, globals: &Globals, output: &Output) -> Result<(), Failure> {
    bus::check_method(&args.service, &args.method)?;
    let fence = args.fence.as_deref().map(bus::parse_fence).transpose()?;
    let payload = bus::read_payload(PayloadArgument::new(args.payload, args.kind)).await?;
    let client = bus::connect(globals).await?;
    let deadline = Some(args.deadline.unwrap_or(globals.timeout));
    let options = CallOptions { deadline, fence, ..CallOptions::default() };
    if args.oneway {
        check_there(&client, &args.service, &args.method).await?;
        client.call_oneway_with(&args.service, &args.method, payload, options).await?;
        client.close().await;
        if output.is_json() {
            output.object(&Sent { service: &args.service, method: &args.method, oneway: true })?;
        }
        return Ok(());
    }
    let begin = Instant::now();
    let reply = client.call_with(&args.service, &args.method, payload, options).await?;
    let duration_us = begin.elapsed().as_nanos() as f64 / 1e3;
    if output.is_json() {
        output.object(&Answered {
            service: &args.service,
            method: &args.method,
            duration_us,
            responder: PeerJson::from(&reply.responder),
            payload: PayloadJson::from(&reply.payload),
        })?;
    } else {
        print(&reply.payload, output)?;
    }
    client.close().await;
    Ok(())
}

/// A one-way call has no outcome, so what can be known is asked before: whether there is such a method.
///
/// Whoever may not ask about services may still call them.
async fn check_there(client: &Client, service: &str, method: &str) -> Result<(), Failure> {
    let described = match bus::ask(client, "describe", service).await {
        Ok(described) => described,
        Err(error) if error.code == ErrorCode::PermissionDenied => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if rows::items(&described, "methods").iter().any(|known| rows::text(known, "name") == method) {
        return Ok(());
    }
    Err(Error::new(ErrorCode::NoSuchMethod, format!("{service} has no method {method}")).into())
}

/// The bytes as they are. On a terminal the prompt still belongs on a line of its own, which is talk and not data.
fn print(payload: &Payload, output: &Output) -> Result<(), Failure> {
    output.bytes(&payload.body)?;
    if output.is_terminal() && payload.body.last().is_some_and(|last| *last != b'\n') {
        output.say("");
    }
    Ok(())
}
