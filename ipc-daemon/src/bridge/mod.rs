//! SHELL. The way to and from the network for programs that have never heard of the bus.
//!
//! | file | noun |
//! |---|---|
//! | [`spec`] | how a bridge is written |
//! | `open` | a bridge that is open, of whatever kind |
//! | `expose_tcp`, `connection`, `framing`, `unread` | a TCP port whose bytes go to one method: the port, one client of it, its bytes that wait to be calls, and replies to be read |
//! | `expose_udp`, `source` | a UDP port whose datagrams do: the port, those who send to it |
//! | `caller` | a network client's side of the bus |
//! | [`forward`] | a server of the network that appears as a service |
//! | `origin` | which network clients share as one |
//! | `counter`, `failure`, `open_sockets` | what they have in common |
//!
//! A client of a port is a peer of the bus like any other, with a network identity and the right to call that one method;
//! a forward is a service of the daemon's own. Nothing here is unbounded: connections, sources, calls, bytes that wait for
//! their call, replies that wait for their reader, idle time.

mod caller;
mod connection;
mod counter;
mod expose_tcp;
mod expose_udp;
mod failure;
mod forward;
mod framing;
mod open;
mod open_sockets;
mod origin;
mod source;
pub(crate) mod spec;
mod unread;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use ipc_core::payload::{Payload, PayloadKind};
use ipc_core::{Error, ErrorCode};
use serde_json::Value;

use crate::admin::{Bridge, HeldSocket, ListenAddress, Sockets};
use crate::bus::Bus;
use open::{Common, Open};
use spec::Spec;
use spec::expose::ExposeSpec;
use spec::forward::ForwardSpec;

/// The bridges of this daemon; clones are handles to the same ones.
#[derive(Clone)]
pub(crate) struct Bridges(Rc<Inner>);

struct Inner {
    common: Common,
    open: RefCell<BTreeMap<u64, Open>>,
    /// Those of the configuration, by id.
    configured: RefCell<BTreeSet<u64>>,
    next_id: Cell<u64>,
}

impl Bridges {
    /// No bridges.
    pub(crate) fn new(bus: Bus) -> Self {
        Self(Rc::new(Inner {
            common: Common { bus, unread: Rc::default() },
            open: RefCell::default(),
            configured: RefCell::default(),
            next_id: Cell::new(1),
        }))
    }

    /// Opens a bridge and answers with its row.
    ///
    /// # Errors
    /// `quota_exceeded` for one bridge too many; `io` or `permission_denied` when the system does not give the port;
    /// `name_taken` when the service of a forward is somebody else's.
    fn open(&self, spec: Spec) -> Result<Value, Error> {
        let max = self.0.common.bus.look(|broker| broker.limits().bridges_max);
        check_count(self.0.open.borrow().len() + 1, max)?;
        let bridge = Open::new(&self.0.common, spec)?;
        let id = self.next_id();
        let row = bridge.row(id);
        self.0.open.borrow_mut().insert(id, bridge);
        Ok(row)
    }

    fn next_id(&self) -> u64 {
        let id = self.0.next_id.get();
        self.0.next_id.set(id + 1);
        id
    }

    /// Opens the bridges that the configuration has and closes those that it had; the others stay as they are, with their
    /// connections. At most `max` may be open then.
    ///
    /// # Errors
    /// As [`expose`](Bridge::expose) and [`forward`](Bridge::forward); nothing has changed then.
    pub(crate) fn configure(
        &self,
        expose: &[ExposeSpec],
        forward: &[ForwardSpec],
        max: u32,
    ) -> Result<(), Error> {
        let mut open = self.0.open.borrow_mut();
        let exposed = expose.iter().cloned().map(Spec::Expose);
        let mut missing: Vec<Spec> = exposed.chain(forward.iter().cloned().map(Spec::Forward)).collect();
        let mut stale = BTreeSet::new();
        for id in self.0.configured.borrow().iter() {
            let Some(bridge) = open.get(id) else { continue };
            match missing.iter().position(|spec| *spec == bridge.spec()) {
                Some(at) => drop(missing.remove(at)),
                None => drop(stale.insert(*id)),
            }
        }
        check_count(open.len() - stale.len() + missing.len(), max)?;
        let opened = self.open_all(missing, &stale, &open)?;
        let replaced: BTreeSet<u64> = opened.iter().filter_map(|(_, predecessor)| *predecessor).collect();
        for id in stale {
            match open.remove(&id) {
                Some(bridge) if replaced.contains(&id) => bridge.replaced(),
                Some(bridge) => bridge.close(),
                None => {}
            }
        }
        let mut configured = self.0.configured.borrow_mut();
        configured.retain(|id| open.contains_key(id));
        for (bridge, _) in opened {
            let id = self.next_id();
            configured.insert(id);
            open.insert(id, bridge);
        }
        Ok(())
    }

