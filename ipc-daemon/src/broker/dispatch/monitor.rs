//! Telling those who may look what crosses the bus: an event on the topic `ipc.monitor` for each call, reply and event.
//!
//! The event comes from whoever sent the frame, and says in JSON what the frame was, not what was in it. It waits in the
//! queue of the subscription like any other, and is dropped and counted like any other: whoever looks slows nobody.

use core::fmt::Write as _;

use ipc_core::name::Filter;
use ipc_core::payload::PayloadKind;
use ipc_core::wire::{Body, Frame, Header, Kind};

use super::event::event_header;
use crate::broker::Broker;
use crate::broker::calls::Call;
use crate::broker::keys::{PeerKey, ServiceKey, TopicKey};
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

    /// Names are of letters that JSON takes as they are.
    fn show(&mut self, sender: PeerKey, mut about: String, to: Option<PeerKey>, bytes: usize) {
        let Some(topic) = self.topics.monitor() else { return };
        if let Some(to) = to.and_then(|to| self.peers.get(to)) {
            // Writing to a text does not fail.
            let _ = write!(about, r#","to":{}"#, to.who.id.0);
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
