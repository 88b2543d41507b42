//! PURE. Who is charged with what. Everything a connection holds is charged to its user, or to its remote principal.
//!
//! What somebody may have at most are the limits of a uid, or what a rule of the configuration sets instead. A refusal is
//! noted with whom it was for.

mod rate;

use std::collections::BTreeMap;
use std::sync::Arc;

use ipc_core::identity::Identity;
use ipc_core::time::Instant;
use ipc_core::{Error, limits::Limits};

use self::rate::Rates;
use super::event::Side;
use super::keys::AccountKey;
use super::ledger::{is_fair, no_more};

/// Connections that one payer may have for each that it leaves to others, while there are any. Fewer in all are not shared out.
const CONNECTIONS_TO_ONE_LEFT: u32 = 64;
/// Most payers whose refusals are remembered.
const REFUSED_PAYERS_MAX: usize = 1024;

/// What one connection takes in the daemon beside what it holds, in bytes.
const CONNECTION_BYTES: u64 = 4096;
/// What a registered name takes with its methods, in bytes.
const NAME_BYTES: u64 = 1024;
/// What a subscription takes, in bytes.
const SUBSCRIPTION_BYTES: u64 = 512;
/// What a watch takes, in bytes.
const WATCH_BYTES: u64 = 512;
/// What an open call takes, in bytes.
const CALL_BYTES: u64 = 256;
/// What a place in a table of handles takes, in bytes.
const HANDLE_BYTES: u64 = 16;
/// What something held takes, in bytes.
const HOLD_BYTES: u64 = 512;
/// What a request that waits takes, in bytes.
const WAIT_BYTES: u64 = 512;
/// What an observation or a watch over keys takes, in bytes.
const OBSERVATION_BYTES: u64 = 512;

/// Who pays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Payer {
    Uid(u32),
    Remote(String),
}

impl Payer {
    pub(super) fn of(identity: &Identity) -> Self {
        match identity {
            Identity::Local { uid, .. } => Payer::Uid(*uid),
            Identity::Remote { principal, .. } => Payer::Remote(principal.clone()),
        }
    }

    fn side(&self) -> Side {
        match self {
            Payer::Uid(_) => Side::Local,
            Payer::Remote(_) => Side::Remote,
        }
    }
}

/// What one payer has in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charges {
    /// Connections.
    pub connections: u32,
    /// Connections that have not said hello yet.
    pub unauthenticated: u32,
    /// Bytes queued toward its connections.
    pub queued_bytes: usize,
    /// Memory of frames of which a part has come.
    pub receiving_bytes: usize,
    /// Service registrations.
    pub names: u32,
    /// Subscriptions.
    pub subscriptions: u32,
    /// Name watches.
    pub watches: u32,
    /// Calls it waits for.
    pub pending_calls: u32,
    /// Places in tables of handles.
    pub handles: u32,
    /// Locks, permits, leaderships and leases of its connections.
    pub holds: u32,
    /// Requests that wait for such.
    pub waits: u32,
    /// Elections it observes, and watches over keys.
    pub observations: u32,
    /// Processes that are watched for its connections.
    pub process_watches: u32,
}

impl Charges {
    /// Memory that all of it takes, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let each = [
            (self.connections, CONNECTION_BYTES),
            (self.names, NAME_BYTES),
            (self.subscriptions, SUBSCRIPTION_BYTES),
            (self.watches, WATCH_BYTES),
            (self.pending_calls, CALL_BYTES),
            (self.handles, HANDLE_BYTES),
            (self.holds, HOLD_BYTES),
            (self.waits, WAIT_BYTES),
            (self.observations, OBSERVATION_BYTES),
        ];
        let bytes = (self.queued_bytes + self.receiving_bytes) as u64;
        bytes + each.iter().map(|(count, bytes)| u64::from(*count) * bytes).sum::<u64>()
    }
}

/// Something that is counted for each payer and has a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Connections,
    Unauthenticated,
    QueuedBytes,
    Memory,
    Names,
    Subscriptions,
    Watches,
    PendingCalls,
    Handles,
}

