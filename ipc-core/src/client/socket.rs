//! Bytes between a session and its socket.

use std::future::Future;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::unix::pipe;
use tokio::runtime::Handle;

use crate::session::Session;
use crate::transport::{Socket as _, clock, datagrams};

/// What one read takes at most; the buffer is made with the first one.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Pieces of one vectored write; the rest goes with the next.
const SLICES_MAX: usize = 64;
/// After so many writes in a row that needed no waiting, nothing waits for room any more: while something does, the kernel
/// wakes the task each time the daemon has read, and to begin and to end it takes four system calls.
const CALM_WRITES_MAX: u32 = 16;

/// A connected socket with its buffer.
///
/// Tokio's own stream waits for room to write all the time, and then the kernel wakes the task each time the daemon has
/// read something: one vain wake-up for each call. So the socket is registered as what is only read, which is what tokio's
/// end of a pipe is, and a second time for writing only while the kernel takes no more, and a little longer.
#[derive(Debug)]
pub(super) struct Socket {
    reader: pipe::Receiver,
    /// The runtime that the socket is registered with, whichever task polls.
    runtime: Handle,
    /// Waits for room to write.
    writer: Option<AsyncFd<OwnedFd>>,
    /// How often in a row everything could be written at once since there is a writer.
    calm_writes: u32,
    buffer: Vec<u8>,
    /// Why writing stopped. Reading goes on: the daemon's last words may say why.
    write_failed: Option<String>,
}

impl Socket {
    /// Takes a connected socket, which must be non-blocking.
    pub(super) fn new(connected: OwnedFd) -> io::Result<Self> {
        let reader = pipe::Receiver::from_owned_fd_unchecked(connected)?;
        Ok(Self {
            reader,
            runtime: Handle::current(),
            writer: None,
            calm_writes: 0,
            buffer: Vec::new(),
            write_failed: None,
        })
    }

    /// Completes when a connect that was under way has ended. Cancel safe.
    ///
    /// # Errors
    /// Why it failed.
    pub(super) async fn connected(&self) -> io::Result<()> {
        let writer = self.register_writer()?;
        drop(writer.writable().await?);
        self.reader.as_fd().take_error()?.map_or(Ok(()), Err)
    }

    /// Writes what the kernel takes now. Says whether everything was written, or never will be.
    pub(super) fn flush(&mut self, session: &mut Session) -> bool {
        while session.pending_bytes() > 0 && self.write_failed.is_none() {
            match send(&self.reader, session) {
                Ok(count) => session.transmitted(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Err(errno) if session.is_over_datagrams() => {
                    session.handle_failure(datagrams::refusal(errno).as_deref());
                }
                Err(errno) => self.fail(&io::Error::from(errno)),
            }
        }
        true
    }

    /// The same, and the task is woken when the kernel takes more.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, session: &mut Session) {
        if session.pending_bytes() == 0 {
            return;
        }
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None if self.flush(session) => return,
            None => match self.register_writer() {
                Ok(writer) => {
                    self.calm_writes = 0;
                    writer
                }
                Err(error) => return self.fail(&error),
            },
        };
        let mut was_full = false;
        while let Poll::Ready(ready) = writer.poll_write_ready(cx) {
            let mut guard = match ready {
                Ok(guard) => guard,
                Err(error) => return self.fail(&error),
            };
            if self.flush(session) {
                self.calm_writes = if was_full { 0 } else { self.calm_writes + 1 };
                break;
            }
            was_full = true;
            guard.clear_ready();
        }
        if self.calm_writes < CALM_WRITES_MAX {
            self.writer = Some(writer);
        }
    }

    fn register_writer(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let _runtime = self.runtime.enter();
        let duplicate = rustix::io::fcntl_dupfd_cloexec(&self.reader, 3)?;
        // The constructor is deprecated for types that could show a descriptor they do not own; this one owns it.
        #[allow(deprecated)]
        AsyncFd::with_interest(duplicate, Interest::WRITABLE)
    }

    fn fail(&mut self, error: &io::Error) {
        self.write_failed = Some(format!("writing to the daemon failed: {error}"));
    }

    /// Reads once and hands it to the session; the task is woken when there is something. `Ok(0)` is the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
    ) -> Poll<io::Result<usize>> {
        if let Some((buffer, room)) = session.direct() {
            let count = ready!(pin!(self.reader.read_buf(&mut buffer.limit(room))).poll(cx))?;
            session.handle_input(clock::now(), &mut &[][..]);
            return Poll::Ready(Ok(count));
        }
        self.prepare();
        let count = ready!(pin!(self.reader.read_buf(&mut self.buffer)).poll(cx))?;
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
        let received = rustix::net::recv(&self.reader, spare_capacity(&mut self.buffer), RecvFlags::DONTWAIT);
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
    pub(super) fn write_failure(&self) -> Option<&str> {
        self.write_failed.as_deref()
    }
}

fn send(socket: impl AsFd, session: &Session) -> Result<usize, Errno> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let mut pieces = session.transmit();
    let Some(first) = pieces.next() else { return Ok(0) };
    let Some(second) = pieces.next() else { return rustix::net::send(socket, first, flags) };
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let mut count = 0;
    for (slot, piece) in slices.iter_mut().zip([first, second].into_iter().chain(pieces)) {
        *slot = IoSlice::new(piece);
        count += 1;
    }
    rustix::net::sendmsg(socket, &slices[..count], &mut SendAncillaryBuffer::default(), flags)
}
