//! Who may do what. A connection has its [`Access`] from the moment it is accepted.

use ipc_core::name::{MethodName, ServiceName};
use ipc_core::{Error, ErrorCode};

use super::event::{Access, Transport};

/// Something a connection asks for.
#[derive(Debug)]
pub(super) enum Action<'a> {
    /// Bind a handle to a method, and call it.
    Call(&'a ServiceName, &'a MethodName),
    /// Own a name.
    Own(&'a ServiceName),
    /// Publish on a topic whose name is, or is not, the daemon's.
    Publish { is_reserved: bool },
    /// Subscribe to topics or watch names.
    Watch,
}

/// Whether the connection may do it.
///
/// # Errors
/// `permission_denied`, saying what was missing.
pub(super) fn check(access: &Access, transport: Transport, action: &Action<'_>) -> Result<(), Error> {
    let is_daemon = transport == Transport::Internal;
    let missing = match (access, action) {
        (Access::Only { service, method }, Action::Call(wanted, called)) => {
            if (*wanted, *called) == (service, method) {
                return Ok(());
            }
            format!("this connection may call {service}/{method} and nothing else")
        }
        (Access::Only { service, method }, _) => {
            format!("this connection may call {service}/{method} and do nothing else")
        }
        (Access::Full, Action::Own(name)) if name.is_reserved() && !is_daemon => {
            format!("the name {name} belongs to the daemon")
        }
        (Access::Full, Action::Publish { is_reserved: true }) if !is_daemon => {
            "topics that begin with \"ipc.\" belong to the daemon".to_owned()
        }
        (Access::Full, _) => return Ok(()),
    };
    Err(Error::new(ErrorCode::PermissionDenied, missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_granted_method_is_all_that_a_bridged_connection_has() {
        let name = |text| ServiceName::parse(text).unwrap();
        let method = |text| MethodName::parse(text).unwrap();
        let (a, b, m, n) = (name("a"), name("b"), method("m"), method("n"));
        let access = Access::Only { service: a.clone(), method: m.clone() };
        let may = |action: Action<'_>| check(&access, Transport::ExposeTcp, &action).is_ok();
        assert!(may(Action::Call(&a, &m)));
        assert!(!may(Action::Call(&a, &n)) && !may(Action::Call(&b, &m)) && !may(Action::Own(&a)));
        assert!(!may(Action::Publish { is_reserved: false }) && !may(Action::Watch));
    }

    #[test]
    fn the_daemons_names_are_its_own() {
        let name = ServiceName::parse("ipc.daemon").unwrap();
        let check =
            |transport| check(&Access::Full, transport, &Action::Own(&name)).map_err(|error| error.code);
        assert_eq!(check(Transport::UnixStream), Err(ErrorCode::PermissionDenied));
        assert_eq!(check(Transport::Internal), Ok(()));
    }
}
