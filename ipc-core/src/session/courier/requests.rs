//! What is asked for becomes a datagram with a number.

use super::{Courier, RequestId};
use crate::error::{Error, ErrorCode};
use crate::limits::{DATAGRAM_MAX_BYTES, DEADLINE_MAX, OUTPUT_MARK_BYTES, TRACEPARENT_MAX_BYTES};
use crate::name::{MethodName, ServiceName, TopicName};
use crate::payload::Payload;
use crate::time::Instant;
use crate::wire::codec::{List, Wire};
use crate::wire::datagram::{
    CallNamed, DatagramHeader, DatagramKind, PublishNamed, encode_bare, encode_datagram,
};
use crate::wire::{Flags, WireError};

/// What may be said about one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestOptions {
    /// When the requester stops waiting; at most an hour ahead.
    pub deadline: Instant,
    /// W3C Trace Context, passed on; at most 55 bytes.
    pub traceparent: Option<String>,
}

impl Courier {
    /// Calls a method. The outcome is [`Answer::Reply`](crate::session::Answer::Reply) or an error.
    ///
    /// # Errors
    /// At once and without having sent anything: `invalid_argument`, `payload_too_large`, `deadline_exceeded`, and
    /// `quota_exceeded` for more open requests than the daemon lets a client have.
    pub fn call(
        &mut self,
        now: Instant,
        service: &ServiceName,
        method: &MethodName,
        payload: &Payload,
        options: RequestOptions,
    ) -> Result<RequestId, Error> {
        let envelope = call_envelope(service, method, options.traceparent)?;
        self.request(now, DatagramKind::Call, &envelope, payload, options.deadline)
    }

    /// Calls a method without wanting an answer. It is sent once, and may be lost.
    ///
    /// # Errors
    /// As for [`call`](Courier::call); `quota_exceeded` while too much waits for the daemon's first answer.
    pub fn call_oneway(
        &mut self,
        now: Instant,
        service: &ServiceName,
        method: &MethodName,
        payload: &Payload,
        options: RequestOptions,
    ) -> Result<(), Error> {
        let envelope = call_envelope(service, method, options.traceparent)?;
        let number = remaining(now, options.deadline)?;
        self.oneway(DatagramKind::Call, number, &envelope, payload)
    }

    /// Publishes an event. The outcome is [`Answer::Published`](crate::session::Answer::Published) or an error.
    ///
    /// # Errors
    /// As for [`call`](Courier::call).
    pub fn publish(
        &mut self,
        now: Instant,
        topic: &TopicName,
        payload: &Payload,
        options: RequestOptions,
    ) -> Result<RequestId, Error> {
        let envelope = publish_envelope(topic, options.traceparent)?;
        self.request(now, DatagramKind::Publish, &envelope, payload, options.deadline)
    }

    /// Publishes an event without wanting an answer. It is sent once, and may be lost.
    ///
    /// # Errors
    /// As for [`call_oneway`](Courier::call_oneway).
    pub fn publish_oneway(
        &mut self,
        topic: &TopicName,
        payload: &Payload,
        traceparent: Option<String>,
    ) -> Result<(), Error> {
        let envelope = publish_envelope(topic, traceparent)?;
        self.oneway(DatagramKind::Publish, 0, &envelope, payload)
    }

    /// Asks the daemon for a sign of life. The outcome is [`Answer::Done`](crate::session::Answer::Done) or an error.
    pub fn ping(&mut self, now: Instant, deadline: Instant) -> RequestId {
        let id = self.next_hello();
        let hello = self.hello(id);
        self.free.push_back(hello.clone());
        let jitter = self.draw();
        self.requests.insert_greeting(now, id, hello, deadline, jitter);
        RequestId(id)
    }

    /// The user is done: tells the daemon that nothing is open any more, so that it need not keep outcomes.
    pub fn close(&mut self) {
        for id in self.requests.ever_sent() {
            self.abandon(RequestId(id));
        }
        if self.daemon.is_some() {
            self.queue_ack(self.next_id);
        }
    }

    pub(super) fn next_hello(&mut self) -> u64 {
        let id = self.next_hello;
        self.next_hello += 1;
        id
    }

    /// The outcome of this request is here, as are all below the low-water mark: the daemon need not keep them.
    pub(super) fn queue_ack(&mut self, id: u64) {
        self.queue_about(DatagramKind::Ack, id);
    }

    pub(super) fn queue_cancel(&mut self, id: u64) {
        self.queue_about(DatagramKind::Cancel, id);
    }

