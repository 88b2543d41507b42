//! The calls that are open: who asked, who serves, until when.

use ipc_core::limits::Limits;
use slotmap::{SecondaryMap, SlotMap};

use super::keys::{CallKey, DeadlineKey, PeerKey, ServiceKey};

/// An open call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) caller: PeerKey,
    /// What the caller knows it by.
    pub(super) caller_correlation: u64,
    pub(super) callee: PeerKey,
    /// The tenure and the callee's registration that serve it.
    pub(super) service: ServiceKey,
    pub(super) registration: u32,
    pub(super) deadline: Option<DeadlineKey>,
    outgoing_at: u32,
    incoming_at: u32,
}

/// The open calls of one peer.
#[derive(Debug, Default)]
struct OfPeer {
    outgoing: Vec<CallKey>,
    incoming: Vec<CallKey>,
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: SlotMap<CallKey, Call>,
    by_peer: SecondaryMap<PeerKey, OfPeer>,
}

impl Calls {
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Calls that `peer` waits for.
    pub(super) fn outgoing(&self, peer: PeerKey) -> usize {
        self.by_peer.get(peer).map_or(0, |of| of.outgoing.len())
    }

    /// Calls that wait for `peer`.
    pub(super) fn incoming(&self, peer: PeerKey) -> usize {
        self.by_peer.get(peer).map_or(0, |of| of.incoming.len())
    }

    /// Whether `peer` may open one more.
    pub(super) fn has_room(&self, peer: PeerKey, limits: &Limits) -> bool {
        self.outgoing(peer) < limits.pending_calls_per_connection_max as usize
    }

    pub(super) fn get(&self, key: CallKey) -> Option<&Call> {
        self.calls.get(key)
    }

    pub(super) fn set_deadline(&mut self, key: CallKey, deadline: DeadlineKey) {
        if let Some(call) = self.calls.get_mut(key) {
            call.deadline = Some(deadline);
        }
    }

    pub(super) fn insert(
        &mut self,
        caller: PeerKey,
        caller_correlation: u64,
        callee: PeerKey,
        (service, registration): (ServiceKey, u32),
    ) -> CallKey {
        let (outgoing_at, incoming_at) = (self.outgoing(caller) as u32, self.incoming(callee) as u32);
        let key = self.calls.insert(Call {
            caller,
            caller_correlation,
            callee,
            service,
            registration,
            deadline: None,
            outgoing_at,
            incoming_at,
        });
        self.of(caller).outgoing.push(key);
        self.of(callee).incoming.push(key);
        key
    }

    pub(super) fn remove(&mut self, key: CallKey) -> Option<Call> {
        let call = self.calls.remove(key)?;
        let outgoing = &mut self.of(call.caller).outgoing;
        outgoing.swap_remove(call.outgoing_at as usize);
        if let Some(moved) = outgoing.get(call.outgoing_at as usize).copied()
            && let Some(moved) = self.calls.get_mut(moved)
        {
            moved.outgoing_at = call.outgoing_at;
        }
        let incoming = &mut self.of(call.callee).incoming;
        incoming.swap_remove(call.incoming_at as usize);
        if let Some(moved) = incoming.get(call.incoming_at as usize).copied()
            && let Some(moved) = self.calls.get_mut(moved)
        {
            moved.incoming_at = call.incoming_at;
        }
        Some(call)
    }

    fn of(&mut self, peer: PeerKey) -> &mut OfPeer {
        if !self.by_peer.contains_key(peer) {
            self.by_peer.insert(peer, OfPeer::default());
        }
        &mut self.by_peer[peer]
    }

    /// The call that `caller` knows by `correlation`. Looks through its open calls, which are bounded: cancelling is
    /// rare, and calling needs no index for it.
    pub(super) fn find(&self, caller: PeerKey, correlation: u64) -> Option<CallKey> {
        let of = self.by_peer.get(caller)?;
        of.outgoing
            .iter()
            .copied()
            .find(|key| self.calls.get(*key).is_some_and(|call| call.caller_correlation == correlation))
    }

    /// Some call that `peer` waits for.
    pub(super) fn any_outgoing(&self, peer: PeerKey) -> Option<CallKey> {
        self.by_peer.get(peer)?.outgoing.first().copied()
    }

    /// Some call that waits for `peer`.
    pub(super) fn any_incoming(&self, peer: PeerKey) -> Option<CallKey> {
        self.by_peer.get(peer)?.incoming.first().copied()
    }

    /// The calls that wait for one registration of `peer`.
    pub(super) fn incoming_of(&self, peer: PeerKey, registration: u32) -> Vec<CallKey> {
        let incoming = self.by_peer.get(peer).map(|of| &of.incoming[..]).unwrap_or_default();
        let is_of =
            |key: &CallKey| self.calls.get(*key).is_some_and(|call| call.registration == registration);
        incoming.iter().copied().filter(is_of).collect()
    }

    /// Every open call.
    pub(super) fn all(&self) -> Vec<CallKey> {
        self.calls.keys().collect()
    }

    /// Drops the lists of a peer that has no open calls any more.
    pub(super) fn forget(&mut self, peer: PeerKey) {
        if let Some(of) = self.by_peer.remove(peer) {
            debug_assert!(
                of.outgoing.is_empty() && of.incoming.is_empty(),
                "a departed peer left calls behind"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_stay_right_through_removals_in_any_order() {
        let mut peers = SlotMap::<PeerKey, ()>::with_key();
        let (a, b) = (peers.insert(()), peers.insert(()));
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
            let mut calls = Calls::default();
            let keys: Vec<_> =
                (0..4).map(|number| calls.insert(a, number, b, (ServiceKey::default(), 1))).collect();
            let other = calls.insert(b, 0, b, (ServiceKey::default(), 2));
            for (done, at) in order.into_iter().enumerate() {
                assert_eq!(calls.find(a, at as u64), Some(keys[at]));
                assert_eq!(calls.remove(keys[at]).unwrap().caller_correlation, at as u64);
                assert_eq!(calls.outgoing(a), 3 - done);
                assert_eq!(calls.incoming(b), 4 - done);
                assert!(calls.find(a, at as u64).is_none());
            }
            assert_eq!((calls.any_incoming(b), calls.incoming_of(b, 2)), (Some(other), vec![other]));
            assert!(calls.incoming_of(b, 1).is_empty() && calls.incoming_of(a, 2).is_empty());
            assert_eq!(calls.all(), [other]);
            assert!(calls.remove(keys[0]).is_none());
        }
    }
}
