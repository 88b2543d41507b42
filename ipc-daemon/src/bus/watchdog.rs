//! Signs of life for a service manager, given by the bus itself.
//!
//! A sign is due once in each interval and is given at the end of a turn: so a bus that takes no turns gives none, however
//! well the rest of the process does. To have a turn when nothing else happens, the next sign counts as a deadline.

use core::time::Duration;
use std::cell::Cell;

use ipc_core::time::Instant;

/// Gives a sign of life at the end of every turn in which one is due.
pub(crate) struct Watchdog {
    interval: Duration,
    due: Cell<Instant>,
    give: Box<dyn Fn()>,
}

impl Watchdog {
    /// Gives a sign with `give`, which must not wait, every `interval` from the first turn on.
    pub(crate) fn new(interval: Duration, give: impl Fn() + 'static) -> Self {
        Self { interval, due: Cell::new(Instant::from_nanos(0)), give: Box::new(give) }
    }

    /// A turn has ended.
    pub(super) fn turned(&self, now: Instant) {
        if now >= self.due.get() {
            self.due.set(now + self.interval);
            (self.give)();
        }
    }

    /// When the next sign is due.
    pub(super) fn due(&self) -> Instant {
        self.due.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn a_sign_is_given_by_a_turn_that_is_due_and_by_no_other() {
        let given = Rc::new(Cell::new(0));
        let count = Rc::clone(&given);
        let second = Duration::from_secs(1);
        let watchdog = Watchdog::new(second, move || count.set(count.get() + 1));
        let start = Instant::from_nanos(5);
        for (now, signs) in [
            (start, 1),
            (start, 1),
            (start + second / 2, 1),
            (start + second, 2),
            (start + second * 10, 3),
            (start + second * 10, 3),
        ] {
            watchdog.turned(now);
            assert_eq!(given.get(), signs, "{now:?}");
        }
        assert_eq!(watchdog.due(), start + second * 11);
    }
}
