//! Every socket of the daemon, as the kernel has it at that moment.

use std::os::fd::AsRawFd;
use std::rc::Rc;

use ipc_core::id::PeerId;
use ipc_core::transport::socket::option::{Setting, settings};
use ipc_core::transport::{Listener, Socket, SocketAddress};
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;

use crate::bus::Bus;
use crate::bus::link::Link;
use crate::shell::DatagramSocket;

/// Sockets looked at before others have their turn: each takes some twenty system calls.
const LOOK_BUDGET: usize = 32;

/// A socket and what it is for.
pub(crate) struct HeldSocket {
    /// What it is for, for people: `listener`, `connection` and so on.
    pub(crate) role: &'static str,
    /// The peer of the bus whose connection it is.
    pub(crate) peer: Option<PeerId>,
    /// The socket itself.
    pub(crate) socket: Held,
}

/// A socket, in whatever it is held.
pub(crate) enum Held {
    /// One that accepts.
    Listener(Rc<Listener>),
    /// A connection of the bus.
    Connection(Rc<Link>),
    /// One that takes datagrams.
    Datagrams(Rc<DatagramSocket>),
    /// A connection of an exposed port.
    Plain(Rc<TcpStream>),
}

/// A row for each socket, those that listen first.
pub(super) async fn rows(bus: &Bus, parts: &[&dyn super::Sockets]) -> Value {
    let of_bus = bus.links().into_iter().map(|(peer, link)| HeldSocket {
        role: "connection",
        peer: Some(peer),
        socket: Held::Connection(link),
    });
    let mut held: Vec<HeldSocket> = parts.iter().flat_map(|part| part.sockets()).chain(of_bus).collect();
    held.sort_by_key(|socket| !matches!(socket.socket, Held::Listener(_)));
    let mut rows = Vec::with_capacity(held.len());
    for (number, socket) in held.iter().enumerate() {
        rows.push(row(socket));
        if number % LOOK_BUDGET == LOOK_BUDGET - 1 {
            tokio::task::yield_now().await;
        }
    }
    rows.into()
}

fn row(held: &HeldSocket) -> Value {
    match &held.socket {
        Held::Listener(listener) => described(held, &**listener),
        Held::Connection(link) => described(held, &**link),
        Held::Datagrams(socket) => described(held, socket.socket()),
        Held::Plain(stream) => {
            use std::os::fd::AsFd;
            described(held, &stream.as_fd())
        }
    }
}

/// What the kernel does not say is null.
fn described(held: &HeldSocket, socket: &impl Socket) -> Value {
    json!({
        "role": held.role,
        "peer_id": held.peer.map(|peer| peer.0),
        "fd": socket.as_fd().as_raw_fd(),
        "family": socket.family().ok().map(|family| family.to_string()),
        "type": socket.socket_type().ok().map(|kind| kind.to_string()),
        "protocol": socket.protocol().ok().map(|protocol| protocol.to_string()),
        "local": socket.local_address().ok().and_then(shown),
        "peer": socket.peer_address().ok().and_then(shown),
        "options": options(socket),
        "receive_queue": socket.receive_queue().ok(),
        "send_queue": socket.send_queue().ok(),
    })
}

fn shown(address: SocketAddress) -> Option<String> {
    match address {
        SocketAddress::Unnamed => None,
        named => Some(named.to_string()),
    }
}

fn options(socket: &impl Socket) -> Map<String, Value> {
    let value = |setting| match setting {
        Setting::Flag(flag) => Value::from(flag),
        Setting::Number(number) => Value::from(number),
    };
    settings(socket.as_fd()).into_iter().map(|(name, setting)| (name.to_owned(), value(setting))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_core::transport::Stream;

    #[test]
    fn a_row_has_what_scripts_rely_on() {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_address().unwrap().to_string();
        let held = HeldSocket { role: "listener", peer: None, socket: Held::Listener(Rc::new(listener)) };
        let listening = row(&held);
        assert_eq!((&listening["family"], &listening["type"]), (&json!("AF_INET"), &json!("SOCK_STREAM")));
        assert_eq!((&listening["protocol"], &listening["local"]), (&json!("IPPROTO_TCP"), &json!(address)));
        assert_eq!(
            (&listening["peer"], &listening["options"]["SO_ACCEPTCONN"]),
            (&Value::Null, &json!(true))
        );
        assert!(listening["fd"].is_u64() && listening["receive_queue"].is_null());

        let (ours, theirs) = Stream::pair().unwrap();
        theirs.send_all(b"12345").unwrap();
        let link = Held::Connection(Rc::new(Link::new(ours, None)));
        let connected = row(&HeldSocket { role: "connection", peer: Some(PeerId(7)), socket: link });
        assert_eq!((&connected["family"], &connected["protocol"]), (&json!("AF_UNIX"), &json!("0")));
        assert_eq!((&connected["receive_queue"], &connected["send_queue"]), (&json!(5), &json!(0)));
        assert_eq!((&connected["peer_id"], &connected["role"]), (&json!(7), &json!("connection")));
        assert!(connected["options"]["SO_SNDBUF"].as_u64().is_some_and(|bytes| bytes > 0));
    }
}
