//! What clients receive, held against what is due to them.

use ipc_core::identity::Peer;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::{Got, Granted, Leader, Listed, Passed, TakenUp, Told};
use ipc_core::wire::message::{PeerInfo, Registered, Revoked, RevokedWhat};
use ipc_core::wire::{Flags, Kind};

use super::came::{Came, revisions};
use super::expect::{Answer, Expected, Lookup};
use super::inbox::Receipt;
use super::{Connection, Model, Phase};
use crate::world::Seen;

/// What one client has been told.
struct View<'a> {
    model: &'a Model,
    connection: &'a Connection,
}

impl Lookup for View<'_> {
    fn sender(&self, handle: u32) -> Result<usize, String> {
        let info = self.connection.announced.peer(handle);
        let info = info.ok_or_else(|| format!("sender {handle} was not announced"))?;
        self.model.number_of(info.peer).ok_or_else(|| format!("nobody is peer {}", info.peer))
    }

    fn topic(&self, index: u32, generation: u16) -> Result<&str, String> {
        let known = self.connection.announced.topic(index, generation);
        known.ok_or_else(|| format!("topic {index}.{generation} was not announced"))
    }

    fn registration(&self, number: u64) -> Option<u32> {
        self.connection.registrations.get(&number).copied()
    }

    fn call(&self, number: u64) -> Option<u64> {
        self.connection.handed.get(&number).copied()
    }

    fn token(&self, number: u64) -> Option<u64> {
        self.model.tokens.get(&number).copied()
    }

    fn revision(&self, number: u64) -> Option<u64> {
        self.model.keys.revisions.get(&number).copied()
    }

    fn now(&self) -> u64 {
        self.model.now.as_nanos()
    }

    fn written_since(&self) -> u64 {
        self.connection.written_since.as_nanos()
    }
}

impl Model {
    fn number_of(&self, peer: u64) -> Option<usize> {
        self.people.get(&peer).map(|(number, _)| *number)
    }

