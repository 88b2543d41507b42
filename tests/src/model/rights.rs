//! Who may do what in these worlds: users everything but what one of the [`REIGNS`] denies them, a client of an exposed port one
//! method, and an anonymous peer over TCP what is listed in [`ANONYMOUS`].

use ipc_core::error::ErrorCode;
use ipc_core::identity::Identity;
use ipc_daemon::broker::{Grant, Policy, Rule};

use super::expect::Refusal;
use super::{Model, filter};
use crate::users::FewUsers;

/// What anonymous network peers may do, as `[remote] allow` would have it.
const ANONYMOUS: [&str; 4] = ["call a.b", "call b.c/m0", "publish a.>", "subscribe a.*"];

/// What is denied to whom, as gid, verb and name; the rules change from one of these to another while the daemon runs. Clients
/// are told apart by their group, which no sender of datagrams is in.
pub const REIGNS: [&[(u32, &str, &str)]; 4] = [
    &[],
    &[(101, "call", "a.b"), (103, "publish", "a.c"), (104, "coordinate", "a.b"), (105, "own", "a.c")],
    &[(101, "coordinate", "c.d"), (102, "subscribe", "b.c"), (103, "own", "a.b"), (104, "call", "b.c")],
    &[(102, "coordinate", "a"), (103, "coordinate", "a.b"), (104, "publish", "a.b.c"), (105, "call", "a")],
];

/// The policy of one of them.
///
/// # Panics
/// When the broker does not understand it.
pub fn policy(reign: usize) -> Policy {
    let denied = REIGNS[reign].iter().map(|(gid, verb, name)| format!("deny gid:{gid} {verb} {name}"));
    let rules = denied.chain(["allow anyone * >".to_owned()]).enumerate();
    let rules = rules.map(|(at, text)| Rule::parse(&text, at as u32 + 1, &FewUsers).expect("a rule"));
    let grants = ANONYMOUS.iter().map(|grant| Grant::parse_anonymous(grant).expect("a grant"));
    Policy::new(rules.collect(), grants.collect())
}

/// What a connection wants to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wish<'a> {
    /// Call that method of that service.
    Call(&'a str, &'a str),
    /// Publish on that topic.
    Publish(&'a str),
    /// Subscribe to all that this filter lets through.
    Subscribe(&'a str),
    /// Own that name.
    Own(&'a str),
    /// Have to do with the lock, semaphore, election or barrier of that name, or with any.
    Coordinate(Option<&'a str>),
    /// Anything else that no network peer may do.
    Other,
}

impl Model {
    /// Whether a connection may do that.
    pub(super) fn may(&self, from: usize, wish: Wish<'_>) -> Result<(), Refusal> {
        let Some(connection) = self.connections.get(&from) else { return Ok(()) };
        let is_allowed = match &connection.only {
            Some((service, method)) => {
                matches!(wish, Wish::Call(wanted, called) if wanted == service && called == method)
            }
            None if connection.is_tcp => is_listed(wish),
            None => !self.is_denied(&connection.identity, wish),
        };
        if is_allowed { Ok(()) } else { Err(Refusal::of(ErrorCode::PermissionDenied)) }
    }
}

impl Model {
    fn is_denied(&self, identity: &Identity, wish: Wish<'_>) -> bool {
        let Identity::Local { gid, .. } = identity else { return false };
        let mut denied = REIGNS[self.reign].iter().filter(|(denied, ..)| denied == gid);
        denied.any(|(_, verb, name)| match wish {
            Wish::Call(service, _) => *verb == "call" && service == *name,
            Wish::Publish(topic) => *verb == "publish" && topic == *name,
            Wish::Subscribe(asked) => *verb == "subscribe" && filter::passes(asked, name),
            Wish::Own(service) => *verb == "own" && service == *name,
            // Whoever wants to have to do with any must not be kept from one.
            Wish::Coordinate(asked) => {
                *verb == "coordinate" && asked.is_none_or(|asked| asked.replace('/', ".") == *name)
            }
            Wish::Other => false,
        })
    }
}

/// Whether [`ANONYMOUS`] has it, in other words than the broker's.
fn is_listed(wish: Wish<'_>) -> bool {
    match wish {
        Wish::Call(service, method) => service == "a.b" || (service, method) == ("b.c", "m0"),
        Wish::Publish(topic) => topic.starts_with("a."),
        Wish::Subscribe(asked) => {
            let mut passed = names().into_iter().filter(|name| filter::passes(asked, name));
            passed.all(|name| filter::passes("a.*", &name))
        }
        Wish::Own(_) | Wish::Coordinate(_) | Wish::Other => false,
    }
}

/// Names of up to three parts, enough to tell filters apart.
fn names() -> Vec<String> {
    let parts = ["a", "b", "c", "x"];
    let longer = |names: &[String]| -> Vec<String> {
        names.iter().flat_map(|name| parts.map(|part| format!("{name}.{part}"))).collect()
    };
    let one: Vec<String> = parts.map(str::to_owned).into();
    let two = longer(&one);
    let three = longer(&two);
    [one, two, three].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_listed_when_all_that_it_lets_through_is() {
        for (filter, expected) in
            [("a.b", true), ("a.*", true), ("a", false), ("a.>", false), ("*.b", false), (">", false)]
        {
            assert_eq!(is_listed(Wish::Subscribe(filter)), expected, "{filter}");
        }
    }
}
