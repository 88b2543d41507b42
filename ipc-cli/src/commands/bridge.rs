//! `bridge list|expose SPEC|forward SPEC|remove ID`: ports whose bytes go to a service, and servers that become services.

use serde_json::Value;

use super::rows::text;
use crate::args::{BridgeArgs, BridgeDo, Globals};
use crate::bus;
use crate::error::Failure;
use crate::output::Output;
use crate::render::{Column, Table};

/// Asks the daemon to show, open or close a bridge.
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
            output.say(&format!("bridge {} exposes {} there", text(&bridge, "id"), method(&bridge)));
            output.line(&text(&bridge, "address"))
        }
        BridgeDo::Forward { spec } => {
            let bridge = bus::ask_daemon(globals, "bridge-forward", spec).await?;
            if output.is_json() {
                return output.object(&bridge);
            }
            let (id, address) = (text(&bridge, "id"), text(&bridge, "address"));
            output.say(&format!("bridge {id} forwards its calls to {address}"));
            output.line(&method(&bridge))
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

fn method(bridge: &Value) -> String {
    format!("{}/{}", text(bridge, "service"), text(bridge, "method"))
}

fn table(bridges: &[Value]) -> Table {
    let mut table = Table::new(&[
        Column::Right("ID"),
        Column::Left("KIND"),
        Column::Left("ADDRESS"),
        Column::Left("METHOD"),
        Column::Left("FRAMING"),
        Column::Right("OPEN"),
        Column::Right("CALLS"),
        Column::Right("ERRORS"),
    ]);
    for bridge in bridges {
        let [id, kind, address, framing, calls, errors] =
            ["id", "kind", "address", "framing", "calls", "errors"].map(|key| text(bridge, key));
        // Connections of a TCP port, sources of a UDP port, calls under way of a forward.
        let open = ["connections", "sources", "open_calls"].map(|key| text(bridge, key));
        let open = open.into_iter().find(|open| !open.is_empty()).unwrap_or_default();
        table.row([id, kind, address, method(bridge), framing, open, calls, errors]);
    }
    table
}
