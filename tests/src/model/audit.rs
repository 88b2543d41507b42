//! The broker's account of itself, held against the model.

use std::collections::BTreeMap;

use ipc_core::identity::Identity;
use ipc_core::time::Instant;
use ipc_daemon::broker::{Broker, PeerKey};

use super::{Model, Phase, payer};

/// What the broker says of one connection.
#[derive(Clone, Debug)]
pub struct QueueRow {
    /// Its number.
    pub peer: u64,
    /// Its key.
    pub key: PeerKey,
    /// Who it is.
    pub identity: Identity,
    /// Bytes on their way to it.
    pub queued: u64,
    /// Calls it waits for.
    pub pending_calls: usize,
    /// Registrations.
    pub names: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Watches.
    pub watches: usize,
    /// What it holds, and how many of its requests wait.
    pub coordinated: (usize, usize),
    /// Watches over keys, and observations of elections.
    pub streams: usize,
}

/// What the broker says of all connections and of those who pay for them.
#[derive(Clone, Debug, Default)]
pub struct Queues {
    /// Connections that are on the bus.
    pub rows: Vec<QueueRow>,
    /// Bytes queued, by payer.
    pub payers: BTreeMap<String, u64>,
}

impl Queues {
    /// Asks the broker.
    pub fn of(broker: &Broker) -> Self {
        let rows = broker.peers().into_iter().map(|row| QueueRow {
            peer: row.peer.id.0,
            key: row.key,
            identity: row.peer.identity,
            queued: row.queued_bytes as u64,
            pending_calls: row.pending_calls,
            names: row.names,
            subscriptions: row.subscriptions,
            watches: row.watches,
            coordinated: (row.holds, row.waits),
            streams: row.observations,
        });
        let payers = broker.usage().into_iter().map(|usage| {
            let name = match (usage.uid, usage.principal) {
                (Some(uid), _) => format!("uid {uid}"),
                (None, principal) => format!("principal {}", principal.unwrap_or_default()),
            };
            (name, usage.charges.queued_bytes as u64)
        });
        Self { rows: rows.collect(), payers: payers.collect() }
    }

    /// What it says of the connection with that number.
    pub fn row(&self, peer: u64) -> Option<&QueueRow> {
        self.rows.iter().find(|row| row.peer == peer)
    }

    /// Bytes on their way to that connection.
    pub fn queued(&self, peer: u64) -> u64 {
        self.row(peer).map_or(0, |row| row.queued)
    }

    /// Calls that connection waits for.
    pub fn pending_calls(&self, peer: u64) -> usize {
        self.row(peer).map_or(0, |row| row.pending_calls)
    }

    /// Bytes on their way to all connections of one payer.
    pub fn queued_of_payer(&self, payer: &str) -> u64 {
        self.payers.get(payer).copied().unwrap_or(0)
    }
}

/// Charges of one payer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charged {
    /// Connections, and those that have not said hello.
    pub connections: (usize, usize),
    /// Registrations.
    pub names: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Calls it waits for.
    pub pending_calls: usize,
    /// What it holds, and how many of its requests wait.
    pub coordinated: (usize, usize),
}

/// A lock, a semaphore or an election as it is shown: what it is, name, numbers of its holders, and how many wait.
pub type GateSeen = (String, String, Vec<u64>, usize);
/// A service as it is shown: name, whether it is a group, numbers of its instances, and how many wait.
pub type ServiceSeen = (String, bool, Vec<u64>, usize);
/// A topic as it is shown: name, number given last, subscriptions.
pub type TopicSeen = (String, u64, usize);

/// All that the broker says of itself.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Connections.
    pub queues: Queues,
    /// Charges by payer.
    pub charges: BTreeMap<String, Charged>,
    /// Services.
    pub services: Vec<ServiceSeen>,
    /// Topics.
    pub topics: Vec<TopicSeen>,
    /// Locks, semaphores and elections.
    pub gates: Vec<GateSeen>,
    /// Connections, those included that have left and are still written to.
    pub connections: usize,
    /// Whether no call is open.
    pub is_drained: bool,
}

impl Snapshot {
    /// Asks the broker.
    pub fn of(broker: &Broker) -> Self {
        let charges = broker.usage().into_iter().map(|usage| {
            let name = match (usage.uid, usage.principal) {
                (Some(uid), _) => format!("uid {uid}"),
                (None, principal) => format!("principal {}", principal.unwrap_or_default()),
            };
            let charges = usage.charges;
            let charged = Charged {
                connections: (charges.connections as usize, charges.unauthenticated as usize),
                names: charges.names as usize,
                subscriptions: charges.subscriptions as usize,
                pending_calls: charges.pending_calls as usize,
                coordinated: (charges.holds as usize, charges.waits as usize),
            };
            (name, charged)
        });
        let services = broker.services().into_iter().map(|row| {
            let instances = row.instances.iter().map(|peer| peer.id.0).collect();
            (row.name, row.is_group, instances, row.waiting)
        });
        let topics = broker.topics().into_iter().map(|row| (row.name, row.sequence, row.subscribers));
        let gates = broker.gates(Instant::default()).into_iter().map(|row| {
            let holders = row.holders.iter().map(|row| row.peer.as_ref().map_or(0, |peer| peer.id.0));
            (row.kind.to_owned(), row.name, holders.collect(), row.waiting)
        });
        Self {
            queues: Queues::of(broker),
            charges: charges.collect(),
            services: services.collect(),
            topics: topics.collect(),
            gates: gates.collect(),
            connections: broker.connections() as usize,
            is_drained: broker.is_drained(),
        }
    }
}