    fn queue_about(&mut self, kind: DatagramKind, id: u64) {
        let low = self.requests.low_water().unwrap_or(id).min(id);
        let open = u32::try_from(id - low).unwrap_or(u32::MAX);
        let header = DatagramHeader { open, id, ..self.header(kind) };
        self.queue_proven(encode_bare(header).to_vec());
    }

    fn header(&self, kind: DatagramKind) -> DatagramHeader {
        DatagramHeader { client: self.config.client, ..DatagramHeader::new(kind) }
    }

    fn queue_proven(&mut self, datagram: Vec<u8>) {
        self.proven_bytes += datagram.len();
        self.proven.push_back(datagram);
    }

    fn request<T: Wire>(
        &mut self,
        now: Instant,
        kind: DatagramKind,
        envelope: &T,
        payload: &Payload,
        deadline: Instant,
    ) -> Result<RequestId, Error> {
        remaining(now, deadline)?;
        if let Some(daemon) = self.daemon
            && self.requests.len() >= daemon.requests_max as usize
        {
            return Err(Error::quota("datagram_requests_per_client_max", daemon.requests_max.into())
                .with_hint("wait for answers before asking again"));
        }
        let header = DatagramHeader { payload_kind: payload.kind, id: self.next_id, ..self.header(kind) };
        let datagram = encode_datagram(header, envelope, &payload.body).map_err(too_large)?;
        let id = self.next_id;
        self.next_id += 1;
        self.requests.insert(id, datagram, deadline);
        Ok(RequestId(id))
    }

    fn oneway<T: Wire>(
        &mut self,
        kind: DatagramKind,
        number: u32,
        envelope: &T,
        payload: &Payload,
    ) -> Result<(), Error> {
        // The kernel's word is enough for an event; a call must not run twice.
        let needs_nothing = self.config.is_local && kind == DatagramKind::Publish;
        let id = if needs_nothing { 0 } else { self.next_oneway };
        let header = DatagramHeader {
            flags: Flags::ONEWAY,
            payload_kind: payload.kind,
            number,
            id,
            ..self.header(kind)
        };
        let datagram = encode_datagram(header, envelope, &payload.body).map_err(too_large)?;
        if needs_nothing {
            self.free.push_back(datagram);
            return Ok(());
        }
        if (self.proven_bytes + datagram.len()) as u64 > OUTPUT_MARK_BYTES {
            return Err(Error::quota("OUTPUT_MARK_BYTES", OUTPUT_MARK_BYTES)
                .with_hint("the daemon has not answered yet: wait for an outcome before sending more"));
        }
        self.next_oneway += 1;
        self.queue_proven(datagram);
        Ok(())
    }
}

fn call_envelope(
    service: &ServiceName,
    method: &MethodName,
    traceparent: Option<String>,
) -> Result<CallNamed, Error> {
    check_traceparent(traceparent.as_deref())?;
    Ok(CallNamed {
        service: service.as_str().into(),
        method: method.as_str().into(),
        traceparent: traceparent.map(|text| text.as_str().into()),
        extensions: List::default(),
    })
}

fn publish_envelope(topic: &TopicName, traceparent: Option<String>) -> Result<PublishNamed, Error> {
    check_traceparent(traceparent.as_deref())?;
    Ok(PublishNamed {
        topic: topic.as_str().into(),
        traceparent: traceparent.map(|text| text.as_str().into()),
        extensions: List::default(),
    })
}

fn check_traceparent(traceparent: Option<&str>) -> Result<(), Error> {
    match traceparent {
        Some(text) if text.len() > TRACEPARENT_MAX_BYTES => Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("a traceparent of {} bytes is longer than {TRACEPARENT_MAX_BYTES}", text.len()),
        )),
        Some(_) | None => Ok(()),
    }
}

/// Microseconds to the deadline.
fn remaining(now: Instant, deadline: Instant) -> Result<u32, Error> {
    let left = deadline.since(now);
    if left.is_zero() {
        return Err(Error::new(
            ErrorCode::DeadlineExceeded,
            "the deadline had passed before anything was sent",
        ));
    }
    if left > DEADLINE_MAX {
        return Err(Error::new(ErrorCode::InvalidArgument, "a deadline is at most one hour ahead"));
    }
    Ok(u32::try_from(left.as_micros()).unwrap_or(u32::MAX).max(1))
}

fn too_large(error: WireError) -> Error {
    let message = format!("it does not fit into one datagram: {error}");
    let mut error = Error::new(ErrorCode::PayloadTooLarge, message)
        .with_hint("send it over the stream socket, unix:DIR/bus.sock");
    let detail = error.detail_mut();
    detail.resource = Some("DATAGRAM_MAX_BYTES".to_owned());
    detail.limit = Some(DATAGRAM_MAX_BYTES as u64);
    error
}
