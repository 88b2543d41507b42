//! Sessions that are known again after a restart, and what they take up.

use ipc_core::name::ResourceName;
use ipc_core::time::Instant;
use ipc_core::wire::codec::Text;
use ipc_core::wire::coordination::{Durability, Granted, Identify, Operation, TakenUp, Told};
use ipc_core::{Error, ErrorCode};

use super::coordinate::{Done, denied, notice};
use crate::broker::Broker;
use crate::broker::coordination::{Asker, SessionName, WaitId};
use crate::broker::keys::PeerKey;

impl Broker {
    /// Gives the session its name, and what was kept under it, as far as it may still have that.
    pub(super) fn identify(&mut self, now: Instant, asker: Asker, Identify { secret }: Identify) -> Done {
        self.check_asker(asker, None)?;
        let Some(uid) = self.hand(asker.peer).uid else {
            return Err(denied("only users of this machine have what outlives the daemon"));
        };
        let name = SessionName::new(uid, secret);
        // It has lost that connection and knows it; the end of it is still under way here.
        if let Some(before) = self.coordination.connection_of(name).filter(|before| *before != asker.peer) {
            self.close(before, &Error::new(ErrorCode::Conflict, "its session has another connection now"));
        }
        for (token, resource) in self.coordination.kept_for(name) {
            let is_denied = |resource: &ResourceName| self.check_coordinate(asker.peer, resource).is_err();
            if resource.as_ref().is_some_and(is_denied) {
                self.coordination.lose(now, token);
            }
        }
        Ok(self.coordination.identify(now, &asker, name)?)
    }

    /// What something held is to survive: the disk, where there is one and its session would be known again, unless something
    /// else is asked for.
    pub(super) fn hold_durability(
        &self,
        peer: PeerKey,
        wanted: Option<Durability>,
    ) -> Result<Durability, Error> {
        if self.coordination.is_identified(peer) {
            return self.durability_of(wanted);
        }
        let durability = self.durability_of(Some(wanted.unwrap_or(Durability::Memory)))?;
        if durability == Durability::Memory {
            return Ok(durability);
        }
        let message = "nobody could take that up after a restart: this session has not identified itself";
        Err(Error::new(ErrorCode::InvalidArgument, message).with_hint("identify it first, or ask for memory"))
    }

    /// Tells a session of one thing that it holds again.
    pub(super) fn tell_taken_up(
        &mut self,
        to: WaitId,
        operation: Operation,
        name: Option<ResourceName>,
        granted: Granted,
    ) {
        self.counters.holds_taken_up += 1;
        let Granted { token, ttl_us, durability } = granted;
        let name = Text(name.map_or_else(String::new, |name| name.to_string()));
        let taken_up = TakenUp { token, operation: operation.0, name, ttl_us, durability };
        self.answer(to.peer, notice(to, Told::TAKEN_UP), &taken_up, &[]);
    }
}
