//! `describe SERVICE`: its methods and who offers it.

use super::rows::{self, text};
use crate::args::{DescribeArgs, Globals};
use crate::bus;
use crate::error::Failure;
use crate::output::Output;
use crate::render::{Column, Table, count_for_people};

/// Shows what the daemon knows about a service.
pub(crate) async fn run(args: &DescribeArgs, globals: &Globals, output: &Output) -> Result<(), Failure> {
    bus::check_service(&args.service)?;
    let service = bus::ask_daemon(globals, "describe", &args.service).await?;
    if output.is_json() {
        return output.object(&service);
    }
    let palette = output.palette();
    let mode = match text(&service, "mode") {
        mode if mode.is_empty() => mode,
        mode => format!(" ({mode})"),
    };
    output.line(&format!("{}{mode}", palette.heading(&text(&service, "service"))))?;
    let mut methods =
        Table::new(&[Column::Left("METHOD"), Column::Right("CALLS"), Column::Left("WHAT IT DOES")]);
    for method in rows::items(&service, "methods") {
        let calls = rows::number(method, "calls").map(count_for_people).unwrap_or_default();
        methods.row([text(method, "name"), calls, text(method, "description")]);
    }
    output.line("")?;
    output.table(&methods)?;
    let mut instances = Table::new(&[Column::Left("OFFERED BY")]);
    for instance in rows::items(&service, "instances") {
        instances.row([rows::peer(instance)]);
    }
    if !instances.is_empty() {
        output.line("")?;
        output.table(&instances)?;
    }
    Ok(())
}
