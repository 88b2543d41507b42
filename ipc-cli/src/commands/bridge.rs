//! `bridge list|expose SPEC|remove ID`: plain TCP ports whose bytes go to a service.

use serde_json::Value;

use super::rows::text;
use crate::args::{BridgeArgs, BridgeDo, Globals};
use crate::bus;
use crate::error::Failure;
use crate::output::Output;
use crate::render::{Column, Table};

/// Asks the daemon to show, open or close a port.
pub(crate) async fn run(args: &BridgeArgs, globals: &Globals, output: &Output) -> Result<(), Failure> {
    match &args.action {
        BridgeDo::List => {
            let answer = bus::ask_daemon(globals, "bridge-list", "").await?;
            let bridges = answer.as_array().map_or(&[][..], Vec::as_slice);
            if output.is_json() {
                return bridges.iter().try_for_each(|bridge| output.object(bridge));
            }
            if bridges.is_empty() {
                output.say(&output.talk_palette().quiet("no bridges"));
                return Ok(());
            }
            output.table(&table(bridges))
        }
        BridgeDo::Expose { spec } => {
            let bridge = bus::ask_daemon(globals, "bridge-expose", spec).await?;
            if output.is_json() {
                return output.object(&bridge);
            }
            output.say(&format!(
                "bridge {} exposes {}/{} at",
                text(&bridge, "id"),
                text(&bridge, "service"),
                text(&bridge, "method")
            ));
            output.line(&text(&bridge, "address"))
        }
        BridgeDo::Remove { id } => {
            let removed = bus::ask_daemon(globals, "bridge-remove", id).await?;
            if output.is_json() {
                return output.object(&removed);
            }
            output.say(&format!("bridge {} removed", text(&removed, "id")));
            Ok(())
        }
    }
}

fn table(bridges: &[Value]) -> Table {
    let mut table = Table::new(&[
        Column::Right("ID"),
        Column::Left("KIND"),
        Column::Left("ADDRESS"),
        Column::Left("METHOD"),
        Column::Left("FRAMING"),
        Column::Right("CONNECTIONS"),
    ]);
    for bridge in bridges {
        let method = format!("{}/{}", text(bridge, "service"), text(bridge, "method"));
        let [id, kind, address, framing, connections] =
            ["id", "kind", "address", "framing", "connections"].map(|key| text(bridge, key));
        table.row([id, kind, address, method, framing, connections]);
    }
    table
}
