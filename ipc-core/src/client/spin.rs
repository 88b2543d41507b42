//! Polling before parking: looking again for a moment before the task goes to sleep.

use std::time::Duration;

use crate::time::Instant;

/// How long a task looks again before it sleeps. Sleeping and waking across processors costs about as much.
const WINDOW: Duration = Duration::from_micros(50);
/// Vain windows in a row after which polling pauses.
const MISSES_MAX: u32 = 4;
/// The longest pause, in waits.
const PAUSE_MAX_WAITS: u32 = 1024;

/// Whether to look again, learned from how it went.
///
/// Each vain window costs 50 us of processor time, so after a few of them in a row polling pauses, for ever more waits:
/// an application whose answers take long pays for one window in a thousand waits.
#[derive(Debug)]
pub(super) struct Spin {
    enabled: bool,
    until: Option<Instant>,
    misses: u32,
    pause_waits: u32,
}

impl Spin {
    pub(super) fn new(enabled: bool) -> Self {
        Self { enabled, until: None, misses: 0, pause_waits: 0 }
    }

    /// Something was written or read, and now there is nothing more: a wait begins.
    pub(super) fn begin(&mut self, now: Instant) {
        if !self.enabled || self.until.is_some() {
            return;
        }
        if self.pause_waits > 0 {
            self.pause_waits -= 1;
            return;
        }
        self.until = Some(now + WINDOW);
    }

    /// Whether a window is open.
    pub(super) fn is_open(&self) -> bool {
        self.until.is_some()
    }

    /// What was waited for has come.
    pub(super) fn hit(&mut self) {
        if self.until.take().is_some() {
            self.misses = 0;
        }
    }

    /// It has not come yet; says whether to look again.
    pub(super) fn look_again(&mut self, now: Instant) -> bool {
        match self.until {
            Some(until) if now < until => true,
            Some(_) => {
                self.miss();
                false
            }
            None => false,
        }
    }

    /// The window is over for another reason than time.
    pub(super) fn cancel(&mut self) {
        self.until = None;
    }

    fn miss(&mut self) {
        self.until = None;
        self.misses = self.misses.saturating_add(1);
        if self.misses >= MISSES_MAX {
            let doublings = (self.misses - MISSES_MAX).min(31);
            self.pause_waits = 1_u32
                .checked_shl(doublings)
                .map_or(PAUSE_MAX_WAITS, |waits| waits.saturating_mul(8).min(PAUSE_MAX_WAITS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until the `n`th window is open, each of them in vain, and says how many waits that took.
    fn waits_for_window(spin: &mut Spin) -> u32 {
        let start = Instant::from_nanos(0);
        let mut waits = 0;
        loop {
            waits += 1;
            spin.begin(start);
            if spin.is_open() {
                assert!(spin.look_again(start));
                assert!(!spin.look_again(start + WINDOW));
                return waits;
            }
        }
    }

    #[test]
    fn vain_windows_become_rare_and_never_stop() {
        let mut spin = Spin::new(true);
        let waits: Vec<u32> = (0..16).map(|_| waits_for_window(&mut spin)).collect();
        assert_eq!(waits[..6], [1, 1, 1, 1, 9, 17]);
        assert_eq!(waits[15], PAUSE_MAX_WAITS + 1);
    }

    #[test]
    fn one_success_brings_it_back() {
        let mut spin = Spin::new(true);
        for _ in 0..8 {
            waits_for_window(&mut spin);
        }
        while !spin.is_open() {
            spin.begin(Instant::from_nanos(0));
        }
        spin.hit();
        assert_eq!([waits_for_window(&mut spin), waits_for_window(&mut spin)], [1, 1]);
    }

    #[test]
    fn switched_off_there_is_no_window() {
        let mut spin = Spin::new(false);
        spin.begin(Instant::from_nanos(0));
        assert!(!spin.is_open() && !spin.look_again(Instant::from_nanos(0)));
    }
}
