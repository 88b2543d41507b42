//! What all handles of one client share with its driver, and who moves the bytes.
//!
//! The socket has one reader at a time. A caller that is the only one waiting reads and writes it in its own future:
//! no other task has to run for its answer. In company, or when the daemon may speak unasked, the driver does, and
//! writes for all of them at once.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use super::events::ConnectionEvent;
use super::socket::Socket;
use super::spin::Spin;
use crate::error::{Error, ErrorCode};
use crate::options::ConnectOptions;
use crate::payload::Payload;
use crate::service::{Offered, Replies, Wanted};
use crate::session::{
    DaemonInfo, Event, InboundKey, Outcome, RegistrationKey, Session, State as Stage, Ticket,
};
use crate::time::Instant;
use crate::transport::clock;

/// How soon after a lone call the driver listens again to an idle connection.
pub(super) const LENT_MAX: Duration = Duration::from_millis(50);
/// Connection events that a slow observer can fall behind.
const EVENTS_KEPT: usize = 64;

/// Wakers to be woken once the lock is released.
pub(super) type Wakes = Vec<Waker>;

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

/// Wakers by slot.
#[derive(Debug, Default)]
pub(super) struct WakerTable(Vec<Option<Waker>>);

impl WakerTable {
    /// `waker` is the one to wake for `slot`.
    pub(super) fn set(&mut self, slot: usize, waker: &Waker) {
        if self.0.len() <= slot {
            self.0.resize(slot + 1, None);
        }
        if let Some(entry) = self.0.get_mut(slot) {
            match entry {
                Some(known) if known.will_wake(waker) => {}
                _ => *entry = Some(waker.clone()),
            }
        }
    }

    pub(super) fn take(&mut self, slot: usize) -> Option<Waker> {
        self.0.get_mut(slot)?.take()
    }

    fn drain(&mut self, wakes: &mut Wakes) {
        wakes.extend(self.0.drain(..).flatten());
    }
}

/// Wakers by slot, several for each.
#[derive(Debug, Default)]
pub(super) struct WakerLists(Vec<(usize, Waker)>);

impl WakerLists {
    fn push(&mut self, slot: usize, waker: &Waker) {
        if !self.0.iter().any(|(at, known)| *at == slot && known.will_wake(waker)) {
            self.0.push((slot, waker.clone()));
        }
    }

    /// Takes out those of one slot.
    pub(super) fn take(&mut self, slot: usize, wakes: &mut Wakes) {
        let of_slot = self.0.extract_if(.., |(at, _)| *at == slot);
        wakes.extend(of_slot.map(|(_, waker)| waker));
    }

    fn drain(&mut self, wakes: &mut Wakes) {
        wakes.extend(self.0.drain(..).map(|(_, waker)| waker));
    }
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
    lone_waker: Option<Waker>,
    request_wakers: WakerTable,
    pub(super) subscription_wakers: WakerTable,
    pub(super) watch_wakers: WakerTable,
    pub(super) registration_wakers: WakerTable,
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
    is_fresh: bool,
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

    /// Makes sure that the driver's timer is not later than what is due, nor later than it should listen again.
    fn keep_driver_near(&mut self, wakes: &mut Wakes) {
        let mut due = self.now + LENT_MAX;
        if let Some(timeout) = self.session.poll_timeout() {
            due = due.min(timeout);
        }
        if self.driver.armed.is_none_or(|armed| armed > due) {
            self.notify_driver(wakes);
        }
    }

    /// Whether this caller may read the socket itself.
    fn is_alone(&self) -> bool {
        self.waiting == 1 && !self.stopping && self.socket.is_some() && !self.session.is_listening()
    }

    /// The outcome of a request, or the task is woken when it is there.
    pub(super) fn poll_request(
        &mut self,
        ticket: Ticket,
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) -> Poll<Outcome> {
        if let Some(outcome) = self.session.take(ticket) {
            self.end_request(ticket, wakes);
            return Poll::Ready(outcome);
        }
        if self.is_alone() {
            return self.poll_alone(ticket, cx, wakes);
        }
        self.take_socket_back(wakes);
        self.request_wakers.set(ticket.slot(), cx.waker());
        if self.session.pending_bytes() > 0 {
            self.notify_driver(wakes);
        }
        self.keep_driver_timely(wakes);
        Poll::Pending
    }

    /// In company the driver reads, and needs to run only for what is due earlier than it knows.
    fn keep_driver_timely(&mut self, wakes: &mut Wakes) {
        if let Some(timeout) = self.session.poll_timeout()
            && self.driver.armed.is_none_or(|armed| armed > timeout)
        {
            self.notify_driver(wakes);
        }
    }

    /// Company has come: the driver reads from here on.
    pub(super) fn take_socket_back(&mut self, wakes: &mut Wakes) {
        match self.reader {
            Reader::Driver => return,
            Reader::Lone(ticket) => {
                if let Some(waker) = &self.lone_waker {
                    self.request_wakers.set(ticket.slot(), waker);
                }
            }
            Reader::Nobody => {}
        }
        self.spin.cancel();
        self.reader = Reader::Driver;
        self.notify_driver(wakes);
    }

