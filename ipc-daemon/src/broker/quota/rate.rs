//! How often somebody connects.

use core::time::Duration;
use std::collections::BTreeMap;

use ipc_core::time::Instant;

use super::Payer;

/// Most payers whose rate is kept; past it those are forgotten who have not come for a second.
const RATES_MAX: usize = 1024;
const SECOND: Duration = Duration::from_secs(1);

/// When somebody could come again if everybody came at an even pace.
#[derive(Debug, Default)]
pub(super) struct Rates {
    due: BTreeMap<Payer, Instant>,
}

impl Rates {
    /// Whether `payer` may come once more at `now`, with at most `per_second` in a second, all of which may come at once.
    pub(super) fn take(&mut self, now: Instant, payer: &Payer, per_second: u32) -> bool {
        let pace = SECOND / per_second.max(1);
        let due = self.due.get(payer).copied().unwrap_or(now).max(now);
        if due + pace > now + SECOND {
            return false;
        }
        if self.due.len() >= RATES_MAX {
            self.due.retain(|_, due| *due > now);
        }
        if self.due.len() < RATES_MAX || self.due.contains_key(payer) {
            self.due.insert(payer.clone(), due + pace);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_may_come_at_once_as_in_a_second_and_then_at_that_pace() {
        let mut rates = Rates::default();
        let (start, one) = (Instant::from_nanos(5_000_000_000), Payer::Uid(1));
        for count in 1..=12 {
            assert_eq!(rates.take(start, &one, 10), count <= 10, "{count}");
        }
        assert!(rates.take(start, &Payer::Uid(2), 10), "each has a rate of its own");
        let later = start + Duration::from_millis(100);
        assert!(rates.take(later, &one, 10) && !rates.take(later, &one, 10));
        assert!(rates.take(later + SECOND * 100, &one, 1) && !rates.take(later + SECOND * 100, &one, 1));
    }

    #[test]
    fn whoever_has_not_come_for_long_is_forgotten() {
        let mut rates = Rates::default();
        let start = Instant::from_nanos(0);
        for uid in 0..5_000 {
            let now = start + Duration::from_millis(u64::from(uid) * 10);
            assert!(rates.take(now, &Payer::Uid(uid), 1));
        }
        assert!(rates.due.len() <= RATES_MAX);
    }
}
