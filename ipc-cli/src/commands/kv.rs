//! `kv put|get|delete|txn|list|watch|history`.

mod transaction;

use std::ffi::OsString;

use ipc_core::client::{Client, Committed, Condition, KeyChange, KeyEvent, KeyOptions, KeyValue, Selection};
use ipc_core::name::ResourceName;
use ipc_core::{Error, ErrorCode};
use serde::Serialize;

use crate::args::{Globals, KvArgs, KvChange, KvDo, KvWhich, PayloadArgument};
use crate::bus;
use crate::child;
use crate::error::Failure;
use crate::interrupt::{Interrupts, unless_interrupted};
use crate::output::Output;
use crate::render::{PayloadJson, payload_for_people};

#[derive(Serialize)]
struct ChangedJson<'a> {
    key: &'a str,
    revision: u64,
    durability: &'static str,
}

#[derive(Serialize)]
struct ValueJson<'a> {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    key: &'a str,
    revision: u64,
    created: u64,
    version: u64,
    lease: Option<u64>,
    #[serde(flatten)]
    value: PayloadJson,
}

#[derive(Serialize)]
struct DeletedJson<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    key: &'a str,
    revision: u64,
}

/// Does what was asked for with keys.
pub(crate) async fn run(
    args: KvArgs,
    globals: &Globals,
    output: &Output,
    mut interrupts: Interrupts,
) -> Result<(), Failure> {
    match args.action {
        KvDo::Put { key, payload, kind, change, ttl, lease } => {
            bus::check_resource(&key)?;
            let options = KeyOptions { ttl, lease, ..options(&change)? };
            let value = bus::read_payload(PayloadArgument::new(payload, kind)).await?;
            let client = bus::connect(globals).await?;
            let put = client.put_key(&key, value, options).await?;
            show_change(&key, put, output)?;
            client.close().await;
        }
        KvDo::Get { key } => {
            bus::check_resource(&key)?;
            let client = bus::connect(globals).await?;
            let found = client.get_key(&key).await?;
            client.close().await;
            if output.is_json() {
                output.object(&json(&found, None))?;
            } else {
                output.bytes(&found.value.body)?;
            }
        }
        KvDo::Delete { key, change } => {
            bus::check_resource(&key)?;
            let options = options(&change)?;
            let client = bus::connect(globals).await?;
            let deleted = client.delete_key(&key, options).await?;
            show_change(&key, deleted, output)?;
            client.close().await;
        }
        KvDo::Txn { txn } => transaction::run(txn, globals, output).await?,
        KvDo::List { which, from, to } => {
            list(&which, from.as_deref(), to.as_deref(), globals, output).await?;
        }
        KvDo::History { which, from_revision } => {
            let selection = selection(&which)?;
            let client = bus::connect(globals).await?;
            let from = match from_revision {
                Some(from) => from,
                None => oldest(&client, &selection).await?,
            };
            for change in client.key_history(&selection, from).await? {
                show(&change, output)?;
            }
            client.close().await;
        }
        KvDo::Watch { which, from_revision, command } => {
            let selection = selection(&which)?;
            let client = unless_interrupted(&mut interrupts, bus::connect_and_stay(globals)).await?;
            let watching = watch(&client, selection, from_revision, &command, output);
            return unless_interrupted(&mut interrupts, watching).await;
        }
    }
    Ok(())
}

/// Shows keys with their values.
async fn list(
    which: &KvWhich,
    from: Option<&str>,
    to: Option<&str>,
    globals: &Globals,
    output: &Output,
) -> Result<(), Failure> {
    let selection = selection(which)?;
    let client = bus::connect(globals).await?;
    let found = match (from, to) {
        (None, None) => client.list_keys(&selection).await?,
        (from, to) => client.list_keys_between(from.unwrap_or_default(), to.unwrap_or_default()).await?,
    };
    client.close().await;
    for found in found {
        if output.is_json() {
            output.object(&json(&found, None))?;
        } else {
            output.line(&format!("{}\t{}", found.key, payload_for_people(&found.value)))?;
        }
    }
    Ok(())
}