    /// The daemon is about to write to a client that has read all that was written before.
    pub fn nothing_under_way(&mut self, now: Instant, number: usize) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.written_since = now;
        }
    }

    /// A client has received a frame.
    ///
    /// # Errors
    /// A sentence that says which promise the frame breaks.
    pub fn received(&mut self, now: Instant, number: usize, seen: &Seen) -> Result<(), String> {
        self.now = now;
        self.judge(number, seen).map_err(|reason| format!("connection {number}: {reason}"))
    }

    fn judge(&mut self, number: usize, seen: &Seen) -> Result<(), String> {
        let connection = self.connections.get_mut(&number).ok_or("it is unknown")?;
        if connection.inbox.is_closed() {
            return Err("a frame came after the close".to_owned());
        }
        if connection.announced.take(seen)? {
            let announced = connection.announced.peers();
            let max = self.limits.announced_peers_per_connection_max as usize;
            if announced > max {
                return Err(format!("{announced} peers are announced, the limit is {max}"));
            }
            return if seen.kind() == Kind::PEER_ANNOUNCED { self.check_identity(seen) } else { Ok(()) };
        }
        if is_of_stream(seen) {
            return self.hear(number, seen);
        }
        let mut inbox = core::mem::take(&mut connection.inbox);
        let receipt = match self.connections.get(&number) {
            Some(connection) => inbox.receive(seen, &View { model: self, connection }),
            None => Err("it is unknown".to_owned()),
        };
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.inbox = inbox;
        }
        match receipt? {
            Receipt::WatchLost => Ok(()),
            Receipt::Gap(subscription) => {
                let is_excused = self.excused.contains(&subscription);
                if is_excused {
                    Ok(())
                } else {
                    Err("events were dropped although there was room".to_owned())
                }
            }
            Receipt::Was(what) => self.learn(number, seen, &what),
        }
    }

    fn check_identity(&self, seen: &Seen) -> Result<(), String> {
        let info: PeerInfo = seen.decode().ok_or("the announcement of a peer is malformed")?;
        let peer = Peer::from(info);
        match self.people.get(&peer.id.0) {
            Some((_, identity)) if *identity == peer.identity => Ok(()),
            Some((_, identity)) => Err(format!("{peer} is {identity}")),
            None => Err(format!("{peer} is nobody")),
        }
    }

    fn learn(&mut self, number: usize, seen: &Seen, what: &Expected) -> Result<(), String> {
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        match what {
            Expected::Done { answer: Answer::Registered { registration, .. }, .. } => {
                let body: Registered = seen.decode().ok_or("the answer to register is malformed")?;
                if connection.registrations.values().any(|known| *known == body.registration) {
                    return Err(format!("registration {} was given twice", body.registration));
                }
                connection.registrations.insert(*registration, body.registration);
            }
            Expected::Done { answer: Answer::Unsubscribed { subscription }, .. }
            | Expected::SubscriptionRevoked { subscription, .. } => {
                connection.inbox.drop_subscription(*subscription);
            }
            Expected::Call { call: Some(call), .. } => {
                let daemons = seen.header.correlation;
                if connection.handed.values().any(|known| *known == daemons) {
                    return Err(format!("two calls have the number {daemons:#x}"));
                }
                connection.handed.insert(*call, daemons);
            }
            Expected::Came { correlation, came, .. } => self.learn_of(number, seen, *correlation, came)?,
            _ => {}
        }
        Ok(())
    }

    /// News have come over a stream.
    fn hear(&mut self, number: usize, seen: &Seen) -> Result<(), String> {
        let connection = self.connections.get(&number).ok_or("it is unknown")?;
        let heard = self.news(number, seen, &View { model: self, connection })?;
        self.take_news(number, seen, &heard)
    }

    fn learn_of(&mut self, number: usize, seen: &Seen, correlation: u64, came: &Came) -> Result<(), String> {
        match came {
            Came::Granted { hold: Some(hold), .. } => {
                let body: Granted = seen.decode().ok_or("the grant is malformed")?;
                self.learn_token(*hold, body.token)
            }
            Came::TakenUp { hold, .. } => {
                let body: TakenUp = seen.decode().ok_or("what is taken up is malformed")?;
                self.learn_token(*hold, body.token)
            }
            Came::Passed { generation, .. } => {
                let body: Passed = seen.decode().ok_or("the passage is malformed")?;
                if *self.generations.entry(*generation).or_insert(body.generation) != body.generation {
                    return Err("those who pass together are told different generations".to_owned());
                }
                Ok(())
            }
            Came::Changed { changes, .. } => {
                let (revisions, _) = revisions(seen)?;
                let told = changes.iter().zip(revisions);
                let mut told = told.filter_map(|(change, revision)| Some(((*change)?, revision)));
                told.try_for_each(|(change, revision)| self.learn_revision(change, revision))
            }
            Came::Got(_, entry) => {
                let body: Got = seen.decode().ok_or("the key is malformed")?;
                self.learn_revision(entry.number, body.state.revision)
            }
            Came::Listed(entries) => {
                let body: Listed = seen.decode().ok_or("the list is malformed")?;
                let mut told = entries.iter().zip(&body.keys.0);
                told.try_for_each(|((_, entry), told)| self.learn_revision(entry.number, told.state.revision))
            }
            Came::Observing(Some(lead)) => {
                let body: Leader = seen.decode().ok_or("the word about the leader is malformed")?;
                self.learn_token(lead.hold, body.token)
            }
            Came::Watching { .. } => self.begin_stream(number, correlation, seen.has(Flags::ERROR)),
            Came::StreamEnded { stream } => self.finish_stream(number, *stream),
            _ => Ok(()),
        }
    }

    /// A client has seen the end of its connection, which the daemon has closed: it had a reason to, and if it had
    /// written all that was due, nothing is missing.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub fn ended(&mut self, number: usize, is_whole: bool) -> Result<(), String> {
        if self.phase(number) != Phase::Gone {
            return Err(format!("connection {number} has ended while it is {:?}", self.phase(number)));
        }
        if is_whole { self.is_complete(number) } else { Ok(()) }
    }

    /// Nothing is on its way to a client any more: it has received all that was due.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub fn is_complete(&mut self, number: usize) -> Result<(), String> {
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        if connection.is_deaf {
            return Ok(());
        }
        let complete = connection.inbox.is_complete().and_then(|()| self.are_streams_complete(number));
        complete.map_err(|reason| format!("connection {number}: {reason}"))
    }
}

/// Whether it is about a watch over keys, or an observation.
fn is_of_stream(seen: &Seen) -> bool {
    match seen.kind() {
        Kind::NOTICE => ![Told::LOST, Told::TAKEN_UP].contains(&Told(seen.header.handle.index)),
        Kind::REVOKED => seen
            .decode::<Revoked>()
            .is_some_and(|revoked| matches!(revoked.what, RevokedWhat::Observation | RevokedWhat::KeyWatch)),
        _ => false,
    }
}
