//! What becomes of the connection.

use tokio::sync::broadcast::{self, error::RecvError};

use crate::error::Error;
use crate::id::Epoch;

/// A change of the connection's state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// The connection was lost. Requests that were open ended with `outcome_unknown`, or `unreachable` if they had not
    /// been sent; none is repeated.
    Disconnected(Error),
    /// There is a connection again. Subscriptions, watches and services were asked for anew; what each of them lost, it
    /// says itself.
    Reconnected {
        /// The daemon's life.
        epoch: Epoch,
        /// Whether it is another one: the daemon was restarted.
        epoch_changed: bool,
    },
    /// There will be no connection any more.
    Closed(Error),
}

/// The changes of a connection's state from the moment this was made.
#[derive(Debug)]
pub struct ConnectionEvents(broadcast::Receiver<ConnectionEvent>);

impl ConnectionEvents {
    pub(super) fn new(events: &broadcast::Sender<ConnectionEvent>) -> Self {
        Self(events.subscribe())
    }

    /// The next change, or `None` when the client is gone. Past 64 unread changes the oldest are skipped.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<ConnectionEvent> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
