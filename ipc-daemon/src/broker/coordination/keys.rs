//! Keys and their values, in one order of revisions, with the history of the last changes.

use std::collections::{BTreeMap, VecDeque};

use ipc_core::limits::Limits;
use ipc_core::name::ResourceName;
use ipc_core::payload::Payload;
use ipc_core::time::Instant;
use ipc_core::{Error, ErrorCode};

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
    /// The lease it ends with, 0 for none.
    pub(in crate::broker) lease: u64,
    pub(in crate::broker) value: Payload,
    /// Who pays for it.
    uid: u32,
    pub(super) expires: Option<Instant>,
}

/// A put or a delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Change {
    pub(in crate::broker) revision: u64,
    pub(in crate::broker) key: ResourceName,
    /// What is there from then on; `None` after a delete.
    pub(in crate::broker) entry: Option<Entry>,
}

impl Change {
    fn bytes(&self) -> usize {
        OVERHEAD_BYTES + self.key.as_str().len() + self.entry.as_ref().map_or(0, |entry| entry.value.len())
    }
}

/// A value to be put.
#[derive(Clone, Debug)]
pub(super) struct Put {
    pub(super) value: Payload,
    pub(super) lease: u64,
    pub(super) uid: u32,
    pub(super) expires: Option<Instant>,
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
    bytes_by_uid: BTreeMap<u32, usize>,
}

impl Keys {
    pub(super) fn get(&self, key: &ResourceName) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Whether the condition holds.
    ///
    /// # Errors
    /// `revision_mismatch`, saying how it is instead.
    pub(super) fn check(&self, key: &ResourceName, condition: Condition) -> Result<(), Error> {
        let is = self.get(key).map(|entry| entry.revision);
        let holds = match condition {
            Condition::Any => true,
            Condition::Absent => is.is_none(),
            Condition::Revision(wanted) => is == Some(wanted),
        };
        if holds {
            return Ok(());
        }
        let is = is.map_or_else(|| "does not exist".to_owned(), |is| format!("has revision {is}"));
        let message = match condition {
            Condition::Revision(wanted) => format!("{key} {is}, not {wanted}"),
            Condition::Absent | Condition::Any => format!("{key} {is}"),
        };
        Err(Error::new(ErrorCode::RevisionMismatch, message).with_hint("read it again and decide anew"))
    }

    /// Whether there is room for that value.
    ///
    /// # Errors
    /// `quota_exceeded` naming the limit.
    pub(super) fn check_room(&self, key: &ResourceName, put: &Put, limits: &Limits) -> Result<(), Error> {
        let before = self.get(key);
        if before.is_none() && self.entries.len() >= limits.keys_max as usize {
            return Err(Error::quota("keys_max", limits.keys_max.into()));
        }
        let own = before.filter(|entry| entry.uid == put.uid).map_or(0, |entry| cost(key, &entry.value));
        let used = self.bytes_by_uid.get(&put.uid).copied().unwrap_or(0) - own;
        let max = limits.key_bytes_per_uid_max;
        if used + cost(key, &put.value) > max as usize {
            return Err(Error::quota("key_bytes_per_uid_max", max.into()));
        }
        Ok(())
    }

    /// Puts a value. Gives the change, and the entry that was there before.
    pub(super) fn put(&mut self, revision: u64, key: &ResourceName, put: Put) -> (Change, Option<Entry>) {
        let before = self.remove(key);
        let (created, version) =
            before.as_ref().map_or((revision, 1), |entry| (entry.created, entry.version + 1));
        let Put { value, lease, uid, expires } = put;
        let entry = Entry { revision, created, version, lease, value, uid, expires };
        *self.bytes_by_uid.entry(uid).or_default() += cost(key, &entry.value);
        self.entries.insert(key.clone(), entry.clone());
        let change = Change { revision, key: key.clone(), entry: Some(entry) };
        self.remember(change.clone());
        (change, before)
    }

    /// Deletes a key that is there.
    pub(super) fn delete(&mut self, revision: u64, key: &ResourceName) -> Option<(Change, Entry)> {
        let before = self.remove(key)?;
        let change = Change { revision, key: key.clone(), entry: None };
        self.remember(change.clone());
        Some((change, before))
    }

    fn remove(&mut self, key: &ResourceName) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        if let Some(bytes) = self.bytes_by_uid.get_mut(&entry.uid) {
            *bytes -= cost(key, &entry.value);
            if *bytes == 0 {
                self.bytes_by_uid.remove(&entry.uid);
            }
        }
        Some(entry)
    }

    fn remember(&mut self, change: Change) {
        self.history_bytes += change.bytes();
        self.history.push_back(change);
        let (changes_max, bytes_max) = self.window;
        while self.history.len() > changes_max || self.history_bytes > bytes_max {
            let Some(oldest) = self.history.pop_front() else { break };
            self.history_bytes -= oldest.bytes();
            self.compacted = oldest.revision;
        }
    }

    /// Keys of a selection in order, those behind `after` if that is given.
    pub(super) fn range<'a>(
        &'a self,
        selection: &'a Selection,
        after: &str,
    ) -> impl Iterator<Item = (&'a ResourceName, &'a Entry)> {
        use core::ops::Bound::{Excluded, Included, Unbounded};
        let start = match selection {
            Selection::Key(key) => key.as_str(),
            Selection::Prefix(prefix) => prefix.as_str(),
        };
        let from = if after >= start && !after.is_empty() { Excluded(after) } else { Included(start) };
        let range = self.entries.range::<str, _>((from, Unbounded));
        range.take_while(|(key, _)| selection.has(key))
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
        if from <= self.compacted {
            let message =
                format!("changes up to revision {} are forgotten, {from} was asked for", self.compacted);
            let mut error = Error::new(ErrorCode::Compacted, message)
                .with_hint("begin with what is there now, and go on from its revision");
            error.detail_mut().limit = Some(self.compacted);
            return Err(error);
        }
        let at = self.history.partition_point(|change| change.revision < from);
        Ok(self.history.range(at..).filter(|change| selection.has(&change.key)))
    }

    /// Whether [`Keys::begin_at`] was called.
    pub(super) fn has_begun(&self) -> bool {
        self.compacted > 0
    }

    /// Nothing up to this revision is known: an earlier life of the daemon may have given others.
    pub(super) fn begin_at(&mut self, revision: u64) {
        self.compacted = self.compacted.max(revision);
    }

    /// How much is remembered from here on.
    pub(super) fn set_window(&mut self, limits: &Limits) {
        self.window = (limits.key_history_max as usize, limits.key_history_max_bytes as usize);
    }
}

