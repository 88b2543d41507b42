//! Other rules while the daemon runs: what they take away, and from whom.

use ipc_core::error::ErrorCode;
use ipc_core::time::Instant;

use super::came::Came;
use super::coordination::Wait;
use super::expect::{Expected, Refusal};
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

    /// Whoever does not know how to be told that a name or a subscription is gone has its connection ended.
    fn enforce(&mut self, number: usize) {
        if matches!(self.phase(number), Phase::Left | Phase::Gone) {
            return;
        }
        let mut names = self.registrations_of(number);
        names.retain(|(_, name)| self.may(number, Wish::Own(name)).is_err());
        let subscriptions = self.subscriptions_of(number).into_iter();
        let lost = subscriptions.filter(|one| self.may(number, Wish::Subscribe(&one.filter)).is_err());
        let mut subscriptions: Vec<(u64, u64)> = lost.map(|one| (one.correlation, one.number)).collect();
        subscriptions.sort_unstable();
        let may_be_told = self.connections.get(&number).is_some_and(|connection| connection.may_be_told);
        if !may_be_told && (!names.is_empty() || !subscriptions.is_empty()) {
            return self.leave(number, Some(vec![DENIED]));
        }
        for (registration, name) in names {
            self.lose_name(number, registration, &name);
        }
        for (correlation, subscription) in subscriptions {
            self.end_subscription(subscription);
            self.push(number, Expected::SubscriptionRevoked { subscription, correlation });
        }
        self.lose_waits(number);
        self.lose_streams(number);
        self.lose_holds(number);
        self.lose_handles(number);
        self.leave_if_finished(number);
    }

    fn lose_name(&mut self, number: usize, registration: u64, name: &str) {
        self.is_at_once = true;
        self.fail_calls_of(|call| call.registration == registration, ErrorCode::ServiceGone);
        self.is_at_once = false;
        let changes = self.give_up(name, registration);
        self.push(number, Expected::NameRevoked { registration });
        self.tell_all(name, changes);
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
        let lost: Vec<(u64, u64, bool)> = holds
            .filter(|hold| !self.may_coordinate(number, hold.gate.as_ref().map(|gate| gate.1.as_str())))
            .map(|hold| (hold.number, hold.correlation, hold.is_pending))
            .collect();
        for (hold, correlation, is_pending) in lost {
            if !is_pending {
                self.came(number, correlation, 0, Came::Lost { hold, code: DENIED });
            }
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
