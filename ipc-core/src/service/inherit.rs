//! The deadline that calls made while serving a call inherit from it.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::time::Instant;

thread_local! {
    /// The deadline of the call whose handler is being polled on this thread.
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The deadline of the call that is being served here, if there is one.
pub(crate) fn inherited_deadline() -> Option<Instant> {
    DEADLINE.get()
}

/// Polls `future` with `deadline` as the one to inherit, whichever task and thread that happens on.
pub(super) fn poll_inheriting<F: Future + ?Sized>(
    future: Pin<&mut F>,
    deadline: Option<Instant>,
    cx: &mut Context<'_>,
) -> Poll<F::Output> {
    let before = Restore(DEADLINE.replace(deadline));
    let polled = future.poll(cx);
    drop(before);
    polled
}

/// Puts the deadline back, even when a handler panics.
struct Restore(Option<Instant>);

impl Drop for Restore {
    fn drop(&mut self) {
        DEADLINE.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Waker;

    #[test]
    fn only_what_is_polled_inside_inherits() {
        let mut cx = Context::from_waker(Waker::noop());
        let deadline = Some(Instant::from_nanos(7));
        let seen = poll_inheriting(pin!(async { inherited_deadline() }), deadline, &mut cx);
        assert_eq!(seen, Poll::Ready(deadline));
        assert_eq!(inherited_deadline(), None);
    }

    #[test]
    fn a_panic_does_not_leave_a_deadline_behind() {
        let caught = std::panic::catch_unwind(|| {
            let mut cx = Context::from_waker(Waker::noop());
            let deadline = Some(Instant::from_nanos(7));
            poll_inheriting(pin!(async { panic!("as tested") }), deadline, &mut cx)
        });
        assert!(caught.is_err());
        assert_eq!(inherited_deadline(), None);
    }
}
