//! Bytes between a session and its socket.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;

use crate::session::Session;
use crate::transport::clock;

/// What one read takes at most; the buffer is made with the first one.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Pieces of one vectored write; the rest goes with the next.
const SLICES_MAX: usize = 64;

/// A connected socket with its buffer.
#[derive(Debug)]
pub(super) struct Socket {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// Why writing stopped. Reading goes on: the daemon's last words may say why.
    write_failed: Option<Errno>,
}

impl Socket {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: Vec::new(), write_failed: None }
    }

    /// Writes what the kernel takes now. Says whether everything was written, or never will be.
    pub(super) fn flush(&mut self, session: &mut Session) -> bool {
        while session.pending_bytes() > 0 && self.write_failed.is_none() {
            match send(&self.stream, session) {
                Ok(count) => session.transmitted(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Err(errno) => self.write_failed = Some(errno),
            }
        }
        true
    }

    /// The same, and the task is woken when the kernel takes more.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, session: &mut Session) -> bool {
        while !self.flush(session) {
            // Tokio learns that the socket is full by seeing the write fail.
            let full = self.stream.try_io(Interest::WRITABLE, || match send(&self.stream, session) {
                Ok(count) => Ok(count),
                Err(errno) => Err(io::Error::from(errno)),
            });
            match full {
                Ok(count) => session.transmitted(count),
                Err(_) => {
                    if self.stream.poll_write_ready(cx).is_pending() {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Reads once and hands it to the session; the task is woken when there is something. `Ok(0)` is the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
    ) -> Poll<io::Result<usize>> {
        if let Some((buffer, room)) = session.direct() {
            let count = ready!(pin!(self.stream.read_buf(&mut buffer.limit(room))).poll(cx))?;
            session.handle_input(clock::now(), &mut &[][..]);
            return Poll::Ready(Ok(count));
        }
        self.prepare();
        let count = ready!(pin!(self.stream.read_buf(&mut self.buffer)).poll(cx))?;
        session.handle_input(clock::now(), &mut &self.buffer[..]);
        Poll::Ready(Ok(count))
    }

    /// Reads once without tokio's knowledge and without being woken later; `WouldBlock` when there is nothing, or a
    /// large frame is on its way, which is not worth waiting for on the spot.
    pub(super) fn try_read(&mut self, session: &mut Session) -> io::Result<usize> {
        if session.direct().is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.prepare();
        let received = rustix::net::recv(&self.stream, spare_capacity(&mut self.buffer), RecvFlags::DONTWAIT);
        let (_, count) = received?;
        session.handle_input(clock::now(), &mut &self.buffer[..]);
        Ok(count)
    }

    fn prepare(&mut self) {
        self.buffer.clear();
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(READ_BUFFER_BYTES);
        }
    }

    /// Why writing failed, if it did.
    pub(super) fn write_failure(&self) -> Option<String> {
        self.write_failed.map(|errno| format!("writing to the daemon failed: {}", io::Error::from(errno)))
    }
}

fn send(stream: &UnixStream, session: &Session) -> Result<usize, Errno> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let mut pieces = session.transmit();
    let Some(first) = pieces.next() else { return Ok(0) };
    let Some(second) = pieces.next() else { return rustix::net::send(stream, first, flags) };
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let mut count = 0;
    for (slot, piece) in slices.iter_mut().zip([first, second].into_iter().chain(pieces)) {
        *slot = IoSlice::new(piece);
        count += 1;
    }
    rustix::net::sendmsg(stream, &slices[..count], &mut SendAncillaryBuffer::default(), flags)
}
