//! The calls of a forward: those that are under way, and those that wait for their turn.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::task::{Context, Poll};

use ipc_core::Error;
use ipc_core::session::{InboundKey, Incoming};
use tokio::task::{AbortHandle, JoinSet};

use super::Forward;

/// All calls of one forward. Dropping it ends what is under way.
#[derive(Default)]
pub(super) struct Line {
    tasks: JoinSet<InboundKey>,
    running: BTreeMap<InboundKey, AbortHandle>,
    waiting: VecDeque<Incoming>,
}

impl Line {
    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Begins with a call, now or when its turn comes.
    pub(super) fn take(&mut self, forward: &Rc<Forward>, call: Incoming) {
        let (calls_max, waiting_max) = forward.bus.look(|broker| {
            let limits = broker.limits();
            (limits.forward_calls_max as usize, limits.forward_waiting_max)
        });
        if self.running.len() < calls_max {
            self.begin(forward, call);
        } else if self.waiting.len() < waiting_max as usize {
            self.waiting.push_back(call);
        } else {
            let error = Error::quota("forward_waiting_max", waiting_max.into())
                .with_hint("call again when other calls of this forward have been answered");
            forward.counters.refused.add(1);
            forward.service.reply(call.key, Err(error));
        }
    }

    fn begin(&mut self, forward: &Rc<Forward>, call: Incoming) {
        let key = call.key;
        let task = self.tasks.spawn_local(Rc::clone(forward).serve(call));
        self.running.insert(key, task);
    }

    /// Nobody waits for the answer to this call any more.
    pub(super) fn cancel(&mut self, forward: &Rc<Forward>, key: InboundKey) {
        match self.running.remove(&key) {
            Some(task) => {
                task.abort();
                forward.counters.cancelled.add(1);
                self.advance(forward);
            }
            None => self.waiting.retain(|call| call.key != key),
        }
    }

    /// Notes what has ended and begins what has waited for it; the task is woken when more ends.
    pub(super) fn poll_ended(&mut self, forward: &Rc<Forward>, context: &mut Context<'_>) {
        while let Poll::Ready(Some(ended)) = self.tasks.poll_join_next(context) {
            // One that was cancelled has been noted already.
            if let Ok(key) = ended {
                self.running.remove(&key);
                self.advance(forward);
            }
        }
    }

    fn advance(&mut self, forward: &Rc<Forward>) {
        let max = forward.bus.look(|broker| broker.limits().forward_calls_max) as usize;
        while self.running.len() < max
            && let Some(next) = self.waiting.pop_front()
        {
            self.begin(forward, next);
        }
    }
}
