//! A number that only its own thread changes.

use core::cell::Cell;

/// A number.
#[derive(Debug, Default)]
pub(super) struct Counter(Cell<u64>);

impl Counter {
    /// What it stands at.
    pub(super) fn get(&self) -> u64 {
        self.0.get()
    }

    /// Adds to it.
    pub(super) fn add(&self, count: usize) {
        self.0.set(self.0.get().wrapping_add(count as u64));
    }

    /// Takes from it what was added before.
    pub(super) fn sub(&self, count: usize) {
        self.0.set(self.0.get().wrapping_sub(count as u64));
    }
}
