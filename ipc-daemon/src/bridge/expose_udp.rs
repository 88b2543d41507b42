//! One exposed UDP port: one datagram, one call, one datagram back to where it came from.
//!
//! A call that comes to nothing is answered with silence. Datagrams past a limit are dropped, as a network may drop them:
//! each source has its own share of the port, and each address one of what its sources have together, and whatever comes is read
//! without delay, so that whoever floods takes nothing from the others but room in the kernel's buffer. Where addresses can be
//! forged, whoever forges them has the share of each.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use ipc_core::transport::{clock, packet_info};
use ipc_core::{Error, ErrorCode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde_json::{Value, json};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, Sleep};

use super::caller::{Caller, Outcome};
use super::counter::Counter;
use super::failure::{cannot_listen, loggable};
use super::origin::Origin;
use super::source::{Source, Sources, Way};
use super::spec::expose::ExposeSpec;
use crate::admin::{Held, HeldSocket};
use crate::broker::Transport;
use crate::broker::ledger::Ledger;
use crate::bus::Bus;
use crate::logging::rate::RateLimit;

/// Datagrams read before others have their turn.
const RECEIVE_BUDGET: u32 = 64;

/// What the sources of a port share.
struct Port {
    bus: Bus,
    spec: ExposeSpec,
    address: SocketAddr,
    socket: Rc<UdpSocket>,
    sources: RefCell<Sources>,
    /// Calls that are open, by where they come from.
    open_calls: RefCell<Ledger<Origin>>,
    /// Bytes of the datagrams behind them.
    pending_bytes: RefCell<Ledger<Origin>>,
    counters: Counters,
    log: RateLimit,
    /// Told once when no more datagrams are to be read.
    draining: Notify,
}

/// What a port has seen.
#[derive(Debug, Default)]
struct Counters {
    /// Calls ever made.
    calls: Counter,
    /// Datagrams that became no call, because a limit was reached.
    dropped: Counter,
    /// Calls that came to nothing: an error, or a missed deadline.
    errors: Counter,
    /// Replies that do not fit into a datagram.
    too_long: Counter,
    /// Replies that the system did not send.
    unsent: Counter,
    /// Bytes ever received.
    bytes_in: Counter,
    /// Bytes ever sent.
    bytes_out: Counter,
}

/// A port that listens. Dropping it without [`close`](OpenPort::close) leaves it alone.
pub(super) struct OpenPort {
    port: Rc<Port>,
    task: JoinHandle<()>,
}

impl OpenPort {
    /// Listens as `spec` says.
    ///
    /// # Errors
    /// `io` or `permission_denied` when the system does not give the port.
    pub(super) fn open(bus: &Bus, spec: ExposeSpec) -> Result<Self, Error> {
        let socket = bind(spec.address)
            .map_err(|errno| cannot_listen(spec.address, &spec, &io::Error::from(errno)))?;
        Self::start(bus, spec, socket)
    }

    /// Listens as `spec` says on the socket of this port, which is to be closed then: no datagram is lost between.
    ///
    /// # Errors
    /// `io` when the system has no descriptor for it.
    pub(super) fn open_in_place(&self, spec: ExposeSpec) -> Result<Self, Error> {
        let socket = rustix::io::fcntl_dupfd_cloexec(&*self.port.socket, 3)
            .map_err(|errno| cannot_listen(spec.address, &spec, &io::Error::from(errno)))?;
        Self::start(&self.port.bus, spec, socket.into())
    }

    fn start(bus: &Bus, spec: ExposeSpec, socket: StdUdpSocket) -> Result<Self, Error> {
        let failed = |error: io::Error| cannot_listen(spec.address, &spec, &error);
        let address = socket.local_addr().map_err(failed)?;
        let socket = Rc::new(UdpSocket::from_std(socket).map_err(failed)?);
        let port = Rc::new(Port {
            bus: bus.clone(),
            spec,
            address,
            socket,
            sources: RefCell::default(),
            open_calls: RefCell::default(),
            pending_bytes: RefCell::default(),
            counters: Counters::default(),
            log: RateLimit::new(clock::now()),
            draining: Notify::new(),
        });
        let task = tokio::task::spawn_local(serve(Rc::clone(&port)));
        Ok(Self { port, task })
    }

    /// Listens no more and cancels every call.
    pub(super) fn close(self) {
        // Its sources end with it.
        self.task.abort();
    }

    /// Reads no more; what is called is still answered.
    pub(super) fn begin_drain(&self) {
        self.port.draining.notify_one();
    }

