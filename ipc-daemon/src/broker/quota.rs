//! Who is charged with what. Everything a connection holds is charged to its user, or to its remote principal.

use std::collections::BTreeMap;

use ipc_core::identity::Identity;
use ipc_core::{Error, limits::Limits};

use super::event::Side;
use super::keys::AccountKey;

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
    /// Service registrations.
    pub names: u32,
    /// Subscriptions.
    pub subscriptions: u32,
    /// Calls it waits for.
    pub pending_calls: u32,
}

#[derive(Debug, Default)]
pub(super) struct Quota {
    accounts: slotmap::SlotMap<AccountKey, (Payer, Charges)>,
    by_payer: BTreeMap<Payer, AccountKey>,
    connections: u32,
}

impl Quota {
    /// Charges a new connection.
    ///
    /// # Errors
    /// `quota_exceeded` with the limit that was reached.
    pub(super) fn open(&mut self, payer: Payer, limits: &Limits) -> Result<AccountKey, Error> {
        if self.connections >= limits.connections_max {
            return Err(Error::quota("connections_max", limits.connections_max.into()));
        }
        let known = self.by_payer.get(&payer).copied();
        let charges = known.and_then(|key| self.accounts.get(key)).map(|(_, charges)| charges.clone());
        let charges = charges.unwrap_or_default();
        if charges.connections >= limits.connections_per_uid_max {
            return Err(Error::quota("connections_per_uid_max", limits.connections_per_uid_max.into()));
        }
        if charges.unauthenticated >= limits.unauthenticated_per_uid_max {
            let max = limits.unauthenticated_per_uid_max.into();
            return Err(Error::quota("unauthenticated_per_uid_max", max));
        }
        let key = known.unwrap_or_else(|| {
            let key = self.accounts.insert((payer.clone(), Charges::default()));
            self.by_payer.insert(payer, key);
            key
        });
        self.connections += 1;
        self.change(key, |charges| {
            charges.connections += 1;
            charges.unauthenticated += 1;
        });
        Ok(key)
    }

    /// Takes a connection's charge back; the last one closes the account.
    pub(super) fn close(&mut self, key: AccountKey) {
        let Some((_, charges)) = self.accounts.get_mut(key) else { return };
        charges.connections -= 1;
        self.connections -= 1;
        if charges.connections == 0 {
            debug_assert_eq!(*charges, Charges::default(), "a departed payer left charges behind");
            if let Some((payer, _)) = self.accounts.remove(key) {
                self.by_payer.remove(&payer);
            }
        }
    }

    /// Changes what an account is charged with.
    pub(super) fn change(&mut self, key: AccountKey, change: impl FnOnce(&mut Charges)) {
        if let Some((_, charges)) = self.accounts.get_mut(key) {
            change(charges);
        }
    }

    /// Moves the bytes queued from `before` to `after`.
    pub(super) fn requeue(&mut self, key: AccountKey, before: usize, after: usize) {
        if let Some((_, charges)) = self.accounts.get_mut(key) {
            charges.queued_bytes = charges.queued_bytes + after - before;
        }
    }

    /// How many bytes the queue of one connection, which holds `own`, may hold for its user's sake: what the user's other
    /// connections leave, and in any case an equal share, so that those who do not read cannot silence those who do.
    /// While nothing at all is queued, any frame may be.
    pub(super) fn queue_room(&self, key: AccountKey, own: usize, limits: &Limits) -> usize {
        let Some((_, charges)) = self.accounts.get(key) else { return 0 };
        if charges.queued_bytes == 0 {
            return usize::MAX;
        }
        let max = limits.queue_per_uid_max_bytes as usize;
        let left = max.saturating_sub(charges.queued_bytes.saturating_sub(own));
        left.max(max / charges.connections.max(1) as usize)
    }

    /// Whether every payer of that side may open one more connection that has not said hello yet.
    pub(super) fn has_greeting_room(&self, side: Side, limits: &Limits) -> bool {
        let max = limits.unauthenticated_per_uid_max;
        let mut accounts = self.accounts.values();
        accounts.all(|(payer, charges)| payer.side() != side || charges.unauthenticated < max)
    }

    pub(super) fn connections(&self) -> u32 {
        self.connections
    }

    /// Every account, in order of its payer.
    pub(super) fn accounts(&self) -> impl Iterator<Item = (&Payer, &Charges)> {
        self.by_payer
            .values()
            .filter_map(|key| self.accounts.get(*key))
            .map(|(payer, charges)| (payer, charges))
    }
}
