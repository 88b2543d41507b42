//! A seeded generator, so that every random test can be run again exactly as it failed.
//!
//! A test asks for its seeds with [`seeds`] and makes one [`Rng`] from each. Ordinary runs use the same seeds
//! every time; `IPC_TEST_LONG=1` asks for more of them, from a place chosen at random; `IPC_TEST_SEED=N` runs
//! the one seed N. A seed whose test panics is printed with the command that repeats it.

use std::hash::{BuildHasher, Hasher};

/// The environment variable that names the one seed to run.
pub const SEED_VARIABLE: &str = "IPC_TEST_SEED";
/// The environment variable that asks for the long run when it is `1`.
pub const LONG_VARIABLE: &str = "IPC_TEST_LONG";

/// True when the long run is asked for.
pub fn is_long() -> bool {
    std::env::var(LONG_VARIABLE).is_ok_and(|value| value == "1")
}

/// Picks the smaller or the larger of two amounts of work, by [`is_long`].
pub fn amount<T>(ordinary: T, long: T) -> T {
    if is_long() { long } else { ordinary }
}

/// The seeds of one test: `ordinary` of them, or `long` of them in the long run, or the one that was asked for.
///
/// # Panics
/// When `IPC_TEST_SEED` is set to something that is no number (decimal, or hexadecimal after `0x`).
pub fn seeds(ordinary: u64, long: u64) -> std::ops::Range<u64> {
    if let Ok(text) = std::env::var(SEED_VARIABLE) {
        let seed = parse_seed(&text)
            .unwrap_or_else(|| panic!("{SEED_VARIABLE}={text} is no seed: give a number such as 17 or 0x11"));
        return seed..seed + 1;
    }
    if is_long() {
        let base = std::hash::RandomState::new().build_hasher().finish() >> 16;
        eprintln!("seeds {base}..{}", base + long);
        return base..base + long;
    }
    1..1 + ordinary
}

fn parse_seed(text: &str) -> Option<u64> {
    let seed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => text.parse().ok()?,
    };
    (seed < u64::MAX).then_some(seed)
}

/// Runs `test` once for each of [`seeds`], and says how to repeat the one that panics.
pub fn for_each_seed(ordinary: u64, long: u64, mut test: impl FnMut(u64, Rng)) {
    for seed in seeds(ordinary, long) {
        let announcement = Announcement { seed };
        test(seed, Rng::new(seed));
        drop(announcement);
    }
}

/// Prints its seed when the test that it watches panics.
struct Announcement {
    seed: u64,
}

impl Drop for Announcement {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {0}; repeat it with {SEED_VARIABLE}={0}", self.seed);
        }
    }
}

