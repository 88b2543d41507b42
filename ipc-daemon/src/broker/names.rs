//! Service names: who owns them, who shares them, who waits for them, who watches them.

use std::collections::{BTreeMap, VecDeque};

use ipc_core::name::{Filter, MethodName, ServiceName};
use ipc_core::wire::message::{NameChange, RegisterMode};
use ipc_core::{Error, ErrorCode, limits::Limits};
use slotmap::SlotMap;

use super::filters::FilterTree;
use super::keys::{PeerKey, ServiceKey};

/// A method, as its service describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Method {
    pub(super) name: MethodName,
    pub(super) description: String,
    /// Calls so far.
    pub(super) calls: u64,
}

/// One process that serves a name.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) peer: PeerKey,
    pub(super) registration: u32,
    /// Calls it has not answered yet.
    pub(super) outstanding: u32,
    /// Own number of each method of the service; `None` where it lacks one.
    methods: Vec<Option<u16>>,
}

/// One process that waits its turn.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) peer: PeerKey,
    pub(super) registration: u32,
    methods: Vec<Method>,
}

/// A name that is held.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: ServiceName,
    pub(super) mode: RegisterMode,
    pub(super) methods: Vec<Method>,
    pub(super) instances: Vec<Instance>,
    pub(super) waiting: VecDeque<Waiter>,
}

/// A process that asks for a name.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) name: ServiceName,
    pub(super) mode: RegisterMode,
    pub(super) queue: bool,
    pub(super) peer: PeerKey,
    pub(super) registration: u32,
    pub(super) methods: Vec<Method>,
}

/// Something that watchers hear about and, when a waiter's turn has come, the new owner too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) name: ServiceName,
    pub(super) change: NameChange,
    pub(super) peer: PeerKey,
    /// The registration whose turn has come.
    pub(super) acquired: Option<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Names {
    services: SlotMap<ServiceKey, Service>,
    by_name: BTreeMap<ServiceName, ServiceKey>,
    watches: BTreeMap<(PeerKey, u64), Filter>,
    /// The same by the names that they hear about.
    listening: FilterTree<(PeerKey, u64)>,
}

impl Names {
    /// The service and the number of its method.
    ///
    /// # Errors
    /// `no_such_service`, `no_such_method`.
    pub(super) fn resolve(
        &self,
        name: &ServiceName,
        method: &MethodName,
    ) -> Result<(ServiceKey, u16), Error> {
        let known = self.by_name.get(name).and_then(|key| Some((*key, self.services.get(*key)?)));
        let Some((key, service)) = known else {
            return Err(Error::new(ErrorCode::NoSuchService, format!("no service is called {name}"))
                .with_hint("`ipc-cli list services` shows what is there"));
        };
        let position = service.methods.iter().position(|known| known.name == *method);
        let served = |at: &usize| {
            service.instances.iter().any(|one| one.methods.get(*at).is_some_and(Option::is_some))
        };
        match position.filter(served) {
            Some(position) => Ok((key, position as u16)),
            None => Err(Error::new(ErrorCode::NoSuchMethod, format!("{name} has no method {method}"))
                .with_hint(format!("`ipc-cli describe {name}` shows its methods"))),
        }
    }

    /// The instance with the fewest open calls that offers the method, and its own number for it.
    pub(super) fn choose(&mut self, key: ServiceKey, method: u16) -> Option<(&mut Instance, u16)> {
        let service = self.services.get_mut(key)?;
        let at = usize::from(method);
        let offering = service.instances.iter_mut().filter_map(|instance| {
            let own = instance.methods.get(at).copied().flatten()?;
            Some((instance, own))
        });
        offering.min_by_key(|(instance, _)| instance.outstanding)
    }

    /// The name of a service and of one of its methods.
    pub(super) fn method(&self, key: ServiceKey, method: u16) -> Option<(&ServiceName, &MethodName)> {
        let service = self.services.get(key)?;
        Some((&service.name, &service.methods.get(usize::from(method))?.name))
    }

    /// The name of a tenure.
    pub(super) fn name(&self, key: ServiceKey) -> Option<&ServiceName> {
        self.services.get(key).map(|service| &service.name)
    }

