//! Replies that network clients have not read yet, and who is given up when they become too many.
//!
//! The clients of all ports are one principal, so they share what a principal may have queued. When that is not enough, whoever has
//! not read for longest is given up: a client that does not read costs others like it, and nobody who reads.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::Waker;

/// What the clients of all ports have not read.
#[derive(Debug, Default)]
pub(super) struct Unread {
    total_bytes: Cell<usize>,
    holdings: RefCell<BTreeMap<u64, Rc<Holding>>>,
    /// Clients that there have been.
    clients: Cell<u64>,
    /// Reads, and replies that were there to be read, so far: what counts is who came first.
    moments: Cell<u64>,
}

/// What one of them has not read.
#[derive(Debug, Default)]
struct Holding {
    bytes: Cell<usize>,
    /// When it read last, or had something to read again.
    moment: Cell<u64>,
    is_given_up: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

/// A client's part in it. Dropping it gives everything back.
#[derive(Debug)]
pub(super) struct Part {
    unread: Rc<Unread>,
    number: u64,
    holding: Rc<Holding>,
}

impl Unread {
    fn moment(&self) -> u64 {
        self.moments.set(self.moments.get() + 1);
        self.moments.get()
    }

    fn subtract(&self, holding: &Holding, bytes: usize) {
        let bytes = bytes.min(holding.bytes.get());
        holding.bytes.set(holding.bytes.get() - bytes);
        self.total_bytes.set(self.total_bytes.get() - bytes);
    }

    /// Gives up one after the other, whoever has not read for longest first, until it is enough or none but `newest` is left.
    fn make_room(&self, max_bytes: usize, newest: u64) {
        let holdings = self.holdings.borrow();
        while self.total_bytes.get() > max_bytes {
            let holders = holdings.iter().filter(|(number, held)| **number != newest && held.bytes.get() > 0);
            let Some((_, eldest)) = holders.min_by_key(|(_, held)| held.moment.get()) else { return };
            self.subtract(eldest, usize::MAX);
            eldest.is_given_up.set(true);
            if let Some(task) = eldest.task.borrow_mut().take() {
                task.wake();
            }
        }
    }
}

impl Part {
    /// A client that has nothing to read yet.
    pub(super) fn new(unread: &Rc<Unread>) -> Self {
        let number = unread.clients.get();
        unread.clients.set(number + 1);
        let holding = Rc::<Holding>::default();
        unread.holdings.borrow_mut().insert(number, Rc::clone(&holding));
        Self { unread: Rc::clone(unread), number, holding }
    }

    /// So many bytes more are there for it to read, of which all together may have `max_bytes`; one alone may have more.
    pub(super) fn add(&self, bytes: usize, max_bytes: usize) {
        self.holding.bytes.set(self.holding.bytes.get() + bytes);
        self.holding.moment.set(self.unread.moment());
        self.unread.total_bytes.set(self.unread.total_bytes.get() + bytes);
        self.unread.make_room(max_bytes, self.number);
    }

    /// It has read so many.
    pub(super) fn read(&self, bytes: usize) {
        self.unread.subtract(&self.holding, bytes);
        self.holding.moment.set(self.unread.moment());
    }

    /// Remembers whom to wake when it is given up.
    pub(super) fn attend(&self, waker: &Waker) {
        let mut task = self.holding.task.borrow_mut();
        if !task.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *task = Some(waker.clone());
        }
    }

    /// Whether it was given up, for the sake of others.
    pub(super) fn is_given_up(&self) -> bool {
        self.holding.is_given_up.get()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.unread.subtract(&self.holding, usize::MAX);
        self.unread.holdings.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_not_read_for_longest_is_given_up() {
        let unread = Rc::<Unread>::default();
        let [deaf, slow, last] = [(); 3].map(|()| Part::new(&unread));
        let given_up = || [&deaf, &slow, &last].map(Part::is_given_up);
        slow.add(40, 100);
        deaf.add(40, 100);
        slow.read(1);
        last.add(21, 100);
        assert_eq!(given_up(), [false; 3], "that is just enough for all");
        last.read(21);
        last.add(22, 100);
        assert_eq!(given_up(), [true, false, false], "the one that had something first has read since");
        assert_eq!(unread.total_bytes.get(), 61);
        last.add(1000, 100);
        assert_eq!(given_up(), [true, true, false], "one alone may have more");
        deaf.read(40);
        drop((deaf, slow));
        assert_eq!(unread.total_bytes.get(), 1022);
        drop(last);
        assert_eq!((unread.total_bytes.get(), unread.holdings.borrow().len()), (0, 0));
    }
}
