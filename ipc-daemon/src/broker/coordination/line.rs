//! Requests for changes of keys that wait for their turn, in the order in which they came.

use std::collections::VecDeque;

use ipc_core::Error;
use ipc_core::limits::Limits;

use super::kv::Request;

#[derive(Debug, Default)]
pub(super) struct Line {
    requests: VecDeque<Request>,
    bytes: usize,
}

impl Line {
    /// Whether there is room for another.
    ///
    /// # Errors
    /// `quota_exceeded` naming the limit.
    pub(super) fn check(&self, request: &Request, limits: &Limits) -> Result<(), Error> {
        let max = limits.key_changes_pending_max;
        if self.requests.len() >= max as usize {
            return Err(Error::quota("key_changes_pending_max", max.into()));
        }
        let max = limits.key_changes_pending_max_bytes;
        // An empty line takes one of any size.
        if self.bytes > 0 && self.bytes + request.bytes() > max as usize {
            return Err(Error::quota("key_changes_pending_max_bytes", max.into()));
        }
        Ok(())
    }

    pub(super) fn push(&mut self, request: Request) {
        self.bytes += request.bytes();
        self.requests.push_back(request);
    }

    /// Its turn has come to nothing: it is the next one again.
    pub(super) fn push_front(&mut self, request: Request) {
        self.bytes += request.bytes();
        self.requests.push_front(request);
    }

    pub(super) fn first(&self) -> Option<&Request> {
        self.requests.front()
    }

    pub(super) fn pop(&mut self) -> Option<Request> {
        let request = self.requests.pop_front()?;
        self.bytes -= request.bytes();
        Some(request)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}
