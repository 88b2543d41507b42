//! How often a line that a peer can cause is written to the log.

use core::time::Duration;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use ipc_core::time::Instant;
use ipc_core::transport::clock;

/// Lines at once before the rate counts.
const BURST: u32 = 10;
/// Time in which one more line becomes free.
const REFILL: Duration = Duration::from_secs(1);

/// Most who have a rate of their own; past it all begin anew.
const RATES_MAX: usize = 1024;

/// A token bucket that counts what it holds back.
#[derive(Debug)]
pub(crate) struct RateLimit {
    tokens: Cell<u32>,
    refilled: Cell<Instant>,
    held_back: Cell<u64>,
}

impl RateLimit {
    /// A full bucket.
    pub(crate) fn new(now: Instant) -> Self {
        Self { tokens: Cell::new(BURST), refilled: Cell::new(now), held_back: Cell::new(0) }
    }

    /// Writes a line that a peer has caused, unless there were too many of late. `write` is told how many were held back.
    pub(crate) fn line(&self, write: impl FnOnce(u64)) {
        if let Some(held_back) = self.allow(clock::now()) {
            write(held_back);
        }
    }

    /// Whether a line may be written; then with the number of lines held back since the last one that was.
    pub(crate) fn allow(&self, now: Instant) -> Option<u64> {
        let passed = (now - self.refilled.get()).as_nanos() / REFILL.as_nanos();
        if passed > 0 {
            let more = u32::try_from(passed).unwrap_or(BURST);
            self.tokens.set(self.tokens.get().saturating_add(more).min(BURST));
            self.refilled.set(now);
        }
        match self.tokens.get().checked_sub(1) {
            Some(left) => {
                self.tokens.set(left);
                Some(self.held_back.take())
            }
            None => {
                self.held_back.set(self.held_back.get() + 1);
                None
            }
        }
    }
}

/// A rate for each who causes lines, so that nobody's noise hides what another does.
#[derive(Debug, Default)]
pub(crate) struct Rates(RefCell<BTreeMap<String, RateLimit>>);

impl Rates {
    /// As [`RateLimit::allow`], for a line that `who` has caused.
    pub(crate) fn allow(&self, who: String, now: Instant) -> Option<u64> {
        let mut rates = self.0.borrow_mut();
        if rates.len() >= RATES_MAX && !rates.contains_key(&who) {
            rates.clear();
        }
        rates.entry(who).or_insert_with(|| RateLimit::new(now)).allow(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_held_back_and_counted() {
        let start = Instant::from_nanos(5);
        let limit = RateLimit::new(start);
        for _ in 0..BURST {
            assert_eq!(limit.allow(start), Some(0));
        }
        for _ in 0..100 {
            assert_eq!(limit.allow(start), None);
        }
        assert_eq!(limit.allow(start + REFILL), Some(100));
        assert_eq!(limit.allow(start + REFILL), None);
        let later = start + REFILL * 1_000_000;
        assert_eq!(limit.allow(later), Some(1));
        for _ in 1..BURST {
            assert_eq!(limit.allow(later), Some(0));
        }
        assert_eq!(limit.allow(later), None);
    }

    #[test]
    fn nobody_is_held_back_for_the_noise_of_another() {
        let (rates, now) = (Rates::default(), Instant::from_nanos(5));
        while rates.allow("loud".to_owned(), now).is_some() {}
        assert_eq!(rates.allow("quiet".to_owned(), now), Some(0));
        for number in 0..2 * RATES_MAX {
            rates.allow(number.to_string(), now);
        }
        assert!(rates.0.borrow().len() <= RATES_MAX);
    }
}
