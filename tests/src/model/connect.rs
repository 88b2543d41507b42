//! Who is let in.

use core::time::Duration;
use std::collections::BTreeMap;

use ipc_core::error::{Error, ErrorCode};
use ipc_core::identity::Identity;
use ipc_core::time::Instant;

use super::announced::Announced;
use super::expect::{Expected, Refusal};
use super::inbox::Inbox;
use super::{Connection, Model, Phase, Snapshot};
use crate::world::Arrival;

impl Model {
    /// A connection was asked for, and taken unless there is an error.
    ///
    /// # Errors
    /// A sentence, when it should have been the other way.
    pub fn connect(
        &mut self,
        now: Instant,
        number: usize,
        arrival: &Arrival,
        refused: Option<&Error>,
        snapshot: &Snapshot,
    ) -> Result<(), String> {
        self.begin(now);
        let due = self.refusal_of_connection(&arrival.identity, arrival.is_tcp());
        let agrees = match (&due, refused) {
            (None, None) => true,
            (Some(due), Some(error)) => {
                let limit = error.detail.as_ref().and_then(|detail| detail.limit);
                due.code == error.code && due.limit.is_none_or(|(_, value)| limit == Some(value))
            }
            (None, Some(_)) | (Some(_), None) => false,
        };
        if !agrees {
            return Err(format!("a connection was answered with {refused:?}, due was {due:?}"));
        }
        let row = snapshot.queues.rows.iter().find(|row| !self.people.contains_key(&row.peer));
        let timeout_ms = match arrival.is_tcp() {
            true => self.limits.tcp_first_byte_timeout_ms.min(self.limits.tcp_hello_timeout_ms),
            false => self.limits.hello_timeout_ms,
        };
        let (peer, key, phase) = match (refused, row) {
            (Some(_), _) => (0, None, Phase::Greeting),
            (None, Some(row)) => {
                if row.identity != arrival.identity {
                    return Err(format!("{:?} is taken for {:?}", arrival.identity, row.identity));
                }
                (row.peer, Some(row.key), Phase::Greeting)
            }
            (None, None) => return Err("a connection was taken but is not there".to_owned()),
        };
        let connection = Connection {
            peer,
            key,
            identity: arrival.identity.clone(),
            only: arrival.only.clone(),
            is_tcp: arrival.is_tcp(),
            session: None,
            phase,
            accepted_at: now,
            hello_due: now + Duration::from_millis(timeout_ms.into()),
            handles: BTreeMap::new(),
            registrations: BTreeMap::new(),
            inbox: Inbox::default(),
            announced: Announced::default(),
            written_since: now,
            handed: BTreeMap::new(),
            may_be_told: false,
            is_deaf: false,
            is_closing: refused.is_some(),
        };
        if key.is_some() {
            self.people.insert(peer, (number, arrival.identity.clone()));
        }
        self.connections.insert(number, connection);
        if let Some(error) = refused {
            self.push(number, Expected::Close { codes: vec![error.code] });
            self.set_phase(number, Phase::Gone);
        }
        Ok(())
    }

    fn refusal_of_connection(&self, identity: &Identity, is_tcp: bool) -> Option<Refusal> {
        if self.is_draining {
            return Some(Refusal::of(ErrorCode::ShuttingDown));
        }
        let open = || self.connections.values().filter(|connection| connection.phase != Phase::Gone);
        let same = || open().filter(|connection| payer(&connection.identity) == payer(identity));
        let limits = &self.limits;
        let over_tcp = if is_tcp { open().filter(|connection| connection.is_tcp).count() } else { 0 };
        let counts = [
            ("tcp_connections_max", over_tcp, limits.tcp_connections_max),
            ("connections_max", open().count(), limits.connections_max),
            ("connections_per_uid_max", same().count(), limits.connections_per_uid_max),
            (
                "unauthenticated_per_uid_max",
                same().filter(|connection| connection.phase == Phase::Greeting).count(),
                limits.unauthenticated_per_uid_max,
            ),
        ];
        let reached = counts.iter().find(|(_, count, max)| *count >= *max as usize);
        reached.map(|(name, _, max)| Refusal::quota(name, *max))
    }
}

/// Who pays for a connection.
pub(super) fn payer(identity: &Identity) -> String {
    match identity {
        Identity::Local { uid, .. } => format!("uid {uid}"),
        Identity::Remote { principal, .. } => format!("principal {principal}"),
    }
}
