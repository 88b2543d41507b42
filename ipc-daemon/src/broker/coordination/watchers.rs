//! Who watches which keys: a change finds those that it concerns without asking the others.

use std::collections::{BTreeMap, BTreeSet};

use ipc_core::name::ResourceName;

use super::WaitId;
use super::keys::Selection;

/// The watches over keys, by what they watch.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    by_key: BTreeMap<ResourceName, BTreeSet<WaitId>>,
    by_prefix: BTreeMap<Box<str>, BTreeSet<WaitId>>,
    /// How many prefixes of each length there are. A key has at most 512 of them.
    lengths: BTreeMap<usize, usize>,
}

impl Watchers {
    pub(super) fn insert(&mut self, selection: &Selection, watch: WaitId) {
        match selection {
            Selection::Key(key) => {
                self.by_key.entry(key.clone()).or_default().insert(watch);
            }
            Selection::Prefix(prefix) => {
                let watches = self.by_prefix.entry(prefix.as_str().into()).or_default();
                if watches.is_empty() {
                    *self.lengths.entry(prefix.len()).or_default() += 1;
                }
                watches.insert(watch);
            }
        }
    }

    pub(super) fn remove(&mut self, selection: &Selection, watch: WaitId) {
        match selection {
            Selection::Key(key) => {
                remove_from(&mut self.by_key, key.as_str(), watch);
            }
            Selection::Prefix(prefix) => {
                if remove_from(&mut self.by_prefix, prefix, watch)
                    && let Some(count) = self.lengths.get_mut(&prefix.len())
                {
                    *count -= 1;
                    if *count == 0 {
                        self.lengths.remove(&prefix.len());
                    }
                }
            }
        }
    }

    /// Those that a change of this key concerns, each once.
    pub(super) fn of(&self, key: &ResourceName) -> impl Iterator<Item = WaitId> {
        let text = key.as_str();
        let prefixes = self.lengths.range(..=text.len()).filter_map(|(length, _)| text.get(..*length));
        let by_prefix = prefixes.filter_map(|prefix| self.by_prefix.get(prefix));
        self.by_key.get(key).into_iter().chain(by_prefix).flatten().copied()
    }
}

/// Says whether it was the last one there.
fn remove_from<K: Ord + core::borrow::Borrow<str>>(
    watches: &mut BTreeMap<K, BTreeSet<WaitId>>,
    name: &str,
    watch: WaitId,
) -> bool {
    let Some(there) = watches.get_mut(name) else { return false };
    there.remove(&watch);
    let is_last = there.is_empty();
    if is_last {
        watches.remove(name);
    }
    is_last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::keys::PeerKey;

    #[test]
    fn a_change_finds_its_watches_and_no_others() {
        let peer = slotmap::SlotMap::<PeerKey, ()>::with_key().insert(());
        let watch = |correlation| WaitId { peer, correlation };
        let key = |text: &str| ResourceName::parse(text).unwrap();
        let prefix = |text: &str| Selection::Prefix(text.to_owned());
        let selections = [
            Selection::Key(key("a/b")),
            prefix("a/"),
            prefix("a"),
            prefix(""),
            prefix("a/b"),
            Selection::Key(key("a")),
            prefix("a/"),
            prefix("\u{e4}"),
        ];
        let mut watchers = Watchers::default();
        for (at, selection) in selections.iter().enumerate() {
            watchers.insert(selection, watch(at as u64));
        }
        let found = |watchers: &Watchers, name: &str| {
            let mut found: Vec<u64> = watchers.of(&key(name)).map(|watch| watch.correlation).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(found(&watchers, "a/b"), [0, 1, 2, 3, 4, 6]);
        assert_eq!(found(&watchers, "a/b/c"), [1, 2, 3, 4, 6]);
        assert_eq!(found(&watchers, "a"), [2, 3, 5]);
        assert_eq!(found(&watchers, "b"), [3]);
        watchers.remove(&selections[1], watch(1));
        assert_eq!(found(&watchers, "a/c"), [2, 3, 6], "another has the same prefix");
        for (at, selection) in selections.iter().enumerate() {
            watchers.remove(selection, watch(at as u64));
        }
        assert!(watchers.by_key.is_empty() && watchers.by_prefix.is_empty() && watchers.lengths.is_empty());
    }
}
