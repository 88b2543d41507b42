//! What the policy has refused of late, until the shell has written it down.

use std::collections::VecDeque;

use ipc_core::Error;
use ipc_core::identity::Peer as PeerIdentity;

/// Most that wait to be written down; of a flood in one batch the rest is counted.
const WAITING_MAX: usize = 32;

/// A refusal by the policy.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Who was refused, verified.
    pub who: PeerIdentity,
    /// What it was refused, and why.
    pub message: String,
    /// Refusals before this one that there was no room for.
    pub untold: u64,
}

#[derive(Debug, Default)]
pub(super) struct Refusals {
    waiting: VecDeque<Refusal>,
    untold: u64,
}

impl Refusals {
    pub(super) fn note(&mut self, who: &PeerIdentity, error: &Error) {
        if self.waiting.len() >= WAITING_MAX {
            self.untold += 1;
            return;
        }
        let untold = core::mem::take(&mut self.untold);
        self.waiting.push_back(Refusal { who: who.clone(), message: error.message.clone(), untold });
    }

    pub(super) fn take(&mut self) -> Option<Refusal> {
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_core::ErrorCode;
    use ipc_core::id::PeerId;
    use ipc_core::identity::Identity;

    #[test]
    fn a_flood_is_counted_and_not_kept() {
        let who = PeerIdentity { id: PeerId(1), identity: Identity::Local { uid: 1, gid: 1, pid: 1 } };
        let error = Error::new(ErrorCode::PermissionDenied, "no");
        let mut refusals = Refusals::default();
        for _ in 0..WAITING_MAX + 5 {
            refusals.note(&who, &error);
        }
        for _ in 0..WAITING_MAX {
            assert_eq!(refusals.take().unwrap().untold, 0);
        }
        assert!(refusals.take().is_none());
        refusals.note(&who, &error);
        assert_eq!(refusals.take().unwrap().untold, 5);
    }
}
