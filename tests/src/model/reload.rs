//! Other rules while the daemon runs: what they take away, and from whom.

use ipc_core::error::ErrorCode;
use ipc_core::time::Instant;

use super::came::Came;
use super::coordination::Wait;
use super::expect::Refusal;
use super::handles::Target;
use super::rights::Wish;
use super::{Model, Phase};

const DENIED: ErrorCode = ErrorCode::PermissionDenied;

impl Model {
    /// From here on these rules of [`REIGNS`](super::REIGNS) hold, for open connections too.
    pub fn reload(&mut self, now: Instant, reign: usize) {
        self.begin(now);
        self.reign = reign;
        let mut order: Vec<_> =
            self.connections.iter().filter_map(|(number, one)| Some((one.key?, *number))).collect();
        order.sort();
        for (_, number) in order {
            self.enforce(number);
        }
    }

    /// Clients of this world do not know how to be told that a name or a subscription is gone: their connection ends.
    fn enforce(&mut self, number: usize) {
        if matches!(self.phase(number), Phase::Left | Phase::Gone) {
            return;
        }
        let names = self.registrations_of(number);
        let loses_name = names.iter().any(|(_, name)| self.may(number, Wish::Own(name)).is_err());
        let subscriptions = self.subscriptions_of(number);
        let loses_subscription =
            subscriptions.iter().any(|one| self.may(number, Wish::Subscribe(&one.filter)).is_err());
        if loses_name || loses_subscription {
            return self.leave(number, Some(vec![DENIED]));
        }
        self.lose_waits(number);
        self.lose_streams(number);
        self.lose_holds(number);
        self.lose_handles(number);
        self.leave_if_finished(number);
    }

    /// Whether a connection may have to do with that name, or with any.
    pub(super) fn may_coordinate(&self, number: usize, name: Option<&str>) -> bool {
        self.may(number, Wish::Coordinate(name)).is_ok()
    }

    fn lose_waits(&mut self, number: usize) {
        let is_lost =
            |wait: &Wait| wait.connection == number && !self.may_coordinate(number, Some(&wait.gate.1));
        let (lost, kept) = self.coordination.waits.clone().into_iter().partition::<Vec<Wait>, _>(is_lost);
        self.coordination.waits = kept;
        for wait in &lost {
            self.came(number, wait.correlation, wait.operation, Came::Refused(Refusal::of(DENIED)));
        }
        for wait in lost {
            self.pump(&wait.gate);
        }
    }

    fn lose_holds(&mut self, number: usize) {
        let holds = self.coordination.holds.iter().filter(|hold| hold.connection == Some(number));
        let lost: Vec<(u64, u64)> = holds
            .filter(|hold| !self.may_coordinate(number, hold.gate.as_ref().map(|gate| gate.1.as_str())))
            .map(|hold| (hold.number, hold.correlation))
            .collect();
        for (hold, correlation) in lost {
            self.came(number, correlation, 0, Came::Lost { hold, code: DENIED });
            self.lose_hold(hold);
        }
    }

    fn lose_handles(&mut self, number: usize) {
        let Some(connection) = self.connections.get(&number) else { return };
        let lost = connection.handles.iter().filter(|(_, (_, target))| match target {
            Target::Method { tenure, service, method } => {
                let is_there = self.services.get(service).is_some_and(|known| known.tenure == *tenure);
                is_there && self.may(number, Wish::Call(service, method)).is_err()
            }
            Target::Topic { name } => self.may(number, Wish::Publish(name)).is_err(),
            Target::Failed(_) => false,
        });
        let lost: Vec<u32> = lost.map(|(index, _)| *index).collect();
        for index in lost {
            let handles = self.connections.get_mut(&number).map(|connection| &mut connection.handles);
            let Some((_, target)) = handles.and_then(|handles| handles.get_mut(&index)) else { continue };
            if let Target::Topic { name } = core::mem::replace(target, Target::Failed(DENIED)) {
                self.lose_publisher(&name);
            }
        }
    }
}