impl Resource {
    pub(super) const ALL: [Resource; 9] = [
        Resource::Connections,
        Resource::Unauthenticated,
        Resource::QueuedBytes,
        Resource::Memory,
        Resource::Names,
        Resource::Subscriptions,
        Resource::Watches,
        Resource::PendingCalls,
        Resource::Handles,
    ];

    /// The name of its limit.
    pub(super) const fn limit_name(self) -> &'static str {
        match self {
            Resource::Connections => "connections_per_uid_max",
            Resource::Unauthenticated => "unauthenticated_per_uid_max",
            Resource::QueuedBytes => "queue_per_uid_max_bytes",
            Resource::Memory => "memory_per_uid_max_bytes",
            Resource::Names => "names_per_uid_max",
            Resource::Subscriptions => "subscriptions_per_uid_max",
            Resource::Watches => "watches_per_uid_max",
            Resource::PendingCalls => "pending_calls_per_uid_max",
            Resource::Handles => "handles_per_uid_max",
        }
    }

    const fn max(self, limits: &Limits) -> u32 {
        match self {
            Resource::Connections => limits.connections_per_uid_max,
            Resource::Unauthenticated => limits.unauthenticated_per_uid_max,
            Resource::QueuedBytes => limits.queue_per_uid_max_bytes,
            Resource::Memory => limits.memory_per_uid_max_bytes,
            Resource::Names => limits.names_per_uid_max,
            Resource::Subscriptions => limits.subscriptions_per_uid_max,
            Resource::Watches => limits.watches_per_uid_max,
            Resource::PendingCalls => limits.pending_calls_per_uid_max,
            Resource::Handles => limits.handles_per_uid_max,
        }
    }

    fn used(self, charges: &Charges) -> u64 {
        match self {
            Resource::Connections => charges.connections.into(),
            Resource::Unauthenticated => charges.unauthenticated.into(),
            Resource::QueuedBytes => charges.queued_bytes as u64,
            Resource::Memory => charges.memory_bytes(),
            Resource::Names => charges.names.into(),
            Resource::Subscriptions => charges.subscriptions.into(),
            Resource::Watches => charges.watches.into(),
            Resource::PendingCalls => charges.pending_calls.into(),
            Resource::Handles => charges.handles.into(),
        }
    }
}

/// A payer with what it has and may have.
#[derive(Debug)]
struct Account {
    payer: Payer,
    charges: Charges,
    /// The limits of the daemon, with what rules set otherwise for this payer.
    limits: Arc<Limits>,
}

impl Account {
    fn check(&self, resource: Resource, more: u32) -> Result<(), Error> {
        let max = resource.max(&self.limits);
        if resource.used(&self.charges) + u64::from(more) > max.into() {
            return Err(Error::quota(resource.limit_name(), max.into()));
        }
        let memory_max = self.limits.memory_per_uid_max_bytes;
        if self.charges.memory_bytes() > memory_max.into() {
            return Err(Error::quota(Resource::Memory.limit_name(), memory_max.into()));
        }
        Ok(())
    }
}

/// Every account.
#[derive(Debug, Default)]
pub(super) struct Quota {
    accounts: slotmap::SlotMap<AccountKey, Account>,
    by_payer: BTreeMap<Payer, AccountKey>,
    connections: u32,
    process_watches: u32,
    rates: Rates,
    /// How often each limit has kept whom from something.
    refused: BTreeMap<Payer, BTreeMap<String, u64>>,
}

impl Quota {
    /// Charges a new connection. `own` are the limits of its payer, `limits` those of the daemon.
    ///
    /// # Errors
    /// `quota_exceeded` with the limit that was reached.
    pub(super) fn open(
        &mut self,
        now: Instant,
        payer: Payer,
        limits: &Limits,
        own: Limits,
    ) -> Result<AccountKey, Error> {
        let opened = self.try_open(now, &payer, limits, own);
        if let Err(error) = &opened {
            self.note_refused_payer(payer, error);
        }
        opened
    }

