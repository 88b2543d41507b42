//! What a simulated client asks of coordination.

use ipc_core::limits::SECRET_BYTES;
use ipc_core::wire::Kind;
use ipc_core::wire::coordination::{
    Acquire, Arrive, Bind, Campaign, Claim, Durability, Identify, LockMode, Observe, OfToken, Operation,
    TakeLease, TakeLock, Unobserve,
};

use super::apply::position;
use super::{Client, Draft};
use crate::generator::{Action, Claimed, RESOURCES};
use crate::rng::Rng;

pub(super) fn speak(client: &mut Client, slot: usize, action: &Action, rng: &mut Rng) -> Option<Vec<u8>> {
    let correlation = client.next_correlation();
    let draft = |operation: Operation, deadline_us: u32| {
        let draft = Draft::new(Kind::COORDINATE).correlation(correlation);
        draft.handle(operation.0, 0).deadline_us(deadline_us)
    };
    match action {
        Action::Identify => {
            client.knows.has_identified = true;
            let identify = Identify { secret: [1 + slot as u8; SECRET_BYTES] };
            Some(draft(Operation::IDENTIFY, 0).envelope(&identify).to_bytes())
        }
        Action::Claim { deadline_us, .. } => {
            claim(client, action, |operation| draft(operation, *deadline_us))
        }
        Action::Arrive { name, parties, wait, deadline_us } => {
            let arrive = Arrive { name: RESOURCES[*name].into(), parties: *parties, wait: *wait };
            Some(draft(Operation::ARRIVE, *deadline_us).envelope(&arrive).to_bytes())
        }
        Action::Lease { ttl_us, outlives, durability } => {
            let bind = if *outlives { Bind::Time } else { Bind::Session };
            let lease = TakeLease { bind, ttl_us: *ttl_us, durability: *durability };
            Some(draft(Operation::LEASE, 0).envelope(&lease).to_bytes())
        }
        Action::OfHold { nth, renew, .. } => {
            let at = position(&client.knows.holds, *nth)?;
            let token = if *renew { client.knows.holds[at] } else { client.knows.holds.remove(at) };
            of_token(client, *renew, token)
        }
        Action::Proclaim { nth, payload } => {
            let token = client.knows.holds[position(&client.knows.holds, *nth)?];
            let draft = draft(Operation::PROCLAIM, 0).envelope(&OfToken { token });
            Some(draft.payload(&rng.bytes(*payload)).to_bytes())
        }
        Action::Observe { name } => {
            client.knows.observations.push(correlation);
            let observe = Observe { name: RESOURCES[*name].into() };
            Some(draft(Operation::OBSERVE, 0).envelope(&observe).to_bytes())
        }
        Action::Unobserve { nth } => {
            let at = position(&client.knows.observations, *nth)?;
            let observation = client.knows.observations.remove(at);
            Some(draft(Operation::UNOBSERVE, 0).envelope(&Unobserve { observation }).to_bytes())
        }
        Action::CancelWait { nth } => {
            let wait = client.knows.waits[position(&client.knows.waits, *nth)?];
            Some(Draft::new(Kind::CANCEL).correlation(wait).to_bytes())
        }
        _ => None,
    }
}

/// A request for a lock, permits or a leadership.
fn claim(client: &Client, action: &Action, draft: impl Fn(Operation) -> Draft) -> Option<Vec<u8>> {
    let Action::Claim { what, name, permits, wait, ttl_us, delay_us, owner, durability, .. } = action else {
        return None;
    };
    let (wait, ttl_us, owner, durability) = (*wait, *ttl_us, *owner, *durability);
    // Where it is kept, what becomes of a delay is tried elsewhere.
    let is_kept = client.knows.has_identified && durability != Some(Durability::Memory);
    let delay_us = if is_kept { 0 } else { *delay_us };
    let claim = Claim { wait, ttl_us, delay_us, owner, durability };
    let name = RESOURCES[*name].into();
    let draft = match what {
        Claimed::Lock => {
            draft(Operation::LOCK).envelope(&TakeLock { name, mode: LockMode::Exclusive, claim })
        }
        Claimed::SharedLock => {
            draft(Operation::LOCK).envelope(&TakeLock { name, mode: LockMode::Shared, claim })
        }
        Claimed::Permits => {
            let (permits, count) = (*permits, 1 + (permits / 2));
            draft(Operation::ACQUIRE).envelope(&Acquire { name, permits, count, claim })
        }
        Claimed::Leadership => draft(Operation::CAMPAIGN).envelope(&Campaign { name, claim }).payload(b"me"),
    };
    Some(draft.to_bytes())
}

/// A request about something held, by whomever.
pub(super) fn of_token(client: &mut Client, renew: bool, token: u64) -> Option<Vec<u8>> {
    let operation = if renew { Operation::RENEW } else { Operation::RELEASE };
    let draft = Draft::new(Kind::COORDINATE).correlation(client.next_correlation()).handle(operation.0, 0);
    Some(draft.envelope(&OfToken { token }).to_bytes())
}
