//! Frames of work queues.

use ipc_core::PayloadKind;
use ipc_core::wire::codec::List;
use ipc_core::wire::coordination::{Bind, Durability, Fence, Operation, Told};
use ipc_core::wire::message::IdentityInfo;
use ipc_core::wire::queue::{
    Ack, Consume, CountQueue, Delivered, Enqueue, Enqueued, EntryState, Nack, Nacked, Overflow, Peek, Peeked,
    PeekedEntry, Purge, Purged, QueueCounts, Take, Unconsume,
};
use ipc_core::wire::{Header, Kind};

use super::coordination::{asked, numbered};
use super::{Vector, vector};

const SENDER: IdentityInfo = IdentityInfo::Local { uid: 1000, gid: 1000, pid: 4711 };

fn text(header: Header) -> Header {
    Header { payload_kind: PayloadKind::Text, ..header }
}

pub(super) fn all() -> Vec<Vector> {
    [work(), looks(), work_answered(), looks_answered(), told()].into_iter().flatten().collect()
}

fn work() -> Vec<Vector> {
    let queue = || "mail/out".into();
    let fence = Some(Fence { lock: "deploy/web".into(), token: 81_985_529 });
    vec![
        vector(
            "coordinate_enqueue",
            "coordinate: put an entry with the id m-1 and the priority 5 into the queue mail/out, to be delivered 3 times at most",
            text(asked(Operation::ENQUEUE, 40)),
            Enqueue {
                queue: queue(),
                id: Some("m-1".into()),
                priority: 5,
                delay_us: 0,
                max_deliveries: 3,
                max_length: 1000,
                overflow: Overflow::DropOldest,
                fence,
                durability: Some(Durability::Memory),
            },
            b"to: you",
        ),
        vector(
            "coordinate_take",
            "coordinate: take an entry that goes back after 30 s, waiting for at most 2 s",
            Header { deadline_us: 2_000_000, ..asked(Operation::TAKE, 41) },
            Take {
                queue: queue(),
                bind: Bind::Time,
                visibility_us: 30_000_000,
                max_deliveries: 0,
                wait: true,
                fence: None,
            },
            b"",
        ),
        vector(
            "coordinate_ack",
            "coordinate: the work of the delivery 81985552 is done",
            asked(Operation::ACK, 42),
            Ack { queue: queue(), delivery: 81_985_552, fence: None },
            b"",
        ),
        vector(
            "coordinate_nack",
            "coordinate: give it back, it cannot be taken for 1 s; no answer is wanted",
            asked(Operation::NACK, 0),
            Nack {
                queue: queue(),
                delivery: 81_985_552,
                delay_us: 1_000_000,
                reason: "exit-3".into(),
                is_untouched: false,
                fence: None,
            },
            b"",
        ),
    ]
}

fn looks() -> Vec<Vector> {
    let queue = || "mail/out".into();
    vec![
        vector(
            "coordinate_peek",
            "coordinate: look at the first 10 entries",
            asked(Operation::PEEK, 43),
            Peek { queue: queue(), count: 10 },
            b"",
        ),
        vector(
            "coordinate_count",
            "coordinate: count what is in the queue",
            asked(Operation::COUNT, 44),
            CountQueue { queue: queue() },
            b"",
        ),
        vector(
            "coordinate_purge",
            "coordinate: throw away what waits among the dead letters",
            asked(Operation::PURGE, 45),
            Purge { queue: "mail/out.dead".into(), fence: None },
            b"",
        ),
        vector(
            "coordinate_consume",
            "coordinate: deliver entries as they come, at most 16 at a time",
            asked(Operation::CONSUME, 46),
            Consume { queue: queue(), credit: 16, visibility_us: 0, max_deliveries: 5 },
            b"",
        ),
        vector(
            "coordinate_unconsume",
            "coordinate: the consumer 46 ends",
            asked(Operation::UNCONSUME, 47),
            Unconsume { consumer: 46 },
            b"",
        ),
    ]
}

fn outcome(operation: Operation, correlation: u64) -> Header {
    numbered(Kind::OUTCOME, operation.0, correlation)
}

fn delivered(visibility_us: u64) -> Delivered {
    Delivered {
        queue: "mail/out".into(),
        delivery: 81_985_552,
        id: "m-1".into(),
        number: 81_985_550,
        deliveries: 1,
        priority: 5,
        visibility_us,
        age_us: 2_000,
        sender: SENDER,
        death: None,
    }
}

fn work_answered() -> Vec<Vector> {
    vec![
        vector(
            "outcome_enqueued",
            "outcome of an enqueue: the entry has the number 81985550, one made room for it",
            outcome(Operation::ENQUEUE, 40),
            Enqueued {
                number: 81_985_550,
                id: "m-1".into(),
                is_duplicate: false,
                dropped: 1,
                durability: Durability::Memory,
            },
            b"",
        ),
        vector(
            "outcome_delivered",
            "outcome of a take: the delivery 81985552 of an entry that uid 1000 has put",
            text(outcome(Operation::TAKE, 41)),
            delivered(30_000_000),
            b"to: you",
        ),
        vector(
            "outcome_nacked",
            "outcome of a nack: the entry is a dead letter now",
            outcome(Operation::NACK, 42),
            Nacked { is_dead: true },
            b"",
        ),
    ]
}

fn looks_answered() -> Vec<Vector> {
    let dead = PeekedEntry {
        id: "m-1".into(),
        number: 81_985_550,
        state: EntryState::Ready,
        deliveries: 0,
        priority: 5,
        age_us: 9_000_000,
        due_us: 0,
        sender: SENDER,
        death: Some("delivered 3 times from mail/out, as often as it may be; its taker ended".into()),
        kind: 1,
        length: 7,
    };
    vec![
        vector(
            "outcome_peeked",
            "outcome of a peek: a dead letter, and no more",
            outcome(Operation::PEEK, 43),
            Peeked { more: false, entries: List(vec![dead]) },
            b"to: you",
        ),
        vector(
            "outcome_counted",
            "outcome of a count",
            outcome(Operation::COUNT, 44),
            QueueCounts {
                ready: 3,
                delayed: 1,
                delivered: 2,
                dead: 1,
                waiting: 0,
                consumers: 2,
                bytes: 2_000,
                oldest_us: 2_000,
                puts: 12,
                duplicates: 1,
                acks: 5,
                redeliveries: 4,
                deaths: 1,
                drops: 0,
            },
            b"",
        ),
        vector(
            "outcome_purged",
            "outcome of a purge: 1 entry is gone",
            outcome(Operation::PURGE, 45),
            Purged { count: 1 },
            b"",
        ),
    ]
}

fn told() -> Vec<Vector> {
    let told = |told: Told, correlation| numbered(Kind::NOTICE, told.0, correlation);
    vec![
        vector(
            "notice_delivered",
            "notice: an entry for the consumer 46, its own as long as the connection",
            text(told(Told::DELIVERED, 46)),
            delivered(0),
            b"to: you",
        ),
        vector(
            "notice_consumer_lost",
            "notice: the consumer 46 did not read",
            told(Told::CONSUMER_LOST, 46),
            (),
            b"",
        ),
    ]
}
