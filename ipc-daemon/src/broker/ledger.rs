//! Who has how much of something, and how much one may have of what is everybody's.
//!
//! Of what all have together nobody has more than is left, unless there is nobody else. Whoever takes all it can get leaves
//! half, the next one half of that, and so on: those who come later find something, whatever those before them do.

use std::collections::BTreeMap;

use ipc_core::Error;

/// The user behind a session, as one who shares with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) struct User {
    /// `None` for one who is not of this machine.
    pub(in crate::broker) uid: Option<u32>,
    /// It is of this machine, and no other user of this machine is connected.
    pub(in crate::broker) is_alone: bool,
}

/// How much each has of something.
#[derive(Debug)]
pub(crate) struct Ledger<K> {
    each: BTreeMap<K, u64>,
    total: u64,
}

impl<K> Default for Ledger<K> {
    fn default() -> Self {
        Self { each: BTreeMap::new(), total: 0 }
    }
}

impl<K: Ord + Copy> Ledger<K> {
    /// How much all have.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// How much one has.
    pub(crate) fn of(&self, who: K) -> u64 {
        self.each.get(&who).copied().unwrap_or(0)
    }

    /// How many have any.
    pub(crate) fn len(&self) -> usize {
        self.each.len()
    }

    /// Those who have any, in order.
    pub(crate) fn holders(&self) -> impl Iterator<Item = K> {
        self.each.keys().copied()
    }

    pub(crate) fn add(&mut self, who: K, more: u64) {
        if more > 0 {
            *self.each.entry(who).or_default() += more;
            self.total += more;
        }
    }

    /// Takes back what was added before.
    pub(crate) fn remove(&mut self, who: K, less: u64) {
        let Some(own) = self.each.get_mut(&who) else { return };
        let less = less.min(*own);
        *own -= less;
        self.total -= less;
        if *own == 0 {
            self.each.remove(&who);
        }
    }

    /// How one stands among the others.
    pub(crate) fn standing(&self, who: K) -> Standing {
        let own = self.of(who);
        Standing { own, others: self.total - own }
    }
}

/// How much one has of what is everybody's, and how much all others have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) own: u64,
    pub(crate) others: u64,
}

impl Standing {
    /// Whether one may have so much more, of what the limit of that name bounds.
    ///
    /// # Errors
    /// `quota_exceeded` naming the limit.
    pub(crate) fn check(self, more: u64, name: &'static str, max: u64, is_alone: bool) -> Result<(), Error> {
        let left = max.saturating_sub(self.own + self.others);
        if more > left {
            return Err(Error::quota(name, max));
        }
        if is_alone || is_fair(self.own, more, left) { Ok(()) } else { Err(no_more(name, max)) }
    }
}

/// Whether one who has `own` may have `more` of what is left, without having more than that then.
pub(crate) const fn is_fair(own: u64, more: u64, left: u64) -> bool {
    own.saturating_add(more) <= left
}

/// The refusal of somebody who has its part of it.
pub(crate) fn no_more(name: &'static str, max: u64) -> Error {
    Error::quota(name, max).with_hint("what is left is for users who have fewer of them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_back_leaves_nothing_behind() {
        let mut ledger = Ledger::default();
        ledger.add('a', 3);
        ledger.add('b', 0);
        ledger.add('c', 2);
        assert_eq!((ledger.of('a'), ledger.of('b'), ledger.total()), (3, 0, 5));
        assert_eq!(ledger.standing('c'), Standing { own: 2, others: 3 });
        assert_eq!(ledger.holders().collect::<Vec<_>>(), ['a', 'c']);
        ledger.remove('a', 1);
        ledger.remove('c', 2);
        ledger.remove('b', 1);
        assert_eq!((ledger.total(), ledger.holders().collect::<Vec<_>>()), (2, vec!['a']));
        ledger.remove('a', 9);
        assert_eq!((ledger.total(), ledger.holders().count()), (0, 0));
    }

    #[test]
    fn each_who_takes_all_it_can_get_leaves_something() {
        let mut ledger = Ledger::default();
        let mut take = |who: char, more: u64| {
            let checked = ledger.standing(who).check(more, "things_max", 100, false);
            checked.map(|()| ledger.add(who, more))
        };
        let counts = ['a', 'b', 'c'].map(|who| (0..).take_while(|_| take(who, 1).is_ok()).count());
        assert_eq!(counts, [50, 25, 13]);
        let hint = |refused: Result<(), Error>| {
            let detail = refused.unwrap_err().detail.unwrap();
            assert_eq!(detail.limit, Some(100));
            detail.hint.is_some_and(|hint| hint.contains("users who have fewer"))
        };
        assert!(hint(take('a', 1)));
        assert!(take('d', 12).is_ok(), "all that is left, at once");
        assert!(!hint(take('e', 1)), "nothing is left, whoever asks");
    }

    #[test]
    fn whoever_is_alone_may_have_all() {
        let standing = |own| Standing { own, others: 0 };
        for (own, fits) in [(8, true), (9, true), (10, false)] {
            assert_eq!(standing(own).check(1, "things_max", 10, true).is_ok(), fits, "{own}");
        }
        for (own, fits) in [(4, true), (5, false)] {
            assert_eq!(standing(own).check(1, "things_max", 10, false).is_ok(), fits, "{own}");
        }
    }
}
