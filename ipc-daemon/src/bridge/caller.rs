//! A network client's side of the bus: a peer without a socket, and at most one call.

use core::time::Duration;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use ipc_core::identity::Identity;
use ipc_core::payload::Payload;
use ipc_core::session::{self, Answer, CallOptions, HandleKey, Session, State, Ticket};
use ipc_core::transport::clock;
use ipc_core::{Error, ErrorCode};

use super::port::Port;
use super::spec::Spec;
use crate::broker::{Access, Transport};
use crate::bus::internal::InternalPeer;

/// How long a network client's call may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// What the peer of a network client calls itself.
const PROGRAM: &str = "expose";

/// A peer that may call one method. Dropping it cancels the call that is open.
pub(super) struct Caller {
    peer: InternalPeer,
    session: Session,
    method: HandleKey,
    call: Option<Ticket>,
}

impl Caller {
    /// Connects a peer that may call what `spec` grants. Its hello is answered at once.
    ///
    /// # Errors
    /// The broker's refusal, as for any connection.
    pub(super) fn connect(port: &Rc<Port>, identity: Identity) -> Result<Self, Error> {
        let Spec { service, method, .. } = &port.spec;
        let access = Access::Only { service: service.clone(), method: method.clone() };
        let peer = InternalPeer::connect(&port.bus, identity, Transport::ExposeTcp, access)?;
        let config = session::Config {
            name: PROGRAM.to_owned(),
            preamble: false,
            reports_completions: false,
            ..session::Config::default()
        };
        let mut session = Session::connect(config, clock::now());
        let method = session.method(service.as_str(), method.as_str())?;
        let mut caller = Self { peer, session, method, call: None };
        caller.flush();
        Ok(caller)
    }

    /// Whether a call is open.
    pub(super) fn is_calling(&self) -> bool {
        self.call.is_some()
    }

    /// Calls the method; to be used while no call is open.
    ///
    /// # Errors
    /// When the call cannot even be made.
    pub(super) fn call(&mut self, payload: Payload) -> Result<(), Error> {
        debug_assert!(!self.is_calling(), "one call at a time");
        let now = clock::now();
        let options = CallOptions { deadline: Some(now + DEADLINE), ..CallOptions::default() };
        self.call = Some(self.session.call(now, self.method, payload, options)?);
        self.flush();
        Ok(())
    }

    /// The reply to the open call, or the error that it or the connection to the bus has ended with. Cancel safe.
    pub(super) fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<Result<Payload, Error>> {
        loop {
            if let Some(outcome) = self.call.and_then(|call| self.session.take(call)) {
                self.call = None;
                return Poll::Ready(match outcome {
                    Ok(Answer::Reply(reply)) => Ok(reply.payload),
                    Ok(Answer::Published(_) | Answer::Registered { .. } | Answer::Done) => Err(Error::new(
                        ErrorCode::ProtocolViolation,
                        "a call was answered with something else",
                    )),
                    Err(error) => Err(error),
                });
            }
            if self.session.state() == State::Closed {
                let ended = self.session.ended().cloned();
                let unknown = || Error::new(ErrorCode::Unreachable, "the connection to the bus has ended");
                return Poll::Ready(Err(ended.unwrap_or_else(unknown)));
            }
            ready!(self.poll_receive(context));
        }
    }

    /// Moves what is due from the bus to the session, and what that leads to back.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut received = Vec::new();
        if ready!(self.peer.poll_receive(context, &mut received)) {
            self.session.handle_input(clock::now(), &mut &received[..]);
        } else {
            self.session.handle_eof(None);
        }
        // What happened is asked for directly: the outcome of the call, and whether the session has ended.
        while self.session.poll_event().is_some() {}
        self.flush();
        Poll::Ready(())
    }

    fn flush(&mut self) {
        let mut bytes = Vec::new();
        for piece in self.session.transmit() {
            bytes.extend_from_slice(piece);
        }
        if !bytes.is_empty() {
            self.session.transmitted(bytes.len());
            self.peer.send(&bytes);
        }
    }
}
