//! The sockets that clients of the bus connect to, opened and closed while the daemon runs.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use ipc_core::transport::socket::Half;
use ipc_core::transport::{Listener as Socket, Socket as _, inet};
use ipc_core::{Error, ErrorCode};
use tokio::task::{JoinHandle, spawn_local};

use super::listener::Listener;
use crate::admin::{Held, HeldSocket, ListenAddress, Sockets};
use crate::broker::Transport;
use crate::bus::Bus;
use crate::failure::Failure;

/// The kind of address that processes of this machine connect to.
const UNIX_STREAM: &str = "unix_stream";

/// A listener with its loop.
struct Door {
    listener: Rc<Listener>,
    task: JoinHandle<()>,
}

impl Door {
    fn open(listener: Listener) -> Self {
        let listener = Rc::new(listener);
        let accepting = Rc::clone(&listener);
        let task = spawn_local(async move { accepting.run().await });
        Self { listener, task }
    }

    fn shown_address(&self) -> Option<String> {
        self.listener.socket().local_address().ok().map(|address| address.to_string())
    }

    fn held(&self) -> HeldSocket {
        let socket = Held::Listener(Rc::clone(self.listener.socket()));
        HeldSocket { role: "listener", peer: None, socket }
    }
}

/// A TCP door that is open or about to be.
pub(super) struct TcpDoor {
    /// What the configuration says; the port may be 0.
    configured: SocketAddr,
    door: Door,
}

impl TcpDoor {
    /// Whoever connects from here on is refused; who has been let in is closed.
    fn close(self, bus: &Bus) {
        self.door.task.abort();
        self.stop_listening();
        let reason = Error::new(ErrorCode::ShuttingDown, "the bus is not offered over TCP any more")
            .with_hint("its configuration has changed; connect over its socket");
        bus.turn(|broker, _| broker.close_transport(Transport::Tcp, &reason));
    }

    /// At once, and not only when the aborted task has let go of the socket.
    fn stop_listening(&self) {
        if let Err(error) = self.door.listener.socket().shutdown(Half::Both) {
            tracing::debug!(address = %self.configured, "cannot stop listening before the socket is closed: {error}");
        }
    }
}

/// What a changed configuration asks for.
pub(super) enum TcpChange {
    /// Nothing else than before.
    Same,
    /// This, instead of what there was.
    Other(Option<TcpDoor>),
}

/// The doors of this daemon; clones are handles to the same ones.
#[derive(Clone)]
pub(super) struct Doors(Rc<Inner>);

struct Inner {
    bus: Bus,
    local: RefCell<Vec<Door>>,
    tcp: RefCell<Option<TcpDoor>>,
}

impl Doors {
    /// None yet.
    pub(super) fn new(bus: Bus) -> Self {
        Self(Rc::new(Inner { bus, local: RefCell::default(), tcp: RefCell::default() }))
    }

    /// Lets processes of this machine in.
    ///
    /// # Errors
    /// 74 when the runtime cannot watch a socket.
    pub(super) fn open_local(&self, sockets: Vec<Socket>) -> Result<(), Failure> {
        for socket in sockets {
            let door = Door::open(Listener::local(self.0.bus.clone(), socket)?);
            self.0.local.borrow_mut().push(door);
        }
        Ok(())
    }

    /// Opens what `configured` asks for beside what there is; [`apply`](Doors::apply) makes it so.
    ///
    /// # Errors
    /// `io` or `permission_denied` when the system does not give the port; nothing has changed then.
    pub(super) fn prepare(&self, configured: Option<SocketAddr>) -> Result<TcpChange, Error> {
        if self.0.tcp.borrow().as_ref().map(|open| open.configured) == configured {
            return Ok(TcpChange::Same);
        }
        let Some(configured) = configured else { return Ok(TcpChange::Other(None)) };
        let listener = inet::listen(configured)
            .and_then(|socket| Listener::network(self.0.bus.clone(), socket))
            .map_err(|error| cannot_listen(configured, &error))?;
        Ok(TcpChange::Other(Some(TcpDoor { configured, door: Door::open(listener) })))
    }

    /// Makes it so.
    pub(super) fn apply(&self, change: TcpChange) {
        let TcpChange::Other(door) = change else { return };
        let before = self.0.tcp.replace(door);
        if let Some(before) = before {
            before.close(&self.0.bus);
        }
    }

    /// Lets nobody in any more. Whoever has found a socket already and waits to be accepted is told that the daemon stops.
    /// `AF_UNIX` sockets that are not `ours`, because they were handed over, stay open elsewhere, for the daemon's
    /// successor: those who wait there are left to it.
    pub(super) fn close(&self, is_ours: bool) {
        for door in self.0.local.take() {
            door.task.abort();
            if is_ours {
                door.listener.turn_away();
            }
        }
        if let Some(tcp) = self.0.tcp.take() {
            tcp.door.task.abort();
            tcp.door.listener.turn_away();
            tcp.stop_listening();
        }
    }

    /// Where clients connect, for people.
    pub(super) fn shown_addresses(&self) -> String {
        let shown = self.addresses().into_iter().map(|listen| match listen.kind {
            UNIX_STREAM => format!("unix:{}", listen.address),
            kind => format!("{kind}:{}", listen.address),
        });
        shown.collect::<Vec<_>>().join(" ")
    }
}

impl Sockets for Doors {
    fn addresses(&self) -> Vec<ListenAddress> {
        let local = self.0.local.borrow();
        let tcp = self.0.tcp.borrow();
        let local = local.iter().map(|door| (UNIX_STREAM, door));
        let doors = local.chain(tcp.iter().map(|open| (Transport::Tcp.name(), &open.door)));
        doors
            .filter_map(|(kind, door)| Some(ListenAddress { kind, address: door.shown_address()? }))
            .collect()
    }

    fn sockets(&self) -> Vec<HeldSocket> {
        let local = self.0.local.borrow();
        let tcp = self.0.tcp.borrow();
        local.iter().chain(tcp.iter().map(|open| &open.door)).map(Door::held).collect()
    }
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> Error {
    let (code, hint) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            ErrorCode::Io,
            "another program listens there: stop it, or write another port; 0 takes any free one",
        ),
        io::ErrorKind::PermissionDenied => {
            (ErrorCode::PermissionDenied, "ports below 1024 need CAP_NET_BIND_SERVICE: write a higher one")
        }
        _ => (ErrorCode::Io, "see whether this machine has that kind of address"),
    };
    Error::new(code, format!("cannot listen on {address} for the bus: {error}")).with_hint(hint)
}
