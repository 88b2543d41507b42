//! Calls that we are serving.

use crate::error::Error;
use crate::limits::{INBOUND_CALLS_MAX, INBOUND_MAX_BYTES};

use super::event::InboundKey;
use super::slab::Slab;

#[derive(Debug)]
struct Serving {
    /// The daemon's id of the call; `None` when it wants no answer.
    call: Option<u64>,
    bytes: usize,
}

/// All calls that are being served.
#[derive(Debug)]
pub(super) struct Inbound {
    calls: Slab<Serving>,
    bytes: usize,
}

impl Inbound {
    pub(super) const fn new() -> Self {
        Self { calls: Slab::new(), bytes: 0 }
    }

    /// How many are being served.
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether a call is being served.
    pub(super) fn contains(&self, key: InboundKey) -> bool {
        self.calls.get(key.0).is_some()
    }

    /// Takes a call in.
    ///
    /// # Errors
    /// `quota_exceeded` when too many, or too many bytes, are being served already.
    pub(super) fn insert(&mut self, call: Option<u64>, bytes: usize) -> Result<InboundKey, Error> {
        if self.calls.len() >= INBOUND_CALLS_MAX {
            return Err(Error::quota("inbound_calls_max", INBOUND_CALLS_MAX as u64));
        }
        if self.bytes + bytes > INBOUND_MAX_BYTES {
            return Err(Error::quota("inbound_max_bytes", INBOUND_MAX_BYTES as u64));
        }
        self.bytes += bytes;
        Ok(InboundKey(self.calls.insert(Serving { call, bytes })))
    }

    /// Ends a call; says whether and to what daemon's id a reply is due.
    pub(super) fn complete(&mut self, key: InboundKey) -> Option<u64> {
        let serving = self.calls.remove(key.0)?;
        self.bytes -= serving.bytes;
        serving.call
    }

    /// The daemon does not want a reply to its call any more.
    ///
    /// Calls are looked through one by one: a cancellation is rare and a call is not.
    pub(super) fn cancel(&mut self, call: u64) -> Option<InboundKey> {
        let (key, _) = self.calls.iter().find(|(_, serving)| serving.call == Some(call))?;
        self.complete(InboundKey(key));
        Some(InboundKey(key))
    }

    /// Ends everything; the keys are of use only to stop the work.
    pub(super) fn drain(&mut self) -> Vec<InboundKey> {
        let keys: Vec<InboundKey> = self.calls.iter().map(|(key, _)| InboundKey(key)).collect();
        for key in &keys {
            self.complete(*key);
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    #[test]
    fn a_call_is_answered_or_cancelled_once() {
        let mut inbound = Inbound::new();
        let first = inbound.insert(Some(7), 10).unwrap();
        let second = inbound.insert(Some(8), 10).unwrap();
        assert_eq!(inbound.complete(first), Some(7));
        assert_eq!(inbound.complete(first), None);
        assert_eq!(inbound.cancel(7), None);
        assert_eq!(inbound.cancel(8), Some(second));
        assert_eq!(inbound.complete(second), None);
        assert_eq!((inbound.len(), inbound.bytes), (0, 0));
    }

    #[test]
    fn oneway_calls_are_counted_and_owe_nothing() {
        let mut inbound = Inbound::new();
        let key = inbound.insert(None, 1).unwrap();
        assert_eq!(inbound.len(), 1);
        assert_eq!(inbound.complete(key), None);
        assert_eq!(inbound.len(), 0);
    }

    #[test]
    fn bytes_and_calls_are_bounded() {
        let mut inbound = Inbound::new();
        inbound.insert(Some(1), INBOUND_MAX_BYTES - 1).unwrap();
        inbound.insert(Some(2), 1).unwrap();
        assert_eq!(inbound.insert(Some(3), 1).unwrap_err().code, ErrorCode::QuotaExceeded);
        let mut inbound = Inbound::new();
        for call in 0..INBOUND_CALLS_MAX as u64 {
            inbound.insert(Some(call), 0).unwrap();
        }
        assert_eq!(inbound.insert(Some(0), 0).unwrap_err().code, ErrorCode::QuotaExceeded);
        assert_eq!(inbound.drain().len(), INBOUND_CALLS_MAX);
    }
}