    fn try_open(
        &mut self,
        now: Instant,
        payer: &Payer,
        limits: &Limits,
        own: Limits,
    ) -> Result<AccountKey, Error> {
        let left = limits.connections_max.saturating_sub(self.connections);
        if left == 0 {
            return Err(Error::quota("connections_max", limits.connections_max.into()));
        }
        let known = self.by_payer.get(payer).copied();
        if let Some(account) = known.and_then(|key| self.accounts.get(key)) {
            let is_alone = self.accounts.len() == 1 || limits.connections_max <= CONNECTIONS_TO_ONE_LEFT;
            let (own, for_own) =
                (account.charges.connections, CONNECTIONS_TO_ONE_LEFT.saturating_mul(left - 1));
            if !is_alone && !is_fair(own.into(), 1, for_own.into()) {
                return Err(no_more("connections_max", limits.connections_max.into()));
            }
            account.check(Resource::Connections, 1)?;
            account.check(Resource::Unauthenticated, 1)?;
        }
        let rate = own.connections_per_uid_per_second_max;
        if !self.rates.take(now, payer, rate) {
            return Err(Error::quota("connections_per_uid_per_second_max", rate.into())
                .with_hint("connect less often, and keep connections"));
        }
        let key = known.unwrap_or_else(|| {
            let account =
                Account { payer: payer.clone(), charges: Charges::default(), limits: Arc::new(own) };
            let key = self.accounts.insert(account);
            self.by_payer.insert(payer.clone(), key);
            key
        });
        self.connections += 1;
        self.change(key, |charges| {
            charges.connections += 1;
            charges.unauthenticated += 1;
        });
        Ok(key)
    }

    /// Charges the watch over a process, if there are more left than its payer has already.
    pub(super) fn watch_process(&mut self, key: AccountKey, max: u32) -> bool {
        let left = max.saturating_sub(self.process_watches);
        let is_alone = self.accounts.len() == 1;
        let Some(Account { charges, .. }) = self.accounts.get_mut(key) else { return false };
        let has_room = left > 0 && (is_alone || is_fair(charges.process_watches.into(), 1, left.into()));
        charges.process_watches += u32::from(has_room);
        self.process_watches += u32::from(has_room);
        has_room
    }

    /// Takes that charge back.
    pub(super) fn unwatch_process(&mut self, key: AccountKey) {
        self.process_watches -= 1;
        self.change(key, |charges| charges.process_watches -= 1);
    }

    /// Gives every payer the limits that `of` has for it from here on. What is over a lowered limit stays.
    pub(super) fn set_limits(&mut self, of: impl Fn(&Payer) -> Limits) {
        for account in self.accounts.values_mut() {
            account.limits = Arc::new(of(&account.payer));
        }
    }

    /// The limits of that payer.
    pub(super) fn limits(&self, key: AccountKey) -> Option<&Arc<Limits>> {
        self.accounts.get(key).map(|account| &account.limits)
    }

    /// Whether no more than one user of this machine is connected.
    pub(super) fn has_one_user(&self) -> bool {
        self.by_payer.keys().take_while(|payer| matches!(payer, Payer::Uid(_))).nth(1).is_none()
    }

    /// Takes a connection's charge back; the last one closes the account.
    pub(super) fn close(&mut self, key: AccountKey) {
        let Some(account) = self.accounts.get_mut(key) else { return };
        account.charges.connections -= 1;
        self.connections -= 1;
        if account.charges.connections == 0 {
            debug_assert_eq!(account.charges, Charges::default(), "a departed payer left charges behind");
            if let Some(account) = self.accounts.remove(key) {
                self.by_payer.remove(&account.payer);
            }
        }
    }

    /// Whether the payer may have that many more.
    ///
    /// # Errors
    /// `quota_exceeded` with the limit that was reached.
    pub(super) fn check(&self, key: AccountKey, resource: Resource, more: u32) -> Result<(), Error> {
        self.accounts.get(key).map_or(Ok(()), |account| account.check(resource, more))
    }

