//! `queue put|take|ack|nack|peek|stats|purge`.

use std::time::Duration;

use ipc_core::client::{EntryOptions, EntryPut, NackOptions, PeekedEntry, QueueCounts, TakeOptions, Work};
use ipc_core::{Error, Identity};
use serde::Serialize;

use super::working;
use crate::args::{Globals, PayloadArgument, QueueArgs, QueueDo, QueuePutArgs, QueueTakeArgs, QueueWhich};
use crate::bus;
use crate::error::Failure;
use crate::interrupt::{Interrupts, unless_interrupted};
use crate::output::Output;
use crate::render::{
    Column, IdentityJson, PayloadJson, Table, bytes_for_people, count_for_people, duration_for_people,
    payload_for_people,
};

#[derive(Serialize)]
struct PutJson<'a> {
    queue: &'a str,
    id: &'a str,
    number: u64,
    duplicate: bool,
    dropped: u32,
    durability: &'static str,
}

/// What an entry has in every delivery.
#[derive(Serialize)]
struct EntryJson<'a> {
    queue: &'a str,
    id: &'a str,
    number: u64,
    deliveries: u32,
    priority: u8,
    age_ms: u64,
    sender: IdentityJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    death: Option<&'a str>,
    #[serde(flatten)]
    payload: PayloadJson,
}

#[derive(Serialize)]
struct WorkJson<'a> {
    delivery: u64,
    visibility_ms: Option<u64>,
    #[serde(flatten)]
    entry: EntryJson<'a>,
}

#[derive(Serialize)]
struct PeekedJson<'a> {
    state: &'static str,
    due_ms: Option<u64>,
    #[serde(flatten)]
    entry: EntryJson<'a>,
}

#[derive(Serialize)]
struct EndedJson<'a> {
    queue: &'a str,
    delivery: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead: Option<bool>,
}

#[derive(Serialize)]
struct PurgedJson<'a> {
    queue: &'a str,
    purged: u64,
}

#[derive(Serialize)]
struct CountsJson<'a> {
    queue: &'a str,
    ready: u64,
    delayed: u64,
    delivered: u64,
    dead: u64,
    waiting: u32,
    consumers: u32,
    bytes: u64,
    oldest_ms: u64,
    puts: u64,
    duplicates: u64,
    acks: u64,
    redeliveries: u64,
    deaths: u64,
    drops: u64,
}

/// Does what was asked for with a queue.
pub(crate) async fn run(
    args: QueueArgs,
    globals: &Globals,
    output: &Output,
    mut interrupts: Interrupts,
) -> Result<(), Failure> {
    let work = match args.action {
        QueueDo::Take(args) if !args.command.is_empty() => {
            return working::run(args, globals, output, interrupts).await;
        }
        action => act(action, globals, output),
    };
    unless_interrupted(&mut interrupts, work).await
}

async fn act(action: QueueDo, globals: &Globals, output: &Output) -> Result<(), Failure> {
    match action {
        QueueDo::Put(args) => put(args, globals, output).await,
        QueueDo::Take(args) => take(args, globals, output).await,
        QueueDo::Ack { which, delivery } => {
            let fence = fence(&which)?;
            let client = bus::connect(globals).await?;
            client.ack_entry(&which.queue, delivery, fence).await?;
            client.close().await;
            ended(&which.queue, delivery, None, output)
        }
        QueueDo::Nack { which, delivery, delay, reason } => {
            let options = NackOptions {
                delay: delay.unwrap_or_default(),
                reason: reason.unwrap_or_default(),
                fence: fence(&which)?,
                ..NackOptions::default()
            };
            let client = bus::connect(globals).await?;
            let is_dead = client.nack_entry(&which.queue, delivery, options).await?;
            client.close().await;
            ended(&which.queue, delivery, Some(is_dead), output)
        }
        QueueDo::Peek { queue, count } => {
            bus::check_resource(&queue)?;
            let client = bus::connect(globals).await?;
            let entries = client.peek_entries(&queue, count).await?;
            client.close().await;
            show_entries(&queue, &entries, output)
        }
        QueueDo::Stats { queue } => {
            bus::check_resource(&queue)?;
            let client = bus::connect(globals).await?;
            let counts = client.count_queue(&queue).await?;
            client.close().await;
            show_counts(&queue, &counts, output)
        }
        QueueDo::Purge { which } => {
            let fence = fence(&which)?;
            let client = bus::connect(globals).await?;
            let purged = client.purge_queue(&which.queue, fence).await?;
            client.close().await;
            if output.is_json() {
                return output.object(&PurgedJson { queue: &which.queue, purged });
            }
            output.say(&format!("{purged} entries of {} are gone", which.queue));
            Ok(())
        }
    }
}

