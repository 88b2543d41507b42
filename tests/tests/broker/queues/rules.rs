//! The users of work queues, and rules that keep one of them from one queue.

use ipc_core::wire::Kind;
use ipc_core::wire::coordination::Told as ToldWhat;
use ipc_daemon::broker::{Policy, Rule};
use ipc_tests::rng::Rng;
use ipc_tests::users::FewUsers;

use super::random::{CLIENTS, QUEUES, World};

/// The user of the first client; the others follow, each with a user of its own.
const FIRST_UID: u32 = 1000;

/// The user of the client at that place.
pub(super) fn uid_at(place: usize) -> u32 {
    FIRST_UID + place as u32
}

/// Who may not have to do with which queue, as places.
pub(super) type Denied = Option<(usize, usize)>;

impl World {
    /// Other rules from here on: another user, or none, is kept from another queue.
    pub(super) fn reload(&mut self, rng: &mut Rng) {
        self.denied = rng.chance(2, 3).then(|| (rng.index(CLIENTS), rng.index(QUEUES.len())));
        self.rule();
        if let Some((place, queue)) = self.denied {
            self.model.deny(self.clients[place], QUEUES[queue]);
        }
    }

    /// Has the daemon follow the rules.
    pub(super) fn rule(&mut self) {
        let denied = self.denied.map(|(place, queue)| {
            format!("deny uid:{} coordinate {}", uid_at(place), QUEUES[queue].replace('/', "."))
        });
        let rules = denied.into_iter().chain(["allow anyone * >".to_owned()]).enumerate();
        let rules = rules.map(|(at, text)| Rule::parse(&text, at as u32 + 1, &FewUsers).expect("a rule"));
        self.scene.bus.set_policy(Policy::new(rules.collect(), Vec::new()));
    }

    /// Whether that client may have to do with that queue.
    pub(super) fn may(&self, client: usize, queue: &str) -> bool {
        self.denied.is_none_or(|(place, denied)| self.clients[place] != client || QUEUES[denied] != queue)
    }

    /// The user of a client.
    pub(super) fn uid(&self, client: usize) -> u32 {
        uid_at(self.clients.iter().position(|one| *one == client).expect("it is there"))
    }

    /// A client has been told that its consumer is gone.
    pub(super) fn hears_of_loss(&mut self, client: usize, correlation: u64) {
        let inbox = &mut self.scene.bus.client(client).inbox;
        let at = inbox.iter().position(|frame| {
            let header = &frame.header;
            let is_loss = header.kind == Kind::NOTICE && header.handle.index == ToldWhat::CONSUMER_LOST.0;
            is_loss && header.correlation == correlation
        });
        inbox.remove(at.unwrap_or_else(|| panic!("no word about consumer {correlation}")));
    }
}
