//! From a request to its outcome, and the outcome to its client.

use core::time::Duration;

use bytes::Bytes;
use ipc_core::limits::DATAGRAM_MAX_BYTES;
use ipc_core::payload::Payload;
use ipc_core::session::{Answer, CallOptions, HandleKey, Outcome, Session, State, Ticket};
use ipc_core::time::Instant;
use ipc_core::wire::codec::{Text, Wire};
use ipc_core::wire::datagram::{
    CallNamed, Datagram, DatagramHeader, DatagramKind, PublishNamed, encode_datagram,
};
use ipc_core::wire::message::{ErrorBody, PeerInfo, Published};
use ipc_core::wire::{Flags, WireError};
use ipc_core::{Error, ErrorCode};

use super::client::{NAMED_MAX_BYTES, Named};
use super::window::Stage;
use super::{ClientKey, Door, Outgoing, Output, Receipt};

impl Door {
    /// Hands a request to the client's session, which is open.
    pub(super) fn start(&mut self, now: Instant, key: ClientKey, bytes: &[u8]) {
        let Ok(datagram) = Datagram::parse(bytes) else { return };
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(session) = &mut client.session else { return };
        let header = &datagram.header;
        let is_oneway = header.flags.contains(Flags::ONEWAY);
        if !is_oneway && client.window.get_mut(header.id).is_none() {
            // While it waited its client has moved on.
            return;
        }
        let started = begin(now, session, &mut client.named, &datagram);
        if !is_oneway {
            match started {
                Ok(Some(ticket)) => {
                    client.tickets.insert(ticket, header.id);
                    if let Some(entry) = client.window.get_mut(header.id) {
                        entry.stage = Stage::Running(Some(ticket));
                    }
                }
                Ok(None) => {}
                Err(error) => self.conclude(now, key, header.id, Err(error)),
            }
        }
        self.touch(key);
    }

    /// Takes the outcomes that the client's session has.
    pub(super) fn collect(&mut self, now: Instant, key: ClientKey) {
        loop {
            let Some(client) = self.clients.get_mut(key) else { return };
            let Some(session) = &mut client.session else { return };
            // What happened to the connection shows in the outcomes.
            while session.poll_event().is_some() {}
            let Some(ticket) = session.poll_completed() else { break };
            let outcome = session.take(ticket);
            if let (Some(id), Some(outcome)) = (client.tickets.remove(&ticket), outcome) {
                self.conclude(now, key, id, outcome);
            }
        }
        self.touch(key);
        if self.clients.get(key).and_then(|client| client.session.as_ref()).is_some_and(is_closed) {
            self.outputs.push_back(Output::Disconnect(key));
            self.handle_end(now, key);
        }
    }

