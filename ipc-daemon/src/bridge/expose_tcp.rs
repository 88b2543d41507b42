//! One exposed TCP port: listening, accepting, counting.

use core::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use ipc_core::transport::socket::Half;
use ipc_core::transport::{Listener, Socket, SocketAddress, Stream, clock, inet};
use ipc_core::{Error, ErrorCode};
use rustix::io::Errno;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

use super::caller::Caller;
use super::connection::Connection;
use super::counter::Counter;
use super::failure::cannot_listen;
use super::open_sockets::OpenSockets;
use super::origin::Origin;
use super::spec::expose::{ExposeSpec, TcpDoor};
use super::unread::Unread;
use crate::admin::{Held, HeldSocket};
use crate::broker::Transport;
use crate::broker::ledger::Ledger;
use crate::bus::Bus;
use crate::logging::rate::RateLimit;
use crate::net::accept::{Acceptor, Arrival};

/// What the connections of a port share.
pub(super) struct Port {
    pub(super) bus: Bus,
    pub(super) spec: ExposeSpec,
    pub(super) door: TcpDoor,
    pub(super) address: SocketAddr,
    pub(super) counters: Counters,
    /// Connections that are open, by where they come from.
    pub(super) open: RefCell<Ledger<Origin>>,
    /// What the clients of all ports have not read yet.
    pub(super) unread: Rc<Unread>,
    /// The sockets of the connections.
    open_sockets: OpenSockets,
    pub(super) log: RateLimit,
    /// Told once when no more connections are to be accepted.
    draining: Notify,
}

/// What a port has seen.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Connections ever let in.
    pub(super) accepted: Counter,
    /// Connections ever closed at once, because a limit was reached.
    pub(super) refused: Counter,
    /// Calls ever made.
    pub(super) calls: Counter,
    /// Connections ever closed because of an error or a missed deadline.
    pub(super) errors: Counter,
    /// Bytes ever read from clients.
    pub(super) bytes_in: Counter,
    /// Bytes ever written to clients.
    pub(super) bytes_out: Counter,
}

/// A port that listens. Dropping it without [`close`](OpenPort::close) leaves its connections alone.
pub(super) struct OpenPort {
    port: Rc<Port>,
    listener: Rc<Listener>,
    task: JoinHandle<()>,
}

impl OpenPort {
    /// Listens as `spec` says.
    ///
    /// # Errors
    /// `io` or `permission_denied` when the system does not give the port.
    pub(super) fn open(
        bus: &Bus,
        spec: ExposeSpec,
        door: TcpDoor,
        unread: Rc<Unread>,
    ) -> Result<Self, Error> {
        let listener =
            inet::listen(spec.address).map_err(|error| cannot_listen(spec.address, &spec, &error))?;
        Self::start(bus, spec, door, listener, unread)
    }

    /// Listens as `spec` says on the socket of this port, which is to be [replaced](OpenPort::replaced) then: nobody
    /// else can take it, and those who wait to be accepted are not turned away.
    ///
    /// # Errors
    /// `io` when the system has no descriptor for it.
    pub(super) fn open_in_place(&self, spec: ExposeSpec, door: TcpDoor) -> Result<Self, Error> {
        let listener =
            self.listener.try_clone().map_err(|error| cannot_listen(spec.address, &spec, &error))?;
        Self::start(&self.port.bus, spec, door, listener, Rc::clone(&self.port.unread))
    }

    fn start(
        bus: &Bus,
        spec: ExposeSpec,
        door: TcpDoor,
        listener: Listener,
        unread: Rc<Unread>,
    ) -> Result<Self, Error> {
        let failed = |error: io::Error| cannot_listen(spec.address, &spec, &error);
        let listener = Rc::new(listener);
        let SocketAddress::Inet(address) = listener.local_address().map_err(failed)? else {
            return Err(failed(io::ErrorKind::Unsupported.into()));
        };
        let acceptor = Acceptor::new(Rc::clone(&listener)).map_err(failed)?;
        let port = Rc::new(Port {
            bus: bus.clone(),
            spec,
            door,
            address,
            counters: Counters::default(),
            open: RefCell::default(),
            unread,
            open_sockets: OpenSockets::default(),
            log: RateLimit::new(clock::now()),
            draining: Notify::new(),
        });
        let task = tokio::task::spawn_local(serve(Rc::clone(&port), acceptor));
        Ok(Self { port, listener, task })
    }

    /// Listens no more and closes every connection.
    pub(super) fn close(self) {
        self.stop_listening();
        self.replaced();
    }

