//! What is on its way to one peer.
//!
//! Two stages. The *wire* is what the next vectored write takes: small frames copied one behind the other, large
//! payloads spliced in by reference. Only when the kernel did not take all of it, or the wire is full, do frames go to
//! the *backlog*, from which events can still be dropped. Order is kept across both. A peer that nothing is on its way
//! to owns no buffer.

use std::collections::{VecDeque, vec_deque};

use bytes::Bytes;
use ipc_core::id::Handle;
use ipc_core::time::Instant;
use ipc_core::wire::message::Gap;
use ipc_core::wire::{Body, Header};

use super::backlog::{Backlog, EventRule, Queued, gap_frame};
use super::pool::BufferPool;
use super::shares::Shares;
use crate::broker::keys::AccountKey;

/// Past this many bytes frames go to the backlog although the kernel may take more.
const WIRE_MAX_BYTES: usize = 512 * 1024;
/// How much of the backlog is put on the wire at a time, in bytes.
const REFILL_BYTES: usize = 128 * 1024;
#[derive(Debug)]
struct Splice {
    /// Offset in the wire buffer before which the body stands.
    at: usize,
    body: Bytes,
}

/// What is on its way to one peer.
#[derive(Debug, Default)]
pub(in crate::broker) struct Outbound {
    wire: Vec<u8>,
    /// Bytes of `wire` that the kernel has taken.
    written: usize,
    splices: VecDeque<Splice>,
    /// Bytes of the first splice that the kernel has taken.
    body_written: usize,
    /// Bytes of wire and splices that the kernel has not taken.
    wire_bytes: usize,
    /// Where in the wire a remaining deadline stands, and when that deadline is.
    stamps: Vec<(usize, Instant)>,
    /// The kernel did not take everything; nothing is added to the wire until it has.
    blocked: bool,
    backlog: Option<Box<Backlog>>,
    /// Room kept for error replies and gap records, in bytes.
    reserved: usize,
}

impl Outbound {
    /// Bytes that the kernel has not taken yet.
    pub(in crate::broker) fn queued_bytes(&self) -> usize {
        self.wire_bytes + self.backlog.as_ref().map_or(0, |backlog| backlog.bytes())
    }

    /// Whether `length` more bytes stay within `max`. An empty queue takes anything.
    pub(in crate::broker) fn fits(&self, length: usize, max: usize) -> bool {
        let queued = self.queued_bytes();
        queued == 0 || queued + self.reserved + length <= max
    }

    pub(in crate::broker) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Who has bytes waiting, of those who do not pay for the peer; `None` while nothing waits behind what the kernel has not
    /// taken.
    pub(in crate::broker) fn shares(&self) -> Option<&Shares> {
        self.backlog.as_ref().map(|backlog| backlog.shares())
    }

    pub(in crate::broker) fn reserve(&mut self, bytes: usize) {
        self.reserved += bytes;
    }

