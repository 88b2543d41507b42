//! `monitor [--match FILTER]`: what crosses the bus, as it does.

use ipc_core::client::{Delivery, SubscribeOptions};
use ipc_core::name::Filter;
use ipc_core::{Error, ErrorCode, Peer};
use serde::{Deserialize, Serialize};

use super::subscribe;
use crate::args::{Globals, MonitorArgs};
use crate::bus;
use crate::error::Failure;
use crate::output::Output;
use crate::render::{PeerJson, peer_for_people, plural};

/// The topic on which the daemon tells it.
const TOPIC: &str = "ipc.monitor";

/// What the daemon says of one frame.
#[derive(Debug, Deserialize, Serialize)]
struct Seen {
    /// `call`, `reply` or `event`.
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// The peer that gets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribers: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oneway: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<bool>,
    /// Bytes of its payload.
    bytes: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    sender: PeerJson,
    #[serde(flatten)]
    seen: &'a Seen,
}

/// Shows what is seen until it was enough, or for ever.
pub(crate) async fn run(args: MonitorArgs, globals: &Globals, output: &Output) -> Result<(), Failure> {
    let filter = Filter::parse(&args.matching)?;
    let client = bus::connect_and_stay(globals).await?;
    let mut subscription = client.subscribe(TOPIC, SubscribeOptions::default()).await?;
    output.announce(&format!("watching {filter}"));
    let mut remaining = args.count.map(u64::from);
    while remaining != Some(0) {
        let ended = || Error::new(ErrorCode::Unreachable, "the subscription has ended");
        match subscription.next().await.ok_or_else(ended)?? {
            Delivery::Event(event) => {
                let seen = read(&event.payload.body)?;
                let name = seen.service.as_ref().or(seen.topic.as_ref());
                if name.is_some_and(|name| filter.matches(name)) {
                    remaining = remaining.map(|remaining| remaining - 1);
                    show(&event.sender, &seen, output)?;
                }
            }
            missing => subscribe::show(&missing, false, output)?,
        }
    }
    client.close().await;
    Ok(())
}

fn read(payload: &[u8]) -> Result<Seen, Error> {
    serde_json::from_slice(payload).map_err(|error| {
        Error::new(ErrorCode::ProtocolViolation, format!("the daemon says what is not understood: {error}"))
    })
}

fn show(sender: &Peer, seen: &Seen, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.object(&Line { sender: PeerJson::from(sender), seen });
    }
    let palette = output.palette();
    let name = seen.service.as_deref().or(seen.topic.as_deref()).unwrap_or_default();
    let name = match &seen.method {
        Some(method) => format!("{name}/{method}"),
        None => name.to_owned(),
    };
    let to = match (seen.to, seen.subscribers) {
        (Some(peer), _) => format!("to peer {peer}"),
        (None, Some(count)) => format!("for {}", plural(count, "subscription")),
        (None, None) => String::new(),
    };
    let more = match (seen.oneway, seen.error, seen.sequence) {
        (Some(true), ..) => ", no answer wanted".to_owned(),
        (_, Some(true), _) => ", an error".to_owned(),
        (.., Some(sequence)) => format!(", #{sequence}"),
        _ => String::new(),
    };
    output.line(&format!(
        "{:<5} {} {}",
        seen.kind,
        palette.strong(&name),
        palette.quiet(&format!(
            "from {} {to}: {}{more}",
            peer_for_people(sender),
            plural(seen.bytes, "byte")
        ))
    ))
}
