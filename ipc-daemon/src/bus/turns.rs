//! Who is read from next, while several are connected who pay for themselves. The broker decides; connections ask it here.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

use slotmap::SecondaryMap;
use tokio::sync::Mutex;

use super::{Bus, Endpoint, State};
use crate::broker::{Broker, PeerKey, Room};

/// Nobody has to share with anybody.
const ALL: Room = Room::Some { bytes: usize::MAX, bulk_bytes: usize::MAX };

/// What is known without asking the broker.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    are_shared: Cell<bool>,
    /// Who begins rounds when nobody else does.
    keeper: RefCell<Option<Waker>>,
    /// Whoever has it passes next.
    turnstile: Mutex<()>,
}

impl Rounds {
    /// A connection has come or gone.
    pub(super) fn note(&self, broker: &mut Broker, endpoints: &SecondaryMap<PeerKey, Endpoint>) {
        let are_shared = broker.are_turns_shared();
        if self.are_shared.replace(are_shared) && !are_shared {
            broker.end_rounds(|next| wake(endpoints, next));
        }
    }
}

fn wake(endpoints: &SecondaryMap<PeerKey, Endpoint>, next: PeerKey) {
    if let Some(Endpoint::Socket(link)) = endpoints.get(next) {
        link.wake();
    }
}

impl Bus {
    /// Whether several are connected who take turns: nobody should do much at a time then.
    pub(crate) fn are_turns_shared(&self) -> bool {
        self.0.rounds.are_shared.get()
    }

    /// How much may be read from a connection that has input. If nothing, its task is woken when it may.
    pub(crate) fn ask_turn(&self, peer: PeerKey) -> Room {
        if !self.are_turns_shared() {
            return ALL;
        }
        let room = self.0.state.borrow_mut().broker.ask_turn(peer);
        if room == Room::None
            && let Some(keeper) = self.0.rounds.keeper.borrow_mut().take()
        {
            keeper.wake();
        }
        room
    }

    /// So many bytes were read from the connection that has asked, and dealt with.
    pub(crate) fn took_turn(&self, peer: PeerKey, bytes: usize) {
        if self.are_turns_shared() {
            let state = &mut *self.0.state.borrow_mut();
            if let Some(next) = state.broker.took_turn(peer, bytes) {
                wake(&state.endpoints, next);
            }
        }
    }

    /// Whether anybody who has input has to wait for a round.
    pub(crate) fn are_turns_awaited(&self) -> bool {
        self.are_turns_shared() && self.0.state.borrow().broker.are_turns_awaited()
    }

    /// All who have input have been looked at: from here on everybody has another share.
    pub(crate) fn next_round(&self) {
        if self.are_turns_shared() {
            let State { broker, endpoints, .. } = &mut *self.0.state.borrow_mut();
            broker.next_round(|next| wake(endpoints, next));
        }
    }

    /// While several take turns: has one piece of work after the other begin that nobody has asked a turn for, and in between all
    /// who have input. Cancel safe.
    pub(crate) async fn pass(&self) {
        if self.are_turns_shared() {
            let _next = self.0.rounds.turnstile.lock().await;
            tokio::task::yield_now().await;
        }
    }

    /// Begins rounds when somebody waits for one and nobody looks for work anyway, for as long as the daemon runs.
    pub(crate) async fn keep_turns(&self) {
        loop {
            poll_fn(|context| {
                if self.0.state.borrow().broker.are_turns_awaited() {
                    return Poll::Ready(());
                }
                *self.0.rounds.keeper.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            })
            .await;
            // The runtime asks the kernel who has input before it comes back here, and they are first.
            tokio::task::yield_now().await;
            if !self.due().is_attended() {
                self.next_round();
            }
        }
    }
}
