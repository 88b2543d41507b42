//! Accepting connections, also when the system has no resource for another.

use core::time::Duration;
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use ipc_core::transport::{Listener, Stream};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::readable::watch;

/// Pause after the system had no resource for another connection.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections accepted before others have their turn.
const ACCEPT_BUDGET: u32 = 4;

/// What comes to a listening socket.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A connection.
    Connection(Stream),
    /// The system has no resource for more connections: descriptors or memory. Those who come wait; the one that could be
    /// accepted all the same is to be told, and closed at once.
    Exhausted(Errno, Option<Stream>),
}

/// What came of one attempt to accept.
enum Attempt {
    Connection(Stream),
    /// Nobody waits.
    Nobody,
    Exhausted(Errno),
}

/// A listening socket that does not block.
pub(crate) struct Acceptor {
    socket: AsyncFd<Rc<Listener>>,
    /// A descriptor kept for the moment when there is no other: it is given up to accept one connection and refuse it.
    spare: RefCell<Option<OwnedFd>>,
}

impl Acceptor {
    /// An acceptor over a socket that does not block.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub(crate) fn new(socket: Rc<Listener>) -> io::Result<Self> {
        let socket = watch(socket, Interest::READABLE)?;
        Ok(Self { socket, spare: RefCell::new(open_spare().ok()) })
    }

    /// Hands over whatever comes, one by one, for as long as the runtime runs; those who come wait in the kernel until
    /// `has_room` completes. Cancel safe.
    pub(crate) async fn run(&self, has_room: impl AsyncFn(), mut handle: impl FnMut(Arrival)) {
        loop {
            let mut guard = match self.socket.readable().await {
                Ok(guard) => guard,
                // The runtime is going away, and this task with it.
                Err(_) => return,
            };
            match self.accept_some(&has_room, &mut handle).await {
                Some(Attempt::Nobody) => guard.clear_ready(),
                Some(Attempt::Exhausted(errno)) => {
                    self.refuse_with_spare(errno, &mut handle);
                    tokio::time::sleep(PAUSE).await;
                }
                Some(Attempt::Connection(_)) | None => tokio::task::yield_now().await,
            }
        }
    }

    /// Accepts until nobody waits, or something runs out; `None` when the budget did.
    async fn accept_some(
        &self,
        has_room: &impl AsyncFn(),
        handle: &mut impl FnMut(Arrival),
    ) -> Option<Attempt> {
        for _ in 0..ACCEPT_BUDGET {
            has_room().await;
            match self.attempt() {
                Attempt::Connection(socket) => handle(Arrival::Connection(socket)),
                end @ (Attempt::Nobody | Attempt::Exhausted(_)) => return Some(end),
            }
        }
        None
    }

    fn attempt(&self) -> Attempt {
        loop {
            let error = match self.socket.get_ref().accept_nonblocking() {
                Ok(socket) => return Attempt::Connection(socket),
                Err(error) => error,
            };
            match Errno::from_io_error(&error).unwrap_or(Errno::IO) {
                Errno::AGAIN => return Attempt::Nobody,
                // That connection failed (it was aborted, or a security module said no); the next one may not.
                Errno::CONNABORTED | Errno::PERM | Errno::PROTO => {}
                errno => return Attempt::Exhausted(errno),
            }
        }
    }

    /// With the spare descriptor one connection at a time can be accepted and told why it is refused, instead of waiting
    /// for nobody knows how long.
    fn refuse_with_spare(&self, errno: Errno, handle: &mut impl FnMut(Arrival)) {
        let spare = self.spare.take();
        let refused = spare.is_some().then(|| {
            drop(spare);
            self.next_waiting()
        });
        // It is closed in there, so that the spare can be had again.
        handle(Arrival::Exhausted(errno, refused.flatten()));
        self.spare.replace(open_spare().ok());
    }

    /// The next connection that waits already.
    pub(crate) fn next_waiting(&self) -> Option<Stream> {
        match self.attempt() {
            Attempt::Connection(socket) => Some(socket),
            Attempt::Nobody | Attempt::Exhausted(_) => None,
        }
    }
}

fn open_spare() -> io::Result<OwnedFd> {
    File::open("/dev/null").map(OwnedFd::from)
}
