//! One call over a connection: the payload out, the reply back.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ipc_core::Error;
use rustix::net::Shutdown;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::exchange::Exchange;
use super::failure::Stage;
use crate::bridge::spec::forward::Framing;

/// CR and LF.
const LINE_END_BYTES: usize = 2;

/// Makes the exchange. Whatever ends it before the whole reply is there ends the connection too.
///
/// # Errors
/// What the caller is to be told.
pub(super) async fn run(exchange: &Exchange<'_>, framing: Framing, payload: Bytes) -> Result<Bytes, Error> {
    let payload = match framing {
        Framing::Chunk | Framing::UntilClose => payload,
        Framing::Line => one_line(exchange, payload)?,
    };
    // With until-close no connection is ever kept.
    let stream = match exchange.forward.pool.take() {
        Some(stream) => stream,
        None => connect(exchange).await?,
    };
    let (reply, is_clean) = match framing {
        Framing::Chunk => {
            send(exchange, &stream, &payload).await?;
            (receive_chunk(exchange, &stream).await?, true)
        }
        Framing::Line => {
            send(exchange, &stream, &payload).await?;
            receive_line(exchange, &stream).await?
        }
        Framing::UntilClose => (send_and_receive_all(exchange, &stream, &payload).await?, false),
    };
    if is_clean {
        exchange.forward.keep(stream);
    }
    Ok(reply)
}

/// The payload with the line end that the server waits for.
fn one_line(exchange: &Exchange<'_>, payload: Bytes) -> Result<Bytes, Error> {
    let line =
        payload.strip_suffix(b"\n").map_or(&payload[..], |line| line.strip_suffix(b"\r").unwrap_or(line));
    if line.contains(&b'\n') {
        return Err(exchange.attempt.line_end_inside());
    }
    Ok([line, b"\n"].concat().into())
}

/// Connects to the first address that lets us. Each that is left has its share of the time that is left.
async fn connect(exchange: &Exchange<'_>) -> Result<Rc<TcpStream>, Error> {
    let addresses = exchange.addresses().await?;
    let mut tried = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        exchange.attempt.stage.set(Stage::Connecting(*address));
        let left = exchange.until.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        match connect_to(*address, share).await {
            Ok(stream) => {
                exchange.forward.counters.connected.add(1);
                let stream = Rc::new(stream);
                exchange.forward.open_sockets.note(&stream);
                return Ok(stream);
            }
            Err(error) => tried.push(format!("{address}: {error}")),
        }
    }
    Err(exchange.attempt.cannot_connect(&tried))
}

async fn connect_to(address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(patience, TcpStream::connect(address)).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} ms", patience.as_millis()))
    })??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn send(exchange: &Exchange<'_>, stream: &TcpStream, payload: &[u8]) -> Result<(), Error> {
    let attempt = &exchange.attempt;
    let mut sent = 0;
    while sent < payload.len() {
        attempt.stage.set(Stage::Sending(sent));
        match write_some(stream, &payload[sent..]).await {
            Ok(count) => {
                sent += count;
                exchange.forward.counters.bytes_out.add(count);
            }
            Err(error) => return Err(attempt.connection_lost(&format!("failed ({error})"))),
        }
    }
    attempt.stage.set(Stage::Receiving(0));
    Ok(())
}

async fn write_some(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            written => return written,
        }
    }
}

/// What the next read returns.
async fn receive_chunk(exchange: &Exchange<'_>, stream: &TcpStream) -> Result<Bytes, Error> {
    let mut reply = BytesMut::new();
    match receive_some(exchange, stream, &mut reply, 0).await? {
        0 => Err(exchange.attempt.connection_lost("closed the connection")),
        _ => Ok(reply.freeze()),
    }
}

/// All up to the next LF, and whether nothing stood behind it.
async fn receive_line(exchange: &Exchange<'_>, stream: &TcpStream) -> Result<(Bytes, bool), Error> {
    let mut reply = BytesMut::new();
    loop {
        let scanned = reply.len();
        if receive_some(exchange, stream, &mut reply, LINE_END_BYTES).await? == 0 {
            return Err(exchange.attempt.connection_lost("closed the connection"));
        }
        if let Some(at) = reply[scanned..].iter().position(|byte| *byte == b'\n') {
            let end = scanned + at;
            let is_clean = end + 1 == reply.len();
            let has_carriage_return = reply[..end].last() == Some(&b'\r');
            reply.truncate(end - usize::from(has_carriage_return));
            exchange.check_size(reply.len())?;
            return Ok((reply.freeze(), is_clean));
        }
    }
}

/// Sends all and half-closes, and receives all until the server closes. Both at once: a server may answer while it reads,
/// and take no more until it can.
async fn send_and_receive_all(
    exchange: &Exchange<'_>,
    stream: &TcpStream,
    payload: &[u8],
) -> Result<Bytes, Error> {
    let sending = async {
        send(exchange, stream, payload).await?;
        rustix::net::shutdown(stream, Shutdown::Write)
            .map_err(|errno| exchange.attempt.connection_lost(&format!("failed ({errno})")))
    };
    let receiving = async {
        let mut reply = BytesMut::new();
        while receive_some(exchange, stream, &mut reply, 0).await? > 0 {}
        Ok::<_, Error>(reply.freeze())
    };
    let (mut sending, mut receiving) = (pin!(sending), pin!(receiving));
    let mut is_sent = false;
    poll_fn(|context| {
        if !is_sent {
            match sending.as_mut().poll(context) {
                Poll::Ready(Ok(())) => is_sent = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        // The end may come before all is sent: the server wants no more, and has said all it has to say.
        receiving.as_mut().poll(context)
    })
    .await
}

/// Appends what one read returns; 0 at the end. Of all that is there, `end_bytes` may be no part of the reply.
async fn receive_some(
    exchange: &Exchange<'_>,
    stream: &TcpStream,
    reply: &mut BytesMut,
    end_bytes: usize,
) -> Result<usize, Error> {
    let lost = |exchange: &Exchange<'_>, error: &io::Error| {
        exchange.attempt.connection_lost(&format!("failed ({error})"))
    };
    loop {
        stream.readable().await.map_err(|error| lost(exchange, &error))?;
        let mut scratch = exchange.forward.bus.scratch().borrow_mut();
        match stream.try_read(&mut scratch) {
            Ok(count) => {
                exchange.received(count, reply.len() + count, end_bytes)?;
                reply.extend_from_slice(&scratch[..count]);
                return Ok(count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(lost(exchange, &error)),
        }
    }
}
