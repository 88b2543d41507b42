//! Which senders a connection knows already.

use std::collections::{BTreeMap, VecDeque};

use crate::broker::keys::PeerKey;

/// Peers that were announced to one connection.
#[derive(Debug, Default)]
pub(in crate::broker) struct Known {
    /// Generation by slot.
    announced: BTreeMap<u32, u32>,
    order: VecDeque<u32>,
    /// The one asked about last: traffic comes in runs.
    last: Option<PeerKey>,
}

/// What has to be sent before a sender handle is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Announce {
    /// Nothing: it is known.
    No,
    /// Its announcement, after this other handle was taken back, if any.
    Yes { forget: Option<u32> },
}

impl Known {
    /// Whether `sender` can be used as a sender without being announced.
    pub(in crate::broker) fn knows(&mut self, sender: PeerKey) -> bool {
        if self.last != Some(sender) && self.announced.get(&sender.slot()) != Some(&sender.generation()) {
            return false;
        }
        self.last = Some(sender);
        true
    }

    /// Notes that `sender` is about to be used as a sender.
    pub(in crate::broker) fn note(&mut self, sender: PeerKey, max: usize) -> Announce {
        if self.last == Some(sender) {
            return Announce::No;
        }
        self.last = Some(sender);
        match self.announced.insert(sender.slot(), sender.generation()) {
            Some(generation) if generation == sender.generation() => Announce::No,
            Some(_) => Announce::Yes { forget: None },
            None => {
                self.order.push_back(sender.slot());
                let oldest = if self.order.len() > max { self.order.pop_front() } else { None };
                if let Some(oldest) = oldest {
                    self.announced.remove(&oldest);
                }
                Announce::Yes { forget: oldest }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_are_made_once_and_bounded() {
        let mut keys = slotmap::SlotMap::<PeerKey, ()>::with_key();
        let peers: Vec<_> = (0..4).map(|_| keys.insert(())).collect();
        let mut known = Known::default();
        for (at, forget) in [(0, None), (1, None), (2, None), (3, Some(peers[0].slot()))] {
            assert_eq!(known.note(peers[at], 3), Announce::Yes { forget }, "{at}");
            assert_eq!(known.note(peers[at], 3), Announce::No);
        }
        assert_eq!([0, 1, 2, 3].map(|at| known.knows(peers[at])), [false, true, true, true]);
        assert_eq!(known.note(peers[0], 3), Announce::Yes { forget: Some(peers[1].slot()) });
        keys.remove(peers[0]);
        let again = keys.insert(());
        assert_eq!(again.slot(), peers[0].slot());
        assert!(!known.knows(again), "the number of one who has gone");
        assert_eq!(known.note(again, 3), Announce::Yes { forget: None });
    }
}
