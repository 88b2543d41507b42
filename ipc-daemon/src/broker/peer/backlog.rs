//! Frames that wait because the kernel is full, in order, from which events can be dropped.
//!
//! A doubly linked list over a vector of nodes: dropping an event frees its node at once, so that memory is bounded by
//! the bytes that are charged, and what is left keeps its order. Within one subscription every gap record stands
//! before every live event, because always the oldest event is dropped.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use ipc_core::id::Handle;
use ipc_core::time::Instant;
use ipc_core::wire::codec;
use ipc_core::wire::message::Gap;
use ipc_core::wire::{Body, HEADER_BYTES, Header, Kind};

use super::shares::Shares;
use crate::broker::keys::AccountKey;

/// A frame that waits.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Queued {
    pub(in crate::broker) header: Header,
    pub(in crate::broker) envelope: Bytes,
    pub(in crate::broker) body: Bytes,
    /// Stamped into the header as remaining time when the frame leaves.
    pub(in crate::broker) deadline: Option<Instant>,
    /// Who sends it, if that is somebody else than whoever pays for the peer: it is charged to the sender's share.
    pub(in crate::broker) sender: Option<AccountKey>,
}

impl Queued {
    pub(in crate::broker) fn new(
        header: &Header,
        envelope: &[u8],
        body: Body<'_>,
        deadline: Option<Instant>,
        sender: Option<AccountKey>,
    ) -> Self {
        Self {
            header: *header,
            envelope: Bytes::copy_from_slice(envelope),
            body: body.into_bytes(),
            deadline,
            sender,
        }
    }

    fn bytes(&self) -> usize {
        self.header.frame_bytes()
    }
}

/// The bounds of one subscription's events in a queue.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct EventRule {
    pub(in crate::broker) subscription: u64,
    pub(in crate::broker) events_max: usize,
    pub(in crate::broker) bytes_max: usize,
    /// The bound of the whole queue toward the peer.
    pub(in crate::broker) queue_max_bytes: usize,
    /// What the shares of senders are parts of.
    pub(in crate::broker) shared_max_bytes: usize,
}

/// What a gap record is charged with: a header and three integers in their longest form.
pub(in crate::broker) const GAP_BYTES: usize = HEADER_BYTES + 27;

#[derive(Debug)]
enum Item {
    Frame(Queued),
    Event { subscription: u64, frame: Queued },
    Gap { subscription: u64, topic: Handle, gap: Gap },
}

#[derive(Debug)]
struct Node {
    previous: u32,
    next: u32,
    item: Item,
}

const NONE: u32 = u32::MAX;

/// What waits of one subscription.
#[derive(Debug, Default)]
struct Stream {
    live: VecDeque<u32>,
    live_bytes: usize,
    gaps: BTreeMap<Handle, u32>,
}

/// The frames that wait for one peer.
#[derive(Debug)]
pub(in crate::broker) struct Backlog {
    nodes: Vec<Option<Node>>,
    free: Vec<u32>,
    head: u32,
    tail: u32,
    bytes: usize,
    streams: BTreeMap<u64, Stream>,
    shares: Shares,
}

impl Default for Backlog {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            head: NONE,
            tail: NONE,
            bytes: 0,
            streams: BTreeMap::new(),
            shares: Shares::default(),
        }
    }
}

impl Backlog {
    pub(in crate::broker) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(in crate::broker) fn is_empty(&self) -> bool {
        self.head == NONE
    }

    /// Adds a frame that is never dropped.
    pub(in crate::broker) fn push(&mut self, frame: Queued) {
        self.link(Item::Frame(frame));
    }

    /// Who has bytes waiting here, of those who do not pay for the peer.
    pub(in crate::broker) fn shares(&self) -> &Shares {
        &self.shares
    }

