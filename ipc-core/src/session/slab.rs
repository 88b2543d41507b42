//! Slots with generations: a key is found by position, and a key of an earlier use of the slot finds nothing.

/// Generations have 30 bits; the two above them are left to whoever puts keys on the wire.
const GENERATION_MAX: u32 = (1 << 30) - 1;

/// Position in the low half, generation in the high half; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(u64);

impl Key {
    fn new(slot: u32, generation: u32) -> Self {
        Self(u64::from(slot) | u64::from(generation) << 32)
    }

    /// The key as it travels.
    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    /// A key as it travelled; it may fit no slot.
    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The position.
    pub(super) const fn slot(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    fn generation(self) -> u32 {
        // The upper half of 64 bits always fits.
        (self.0 >> 32) as u32
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Values by [`Key`]. A slot is used again as soon as it is free, under the next generation.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    live: usize,
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), live: 0 }
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// The key that the next [`insert`](Slab::insert) will give.
    pub(super) fn next_key(&self) -> Key {
        match self.free.last() {
            Some(&slot) => Key::new(slot, self.slots.get(slot as usize).map_or(1, |entry| entry.generation)),
            None => Key::new(u32::try_from(self.slots.len()).unwrap_or(u32::MAX), 1),
        }
    }

    pub(super) fn insert(&mut self, value: T) -> Key {
        let key = self.next_key();
        match self.free.pop().and_then(|slot| self.slots.get_mut(slot as usize)) {
            Some(entry) => entry.value = Some(value),
            None => self.slots.push(Slot { generation: 1, value: Some(value) }),
        }
        self.live += 1;
        key
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        let entry = self.slots.get(key.slot())?;
        if entry.generation == key.generation() { entry.value.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.slots.get_mut(key.slot())?;
        if entry.generation == key.generation() { entry.value.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.slots.get_mut(key.slot())?;
        if entry.generation != key.generation() {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = if entry.generation == GENERATION_MAX { 1 } else { entry.generation + 1 };
        self.free.push(key.slot() as u32);
        self.live -= 1;
        Some(value)
    }

    /// Every value, in order of its position.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| {
            let key = Key::new(slot as u32, entry.generation);
            entry.value.as_ref().map(|value| (key, value))
        })
    }

    /// Every value, in order of its position.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.slots.iter_mut().enumerate().filter_map(|(slot, entry)| {
            let key = Key::new(slot as u32, entry.generation);
            entry.value.as_mut().map(|value| (key, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_an_earlier_use_finds_nothing() {
        let mut slab = Slab::new();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_eq!(first.slot(), second.slot());
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&'b'));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn the_next_key_is_known_before() {
        let mut slab = Slab::new();
        for value in 0..10 {
            let expected = slab.next_key();
            let key = slab.insert(value);
            assert_eq!(expected, key);
            assert_ne!(key.bits(), 0);
            if value % 3 == 0 {
                slab.remove(key);
            }
        }
    }

    #[test]
    fn generations_wrap_below_the_two_highest_bits() {
        let mut slab = Slab::new();
        let key = slab.insert(0);
        slab.slots[0].generation = GENERATION_MAX;
        let last = Key::new(0, GENERATION_MAX);
        assert_eq!(slab.get(key), None);
        assert_eq!(last.bits() >> 62, 0);
        slab.remove(last);
        assert_eq!(slab.insert(1), Key::new(0, 1));
    }

    #[test]
    fn keys_from_outside_never_reach_past_the_slots() {
        let mut slab = Slab::new();
        slab.insert(0);
        for bits in [0, u64::MAX, 7, 1 << 32 | 99] {
            assert_eq!(slab.get(Key::from_bits(bits)), None);
            assert_eq!(slab.remove(Key::from_bits(bits)), None);
        }
    }
}
