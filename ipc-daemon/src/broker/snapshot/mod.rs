//! PURE. What the broker says of itself: plain data for whoever renders it.

mod coordination;

use std::collections::BTreeSet;

use ipc_core::id::PeerId;
use ipc_core::identity::{Identity, Peer as PeerIdentity};
use ipc_core::name::{Filter, ServiceName, TopicName};
use ipc_core::wire::message::RegisterMode;
use ipc_core::{Error, ErrorCode};

pub use self::coordination::{BarrierRow, GateRow, HolderRow, LeaseRow, QueueRow};
use super::Broker;
use super::event::Transport;
use super::keys::PeerKey;
use super::peer::Peer;
use super::policy::{Action, Policy};
use super::quota::{Charges, Payer};

/// Numbers of the whole bus.
#[derive(Clone, Debug)]
pub struct Status {
    /// Counters by name.
    pub counters: Vec<(&'static str, u64)>,
    /// Connections, services, topics and open calls.
    pub present: Present,
    /// Limits by name.
    pub limits: Vec<(&'static str, u64)>,
    /// What each user and remote principal has in use.
    pub usage: Vec<Usage>,
}

/// How much is on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// Connections, those that are on their way out included.
    pub connections: usize,
    /// Names that are held.
    pub services: usize,
    /// Topics that have a counter.
    pub topics: usize,
    /// Calls that are open.
    pub calls: usize,
}

/// What one payer has in use.
#[derive(Clone, Debug)]
pub struct Usage {
    /// The user id, for processes of this machine.
    pub uid: Option<u32>,
    /// The principal, for network peers.
    pub principal: Option<String>,
    /// The charges.
    pub charges: Charges,
}

/// What one payer uses of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaRow {
    /// The user id, for processes of this machine.
    pub uid: Option<u32>,
    /// The principal, for network peers.
    pub principal: Option<String>,
    /// The limit.
    pub resource: String,
    /// How much is in use; 0 for a limit that is not of a uid.
    pub used: u64,
    /// The most that may be; `None` for a limit that is not of a uid.
    pub max: Option<u64>,
    /// How often the limit has kept this payer from something.
    pub refused: u64,
}

/// A service.
#[derive(Clone, Debug)]
pub struct ServiceRow {
    /// Its name.
    pub name: String,
    /// Whether instances share the calls.
    pub is_group: bool,
    /// How many serve it.
    pub instance_count: usize,
    /// Who serves it, the owner or eldest instance first.
    pub instances: Vec<PeerIdentity>,
    /// What it offers.
    pub methods: Vec<MethodRow>,
    /// How many wait for the name.
    pub waiting: usize,
}

/// A method of a service.
#[derive(Clone, Debug)]
pub struct MethodRow {
    /// Its name.
    pub name: String,
    /// What it does, in the words of the service.
    pub description: String,
    /// Calls so far in this tenure of the name.
    pub calls: u64,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct PeerRow {
    /// Which one, for [`Broker`] calls.
    pub key: PeerKey,
    /// Number and identity.
    pub peer: PeerIdentity,
    /// How it came.
    pub transport: Transport,
    /// What it calls itself.
    pub program: String,
    /// Bytes on their way to it.
    pub queued_bytes: usize,
    /// Service registrations.
    pub names: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Name watches.
    pub watches: usize,
    /// Calls it waits for.
    pub pending_calls: usize,
    /// Locks, permits, leaderships and leases it holds.
    pub holds: usize,
    /// Requests for such that wait.
    pub waits: usize,
    /// Elections it observes, and watches over keys.
    pub observations: usize,
}

/// A topic.
#[derive(Clone, Debug)]
pub struct TopicRow {
    /// Its name.
    pub name: String,
    /// Which counter this is; a later one of the same name has another.
    pub generation: u16,
    /// The number given last.
    pub sequence: u64,
    /// Subscriptions that get its events.
    pub subscribers: usize,
}

/// The bus as one connection may see it: services that it may resolve, topics that it may publish on or subscribe to,
/// and connections and usage of its own user. Those of others take `monitor`. The network sees no other connection.
#[derive(Debug)]
pub struct View<'a> {
    broker: &'a Broker,
    /// Nobody once it is gone, who sees nothing.
    viewer: Option<(PeerKey, &'a Peer)>,
}

impl View<'_> {
    fn check(&self, action: &Action<'_>) -> Result<(), Error> {
        let gone = || Error::new(ErrorCode::PermissionDenied, "whoever asked has gone");
        let (key, _) = self.viewer.ok_or_else(gone)?;
        self.broker.check_policy(key, action)
    }