    pub(in crate::broker) fn release(&mut self, bytes: usize) {
        debug_assert!(self.reserved >= bytes, "released more than was reserved");
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    fn takes_directly(&self) -> bool {
        !self.blocked && self.backlog.is_none() && self.wire_bytes < WIRE_MAX_BYTES
    }

    /// Adds a frame behind everything else. `deadline` is stamped into it as the remaining time when it is written; while it
    /// waits it is charged to the share of `sender`, if there is one.
    pub(in crate::broker) fn push(
        &mut self,
        pool: &mut BufferPool,
        header: &Header,
        envelope: &[u8],
        body: Body<'_>,
        (deadline, sender): (Option<Instant>, Option<AccountKey>),
    ) {
        if self.takes_directly() {
            self.write_frame(pool, header, envelope, body, deadline);
        } else {
            let queued = Queued::new(header, envelope, body, deadline, sender);
            self.backlog.get_or_insert_default().push(queued);
        }
    }

    /// Adds an event under the rule of its subscription; past its bounds the oldest event of that subscription goes.
    ///
    /// `shared` keeps the copy that the backlogs of several subscribers share.
    pub(in crate::broker) fn push_event(
        &mut self,
        pool: &mut BufferPool,
        rule: &EventRule,
        header: &Header,
        (event, sender): ((&[u8], &Body<'_>), Option<AccountKey>),
        shared: &mut Option<(Bytes, Bytes)>,
    ) {
        let (envelope, body) = event;
        if self.takes_directly() && self.fits(header.frame_bytes(), rule.queue_max_bytes) {
            let body = match body {
                Body::Borrowed(bytes) => Body::Borrowed(bytes),
                Body::Shared(bytes) => Body::Shared(bytes.clone()),
            };
            self.write_frame(pool, header, envelope, body, None);
            return;
        }
        let (envelope, body) = shared
            .get_or_insert_with(|| (Bytes::copy_from_slice(envelope), body.clone().into_bytes()))
            .clone();
        let mark = rule.queue_max_bytes.saturating_sub(self.wire_bytes + self.reserved);
        let queued = Queued { header: *header, envelope, body, deadline: None, sender };
        self.backlog.get_or_insert_default().push_event(rule, mark, queued);
    }

    /// Whether `length` bytes of announcements and the event behind them fit; the oldest events of the subscription go for
    /// them. If they do not fit all the same, the event is counted as missing, and nothing must be announced for it.
    pub(in crate::broker) fn make_room(&mut self, rule: &EventRule, length: usize) -> bool {
        if self.fits(length, rule.queue_max_bytes) {
            return true;
        }
        let mark = rule.queue_max_bytes.saturating_sub(self.wire_bytes + self.reserved);
        let backlog = self.backlog.get_or_insert_default();
        let has_room = backlog.make_room(rule.subscription, mark, length);
        if !has_room {
            backlog.miss_unannounced(rule.subscription);
        }
        has_room
    }

    /// Tells at once of one missing event of a subscription. Nothing is queued, so no earlier record can count it.
    pub(in crate::broker) fn push_missing(&mut self, pool: &mut BufferPool, subscription: u64) {
        let record = gap_frame(subscription, Handle::MERGED, &Gap { from: 0, to: 0, count: 1 });
        self.write_frame(pool, &record.header, &record.envelope, Body::Borrowed(&[]), None);
    }

    /// Whether frames of `run_bytes` in all, the last of them of `last_bytes`, could be added one by one without going past a bound.
    pub(in crate::broker) fn takes_run(&self, run_bytes: usize, last_bytes: usize, max: usize) -> bool {
        self.takes_directly()
            && self.wire_bytes + run_bytes - last_bytes < WIRE_MAX_BYTES
            && self.queued_bytes() + self.reserved + run_bytes <= max
    }

    /// Adds frames that several peers get, without copying them. [`takes_run`](Outbound::takes_run) has been asked.
    pub(in crate::broker) fn push_run(&mut self, frames: Bytes) {
        self.wire_bytes += frames.len();
        self.splices.push_back(Splice { at: self.wire.len(), body: frames });
    }

    fn write_frame(
        &mut self,
        pool: &mut BufferPool,
        header: &Header,
        envelope: &[u8],
        body: Body<'_>,
        deadline: Option<Instant>,
    ) {
        if self.wire.capacity() == 0 {
            self.wire = pool.take();
        }
        if let Some(deadline) = deadline {
            self.stamps.push((self.wire.len(), deadline));
        }
        self.wire.extend_from_slice(&header.to_bytes());
        self.wire.extend_from_slice(envelope);
        match body {
            Body::Borrowed(bytes) => self.wire.extend_from_slice(bytes),
            Body::Shared(bytes) => self.splices.push_back(Splice { at: self.wire.len(), body: bytes }),
        }
        self.wire_bytes += header.frame_bytes();
    }

    /// What to write, in order.
    pub(in crate::broker) fn slices(&self) -> Slices<'_> {
        Slices {
            wire: &self.wire,
            from: self.written,
            splices: self.splices.iter(),
            skip: self.body_written,
            body: &[],
        }
    }

    /// The kernel took `count` bytes. What it did not take blocks the wire; when it took all, the backlog follows.
    pub(in crate::broker) fn advance(&mut self, pool: &mut BufferPool, now: Instant, count: usize) {
        let mut left = count.min(self.wire_bytes);
        self.wire_bytes -= left;
        while let Some(splice) = self.splices.front() {
            let before = splice.at - self.written;
            if left < before {
                break;
            }
            self.written = splice.at;
            left -= before;
            let body_left = splice.body.len() - self.body_written;
            if left < body_left {
                self.body_written += left;
                left = 0;
                break;
            }
            left -= body_left;
            self.body_written = 0;
            if let Some(splice) = self.splices.pop_front() {
                pool.recycle(splice.body);
            }
        }
        self.written += left;
        self.blocked = self.wire_bytes > 0;
        if !self.blocked {
            self.written = 0;
            self.stamps.clear();
            pool.give(core::mem::take(&mut self.wire));
            self.refill(pool, now);
        }
    }

    /// The kernel takes bytes again: remaining deadlines are stamped anew before they are written.
    pub(in crate::broker) fn restamp(&mut self, now: Instant) {
        for (at, deadline) in &self.stamps {
            if *at >= self.written {
                let field = at + 28..at + 32;
                if let Some(field) = self.wire.get_mut(field) {
                    field.copy_from_slice(&remaining_us(*deadline, now).to_le_bytes());
                }
            }
        }
    }

    fn refill(&mut self, pool: &mut BufferPool, now: Instant) {
        let Some(mut backlog) = self.backlog.take() else { return };
        while self.wire_bytes < REFILL_BYTES
            && let Some(queued) = backlog.pop()
        {
            let mut header = queued.header;
            if let Some(deadline) = queued.deadline {
                header.deadline_us = remaining_us(deadline, now);
            }
            let body = Body::Shared(queued.body);
            let body = match &body {
                Body::Shared(bytes) if bytes.len() < ipc_core::wire::SHARE_MIN_BYTES => Body::Borrowed(bytes),
                _ => body,
            };
            self.write_frame(pool, &header, &queued.envelope, body, queued.deadline);
        }
        if !backlog.is_empty() {
            self.backlog = Some(backlog);
        }
    }

    /// Forgets what is queued for a subscription that ended.
    pub(in crate::broker) fn drop_subscription(&mut self, subscription: u64) {
        if let Some(backlog) = &mut self.backlog {
            backlog.drop_subscription(subscription);
            if backlog.is_empty() {
                self.backlog = None;
            }
        }
    }

    /// Forgets everything.
    pub(in crate::broker) fn clear(&mut self, pool: &mut BufferPool) {
        pool.give(core::mem::take(&mut self.wire));
        *self = Outbound::default();
    }
}

/// At least one microsecond, because 0 stands for no deadline.
fn remaining_us(deadline: Instant, now: Instant) -> u32 {
    u32::try_from(deadline.since(now).as_micros()).unwrap_or(u32::MAX).max(1)
}

/// The pieces of an [`Outbound`], in order; none is empty. Mostly there is one, and it is asked for with every write, so this
/// is simple and small.
#[derive(Debug, Default)]
pub(in crate::broker) struct Slices<'a> {
    wire: &'a [u8],
    /// How far the wire was given.
    from: usize,
    splices: vec_deque::Iter<'a, Splice>,
    /// Bytes of the next splice that are not to be given.
    skip: usize,
    /// What comes before the wire goes on.
    body: &'a [u8],
}

impl<'a> Iterator for Slices<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let body = core::mem::take(&mut self.body);
            if !body.is_empty() {
                return Some(body);
            }
            let end = match self.splices.next() {
                Some(splice) => {
                    self.body = &splice.body[core::mem::take(&mut self.skip)..];
                    splice.at
                }
                None if self.from < self.wire.len() => self.wire.len(),
                None => return None,
            };
            let piece = &self.wire[self.from..end];
            self.from = end;
            if !piece.is_empty() {
                return Some(piece);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_core::wire::{HEADER_BYTES, Kind};

    const NOW: Instant = Instant::from_nanos(1_000_000_000);

    fn header(correlation: u64, payload: usize) -> Header {
        Header { payload_len: payload as u32, ..Header::new(Kind::CALL).with_correlation(correlation) }
    }

    fn push(out: &mut Outbound, pool: &mut BufferPool, correlation: u64, payload: &[u8]) {
        let body = if payload.len() >= 100 {
            Body::Shared(Bytes::copy_from_slice(payload))
        } else {
            Body::Borrowed(payload)
        };
        out.push(pool, &header(correlation, payload.len()), &[], body, (None, None));
    }

    fn flat(out: &Outbound) -> Vec<u8> {
        out.slices().flatten().copied().collect()
    }

    #[test]
    fn any_partial_write_keeps_every_byte_in_order() {
        let mut pool = BufferPool::default();
        let build = |pool: &mut BufferPool| {
            let mut out = Outbound::default();
            push(&mut out, pool, 1, b"one");
            push(&mut out, pool, 2, &[2; 150]);
            push(&mut out, pool, 3, &[3; 200]);
            push(&mut out, pool, 4, b"four");
            out
        };
        let expected = flat(&build(&mut pool));
        assert_eq!(expected.len(), 4 * HEADER_BYTES + 3 + 150 + 200 + 4);
        for step in 1..=expected.len() {
            let mut out = build(&mut pool);
            let mut got = Vec::new();
            while out.queued_bytes() > 0 {
                let taken: Vec<u8> = out.slices().flatten().copied().take(step).collect();
                out.advance(&mut pool, NOW, taken.len());
                got.extend(taken);
            }
            assert_eq!(got, expected, "step {step}");
            assert_eq!(out.wire.capacity(), 0);
        }
    }

    #[test]
    fn frames_behind_a_full_kernel_keep_their_order_and_lose_the_time_they_waited() {
        let mut pool = BufferPool::default();
        let mut out = Outbound::default();
        push(&mut out, &mut pool, 1, b"");
        out.advance(&mut pool, NOW, 10);
        assert!(out.is_blocked());
        let deadline = NOW + core::time::Duration::from_millis(10);
        let stamped = Header { deadline_us: 10_000, ..header(2, 0) };
        out.push(&mut pool, &stamped, &[], Body::Borrowed(&[]), (Some(deadline), None));
        assert_eq!(out.queued_bytes(), 2 * HEADER_BYTES - 10);
        let later = NOW + core::time::Duration::from_millis(4);
        out.advance(&mut pool, later, HEADER_BYTES - 10);
        let bytes = flat(&out);
        let parsed = Header::parse(bytes.first_chunk().unwrap()).unwrap();
        assert_eq!((parsed.correlation, parsed.deadline_us), (2, 6_000));
        out.restamp(later + core::time::Duration::from_millis(5));
        assert_eq!(Header::parse(flat(&out).first_chunk().unwrap()).unwrap().deadline_us, 1_000);
        out.restamp(later + core::time::Duration::from_millis(50));
        assert_eq!(Header::parse(flat(&out).first_chunk().unwrap()).unwrap().deadline_us, 1);
    }

    #[test]
    fn an_empty_queue_takes_one_frame_of_any_size() {
        let mut pool = BufferPool::default();
        let mut out = Outbound::default();
        assert!(out.fits(1_000_000, 10));
        push(&mut out, &mut pool, 1, b"");
        for (length, fits) in [(59, true), (60, true), (61, false)] {
            assert_eq!(out.fits(length, 100), fits, "{length}");
        }
        out.reserve(10);
        assert!(!out.fits(51, 100) && out.fits(50, 100));
    }
}
