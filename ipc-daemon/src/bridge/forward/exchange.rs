//! One call with its server: how long it may take, how much may come back, how far it has come.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use ipc_core::Error;
use ipc_core::session::Incoming;
use ipc_core::transport::clock;
use tokio::time::Instant;

use super::failure::{Attempt, Stage};
use super::room::Room;
use super::{Forward, tcp, udp};
use crate::bridge::spec::forward::Protocol;

/// How long before its caller's deadline a call is given up, so that the caller learns from us what was tried: this
/// fraction of the time there was, and no more than that.
const MARGIN_DIVISOR: u32 = 50;
const MARGIN_MAX: Duration = Duration::from_millis(20);

/// A call that is under way.
pub(super) struct Exchange<'a> {
    pub(super) forward: &'a Forward,
    pub(super) attempt: &'a Attempt<'a>,
    /// When it is given up.
    pub(super) until: Instant,
    /// Memory of the reply.
    room: RefCell<Room>,
    reply_max_bytes: usize,
}

/// Takes the payload of a call to the server and brings the reply back.
///
/// # Errors
/// What the caller is to be told.
pub(super) async fn answer(forward: &Forward, call: &Incoming) -> Result<Bytes, Error> {
    let (payload_max, timeout_ms, pending_max) = forward.bus.look(|broker| {
        let limits = broker.limits();
        (limits.payload_max_bytes, limits.forward_timeout_ms, limits.forward_pending_max_bytes)
    });
    let patience = patience(call, Duration::from_millis(timeout_ms.into()));
    let until = Instant::now() + patience;
    let attempt = Attempt { server: &forward.server, stage: Default::default() };
    let exchange = Exchange {
        forward,
        attempt: &attempt,
        until,
        room: RefCell::new(Room::new(&forward.pending_bytes, pending_max as usize)),
        reply_max_bytes: payload_max as usize,
    };
    let payload = call.payload.body.clone();
    let reply = async {
        match forward.spec.protocol {
            Protocol::Tcp(framing) => tcp::run(&exchange, framing, payload).await,
            Protocol::Udp => udp::run(&exchange, payload).await,
        }
    };
    tokio::time::timeout_at(until, reply).await.unwrap_or_else(|_| {
        forward.counters.late.add(1);
        Err(attempt.late(patience))
    })
}

/// How long the exchange may take.
fn patience(call: &Incoming, max: Duration) -> Duration {
    match call.deadline.map(|deadline| deadline.since(clock::now())) {
        Some(left) => left.saturating_sub(MARGIN_MAX.min(left / MARGIN_DIVISOR)).min(max),
        None => max,
    }
}

impl Exchange<'_> {
    /// The addresses of the server.
    ///
    /// # Errors
    /// When there are none.
    pub(super) async fn addresses(&self) -> Result<Vec<SocketAddr>, Error> {
        self.forward.resolver.addresses().await.map_err(|reason| self.attempt.cannot_resolve(&reason))
    }

    /// Takes note of `count` bytes, with which `total` are there. Of those, `end_bytes` may be no part of the reply.
    ///
    /// # Errors
    /// When that is too much.
    pub(super) fn received(&self, count: usize, total: usize, end_bytes: usize) -> Result<(), Error> {
        self.forward.counters.bytes_in.add(count);
        self.attempt.stage.set(Stage::Receiving(total));
        self.check_size(total.saturating_sub(end_bytes))?;
        self.room.borrow_mut().take(count)
    }

    /// Whether a reply may be so large.
    ///
    /// # Errors
    /// When not.
    pub(super) fn check_size(&self, bytes: usize) -> Result<(), Error> {
        if bytes > self.reply_max_bytes {
            return Err(self.attempt.reply_too_large(self.reply_max_bytes));
        }
        Ok(())
    }
}