    fn poll_alone(&mut self, ticket: Ticket, cx: &mut Context<'_>, wakes: &mut Wakes) -> Poll<Outcome> {
        if self.reader != Reader::Lone(ticket) {
            self.reader = Reader::Lone(ticket);
            self.keep_driver_near(wakes);
            self.spin.cancel();
            self.spin.begin(self.now);
        }
        while let Some(socket) = &mut self.socket {
            socket.poll_flush(cx, &mut self.session);
            let read = if self.spin.is_open() {
                match self.look_again(cx) {
                    Some(read) => read,
                    None => continue,
                }
            } else {
                socket.poll_read(cx, &mut self.session)
            };
            let Poll::Ready(read) = read else { break };
            self.after_read(read, wakes);
            if let Some(outcome) = self.session.take(ticket) {
                self.spin.hit();
                self.end_request(ticket, wakes);
                return Poll::Ready(outcome);
            }
        }
        if self.lone_waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            self.lone_waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// One look at the socket without sleeping; `None` when the window has ended.
    fn look_again(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<usize>>> {
        rustix::thread::sched_yield();
        let socket = self.socket.as_mut()?;
        match socket.try_read(&mut self.session) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if self.session.direct().is_some() {
                    self.spin.cancel();
                    return None;
                }
                if self.spin.look_again(clock::now()) {
                    cx.waker().wake_by_ref();
                    return Some(Poll::Pending);
                }
                None
            }
            read => Some(Poll::Ready(read)),
        }
    }

    /// The driver's part: writes what waits.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>, wakes: &mut Wakes) {
        if let Some(socket) = &mut self.socket
            && self.session.pending_bytes() > 0
        {
            socket.poll_flush(cx, &mut self.session);
            self.is_fresh = true;
        }
        self.settle(wakes);
    }

    /// The driver's part: reads once, unless a lone caller does. Says whether there was something.
    pub(super) fn read_once(&mut self, cx: &mut Context<'_>, wakes: &mut Wakes) -> bool {
        match self.reader {
            Reader::Driver => {}
            Reader::Lone(_) => return false,
            Reader::Nobody => self.reader = Reader::Driver,
        }
        if core::mem::take(&mut self.is_fresh) {
            self.spin.begin(self.now);
        }
        let looked = if self.spin.is_open() && self.socket.is_some() { self.look_again(cx) } else { None };
        let read = match (looked, &mut self.socket) {
            (Some(read), _) => read,
            (None, Some(socket)) => socket.poll_read(cx, &mut self.session),
            (None, None) => return false,
        };
        let Poll::Ready(read) = read else { return false };
        self.spin.hit();
        self.is_fresh = true;
        self.after_read(read, wakes);
        true
    }

    /// What a read came to.
    fn after_read(&mut self, read: io::Result<usize>, wakes: &mut Wakes) {
        match read {
            Ok(0) => {
                let failure = self.socket.as_ref().and_then(Socket::write_failure);
                self.session.handle_eof(failure.as_deref());
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let failure = format!("reading from the daemon failed: {error}");
                self.session.handle_eof(Some(&failure));
            }
        }
        self.now = clock::now();
        self.settle(wakes);
        if self.session.state() == Stage::Closed {
            if let Some(mut socket) = self.socket.take() {
                // The last words, as far as the kernel takes them at once.
                socket.flush(&mut self.session);
            }
            self.take_socket_back(wakes);
            self.notify_driver(wakes);
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

    /// A request has its outcome, or nobody waits for it any more.
    fn end_request(&mut self, ticket: Ticket, wakes: &mut Wakes) {
        self.waiting -= 1;
        self.request_wakers.take(ticket.slot());
        if self.reader == Reader::Lone(ticket) {
            self.reader = Reader::Nobody;
            if self.session.pending_bytes() > 0 {
                self.notify_driver(wakes);
            }
            self.keep_driver_near(wakes);
        }
    }

    /// The future of a request was dropped.
    pub(super) fn abandon_request(&mut self, ticket: Ticket, wakes: &mut Wakes) {
        self.session.abandon(ticket);
        self.end_request(ticket, wakes);
        self.spin.cancel();
        self.notify_driver(wakes);
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
        self.gone.get_or_insert(error);
        self.settle(wakes);
        for table in [
            &mut self.request_wakers,
            &mut self.subscription_wakers,
            &mut self.watch_wakers,
            &mut self.registration_wakers,
        ] {
            table.drain(wakes);
        }
        self.serving.drain(wakes);
        wakes.append(&mut self.room_wakers);
        wakes.append(&mut self.end_wakers);
    }

    /// Whether the user asked for the end.
    pub(super) fn was_asked_to_stop(&self) -> bool {
        self.stopping || self.gone.as_ref().is_some_and(|error| error.code == ErrorCode::Cancelled)
    }
}
