//! Frames on their way to a peer: announced, charged, and flushed once in a batch.

use ipc_core::identity::Identity;
use ipc_core::time::Instant;
use ipc_core::wire::codec::{self, Wire};
use ipc_core::wire::message::{Close, ErrorBody, Forget, ForgetWhat, PeerInfo, TopicInfo};
use ipc_core::wire::{Body, Flags, Frame, HEADER_BYTES, Header, Kind};
use ipc_core::{Error, ErrorCode};

use crate::broker::event::Output;
use crate::broker::keys::{AccountKey, PeerKey, TopicKey};
use crate::broker::peer::{Announce, Phase, Shares};
use crate::broker::{Broker, Stage, shutting_down};

use super::turn::FLUSH_WORK;

/// How far the answers to a connection's own requests may go past its mark before it is closed, in bytes.
const ANSWERS_SLACK_BYTES: usize = 1 << 20;

/// The envelope of a `forget`.
const FORGET_BYTES: usize = 1;
/// The length of a text of at most 64 KiB.
const TEXT_LENGTH_BYTES: usize = 3;
/// The numbers of a `peer_announced` in their longest form: the peer's, the choice of identity, and either three ids or the
/// lengths of two texts.
const PEER_NUMBERS_BYTES: usize = 9 + 1 + 3 * 5;

impl Broker {
    /// Queues a frame without asking whether there is room. For answers and announcements.
    pub(in crate::broker) fn send<T: Wire>(
        &mut self,
        to: PeerKey,
        header: Header,
        envelope: &T,
        body: &[u8],
    ) {
        let mut encoded = Vec::new();
        if codec::encode_into(envelope, &mut encoded).is_err() {
            encoded.clear();
        }
        self.work += (encoded.len() + body.len()) as u64;
        self.send_encoded(to, header, &encoded, Body::Borrowed(body), (None, None));
    }

    /// The same with an envelope that is encoded already; `deadline` is stamped in when the frame leaves, and while it waits it
    /// is charged to whoever sent it.
    pub(in crate::broker) fn send_encoded(
        &mut self,
        to: PeerKey,
        mut header: Header,
        envelope: &[u8],
        body: Body<'_>,
        (deadline, from): (Option<Instant>, Option<PeerKey>),
    ) {
        let sender = from.and_then(|from| self.sharer(to, from));
        let Some(peer) = self.peers.get_mut(to) else { return };
        if peer.is_departed() {
            return;
        }
        header.envelope_len = envelope.len() as u16;
        header.payload_len = body.as_slice().len() as u32;
        let before = peer.outbound.queued_bytes();
        peer.outbound.push(&mut self.pool, &header, envelope, body, (deadline, sender));
        self.quota.requeue(peer.account, before, peer.outbound.queued_bytes());
        self.touch(to);
    }

    /// Sees to it that the peer is flushed after this batch. One that is blocked is flushed when it is writable.
    pub(in crate::broker) fn touch(&mut self, peer: PeerKey) {
        if let Some(state) = self.peers.get_mut(peer)
            && !state.is_touched
            && !state.outbound.is_blocked()
        {
            state.is_touched = true;
            self.work += FLUSH_WORK;
            self.outputs.push_back(Output::Flush(peer));
        }
    }

    /// Answers a request. A connection that does not read its answers is closed.
    pub(in crate::broker) fn answer<T: Wire>(
        &mut self,
        to: PeerKey,
        header: Header,
        envelope: &T,
        body: &[u8],
    ) {
        if header.kind == Kind::OUTCOME && !header.flags.contains(Flags::ERROR) && self.is_monitored() {
            self.show_outcome(to, header, None);
        }
        if matches!(header.kind, Kind::NOTICE | Kind::REVOKED) && self.is_monitored() {
            self.show_notice(to, header, body.len());
        }
        self.send(to, header, envelope, body);
        let max = self.config.limits.queue_per_connection_max_bytes as usize + ANSWERS_SLACK_BYTES;
        if self.peers.get(to).is_some_and(|peer| !peer.is_departed() && peer.outbound.queued_bytes() > max) {
            // Closed at the end of the turn: a departure in the middle of another would meet half-released state.
            self.condemned.push(to);
        }
    }

