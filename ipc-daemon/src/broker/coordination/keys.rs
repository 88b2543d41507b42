//! Keys and their values, in one order of revisions, with the history of the last changes.

use core::ops::Bound::{Excluded, Included, Unbounded};
use std::collections::btree_map::Range;
use std::collections::{BTreeMap, VecDeque};

use ipc_core::limits::Limits;
use ipc_core::name::ResourceName;
use ipc_core::payload::Payload;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::Durability;
use ipc_core::{Error, ErrorCode};

use crate::broker::ledger::Ledger;

/// What an entry costs beyond its name and value, in bytes: the nodes and counters around it.
const OVERHEAD_BYTES: usize = 200;

/// What has to be so for a change to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Condition {
    Any,
    Absent,
    Revision(u64),
}

/// A key's value, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Entry {
    /// Revision of its last change.
    pub(in crate::broker) revision: u64,
    /// Revision of the put that made it.
    pub(in crate::broker) created: u64,
    /// Puts since it was made, this one included.
    pub(in crate::broker) version: u64,
    pub(in crate::broker) value: Payload,
    /// Who pays for it.
    pub(super) uid: u32,
    /// What it survives.
    pub(super) durability: Durability,
    /// Most do not end by themselves: for those it costs a word.
    pub(super) end: Option<Box<End>>,
}

/// What makes an entry end by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The lease it ends with, 0 for none.
    lease: u64,
    expires: Option<Instant>,
}

impl End {
    /// The end with a lease that is not 0, at a time, or by none of them.
    pub(super) fn of(lease: u64, expires: Option<Instant>) -> Option<Box<Self>> {
        (lease != 0 || expires.is_some()).then(|| Box::new(Self { lease, expires }))
    }
}

impl Entry {
    /// The lease it ends with, 0 for none.
    pub(in crate::broker) fn lease(&self) -> u64 {
        self.end.as_ref().map_or(0, |end| end.lease)
    }

    pub(super) fn expires(&self) -> Option<Instant> {
        self.end.as_ref()?.expires
    }
}

/// A put or a delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Change {
    pub(in crate::broker) revision: u64,
    pub(in crate::broker) key: ResourceName,
    /// What is there from then on; `None` after a delete.
    pub(in crate::broker) entry: Option<Entry>,
    /// What the change survives.
    pub(super) durability: Durability,
}

impl Change {
    /// The least that somebody who is told of it has to take in.
    pub(super) fn told_bytes(&self) -> usize {
        self.key.as_str().len() + self.entry.as_ref().map_or(0, |entry| entry.value.len())
    }

    fn bytes(&self) -> usize {
        OVERHEAD_BYTES + self.told_bytes()
    }
}

/// Which keys are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Selection {
    Key(ResourceName),
    /// Every key that begins so; the empty one means all.
    Prefix(String),
}

