//! What a received datagram means.

use super::{Courier, outcome_unknown};
use crate::error::{Error, ErrorCode};
use crate::id::Epoch;
use crate::payload::Payload;
use crate::session::{Answer, Outcome, Published, Reply};
use crate::time::Instant;
use crate::wire::Flags;
use crate::wire::datagram::{Datagram, DatagramHeader, DatagramKind};
use crate::wire::message::{self, ErrorBody, PeerInfo};

impl Courier {
    /// Takes in what was received as one datagram. What is no datagram for this client is counted and nothing else.
    pub fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) {
        let Some(datagram) = Datagram::parse(bytes).ok().filter(|it| it.header.client == self.config.client)
        else {
            self.tally.malformed += 1;
            return;
        };
        match datagram.header.kind {
            DatagramKind::Challenge => self.challenged(now, &datagram.header),
            DatagramKind::Refused => self.refused(now, &datagram.header),
            DatagramKind::Reply | DatagramKind::Published => self.answered(now, &datagram),
            DatagramKind::Hello
            | DatagramKind::Ack
            | DatagramKind::Call
            | DatagramKind::Cancel
            | DatagramKind::Publish => self.tally.malformed += 1,
        }
    }

    /// Epoch and cookie: asked for, or given because those of a request were not good.
    fn challenged(&mut self, now: Instant, header: &DatagramHeader) {
        if self.greeting.is_some_and(|greeting| greeting.id == header.id) {
            self.greeting = None;
        } else {
            match self.requests.get_mut(header.id) {
                Some(request) if request.is_greeting => self.conclude(header.id, Ok(Answer::Done)),
                // Ended below if it was sent to another daemon; else it goes out again with the new cookie.
                Some(_) => self.requests.make_ready(header.id),
                None => {
                    self.tally.duplicates += 1;
                    return;
                }
            }
        }
        self.acquaint(now, header);
        self.end_those_before(Epoch(header.epoch));
    }

    /// What was sent to a daemon before this one may have run there.
    fn end_those_before(&mut self, epoch: Epoch) {
        for id in self.requests.sent_before(epoch) {
            self.conclude(id, Err(outcome_unknown("the daemon was restarted before it answered")));
        }
    }

    fn refused(&mut self, now: Instant, header: &DatagramHeader) {
        let code = u16::try_from(header.number).ok().and_then(ErrorCode::from_number);
        let code = code.unwrap_or(ErrorCode::Unsupported);
        let is_greeting = self.greeting.is_some_and(|greeting| greeting.id == header.id);
        if is_greeting {
            self.greeting = None;
            for id in self.requests.never_sent() {
                self.conclude(id, Err(refusal(code)));
            }
            return;
        }
        let Some(request) = self.requests.get_mut(header.id) else {
            self.tally.duplicates += 1;
            return;
        };
        match code {
            // It has no room for the request now. It comes again by itself, until its deadline.
            ErrorCode::QuotaExceeded => self.heard(now, header),
            ErrorCode::OutcomeUnknown => {
                let is_restarted = request.sent_under != Some(Epoch(header.epoch));
                self.conclude(header.id, Err(refusal(code)));
                if is_restarted {
                    self.acquaint(now, header);
                    self.end_those_before(Epoch(header.epoch));
                }
            }
            code => self.conclude(header.id, Err(refusal(code))),
        }
    }

    fn answered(&mut self, now: Instant, datagram: &Datagram<'_>) {
        let header = &datagram.header;
        let is_expected =
            self.requests.get_mut(header.id).is_some_and(|it| it.sent_under == Some(Epoch(header.epoch)));
        if is_expected {
            match outcome(datagram) {
                Some(outcome) => self.conclude(header.id, outcome),
                None => self.tally.malformed += 1,
            }
        } else {
            self.tally.duplicates += 1;
        }
        self.heard(now, header);
        let is_known = self.daemon.is_some_and(|daemon| daemon.epoch.0 == header.epoch);
        // What is still open has no outcome, whatever came.
        if header.flags.contains(Flags::ACK) && is_known && self.requests.get_mut(header.id).is_none() {
            self.queue_ack(header.id);
        }
    }
}

fn outcome(datagram: &Datagram<'_>) -> Option<Outcome> {
    let header = &datagram.header;
    if header.flags.contains(Flags::ERROR) {
        let body: ErrorBody = datagram.decode().ok()?;
        return Some(Err(Error::from(body)));
    }
    if header.kind == DatagramKind::Published {
        let message::Published { sequence, subscribers } = datagram.decode().ok()?;
        return Some(Ok(Answer::Published(Published { sequence, subscribers })));
    }
    let responder: PeerInfo = datagram.decode().ok()?;
    let mut payload = Payload::bytes(datagram.payload.to_vec());
    payload.kind = header.payload_kind;
    Some(Ok(Answer::Reply(Reply { payload, responder: responder.into() })))
}

/// The error that a refusal stands for.
fn refusal(code: ErrorCode) -> Error {
    let message = match code {
        ErrorCode::OutcomeUnknown => {
            return outcome_unknown(
                "the daemon was restarted, or has forgotten the request, since it was sent",
            );
        }
        ErrorCode::DeadlineExceeded => "the deadline had passed when the request reached the daemon",
        ErrorCode::ShuttingDown => "the daemon is stopping and takes no new requests",
        ErrorCode::UnsupportedVersion => "the daemon speaks another version of datagrams",
        ErrorCode::PermissionDenied => "this bus is not open to whoever sent the datagram",
        ErrorCode::Unauthenticated => "the daemon could not verify who sent the datagram",
        ErrorCode::InvalidArgument => "the daemon does not take a datagram of this form",
        _ => "the daemon refused the request",
    };
    Error::new(code, message)
}