    /// Opens bridges, each in the place of a stale one that has the same place, whose id is given with it.
    fn open_all(
        &self,
        specs: Vec<Spec>,
        stale: &BTreeSet<u64>,
        open: &BTreeMap<u64, Open>,
    ) -> Result<Vec<(Open, Option<u64>)>, Error> {
        let mut free: Vec<(u64, &Open)> = stale.iter().filter_map(|id| Some((*id, open.get(id)?))).collect();
        let mut opened: Vec<(Open, Option<u64>)> = Vec::new();
        for spec in specs {
            let same = free.iter().position(|(_, bridge)| bridge.spec().has_place_of(&spec));
            let predecessor = same.map(|at| free.remove(at));
            let bridge = match predecessor {
                Some((_, bridge)) => bridge.open_in_place(&self.0.common, spec),
                None => Open::new(&self.0.common, spec),
            };
            match bridge {
                Ok(bridge) => opened.push((bridge, predecessor.map(|(id, _)| id))),
                Err(error) => {
                    // Those in the place of others leave it to them; the sockets of the others end with them.
                    opened.into_iter().for_each(|(bridge, _)| bridge.replaced());
                    return Err(error);
                }
            }
        }
        Ok(opened)
    }

    /// Takes nothing new from the network; what is open stays until it ends.
    pub(crate) fn begin_drain(&self) {
        for bridge in self.0.open.borrow().values() {
            bridge.begin_drain();
        }
    }

    /// Completes when nothing is open any more; to be used after the drain began. Cancel safe.
    pub(crate) async fn deserted(&self) {
        poll_fn(|context| {
            let mut open = self.0.open.borrow_mut();
            open.retain(|_, bridge| bridge.poll_ended(context).is_pending());
            if open.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Sockets for Bridges {
    fn addresses(&self) -> Vec<ListenAddress> {
        self.0.open.borrow().values().filter_map(Open::listen_address).collect()
    }

    fn sockets(&self) -> Vec<HeldSocket> {
        self.0.open.borrow().values().flat_map(Open::sockets).collect()
    }
}

impl Bridge for Bridges {
    fn list(&self) -> Vec<Value> {
        self.0.open.borrow().iter().map(|(id, bridge)| bridge.row(*id)).collect()
    }

    fn expose(&self, specification: &str) -> Result<Value, Error> {
        let row = self.open(Spec::Expose(ExposeSpec::parse(specification.trim())?))?;
        tracing::info!(address = text(&row, "address"), "exposed {}", text(&row, "spec"));
        Ok(row)
    }

    fn forward(&self, specification: &str) -> Result<Value, Error> {
        let row = self.open(Spec::Forward(ForwardSpec::parse(specification.trim())?))?;
        tracing::info!("forwards {}", text(&row, "spec"));
        Ok(row)
    }

    /// Its connections are closed too.
    fn remove(&self, id: &str) -> Result<Value, Error> {
        let mut open = self.0.open.borrow_mut();
        let removed = id.trim().parse().ok().and_then(|id| Some((id, open.remove(&id)?)));
        let Some((id, bridge)) = removed else {
            let shown: String = id.trim().chars().take(40).flat_map(char::escape_debug).collect();
            let message = format!("there is no bridge \"{shown}\"");
            return Err(Error::new(ErrorCode::InvalidArgument, message)
                .with_hint("`ipc-cli bridge list` shows the bridges with their ids"));
        };
        let row = bridge.row(id);
        bridge.close();
        tracing::info!("removed {}", text(&row, "spec"));
        Ok(row)
    }
}

/// A field of a row as the log has it: without the quotes of JSON.
fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Whether that many bridges may be open.
fn check_count(count: usize, max: u32) -> Result<(), Error> {
    if count <= max as usize {
        return Ok(());
    }
    Err(Error::quota("bridges_max", max.into())
        .with_hint("remove one that is not used any more, or raise the limit in the configuration"))
}

/// Bytes of a program that knows no kinds: `text` where they are UTF-8, `bytes` where not.
fn plain_payload(body: Bytes) -> Payload {
    let kind = match core::str::from_utf8(&body) {
        Ok(_) => PayloadKind::Text,
        Err(_) => PayloadKind::Bytes,
    };
    Payload { kind, body }
}
