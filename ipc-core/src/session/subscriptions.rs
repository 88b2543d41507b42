//! Subscriptions, each with the events its user has not taken yet.

use std::collections::VecDeque;

use crate::error::Error;
use crate::limits::Limits;
use crate::wire::message::{OnSlow, Subscribe};

use super::event::{Delivery, Lost, Missed, Received, Ticket};

/// What to subscribe to, and how much may wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Most events that wait at the daemon, and again in this process; 0 is the default of 4096.
    pub queue_events_max: u32,
    /// Most bytes of events that wait at the daemon, and again in this process; 0 is the default of 4 MiB.
    pub queue_bytes_max: u32,
    /// What becomes of events that do not fit.
    pub on_slow: OnSlow,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self { queue_events_max: 0, queue_bytes_max: 0, on_slow: OnSlow::DropOldest }
    }
}

/// What a subscription's user takes: deliveries, and at the end an error if the subscription could not go on.
pub type Deliveries = VecDeque<Result<Delivery, Error>>;

#[derive(Debug)]
pub(super) struct Subscription {
    /// What was asked for, to ask again after a restart.
    pub(super) request: Subscribe,
    is_literal: bool,
    /// Who waits for the answer to the `subscribe`.
    pub(super) ticket: Option<Ticket>,
    /// The connection was lost since the last answer to a `subscribe`.
    lost: bool,
    /// Number of the last event, of a filter without wildcards.
    last: Option<u64>,
    queue: Deliveries,
    queued_bytes: usize,
    events_max: usize,
    bytes_max: usize,
    /// What was dropped in front of `queue`.
    dropped: Option<Missed>,
}

impl Subscription {
    pub(super) fn new(request: Subscribe, is_literal: bool, ticket: Ticket) -> Self {
        let limits = Limits::default();
        let or = |asked: u32, default: u32| if asked == 0 { default } else { asked } as usize;
        let events_max = or(request.queue_events_max, limits.queue_events_per_subscription_default);
        let bytes_max = or(request.queue_bytes_max, limits.queue_bytes_per_subscription_max);
        Self {
            request,
            is_literal,
            ticket: Some(ticket),
            lost: false,
            last: None,
            queue: VecDeque::new(),
            queued_bytes: 0,
            events_max,
            bytes_max,
            dropped: None,
        }
    }

    /// The connection is gone.
    pub(super) fn restart(&mut self) {
        self.lost = true;
        self.ticket = None;
    }

    /// The daemon has made the subscription; says whether there is something to take where there was nothing.
    pub(super) fn subscribed(&mut self, sequence: u64, epoch_changed: bool) -> bool {
        if !core::mem::take(&mut self.lost) {
            return false;
        }
        let sequence_before = self.last.take();
        let lost = Lost { epoch_changed, sequence_before, sequence_after: sequence };
        self.push(Ok(Delivery::Lost(lost)), 0)
    }

    /// The subscription could not be made again.
    pub(super) fn failed(&mut self, error: Error) -> bool {
        self.push(Err(error), 0)
    }

    /// An event was handed on without being kept.
    pub(super) fn passed(&mut self, sequence: u64) {
        if self.is_literal {
            self.last = Some(sequence);
        }
    }

    /// An event has come; says whether there is something to take where there was nothing.
    pub(super) fn event(&mut self, event: Received) -> bool {
        if self.is_literal {
            self.last = Some(event.sequence);
        }
        let bytes = event.payload.len();
        self.push(Ok(Delivery::Event(event)), bytes)
    }

    /// The daemon has dropped events; says whether there is something to take where there was nothing.
    pub(super) fn gap(&mut self, missed: Missed) -> bool {
        if self.is_literal && missed.to > 0 {
            self.last = Some(missed.to);
        }
        self.push(Ok(Delivery::Gap(missed)), 0)
    }

    fn push(&mut self, item: Result<Delivery, Error>, bytes: usize) -> bool {
        let was_empty = self.is_empty();
        self.queue.push_back(item);
        self.queued_bytes += bytes;
        // The newest always stays, whatever its size.
        while self.queue.len() > self.events_max.max(1)
            || (self.queued_bytes > self.bytes_max && self.queue.len() > 1)
        {
            self.drop_oldest();
        }
        was_empty
    }

