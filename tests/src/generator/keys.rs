//! Keys, and the crashes that they are to survive.

use ipc_core::wire::coordination::Durability;

use super::{Action, Generator, KEYS, Verb};

/// What has to be so for a key to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Nothing.
    Always,
    /// That there is none.
    Absent,
    /// That it has the revision that somebody was told of last.
    Current,
    /// That it has a revision that it never had.
    Never,
}

/// What a step of a transaction does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Will {
    /// Nothing: it is only compared.
    Check,
    /// Put it.
    Put,
    /// Delete it.
    Delete,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// With what is there.
    Present,
    /// With the first change that ever was.
    Beginning,
    /// Behind the nth last change that anybody was told of.
    Known(usize),
    /// Behind what was never there.
    Future,
}

impl Generator {
    pub(super) fn keys(&mut self, verb: Verb) -> Action {
        let key = self.key();
        let rng = &mut self.rng;
        let durability = *rng.pick(&[None, Some(Durability::Memory), Some(Durability::Os), None]);
        let payload = rng.length(200);
        match verb {
            Verb::Put => Action::Put { key, when: self.when(), durability, payload },
            Verb::DeleteKey => Action::DeleteKey { key, when: self.when(), durability },
            Verb::Transact => {
                let mut keys: Vec<usize> = (0..KEYS.len() - 1).collect();
                rng.shuffle(&mut keys);
                keys.truncate(1 + rng.index(keys.len()));
                let steps = keys.into_iter().map(|key| {
                    let will = *self.rng.weighted(&[(4, Will::Put), (2, Will::Delete), (1, Will::Check)]);
                    (key, self.when(), will)
                });
                Action::Transact { steps: steps.collect(), durability, payload }
            }
            Verb::GetKey => Action::GetKey { key },
            Verb::ListKeys => Action::ListKeys,
            Verb::WatchKeys => {
                let since = *rng.weighted(&[
                    (3, Since::Present),
                    (1, Since::Beginning),
                    (4, Since::Known(0)),
                    (4, Since::Known(1 + rng.clone().index(30))),
                    (1, Since::Future),
                ]);
                let key = if rng.chance(1, 3) { Some(key) } else { None };
                Action::WatchKeys { key, since }
            }
            _ => Action::UnwatchKeys { nth: rng.index(4) },
        }
    }

    pub(super) fn crash(&mut self) -> Action {
        Action::Crash { is_written: self.rng.chance(1, 2), millis: 1 + self.rng.below(2000) }
    }

    fn key(&mut self) -> usize {
        let last = KEYS.len() - 1;
        if self.rng.chance(1, 60) { last } else { self.rng.index(last) }
    }

    fn when(&mut self) -> When {
        *self.rng.weighted(&[(6, When::Always), (3, When::Absent), (3, When::Current), (1, When::Never)])
    }
}
