//! Requests that wait for their outcome: insert, complete, cancel, expire, fail all.

use std::collections::VecDeque;

use crate::error::{Error, ErrorCode};
use crate::id::Handle;
use crate::limits::DEADLINE_GRACE;
use crate::time::Instant;
use crate::wire::coordination::Operation;

use super::addressed::Addressed;
use super::courier::RequestId;
use super::event::{
    ConsumerKey, HoldKey, KeyWatchKey, ObservationKey, Outcome, RegistrationKey, SubscriptionKey, Ticket,
    WatchKey,
};
use super::handles::HandleKey;
use super::slab::{Key, Slab};

/// What is waited for.
#[derive(Debug)]
pub(super) enum Purpose {
    Call(Addressed),
    Publish(Addressed),
    /// Something that a courier carries.
    Mail(RequestId),
    Ping,
    /// A handle is being bound; nobody but the session waits for it.
    Bind {
        handle: HandleKey,
        wire: Handle,
    },
    Register(RegistrationKey),
    Unregister,
    Subscribe(SubscriptionKey),
    Watch(WatchKey),
    /// `unsubscribe` or `unwatch_names`.
    Forget,
    /// Something to hold is asked for.
    Acquire(HoldKey),
    /// What is held is renewed, and was at least not given up before that time.
    Renew {
        hold: HoldKey,
        asked_at: Instant,
        /// Nobody but the session waits for it.
        is_own: bool,
    },
    /// The session names itself, and is told what it still holds.
    Identify {
        asked_at: Instant,
    },
    /// Something else of coordination.
    Coordinate(Operation),
    Observe(ObservationKey),
    WatchKeys {
        watch: KeyWatchKey,
        /// Nobody but the session waits for it.
        is_own: bool,
    },
    Consume {
        consumer: ConsumerKey,
        /// Nobody but the session waits for it.
        is_own: bool,
    },
}

impl Purpose {
    /// Whether the daemon can be asked to end it early.
    pub(super) fn is_cancellable(&self) -> bool {
        let waits = |operation: &Operation| [Operation::ARRIVE, Operation::TAKE].contains(operation);
        match self {
            Purpose::Call(_) | Purpose::Acquire(_) => true,
            Purpose::Coordinate(operation) => waits(operation),
            _ => false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) purpose: Purpose,
    /// When the session gives up by itself.
    pub(super) expires: Option<Instant>,
    /// Position in the stream behind the frame.
    pub(super) sent_end: u64,
}

#[derive(Debug)]
enum Entry {
    Open(Open),
    Done(Outcome),
}

/// All open requests, and outcomes that were not taken yet.
#[derive(Debug)]
pub(super) struct Inflight {
    entries: Slab<Entry>,
    /// How many calls are open.
    calls: usize,
    /// How many requests are open.
    open: usize,
    /// No open request expires before.
    earliest: Option<Instant>,
    completed: VecDeque<Ticket>,
    reports: bool,
}

impl Inflight {
    /// With `reports`, completions are listed for [`poll_completed`](Inflight::poll_completed).
    pub(super) fn new(reports: bool) -> Self {
        Self { entries: Slab::new(), calls: 0, open: 0, earliest: None, completed: VecDeque::new(), reports }
    }

    /// How many calls are open.
    pub(super) fn calls(&self) -> usize {
        self.calls
    }

    /// How many requests are open or have an outcome that was not taken.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The key that the next [`insert`](Inflight::insert) will give.
    pub(super) fn next_key(&self) -> Key {
        self.entries.next_key()
    }

