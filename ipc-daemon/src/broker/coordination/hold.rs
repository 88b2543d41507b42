//! What is held: a lock, permits, a leadership, or a lease by itself.

use core::time::Duration;

use ipc_core::limits::{HOLD_TAKE_UP_MAX, Limits};
use ipc_core::payload::Payload;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::Durability;
use ipc_core::{Error, ErrorCode};

use super::deadlock::Party;
use super::gate::GateKey;
use super::session::SessionName;
use super::tenure::Promise;
use super::{Asker, Coordination, Effect, Terms, Timer, WaitId};
use crate::broker::keys::PeerKey;

/// Who holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    /// A session, which asked for it in that request; it ends with the session.
    Session { id: WaitId, owner: u64 },
    /// A user, whichever sessions there are.
    User(u32),
    /// A session that has not come back since the daemon was started again.
    Absent { session: SessionName, owner: u64 },
}

impl Keeper {
    pub(super) fn peer(self) -> Option<PeerKey> {
        match self {
            Keeper::Session { id, .. } => Some(id.peer),
            Keeper::User(_) | Keeper::Absent { .. } => None,
        }
    }

    pub(super) fn party(self) -> Option<Party> {
        match self {
            Keeper::Session { id, owner } => Some(Party { peer: id.peer, owner }),
            Keeper::User(_) | Keeper::Absent { .. } => None,
        }
    }

    /// The user it belongs to, when no session of this life has it.
    pub(super) fn uid(self) -> Option<u32> {
        match self {
            Keeper::Session { .. } => None,
            Keeper::User(uid) => Some(uid),
            Keeper::Absent { session, .. } => Some(session.uid),
        }
    }
}

/// Something held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) keeper: Keeper,
    /// What is held; `None` for a lease by itself.
    pub(super) gate: Option<GateKey>,
    pub(super) terms: Terms,
    pub(super) since: Instant,
    /// When it ends unless it is renewed.
    pub(super) expires: Option<Instant>,
    /// It is on its way to the disk, and nobody has been told of it.
    pub(super) is_pending: bool,
}

impl Hold {
    /// After which time without a renewal it ends.
    pub(super) fn time_to_live(&self) -> Option<Duration> {
        match self.keeper {
            Keeper::Session { .. } | Keeper::User(_) => self.terms.ttl,
            Keeper::Absent { .. } => Some(self.terms.ttl.unwrap_or(HOLD_TAKE_UP_MAX)),
        }
    }
}

/// On whose behalf something is asked about what is held.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Hand {
    pub(in crate::broker) peer: PeerKey,
    /// The user behind the session, if it is one of this machine.
    pub(in crate::broker) uid: Option<u32>,
}

impl Hand {
    /// The daemon's own.
    pub(super) fn nobody() -> Self {
        Self { peer: PeerKey::default(), uid: None }
    }
}

impl Coordination {
    /// Grants a lease: of the session, or, with `user`, one that outlives it.
    pub(in crate::broker) fn lease(
        &mut self,
        now: Instant,
        asker: Asker,
        terms: Terms,
        user: Option<u32>,
        limits: &Limits,
    ) -> Result<(), Error> {
        self.numbers.check()?;
        let keeper = match user {
            Some(uid) => {
                let open = self.detached.get(&uid).copied().unwrap_or(0);
                if open >= limits.detached_leases_per_uid_max {
                    let max = limits.detached_leases_per_uid_max.into();
                    return Err(Error::quota("detached_leases_per_uid_max", max));
                }
                Keeper::User(uid)
            }
            None => {
                let (holds, waits, _) = self.counts(asker.peer);
                if holds + waits >= limits.holds_per_connection_max as usize {
                    let max = limits.holds_per_connection_max.into();
                    return Err(Error::quota("holds_per_connection_max", max));
                }
                self.check_absent(asker.peer, terms.durability, limits)?;
                Keeper::Session { id: asker.id(), owner: 0 }
            }
        };
        let token = self.next_token(now);
        let hold = Hold { keeper, gate: None, terms, since: now, expires: None, is_pending: true };
        self.begin_hold(token, hold);
        let (to, operation) = (asker.id(), asker.operation);
        self.promise(now, Promise { to, operation, token, value: Payload::default() });
        Ok(())
    }

    /// Takes something held into the tables. Its time has not begun.
    pub(super) fn begin_hold(&mut self, token: u64, hold: Hold) {
        match hold.keeper {
            Keeper::Session { id, .. } => {
                self.peers.entry(id.peer).or_default().holds.insert(token);
                self.charge(id.peer, 1, 0, 0);
            }
            Keeper::User(uid) => *self.detached.entry(uid).or_default() += 1,
            Keeper::Absent { session, .. } => self.sessions.add_absent(session, token),
        }
        self.holds.insert(token, hold);
    }

