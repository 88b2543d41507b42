//! Service names as they come and go.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::Handle;
use super::call::{Outstanding, not_made};
use crate::error::Error;
use crate::session::{NameEvent, WatchKey};

/// A watch over service names. Dropping it ends it.
///
/// It begins with the names that are present, then tells each change in order.
#[derive(Debug)]
pub struct NameWatch {
    handle: Arc<Handle>,
    key: WatchKey,
    is_over: bool,
}

impl NameWatch {
    pub(super) async fn new(handle: Arc<Handle>, filter: &str) -> Result<Self, Error> {
        let mut made = None;
        let request = Outstanding::begin(handle.shared(), |state, now| {
            let (key, ticket) = state.session.watch_names(now, filter)?;
            // From here on dropping it takes the watch back, made or not.
            made = Some(Self { handle: Arc::clone(&handle), key, is_over: false });
            Ok(ticket)
        })?;
        let outcome = request.await;
        made.map_or_else(|| Err(not_made()), |made| outcome.map(|_| made))
    }

    /// The next change. `None` when the client was closed or after [`NameEvent::Overflowed`].
    ///
    /// # Errors
    /// The connection is lost for good.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<Result<NameEvent, Error>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same for a future of one's own: the task is woken when there is a change.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<NameEvent, Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let mut state = self.handle.shared().lock();
        if let Some(event) = state.session.next_name_event(self.key) {
            self.is_over = event == NameEvent::Overflowed;
            return Poll::Ready(Some(Ok(event)));
        }
        if let Some(error) = &state.gone {
            self.is_over = true;
            return Poll::Ready((!state.was_asked_to_stop()).then(|| Err(error.clone())));
        }
        state.watch_wakers.set(self.key.slot(), cx.waker());
        Poll::Pending
    }
}

impl Drop for NameWatch {
    fn drop(&mut self) {
        self.handle.shared().with(|state, wakes| {
            state.session.forget_watch(self.key);
            state.notify_driver(wakes);
        });
    }
}
