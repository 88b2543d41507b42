//! Whose input is dealt with next, by what the input of each has led to.

use ipc_core::id::PeerId;

use crate::broker::event::Transport;
use crate::broker::keys::{AccountKey, PeerKey};
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
/// To take something down for a list, and to write it.
const ROW_WORK: u64 = 8 * 1024;
/// A connection, from when it is accepted to when it is closed.
const CONNECTION_WORK: u64 = 32 * 1024;

impl Broker {
    /// Whether several are connected who take turns, so that [`Broker::ask_turn`] and [`Broker::took_turn`] are of use.
    pub fn are_turns_shared(&self) -> bool {
        self.turns.are_shared()
    }

    /// How much may be read from a connection that has input. If nothing, it stands in line until [`Broker::call_next`] or
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
        self.turns.took(account, peer, bytes, work)
    }

    /// Does something for a connection that is not read in turn. Its user is charged for it.
    pub fn on_account_of<R>(&mut self, peer: PeerKey, act: impl FnOnce(&mut Self) -> R) -> R {
        self.end_run();
        let before = self.work_so_far();
        let result = act(self);
        self.charge_turns(Some(peer), self.work_so_far() - before);
        result
    }

    /// So many rows of a list were made for somebody.
    pub fn listed(&mut self, viewer: PeerId, rows: usize) {
        self.charge_turns(self.peer_of(viewer), rows as u64 * ROW_WORK);
    }

    fn charge_turns(&mut self, peer: Option<PeerKey>, work: u64) {
        let state = peer.and_then(|peer| self.peers.get(peer)).filter(|state| takes_turns(state));
        if let Some(state) = state.filter(|_| self.turns.are_shared()) {
            self.turns.charge(state.account, work);
        }
    }

    /// Whether anybody stands in line.
    pub fn are_turns_awaited(&self) -> bool {
        self.turns.are_waiting()
    }

    /// All who had input have been looked at: who of those that stand in line comes next. With `is_round` it may be nobody, because
    /// all have had more than their shares: somebody else has something to do.
    pub fn call_next(&mut self, is_round: bool) -> Option<PeerKey> {
        self.turns.call_next(is_round)
    }

    /// Who pays for a connection.
    pub fn account_of(&self, peer: PeerKey) -> Option<AccountKey> {
        self.peers.get(peer).map(|state| state.account)
    }

    /// The connection of that number.
    pub fn peer_of(&self, id: PeerId) -> Option<PeerKey> {
        self.peers.iter().find(|(_, peer)| peer.who.id == id).map(|(key, _)| key)
    }

    /// Nobody takes turns any more. Calls all who stand in line.
    pub fn end_turns(&mut self, call: impl FnMut(PeerKey)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Access, Config, Policy};
    use ipc_core::id::Epoch;
    use ipc_core::identity::Identity;
    use ipc_core::limits::Limits;
    use ipc_core::time::Instant;

    /// A connection of user 1, another one of it without a stream, and one of user 2.
    fn scene() -> (Broker, [PeerKey; 3]) {
        let mut broker = Broker::new(Config {
            limits: Limits::default(),
            policy: Policy::open(Vec::new()),
            epoch: Epoch(1),
            server: String::new(),
        });
        let users = [(1, Transport::UnixStream), (1, Transport::UnixDatagram), (2, Transport::UnixStream)];
        let peers = users.map(|(uid, transport)| {
            let identity = Identity::Local { uid, gid: uid, pid: 1 };
            broker.connect(Instant::default(), identity, transport, Access::Granted).unwrap()
        });
        // What it took to accept them is paid.
        for peer in [peers[0], peers[2]] {
            while broker.ask_turn(peer) == Room::None {
                broker.call_next(false);
            }
        }
        (broker, peers)
    }

    #[test]
    fn what_is_not_read_in_turn_is_charged_to_its_user_all_the_same() {
        for is_listed in [false, true] {
            let (mut broker, [stream, datagrams, other]) = scene();
            assert_ne!(broker.ask_turn(stream), Room::None);
            if is_listed {
                broker.listed(broker.peer_id(datagrams).unwrap(), 1000);
            } else {
                broker.on_account_of(datagrams, |broker| broker.work += 1000 * ROW_WORK);
            }
            assert_eq!(broker.ask_turn(stream), Room::None);
            assert_ne!(broker.ask_turn(other), Room::None);
        }
    }
}
