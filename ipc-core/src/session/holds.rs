//! What is held: a lock, permits, a leadership, a lease; and for how long that is certain.

use core::time::Duration;

use crate::error::Error;
use crate::limits::HOLD_TAKE_UP_MAX;
use crate::time::Instant;
use crate::wire::coordination::Durability;

use super::event::HoldKey;
use super::slab::{Key, Slab};

/// What is known of something held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldState {
    /// It was asked for, and is not held yet.
    Asked,
    /// It is held.
    Held {
        /// Names it, and fences off those who held it before: later grants have higher ones.
        token: u64,
        /// Time to live; `None` for as long as the connection.
        ttl: Option<Duration>,
        /// Until when it is certainly held; `None` for as long as the connection.
        deadline: Option<Instant>,
        /// What the grant survives.
        durability: Durability,
        /// The connection is lost, and no daemon has confirmed it since.
        is_away: bool,
    },
    /// It is held no longer, for this reason.
    Lost(Error),
}

#[derive(Debug)]
pub(super) struct Hold {
    pub(super) state: HoldState,
    /// When it was asked for.
    pub(super) asked_at: Instant,
    /// When to renew it.
    renew_at: Option<Instant>,
}

/// Everything held or asked for.
#[derive(Debug)]
pub(super) struct Holds {
    pub(super) entries: Slab<Hold>,
    /// Something is to be done then, or a little later.
    due: Option<Instant>,
}

impl Default for Holds {
    fn default() -> Self {
        Self { entries: Slab::new(), due: None }
    }
}

impl Holds {
    pub(super) fn insert(&mut self, now: Instant) -> HoldKey {
        let hold = Hold { state: HoldState::Asked, asked_at: now, renew_at: None };
        HoldKey(self.entries.insert(hold))
    }

    pub(super) fn get(&self, key: HoldKey) -> Option<&Hold> {
        self.entries.get(key.0)
    }

    /// Granted, renewed or taken up by a request of `asked_at`: certain for its time from then on.
    pub(super) fn confirm(
        &mut self,
        key: HoldKey,
        (token, ttl, durability): (u64, Option<Duration>, Durability),
        asked_at: Instant,
    ) {
        let Some(hold) = self.entries.get_mut(key.0).filter(|hold| !matches!(hold.state, HoldState::Lost(_)))
        else {
            return;
        };
        let before = deadline(hold);
        let deadline = ttl.map(|ttl| before.map_or(asked_at + ttl, |before| before.max(asked_at + ttl)));
        hold.state = HoldState::Held { token, ttl, deadline, durability, is_away: false };
        hold.renew_at = ttl.map(|ttl| asked_at + ttl / 3);
        self.look_again();
    }

    /// A renewal is on its way. Should its answer not come, the deadline decides.
    pub(super) fn renewing(&mut self, key: HoldKey) {
        if let Some(hold) = self.entries.get_mut(key.0) {
            hold.renew_at = None;
        }
        self.look_again();
    }

    /// It is held no longer. Says which token it had, if that is news.
    pub(super) fn lose(&mut self, key: HoldKey, error: Error) -> Option<u64> {
        let hold = self.entries.get_mut(key.0)?;
        let HoldState::Held { token, .. } = hold.state else { return None };
        hold.state = HoldState::Lost(error);
        hold.renew_at = None;
        self.look_again();
        Some(token)
    }

    /// Nobody is interested any more. Says which token it had, if it was held.
    pub(super) fn remove(&mut self, key: HoldKey) -> Option<u64> {
        let hold = self.entries.remove(key.0)?;
        self.look_again();
        match hold.state {
            HoldState::Held { token, .. } => Some(token),
            HoldState::Asked | HoldState::Lost(_) => None,
        }
    }

    /// What has that token.
    pub(super) fn with_token(&self, wanted: u64) -> Option<HoldKey> {
        let has_it = |hold: &Hold| matches!(hold.state, HoldState::Held { token, .. } if token == wanted);
        self.entries.iter().find(|(_, hold)| has_it(hold)).map(|(key, _)| HoldKey(key))
    }

    /// Everything that is held.
    pub(super) fn held(&self) -> Vec<HoldKey> {
        self.those(|state| matches!(state, HoldState::Held { .. }))
    }

    /// What is held and was not confirmed since the connection was lost.
    pub(super) fn away(&self) -> Vec<HoldKey> {
        self.those(|state| matches!(state, HoldState::Held { is_away: true, .. }))
    }

    fn those(&self, are: impl Fn(&HoldState) -> bool) -> Vec<HoldKey> {
        self.entries.iter().filter(|(_, hold)| are(&hold.state)).map(|(key, _)| HoldKey(key)).collect()
    }

    /// The connection is lost. Says what is lost with it; the rest may be kept for this session.
    pub(super) fn leave(&mut self) -> Vec<HoldKey> {
        for (_, hold) in self.entries.iter_mut() {
            if let HoldState::Held { durability, is_away, .. } = &mut hold.state
                && *durability > Durability::Memory
            {
                *is_away = true;
                hold.renew_at = None;
            }
        }
        self.look_again();
        self.those(|state| matches!(state, HoldState::Held { is_away: false, .. }))
    }

