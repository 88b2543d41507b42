//! The clock of the bus.

use nix::time::{ClockId, clock_gettime};

use crate::time::Instant;

/// The time since boot, from `CLOCK_BOOTTIME`.
///
/// It goes on while the machine sleeps, so a deadline that passed during suspend has passed; it never jumps when the
/// wall clock is set. Read through the vDSO, without a system call, some 30 ns. A time namespace shifts it, which is
/// why instants never travel between processes: remaining durations do.
pub fn now() -> Instant {
    // Linux has had this clock since 2.6.39, so asking for it cannot fail; and its fields are never negative.
    let Ok(time) = clock_gettime(ClockId::CLOCK_BOOTTIME) else { return Instant::from_nanos(0) };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
    Instant::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_run_backwards() {
        let mut earlier = now();
        assert!(earlier.as_nanos() > 0);
        for _ in 0..1000 {
            let later = now();
            assert!(later >= earlier);
            earlier = later;
        }
    }
}
