//! Work queues: entries put, taken and consumed.

use core::ops::Deref;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::call::{Outstanding, misfit, not_made};
use super::{Client, Handle};
use crate::error::Error;
use crate::name::ResourceName;
use crate::payload::Payload;
use crate::service::inherited_deadline;
use crate::session::{
    Answer, ConsumeOptions, ConsumerKey, EntryOptions, EntryPut, NackOptions, PeekedEntry, QueueCounts,
    Session, TakeOptions, Ticket, Work, WorkEvent,
};
use crate::time::Instant;
use crate::transport::clock;
use crate::wire::coordination::Bind;

impl Client {
    /// Puts an entry into a work queue: it is delivered to whoever takes it, until somebody acknowledges it.
    ///
    /// # Errors
    /// `quota_exceeded` when the queue is full or the user has no room left, `payload_too_large`, `stale_fencing_token`,
    /// `permission_denied`, `invalid_argument`, `unreachable`; after `outcome_unknown` and `deadline_exceeded` it may have been
    /// put: with an [`id`](EntryOptions::id) it can be put again without harm.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the entry may have been put.
    ///
    /// ```no_run
    /// # async fn example(client: ipc_core::Client) -> Result<(), ipc_core::Error> {
    /// client.put_entry("mail/out", "to: you", Default::default()).await?;
    /// let work = client.take_entry("mail/out", Default::default()).await?;
    /// println!("{} for the {}. time", work.payload.as_text()?, work.deliveries);
    /// work.ack().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put_entry(
        &self,
        queue: &str,
        payload: impl Into<Payload>,
        options: EntryOptions,
    ) -> Result<EntryPut, Error> {
        let (queue, payload) = (ResourceName::parse(queue)?, payload.into());
        match self.asked(|session, now| session.put_entry(now, &queue, &payload, &options)).await? {
            Answer::Put(put) => Ok(put),
            other => Err(misfit(&other)),
        }
    }

    /// Takes an entry to work on it. It is bound to this connection: when the process ends, others get it at once.
    ///
    /// # Errors
    /// `busy` when nothing came in time; `stale_fencing_token`, `quota_exceeded`, `permission_denied`, `invalid_argument`,
    /// `unreachable`.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing was taken, or it has gone back.
    pub async fn take_entry(&self, queue: &str, options: TakeOptions) -> Result<Taken, Error> {
        let work = self.take(queue, Bind::Session, options).await?;
        Ok(Taken { handle: Arc::clone(&self.handle), work, is_settled: false })
    }

    /// Takes an entry that belongs to whoever has its token: it outlives this connection, and goes back when its
    /// [`visibility`](TakeOptions::visibility) has passed.
    ///
    /// # Errors
    /// As [`take_entry`](Client::take_entry).
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing was taken, or it has gone back.
    pub async fn take_entry_detached(&self, queue: &str, options: TakeOptions) -> Result<Work, Error> {
        self.take(queue, Bind::Time, options).await
    }

    async fn take(&self, queue: &str, bind: Bind, options: TakeOptions) -> Result<Work, Error> {
        let queue = ResourceName::parse(queue)?;
        let inherited = inherited_deadline().map(|deadline| deadline.since(clock::now()));
        let options = TakeOptions { wait: options.wait.into_iter().chain(inherited).min(), ..options };
        match self.asked(|session, now| session.take_entry(now, &queue, bind, &options)).await? {
            Answer::Taken(work) => Ok(*work),
            other => Err(misfit(&other)),
        }
    }

    /// Says that the work of a delivery is done: its entry is gone. Anybody who has the token may.
    ///
    /// # Errors
    /// `lock_lost` when the delivery is not open any more, so that the entry is delivered again or was acknowledged before;
    /// `stale_fencing_token` with a `fence` that is older than the last of its lock; `permission_denied`, `unreachable`.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it may have been acknowledged.
    pub async fn ack_entry(
        &self,
        queue: &str,
        delivery: u64,
        fence: Option<(ResourceName, u64)>,
    ) -> Result<(), Error> {
        let queue = ResourceName::parse(queue)?;
        self.asked(|session, now| session.ack_entry(now, &queue, delivery, fence.as_ref())).await.map(|_| ())
    }

    /// Gives the work of a delivery back. Says whether its entry is a dead letter now. Anybody who has the token may.
    ///
    /// # Errors
    /// As [`ack_entry`](Client::ack_entry).
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it may have been given back.
    pub async fn nack_entry(&self, queue: &str, delivery: u64, options: NackOptions) -> Result<bool, Error> {
        let queue = ResourceName::parse(queue)?;
        match self.asked(|session, now| session.nack_entry(now, &queue, delivery, &options)).await? {
            Answer::Nacked { is_dead } => Ok(is_dead),
            other => Err(misfit(&other)),
        }
    }

    /// The first entries of a queue, at most `count` and at most 100, without taking them: those that can be taken in the order
    /// in which they would be, then those that can be taken later, then those that are being worked on.
    ///
    /// # Errors
    /// `permission_denied`, `invalid_argument`, `unreachable`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn peek_entries(&self, queue: &str, count: u32) -> Result<Vec<PeekedEntry>, Error> {
        let queue = ResourceName::parse(queue)?;
        match self.asked(|session, now| session.peek_entries(now, &queue, count)).await? {
            Answer::Peeked { entries, .. } => Ok(entries),
            other => Err(misfit(&other)),
        }
    }

    /// What is in a queue, in numbers.
    ///
    /// # Errors
    /// `permission_denied`, `invalid_argument`, `unreachable`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn count_queue(&self, queue: &str) -> Result<QueueCounts, Error> {
        let queue = ResourceName::parse(queue)?;
        match self.asked(|session, now| session.count_queue(now, &queue)).await? {
            Answer::Counted(counts) => Ok(*counts),
            other => Err(misfit(&other)),
        }
    }

    /// Throws away everything in a queue that nobody is working on, and says how many entries that were.
    ///
    /// # Errors
    /// `stale_fencing_token`, `permission_denied`, `invalid_argument`, `unreachable`.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the queue may have been purged.
    pub async fn purge_queue(&self, queue: &str, fence: Option<(ResourceName, u64)>) -> Result<u64, Error> {
        let queue = ResourceName::parse(queue)?;
        match self.asked(|session, now| session.purge_queue(now, &queue, fence.as_ref())).await? {
            Answer::Purged { count } => Ok(count),
            other => Err(misfit(&other)),
        }
    }

    /// Consumes a queue: entries are delivered as they come, at most [`credit`](ConsumeOptions::credit) at a time, and are bound
    /// to this connection. It goes on over a reconnect.
    ///
    /// # Errors
    /// `quota_exceeded`, `permission_denied`, `invalid_argument`, `unreachable`.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, there is no consumer.
    pub async fn consume_queue(&self, queue: &str, options: ConsumeOptions) -> Result<Consumer, Error> {
        Consumer::new(Arc::clone(&self.handle), ResourceName::parse(queue)?, options).await
    }

    async fn asked(
        &self,
        ask: impl FnOnce(&mut Session, Instant) -> Result<Ticket, Error>,
    ) -> Result<Answer, Error> {
        Outstanding::begin(self.shared(), |state, now| ask(&mut state.session, now))?.await
    }
}

