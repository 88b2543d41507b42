//! The answers of `ipc.daemon`: snapshots of the broker as JSON.

use std::collections::BTreeMap;

use core::time::Duration;

use ipc_core::id::Epoch;
use ipc_core::identity::{Identity, Peer};
use ipc_core::time::Instant;
use ipc_core::wire::VERSION_MAX;
use ipc_core::{Error, ErrorCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::ListenAddress;
use super::process::Names;
use crate::broker::{
    BarrierRow, GateRow, LeaseRow, PeerRow, QueueRow, ServiceRow, Status, TopicRow, Usage, View,
};

/// Holders that have not come back, of those that are shown of one name.
const ABSENT_SHOWN_MAX: usize = 100;

/// What does not change while the daemon runs.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// This life of the daemon.
    pub(crate) epoch: Epoch,
    /// When it began.
    pub(crate) started: Instant,
}

/// Who is behind a connection. What does not apply is null.
#[derive(Debug, Serialize)]
struct Who {
    id: u64,
    uid: Option<u32>,
    gid: Option<u32>,
    pid: Option<u32>,
    process: Option<String>,
    principal: Option<String>,
}

impl Who {
    fn new(peer: &Peer, names: &Names) -> Self {
        match &peer.identity {
            Identity::Local { uid, gid, pid } => Self {
                id: peer.id.0,
                uid: Some(*uid),
                gid: Some(*gid),
                pid: Some(*pid),
                process: names.get(pid).cloned(),
                principal: None,
            },
            Identity::Remote { principal, .. } => Self {
                id: peer.id.0,
                uid: None,
                gid: None,
                pid: None,
                process: None,
                principal: Some(principal.clone()),
            },
        }
    }
}

/// The daemon.
pub(super) fn status(
    facts: &Facts,
    addresses: Vec<ListenAddress>,
    broker: &Status,
    tally: &[(&'static str, u64)],
    now: Instant,
) -> Value {
    let counters: BTreeMap<_, _> = broker.counters.iter().chain(tally).copied().collect();
    let limits: BTreeMap<_, _> = broker.limits.iter().copied().collect();
    let usage: BTreeMap<_, _> = broker.usage.iter().map(usage_row).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "protocol": VERSION_MAX,
        "epoch": facts.epoch.to_string(),
        "pid": std::process::id(),
        "uptime_ms": u64::try_from((now - facts.started).as_millis()).unwrap_or(u64::MAX),
        "addresses": addresses,
        "counters": counters,
        "limits": limits,
        "usage": usage,
    })
}

/// By user id, or by principal for whoever has none.
fn usage_row(usage: &Usage) -> (String, Value) {
    let who = match (usage.uid, &usage.principal) {
        (Some(uid), _) => uid.to_string(),
        (None, principal) => format!("remote:{}", principal.as_deref().unwrap_or("")),
    };
    let charges = &usage.charges;
    let row = json!({
        "connections": charges.connections,
        "queued_bytes": charges.queued_bytes,
        "names": charges.names,
        "subscriptions": charges.subscriptions,
        "pending_calls": charges.pending_calls,
        "holds": charges.holds,
        "waits": charges.waits,
        "observations": charges.observations,
        // What is open for them in the daemon: one socket for each connection.
        "fds": charges.connections + charges.process_watches,
    });
    (who, row)
}

/// Who uses what of all that is limited, a row for each payer and resource.
pub(super) fn quota(view: &View<'_>) -> Value {
    let rows = view.quota().into_iter().map(|row| {
        json!({
            "uid": row.uid,
            "principal": row.principal,
            "resource": row.resource,
            "used": row.used,
            "limit": row.max,
            "refused": row.refused,
        })
    });
    rows.collect()
}

/// What a list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kinds {
    services: bool,
    peers: bool,
    topics: bool,
    locks: bool,
    queues: bool,
    leases: bool,
}

