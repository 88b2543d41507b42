//! Frames of coordination.

use ipc_core::PayloadKind;
use ipc_core::error::ErrorCode;
use ipc_core::wire::coordination::{
    Acquire, Arrive, Bind, Campaign, Claim, Durability, Fence, Granted, Identified, Identify, Leader,
    LockMode, Lost, Observe, OfToken, Operation, Passed, TakeLease, TakeLock, TakenUp, Told, Unobserve,
    Waiting,
};
use ipc_core::wire::message::ErrorBody;
use ipc_core::wire::{Flags, Header, Kind};

use super::{Vector, handle, header, vector};

/// A frame of coordination: the handle is the number of the operation, or of what is told.
pub(super) fn numbered(kind: Kind, number: u32, correlation: u64) -> Header {
    header(kind, correlation).with_handle(handle(number, 0))
}

pub(super) fn asked(operation: Operation, correlation: u64) -> Header {
    numbered(Kind::COORDINATE, operation.0, correlation)
}

fn claim(wait: bool, ttl_us: u64, delay_us: u64) -> Claim {
    Claim { wait, ttl_us, delay_us, owner: 1, durability: None }
}

pub(super) fn asked_for() -> Vec<Vector> {
    let lock = |mode, claim| TakeLock { name: "deploy/web".into(), mode, claim };
    let waiting = |header: Header| Header { deadline_us: 2_000_000, ..header };
    let memory = Some(Durability::Memory);
    let of = OfToken { token: 81_985_529 };
    vec![
        vector(
            "fence",
            "fence, client to daemon: the call behind it, 5, is made under token 4242 of the lock deploy/web",
            header(Kind::FENCE, 5),
            Fence { lock: "deploy/web".into(), token: 4242 },
            b"",
        ),
        vector(
            "coordinate_lease",
            "coordinate, client to daemon: a lease of 30 s that outlives the connection, kept in memory",
            asked(Operation::LEASE, 20),
            TakeLease { bind: Bind::Time, ttl_us: 30_000_000, durability: memory },
            b"",
        ),
        vector(
            "coordinate_renew",
            "coordinate: renew what has the token 81985529",
            asked(Operation::RENEW, 21),
            of,
            b"",
        ),
        vector(
            "coordinate_release",
            "coordinate: release it, no answer is wanted",
            asked(Operation::RELEASE, 0),
            of,
            b"",
        ),
        vector(
            "coordinate_identify",
            "coordinate: the secret of this session",
            asked(Operation::IDENTIFY, 30),
            Identify { secret: *b"0123456789abcdef" },
            b"",
        ),
        vector(
            "coordinate_lock",
            "coordinate: the lock deploy/web, alone, waiting for at most 2 s",
            waiting(asked(Operation::LOCK, 22)),
            lock(LockMode::Exclusive, claim(true, 0, 0)),
            b"",
        ),
        vector(
            "coordinate_lock_shared",
            "coordinate: the lock shared, without waiting, for 5 s at a time, closed for 1 s when it is lost",
            asked(Operation::LOCK, 23),
            lock(LockMode::Shared, claim(false, 5_000_000, 1_000_000)),
            b"",
        ),
    ]
}

pub(super) fn asked_of_others() -> Vec<Vector> {
    let value = |header: Header| Header { payload_kind: PayloadKind::Text, ..header };
    let of = OfToken { token: 81_985_529 };
    vec![
        vector(
            "coordinate_acquire",
            "coordinate: 2 of the 5 permits of the semaphore downloads",
            asked(Operation::ACQUIRE, 24),
            Acquire { name: "downloads".into(), permits: 5, count: 2, claim: claim(true, 0, 0) },
            b"",
        ),
        vector(
            "coordinate_campaign",
            "coordinate: stand for the election scheduler with a value",
            value(asked(Operation::CAMPAIGN, 25)),
            Campaign { name: "scheduler".into(), claim: claim(true, 5_000_000, 0) },
            b"node 1",
        ),
        vector(
            "coordinate_proclaim",
            "coordinate: the leader's value is another",
            value(asked(Operation::PROCLAIM, 26)),
            of,
            b"node 1, ready",
        ),
        vector(
            "coordinate_observe",
            "coordinate: tell who leads scheduler",
            asked(Operation::OBSERVE, 27),
            Observe { name: "scheduler".into() },
            b"",
        ),
        vector(
            "coordinate_unobserve",
            "coordinate: the observation 27 ends",
            asked(Operation::UNOBSERVE, 28),
            Unobserve { observation: 27 },
            b"",
        ),
        vector(
            "coordinate_arrive",
            "coordinate: arrive at the barrier ready, which takes 3",
            asked(Operation::ARRIVE, 29),
            Arrive { name: "ready".into(), parties: 3, wait: true },
            b"",
        ),
    ]
}

