//! A connection over a kernel socket, seen from the outside: where to write, and whom to wake.
//!
//! Whoever has a frame for a peer writes it to the peer's socket itself. Only when the kernel takes no more is the
//! peer's own task woken, to wait until it does.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::Waker;

use ipc_core::transport::{Socket, SocketAddress, Stream};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};

use super::Look;
use super::reaper::{Guard, Reaper, Received};

/// Most pieces in one system call.
const SLICES_MAX: usize = 16;

/// Whether and how the link can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    /// The kernel took all of it the last time.
    Open,
    /// The kernel's buffer is full; the connection's task waits until it is not.
    Blocked,
    /// The other end is gone.
    Broken,
}

/// What became of an attempt to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// There was nothing to write.
    Nothing,
    /// That many bytes. If they are fewer than were offered, even none, the kernel takes no more for the time being.
    Some(usize),
    /// The other end is gone.
    Broken,
}

/// The socket of a connection with what others may know about it.
#[derive(Debug)]
pub(crate) struct Link {
    socket: Stream,
    /// Where the kernel lets descriptors through. Dropped after the socket.
    guard: Option<Guard>,
    writing: Cell<Writing>,
    is_closing: Cell<bool>,
    is_in_line: Cell<bool>,
    /// Its task is to read before the runtime says that there is something.
    is_awaited: Cell<bool>,
    /// Its task is to watch the process at the other end.
    is_process_wanted: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

impl Link {
    /// A link over a connected, non-blocking socket; with a reaper if the kernel does not keep descriptors out, and the user to
    /// whom they belong.
    pub(crate) fn new(socket: Stream, reaper: Option<(Reaper, u32)>) -> Self {
        let guard = reaper.map(|(reaper, uid)| Guard::of(&socket, reaper, uid));
        Self {
            socket,
            guard,
            writing: Cell::new(Writing::Open),
            is_closing: Cell::new(false),
            is_in_line: Cell::new(false),
            is_awaited: Cell::new(false),
            is_process_wanted: Cell::new(false),
            task: RefCell::new(None),
        }
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &Stream {
        &self.socket
    }

    /// Whether the peer could send descriptors, so that reading has to be done with [`Link::receive`].
    pub(crate) fn is_guarded(&self) -> bool {
        self.guard.is_some()
    }

    /// Reads once.
    ///
    /// # Errors
    /// Those of recvmsg(2).
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Result<Received, Errno> {
        match &self.guard {
            Some(guard) => guard.receive(&self.socket, buffer),
            None => {
                let bytes = rustix::io::retry_on_intr(|| rustix::io::read(&self.socket, &mut *buffer))?;
                Ok(Received { bytes, descriptors: 0 })
            }
        }
    }

    /// Whether writing makes sense.
    pub(crate) fn is_writable(&self) -> bool {
        self.writing.get() == Writing::Open
    }

    /// Whether the connection's task is to wait until the kernel takes more.
    pub(crate) fn is_blocked(&self) -> bool {
        self.writing.get() == Writing::Blocked
    }

    /// Whether the other end is gone.
    pub(crate) fn is_broken(&self) -> bool {
        self.writing.get() == Writing::Broken
    }

    /// Whether what is due now is the last.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.get()
    }

    /// The kernel takes more again.
    pub(crate) fn unblock(&self) {
        if self.is_blocked() {
            self.writing.set(Writing::Open);
        }
    }

    /// Whether it stands in line with more than may be written at a time.
    pub(super) fn is_in_line(&self) -> bool {
        self.is_in_line.get()
    }

    /// It does from here on, or not any more.
    pub(super) fn set_in_line(&self, is_in_line: bool) {
        self.is_in_line.set(is_in_line);
    }

    /// Nothing more will be due to this peer: its task writes out the rest and ends.
    pub(crate) fn close(&self) {
        self.is_closing.set(true);
        self.wake();
    }

    /// Whether the task was asked to [`look`](Look::look) since the last time.
    pub(crate) fn take_look(&self) -> bool {
        self.is_awaited.take()
    }

    /// Has its task watch the process at the other end from here on.
    pub(crate) fn watch_process(&self) {
        self.is_process_wanted.set(true);
        self.wake();
    }

