//! Events handed on as they lie in what was read.
//!
//! Keeping an event takes a few allocations; a subscriber of millions of events a second does without. The order is that of
//! the stream: what was kept before is handed on first.

use core::fmt;

use crate::error::Error;
use crate::wire::{Frame, Kind, WireError};

use super::event::{DeliveryRef, EventRef, SubscriptionKey};
use super::{Session, State, tag::Tag};

/// Where the events of one subscription go.
pub struct Drain<'a> {
    /// The subscription.
    pub subscription: SubscriptionKey,
    /// Is given each delivery.
    pub each: &'a mut dyn FnMut(DeliveryRef<'_>),
}

impl fmt::Debug for Drain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("subscription", &self.subscription).finish_non_exhaustive()
    }
}

impl Session {
    /// Hands on everything that a subscription has received.
    ///
    /// # Errors
    /// Why the subscription could not go on, after everything before that was handed on.
    pub fn drain(&mut self, drain: &mut Drain<'_>) -> Result<(), Error> {
        let Some(subscription) = self.subscriptions.get_mut(drain.subscription.0) else { return Ok(()) };
        while let Some(delivery) = subscription.pop() {
            (drain.each)(DeliveryRef::from(&delivery?));
        }
        Ok(())
    }

    /// Whether a frame is an event of that subscription which can be handed on as it is.
    pub(super) fn can_drain(&self, frame: &Frame<'_>, drain: &Drain<'_>) -> bool {
        frame.header.kind == Kind::EVENT
            && self.state == State::Open
            && frame.envelope.is_empty()
            && frame.header.correlation == Tag::Subscription.on(drain.subscription.0)
    }

    /// Hands on such a frame.
    pub(super) fn drain_event(&mut self, frame: &Frame<'_>, drain: &mut Drain<'_>) -> Result<(), WireError> {
        let header = &frame.header;
        let Some(subscription) = self.subscriptions.get_mut(drain.subscription.0) else { return Ok(()) };
        while let Some(delivery) = subscription.pop_delivery() {
            (drain.each)(DeliveryRef::from(&delivery));
        }
        subscription.passed(header.sequence);
        (drain.each)(DeliveryRef::Event(EventRef {
            topic: self.announced.topic(header.handle)?,
            sequence: header.sequence,
            sender: self.announced.peer(header.sender)?,
            kind: header.payload_kind,
            payload: frame.body.as_slice(),
            traceparent: None,
        }));
        Ok(())
    }
}
