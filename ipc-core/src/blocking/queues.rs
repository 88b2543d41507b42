//! Work queues: entries put, taken and consumed.

use core::ops::Deref;
use std::time::Duration;

use super::call::unexpected;
use super::{Client, inherited};
use crate::error::Error;
use crate::name::ResourceName;
use crate::payload::Payload;
use crate::session::{
    Answer, ConsumeOptions, ConsumerKey, EntryOptions, EntryPut, NackOptions, PeekedEntry, QueueCounts,
    TakeOptions, Work, WorkEvent,
};
use crate::transport::clock;
use crate::wire::coordination::Bind;

/// A consumer of a work queue. It is a number; the client keeps what has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "entries come until it is ended"]
pub struct Consumer {
    key: ConsumerKey,
    client: u64,
}

/// An entry to be worked on. Dropping it gives it back: the work was not done, and others get it at once.
///
/// It keeps its client; what is to be done meanwhile goes through [`client`](Taken::client).
///
/// ```no_run
/// use ipc_core::blocking::Client;
///
/// let mut client = Client::connect(Default::default())?;
/// let work = client.take_entry("mail/out", &Default::default())?;
/// println!("{}", work.payload.as_text()?);
/// work.ack()?;
/// # Ok::<(), ipc_core::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping it gives the entry back"]
pub struct Taken<'a> {
    client: &'a mut Client,
    work: Work,
    is_settled: bool,
}

impl Deref for Taken<'_> {
    type Target = Work;

    fn deref(&self) -> &Work {
        &self.work
    }
}

impl Taken<'_> {
    /// The client that has it.
    pub fn client(&mut self) -> &mut Client {
        self.client
    }

    /// The work is done: the entry is gone.
    ///
    /// # Errors
    /// `lock_lost` when it took too long or the connection was lost: the entry is delivered again.
    pub fn ack(mut self) -> Result<(), Error> {
        self.is_settled = true;
        let Work { queue, delivery, .. } = &self.work;
        let ticket = self.client.session.ack_entry(clock::now(), queue, *delivery, None)?;
        self.client.outcome(ticket).map(|_| ())
    }

    /// Gives it back as the options say. Says whether it is a dead letter now.
    ///
    /// # Errors
    /// `lock_lost` when it had gone back before.
    pub fn nack(mut self, options: &NackOptions) -> Result<bool, Error> {
        self.is_settled = true;
        let Work { queue, delivery, .. } = &self.work;
        let ticket = self.client.session.nack_entry(clock::now(), queue, *delivery, options)?;
        match self.client.outcome(ticket)? {
            Answer::Nacked { is_dead } => Ok(is_dead),
            answer => Err(unexpected(&answer)),
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.client.session.forget_work(&self.work.queue, self.work.delivery, false);
            // What the socket does not take now goes with the next request, or with the end of the connection.
            let _written_or_over = self.client.flush_until(clock::now());
        }
    }
}

impl Client {
    /// Puts an entry into a work queue: it is delivered to whoever takes it, until somebody acknowledges it.
    ///
    /// # Errors
    /// `quota_exceeded` when the queue is full or the user has no room left, `payload_too_large`, `stale_fencing_token`,
    /// `permission_denied`, `invalid_argument`, `unreachable`; after `outcome_unknown` and `deadline_exceeded` it may have been
    /// put: with an [`id`](EntryOptions::id) it can be put again without harm.
    pub fn put_entry(
        &mut self,
        queue: &str,
        payload: impl Into<Payload>,
        options: &EntryOptions,
    ) -> Result<EntryPut, Error> {
        let (queue, payload) = (ResourceName::parse(queue)?, payload.into());
        self.greet_before(&payload)?;
        let ticket = self.session.put_entry(clock::now(), &queue, &payload, options)?;
        match self.outcome(ticket)? {
            Answer::Put(put) => Ok(put),
            answer => Err(unexpected(&answer)),
        }
    }