    /// What is held gets its full time again. Says how long that is, and what it survives.
    ///
    /// # Errors
    /// `lock_lost` when it is not held any more, or not by whoever asks.
    pub(in crate::broker) fn renew(
        &mut self,
        now: Instant,
        hand: Hand,
        token: u64,
    ) -> Result<(Option<Duration>, Durability), Error> {
        self.check_hand(hand, token)?;
        self.begin_time(now, token);
        let terms = self.holds.get(&token).map(|hold| hold.terms);
        terms.map(|terms| (terms.ttl, terms.durability)).ok_or_else(|| not_held(token))
    }

    /// What is held is given back: by its session, or, while that has not taken it up again, by any of the same user.
    ///
    /// # Errors
    /// `lock_lost` when it is not held any more, or not by whoever asks.
    pub(in crate::broker) fn release(&mut self, now: Instant, hand: Hand, token: u64) -> Result<(), Error> {
        if self.absent_user(token).is_none_or(|uid| hand.uid != Some(uid)) {
            self.check_hand(hand, token)?;
        }
        if let Some(gate) = self.end_hold(now, token).and_then(|hold| hold.gate) {
            self.let_others_in(now, gate);
        } else {
            self.end_leased(token);
        }
        Ok(())
    }

    /// What is held under that token, once its holder has been told so.
    pub(super) fn told(&self, token: u64) -> Option<&Hold> {
        self.holds.get(&token).filter(|hold| !hold.is_pending)
    }

    pub(super) fn check_hand(&self, hand: Hand, token: u64) -> Result<(), Error> {
        let is_theirs = match self.told(token).map(|hold| hold.keeper) {
            Some(Keeper::Session { id, .. }) => id.peer == hand.peer,
            Some(Keeper::User(uid)) => hand.uid == Some(uid) || hand.uid == Some(0),
            Some(Keeper::Absent { .. }) | None => false,
        };
        if is_theirs { Ok(()) } else { Err(not_held(token)) }
    }

    /// The time to live has passed.
    pub(super) fn expire(&mut self, now: Instant, token: u64) {
        let Some(hold) = self.holds.get(&token) else { return };
        let ttl = hold.terms.ttl.unwrap_or_default();
        let message = format!("its time to live of {ttl:?} has passed without a renewal");
        self.tell_lost(token, Error::new(ErrorCode::LockLost, message));
        self.lose(now, token);
    }

    /// Tells the session that holds it that it is about to lose it.
    pub(super) fn tell_lost(&mut self, token: u64, error: Error) {
        if let Some(Keeper::Session { id: to, .. }) = self.told(token).map(|hold| hold.keeper) {
            self.effects.push_back(Effect::Lost { to, token, error });
        }
    }

    /// The holder is gone, or too late: others may have it, after the delay that was asked for.
    pub(in crate::broker) fn lose(&mut self, now: Instant, token: u64) {
        let Some(hold) = self.end_hold(now, token) else { return };
        let Some(gate) = hold.gate else {
            if !self.is_for_the_next(&hold) {
                self.end_leased(token);
            }
            return;
        };
        if !hold.terms.delay.is_zero() && !hold.is_pending {
            self.close_gate(gate, now + hold.terms.delay);
            if hold.terms.durability > Durability::Memory {
                self.keep_closure(now, gate);
            }
        }
        self.let_others_in(now, gate);
    }

    fn let_others_in(&mut self, now: Instant, gate: GateKey) {
        self.pump(now, gate);
        // Of a successor they have heard.
        if self.gates.get(gate).is_some_and(|gate| gate.first_told().is_none()) {
            self.tell_observers(gate);
        }
    }

    /// What is held ends: it goes out of the tables, out of its gate, and out of the store.
    fn end_hold(&mut self, now: Instant, token: u64) -> Option<Hold> {
        let name = self.gate_of(token).map(|gate| (gate.noun, gate.name.clone()));
        let hold = self.remove_hold(token)?;
        self.end_tenure(now, token, &hold, name);
        Some(hold)
    }

    /// Takes a hold out of the tables and out of its gate.
    pub(super) fn remove_hold(&mut self, token: u64) -> Option<Hold> {
        let hold = self.holds.remove(&token)?;
        if let Some(expires) = hold.expires {
            self.timers.remove(&(expires, Timer::Hold(token)));
        }
        if let Some(gate) = hold.gate.and_then(|gate| self.gates.get_mut(gate)) {
            gate.give_back(token, !hold.is_pending);
        }
        match hold.keeper {
            Keeper::Session { id, .. } => {
                if let Some(of) = self.peers.get_mut(&id.peer) {
                    of.holds.remove(&token);
                }
                self.charge(id.peer, -1, 0, 0);
            }
            Keeper::User(uid) => {
                if let Some(open) = self.detached.get_mut(&uid) {
                    *open -= 1;
                    if *open == 0 {
                        self.detached.remove(&uid);
                    }
                }
            }
            Keeper::Absent { session, .. } => self.sessions.remove_absent(session, token),
        }
        Some(hold)
    }
}

fn not_held(token: u64) -> Error {
    Error::new(ErrorCode::LockLost, format!("{token} is not held by this session"))
        .with_hint("it was given back, its time has passed, or another session holds it")
}
