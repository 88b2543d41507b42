//! SHELL. The async client, on tokio.
//!
//! [`Client`] is a cheap handle on one connection; all clones share it. One task, the driver, moves the bytes when there
//! is company; a caller that is the only one waiting does so itself.
//!
//! - `shared`, `turns`, `wakers`: what handles and driver share, whose turn it is to read, who is to be woken;
//! - `driver`, `reconnect`: the one task, and what it does when the connection is lost;
//! - `socket`, `spin`: bytes in and out, and looking again before sleeping;
//! - `call`, `subscription`, `names`, `serving`, `hold`, `lease`, `election`, `keys`, `queues`, `events`: what users hold.

mod call;
mod driver;
mod election;
mod events;
mod hold;
mod keys;
mod lease;
mod names;
mod queues;
mod reconnect;
mod serving;
mod shared;
mod socket;
mod spin;
mod subscription;
mod turns;
mod wakers;

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

pub use call::{Method, Topic};
pub use election::Observation;
pub use events::{ConnectionEvent, ConnectionEvents};
pub use hold::Hold;
pub use keys::KeyWatch;
pub use names::NameWatch;
pub use queues::{Consumer, Taken};
pub use serving::Serving;
pub use subscription::Subscription;

pub use crate::options::{Backoff, CallOptions, ConnectOptions, PublishOptions};
pub use crate::session::{
    Committed, Condition, ConsumeOptions, DaemonInfo, Delivery, Durability, EntryOptions, EntryPut,
    EntryState, HoldOptions, KeyChange, KeyEvent, KeyOptions, KeyValue, Leader, Lost, Missed, NackOptions,
    NameChange, NameEvent, Observed, Overflow, Passed, PeekedEntry, Published, QueueCounts, Received, Reply,
    Selection, SubscribeOptions, TakeOptions, Transacted, Transaction, Work,
};

use crate::error::Error;
use crate::name::ResourceName;
use crate::payload::Payload;
use crate::service::Service;
use crate::session::{Answer, Wanted};
use crate::transport::clock;
use call::Outstanding;
use driver::Driver;
use shared::Shared;

/// A connection to the bus. Clones share it; it is closed when the last clone, subscription and service is dropped.
///
/// Works on current-thread and multi-thread runtimes of tokio, and needs their I/O and time drivers.
///
/// When the connection is lost, requests that are open end, and none is repeated. With
/// [`ConnectOptions::reconnect`](crate::ConnectOptions::reconnect) the client connects again by itself and asks anew for
/// what it had: services, subscriptions, watches. Until then further requests fail at once with `unreachable`.
///
/// ```no_run
/// # async fn example() -> Result<(), ipc_core::Error> {
/// use ipc_core::{Client, ConnectOptions};
///
/// let client = Client::connect(ConnectOptions::new()).await?;
/// let reply = client.call("demo.title", "title", "hello world").await?;
/// println!("{} says {}", reply.responder, reply.payload.as_text()?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    handle: Arc<Handle>,
}

/// What keeps a connection open.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.with(|state, wakes| {
            state.stopping = true;
            state.notify_driver(wakes);
        });
    }
}

