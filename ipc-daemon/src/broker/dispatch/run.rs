//! A run: events that one publisher sends on one topic with nothing between them, encoded once for all subscribers.
//!
//! What a subscriber gets is, byte for byte, what it would get were each event delivered by itself; only the work is less.
//! Subscribers get the same bytes but for the number of their subscription, and that is mostly the same too, because each
//! connection numbers its own. Nothing else happens while a run is open: every other input ends it first.

use bytes::Bytes;
use ipc_core::id::Handle;
use ipc_core::wire::{Body, Flags, Frame, HEADER_BYTES, Header, Kind, SHARE_MIN_BYTES};

use super::event::event_header;
use crate::broker::Broker;
use crate::broker::keys::{PeerKey, TopicKey};
use crate::broker::topics::Match;

/// A run does not grow past this; what is over is the next one's.
const RUN_MAX_BYTES: usize = 128 * 1024;
/// More than what a subscriber is told of a topic and a publisher that it does not know.
const ANNOUNCEMENTS_BYTES: usize = 1024;
/// Where in a frame the number of the subscription stands.
const SUBSCRIPTION_AT: core::ops::Range<usize> = 16..24;

/// Events that are numbered and not queued yet.
#[derive(Debug)]
pub(in crate::broker) struct Run {
    publisher: PeerKey,
    /// The publisher's handle of the topic.
    handle: Handle,
    topic: TopicKey,
    /// Who gets them, each peer once.
    matches: Vec<Match>,
    /// As the first of them gets them.
    frames: Vec<u8>,
    last_bytes: usize,
    events: u64,
}

impl Run {
    /// Whether the event can be one of this run.
    fn takes(&self, publisher: PeerKey, frame: &Frame<'_>) -> bool {
        let header = &frame.header;
        self.publisher == publisher
            && self.handle == header.handle
            && header.kind == Kind::PUBLISH
            && header.flags == Flags::ONEWAY
            && is_small(frame)
            && self.frames.len() < RUN_MAX_BYTES
    }

    fn push(&mut self, frame: &Frame<'_>, sequence: u64) {
        let header = Header {
            sender: self.publisher.slot(),
            correlation: self.matches.first().map_or(0, |first| first.id),
            ..event_header(frame, self.topic, sequence)
        };
        self.frames.extend_from_slice(&header.to_bytes());
        self.frames.extend_from_slice(frame.envelope);
        self.frames.extend_from_slice(frame.body.as_slice());
        self.last_bytes = header.frame_bytes();
        self.events += 1;
    }
}

/// Whether copying an event once is nothing to be saved.
fn is_small(frame: &Frame<'_>) -> bool {
    frame.envelope.len() + frame.body.as_slice().len() < SHARE_MIN_BYTES
}

impl Broker {
    /// Makes the event one of the open run, if it can be.
    pub(in crate::broker) fn join_run(&mut self, publisher: PeerKey, frame: &Frame<'_>) -> bool {
        let Some(run) = &mut self.run else { return false };
        if !run.takes(publisher, frame) {
            return false;
        }
        run.push(frame, self.topics.number(run.topic));
        true
    }

    /// Begins a run with this event, if its topic has several subscribers. None is open.
    pub(super) fn begin_run(&mut self, publisher: PeerKey, topic: TopicKey, frame: &Frame<'_>) -> bool {
        // Whoever looks sees each event by itself.
        if !is_small(frame) || self.is_monitored() {
            return false;
        }
        let Some(matches) = self.topics.take_shared(topic) else { return false };
        let handle = frame.header.handle;
        let frames = self.pool.take();
        let mut run = Run { publisher, handle, topic, matches, frames, last_bytes: 0, events: 0 };
        run.push(frame, self.topics.number(topic));
        self.run = Some(run);
        true
    }

    /// Queues the events of the open run for everybody who gets them.
    #[inline]
    pub(in crate::broker) fn end_run(&mut self) {
        // Asked before each frame; taking nothing out would move a whole run.
        if self.run.is_some()
            && let Some(run) = self.run.take()
        {
            self.deliver_run(run);
        }
    }

