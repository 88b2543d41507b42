//! Calls and events on their way: frames that name a handle, and what goes before them.

use core::time::Duration;

use crate::error::{Error, ErrorCode};
use crate::id::Handle;
use crate::limits::DEADLINE_MAX;
use crate::name::ResourceName;
use crate::payload::Payload;
use crate::time::Instant;
use crate::wire::codec::{List, Text};
use crate::wire::coordination::Fence;
use crate::wire::message::Envelope;
use crate::wire::{FEATURE_FENCE, Header, Kind};

use super::Session;
use super::handles::HandleKey;
use super::output::Output;

/// A frame that names a handle, kept until its outcome in case it has to be sent again.
#[derive(Debug)]
pub(super) struct Addressed {
    pub(super) handle: HandleKey,
    /// The handle as it was on the wire.
    pub(super) wire: Handle,
    pub(super) payload: Payload,
    pub(super) deadline: Option<Instant>,
    pub(super) traceparent: Option<Box<str>>,
    /// The lock, and the token of its holder, that a call is made under.
    pub(super) fence: Option<Box<(ResourceName, u64)>>,
    /// Whether it was sent a second time, after the handle had become stale. There is no third.
    pub(super) retried: bool,
}

impl Addressed {
    /// An event, which has no end and is published under nothing.
    pub(super) fn event(
        topic: HandleKey,
        wire: Handle,
        payload: Payload,
        traceparent: Option<Box<str>>,
    ) -> Self {
        Self { handle: topic, wire, payload, deadline: None, traceparent, fence: None, retried: false }
    }
}

impl Session {
    /// A daemon that does not know what a fence is would run the call all the same.
    pub(super) fn check_fence(&self, is_fenced: bool) -> Result<(), Error> {
        if !is_fenced || self.daemon.as_ref().is_some_and(|daemon| daemon.features & FEATURE_FENCE != 0) {
            return Ok(());
        }
        let message = "this daemon does not make calls under the token of a lock";
        Err(Error::new(ErrorCode::Unsupported, message).with_hint("start a newer daemon"))
    }
}

/// Queues a call or an event.
pub(super) fn send_addressed(output: &mut Output, now: Instant, header: Header, sent: &Addressed) {
    let deadline_us = sent.deadline.map_or(0, |deadline| micros(deadline - now));
    let header = Header { deadline_us, ..header.with_handle(sent.wire) };
    if let Some(fence) = &sent.fence {
        let (lock, token) = &**fence;
        let fence = Fence { lock: Text::from(lock.as_str()), token: *token };
        let before = Header::new(Kind::FENCE).with_correlation(header.correlation);
        let queued = output.frame(before, &fence, &Payload::default());
        debug_assert!(queued.is_ok(), "a name fits into an envelope: {queued:?}");
    }
    match &sent.traceparent {
        None => output.plain(header, &sent.payload),
        Some(traceparent) => {
            let envelope =
                Envelope { traceparent: Some(Text::from(&**traceparent)), extensions: List::default() };
            let queued = output.frame(header, &envelope, &sent.payload);
            debug_assert!(queued.is_ok(), "the length of a traceparent was checked: {queued:?}");
        }
    }
}

/// A remaining time as it travels: at least one microsecond, because 0 stands for none.
pub(super) fn micros(remaining: Duration) -> u32 {
    let clamped = remaining.min(DEADLINE_MAX).as_micros().max(1);
    u32::try_from(clamped).unwrap_or(u32::MAX)
}
