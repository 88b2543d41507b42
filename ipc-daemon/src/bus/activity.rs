//! Whether anything happened on the bus, for whoever decides to sleep.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Counts turns, and wakes the one who waits for the next.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    turns: Cell<u64>,
    /// Turns that go by before the waiter is woken.
    ignored: Cell<u32>,
    waiter: RefCell<Option<Waker>>,
}

impl Activity {
    /// Takes note of a turn.
    pub(crate) fn note(&self) {
        self.turns.set(self.turns.get().wrapping_add(1));
        match self.ignored.get().checked_sub(1) {
            Some(fewer) => self.ignored.set(fewer),
            None => {
                if let Some(waiter) = self.waiter.borrow_mut().take() {
                    waiter.wake();
                }
            }
        }
    }

    /// A number that differs from the last one when anything happened between.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.get()
    }

    /// Waits for the first turn after those that are to be ignored. Cancel safe; one waiter at a time.
    pub(crate) async fn next(&self, ignored: u32) {
        let seen = self.turns.get();
        self.ignored.set(ignored);
        poll_fn(|context| {
            if self.turns.get().wrapping_sub(seen) > u64::from(ignored) {
                return Poll::Ready(());
            }
            *self.waiter.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::{Context, Wake};

    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_waiter_is_woken_once_and_after_the_ignored_turns() {
        for ignored in [0, 1, 5] {
            let count = Arc::new(Count(AtomicU32::new(0)));
            let waker = Waker::from(Arc::clone(&count));
            let mut context = Context::from_waker(&waker);
            let activity = Activity::default();
            activity.note();
            let mut next = pin!(activity.next(ignored));
            assert!(next.as_mut().poll(&mut context).is_pending());
            for _ in 0..ignored {
                activity.note();
                assert!(next.as_mut().poll(&mut context).is_pending());
            }
            assert_eq!(count.0.load(Ordering::Relaxed), 0);
            activity.note();
            activity.note();
            assert_eq!(count.0.load(Ordering::Relaxed), 1, "{ignored} ignored");
            assert!(next.as_mut().poll(&mut context).is_ready());
        }
    }
}
