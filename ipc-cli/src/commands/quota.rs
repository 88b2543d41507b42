//! `quota`: who uses what of all that is limited, and what was refused.

use super::rows::{number, text};
use crate::args::Globals;
use crate::bus;
use crate::error::Failure;
use crate::output::Output;
use crate::render::{Column, Table, bytes_for_people, count_for_people};

/// Shows what each user and principal uses.
pub(crate) async fn run(globals: &Globals, output: &Output) -> Result<(), Failure> {
    let answer = bus::ask_daemon(globals, "quota", "").await?;
    let rows = answer.as_array().map_or(&[][..], Vec::as_slice);
    if output.is_json() {
        return rows.iter().try_for_each(|row| output.object(row));
    }
    let mut table = Table::new(&[
        Column::Left("WHO"),
        Column::Left("LIMIT"),
        Column::Right("USED"),
        Column::Right("MOST"),
        Column::Right("REFUSED"),
    ]);
    for row in rows {
        let is_quiet = number(row, "used") == Some(0) && number(row, "refused") == Some(0);
        if is_quiet {
            continue;
        }
        let principal = text(row, "principal");
        let who = if principal.is_empty() { format!("uid {}", text(row, "uid")) } else { principal };
        let resource = text(row, "resource");
        let shown = |key| match number(row, key) {
            Some(value) if resource.contains("bytes") && value >= 1024 => bytes_for_people(value),
            Some(value) => count_for_people(value),
            None => String::new(),
        };
        let refused = number(row, "refused").map(count_for_people).unwrap_or_default();
        table.row([who, resource.clone(), shown("used"), shown("limit"), refused]);
    }
    output.table(&table)
}