    /// Closes the connections that did not read their answers. Each departure may condemn others.
    pub(in crate::broker) fn end_turn(&mut self) {
        while let Some(peer) = self.condemned.pop() {
            if self.peers.get(peer).is_some_and(|peer| !peer.is_departed()) {
                self.counters.slow_connections_closed += 1;
                let error = Error::new(ErrorCode::SlowConsumer, "the answers to its requests were not read");
                self.close(peer, &error);
            }
        }
    }

    /// Answers a request with success.
    pub(in crate::broker) fn done<T: Wire>(&mut self, to: PeerKey, correlation: u64, result: &T) {
        self.answer(to, Header::new(Kind::DONE).with_correlation(correlation), result, &[]);
    }

    /// Answers a request with an error of that kind of frame.
    pub(in crate::broker) fn refuse(&mut self, to: PeerKey, kind: Kind, correlation: u64, error: &Error) {
        self.refuse_as(to, Header::new(kind).with_correlation(correlation), error);
    }

    /// The same with a header of one's own.
    pub(in crate::broker) fn refuse_as(&mut self, to: PeerKey, header: Header, error: &Error) {
        match error.code {
            ErrorCode::QuotaExceeded => {
                self.counters.quota_refusals += 1;
                if let Some(state) = self.peers.get(to) {
                    self.quota.note_refused(state.account, error);
                }
            }
            ErrorCode::PermissionDenied => {
                self.counters.permission_refusals += 1;
                self.note_refusal(to, error);
            }
            _ => {}
        }
        if header.kind == Kind::OUTCOME && self.is_monitored() {
            self.show_outcome(to, header, Some(error.code));
        }
        self.answer(to, Header { flags: Flags::ERROR, ..header }, &ErrorBody::from(error), &[]);
    }

    /// Whether the peer's queue, and its user's, take that many bytes more.
    ///
    /// # Errors
    /// `quota_exceeded` naming the limit and the peer.
    pub(in crate::broker) fn check_room(&self, to: PeerKey, bytes: usize) -> Result<(), Error> {
        let Some(peer) = self.peers.get(to) else { return Ok(()) };
        let limits = &self.config.limits;
        let per_connection = limits.queue_per_connection_max_bytes as usize;
        let checked = if peer.outbound.fits(bytes, per_connection) {
            self.quota.check_queue(peer.account, peer.outbound.queued_bytes(), bytes)
        } else {
            Err(Error::quota("queue_per_connection_max_bytes", per_connection as u64))
        };
        checked.map_err(|mut error| {
            error.message = format!("{} does not read fast enough: {}", peer.who, error.message);
            error
        })
    }

    /// Whether `from` may have that many bytes more waiting toward `to`: a user has a share of what waits for another's.
    ///
    /// # Errors
    /// `quota_exceeded` with the share.
    pub(in crate::broker) fn check_share(
        &self,
        to: PeerKey,
        from: PeerKey,
        bytes: usize,
    ) -> Result<(), Error> {
        let (Some(peer), Some(sender)) = (self.peers.get(to), self.sharer(to, from)) else { return Ok(()) };
        if !peer.outbound.is_blocked() {
            return Ok(());
        }
        let max = self.config.limits.queue_per_connection_max_bytes as usize;
        let none = Shares::default();
        let shares = peer.outbound.shares().unwrap_or(&none);
        if shares.allows(sender, bytes, max) {
            return Ok(());
        }
        let share = shares.share(sender, max) as u64;
        let mut error = Error::quota("queue_per_connection_max_bytes", share);
        error.message = format!(
            "{} does not read fast enough, and the share of this user in its queue is full: {share} bytes",
            peer.who
        );
        Err(error.with_hint("wait for the replies that are due before calling again"))
    }

    /// Whose share of what waits toward `to` a frame of `from` is charged to: none for whoever pays for that queue.
    pub(in crate::broker) fn sharer(&self, to: PeerKey, from: PeerKey) -> Option<AccountKey> {
        let (peer, sender) = (self.peers.get(to)?, self.peers.get(from)?);
        (peer.account != sender.account).then_some(sender.account)
    }

