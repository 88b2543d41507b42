//! The store: what is kept is gathered from those who have something, and comes back to them after a restart.

use ipc_core::time::Instant;
use ipc_core::{Error, ErrorCode};

use crate::broker::Broker;
use crate::broker::event::{Commit, Fault, Output};
use crate::broker::records::RecordKind;

impl Broker {
    /// Takes one record of an earlier life, before anything else. They come in the order of their keys.
    ///
    /// # Errors
    /// `storage_failed` when the record is damaged, or of a kind that only a later version knows.
    pub fn restore(&mut self, now: Instant, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.now = now;
        let Some((number, id)) = key.split_first() else { return Err(damaged(key, "its key is empty")) };
        self.coordination.remember_within(&self.config.limits);
        let restored = match RecordKind::from_number(*number) {
            Some(RecordKind::Numbers) => self.coordination.restore_numbers(value),
            Some(RecordKind::Change) => self.coordination.restore_change(now, id, value),
            Some(RecordKind::Entry) => self.coordination.restore_entry(now, id, value),
            Some(RecordKind::EntryState) => self.coordination.restore_entry_state(now, id, value),
            Some(RecordKind::EntryId) => {
                self.coordination.restore_entry_id(now, id, value, &self.config.limits)
            }
            Some(RecordKind::Hold) => self.coordination.restore_hold(now, id, value),
            Some(RecordKind::UnpaidClosure) => self.coordination.restore_unpaid_closure(now, id, value),
            Some(RecordKind::Closure) => self.coordination.restore_closure(now, id, value),
            None => Err("its kind is not known to this version"),
        };
        restored.map_err(|why| damaged(key, why))
    }

    /// Everything that was kept has been restored; from here on the store takes commits.
    ///
    /// # Errors
    /// `storage_failed` when the records contradict one another.
    pub fn open_store(&mut self, now: Instant) -> Result<(), Error> {
        self.now = now;
        self.journal.open();
        self.coordination.remember_within(&self.config.limits);
        self.coordination.open_store(now).map_err(|why| damaged(&[], why))?;
        self.settle_coordination();
        self.end_turn();
        Ok(())
    }

    /// What is to be stored, after [`Output::Commit`].
    pub fn take_commit(&mut self) -> Option<Commit> {
        self.journal.take()
    }

    /// A commit has ended: it is as durable as it will be, or nothing of it is there.
    pub fn handle_stored(&mut self, now: Instant, sequence: u64, result: Result<(), Fault>) {
        self.end_run();
        self.now = now;
        let Some(result) = self.journal.end(sequence, result) else { return };
        match &result {
            Ok(()) => self.counters.commits_made += 1,
            Err(_) => self.counters.commits_failed += 1,
        }
        self.coordination.settle(now, &result);
        self.settle_coordination();
        self.end_turn();
    }

    /// The store takes nothing any more, and what it had been given last has failed.
    pub fn handle_store_end(&mut self, now: Instant) {
        if let Some(sequence) = self.journal.under_way() {
            let why = "the thread that writes the store has ended".to_owned();
            self.handle_stored(now, sequence, Err(Fault::Dead(why)));
        }
    }

    /// Begins a commit with everything that waits for one, when the disk is free.
    pub(in crate::broker) fn begin_commit(&mut self) {
        if !self.journal.is_free() || !self.coordination.is_draft_due(self.now) {
            return;
        }
        let mut writes = Vec::new();
        self.coordination.draft(self.now, &mut writes);
        self.settle_coordination();
        self.end_turn();
        if !writes.is_empty() {
            self.journal.begin(writes);
            // The disk is the slowest of all who are to do something: it begins first.
            self.outputs.push_front(Output::Commit);
        }
    }
}

fn damaged(key: &[u8], why: &str) -> Error {
    let key: String = key.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let message = format!("a record of the store cannot be read (key {key}): {why}");
    Error::new(ErrorCode::StorageFailed, message).with_hint("ipc-daemon --check-store names what is damaged")
}