impl Selection {
    pub(super) fn has(&self, key: &ResourceName) -> bool {
        match self {
            Selection::Key(one) => one == key,
            Selection::Prefix(prefix) => key.as_str().starts_with(prefix.as_str()),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Keys {
    entries: BTreeMap<ResourceName, Entry>,
    /// The last changes, the oldest first.
    history: VecDeque<Change>,
    history_bytes: usize,
    /// Every change up to this one is forgotten.
    compacted: u64,
    /// How many changes, and bytes of them, are remembered.
    window: (usize, usize),
    /// How many there are, and their bytes, by who pays for them.
    counts: Ledger<u32>,
    bytes: Ledger<u32>,
    /// Revision of the last change.
    last: u64,
    /// Between lives of the daemon: behind the first of two, up to the other one, revisions may have been given to changes
    /// that were lost. The last of these is before this life.
    gaps: VecDeque<(u64, u64)>,
    /// Whether there were changes in this life that will not survive it.
    has_volatile: bool,
    obsolete: Vec<u64>,
}

impl Keys {
    pub(super) fn get(&self, key: &ResourceName) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// How many each user has.
    pub(super) fn counts(&self) -> &Ledger<u32> {
        &self.counts
    }

    /// Bytes of the keys of each user.
    pub(super) fn bytes(&self) -> &Ledger<u32> {
        &self.bytes
    }

    /// Makes a change, and gives the entry that was there before.
    pub(super) fn apply(&mut self, change: Change) -> Option<Entry> {
        let before = self.remove(&change.key);
        if let Some(entry) = &change.entry {
            self.counts.add(entry.uid, 1);
            self.bytes.add(entry.uid, cost(&change.key, &entry.value) as u64);
            self.entries.insert(change.key.clone(), entry.clone());
        }
        self.has_volatile |= change.durability == Durability::Memory;
        if let Some(before) = &before
            && before.revision <= self.compacted
            && before.durability > Durability::Memory
        {
            self.obsolete.push(before.revision);
        }
        self.last = change.revision;
        self.remember(change);
        before
    }

    fn remove(&mut self, key: &ResourceName) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.counts.remove(entry.uid, 1);
        self.bytes.remove(entry.uid, cost(key, &entry.value) as u64);
        Some(entry)
    }

    fn remember(&mut self, change: Change) {
        self.history_bytes += change.bytes();
        self.history.push_back(change);
        let (changes_max, bytes_max) = self.window;
        while self.history.len() > changes_max || self.history_bytes > bytes_max {
            let Some(oldest) = self.forget_oldest() else { break };
            self.compacted = oldest;
        }
        self.forget_gaps();
    }

    /// Forgets the oldest change, and gives its revision.
    fn forget_oldest(&mut self) -> Option<u64> {
        let oldest = self.history.pop_front()?;
        self.history_bytes -= oldest.bytes();
        let is_in_force = self.get(&oldest.key).is_some_and(|entry| entry.revision == oldest.revision);
        if oldest.durability > Durability::Memory && !is_in_force {
            self.obsolete.push(oldest.revision);
        }
        Some(oldest.revision)
    }

    fn forget_gaps(&mut self) {
        while self.gaps.len() > 1 && self.gaps.front().is_some_and(|(_, to)| *to <= self.compacted) {
            self.gaps.pop_front();
        }
    }

    /// Revisions of changes that are kept on disk and need not be any more.
    pub(super) fn take_obsolete(&mut self) -> Vec<u64> {
        core::mem::take(&mut self.obsolete)
    }

    /// They are still there.
    pub(super) fn keep_obsolete(&mut self, revisions: Vec<u64>) {
        self.obsolete.extend(revisions);
    }

    /// Keys of a selection in order, those behind `after` if that is given.
    pub(super) fn range<'a>(
        &'a self,
        selection: &'a Selection,
        after: &str,
    ) -> impl Iterator<Item = (&'a ResourceName, &'a Entry)> {
        let start = match selection {
            Selection::Key(key) => key.as_str(),
            Selection::Prefix(prefix) => prefix.as_str(),
        };
        self.behind(start, after).take_while(|(key, _)| selection.has(key))
    }

    /// Keys in order, from one name to before another or to the last, those behind `after` if that is given.
    pub(super) fn between<'a>(
        &'a self,
        from: &str,
        to: Option<&'a str>,
        after: &str,
    ) -> impl Iterator<Item = (&'a ResourceName, &'a Entry)> {
        self.behind(from, after).take_while(move |(key, _)| to.is_none_or(|to| key.as_str() < to))
    }

    fn behind(&self, start: &str, after: &str) -> Range<'_, ResourceName, Entry> {
        let from = if after >= start && !after.is_empty() { Excluded(after) } else { Included(start) };
        self.entries.range::<str, _>((from, Unbounded))
    }

    /// The changes of a selection from that revision on, the oldest first.
    ///
    /// # Errors
    /// `compacted` when some of them are forgotten.
    pub(super) fn since<'a>(
        &'a self,
        selection: &'a Selection,
        from: u64,
    ) -> Result<impl Iterator<Item = &'a Change>, Error> {
        // Whoever asks from behind the last change that a life has kept has seen one that was lost with it.
        let is_within = |(kept, to): &&(u64, u64)| from > self.compacted.max(*kept) + 1 && from <= *to;
        let forgotten = self.gaps.iter().find(is_within).map_or(self.compacted, |(_, to)| *to);
        if from <= forgotten {
            let message = format!("changes up to revision {forgotten} are forgotten, {from} was asked for");
            let mut error = Error::new(ErrorCode::Compacted, message)
                .with_hint("begin with what is there now, and go on from its revision");
            error.detail_mut().limit = Some(forgotten);
            return Err(error);
        }
        let at = self.history.partition_point(|change| change.revision < from);
        Ok(self.history.range(at..).filter(|change| selection.has(&change.key)))
    }

    /// Revision of the last change that was told.
    pub(super) fn last(&self) -> u64 {
        self.last.max(self.compacted)
    }

    /// Whether there were changes in this life that will not survive it.
    pub(super) fn has_volatile(&self) -> bool {
        self.has_volatile
    }

    /// Whether [`Keys::begin_at`] or [`Keys::begin_again`] was called.
    pub(super) fn has_begun(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// Whether there were no changes in this life so far.
    pub(super) fn is_untouched(&self) -> bool {
        self.gaps.back().is_none_or(|(_, life)| self.last <= *life)
    }

    /// The change that is restored next was the first of its life.
    pub(super) fn begin_life(&mut self, revision: u64) {
        self.gaps.push_back((self.last, revision - 1));
    }

    /// Nothing up to this revision is known: an earlier life of the daemon may have given others.
    pub(super) fn begin_at(&mut self, revision: u64) {
        self.compacted = self.compacted.max(revision);
        self.gaps.push_back((revision, revision));
    }

    /// Up to which revision changes are forgotten.
    pub(super) fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Everything that was kept is there again. Revisions up to `life` may have been given before; the history was forgotten up
    /// to `compacted`.
    pub(super) fn begin_again(&mut self, life: u64, compacted: u64) {
        self.gaps.push_back((self.last, life));
        self.has_volatile = false;
        self.compacted = self.compacted.max(compacted);
        // What is not in force has to go from the disk too: else it is, once the records of what came after it have gone.
        while self.history.front().is_some_and(|change| change.revision <= self.compacted) {
            self.forget_oldest();
        }
        self.forget_gaps();
    }

    /// How much is remembered from here on.
    pub(super) fn set_window(&mut self, limits: &Limits) {
        self.window = (limits.key_history_max as usize, limits.key_history_max_bytes as usize);
    }
}