/// A xorshift64* generator. Fast, small, the same on every machine; not for secrets.
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// Makes the generator of one seed. Seeds that are close give sequences that are not.
    pub fn new(seed: u64) -> Self {
        // The splitmix64 finalizer: xorshift may not start from zero and starts badly from small numbers.
        let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 31;
        Self { state: if state == 0 { 0x9e37_79b9_7f4a_7c15 } else { state } }
    }

    /// A generator of its own for one part of a test, so that one part does not disturb another's sequence.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next_u64())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// The next byte.
    pub fn next_u8(&mut self) -> u8 {
        (self.next_u64() >> 56) as u8
    }

    /// A number from 0 to `bound - 1`.
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below 0");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// [`Rng::below`] for lengths and indexes.
    pub fn index(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }

    /// A number from `first` to `last`, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        assert!(first <= last, "{first}..={last} is empty");
        match (last - first).checked_add(1) {
            Some(width) => first + self.below(width),
            None => self.next_u64(),
        }
    }

    /// True `times` times out of `out_of`.
    pub fn chance(&mut self, times: u64, out_of: u64) -> bool {
        self.below(out_of) < times
    }

    /// One of `items`.
    ///
    /// # Panics
    /// When there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// One of `items`, by weight: an item with the weight 3 comes three times as often as one with 1.
    ///
    /// # Panics
    /// When the weights sum to 0.
    pub fn weighted<'a, T>(&mut self, items: &'a [(u64, T)]) -> &'a T {
        let total = items.iter().map(|(weight, _)| weight).sum();
        let mut left = self.below(total);
        for (weight, item) in items {
            if left < *weight {
                return item;
            }
            left -= weight;
        }
        unreachable!("a number below the sum of the weights falls on one of them")
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }

    /// `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }

    /// Puts `items` in a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }

    /// A length that is often one where code breaks: 0, 1, a power of two or its neighbour, `max` or its neighbour.
    pub fn length(&mut self, max: usize) -> usize {
        let len = match self.below(4) {
            0 => self.below(3),
            1 => (1u64 << self.below(17)) + self.below(3) - 1,
            2 => (max as u64).saturating_sub(self.below(2)),
            _ => self.below(max as u64 + 1),
        };
        len.min(max as u64) as usize
    }

    /// Changes `bytes` the way a hostile or broken peer would: bits, cuts, doubles, insertions, lengths.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.between(1, 4) {
            let at = self.index(bytes.len() + 1);
            match self.below(7) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => {
                    bytes[at] = *self.pick(&[0, 1, 0x7f, 0x80, 0xfa, 0xfb, 0xfc, 0xfd, 0xff])
                }
                2 => bytes.truncate(at),
                3 => {
                    let len = self.length(64);
                    let inserted = self.bytes(len);
                    bytes.splice(at..at, inserted);
                }
                4 if at < bytes.len() => {
                    let end = at + self.index(bytes.len() - at) + 1;
                    bytes.drain(at..end);
                }
                5 if at < bytes.len() => {
                    let end = (at + self.index(64) + 1).min(bytes.len());
                    let doubled = bytes[at..end].to_vec();
                    bytes.splice(at..at, doubled);
                }
                _ => {
                    let number = *self.pick(&[0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX]);
                    for (byte, value) in bytes.iter_mut().skip(at).zip(number.to_le_bytes()) {
                        *byte = value;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_neighbours_differ() {
        let sequence = |seed| {
            let mut rng = Rng::new(seed);
            std::array::from_fn::<u64, 8, _>(|_| rng.next_u64())
        };
        assert_eq!(sequence(7), sequence(7));
        assert_ne!(sequence(7), sequence(8));
        assert_ne!(sequence(0), [0; 8]);
    }

    #[test]
    fn the_sequence_never_changes() {
        let mut rng = Rng::new(1);
        // A seed in somebody's bug report must still mean the same run.
        assert_eq!([rng.next_u64(), rng.next_u64()], [0x4b46_a55d_f361_1b9b, 0xd7e1_f141_0e76_3ef4]);
    }

    #[test]
    fn numbers_stay_within_their_bounds_and_reach_them() {
        let mut rng = Rng::new(3);
        let mut seen = [false; 5];
        for _ in 0..1_000 {
            seen[rng.index(5)] = true;
            assert!((10..=12).contains(&rng.between(10, 12)));
            assert!(rng.length(100) <= 100);
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(rng.between(4, 4), 4);
        rng.between(0, u64::MAX);
    }

    #[test]
    fn weights_are_kept_and_a_weight_of_zero_never_comes() {
        let mut rng = Rng::new(4);
        let items = [(0, 'a'), (1, 'b'), (3, 'c')];
        let picked: Vec<char> = (0..4_000).map(|_| *rng.weighted(&items)).collect();
        let count = |wanted| picked.iter().filter(|item| **item == wanted).count();
        assert_eq!(count('a'), 0);
        assert!((800..1_200).contains(&count('b')), "{}", count('b'));
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..50).collect();
        Rng::new(5).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn mutation_takes_any_length_and_usually_changes_something() {
        let mut rng = Rng::new(6);
        let mut changed = 0;
        for len in 0..200 {
            let original = rng.bytes(len);
            let mut bytes = original.clone();
            rng.mutate(&mut bytes);
            changed += usize::from(bytes != original);
        }
        assert!(changed > 150, "{changed}");
    }

    #[test]
    fn seeds_are_decimal_or_hexadecimal() {
        assert_eq!(parse_seed("17"), Some(17));
        assert_eq!(parse_seed("0x11"), Some(17));
        assert_eq!(parse_seed("seventeen"), None);
        assert_eq!(parse_seed("18446744073709551615"), None);
    }
}
