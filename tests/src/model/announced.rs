//! What one client has been told about senders and topics.

use std::collections::BTreeMap;

use ipc_core::wire::Kind;
use ipc_core::wire::message::{Forget, ForgetWhat, PeerInfo, TopicInfo};

use crate::world::Seen;

/// Handles and what they stand for.
#[derive(Clone, Debug, Default)]
pub(super) struct Announced {
    peers: BTreeMap<u32, PeerInfo>,
    topics: BTreeMap<(u32, u16), String>,
}

impl Announced {
    /// Who the sender handle stands for.
    pub(super) fn peer(&self, handle: u32) -> Option<&PeerInfo> {
        self.peers.get(&handle)
    }

    /// Which topic the handle stands for.
    pub(super) fn topic(&self, index: u32, generation: u16) -> Option<&str> {
        self.topics.get(&(index, generation)).map(String::as_str)
    }

    /// How many sender handles stand for somebody.
    pub(super) fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Takes a frame in. `false` when it announces nothing and takes nothing back.
    ///
    /// # Errors
    /// A sentence, when it contradicts what was announced before.
    pub(super) fn take(&mut self, seen: &Seen) -> Result<bool, String> {
        let handle = (seen.header.handle.index, seen.header.handle.generation);
        match seen.kind() {
            Kind::PEER_ANNOUNCED => {
                let info: PeerInfo = seen.decode().ok_or("the announcement of a peer is malformed")?;
                self.peers.insert(seen.header.sender, info);
            }
            Kind::TOPIC_ANNOUNCED => {
                let info: TopicInfo = seen.decode().ok_or("the announcement of a topic is malformed")?;
                let before = self.topics.insert(handle, info.name.0.clone());
                if let Some(before) = before.filter(|before| *before != info.name.0) {
                    return Err(format!(
                        "topic {handle:?} stood for {before}, and for {} as well",
                        info.name.0
                    ));
                }
            }
            Kind::FORGET => {
                let body: Forget = seen.decode().ok_or("the forget is malformed")?;
                let was_known = match body.what {
                    ForgetWhat::Peer => self.peers.remove(&seen.header.sender).is_some(),
                    ForgetWhat::Topic => self.topics.remove(&handle).is_some(),
                };
                if !was_known {
                    return Err("a handle is forgotten that was not announced".to_owned());
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
