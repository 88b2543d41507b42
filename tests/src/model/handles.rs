//! Handles that clients bind to methods and topics.

use ipc_core::error::ErrorCode;
use ipc_core::wire::message::{OpenTopic, Resolve};

use super::expect::{Answer, Refusal};
use super::rights::Wish;
use super::{Model, filter};
use crate::world::Seen;

/// What a handle stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A method of one tenure of a service.
    Method { tenure: u64, service: String, method: String },
    /// A topic.
    Topic { name: String },
    /// Binding it was refused.
    Failed(ErrorCode),
}

impl Model {
    /// What the handle in a frame stands for.
    pub(super) fn target(&self, from: usize, seen: &Seen) -> Option<&Target> {
        let handle = seen.header.handle;
        let (generation, target) = self.connections.get(&from)?.handles.get(&handle.index)?;
        if *generation == handle.generation { Some(target) } else { None }
    }

    /// Binds the handle in a frame, or frees it; the topic that it stood for loses a publisher.
    fn bind(&mut self, from: usize, seen: &Seen, target: Option<Target>) {
        let handle = seen.header.handle;
        let Some(connection) = self.connections.get_mut(&from) else { return };
        let before = match target {
            Some(target) => connection.handles.insert(handle.index, (handle.generation, target)),
            None => connection.handles.remove(&handle.index),
        };
        if let Some((_, Target::Topic { name })) = before {
            self.lose_publisher(&name);
        }
    }

    fn check_handle(&self, seen: &Seen) -> Result<(), Refusal> {
        let max = self.limits.handles_per_connection_max;
        if seen.header.handle.index < max {
            Ok(())
        } else {
            Err(Refusal::quota("handles_per_connection_max", max))
        }
    }

    pub(super) fn resolve(&mut self, from: usize, seen: &Seen) -> bool {
        let Some(body) = seen.decode::<Resolve>() else { return false };
        let (service, method) = (body.service.0, body.method.0);
        let result = self.check_handle(seen).and_then(|()| {
            let found = self.find_method(from, &service, &method);
            let target = match &found {
                Ok(tenure) => Target::Method { tenure: *tenure, service, method },
                Err(refusal) => Target::Failed(refusal.code),
            };
            self.bind(from, seen, Some(target));
            found.map(|_| Answer::Ok)
        });
        self.conclude(from, seen.header.correlation, result);
        true
    }

    fn find_method(&self, from: usize, service: &str, method: &str) -> Result<u64, Refusal> {
        if !filter::is_name(service) || !filter::is_method(method) {
            return Err(Refusal::of(ErrorCode::InvalidArgument));
        }
        self.may(from, Wish::Call(service, method))?;
        let Some(known) = self.services.get(service) else {
            return Err(Refusal::of(ErrorCode::NoSuchService));
        };
        let offers = known.instances.iter().any(|instance| instance.methods.iter().any(|own| own == method));
        if offers { Ok(known.tenure) } else { Err(Refusal::of(ErrorCode::NoSuchMethod)) }
    }

    pub(super) fn open_topic(&mut self, from: usize, seen: &Seen) -> bool {
        let Some(body) = seen.decode::<OpenTopic>() else { return false };
        let name = body.topic.0;
        let result = self.check_handle(seen).and_then(|()| {
            let opened = self.find_topic(from, &name);
            let target = match &opened {
                Ok(()) => Target::Topic { name },
                Err(refusal) => Target::Failed(refusal.code),
            };
            self.bind(from, seen, Some(target));
            opened.map(|()| Answer::Ok)
        });
        self.conclude(from, seen.header.correlation, result);
        true
    }

    fn find_topic(&mut self, from: usize, name: &str) -> Result<(), Refusal> {
        if !filter::is_name(name) {
            return Err(Refusal::of(ErrorCode::InvalidArgument));
        }
        self.may(from, Wish::Publish(name))?;
        if name == "ipc" || name.starts_with("ipc.") {
            return Err(Refusal::of(ErrorCode::PermissionDenied));
        }
        self.gain_publisher(from, name)
    }

    pub(super) fn release(&mut self, from: usize, seen: &Seen) {
        if self.target(from, seen).is_some() {
            self.bind(from, seen, None);
        }
    }

    /// Frees all handles of a connection.
    pub(super) fn drop_handles(&mut self, number: usize) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        for (_, target) in core::mem::take(&mut connection.handles).into_values() {
            if let Target::Topic { name } = target {
                self.lose_publisher(&name);
            }
        }
    }

    /// Handles of a connection that stand for methods of services that are there.
    pub fn method_handles(&self, number: usize) -> Vec<u32> {
        self.handles_where(number, |target| match target {
            Target::Method { tenure, service, .. } => {
                self.services.get(service).is_some_and(|service| service.tenure == *tenure)
            }
            Target::Topic { .. } | Target::Failed(_) => false,
        })
    }

    /// Handles of a connection that stand for topics.
    pub fn topic_handles(&self, number: usize) -> Vec<u32> {
        self.handles_where(number, |target| matches!(target, Target::Topic { .. }))
    }

    fn handles_where(&self, number: usize, wanted: impl Fn(&Target) -> bool) -> Vec<u32> {
        let handles = self.connections.get(&number).map(|connection| &connection.handles);
        let found = handles.into_iter().flatten().filter(|(_, (_, target))| wanted(target));
        found.map(|(index, _)| *index).collect()
    }

    /// Whether somebody holds that name.
    pub fn has_service(&self, name: &str) -> bool {
        self.services.contains_key(name)
    }
}