    pub(super) fn insert(&mut self, open: Open) -> Ticket {
        self.calls += usize::from(matches!(open.purpose, Purpose::Call(_)));
        self.open += 1;
        if let Some(expires) = open.expires
            && self.earliest.is_none_or(|earliest| expires < earliest)
        {
            self.earliest = Some(expires);
        }
        Ticket(self.entries.insert(Entry::Open(open)))
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Open> {
        match self.entries.get_mut(key)? {
            Entry::Open(open) => Some(open),
            Entry::Done(_) => None,
        }
    }

    /// The outcome, if it is there; it is given once.
    pub(super) fn take(&mut self, ticket: Ticket) -> Option<Outcome> {
        match self.entries.get(ticket.0)? {
            Entry::Done(_) => match self.entries.remove(ticket.0)? {
                Entry::Done(outcome) => Some(outcome),
                Entry::Open(_) => None,
            },
            Entry::Open(_) => None,
        }
    }

    /// Gives an open request its outcome; one that has it already, or was forgotten, keeps what it has.
    pub(super) fn complete(&mut self, key: Key, outcome: Outcome) -> Option<Purpose> {
        let entry = self.entries.get_mut(key)?;
        if matches!(entry, Entry::Done(_)) {
            return None;
        }
        let Entry::Open(open) = core::mem::replace(entry, Entry::Done(outcome)) else { return None };
        if self.reports {
            self.completed.push_back(Ticket(key));
        }
        self.closed(&open.purpose);
        Some(open.purpose)
    }

    /// Forgets a request, open or not; a late answer finds nothing.
    pub(super) fn remove(&mut self, key: Key) -> Option<Purpose> {
        match self.entries.remove(key)? {
            Entry::Open(open) => {
                self.closed(&open.purpose);
                Some(open.purpose)
            }
            Entry::Done(_) => None,
        }
    }

    fn closed(&mut self, purpose: &Purpose) {
        self.calls -= usize::from(matches!(purpose, Purpose::Call(_)));
        self.open -= 1;
        if self.open == 0 {
            self.earliest = None;
        }
    }

    /// A request whose outcome has come since the last time.
    pub(super) fn poll_completed(&mut self) -> Option<Ticket> {
        self.completed.pop_front()
    }

    /// No open request expires before.
    ///
    /// It is not put back when the request that set it ends, so that a call that is answered in time touches no
    /// ordered structure; an early wake-up now and then costs less.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.earliest
    }

    /// Ends what has expired and says what it was for.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Purpose> {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return Vec::new();
        }
        let mut earliest: Option<Instant> = None;
        let mut expired = Vec::new();
        for (key, entry) in self.entries.iter() {
            if let Entry::Open(Open { expires: Some(expires), .. }) = entry {
                if *expires <= now {
                    expired.push(key);
                } else if earliest.is_none_or(|so_far| *expires < so_far) {
                    earliest = Some(*expires);
                }
            }
        }
        let ended = expired.into_iter().filter_map(|key| self.complete(key, Err(no_answer()))).collect();
        self.earliest = earliest;
        ended
    }

    /// Ends every open request and says what they were for. What was not sent completely, up to `sent`, certainly did
    /// not run.
    pub(super) fn fail_all(&mut self, sent: u64, unsent: &Error, unknown: &Error) -> Vec<Purpose> {
        let open: Vec<(Key, bool)> = self
            .entries
            .iter()
            .filter_map(|(key, entry)| match entry {
                Entry::Open(open) => Some((key, open.sent_end <= sent)),
                Entry::Done(_) => None,
            })
            .collect();
        let mut ended = Vec::new();
        for (key, was_sent) in open {
            let purpose = self.get_mut(key).map(|open| &open.purpose);
            if matches!(
                purpose,
                Some(
                    Purpose::Bind { .. }
                        | Purpose::Identify { .. }
                        | Purpose::Renew { is_own: true, .. }
                        | Purpose::WatchKeys { is_own: true, .. }
                        | Purpose::Consume { is_own: true, .. }
                )
            ) {
                self.remove(key);
                continue;
            }
            let error = if was_sent { unknown } else { unsent };
            ended.extend(self.complete(key, Err(error.clone())));
        }
        ended
    }

    /// The open request for that hold.
    pub(super) fn acquiring(&self, hold: HoldKey) -> Option<Key> {
        let is_it = |entry: &Entry| matches!(entry, Entry::Open(Open { purpose: Purpose::Acquire(key), .. }) if *key == hold);
        self.entries.iter().find(|(_, entry)| is_it(entry)).map(|(key, _)| key)
    }

    /// Open calls and publishes that were sent with this handle, in order of their position.
    pub(super) fn addressed_with(&self, handle: HandleKey, wire: Handle) -> Vec<Key> {
        self.entries
            .iter()
            .filter_map(|(key, entry)| match entry {
                Entry::Open(Open { purpose: Purpose::Call(sent) | Purpose::Publish(sent), .. }) => {
                    (sent.handle == handle && sent.wire == wire).then_some(key)
                }
                Entry::Open(_) | Entry::Done(_) => None,
            })
            .collect()
    }
}

