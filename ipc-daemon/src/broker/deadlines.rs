//! Points in time at which something is due, in order, each removable in logarithmic time.

use ipc_core::time::Instant;

use super::keys::DeadlineKey;

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    /// Position in the heap while in use.
    position: usize,
    due: Option<(Instant, T)>,
}

/// A binary heap whose entries know their position. A call that is answered takes its deadline along, so the heap
/// never holds more than what is open.
#[derive(Debug)]
pub(super) struct Deadlines<T> {
    heap: Vec<(Instant, u32)>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T: Copy> Deadlines<T> {
    pub(super) fn new() -> Self {
        Self { heap: Vec::new(), slots: Vec::new(), free: Vec::new() }
    }

    /// The earliest point in time.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.heap.first().map(|(at, _)| *at)
    }

    pub(super) fn insert(&mut self, at: Instant, what: T) -> DeadlineKey {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot { generation: 0, position: 0, due: None });
                (self.slots.len() - 1) as u32
            }
        };
        let entry = &mut self.slots[slot as usize];
        entry.due = Some((at, what));
        entry.position = self.heap.len();
        let key = DeadlineKey { slot, generation: entry.generation };
        self.heap.push((at, slot));
        self.sift_up(self.heap.len() - 1);
        key
    }

    /// Removes an entry; a key whose entry is gone does nothing.
    pub(super) fn remove(&mut self, key: DeadlineKey) {
        let Some(entry) = self.slots.get(key.slot as usize) else { return };
        if entry.generation == key.generation && entry.due.is_some() {
            self.remove_at(entry.position);
        }
    }

    /// Takes the earliest entry if it is due at `now`.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<T> {
        let (at, slot) = *self.heap.first()?;
        if at > now {
            return None;
        }
        let what = self.slots[slot as usize].due.map(|(_, what)| what);
        self.remove_at(0);
        what
    }

    fn remove_at(&mut self, position: usize) {
        let (_, slot) = self.heap.swap_remove(position);
        let entry = &mut self.slots[slot as usize];
        entry.due = None;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(slot);
        if position < self.heap.len() {
            self.place(position);
            self.sift_up(position);
            self.sift_down(position);
        }
    }

    fn place(&mut self, position: usize) {
        let slot = self.heap[position].1;
        self.slots[slot as usize].position = position;
    }

    fn sift_up(&mut self, mut position: usize) {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent].0 <= self.heap[position].0 {
                break;
            }
            self.heap.swap(parent, position);
            self.place(position);
            self.place(parent);
            position = parent;
        }
    }

    fn sift_down(&mut self, mut position: usize) {
        loop {
            let left = 2 * position + 1;
            let right = left + 1;
            let mut least = position;
            for child in [left, right] {
                if child < self.heap.len() && self.heap[child].0 < self.heap[least].0 {
                    least = child;
                }
            }
            if least == position {
                return;
            }
            self.heap.swap(least, position);
            self.place(position);
            self.place(least);
            position = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_in_order_and_removed_ones_do_not_come() {
        let mut deadlines = Deadlines::new();
        let mut state = 12345u64;
        let mut keys = Vec::new();
        for what in 0..500u32 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            keys.push((what, deadlines.insert(Instant::from_nanos(state >> 40), what)));
        }
        for (what, key) in &keys {
            if what % 3 == 0 {
                deadlines.remove(*key);
                deadlines.remove(*key);
            }
        }
        let mut last = Instant::default();
        let mut taken = 0;
        while let Some(at) = deadlines.earliest() {
            assert!(at >= last);
            last = at;
            assert_eq!(deadlines.take_due(Instant::from_nanos(at.as_nanos().wrapping_sub(1))), None);
            let what = deadlines.take_due(at).unwrap();
            assert_ne!(what % 3, 0);
            taken += 1;
        }
        assert_eq!(taken, 333);
        assert!(deadlines.heap.is_empty());
    }

    #[test]
    fn a_key_does_not_reach_a_later_entry_in_its_slot() {
        let mut deadlines = Deadlines::new();
        let old = deadlines.insert(Instant::from_nanos(1), 'a');
        deadlines.remove(old);
        deadlines.insert(Instant::from_nanos(2), 'b');
        deadlines.remove(old);
        assert_eq!(deadlines.take_due(Instant::from_nanos(2)), Some('b'));
    }
}
