//! The service `ipc.daemon` itself.
//!
//! Its requests run as tasks, so that one that has to wait holds up neither the bus nor the others.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;

use ipc_core::id::PeerId;
use ipc_core::identity::Identity;
use ipc_core::name::{MethodName, ServiceName};
use ipc_core::payload::Payload;
use ipc_core::session::{Incoming, Offer, OfferedMethod};
use ipc_core::transport::clock;
use ipc_core::wire::message::RegisterMode;
use ipc_core::{Error, ErrorCode};
use serde_json::Value;
use tokio::task::spawn_local;

use super::backup;
use super::explain;
use super::method::Method;
use super::metrics;
use super::process::Processes;
use super::report::{self, Inventory, Kinds, status};
use super::{Bridge, Facts, Sockets, sockets};
use crate::broker::ledger::Ledger;
use crate::broker::{Access, PeerKey, Transport};
use crate::bus::Bus;
use crate::bus::service::{Request, Service};

const SERVICE: &str = "ipc.daemon";
/// Requests worked on at a time; no user has more of them than are left, unless no other is connected.
const REQUESTS_MAX: u64 = 64;
/// Rows of a list, some 2.5 us each, before others have their turn.
const ROWS_AT_A_TIME: usize = 4;

/// Registers `ipc.daemon` and serves it for as long as the bus runs.
///
/// # Errors
/// What kept it from connecting or from being registered; nothing that a peer can cause.
pub(crate) fn start(
    bus: &Bus,
    facts: Facts,
    parts: Vec<Rc<dyn Sockets>>,
    bridge: Rc<dyn Bridge>,
) -> Result<(), Error> {
    let admin = Rc::new(Admin {
        bus: bus.clone(),
        service: Service::register(bus, Transport::Internal, Access::Granted, offer()?)?,
        facts,
        parts,
        bridge,
        processes: Processes::default(),
        open: RefCell::default(),
    });
    drop(spawn_local(admin.run()));
    Ok(())
}

fn offer() -> Result<Offer, Error> {
    let offered = Method::ALL.iter().map(|method| {
        let name = MethodName::parse(method.name())?;
        Ok(OfferedMethod { name, description: method.description().to_owned() })
    });
    Ok(Offer {
        service: ServiceName::parse(SERVICE)?,
        mode: RegisterMode::Exclusive,
        queue: false,
        methods: offered.collect::<Result<_, Error>>()?,
    })
}

/// The service, shared by its tasks.
struct Admin {
    bus: Bus,
    service: Service,
    facts: Facts,
    parts: Vec<Rc<dyn Sockets>>,
    bridge: Rc<dyn Bridge>,
    processes: Processes,
    /// Requests that are worked on.
    open: RefCell<Ledger<Option<u32>>>,
}

impl Admin {
    /// Starts requests until the bus closes the connection.
    async fn run(self: Rc<Self>) {
        while let Some(request) = poll_fn(|context| self.service.poll_next(context)).await {
            match request {
                Request::Call(call) => drop(spawn_local(Rc::clone(&self).serve(call))),
                // A request whose caller has gone is answered to nobody.
                Request::Cancelled(_) => {}
            }
        }
    }