    /// Whether that connection owns the name, or serves it with others.
    pub(super) fn is_served_by(&self, name: &ServiceName, peer: PeerKey) -> bool {
        let service = self.by_name.get(name).and_then(|key| self.services.get(*key));
        service.is_some_and(|service| service.instances.iter().any(|instance| instance.peer == peer))
    }

    /// Counts a call of a method.
    pub(super) fn count_call(&mut self, key: ServiceKey, method: u16) {
        let service = self.services.get_mut(key);
        if let Some(method) = service.and_then(|service| service.methods.get_mut(usize::from(method))) {
            method.calls += 1;
        }
    }

    /// A call was handed to that registration.
    pub(super) fn engage(&mut self, key: ServiceKey, peer: PeerKey, registration: u32) {
        if let Some(instance) = self.instance(key, peer, registration) {
            instance.outstanding += 1;
        }
    }

    fn instance(&mut self, key: ServiceKey, peer: PeerKey, registration: u32) -> Option<&mut Instance> {
        let service = self.services.get_mut(key)?;
        service.instances.iter_mut().find(|one| one.peer == peer && one.registration == registration)
    }

    /// A call of that registration has ended.
    pub(super) fn settle(&mut self, key: ServiceKey, peer: PeerKey, registration: u32) {
        if let Some(instance) = self.instance(key, peer, registration) {
            instance.outstanding = instance.outstanding.saturating_sub(1);
        }
    }

    /// Gives the name to the claimant, or puts it in the queue. Says whether it waits, and what changed.
    ///
    /// # Errors
    /// `name_taken`, `conflict`, `quota_exceeded`.
    pub(super) fn register(
        &mut self,
        claim: Claim,
        limits: &Limits,
    ) -> Result<(bool, Option<Change>), Error> {
        let Some(key) = self.by_name.get(&claim.name).copied() else {
            return Ok((false, Some(self.begin_tenure(claim, VecDeque::new(), None))));
        };
        let Some(service) = self.services.get_mut(key) else {
            return Err(Error::new(ErrorCode::NameTaken, format!("{} is changing hands", claim.name)));
        };
        let is_there = service.instances.iter().any(|instance| instance.peer == claim.peer)
            || service.waiting.iter().any(|waiter| waiter.peer == claim.peer);
        if is_there {
            let message = format!("this connection has registered {} already", claim.name);
            return Err(Error::new(ErrorCode::Conflict, message));
        }
        match (service.mode, claim.mode) {
            (RegisterMode::Group, RegisterMode::Group) => {
                let max = limits.instances_per_service_max;
                if service.instances.len() >= max as usize {
                    return Err(Error::quota("instances_per_service_max", max.into()));
                }
                let change = service.join(claim)?;
                Ok((false, Some(change)))
            }
            (RegisterMode::Exclusive, RegisterMode::Exclusive) if claim.queue => {
                let max = limits.waiters_per_name_max;
                if service.waiting.len() >= max as usize {
                    return Err(Error::quota("waiters_per_name_max", max.into()));
                }
                let Claim { peer, registration, methods, .. } = claim;
                service.waiting.push_back(Waiter { peer, registration, methods });
                Ok((true, None))
            }
            (held, _) => Err(taken(&claim.name, held)),
        }
    }

    fn begin_tenure(&mut self, claim: Claim, waiting: VecDeque<Waiter>, acquired: Option<u32>) -> Change {
        let instance = Instance {
            peer: claim.peer,
            registration: claim.registration,
            outstanding: 0,
            methods: (0..claim.methods.len()).map(|at| Some(at as u16)).collect(),
        };
        let change =
            Change { name: claim.name.clone(), change: NameChange::Acquired, peer: claim.peer, acquired };
        let key = self.services.insert(Service {
            name: claim.name.clone(),
            mode: claim.mode,
            methods: claim.methods,
            instances: vec![instance],
            waiting,
        });
        self.by_name.insert(claim.name, key);
        change
    }

