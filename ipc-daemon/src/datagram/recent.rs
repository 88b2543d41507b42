//! Which one-way requests have come: a window over their numbers that takes the same room whatever comes.

/// Numbers below the highest one that are told apart.
const SPAN: u64 = 256;
const WORDS: usize = (SPAN / 64) as usize;

/// The numbers that came last (as in RFC 6479).
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    highest: u64,
    seen: [u64; WORDS],
}

/// What a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The highest so far; so many were left out before it.
    Next {
        /// How many.
        left_out: u64,
    },
    /// Behind a higher one, for the first time.
    Reordered,
    /// It has come before.
    Doubled,
    /// Too far behind to know.
    Late,
}

impl Recent {
    /// Takes note of a number.
    pub(super) fn note(&mut self, number: u64) -> Arrival {
        if number > self.highest {
            let ahead = number - self.highest;
            for passed in 1..=ahead.min(SPAN) {
                self.clear(self.highest.wrapping_add(passed));
            }
            self.highest = number;
            self.set(number);
            return Arrival::Next { left_out: ahead - 1 };
        }
        if self.highest - number >= SPAN {
            return Arrival::Late;
        }
        if self.has(number) {
            return Arrival::Doubled;
        }
        self.set(number);
        Arrival::Reordered
    }

    fn place(number: u64) -> (usize, u64) {
        let at = number % SPAN;
        ((at / 64) as usize, 1 << (at % 64))
    }

    fn has(&self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        self.seen[word] & bit != 0
    }

    fn set(&mut self, number: u64) {
        let (word, bit) = Self::place(number);
        self.seen[word] |= bit;
    }

    fn clear(&mut self, number: u64) {
        let (word, bit) = Self::place(number);
        self.seen[word] &= !bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_new_once() {
        let mut recent = Recent::default();
        assert_eq!(recent.note(1), Arrival::Next { left_out: 0 });
        assert_eq!(recent.note(5), Arrival::Next { left_out: 3 });
        assert_eq!(recent.note(3), Arrival::Reordered);
        for doubled in [1, 3, 5] {
            assert_eq!(recent.note(doubled), Arrival::Doubled);
        }
    }

    #[test]
    fn the_window_has_its_span() {
        for (behind, arrival) in
            [(SPAN - 2, Arrival::Reordered), (SPAN - 1, Arrival::Reordered), (SPAN, Arrival::Late)]
        {
            let mut recent = Recent::default();
            recent.note(10_000);
            assert_eq!(recent.note(10_000 - behind), arrival, "{behind}");
        }
        let mut recent = Recent::default();
        recent.note(1);
        assert_eq!(recent.note(u64::MAX), Arrival::Next { left_out: u64::MAX - 2 });
        assert_eq!(recent.note(u64::MAX - 1), Arrival::Reordered);
        assert_eq!(recent.note(0), Arrival::Late);
    }
}
