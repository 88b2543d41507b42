//! What a received datagram means.

use core::time::Duration;

use ipc_core::ErrorCode;
use ipc_core::time::Instant;
use ipc_core::wire::datagram::{Datagram, DatagramHeader, DatagramKind, addressed, encode_bare};
use ipc_core::wire::{Flags, WireError};

use super::client::{Client, Proof};
use super::recent::Arrival;
use super::source::Sender;
use super::window::{Judgement, Stage};
use super::{ClientKey, Door, Outgoing, Output, Source};

impl Door {
    /// Takes in what was received as one datagram. Whatever is wrong with it is counted and hurts nobody.
    pub fn handle_datagram(&mut self, now: Instant, source: Source, bytes: &[u8]) {
        self.counters.datagrams_received += 1;
        match Datagram::parse(bytes) {
            Ok(datagram) => self.dispatch(now, source, bytes, &datagram),
            Err(error) => {
                self.counters.datagrams_malformed += 1;
                if let (WireError::Version(_), Some((client, id)), true) =
                    (error, addressed(bytes), source.is_addressed())
                {
                    let header = DatagramHeader { client, id, ..DatagramHeader::new(DatagramKind::Refused) };
                    self.refuse(source, &header, 0, ErrorCode::UnsupportedVersion);
                }
            }
        }
    }

    fn dispatch(&mut self, now: Instant, source: Source, bytes: &[u8], datagram: &Datagram<'_>) {
        let header = &datagram.header;
        match header.kind {
            DatagramKind::Challenge
            | DatagramKind::Refused
            | DatagramKind::Reply
            | DatagramKind::Published => {
                self.counters.datagrams_malformed += 1;
            }
            DatagramKind::Publish if needs_nothing(&source, header) => {
                self.publish_at_once(now, source.process(), bytes);
            }
            _ if !source.is_addressed() => self.counters.datagrams_unaddressed += 1,
            DatagramKind::Hello => {
                let sender = Sender { source, client: header.client };
                self.challenge(now, sender, header);
            }
            DatagramKind::Ack | DatagramKind::Call | DatagramKind::Cancel | DatagramKind::Publish => {
                let sender = Sender { source, client: header.client };
                if let Some(key) = self.admit(now, sender, header) {
                    if let Some(low) = low_water(header) {
                        self.lift(now, key, low);
                    }
                    self.take_in(now, key, bytes, datagram);
                }
            }
        }
    }

    /// An event whose sender the kernel vouches for. All sockets of a process are one publisher.
    fn publish_at_once(&mut self, now: Instant, source: Source, bytes: &[u8]) {
        let sender = Sender { source, client: 0 };
        let known = self.by_sender.get(&sender).copied();
        let Some(key) = known.or_else(|| self.add_client(now, sender, None, 0)) else {
            self.counters.datagrams_refused += 1;
            return;
        };
        if let Some(client) = self.clients.get_mut(key) {
            client.active_at = now;
        }
        if !self.run(now, key, bytes) {
            self.counters.datagrams_refused += 1;
        }
    }

    /// The client behind a request, if it has proved that answers reach it; else it is told what it needs.
    fn admit(&mut self, now: Instant, sender: Sender, header: &DatagramHeader) -> Option<ClientKey> {
        let wants_answer = wants_answer(header);
        if header.epoch != 0 && header.cookie != 0 && header.epoch != self.config.epoch.0 {
            self.counters.datagrams_foreign_epoch += 1;
            if wants_answer {
                let cookie = self.cookies.make(now, &sender);
                self.refuse(sender.source, header, cookie, ErrorCode::OutcomeUnknown);
            }
            return None;
        }
        let known = self.by_sender.get(&sender).copied();
        let proof = known.and_then(|key| self.clients.get(key)?.proof);
        let proof = proof.filter(|proof| proof.cookie == header.cookie);
        let until = match proof.filter(|proof| now < proof.until) {
            Some(proof) => Some(proof.until),
            None => self.cookies.good_until(now, &sender, header.cookie),
        };
        let is_proved =
            header.epoch == self.config.epoch.0 && header.cookie != 0 && (proof.is_some() || until.is_some());
        if !is_proved {
            self.challenge(now, sender, header);
            return None;
        }
        // One that is not good any more was, and its client is known by it.
        let proof = Proof { cookie: header.cookie, until: until.unwrap_or(now) };
        if let Some(client) = known.and_then(|key| self.clients.get_mut(key)) {
            // What is only sent again keeps nobody remembered past the life of its cookie.
            if until.is_some() {
                client.active_at = now;
            }
            client.proof = Some(proof);
            return known;
        }
        let source = sender.source.clone();
        let low = low_water(header).unwrap_or(0);
        let added = self.add_client(now, sender, Some(proof), low);
        if added.is_none() {
            self.counters.datagrams_refused += 1;
            if wants_answer {
                self.refuse(source, header, header.cookie, ErrorCode::QuotaExceeded);
            }
        }
        added
    }

