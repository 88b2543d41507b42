//! Work queues: in scenes, at their limits, and in random runs against the obvious ones.

mod crashes;
mod durable;
mod endings;
mod limits;
mod model;
mod random;
mod rules;
mod scenes;

use core::time::Duration;

use ipc_core::ErrorCode;
use ipc_core::limits::Limits;
use ipc_core::wire::coordination::{Bind, Fence, Operation};
use ipc_core::wire::queue::{
    Ack, Consume, CountQueue, Delivered, Enqueue, Enqueued, Nack, Nacked, Overflow, QueueCounts, Take,
};

use crate::coordination::Scene;

/// Clients who work.
pub(super) struct Bench {
    pub(super) scene: Scene,
}

/// An entry to be put.
pub(super) fn entry(queue: &str) -> Enqueue {
    Enqueue {
        queue: queue.into(),
        id: None,
        priority: 0,
        delay_us: 0,
        max_deliveries: 0,
        max_length: 0,
        overflow: Overflow::Reject,
        fence: None,
        durability: None,
    }
}

/// A request for an entry, that does not wait.
pub(super) fn take(queue: &str, bind: Bind) -> Take {
    Take { queue: queue.into(), bind, visibility_us: 0, max_deliveries: 0, wait: false, fence: None }
}

/// What somebody has got.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub(super) body: String,
    pub(super) delivered: Delivered,
}

impl Bench {
    pub(super) fn new(limits: Limits) -> Self {
        Self { scene: Scene::new(limits) }
    }

    pub(super) fn worker(&mut self) -> usize {
        self.scene.client()
    }

    pub(super) fn put(&mut self, who: usize, enqueue: &Enqueue, body: &str) -> Result<Enqueued, ErrorCode> {
        let outcome = self.scene.outcome_of(who, Operation::ENQUEUE, enqueue, body.as_bytes());
        outcome.map(|done| done.decode())
    }

    /// Puts into the queue `q`.
    pub(super) fn puts(&mut self, who: usize, body: &str) {
        self.put(who, &entry("q"), body).expect("there is room");
    }

    pub(super) fn takes_as(&mut self, who: usize, take: &Take) -> Result<Got, ErrorCode> {
        let outcome = self.scene.outcome_of(who, Operation::TAKE, take, b"")?;
        let body = String::from_utf8(outcome.payload.clone()).expect("text");
        Ok(Got { body, delivered: outcome.decode() })
    }

    /// Takes from the queue `q` what is there.
    pub(super) fn takes(&mut self, who: usize) -> Result<Got, ErrorCode> {
        self.takes_as(who, &take("q", Bind::Session))
    }

    pub(super) fn acks(&mut self, who: usize, got: &Got) -> Result<(), ErrorCode> {
        self.acks_under(who, got, None)
    }

    pub(super) fn acks_under(
        &mut self,
        who: usize,
        got: &Got,
        fence: Option<Fence>,
    ) -> Result<(), ErrorCode> {
        let ack = Ack { queue: got.delivered.queue.clone(), delivery: got.delivered.delivery, fence };
        self.scene.outcome_of(who, Operation::ACK, &ack, b"").map(|_| ())
    }

    /// Gives it back; says whether it is dead.
    pub(super) fn nacks(&mut self, who: usize, got: &Got, delay_us: u64) -> Result<bool, ErrorCode> {
        let nack = Nack {
            queue: got.delivered.queue.clone(),
            delivery: got.delivered.delivery,
            delay_us,
            reason: "no paper".into(),
            is_untouched: false,
            fence: None,
        };
        let outcome = self.scene.outcome_of(who, Operation::NACK, &nack, b"");
        outcome.map(|done| done.decode::<Nacked>().is_dead)
    }

    /// Waits for an entry of `q`, at most so long; gives the request.
    pub(super) fn waits(&mut self, who: usize, deadline_us: u32) -> u64 {
        let take = Take { wait: true, ..take("q", Bind::Session) };
        self.scene.ask_with(who, Operation::TAKE, deadline_us, &take, b"")
    }

    /// What a request that waited has come to.
    pub(super) fn waited(&mut self, who: usize, request: u64) -> Option<Result<Got, ErrorCode>> {
        let outcome = self.scene.take_outcome(who, Operation::TAKE, request)?;
        Some(match outcome {
            Ok(done) => Ok(Got {
                body: String::from_utf8(done.payload.clone()).expect("text"),
                delivered: done.decode(),
            }),
            Err(body) => Err(ErrorCode::from_number(body.code).expect("a code")),
        })
    }

    /// Consumes `q`; gives the consumer.
    pub(super) fn consumes(&mut self, who: usize, credit: u32) -> u64 {
        let consume = Consume { queue: "q".into(), credit, visibility_us: 0, max_deliveries: 0 };
        let consumer = self.scene.ask(who, Operation::CONSUME, &consume, b"");
        let outcome = self.scene.take_outcome(who, Operation::CONSUME, consumer).expect("an outcome");
        outcome.expect("it may");
        consumer
    }

    pub(super) fn counts(&mut self, who: usize, queue: &str) -> QueueCounts {
        let count = CountQueue { queue: queue.into() };
        self.scene.outcome_of(who, Operation::COUNT, &count, b"").expect("it may").decode()
    }

    pub(super) fn wait_ms(&mut self, millis: u64) {
        self.scene.bus.wait(Duration::from_millis(millis));
    }
}