async fn put(args: QueuePutArgs, globals: &Globals, output: &Output) -> Result<(), Failure> {
    bus::check_resource(&args.queue)?;
    let options = EntryOptions {
        id: args.id,
        priority: args.priority,
        delay: args.delay.unwrap_or_default(),
        max_deliveries: args.max_deliveries.map(Into::into),
        max_length: args.max_length.map(Into::into),
        overflow: args.overflow.into(),
        fence: args.fence.as_deref().map(bus::parse_fence).transpose()?,
        durability: args.durability.map(Into::into),
    };
    let payload = bus::read_payload(PayloadArgument::new(args.payload, args.kind)).await?;
    let client = bus::connect(globals).await?;
    let EntryPut { id, number, is_duplicate, dropped, durability } =
        client.put_entry(&args.queue, payload, options).await?;
    client.close().await;
    if output.is_json() {
        let (queue, duplicate) = (args.queue.as_str(), is_duplicate);
        let durability = durability.name();
        return output.object(&PutJson { queue, id: &id, number, duplicate, dropped, durability });
    }
    if is_duplicate {
        output.say("it had been put before");
    }
    if dropped > 0 {
        output.say(&format!("{dropped} older entries made room for it"));
    }
    output.line(&id)
}

/// Takes an entry that belongs to whoever has its token.
async fn take(args: QueueTakeArgs, globals: &Globals, output: &Output) -> Result<(), Failure> {
    let options = take_options(&args)?;
    let client = bus::connect(globals).await?;
    let work = client.take_entry_detached(&args.which.queue, options).await?;
    client.close().await;
    if output.is_json() {
        return show_work(&work, output);
    }
    let Work { queue, delivery, .. } = &work;
    let back = work.visibility.map(|time| format!("; it goes back in {}", duration_for_people(time)));
    let back = back.unwrap_or_default();
    output.say(&format!("{}{back}; `ipc-cli queue ack {queue} {delivery}` ends it", describe(&work)));
    output.bytes(&work.payload.body)
}

/// How an entry is taken, as the arguments say.
pub(super) fn take_options(args: &QueueTakeArgs) -> Result<TakeOptions, Error> {
    Ok(TakeOptions {
        wait: Some(args.wait.unwrap_or_default()),
        visibility: args.visibility,
        max_deliveries: args.max_deliveries.map(Into::into),
        fence: fence(&args.which)?,
    })
}

fn fence(which: &QueueWhich) -> Result<Option<(ipc_core::name::ResourceName, u64)>, Error> {
    bus::check_resource(&which.queue)?;
    which.fence.as_deref().map(bus::parse_fence).transpose()
}

/// What was delivered, in words.
pub(super) fn describe(work: &Work) -> String {
    let Work { queue, id, deliveries, .. } = work;
    let again = if *deliveries > 1 { format!(" for the {deliveries}. time") } else { String::new() };
    format!("entry {id} of {queue}{again}")
}

pub(super) fn show_work(work: &Work, output: &Output) -> Result<(), Failure> {
    output.object(&WorkJson {
        delivery: work.delivery,
        visibility_ms: work.visibility.map(whole_millis),
        entry: EntryJson {
            queue: work.queue.as_str(),
            id: &work.id,
            number: work.number,
            deliveries: work.deliveries,
            priority: work.priority,
            age_ms: whole_millis(work.age),
            sender: IdentityJson::from(&work.sender),
            death: work.death.as_deref(),
            payload: PayloadJson::from(&work.payload),
        },
    })
}

