//! Who is to be woken for what.

use std::task::Waker;

/// Wakers to be woken once the lock is released.
pub(super) type Wakes = Vec<Waker>;

/// Wakers by slot.
#[derive(Debug, Default)]
pub(super) struct WakerTable(Vec<Option<Waker>>);

impl WakerTable {
    /// `waker` is the one to wake for `slot`.
    pub(super) fn set(&mut self, slot: usize, waker: &Waker) {
        if self.0.len() <= slot {
            self.0.resize(slot + 1, None);
        }
        if let Some(entry) = self.0.get_mut(slot) {
            match entry {
                Some(known) if known.will_wake(waker) => {}
                _ => *entry = Some(waker.clone()),
            }
        }
    }

    pub(super) fn take(&mut self, slot: usize) -> Option<Waker> {
        self.0.get_mut(slot)?.take()
    }

    pub(super) fn drain(&mut self, wakes: &mut Wakes) {
        wakes.extend(self.0.drain(..).flatten());
    }
}

/// Wakers by slot, several for each.
#[derive(Debug, Default)]
pub(super) struct WakerLists(Vec<(usize, Waker)>);

impl WakerLists {
    pub(super) fn push(&mut self, slot: usize, waker: &Waker) {
        if !self.0.iter().any(|(at, known)| *at == slot && known.will_wake(waker)) {
            self.0.push((slot, waker.clone()));
        }
    }

    /// Takes out those of one slot.
    pub(super) fn take(&mut self, slot: usize, wakes: &mut Wakes) {
        let of_slot = self.0.extract_if(.., |(at, _)| *at == slot);
        wakes.extend(of_slot.map(|(_, waker)| waker));
    }

    pub(super) fn drain(&mut self, wakes: &mut Wakes) {
        wakes.extend(self.0.drain(..).map(|(_, waker)| waker));
    }
}