    /// Whether it may have that method of `ipc.daemon` change something.
    ///
    /// # Errors
    /// `permission_denied`.
    pub fn check_administer(&self, method: &str) -> Result<(), Error> {
        self.check(&Action::Administer(method))
    }

    /// Whether it may see what is not its own.
    ///
    /// # Errors
    /// `permission_denied`.
    pub fn check_monitor(&self, what: &str) -> Result<(), Error> {
        self.check(&Action::Monitor(what))
    }

    fn payer(&self) -> Option<Payer> {
        self.viewer.map(|(_, viewer)| Payer::of(&viewer.who.identity))
    }

    fn pays(&self, uid: Option<u32>, principal: Option<&str>) -> bool {
        match self.payer() {
            Some(Payer::Uid(own)) => uid == Some(own),
            Some(Payer::Remote(own)) => principal == Some(own.as_str()),
            None => false,
        }
    }

    fn is_of_the_network(&self) -> bool {
        self.viewer.is_none_or(|(_, viewer)| matches!(viewer.who.identity, Identity::Remote { .. }))
    }

    fn is_own(&self, peer: &PeerIdentity) -> bool {
        self.viewer.is_some_and(|(_, viewer)| viewer.who.id == peer.id)
    }

    /// The services that it may resolve, in order of their names, with the instances that it sees.
    pub fn services(&self) -> Vec<ServiceRow> {
        let mut rows = self.broker.services();
        rows.retain(|row| {
            ServiceName::parse(&row.name).is_ok_and(|name| self.check(&Action::Resolve(&name)).is_ok())
        });
        if self.is_of_the_network() {
            for row in &mut rows {
                row.instances.retain(|peer| self.is_own(peer));
            }
        }
        rows
    }

    /// The connections that it sees, in order of their numbers.
    pub fn peers(&self) -> Vec<PeerRow> {
        let mut rows = self.broker.peers();
        if self.check(&Action::Monitor("peers")).is_ok() {
            return rows;
        }
        let (own, is_of_the_network) = (self.payer(), self.is_of_the_network());
        rows.retain(|row| {
            let is_users = !is_of_the_network && own == Some(Payer::of(&row.peer.identity));
            is_users || self.is_own(&row.peer)
        });
        rows
    }

    /// The topics that it sees, in order of their names.
    pub fn topics(&self) -> Vec<TopicRow> {
        let mut rows = self.broker.topics();
        rows.retain(|row| {
            let may_publish =
                TopicName::parse(&row.name).is_ok_and(|name| self.check(&Action::Publish(&name)).is_ok());
            may_publish
                || Filter::parse(&row.name).is_ok_and(|name| self.check(&Action::Subscribe(&name)).is_ok())
        });
        rows
    }

    /// What those use whose usage it sees, of every resource that is limited for each of them, and what they were refused.
    pub fn quota(&self) -> Vec<QuotaRow> {
        let mut rows = self.broker.quota_rows();
        if self.check(&Action::Monitor("usage")).is_err() {
            rows.retain(|row| self.pays(row.uid, row.principal.as_deref()));
        }
        rows
    }

    /// Numbers of the whole bus, with the usage that it sees.
    pub fn status(&self) -> Status {
        let mut status = self.broker.status();
        if self.check(&Action::Monitor("usage")).is_err() {
            status.usage.retain(|usage| self.pays(usage.uid, usage.principal.as_deref()));
        }
        status
    }
}

