//! The one task of a client: it moves bytes in company, serves calls, keeps deadlines and connects again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant as Timer, Sleep, sleep_until};

use super::events::ConnectionEvent;
use super::reconnect::{self, Phase};
use super::shared::{LENT_MAX, Reader, Shared, State};
use super::wakers::Wakes;
use crate::error::{Error, ErrorCode};
use crate::service::{Dispatcher, Job};
use crate::session::Event;
use crate::time::Instant;
use crate::transport::clock;

/// How long the last words to a daemon that does not read are kept.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// A timer that nothing is due for.
const FAR: Duration = Duration::from_secs(3600);

/// The driver of a client, to be spawned.
#[derive(Debug)]
pub(super) struct Driver {
    shared: Arc<Shared>,
    dispatcher: Dispatcher<Shared>,
    phase: Phase,
    timer: Pin<Box<Sleep>>,
    /// When the timer fires, if something is due.
    armed: Option<Instant>,
    /// When the last words are given up.
    farewell: Option<Instant>,
    jobs: Vec<Job>,
    events: Vec<Event>,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            dispatcher: Dispatcher::new(Arc::clone(&shared)),
            shared,
            phase: Phase::Connected,
            timer: Box::pin(sleep_until(Timer::now() + FAR)),
            armed: None,
            farewell: None,
            jobs: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Moves bytes once and takes what came of it. Says whether there may be more.
    fn turn(&mut self, cx: &mut Context<'_>) -> bool {
        let Self { shared, jobs, events, farewell, .. } = self;
        shared.with(|state, wakes| {
            state.driver.notified = false;
            if state.driver.waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
                state.driver.waker = Some(cx.waker().clone());
            }
            let now = state.tick();
            if state.session.poll_timeout().is_some_and(|due| due <= now) {
                state.session.handle_timeout(now);
                state.wake_lone(wakes);
                state.settle(wakes);
            }
            if state.stopping && state.session.state().takes_requests() {
                state.session.close();
                *farewell = Some(now + FAREWELL_MAX);
            }
            state.flush(cx, wakes);
            let more = state.read_once(cx, wakes);
            take_jobs(state, jobs);
            while let Some(event) = state.session.poll_event() {
                events.extend(state.pass_on(event, wakes));
            }
            more
        })
    }

    /// Serves what was called and answers what is ready, in one write.
    fn serve(&mut self, cx: &mut Context<'_>) {
        for job in self.jobs.drain(..) {
            self.dispatcher.serve(job);
        }
        self.dispatcher.poll_tasks(cx);
        // What is answered may let the next call of a line run, and that may be answered at once.
        if !self.dispatcher.has_ready() {
            return;
        }
        let mut ready = self.dispatcher.take_ready();
        self.shared.with(|state, wakes| {
            for (key, outcome) in ready.drain(..) {
                state.session.reply(key, outcome);
                state.served(key, wakes);
            }
            state.flush(cx, wakes);
        });
        self.dispatcher.reuse_ready(ready);
    }

    fn handle_events(&mut self) {
        for event in core::mem::take(&mut self.events) {
            match event {
                Event::CallCancelled(key) => self.dispatcher.cancel(key),
                Event::Connected { epoch_changed } => self.connected(epoch_changed),
                Event::Closed(error) => self.lost(error),
                // Passed on where they were found.
                Event::Delivered(_)
                | Event::NamesChanged(_)
                | Event::HoldLost(_)
                | Event::HoldTakenUp(_)
                | Event::Observed(_)
                | Event::KeysChanged(_)
                | Event::Acquired(_)
                | Event::Work(_)
                | Event::RegistrationLost(..) => {}
            }
        }
    }

    fn connected(&mut self, epoch_changed: Option<bool>) {
        self.phase = Phase::Connected;
        let epoch = self.shared.lock().session.daemon().map(|daemon| daemon.epoch);
        if let (Some(epoch_changed), Some(epoch)) = (epoch_changed, epoch) {
            self.tell(ConnectionEvent::Reconnected { epoch, epoch_changed });
        }
    }

    fn lost(&mut self, error: Error) {
        let was_connected = matches!(self.phase, Phase::Connected);
        let mut state = self.shared.lock();
        state.socket = None;
        state.reader = Reader::Driver;
        self.phase = if state.stopping {
            Phase::Over
        } else {
            Phase::after_failure(&self.shared.options, self.phase.failed() + 1)
        };
        drop(state);
        if matches!(self.phase, Phase::Over) {
            self.over(error);
        } else if was_connected {
            self.tell(ConnectionEvent::Disconnected(error));
        }
    }

    /// Tries to connect again when it is time. Says whether there is a connection to be used.
    fn reconnect(&mut self) -> bool {
        let Phase::Pausing { until, failed } = self.phase else { return false };
        let now = clock::now();
        if now < until {
            return false;
        }
        match reconnect::try_socket(&self.shared.options) {
            Ok(Some(socket)) => {
                self.phase = Phase::Greeting { failed };
                self.shared.with(|state, _| {
                    state.session.restart(now);
                    state.socket = Some(socket);
                    state.reader = Reader::Driver;
                });
                return true;
            }
            // A full queue is no failure of its own; the pause grows all the same.
            Ok(None) => {
                self.failed(Error::new(ErrorCode::Unreachable, "the daemon accepts no connections"), failed)
            }
            Err(error) => self.failed(error, failed),
        }
        false
    }

    fn failed(&mut self, error: Error, failed: u32) {
        self.phase = Phase::after_failure(&self.shared.options, failed + 1);
        if matches!(self.phase, Phase::Over) {
            self.over(error);
        }
    }

    fn over(&mut self, error: Error) {
        self.phase = Phase::Over;
        self.shared.with(|state, wakes| state.end(error.clone(), wakes));
        self.tell(ConnectionEvent::Closed(error));
    }

    fn tell(&self, event: ConnectionEvent) {
        // An error means that nobody listens.
        drop(self.shared.events.send(event));
    }

    /// Whether everything is said that is to be said before the end.
    fn has_said_farewell(&mut self) -> bool {
        let Some(farewell) = self.farewell else {
            // Stopped while there was no connection.
            let stopping = self.shared.lock().stopping;
            return stopping && matches!(self.phase, Phase::Pausing { .. });
        };
        let state = self.shared.lock();
        state.session.pending_bytes() == 0 || state.socket.is_none() || clock::now() >= farewell
    }

    /// Sets the timer for what is due next. Says whether that is now.
    fn arm(&mut self, cx: &mut Context<'_>) -> bool {
        let mut state = self.shared.lock();
        let mut due = state.session.poll_timeout();
        let mut earlier = |other: Option<Instant>| due = due.into_iter().chain(other).min();
        if state.reader != Reader::Driver {
            earlier(Some(state.now + LENT_MAX));
        }
        earlier(self.farewell);
        if let Phase::Pausing { until, .. } = self.phase {
            earlier(Some(until));
        }
        state.driver.armed = due;
        drop(state);
        if due != self.armed {
            self.armed = due;
            let wait = due.map_or(FAR, |due| due.since(clock::now()));
            self.timer.as_mut().reset(Timer::now() + wait);
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.armed = None;
        true
    }
}

