//! Telling those who may look what crosses the bus: an event on the topic `ipc.monitor` for each call, reply and event, each
//! request of coordination and its outcome, whatever else was refused or came to nothing, and what the daemon tells by itself.
//!
//! The event comes from whoever sent the frame, or had asked for what is answered, and says in JSON what the frame was, not what
//! was in it. It waits in the queue of the subscription like any other, and is dropped and counted like any other: whoever looks
//! slows nobody.

use core::fmt::Write as _;

use ipc_core::name::{Filter, MethodName, ServiceName};
use ipc_core::payload::PayloadKind;
use ipc_core::wire::coordination::{Operation, Told};
use ipc_core::wire::message::Resolve;
use ipc_core::wire::{Body, Frame, Header, Kind};
use ipc_core::{Error, ErrorCode};

use super::event::event_header;
use crate::broker::Broker;
use crate::broker::calls::Call;
use crate::broker::keys::{PeerKey, ServiceKey, TopicKey};
use crate::broker::peer::Target;
use crate::broker::policy::Action;
use crate::broker::topics::MONITOR_TOPIC;

/// What a subscription to that filter is, for the policy.
pub(super) fn listening(filter: &Filter) -> Action<'_> {
    if filter.as_str() == MONITOR_TOPIC { Action::Monitor("traffic") } else { Action::Subscribe(filter) }
}

impl Broker {
    /// Whether anybody looks.
    pub(super) fn is_monitored(&self) -> bool {
        self.topics.monitor().is_some()
    }

