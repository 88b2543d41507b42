//! The sockets that clients of the bus connect to, opened and closed while the daemon runs.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;

use ipc_core::limits::Limits;
use ipc_core::transport::process::Inherited;
use ipc_core::transport::socket::Half;
use ipc_core::transport::{Socket as _, inet, unix};
use ipc_core::{Error, ErrorCode};
use tokio::task::{JoinHandle, spawn_local};

use super::datagram::{DatagramSocket, Keeper};
use super::listener::Listener;
use crate::admin::{Held, HeldSocket, ListenAddress, Sockets};
use crate::broker::Transport;
use crate::bus::Bus;
use crate::bus::reaper::Reaper;
use crate::datagram;
use crate::failure::Failure;
use crate::net;

/// The kind of address that processes of this machine connect to.
const UNIX_STREAM: &str = "unix_stream";
/// The kind of address that they send datagrams to.
const UNIX_DATAGRAM: &str = "unix_datagram";

/// A listener with its loop.
struct Door {
    listener: Rc<Listener>,
    task: JoinHandle<()>,
}

impl Door {
    /// Accepts until it is dropped.
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

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A TCP door that is open or about to be.
struct TcpDoor {
    /// What the configuration says; the port may be 0.
    configured: SocketAddr,
    door: Door,
}

impl TcpDoor {
    /// Whether this is what `wanted` asks for: as it was written, or where it has come to be.
    fn is_at(&self, wanted: SocketAddr) -> bool {
        self.configured == wanted
            || self.door.shown_address().is_some_and(|address| address == wanted.to_string())
    }

    /// Whoever connects from here on is refused; who has been let in stays.
    fn close(self) {
        self.stop_listening();
    }

