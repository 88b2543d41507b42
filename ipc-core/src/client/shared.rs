//! What all handles of one client share with its driver, and who moves the bytes.
//!
//! The socket has one reader at a time. A caller that is the only one waiting reads and writes it in its own future:
//! no other task has to run for its answer. In company, or when the daemon may speak unasked, the driver does, and
//! writes for all of them at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use super::events::ConnectionEvent;
use super::socket::Socket;
use super::spin::Spin;
use super::wakers::{WakerLists, WakerTable, Wakes};
use crate::error::{Error, ErrorCode};
use crate::options::ConnectOptions;
use crate::payload::Payload;
use crate::service::{Offered, Replies, Wanted};
use crate::session::{DaemonInfo, Event, InboundKey, RegistrationKey, Session, Ticket};
use crate::time::Instant;
use crate::transport::clock;

/// How soon after a lone call the driver listens again to an idle connection.
pub(super) const LENT_MAX: Duration = Duration::from_millis(50);
/// Connection events that a slow observer can fall behind.
const EVENTS_KEPT: usize = 64;

/// What the handles of a client and its driver share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(super) options: ConnectOptions,
    /// What the daemon said when the client was made.
    pub(super) first_welcome: DaemonInfo,
    pub(super) events: broadcast::Sender<ConnectionEvent>,
    /// The task to be joined.
    driver: Mutex<Option<JoinHandle<()>>>,
}

impl Shared {
    pub(super) fn new(state: State, first_welcome: DaemonInfo, options: ConnectOptions) -> Arc<Self> {
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        Arc::new(Self { state: Mutex::new(state), options, first_welcome, events, driver: Mutex::new(None) })
    }

    /// The driver runs as this task.
    pub(super) fn keep_driver(&self, driver: JoinHandle<()>) {
        *self.driver.lock().unwrap_or_else(PoisonError::into_inner) = Some(driver);
    }

    /// The driver's task, for the one who joins it.
    pub(super) fn take_driver(&self) -> Option<JoinHandle<()>> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The state. Never held over an await; nothing that can panic in between leaves it half changed.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `change` under the lock and wakes whom it names afterwards.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut State, &mut Wakes) -> T) -> T {
        let mut wakes = Wakes::new();
        let result = change(&mut self.lock(), &mut wakes);
        wakes.into_iter().for_each(Waker::wake);
        result
    }
}

impl Replies for Shared {
    /// The answer goes with the driver's next write.
    fn reply(&self, key: InboundKey, outcome: Result<Payload, Error>) {
        self.with(|state, wakes| {
            state.session.reply(key, outcome);
            state.served(key, wakes);
            state.notify_driver(wakes);
        });
    }
}

impl Wanted for Shared {
    fn is_wanted(&self, key: InboundKey) -> bool {
        self.lock().session.is_wanted(key)
    }

    fn poll_unwanted(&self, cx: &mut Context<'_>, key: InboundKey) -> Poll<()> {
        let mut state = self.lock();
        if !state.session.is_wanted(key) {
            return Poll::Ready(());
        }
        state.serving.push(key.slot(), cx.waker());
        Poll::Pending
    }
}

/// Who reads the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// The driver.
    Driver,
    /// The one caller that waits.
    Lone(Ticket),
    /// The last lone caller has its answer, and the driver has not taken the socket back.
    Nobody,
}

/// How the driver is reached.
#[derive(Debug, Default)]
pub(super) struct DriverLink {
    pub(super) waker: Option<Waker>,
    /// It has been woken and has not run yet.
    pub(super) notified: bool,
    /// When its timer wakes it.
    pub(super) armed: Option<Instant>,
}

/// What happened to a registration, for whoever holds it.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) key: RegistrationKey,
    pub(super) offered: Arc<Offered>,
    pub(super) is_queued: bool,
    pub(super) lost: Option<Error>,
}

/// Everything under the lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(super) session: Session,
    pub(super) socket: Option<Socket>,
    pub(super) reader: Reader,
    pub(super) spin: Spin,
    pub(super) driver: DriverLink,
    /// Requests that a future waits for.
    pub(super) waiting: usize,
    pub(super) lone_waker: Option<Waker>,
    pub(super) request_wakers: WakerTable,
    pub(super) subscription_wakers: WakerTable,
    pub(super) watch_wakers: WakerTable,
    pub(super) registration_wakers: WakerTable,
    pub(super) observation_wakers: WakerTable,
    pub(super) key_watch_wakers: WakerTable,
    pub(super) consumer_wakers: WakerTable,
    /// Those who want to know when something is lost.
    pub(super) hold_wakers: WakerLists,
    serving: WakerLists,
    /// Those who wait for room in the output.
    room_wakers: Vec<Waker>,
    /// Those who wait for the end.
    pub(super) end_wakers: Vec<Waker>,
    /// Registrations by slot.
    pub(super) registered: Vec<Option<Registered>>,
    /// The last handle is gone, or the user closes.
    pub(super) stopping: bool,
    /// The driver has ended, for this reason.
    pub(super) gone: Option<Error>,
    /// The last time that was looked at.
    pub(super) now: Instant,
    /// The driver has moved bytes since it last had nothing to read.
    pub(super) is_fresh: bool,
}