    /// Changes what an account is charged with.
    pub(super) fn change(&mut self, key: AccountKey, change: impl FnOnce(&mut Charges)) {
        if let Some(account) = self.accounts.get_mut(key) {
            change(&mut account.charges);
        }
    }

    /// Moves the memory of frames of which a part has come from `before` to `after`.
    ///
    /// # Errors
    /// `quota_exceeded` when there is more of it and the payer has more memory than it may have.
    pub(super) fn receive(&mut self, key: AccountKey, before: usize, after: usize) -> Result<(), Error> {
        self.change(key, |charges| charges.receiving_bytes = charges.receiving_bytes + after - before);
        if after > before { self.check(key, Resource::Memory, 0) } else { Ok(()) }
    }

    /// Moves the bytes queued from `before` to `after`.
    pub(super) fn requeue(&mut self, key: AccountKey, before: usize, after: usize) {
        if let Some(account) = self.accounts.get_mut(key) {
            account.charges.queued_bytes = account.charges.queued_bytes + after - before;
        }
    }

    /// How many bytes the queue of one connection, which holds `own`, may hold for its user's sake: what the user's other
    /// connections leave, and in any case an equal share, so that those who do not read cannot silence those who do.
    /// While nothing at all is queued, any frame may be.
    pub(super) fn queue_room(&self, key: AccountKey, own: usize) -> usize {
        let Some(Account { charges, limits, .. }) = self.accounts.get(key) else { return 0 };
        if charges.queued_bytes == 0 {
            return usize::MAX;
        }
        let max = limits.queue_per_uid_max_bytes as usize;
        let left = max.saturating_sub(charges.queued_bytes.saturating_sub(own));
        left.max(max / charges.connections.max(1) as usize)
    }

    /// Whether the queues of all connections of a user may hold that many bytes more together.
    pub(super) fn has_queue_room(&self, key: AccountKey, bytes: usize) -> bool {
        self.accounts.get(key).is_some_and(|Account { charges, limits, .. }| {
            charges.queued_bytes + bytes <= limits.queue_per_uid_max_bytes as usize
        })
    }

    /// Whether the queue of one connection, which holds `own` bytes, may hold that many more for its user's sake.
    ///
    /// # Errors
    /// `quota_exceeded`.
    pub(super) fn check_queue(&self, key: AccountKey, own: usize, bytes: usize) -> Result<(), Error> {
        let Some(account) = self.accounts.get(key) else { return Ok(()) };
        if own + bytes <= self.queue_room(key, own) {
            return Ok(());
        }
        Err(Error::quota(Resource::QueuedBytes.limit_name(), account.limits.queue_per_uid_max_bytes.into()))
    }

    /// Whether it does not help those who come in a crowd from that side to wait until there is room for one that has
    /// not said hello yet. It helps while all are of one payer; others are not made to wait for somebody who fills the
    /// place.
    pub(super) fn has_greeting_room(&self, side: Side) -> bool {
        let mut accounts = self.accounts.values().filter(|account| account.payer.side() == side);
        let (first, second) = (accounts.next(), accounts.next());
        second.is_some() || first.is_none_or(|only| only.check(Resource::Unauthenticated, 1).is_ok())
    }

    /// Notes that a limit has kept the payer of that account from something.
    pub(super) fn note_refused(&mut self, key: AccountKey, error: &Error) {
        if let Some(account) = self.accounts.get(key) {
            self.note_refused_payer(account.payer.clone(), error);
        }
    }

    fn note_refused_payer(&mut self, payer: Payer, error: &Error) {
        let resource = error.detail.as_ref().and_then(|detail| detail.resource.clone());
        let is_known = self.refused.contains_key(&payer);
        if let Some(resource) = resource
            && (is_known || self.refused.len() < REFUSED_PAYERS_MAX)
        {
            *self.refused.entry(payer).or_default().entry(resource).or_default() += 1;
        }
    }

    pub(super) fn connections(&self) -> u32 {
        self.connections
    }

