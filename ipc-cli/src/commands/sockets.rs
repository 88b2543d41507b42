//! `sockets`: every socket of the daemon, as the kernel has it.

use serde_json::Value;

use super::rows::{number, text};
use crate::args::Globals;
use crate::bus;
use crate::error::Failure;
use crate::output::Output;
use crate::render::{Column, Table, bytes_for_people};

/// Shows them, one table or one object a line.
pub(crate) async fn run(globals: &Globals, output: &Output) -> Result<(), Failure> {
    let answer = bus::ask_daemon(globals, "sockets", "").await?;
    let sockets = answer.as_array().map_or(&[][..], Vec::as_slice);
    if output.is_json() {
        return sockets.iter().try_for_each(|socket| output.object(socket));
    }
    output.table(&table(sockets))
}

fn table(sockets: &[Value]) -> Table {
    let mut table = Table::new(&[
        Column::Right("FD"),
        Column::Left("FAMILY"),
        Column::Left("TYPE"),
        Column::Left("PROTOCOL"),
        Column::Left("LOCAL"),
        Column::Left("PEER"),
        Column::Right("RECEIVE"),
        Column::Right("SEND"),
        Column::Left("FOR"),
        Column::Left("OPTIONS"),
    ]);
    for socket in sockets {
        let [fd, family, kind, protocol, local] =
            ["fd", "family", "type", "protocol", "local"].map(|key| text(socket, key));
        let queued = ["receive_queue", "send_queue"].map(|key| number(socket, key).map(bytes_for_people));
        let [receive, send] = queued.map(Option::unwrap_or_default);
        let role = text(socket, "role");
        let role = match number(socket, "peer_id") {
            Some(peer) => format!("{role} of peer {peer}"),
            None => role,
        };
        let peer = text(socket, "peer");
        table.row([fd, family, kind, protocol, local, peer, receive, send, role, options(socket)]);
    }
    table
}

/// The flags that are on, and the numbers.
fn options(socket: &Value) -> String {
    let options = socket.get("options").and_then(Value::as_object).into_iter().flatten();
    let shown = options.filter_map(|(name, value)| match value {
        Value::Bool(true) => Some(name.clone()),
        Value::Bool(false) | Value::Null => None,
        other => Some(format!("{name}={other}")),
    });
    crate::render::one_line(&shown.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn flags_that_are_off_are_not_shown() {
        let socket = json!({"options": {"SO_KEEPALIVE": false, "SO_SNDBUF": 7, "TCP_NODELAY": true}});
        assert_eq!(options(&socket), "SO_SNDBUF=7 TCP_NODELAY");
        assert_eq!(options(&json!({})), "");
    }
}
