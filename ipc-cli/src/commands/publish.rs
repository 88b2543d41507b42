//! `publish TOPIC [PAYLOAD]`.

use serde::Serialize;

use crate::args::{Globals, PayloadArgument, PublishArgs};
use crate::bus;
use crate::error::Failure;
use crate::output::Output;
use crate::render::plural;

#[derive(Serialize)]
struct Acknowledged<'a> {
    topic: &'a str,
    seq: u64,
    subscribers: u32,
}

/// Publishes, and waits until the daemon has it.
pub(crate) async fn run(args: PublishArgs, globals: &Globals, output: &Output) -> Result<(), Failure> {
    bus::check_topic(&args.topic)?;
    let payload = bus::read_payload(PayloadArgument::new(args.payload, args.kind)).await?;
    let client = bus::connect(globals).await?;
    let topic = args.topic.as_str();
    let mut most = 0;
    for _ in 0..args.count.get() {
        let published = client.publish(topic, payload.clone()).await?;
        most = most.max(u64::from(published.subscribers));
        if output.is_json() {
            output.object(&Acknowledged {
                topic,
                seq: published.sequence,
                subscribers: published.subscribers,
            })?;
        }
    }
    if !output.is_json() {
        let events = plural(args.count.get(), "event");
        let receivers = match most {
            0 => "nobody subscribes".to_owned(),
            most => format!("for {}", plural(most, "subscription")),
        };
        output.say(&format!("published {events} to {topic}, {receivers}"));
    }
    client.close().await;
    Ok(())
}