impl Broker {
    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.config.policy
    }

    /// The bus as the connection with that number may see it.
    pub fn view(&self, viewer: PeerId) -> View<'_> {
        View { broker: self, viewer: self.peers.iter().find(|(_, peer)| peer.who.id == viewer) }
    }

    /// What each user and remote principal has in use.
    pub fn usage(&self) -> Vec<Usage> {
        let usage = self.quota.accounts().map(|(payer, charges)| {
            let (uid, principal) = named(payer);
            Usage { uid, principal, charges: charges.clone() }
        });
        usage.collect()
    }

    /// What each payer uses of each resource that is limited for each, and what it was refused by these and other limits, in
    /// order of the payers. Keys and entries of work queues are there without a connection too.
    fn quota_rows(&self) -> Vec<QuotaRow> {
        let mut refused = self.quota.refused().clone();
        let mut rows = Vec::new();
        let mut add = |payer: &Payer, resource: &'static str, used, max| {
            let refused = refused.get_mut(payer).and_then(|of| of.remove(resource)).unwrap_or(0);
            rows.push((payer.clone(), resource.to_owned(), used, Some(max), refused));
        };
        for (payer, resource, used, max) in self.quota.used() {
            add(payer, resource, used, max);
        }
        let connected = self.quota.accounts().filter_map(|(payer, _)| named(payer).0);
        let with_topics = self.topics.users().chain(connected);
        let users: BTreeSet<u32> = self.coordination.users().into_iter().chain(with_topics).collect();
        for uid in users {
            let payer = Payer::Uid(uid);
            for (resource, used, max) in self.coordination.used_by(uid, &self.limits_of(&payer)) {
                add(&payer, resource, used, max);
            }
            let topics_max = self.config.limits.topics_max;
            add(&payer, "topics_max", self.topics.used_by(uid), topics_max.into());
        }
        for (payer, resources) in refused {
            let other = |(resource, refused)| (payer.clone(), resource, 0, None, refused);
            rows.extend(resources.into_iter().map(other));
        }
        rows.sort_by(|one, other| one.0.cmp(&other.0));
        let row = |(payer, resource, used, max, refused)| {
            let (uid, principal) = named(&payer);
            QuotaRow { uid, principal, resource, used, max, refused }
        };
        rows.into_iter().map(row).collect()
    }

    /// Numbers of the whole bus.
    pub fn status(&self) -> Status {
        Status {
            counters: self.counters.by_name(),
            present: Present {
                connections: self.connections() as usize,
                services: self.names.services().count(),
                topics: self.topics.len(),
                calls: self.calls.len(),
            },
            limits: self.config.limits.by_name(),
            usage: self.usage(),
        }
    }

    /// Every service, in order of its name.
    pub fn services(&self) -> Vec<ServiceRow> {
        let rows = self.names.services().map(|service| ServiceRow {
            name: service.name.to_string(),
            is_group: service.mode == RegisterMode::Group,
            instance_count: service.instances.len(),
            instances: service
                .instances
                .iter()
                .filter_map(|instance| self.peers.get(instance.peer).map(|peer| peer.who.clone()))
                .collect(),
            methods: service
                .methods
                .iter()
                .map(|method| MethodRow {
                    name: method.name.to_string(),
                    description: method.description.clone(),
                    calls: method.calls,
                })
                .collect(),
            waiting: service.waiting.len(),
        });
        rows.collect()
    }

    /// Every connection that is on the bus, in order of its number.
    pub fn peers(&self) -> Vec<PeerRow> {
        let present = self.peers.iter().filter(|(_, peer)| !peer.is_departed());
        let mut rows: Vec<PeerRow> = present
            .map(|(key, peer)| PeerRow {
                key,
                peer: peer.who.clone(),
                transport: peer.transport,
                program: peer.program.clone(),
                queued_bytes: peer.outbound.queued_bytes(),
                names: peer.registrations.len(),
                subscriptions: peer.subscriptions.len(),
                watches: peer.watches.len(),
                pending_calls: self.calls.outgoing(key),
                holds: self.coordination.counts(key).0,
                waits: self.coordination.counts(key).1,
                observations: self.coordination.counts(key).2,
            })
            .collect();
        rows.sort_by_key(|row| row.peer.id);
        rows
    }

    /// Every topic that has a counter, in order of its name.
    pub fn topics(&self) -> Vec<TopicRow> {
        let rows = self.topics.all().map(|(key, topic, subscribers)| TopicRow {
            name: topic.name.to_string(),
            generation: key.handle().generation,
            sequence: topic.sequence,
            subscribers,
        });
        rows.collect()
    }

    /// Connections, departed ones that are still written to included.
    pub fn connections(&self) -> u32 {
        self.quota.connections()
    }
}

fn named(payer: &Payer) -> (Option<u32>, Option<String>) {
    match payer {
        Payer::Uid(uid) => (Some(*uid), None),
        Payer::Remote(principal) => (None, Some(principal.clone())),
    }
}