fn take_jobs(state: &mut State, jobs: &mut Vec<Job>) {
    while let Some(incoming) = state.session.poll_call() {
        match state.registered.get(incoming.registration.slot()) {
            Some(Some(registered)) => jobs.push(Job { incoming, offered: Arc::clone(&registered.offered) }),
            // Taken back a moment ago.
            Some(None) | None => {
                let error = Error::new(ErrorCode::NoSuchService, "the service was just taken back");
                state.session.reply(incoming.key, Err(error));
            }
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let more = this.turn(cx);
        this.serve(cx);
        this.handle_events();
        if matches!(this.phase, Phase::Over) {
            return Poll::Ready(());
        }
        if this.has_said_farewell() {
            this.over(Error::new(ErrorCode::Cancelled, "this side closed the connection"));
            return Poll::Ready(());
        }
        let connected = this.reconnect();
        if matches!(this.phase, Phase::Over) {
            return Poll::Ready(());
        }
        // After a read, those who were woken run first; their requests go out together.
        if this.arm(cx) || more || connected {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Driver {
    /// The runtime ends before the client does: nobody waits in vain.
    fn drop(&mut self) {
        let error = Error::new(ErrorCode::Unreachable, "the runtime that drove the connection has ended");
        let mut wakes = Wakes::new();
        self.shared.lock().end(error, &mut wakes);
        wakes.into_iter().for_each(Waker::wake);
    }
}
