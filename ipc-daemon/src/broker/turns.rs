//! PURE. Whose input is dealt with next, while several are connected who pay for themselves.
//!
//! Deficit round robin (Shreedhar and Varghese 1995) between accounts: in each round every one may have as much work done as
//! every other, however many connections it has and whatever it sends. Whoever has more to do than that stands in line with its
//! connections, and a round is over when all who stand in line have been called. They are called one at a time, and in between
//! all who have input are looked at: whoever has little to do goes first (as the new flows of RFC 8290), and waits for no more
//! than one share, however many others flood. What one takes too much, because work shows what it was when it is done, is taken
//! from its next shares.

use std::collections::VecDeque;

use slotmap::SecondaryMap;

use super::keys::{AccountKey, PeerKey};

/// What an account may have done in one round. Work is counted in what it takes to pass on a byte, some 0.4 ns.
const SHARE: i64 = 16 * 1024;
/// What is held against an account at most for what it took too much.
const DEBT_MAX: i64 = 64 * SHARE;
/// Bytes of frames that are read from a connection before it is looked at what they came to.
const READ_BYTES: usize = 4 * 1024;
/// So many at first, when nobody knows yet what they come to.
const READ_START_BYTES: usize = 1024;
/// So many at least, however much work they make.
const READ_MIN_BYTES: usize = 256;
/// What they may come to before fewer are read the next time.
const WORK_MAX: u64 = SHARE as u64 / 2;
/// Bytes that are read of one large frame.
const BULK_BYTES: usize = SHARE as usize;

/// An account, as one who takes turns.
#[derive(Debug)]
struct Turn {
    connections: u32,
    /// What is left of its share.
    left: i64,
    /// The round it is the share of.
    round: u64,
    /// Connections that have input, in order of their coming.
    line: VecDeque<PeerKey>,
    /// The one of them that was called and has not come yet.
    called: Option<PeerKey>,
    /// Whether it is among those whose connections stand in line.
    is_waiting: bool,
}

impl Turn {
    fn new(round: u64) -> Self {
        Self { connections: 0, left: SHARE, round, line: VecDeque::new(), called: None, is_waiting: false }
    }

    /// Gives it its shares of the rounds since the last. What was left of one is no use in another.
    fn enter(&mut self, round: u64) {
        let rounds = i64::try_from(round - self.round).unwrap_or(i64::MAX);
        self.left = self.left.saturating_add(SHARE.saturating_mul(rounds)).min(SHARE);
        self.round = round;
    }

    /// The next of its connections that is still there, if its share allows.
    fn call(&mut self, in_line: &mut SecondaryMap<PeerKey, ()>) -> Option<PeerKey> {
        self.called = None;
        while self.left > 0 && self.called.is_none() {
            self.called = Some(self.line.pop_front()?).filter(|peer| in_line.remove(*peer).is_some());
        }
        self.called
    }
}

/// How much may be read from a connection at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Nothing yet: it stands in line, and will be called.
    None,
    /// So many bytes, or so many of a large frame.
    Some {
        /// Of any frames.
        bytes: usize,
        /// Of a frame that is known to be large.
        bulk_bytes: usize,
    },
}

/// All who take turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    turns: SecondaryMap<AccountKey, Turn>,
    /// Connections in line, of all accounts.
    in_line: SecondaryMap<PeerKey, ()>,
    /// Bytes of small frames that are read at a time from connections that have sent some.
    rooms: SecondaryMap<PeerKey, usize>,
    /// Accounts with connections in line.
    waiting: VecDeque<AccountKey>,
    round: u64,
    /// How many of those, from the first on, have not been called in this round.
    uncalled: usize,
}

impl Turns {
    /// A connection that this account pays for. What it took to accept it is its first work.
    pub(super) fn join(&mut self, account: AccountKey, work: u64) {
        if !self.turns.contains_key(account) {
            self.turns.insert(account, Turn::new(self.round));
        }
        if let Some(turn) = self.turns.get_mut(account) {
            turn.connections += 1;
        }
        self.charge(account, work);
    }

