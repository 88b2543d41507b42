//! The daemon's short numbers for peers and topics, and what they stand for.

use std::collections::BTreeMap;

use crate::id::Handle;
use crate::identity::Peer;
use crate::limits::ANNOUNCED_MAX;
use crate::name::TopicName;
use crate::wire::WireError;

/// What the daemon has announced and not taken back.
///
/// The numbers belong to the daemon and may be anything, so they are looked up and never used as an index.
#[derive(Debug, Default)]
pub(super) struct Announced {
    peers: BTreeMap<u32, Peer>,
    topics: BTreeMap<u32, (u16, TopicName)>,
}

impl Announced {
    pub(super) fn clear(&mut self) {
        self.peers.clear();
        self.topics.clear();
    }

    /// `sender` stands for `peer` from here on.
    ///
    /// # Errors
    /// When more are announced than any daemon may.
    pub(super) fn insert_peer(&mut self, sender: u32, peer: Peer) -> Result<(), WireError> {
        if self.peers.len() >= ANNOUNCED_MAX && !self.peers.contains_key(&sender) {
            return Err(WireError::Envelope("too many peers are announced"));
        }
        self.peers.insert(sender, peer);
        Ok(())
    }

    /// `handle` stands for `topic` from here on.
    ///
    /// # Errors
    /// When more are announced than any daemon may.
    pub(super) fn insert_topic(&mut self, handle: Handle, topic: TopicName) -> Result<(), WireError> {
        if self.topics.len() >= ANNOUNCED_MAX && !self.topics.contains_key(&handle.index) {
            return Err(WireError::Envelope("too many topics are announced"));
        }
        self.topics.insert(handle.index, (handle.generation, topic));
        Ok(())
    }

    pub(super) fn forget_peer(&mut self, sender: u32) {
        self.peers.remove(&sender);
    }

    pub(super) fn forget_topic(&mut self, index: u32) {
        self.topics.remove(&index);
    }

    /// Who `sender` stands for.
    ///
    /// # Errors
    /// [`WireError::Unannounced`] when it stands for nobody.
    pub(super) fn peer(&self, sender: u32) -> Result<&Peer, WireError> {
        self.peers.get(&sender).ok_or(WireError::Unannounced(sender))
    }

    /// The topic `handle` stands for.
    ///
    /// # Errors
    /// [`WireError::Unannounced`] when it stands for none, or for one of another generation.
    pub(super) fn topic(&self, handle: Handle) -> Result<&TopicName, WireError> {
        match self.topics.get(&handle.index) {
            Some((generation, topic)) if *generation == handle.generation => Ok(topic),
            Some(_) | None => Err(WireError::Unannounced(handle.index)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerId;
    use crate::identity::Identity;

    fn peer(id: u64) -> Peer {
        Peer { id: PeerId(id), identity: Identity::Local { uid: 1, gid: 2, pid: 3 } }
    }

    #[test]
    fn a_number_stands_for_the_last_announcement_until_forgotten() {
        let mut announced = Announced::default();
        assert_eq!(announced.peer(u32::MAX), Err(WireError::Unannounced(u32::MAX)));
        announced.insert_peer(u32::MAX, peer(1)).unwrap();
        announced.insert_peer(u32::MAX, peer(2)).unwrap();
        assert_eq!(announced.peer(u32::MAX), Ok(&peer(2)));
        announced.forget_peer(u32::MAX);
        assert!(announced.peer(u32::MAX).is_err());
    }

    #[test]
    fn as_many_are_remembered_as_any_daemon_may_announce() {
        let mut announced = Announced::default();
        let topic = TopicName::parse("a").unwrap();
        let handle = |number: usize| Handle { index: number as u32, generation: 1 };
        for number in 1..ANNOUNCED_MAX {
            announced.insert_peer(number as u32, peer(1)).unwrap();
            announced.insert_topic(handle(number), topic.clone()).unwrap();
        }
        for (number, fits) in [(ANNOUNCED_MAX, true), (ANNOUNCED_MAX + 1, false), (1, true)] {
            assert_eq!(announced.insert_peer(number as u32, peer(2)).is_ok(), fits, "peer {number}");
            assert_eq!(announced.insert_topic(handle(number), topic.clone()).is_ok(), fits, "topic {number}");
        }
        announced.forget_peer(1);
        announced.forget_topic(1);
        announced.insert_peer(0, peer(3)).unwrap();
        announced.insert_topic(handle(0), topic).unwrap();
    }

    #[test]
    fn a_topic_of_another_generation_is_not_announced() {
        let mut announced = Announced::default();
        let topic = TopicName::parse("a.b").unwrap();
        let handle = Handle { index: 9, generation: 2 };
        announced.insert_topic(handle, topic.clone()).unwrap();
        assert_eq!(announced.topic(handle), Ok(&topic));
        assert!(announced.topic(Handle { generation: 1, ..handle }).is_err());
        announced.forget_topic(9);
        assert!(announced.topic(handle).is_err());
    }
}
