//! The one commit that is under way, and what has become of the store.
//!
//! There is at most one at a time. While the disk works, what is to be kept gathers where it came from; when the disk is free
//! again, everybody who has something puts it into the next commit, which succeeds or fails as one.

use ipc_core::{Error, ErrorCode};

use super::event::{Commit, Fault};
use super::records::Write;

/// The journal of a broker. Without a store nothing can be kept.
#[derive(Debug, Default)]
pub(super) struct Journal {
    has_store: bool,
    /// Of the last commit.
    sequence: u64,
    is_busy: bool,
    /// Not fetched by the shell yet.
    commit: Option<Commit>,
    /// Why nothing is written any more.
    dead: Option<Error>,
}

impl Journal {
    /// There is a store from here on.
    pub(super) fn open(&mut self) {
        self.has_store = true;
    }

    /// Whether there is a store.
    pub(super) fn has_store(&self) -> bool {
        self.has_store
    }

    /// Whether a commit can begin.
    pub(super) fn is_free(&self) -> bool {
        self.has_store && !self.is_busy
    }

    /// The commit that is under way.
    pub(super) fn under_way(&self) -> Option<u64> {
        self.is_busy.then_some(self.sequence)
    }

    /// Whether it is worth while to ask for a commit.
    ///
    /// # Errors
    /// `storage_failed` after a failure that only a restart mends.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.dead.clone().map_or(Ok(()), Err)
    }

    /// Begins a commit.
    pub(super) fn begin(&mut self, writes: Vec<Write>) {
        self.sequence += 1;
        self.is_busy = true;
        self.commit = Some(Commit { sequence: self.sequence, writes });
    }

    /// What the shell is to hand to the store.
    pub(super) fn take(&mut self) -> Option<Commit> {
        self.commit.take()
    }

    /// That commit has ended. Gives what is to be said to those whose changes it held; `None` when it is not the one that is
    /// under way.
    pub(super) fn end(&mut self, sequence: u64, result: Result<(), Fault>) -> Option<Result<(), Error>> {
        if !self.is_busy || sequence != self.sequence {
            return None;
        }
        self.is_busy = false;
        Some(result.map_err(|fault| match fault {
            Fault::Full(message) => Error::new(ErrorCode::StorageFailed, message).with_hint(
                "make room: within 5 s of that it goes on by itself, and nothing was changed by this",
            ),
            Fault::Dead(message) => {
                let error = Error::new(ErrorCode::StorageFailed, message)
                    .with_hint("nothing is written to the disk until the daemon is started again");
                self.dead = Some(error.clone());
                error
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_commit_at_a_time() {
        let mut journal = Journal::default();
        assert!(!journal.is_free());
        journal.open();
        assert!(journal.is_free() && journal.take().is_none());
        journal.begin(Vec::new());
        assert!(!journal.is_free());
        let sequence = journal.take().unwrap().sequence;
        assert!(journal.take().is_none());
        assert_eq!(journal.end(sequence + 1, Ok(())), None);
        assert_eq!(journal.end(sequence, Ok(())), Some(Ok(())));
        assert_eq!(journal.end(sequence, Ok(())), None);
    }

    #[test]
    fn a_full_disk_passes_and_a_failed_sync_does_not() {
        let mut journal = Journal::default();
        journal.open();
        for (fault, is_dead) in
            [(Fault::Full("full".to_owned()), false), (Fault::Dead("gone".to_owned()), true)]
        {
            journal.begin(Vec::new());
            let sequence = journal.take().unwrap().sequence;
            let error = journal.end(sequence, Err(fault)).unwrap().unwrap_err();
            assert_eq!(error.code, ErrorCode::StorageFailed);
            assert_eq!((journal.check().is_err(), journal.is_free()), (is_dead, true));
        }
    }
}