    /// A call was handed over.
    pub(super) fn show_call(
        &mut self,
        caller: PeerKey,
        callee: PeerKey,
        (service, method): (ServiceKey, u16),
        (bytes, is_oneway): (usize, bool),
    ) {
        let Some((service, method)) = self.names.method(service, method) else { return };
        let about =
            format!(r#""kind":"call","service":"{service}","method":"{method}","oneway":{is_oneway}"#);
        self.show(caller, about, Some(callee), bytes);
    }

    /// A reply was handed on.
    pub(super) fn show_reply(&mut self, callee: PeerKey, call: &Call, bytes: usize, is_error: bool) {
        // The name may have changed hands meanwhile; then it is not known any more which one it was.
        let service = self.names.name(call.service).map(ToString::to_string).unwrap_or_default();
        let about = format!(r#""kind":"reply","service":"{service}","error":{is_error}"#);
        self.show(callee, about, Some(call.caller), bytes);
    }

    /// An event was queued for its subscribers.
    pub(super) fn show_event(
        &mut self,
        publisher: PeerKey,
        topic: TopicKey,
        (sequence, subscribers): (u64, u32),
        bytes: usize,
    ) {
        let Some(topic) = self.topics.get(topic).map(|topic| &topic.name) else { return };
        let about =
            format!(r#""kind":"event","topic":"{topic}","sequence":{sequence},"subscribers":{subscribers}"#);
        self.show(publisher, about, None, bytes);
    }

    /// A request of coordination came.
    pub(super) fn show_request(&mut self, peer: PeerKey, frame: &Frame<'_>) {
        let operation = Operation(frame.header.handle.index);
        let mut about = format!(r#""kind":"request","operation":"{}""#, operation.name());
        if let Some(name) = operation.subject(frame.envelope) {
            append(&mut about, format_args!(r#","name":"{name}""#));
        }
        append_request(&mut about, frame.header.correlation);
        self.show(peer, about, None, frame.body.as_slice().len());
    }

    /// It was answered, with that header, or refused.
    pub(super) fn show_outcome(&mut self, peer: PeerKey, header: Header, refused: Option<ErrorCode>) {
        let operation = Operation(header.handle.index).name();
        let (is_error, code) = (refused.is_some(), refused.map_or("ok", ErrorCode::name));
        let mut about =
            format!(r#""kind":"outcome","operation":"{operation}","error":{is_error},"code":"{code}""#);
        append_request(&mut about, header.correlation);
        self.show(peer, about, None, 0);
    }

    /// A call was refused before it reached anybody.
    pub(super) fn show_refused_call(&mut self, caller: PeerKey, header: Header, code: ErrorCode) {
        let target = self.peers.get(caller).map_or(Target::Nothing, |state| state.target(header.handle));
        let mut about = refusal("call", code);
        if let Target::Method { service, method } = target
            && let Some((service, method)) = self.names.method(service, method)
        {
            append(&mut about, format_args!(r#","service":"{service}","method":"{method}""#));
        }
        self.show(caller, about, None, header.payload_len as usize);
    }

    /// A method was not to be had.
    pub(super) fn show_refused_resolve(&mut self, caller: PeerKey, request: &Resolve, code: ErrorCode) {
        let mut about = refusal("resolve", code);
        if let (Ok(service), Ok(method)) =
            (ServiceName::parse(&request.service.0), MethodName::parse(&request.method.0))
        {
            append(&mut about, format_args!(r#","service":"{service}","method":"{method}""#));
        }
        self.show(caller, about, None, 0);
    }

    /// A registration, a subscription, a watch or a topic was not to be had, by that name, if it is one.
    pub(super) fn show_if_refused<T>(
        &mut self,
        asker: PeerKey,
        operation: &str,
        (field, name): (&str, &str),
        result: &Result<T, Error>,
    ) {
        let (true, Err(error)) = (self.is_monitored(), result) else { return };
        let mut about = refusal(operation, error.code);
        if Filter::parse(name).is_ok() {
            append(&mut about, format_args!(r#","{field}":"{name}""#));
        }
        self.show(asker, about, None, 0);
    }

    /// Somebody is told something without having asked for it just now.
    pub(super) fn show_notice(&mut self, to: PeerKey, header: Header, bytes: usize) {
        let notice = match header.kind {
            Kind::NOTICE => Told(header.handle.index).name(),
            kind => kind.name(),
        };
        let mut about = format!(r#""kind":"notice","notice":"{notice}""#);
        append_request(&mut about, header.correlation);
        self.show(to, about, None, bytes);
    }

    /// A call that had been handed over ended without a reply.
    pub(super) fn show_failed_call(&mut self, call: &Call, code: ErrorCode) {
        let mut about = refusal("call", code);
        if let Some(service) = self.names.name(call.service) {
            append(&mut about, format_args!(r#","service":"{service}""#));
        }
        self.show(call.caller, about, None, 0);
    }

    /// Names are of letters that JSON takes as they are.
    fn show(&mut self, sender: PeerKey, mut about: String, to: Option<PeerKey>, bytes: usize) {
        let Some(topic) = self.topics.monitor() else { return };
        if self.peers.get(sender).is_none() {
            // Gone meanwhile: nobody could be told who it was.
            return;
        }
        if let Some(to) = to.and_then(|to| self.peers.get(to)) {
            append(&mut about, format_args!(r#","to":{}"#, to.who.id.0));
        }
        let text = format!(r#"{{{about},"bytes":{bytes}}}"#);
        let header = Header {
            payload_kind: PayloadKind::Json,
            payload_len: text.len() as u32,
            ..Header::new(Kind::PUBLISH)
        };
        let frame = Frame { header, envelope: &[], body: Body::Borrowed(text.as_bytes()) };
        let Some((sequence, matches)) = self.topics.publish(topic) else { return };
        let mut matches = core::mem::take(matches);
        let header = event_header(&frame, topic, sequence);
        let mut shared = None;
        for matched in &mut matches {
            self.deliver_to(sender, topic, matched, header, &frame, &mut shared);
        }
        self.topics.put_back(topic, matches);
    }
}

fn refusal(operation: &str, code: ErrorCode) -> String {
    format!(r#""kind":"refusal","operation":"{operation}","error":true,"code":"{}""#, code.name())
}

/// The number by which whoever asks tells its requests apart, if it is one that JSON has.
fn append_request(about: &mut String, correlation: u64) {
    if (1..1 << 53).contains(&correlation) {
        append(about, format_args!(r#","request":{correlation}"#));
    }
}

fn append(about: &mut String, more: core::fmt::Arguments<'_>) {
    // Writing to a text does not fail.
    let _ = about.write_fmt(more);
}