pub(super) fn answered() -> Vec<Vector> {
    let outcome = |operation: Operation, correlation| numbered(Kind::OUTCOME, operation.0, correlation);
    let value = |header: Header| Header { payload_kind: PayloadKind::Text, sender: 9, ..header };
    let busy = ErrorBody {
        code: ErrorCode::Busy.number(),
        message: "lock deploy/web was not to be had in time".into(),
        hint: None,
        resource: None,
        limit: None,
        application_code: None,
    };
    let granted = Granted { token: 81_985_529, ttl_us: 0, durability: Durability::Memory };
    vec![
        vector(
            "waiting",
            "waiting, daemon to client: request 22 is first in the queue, peer handle 9 holds the lock",
            Header { sender: 9, ..numbered(Kind::WAITING, Operation::LOCK.0, 22) },
            Waiting { ahead: 0, holders: 1, token: 81_985_501, missing: 0 },
            b"",
        ),
        vector(
            "outcome_granted",
            "outcome, daemon to client: the lock is held, with the token 81985529",
            outcome(Operation::LOCK, 22),
            granted,
            b"",
        ),
        vector(
            "outcome_busy",
            "outcome: the lock was not to be had",
            Header { flags: Flags::ERROR, ..outcome(Operation::LOCK, 23) },
            busy,
            b"",
        ),
        vector("outcome", "outcome: it is done", outcome(Operation::PROCLAIM, 26), (), b""),
        vector(
            "outcome_leader",
            "outcome of an observe: peer handle 9 leads",
            value(outcome(Operation::OBSERVE, 27)),
            Leader { token: 81_985_529 },
            b"node 1",
        ),
    ]
}

pub(super) fn told() -> Vec<Vector> {
    let outcome = |operation: Operation, correlation| numbered(Kind::OUTCOME, operation.0, correlation);
    let told = |told: Told, correlation| numbered(Kind::NOTICE, told.0, correlation);
    vec![
        vector(
            "outcome_passed",
            "outcome of an arrive: all have arrived, this one as the second",
            outcome(Operation::ARRIVE, 29),
            Passed { generation: 81_985_600, place: 1 },
            b"",
        ),
        vector(
            "notice_lost",
            "notice, daemon to client: what was granted to request 22 is lost",
            told(Told::LOST, 22),
            Lost {
                token: 81_985_529,
                code: ErrorCode::LockLost.number(),
                message: "its time to live of 5s has passed without a renewal".into(),
            },
            b"",
        ),
        vector(
            "notice_taken_up",
            "notice: the lock deploy/web, for 5 s, which an earlier life of the daemon has kept, is held again",
            told(Told::TAKEN_UP, 30),
            TakenUp {
                token: 81_985_529,
                operation: Operation::LOCK.0,
                name: "deploy/web".into(),
                ttl_us: 5_000_000,
                durability: Durability::Disk,
            },
            b"",
        ),
        vector(
            "outcome_identified",
            "outcome of an identify: one thing is held again",
            outcome(Operation::IDENTIFY, 30),
            Identified { holds: 1 },
            b"",
        ),
        vector(
            "notice_leader",
            "notice: nobody leads any more",
            numbered(Kind::NOTICE, Told::LEADER.0, 27),
            Leader { token: 0 },
            b"",
        ),
        vector(
            "notice_observation_lost",
            "notice: the observation has ended, because it was not read",
            told(Told::OBSERVATION_LOST, 27),
            (),
            b"",
        ),
    ]
}
