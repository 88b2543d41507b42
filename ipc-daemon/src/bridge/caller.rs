//! A network client's side of the bus: a peer without a socket that may call one method.

use core::time::Duration;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use ipc_core::payload::Payload;
use ipc_core::session::{self, Answer, CallOptions, HandleKey, State, Ticket};
use ipc_core::transport::clock;
use ipc_core::{Error, ErrorCode};

use super::plain_payload;
use super::spec::expose::Target;
use crate::broker::{Access, Transport};
use crate::bus::Bus;
use crate::bus::internal::{InternalPeer, InternalSession};
use crate::net::anonymous;

/// How long a network client's call may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// What the peer of a network client calls itself.
const PROGRAM: &str = "expose";

/// What a call came to.
pub(super) type Outcome = Result<Payload, Error>;

/// A peer that may call one method. Dropping it cancels the calls that are open.
pub(super) struct Caller {
    link: InternalSession,
    method: HandleKey,
    open: usize,
}

impl Caller {
    /// Connects a peer for `client` that may call what is granted. Its hello is answered at once.
    ///
    /// # Errors
    /// The broker's refusal, as for any connection.
    pub(super) fn connect(
        bus: &Bus,
        granted: &Target,
        client: SocketAddr,
        transport: Transport,
    ) -> Result<Self, Error> {
        let Target { service, method } = granted;
        let access = Access::Only { service: service.clone(), method: method.clone() };
        let peer = InternalPeer::connect(bus, anonymous(&client), transport, access)?;
        let config = session::Config { name: PROGRAM.to_owned(), ..session::Config::default() };
        let mut link = InternalSession::start(peer, config);
        let method = link.session.method(service.as_str(), method.as_str())?;
        // Before the daemon has said what it takes, only small payloads may be sent.
        link.settle();
        Ok(Self { link, method, open: 0 })
    }

    /// Whether a call is open.
    pub(super) fn is_calling(&self) -> bool {
        self.open > 0
    }

    /// How many calls are open.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Calls the method with bytes from the network.
    ///
    /// # Errors
    /// When the call cannot even be made.
    pub(super) fn call(&mut self, body: Bytes) -> Result<Ticket, Error> {
        let now = clock::now();
        let options = CallOptions { deadline: Some(now + DEADLINE), ..CallOptions::default() };
        let ticket = self.link.session.call(now, self.method, plain_payload(body), options)?;
        self.open += 1;
        self.link.flush();
        Ok(ticket)
    }

    /// The next outcome of a call, or the error that the connection to the bus has ended with. Cancel safe.
    pub(super) fn poll_outcome(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<(Ticket, Outcome), Error>> {
        loop {
            let session = &mut self.link.session;
            while let Some(ticket) = session.poll_completed() {
                let Some(outcome) = session.take(ticket) else { continue };
                self.open -= 1;
                let reply = match outcome {
                    Ok(Answer::Reply(reply)) => Ok(reply.payload),
                    Ok(_) => Err(Error::new(
                        ErrorCode::ProtocolViolation,
                        "a call was answered with something else",
                    )),
                    Err(error) => Err(error),
                };
                return Poll::Ready(Ok((ticket, reply)));
            }
            if session.state() == State::Closed {
                let ended = session.ended().cloned();
                let unknown = || Error::new(ErrorCode::Unreachable, "the connection to the bus has ended");
                return Poll::Ready(Err(ended.unwrap_or_else(unknown)));
            }
            ready!(self.link.poll_receive(context));
            // What happened is asked for directly: outcomes, and whether the session has ended.
            while self.link.session.poll_event().is_some() {}
        }
    }
}