    /// Whether the drain is over: ready when no call is open any more.
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

    /// Its one socket.
    pub(super) fn sockets(&self) -> Vec<HeldSocket> {
        let socket = Held::Plain(Rc::<UdpSocket>::clone(&self.port.socket));
        vec![HeldSocket { role: "exposed_datagrams", peer: None, socket }]
    }

    /// What is shown of it.
    pub(super) fn row(&self) -> Value {
        let Port { counters, sources, open_calls, pending_bytes, .. } = &*self.port;
        json!({
            "framing": "datagram",
            "sources": sources.borrow().len(),
            "open_calls": open_calls.borrow().total(),
            "pending_bytes": pending_bytes.borrow().total(),
            "calls": counters.calls.get(),
            "dropped": counters.dropped.get(),
            "errors": counters.errors.get(),
            "too_long": counters.too_long.get(),
            "unsent": counters.unsent.get(),
            "bytes_in": counters.bytes_in.get(),
            "bytes_out": counters.bytes_out.get(),
        })
    }
}

/// Reads until the drain begins, then waits for the sources to end, which the bus sees to.
async fn serve(port: Rc<Port>) {
    let mut tasks = JoinSet::new();
    {
        let mut draining = pin!(port.draining.notified());
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        poll_fn(|context| {
            if draining.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            port.read(&mut tasks, context);
            port.forget_idle(timer.as_mut(), context);
            // After the reading, so that new ones are watched too. Those that have ended are forgotten.
            while let Poll::Ready(Some(_)) = tasks.poll_join_next(context) {}
            Poll::Pending
        })
        .await;
    }
    while tasks.join_next().await.is_some() {}
}

impl Port {
    /// Reads what has come, within the budget.
    fn read(self: &Rc<Self>, tasks: &mut JoinSet<()>, context: &mut Context<'_>) {
        for _ in 0..RECEIVE_BUDGET {
            match self.socket.poll_recv_ready(context) {
                Poll::Ready(Ok(())) => {}
                // The runtime is going away, and this task with it.
                Poll::Ready(Err(_)) | Poll::Pending => return,
            }
            let received = {
                let mut scratch = self.bus.scratch().borrow_mut();
                let received = self.receive(&mut scratch);
                received.map(|(length, way)| (Bytes::copy_from_slice(&scratch[..length]), way))
            };
            // An error concerns a datagram sent before, or says that there is nothing to read.
            let Ok((datagram, way)) = received else { continue };
            self.counters.bytes_in.add(datagram.len());
            if let Err(reason) = self.call(datagram, way, tasks) {
                self.counters.dropped.add(1);
                self.log.line(|held_back| {
                    tracing::warn!(held_back, client = %way.client, address = %self.address, "dropped a datagram: {reason}");
                });
            }
        }
        context.waker().wake_by_ref();
    }