impl Kinds {
    /// Parses `services`, `peers`, `topics`, `locks`, `queues`, `leases` or `all`; nothing means all.
    ///
    /// # Errors
    /// `invalid_argument`.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let none =
            Self { services: false, peers: false, topics: false, locks: false, queues: false, leases: false };
        match text {
            "services" => Ok(Self { services: true, ..none }),
            "peers" => Ok(Self { peers: true, ..none }),
            "topics" => Ok(Self { topics: true, ..none }),
            "locks" => Ok(Self { locks: true, ..none }),
            "queues" => Ok(Self { queues: true, ..none }),
            "leases" => Ok(Self { leases: true, ..none }),
            "all" | "" => Ok(Self {
                services: true,
                peers: true,
                topics: true,
                locks: true,
                queues: true,
                leases: true,
            }),
            other => {
                let shown: String = other.chars().take(40).flat_map(char::escape_debug).collect();
                let message = format!("\"{shown}\" is no kind of thing on the bus");
                Err(Error::new(ErrorCode::InvalidArgument, message)
                    .with_hint("ask for services, peers, topics, locks, queues, leases or all"))
            }
        }
    }
}

/// What is on the bus, as it was at one moment.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    services: Vec<ServiceRow>,
    peers: Vec<PeerRow>,
    topics: Vec<TopicRow>,
    gates: Vec<GateRow>,
    barriers: Vec<BarrierRow>,
    queues: Vec<QueueRow>,
    leases: Vec<LeaseRow>,
}

impl Inventory {
    /// What `kinds` ask for.
    pub(super) fn take(view: &View<'_>, kinds: Kinds, now: Instant) -> Self {
        Self {
            services: if kinds.services { view.services() } else { Vec::new() },
            peers: if kinds.peers { view.peers() } else { Vec::new() },
            topics: if kinds.topics { view.topics() } else { Vec::new() },
            gates: if kinds.locks { view.gates(now) } else { Vec::new() },
            barriers: if kinds.locks { view.barriers() } else { Vec::new() },
            queues: if kinds.queues { view.queues(now) } else { Vec::new() },
            leases: if kinds.leases { view.leases(now) } else { Vec::new() },
        }
    }

    /// One service.
    ///
    /// # Errors
    /// `no_such_service`.
    pub(super) fn of_service(view: &View<'_>, name: &str) -> Result<Self, Error> {
        let mut services = view.services();
        services.retain(|service| service.name == name);
        if services.is_empty() {
            let shown: String = name.chars().take(80).flat_map(char::escape_debug).collect();
            return Err(Error::new(ErrorCode::NoSuchService, format!("there is no service \"{shown}\""))
                .with_hint("`ipc-cli list services` shows those there are"));
        }
        Ok(Self { services, ..Self::default() })
    }

    /// The processes whose names are wanted.
    pub(super) fn pids(&self) -> Vec<u32> {
        let serving = self.services.iter().flat_map(|service| &service.instances);
        let holding = self.gates.iter().flat_map(|gate| &gate.holders).filter_map(|row| row.peer.as_ref());
        let leasing = self.leases.iter().filter_map(|lease| lease.peer.as_ref());
        let peers = self.peers.iter().map(|row| &row.peer).chain(serving).chain(holding).chain(leasing);
        let mut pids: Vec<u32> = peers.filter_map(|peer| pid_of(&peer.identity)).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// How many rows it has.
    pub(super) fn len(&self) -> usize {
        let named = self.services.len() + self.peers.len() + self.topics.len();
        named + self.gates.len() + self.barriers.len() + self.queues.len() + self.leases.len()
    }

    /// A row for each thing.
    pub(super) fn rows<'a>(&'a self, names: &'a Names) -> impl Iterator<Item = Value> + 'a {
        let services = self.services.iter().map(|service| service_row(service, names));
        let peers = self.peers.iter().map(|peer| peer_row(peer, names));
        let topics = self.topics.iter().map(topic_row);
        let gates = self.gates.iter().map(|gate| gate_row(gate, names));
        let barriers = self.barriers.iter().map(barrier_row);
        let queues = self.queues.iter().map(queue_row);
        let leases = self.leases.iter().map(|lease| lease_row(lease, names));
        let named = services.chain(peers).chain(topics);
        named.chain(gates).chain(barriers).chain(queues).chain(leases)
    }

    /// The first service in full.
    pub(super) fn description(&self, names: &Names) -> Value {
        self.services.first().map_or(Value::Null, |service| described(service, names))
    }
}

fn pid_of(identity: &Identity) -> Option<u32> {
    match identity {
        Identity::Local { pid, .. } => Some(*pid),
        Identity::Remote { .. } => None,
    }
}

fn mode(service: &ServiceRow) -> &'static str {
    if service.is_group { "group" } else { "exclusive" }
}

