//! `kv txn`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use ipc_core::client::{Condition, Transaction};
use ipc_core::{Error, ErrorCode};
use serde::Serialize;

use crate::args::{Globals, KvTxn, PayloadArgument};
use crate::bus;
use crate::error::Failure;
use crate::output::Output;

#[derive(Serialize)]
struct TransactedJson<'a> {
    changes: Vec<ChangeJson<'a>>,
    durability: &'static str,
}

#[derive(Serialize)]
struct ChangeJson<'a> {
    key: &'a str,
    revision: u64,
}

/// Changes several keys together.
pub(super) async fn run(txn: KvTxn, globals: &Globals, output: &Output) -> Result<(), Failure> {
    let mut conditions = conditions(&txn)?;
    let mut transaction = Transaction::new();
    let mut keys = Vec::new();
    for put in &txn.put {
        let (key, value) = assignment(put)?;
        let value = bus::read_payload(PayloadArgument::new(Some(value), None)).await?;
        transaction = transaction.put(&key, value, conditions.remove(&key).unwrap_or_default());
        keys.push(key);
    }
    for key in txn.delete {
        transaction = transaction.delete(&key, conditions.remove(&key).unwrap_or_default());
        keys.push(key);
    }
    for (key, condition) in conditions {
        transaction = transaction.check(&key, condition);
    }
    if let Some(text) = &txn.fence {
        let (lock, token) = bus::parse_fence(text)?;
        transaction = transaction.under(lock, token);
    }
    if let Some(level) = txn.durability {
        transaction = transaction.durability(level.into());
    }
    let client = bus::connect(globals).await?;
    let done = client.transact(&transaction).await?;
    client.close().await;
    if output.is_json() {
        let changes = keys.iter().zip(&done.revisions);
        let changes = changes.map(|(key, revision)| ChangeJson { key, revision: *revision }).collect();
        return output.object(&TransactedJson { changes, durability: done.durability.name() });
    }
    for (key, revision) in keys.iter().zip(&done.revisions) {
        output.say(&format!("{key} has revision {revision}"));
    }
    Ok(())
}

/// The condition of each key that has one.
fn conditions(txn: &KvTxn) -> Result<BTreeMap<String, Condition>, Error> {
    let mut conditions = BTreeMap::new();
    let absent = txn.if_absent.iter().map(|key| Ok((key.clone(), Condition::Absent)));
    let revisions = txn.if_revision.iter().map(|text| {
        let parsed = text.split_once('=').and_then(|(key, revision)| Some((key, revision.parse().ok()?)));
        let parsed = parsed.map(|(key, revision)| (key.to_owned(), Condition::Revision(revision)));
        parsed.ok_or_else(|| wrong(text, "KEY=N, as in config/color=1234"))
    });
    for condition in absent.chain(revisions) {
        let (key, condition) = condition?;
        if conditions.insert(key.clone(), condition).is_some() {
            return Err(wrong(&key, "one condition for each key"));
        }
    }
    Ok(conditions)
}

/// `KEY=VALUE`.
fn assignment(text: &OsStr) -> Result<(String, OsString), Error> {
    let bytes = text.as_bytes();
    let parts = bytes.iter().position(|byte| *byte == b'=').map(|at| (&bytes[..at], &bytes[at + 1..]));
    let parsed = parts.and_then(|(key, value)| Some((std::str::from_utf8(key).ok()?, value)));
    let (key, value) =
        parsed.ok_or_else(|| wrong(&text.to_string_lossy(), "KEY=VALUE, as in config/color=blue"))?;
    Ok((key.to_owned(), OsStr::from_bytes(value).to_owned()))
}

fn wrong(text: &str, right: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("'{text}' is wrong here"))
        .with_hint(format!("write {right}"))
}