    /// Makes `sender` known to `to` before its number is used there, and gives that number.
    pub(in crate::broker) fn announce_peer(&mut self, to: PeerKey, sender: PeerKey) -> u32 {
        let max = self.config.limits.announced_peers_per_connection_max as usize;
        let announce = match self.peers.get_mut(to) {
            Some(peer) => peer.known.note(sender, max),
            None => return sender.slot(),
        };
        if let Announce::Yes { forget } = announce {
            if let Some(handle) = forget {
                let header = Header { sender: handle, ..Header::new(Kind::FORGET) };
                self.send(to, header, &Forget { what: ForgetWhat::Peer }, &[]);
            }
            if let Some(info) = self.peers.get(sender).map(|peer| PeerInfo::from(&peer.who)) {
                let header = Header { sender: sender.slot(), ..Header::new(Kind::PEER_ANNOUNCED) };
                self.send(to, header, &info, &[]);
            }
        }
        sender.slot()
    }

    /// How many bytes announcing a peer takes at most, and forgetting another one for it.
    pub(in crate::broker) fn peer_announcement_bytes(&self, peer: PeerKey) -> usize {
        let text = match self.peers.get(peer).map(|peer| &peer.who.identity) {
            Some(Identity::Remote { principal, address }) => principal.len() + address.len(),
            Some(Identity::Local { .. }) | None => 0,
        };
        2 * HEADER_BYTES + FORGET_BYTES + PEER_NUMBERS_BYTES + text
    }

    /// How many bytes announcing a topic takes at most.
    pub(in crate::broker) fn topic_announcement_bytes(&self, topic: TopicKey) -> usize {
        HEADER_BYTES + TEXT_LENGTH_BYTES + self.topics.get(topic).map_or(0, |topic| topic.name.as_str().len())
    }

    /// Makes a topic known to `to`.
    pub(in crate::broker) fn announce_topic(&mut self, to: PeerKey, topic: TopicKey) {
        if let Some(name) = self.topics.get(topic).map(|topic| topic.name.as_str().into()) {
            let header = Header::new(Kind::TOPIC_ANNOUNCED).with_handle(topic.handle());
            self.send(to, header, &TopicInfo { name }, &[]);
        }
    }

    /// Ends a connection from this side: it departs, is told why, and is closed when that is written.
    pub(in crate::broker) fn close(&mut self, peer: PeerKey, error: &Error) {
        let Some(state) = self.peers.get(peer) else { return };
        if state.is_departed() {
            return;
        }
        let close = Close { code: error.code.number(), message: error.message.as_str().into() };
        self.depart_with(peer, |broker| {
            broker.send(peer, Header::new(Kind::CLOSE), &close, &[]);
        });
        self.outputs.push_back(Output::Close(peer));
    }

    /// Closes a connection that will send nothing more once nothing is due to it.
    pub(in crate::broker) fn close_if_finished(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get(peer) else { return };
        let is_listening = !state.subscriptions.is_empty()
            || !state.watches.is_empty()
            || self.coordination.counts(peer).2 > 0;
        let is_answered = self.calls.outgoing(peer) == 0 && self.coordination.changes_pending(peer) == 0;
        // Whoever is departing is told why at the end of that.
        if state.phase == Phase::InputEnded && !state.is_departing && !is_listening && is_answered {
            self.depart(peer);
            self.outputs.push_back(Output::Close(peer));
        }
    }

    /// Refuses new work while the daemon stops.
    pub(in crate::broker) fn check_running(&self) -> Result<(), Error> {
        match self.stage {
            Stage::Running => Ok(()),
            Stage::Draining => Err(shutting_down()),
        }
    }
}

/// Length of a frame when it is passed on.
pub(in crate::broker) fn forwarded_bytes(frame: &Frame<'_>) -> usize {
    HEADER_BYTES + frame.envelope.len() + frame.body.as_slice().len()
}
