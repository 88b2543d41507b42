//! Who leads, as it changes.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::Handle;
use super::call::{Outstanding, not_made};
use crate::error::Error;
use crate::name::ResourceName;
use crate::session::{Leader, ObservationKey, Observed};

/// An observation of an election. Dropping it ends it.
///
/// It begins with who leads now, then tells each change. It ends with its connection.
#[derive(Debug)]
pub struct Observation {
    handle: Arc<Handle>,
    key: ObservationKey,
    is_over: bool,
}

impl Observation {
    pub(super) async fn new(handle: Arc<Handle>, name: &ResourceName) -> Result<Self, Error> {
        let mut made = None;
        let request = Outstanding::begin(handle.shared(), |state, now| {
            let (key, ticket) = state.session.observe(now, name)?;
            // From here on dropping it ends the observation, made or not.
            made = Some(Self { handle: Arc::clone(&handle), key, is_over: false });
            Ok(ticket)
        })?;
        let outcome = request.await;
        made.map_or_else(|| Err(not_made()), |made| outcome.map(|_| made))
    }

    /// Who leads, or that nobody does; first how it stands, then each change. `None` when the client was closed, and after an
    /// error.
    ///
    /// # Errors
    /// Why it cannot go on: the connection is lost, or it was not read in time.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Option<Leader>, Error>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same for a future of one's own: the task is woken when there is a change.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Option<Leader>, Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let mut state = self.handle.shared().lock();
        match state.session.next_observed(self.key) {
            Some(Observed::Leader(leader)) => return Poll::Ready(Some(Ok(leader))),
            Some(Observed::Ended(error)) => {
                self.is_over = true;
                return Poll::Ready((!state.was_asked_to_stop()).then_some(Err(error)));
            }
            None => {}
        }
        if let Some(error) = &state.gone {
            self.is_over = true;
            return Poll::Ready((!state.was_asked_to_stop()).then(|| Err(error.clone())));
        }
        state.observation_wakers.set(self.key.slot(), cx.waker());
        Poll::Pending
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.handle.shared().with(|state, wakes| {
            state.session.forget_observation(self.key);
            state.notify_driver(wakes);
        });
    }
}