fn service_row(service: &ServiceRow, names: &Names) -> Value {
    json!({
        "kind": "service",
        "name": service.name,
        "mode": mode(service),
        "instances": service.instance_count,
        "owner": service.instances.first().map(|peer| Who::new(peer, names)),
        "methods": service.methods.len(),
        "waiting": service.waiting,
    })
}

fn peer_row(row: &PeerRow, names: &Names) -> Value {
    let who = Who::new(&row.peer, names);
    json!({
        "kind": "peer",
        "name": row.program,
        "id": who.id,
        "uid": who.uid,
        "gid": who.gid,
        "pid": who.pid,
        "process": who.process,
        "transport": row.transport.name(),
        "principal": who.principal,
        "queued_bytes": row.queued_bytes,
        "names": row.names,
        "subscriptions": row.subscriptions,
        "pending_calls": row.pending_calls,
    })
}

fn topic_row(topic: &TopicRow) -> Value {
    json!({
        "kind": "topic",
        "name": topic.name,
        "generation": topic.generation,
        "seq": topic.sequence,
        "subscribers": topic.subscribers,
    })
}

/// A lock, a semaphore or an election, with the eldest holder in full, and with those that have not come back.
fn gate_row(gate: &GateRow, names: &Names) -> Value {
    let first = gate.holders.first();
    let absent = gate.holders.iter().filter(|row| row.uid.is_some()).take(ABSENT_SHOWN_MAX);
    let absent = absent.map(
        |row| json!({ "uid": row.uid, "token": row.token, "remaining_ms": row.remaining.map(whole_millis) }),
    );
    let mode = match first {
        None if gate.closed.is_some() => "closed",
        None => "free",
        Some(_) if gate.permits.is_some() => "permits",
        Some(_) if gate.is_shared => "shared",
        Some(_) => "exclusive",
    };
    json!({
        "kind": gate.kind,
        "name": gate.name,
        "mode": mode,
        "holder": first.and_then(|row| row.peer.as_ref()).map(|peer| Who::new(peer, names)),
        "absent": absent.collect::<Vec<_>>(),
        "holders": gate.holders.len(),
        "token": first.map(|row| row.token),
        "age_ms": first.map(|row| whole_millis(row.age)),
        "remaining_ms": first.and_then(|row| row.remaining).map(whole_millis),
        "closed_ms": gate.closed.map(whole_millis),
        "waiting": gate.waiting,
        "observers": gate.observers,
        "permits": gate.permits.map(|(permits, _)| permits),
        "permits_held": gate.permits.map(|(_, held)| held),
    })
}

fn barrier_row(barrier: &BarrierRow) -> Value {
    json!({
        "kind": "barrier",
        "name": barrier.name,
        "mode": format!("{} of {}", barrier.arrived, barrier.parties),
        "parties": barrier.parties,
        "waiting": barrier.arrived,
    })
}

fn queue_row(queue: &QueueRow) -> Value {
    let counts = &queue.counts;
    json!({
        "kind": "queue",
        "name": queue.name,
        "ready": counts.ready,
        "delayed": counts.delayed,
        "delivered": counts.delivered,
        "dead": counts.dead,
        "waiting": counts.waiting,
        "consumers": counts.consumers,
        "bytes": counts.bytes,
        "oldest_ms": counts.oldest_us / 1000,
    })
}

