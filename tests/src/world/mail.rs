//! Clients over datagrams: couriers, roads that lose, double and reorder, and the door of the daemon.

use std::collections::{BTreeMap, VecDeque};

use ipc_core::id::Epoch;
use ipc_core::limits::Limits;
use ipc_core::name::{MethodName, ServiceName, TopicName};
use ipc_core::payload::Payload;
use ipc_core::session::courier::{Config, Courier, RequestId, RequestOptions};
use ipc_core::time::Instant;
use ipc_daemon::datagram::{self, ClientKey, Door, Outgoing, Output, Source};

use super::{Arrival, Coverage, EPOCH, Socket, World};
use crate::generator::{Action, COURIERS, METHODS, SERVICES, TOPICS};
use crate::model::Ledger;
use crate::rng::Rng;

/// Datagrams that one can overtake.
const REORDER_MAX: usize = 32;
/// Slots of the connections that senders of datagrams have on the bus.
const VISITOR_SLOTS: usize = 1000;

/// What happens to datagrams on one road.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// How many of a hundred are lost.
    pub lost_percent: u64,
    /// How many of a hundred come twice.
    pub doubled_percent: u64,
    /// Whether they overtake each other.
    pub reorders: bool,
}

/// Datagrams on their way.
#[derive(Debug, Default)]
struct Road {
    parcels: VecDeque<Vec<u8>>,
    weather: Weather,
}

impl Road {
    fn send(&mut self, datagram: &[u8], rng: &mut Rng, coverage: &mut Coverage) {
        if rng.chance(self.weather.lost_percent, 100) {
            coverage.count("fault.datagram_lost");
            return;
        }
        if rng.chance(self.weather.doubled_percent, 100) {
            coverage.count("fault.datagram_doubled");
            self.parcels.push_back(datagram.to_vec());
        }
        self.parcels.push_back(datagram.to_vec());
    }

    fn receive(&mut self, rng: &mut Rng, coverage: &mut Coverage) -> Option<Vec<u8>> {
        let reach = self.parcels.len().min(REORDER_MAX);
        let at = if self.weather.reorders && reach > 1 { rng.index(reach) } else { 0 };
        if at > 0 {
            coverage.count("fault.datagram_reordered");
        }
        self.parcels.remove(at)
    }
}

/// A client over datagrams.
#[derive(Debug)]
struct Guest {
    source: Source,
    courier: Courier,
    up: Road,
    down: Road,
    /// The tags of open calls.
    open: BTreeMap<RequestId, u64>,
}

impl Guest {
    fn new(number: usize) -> Self {
        let config = Config { client: number as u32, seed: number as u64 + 1, is_local: number == 0 };
        let (uid, pid) = (1000 + number as u32, 9000 + number as u32);
        let address = Some(format!("guest-{number}").into_bytes().into_boxed_slice());
        Self {
            source: Source::Local { uid, gid: 100, pid, address },
            courier: Courier::new(config),
            up: Road::default(),
            down: Road::default(),
            open: BTreeMap::new(),
        }
    }
}

/// Everything about datagrams.
#[derive(Debug)]
pub(super) struct Mail {
    door: Door,
    guests: Vec<Guest>,
    /// What is promised.
    pub(super) ledger: Ledger,
    /// How often the door has been made anew.
    restarts: u64,
    limits: Limits,
    rng: Rng,
}

impl Mail {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            door: door(limits, 0),
            guests: (0..COURIERS).map(Guest::new).collect(),
            ledger: Ledger::default(),
            restarts: 0,
            limits: limits.clone(),
            rng: Rng::new(0),
        }
    }

    /// What flows in the next step is decided by this.
    pub(super) fn reseed(&mut self, rng: Rng) {
        self.rng = rng;
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let couriers = self.guests.iter().filter_map(|guest| guest.courier.poll_timeout());
        couriers.chain(self.door.poll_timeout()).min()
    }

    pub(super) fn begin_drain(&mut self) {
        self.door.begin_drain();
    }

    fn clear_up(&mut self) {
        for guest in &mut self.guests {
            guest.up.weather = Weather::default();
            guest.down.weather = Weather::default();
        }
    }
}

fn door(limits: &Limits, restarts: u64) -> Door {
    Door::new(datagram::Config {
        limits: limits.clone(),
        epoch: Epoch(EPOCH.0 + restarts),
        cookie_key: [1, restarts],
    })
}

