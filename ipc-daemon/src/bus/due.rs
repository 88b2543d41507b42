//! Whether writes are due, and who makes them.
//!
//! When several sockets have input at the same moment, their batches come one after the other before the event loop looks at
//! its sockets again. A peer that all of them send to had better be written to once, after the last: it is woken once, and
//! answers them together. So a batch leaves its writes to a task that runs behind all who have input already; only when much
//! has come together are they made at once.

use std::cell::{Cell, RefCell};
use std::task::Waker;

/// So many bytes of input are worth writes of their own.
const MUCH_BYTES: usize = 64 * 1024;

/// What batches have left.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// Bytes of input since the last writes; `None` when nothing is left to write.
    bytes: Cell<Option<usize>>,
    /// Somebody looks in this turn of the loop without being woken.
    is_attended: Cell<bool>,
    writer: RefCell<Option<Waker>>,
}

impl Due {
    /// Takes note of a batch. Says whether the writes are to be made now; otherwise somebody will.
    pub(crate) fn is_much_with(&self, bytes: usize) -> bool {
        let before = self.bytes.get();
        let sum = before.unwrap_or(0) + bytes;
        if sum >= MUCH_BYTES {
            self.bytes.set(None);
            return true;
        }
        self.bytes.set(Some(sum));
        if before.is_none() && !self.is_attended.get() {
            match &*self.writer.borrow() {
                Some(writer) => writer.wake_by_ref(),
                // Nobody writes for others yet.
                None => {
                    self.bytes.set(None);
                    return true;
                }
            }
        }
        false
    }

    /// All writes are made, or are about to be. Says whether there were any.
    pub(crate) fn done(&self) -> bool {
        self.bytes.take().is_some()
    }

    /// Remembers who writes.
    pub(crate) fn attend(&self, waker: &Waker) {
        let mut writer = self.writer.borrow_mut();
        if !writer.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *writer = Some(waker.clone());
        }
    }

    /// Whether somebody looks in every turn of the loop.
    pub(crate) fn is_attended(&self) -> bool {
        self.is_attended.get()
    }

    /// Whether somebody looks in every turn of the loop, behind all who have input, and need not be woken.
    pub(crate) fn set_attended(&self, is_attended: bool) {
        self.is_attended.set(is_attended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn small_batches_are_left_to_one_writer_and_much_is_written_at_once() {
        let due = Due::default();
        assert!(due.is_much_with(1), "nobody would write it");
        assert!(!due.done());
        let count = Arc::new(Count(AtomicU32::new(0)));
        due.attend(&Waker::from(Arc::clone(&count)));
        assert!(!due.is_much_with(0) && !due.is_much_with(MUCH_BYTES - 1));
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "woken with the first");
        assert!(due.is_much_with(1));
        assert!(!due.done(), "that was all of it");
        due.set_attended(true);
        assert!(!due.is_much_with(1));
        assert!(due.done() && !due.done());
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "somebody looks anyway");
    }
}
