//! SHELL. The async client, on tokio.
//!
//! [`Client`] is a cheap handle on one connection; all clones share it. One task, the driver, moves the bytes when there
//! is company; a caller that is the only one waiting does so itself.
//!
//! - `shared`, `turns`, `wakers`: what handles and driver share, whose turn it is to read, who is to be woken;
//! - `driver`, `reconnect`: the one task, and what it does when the connection is lost;
//! - `socket`, `spin`: bytes in and out, and looking again before sleeping;
//! - `call`, `subscription`, `names`, `serving`, `events`: what users hold.

mod call;
mod driver;
mod events;
mod names;
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
pub use events::{ConnectionEvent, ConnectionEvents};
pub use names::NameWatch;
pub use serving::Serving;
pub use subscription::Subscription;

pub use crate::options::{Backoff, CallOptions, ConnectOptions, PublishOptions};
pub use crate::session::{
    DaemonInfo, Delivery, Lost, Missed, NameChange, NameEvent, Published, Received, Reply, SubscribeOptions,
};

use crate::error::Error;
use crate::payload::Payload;
use crate::service::Service;
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
        let find = |session: &mut crate::session::Session| session.method(service, method);
        call::call_oneway(self.shared(), find, payload.into(), CallOptions::default()).await
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