    /// The connection is gone.
    pub(super) fn leave(&mut self, account: AccountKey, peer: PeerKey) {
        self.in_line.remove(peer);
        self.rooms.remove(peer);
        let Some(turn) = self.turns.get_mut(account) else { return };
        turn.connections -= 1;
        if turn.connections == 0 {
            self.turns.remove(account);
        }
    }

    /// Whether several take turns at all.
    pub(super) fn are_shared(&self) -> bool {
        self.turns.len() > 1
    }

    /// How much may be read from a connection that has input. If nothing, it stands in line from here on.
    pub(super) fn ask(&mut self, account: AccountKey, peer: PeerKey) -> Room {
        let Some(turn) = self.turns.get_mut(account) else { return Room::None };
        turn.enter(self.round);
        let is_called = turn.called == Some(peer);
        let is_free = turn.left > 0 && turn.called.is_none() && turn.line.is_empty();
        if is_called || is_free {
            turn.called = None;
            let bytes = self.rooms.get(peer).copied().unwrap_or(READ_START_BYTES);
            return Room::Some { bytes, bulk_bytes: BULK_BYTES };
        }
        if self.in_line.insert(peer, ()).is_none() {
            turn.line.push_back(peer);
        }
        if !turn.is_waiting {
            turn.is_waiting = true;
            self.waiting.push_back(account);
        }
        Room::None
    }

    /// So many bytes were read from a connection of that account, and came to so much work. Says whom to call, if its share allows
    /// another.
    pub(super) fn took(
        &mut self,
        account: AccountKey,
        peer: PeerKey,
        bytes: usize,
        work: u64,
    ) -> Option<PeerKey> {
        self.charge(account, work);
        self.fit_room(peer, bytes, work);
        let turn = self.turns.get_mut(account)?;
        turn.call(&mut self.in_line)
    }

    /// Learns from what was read how much is to be read the next time. A read that was not full says nothing of one that is, and
    /// one of a large frame nothing of small ones.
    fn fit_room(&mut self, peer: PeerKey, bytes: usize, work: u64) {
        let room = self.rooms.get(peer).copied().unwrap_or(READ_START_BYTES);
        if bytes <= room && work > WORK_MAX {
            self.rooms.insert(peer, (room / 2).max(READ_MIN_BYTES));
        } else if bytes == room && room < READ_BYTES && work <= WORK_MAX / 2 {
            self.rooms.insert(peer, room * 2);
        }
    }

    /// What was done for that account came to so much work.
    pub(super) fn charge(&mut self, account: AccountKey, work: u64) {
        if let Some(turn) = self.turns.get_mut(account) {
            turn.enter(self.round);
            let work = i64::try_from(work).unwrap_or(i64::MAX);
            turn.left = turn.left.saturating_sub(work).max(-DEBT_MAX);
        }
    }

    /// Nobody takes turns any more: calls all who stand in line.
    pub(super) fn dismiss(&mut self, mut call: impl FnMut(PeerKey)) {
        self.waiting.clear();
        self.uncalled = 0;
        for turn in self.turns.values_mut() {
            (turn.called, turn.is_waiting) = (None, false);
            turn.line.drain(..).filter(|peer| self.in_line.remove(*peer).is_some()).for_each(&mut call);
        }
    }

    /// Whether anybody stands in line.
    pub(super) fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// All who had input have been looked at: says who of those that stand in line comes next. After the last of them everybody
    /// has another share. With `is_round` it may be nobody, because all have debts: somebody else has something to do.
    pub(super) fn call_next(&mut self, is_round: bool) -> Option<PeerKey> {
        // Otherwise it takes as many rounds as the least of the debts: they are bounded.
        let mut tries = if is_round { self.waiting.len() } else { usize::MAX };
        while tries > 0
            && let Some(account) = self.next_waiting()
        {
            tries -= 1;
            let Some(turn) = self.turns.get_mut(account) else { continue };
            turn.enter(self.round);
            // Whoever was called in the last round and did not come has lost its place.
            let called = turn.call(&mut self.in_line);
            turn.is_waiting = called.is_some() || !turn.line.is_empty();
            if turn.is_waiting {
                self.waiting.push_back(account);
            }
            if called.is_some() {
                return called;
            }
        }
        None
    }

