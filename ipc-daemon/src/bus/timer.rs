//! When the broker wants to be asked about its deadlines.
//!
//! One kernel timer on the clock of the bus, which goes on while the machine sleeps; the runtime's own timers stop then.
//! It is set again only for a deadline that is earlier than the one it is set to: calls that end in time never touch
//! it, and when it expires for a deadline that is gone, that is found out then.

use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use ipc_core::time::Instant;
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

/// The timer.
#[derive(Debug)]
pub(crate) struct Timer {
    fd: OwnedFd,
    armed: Cell<Option<Instant>>,
}

impl Timer {
    /// A timer that is set to nothing.
    ///
    /// # Errors
    /// Those of timerfd_create(2).
    pub(crate) fn new() -> Result<Self, Errno> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = rustix::time::timerfd_create(TimerfdClockId::Boottime, flags)?;
        Ok(Self { fd, armed: Cell::new(None) })
    }

    /// Sees to it that the timer expires at `timeout` or before.
    pub(crate) fn arm(&self, timeout: Option<Instant>) {
        let Some(timeout) = timeout else { return };
        if self.armed.get().is_some_and(|armed| armed <= timeout) {
            return;
        }
        self.armed.set(Some(timeout));
        // Zero would switch the timer off; a moment long past expires at once all the same.
        let nanoseconds = timeout.as_nanos().max(1);
        let value = Timespec {
            tv_sec: i64::try_from(nanoseconds / 1_000_000_000).unwrap_or(i64::MAX),
            // Below a thousand million, which fits.
            tv_nsec: (nanoseconds % 1_000_000_000) as _,
        };
        let never_again = Timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = Itimerspec { it_interval: never_again, it_value: value };
        let result = rustix::time::timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &setting);
        assert!(result.is_ok(), "a timer takes every valid time: {result:?}");
    }

    /// Takes note that the timer has expired. False when it has not.
    pub(crate) fn expired(&self) -> bool {
        let mut count = [0; 8];
        let is_expired = rustix::io::read(&self.fd, &mut count).is_ok();
        if is_expired {
            self.armed.set(None);
        }
        is_expired
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use ipc_core::transport::clock;
    use rustix::event::{PollFd, PollFlags, poll};

    fn wait(timer: &Timer) {
        let ten_seconds = Timespec { tv_sec: 10, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&timer.fd, PollFlags::IN)], Some(&ten_seconds));
        assert_eq!(ready, Ok(1), "the timer has not expired");
    }

    #[test]
    fn it_expires_and_can_be_set_again() {
        let timer = Timer::new().unwrap();
        assert!(!timer.expired());
        timer.arm(None);
        for _ in 0..2 {
            timer.arm(Some(clock::now() + Duration::from_millis(1)));
            wait(&timer);
            assert!(timer.expired());
            assert!(!timer.expired());
        }
    }

    #[test]
    fn an_earlier_deadline_wins_and_a_later_one_changes_nothing() {
        let timer = Timer::new().unwrap();
        let hour = clock::now() + Duration::from_secs(3600);
        timer.arm(Some(hour));
        timer.arm(Some(hour + Duration::from_secs(1)));
        assert_eq!(timer.armed.get(), Some(hour));
        timer.arm(Some(clock::now()));
        wait(&timer);
    }

    #[test]
    fn a_moment_long_past_expires_at_once() {
        let timer = Timer::new().unwrap();
        timer.arm(Some(Instant::from_nanos(0)));
        wait(&timer);
        assert!(timer.expired());
    }
}
