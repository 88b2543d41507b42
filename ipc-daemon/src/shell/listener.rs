//! Accepting connections: who it is, whether they may, and a task for each that may.

use core::cell::RefCell;
use core::time::Duration;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::rc::Rc;

use ipc_core::identity::Identity;
use ipc_core::transport::{clock, unix};
use ipc_core::{Error, ErrorCode};
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::connection::Connection;
use super::readable::watch;
use crate::broker::refusal_frame;
use crate::bus::link::Link;
use crate::bus::{Bus, Tally, access_denied};
use crate::failure::Failure;
use crate::logging::rate::RateLimit;

/// Pause after the system had no resource for another connection.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections accepted before others have their turn.
const ACCEPT_BUDGET: u32 = 64;
/// Connections told that the daemon stops before it does: as many as can have been waiting.
const BACKLOG_MAX: u32 = 8192;

/// A listening socket and the loop that accepts from it.
pub(crate) struct Listener {
    bus: Bus,
    socket: AsyncFd<UnixListener>,
    /// Who may connect beside root.
    owner: u32,
    /// A descriptor kept for the moment when there is no other: it is given up to accept one connection and refuse it.
    spare: RefCell<Option<OwnedFd>>,
    log: RateLimit,
}

/// What came of one attempt to accept.
enum Accepted {
    Connection(OwnedFd),
    /// Nobody waits.
    Nobody,
    /// The system has no resource for another connection: descriptors or memory.
    Exhausted(Errno),
}

impl Listener {
    /// A listener over a bound socket that does not block.
    ///
    /// # Errors
    /// 74 when the runtime cannot watch it.
    pub(crate) fn new(bus: Bus, socket: UnixListener) -> Result<Self, Failure> {
        let socket = watch(socket, Interest::READABLE)
            .map_err(|error| Failure::io("watch the listening socket", error))?;
        Ok(Self {
            bus,
            socket,
            owner: rustix::process::geteuid().as_raw(),
            spare: RefCell::new(open_spare().ok()),
            log: RateLimit::new(clock::now()),
        })
    }

    /// Accepts for as long as the daemon runs. Cancel safe.
    pub(crate) async fn run(&self) {
        loop {
            let mut guard = match self.socket.readable().await {
                Ok(guard) => guard,
                // The runtime is going away, and this task with it.
                Err(_) => return,
            };
            match self.accept_some() {
                Some(Accepted::Nobody) => guard.clear_ready(),
                Some(Accepted::Exhausted(errno)) => {
                    self.refuse_with_spare(errno);
                    tokio::time::sleep(PAUSE).await;
                }
                Some(Accepted::Connection(_)) | None => tokio::task::yield_now().await,
            }
        }
    }

    /// Accepts until nobody waits, or something runs out; `None` when the budget did.
    fn accept_some(&self) -> Option<Accepted> {
        for _ in 0..ACCEPT_BUDGET {
            match self.accept() {
                Accepted::Connection(socket) => self.welcome(socket),
                end @ (Accepted::Nobody | Accepted::Exhausted(_)) => return Some(end),
            }
        }
        None
    }

    fn accept(&self) -> Accepted {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            match rustix::net::accept_with(self.socket.get_ref(), flags) {
                Ok(socket) => return Accepted::Connection(socket),
                Err(Errno::AGAIN) => return Accepted::Nobody,
                // That connection failed (it was aborted, or a security module said no); the next one may not.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PERM | Errno::PROTO) => {}
                Err(errno) => return Accepted::Exhausted(errno),
            }
        }
    }

    /// Lets a connection in, or tells it why not.
    fn welcome(&self, socket: OwnedFd) {
        let link = Rc::new(Link::new(socket));
        let admitted = unix::peer_credentials(link.socket()).and_then(|identity| {
            self.check_access(&identity)?;
            self.bus.connect_socket(identity, Rc::clone(&link))
        });
        match admitted {
            Ok(key) => {
                // The task ends with its connection; nobody waits for it.
                drop(tokio::task::spawn_local(Connection::new(self.bus.clone(), key, link).run()));
            }
            Err(error) => {
                self.log_refusal(&error);
                refuse(link.socket(), &error);
            }
        }
    }

    /// Until a policy says otherwise the bus is open to the daemon's own user and to root.
    fn check_access(&self, identity: &Identity) -> Result<(), Error> {
        match identity {
            Identity::Local { uid, .. } if *uid == self.owner || *uid == 0 => Ok(()),
            Identity::Local { .. } | Identity::Remote { .. } => {
                Tally::add(&self.bus.tally().refused_access);
                Err(access_denied(identity))
            }
        }
    }

    fn log_refusal(&self, error: &Error) {
        if let Some(held_back) = self.log.allow(clock::now()) {
            tracing::warn!(held_back, "refused a connection: {error}");
        }
    }

    /// With the spare descriptor one connection at a time can be accepted and told why it is refused, instead of waiting
    /// for nobody knows how long.
    fn refuse_with_spare(&self, errno: Errno) {
        Tally::add(&self.bus.tally().accept_pauses);
        let mut error = Error::new(ErrorCode::QuotaExceeded, format!("the daemon cannot accept: {errno}"))
            .with_hint("try again; raise the limit of open files of the daemon (RLIMIT_NOFILE)");
        error.detail_mut().resource = Some("open_files".to_owned());
        self.log_refusal(&error);
        let spare = self.spare.take();
        if spare.is_some() {
            drop(spare);
            if let Accepted::Connection(socket) = self.accept() {
                refuse(&socket, &error);
            }
        }
        self.spare.replace(open_spare().ok());
    }

    /// Tells everybody who waits to be accepted that the daemon stops.
    pub(crate) fn turn_away(&self) {
        let error = Error::new(ErrorCode::ShuttingDown, "the daemon is stopping")
            .with_hint("connect again when it has been started anew");
        for _ in 0..BACKLOG_MAX {
            match self.accept() {
                Accepted::Connection(socket) => refuse(&socket, &error),
                Accepted::Nobody | Accepted::Exhausted(_) => return,
            }
        }
    }
}

/// A courtesy to a connection that is closed in the next moment: it may be gone already.
fn refuse(socket: &OwnedFd, error: &Error) {
    // Whoever is gone needs no reason any more.
    let _ = rustix::net::send(socket, &refusal_frame(error), SendFlags::NOSIGNAL);
}

fn open_spare() -> io::Result<OwnedFd> {
    File::open("/dev/null").map(OwnedFd::from)
}
