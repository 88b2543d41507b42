//! One client of an exposed port: bytes in, one call at a time, bytes out.
//!
//! Reading goes on while a call is under way, up to a bound: so a client that vanishes is noticed, and its call cancelled.
//! The next call begins while the reply before it is written, and its own reply is taken when that has been: so a client
//! that does not read holds two replies and no more.
//!
//! A reset is noticed at once. A process that dies with nothing unread ends its connection as a half-close does, and TCP
//! shows the difference only when the reply is written: until then, and never past its deadline, its call goes on. The
//! promise to whoever half-closes, that due replies are written, leaves no other way.

use core::time::Duration;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use bytes::Bytes;
use bytes::buf::Chain;
use ipc_core::payload::Payload;
use ipc_core::{Error, ErrorCode};
use rustix::net::Shutdown;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::caller::Caller;
use super::expose_tcp::Port;
use super::failure::loggable;
use super::framing::Pending;
use super::origin::Origin;
use super::spec::expose::Framing;
use super::unread::Part;

/// Time for a client to take note of the end, and to stop sending.
const LINGER: Duration = Duration::from_secs(1);

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The client has sent its last, and has got every reply.
    Finished,
    /// The client is gone.
    Gone,
    /// Nothing happened for too long.
    Idle,
    /// A call came to nothing, or the bus has closed the peer.
    Failed(Error),
}

/// A client of a port.
pub(super) struct Connection {
    port: Rc<Port>,
    stream: Rc<TcpStream>,
    client: SocketAddr,
    state: Conversation,
}

impl Connection {
    /// A connection with its peer on the bus.
    pub(super) fn new(port: Rc<Port>, stream: Rc<TcpStream>, client: SocketAddr, caller: Caller) -> Self {
        let state = Conversation::new(Rc::clone(&port), Origin::of(client.ip()), caller);
        port.counters.accepted.add(1);
        Self { port, stream, client, state }
    }

    /// Serves the client until one side has had enough.
    pub(super) async fn run(self) {
        let Self { port, stream, client, mut state } = self;
        let end = converse(&stream, &mut state).await;
        // What it has on the bus ends here; an open call is cancelled.
        drop(state);
        match end {
            End::Finished => {}
            End::Gone => tracing::debug!(%client, address = %port.address, "a network client is gone"),
            End::Idle => {
                tracing::debug!(%client, address = %port.address, "closed an idle network connection")
            }
            End::Failed(error) if error.code == ErrorCode::ShuttingDown => {}
            End::Failed(error) => {
                port.counters.errors.add(1);
                port.log.line(|held_back| {
                    let reason = loggable(&error);
                    tracing::warn!(held_back, %client, address = %port.address, "closed a network connection: {reason}");
                });
                linger(&stream).await;
            }
        }
    }
}

async fn converse(stream: &TcpStream, state: &mut Conversation) -> End {
    // The kernel reports a reset at any time, also while nothing is read or written.
    let mut reset = pin!(stream.ready(Interest::ERROR));
    let mut idle = pin!(tokio::time::sleep(state.idle_timeout));
    poll_fn(|context| {
        if reset.as_mut().poll(context).is_ready() {
            return Poll::Ready(End::Gone);
        }
        if let Poll::Ready(end) = state.poll(stream, context) {
            return Poll::Ready(end);
        }
        state.poll_idle(idle.as_mut(), context)
    })
    .await
}

