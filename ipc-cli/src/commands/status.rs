//! `status`: the daemon.

use core::time::Duration;

use serde_json::Value;

use super::rows::{self, text};
use crate::args::{Globals, StatusArgs};
use crate::bus;
use crate::error::Failure;
use crate::output::Output;
use crate::render::{Column, Table, bytes_for_people, count_for_people};

/// Clears a terminal and begins at its top (ECMA-48: CUP, ED).
const CLEAR: &[u8] = b"\x1b[H\x1b[2J";

/// Shows what the daemon says about itself, once or again and again.
pub(crate) async fn run(args: &StatusArgs, globals: &Globals, output: &Output) -> Result<(), Failure> {
    let Some(pause) = args.watch else {
        return show(&bus::ask_daemon(globals, "status", "").await?, output);
    };
    loop {
        let status = bus::ask_daemon(globals, "status", "").await?;
        if output.is_terminal() && !output.is_json() {
            output.bytes(CLEAR)?;
        }
        show(&status, output)?;
        tokio::time::sleep(pause).await;
    }
}

fn show(status: &Value, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.object(status);
    }
    let palette = output.palette();
    let mut page = format!(
        "{}, protocol {}, up {}\n",
        palette.heading(&format!("ipc-daemon {}", text(status, "version"))),
        text(status, "protocol"),
        uptime(status),
    );
    page.push_str(&format!("pid {}, epoch {}\n", text(status, "pid"), text(status, "epoch")));
    output.text(&page)?;
    section("Addresses", &addresses(status), output)?;
    section("Usage", &usage(status), output)?;
    section("Counters", &numbers(status, "counters"), output)?;
    section("Limits", &numbers(status, "limits"), output)
}

fn section(heading: &str, table: &Table, output: &Output) -> Result<(), Failure> {
    if table.is_empty() {
        return Ok(());
    }
    output.text(&format!("\n{}\n", output.palette().heading(heading)))?;
    output.table(table)
}

fn uptime(status: &Value) -> String {
    let milliseconds = status.get("uptime_ms").and_then(Value::as_u64).unwrap_or(0);
    humantime::format_duration(Duration::from_secs(milliseconds / 1000)).to_string()
}

fn addresses(status: &Value) -> Table {
    let mut table = Table::new(&[Column::Left("KIND"), Column::Left("ADDRESS")]);
    for address in rows::items(status, "addresses") {
        table.row([text(address, "kind"), text(address, "address")]);
    }
    table
}

fn usage(status: &Value) -> Table {
    const COUNTS: [&str; 4] = ["connections", "names", "subscriptions", "pending_calls"];
    let mut table = Table::new(&[
        Column::Right("UID"),
        Column::Right("CONNECTIONS"),
        Column::Right("NAMES"),
        Column::Right("SUBSCRIPTIONS"),
        Column::Right("PENDING CALLS"),
        Column::Right("QUEUED"),
    ]);
    for (uid, used) in rows::by_uid(status, "usage") {
        let counts = COUNTS.map(|count| rows::number(used, count).map(count_for_people).unwrap_or_default());
        let queued = rows::number(used, "queued_bytes").map(bytes_for_people).unwrap_or_default();
        table.row(core::iter::once(uid).chain(counts).chain([queued]));
    }
    table
}

/// Numbers by name; those whose unit is bytes are shown as sizes.
fn numbers(status: &Value, key: &str) -> Table {
    let mut table = Table::new(&[Column::Left("NAME"), Column::Right("VALUE")]);
    for (name, value) in status.get(key).and_then(Value::as_object).into_iter().flatten() {
        let shown = match value.as_u64() {
            Some(number) if name.contains("bytes") && number >= 1024 => bytes_for_people(number),
            Some(number) => count_for_people(number),
            None => value.to_string(),
        };
        table.row([crate::render::one_line(name), shown]);
    }
    table
}
