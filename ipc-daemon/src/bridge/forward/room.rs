//! The memory that the replies of one forward may take while they arrive.

use core::cell::Cell;
use std::rc::Rc;

use ipc_core::Error;

/// What one exchange has taken of it; dropping this gives it back.
pub(super) struct Room {
    used: Rc<Cell<usize>>,
    max: usize,
    own: usize,
}

impl Room {
    /// Nothing, of at most `max` bytes of which `used` are taken.
    pub(super) fn new(used: &Rc<Cell<usize>>, max: usize) -> Self {
        Self { used: Rc::clone(used), max, own: 0 }
    }

    /// Takes more.
    ///
    /// # Errors
    /// `quota_exceeded` when it is not there.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Error> {
        let total = self.used.get() + bytes;
        if total > self.max {
            return Err(Error::quota("forward_pending_max_bytes", self.max as u64)
                .with_hint("call again when other calls of this forward have been answered"));
        }
        self.used.set(total);
        self.own += bytes;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.used.set(self.used.get() - self.own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_byte_fits_and_the_next_does_not_until_one_is_given_back() {
        let used = Rc::new(Cell::new(0));
        let mut first = Room::new(&used, 10);
        let mut second = Room::new(&used, 10);
        first.take(9).unwrap();
        second.take(1).unwrap();
        assert!(second.take(1).is_err());
        drop(first);
        second.take(9).unwrap();
        drop(second);
        assert_eq!(used.get(), 0);
    }
}
