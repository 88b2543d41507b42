//! What a connection can ask for.

use core::fmt;

use ipc_core::name::{Filter, MethodName, ResourceName, ServiceName, TopicName};
use ipc_core::{Error, ErrorCode};

use super::verb::Verb;

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
    /// Watch names; what is told of them is what may be resolved.
    Watch,
    /// See what is not one's own: `peers`, `usage` or `sockets`.
    Monitor(&'a str),
    /// Have a method of `ipc.daemon` change what the daemon does.
    Administer(&'a str),
    /// Hold, await or observe a lock or another resource of that name, or a lease, which has none.
    Coordinate(Option<&'a ResourceName>),
}

impl Action<'_> {
    /// Whether it is the daemon's alone, whatever a policy says.
    pub(super) fn is_reserved(&self) -> bool {
        match self {
            Action::Own(name) => name.is_reserved(),
            Action::Publish(topic) => topic.is_reserved(),
            Action::Coordinate(name) => name.is_some_and(ResourceName::is_reserved),
            Action::Resolve(_)
            | Action::Call(..)
            | Action::Subscribe(_)
            | Action::Watch
            | Action::Monitor(_)
            | Action::Administer(_) => false,
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
            Action::Coordinate(Some(name)) => write!(f, "coordinate {name}"),
            Action::Coordinate(None) => f.write_str("take a lease"),
            Action::Monitor(what) => write!(f, "monitor {what}"),
            Action::Administer(method) => write!(f, "administer {method}"),
        }
    }
}

/// A question somebody writes: an action and what it is done with.
#[derive(Clone, Debug)]
pub struct Question(Asked);

#[derive(Clone, Debug)]
enum Asked {
    Own(ServiceName),
    Resolve(ServiceName),
    Call(ServiceName, MethodName),
    Publish(TopicName),
    Subscribe(Filter),
    Monitor(String),
    Administer(String),
    Coordinate(ResourceName),
}

impl Question {
    /// Reads an action, as rules have it, and one thing that it is done with: `call` and `demo.title/title`.
    ///
    /// # Errors
    /// `invalid_argument`.
    pub fn parse(action: &str, what: &str) -> Result<Self, Error> {
        let wrong = |message: &str| Error::new(ErrorCode::InvalidArgument, message);
        let verb = Verb::parse(action).ok_or_else(|| {
            wrong("there is no such action").with_hint(
                "ask for own, resolve, call, publish, subscribe, monitor, administer or coordinate",
            )
        })?;
        let word = || TopicName::parse(what).map(|name| name.as_str().to_owned());
        Ok(Self(match verb {
            Verb::Own => Asked::Own(ServiceName::parse(what)?),
            Verb::Resolve => Asked::Resolve(ServiceName::parse(what)?),
            Verb::Call => {
                let (service, method) = what.split_once('/').ok_or_else(|| {
                    wrong("what is called is a method of a service").with_hint("write SERVICE/METHOD")
                })?;
                Asked::Call(ServiceName::parse(service)?, MethodName::parse(method)?)
            }
            Verb::Publish => Asked::Publish(TopicName::parse(what)?),
            Verb::Subscribe => Asked::Subscribe(Filter::parse(what)?),
            Verb::Monitor => Asked::Monitor(word()?),
            Verb::Administer => Asked::Administer(word()?),
            Verb::Coordinate => Asked::Coordinate(ResourceName::parse(what)?),
        }))
    }

    pub(super) fn action(&self) -> Action<'_> {
        match &self.0 {
            Asked::Own(name) => Action::Own(name),
            Asked::Resolve(name) => Action::Resolve(name),
            Asked::Call(service, method) => Action::Call(service, method),
            Asked::Publish(topic) => Action::Publish(topic),
            Asked::Subscribe(filter) => Action::Subscribe(filter),
            Asked::Monitor(what) => Action::Monitor(what),
            Asked::Administer(method) => Action::Administer(method),
            Asked::Coordinate(name) => Action::Coordinate(Some(name)),
        }
    }
}