    /// Every account, in order of its payer.
    pub(super) fn accounts(&self) -> impl Iterator<Item = (&Payer, &Charges)> {
        let accounts = self.by_payer.values().filter_map(|key| self.accounts.get(*key));
        accounts.map(|account| (&account.payer, &account.charges))
    }

    /// For every payer what it uses of each resource and may use, by the name of the limit.
    pub(super) fn used(&self) -> impl Iterator<Item = (&Payer, &'static str, u64, u64)> {
        let accounts = self.by_payer.values().filter_map(|key| self.accounts.get(*key));
        accounts.flat_map(|account| {
            Resource::ALL.into_iter().map(|resource| {
                let (used, max) = (resource.used(&account.charges), resource.max(&account.limits));
                (&account.payer, resource.limit_name(), used, u64::from(max))
            })
        })
    }

    /// How often each limit has kept whom from something.
    pub(super) fn refused(&self) -> &BTreeMap<Payer, BTreeMap<String, u64>> {
        &self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000);

    fn open(quota: &mut Quota, uid: u32, limits: &Limits) -> Result<AccountKey, Error> {
        quota.open(NOW, Payer::Uid(uid), limits, limits.clone())
    }

    #[test]
    fn each_resource_is_refused_past_its_limit_and_given_back() {
        for resource in Resource::ALL {
            let mut limits = Limits::default();
            if resource != Resource::QueuedBytes && resource != Resource::Memory {
                limits.set(resource.limit_name(), 3).unwrap();
            }
            let mut quota = Quota::default();
            let key = open(&mut quota, 1, &limits).unwrap();
            let with = |charges: &mut Charges, count: u32| match resource {
                Resource::Connections => charges.connections = count,
                Resource::Unauthenticated => charges.unauthenticated = count,
                Resource::QueuedBytes => charges.queued_bytes = (64 << 20) - 3 + count as usize,
                Resource::Memory => charges.queued_bytes = (1 << 30) - 4096 - 3 + count as usize,
                Resource::Names => charges.names = count,
                Resource::Subscriptions => charges.subscriptions = count,
                Resource::Watches => charges.watches = count,
                Resource::PendingCalls => charges.pending_calls = count,
                Resource::Handles => charges.handles = count,
            };
            for (count, fits) in [(2, true), (3, false), (4, false), (2, true)] {
                quota.change(key, |charges| with(charges, count));
                let check = match resource {
                    Resource::QueuedBytes => quota.check_queue(key, (64 << 20) - 3 + count as usize, 1),
                    _ => quota.check(key, resource, 1),
                };
                assert_eq!(check.is_ok(), fits, "{resource:?} at {count}");
            }
        }
    }

    #[test]
    fn a_refusal_is_noted_with_whom_it_was_for() {
        let limits = Limits { connections_per_uid_max: 1, ..Limits::default() };
        let mut quota = Quota::default();
        open(&mut quota, 1, &limits).unwrap();
        open(&mut quota, 2, &limits).unwrap();
        assert!(open(&mut quota, 2, &limits).is_err());
        assert!(open(&mut quota, 2, &limits).is_err());
        let refused: Vec<_> = quota.refused().iter().collect();
        let expected = (Payer::Uid(2), BTreeMap::from([("connections_per_uid_max".to_owned(), 2)]));
        assert_eq!(refused, [(&expected.0, &expected.1)]);
    }

    #[test]
    fn nobody_waits_for_a_stranger_who_says_no_hello() {
        let limits = Limits { unauthenticated_per_uid_max: 2, ..Limits::default() };
        let mut quota = Quota::default();
        for (expected, uid) in [(true, 1), (false, 1)] {
            open(&mut quota, uid, &limits).unwrap();
            assert_eq!(quota.has_greeting_room(Side::Local), expected);
            assert!(quota.has_greeting_room(Side::Remote));
        }
        let other = open(&mut quota, 2, &limits);
        assert!(other.is_ok() && quota.has_greeting_room(Side::Local));
        assert!(open(&mut quota, 1, &limits).is_err());
    }
}