fn cost(key: &ResourceName, value: &Payload) -> usize {
    OVERHEAD_BYTES + key.as_str().len() + value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ResourceName {
        ResourceName::parse(text).unwrap()
    }

    fn put(value: &str) -> Put {
        Put { value: Payload::from(value), lease: 0, uid: 7, expires: None }
    }

    #[test]
    fn history_is_a_window_and_says_so() {
        let limits = Limits { key_history_max: 3, ..Limits::default() };
        let mut keys = Keys::default();
        keys.set_window(&limits);
        for revision in 1..=5 {
            keys.put(revision, &key("a"), put("x"));
        }
        let all = Selection::Prefix(String::new());
        assert_eq!(keys.since(&all, 2).map(|_| ()).unwrap_err().code, ErrorCode::Compacted);
        let revisions: Vec<u64> = keys.since(&all, 3).unwrap().map(|change| change.revision).collect();
        assert_eq!(revisions, [3, 4, 5]);
        assert_eq!(keys.since(&all, 9).unwrap().count(), 0);
        let entry = keys.get(&key("a")).unwrap();
        assert_eq!((entry.created, entry.version), (1, 5));
    }

    #[test]
    fn history_holds_its_bytes() {
        let limits = Limits { key_history_max_bytes: 3 * (OVERHEAD_BYTES as u32 + 2), ..Limits::default() };
        let mut keys = Keys::default();
        keys.set_window(&limits);
        for revision in 1..=5 {
            keys.put(revision, &key("a"), put("x"));
        }
        assert_eq!((keys.history.len(), keys.compacted), (3, 2));
    }

    #[test]
    fn users_pay_for_their_keys() {
        let one = (OVERHEAD_BYTES + 2) as u32;
        let limits = Limits { key_bytes_per_uid_max: one + 1, keys_max: 2, ..Limits::default() };
        let mut keys = Keys::default();
        keys.set_window(&limits);
        assert!(keys.check_room(&key("a"), &put("x"), &limits).is_ok());
        keys.put(1, &key("a"), put("x"));
        for (value, fits) in [("x", true), ("xx", true), ("xxx", false)] {
            assert_eq!(keys.check_room(&key("a"), &put(value), &limits).is_ok(), fits, "{value}");
        }
        assert!(keys.check_room(&key("b"), &put("x"), &limits).is_err());
        let other = Put { uid: 8, ..put("x") };
        keys.put(2, &key("b"), other.clone());
        assert!(keys.check_room(&key("c"), &Put { uid: 9, ..other }, &limits).is_err());
        keys.delete(3, &key("a"));
        keys.delete(4, &key("b"));
        assert!(keys.bytes_by_uid.is_empty() && keys.delete(5, &key("a")).is_none());
    }

    #[test]
    fn ranges_are_what_begins_so() {
        let limits = Limits::default();
        let mut keys = Keys::default();
        keys.set_window(&limits);
        for (at, name) in ["a", "a/b", "a/c", "ab", "b"].into_iter().enumerate() {
            keys.put(at as u64 + 1, &key(name), put("x"));
        }
        let names = |selection: &Selection, after: &str| -> Vec<String> {
            keys.range(selection, after).map(|(key, _)| key.to_string()).collect()
        };
        let prefix = |text: &str| Selection::Prefix(text.to_owned());
        assert_eq!(names(&prefix("a/"), ""), ["a/b", "a/c"]);
        assert_eq!(names(&prefix("a/"), "a/b"), ["a/c"]);
        assert_eq!(names(&prefix("a"), "a/c"), ["ab"]);
        assert_eq!(names(&prefix(""), "ab"), ["b"]);
        assert_eq!(names(&Selection::Key(key("a/b")), ""), ["a/b"]);
        assert_eq!(names(&Selection::Key(key("a/b")), "a/b"), Vec::<String>::new());
    }

    #[test]
    fn conditions_are_judged_and_explained() {
        let limits = Limits::default();
        let mut keys = Keys::default();
        keys.set_window(&limits);
        let check = |keys: &Keys, condition| keys.check(&key("a"), condition).map_err(|error| error.message);
        assert_eq!(check(&keys, Condition::Absent), Ok(()));
        assert_eq!(check(&keys, Condition::Revision(1)), Err("a does not exist, not 1".to_owned()));
        keys.put(4, &key("a"), put("x"));
        assert_eq!(check(&keys, Condition::Any), Ok(()));
        assert_eq!(check(&keys, Condition::Revision(4)), Ok(()));
        assert_eq!(check(&keys, Condition::Revision(3)), Err("a has revision 4, not 3".to_owned()));
        assert_eq!(check(&keys, Condition::Absent), Err("a has revision 4".to_owned()));
    }
}
