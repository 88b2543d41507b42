//! PURE. Who may do what.
//!
//! A connection is accepted with an [`Access`]: either the one method that an exposed port grants, or whatever the
//! [`Policy`] grants to the identity that was verified when it was accepted. The policy is asked when something is bound
//! or asked for (a handle, a name, a subscription), never for a call or an event that goes over a handle.
//!
//! A door hands over the identity it has verified and [`Access::Granted`], and is done: a process of this machine is let
//! in and out by what the policy says of its user, `Remote{anonymous}` by what `[remote] allow` lists. An anonymous
//! network peer never owns a name, watches names, or sees other connections, whatever is listed.

mod action;
mod grant;

use ipc_core::identity::Identity;
use ipc_core::{Error, ErrorCode};

pub(super) use self::action::Action;
pub use self::grant::Grant;
use super::event::{Access, Transport};

/// What the network's peers may do, and the users of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What a network peer may do that has proved nothing.
    anonymous: Vec<Grant>,
}

impl Policy {
    /// Whoever is let in as a user of this machine may do everything; an anonymous network peer what is listed.
    pub fn new(anonymous: Vec<Grant>) -> Self {
        Self { anonymous }
    }

    /// Users of this machine may do everything, and the network nothing.
    pub fn open() -> Self {
        Self::new(Vec::new())
    }

    /// Whether the connection may do it.
    ///
    /// # Errors
    /// `permission_denied`, saying what was missing.
    pub(super) fn check(
        &self,
        access: &Access,
        identity: &Identity,
        transport: Transport,
        action: &Action<'_>,
    ) -> Result<(), Error> {
        if transport == Transport::Internal {
            return Ok(());
        }
        let missing = match (access, identity) {
            _ if action.is_reserved() => format!("what begins with \"ipc.\" belongs to the daemon: {action}"),
            (Access::Only { service, method }, _) => match action {
                Action::Call(wanted, called) if (*wanted, *called) == (service, method) => return Ok(()),
                _ => format!("this connection may call {service}/{method} and nothing else"),
            },
            (Access::Offer { service }, _) => match action {
                Action::Own(name) if *name == service => return Ok(()),
                _ => format!("this connection may own {service} and do nothing else"),
            },
            (Access::Granted, Identity::Local { .. }) => return Ok(()),
            (Access::Granted, Identity::Remote { .. }) => {
                if self.anonymous.iter().any(|grant| grant.covers(action)) {
                    return Ok(());
                }
                format!("[remote] allow of the daemon's configuration does not list it: {action}")
            }
        };
        Err(Error::new(ErrorCode::PermissionDenied, missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_core::name::{Filter, MethodName, ServiceName, TopicName};

    const LOCAL: Identity = Identity::Local { uid: 1000, gid: 1000, pid: 1 };

    fn remote() -> Identity {
        Identity::Remote { principal: "anonymous".to_owned(), address: "127.0.0.1:1".to_owned() }
    }

    fn service(text: &str) -> ServiceName {
        ServiceName::parse(text).unwrap()
    }

    fn method(text: &str) -> MethodName {
        MethodName::parse(text).unwrap()
    }

    #[test]
    fn a_granted_method_is_all_that_a_bridged_connection_has() {
        let (a, b, m, n) = (service("a"), service("b"), method("m"), method("n"));
        let access = Access::Only { service: a.clone(), method: m.clone() };
        let policy = Policy::new(vec![Grant::parse("call >").unwrap()]);
        let may =
            |action: &Action<'_>| policy.check(&access, &remote(), Transport::ExposeTcp, action).is_ok();
        assert!(may(&Action::Call(&a, &m)));
        assert!(!may(&Action::Call(&a, &n)) && !may(&Action::Call(&b, &m)) && !may(&Action::Own(&a)));
        assert!(!may(&Action::Publish(&TopicName::parse("t").unwrap())) && !may(&Action::Watch));
    }

    #[test]
    fn the_name_of_a_forward_is_all_that_it_has() {
        let (a, b, m) = (service("a"), service("b"), method("m"));
        let may = |offered: &ServiceName, action: &Action<'_>| {
            let access = Access::Offer { service: offered.clone() };
            Policy::open().check(&access, &LOCAL, Transport::Forward, action).is_ok()
        };
        assert!(may(&a, &Action::Own(&a)));
        assert!(!may(&a, &Action::Own(&b)) && !may(&a, &Action::Call(&a, &m)) && !may(&a, &Action::Watch));
        let reserved = service("ipc.daemon");
        assert!(!may(&reserved, &Action::Own(&reserved)));
    }

    #[test]
    fn the_daemons_names_are_its_own() {
        let (name, topic) = (service("ipc.daemon"), TopicName::parse("ipc.t").unwrap());
        for action in [Action::Own(&name), Action::Publish(&topic)] {
            let check = |transport| Policy::open().check(&Access::Granted, &LOCAL, transport, &action);
            assert_eq!(check(Transport::UnixStream).unwrap_err().code, ErrorCode::PermissionDenied);
            assert_eq!(check(Transport::Internal), Ok(()));
        }
    }

    /// Everything there is to ask for, with what lets an anonymous peer do it, if anything does.
    #[test]
    fn an_anonymous_peer_may_do_what_is_listed_and_nothing_else() {
        let (name, called, topic) = (service("a.b"), method("m"), TopicName::parse("a.b").unwrap());
        let filter = Filter::parse("a.*").unwrap();
        let actions = [
            (Action::Call(&name, &called), Some("call a.b/m")),
            (Action::Resolve(&name), Some("resolve a.b")),
            (Action::Publish(&topic), Some("publish a.b")),
            (Action::Subscribe(&filter), Some("subscribe a.>")),
            (Action::Own(&name), None),
            (Action::Watch, None),
        ];
        let listed = ["call a.b/m", "resolve a.b", "publish a.b", "subscribe a.>"];
        for (action, needed) in &actions {
            for entry in listed.into_iter().chain(["call >"]) {
                let policy = Policy::new(vec![Grant::parse(entry).unwrap()]);
                let check = policy.check(&Access::Granted, &remote(), Transport::UnixStream, action);
                let is_called = matches!(action, Action::Call(..) | Action::Resolve(_));
                let expected = *needed == Some(entry) || is_called && entry.starts_with("call ");
                assert_eq!(check.is_ok(), expected, "{entry}: {action}");
            }
            let nothing = Policy::open();
            let refused = nothing.check(&Access::Granted, &remote(), Transport::UnixStream, action);
            assert!(refused.unwrap_err().message.contains(&action.to_string()));
            assert_eq!(nothing.check(&Access::Granted, &LOCAL, Transport::UnixStream, action), Ok(()));
        }
    }
}
