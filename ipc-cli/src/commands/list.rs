//! `list [services|peers|topics|locks|queues|all]`: what is on the bus.

use std::time::Duration;

use serde_json::Value;

use super::rows::{self, text};
use crate::args::{Globals, ListArgs, ListWhat};
use crate::bus;
use crate::error::Failure;
use crate::output::Output;
use crate::render::{Column, Table, bytes_for_people, count_for_people, duration_for_people};

/// Shows it, one table for each kind or one object a line.
pub(crate) async fn run(args: &ListArgs, globals: &Globals, output: &Output) -> Result<(), Failure> {
    let answer = bus::ask_daemon(globals, "list", args.what.word()).await?;
    let rows = answer.as_array().map_or(&[][..], Vec::as_slice);
    if output.is_json() {
        return rows.iter().try_for_each(|row| output.object(row));
    }
    let kinds: [(&str, &[&str], ListWhat); 5] = [
        ("Services", &["service"], ListWhat::Services),
        ("Peers", &["peer"], ListWhat::Peers),
        ("Topics", &["topic"], ListWhat::Topics),
        ("Locks", &["lock", "semaphore", "election", "barrier"], ListWhat::Locks),
        ("Queues", &["queue"], ListWhat::Queues),
    ];
    let mut is_first = true;
    for (heading, kinds, what) in kinds {
        if args.what != ListWhat::All && args.what != what {
            continue;
        }
        if args.what == ListWhat::All {
            let gap = if is_first { "" } else { "\n" };
            output.text(&format!("{gap}{}\n", output.palette().heading(heading)))?;
            is_first = false;
        }
        let is_shown =
            |row: &&Value| row.get("kind").is_some_and(|word| kinds.iter().any(|kind| word == kind));
        let rows: Vec<&Value> = rows.iter().filter(is_shown).collect();
        if rows.is_empty() && args.what == ListWhat::All {
            output.line(&output.palette().quiet("none"))?;
        } else if rows.is_empty() {
            output.say(&output.talk_palette().quiet(&format!("no {}", heading.to_lowercase())));
        } else {
            output.table(&match what {
                ListWhat::Peers => peers(&rows),
                ListWhat::Topics => topics(&rows),
                ListWhat::Locks => locks(&rows),
                ListWhat::Queues => queues(&rows),
                ListWhat::Services | ListWhat::All => services(&rows),
            })?;
        }
    }
    Ok(())
}

fn services(rows: &[&Value]) -> Table {
    let mut table = Table::new(&[
        Column::Left("SERVICE"),
        Column::Left("MODE"),
        Column::Right("INSTANCES"),
        Column::Left("OFFERED BY"),
    ]);
    for row in rows {
        let instances = row.get("instances");
        let count = match instances {
            Some(Value::Array(instances)) => instances.len().to_string(),
            _ => text(row, "instances"),
        };
        let owner = row.get("owner").filter(|owner| !owner.is_null());
        let first = owner.or_else(|| rows::items(row, "instances").first());
        table.row([text(row, "name"), text(row, "mode"), count, first.map(rows::peer).unwrap_or_default()]);
    }
    table
}

fn peers(rows: &[&Value]) -> Table {
    let mut table = Table::new(&[
        Column::Right("ID"),
        Column::Right("UID"),
        Column::Right("GID"),
        Column::Right("PID"),
        Column::Left("PROCESS"),
        Column::Left("NAME"),
        Column::Left("TRANSPORT"),
        Column::Right("QUEUED"),
    ]);
    for row in rows {
        let who = match text(row, "process") {
            process if process.is_empty() => text(row, "principal"),
            process => process,
        };
        let queued = rows::number(row, "queued_bytes").map(bytes_for_people).unwrap_or_default();
        let [id, uid, gid, pid] = ["id", "uid", "gid", "pid"].map(|key| text(row, key));
        table.row([id, uid, gid, pid, who, text(row, "name"), text(row, "transport"), queued]);
    }
    table
}

fn topics(rows: &[&Value]) -> Table {
    let mut table =
        Table::new(&[Column::Left("TOPIC"), Column::Right("EVENTS"), Column::Right("SUBSCRIBERS")]);
    for row in rows {
        let [events, subscribers] = ["seq", "subscribers"]
            .map(|key| rows::number(row, key).map(count_for_people).unwrap_or_default());
        table.row([text(row, "name"), events, subscribers]);
    }
    table
}

fn locks(rows: &[&Value]) -> Table {
    let mut table = Table::new(&[
        Column::Left("KIND"),
        Column::Left("NAME"),
        Column::Left("HELD"),
        Column::Right("TOKEN"),
        Column::Right("AGE"),
        Column::Right("WAITING"),
        Column::Left("HOLDER"),
    ]);
    for row in rows {
        let [kind, name, mode, token, waiting] =
            ["kind", "name", "mode", "token", "waiting"].map(|key| text(row, key));
        let age = rows::time(row, "age_ms").unwrap_or_default();
        table.row([kind, name, mode, token, age, waiting, holder(row)]);
    }
    table
}

/// The eldest who is there, and who is not; or how long it stays closed after somebody who was lost.
fn holder(row: &Value) -> String {
    let present = row.get("holder").filter(|holder| holder.is_object()).map(rows::peer);
    let absent = rows::items(row, "absent");
    let closed = rows::time(row, "closed_ms").map(|left| format!("nobody for {left}"));
    match (present, absent) {
        (Some(peer), []) => peer,
        (Some(peer), absent) => format!("{peer}; {} not back yet", absent.len()),
        (None, [first, ..]) => rows::absent(first),
        (None, []) => closed.unwrap_or_default(),
    }
}

fn queues(rows: &[&Value]) -> Table {
    let mut table = Table::new(&[
        Column::Left("QUEUE"),
        Column::Right("READY"),
        Column::Right("DELAYED"),
        Column::Right("DELIVERED"),
        Column::Right("DEAD"),
        Column::Right("OLDEST"),
        Column::Right("WAITING"),
        Column::Right("CONSUMERS"),
    ]);
    for row in rows {
        let count = |key: &str| rows::number(row, key).map(count_for_people).unwrap_or_default();
        let oldest = rows::number(row, "oldest_ms").filter(|ms| *ms > 0);
        let oldest = oldest.map(|ms| duration_for_people(Duration::from_millis(ms))).unwrap_or_default();
        let [ready, delayed, delivered, dead] = ["ready", "delayed", "delivered", "dead"].map(count);
        let [waiting, consumers] = ["waiting", "consumers"].map(count);
        table.row([text(row, "name"), ready, delayed, delivered, dead, oldest, waiting, consumers]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_holds_a_lock_is_said_in_a_few_words() {
        let peer = json!({"id": 3, "uid": 1, "pid": 7, "process": "sh"});
        let absent = json!([{"uid": 7, "token": 1, "remaining_ms": 1500}, {"uid": 7, "token": 2}]);
        for (row, said) in [
            (json!({}), ""),
            (json!({"holder": peer, "absent": []}), "sh, uid 1, pid 7"),
            (json!({"holder": peer, "absent": absent}), "sh, uid 1, pid 7; 2 not back yet"),
            (json!({"holder": null, "absent": absent}), "not back yet, uid 7, kept for 1.50 s"),
            (json!({"holder": null, "absent": [], "closed_ms": 2000}), "nobody for 2.00 s"),
        ] {
            assert_eq!(holder(&row), said);
        }
    }
}
