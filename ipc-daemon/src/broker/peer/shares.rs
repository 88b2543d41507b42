//! Who has bytes waiting toward one peer.
//!
//! Whoever sends to a peer that does not read fast enough fills its queue. Payers other than the peer's own each have a
//! share of it: with n of them an nth, of what one more would leave. So nobody can fill it against the others, and one
//! who is alone leaves half of it to whoever comes. The idea is that of the accounting of dbus-broker.

use std::collections::{BTreeMap, VecDeque};

use crate::broker::keys::AccountKey;

/// A frame that waits.
#[derive(Debug)]
struct Waiting {
    account: AccountKey,
    bytes: usize,
    /// It has left when so many bytes in all have.
    leaves_at: u64,
}

/// Bytes that wait, by who sent them. Frames are taken to leave in the order in which they came.
#[derive(Debug, Default)]
pub(in crate::broker) struct Shares {
    waiting: VecDeque<Waiting>,
    by_account: BTreeMap<AccountKey, usize>,
    /// Bytes that have left in all.
    left: u64,
}

impl Shares {
    /// What `account` may have waiting, of a queue of `max` bytes.
    pub(in crate::broker) fn share(&self, account: AccountKey, max: usize) -> usize {
        let others = self.by_account.keys().filter(|other| **other != account).count();
        max / (others + 2)
    }

    /// Whether `account` may have that many bytes more waiting.
    pub(in crate::broker) fn allows(&self, account: AccountKey, bytes: usize, max: usize) -> bool {
        let own = self.by_account.get(&account).copied().unwrap_or(0);
        own + bytes <= self.share(account, max)
    }

    /// A frame of `account` waits; with it `queued` bytes do.
    pub(in crate::broker) fn add(&mut self, account: AccountKey, bytes: usize, queued: usize) {
        self.waiting.push_back(Waiting { account, bytes, leaves_at: self.left + queued as u64 });
        *self.by_account.entry(account).or_default() += bytes;
    }

    /// The queue was `before` bytes long and is `after`, less than that.
    pub(in crate::broker) fn shrink(&mut self, before: usize, after: usize) {
        self.left += before.saturating_sub(after) as u64;
        while let Some(first) = self.waiting.front()
            && (after == 0 || first.leaves_at <= self.left)
        {
            if let Some(Waiting { account, bytes, .. }) = self.waiting.pop_front()
                && let Some(own) = self.by_account.get_mut(&account)
            {
                *own = own.saturating_sub(bytes);
                if *own == 0 {
                    self.by_account.remove(&account);
                }
            }
        }
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
        shares.add(one, 60, 60);
        assert!(shares.allows(two, 40, 120) && !shares.allows(two, 41, 120));
        shares.add(two, 40, 100);
        assert_eq!(shares.share(three, 120), 30);
        assert!(!shares.allows(one, 1, 120), "what one has already counts");
        shares.shrink(100, 50);
        assert_eq!(shares.share(three, 120), 30, "the first frame has left in part");
        shares.shrink(50, 40);
        assert_eq!(shares.share(three, 120), 40);
        shares.shrink(40, 0);
        assert!(shares.by_account.is_empty() && shares.waiting.is_empty());
    }
}
