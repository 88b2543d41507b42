//! Requests for changes of keys that wait for their turn, in the order in which they came.

use std::collections::VecDeque;

use ipc_core::Error;
use ipc_core::limits::Limits;

use super::kv::Request;
use crate::broker::ledger::Ledger;

#[derive(Debug, Default)]
pub(super) struct Line {
    requests: VecDeque<Request>,
    /// How many were asked for by each user. What the daemon does by itself takes nobody's place.
    counts: Ledger<Option<u32>>,
    /// Bytes of those.
    bytes: Ledger<Option<u32>>,
}

impl Line {
    /// Whether there is room for another.
    ///
    /// # Errors
    /// `quota_exceeded` naming the limit.
    pub(super) fn check(&self, request: &Request, limits: &Limits) -> Result<(), Error> {
        let Some(user) = request.asker.map(|asker| asker.user) else { return Ok(()) };
        let max = limits.key_changes_pending_max;
        self.counts.standing(user.uid).check(1, "key_changes_pending_max", max.into(), user.is_alone)?;
        // An empty line takes one of any size.
        if self.bytes.total() == 0 {
            return Ok(());
        }
        let (bytes, max) = (request.bytes() as u64, limits.key_changes_pending_max_bytes);
        let name = "key_changes_pending_max_bytes";
        self.bytes.standing(user.uid).check(bytes, name, max.into(), user.is_alone)
    }

    pub(super) fn push(&mut self, request: Request) {
        self.note(&request);
        self.requests.push_back(request);
    }

    /// Its turn has come to nothing: it is the next one again.
    pub(super) fn push_front(&mut self, request: Request) {
        self.note(&request);
        self.requests.push_front(request);
    }

    fn note(&mut self, request: &Request) {
        if let Some(asker) = &request.asker {
            self.counts.add(asker.user.uid, 1);
            self.bytes.add(asker.user.uid, request.bytes() as u64);
        }
    }

    pub(super) fn first(&self) -> Option<&Request> {
        self.requests.front()
    }

    pub(super) fn pop(&mut self) -> Option<Request> {
        let request = self.requests.pop_front()?;
        if let Some(asker) = &request.asker {
            self.counts.remove(asker.user.uid, 1);
            self.bytes.remove(asker.user.uid, request.bytes() as u64);
        }
        Some(request)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}
