//! What publisher and subscribers agree on, whichever client they use: marks in the events, and how far the publisher may
//! be ahead. Nothing is dropped, so every delivery counts.

use std::collections::BTreeMap;

use bytes::Bytes;
use ipc_core::Payload;
use ipc_core::client::SubscribeOptions;

use super::{EndArgs, cpu_us, now_ns};
use crate::commands::bench::figures::Report;

/// Most bytes of payload a publisher is ahead of its slowest subscriber. The floor's is as much ahead, and by a socket's buffer.
const AHEAD_MAX_BYTES: u64 = 1 << 20;
/// And most events: below what the subscribers have the daemon queue for them.
const AHEAD_MAX: u64 = 8192;
/// What that is, with room for one batch more.
const QUEUE_EVENTS: u32 = 16_384;
/// Events published in one go.
const BATCH: u64 = 512;
/// Fewest events of a measured phase: more than are on their way when it begins.
const MEASURED_MIN: u64 = 2 * AHEAD_MAX;

/// First bytes of the events: the first of the measured phase, and the one behind the last.
const MARK_MEASURE: u8 = 1;
const MARK_END: u8 = 2;

impl EndArgs {
    /// Most events a publisher is ahead of its slowest subscriber.
    fn ahead_max(&self) -> u64 {
        (AHEAD_MAX_BYTES / self.size.max(1) as u64).clamp(4, AHEAD_MAX)
    }

    /// How subscribers subscribe: nothing is to be dropped.
    pub(super) fn subscribe_options(&self) -> SubscribeOptions {
        SubscribeOptions { queue_events_max: QUEUE_EVENTS, ..SubscribeOptions::default() }
    }

    /// The topic the events are published to.
    pub(super) fn events_topic(&self) -> String {
        format!("{}.events", self.name)
    }

    /// The topic the subscribers say on how far they are.
    pub(super) fn progress_topic(&self) -> String {
        format!("{}.progress", self.name)
    }
}

/// The three events a publisher sends. Cloning them shares their bytes.
pub(super) struct Marks([Payload; 3]);

impl Marks {
    pub(super) fn new(size: usize) -> Self {
        Self([0, MARK_MEASURE, MARK_END].map(|mark| {
            let mut body = vec![b'x'; size];
            if let Some(first) = body.first_mut() {
                *first = mark;
            }
            Payload::bytes(Bytes::from(body))
        }))
    }

    pub(super) fn plain(&self) -> Payload {
        self.0[0].clone()
    }

    pub(super) fn measure(&self) -> Payload {
        self.0[1].clone()
    }

    pub(super) fn end(&self) -> Payload {
        self.0[2].clone()
    }
}

/// How far a subscriber is.
#[derive(Debug)]
pub(super) struct Course {
    cpu_before_us: u64,
    total: u64,
    before: u64,
    said: u64,
    /// After how many events it says how far it is.
    say_every: u64,
    start_ns: u64,
    end_ns: Option<u64>,
}

impl Course {
    pub(super) fn begin(args: &EndArgs) -> Self {
        Self {
            cpu_before_us: cpu_us(),
            total: 0,
            before: 0,
            said: 0,
            say_every: args.ahead_max() / 4,
            start_ns: now_ns(),
            end_ns: None,
        }
    }

    /// Counts one event.
    pub(super) fn event(&mut self, body: &[u8]) {
        match body.first() {
            Some(&MARK_MEASURE) => (self.start_ns, self.before) = (now_ns(), self.total),
            Some(&MARK_END) => self.end_ns = Some(now_ns()),
            _ => {}
        }
        self.total += 1;
    }

    pub(super) fn is_over(&self) -> bool {
        self.end_ns.is_some()
    }

    /// What the publisher should be told, if it is time.
    pub(super) fn progress(&mut self) -> Option<Vec<u8>> {
        if self.total - self.said < self.say_every {
            return None;
        }
        self.said = self.total;
        Some(self.total.to_le_bytes().to_vec())
    }

    pub(super) fn report(&self) -> Report {
        Report {
            start_ns: self.start_ns,
            end_ns: self.end_ns.unwrap_or_else(now_ns),
            measured: self.total - self.before,
            total: self.total,
            cpu_us: cpu_us().saturating_sub(self.cpu_before_us),
            ..Report::default()
        }
    }
}