    /// What was bound to the connection alone stays with this session for so long, counted from when the loss was noticed.
    pub(super) fn bound_away(&mut self, now: Instant) {
        for (_, hold) in self.entries.iter_mut() {
            if let HoldState::Held { deadline, is_away: true, .. } = &mut hold.state {
                deadline.get_or_insert(now + HOLD_TAKE_UP_MAX);
            }
        }
        self.look_again();
    }

    /// Whether something is held that its time can end.
    pub(super) fn are_timed(&self) -> bool {
        self.due.is_some()
    }

    /// When something is to be done next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What is to be renewed, and what nobody can be sure of any more.
    pub(super) fn take_due(&self, now: Instant) -> (Vec<HoldKey>, Vec<HoldKey>) {
        let mut renewals = Vec::new();
        let mut overdue = Vec::new();
        for (key, hold) in self.entries.iter() {
            if deadline(hold).is_some_and(|deadline| deadline <= now) {
                overdue.push(HoldKey(key));
            } else if hold.renew_at.is_some_and(|renew_at| renew_at <= now) {
                renewals.push(HoldKey(key));
            }
        }
        (renewals, overdue)
    }

    fn look_again(&mut self) {
        let due = |(_, hold): (Key, &Hold)| match hold.state {
            // At once, to be given its time.
            HoldState::Held { is_away: true, deadline: None, .. } => Some(Instant::default()),
            _ => hold.renew_at.or_else(|| deadline(hold)),
        };
        self.due = self.entries.iter().filter_map(due).min();
    }
}

fn deadline(hold: &Hold) -> Option<Instant> {
    match hold.state {
        HoldState::Held { deadline, .. } => deadline,
        HoldState::Asked | HoldState::Lost(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    const TTL: Duration = Duration::from_secs(3);

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn what_is_held_is_certain_from_when_it_was_asked_for() {
        let mut holds = Holds::default();
        let key = holds.insert(at(10));
        assert_eq!((holds.due(), holds.are_timed()), (None, false));
        holds.confirm(key, (7, Some(TTL), Durability::Memory), at(10));
        assert_eq!(holds.due(), Some(at(11)));
        assert_eq!(holds.take_due(at(11)), (vec![key], vec![]));
        holds.renewing(key);
        // Until the renewal is confirmed, the deadline stays.
        assert_eq!(holds.due(), Some(at(13)));
        assert_eq!(holds.take_due(at(13)), (vec![], vec![key]));
        holds.confirm(key, (7, Some(TTL), Durability::Memory), at(11));
        assert_eq!(holds.due(), Some(at(12)));
        // The answer to an earlier renewal takes nothing away.
        holds.confirm(key, (7, Some(TTL), Durability::Memory), at(9));
        assert!(
            matches!(holds.get(key).unwrap().state, HoldState::Held { deadline, .. } if deadline == Some(at(14)))
        );
        assert_eq!(holds.with_token(7), Some(key));
        assert_eq!(holds.lose(key, Error::new(ErrorCode::LockLost, "late")), Some(7));
        assert_eq!(holds.lose(key, Error::new(ErrorCode::LockLost, "late")), None);
        holds.confirm(key, (7, Some(TTL), Durability::Memory), at(14));
        assert_eq!((holds.due(), holds.with_token(7), holds.remove(key)), (None, None, None));
    }

    #[test]
    fn without_a_time_to_live_nothing_is_due() {
        let mut holds = Holds::default();
        let key = holds.insert(at(1));
        holds.confirm(key, (7, None, Durability::Memory), at(1));
        assert_eq!((holds.due(), holds.held()), (None, vec![key]));
        assert_eq!(holds.remove(key), Some(7));
        assert!(holds.held().is_empty());
    }

    #[test]
    fn what_is_kept_is_away_until_it_is_confirmed_or_too_late() {
        let mut holds = Holds::default();
        let [bound, timed, volatile] = [0; 3].map(|_| holds.insert(at(1)));
        holds.confirm(bound, (1, None, Durability::Disk), at(1));
        holds.confirm(timed, (2, Some(TTL), Durability::Os), at(1));
        holds.confirm(volatile, (3, None, Durability::Memory), at(1));
        assert_eq!(holds.leave(), [volatile]);
        assert_eq!(holds.away(), [bound, timed]);
        assert_eq!(holds.due(), Some(at(0)), "at once");
        holds.bound_away(at(2));
        assert_eq!(holds.due(), Some(at(4)));
        assert_eq!(holds.take_due(at(4)), (vec![], vec![timed]));
        assert_eq!(holds.take_due(at(7)), (vec![], vec![bound, timed]));
        // Later looks do not put it off.
        holds.bound_away(at(3));
        assert_eq!(holds.take_due(at(7)).1, [bound, timed]);
        holds.confirm(bound, (1, None, Durability::Disk), at(3));
        holds.confirm(timed, (2, Some(TTL), Durability::Os), at(3));
        assert!(holds.away().is_empty());
        assert_eq!(holds.take_due(at(5)), (vec![timed], vec![]));
        assert_eq!(holds.take_due(at(99)).1, [timed]);
    }
}
