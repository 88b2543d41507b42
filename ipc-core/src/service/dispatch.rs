//! Calls become running handlers, and their outcomes replies.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::task::{AbortHandle, JoinSet};

use super::Offered;
use super::handler::{Cancellation, Request, Run, Wanted};
use crate::error::{Error, ErrorCode};
use crate::payload::Payload;
use crate::session::{InboundKey, Incoming, RegistrationKey};

/// A call and the service it is for.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) incoming: Incoming,
    pub(crate) offered: Arc<Offered>,
}

/// Takes an outcome to the caller.
pub(crate) trait Replies: Wanted {
    fn reply(&self, key: InboundKey, outcome: Result<Payload, Error>);
}

/// A handler that runs as a task.
#[derive(Debug)]
struct Running {
    key: InboundKey,
    registration: RegistrationKey,
    abort: AbortHandle,
}

/// How many handlers of one service run, and what waits.
#[derive(Debug, Default)]
struct Line {
    running: usize,
    waiting: VecDeque<Job>,
}

/// The handlers that run for one client, each that was not ready at once as a task of its own.
#[derive(Debug)]
pub(crate) struct Dispatcher<R> {
    replies: Arc<R>,
    tasks: JoinSet<InboundKey>,
    /// Running tasks, by slot of their call.
    running: Vec<Option<Running>>,
    /// By slot of the registration.
    lines: Vec<Line>,
    /// Outcomes of handlers that were ready at once.
    ready: Vec<(InboundKey, Result<Payload, Error>)>,
}

impl<R: Replies + 'static> Dispatcher<R> {
    pub(crate) fn new(replies: Arc<R>) -> Self {
        Self { replies, tasks: JoinSet::new(), running: Vec::new(), lines: Vec::new(), ready: Vec::new() }
    }

    /// Serves a call now, or when its turn comes.
    pub(crate) fn serve(&mut self, job: Job) {
        let max = job.offered.concurrency_max;
        let line = self.line(job.incoming.registration);
        if line.running >= max {
            // Bounded by what a session takes in; the daemon cancels what waits past its deadline.
            line.waiting.push_back(job);
        } else {
            self.run(job);
        }
    }

    fn line(&mut self, registration: RegistrationKey) -> &mut Line {
        let slot = registration.slot();
        if self.lines.len() <= slot {
            self.lines.resize_with(slot + 1, Line::default);
        }
        &mut self.lines[slot]
    }

    fn run(&mut self, job: Job) {
        let Incoming { key, registration, method, sender, payload, deadline, traceparent, oneway } =
            job.incoming;
        let (Some(handler), Some(name)) = (job.offered.handlers.get(method), job.offered.methods.get(method))
        else {
            // The session lets only registered methods through.
            self.ready.push((key, Err(Error::new(ErrorCode::NoSuchMethod, "no such method"))));
            return;
        };
        let wanted: Arc<dyn Wanted> = Arc::clone(&self.replies) as Arc<dyn Wanted>;
        let cancellation = Cancellation { wanted, key };
        let method = name.clone();
        let request = Request { payload, sender, method, traceparent, oneway, deadline, cancellation };
        let mut run = match handler.begin(request) {
            Ok(run) => run,
            Err(error) => {
                self.ready.push((key, Err(error)));
                return;
            }
        };
        // Its own task polls it again at once and leaves a waker that counts.
        match pin!(&mut run).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => self.ready.push((key, outcome)),
            Poll::Pending => self.spawn(registration, key, run),
        }
    }

    fn spawn(&mut self, registration: RegistrationKey, key: InboundKey, run: Run) {
        let replies = Arc::clone(&self.replies);
        let abort = self.tasks.spawn(async move {
            let outcome = run.await;
            replies.reply(key, outcome);
            key
        });
        let slot = key.slot();
        if self.running.len() <= slot {
            self.running.resize_with(slot + 1, || None);
        }
        self.running[slot] = Some(Running { key, registration, abort });
        self.line(registration).running += 1;
    }

    /// Nobody waits for this call any more.
    pub(crate) fn cancel(&mut self, key: InboundKey) {
        match self.take_running(key) {
            Some(running) => {
                running.abort.abort();
                self.advance(running.registration);
            }
            None => {
                for line in &mut self.lines {
                    line.waiting.retain(|job| job.incoming.key != key);
                }
            }
        }
    }

    /// Outcomes of handlers that were ready at once.
    pub(crate) fn take_ready(&mut self) -> Vec<(InboundKey, Result<Payload, Error>)> {
        core::mem::take(&mut self.ready)
    }

    /// Gives the memory of what was taken back.
    pub(crate) fn reuse_ready(&mut self, emptied: Vec<(InboundKey, Result<Payload, Error>)>) {
        if self.ready.is_empty() {
            self.ready = emptied;
        }
    }

    /// Whether outcomes wait to be taken.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Notes what has ended and begins what has waited for it; the task is woken when more ends.
    pub(crate) fn poll_tasks(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(ended)) = self.tasks.poll_join_next(cx) {
            // A task ends by itself or by `cancel`, which has noted it: panics are caught inside.
            let Ok(key) = ended else { continue };
            if let Some(running) = self.take_running(key) {
                self.advance(running.registration);
            }
        }
    }

    fn take_running(&mut self, key: InboundKey) -> Option<Running> {
        self.running.get_mut(key.slot())?.take_if(|running| running.key == key)
    }

    /// A handler of this service has ended.
    fn advance(&mut self, registration: RegistrationKey) {
        self.line(registration).running -= 1;
        loop {
            let line = self.line(registration);
            let Some(next) = line.waiting.pop_front() else { return };
            if line.running >= next.offered.concurrency_max {
                line.waiting.push_front(next);
                return;
            }
            self.run(next);
        }
    }
}