impl Client {
    /// Connects and says hello.
    ///
    /// # Errors
    /// `unreachable`, `permission_denied` or `unauthenticated` as [`connect`](crate::transport::connect::connect);
    /// `unreachable` when the hello is not answered within `connect_timeout`; `unsupported_version`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, there is no connection.
    pub async fn connect(mut options: ConnectOptions) -> Result<Self, Error> {
        let (state, welcome) = reconnect::connect(&mut options).await?;
        let shared = Shared::new(state, welcome, options);
        let driver = tokio::spawn(Driver::new(Arc::clone(&shared)));
        shared.keep_driver(driver);
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// Calls a method and waits for its answer, at most the client's `call_timeout`, and never longer than what is left
    /// of the deadline of the call that is being served here.
    ///
    /// # Errors
    /// What the service answered (`application`), or why it did not: `no_such_service`, `no_such_method`,
    /// `deadline_exceeded`, `service_gone`, `quota_exceeded`, `payload_too_large`, `outcome_unknown` and others. After
    /// `deadline_exceeded`, `service_gone` and `outcome_unknown` the call may have run; it is never repeated.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call; it may have run.
    pub async fn call(
        &self,
        service: &str,
        method: &str,
        payload: impl Into<Payload>,
    ) -> Result<Reply, Error> {
        self.call_with(service, method, payload, CallOptions::default()).await
    }

    /// Calls a method with a deadline or a trace context of its own; see [`call`](Client::call).
    ///
    /// # Errors
    /// As [`call`](Client::call).
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call; it may have run.
    pub async fn call_with(
        &self,
        service: &str,
        method: &str,
        payload: impl Into<Payload>,
        options: CallOptions,
    ) -> Result<Reply, Error> {
        let find = |session: &mut crate::session::Session| session.method(service, method);
        call::call(self.shared(), find, payload.into(), options).await
    }

    /// Calls a method and wants no answer: whether it ran, nobody learns. Waits only while more than 1 MiB waits to be
    /// written. The service is found anew once a second; calls to one that was replaced since are lost.
    ///
    /// # Errors
    /// `payload_too_large`, `invalid_argument` or `unreachable`, without having sent anything.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing was sent.
    pub async fn call_oneway(
        &self,
        service: &str,
        method: &str,
        payload: impl Into<Payload>,
    ) -> Result<(), Error> {
        self.call_oneway_with(service, method, payload, CallOptions::default()).await
    }

    /// Calls a method and wants no answer, with a deadline or a trace context of its own; see
    /// [`call_oneway`](Client::call_oneway).
    ///
    /// # Errors
    /// As [`call_oneway`](Client::call_oneway).
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing was sent.
    pub async fn call_oneway_with(
        &self,
        service: &str,
        method: &str,
        payload: impl Into<Payload>,
        options: CallOptions,
    ) -> Result<(), Error> {
        let find = |session: &mut crate::session::Session| session.method(service, method);
        call::call_oneway(self.shared(), find, payload.into(), options).await
    }

    /// A method to be called often: its name is looked up once.
    pub fn method(&self, service: &str, method: &str) -> Method {
        Method::new(Arc::clone(&self.handle), service, method)
    }

    /// Publishes an event and waits until it has its number.
    ///
    /// # Errors
    /// `permission_denied`, `payload_too_large`, `quota_exceeded`, `unreachable`; after `outcome_unknown` and
    /// `deadline_exceeded` the event may have been published.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the event may have been published.
    pub async fn publish(&self, topic: &str, payload: impl Into<Payload>) -> Result<Published, Error> {
        self.publish_with(topic, payload, PublishOptions::default()).await
    }

    /// Publishes an event with a trace context; see [`publish`](Client::publish).
    ///
    /// # Errors
    /// As [`publish`](Client::publish).
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the event may have been published.
    pub async fn publish_with(
        &self,
        topic: &str,
        payload: impl Into<Payload>,
        options: PublishOptions,
    ) -> Result<Published, Error> {
        call::publish(self.shared(), |session| session.topic(topic), payload.into(), options).await
    }

    /// Publishes an event without waiting for its number; what the daemon refuses, nobody learns. Waits only while more
    /// than 1 MiB waits to be written.
    ///
    /// # Errors
    /// `payload_too_large`, `invalid_argument` or `unreachable`, without having sent anything.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, nothing was sent.
    pub async fn publish_oneway(&self, topic: &str, payload: impl Into<Payload>) -> Result<(), Error> {
        call::publish_oneway(self.shared(), |session| session.topic(topic), payload.into()).await
    }

    /// A topic to be published to often: its name is looked up once.
    pub fn topic(&self, topic: &str) -> Topic {
        Topic::new(Arc::clone(&self.handle), topic)
    }

    /// Subscribes to the topics that pass `filter`, where `*` stands for one part and a final `>` for all the rest.
    /// Events published after it is ready arrive.
    ///
    /// # Errors
    /// `invalid_argument`, `quota_exceeded`, `permission_denied`, `unreachable`.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, there is no subscription.
    pub async fn subscribe(&self, filter: &str, options: SubscribeOptions) -> Result<Subscription, Error> {
        Subscription::new(Arc::clone(&self.handle), filter, options).await
    }

    /// Watches the service names that pass `filter`, beginning with those that are present.
    ///
    /// # Errors
    /// `invalid_argument`, `quota_exceeded`, `permission_denied`, `unreachable`.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, there is no watch.
    pub async fn watch_names(&self, filter: &str) -> Result<NameWatch, Error> {
        NameWatch::new(Arc::clone(&self.handle), filter).await
    }

    /// Offers a service until what this gives is dropped. It is offered anew after the connection was lost and made again.
    ///
    /// # Errors
    /// `name_taken`, unless the service [waits its turn](Service::queue); `permission_denied`, `quota_exceeded`,
    /// `invalid_argument`, `unreachable`.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the service is not offered.
    pub async fn serve(&self, service: Service) -> Result<Serving, Error> {
        Serving::new(Arc::clone(&self.handle), service).await
    }

    /// Takes a lock, alone, and waits for it as the options say.
    ///
    /// A lock keeps apart those who ask for it, and nobody else. Where a late writer would do harm, have what is written
    /// to check the [token](Hold::token), and refuse one that is lower than the highest it has seen.
    ///
    /// # Errors
    /// `busy` when it was not to be had in time, `deadlock` when sessions would have waited for one another,
    /// `quota_exceeded`, `permission_denied`, `invalid_argument`, `unreachable`.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the lock is not held and not waited for.
    ///
    /// ```no_run
    /// # async fn example(client: ipc_core::Client) -> Result<(), ipc_core::Error> {
    /// let lock = client.lock("deploy/web", Default::default()).await?;
    /// println!("alone, with token {}", lock.token());
    /// lock.release().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn lock(&self, name: &str, options: HoldOptions) -> Result<Hold, Error> {
        let wanted = Wanted::Lock { name: ResourceName::parse(name)?, shared: false };
        Hold::acquire(Arc::clone(&self.handle), wanted, options).await
    }

