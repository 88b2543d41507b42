//! Who has bytes waiting toward one peer.
//!
//! Whoever sends to a peer that does not read fast enough fills its queue. Payers other than the peer's own each have a
//! share of it: with n of them an nth, of what one more would leave. So nobody can fill it against the others, and one
//! who is alone leaves half of it to whoever comes. The idea is that of the accounting of dbus-broker.

use crate::broker::keys::AccountKey;
use crate::broker::ledger::Ledger;

/// Bytes that wait, by who sent them.
#[derive(Debug, Default)]
pub(in crate::broker) struct Shares(Ledger<AccountKey>);

impl Shares {
    /// What `account` may have waiting, of a queue of `max` bytes.
    pub(in crate::broker) fn share(&self, account: AccountKey, max: usize) -> usize {
        let others = self.0.len() - usize::from(self.0.of(account) > 0);
        max / (others + 2)
    }

    /// Whether `account` may have that many bytes more waiting.
    pub(in crate::broker) fn allows(&self, account: AccountKey, bytes: usize, max: usize) -> bool {
        self.0.of(account) as usize + bytes <= self.share(account, max)
    }

    pub(super) fn add(&mut self, account: AccountKey, bytes: usize) {
        self.0.add(account, bytes as u64);
    }

    pub(super) fn remove(&mut self, account: AccountKey, bytes: usize) {
        self.0.remove(account, bytes as u64);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_shrink_with_company_and_come_back() {
        let mut keys = slotmap::SlotMap::<AccountKey, ()>::with_key();
        let [one, two, three] = [(); 3].map(|()| keys.insert(()));
        let mut shares = Shares::default();
        assert!(shares.allows(one, 60, 120) && !shares.allows(one, 61, 120));
        shares.add(one, 60);
        assert!(shares.allows(two, 40, 120) && !shares.allows(two, 41, 120));
        shares.add(two, 40);
        assert_eq!(shares.share(three, 120), 30);
        assert!(!shares.allows(one, 1, 120), "what one has already counts");
        shares.remove(one, 50);
        assert_eq!(shares.share(three, 120), 30, "some of it still waits");
        shares.remove(one, 10);
        assert_eq!(shares.share(three, 120), 40);
        shares.remove(two, 40);
        assert!(shares.is_empty());
    }
}
