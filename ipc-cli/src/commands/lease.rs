//! `lease grant|renew|revoke|list`.

use std::time::Duration;

use serde::Serialize;

use super::holding::whole_millis;
use super::rows::{self, text};
use crate::args::{Globals, LeaseArgs, LeaseDo};
use crate::bus;
use crate::error::Failure;
use crate::output::Output;
use crate::render::{Column, Table};

#[derive(Serialize)]
struct LeaseJson {
    lease: u64,
    ttl_ms: Option<u64>,
}

/// Takes, renews, ends or shows leases.
pub(crate) async fn run(args: &LeaseArgs, globals: &Globals, output: &Output) -> Result<(), Failure> {
    match args.action {
        LeaseDo::List => return list(globals, output).await,
        LeaseDo::Grant { .. } | LeaseDo::Renew { .. } | LeaseDo::Revoke { .. } => {}
    }
    let client = bus::connect(globals).await?;
    match args.action {
        LeaseDo::Grant { ttl, durability } => {
            let lease = client.grant_lease_kept(ttl, durability.map(Into::into)).await?;
            show(lease, Some(ttl), output)?;
        }
        LeaseDo::Renew { id } => {
            let ttl = client.renew_lease(id).await?;
            show(id, ttl, output)?;
        }
        LeaseDo::Revoke { id } => {
            client.revoke_lease(id).await?;
            output.say(&format!("lease {id} has ended"));
        }
        LeaseDo::List => {}
    }
    client.close().await;
    Ok(())
}

fn show(lease: u64, ttl: Option<Duration>, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.object(&LeaseJson { lease, ttl_ms: ttl.map(whole_millis) });
    }
    output.line(&lease.to_string())
}

async fn list(globals: &Globals, output: &Output) -> Result<(), Failure> {
    let answer = bus::ask_daemon(globals, "list", "leases").await?;
    let leases = answer.as_array().map_or(&[][..], Vec::as_slice);
    if output.is_json() {
        return leases.iter().try_for_each(|row| output.object(row));
    }
    if leases.is_empty() {
        output.say(&output.talk_palette().quiet("no leases"));
        return Ok(());
    }
    let mut table = Table::new(&[
        Column::Right("LEASE"),
        Column::Right("TTL"),
        Column::Right("LEFT"),
        Column::Left("BOUND TO"),
    ]);
    for row in leases {
        let time = |key: &str| rows::time(row, key).unwrap_or_default();
        let session = row.get("holder").filter(|holder| !holder.is_null());
        let bound = match session {
            Some(peer) => rows::peer(peer),
            None if row["absent"] == true => rows::absent(row),
            None => format!("uid {}", text(row, "uid")),
        };
        table.row([text(row, "lease"), time("ttl_ms"), time("remaining_ms"), bound]);
    }
    output.table(&table)
}
