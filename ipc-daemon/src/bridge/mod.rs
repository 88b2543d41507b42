//! SHELL. The way to and from the network: plain TCP ports whose bytes go to one method of a service.
//!
//! - [`Bridges`]: the ports that are open, opened and closed while the daemon runs;
//! - [`spec`]: how a port is written;
//! - [`port`]: one port: listening, accepting, counting;
//! - [`connection`]: one client of a port, between its socket and the bus;
//! - [`framing`]: the client's bytes that wait to be calls; [`caller`]: the call that is under way.
//!
//! A client of a port is a peer of the bus like any other, with a network identity and the right to call that one method.
//! Nothing here is unbounded: connections, bytes that wait for their call, replies that wait for their reader, idle time.

mod caller;
mod connection;
mod framing;
mod port;
pub(crate) mod spec;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use ipc_core::{Error, ErrorCode};
use serde_json::{Value, json};

use crate::admin::{Bridge, HeldSocket, ListenAddress, Sockets};
use crate::bus::Bus;
use port::{OpenPort, Port};
use spec::Spec;

/// The ports of this daemon; clones are handles to the same ones.
#[derive(Clone)]
pub(crate) struct Bridges(Rc<Inner>);

struct Inner {
    bus: Bus,
    ports: RefCell<BTreeMap<u64, OpenPort>>,
    /// Those of the configuration, by id.
    configured: RefCell<BTreeSet<u64>>,
    next_id: Cell<u64>,
    /// Bytes of replies that the clients of all ports have not read yet.
    unread_bytes: Rc<Cell<usize>>,
}

/// The kind of address and of bridge that an exposed TCP port is.
const EXPOSE_TCP: &str = "expose_tcp";

impl Bridges {
    /// No ports.
    pub(crate) fn new(bus: Bus) -> Self {
        Self(Rc::new(Inner {
            bus,
            ports: RefCell::default(),
            configured: RefCell::default(),
            next_id: Cell::new(1),
            unread_bytes: Rc::default(),
        }))
    }

    /// Opens a port.
    ///
    /// # Errors
    /// `quota_exceeded` for one port too many; `io` or `permission_denied` when the system does not give the port.
    fn open(&self, spec: Spec) -> Result<Value, Error> {
        let max = self.0.bus.look(|broker| broker.limits().bridges_max);
        check_count(self.0.ports.borrow().len() + 1, max)?;
        let port = OpenPort::open(&self.0.bus, spec, Rc::clone(&self.0.unread_bytes))?;
        let id = self.next_id();
        let row = row(id, &port);
        self.0.ports.borrow_mut().insert(id, port);
        Ok(row)
    }

    fn next_id(&self) -> u64 {
        let id = self.0.next_id.get();
        self.0.next_id.set(id + 1);
        id
    }

    /// Opens the ports that the configuration has and closes those that it had; the others stay as they are, with their
    /// connections. At most `max` may be open then.
    ///
    /// # Errors
    /// As [`expose`](Bridge::expose); nothing has changed then.
    pub(crate) fn configure(&self, specs: &[Spec], max: u32) -> Result<(), Error> {
        let mut ports = self.0.ports.borrow_mut();
        let mut missing = specs.to_vec();
        let mut stale = BTreeSet::new();
        for id in self.0.configured.borrow().iter() {
            let Some(port) = ports.get(id) else { continue };
            match missing.iter().position(|spec| *spec == port.port().spec) {
                Some(at) => drop(missing.remove(at)),
                None => drop(stale.insert(*id)),
            }
        }
        check_count(ports.len() - stale.len() + missing.len(), max)?;
        let opened = self.open_all(missing, &stale, &ports)?;
        let replaced: BTreeSet<u64> = opened.iter().filter_map(|(_, predecessor)| *predecessor).collect();
        for id in stale {
            match ports.remove(&id) {
                Some(port) if replaced.contains(&id) => port.replaced(),
                Some(port) => port.close(),
                None => {}
            }
        }
        let mut configured = self.0.configured.borrow_mut();
        configured.retain(|id| ports.contains_key(id));
        for (port, _) in opened {
            let id = self.next_id();
            configured.insert(id);
            ports.insert(id, port);
        }
        Ok(())
    }