    /// Takes a registration back and lets the next waiter have its turn. Says what changed, in order.
    pub(super) fn unregister(&mut self, name: &ServiceName, peer: PeerKey, registration: u32) -> Vec<Change> {
        let Some(key) = self.by_name.get(name).copied() else { return Vec::new() };
        let Some(service) = self.services.get_mut(key) else { return Vec::new() };
        service.waiting.retain(|waiter| (waiter.peer, waiter.registration) != (peer, registration));
        let is_it = |one: &Instance| (one.peer, one.registration) == (peer, registration);
        let Some(position) = service.instances.iter().position(is_it) else { return Vec::new() };
        service.instances.remove(position);
        let change = |change| Change { name: name.clone(), change, peer, acquired: None };
        if !service.instances.is_empty() {
            return vec![change(NameChange::InstanceRemoved)];
        }
        let mut changes = vec![change(NameChange::Lost)];
        self.by_name.remove(name);
        if let Some(Service { mode, mut waiting, .. }) = self.services.remove(key)
            && let Some(next) = waiting.pop_front()
        {
            let Waiter { peer, registration, methods } = next;
            let claim = Claim { name: name.clone(), mode, queue: true, peer, registration, methods };
            changes.push(self.begin_tenure(claim, waiting, Some(registration)));
        }
        changes
    }

    /// Notes a watch and gives the names that are held, as if they had just been acquired.
    pub(super) fn watch(&mut self, peer: PeerKey, id: u64, filter: Filter) -> Vec<Change> {
        let services = self.by_name.values().filter_map(|key| self.services.get(*key));
        let mut present = Vec::new();
        for service in services.filter(|service| filter.matches(service.name.as_str())) {
            for (position, instance) in service.instances.iter().enumerate() {
                let change = if position == 0 { NameChange::Acquired } else { NameChange::InstanceAdded };
                present.push(Change {
                    name: service.name.clone(),
                    change,
                    peer: instance.peer,
                    acquired: None,
                });
            }
        }
        self.listening.insert(filter.as_str(), (peer, id));
        self.watches.insert((peer, id), filter);
        present
    }

    pub(super) fn unwatch(&mut self, peer: PeerKey, id: u64) -> bool {
        let Some(filter) = self.watches.remove(&(peer, id)) else { return false };
        self.listening.remove(filter.as_str(), (peer, id));
        true
    }

    /// Who hears about `name`, in a fixed order.
    pub(super) fn watchers(&self, name: &ServiceName) -> Vec<(PeerKey, u64)> {
        let mut heard = Vec::new();
        self.listening.find(name.as_str(), &mut heard);
        heard.sort_unstable();
        heard
    }

    /// Every name that is held, in order.
    pub(super) fn services(&self) -> impl Iterator<Item = &Service> {
        self.by_name.values().filter_map(|key| self.services.get(*key))
    }
}

impl Service {
    /// Another instance of a group. Methods that are new to the group are added to it.
    fn join(&mut self, claim: Claim) -> Result<Change, Error> {
        let unknown =
            claim.methods.iter().filter(|own| !self.methods.iter().any(|known| known.name == own.name));
        let max = ipc_core::limits::METHODS_PER_SERVICE_MAX;
        let unknown: Vec<Method> = unknown.cloned().collect();
        if self.methods.len() + unknown.len() > max {
            return Err(Error::quota("methods_per_service_max", max as u64));
        }
        self.methods.extend(unknown);
        let number_of = |known: &Method| claim.methods.iter().position(|own| own.name == known.name);
        let methods = self.methods.iter().map(|known| number_of(known).map(|at| at as u16)).collect();
        let Claim { name, peer, registration, .. } = claim;
        self.instances.push(Instance { peer, registration, outstanding: 0, methods });
        Ok(Change { name, change: NameChange::InstanceAdded, peer, acquired: None })
    }
}

fn taken(name: &ServiceName, held: RegisterMode) -> Error {
    let (how, hint) = match held {
        RegisterMode::Exclusive => ("exclusively", "ask to queue for it, or stop its owner"),
        RegisterMode::Group => ("by a group", "register as a group too"),
    };
    Error::new(ErrorCode::NameTaken, format!("{name} is held {how} by another connection")).with_hint(hint)
}