    /// Receives one datagram, at once or not at all. A port of every address of this machine is told by which it came.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Way)> {
        if !self.address.ip().is_unspecified() {
            let (length, client) = self.socket.try_recv_from(buffer)?;
            return Ok((length, Way { client, local: None }));
        }
        self.socket.try_io(Interest::READABLE, || {
            let arrival = packet_info::receive(&*self.socket, buffer)?;
            Ok((arrival.bytes, Way { client: arrival.sender, local: arrival.local }))
        })
    }

    /// Makes a datagram a call.
    ///
    /// # Errors
    /// Why it is dropped.
    fn call(self: &Rc<Self>, datagram: Bytes, way: Way, tasks: &mut JoinSet<()>) -> Result<(), Error> {
        let (length, origin) = (datagram.len() as u64, way.origin());
        let [calls_max, source_calls_max, bytes_max] = self.bus.look(|broker| {
            let limits = broker.limits();
            [
                limits.expose_udp_calls_max,
                limits.expose_udp_calls_per_source_max,
                limits.expose_udp_pending_max_bytes,
            ]
        });
        let calls = self.open_calls.borrow().standing(origin);
        calls.check(1, "expose_udp_calls_max", calls_max.into(), false)?;
        let bytes = self.pending_bytes.borrow().standing(origin);
        bytes.check(length, "expose_udp_pending_max_bytes", bytes_max.into(), false)?;
        let source = self.source(way, tasks)?;
        if source.open_calls() >= source_calls_max as usize {
            return Err(Error::quota("expose_udp_calls_per_source_max", source_calls_max.into()));
        }
        source.call(datagram)?;
        self.sources.borrow_mut().busy(&source);
        self.counters.calls.add(1);
        self.open_calls.borrow_mut().add(origin, 1);
        self.pending_bytes.borrow_mut().add(origin, length);
        Ok(())
    }

    /// The source whose datagrams come that way, where it may have a call; a new one takes the place of one that is idle, when
    /// there are too many.
    ///
    /// # Errors
    /// `quota_exceeded` when too many are busy; the broker's refusal, as for any connection.
    fn source(self: &Rc<Self>, way: Way, tasks: &mut JoinSet<()>) -> Result<Rc<Source>, Error> {
        let (mut sources, origin) = (self.sources.borrow_mut(), way.origin());
        let max = self.bus.look(|broker| broker.limits().expose_udp_sources_max);
        let known = sources.get(way);
        if known.as_ref().is_none_or(|source| source.open_calls() == 0) {
            sources.check_busy(origin, max)?;
        }
        if let Some(source) = known {
            return Ok(source);
        }
        sources.make_room(origin, max);
        let caller = Caller::connect(&self.bus, &self.spec.target, way.client, Transport::ExposeUdp)?;
        let source = Rc::new(Source::new(way, caller));
        let task = tasks.spawn_local(answer(Rc::clone(self), Rc::clone(&source)));
        sources.insert(Rc::clone(&source), task, Instant::now());
        Ok(source)
    }

    /// A call of `source` is over.
    fn conclude(&self, source: &Source, length: usize, outcome: Outcome) {
        let origin = source.way.origin();
        self.open_calls.borrow_mut().remove(origin, 1);
        self.pending_bytes.borrow_mut().remove(origin, length as u64);
        if source.open_calls() == 0 {
            self.sources.borrow_mut().idle(source, Instant::now());
        }
        let sent = match outcome {
            Ok(reply) => self.send(source.way, &reply.body),
            Err(error) if error.code == ErrorCode::ShuttingDown => Ok(()),
            Err(error) => {
                self.counters.errors.add(1);
                Err(error)
            }
        };
        if let Err(error) = sent {
            self.log.line(|held_back| {
                let (client, reason) = (source.way.client, loggable(&error));
                tracing::warn!(held_back, %client, address = %self.address, "left a datagram unanswered: {reason}");
            });
        }
    }

    /// Sends a reply, at once or not at all, from where it was asked for.
    fn send(&self, way: Way, reply: &[u8]) -> Result<(), Error> {
        let sent = match way.local {
            None => self.socket.try_send_to(reply, way.client),
            Some(local) => self.socket.try_io(Interest::WRITABLE, || {
                packet_info::send(&*self.socket, reply, way.client, local).map_err(io::Error::from)
            }),
        };
        match sent {
            Ok(sent) => {
                self.counters.bytes_out.add(sent);
                Ok(())
            }
            Err(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => {
                self.counters.too_long.add(1);
                let message = format!("a reply of {} bytes does not fit into a datagram", reply.len());
                Err(Error::new(ErrorCode::PayloadTooLarge, message))
            }
            Err(error) => {
                self.counters.unsent.add(1);
                Err(Error::new(ErrorCode::Io, format!("the system did not send the reply: {error}")))
            }
        }
    }

    /// Forgets the sources that have been idle for too long, and has the timer wake us when the next one will have been.
    fn forget_idle(&self, mut timer: Pin<&mut Sleep>, context: &mut Context<'_>) {
        let idle_max =
            Duration::from_millis(self.bus.look(|broker| broker.limits().expose_idle_timeout_ms).into());
        let mut sources = self.sources.borrow_mut();
        while sources.len() > 0 {
            let now = Instant::now();
            // One that is busy now cannot have been idle for that long any earlier.
            let due = sources.idle_since().unwrap_or(now) + idle_max;
            if due <= now {
                sources.forget_idlest();
                continue;
            }
            if timer.is_elapsed() || due < timer.deadline() {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(context).is_pending() {
                return;
            }
        }
    }
}

/// Answers the calls of a source until the bus closes its peer.
async fn answer(port: Rc<Port>, source: Rc<Source>) {
    while let Ok((length, outcome)) = poll_fn(|context| source.poll_outcome(context)).await {
        port.conclude(&source, length, outcome);
    }
    port.sources.borrow_mut().forget(&source);
}

/// A socket that is bound and does not block.
fn bind(address: SocketAddr) -> Result<StdUdpSocket, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    rustix::net::bind(&socket, &address)?;
    if address.ip().is_unspecified() {
        packet_info::ask(&socket)?;
    }
    Ok(socket.into())
}