    /// Opens ports, each in the place of a stale one at the same address if there is one, whose id is given with it.
    fn open_all(
        &self,
        specs: Vec<Spec>,
        stale: &BTreeSet<u64>,
        ports: &BTreeMap<u64, OpenPort>,
    ) -> Result<Vec<(OpenPort, Option<u64>)>, Error> {
        let mut free: Vec<(u64, &OpenPort)> =
            stale.iter().filter_map(|id| Some((*id, ports.get(id)?))).collect();
        let mut opened = Vec::new();
        for spec in specs {
            let same = free.iter().position(|(_, port)| port.port().spec.address == spec.address);
            let predecessor = same.map(|at| free.remove(at));
            let port = match predecessor {
                Some((_, port)) => port.open_in_place(spec),
                None => OpenPort::open(&self.0.bus, spec, Rc::clone(&self.0.unread_bytes)),
            };
            match port {
                Ok(port) => opened.push((port, predecessor.map(|(id, _)| id))),
                Err(error) => {
                    // Those in the place of others leave the socket to them; the sockets of the others end with them.
                    opened.into_iter().for_each(|(port, _)| port.replaced());
                    return Err(error);
                }
            }
        }
        Ok(opened)
    }

    /// Closes the ports; their connections stay until they end.
    pub(crate) fn begin_drain(&self) {
        for port in self.0.ports.borrow().values() {
            port.begin_drain();
        }
    }

    /// Completes when no connection is open any more; to be used after the drain began. Cancel safe.
    pub(crate) async fn deserted(&self) {
        poll_fn(|context| {
            let mut ports = self.0.ports.borrow_mut();
            ports.retain(|_, port| port.poll_ended(context).is_pending());
            if ports.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Sockets for Bridges {
    fn addresses(&self) -> Vec<ListenAddress> {
        let ports = self.0.ports.borrow();
        let addresses = ports
            .values()
            .map(|port| ListenAddress { kind: EXPOSE_TCP, address: port.port().address.to_string() });
        addresses.collect()
    }

    fn sockets(&self) -> Vec<HeldSocket> {
        self.0.ports.borrow().values().flat_map(OpenPort::sockets).collect()
    }
}

impl Bridge for Bridges {
    fn list(&self) -> Vec<Value> {
        self.0.ports.borrow().iter().map(|(id, port)| row(*id, port)).collect()
    }

    fn expose(&self, specification: &str) -> Result<Value, Error> {
        let row = self.open(Spec::parse(specification.trim())?)?;
        tracing::info!(address = %row["address"], "exposed {}", row["spec"]);
        Ok(row)
    }

    /// Its connections are closed too.
    fn remove(&self, id: &str) -> Result<Value, Error> {
        let mut ports = self.0.ports.borrow_mut();
        let removed = id.trim().parse().ok().and_then(|id| Some((id, ports.remove(&id)?)));
        let Some((id, port)) = removed else {
            let shown: String = id.trim().chars().take(40).flat_map(char::escape_debug).collect();
            let message = format!("there is no bridge \"{shown}\"");
            return Err(Error::new(ErrorCode::InvalidArgument, message)
                .with_hint("`ipc-cli bridge list` shows the bridges with their ids"));
        };
        let row = row(id, &port);
        port.close();
        tracing::info!(address = %row["address"], "removed {}", row["spec"]);
        Ok(row)
    }
}

/// Whether that many ports may be open.
fn check_count(count: usize, max: u32) -> Result<(), Error> {
    if count <= max as usize {
        return Ok(());
    }
    Err(Error::quota("bridges_max", max.into())
        .with_hint("remove one that is not used any more, or raise the limit in the configuration"))
}

/// What is shown of a port.
fn row(id: u64, port: &OpenPort) -> Value {
    let Port { spec, address, counters, .. } = port.port();
    json!({
        "id": id,
        "kind": EXPOSE_TCP,
        "spec": spec.to_string(),
        "service": spec.service.as_str(),
        "method": spec.method.as_str(),
        "framing": spec.framing.name(),
        "address": address.to_string(),
        "connections": counters.connections.get(),
        "accepted": counters.accepted.get(),
        "refused": counters.refused.get(),
        "calls": counters.calls.get(),
        "errors": counters.errors.get(),
        "bytes_in": counters.bytes_in.get(),
        "bytes_out": counters.bytes_out.get(),
    })
}
