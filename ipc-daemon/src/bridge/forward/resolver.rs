//! The addresses of a server, looked up where it does not hold up the bus.
//!
//! A look-up cannot be taken back once it has begun, so there is at most one for each forward: whoever wants to know waits
//! for the one that is under way.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::sync::watch;
use tokio::task::spawn_local;

use crate::bridge::spec::forward::Host;

/// Most addresses that are tried.
const ADDRESSES_MAX: usize = 16;

/// What a look-up gave: addresses, or why there are none.
type Found = Result<Vec<SocketAddr>, String>;

/// Knows the name of a server.
pub(super) struct Resolver {
    host: Host,
    port: u16,
    running: RefCell<Option<watch::Receiver<Option<Found>>>>,
}

impl Resolver {
    /// A resolver for a host and a port.
    pub(super) fn new(host: Host, port: u16) -> Rc<Self> {
        Rc::new(Self { host, port, running: RefCell::new(None) })
    }

    /// The addresses of the server, in the order of the system's choice. Cancel safe.
    pub(super) async fn addresses(self: &Rc<Self>) -> Found {
        let name = match &self.host {
            Host::Address(address) => return Ok(vec![SocketAddr::new(*address, self.port)]),
            Host::Name(name) => name,
        };
        let mut found = self.running.borrow_mut().get_or_insert_with(|| self.look_up(name.clone())).clone();
        match found.wait_for(Option::is_some).await {
            Ok(found) => found.clone().unwrap_or_else(|| Ok(Vec::new())),
            Err(_) => Err("the look-up was interrupted".to_owned()),
        }
    }

    fn look_up(self: &Rc<Self>, name: String) -> watch::Receiver<Option<Found>> {
        let (result, found) = watch::channel(None);
        let this = Rc::clone(self);
        drop(spawn_local(async move {
            let addresses = match tokio::net::lookup_host((name, this.port)).await {
                Ok(addresses) => Ok(without_doubles(addresses)),
                Err(error) => Err(error.to_string()),
            };
            this.running.take();
            result.send_replace(Some(addresses));
        }));
        found
    }
}

fn without_doubles(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for address in addresses {
        if !found.contains(&address) && found.len() < ADDRESSES_MAX {
            found.push(address);
        }
    }
    found
}