fn ended(queue: &str, delivery: u64, dead: Option<bool>, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.object(&EndedJson { queue, delivery, dead });
    }
    output.say(&match dead {
        None => format!("{delivery} of {queue} is done"),
        Some(false) => format!("{delivery} went back into {queue}"),
        Some(true) => format!("{delivery} went to {queue}.dead"),
    });
    Ok(())
}

fn show_entries(queue: &str, entries: &[PeekedEntry], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return entries.iter().try_for_each(|entry| {
            output.object(&PeekedJson {
                state: entry.state.name(),
                due_ms: entry.due.map(whole_millis),
                entry: EntryJson {
                    queue,
                    id: &entry.id,
                    number: entry.number,
                    deliveries: entry.deliveries,
                    priority: entry.priority,
                    age_ms: whole_millis(entry.age),
                    sender: IdentityJson::from(&entry.sender),
                    death: entry.death.as_deref(),
                    payload: PayloadJson::from(&entry.payload),
                },
            })
        });
    }
    if entries.is_empty() {
        output.say(&output.talk_palette().quiet(&format!("nothing in {queue}")));
        return Ok(());
    }
    let mut table = Table::new(&[
        Column::Left("ID"),
        Column::Left("STATE"),
        Column::Right("PRIORITY"),
        Column::Right("DELIVERIES"),
        Column::Right("AGE"),
        Column::Left("PUT BY"),
        Column::Left("PAYLOAD"),
    ]);
    for entry in entries {
        let due = entry.due.map(|due| format!(", {} left", duration_for_people(due))).unwrap_or_default();
        let shown = payload_for_people(&entry.payload);
        let shown = match &entry.death {
            Some(death) => format!("{shown} ({death})"),
            None => shown,
        };
        table.row([
            entry.id.clone(),
            format!("{}{due}", entry.state.name()),
            entry.priority.to_string(),
            entry.deliveries.to_string(),
            duration_for_people(entry.age),
            match &entry.sender {
                Identity::Local { uid, .. } => format!("uid {uid}"),
                Identity::Remote { principal, .. } => principal.clone(),
            },
            shown,
        ]);
    }
    output.table(&table)
}

fn show_counts(queue: &str, counts: &QueueCounts, output: &Output) -> Result<(), Failure> {
    let QueueCounts { ready, delayed, delivered, dead, waiting, consumers, bytes, oldest_us, .. } = *counts;
    let QueueCounts { puts, duplicates, acks, redeliveries, deaths, drops, .. } = *counts;
    if output.is_json() {
        let oldest_ms = oldest_us / 1000;
        return output.object(&CountsJson {
            queue,
            ready,
            delayed,
            delivered,
            dead,
            waiting,
            consumers,
            bytes,
            oldest_ms,
            puts,
            duplicates,
            acks,
            redeliveries,
            deaths,
            drops,
        });
    }
    let age = duration_for_people(Duration::from_micros(oldest_us));
    let lines = [
        ("ready", count_for_people(ready)),
        ("delayed", count_for_people(delayed)),
        ("delivered", count_for_people(delivered)),
        ("dead", count_for_people(dead)),
        ("waiting", count_for_people(waiting.into())),
        ("consumers", count_for_people(consumers.into())),
        ("size", bytes_for_people(bytes)),
        ("oldest", if ready + delayed + delivered > 0 { age } else { String::new() }),
        ("put", count_for_people(puts)),
        ("duplicates", count_for_people(duplicates)),
        ("acknowledged", count_for_people(acks)),
        ("delivered again", count_for_people(redeliveries)),
        ("died", count_for_people(deaths)),
        ("dropped", count_for_people(drops)),
    ];
    let mut table = Table::new(&[Column::Left("ENTRIES"), Column::Right("COUNT")]);
    for (what, count) in lines {
        table.row([what.to_owned(), count]);
    }
    output.table(&table)
}

fn whole_millis(duration: Duration) -> u64 {
    super::holding::whole_millis(duration)
}