    fn next_waiting(&mut self) -> Option<AccountKey> {
        if self.waiting.is_empty() {
            return None;
        }
        if self.uncalled == 0 {
            self.round += 1;
            self.uncalled = self.waiting.len();
        }
        self.uncalled = self.uncalled.saturating_sub(1);
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    /// Connections of several accounts, all of which have input without end that makes so much work a read.
    struct Scene {
        turns: Turns,
        /// Of each account its connections.
        accounts: Vec<(AccountKey, Vec<PeerKey>)>,
        work: Vec<u64>,
        done: Vec<u64>,
        reads: std::collections::BTreeMap<PeerKey, u32>,
    }

    impl Scene {
        fn new(work: &[(usize, u64)]) -> Self {
            let (mut keys, mut peers) =
                (SlotMap::<AccountKey, ()>::with_key(), SlotMap::<PeerKey, ()>::with_key());
            let mut turns = Turns::default();
            let accounts: Vec<_> = work
                .iter()
                .map(|(connections, _)| {
                    let account = keys.insert(());
                    let peers: Vec<_> = (0..*connections).map(|_| peers.insert(())).collect();
                    peers.iter().for_each(|_| turns.join(account, 0));
                    (account, peers)
                })
                .collect();
            let work: Vec<u64> = work.iter().map(|(_, work)| *work).collect();
            Self { turns, accounts, done: vec![0; work.len()], work, reads: Default::default() }
        }

        /// Everybody who is not in line asks, and whoever is called reads, until nobody may any more.
        fn round(&mut self) {
            let mut ready: VecDeque<(usize, PeerKey)> = VecDeque::new();
            for (at, (_, peers)) in self.accounts.iter().enumerate() {
                ready.extend(peers.iter().map(|peer| (at, *peer)));
            }
            self.turns.call_next(false);
            // Whoever was called comes behind those who had input: the order must not matter.
            while let Some((at, peer)) = ready.pop_front() {
                let account = self.accounts[at].0;
                if self.turns.ask(account, peer) == Room::None {
                    continue;
                }
                self.done[at] += self.work[at];
                *self.reads.entry(peer).or_default() += 1;
                ready.push_back((at, peer));
                if let Some(next) = self.turns.took(account, peer, 0, self.work[at]) {
                    ready.push_back((at, next));
                }
            }
        }
    }

    #[test]
    fn accounts_have_the_same_however_many_connections_they_have_and_whatever_they_send() {
        let mut scene = Scene::new(&[(1, 1000), (100, 1000), (3, 30_000), (2, 200_000)]);
        for _ in 0..1000 {
            scene.round();
        }
        let (least, most) = (scene.done.iter().min().unwrap(), scene.done.iter().max().unwrap());
        assert!(most * 100 <= least * 105, "{:?}", scene.done);
        for (_, peers) in &scene.accounts {
            let reads = peers.iter().map(|peer| scene.reads[peer]);
            let (least, most) = (reads.clone().min().unwrap(), reads.max().unwrap());
            assert!(most <= least + 2, "the connections of one account: {least} to {most}");
        }
    }

    #[test]
    fn whoever_has_little_to_do_never_stands_in_line() {
        let mut scene = Scene::new(&[(1, 1000), (50, 50_000)]);
        let (little, peers) = scene.accounts.remove(0);
        scene.work.remove(0);
        for _ in 0..100 {
            scene.round();
            let room = scene.turns.ask(little, peers[0]);
            assert!(matches!(room, Room::Some { .. }), "{room:?}");
            scene.turns.took(little, peers[0], 0, 10_000);
        }
    }

    #[test]
    fn what_makes_a_lot_of_work_is_read_in_small_pieces() {
        let mut scene = Scene::new(&[(2, 10), (1, 10)]);
        let (account, peers) = scene.accounts[0].clone();
        let mut room = |at: usize, share: (usize, usize), work: u64, count: u32| {
            let mut room = 0;
            for turn in 0..=count {
                scene.turns.round += 10_000;
                match scene.turns.ask(account, peers[at]) {
                    Room::Some { bytes, .. } => room = bytes,
                    Room::None => panic!("it has its share"),
                }
                if turn < count {
                    scene.turns.took(account, peers[at], room * share.0 / share.1, work);
                }
            }
            room
        };
        let (full, part, large, none) = ((1, 1), (1, 2), (16, 1), (0, 1));
        assert_eq!(room(0, full, 10, 0), READ_START_BYTES);
        assert_eq!(room(0, full, 10, 1), READ_START_BYTES * 2);
        assert_eq!(room(0, full, 10, 100), READ_BYTES);
        assert_eq!(room(0, part, WORK_MAX + 1, 1), READ_BYTES / 2);
        assert_eq!(room(0, large, WORK_MAX + 1, 9), READ_BYTES / 2, "of one large frame");
        assert_eq!(room(0, full, WORK_MAX + 1, 100), READ_MIN_BYTES);
        assert_eq!(room(1, full, 0, 0), READ_START_BYTES, "another connection of the same account");
        assert_eq!(room(0, full, WORK_MAX / 2 + 1, 1), READ_MIN_BYTES, "twice that would be too much");
        assert_eq!(room(0, none, 0, 100), READ_MIN_BYTES, "nothing was there");
        assert_eq!(room(0, part, 10, 100), READ_MIN_BYTES, "what would have come shows only in a full one");
        assert_eq!(room(0, full, WORK_MAX / 2, 1), READ_MIN_BYTES * 2);
    }

    #[test]
    fn debts_are_bounded_and_paid_in_shares() {
        let mut scene = Scene::new(&[(1, 10), (1, 10)]);
        let (account, peers) = scene.accounts[0].clone();
        scene.turns.took(account, peers[0], 0, u64::MAX);
        assert_eq!(scene.turns.ask(account, peers[0]), Room::None);
        let before = scene.turns.round;
        assert_eq!(scene.turns.call_next(true), None, "others have something to do");
        assert_eq!(scene.turns.round, before + 1);
        assert_eq!(scene.turns.call_next(false), Some(peers[0]));
        assert_eq!(scene.turns.round - before, DEBT_MAX as u64 / SHARE as u64 + 1);
    }

    #[test]
    fn whoever_is_gone_or_does_not_come_is_passed_over() {
        let mut scene = Scene::new(&[(3, 10), (1, 10)]);
        let (account, peers) = scene.accounts[0].clone();
        scene.turns.took(account, peers[0], 0, SHARE as u64);
        for peer in peers.iter().chain(&peers) {
            assert_eq!(scene.turns.ask(account, *peer), Room::None);
        }
        scene.turns.leave(account, peers[0]);
        assert_eq!(
            [scene.turns.call_next(false), scene.turns.call_next(false)],
            [Some(peers[1]), Some(peers[2])]
        );
        assert_eq!(scene.turns.ask(account, peers[1]), Room::None, "it has lost its place");
        assert!(matches!(scene.turns.ask(account, peers[2]), Room::Some { .. }));
        assert_eq!(scene.turns.took(account, peers[2], 0, 10), Some(peers[1]));
        assert!(scene.turns.are_waiting());
        scene.turns.ask(account, peers[1]);
        assert_eq!(scene.turns.call_next(false), None);
        assert!(!scene.turns.are_waiting());
        peers[1..].iter().for_each(|peer| scene.turns.leave(account, *peer));
        assert!(!scene.turns.are_shared());
    }

    #[test]
    fn all_who_stand_in_line_are_called_when_nobody_takes_turns_any_more() {
        let mut scene = Scene::new(&[(3, 10), (1, 10)]);
        let (account, peers) = scene.accounts[0].clone();
        scene.turns.took(account, peers[0], 0, u64::MAX);
        peers.iter().for_each(|peer| _ = scene.turns.ask(account, *peer));
        scene.turns.leave(scene.accounts[1].0, scene.accounts[1].1[0]);
        let mut called = Vec::new();
        scene.turns.dismiss(|peer| called.push(peer));
        assert_eq!(called, peers);
        assert!(!scene.turns.are_waiting());
    }
}