    #[inline(never)]
    fn deliver_run(&mut self, run: Run) {
        let Run { publisher, topic, mut matches, frames, last_bytes, events, .. } = run;
        self.counters.events_published += events;
        self.counters.events_delivered += events * matches.len() as u64;
        let mut copies = Copies::new(matches.first().map_or(0, |first| first.id), frames);
        self.work += (matches.len() * copies.bytes()) as u64;
        // Near the mark of a user it matters who comes first, so then nobody gets several at once.
        let in_all = matches.len() * (copies.bytes() + ANNOUNCEMENTS_BYTES);
        let is_roomy = matches.iter().all(|matched| {
            self.peers.get(matched.peer).is_none_or(|state| self.quota.has_queue_room(state.account, in_all))
        });
        let mut slow = Vec::new();
        for (at, matched) in matches.iter().enumerate() {
            if !is_roomy || !self.queue_run(publisher, matched, &mut copies, last_bytes) {
                slow.push(at);
            }
        }
        self.deliver_singly(publisher, topic, (&mut matches, &slow), &copies.first.1);
        self.topics.put_back(topic, matches);
        self.pool.recycle(copies.first.1);
    }

    /// Queues a run for a subscriber that has room for all of it and knows its topic and its publisher.
    fn queue_run(
        &mut self,
        publisher: PeerKey,
        matched: &Match,
        copies: &mut Copies,
        last_bytes: usize,
    ) -> bool {
        let max = self.config.limits.queue_per_connection_max_bytes as usize;
        let Some(state) = self.peers.get_mut(matched.peer) else { return true };
        let is_known = matched.is_announced && state.known.knows(publisher);
        if !is_known || !state.outbound.takes_run(copies.bytes(), last_bytes, max) {
            return false;
        }
        let before = state.outbound.queued_bytes();
        state.outbound.push_run(copies.numbered(matched.id));
        self.quota.requeue(state.account, before, state.outbound.queued_bytes());
        self.touch(matched.peer);
        true
    }

    /// For the others: each event by itself, so that as many as there is room for are queued.
    fn deliver_singly(
        &mut self,
        publisher: PeerKey,
        topic: TopicKey,
        (matches, slow): (&mut [Match], &[usize]),
        frames: &[u8],
    ) {
        if slow.is_empty() {
            return;
        }
        for (header, envelope, body) in Frames(frames) {
            let frame = Frame { header, envelope, body: Body::Borrowed(body) };
            let mut shared = None;
            for at in slow {
                if let Some(matched) = matches.get_mut(*at) {
                    self.deliver_to(publisher, topic, matched, header, &frame, &mut shared);
                }
            }
        }
    }
}

/// The frames of a run with one number of a subscription or another.
struct Copies {
    first: (u64, Bytes),
    /// The copy that was made last.
    other: Option<(u64, Bytes)>,
}

impl Copies {
    fn new(number: u64, frames: Vec<u8>) -> Self {
        Self { first: (number, frames.into()), other: None }
    }

    fn bytes(&self) -> usize {
        self.first.1.len()
    }

    fn numbered(&mut self, number: u64) -> Bytes {
        if self.first.0 == number {
            return self.first.1.clone();
        }
        match &self.other {
            Some((known, frames)) if *known == number => frames.clone(),
            Some(_) | None => {
                let frames = renumbered(&self.first.1, number);
                self.other = Some((number, frames.clone()));
                frames
            }
        }
    }
}

fn renumbered(frames: &[u8], number: u64) -> Bytes {
    let mut copy = frames.to_vec();
    let mut at = 0;
    for (header, ..) in Frames(frames) {
        if let Some(field) = copy.get_mut(at + SUBSCRIPTION_AT.start..at + SUBSCRIPTION_AT.end) {
            field.copy_from_slice(&number.to_le_bytes());
        }
        at += header.frame_bytes();
    }
    copy.into()
}

/// Frames one behind the other, as this module has written them.
struct Frames<'a>(&'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = (Header, &'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (bytes, rest) = self.0.split_first_chunk::<HEADER_BYTES>()?;
        let header = Header::parse(bytes).ok()?;
        let (envelope, rest) = rest.split_at_checked(header.envelope_len.into())?;
        let (body, rest) = rest.split_at_checked(header.payload_len as usize)?;
        self.0 = rest;
        Some((header, envelope, body))
    }
}