    /// A request has its outcome: it is kept for as long as it may be asked for, and sent.
    pub(super) fn conclude(&mut self, now: Instant, key: ClientKey, id: u64, outcome: Outcome) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let to = DatagramHeader {
            epoch: self.config.epoch.0,
            cookie: client.cookie(),
            client: client.sender.client,
            id,
            ..DatagramHeader::new(DatagramKind::Reply)
        };
        let datagram = Bytes::from(encode(to, outcome));
        let Some(entry) = client.window.get_mut(id) else { return };
        let limits = &self.config.limits;
        let has_room = client.kept_bytes + datagram.len()
            <= limits.datagram_kept_per_client_max_bytes as usize
            && self.kept_bytes + datagram.len() <= limits.datagram_kept_max_bytes as usize;
        if has_room {
            entry.stage = Stage::Done(Some(datagram.clone()));
            client.kept_bytes += datagram.len();
            self.kept_bytes += datagram.len();
            client.flow.push(id);
            self.pump(now, key);
        } else {
            entry.stage = Stage::Done(None);
            self.counters.datagrams_outcomes_dropped += 1;
            let to = client.sender.source.clone();
            self.counters.datagrams_sent += 1;
            self.outputs.push_back(Output::Send(Outgoing { to, datagram, receipt: None }));
        }
    }

    /// Sends what the client has room for.
    pub(super) fn pump(&mut self, now: Instant, key: ClientKey) {
        loop {
            let Some(client) = self.clients.get_mut(key) else { return };
            let Some(id) = client.flow.next() else { return };
            self.send_outcome(now, key, id);
        }
    }

    fn send_outcome(&mut self, _now: Instant, key: ClientKey, id: u64) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(Stage::Done(Some(kept))) = client.window.get_mut(id).map(|entry| &entry.stage) else {
            return;
        };
        let datagram = if client.flow.wants_word() { asking_for_word(kept) } else { kept.clone() };
        let to = client.sender.source.clone();
        let receipt = Some(Receipt { client: key, id });
        self.counters.datagrams_sent += 1;
        self.outputs.push_back(Output::Send(Outgoing { to, datagram, receipt }));
    }

    /// A client asks for an outcome that is there.
    pub(super) fn answer_again(
        &mut self,
        now: Instant,
        key: ClientKey,
        header: &DatagramHeader,
        outcome: Option<Bytes>,
    ) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if !client.flow.ask_again(now, header.id) {
            return;
        }
        self.counters.datagrams_answered_again += 1;
        if outcome.is_some() {
            self.send_outcome(now, key, header.id);
            return;
        }
        let to =
            DatagramHeader { kind: DatagramKind::Reply, flags: Flags::NONE, number: 0, open: 0, ..*header };
        let error =
            Error::new(ErrorCode::OutcomeUnknown, "the request has run, and its outcome was not kept")
                .with_hint("the daemon had no room for it; larger answers are for the stream socket");
        let datagram = Bytes::from(encode(to, Err(error)));
        let to = client.sender.source.clone();
        self.outputs.push_back(Output::Send(Outgoing { to, datagram, receipt: None }));
    }

    /// The client has the outcome of this one: nothing but its number is remembered.
    pub(super) fn settle(&mut self, now: Instant, key: ClientKey, id: u64) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.flow.settle(id);
        if let Some(entry) = client.window.get_mut(id)
            && let Stage::Done(outcome) = &mut entry.stage
        {
            let bytes = outcome.take().map_or(0, |outcome| outcome.len());
            client.kept_bytes -= bytes;
            self.kept_bytes -= bytes;
        }
        self.pump(now, key);
    }

    /// The system did not take a datagram.
    pub fn unsent(&mut self, now: Instant, receipt: Receipt) {
        let Some(client) = self.clients.get_mut(receipt.client) else { return };
        let had = client.flow.retry_at;
        let given_up = client.flow.unsent(now, receipt.id);
        self.counters.datagrams_unread += given_up as u64;
        self.counters.datagrams_sent = self.counters.datagrams_sent.saturating_sub(1);
        if let (None, Some(at)) = (had, client.flow.retry_at) {
            self.retries.insert((at, receipt.client));
        }
    }
}

fn is_closed(session: &Session) -> bool {
    session.state() == State::Closed
}

/// Makes the request on the bus.
fn begin(
    now: Instant,
    session: &mut Session,
    named: &mut Option<Named>,
    datagram: &Datagram<'_>,
) -> Result<Option<Ticket>, Error> {
    let header = &datagram.header;
    let is_oneway = header.flags.contains(Flags::ONEWAY);
    let mut payload = Payload::bytes(Bytes::copy_from_slice(datagram.payload));
    payload.kind = header.payload_kind;
    if header.kind == DatagramKind::Publish {
        let PublishNamed { topic, traceparent, .. } = decode(datagram)?;
        let topic = session.topic(&topic.0)?;
        let traceparent = traceparent.map(boxed);
        return match is_oneway {
            true => session.publish_oneway(now, topic, payload, traceparent).map(|()| None),
            false => session.publish(now, topic, payload, traceparent).map(Some),
        };
    }
    let (method, traceparent) = method(session, named, datagram)?;
    let deadline = (header.number > 0).then(|| now + Duration::from_micros(header.number.into()));
    let options = CallOptions { deadline, traceparent, fence: None };
    match is_oneway {
        true => session.call_oneway(now, method, payload, options).map(|()| None),
        false => session.call(now, method, payload, options).map(Some),
    }
}