fn no_answer() -> Error {
    Error::new(ErrorCode::DeadlineExceeded, "no answer came before the deadline, not even from the daemon")
        .with_hint("the request may have run; see whether the daemon is stopped or overloaded")
}

/// When the session gives up on a request by itself: the daemon's own word about the deadline comes first.
pub(super) fn expiry(deadline: Option<Instant>) -> Option<Instant> {
    deadline.map(|deadline| deadline + DEADLINE_GRACE)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::super::event::Answer;
    use super::*;

    fn ping(expires: Option<u64>, sent_end: u64) -> Open {
        Open { purpose: Purpose::Ping, expires: expires.map(Instant::from_nanos), sent_end }
    }

    #[test]
    fn exactly_one_outcome() {
        let mut inflight = Inflight::new(true);
        let ticket = inflight.insert(ping(None, 0));
        assert!(inflight.take(ticket).is_none());
        assert!(inflight.complete(ticket.0, Ok(Answer::Done)).is_some());
        assert!(inflight.complete(ticket.0, Err(no_answer())).is_none());
        assert_eq!(inflight.poll_completed(), Some(ticket));
        assert_eq!(inflight.poll_completed(), None);
        assert_eq!(inflight.take(ticket), Some(Ok(Answer::Done)));
        assert_eq!(inflight.take(ticket), None);
        assert_eq!(inflight.len(), 0);
    }

    #[test]
    fn late_answers_do_not_reach_the_next_user_of_the_slot() {
        let mut inflight = Inflight::new(false);
        let first = inflight.insert(ping(None, 0));
        inflight.remove(first.0);
        let second = inflight.insert(ping(None, 0));
        assert_eq!(first.slot(), second.slot());
        assert!(inflight.complete(first.0, Ok(Answer::Done)).is_none());
        assert!(inflight.take(second).is_none());
    }

    #[test]
    fn requests_expire_at_their_time() {
        let mut inflight = Inflight::new(true);
        let early = inflight.insert(ping(Some(10), 0));
        let late = inflight.insert(ping(Some(20), 0));
        let never = inflight.insert(ping(None, 0));
        for (now, expected) in [(9, None), (10, Some(early)), (19, None), (20, Some(late)), (99, None)] {
            inflight.expire(Instant::from_nanos(now));
            assert_eq!(inflight.poll_completed(), expected, "at {now}");
        }
        assert_eq!(inflight.take(early).unwrap().unwrap_err().code, ErrorCode::DeadlineExceeded);
        assert_eq!(inflight.earliest(), None);
        assert!(inflight.take(never).is_none());
    }

    #[test]
    fn without_open_requests_there_is_nothing_to_wake_up_for() {
        let mut inflight = Inflight::new(false);
        let ticket = inflight.insert(ping(Some(10), 0));
        assert_eq!(inflight.earliest(), Some(Instant::from_nanos(10)));
        inflight.remove(ticket.0);
        assert_eq!(inflight.earliest(), None);
    }

    #[test]
    fn a_lost_connection_tells_sent_from_unsent() {
        let mut inflight = Inflight::new(true);
        let sent = inflight.insert(ping(None, 100));
        let half = inflight.insert(ping(None, 140));
        let unsent = Error::new(ErrorCode::Unreachable, "");
        let unknown = Error::new(ErrorCode::OutcomeUnknown, "");
        inflight.fail_all(139, &unsent, &unknown);
        assert_eq!(inflight.take(sent), Some(Err(unknown)));
        assert_eq!(inflight.take(half), Some(Err(unsent)));
    }

    #[test]
    fn the_daemon_speaks_first_about_a_deadline() {
        let deadline = Instant::from_nanos(0) + Duration::from_secs(1);
        assert_eq!(expiry(Some(deadline)), Some(deadline + DEADLINE_GRACE));
        assert_eq!(expiry(None), None);
    }
}
