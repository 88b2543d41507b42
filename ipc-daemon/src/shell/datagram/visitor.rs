//! The connections to the bus that senders of datagrams have.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;

use ipc_core::Error;
use ipc_core::identity::Identity;
use slotmap::SecondaryMap;
use tokio::task::{JoinHandle, spawn_local};

use super::Keeper;
use crate::broker::{Access, Transport};
use crate::bus::Bus;
use crate::bus::internal::InternalPeer;
use crate::datagram::ClientKey;

/// Most bytes that are taken for a sender at a time.
const RECEIVE_MAX_BYTES: usize = 256 * 1024;
/// The same while others take turns: an answer is a datagram, and each a system call.
const RECEIVE_IN_TURN_MAX_BYTES: usize = 512;

/// A sender's end of its connection to the bus.
pub(super) struct Visitor {
    peer: Rc<RefCell<InternalPeer>>,
    task: JoinHandle<()>,
}

impl Visitor {
    /// Connects a sender, and hands what comes for it to the keeper from then on.
    ///
    /// # Errors
    /// The broker's refusal, as for any connection.
    pub(super) fn connect(
        keeper: &Keeper,
        bus: &Bus,
        key: ClientKey,
        identity: Identity,
        transport: Transport,
    ) -> Result<Self, Error> {
        let peer = InternalPeer::connect(bus, identity, transport, Access::Granted)?;
        let peer = Rc::new(RefCell::new(peer));
        let task = spawn_local(attend(bus.clone(), keeper.clone(), key, Rc::clone(&peer)));
        Ok(Self { peer, task })
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        // It holds the other half of the peer, which ends with it.
        self.task.abort();
    }
}

/// Waits for what comes from the bus.
async fn attend(bus: Bus, keeper: Keeper, key: ClientKey, peer: Rc<RefCell<InternalPeer>>) {
    let mut bytes = Vec::new();
    let visitor = peer.borrow().key();
    loop {
        poll_fn(|context| peer.borrow().poll_due(context)).await;
        bus.pass(Some(visitor)).await;
        let max_bytes = if bus.are_turns_shared() { RECEIVE_IN_TURN_MAX_BYTES } else { RECEIVE_MAX_BYTES };
        let mut take = |piece: &[u8]| bytes.extend_from_slice(piece);
        if !poll_fn(|context| peer.borrow_mut().poll_receive(context, max_bytes, &mut take)).await {
            break;
        }
        keeper.handle_input(key, &bytes);
        bytes.clear();
    }
    keeper.handle_end(key);
}

/// Those that are connected.
#[derive(Default)]
pub(super) struct Visitors(SecondaryMap<ClientKey, Visitor>);

impl Visitors {
    pub(super) fn insert(&mut self, key: ClientKey, visitor: Visitor) {
        self.0.insert(key, visitor);
    }

    pub(super) fn remove(&mut self, key: ClientKey) {
        self.0.remove(key);
    }

    pub(super) fn peer(&self, key: ClientKey) -> Option<Rc<RefCell<InternalPeer>>> {
        self.0.get(key).map(|visitor| Rc::clone(&visitor.peer))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
