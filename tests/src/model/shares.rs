//! What is everybody's, and how much of it one may have: no more than is left for the others, unless there are none.

use super::expect::Refusal;
use super::{Model, Phase};

/// Who shares with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User {
    /// `None` for one who is not of this machine.
    pub uid: Option<u32>,
    /// It is of this machine, and no other user of this machine is connected.
    pub is_alone: bool,
}

/// How much one has of something, and how much all have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub own: usize,
    pub total: usize,
}

impl Part {
    /// Whether it may become so much more, of what that limit bounds.
    pub(super) fn check(
        self,
        more: usize,
        user: User,
        (name, max): (&'static str, u32),
    ) -> Result<(), Refusal> {
        let left = (max as usize).saturating_sub(self.total);
        if more > left {
            return Err(Refusal::quota(name, max));
        }
        if user.is_alone || self.own + more <= left { Ok(()) } else { Err(Refusal::share(name, max)) }
    }
}

impl Model {
    /// The user behind a connection.
    pub(super) fn user(&self, connection: usize) -> User {
        let uid = self.uid_of(connection);
        let open = self.connections.iter().filter(|(_, connection)| connection.phase != Phase::Gone);
        let mut others =
            open.filter_map(|(number, _)| self.uid_of(*number)).filter(|other| uid != Some(*other));
        User { uid, is_alone: uid.is_some() && others.next().is_none() }
    }
}