impl World {
    /// What a client over datagrams does, or has done to it. Says whether it came to anything.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(super) fn mail_action(&mut self, slot: usize, action: &Action) -> Result<bool, String> {
        let now = self.now;
        let at = slot % COURIERS;
        match action {
            Action::DatagramCall { service, method, payload, deadline_us, oneway } => {
                let (tag, payload) = self.mail.ledger.begin(*payload, !oneway);
                let deadline = now + core::time::Duration::from_micros((*deadline_us).into());
                let options = RequestOptions { deadline, traceparent: None };
                let guest = &mut self.mail.guests[at];
                let service = ServiceName::parse(SERVICES[*service]).expect("a name");
                let method = MethodName::parse(METHODS[*method]).expect("a name");
                let payload = Payload::bytes(payload);
                let made = if *oneway {
                    guest.courier.call_oneway(now, &service, &method, &payload, options)
                } else {
                    let made = guest.courier.call(now, &service, &method, &payload, options);
                    made.map(|id| {
                        guest.open.insert(id, tag);
                    })
                };
                if made.is_err() {
                    self.mail.ledger.take_back(tag);
                }
            }
            Action::DatagramPublish { topic, payload } => {
                let topic = TopicName::parse(TOPICS[*topic]).expect("a name");
                let payload = Payload::bytes(vec![1; *payload]);
                let courier = &mut self.mail.guests[at].courier;
                if courier.publish_oneway(&topic, &payload, None).is_err() {
                    return Ok(false);
                }
            }
            Action::DatagramAbandon => {
                let guest = &mut self.mail.guests[at];
                let Some((id, tag)) = guest.open.pop_first() else { return Ok(false) };
                guest.courier.abandon(id);
                self.mail.ledger.let_go(tag);
            }
            Action::Weather { lost_percent, doubled_percent, reorders } => {
                let weather = Weather {
                    lost_percent: *lost_percent,
                    doubled_percent: *doubled_percent,
                    reorders: *reorders,
                };
                self.mail.guests[at].up.weather = weather;
                self.mail.guests[at].down.weather = weather;
            }
            Action::DoorRestart => self.restart_door()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The daemon forgets everything about datagrams, as if it had been restarted.
    pub(super) fn restart_door(&mut self) -> Result<(), String> {
        for at in 0..self.connections.len() {
            if self.connections[at].visitor.take().is_some() {
                self.connections[at].link.up.end();
                self.connections[at].link.down.cut(0);
                self.connections[at].is_abandoned = true;
                self.model.abandon(self.connections[at].number);
            }
        }
        self.mail.restarts += 1;
        self.mail.door = door(&self.mail.limits, self.mail.restarts);
        Ok(())
    }

    /// Lets datagrams flow once. Says whether anything moved.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(super) fn mail_flows(&mut self) -> Result<bool, String> {
        let mut moved = false;
        for at in 0..self.mail.guests.len() {
            let now = self.now;
            let Mail { guests, rng, door, .. } = &mut self.mail;
            let guest = &mut guests[at];
            while let Some(datagram) = guest.courier.transmit(now).map(<[u8]>::to_vec) {
                moved = true;
                guest.courier.transmitted(now);
                guest.up.send(&datagram, rng, &mut self.coverage);
            }
            if let Some(datagram) = guest.up.receive(rng, &mut self.coverage) {
                moved = true;
                self.coverage.count("sent.datagram");
                door.handle_datagram(now, guest.source.clone(), &datagram);
            }
            self.obey_door()?;
            let Mail { guests, rng, .. } = &mut self.mail;
            let guest = &mut guests[at];
            if let Some(datagram) = guest.down.receive(rng, &mut self.coverage) {
                moved = true;
                guest.courier.handle_datagram(now, &datagram);
            }
            self.conclude_mail(at)?;
        }
        Ok(moved)
    }

    fn conclude_mail(&mut self, at: usize) -> Result<(), String> {
        let Mail { guests, ledger, .. } = &mut self.mail;
        let guest = &mut guests[at];
        while let Some(id) = guest.courier.poll_completed() {
            let outcome = guest.courier.take(id);
            let (Some(tag), Some(outcome)) = (guest.open.remove(&id), outcome) else { continue };
            let code = outcome.as_ref().err().map_or("ok", |error| error.code.name());
            self.coverage.count(&format!("datagram.{code}"));
            ledger.concluded(tag, &outcome)?;
        }
        Ok(())
    }

