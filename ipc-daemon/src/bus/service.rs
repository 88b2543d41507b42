//! A service of the daemon's own: a peer in this process that owns a name and is asked like any other service.

use std::cell::RefCell;
use std::task::{Context, Poll, ready};

use ipc_core::identity::Identity;
use ipc_core::payload::Payload;
use ipc_core::session::{self, Event, InboundKey, Incoming, Offer};
use ipc_core::transport::clock;
use ipc_core::{Error, ErrorCode};

use super::Bus;
use super::internal::{InternalPeer, InternalSession};
use crate::broker::{Access, Transport};

/// What a service is to deal with.
#[derive(Debug)]
pub(crate) enum Request {
    /// A call to be answered.
    Call(Incoming),
    /// Nobody waits for the answer to this call any more.
    Cancelled(InboundKey),
}

/// A registered service. Dropping it takes it from the bus; calls that are open end with `service_gone`.
pub(crate) struct Service {
    name: String,
    /// Never borrowed over an await.
    link: RefCell<InternalSession>,
}

impl Service {
    /// Connects a peer with the daemon's own identity and registers what it offers. If the offer is to queue, and the name
    /// is taken, the service gets its calls once its turn has come.
    ///
    /// # Errors
    /// The broker's refusal: `name_taken`, `quota_exceeded`, `permission_denied`, `shutting_down`.
    pub(crate) fn register(
        bus: &Bus,
        transport: Transport,
        access: Access,
        offer: Offer,
    ) -> Result<Self, Error> {
        let peer = InternalPeer::connect(bus, own_identity(), transport, access)?;
        let name = offer.service.to_string();
        let config = session::Config { name: name.clone(), ..session::Config::default() };
        let mut link = InternalSession::start(peer, config);
        let (_, ticket) = link.session.register(clock::now(), offer)?;
        link.settle();
        match link.session.take(ticket) {
            Some(outcome) => outcome.map(|_| Self { name, link: RefCell::new(link) }),
            None => {
                let message = format!("the bus did not answer the registration of {name}");
                Err(Error::new(ErrorCode::ProtocolViolation, message))
            }
        }
    }

    /// The next request; `None` when the bus has closed the connection. Cancel safe.
    pub(crate) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Request>> {
        let mut link = self.link.borrow_mut();
        loop {
            // Calls first: a call and the end of its caller's patience may have come together.
            if let Some(call) = link.session.poll_call() {
                return Poll::Ready(Some(Request::Call(call)));
            }
            while let Some(event) = link.session.poll_event() {
                match event {
                    Event::CallCancelled(key) => return Poll::Ready(Some(Request::Cancelled(key))),
                    Event::Closed(reason) => {
                        tracing::debug!("{} has ended: {reason}", self.name);
                        return Poll::Ready(None);
                    }
                    // Nothing else concerns a service.
                    _ => {}
                }
            }
            ready!(link.poll_receive(context));
        }
    }

    /// Answers a call, if somebody still waits for it.
    pub(crate) fn reply(&self, key: InboundKey, outcome: Result<Payload, Error>) {
        let mut link = self.link.borrow_mut();
        link.session.reply(key, outcome);
        link.flush();
    }
}

/// The daemon as a process.
fn own_identity() -> Identity {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Identity::Local { uid, gid, pid: std::process::id() }
}
