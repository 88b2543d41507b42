//! The deadline of the call that this thread is serving, which calls made meanwhile inherit.

use std::cell::Cell;
use std::time::Duration;

use crate::time::Instant;
use crate::transport::clock;

thread_local! {
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Sets the deadline for as long as it lives, and puts the one before back.
#[derive(Debug)]
pub(super) struct Serving {
    before: Option<Instant>,
}

impl Serving {
    pub(super) fn until(deadline: Option<Instant>) -> Self {
        Self { before: DEADLINE.replace(deadline) }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        DEADLINE.set(self.before);
    }
}

/// When the call that this thread is serving ends, if it is serving one that does.
pub(super) fn deadline() -> Option<Instant> {
    DEADLINE.get()
}

/// What is left for whoever serves the call at hand; `None` without a deadline.
///
/// For work that is no call on the bus, such as a query to a database, to be bounded in the same way.
pub fn remaining() -> Option<Duration> {
    deadline().map(|deadline| deadline.since(clock::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_nest() {
        assert_eq!(deadline(), None);
        let outer = Instant::from_nanos(10);
        let _outer = Serving::until(Some(outer));
        {
            let _inner = Serving::until(None);
            assert_eq!(remaining(), None);
        }
        assert_eq!(deadline(), Some(outer));
        assert_eq!(remaining(), Some(Duration::ZERO));
    }
}
