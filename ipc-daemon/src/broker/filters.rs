//! Filters by their parts: a name finds those that it passes part by part, without asking each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::str::Split;

/// Filters that agree up to here. A filter has at most 128 parts, so no walk through the tree goes deeper.
#[derive(Debug)]
pub(super) struct FilterTree<K> {
    /// By the next part.
    named: BTreeMap<Box<str>, FilterTree<K>>,
    /// Where the next part is `*`.
    any: Option<Box<FilterTree<K>>>,
    /// Those that end here.
    ended: BTreeSet<K>,
    /// Those that end with `>` behind this.
    rest: BTreeSet<K>,
}

impl<K> Default for FilterTree<K> {
    fn default() -> Self {
        Self { named: BTreeMap::new(), any: None, ended: BTreeSet::new(), rest: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> FilterTree<K> {
    /// Adds a filter under a key.
    pub(super) fn insert(&mut self, filter: &str, key: K) {
        let mut level = self;
        for part in filter.split('.') {
            level = match part {
                ">" => {
                    level.rest.insert(key);
                    return;
                }
                "*" => level.any.get_or_insert_default(),
                part => level.named.entry(part.into()).or_default(),
            };
        }
        level.ended.insert(key);
    }

    /// Removes the filter of a key. Says whether another key has the very same one.
    pub(super) fn remove(&mut self, filter: &str, key: K) -> bool {
        self.remove_behind(&mut filter.split('.'), key)
    }

    fn remove_behind(&mut self, parts: &mut Split<'_, char>, key: K) -> bool {
        match parts.next() {
            None => remove_from(&mut self.ended, key),
            Some(">") => remove_from(&mut self.rest, key),
            Some("*") => {
                let Some(next) = &mut self.any else { return false };
                let is_shared = next.remove_behind(parts, key);
                if next.is_empty() {
                    self.any = None;
                }
                is_shared
            }
            Some(part) => {
                let Some(next) = self.named.get_mut(part) else { return false };
                let is_shared = next.remove_behind(parts, key);
                if next.is_empty() {
                    self.named.remove(part);
                }
                is_shared
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.named.is_empty() && self.any.is_none() && self.ended.is_empty() && self.rest.is_empty()
    }

    /// Adds to `found` the key of every filter that `name` passes, each once.
    pub(super) fn find(&self, name: &str, found: &mut Vec<K>) {
        self.search(name.split('.'), &mut |keys| {
            found.extend(keys);
            false
        });
    }

    /// Whether `name` passes any filter.
    pub(super) fn is_matched(&self, name: &str) -> bool {
        self.search(name.split('.'), &mut |keys| !keys.is_empty())
    }

    /// Shows the keys of each filter that `name` passes, until `enough` says so.
    fn search(&self, mut parts: Split<'_, char>, enough: &mut dyn FnMut(&BTreeSet<K>) -> bool) -> bool {
        let Some(part) = parts.next() else { return enough(&self.ended) };
        enough(&self.rest)
            || self.named.get(part).is_some_and(|next| next.search(parts.clone(), enough))
            || self.any.as_ref().is_some_and(|next| next.search(parts, enough))
    }
}

/// Says whether anything is left.
fn remove_from<K: Ord>(keys: &mut BTreeSet<K>, key: K) -> bool {
    keys.remove(&key);
    !keys.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_core::name::Filter;

    /// Numbers that are the same every time.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, count: usize) -> usize {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 33) as usize % count
        }

        /// One to four parts out of `alphabet`.
        fn name(&mut self, alphabet: &[&str]) -> String {
            let parts: Vec<&str> =
                (0..1 + self.below(4)).map(|_| alphabet[self.below(alphabet.len())]).collect();
            parts.join(".")
        }

        fn filter(&mut self) -> Filter {
            let mut text = self.name(&["a", "b", "c", "*"]);
            if self.below(3) == 0 {
                text += ".>";
            }
            if self.below(20) == 0 {
                text = ">".to_owned();
            }
            Filter::parse(&text).unwrap()
        }
    }

    /// The reference asks every filter, one after the other.
    #[test]
    fn the_tree_finds_what_asking_every_filter_finds() {
        for seed in 0..50 {
            let mut dice = Dice(seed);
            let mut tree = FilterTree::default();
            let mut held: Vec<(usize, Filter)> = Vec::new();
            for key in 0..200 {
                if held.is_empty() || dice.below(3) > 0 {
                    let filter = dice.filter();
                    tree.insert(filter.as_str(), key);
                    held.push((key, filter));
                } else {
                    let (key, filter) = held.swap_remove(dice.below(held.len()));
                    let is_shared = held.iter().any(|(_, other)| *other == filter);
                    assert_eq!(tree.remove(filter.as_str(), key), is_shared, "seed {seed}: {filter}");
                }
                let name = dice.name(&["a", "b", "c"]);
                let matching = held.iter().filter(|(_, filter)| filter.matches(&name));
                let mut expected: Vec<usize> = matching.map(|(key, _)| *key).collect();
                expected.sort_unstable();
                let mut found = Vec::new();
                tree.find(&name, &mut found);
                found.sort_unstable();
                assert_eq!(found, expected, "seed {seed}: {name} among {held:?}");
                assert_eq!(tree.is_matched(&name), !expected.is_empty(), "seed {seed}: {name}");
            }
            for (key, filter) in held {
                tree.remove(filter.as_str(), key);
            }
            assert!(tree.is_empty(), "seed {seed}");
        }
    }

    #[test]
    fn what_is_not_there_can_be_removed() {
        let mut tree = FilterTree::default();
        tree.insert("a.*", 1);
        for absent in ["a", "a.b", "a.>", "a.*.c", "b.*", ">"] {
            assert!(!tree.remove(absent, 1), "{absent}");
        }
        assert!(tree.is_matched("a.x"));
        tree.insert("a.*", 2);
        assert!(tree.remove("a.*", 1), "2 is still there");
        assert!(tree.is_matched("a.x"));
    }
}
