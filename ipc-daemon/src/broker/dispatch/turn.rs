//! Whose input is dealt with next, by what the input of each has led to.

use crate::broker::event::Transport;
use crate::broker::keys::PeerKey;
use crate::broker::peer::Peer;
use crate::broker::turns::Room;
use crate::broker::{Broker, Counters};

/// What is counted as work, each in what it takes to pass on a byte: 0.4 ns. A frame takes some 0.5 us, an event 25 ns for each
/// subscriber, a request that changes or looks up something 3 us, and a write 1.5 us (`docs/BENCHMARKS.md`).
const FRAME_WORK: u64 = 1024;
const DELIVERY_WORK: u64 = 64;
pub(super) const REQUEST_WORK: u64 = 6 * 1024;
pub(super) const FLUSH_WORK: u64 = 4096;
/// To look whether an idle topic has a subscription left.
pub(super) const LOOK_WORK: u64 = 256;
/// A connection, from when it is accepted to when it is closed.
const CONNECTION_WORK: u64 = 32 * 1024;

impl Broker {
    /// Whether several are connected who take turns, so that [`Broker::ask_turn`] and [`Broker::took_turn`] are of use.
    pub fn are_turns_shared(&self) -> bool {
        self.turns.are_shared()
    }

    /// How much may be read from a connection that has input. If nothing, it stands in line until [`Broker::next_round`] or
    /// [`Broker::took_turn`] calls it.
    pub fn ask_turn(&mut self, peer: PeerKey) -> Room {
        self.end_run();
        self.work_before = self.work_so_far();
        match self.peers.get(peer) {
            Some(state) => self.turns.ask(state.account, peer),
            None => Room::Some { bytes: usize::MAX, bulk_bytes: usize::MAX },
        }
    }

    /// So many bytes were read from the connection that has asked last, and dealt with. Says whom to call, if anybody.
    pub fn took_turn(&mut self, peer: PeerKey, bytes: usize) -> Option<PeerKey> {
        let work = self.work_so_far() - self.work_before + bytes as u64;
        let account = self.peers.get(peer)?.account;
        self.turns.took(account, work)
    }

    /// Whether anybody stands in line.
    pub fn are_turns_awaited(&self) -> bool {
        self.turns.are_waiting()
    }

    /// All who had input have been looked at. Calls those who come next.
    pub fn next_round(&mut self, call: impl FnMut(PeerKey)) {
        self.turns.next_round(call);
    }

    /// Nobody takes turns any more. Calls all who stand in line.
    pub fn end_rounds(&mut self, call: impl FnMut(PeerKey)) {
        self.turns.dismiss(call);
    }

    fn work_so_far(&self) -> u64 {
        let Counters { frames_received, events_delivered, .. } = self.counters;
        self.work + frames_received * FRAME_WORK + events_delivered * DELIVERY_WORK
    }

    /// A connection takes part from here on.
    pub(in crate::broker) fn join_turns(&mut self, peer: PeerKey) {
        if let Some(state) = self.peers.get(peer).filter(|state| takes_turns(state)) {
            self.turns.join(state.account, CONNECTION_WORK);
        }
    }
}

/// What is the daemon's own, or comes through it to a single method, takes no turns, and makes nobody take any.
pub(in crate::broker) fn takes_turns(state: &Peer) -> bool {
    match state.transport {
        Transport::UnixStream | Transport::UnixDatagram | Transport::Tcp | Transport::Udp => true,
        Transport::Internal | Transport::Forward | Transport::ExposeTcp | Transport::ExposeUdp => false,
    }
}
