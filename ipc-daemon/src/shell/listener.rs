//! Accepting connections: who it is, whether they may, and a task for each that may.

use std::io;
use std::rc::Rc;

use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::transport::{Listener as Socket, Socket as _, Stream, clock, unix};
use ipc_core::{Error, ErrorCode};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::connection::Connection;
use crate::broker::{Side, Transport, refusal_frame};
use crate::bus::link::Link;
use crate::bus::reaper::Reaper;
use crate::bus::{Bus, Tally};
use crate::failure::Failure;
use crate::logging::rate::Rates;
use crate::net::accept::{Acceptor, Arrival};
use crate::net::{anonymous, payer};

/// Connections told that the daemon stops before it does: as many as can have been waiting.
const BACKLOG_MAX: u32 = 8192;

/// Whom a listening socket lets in, and how it knows them.
enum Entrance {
    /// Processes of this machine, whose user the kernel names.
    Local {
        /// Where the kernel does not keep descriptors out.
        reaper: Option<Reaper>,
    },
    /// The network, which proves nothing.
    Network,
}

/// A listening socket and the loop that accepts from it.
pub(crate) struct Listener {
    bus: Bus,
    socket: Rc<Socket>,
    acceptor: Acceptor,
    entrance: Entrance,
    log: Rates,
}

impl Listener {
    /// A listener over a bound `AF_UNIX` socket that does not block, with a reaper if the kernel does not keep descriptors out.
    ///
    /// # Errors
    /// 74 when the runtime cannot watch it.
    pub(crate) fn local(bus: Bus, socket: Socket, reaper: Option<Reaper>) -> Result<Self, Failure> {
        Self::new(bus, socket, Entrance::Local { reaper })
            .map_err(|error| Failure::io("watch the listening socket", error))
    }

    /// A listener over a bound TCP socket that does not block.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub(crate) fn network(bus: Bus, socket: Socket) -> io::Result<Self> {
        Self::new(bus, socket, Entrance::Network)
    }

    fn new(bus: Bus, socket: Socket, entrance: Entrance) -> io::Result<Self> {
        let socket = Rc::new(socket);
        let acceptor = Acceptor::new(Rc::clone(&socket))?;
        Ok(Self { bus, socket, acceptor, entrance, log: Rates::default() })
    }

    /// Other limits from here on.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        if let Entrance::Local { reaper: Some(reaper) } = &self.entrance {
            reaper.set_waiting_max(limits.descriptors_unclosed_max);
        }
    }

    /// The socket that it accepts from.
    pub(crate) fn socket(&self) -> &Rc<Socket> {
        &self.socket
    }

    /// Accepts for as long as the daemon runs. Cancel safe.
    pub(crate) async fn run(&self) {
        let handle = |arrival| match arrival {
            Arrival::Connection(socket) => self.welcome(socket),
            Arrival::Exhausted(errno, refused) => self.exhausted(errno, refused),
        };
        let side = match &self.entrance {
            Entrance::Local { .. } => Side::Local,
            Entrance::Network => Side::Remote,
        };
        let may = async || {
            self.bus.pass(None).await;
            self.bus.has_greeting_room(side).await;
        };
        self.acceptor.run(may, handle).await;
    }

    /// Even a connection that is refused may hold descriptors that must not be closed here.
    fn link(&self, socket: Stream) -> Link {
        let reaper = match &self.entrance {
            Entrance::Local { reaper } => reaper.clone(),
            Entrance::Network => None,
        };
        let reaper = reaper.map(|reaper| {
            let uid = match unix::peer_credentials(&socket) {
                Ok(Identity::Local { uid, .. }) => uid,
                // Of nobody: those wait for one another.
                Ok(Identity::Remote { .. }) | Err(_) => u32::MAX,
            };
            (reaper, uid)
        });
        Link::new(socket, reaper)
    }

    /// Lets a connection in, or tells it why not.
    fn welcome(&self, socket: Stream) {
        let link = Rc::new(self.link(socket));
        let identified = self.identify(link.socket());
        let who = identified.as_ref().map_or_else(|_| String::new(), |(identity, ..)| payer(identity));
        let admitted = identified.and_then(|(identity, groups, transport)| {
            self.bus.connect_socket(identity, groups, transport, Rc::clone(&link))
        });
        match admitted {
            Ok(key) => {
                // The task ends with its connection; nobody waits for it.
                drop(tokio::task::spawn_local(Connection::new(self.bus.clone(), key, link).run()));
            }
            Err(error) => {
                if error.code == ErrorCode::PermissionDenied {
                    Tally::add(&self.bus.tally().refused_access);
                }
                self.log_refusal(who, &error);
                refuse(&link, &error);
            }
        }
    }

    /// Who it is, with the groups that the kernel names.
    fn identify(&self, socket: &Stream) -> Result<(Identity, Vec<u32>, Transport), Error> {
        match &self.entrance {
            Entrance::Local { .. } => {
                let identity = unix::peer_credentials(socket)?;
                Ok((identity, unix::peer_groups(socket)?, Transport::UnixStream))
            }
            Entrance::Network => {
                let address = socket.peer_address().map_err(|error| {
                    let message = format!("a network client was gone before it was let in: {error}");
                    Error::new(ErrorCode::Io, message)
                })?;
                Ok((anonymous(&address), Vec::new(), Transport::Tcp))
            }
        }
    }

    /// Each user and principal has a rate of its own.
    fn log_refusal(&self, who: String, error: &Error) {
        if let Some(held_back) = self.log.allow(who, clock::now()) {
            tracing::warn!(held_back, "refused a connection: {error}");
        }
    }

    fn exhausted(&self, errno: Errno, refused: Option<Stream>) {
        Tally::add(&self.bus.tally().accept_pauses);
        let mut error = Error::new(ErrorCode::QuotaExceeded, format!("the daemon cannot accept: {errno}"))
            .with_hint("try again; raise the limit of open files of the daemon (RLIMIT_NOFILE)");
        error.detail_mut().resource = Some("open_files".to_owned());
        self.log_refusal(String::new(), &error);
        if let Some(socket) = refused {
            refuse(&self.link(socket), &error);
        }
    }

    /// Tells everybody who waits to be accepted that the daemon stops.
    pub(crate) fn turn_away(&self) {
        let error = Error::new(ErrorCode::ShuttingDown, "the daemon is stopping")
            .with_hint("connect again when it has been started anew");
        for _ in 0..BACKLOG_MAX {
            match self.acceptor.next_waiting() {
                Some(socket) => refuse(&self.link(socket), &error),
                None => return,
            }
        }
    }
}

/// A courtesy to a connection that is closed in the next moment: it may be gone already.
fn refuse(link: &Link, error: &Error) {
    // Whoever is gone needs no reason any more.
    let _ = rustix::net::send(link.socket(), &refusal_frame(error), SendFlags::NOSIGNAL);
}
