//! What a connection can ask for.

use core::fmt;

use ipc_core::name::{Filter, MethodName, ServiceName, TopicName};

/// Something a connection asks for.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) enum Action<'a> {
    /// Own a name.
    Own(&'a ServiceName),
    /// Learn that a service is there.
    Resolve(&'a ServiceName),
    /// Bind a handle to a method, and call it.
    Call(&'a ServiceName, &'a MethodName),
    /// Publish on a topic.
    Publish(&'a TopicName),
    /// Get the events of every topic that passes a filter.
    Subscribe(&'a Filter),
    /// Watch names.
    Watch,
}

impl Action<'_> {
    /// Whether it is the daemon's alone, whatever a policy says.
    pub(super) fn is_reserved(&self) -> bool {
        match self {
            Action::Own(name) => name.is_reserved(),
            Action::Publish(topic) => topic.is_reserved(),
            Action::Resolve(_) | Action::Call(..) | Action::Subscribe(_) | Action::Watch => false,
        }
    }
}

impl fmt::Display for Action<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Own(name) => write!(f, "own {name}"),
            Action::Resolve(name) => write!(f, "resolve {name}"),
            Action::Call(service, method) => write!(f, "call {service}/{method}"),
            Action::Publish(topic) => write!(f, "publish {topic}"),
            Action::Subscribe(filter) => write!(f, "subscribe {filter}"),
            Action::Watch => f.write_str("watch names"),
        }
    }
}