    async fn serve(self: Rc<Self>, call: Incoming) {
        let user = match call.sender.identity {
            Identity::Local { uid, .. } => Some(uid),
            Identity::Remote { .. } => None,
        };
        let is_alone = !self.bus.are_turns_shared();
        let standing = self.open.borrow().standing(user);
        let outcome = match standing.check(1, "requests of ipc.daemon", REQUESTS_MAX, is_alone) {
            Ok(()) => {
                self.open.borrow_mut().add(user, 1);
                // A list of a large bus takes its time.
                self.bus.pass(self.caller(&call)).await;
                let outcome = self.answer(&call).await;
                self.open.borrow_mut().remove(user, 1);
                outcome
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &outcome
            && error.code == ErrorCode::PermissionDenied
        {
            self.bus.turn(|broker, _| broker.note_denied(call.sender.id, error));
        }
        self.service.reply(call.key, outcome);
    }

    async fn answer(&self, call: &Incoming) -> Result<Payload, Error> {
        let method = Method::ALL.get(call.method).copied().ok_or_else(|| {
            Error::new(ErrorCode::NoSuchMethod, format!("{SERVICE} has no method number {}", call.method))
        })?;
        if let Some(what) = method.monitors() {
            self.bus.look(|broker| broker.view(call.sender.id).check_monitor(what))?;
        }
        if method.is_administrative() {
            self.bus.look(|broker| broker.view(call.sender.id).check_administer(method.name()))?;
        }
        let argument = call.payload.as_text().map_err(|error| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("{} of {SERVICE}: {}", method.name(), error.message),
            )
        })?;
        let argument = argument.trim();
        let viewer = call.sender.id;
        let answer = match method {
            Method::Status => Ok(self.status(viewer)),
            Method::List => {
                let kinds = Kinds::parse(argument)?;
                let now = clock::now();
                let inventory = self.bus.look(|broker| Inventory::take(&broker.view(viewer), kinds, now));
                self.bus.turn(|broker, _| broker.listed(viewer, inventory.len()));
                let names = self.processes.names(clock::now(), inventory.pids()).await;
                return Ok(Payload::json(self.list(inventory.rows(&names), self.caller(call)).await));
            }
            Method::Describe => {
                let inventory =
                    self.bus.look(|broker| Inventory::of_service(&broker.view(viewer), argument))?;
                Ok(inventory.description(&self.processes.names(clock::now(), inventory.pids()).await))
            }
            Method::Sockets => Ok(sockets::rows(&self.bus, &self.parts().collect::<Vec<_>>()).await),
            Method::Metrics => return Ok(Payload::text(self.metrics(viewer))),
            Method::Quota => Ok(self.bus.look(|broker| report::quota(&broker.view(viewer)))),
            Method::Backup => backup::make(&self.bus, &call.sender, argument).await,
            Method::BridgeList => Ok(self.bridge.list().into()),
            Method::BridgeExpose => self.bridge.expose(argument),
            Method::BridgeForward => self.bridge.forward(argument),
            Method::BridgeRemove => self.bridge.remove(argument),
            Method::PolicyExplain => {
                let question = explain::read(argument).await?;
                self.bus.look(|broker| explain::answer(broker, &call.sender, &question))
            }
        }?;
        Ok(Payload::json(answer.to_string()))
    }

    fn caller(&self, call: &Incoming) -> Option<PeerKey> {
        self.bus.look(|broker| broker.peer_of(call.sender.id))
    }

    /// As JSON. While several take turns, only some of the rows at a time.
    async fn list(&self, rows: impl Iterator<Item = Value>, caller: Option<PeerKey>) -> String {
        let mut text = String::from("[");
        for (at, row) in rows.enumerate() {
            if at > 0 {
                text.push(',');
            }
            if at % ROWS_AT_A_TIME == ROWS_AT_A_TIME - 1 {
                self.bus.pass(caller).await;
            }
            text.push_str(&row.to_string());
        }
        text.push(']');
        text
    }

    fn metrics(&self, viewer: PeerId) -> String {
        let status = self.bus.look(|broker| broker.view(viewer).status());
        metrics::page(&status, &self.bus.tally().by_name(), clock::now() - self.facts.started)
    }

    /// Everything that has sockets beside the bus itself.
    fn parts(&self) -> impl Iterator<Item = &dyn Sockets> {
        let bridge: &dyn Sockets = &*self.bridge;
        self.parts.iter().map(|part| &**part).chain([bridge])
    }

    fn status(&self, viewer: PeerId) -> Value {
        let addresses = self.parts().flat_map(Sockets::addresses).collect();
        let broker = self.bus.look(|broker| broker.view(viewer).status());
        status(&self.facts, addresses, &broker, &self.bus.tally().by_name(), clock::now())
    }
}