    /// Adds an event; `mark` is what this backlog may hold in bytes. For want of room, or past its sender's share, the oldest
    /// events of its subscription go; when there are none, it goes itself.
    pub(in crate::broker) fn push_event(&mut self, rule: &EventRule, mark: usize, frame: Queued) {
        let length = frame.bytes();
        let topic = frame.header.handle;
        loop {
            let stream = self.streams.entry(rule.subscription).or_default();
            let within = stream.live.len() < rule.events_max && stream.live_bytes + length <= rule.bytes_max;
            let has_share =
                frame.sender.is_none_or(|sender| self.shares.allows(sender, length, rule.shared_max_bytes));
            if (within || stream.live.is_empty()) && self.bytes + length <= mark && has_share {
                break;
            }
            if !self.drop_oldest(rule.subscription, mark) {
                self.record_gap(rule.subscription, topic, frame.header.sequence, mark);
                return;
            }
        }
        let index = self.link(Item::Event { subscription: rule.subscription, frame });
        let stream = self.streams.entry(rule.subscription).or_default();
        stream.live.push_back(index);
        stream.live_bytes += length;
    }

    /// Drops the oldest events of a subscription until `length` more bytes stay within `mark`. `false` when they do not
    /// although none is left.
    pub(in crate::broker) fn make_room(&mut self, subscription: u64, mark: usize, length: usize) -> bool {
        while self.bytes + length > mark {
            if !self.drop_oldest(subscription, mark) {
                return false;
            }
        }
        true
    }

    /// Counts a missing event of a topic that the peer does not know: only the merged record can hold it. The
    /// subscription has no live event, so that the record may stand behind everything else.
    pub(in crate::broker) fn miss_unannounced(&mut self, subscription: u64) {
        let stream = self.streams.entry(subscription).or_default();
        let index = if stream.gaps.is_empty() {
            let gap = Gap { from: 0, to: 0, count: 0 };
            let index = self.link(Item::Gap { subscription, topic: Handle::MERGED, gap });
            self.streams.entry(subscription).or_default().gaps.insert(Handle::MERGED, index);
            index
        } else {
            self.merge_gaps(subscription)
        };
        self.extend_gap(index, 0);
    }

    /// Turns the oldest event of a subscription into part of a gap record. `false` when it has none.
    fn drop_oldest(&mut self, subscription: u64, mark: usize) -> bool {
        let Some(stream) = self.streams.get_mut(&subscription) else { return false };
        let Some(index) = stream.live.pop_front() else { return false };
        let Some(Node { item: Item::Event { frame, .. }, previous, .. }) = self.node(index) else {
            return false;
        };
        let (topic, sequence, length, before) =
            (frame.header.handle, frame.header.sequence, frame.bytes(), *previous);
        self.unlink(index);
        if let Some(stream) = self.streams.get_mut(&subscription) {
            stream.live_bytes -= length;
        }
        self.record_gap_after(before, subscription, topic, sequence, mark);
        true
    }

    fn record_gap(&mut self, subscription: u64, topic: Handle, sequence: u64, mark: usize) {
        self.record_gap_after(self.tail, subscription, topic, sequence, mark);
    }

    /// Counts a missing event: in the record of its topic, in the merged record, or in a new one behind `before`.
    fn record_gap_after(
        &mut self,
        before: u32,
        subscription: u64,
        topic: Handle,
        sequence: u64,
        mark: usize,
    ) {
        let has_room = self.bytes + GAP_BYTES <= mark;
        let stream = self.streams.entry(subscription).or_default();
        let known = stream.gaps.get(&topic).or_else(|| stream.gaps.get(&Handle::MERGED)).copied();
        match known {
            Some(index) => self.extend_gap(index, sequence),
            None if has_room || stream.gaps.is_empty() => {
                let gap = Gap { from: sequence, to: sequence, count: 1 };
                let index = self.link_after(before, Item::Gap { subscription, topic, gap });
                self.streams.entry(subscription).or_default().gaps.insert(topic, index);
            }
            None => {
                let index = self.merge_gaps(subscription);
                self.extend_gap(index, sequence);
            }
        }
    }

