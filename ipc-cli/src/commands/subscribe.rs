//! `subscribe FILTER...`: events as they come, and what was missed.

use ipc_core::client::{Delivery, SubscribeOptions, Subscription};
use ipc_core::{Error, ErrorCode, Payload, PayloadKind};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::args::{Globals, OnSlowArg, SubscribeArgs};
use crate::bus;
use crate::error::Failure;
use crate::output::Output;
use crate::render::{PayloadJson, PeerJson, payload_for_people, peer_for_people, plural};

/// Events between a subscription and the output; what does not fit waits in the subscription's own queue.
const HANDOVER_EVENTS: usize = 64;

#[derive(Serialize)]
struct EventLine<'a> {
    topic: &'a str,
    seq: u64,
    sender: PeerJson,
    #[serde(flatten)]
    payload: PayloadJson,
}

#[derive(Serialize)]
struct GapLine<'a> {
    gap: Gap<'a>,
}

#[derive(Serialize)]
struct Gap<'a> {
    topic: Option<&'a str>,
    from: u64,
    to: u64,
    count: u64,
}

#[derive(Serialize)]
struct LostLine {
    lost: LostFields,
}

#[derive(Serialize)]
struct LostFields {
    epoch_changed: bool,
    seq_before: Option<u64>,
    seq_after: u64,
}

/// Receives until there were enough, or for ever.
pub(crate) async fn run(args: SubscribeArgs, globals: &Globals, output: &Output) -> Result<(), Failure> {
    for filter in &args.filters {
        bus::check_filter(filter)?;
    }
    let OnSlowArg::DropOldest = args.on_slow;
    let client = bus::connect_and_stay(globals).await?;
    let (sender, mut deliveries) = mpsc::channel(HANDOVER_EVENTS);
    // Dropped at the end, it ends them all.
    let mut pumps = JoinSet::new();
    for filter in &args.filters {
        let subscription = client.subscribe(filter, SubscribeOptions::default()).await?;
        pumps.spawn(pump(subscription, sender.clone()));
    }
    drop(sender);
    output.announce(&format!("subscribed to {}", args.filters.join(", ")));
    let mut remaining = args.count.map(u64::from);
    while remaining != Some(0) {
        let Some(delivery) = deliveries.recv().await else {
            return Err(Error::new(ErrorCode::Unreachable, "the subscription has ended").into());
        };
        let delivery = delivery?;
        if matches!(delivery, Delivery::Event(_)) {
            remaining = remaining.map(|remaining| remaining - 1);
        }
        show(&delivery, args.raw, output)?;
    }
    client.close().await;
    Ok(())
}

async fn pump(mut subscription: Subscription, sender: mpsc::Sender<Result<Delivery, Error>>) {
    while let Some(delivery) = subscription.next().await {
        if sender.send(delivery).await.is_err() {
            return;
        }
    }
}

/// Shows what came, or what is missing.
pub(super) fn show(delivery: &Delivery, raw: bool, output: &Output) -> Result<(), Failure> {
    match delivery {
        Delivery::Event(event) if raw => show_raw(&event.payload, output),
        Delivery::Event(event) if output.is_json() => output.object(&EventLine {
            topic: event.topic.as_str(),
            seq: event.sequence,
            sender: PeerJson::from(&event.sender),
            payload: PayloadJson::from(&event.payload),
        }),
        Delivery::Event(event) => {
            let palette = output.palette();
            let topic = palette.strong(event.topic.as_str());
            let origin =
                palette.quiet(&format!("#{} from {}", event.sequence, peer_for_people(&event.sender)));
            output.line(&format!("{topic} {origin}: {}", payload_for_people(&event.payload)))
        }
        Delivery::Gap(missed) => {
            let topic = missed.topic.as_ref().map(|topic| topic.as_str());
            if output.is_json() {
                let (from, to, count) = (missed.from, missed.to, missed.count);
                return output.object(&GapLine { gap: Gap { topic, from, to, count } });
            }
            let missing = plural(missed.count, "event");
            let what = match topic {
                Some(topic) => {
                    format!("gap: {missing} of {topic} missed, #{} to #{}", missed.from, missed.to)
                }
                None => format!("gap: {missing} of several topics missed"),
            };
            interjection(&what, raw, output)
        }
        Delivery::Lost(lost) if output.is_json() => output.object(&LostLine {
            lost: LostFields {
                epoch_changed: lost.epoch_changed,
                seq_before: lost.sequence_before,
                seq_after: lost.sequence_after,
            },
        }),
        Delivery::Lost(lost) => {
            let daemon = if lost.epoch_changed { "; the daemon was restarted" } else { "" };
            interjection(&format!("reconnected: events in between are missing{daemon}"), raw, output)
        }
    }
}

/// A remark between the events: with them, unless the output is payloads alone.
fn interjection(text: &str, raw: bool, output: &Output) -> Result<(), Failure> {
    if raw {
        output.say(&output.talk_palette().warn(text));
        return Ok(());
    }
    output.line(&output.palette().warn(text))
}

fn show_raw(payload: &Payload, output: &Output) -> Result<(), Failure> {
    let is_line = matches!(payload.kind, PayloadKind::Text | PayloadKind::Json);
    if is_line && payload.body.last() != Some(&b'\n') {
        let mut line = payload.body.to_vec();
        line.push(b'\n');
        return output.bytes(&line);
    }
    output.bytes(&payload.body)
}