    fn add_client(
        &mut self,
        now: Instant,
        sender: Sender,
        proof: Option<Proof>,
        low: u64,
    ) -> Option<ClientKey> {
        if self.clients.len() >= self.config.limits.datagram_clients_max as usize {
            return None;
        }
        let key = self.clients.insert(Client::new(now, sender.clone(), proof, low));
        self.by_sender.insert(sender, key);
        self.sweep_later(now);
        Some(key)
    }

    fn take_in(&mut self, now: Instant, key: ClientKey, bytes: &[u8], datagram: &Datagram<'_>) {
        let header = &datagram.header;
        match header.kind {
            DatagramKind::Call | DatagramKind::Publish if header.flags.contains(Flags::ONEWAY) => {
                self.run_oneway(now, key, header.id, bytes);
            }
            DatagramKind::Call | DatagramKind::Publish => self.request(now, key, header, bytes),
            DatagramKind::Cancel => self.cancel(now, key, header.id),
            DatagramKind::Ack => self.settle(now, key, header.id),
            DatagramKind::Hello
            | DatagramKind::Challenge
            | DatagramKind::Refused
            | DatagramKind::Reply
            | DatagramKind::Published => {}
        }
    }

    fn run_oneway(&mut self, now: Instant, key: ClientKey, id: u64, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let arrival = client.recent.note(id);
        if matches!(arrival, Arrival::Next { .. } | Arrival::Reordered) {
            client.active_at = now;
        }
        match arrival {
            Arrival::Doubled => self.counters.datagrams_doubled += 1,
            Arrival::Late => self.counters.datagrams_late += 1,
            arrival @ (Arrival::Next { .. } | Arrival::Reordered) => {
                match arrival {
                    Arrival::Next { left_out } => self.count_lost(left_out),
                    _ => {
                        self.counters.datagrams_reordered += 1;
                        // It was counted as lost when a later one came.
                        self.counters.datagrams_lost = self.counters.datagrams_lost.saturating_sub(1);
                    }
                }
                if !self.run(now, key, bytes) {
                    self.counters.datagrams_refused += 1;
                }
            }
        }
    }

    /// A request that wants an outcome: run if it is new, answered again if it is not.
    fn request(&mut self, now: Instant, key: ClientKey, header: &DatagramHeader, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        match client.window.judge(header.id) {
            Judgement::Running(_) => self.counters.datagrams_doubled += 1,
            Judgement::Done(outcome) => {
                self.counters.datagrams_doubled += 1;
                self.answer_again(now, key, header, outcome);
            }
            Judgement::Late => {
                self.counters.datagrams_late += 1;
                self.refuse_client(key, header, ErrorCode::OutcomeUnknown);
            }
            Judgement::New { is_reordered } => match self.refusal(key, header) {
                Some(code) => {
                    self.counters.datagrams_refused += 1;
                    self.refuse_client(key, header, code);
                }
                None => {
                    self.counters.datagrams_reordered += u64::from(is_reordered);
                    let deadline = now + Duration::from_micros(header.number.into());
                    self.note_active(now, key);
                    self.remember(key, header.id, Stage::Running(None), deadline);
                    if !self.run(now, key, bytes) {
                        let error = ipc_core::Error::new(ErrorCode::QuotaExceeded, "the bus does not answer");
                        self.conclude(now, key, header.id, Err(error));
                    }
                }
            },
        }
    }