/// The oldest revision that is remembered: the daemon says it when it is asked for more.
async fn oldest(client: &Client, selection: &Selection) -> Result<u64, Error> {
    match client.key_history(selection, 1).await {
        Ok(changes) => Ok(changes.first().map_or(1, KeyChange::revision)),
        Err(error) if error.code == ErrorCode::Compacted => {
            let known = error.detail.as_ref().and_then(|detail| detail.limit);
            known.map(|compacted| compacted + 1).ok_or(error)
        }
        Err(error) => Err(error),
    }
}

fn options(change: &KvChange) -> Result<KeyOptions, Error> {
    let condition = match (change.if_absent, change.if_revision) {
        (true, _) => Condition::Absent,
        (false, Some(revision)) => Condition::Revision(revision),
        (false, None) => Condition::Any,
    };
    let fence = change.fence.as_deref().map(bus::parse_fence).transpose()?;
    Ok(KeyOptions {
        condition,
        fence,
        durability: change.durability.map(Into::into),
        ..KeyOptions::default()
    })
}

fn selection(which: &KvWhich) -> Result<Selection, Error> {
    match (&which.key, &which.prefix) {
        (Some(key), _) => Ok(Selection::Key(ResourceName::parse(key)?)),
        (None, prefix) => Ok(Selection::Prefix(prefix.clone().unwrap_or_default())),
    }
}

fn show_change(key: &str, committed: Committed, output: &Output) -> Result<(), Failure> {
    let Committed { revision, durability } = committed;
    if output.is_json() {
        return output.object(&ChangedJson { key, revision, durability: durability.name() });
    }
    output.say(&format!("{key} has revision {revision}"));
    Ok(())
}

fn json<'a>(found: &'a KeyValue, kind: Option<&'static str>) -> ValueJson<'a> {
    ValueJson {
        kind,
        key: found.key.as_str(),
        revision: found.revision,
        created: found.created,
        version: found.version,
        lease: found.lease,
        value: PayloadJson::from(&found.value),
    }
}

fn show(change: &KeyChange, output: &Output) -> Result<(), Failure> {
    match change {
        KeyChange::Put(found) if output.is_json() => output.object(&json(found, Some("put"))),
        KeyChange::Put(found) => output.line(&format!(
            "{} put {}\t{}",
            found.revision,
            found.key,
            payload_for_people(&found.value)
        )),
        KeyChange::Delete { key, revision } if output.is_json() => {
            output.object(&DeletedJson { kind: "delete", key: key.as_str(), revision: *revision })
        }
        KeyChange::Delete { key, revision } => output.line(&format!("{revision} delete {key}")),
    }
}

/// Shows each change, or runs the command for each, until the connection is gone for good.
async fn watch(
    client: &Client,
    selection: Selection,
    from: Option<u64>,
    command: &[OsString],
    output: &Output,
) -> Result<(), Failure> {
    let mut watch = client.watch_keys(selection, from).await?;
    output.say("watching");
    while let Some(event) = watch.next().await {
        match event? {
            KeyEvent::Changed(change) if command.is_empty() => show(&change, output)?,
            KeyEvent::Changed(change) => run_command(command, &change).await?,
            KeyEvent::Restarted => output.say("changes were missed; what is there follows"),
            KeyEvent::UpToDate { .. } => {}
            KeyEvent::Ended(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// One change: the value on standard input, what it is in the environment. A command that fails does not end the watch.
async fn run_command(command: &[OsString], change: &KeyChange) -> Result<(), Failure> {
    let (kind, value) = match change {
        KeyChange::Put(found) => ("put", found.value.body.clone()),
        KeyChange::Delete { .. } => ("delete", bytes::Bytes::new()),
    };
    let environment = [
        ("IPC_KEY", Some(change.key().to_string())),
        ("IPC_REVISION", Some(change.revision().to_string())),
        ("IPC_CHANGE", Some(kind.to_owned())),
    ];
    let status = child::feed_to(command, &environment, value, core::future::pending()).await;
    status
        .map(|_| ())
        .map_err(|error| Error::new(ErrorCode::Io, format!("the command cannot be run: {error}")).into())
}