    /// Takes an entry to work on it. It is bound to this connection: when the process ends, others get it at once.
    ///
    /// # Errors
    /// `busy` when nothing came in time; `stale_fencing_token`, `quota_exceeded`, `permission_denied`, `invalid_argument`,
    /// `unreachable`.
    pub fn take_entry(&mut self, queue: &str, options: &TakeOptions) -> Result<Taken<'_>, Error> {
        let work = self.take(queue, Bind::Session, options)?;
        Ok(Taken { client: self, work, is_settled: false })
    }

    /// Takes an entry that belongs to whoever has its token: it outlives this connection, and goes back when its
    /// [`visibility`](TakeOptions::visibility) has passed.
    ///
    /// # Errors
    /// As [`take_entry`](Client::take_entry).
    pub fn take_entry_detached(&mut self, queue: &str, options: &TakeOptions) -> Result<Work, Error> {
        self.take(queue, Bind::Time, options)
    }

    fn take(&mut self, queue: &str, bind: Bind, options: &TakeOptions) -> Result<Work, Error> {
        let queue = ResourceName::parse(queue)?;
        let wait = options.wait.into_iter().chain(inherited::remaining()).min();
        let options = TakeOptions { wait, ..options.clone() };
        let ticket = self.session.take_entry(clock::now(), &queue, bind, &options)?;
        match self.outcome(ticket)? {
            Answer::Taken(work) => Ok(*work),
            answer => Err(unexpected(&answer)),
        }
    }

    /// Says that the work of a delivery is done: its entry is gone. Anybody who has the token may.
    ///
    /// # Errors
    /// `lock_lost` when the delivery is not open any more, so that the entry is delivered again or was acknowledged before;
    /// `stale_fencing_token` with a `fence` that is older than the last of its lock; `permission_denied`, `unreachable`.
    pub fn ack_entry(
        &mut self,
        queue: &str,
        delivery: u64,
        fence: Option<&(ResourceName, u64)>,
    ) -> Result<(), Error> {
        let queue = ResourceName::parse(queue)?;
        let ticket = self.session.ack_entry(clock::now(), &queue, delivery, fence)?;
        self.outcome(ticket).map(|_| ())
    }

    /// Gives the work of a delivery back. Says whether its entry is a dead letter now. Anybody who has the token may.
    ///
    /// # Errors
    /// As [`ack_entry`](Client::ack_entry).
    pub fn nack_entry(&mut self, queue: &str, delivery: u64, options: &NackOptions) -> Result<bool, Error> {
        let queue = ResourceName::parse(queue)?;
        let ticket = self.session.nack_entry(clock::now(), &queue, delivery, options)?;
        match self.outcome(ticket)? {
            Answer::Nacked { is_dead } => Ok(is_dead),
            answer => Err(unexpected(&answer)),
        }
    }

    /// The first entries of a queue, at most `count` and at most 100, without taking them: those that can be taken in the order
    /// in which they would be, then those that can be taken later, then those that are being worked on.
    ///
    /// # Errors
    /// `permission_denied`, `invalid_argument`, `unreachable`.
    pub fn peek_entries(&mut self, queue: &str, count: u32) -> Result<Vec<PeekedEntry>, Error> {
        let ticket = self.session.peek_entries(clock::now(), &ResourceName::parse(queue)?, count)?;
        match self.outcome(ticket)? {
            Answer::Peeked { entries, .. } => Ok(entries),
            answer => Err(unexpected(&answer)),
        }
    }

    /// What is in a queue, in numbers.
    ///
    /// # Errors
    /// `permission_denied`, `invalid_argument`, `unreachable`.
    pub fn count_queue(&mut self, queue: &str) -> Result<QueueCounts, Error> {
        let ticket = self.session.count_queue(clock::now(), &ResourceName::parse(queue)?)?;
        match self.outcome(ticket)? {
            Answer::Counted(counts) => Ok(*counts),
            answer => Err(unexpected(&answer)),
        }
    }

    /// Throws away everything in a queue that nobody is working on, and says how many entries that were.
    ///
    /// # Errors
    /// `stale_fencing_token`, `permission_denied`, `invalid_argument`, `unreachable`.
    pub fn purge_queue(&mut self, queue: &str, fence: Option<&(ResourceName, u64)>) -> Result<u64, Error> {
        let ticket = self.session.purge_queue(clock::now(), &ResourceName::parse(queue)?, fence)?;
        match self.outcome(ticket)? {
            Answer::Purged { count } => Ok(count),
            answer => Err(unexpected(&answer)),
        }
    }

    /// Consumes a queue: entries are delivered as they come, at most [`credit`](ConsumeOptions::credit) at a time, and are bound
    /// to this connection. It goes on over a reconnect.
    ///
    /// # Errors
    /// `quota_exceeded`, `permission_denied`, `invalid_argument`, `unreachable`.
    pub fn consume_queue(&mut self, queue: &str, options: ConsumeOptions) -> Result<Consumer, Error> {
        let queue = ResourceName::parse(queue)?;
        let (key, ticket) = self.session.consume_queue(clock::now(), queue, options)?;
        self.outcome(ticket)?;
        Ok(Consumer { key, client: self.id })
    }

    /// The next entry for a consumer; `None` when nothing came within `timeout`, give or take a few percent.
    ///
    /// # Errors
    /// Why the connection is over, or why the daemon refuses to let the consumer go on after a reconnect.
    pub fn next_work(&mut self, consumer: &Consumer, timeout: Duration) -> Result<Option<Taken<'_>>, Error> {
        self.check_client(consumer.client)?;
        match self.next_of(timeout, |client| Ok(client.session.next_work(consumer.key)))? {
            Some(WorkEvent::Work(work)) => Ok(Some(Taken { client: self, work: *work, is_settled: false })),
            Some(WorkEvent::Ended(error)) => Err(error),
            None => Ok(None),
        }
    }

    /// Ends a consumer; what has come for it and was not taken goes back.
    ///
    /// # Errors
    /// As [`flush`](Client::flush); the consumer is gone in any case.
    pub fn end_consumer(&mut self, consumer: Consumer) -> Result<(), Error> {
        self.check_client(consumer.client)?;
        self.session.forget_consumer(consumer.key);
        self.flush()
    }
}
