//! A connection without a socket, whose other end is in this process.
//!
//! An [`InternalPeer`] is the connection, an [`InternalSession`] the connection with the session at its end: bytes move
//! between the two as a client moves them between a session and a socket. Its owner is woken when something is due to it;
//! like any peer that does not read, it is bounded by its queue in the broker.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use ipc_core::Error;
use ipc_core::identity::Identity;
use ipc_core::session::{self, Session, State};
use ipc_core::transport::clock;
use ipc_core::wire::Decoder;

use super::{Bus, Endpoint};
use crate::broker::{Access, Broker, PeerKey, Transport};

/// Most bytes that a session takes at a time.
const RECEIVE_MAX_BYTES: usize = 256 * 1024;

/// Tells the owner of an internal peer that something is due to it.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    is_closed: Cell<bool>,
    owner: RefCell<Option<Waker>>,
}

impl Mailbox {
    /// Something is due; with `is_last` nothing will be after it.
    pub(super) fn notify(&self, is_last: bool) {
        if is_last {
            self.is_closed.set(true);
        }
        if let Some(owner) = self.owner.borrow_mut().take() {
            owner.wake();
        }
    }
}

/// A peer in this process. Dropping it ends the connection.
pub(crate) struct InternalPeer {
    bus: Bus,
    key: PeerKey,
    mailbox: Rc<Mailbox>,
    decoder: Decoder,
}

impl InternalPeer {
    /// Connects a peer.
    ///
    /// # Errors
    /// The broker's refusal, as for any connection.
    pub(crate) fn connect(
        bus: &Bus,
        identity: Identity,
        transport: Transport,
        access: Access,
    ) -> Result<Self, Error> {
        let mailbox = Rc::new(Mailbox::default());
        let key = bus.connect(
            identity,
            Box::default(),
            transport,
            access,
            Endpoint::Internal(Rc::clone(&mailbox)),
        )?;
        let decoder = Decoder::new(bus.look(|broker| broker.frame_limits(key)));
        Ok(Self { bus: bus.clone(), key, mailbox, decoder })
    }

    /// Hands the bytes of a session without preamble to the bus, as one turn, and says how many they were. What they break
    /// is answered like any peer's violation: the connection ends.
    pub(crate) fn send<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) -> usize {
        let mut pieces = pieces.peekable();
        if pieces.peek().is_none() {
            return 0;
        }
        let Self { bus, key, decoder, .. } = self;
        let handle = |broker: &mut Broker, now| {
            let mut sent = 0;
            for mut piece in pieces {
                sent += piece.len();
                loop {
                    decoder.set_limits(broker.frame_limits(*key));
                    match decoder.next(&mut piece) {
                        Ok(Some(frame)) => broker.handle_frame(now, *key, frame),
                        Ok(None) => break,
                        // What follows is ignored, as from any connection that has departed.
                        Err(error) => {
                            broker.handle_violation(*key, error);
                            break;
                        }
                    }
                }
            }
            sent
        };
        bus.turn(|broker, now| broker.on_account_of(*key, |broker| handle(broker, now)))
    }

    /// The connection on the bus.
    pub(crate) fn key(&self) -> PeerKey {
        self.key
    }

    /// Ready when something is due, or nothing will be any more. Cancel safe.
    pub(crate) fn poll_due(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.mailbox.is_closed.get() || self.bus.has_pending(self.key) {
            return Poll::Ready(());
        }
        *self.mailbox.owner.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }

    /// Hands what is due to `take`, piece by piece, which must not touch the bus, and not more than so many bytes at a time.
    /// `Ready(false)` when nothing is and nothing will be any more. Cancel safe.
    pub(crate) fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        max_bytes: usize,
        mut take: impl FnMut(&[u8]),
    ) -> Poll<bool> {
        let mut taken = 0;
        self.bus.look(|broker| {
            for part in broker.transmit(self.key) {
                let length = part.len().min(max_bytes - taken);
                take(&part[..length]);
                taken += length;
                if taken == max_bytes {
                    break;
                }
            }
        });
        if taken > 0 {
            self.bus.turn(|broker, now| broker.transmitted(now, self.key, taken));
            return Poll::Ready(true);
        }
        if self.mailbox.is_closed.get() {
            return Poll::Ready(false);
        }
        *self.mailbox.owner.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for InternalPeer {
    fn drop(&mut self) {
        self.bus.disconnect(self.key);
    }
}

/// A peer in this process with its session.
pub(crate) struct InternalSession {
    peer: InternalPeer,
    /// The session; what it is asked for is on its way after the next [`flush`](InternalSession::flush).
    pub(crate) session: Session,
}

impl InternalSession {
    /// Says hello as `config` has it. The broker answers at once.
    pub(crate) fn start(peer: InternalPeer, config: session::Config) -> Self {
        let config = session::Config { preamble: false, ..config };
        Self { peer, session: Session::connect(config, clock::now()) }
    }

    /// Hands what the session has written to the bus.
    pub(crate) fn flush(&mut self) {
        let sent = self.peer.send(self.session.transmit());
        self.session.transmitted(sent);
    }

    /// Hands what the session has written to the bus and takes in what is answered in the same turn: the hello, a name, a
    /// registration.
    pub(crate) fn settle(&mut self) {
        self.flush();
        let mut nobody = Context::from_waker(Waker::noop());
        while self.session.state() != State::Closed && self.poll_receive(&mut nobody).is_ready() {}
    }

    /// Moves what is due from the bus to the session, and what that leads to back. Afterwards the session is to be asked
    /// what has happened: it may be over. Cancel safe.
    pub(crate) fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self { peer, session } = self;
        let now = clock::now();
        let take = |piece: &[u8]| session.handle_input(now, &mut &*piece);
        if !ready!(peer.poll_receive(context, RECEIVE_MAX_BYTES, take)) {
            session.handle_eof(None);
        }
        self.flush();
        Poll::Ready(())
    }
}
