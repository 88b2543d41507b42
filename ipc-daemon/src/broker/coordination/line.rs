//! Requests for changes of keys that wait for their turn, in the order in which they came; and how many of a sort may wait.

use std::collections::VecDeque;

use ipc_core::Error;
use ipc_core::limits::Limits;

use super::kv::Request;
use crate::broker::ledger::{Ledger, User};

/// How much waits for the disk, by who has asked for it. What the daemon does by itself takes nobody's place.
#[derive(Debug, Default)]
pub(super) struct Pending {
    counts: Ledger<Option<u32>>,
    bytes: Ledger<Option<u32>>,
}

impl Pending {
    /// Whether a user may have one more wait, of so many bytes.
    ///
    /// # Errors
    /// `quota_exceeded` naming the limit.
    pub(super) fn check(&self, user: User, bytes: usize, limits: &Limits) -> Result<(), Error> {
        let max = limits.changes_pending_max;
        self.counts.standing(user.uid).check(1, "changes_pending_max", max.into(), user.is_alone)?;
        // With nothing there one of any size is taken.
        if self.bytes.total() == 0 {
            return Ok(());
        }
        let (standing, max) = (self.bytes.standing(user.uid), limits.changes_pending_max_bytes);
        standing.check(bytes as u64, "changes_pending_max_bytes", max.into(), user.is_alone)
    }

    pub(super) fn add(&mut self, uid: Option<u32>, bytes: usize) {
        self.counts.add(uid, 1);
        self.bytes.add(uid, bytes as u64);
    }

    pub(super) fn remove(&mut self, uid: Option<u32>, bytes: usize) {
        self.counts.remove(uid, 1);
        self.bytes.remove(uid, bytes as u64);
    }
}

#[derive(Debug, Default)]
pub(super) struct Line {
    requests: VecDeque<Request>,
    pending: Pending,
}

impl Line {
    /// Whether there is room for another.
    ///
    /// # Errors
    /// `quota_exceeded` naming the limit.
    pub(super) fn check(&self, request: &Request, limits: &Limits) -> Result<(), Error> {
        let Some(asker) = request.asker else { return Ok(()) };
        self.pending.check(asker.user, request.bytes(), limits)
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
            self.pending.add(asker.user.uid, request.bytes());
        }
    }

    pub(super) fn first(&self) -> Option<&Request> {
        self.requests.front()
    }

    pub(super) fn pop(&mut self) -> Option<Request> {
        let request = self.requests.pop_front()?;
        if let Some(asker) = &request.asker {
            self.pending.remove(asker.user.uid, request.bytes());
        }
        Some(request)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}
