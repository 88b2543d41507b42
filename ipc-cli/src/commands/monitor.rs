//! `monitor [--match FILTER]`: what crosses the bus, as it does.

use std::collections::BTreeMap;

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

/// Most requests without an outcome of which it is remembered what they are about.
const REQUESTS_MAX: usize = 4096;
/// The topic on which the daemon tells it.
const TOPIC: &str = "ipc.monitor";

/// What the daemon says of one frame.
#[derive(Debug, Deserialize, Serialize)]
struct Seen {
    /// `call`, `reply`, `event`, `request`, `outcome`, `refusal` or `notice`.
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<String>,
    /// Of what a request is about; of an outcome it is known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The number of a request, of all of its sender's.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// Of a refused subscription or watch.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
    /// What a peer is told by the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<String>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// Bytes of its payload.
    bytes: u64,
}

impl Seen {
    /// What it is about.
    fn subject(&self) -> &str {
        [&self.service, &self.topic, &self.name, &self.filter]
            .into_iter()
            .flatten()
            .next()
            .map_or("", String::as_str)
    }

    /// Whether the filter lets it through: names of locks, keys and queues by their parts too.
    fn passes(&self, filter: &Filter) -> bool {
        let subject = self.subject();
        if subject.is_empty() { filter.as_str() == ">" } else { filter.matches(&subject.replace('/', ".")) }
    }
}

/// What the requests were about that have no outcome yet.
#[derive(Default)]
struct Requests(BTreeMap<(u64, u64), String>);

impl Requests {
    /// Remembers a request, and tells an outcome what it is about.
    fn note(&mut self, sender: u64, seen: &mut Seen) {
        let Some(request) = seen.request else { return };
        match (seen.kind.as_str(), &seen.name) {
            ("request", Some(name)) => {
                if self.0.len() >= REQUESTS_MAX {
                    self.0.pop_first();
                }
                self.0.insert((sender, request), name.clone());
            }
            ("outcome", None) => seen.name = self.0.remove(&(sender, request)),
            _ => {}
        }
    }
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
    let mut requests = Requests::default();
    let mut remaining = args.count.map(u64::from);
    while remaining != Some(0) {
        let ended = || Error::new(ErrorCode::Unreachable, "the subscription has ended");
        match subscription.next().await.ok_or_else(ended)?? {
            Delivery::Event(event) => {
                let mut seen = read(&event.payload.body)?;
                requests.note(event.sender.id.0, &mut seen);
                if seen.passes(&filter) {
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
    let subject = seen.subject();
    let act = seen
        .operation
        .as_ref()
        .filter(|act| act.as_str() != "call" || subject.is_empty())
        .or(seen.notice.as_ref());
    let name = match (&seen.method, act) {
        (Some(method), _) => format!("{subject}/{method}"),
        (None, Some(act)) => format!("{act} {subject}").trim_end().to_owned(),
        (None, None) => subject.to_owned(),
    };
    let from = if seen.kind == "notice" { "for" } else { "from" };
    let to = match (seen.to, seen.subscribers) {
        (Some(peer), _) => format!("to peer {peer}"),
        (None, Some(count)) => format!("for {}", plural(count, "subscription")),
        (None, None) => String::new(),
    };
    let more = match (seen.oneway, seen.error, seen.sequence) {
        _ if seen.code.is_some() => format!(", {}", seen.code.as_deref().unwrap_or_default()),
        (Some(true), ..) => ", no answer wanted".to_owned(),
        (_, Some(true), _) => ", an error".to_owned(),
        (.., Some(sequence)) => format!(", #{sequence}"),
        _ => String::new(),
    };
    output.line(&format!(
        "{:<7} {} {}",
        seen.kind,
        palette.strong(&name),
        palette.quiet(&format!(
            "{from} {} {to}: {}{more}",
            peer_for_people(sender),
            plural(seen.bytes, "byte")
        ))
    ))
}
