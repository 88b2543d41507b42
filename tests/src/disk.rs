//! A store in memory that works, is slow, is full, fails or crashes, as a test wants it.

use std::collections::BTreeMap;

use ipc_daemon::broker::{Commit, Fault};

/// The records, and the commit that is under way.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// Every record.
    pub records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// While true, commits stay under way until somebody finishes them.
    pub holds: bool,
    /// What commits fail with.
    pub fault: Option<Fault>,
    /// Commits that were made.
    pub commits: u64,
    /// The commit that is under way.
    pub under_way: Option<Commit>,
}

impl Disk {
    /// A commit is handed in.
    ///
    /// # Panics
    /// When one is under way: there is one at a time.
    pub fn begin(&mut self, commit: Commit) {
        assert!(self.under_way.is_none(), "there is one commit at a time");
        self.under_way = Some(commit);
    }

    /// The commit that is under way ends, written as a whole or not at all. Gives its number and what became of it.
    pub fn finish(&mut self) -> Option<(u64, Result<(), Fault>)> {
        let commit = self.under_way.take()?;
        let sequence = commit.sequence;
        if let Some(fault) = &self.fault {
            return Some((sequence, Err(fault.clone())));
        }
        self.commits += 1;
        self.write(commit);
        Some((sequence, Ok(())))
    }

    /// What another life of the daemon finds after a crash: everything that was answered, and of the commit that was under way all,
    /// where the disk can have written it, or nothing.
    #[must_use]
    pub fn crash(mut self, is_written: bool) -> Self {
        if let Some(commit) = self.under_way.take().filter(|_| is_written && self.fault.is_none()) {
            self.write(commit);
        }
        Self { records: self.records, ..Self::default() }
    }

    fn write(&mut self, commit: Commit) {
        for write in commit.writes {
            match write.value {
                Some(value) => drop(self.records.insert(write.key, value)),
                None => drop(self.records.remove(&write.key)),
            }
        }
    }
}