    /// Does what the door asks for.
    pub(super) fn obey_door(&mut self) -> Result<(), String> {
        while let Some(output) = self.mail.door.poll_output() {
            match output {
                Output::Connect(key) => self.connect_visitor(key)?,
                Output::Transmit(key) => {
                    let bytes: Vec<u8> = self.mail.door.transmit(key).flatten().copied().collect();
                    self.mail.door.transmitted(key, bytes.len());
                    if let Some(at) = self.position_of_visitor(key) {
                        self.connections[at].link.up.write(&bytes);
                    }
                }
                Output::Disconnect(key) => {
                    if let Some(at) = self.position_of_visitor(key) {
                        self.connections[at].visitor = None;
                        self.connections[at].link.up.end();
                        self.connections[at].link.down.cut(0);
                        self.connections[at].is_abandoned = true;
                        self.model.abandon(self.connections[at].number);
                    }
                }
                Output::Send(outgoing) => self.send_from_door(&outgoing),
            }
        }
        Ok(())
    }

    fn send_from_door(&mut self, outgoing: &Outgoing) {
        let now = self.now;
        let Mail { guests, rng, door, .. } = &mut self.mail;
        if let Some(receipt) = outgoing.receipt
            && rng.chance(1, 16)
        {
            self.coverage.count("fault.datagram_unsent");
            return door.unsent(now, receipt);
        }
        if let Some(guest) = guests.iter_mut().find(|guest| guest.source == outgoing.to) {
            guest.down.send(&outgoing.datagram, rng, &mut self.coverage);
        }
    }

    fn position_of_visitor(&self, key: ClientKey) -> Option<usize> {
        self.connections.iter().position(|connection| connection.visitor == Some(key))
    }

    fn connect_visitor(&mut self, key: ClientKey) -> Result<(), String> {
        let Some(identity) = self.mail.door.identity(key) else { return Ok(()) };
        let slot = VISITOR_SLOTS + self.opened;
        let arrival = Arrival { slot, identity, only: None, capacity: usize::MAX, is_visitor: true };
        let refusal = self.connect_as(&arrival)?;
        match refusal {
            Some(error) => {
                self.coverage.count("datagram.not_let_in");
                self.mail.door.refused(self.now, key, &error);
            }
            None => {
                if let Some(connection) = self.connections.last_mut() {
                    connection.visitor = Some(key);
                }
            }
        }
        Ok(())
    }

    /// Bytes have reached a client that is a visitor, or the end has.
    pub(super) fn visitor_reads(&mut self, key: ClientKey, bytes: Option<&[u8]>) -> Result<(), String> {
        match bytes {
            Some(bytes) => self.mail.door.handle_input(self.now, key, bytes),
            None => self.mail.door.handle_end(self.now, key),
        }
        self.obey_door()
    }

    /// What is due about datagrams.
    pub(super) fn wake_mail(&mut self) -> Result<(), String> {
        let now = self.now;
        if self.mail.door.poll_timeout().is_some_and(|due| due <= now) {
            self.mail.door.handle_timeout(now);
            self.obey_door()?;
        }
        for at in 0..self.mail.guests.len() {
            let courier = &mut self.mail.guests[at].courier;
            if courier.poll_timeout().is_some_and(|due| due <= now) {
                courier.handle_timeout(now);
                self.conclude_mail(at)?;
            }
        }
        Ok(())
    }

    /// The sun comes out: everything that is open over datagrams ends.
    ///
    /// # Errors
    /// A sentence that says what has no outcome.
    pub(super) fn wind_down_mail(&mut self, rng: &mut Rng) -> Result<(), String> {
        self.mail.clear_up();
        for _ in 0..100 {
            self.settle(rng)?;
            if self.mail.guests.iter().all(|guest| guest.courier.open_requests() == 0) {
                break;
            }
            self.advance(50_000_000, false)?;
        }
        self.mail.ledger.is_complete()?;
        // The clients leave, with what they have not sent yet; and the daemon forgets them, as it would after a while.
        self.mail.guests.clear();
        self.restart_door()?;
        debug_assert!(self.connections.iter().all(|it| it.visitor.is_none() || it.socket == Socket::Closed));
        Ok(())
    }
}