impl State {
    pub(super) fn new(session: Session, socket: Socket, spins: bool) -> Self {
        Self {
            session,
            socket: Some(socket),
            reader: Reader::Driver,
            spin: Spin::new(spins),
            driver: DriverLink::default(),
            waiting: 0,
            lone_waker: None,
            request_wakers: WakerTable::default(),
            subscription_wakers: WakerTable::default(),
            watch_wakers: WakerTable::default(),
            registration_wakers: WakerTable::default(),
            observation_wakers: WakerTable::default(),
            key_watch_wakers: WakerTable::default(),
            consumer_wakers: WakerTable::default(),
            hold_wakers: WakerLists::default(),
            serving: WakerLists::default(),
            room_wakers: Vec::new(),
            end_wakers: Vec::new(),
            registered: Vec::new(),
            stopping: false,
            gone: None,
            now: clock::now(),
            is_fresh: true,
        }
    }

    /// The time, looked at now.
    pub(super) fn tick(&mut self) -> Instant {
        self.now = clock::now();
        self.now
    }

    /// Has the driver run once more.
    pub(super) fn notify_driver(&mut self, wakes: &mut Wakes) {
        if !self.driver.notified {
            self.driver.notified = true;
            // Before its first run it has no waker and needs none.
            wakes.extend(self.driver.waker.clone());
        }
    }

    /// Names those whose wait is over.
    pub(super) fn settle(&mut self, wakes: &mut Wakes) {
        while let Some(ticket) = self.session.poll_completed() {
            wakes.extend(self.request_wakers.take(ticket.slot()));
        }
        if !self.room_wakers.is_empty() && !self.session.is_backed_up() {
            wakes.append(&mut self.room_wakers);
        }
    }

    /// Waits until the output has room for what nobody waits for.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>, wakes: &mut Wakes) -> Poll<()> {
        if !self.session.is_backed_up() {
            return Poll::Ready(());
        }
        self.notify_driver(wakes);
        if !self.room_wakers.iter().any(|known| known.will_wake(cx.waker())) {
            self.room_wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// What waits is written by the driver, or at once when it has become much.
    pub(super) fn written_later(&mut self, at_once_bytes: u64, wakes: &mut Wakes) {
        if self.session.pending_bytes() >= at_once_bytes
            && let Some(socket) = &mut self.socket
            && socket.flush(&mut self.session)
        {
            return;
        }
        self.notify_driver(wakes);
    }

    /// What happened to whom, as far as it only has to be passed on. What is left is the driver's business.
    pub(super) fn pass_on(&mut self, event: Event, wakes: &mut Wakes) -> Option<Event> {
        match event {
            Event::Delivered(key) => wakes.extend(self.subscription_wakers.take(key.slot())),
            Event::HoldLost(key) | Event::HoldTakenUp(key) => self.hold_wakers.take(key.slot(), wakes),
            Event::KeysChanged(key) => wakes.extend(self.key_watch_wakers.take(key.slot())),
            Event::Work(key) => wakes.extend(self.consumer_wakers.take(key.slot())),
            Event::Observed(key) => wakes.extend(self.observation_wakers.take(key.slot())),
            Event::NamesChanged(key) => wakes.extend(self.watch_wakers.take(key.slot())),
            Event::Acquired(key) => {
                self.change_registered(key, wakes, |registered| registered.is_queued = false)
            }
            Event::RegistrationLost(key, error) => {
                self.change_registered(key, wakes, |registered| registered.lost = Some(error));
            }
            Event::CallCancelled(key) => {
                self.serving.take(key.slot(), wakes);
                return Some(Event::CallCancelled(key));
            }
            Event::Connected { .. } | Event::Closed(_) => return Some(event),
        }
        None
    }

    /// The registration with that key; its slot may have gone over to another.
    pub(super) fn registered(&mut self, key: RegistrationKey) -> Option<&mut Registered> {
        self.registered.get_mut(key.slot())?.as_mut().filter(|registered| registered.key == key)
    }

    fn change_registered(
        &mut self,
        key: RegistrationKey,
        wakes: &mut Wakes,
        change: impl FnOnce(&mut Registered),
    ) {
        if let Some(registered) = self.registered(key) {
            change(registered);
        }
        wakes.extend(self.registration_wakers.take(key.slot()));
    }

    /// A call has been answered: whoever waits for its end learns of it.
    pub(super) fn served(&mut self, key: InboundKey, wakes: &mut Wakes) {
        self.serving.take(key.slot(), wakes);
    }

    /// The end: nothing comes any more.
    pub(super) fn end(&mut self, error: Error, wakes: &mut Wakes) {
        self.session.handle_eof(Some(&error.message));
        self.socket = None;
        self.reader = Reader::Driver;
        // There is no other connection over which it could be taken up again.
        self.session.lose_away(&error);
        self.gone.get_or_insert(error);
        self.settle(wakes);
        for table in [
            &mut self.request_wakers,
            &mut self.subscription_wakers,
            &mut self.watch_wakers,
            &mut self.registration_wakers,
            &mut self.observation_wakers,
            &mut self.key_watch_wakers,
            &mut self.consumer_wakers,
        ] {
            table.drain(wakes);
        }
        self.serving.drain(wakes);
        self.hold_wakers.drain(wakes);
        wakes.append(&mut self.room_wakers);
        wakes.append(&mut self.end_wakers);
    }

    /// Whether the user asked for the end.
    pub(super) fn was_asked_to_stop(&self) -> bool {
        self.stopping || self.gone.as_ref().is_some_and(|error| error.code == ErrorCode::Cancelled)
    }
}