    /// Why a new request is not run now. Nothing is remembered of it then: it may come again and be run.
    fn refusal(&self, key: ClientKey, header: &DatagramHeader) -> Option<ErrorCode> {
        let limits = &self.config.limits;
        let own = self.clients.get(key).map_or(0, |client| client.window.len());
        if self.is_draining {
            Some(ErrorCode::ShuttingDown)
        } else if header.id == 0 {
            Some(ErrorCode::InvalidArgument)
        } else if header.number == 0 {
            Some(ErrorCode::DeadlineExceeded)
        } else if own >= limits.datagram_requests_per_client_max as usize
            || self.remembered >= limits.datagram_requests_max as usize
        {
            Some(ErrorCode::QuotaExceeded)
        } else {
            None
        }
    }

    fn note_active(&mut self, now: Instant, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key) {
            client.active_at = now;
        }
    }

    fn remember(&mut self, key: ClientKey, id: u64, stage: Stage, deadline: Instant) {
        if let Some(client) = self.clients.get_mut(key) {
            client.window.insert(id, stage, deadline);
            self.remembered += 1;
        }
    }

    /// The client does not want the outcome. A call that has not come yet will not be run.
    fn cancel(&mut self, now: Instant, key: ClientKey, id: u64) {
        let Some(client) = self.clients.get_mut(key) else { return };
        match client.window.judge(id) {
            Judgement::Running(Some(ticket)) => {
                if let Some(session) = &mut client.session {
                    session.cancel(ticket);
                }
                self.touch(key);
            }
            Judgement::New { .. } if self.refusal_of_room(key).is_none() => {
                self.remember(key, id, Stage::Done(None), now);
            }
            Judgement::New { .. } | Judgement::Running(None) | Judgement::Done(_) | Judgement::Late => {}
        }
    }

    fn refusal_of_room(&self, key: ClientKey) -> Option<ErrorCode> {
        let probe = DatagramHeader { id: 1, number: 1, ..DatagramHeader::new(DatagramKind::Cancel) };
        self.refusal(key, &probe)
    }

    /// Says what this daemon is known by. It is never longer than what it answers.
    fn challenge(&mut self, now: Instant, sender: Sender, header: &DatagramHeader) {
        if header.kind != DatagramKind::Hello {
            self.counters.datagrams_challenged += 1;
        }
        let challenge = DatagramHeader {
            number: self.config.limits.datagram_requests_per_client_max,
            epoch: self.config.epoch.0,
            cookie: self.cookies.make(now, &sender),
            client: header.client,
            id: header.id,
            ..DatagramHeader::new(DatagramKind::Challenge)
        };
        self.send_bare(sender.source, challenge);
    }

    fn refuse_client(&mut self, key: ClientKey, header: &DatagramHeader, code: ErrorCode) {
        let Some(client) = self.clients.get(key) else { return };
        let (to, cookie) = (client.sender.source.clone(), client.cookie());
        self.refuse(to, header, cookie, code);
    }

    /// Says that a request was not run, or that nobody knows. It is never longer than what it answers.
    fn refuse(&mut self, to: Source, header: &DatagramHeader, cookie: u64, code: ErrorCode) {
        let refused = DatagramHeader {
            number: code.number().into(),
            epoch: self.config.epoch.0,
            cookie,
            client: header.client,
            id: header.id,
            ..DatagramHeader::new(DatagramKind::Refused)
        };
        self.send_bare(to, refused);
    }

    fn send_bare(&mut self, to: Source, header: DatagramHeader) {
        self.counters.datagrams_sent += 1;
        let datagram = encode_bare(header);
        self.outputs.push_back(Output::Send(Outgoing { to, datagram, receipt: None }));
    }

    /// No single jump says more than that a client has lost what it may have open.
    pub(super) fn count_lost(&mut self, count: u64) {
        let most = u64::from(self.config.limits.datagram_requests_per_client_max);
        self.counters.datagrams_lost += count.min(most);
    }
}

/// Whether it is an event that needs nothing before it: the kernel says who sends it, and neither doubles nor delays it.
fn needs_nothing(source: &Source, header: &DatagramHeader) -> bool {
    source.is_local() && header.flags.contains(Flags::ONEWAY) && header.cookie == 0 && header.id == 0
}

/// The number below which its client has every outcome. What wants no answer is numbered by itself and says nothing of it.
fn low_water(header: &DatagramHeader) -> Option<u64> {
    (!header.flags.contains(Flags::ONEWAY)).then(|| header.low_water())
}

/// Whether its sender waits for something.
fn wants_answer(header: &DatagramHeader) -> bool {
    matches!(header.kind, DatagramKind::Call | DatagramKind::Publish) && !header.flags.contains(Flags::ONEWAY)
}