/// An entry to be worked on. Dropping it gives it back: the work was not done, and others get it at once.
///
/// It ends with its connection, and does not come back after a reconnect: then [`ack`](Taken::ack) says `lock_lost`, and
/// somebody else has the entry, or will have.
#[derive(Debug)]
#[must_use = "dropping it gives the entry back"]
pub struct Taken {
    handle: Arc<Handle>,
    work: Work,
    is_settled: bool,
}

impl Deref for Taken {
    type Target = Work;

    fn deref(&self) -> &Work {
        &self.work
    }
}

impl Taken {
    /// The work is done: the entry is gone.
    ///
    /// # Errors
    /// `lock_lost` when it took too long or the connection was lost: the entry is delivered again.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it may have been acknowledged.
    pub async fn ack(mut self) -> Result<(), Error> {
        self.is_settled = true;
        let Work { queue, delivery, .. } = &self.work;
        let ask = |session: &mut Session, now| session.ack_entry(now, queue, *delivery, None);
        Outstanding::begin(self.handle.shared(), |state, now| ask(&mut state.session, now))?.await.map(|_| ())
    }

    /// Gives it back as the options say. Says whether it is a dead letter now.
    ///
    /// # Errors
    /// `lock_lost` when it had gone back before.
    ///
    /// # Cancel safety
    /// It is given back in any case.
    pub async fn nack(mut self, options: NackOptions) -> Result<bool, Error> {
        self.is_settled = true;
        let Work { queue, delivery, .. } = &self.work;
        let ask = |session: &mut Session, now| session.nack_entry(now, queue, *delivery, &options);
        match Outstanding::begin(self.handle.shared(), |state, now| ask(&mut state.session, now))?.await? {
            Answer::Nacked { is_dead } => Ok(is_dead),
            other => Err(misfit(&other)),
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        self.handle.shared().with(|state, wakes| {
            state.session.forget_work(&self.work.queue, self.work.delivery, false);
            state.notify_driver(wakes);
        });
    }
}

/// Entries of a queue as they come. Dropping it ends it; what it has received and nobody has taken from it goes back.
#[derive(Debug)]
pub struct Consumer {
    handle: Arc<Handle>,
    key: ConsumerKey,
    is_over: bool,
}

impl Consumer {
    async fn new(handle: Arc<Handle>, queue: ResourceName, options: ConsumeOptions) -> Result<Self, Error> {
        let mut made = None;
        let request = Outstanding::begin(handle.shared(), |state, now| {
            let (key, ticket) = state.session.consume_queue(now, queue, options)?;
            // From here on dropping it ends the consumer, made or not.
            made = Some(Self { handle: Arc::clone(&handle), key, is_over: false });
            Ok(ticket)
        })?;
        let outcome = request.await;
        made.map_or_else(|| Err(not_made()), |made| outcome.map(|_| made))
    }

    /// The next entry. `None` when the client was closed, and after an error.
    ///
    /// # Errors
    /// Why it cannot go on: the connection is lost for good, or the daemon refuses to let it go on after a reconnect.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Taken, Error>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same for a future of one's own: the task is woken when an entry comes.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Taken, Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let mut state = self.handle.shared().lock();
        match state.session.next_work(self.key) {
            Some(WorkEvent::Work(work)) => {
                drop(state);
                let handle = Arc::clone(&self.handle);
                return Poll::Ready(Some(Ok(Taken { handle, work: *work, is_settled: false })));
            }
            Some(WorkEvent::Ended(error)) => {
                self.is_over = true;
                return Poll::Ready(Some(Err(error)));
            }
            None => {}
        }
        if let Some(error) = &state.gone {
            self.is_over = true;
            return Poll::Ready((!state.was_asked_to_stop()).then(|| Err(error.clone())));
        }
        state.consumer_wakers.set(self.key.slot(), cx.waker());
        Poll::Pending
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.handle.shared().with(|state, wakes| {
            state.session.forget_consumer(self.key);
            state.notify_driver(wakes);
        });
    }
}
