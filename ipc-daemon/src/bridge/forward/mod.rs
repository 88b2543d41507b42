//! SHELL. A server of the network that appears on the bus as a service with the method `send`: payload out, reply back.
//!
//! | file | noun |
//! |---|---|
//! | `line` | the calls that are under way, and those that wait for their turn |
//! | `exchange`, `tcp`, `udp` | one call with its server |
//! | `pool` | connections that may carry another call, source ports that never may |
//! | `resolver` | the addresses of a server |
//! | `room` | the memory of replies while they arrive |
//! | `failure` | what goes wrong with a server |
//!
//! The time a call has left bounds all of it. A connection or a source port on which a call was not answered in full, for
//! whatever reason, is not used again.

mod exchange;
mod failure;
mod line;
mod pool;
mod resolver;
mod room;
mod tcp;
mod udp;

use core::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use ipc_core::Error;
use ipc_core::name::MethodName;
use ipc_core::session::{InboundKey, Incoming, Offer, OfferedMethod};
use ipc_core::transport::clock;
use ipc_core::wire::message::RegisterMode;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::counter::Counter;
use super::open_sockets::OpenSockets;
use super::plain_payload;
use super::spec::forward::{ForwardSpec, METHOD, Protocol};
use crate::admin::HeldSocket;
use crate::broker::{Access, Transport};
use crate::bus::Bus;
use crate::bus::service::{Request, Service};
use crate::logging::rate::RateLimit;
use line::Line;
use pool::Pool;
use resolver::Resolver;

/// What the calls of a forward share.
struct Forward {
    bus: Bus,
    spec: ForwardSpec,
    /// The server as it is written.
    server: String,
    service: Service,
    resolver: Rc<Resolver>,
    pool: Pool,
    /// The sockets to the server, whatever they are doing.
    open_sockets: OpenSockets,
    /// Bytes of replies that are arriving.
    pending_bytes: Rc<Cell<usize>>,
    waiting: Cell<usize>,
    counters: Counters,
    log: RateLimit,
}

/// What a forward has seen.
#[derive(Debug, Default)]
struct Counters {
    /// Calls that are under way.
    open_calls: Counter,
    /// Calls ever begun.
    calls: Counter,
    /// Calls refused because too many waited.
    refused: Counter,
    /// Calls that ended with an error, late ones too.
    errors: Counter,
    /// Calls that were not answered in time.
    late: Counter,
    /// Calls whose caller did not want the answer any more.
    cancelled: Counter,
    /// Connections ever made, and source ports ever used.
    connected: Counter,
    /// Bytes ever received.
    bytes_in: Counter,
    /// Bytes ever sent.
    bytes_out: Counter,
}

/// A forward that is on the bus. To be [closed](OpenForward::close).
pub(super) struct OpenForward {
    forward: Rc<Forward>,
    task: JoinHandle<()>,
}

impl OpenForward {
    /// Puts a server on the bus. It is not spoken to before the first call.
    ///
    /// # Errors
    /// `name_taken` when the service is somebody else's, and whatever else a registration is refused for.
    pub(super) fn open(bus: &Bus, spec: ForwardSpec) -> Result<Self, Error> {
        Self::start(bus, spec, false)
    }

    /// The same in the place of this forward, which is to be closed then: the name goes over to the new one at once.
    ///
    /// # Errors
    /// As for [`open`](OpenForward::open).
    pub(super) fn open_in_place(&self, spec: ForwardSpec) -> Result<Self, Error> {
        Self::start(&self.forward.bus, spec, true)
    }

    fn start(bus: &Bus, spec: ForwardSpec, queue: bool) -> Result<Self, Error> {
        let access = Access::Offer { service: spec.service.clone() };
        let service = Service::register(bus, Transport::Forward, access, offer(&spec, queue)?)?;
        let forward = Rc::new(Forward {
            bus: bus.clone(),
            server: spec.server(),
            service,
            resolver: Resolver::new(spec.host.clone(), spec.port),
            spec,
            pool: Pool::default(),
            open_sockets: OpenSockets::default(),
            pending_bytes: Rc::default(),
            waiting: Cell::new(0),
            counters: Counters::default(),
            log: RateLimit::new(clock::now()),
        });
        let task = tokio::task::spawn_local(serve(Rc::clone(&forward)));
        Ok(Self { forward, task })
    }