    fn drop_oldest(&mut self) {
        let Some(at) =
            self.queue.iter().position(|item| matches!(item, Ok(Delivery::Event(_) | Delivery::Gap(_))))
        else {
            // Nothing but notices of lost connections: the newest tells as much as all of them.
            self.queue.pop_front();
            return;
        };
        let missed = match self.queue.remove(at) {
            Some(Ok(Delivery::Event(event))) => {
                self.queued_bytes -= event.payload.len();
                Missed { topic: Some(event.topic), from: event.sequence, to: event.sequence, count: 1 }
            }
            Some(Ok(Delivery::Gap(missed))) => missed,
            Some(Ok(Delivery::Lost(_)) | Err(_)) | None => return,
        };
        self.dropped = Some(match self.dropped.take() {
            None => missed,
            Some(before) => merge(before, missed),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.dropped.is_none()
    }

    /// The oldest of what waits.
    pub(super) fn pop(&mut self) -> Option<Result<Delivery, Error>> {
        if let Some(missed) = self.dropped.take() {
            return Some(Ok(Delivery::Gap(missed)));
        }
        let item = self.queue.pop_front();
        if let Some(Ok(Delivery::Event(event))) = &item {
            self.queued_bytes -= event.payload.len();
        }
        item
    }

    /// The oldest of what waits, unless it is the error that ended the subscription.
    pub(super) fn pop_delivery(&mut self) -> Option<Delivery> {
        if self.dropped.is_none() && matches!(self.queue.front(), Some(Err(_))) {
            return None;
        }
        self.pop()?.ok()
    }

    /// Exchanges all that waits for `empty`, whose memory is used from here on.
    pub(super) fn swap(&mut self, empty: &mut Deliveries) {
        core::mem::swap(&mut self.queue, empty);
        self.queued_bytes = 0;
        if let Some(missed) = self.dropped.take() {
            empty.push_front(Ok(Delivery::Gap(missed)));
        }
    }
}

fn merge(before: Missed, after: Missed) -> Missed {
    let count = before.count + after.count;
    if before.topic.is_some() && before.topic == after.topic {
        Missed { topic: before.topic, from: before.from, to: after.to, count }
    } else {
        Missed { topic: None, from: 0, to: 0, count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerId;
    use crate::identity::{Identity, Peer};
    use crate::name::TopicName;
    use crate::payload::Payload;

    fn subscription(events_max: u32, bytes_max: u32) -> Subscription {
        let request = Subscribe {
            filter: "a".into(),
            on_slow: OnSlow::DropOldest,
            queue_events_max: events_max,
            queue_bytes_max: bytes_max,
        };
        Subscription::new(request, true, Ticket(super::super::slab::Key::from_bits(1 << 32)))
    }

    fn event(topic: &str, sequence: u64, bytes: usize) -> Received {
        Received {
            topic: TopicName::parse(topic).unwrap(),
            sequence,
            sender: Peer { id: PeerId(1), identity: Identity::Local { uid: 0, gid: 0, pid: 0 } },
            payload: Payload::bytes(vec![0; bytes]),
            traceparent: None,
        }
    }

    fn drain(subscription: &mut Subscription) -> Vec<(u64, u64, u64)> {
        let mut seen = Vec::new();
        while let Some(item) = subscription.pop() {
            seen.push(match item.unwrap() {
                Delivery::Event(event) => (event.sequence, event.sequence, 0),
                Delivery::Gap(missed) => (missed.from, missed.to, missed.count),
                Delivery::Lost(lost) => (lost.sequence_before.unwrap_or(0), lost.sequence_after, 999),
            });
        }
        seen
    }

    #[test]
    fn only_the_first_of_a_batch_is_news() {
        let mut subscription = subscription(0, 0);
        assert!(subscription.event(event("a", 1, 1)));
        assert!(!subscription.event(event("a", 2, 1)));
        assert_eq!(drain(&mut subscription), [(1, 1, 0), (2, 2, 0)]);
        assert!(subscription.event(event("a", 3, 1)));
    }

    #[test]
    fn the_oldest_is_dropped_and_counted() {
        let mut by_count = subscription(2, 0);
        let mut by_bytes = subscription(0, 2);
        for sequence in 1..=5 {
            by_count.event(event("a", sequence, 1));
            by_bytes.event(event("a", sequence, 1));
        }
        assert_eq!(drain(&mut by_count), [(1, 3, 3), (4, 4, 0), (5, 5, 0)]);
        assert_eq!(drain(&mut by_bytes), [(1, 3, 3), (4, 4, 0), (5, 5, 0)]);
        assert_eq!(by_bytes.queued_bytes, 0);
    }

    #[test]
    fn an_empty_queue_takes_an_event_of_any_size() {
        let mut subscription = subscription(0, 10);
        subscription.event(event("a", 1, 100));
        assert_eq!(drain(&mut subscription), [(1, 1, 0)]);
    }

    #[test]
    fn gaps_of_several_topics_merge_and_keep_the_count() {
        let mut subscription = subscription(1, 0);
        subscription.event(event("a", 7, 1));
        subscription.gap(Missed { topic: None, from: 0, to: 0, count: 5 });
        subscription.event(event("b", 1, 1));
        subscription.event(event("a", 8, 1));
        assert_eq!(drain(&mut subscription), [(0, 0, 7), (8, 8, 0)]);
    }

    #[test]
    fn a_loss_stands_where_it_happened_and_is_not_dropped() {
        let mut subscription = subscription(2, 0);
        assert!(!subscription.subscribed(4, false));
        subscription.event(event("a", 5, 1));
        subscription.restart();
        subscription.subscribed(9, true);
        subscription.event(event("a", 10, 1));
        subscription.event(event("a", 11, 1));
        assert_eq!(drain(&mut subscription), [(5, 10, 2), (5, 9, 999), (11, 11, 0)]);
    }

    #[test]
    fn a_swap_takes_everything() {
        let mut subscription = subscription(2, 0);
        for sequence in 1..=3 {
            subscription.event(event("a", sequence, 1));
        }
        let mut taken = Deliveries::new();
        subscription.swap(&mut taken);
        assert!(subscription.is_empty());
        assert_eq!(taken.len(), 3);
        assert!(matches!(&taken[0], Ok(Delivery::Gap(missed)) if missed.count == 1));
    }
}