    fn extend_gap(&mut self, index: u32, sequence: u64) {
        if let Some(Node { item: Item::Gap { topic, gap, .. }, .. }) = self.node_mut(index) {
            gap.count += 1;
            if *topic != Handle::MERGED {
                gap.to = sequence;
            }
        }
    }

    /// Makes one record of all records of a subscription, in the place of one of them: any will do, because all stand
    /// before every live event of the subscription.
    fn merge_gaps(&mut self, subscription: u64) -> u32 {
        let Some(stream) = self.streams.get_mut(&subscription) else { return NONE };
        let mut records = core::mem::take(&mut stream.gaps).into_values();
        let Some(kept) = records.next() else { return NONE };
        stream.gaps.insert(Handle::MERGED, kept);
        let mut others = 0;
        for index in records {
            if let Some(Item::Gap { gap, .. }) = self.unlink(index) {
                others += gap.count;
            }
        }
        if let Some(Node { item: Item::Gap { topic, gap, .. }, .. }) = self.node_mut(kept) {
            *topic = Handle::MERGED;
            *gap = Gap { from: 0, to: 0, count: gap.count + others };
        }
        kept
    }

    /// Takes the first frame.
    pub(in crate::broker) fn pop(&mut self) -> Option<Queued> {
        if self.head == NONE {
            return None;
        }
        let index = self.head;
        match self.unlink(index)? {
            Item::Frame(frame) => Some(frame),
            Item::Event { subscription, frame } => {
                let stream = self.streams.get_mut(&subscription);
                if let Some(stream) = stream {
                    stream.live.pop_front();
                    stream.live_bytes -= frame.bytes();
                }
                self.forget_if_empty(subscription);
                Some(frame)
            }
            Item::Gap { subscription, topic, gap } => {
                if let Some(stream) = self.streams.get_mut(&subscription) {
                    stream.gaps.remove(&topic);
                }
                self.forget_if_empty(subscription);
                Some(gap_frame(subscription, topic, &gap))
            }
        }
    }

    fn forget_if_empty(&mut self, subscription: u64) {
        let is_empty = |stream: &Stream| stream.live.is_empty() && stream.gaps.is_empty();
        if self.streams.get(&subscription).is_some_and(is_empty) {
            self.streams.remove(&subscription);
        }
    }

    /// Removes all that waits of a subscription.
    pub(in crate::broker) fn drop_subscription(&mut self, subscription: u64) {
        let Some(stream) = self.streams.remove(&subscription) else { return };
        for index in stream.live.into_iter().chain(stream.gaps.into_values()) {
            self.unlink(index);
        }
    }

    fn node(&self, index: u32) -> Option<&Node> {
        self.nodes.get(index as usize)?.as_ref()
    }

    fn node_mut(&mut self, index: u32) -> Option<&mut Node> {
        self.nodes.get_mut(index as usize)?.as_mut()
    }

    fn link(&mut self, item: Item) -> u32 {
        self.link_after(self.tail, item)
    }