/// How far a publisher is, and its subscribers.
#[derive(Debug)]
pub(super) struct Progress {
    receivers: usize,
    ahead_max: u64,
    reached: BTreeMap<u64, u64>,
    sent: u64,
    /// What was sent when the measured phase began.
    sent_before: u64,
    cpu_before_us: u64,
    warm_end_ns: u64,
    time_ns: u64,
    /// The end of the measured phase, once it has begun.
    end_ns: Option<u64>,
}

impl Progress {
    pub(super) fn new(args: &EndArgs) -> Self {
        Self {
            receivers: args.receivers,
            ahead_max: args.ahead_max(),
            reached: BTreeMap::new(),
            sent: 0,
            sent_before: 0,
            cpu_before_us: 0,
            warm_end_ns: 0,
            time_ns: 0,
            end_ns: None,
        }
    }

    /// The clock starts.
    pub(super) fn begin(&mut self, args: &EndArgs) {
        let nanos = |duration: core::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.cpu_before_us = cpu_us();
        self.warm_end_ns = now_ns().saturating_add(nanos(args.warm_up()));
        self.time_ns = nanos(args.time);
    }

    pub(super) fn is_over(&self) -> bool {
        self.end_ns.is_some_and(|end_ns| now_ns() >= end_ns) && self.sent >= self.sent_before + MEASURED_MIN
    }

    /// How many events come next.
    pub(super) fn batch(&mut self) -> u64 {
        self.sent += BATCH;
        BATCH
    }

    /// Whether the measured phase begins here, with an event of its own.
    pub(super) fn begins_measuring(&mut self) -> bool {
        let now = now_ns();
        let begins = self.end_ns.is_none() && now >= self.warm_end_ns;
        if begins {
            self.end_ns = Some(now.saturating_add(self.time_ns));
            self.sent_before = self.sent;
            self.sent += 1;
        }
        begins
    }

    /// Whether the slowest subscriber must catch up first. One that has said nothing is at the beginning.
    pub(super) fn is_ahead(&self) -> bool {
        let everybody = self.reached.len() >= self.receivers;
        let slowest = if everybody { self.reached.values().copied().min().unwrap_or(0) } else { 0 };
        self.sent.saturating_sub(slowest) > self.ahead_max
    }

    /// A subscriber said how far it is. What is not a number is not counted, and its sender stays where it was.
    pub(super) fn note(&mut self, sender: u64, body: &[u8]) {
        if let Ok(count) = body.try_into().map(u64::from_le_bytes) {
            self.reached.insert(sender, count);
        }
    }

    pub(super) fn report(&self) -> Report {
        let cpu_us = cpu_us().saturating_sub(self.cpu_before_us);
        Report { measured: self.sent, total: self.sent, cpu_us, ..Report::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(size: usize) -> EndArgs {
        let mut words =
            ["publisher", "blocking", "unix:/b", "x", "0", "1", "2", "0", "1000"].map(String::from);
        words[4] = size.to_string();
        EndArgs::parse(&words.map(std::ffi::OsString::from)).expect("these are arguments")
    }

    #[test]
    fn a_publisher_is_ahead_by_what_is_queued_for_its_subscribers() {
        for (size, events) in [(0, AHEAD_MAX), (64, AHEAD_MAX), (1024, 1024), (usize::MAX, 4)] {
            assert_eq!(args(size).ahead_max(), events, "{size}");
        }
        assert!(u64::from(QUEUE_EVENTS) >= AHEAD_MAX + BATCH);
    }

    #[test]
    fn a_publisher_waits_for_its_slowest_subscriber() {
        let mut progress = Progress::new(&args(64));
        while !progress.is_ahead() {
            progress.batch();
        }
        assert_eq!(progress.sent, AHEAD_MAX + BATCH);
        progress.note(1, &AHEAD_MAX.to_le_bytes());
        progress.note(2, b"odd");
        assert!(progress.is_ahead(), "the second has said nothing");
        progress.note(2, &BATCH.to_le_bytes());
        assert!(!progress.is_ahead());
    }

    #[test]
    fn a_subscriber_counts_between_the_marks() {
        let args = args(64);
        let mut course = Course::begin(&args);
        let marks = Marks::new(64);
        for event in [marks.plain(), marks.measure(), marks.plain(), marks.end()] {
            assert!(!course.is_over());
            course.event(&event.body);
        }
        assert!(course.is_over());
        assert_eq!((course.report().measured, course.report().total, course.progress()), (3, 4, None));
        let enough = args.ahead_max() / 4;
        (0..enough).for_each(|_| course.event(&marks.plain().body));
        assert_eq!(course.progress(), Some((enough + 4).to_le_bytes().to_vec()));
        assert_eq!(course.progress(), None);
    }
}
