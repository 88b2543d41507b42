//! Names for what the registries hold. A key of something that is gone never matches something later.

use slotmap::{Key, KeyData, new_key_type};

new_key_type! {
    /// A connection of the broker.
    pub struct PeerKey;
    /// One tenure of a service name: of its one owner, or of a group from its first instance to its last.
    pub(super) struct ServiceKey;
    /// A topic that has a counter.
    pub(super) struct TopicKey;
    /// A subscription.
    pub(super) struct SubscriptionKey;
    /// An open call; as a number it is the correlation that its service sees.
    pub(super) struct CallKey;
    /// What one payer is charged with.
    pub struct AccountKey;
}

impl PeerKey {
    /// The number that stands for this peer in the sender field of frames.
    pub(super) fn slot(self) -> u32 {
        (self.data().as_ffi() & u64::from(u32::MAX)) as u32
    }

    /// Which use of the slot this is.
    pub(super) fn generation(self) -> u32 {
        (self.data().as_ffi() >> 32) as u32
    }
}

impl TopicKey {
    /// The handle that stands for this topic in frames to subscribers.
    pub(super) fn handle(self) -> ipc_core::id::Handle {
        let number = self.data().as_ffi();
        // Occupied slots have odd versions, so half of it counts the uses.
        ipc_core::id::Handle {
            index: (number & u64::from(u32::MAX)) as u32,
            generation: (number >> 33) as u16,
        }
    }
}

impl CallKey {
    pub(super) fn correlation(self) -> u64 {
        self.data().as_ffi()
    }

    /// The key that has this correlation. Several numbers are read as the same key, of which only one was ever given out.
    pub(super) fn from_correlation(correlation: u64) -> Option<Self> {
        let key = Self::from(KeyData::from_ffi(correlation));
        (key.correlation() == correlation).then_some(key)
    }
}

/// A deadline, until it is taken or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeadlineKey {
    pub(super) slot: u32,
    pub(super) generation: u32,
}
