//! Watches over service names.

use std::collections::VecDeque;

use crate::limits::NAME_EVENTS_QUEUED_MAX;
use crate::wire::message::WatchNames;

use super::event::{NameEvent, Ticket};

#[derive(Debug)]
pub(super) struct Watch {
    /// What was asked for, to ask again after a restart.
    pub(super) request: WatchNames,
    /// Who waits for the answer to the `watch_names`.
    pub(super) ticket: Option<Ticket>,
    queue: VecDeque<NameEvent>,
    /// It has overflowed, here or at the daemon, and gives nothing more.
    ended: bool,
}

impl Watch {
    pub(super) fn new(request: WatchNames, ticket: Ticket) -> Self {
        Self { request, ticket: Some(ticket), queue: VecDeque::new(), ended: false }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// The connection is gone; says whether there is something to take where there was nothing.
    pub(super) fn restart(&mut self) -> bool {
        self.ticket = None;
        if self.ended {
            return false;
        }
        // What waits speaks of a bus that is gone.
        let was_empty = self.queue.is_empty();
        self.queue.clear();
        self.queue.push_back(NameEvent::Restarted);
        was_empty
    }

    /// A change has come; says whether there is something to take where there was nothing.
    pub(super) fn push(&mut self, event: NameEvent) -> bool {
        if self.ended {
            return false;
        }
        let was_empty = self.queue.is_empty();
        let fits = self.queue.len() < NAME_EVENTS_QUEUED_MAX;
        if !fits {
            self.queue.clear();
        }
        let event = if fits { event } else { NameEvent::Overflowed };
        self.ended = matches!(event, NameEvent::Overflowed);
        self.queue.push_back(event);
        was_empty
    }

    pub(super) fn pop(&mut self) -> Option<NameEvent> {
        self.queue.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerId;
    use crate::identity::{Identity, Peer};
    use crate::name::ServiceName;
    use crate::wire::message::NameChange;

    fn change() -> NameEvent {
        NameEvent::Changed {
            service: ServiceName::parse("a.b").unwrap(),
            change: NameChange::Acquired,
            peer: Peer { id: PeerId(1), identity: Identity::Local { uid: 0, gid: 0, pid: 0 } },
        }
    }

    fn watch() -> Watch {
        let ticket = Ticket(super::super::slab::Key::from_bits(1 << 32));
        Watch::new(WatchNames { filter: ">".into() }, ticket)
    }

    #[test]
    fn past_its_bound_a_watch_ends_and_says_so() {
        let mut watch = watch();
        for _ in 0..NAME_EVENTS_QUEUED_MAX {
            watch.push(change());
        }
        assert!(!watch.is_ended());
        watch.push(change());
        assert!(watch.is_ended());
        assert!(!watch.push(change()));
        assert_eq!(watch.pop(), Some(NameEvent::Overflowed));
        assert_eq!(watch.pop(), None);
    }

    #[test]
    fn a_restart_makes_what_was_known_stale() {
        let mut watch = watch();
        assert!(watch.push(change()));
        assert!(!watch.restart());
        assert_eq!(watch.pop(), Some(NameEvent::Restarted));
        assert_eq!(watch.pop(), None);
    }
}
