//! PURE. A point in time that code without a clock is given.

use core::ops::{Add, Sub};
use core::time::Duration;

/// Nanoseconds of the boot-time clock (`CLOCK_BOOTTIME`), which goes on during suspend and never jumps.
///
/// PURE code receives it as a parameter; only shells read a clock. It never travels: remaining durations do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The instant `nanoseconds` after boot.
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since boot.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`, zero if `earlier` is later.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

/// A duration in microseconds, as it travels and is kept; one that is not zero stays so.
pub fn whole_micros(duration: Duration) -> u64 {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    if duration.is_zero() { 0 } else { micros.max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        let start = Instant::from_nanos(10);
        assert_eq!(start + Duration::MAX, Instant::from_nanos(u64::MAX));
        assert_eq!(start.since(Instant::from_nanos(11)), Duration::ZERO);
        assert_eq!((start + Duration::from_nanos(5)) - start, Duration::from_nanos(5));
    }

    #[test]
    fn what_is_not_nothing_does_not_become_nothing() {
        for (nanos, micros) in [(0, 0), (1, 1), (999, 1), (1000, 1), (2999, 2)] {
            assert_eq!(whole_micros(Duration::from_nanos(nanos)), micros);
        }
        assert_eq!(whole_micros(Duration::MAX), u64::MAX);
    }
}
