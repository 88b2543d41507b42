//! The services we offer.

use crate::error::{Error, ErrorCode};
use crate::limits::{METHOD_DESCRIPTION_MAX_BYTES, METHODS_PER_SERVICE_MAX};
use crate::name::{MethodName, ServiceName};
use crate::wire::codec::List;
use crate::wire::message::{MethodInfo, Register, RegisterMode};

use super::event::{RegistrationKey, Ticket};
use super::slab::Slab;

/// A service to be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub service: ServiceName,
    /// Alone, or one instance of several.
    pub mode: RegisterMode,
    /// Whether to wait for the turn when the name is taken.
    pub queue: bool,
    /// Its methods; calls name them by their position.
    pub methods: Vec<OfferedMethod>,
}

/// One method of an [`Offer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedMethod {
    /// Its name.
    pub name: MethodName,
    /// What it does, for people; at most 1024 bytes.
    pub description: String,
}

impl Offer {
    /// The offer as it travels.
    ///
    /// # Errors
    /// `quota_exceeded` for too many methods, `invalid_argument` for one that is there twice or described at too
    /// great a length.
    pub(super) fn into_request(self) -> Result<Register, Error> {
        if self.methods.len() > METHODS_PER_SERVICE_MAX {
            return Err(Error::quota("methods_per_service_max", METHODS_PER_SERVICE_MAX as u64));
        }
        for (at, method) in self.methods.iter().enumerate() {
            if self.methods.iter().take(at).any(|other| other.name == method.name) {
                let message = format!("{} has the method {} twice", self.service, method.name);
                return Err(Error::new(ErrorCode::InvalidArgument, message));
            }
            if method.description.len() > METHOD_DESCRIPTION_MAX_BYTES {
                let message = format!(
                    "the description of {} {} is over {METHOD_DESCRIPTION_MAX_BYTES} bytes",
                    self.service, method.name
                );
                return Err(Error::new(ErrorCode::InvalidArgument, message));
            }
        }
        let methods = self.methods.into_iter().map(|method| MethodInfo {
            name: method.name.as_str().into(),
            description: method.description.as_str().into(),
        });
        Ok(Register {
            service: self.service.as_str().into(),
            mode: self.mode,
            queue: self.queue,
            methods: List(methods.collect()),
        })
    }
}

#[derive(Debug)]
pub(super) struct Registration {
    /// What was asked for, to ask again after a restart.
    pub(super) request: Register,
    /// The daemon's number for it on this connection.
    pub(super) id: Option<u32>,
    /// Who waits for the answer to the `register`.
    pub(super) ticket: Option<Ticket>,
}

/// All registrations, by our key and by the daemon's number.
#[derive(Debug)]
pub(super) struct Registrations {
    pub(super) entries: Slab<Registration>,
    /// Sorted by the daemon's number; there are few, and it is looked at with every call.
    by_id: Vec<(u32, RegistrationKey)>,
}

impl Registrations {
    pub(super) const fn new() -> Self {
        Self { entries: Slab::new(), by_id: Vec::new() }
    }

    /// A new connection: numbers of the old one mean nothing.
    pub(super) fn restart(&mut self) {
        self.by_id.clear();
        for (_, registration) in self.entries.iter_mut() {
            registration.id = None;
            registration.ticket = None;
        }
    }

    /// The daemon has given `key` a number.
    pub(super) fn registered(&mut self, key: RegistrationKey, id: u32) {
        let Some(registration) = self.entries.get_mut(key.0) else { return };
        registration.id = Some(id);
        match self.by_id.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => self.by_id[at].1 = key,
            Err(at) => self.by_id.insert(at, (id, key)),
        }
    }

    pub(super) fn by_id(&self, id: u32) -> Option<(RegistrationKey, &Registration)> {
        let at = self.by_id.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let (_, key) = *self.by_id.get(at)?;
        self.entries.get(key.0).map(|registration| (key, registration))
    }

    pub(super) fn remove(&mut self, key: RegistrationKey) -> Option<Registration> {
        let registration = self.entries.remove(key.0)?;
        if let Some(id) = registration.id {
            self.by_id.retain(|(known, _)| *known != id);
        }
        Some(registration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration() -> Registration {
        let request = Register {
            service: "a.b".into(),
            mode: RegisterMode::Exclusive,
            queue: false,
            methods: Default::default(),
        };
        Registration { request, id: None, ticket: None }
    }

    fn offer(methods: usize, description_bytes: usize) -> Offer {
        let method = |at: usize| OfferedMethod {
            name: MethodName::parse(&format!("m{at}")).unwrap(),
            description: "d".repeat(description_bytes),
        };
        Offer {
            service: ServiceName::parse("a.b").unwrap(),
            mode: RegisterMode::Group,
            queue: true,
            methods: (0..methods).map(method).collect(),
        }
    }

    #[test]
    fn an_offer_holds_its_limits() {
        for (methods, fits) in [(255, true), (256, true), (257, false)] {
            assert_eq!(offer(methods, 0).into_request().is_ok(), fits, "{methods} methods");
        }
        for (bytes, fits) in [(1023, true), (1024, true), (1025, false)] {
            assert_eq!(offer(1, bytes).into_request().is_ok(), fits, "{bytes} bytes");
        }
        let mut twice = offer(1, 0);
        twice.methods.push(twice.methods[0].clone());
        assert_eq!(twice.into_request().unwrap_err().code, ErrorCode::InvalidArgument);
    }

    #[test]
    fn calls_find_their_registration_by_number() {
        let mut registrations = Registrations::new();
        let keys: Vec<_> =
            (0..3).map(|_| RegistrationKey(registrations.entries.insert(registration()))).collect();
        for (key, id) in keys.iter().zip([70, 3, u32::MAX]) {
            registrations.registered(*key, id);
        }
        for (key, id) in keys.iter().zip([70, 3, u32::MAX]) {
            assert_eq!(registrations.by_id(id).map(|(key, _)| key), Some(*key));
        }
        registrations.remove(keys[0]);
        assert!(registrations.by_id(70).is_none());
        assert!(registrations.by_id(3).is_some());
        registrations.restart();
        assert!(registrations.by_id(3).is_none());
        assert_eq!(registrations.entries.len(), 2);
    }
}