/// What a key is charged with, in bytes.
pub(super) fn cost(key: &ResourceName, value: &Payload) -> usize {
    OVERHEAD_BYTES + key.as_str().len() + value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ResourceName {
        ResourceName::parse(text).unwrap()
    }

    fn put(revision: u64, name: &str, durability: Durability) -> Change {
        let entry = Entry {
            revision,
            created: revision,
            version: 1,
            value: Payload::from("x"),
            uid: 7,
            end: None,
            durability,
        };
        Change { revision, key: key(name), entry: Some(entry), durability }
    }

    fn delete(revision: u64, name: &str, durability: Durability) -> Change {
        Change { revision, key: key(name), entry: None, durability }
    }

    fn keys(limits: &Limits) -> Keys {
        let mut keys = Keys::default();
        keys.set_window(limits);
        keys
    }

    #[test]
    fn history_is_a_window_and_says_so() {
        let mut keys = keys(&Limits { key_history_max: 3, ..Limits::default() });
        for revision in 1..=5 {
            keys.apply(put(revision, "a", Durability::Memory));
        }
        let all = Selection::Prefix(String::new());
        assert_eq!(keys.since(&all, 2).map(|_| ()).unwrap_err().code, ErrorCode::Compacted);
        let revisions: Vec<u64> = keys.since(&all, 3).unwrap().map(|change| change.revision).collect();
        assert_eq!(revisions, [3, 4, 5]);
        assert_eq!(keys.since(&all, 9).unwrap().count(), 0);
        assert!(keys.obsolete.is_empty() && keys.last() == 5);
    }

    #[test]
    fn history_holds_its_bytes() {
        let limits = Limits { key_history_max_bytes: 3 * (OVERHEAD_BYTES as u32 + 2), ..Limits::default() };
        let mut keys = keys(&limits);
        for revision in 1..=5 {
            keys.apply(put(revision, "a", Durability::Memory));
        }
        assert_eq!((keys.history.len(), keys.compacted), (3, 2));
    }

    #[test]
    fn users_pay_for_their_keys() {
        let mut keys = keys(&Limits::default());
        keys.apply(put(1, "a", Durability::Memory));
        keys.apply(put(2, "a", Durability::Memory));
        assert_eq!((keys.bytes.of(7), keys.bytes.of(8)), (OVERHEAD_BYTES as u64 + 2, 0));
        assert_eq!((keys.counts.of(7), keys.counts.total()), (1, 1));
        assert_eq!(keys.apply(delete(3, "a", Durability::Memory)).unwrap().revision, 2);
        assert_eq!((keys.counts.len(), keys.bytes.len()), (0, 0));
        assert!(keys.apply(delete(4, "a", Durability::Memory)).is_none());
    }

    #[test]
    fn what_is_on_disk_is_what_is_in_force_or_in_the_history() {
        let mut keys = keys(&Limits { key_history_max: 2, ..Limits::default() });
        let disk = Durability::Disk;
        for (change, obsolete) in [
            (put(1, "a", disk), vec![]),
            (put(2, "b", disk), vec![]),
            // 1 leaves the history, but is in force.
            (put(3, "c", disk), vec![]),
            // Now it is not: 1 goes at once, and 2 stays because b is still what it put.
            (put(4, "a", disk), vec![1]),
            (delete(5, "b", disk), vec![2]),
            (put(6, "d", Durability::Memory), vec![]),
            // The delete itself has left.
            (put(7, "d", Durability::Memory), vec![5]),
        ] {
            keys.apply(change.clone());
            assert_eq!(keys.take_obsolete(), obsolete, "{change:?}");
        }
    }

    #[test]
    fn watches_go_on_over_a_restart_where_nothing_was_lost() {
        let all = Selection::Prefix(String::new());
        let restored = |compacted| {
            let mut keys = keys(&Limits::default());
            keys.apply(put(3, "a", Durability::Disk));
            keys.apply(put(5, "b", Durability::Disk));
            keys.begin_again(100, compacted);
            keys.apply(put(101, "c", Durability::Disk));
            keys
        };
        for (compacted, from, found) in [
            (0, 1, Some(3)),
            (0, 5, Some(2)),
            (0, 6, Some(1)),
            (0, 7, None),
            (0, 100, None),
            (0, 101, Some(1)),
            (4, 4, None),
            (4, 5, Some(2)),
            (100, 6, None),
            (100, 101, Some(1)),
        ] {
            let keys = restored(compacted);
            let since = keys.since(&all, from).map(|changes| changes.count());
            assert_eq!(since.ok(), found, "from {from}, compacted {compacted}");
        }
    }

    #[test]
    fn what_was_lost_with_one_life_is_not_passed_over_in_a_later_one() {
        let all = Selection::Prefix(String::new());
        let mut keys = keys(&Limits { key_history_max: 2, ..Limits::default() });
        for revision in [103, 205] {
            keys.apply(put(revision - 100, "a", Durability::Disk));
            keys.begin_life(revision);
        }
        keys.apply(put(205, "b", Durability::Disk));
        keys.begin_again(300, 0);
        assert!(keys.is_untouched());
        keys.apply(put(301, "c", Durability::Disk));
        assert!(!keys.is_untouched());
        let found = |keys: &Keys, from| keys.since(&all, from).map(|changes| changes.count()).ok();
        for (from, expected) in [(105, None), (106, Some(2)), (107, None), (204, None), (205, Some(2))] {
            assert_eq!(found(&keys, from), expected, "from {from}");
        }
        for (from, expected) in [(206, Some(1)), (207, None), (300, None), (301, Some(1)), (302, Some(0))] {
            assert_eq!(found(&keys, from), expected, "from {from}");
        }
        assert_eq!(keys.gaps, [(105, 204), (205, 300)], "the first is forgotten with the history around it");
        for revision in 302..305 {
            keys.apply(put(revision, "d", Durability::Disk));
        }
        assert_eq!(keys.gaps, [(205, 300)]);
    }

    #[test]
    fn ranges_are_what_begins_so() {
        let mut keys = keys(&Limits::default());
        for (at, name) in ["a", "a/b", "a/c", "ab", "b"].into_iter().enumerate() {
            keys.apply(put(at as u64 + 1, name, Durability::Memory));
        }
        let names = |selection: &Selection, after: &str| -> Vec<String> {
            keys.range(selection, after).map(|(key, _)| key.to_string()).collect()
        };
        let prefix = |text: &str| Selection::Prefix(text.to_owned());
        assert_eq!(names(&prefix("a/"), ""), ["a/b", "a/c"]);
        assert_eq!(names(&prefix("a/"), "a/b"), ["a/c"]);
        assert_eq!(names(&prefix("a"), "a/c"), ["ab"]);
        assert_eq!(names(&prefix(""), "ab"), ["b"]);
        let between = |from: &str, to: Option<&str>, after: &str| -> Vec<String> {
            keys.between(from, to, after).map(|(key, _)| key.to_string()).collect()
        };
        assert_eq!(between("a/b", Some("ab"), ""), ["a/b", "a/c"]);
        assert_eq!(between("a/bb", None, ""), ["a/c", "ab", "b"]);
        assert_eq!(between("a/b", Some("b"), "a/c"), ["ab"]);
        assert_eq!(between("b", Some("a"), ""), Vec::<String>::new());
        assert_eq!(names(&Selection::Key(key("a/b")), ""), ["a/b"]);
        assert_eq!(names(&Selection::Key(key("a/b")), "a/b"), Vec::<String>::new());
    }
}