    /// Whoever connects from here on is refused; who has been let in is closed.
    fn close_for_good(self, bus: &Bus) {
        self.close();
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

/// A UDP door that is open or about to be.
struct UdpDoor {
    /// What the configuration says; the port may be 0.
    configured: SocketAddr,
    keeper: Keeper,
}

impl UdpDoor {
    /// As for [`TcpDoor`].
    fn is_at(&self, wanted: SocketAddr) -> bool {
        self.configured == wanted
            || self.keeper.shown_address().is_some_and(|address| address == wanted.to_string())
    }
}

impl Drop for UdpDoor {
    fn drop(&mut self) {
        self.keeper.close();
    }
}

/// What a changed configuration asks for at one of the doors.
enum Wanted<T> {
    /// Nothing else than before.
    Same,
    /// This, instead of what there was.
    Other(Option<T>),
}

/// What a changed configuration asks for.
pub(super) struct Change {
    tcp: Wanted<TcpDoor>,
    udp: Wanted<UdpDoor>,
}

/// The doors of this daemon; clones are handles to the same ones.
#[derive(Clone)]
pub(super) struct Doors(Rc<Inner>);

struct Inner {
    bus: Bus,
    /// What senders of datagrams are received with.
    datagrams: datagram::Config,
    local: RefCell<Vec<Door>>,
    tcp: RefCell<Option<TcpDoor>>,
    /// Local datagram sockets.
    mail: RefCell<Vec<Keeper>>,
    udp: RefCell<Option<UdpDoor>>,
}

impl Doors {
    /// None yet.
    pub(super) fn new(bus: Bus, datagrams: datagram::Config) -> Self {
        Self(Rc::new(Inner {
            bus,
            datagrams,
            local: RefCell::default(),
            tcp: RefCell::default(),
            mail: RefCell::default(),
            udp: RefCell::default(),
        }))
    }

    /// Lets processes of this machine in.
    ///
    /// # Errors
    /// 74 when the runtime cannot watch a socket.
    pub(super) fn open_local(&self, sockets: Inherited) -> Result<(), Failure> {
        for socket in sockets.streams {
            let reaper = self.reaper_for(&socket)?;
            let door = Door::open(Listener::local(self.0.bus.clone(), socket, reaper)?);
            self.0.local.borrow_mut().push(door);
        }
        for socket in sockets.datagrams {
            let reaper = self.reaper_for(&socket)?;
            let keeper = self.keep(DatagramSocket::local(socket, reaper))?;
            self.0.mail.borrow_mut().push(keeper);
        }
        Ok(())
    }

    /// Who closes what comes along with that socket, unless the kernel keeps it out.
    fn reaper_for(&self, socket: impl AsFd) -> Result<Option<Reaper>, Failure> {
        if unix::refuse_descriptors(socket)? {
            return Ok(None);
        }
        let waiting_max = self.0.bus.look(|broker| broker.limits().descriptors_unclosed_max);
        Reaper::start(waiting_max).map(Some).map_err(|error| Failure::io("start a thread", error))
    }

    /// Each socket has a door of its own: what comes from the network cannot take the room of what is local.
    fn keep(&self, socket: DatagramSocket) -> Result<Keeper, Failure> {
        Keeper::start(&self.0.bus, socket, self.0.datagrams.clone())
            .map_err(|error| Failure::io("watch a datagram socket", error))
    }

    /// Other limits for senders of datagrams and of descriptors.
    pub(super) fn set_limits(&self, limits: &Limits) {
        self.0.local.borrow().iter().for_each(|door| door.listener.set_limits(limits));
        self.each_keeper(|keeper| keeper.set_limits(limits.clone()));
    }

    fn each_keeper(&self, act: impl FnMut(&Keeper)) {
        let (mail, udp) = (self.0.mail.borrow(), self.0.udp.borrow());
        mail.iter().chain(udp.iter().map(|open| &open.keeper)).for_each(act);
    }

    /// Completes when no sender of datagrams has a connection to the bus any more. Cancel safe.
    pub(super) async fn deserted(&self) {
        let mut keepers = Vec::new();
        self.each_keeper(|keeper| keepers.push(keeper.clone()));
        for keeper in keepers {
            keeper.deserted().await;
        }
    }

    /// Opens what `tcp` and `udp` ask for beside what there is; [`apply`](Doors::apply) makes it so.
    ///
    /// # Errors
    /// `io` or `permission_denied` when the system does not give a port; nothing has changed then.
    pub(super) fn prepare(&self, tcp: Option<SocketAddr>, udp: Option<SocketAddr>) -> Result<Change, Error> {
        Ok(Change { tcp: self.prepare_tcp(tcp)?, udp: self.prepare_udp(udp)? })
    }

    fn prepare_tcp(&self, configured: Option<SocketAddr>) -> Result<Wanted<TcpDoor>, Error> {
        let Some(configured) = configured else { return Ok(Wanted::Other(None)) };
        if self.0.tcp.borrow().as_ref().is_some_and(|open| open.is_at(configured)) {
            return Ok(Wanted::Same);
        }
        let listener = inet::listen(configured)
            .and_then(|socket| Listener::network(self.0.bus.clone(), socket))
            .map_err(|error| net::cannot_listen(configured, "for the bus", &error))?;
        Ok(Wanted::Other(Some(TcpDoor { configured, door: Door::open(listener) })))
    }

    fn prepare_udp(&self, configured: Option<SocketAddr>) -> Result<Wanted<UdpDoor>, Error> {
        let Some(configured) = configured else { return Ok(Wanted::Other(None)) };
        if self.0.udp.borrow().as_ref().is_some_and(|open| open.is_at(configured)) {
            return Ok(Wanted::Same);
        }
        let keeper = DatagramSocket::network(configured)
            .and_then(|socket| Keeper::start(&self.0.bus, socket, self.0.datagrams.clone()))
            .map_err(|error| net::cannot_listen(configured, "for the bus", &error))?;
        Ok(Wanted::Other(Some(UdpDoor { configured, keeper })))
    }

    /// Makes it so. Connections over TCP outlive the port that they came by, but not the end of TCP.
    pub(super) fn apply(&self, change: Change) {
        if let Wanted::Other(door) = change.tcp {
            let has_moved = door.is_some();
            match self.0.tcp.replace(door) {
                Some(before) if has_moved => before.close(),
                Some(before) => before.close_for_good(&self.0.bus),
                None => {}
            }
        }
        if let Wanted::Other(door) = change.udp {
            // The one before is closed.
            drop(self.0.udp.replace(door));
        }
    }

    /// Lets nobody in any more. Whoever has found a socket already and waits to be accepted is told that the daemon stops.
    /// `AF_UNIX` sockets that are not `ours`, because they were handed over, stay open elsewhere, for the daemon's
    /// successor: those who wait there are left to it.
    pub(super) fn close(&self, is_ours: bool) {
        for door in self.0.local.take() {
            if is_ours {
                door.listener.turn_away();
            }
        }
        if let Some(tcp) = self.0.tcp.take() {
            tcp.door.listener.turn_away();
            tcp.stop_listening();
        }
        self.each_keeper(Keeper::begin_drain);
    }

    /// Where clients connect, for people.
    pub(super) fn shown_addresses(&self) -> String {
        let shown = self.addresses().into_iter().map(|listen| match listen.kind {
            UNIX_STREAM => format!("unix:{}", listen.address),
            UNIX_DATAGRAM => format!("dgram:{}", listen.address),
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
        let mut listens: Vec<ListenAddress> = doors
            .filter_map(|(kind, door)| Some(ListenAddress { kind, address: door.shown_address()? }))
            .collect();
        self.each_keeper(|keeper| {
            let kind = if keeper.is_local() { UNIX_DATAGRAM } else { Transport::Udp.name() };
            listens.extend(keeper.shown_address().map(|address| ListenAddress { kind, address }));
        });
        listens
    }

    fn sockets(&self) -> Vec<HeldSocket> {
        let local = self.0.local.borrow();
        let tcp = self.0.tcp.borrow();
        let doors = local.iter().chain(tcp.iter().map(|open| &open.door));
        let mut held: Vec<HeldSocket> = doors.map(Door::held).collect();
        self.each_keeper(|keeper| {
            let socket = keeper.socket().map(Held::Datagrams);
            held.extend(socket.map(|socket| HeldSocket { role: "datagrams", peer: None, socket }));
        });
        held
    }
}
