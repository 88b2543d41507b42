//! Events as they arrive.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::task::coop;

use super::Handle;
use super::call::{Outstanding, not_made};
use crate::error::Error;
use crate::session::{Deliveries, Delivery, SubscribeOptions, SubscriptionKey};

/// A subscription. Dropping it ends it.
///
/// It keeps its connection open. What is not taken in time is dropped, oldest first, and reported as
/// [`Delivery::Gap`] with the exact count.
#[derive(Debug)]
pub struct Subscription {
    handle: Arc<Handle>,
    key: SubscriptionKey,
    /// Taken from the session in one go.
    batch: Deliveries,
    is_over: bool,
}

impl Subscription {
    pub(super) async fn new(
        handle: Arc<Handle>,
        filter: &str,
        options: SubscribeOptions,
    ) -> Result<Self, Error> {
        let mut made = None;
        let request = Outstanding::begin(handle.shared(), |state, now| {
            let (key, ticket) = state.session.subscribe(now, filter, options)?;
            // From here on dropping it takes the subscription back, made or not.
            made = Some(Self { handle: Arc::clone(&handle), key, batch: Deliveries::new(), is_over: false });
            Ok(ticket)
        })?;
        let outcome = request.await;
        made.map_or_else(|| Err(not_made()), |made| outcome.map(|_| made))
    }

    /// The next delivery, in order. `None` when the client was closed; an error is the last thing a subscription gives.
    ///
    /// # Errors
    /// Why it cannot go on: the connection is lost for good, or the daemon refused to make it anew.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Delivery, Error>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same for a future of one's own: the task is woken when there is a delivery.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery, Error>>> {
        let turn = ready!(coop::poll_proceed(cx));
        if self.batch.is_empty() {
            ready!(self.poll_batch(cx));
        }
        turn.made_progress();
        let next = self.batch.pop_front();
        self.is_over |= matches!(next, Some(Err(_)) | None);
        Poll::Ready(next)
    }

    /// Waits until the batch holds something, or nothing will come any more.
    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over {
            return Poll::Ready(());
        }
        let mut state = self.handle.shared().lock();
        state.session.take_deliveries(self.key, &mut self.batch);
        if !self.batch.is_empty() {
            return Poll::Ready(());
        }
        if let Some(error) = &state.gone {
            if !state.was_asked_to_stop() {
                self.batch.push_back(Err(error.clone()));
            }
            return Poll::Ready(());
        }
        state.subscription_wakers.set(self.key.slot(), cx.waker());
        Poll::Pending
    }

    /// Ends the subscription and waits for the daemon's word, after which no event is on its way any more.
    ///
    /// # Errors
    /// Why the daemon could not be told; the subscription is over in any case.
    ///
    /// # Cancel safety
    /// The subscription is over in any case.
    pub async fn close(self) -> Result<(), Error> {
        let request =
            Outstanding::begin(self.handle.shared(), |state, now| state.session.unsubscribe(now, self.key))?;
        request.await.map(|_| ())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.handle.shared().with(|state, wakes| {
            state.session.forget_subscription(self.key);
            state.notify_driver(wakes);
        });
    }
}