    /// Closes every connection; the socket goes on in another port's hands.
    pub(super) fn replaced(self) {
        // Its connections end with it.
        self.task.abort();
    }

    /// Listens no more; the connections stay until they end.
    pub(super) fn begin_drain(&self) {
        self.port.draining.notify_one();
        self.stop_listening();
    }

    /// At once, and not only when the task has had its turn: whoever connects from here on is refused.
    fn stop_listening(&self) {
        if let Err(error) = self.listener.shutdown(Half::Both) {
            tracing::debug!(address = %self.port.address, "cannot stop listening before the socket is closed: {error}");
        }
    }

    /// Whether the drain is over: ready when no connection is open any more.
    pub(super) fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // Ended is ended, by whatever means.
        Pin::new(&mut self.task).poll(context).map(|_| ())
    }

    /// How it was written.
    pub(super) fn spec(&self) -> &ExposeSpec {
        &self.port.spec
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// What is shown of it.
    pub(super) fn row(&self) -> Value {
        let Port { door, counters, open, .. } = &*self.port;
        json!({
            "framing": door.framing.name(),
            "connections": open.borrow().total(),
            "accepted": counters.accepted.get(),
            "refused": counters.refused.get(),
            "calls": counters.calls.get(),
            "errors": counters.errors.get(),
            "bytes_in": counters.bytes_in.get(),
            "bytes_out": counters.bytes_out.get(),
        })
    }

    /// Its sockets, the listening one first.
    pub(super) fn sockets(&self) -> Vec<HeldSocket> {
        let listener = Held::Listener(Rc::clone(&self.listener));
        let mut sockets = vec![HeldSocket { role: "exposed_listener", peer: None, socket: listener }];
        sockets.extend(self.port.open_sockets.held("exposed_connection"));
        sockets
    }
}

impl Port {
    fn refuse(&self, reason: &Error) {
        self.counters.refused.add(1);
        self.log.line(|held_back| {
            tracing::warn!(held_back, address = %self.address, "refused a network connection: {reason}");
        });
    }

    /// Lets a connection in.
    ///
    /// # Errors
    /// Why it is to be closed at once.
    fn admit(self: &Rc<Self>, socket: Stream) -> Result<Connection, Error> {
        let max = self.bus.look(|broker| broker.limits().expose_connections_max);
        let failed = |error| Error::new(ErrorCode::Io, format!("cannot watch the connection: {error}"));
        let stream = TcpStream::from_std(OwnedFd::from(socket).into()).map_err(failed)?;
        let client = stream.peer_addr().map_err(failed)?;
        // Nobody is alone here: whoever else may want to come is not known.
        let standing = self.open.borrow().standing(Origin::of(client.ip()));
        standing.check(1, "expose_connections_max", max.into(), false)?;
        let caller = Caller::connect(&self.bus, &self.spec.target, client, Transport::ExposeTcp)?;
        let stream = Rc::new(stream);
        self.open_sockets.note(&stream);
        Ok(Connection::new(Rc::clone(self), stream, client, caller))
    }
}

/// Accepts until the drain begins, then waits for the connections to end.
async fn serve(port: Rc<Port>, acceptor: Acceptor) {
    let connections = RefCell::new(JoinSet::new());
    {
        let mut accepting = pin!(acceptor.run(
            async || (),
            |arrival| match arrival {
                Arrival::Connection(socket) => match port.admit(socket) {
                    Ok(connection) => drop(connections.borrow_mut().spawn_local(connection.run())),
                    Err(error) => port.refuse(&error),
                },
                Arrival::Exhausted(errno, refused) => {
                    drop(refused);
                    port.refuse(&out_of_resources(errno));
                }
            }
        ));
        let mut draining = pin!(port.draining.notified());
        poll_fn(|context| {
            if draining.as_mut().poll(context).is_ready() || accepting.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            // After the accepting, so that new ones are watched too. Those that have ended are forgotten.
            while let Poll::Ready(Some(_)) = connections.borrow_mut().poll_join_next(context) {}
            Poll::Pending
        })
        .await;
    }
    drop(acceptor);
    let mut connections = connections.into_inner();
    while connections.join_next().await.is_some() {}
}

fn out_of_resources(errno: Errno) -> Error {
    Error::new(ErrorCode::QuotaExceeded, format!("the daemon cannot accept: {errno}"))
        .with_hint("raise the limit of open files of the daemon (RLIMIT_NOFILE)")
}
