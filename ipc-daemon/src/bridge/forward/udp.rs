//! One call by datagram: the payload in one, the reply in another, each call from a port of its own.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use bytes::Bytes;
use ipc_core::Error;
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::exchange::Exchange;
use super::failure::Stage;
use super::pool::Pool;

/// The socket of one call. Unless the call was answered its port is retired: a late reply must not meet another call.
struct Lease<'a> {
    pool: &'a Pool,
    socket: Option<Rc<UdpSocket>>,
}

impl Lease<'_> {
    /// The call was answered.
    fn answered(mut self) {
        self.socket = None;
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            self.pool.retire(socket);
        }
    }
}

/// Makes the exchange with the first address where somebody listens.
///
/// # Errors
/// What the caller is to be told.
pub(super) async fn run(exchange: &Exchange<'_>, payload: Bytes) -> Result<Bytes, Error> {
    let forward = exchange.forward;
    let mut tried = Vec::new();
    for address in exchange.addresses().await? {
        exchange.attempt.stage.set(Stage::Connecting(address));
        let connected = match open(address).await {
            Ok(socket) => {
                forward.counters.connected.add(1);
                let socket = Rc::new(socket);
                forward.open_sockets.note(&socket);
                let lease = Lease { pool: &forward.pool, socket: Some(socket) };
                ask(exchange, lease, &payload).await
            }
            Err(error) => Err(Trouble::Elsewhere(error)),
        };
        match connected {
            Ok(reply) => return Ok(reply),
            Err(Trouble::Final(error)) => return Err(error),
            // The datagram has reached nobody: somebody may listen at the next address.
            Err(Trouble::Elsewhere(error)) => tried.push(format!("{address}: {error}")),
        }
    }
    Err(exchange.attempt.cannot_connect(&tried))
}

/// Why one address did not answer.
enum Trouble {
    /// No other address would.
    Final(Error),
    /// Another might.
    Elsewhere(io::Error),
}

/// A socket with a port of its own, for one server.
async fn open(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    Ok(socket)
}

async fn ask(exchange: &Exchange<'_>, lease: Lease<'_>, payload: &[u8]) -> Result<Bytes, Trouble> {
    let Some(socket) = &lease.socket else {
        return Err(Trouble::Elsewhere(io::ErrorKind::NotConnected.into()));
    };
    exchange.attempt.stage.set(Stage::Sending(0));
    let sent = socket.send(payload).await.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::MSGSIZE) => Trouble::Final(exchange.attempt.payload_too_large(payload.len())),
        _ => Trouble::Elsewhere(error),
    })?;
    exchange.forward.counters.bytes_out.add(sent);
    exchange.attempt.stage.set(Stage::Receiving(0));
    loop {
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await.map_err(Trouble::Elsewhere)?;
        if ready.is_error() {
            check(socket).map_err(Trouble::Elsewhere)?;
        }
        let mut scratch = exchange.forward.bus.scratch().borrow_mut();
        match socket.try_recv(&mut scratch) {
            Ok(count) => {
                exchange.received(count, count, 0).map_err(Trouble::Final)?;
                let reply = Bytes::copy_from_slice(&scratch[..count]);
                drop(scratch);
                lease.answered();
                return Ok(reply);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(Trouble::Elsewhere(error)),
        }
    }
}

/// What the network has said about a datagram that was sent, such as that nobody listens. It is not reported as readable.
fn check(socket: &UdpSocket) -> io::Result<()> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    // Nothing after all: the runtime is to forget that it has seen something, whatever it says to that.
    let _: io::Result<()> = socket.try_io(Interest::ERROR, || Err(io::ErrorKind::WouldBlock.into()));
    Ok(())
}
