//! A service on the bus.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::Handle;
use super::call::{Outstanding, misfit, not_made};
use super::shared::Registered;
use crate::error::Error;
use crate::service::Service;
use crate::session::{Answer, RegistrationKey};

/// A service that is on the bus. Dropping it takes the service back; calls that are being served end with
/// `service_gone` for their callers.
#[derive(Debug)]
pub struct Serving {
    handle: Arc<Handle>,
    key: RegistrationKey,
}

impl Serving {
    pub(super) async fn new(handle: Arc<Handle>, service: Service) -> Result<Self, Error> {
        let (offer, offered) = service.into_parts()?;
        let mut made = None;
        let request = Outstanding::begin(handle.shared(), |state, now| {
            let (key, ticket) = state.session.register(now, offer)?;
            state.registered.resize_with(state.registered.len().max(key.slot() + 1), || None);
            if let Some(entry) = state.registered.get_mut(key.slot()) {
                *entry = Some(Registered { key, offered, is_queued: true, lost: None });
            }
            // From here on dropping it takes the service back, made or not.
            made = Some(Self { handle: Arc::clone(&handle), key });
            Ok(ticket)
        })?;
        let outcome = request.await;
        let made = made.ok_or_else(not_made)?;
        match outcome? {
            Answer::Registered { queued: true } => Ok(made),
            Answer::Registered { queued: false } => {
                if let Some(registered) = made.handle.shared().lock().registered(made.key) {
                    registered.is_queued = false;
                }
                Ok(made)
            }
            other => Err(misfit(&other)),
        }
    }

    /// Whether the name is somebody else's and this service waits its turn.
    pub fn is_queued(&self) -> bool {
        let mut state = self.handle.shared().lock();
        state.registered(self.key).is_some_and(|registered| registered.is_queued)
    }

    /// Waits until this service owns its name; at once unless it [waits its turn](crate::service::Service::queue).
    ///
    /// # Errors
    /// Why it will not: the connection is lost for good, or the name was gone after a loss.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn acquired(&self) -> Result<(), Error> {
        poll_fn(|cx| match self.poll_lost(cx) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending if !self.is_queued() => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Waits until the service is not on the bus any more, and says why: the client was closed, the connection is lost
    /// for good, or the name belonged to somebody else when the connection was made anew.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn closed(&self) -> Error {
        poll_fn(|cx| self.poll_lost(cx)).await
    }

    fn poll_lost(&self, cx: &mut Context<'_>) -> Poll<Error> {
        let mut state = self.handle.shared().lock();
        if let Some(error) = state.registered(self.key).and_then(|registered| registered.lost.clone()) {
            return Poll::Ready(error);
        }
        if let Some(error) = &state.gone {
            return Poll::Ready(error.clone());
        }
        state.registration_wakers.set(self.key.slot(), cx.waker());
        Poll::Pending
    }

    /// Takes the service back and waits for the daemon's word, after which no call comes any more.
    ///
    /// # Errors
    /// Why the daemon could not be told; the service is taken back in any case.
    ///
    /// # Cancel safety
    /// The service is taken back in any case.
    pub async fn close(self) -> Result<(), Error> {
        let request = Outstanding::begin(self.handle.shared(), |state, now| {
            let ticket = state.session.unregister(now, self.key)?;
            // Without a number of the daemon there is nothing to take back; a sign of life is as good a word.
            ticket.map_or_else(|| state.session.ping(now), Ok)
        })?;
        request.await.map(|_| ())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.handle.shared().with(|state, wakes| {
            state.session.forget_registration(self.key);
            if state.registered(self.key).is_some()
                && let Some(entry) = state.registered.get_mut(self.key.slot())
            {
                *entry = None;
            }
            state.notify_driver(wakes);
        });
    }
}