/// Tells the client that nothing more comes, and lets what it still sends run out: closing at once would take back
/// replies that it has not read yet.
async fn linger(stream: &TcpStream) {
    let rest = async {
        rustix::net::shutdown(stream, Shutdown::Write)?;
        let mut discarded = [0; 1024];
        loop {
            stream.readable().await?;
            match stream.try_read(&mut discarded) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    };
    // However that ended, the connection is closed next.
    let _: Result<io::Result<()>, _> = tokio::time::timeout(LINGER, rest).await;
}

/// Where the conversation with a client stands.
struct Conversation {
    port: Rc<Port>,
    /// Where its client comes from.
    origin: Origin,
    caller: Caller,
    pending: Pending,
    reply: Chain<Bytes, Bytes>,
    /// What is left of the reply, beside those of others.
    unread: Part,
    has_input: bool,
    idle_timeout: Duration,
    /// When a byte was moved or a reply came last.
    active_at: Instant,
}

impl Conversation {
    fn new(port: Rc<Port>, origin: Origin, caller: Caller) -> Self {
        let (pending_max, payload_max, idle_timeout) = port.bus.look(|broker| {
            let limits = broker.limits();
            let idle = Duration::from_millis(limits.expose_idle_timeout_ms.into());
            (limits.expose_pending_max_bytes, limits.payload_max_bytes, port.door.idle.unwrap_or(idle))
        });
        port.open.borrow_mut().add(origin, 1);
        let pending = Pending::new(port.door.framing, pending_max as usize, payload_max as usize);
        let reply = Bytes::new().chain(Bytes::new());
        let unread = Part::new(&port.unread);
        Self {
            port,
            origin,
            caller,
            pending,
            reply,
            unread,
            has_input: true,
            idle_timeout,
            active_at: Instant::now(),
        }
    }

    /// Does whatever can be done.
    fn poll(&mut self, stream: &TcpStream, context: &mut Context<'_>) -> Poll<End> {
        self.unread.attend(context.waker());
        if self.unread.is_given_up() {
            return Poll::Ready(End::Failed(self.too_much_unread()));
        }
        loop {
            let mut is_moved = false;
            if !self.reply.has_remaining() {
                // Only then: a reply that is there is written even if the bus has closed the peer since.
                match self.poll_reply(context) {
                    Poll::Ready(Ok(())) => is_moved = true,
                    Poll::Ready(Err(error)) => return Poll::Ready(End::Failed(error)),
                    Poll::Pending => {}
                }
            }
            // Before the reply is written: the service works on the next call meanwhile.
            match self.next_call() {
                Ok(is_made) => is_moved |= is_made,
                Err(end) => return Poll::Ready(end),
            }
            if self.reply.has_remaining() {
                match self.poll_write(stream, context) {
                    Poll::Ready(Ok(())) => is_moved = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
                    Poll::Pending => {}
                }
            }
            if self.has_input && self.pending.room() > 0 {
                match self.poll_read(stream, context) {
                    Poll::Ready(Ok(())) => is_moved = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
                    Poll::Pending => {}
                }
            }
            if !is_moved {
                return Poll::Pending;
            }
            self.active_at = Instant::now();
        }
    }

    /// Takes the reply to the open call when it comes; the call may have come to nothing.
    fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let (_, reply) = ready!(self.caller.poll_outcome(context))?;
        Poll::Ready(reply.map(|reply| self.queue(reply)))
    }

    /// Makes the next call if there is one and no other is open. Says whether it did.
    fn next_call(&mut self) -> Result<bool, End> {
        if self.caller.is_calling() {
            return Ok(false);
        }
        let max_bytes = self.pending.max_bytes();
        match self.pending.next() {
            Ok(Some(body)) => {
                self.port.counters.calls.add(1);
                self.caller.call(body).map_err(End::Failed)?;
                Ok(true)
            }
            Ok(None) if self.has_input || self.reply.has_remaining() => Ok(false),
            Ok(None) => Err(End::Finished),
            Err(super::framing::LineTooLong) => {
                let mut error = Error::quota("expose_pending_max_bytes", max_bytes as u64);
                error.message = format!("a line is longer than {max_bytes} bytes");
                Err(End::Failed(error))
            }
        }
    }

    /// Takes a reply, to be written.
    fn queue(&mut self, payload: Payload) {
        let end = match self.port.door.framing {
            Framing::Chunk => Bytes::new(),
            Framing::Line => Bytes::from_static(b"\n"),
        };
        self.reply = payload.body.chain(end);
        self.unread.add(self.reply.remaining(), self.unread_max_bytes());
    }

    /// What clients of all ports may have unread. They are one principal, so they share what a principal may have queued.
    fn unread_max_bytes(&self) -> usize {
        self.port.bus.look(|broker| broker.limits().queue_per_uid_max_bytes) as usize
    }

    fn too_much_unread(&self) -> Error {
        let mut error = Error::quota("queue_per_uid_max_bytes", self.unread_max_bytes() as u64);
        error.code = ErrorCode::SlowConsumer;
        error.message = format!(
            "{} bytes of its reply were not read for longest, while network clients had too much unread",
            self.reply.remaining()
        );
        error
    }

    fn poll_write(&mut self, stream: &TcpStream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(stream.poll_write_ready(context))?;
            let mut slices = [IoSlice::new(&[]); 2];
            let count = self.reply.chunks_vectored(&mut slices);
            match stream.try_write_vectored(&slices[..count]) {
                Ok(written) => {
                    self.reply.advance(written);
                    self.unread.read(written);
                    self.port.counters.bytes_out.add(written);
                    if !self.reply.has_remaining() {
                        // Its memory is not kept for the next one.
                        self.reply = Bytes::new().chain(Bytes::new());
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_read(&mut self, stream: &TcpStream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(stream.poll_read_ready(context))?;
            let mut scratch = self.port.bus.scratch().borrow_mut();
            let room = self.pending.room().min(scratch.len());
            match stream.try_read(&mut scratch[..room]) {
                Ok(0) => {
                    self.has_input = false;
                    self.pending.end();
                    return Poll::Ready(Ok(()));
                }
                Ok(count) => {
                    self.pending.push(&scratch[..count]);
                    self.port.counters.bytes_in.add(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Ready when nothing has happened for too long. A call that is under way has its own deadline, unless it is the client's
    /// turn to take a reply.
    fn poll_idle(&self, mut timer: Pin<&mut Sleep>, context: &mut Context<'_>) -> Poll<End> {
        loop {
            ready!(timer.as_mut().poll(context));
            let now = Instant::now();
            let is_served = self.caller.is_calling() && !self.reply.has_remaining();
            let since = if is_served { now } else { self.active_at };
            let due = since + self.idle_timeout;
            if due <= now {
                return Poll::Ready(self.idled());
            }
            timer.as_mut().reset(due);
        }
    }

    fn idled(&self) -> End {
        if !self.reply.has_remaining() {
            return End::Idle;
        }
        let message = format!("{} bytes of a reply were not read", self.reply.remaining());
        End::Failed(Error::new(ErrorCode::SlowConsumer, message))
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.port.open.borrow_mut().remove(self.origin, 1);
    }
}
