//! A bridge that is open, of whatever kind.

use std::rc::Rc;
use std::task::{Context, Poll};

use ipc_core::Error;
use serde_json::{Value, json};

use super::spec::Spec;
use super::spec::expose::{Door, ExposeSpec};
use super::unread::Unread;
use super::{expose_tcp, expose_udp, forward};
use crate::admin::{HeldSocket, ListenAddress};
use crate::bus::Bus;

/// What all bridges have in common.
pub(super) struct Common {
    pub(super) bus: Bus,
    /// What the clients of all exposed TCP ports have not read yet.
    pub(super) unread: Rc<Unread>,
}

/// An open bridge. To be [closed](Open::close) or [replaced](Open::replaced).
pub(super) enum Open {
    ExposeTcp(expose_tcp::OpenPort),
    ExposeUdp(expose_udp::OpenPort),
    Forward(forward::OpenForward),
}

impl Open {
    /// Opens a bridge.
    ///
    /// # Errors
    /// When the system does not give the port, or the bus not the name.
    pub(super) fn new(common: &Common, spec: Spec) -> Result<Self, Error> {
        let Common { bus, unread } = common;
        match spec {
            Spec::Expose(spec) => match spec.door {
                Door::Tcp(door) => {
                    expose_tcp::OpenPort::open(bus, spec, door, Rc::clone(unread)).map(Open::ExposeTcp)
                }
                Door::Udp => expose_udp::OpenPort::open(bus, spec).map(Open::ExposeUdp),
            },
            Spec::Forward(spec) => forward::OpenForward::open(bus, spec).map(Open::Forward),
        }
    }

    /// Opens a bridge in the place of this one, which is to be [replaced](Open::replaced) then: its address or its name
    /// goes over without a moment in which somebody else could take it.
    ///
    /// # Errors
    /// As for [`new`](Open::new).
    pub(super) fn open_in_place(&self, common: &Common, spec: Spec) -> Result<Self, Error> {
        match (self, spec) {
            (Open::ExposeTcp(port), Spec::Expose(spec @ ExposeSpec { door: Door::Tcp(door), .. })) => {
                port.open_in_place(spec, door).map(Open::ExposeTcp)
            }
            (Open::ExposeUdp(port), Spec::Expose(spec @ ExposeSpec { door: Door::Udp, .. })) => {
                port.open_in_place(spec).map(Open::ExposeUdp)
            }
            (Open::Forward(forward), Spec::Forward(spec)) => forward.open_in_place(spec).map(Open::Forward),
            (Open::ExposeTcp(_) | Open::ExposeUdp(_) | Open::Forward(_), spec) => Self::new(common, spec),
        }
    }

    /// How it was written.
    pub(super) fn spec(&self) -> Spec {
        match self {
            Open::ExposeTcp(port) => Spec::Expose(port.spec().clone()),
            Open::ExposeUdp(port) => Spec::Expose(port.spec().clone()),
            Open::Forward(forward) => Spec::Forward(forward.spec().clone()),
        }
    }

    /// Ends it, with everything that goes through it.
    pub(super) fn close(self) {
        match self {
            Open::ExposeTcp(port) => port.close(),
            Open::ExposeUdp(port) => port.close(),
            Open::Forward(forward) => forward.close(),
        }
    }

    /// Ends it; its place is another's.
    pub(super) fn replaced(self) {
        match self {
            Open::ExposeTcp(port) => port.replaced(),
            Open::ExposeUdp(port) => port.close(),
            Open::Forward(forward) => forward.close(),
        }
    }

    /// Takes nothing new from the network.
    pub(super) fn begin_drain(&self) {
        match self {
            Open::ExposeTcp(port) => port.begin_drain(),
            Open::ExposeUdp(port) => port.begin_drain(),
            // The bus gives it no more calls, and closes it when it has answered those that are open.
            Open::Forward(_) => {}
        }
    }

    /// Whether the drain is over.
    pub(super) fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Open::ExposeTcp(port) => port.poll_ended(context),
            Open::ExposeUdp(port) => port.poll_ended(context),
            Open::Forward(forward) => forward.poll_ended(context),
        }
    }

    /// Where it listens, if it does.
    pub(super) fn listen_address(&self) -> Option<ListenAddress> {
        let address = match self {
            Open::ExposeTcp(port) => port.address(),
            Open::ExposeUdp(port) => port.address(),
            Open::Forward(_) => return None,
        };
        Some(ListenAddress { kind: self.kind(), address: address.to_string() })
    }

    /// Every socket it holds.
    pub(super) fn sockets(&self) -> Vec<HeldSocket> {
        match self {
            Open::ExposeTcp(port) => port.sockets(),
            Open::ExposeUdp(port) => port.sockets(),
            Open::Forward(forward) => forward.sockets(),
        }
    }

    /// The word for what it is.
    fn kind(&self) -> &'static str {
        match self {
            Open::ExposeTcp(_) => "expose_tcp",
            Open::ExposeUdp(_) => "expose_udp",
            Open::Forward(forward) => forward.kind(),
        }
    }

    /// What is shown of it: what it is, and its live figures.
    pub(super) fn row(&self, id: u64) -> Value {
        let (figures, address) = match self {
            Open::ExposeTcp(port) => (port.row(), port.address().to_string()),
            Open::ExposeUdp(port) => (port.row(), port.address().to_string()),
            Open::Forward(forward) => (forward.row(), forward.spec().address()),
        };
        let spec = self.spec();
        let mut row = json!({
            "id": id,
            "kind": self.kind(),
            "spec": spec.to_string(),
            "service": spec.service().as_str(),
            "method": spec.method(),
            "address": address,
        });
        if let (Value::Object(row), Value::Object(figures)) = (&mut row, figures) {
            row.extend(figures);
        }
        row
    }
}
