//! SHELL. What outlives the daemon: records in one file of the state directory, written by one thread.
//!
//! - [`medium`]: where the bytes are, with word of what failed there;
//! - [`layout`]: the parts of the file, and its format;
//! - [`write_ahead`]: the log, where a commit goes first;
//! - [`database`]: a store with its checks when it is opened, and one commit;
//! - [`snapshot`]: what a store holds at one moment;
//! - [`writer`]: the thread, with what it does when the disk is full or fails;
//! - [`salvage`], [`overlay`]: looking through a store without changing it, copying one, and saving what can be read of one
//!   that is damaged;
//! - [`failure`]: why a store cannot be opened, and the way out.
//!
//! The broker decides what is written and when; at most one commit is under way. A record has a checksum over its key and
//! value, and the log and the pages of the database have their own.

mod database;
mod failure;
mod layout;
mod medium;
mod overlay;
mod salvage;
mod snapshot;
mod write_ahead;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub(crate) use database::Store;
pub(crate) use failure::StoreError;
pub(crate) use medium::StateFile;
pub(crate) use salvage::{Found, look, make};
pub(crate) use writer::{Inlet, Stored, THREAD_NAME, Writer, gone};

/// Records by their keys.
pub(crate) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Does something with a file that may be damaged. On a thread of its own: that can make the database panic, which is the end of
/// that thread alone.
pub(crate) fn isolated<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let thread = std::thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(work)?;
    let gave_up = |_| Err(StoreError::Damaged("the database gave up on it".to_owned()));
    thread.join().unwrap_or_else(gave_up)
}