impl Model {
    /// Holds the broker's account of itself against the model.
    ///
    /// # Errors
    /// A sentence that says where they differ.
    pub fn audit(&self, snapshot: &Snapshot) -> Result<(), String> {
        self.audit_connections(snapshot)?;
        self.audit_charges(snapshot)?;
        let services = self.services.iter().map(|(name, service)| {
            let peer = |one: &super::names::Instance| {
                self.connections.get(&one.connection).map_or(0, |one| one.peer)
            };
            let instances = service.instances.iter().map(peer).collect();
            (name.clone(), service.is_group, instances, service.waiting.len())
        });
        agree("services", &snapshot.services, &services.collect())?;
        let topics =
            self.topics.iter().map(|(name, topic)| (name.clone(), topic.sequence, self.subscribers(name)));
        agree("topics", &snapshot.topics, &topics.collect())?;
        let mut gates = self.gates_shown();
        gates.retain(|gate @ (noun, name, holders, waiting)| {
            let is_used = noun != "election" || !holders.is_empty() || *waiting > 0;
            is_used || !self.is_hardly_observed(name) || snapshot.gates.contains(gate)
        });
        agree("locks and the like", &snapshot.gates, &gates)?;
        let is_drained = self.calls.is_empty() && !self.has_changes_pending();
        agree("whether nothing is open", &snapshot.is_drained, &is_drained)
    }

    fn audit_connections(&self, snapshot: &Snapshot) -> Result<(), String> {
        let mut queued: BTreeMap<String, u64> = BTreeMap::new();
        for (number, connection) in &self.connections {
            let row = snapshot.queues.row(connection.peer);
            let is_here = matches!(connection.phase, Phase::Greeting | Phase::Active | Phase::InputEnded);
            if is_here != row.is_some() {
                return Err(format!("connection {number} is {:?}, the broker has {row:?}", connection.phase));
            }
            if connection.phase == Phase::Left && !connection.is_closing {
                return Err(format!("connection {number} has left, but nobody closes it"));
            }
            let Some(row) = row else { continue };
            let calls = self.calls.values().filter(|call| call.caller == *number).count();
            agree(&format!("calls of {number}"), &row.pending_calls, &calls)?;
            agree(&format!("names of {number}"), &row.names, &self.registrations_of(*number).len())?;
            agree(
                &format!("subscriptions of {number}"),
                &row.subscriptions,
                &self.subscriptions_of(*number).len(),
            )?;
            agree(&format!("holds and waits of {number}"), &row.coordinated, &self.coordinated(*number))?;
            agree(&format!("watches of {number}"), &row.watches, &self.watches_of(*number))?;
            self.audit_streams(*number, row.streams)?;
            *queued.entry(payer(&connection.identity)).or_default() += row.queued;
        }
        let open = self.connections.values().filter(|one| one.phase != Phase::Gone).count();
        agree("connections", &snapshot.connections, &open)?;
        for (payer, sum) in &snapshot.queues.payers {
            let own = queued.get(payer).copied().unwrap_or(0);
            let is_leaving =
                |one: &super::Connection| one.phase == Phase::Left && self::payer(&one.identity) == *payer;
            let has_leaving = self.connections.values().any(is_leaving);
            if *sum < own || (*sum > own && !has_leaving) {
                return Err(format!("{payer} is charged for {sum} queued bytes, its connections have {own}"));
            }
        }
        Ok(())
    }

    fn audit_charges(&self, snapshot: &Snapshot) -> Result<(), String> {
        let mut due: BTreeMap<String, Charged> = BTreeMap::new();
        for (number, connection) in self.connections.iter().filter(|(_, one)| one.phase != Phase::Gone) {
            let charged = due.entry(payer(&connection.identity)).or_default();
            charged.connections.0 += 1;
            charged.connections.1 += usize::from(connection.phase == Phase::Greeting);
            charged.names += self.registrations_of(*number).len();
            charged.subscriptions += self.subscriptions_of(*number).len();
            let (holds, waits) = self.coordinated(*number);
            charged.coordinated = (charged.coordinated.0 + holds, charged.coordinated.1 + waits);
            charged.pending_calls += self.calls.values().filter(|call| call.caller == *number).count();
        }
        agree("charges", &snapshot.charges, &due)
    }

    /// The daemon can write `offered` bytes to a connection: they are among those that it says are queued.
    ///
    /// # Errors
    /// A sentence that says what does not add up.
    pub fn audit_queue(&self, number: usize, offered: u64, snapshot: &Queues) -> Result<(), String> {
        let Some(connection) = self.connections.get(&number) else { return Ok(()) };
        let Some(row) = snapshot.row(connection.peer) else { return Ok(()) };
        if row.queued < offered || (offered == 0 && row.queued > 0) {
            return Err(format!(
                "connection {number}: {} bytes are queued, {offered} can be written",
                row.queued
            ));
        }
        Ok(())
    }
}

fn agree<T: PartialEq + core::fmt::Debug>(what: &str, is: &T, due: &T) -> Result<(), String> {
    if is == due { Ok(()) } else { Err(format!("{what}: the broker has {is:?}, due is {due:?}")) }
}
