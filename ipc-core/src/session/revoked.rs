//! What the daemon takes away because its rules have changed: the rest of the conversation goes on.

use crate::error::{Error, ErrorCode};
use crate::wire::message::{Revoked, RevokedWhat};
use crate::wire::{Frame, WireError};

use super::Session;
use super::event::{Event, Observed, SubscriptionKey};
use super::tag::Tag;

impl Session {
    pub(super) fn on_revoked(&mut self, frame: &Frame<'_>) -> Result<(), WireError> {
        let Revoked { what, code, message } = frame.decode()?;
        let code = ErrorCode::from_number(code).unwrap_or(ErrorCode::PermissionDenied);
        let error = Error::new(code, message.0);
        let correlation = frame.header.correlation;
        match what {
            RevokedWhat::Name => {
                let known = self.registrations.by_id(frame.header.handle.index).map(|(key, _)| key);
                if let Some(key) = known {
                    self.registrations.remove(key);
                    self.events.push_back(Event::RegistrationLost(key, error));
                }
            }
            RevokedWhat::Subscription => {
                let (tag, key) = Tag::split(correlation);
                if tag == Tag::Subscription
                    && self.subscriptions.get_mut(key).is_some_and(|subscription| subscription.failed(error))
                {
                    self.events.push_back(Event::Delivered(SubscriptionKey(key)));
                }
            }
            RevokedWhat::Observation => {
                if let Some(key) = self.observation(correlation) {
                    self.observed(key, Observed::Ended(error));
                }
            }
            RevokedWhat::KeyWatch => self.end_key_watch(correlation, error),
        }
        Ok(())
    }
}