fn lease_row(lease: &LeaseRow, names: &Names) -> Value {
    json!({
        "kind": "lease",
        "name": lease.token.to_string(),
        "lease": lease.token,
        "ttl_ms": lease.ttl.map(whole_millis),
        "remaining_ms": lease.remaining.map(whole_millis),
        "holder": lease.peer.as_ref().map(|peer| Who::new(peer, names)),
        "uid": lease.uid,
        "absent": lease.is_absent,
    })
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn described(service: &ServiceRow, names: &Names) -> Value {
    let methods = service.methods.iter().map(
        |method| json!({ "name": method.name, "description": method.description, "calls": method.calls }),
    );
    let instances = service.instances.iter().map(|peer| Who::new(peer, names));
    json!({
        "service": service.name,
        "mode": mode(service),
        "methods": methods.collect::<Vec<_>>(),
        "instances": instances.collect::<Vec<_>>(),
        "waiting": service.waiting,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Access, Broker, Charges, Config, Policy, Transport};
    use ipc_core::id::PeerId;
    use ipc_core::limits::Limits;

    fn broker() -> Broker {
        let config = Config {
            limits: Limits::default(),
            policy: Policy::open(Vec::new()),
            epoch: Epoch(7),
            server: "test".to_owned(),
        };
        let mut broker = Broker::new(config);
        let identity = Identity::Local { uid: 1000, gid: 100, pid: 42 };
        broker.connect(Instant::default(), identity, Transport::UnixStream, Access::Granted).unwrap();
        broker
    }

    #[test]
    fn the_status_has_the_fields_that_scripts_rely_on() {
        let address = ListenAddress { kind: "unix_stream", address: "/run/ipc/bus.sock".to_owned() };
        let facts = Facts { epoch: Epoch(7), started: Instant::from_nanos(0) };
        let now = Instant::from_nanos(5_000_000);
        let status = status(&facts, vec![address], &broker().status(), &[("refused_access", 3)], now);
        assert_eq!(status["epoch"], "0000000000000007");
        assert_eq!(status["protocol"], 1);
        assert_eq!(status["uptime_ms"], 5);
        assert_eq!(status["addresses"][0]["kind"], "unix_stream");
        assert_eq!(status["counters"]["refused_access"], 3);
        assert_eq!(status["counters"]["connections_accepted"], 1);
        assert_eq!(status["limits"]["connections_max"], Limits::default().connections_max);
        assert_eq!(status["usage"]["1000"]["connections"], 1);
        for field in ["queued_bytes", "names", "subscriptions", "pending_calls", "fds"] {
            assert!(status["usage"]["1000"][field].is_u64(), "{field}");
        }
    }

    #[test]
    fn a_list_holds_what_was_asked_for_with_its_identity() {
        let broker = broker();
        let names = Names::from([(42, "sh".to_owned())]);
        for (kinds, expected) in [
            ("services", 0),
            ("peers", 1),
            ("topics", 0),
            ("locks", 0),
            ("queues", 0),
            ("leases", 0),
            ("all", 1),
            ("", 1),
        ] {
            let inventory =
                Inventory::take(&broker.view(PeerId(1)), Kinds::parse(kinds).unwrap(), Instant::default());
            assert_eq!(inventory.rows(&names).count(), expected, "{kinds}");
        }
        let inventory =
            Inventory::take(&broker.view(PeerId(1)), Kinds::parse("peers").unwrap(), Instant::default());
        assert_eq!(inventory.pids(), [42]);
        let row = inventory.rows(&names).next().unwrap();
        assert_eq!((&row["kind"], &row["process"]), (&json!("peer"), &json!("sh")));
        assert_eq!((&row["uid"], &row["gid"], &row["pid"]), (&json!(1000), &json!(100), &json!(42)));
        assert_eq!((&row["transport"], &row["principal"]), (&json!("unix_stream"), &Value::Null));
        assert_eq!(Kinds::parse("rows").unwrap_err().code, ErrorCode::InvalidArgument);
    }

    #[test]
    fn a_service_shows_its_owner_and_its_methods() {
        let owner = Peer {
            id: PeerId(3),
            identity: Identity::Remote { principal: "anonymous".to_owned(), address: "1.2.3.4:5".to_owned() },
        };
        let method =
            crate::broker::MethodRow { name: "m".to_owned(), description: "does".to_owned(), calls: 2 };
        let service = ServiceRow {
            name: "a.b".to_owned(),
            is_group: false,
            instance_count: 1,
            instances: vec![owner],
            methods: vec![method],
            waiting: 1,
        };
        let row = service_row(&service, &Names::new());
        assert_eq!((&row["instances"], &row["owner"]["id"]), (&json!(1), &json!(3)));
        assert_eq!((&row["owner"]["uid"], &row["owner"]["principal"]), (&Value::Null, &json!("anonymous")));
        let described = described(&service, &Names::new());
        assert_eq!((&described["service"], &described["methods"][0]["calls"]), (&json!("a.b"), &json!(2)));
        assert_eq!(described["instances"][0]["id"], 3);
        assert_eq!(
            Inventory::of_service(&broker().view(PeerId(1)), "a.b").unwrap_err().code,
            ErrorCode::NoSuchService
        );
    }

    #[test]
    fn usage_of_the_network_is_never_taken_for_a_users() {
        let usage = Usage { uid: None, principal: Some("0".to_owned()), charges: Charges::default() };
        assert_eq!(usage_row(&usage).0, "remote:0");
    }
}