    /// Whether the task was asked to watch the process since the last time.
    pub(crate) fn take_process_watch(&self) -> bool {
        self.is_process_wanted.take()
    }

    /// Remembers whom to wake.
    pub(crate) fn attend(&self, waker: &Waker) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *task = Some(waker.clone());
        }
    }

    /// Has its task look again.
    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.task.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Writes `parts`, at most so many bytes of them, with one system call, as far as the kernel takes them.
    pub(crate) fn send<'a>(&self, parts: impl Iterator<Item = &'a [u8]>, max_bytes: usize) -> Sent {
        let mut parts = at_most(parts, max_bytes);
        let Some(first) = parts.next() else { return Sent::Nothing };
        let (offered, result) = match parts.next() {
            None => (first.len(), self.send_one(first)),
            Some(second) => {
                let mut slices = [IoSlice::new(first); SLICES_MAX];
                slices[1] = IoSlice::new(second);
                let mut count = 2;
                for (slot, part) in slices[2..].iter_mut().zip(parts) {
                    *slot = IoSlice::new(part);
                    count += 1;
                }
                let slices = &slices[..count];
                (slices.iter().map(|slice| slice.len()).sum(), self.send_all(slices))
            }
        };
        match result {
            Ok(bytes) if bytes == offered => Sent::Some(bytes),
            Ok(bytes) => {
                self.stop(Writing::Blocked);
                Sent::Some(bytes)
            }
            Err(Errno::AGAIN) => {
                self.stop(Writing::Blocked);
                Sent::Some(0)
            }
            Err(_) => {
                self.stop(Writing::Broken);
                Sent::Broken
            }
        }
    }

    fn send_one(&self, bytes: &[u8]) -> Result<usize, Errno> {
        rustix::io::retry_on_intr(|| rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL))
    }

    fn send_all(&self, slices: &[IoSlice<'_>]) -> Result<usize, Errno> {
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(
                &self.socket,
                slices,
                &mut SendAncillaryBuffer::default(),
                SendFlags::NOSIGNAL,
            )
        })
    }

    fn stop(&self, writing: Writing) {
        self.writing.set(writing);
        self.wake();
    }
}

/// The first so many bytes of `parts`.
fn at_most<'a>(parts: impl Iterator<Item = &'a [u8]>, max_bytes: usize) -> impl Iterator<Item = &'a [u8]> {
    parts.scan(max_bytes, |left, part| {
        let is_over = *left == 0;
        let part = &part[..part.len().min(*left)];
        *left -= part.len();
        (!is_over).then_some(part)
    })
}

impl Look for Link {
    fn look(&self) {
        self.is_awaited.set(true);
        self.wake();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(guard) = &self.guard {
            guard.outlive(&self.socket);
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Socket for Link {
    fn local_address(&self) -> io::Result<SocketAddress> {
        self.socket.local_address()
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn pair() -> (Link, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Link::new(ours.into(), None), theirs)
    }

    #[test]
    fn pieces_arrive_in_order_and_more_of_them_than_fit_into_one_call_are_kept() {
        let (link, mut theirs) = pair();
        assert_eq!(link.send(std::iter::empty(), usize::MAX), Sent::Nothing);
        assert_eq!(link.send([&b"a"[..]].into_iter(), usize::MAX), Sent::Some(1));
        let pieces: Vec<[u8; 1]> = (0..20).map(|byte| [byte]).collect();
        assert_eq!(link.send(pieces.iter().map(|piece| &piece[..]), usize::MAX), Sent::Some(SLICES_MAX));
        let mut got = [0; 1 + SLICES_MAX];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!(&got[1..], &(0..16).collect::<Vec<u8>>()[..]);
    }

    #[test]
    fn a_full_socket_blocks_and_a_dead_one_breaks() {
        let (link, theirs) = pair();
        let block = vec![7; 64 * 1024];
        while link.is_writable() {
            link.send([&block[..]].into_iter(), usize::MAX);
        }
        assert!(link.is_blocked());
        assert_eq!(link.send([&block[..]].into_iter(), usize::MAX), Sent::Some(0));
        link.unblock();
        drop(theirs);
        assert_eq!(link.send([&b"a"[..]].into_iter(), usize::MAX), Sent::Broken);
        assert!(link.is_broken());
        link.unblock();
        assert!(link.is_broken());
    }
}