    /// Puts an item behind the node `previous`, or first for `NONE`.
    fn link_after(&mut self, previous: u32, item: Item) -> u32 {
        self.bytes += charge(&item);
        if let Some((sender, bytes)) = sent_by(&item) {
            self.shares.add(sender, bytes);
        }
        let next = match self.node(previous) {
            Some(node) => node.next,
            None => self.head,
        };
        let node = Some(Node { previous, next, item });
        let index = match self.free.pop() {
            Some(index) => {
                self.nodes[index as usize] = node;
                index
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        match self.node_mut(previous) {
            Some(node) => node.next = index,
            None => self.head = index,
        }
        match self.node_mut(next) {
            Some(node) => node.previous = index,
            None => self.tail = index,
        }
        index
    }

    fn unlink(&mut self, index: u32) -> Option<Item> {
        let node = self.nodes.get_mut(index as usize)?.take()?;
        self.free.push(index);
        match self.node_mut(node.previous) {
            Some(previous) => previous.next = node.next,
            None => self.head = node.next,
        }
        match self.node_mut(node.next) {
            Some(next) => next.previous = node.previous,
            None => self.tail = node.previous,
        }
        self.bytes -= charge(&node.item);
        if let Some((sender, bytes)) = sent_by(&node.item) {
            self.shares.remove(sender, bytes);
        }
        Some(node.item)
    }
}

fn charge(item: &Item) -> usize {
    match item {
        Item::Frame(frame) | Item::Event { frame, .. } => frame.bytes(),
        Item::Gap { .. } => GAP_BYTES,
    }
}

/// Whose share holds it, and how much of that.
fn sent_by(item: &Item) -> Option<(AccountKey, usize)> {
    match item {
        Item::Frame(frame) | Item::Event { frame, .. } => Some((frame.sender?, frame.bytes())),
        Item::Gap { .. } => None,
    }
}

/// The frame that tells of a gap.
pub(super) fn gap_frame(subscription: u64, topic: Handle, gap: &Gap) -> Queued {
    let mut envelope = Vec::with_capacity(GAP_BYTES - HEADER_BYTES);
    // Three integers into a vector cannot fail; an empty envelope would still be a frame.
    if codec::encode_into(gap, &mut envelope).is_err() {
        envelope.clear();
    }
    let mut header = Header::new(Kind::GAP).with_correlation(subscription).with_handle(topic);
    header.sequence = gap.to;
    header.envelope_len = envelope.len() as u16;
    Queued { header, envelope: Bytes::from(envelope), body: Bytes::new(), deadline: None, sender: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: EventRule = EventRule {
        subscription: 7,
        events_max: 3,
        bytes_max: 1000,
        queue_max_bytes: usize::MAX,
        shared_max_bytes: usize::MAX,
    };

    fn event(topic: u32, sequence: u64) -> Queued {
        let handle = Handle { index: topic, generation: 1 };
        let header = Header { sequence, ..Header::new(Kind::EVENT).with_handle(handle) };
        Queued { header, envelope: Bytes::new(), body: Bytes::new(), deadline: None, sender: None }
    }

    fn plain(correlation: u64) -> Queued {
        let header = Header::new(Kind::REPLY).with_correlation(correlation);
        Queued::new(&header, &[], Body::Borrowed(&[]), None, None)
    }

    /// What comes out: `r5` a reply, `e2/9` event 9 of topic 2, `g2/3-4*2` a gap, `m*5` a merged gap.
    fn drain(backlog: &mut Backlog) -> Vec<String> {
        let mut out = Vec::new();
        while let Some(queued) = backlog.pop() {
            let header = queued.header;
            out.push(match header.kind {
                Kind::REPLY => format!("r{}", header.correlation),
                Kind::EVENT => format!("e{}/{}", header.handle.index, header.sequence),
                _ => {
                    let gap: Gap = codec::decode(&queued.envelope).unwrap();
                    match header.handle {
                        Handle::MERGED => format!("m*{}", gap.count),
                        topic => format!("g{}/{}-{}*{}", topic.index, gap.from, gap.to, gap.count),
                    }
                }
            });
        }
        assert_eq!(backlog.bytes(), 0);
        assert!(backlog.is_empty() && backlog.streams.is_empty() && backlog.shares.is_empty());
        out
    }

    #[test]
    fn the_oldest_events_make_room_and_leave_an_exact_gap_before_the_next() {
        for (count, expected) in [
            (2, "e1/1 e1/2"),
            (3, "e1/1 e1/2 e1/3"),
            (4, "g1/1-1*1 e1/2 e1/3 e1/4"),
            (6, "g1/1-3*3 e1/4 e1/5 e1/6"),
        ] {
            let mut backlog = Backlog::default();
            for sequence in 1..=count {
                backlog.push_event(&RULE, usize::MAX, event(1, sequence));
            }
            assert_eq!(drain(&mut backlog).join(" "), expected);
        }
    }

    #[test]
    fn replies_keep_their_place_between_events_that_are_dropped() {
        let mut backlog = Backlog::default();
        backlog.push(plain(1));
        for sequence in 1..=3 {
            backlog.push_event(&RULE, usize::MAX, event(1, sequence));
            backlog.push(plain(sequence + 1));
        }
        backlog.push_event(&RULE, usize::MAX, event(2, 1));
        assert_eq!(drain(&mut backlog).join(" "), "r1 g1/1-1*1 r2 e1/2 r3 e1/3 r4 e2/1");
    }

    #[test]
    fn memory_does_not_grow_behind_a_peer_that_never_reads() {
        let mut backlog = Backlog::default();
        backlog.push(plain(1));
        for sequence in 1..=10_000 {
            backlog.push_event(&RULE, usize::MAX, event(1, sequence));
        }
        assert!(backlog.nodes.len() <= 6);
        assert_eq!(drain(&mut backlog).join(" "), "r1 g1/1-9997*9997 e1/9998 e1/9999 e1/10000");
    }

    #[test]
    fn records_merge_when_there_is_no_room_and_their_count_stays_exact() {
        let mut backlog = Backlog::default();
        let mark = 3 * HEADER_BYTES;
        for topic in 1..=20 {
            backlog.push_event(&RULE, mark, event(topic, 5));
        }
        assert!(backlog.bytes() <= mark + GAP_BYTES);
        let out = drain(&mut backlog);
        let missing: u64 = out.iter().filter_map(|item| item.split('*').nth(1)?.parse::<u64>().ok()).sum();
        let delivered = out.iter().filter(|item| item.starts_with('e')).count() as u64;
        assert_eq!(missing + delivered, 20, "{out:?}");
        assert!(out.iter().any(|item| item.starts_with('m')), "{out:?}");
    }

    #[test]
    fn a_subscription_that_ends_leaves_nothing() {
        let mut backlog = Backlog::default();
        backlog.push(plain(1));
        for sequence in 1..=9 {
            backlog.push_event(&RULE, usize::MAX, event(1, sequence));
        }
        backlog.drop_subscription(RULE.subscription);
        assert_eq!(backlog.bytes(), HEADER_BYTES);
        assert_eq!(drain(&mut backlog).join(" "), "r1");
    }

    #[test]
    fn a_sender_keeps_to_its_share_and_drops_nothing_of_other_subscriptions() {
        let mut keys = slotmap::SlotMap::<AccountKey, ()>::with_key();
        let [flooder, other] = [(); 2].map(|()| keys.insert(()));
        let sent = |sender, sequence| Queued { sender: Some(sender), ..event(1, sequence) };
        // Room for eight events in all, so for four of one sender, and for two of two.
        let rule = |subscription| EventRule {
            subscription,
            events_max: 100,
            shared_max_bytes: 8 * HEADER_BYTES,
            ..RULE
        };
        let mut backlog = Backlog::default();
        for sequence in 1..=6 {
            backlog.push_event(&rule(7), usize::MAX, sent(flooder, sequence));
        }
        backlog.push_event(&rule(8), usize::MAX, sent(other, 1));
        assert!(!backlog.shares().allows(flooder, 1, 8 * HEADER_BYTES));
        // Its share is smaller now, and the second subscription has nothing of its own to drop.
        backlog.push_event(&rule(7), usize::MAX, sent(flooder, 7));
        backlog.push_event(&rule(9), usize::MAX, sent(flooder, 1));
        let out = drain(&mut backlog);
        assert_eq!(out, ["g1/1-5*5", "e1/6", "e1/1", "e1/7", "g1/1-1*1"]);
    }
}
