//! Why a store cannot be opened or written, and the way out.

use std::fmt;
use std::io;

use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};

use crate::failure::{Exit, Failure};

/// Something went wrong with the store.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// What is in the file is not what was written.
    Damaged(String),
    /// A later version has written it.
    Newer(u32),
    /// A system call failed.
    Io(io::Error),
}

impl StoreError {
    /// Whether the disk, or what this user may use of it, is full.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, StoreError::Io(error) if is_full(error))
    }

    /// What the daemon says when it cannot start because of this; `place` is the file.
    pub(crate) fn at(self, place: &dyn fmt::Display) -> Failure {
        match self {
            StoreError::Damaged(why) => {
                Failure::new(Exit::Io, format!("the store {place} is damaged: {why}")).with_hint(
                    "ipc-daemon --check-store names what is damaged, --repair saves what can be read; or put a backup in its \
                     place",
                )
            }
            StoreError::Newer(format) => Failure::new(
                Exit::Io,
                format!("the store {place} has format {format}, which a later version has written"),
            )
            .with_hint("start that version, or choose another state directory"),
            StoreError::Io(error) => {
                let is_full = is_full(&error);
                let failure = Failure::io(format_args!("use the store {place}"), error);
                if is_full { failure.with_hint("make room on that disk") } else { failure }
            }
        }
    }
}

/// Whether the disk, or what this user may use of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Damaged(why) => write!(f, "it is damaged: {why}"),
            StoreError::Newer(format) => write!(f, "a later version has written it, in format {format}"),
            StoreError::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        StoreError::Io(error)
    }
}

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                StoreError::Damaged(error.to_string())
            }
            StorageError::Io(error) => StoreError::Io(error),
            StorageError::Corrupted(why) => StoreError::Damaged(why),
            other => StoreError::Io(io::Error::other(other.to_string())),
        }
    }
}

impl From<DatabaseError> for StoreError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Storage(error) => error.into(),
            DatabaseError::UpgradeRequired(version) => {
                StoreError::Damaged(format!("its file format {version} was never written by this program"))
            }
            other => StoreError::Io(io::Error::other(other.to_string())),
        }
    }
}

impl From<TransactionError> for StoreError {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            other => StoreError::Io(io::Error::other(other.to_string())),
        }
    }
}

impl From<CommitError> for StoreError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => error.into(),
            other => StoreError::Io(io::Error::other(other.to_string())),
        }
    }
}

impl From<TableError> for StoreError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            other => StoreError::Damaged(other.to_string()),
        }
    }
}
