//! The sockets that are open on behalf of a bridge, for `ipc-cli sockets`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::{Rc, Weak};

use crate::admin::{Held, HeldSocket};

/// Sockets by descriptor, for as long as they are somebody's; a number that is used again stands for its latest.
#[derive(Default)]
pub(super) struct OpenSockets(RefCell<BTreeMap<RawFd, Weak<dyn AsFd>>>);

impl OpenSockets {
    /// Takes note of a socket.
    pub(super) fn note<T: AsFd + 'static>(&self, socket: &Rc<T>) {
        let number = socket.as_fd().as_raw_fd();
        let socket: Rc<dyn AsFd> = Rc::<T>::clone(socket);
        self.0.borrow_mut().insert(number, Rc::downgrade(&socket));
    }

    /// Those that are still open, all for the same purpose.
    pub(super) fn held(&self, role: &'static str) -> Vec<HeldSocket> {
        let mut open = self.0.borrow_mut();
        open.retain(|_, socket| socket.strong_count() > 0);
        let sockets = open.values().filter_map(Weak::upgrade).map(Held::Plain);
        sockets.map(|socket| HeldSocket { role, peer: None, socket }).collect()
    }
}
