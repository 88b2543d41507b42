//! What calls over datagrams are promised: one outcome each, run at most once, and an answer is what the service gave.
//!
//! The ledger knows nothing of ids, cookies and windows. Each call carries a tag in its payload; the ledger is told when a
//! client makes it, when a service receives it, what the service answers, and what the client is told.

use std::collections::BTreeMap;

use ipc_core::ErrorCode;
use ipc_core::session::{Answer, Outcome};
use ipc_core::wire::{Flags, Kind};

use crate::world::Seen;

/// The beginning of the payload of every call over datagrams.
const MARK: &[u8; 8] = b"datagram";

/// What is known of one call.
#[derive(Debug, Default)]
struct Case {
    runs: u32,
    /// What services have answered.
    answers: Vec<Vec<u8>>,
    outcomes: u32,
    /// Nobody waits for an outcome.
    is_let_go: bool,
}

/// All calls over datagrams by their tag.
#[derive(Debug, Default)]
pub struct Ledger {
    cases: BTreeMap<u64, Case>,
    /// Which call a service works on: by its connection and the daemon's number.
    running: BTreeMap<(usize, u64), u64>,
    next_tag: u64,
}

impl Ledger {
    /// A client makes a call. Gives its tag, and the payload to send, some bytes longer than that.
    pub fn begin(&mut self, padding: usize, wants_outcome: bool) -> (u64, Vec<u8>) {
        self.next_tag += 1;
        let tag = self.next_tag;
        self.cases.insert(tag, Case { is_let_go: !wants_outcome, ..Case::default() });
        let mut payload = MARK.to_vec();
        payload.extend(tag.to_le_bytes());
        payload.resize(payload.len() + padding, 7);
        (tag, payload)
    }

    /// A call could not even be made.
    pub fn take_back(&mut self, tag: u64) {
        self.cases.remove(&tag);
    }

    /// A client does not wait for this one any more.
    pub fn let_go(&mut self, tag: u64) {
        if let Some(case) = self.cases.get_mut(&tag) {
            case.is_let_go = true;
        }
    }

    /// A client has received a frame.
    ///
    /// # Errors
    /// When it is a call that has run before.
    pub fn received(&mut self, connection: usize, frame: &Seen) -> Result<(), String> {
        let Some(tag) = (frame.kind() == Kind::CALL).then(|| tag_of(&frame.payload)).flatten() else {
            return Ok(());
        };
        let Some(case) = self.cases.get_mut(&tag) else {
            return Err(format!("call {tag} over datagrams has run and was never made"));
        };
        case.runs += 1;
        if case.runs > 1 {
            return Err(format!("call {tag} over datagrams has run {} times", case.runs));
        }
        if !frame.has(Flags::ONEWAY) {
            self.running.insert((connection, frame.header.correlation), tag);
        }
        Ok(())
    }

    /// A client has sent a frame.
    pub fn sent(&mut self, connection: usize, frame: &Seen) {
        if frame.kind() == Kind::REPLY
            && let Some(tag) = self.running.get(&(connection, frame.header.correlation))
            && let Some(case) = self.cases.get_mut(tag)
        {
            case.answers.push(frame.payload.clone());
        }
    }

    /// A client was told what its call came to.
    ///
    /// # Errors
    /// When that cannot be.
    pub fn concluded(&mut self, tag: u64, outcome: &Outcome) -> Result<(), String> {
        let Some(case) = self.cases.get_mut(&tag) else { return Err(format!("call {tag} was never made")) };
        case.outcomes += 1;
        if case.outcomes > 1 || case.is_let_go {
            return Err(format!("call {tag} over datagrams has more outcomes than are wanted"));
        }
        match outcome {
            Ok(Answer::Reply(reply)) if case.answers.contains(&reply.payload.body.to_vec()) => Ok(()),
            Ok(Answer::Reply(_)) => {
                Err(format!("call {tag} over datagrams has an answer that no service gave"))
            }
            Ok(other) => Err(format!("call {tag} over datagrams ended with {other:?}")),
            Err(error) => {
                let cannot_have_run = [
                    ErrorCode::NoSuchService,
                    ErrorCode::NoSuchMethod,
                    ErrorCode::PermissionDenied,
                    ErrorCode::InvalidArgument,
                    ErrorCode::Unreachable,
                ];
                if cannot_have_run.contains(&error.code) && case.runs > 0 {
                    return Err(format!("call {tag} over datagrams has run and ended with {error}"));
                }
                Ok(())
            }
        }
    }

    /// The end: everything that is waited for has its outcome.
    ///
    /// # Errors
    /// What has none.
    pub fn is_complete(&self) -> Result<(), String> {
        match self.cases.iter().find(|(_, case)| case.outcomes == 0 && !case.is_let_go) {
            Some((tag, case)) => Err(format!("call {tag} over datagrams has no outcome: {case:?}")),
            None => Ok(()),
        }
    }
}

fn tag_of(payload: &[u8]) -> Option<u64> {
    let rest = payload.strip_prefix(MARK)?;
    Some(u64::from_le_bytes(rest.get(..8)?.try_into().ok()?))
}