    /// Takes the service from the bus and ends its calls.
    pub(super) fn close(self) {
        self.task.abort();
    }

    /// Whether it has ended: the bus has closed it.
    pub(super) fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // Ended is ended, by whatever means.
        Pin::new(&mut self.task).poll(context).map(|_| ())
    }

    /// How it was written.
    pub(super) fn spec(&self) -> &ForwardSpec {
        &self.forward.spec
    }

    /// The word for what it is.
    pub(super) fn kind(&self) -> &'static str {
        match self.forward.spec.protocol {
            Protocol::Tcp(_) => "forward_tcp",
            Protocol::Udp => "forward_udp",
        }
    }

    /// Its sockets: to its server, under way and idle, and those that are kept closed to everybody.
    pub(super) fn sockets(&self) -> Vec<HeldSocket> {
        self.forward.open_sockets.held("forwarded")
    }

    /// What is shown of it.
    pub(super) fn row(&self) -> Value {
        let Forward { spec, counters, pool, pending_bytes, waiting, .. } = &*self.forward;
        json!({
            "framing": spec.framing_name(),
            "open_calls": counters.open_calls.get(),
            "waiting": waiting.get(),
            "idle": pool.idle(),
            "pending_bytes": pending_bytes.get(),
            "calls": counters.calls.get(),
            "refused": counters.refused.get(),
            "errors": counters.errors.get(),
            "late": counters.late.get(),
            "cancelled": counters.cancelled.get(),
            "connected": counters.connected.get(),
            "bytes_in": counters.bytes_in.get(),
            "bytes_out": counters.bytes_out.get(),
        })
    }
}

fn offer(spec: &ForwardSpec, queue: bool) -> Result<Offer, Error> {
    let description = format!(
        "sends the payload to {} and answers with what comes back (framing {})",
        spec.server(),
        spec.framing_name()
    );
    Ok(Offer {
        service: spec.service.clone(),
        mode: RegisterMode::Exclusive,
        queue,
        methods: vec![OfferedMethod { name: MethodName::parse(METHOD)?, description }],
    })
}

/// Serves calls until the bus closes the connection.
async fn serve(forward: Rc<Forward>) {
    let mut line = Line::default();
    let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
    poll_fn(|context| {
        // First, so that a call that follows on another finds its place.
        line.poll_ended(&forward, context);
        loop {
            match forward.service.poll_next(context) {
                Poll::Ready(Some(Request::Call(call))) => line.take(&forward, call),
                Poll::Ready(Some(Request::Cancelled(key))) => line.cancel(&forward, key),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        line.poll_ended(&forward, context);
        forward.waiting.set(line.waiting());
        let idle_max = forward.bus.look(|broker| broker.limits().forward_idle_timeout_ms);
        forward.pool.poll_tend(Duration::from_millis(idle_max.into()), timer.as_mut(), context);
        Poll::Pending
    })
    .await;
}

impl Forward {
    /// Answers one call.
    async fn serve(self: Rc<Self>, call: Incoming) -> InboundKey {
        let open = OpenCall::new(&self.counters);
        let outcome = exchange::answer(&self, &call).await;
        drop(open);
        if let Err(error) = &outcome {
            self.counters.errors.add(1);
            self.log.line(|held_back| {
                tracing::warn!(held_back, service = %self.spec.service, "a forwarded call failed: {error}");
            });
        }
        self.service.reply(call.key, outcome.map(plain_payload));
        call.key
    }

    /// Keeps a connection for another call.
    fn keep(&self, stream: Rc<TcpStream>) {
        self.pool.put(stream, self.bus.look(|broker| broker.limits().forward_idle_max) as usize);
    }
}

/// Counts a call as open, however it ends.
struct OpenCall<'a>(&'a Counters);

impl<'a> OpenCall<'a> {
    fn new(counters: &'a Counters) -> Self {
        counters.calls.add(1);
        counters.open_calls.add(1);
        Self(counters)
    }
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        self.0.open_calls.sub(1);
    }
}