    /// Takes a lock together with others who share it; see [`lock`](Client::lock).
    ///
    /// # Errors
    /// As [`lock`](Client::lock).
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the lock is not held and not waited for.
    pub async fn lock_shared(&self, name: &str, options: HoldOptions) -> Result<Hold, Error> {
        let wanted = Wanted::Lock { name: ResourceName::parse(name)?, shared: true };
        Hold::acquire(Arc::clone(&self.handle), wanted, options).await
    }

    /// Takes one permit of a semaphore that has `permits` in all, as everybody who uses it says alike.
    ///
    /// # Errors
    /// As [`lock`](Client::lock); `conflict` when others use it with another number of permits.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, no permit is held and none waited for.
    pub async fn acquire(&self, name: &str, permits: u32, options: HoldOptions) -> Result<Hold, Error> {
        let wanted = Wanted::Permits { name: ResourceName::parse(name)?, permits, count: 1 };
        Hold::acquire(Arc::clone(&self.handle), wanted, options).await
    }

    /// Stands for an election, and waits until this session leads. Observers are shown `value`, at most 4096 bytes.
    ///
    /// # Errors
    /// As [`lock`](Client::lock); `payload_too_large`.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, this session does not lead and does not stand.
    pub async fn campaign(
        &self,
        name: &str,
        value: impl Into<Payload>,
        options: HoldOptions,
    ) -> Result<Hold, Error> {
        let wanted = Wanted::Leadership { name: ResourceName::parse(name)?, value: value.into() };
        Hold::acquire(Arc::clone(&self.handle), wanted, options).await
    }

    /// Observes an election: who leads, now and from here on.
    ///
    /// # Errors
    /// `quota_exceeded`, `permission_denied`, `invalid_argument`, `unreachable`.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, there is no observation.
    pub async fn observe(&self, name: &str) -> Result<Observation, Error> {
        Observation::new(Arc::clone(&self.handle), &ResourceName::parse(name)?).await
    }

    /// Arrives at a barrier and waits until `parties` have. `wait` is how long, `None` without limit.
    ///
    /// # Errors
    /// `busy` when not all came in time, `conflict` when others expect another number of parties; else as
    /// [`lock`](Client::lock).
    ///
    /// # Cancel safety
    /// Dropped before it is ready, this party has not arrived.
    pub async fn arrive(&self, name: &str, parties: u32, wait: Option<Duration>) -> Result<Passed, Error> {
        let name = ResourceName::parse(name)?;
        let request =
            Outstanding::begin(self.shared(), |state, now| state.session.arrive(now, &name, parties, wait))?;
        match request.await? {
            Answer::Passed(passed) => Ok(passed),
            other => Err(call::misfit(&other)),
        }
    }

    /// Asks the daemon for a sign of life and says how long it took.
    ///
    /// # Errors
    /// `unreachable`, `deadline_exceeded` after the client's `call_timeout`, `outcome_unknown`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let start = clock::now();
        let request = Outstanding::begin(self.shared(), |state, now| state.session.ping(now))?;
        request.await?;
        Ok(clock::now().since(start))
    }

    /// What becomes of the connection from here on.
    pub fn events(&self) -> ConnectionEvents {
        ConnectionEvents::new(&self.shared().events)
    }

    /// What the daemon said about itself when it was connected to last.
    pub fn daemon(&self) -> DaemonInfo {
        let last = self.shared().lock().session.daemon().cloned();
        last.unwrap_or_else(|| self.shared().first_welcome.clone())
    }

    /// Closes the connection for all clones: what waits is written, for at most a second, open requests end, services and
    /// subscriptions are over. Ready when the driver has ended.
    ///
    /// # Cancel safety
    /// The connection is closed in any case.
    pub async fn close(&self) {
        self.shared().with(|state, wakes| {
            state.stopping = true;
            state.notify_driver(wakes);
        });
        if let Some(driver) = self.shared().take_driver() {
            if let Err(error) = driver.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
            return;
        }
        // Somebody else joins it.
        std::future::poll_fn(|cx| {
            let mut state = self.shared().lock();
            if state.gone.is_some() {
                return Poll::Ready(());
            }
            state.end_wakers.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn shared(&self) -> &Shared {
        self.handle.shared()
    }
}