/// What a datagram calls. Who calls the same method again says the same again, which need not be read.
fn method(
    session: &mut Session,
    named: &mut Option<Named>,
    datagram: &Datagram<'_>,
) -> Result<(HandleKey, Option<Box<str>>), Error> {
    if let Some(last) = named
        && *last.envelope == *datagram.envelope
        && session.knows(last.method)
    {
        return Ok((last.method, None));
    }
    let CallNamed { service, method, traceparent, .. } = decode(datagram)?;
    let method = session.method(&service.0, &method.0)?;
    // With a trace each is another one.
    if traceparent.is_none() && datagram.envelope.len() <= NAMED_MAX_BYTES {
        *named = Some(Named { envelope: datagram.envelope.into(), method });
    }
    Ok((method, traceparent.map(boxed)))
}

fn boxed(text: Text) -> Box<str> {
    text.0.into_boxed_str()
}

fn decode<T: Wire>(datagram: &Datagram<'_>) -> Result<T, Error> {
    datagram.decode().map_err(|error| Error::new(ErrorCode::InvalidArgument, error.to_string()))
}

/// The datagram that says what a request came to.
fn encode(to: DatagramHeader, outcome: Outcome) -> Vec<u8> {
    let failed = |error: &Error| {
        let header = DatagramHeader { flags: Flags::ERROR, payload_kind: Default::default(), ..to };
        // Texts of an error are cut to some kilobytes.
        encode_datagram(header, &ErrorBody::from(error), &[]).unwrap_or_default()
    };
    let encoded = match outcome {
        Ok(Answer::Reply(reply)) => {
            let header = DatagramHeader { payload_kind: reply.payload.kind, ..to };
            encode_datagram(header, &PeerInfo::from(&reply.responder), &reply.payload.body)
        }
        Ok(Answer::Published(published)) => {
            let header = DatagramHeader { kind: DatagramKind::Published, ..to };
            let envelope = Published { sequence: published.sequence, subscribers: published.subscribers };
            encode_datagram(header, &envelope, &[])
        }
        Ok(
            Answer::Registered { .. }
            | Answer::Held
            | Answer::Granted { .. }
            | Answer::Passed(_)
            | Answer::Changed(_)
            | Answer::Transacted(_)
            | Answer::Keys(_)
            | Answer::Put(_)
            | Answer::Taken(_)
            | Answer::Nacked { .. }
            | Answer::Counted(_)
            | Answer::Peeked { .. }
            | Answer::Purged { .. }
            | Answer::Done,
        ) => Err(WireError::Envelope("it is no outcome of a request")),
        Err(error) => Ok(failed(&error)),
    };
    encoded.unwrap_or_else(|error| failed(&too_large(&error)))
}

fn too_large(error: &WireError) -> Error {
    let message = format!("the request has run, and its outcome does not fit into one datagram: {error}");
    let mut error = Error::new(ErrorCode::PayloadTooLarge, message)
        .with_hint("call over the stream socket, unix:DIR/bus.sock");
    let detail = error.detail_mut();
    detail.resource = Some("DATAGRAM_MAX_BYTES".to_owned());
    detail.limit = Some(DATAGRAM_MAX_BYTES as u64);
    error
}

/// The same outcome, whose arrival is to be acknowledged.
fn asking_for_word(outcome: &Bytes) -> Bytes {
    let mut datagram = outcome.to_vec();
    if let Some(flags) = datagram.get_mut(6) {
        *flags |= Flags::ACK.bits();
    }
    Bytes::from(datagram)
}
