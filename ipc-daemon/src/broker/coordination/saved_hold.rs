//! What is held, as records of the store: one for each token, which goes when what is held ends.

use core::time::Duration;

use ipc_core::limits::SECRET_BYTES;
use ipc_core::name::ResourceName;
use ipc_core::payload::{Payload, PayloadKind};
use ipc_core::time::{Instant, whole_micros};
use ipc_core::wire::coordination::{Durability, Secret};

use super::gate::{Gate, GateKey, Share};
use super::hold::{Hold, Keeper};
use super::numbers::read_number;
use super::session::SessionName;
use super::tenure::Promise;
use super::{Coordination, Noun, Terms};
use crate::broker::records::{Fields, Reader, RecordKind, Write};

const IS_ON_DISK: u8 = 1;
/// Of a user, whichever sessions there are.
const IS_OF_USER: u8 = 2;

const LEASE: u8 = 0;
const LOCK: u8 = 1;
const SEMAPHORE: u8 = 2;
const ELECTION: u8 = 3;

const EXCLUSIVE: u8 = 0;
const SHARED: u8 = 1;
const PERMITS: u8 = 2;

pub(super) type Read<T> = Result<T, &'static str>;

/// A record, taken apart.
struct Saved<'a> {
    keeper: Keeper,
    terms: Terms,
    noun: Option<Noun>,
    share: Share,
    permits: u32,
    name: &'a str,
    value: Payload,
}

impl Coordination {
    /// What is written for a promise; nothing when what it is about is not to be kept, or has ended.
    pub(super) fn record_of(&self, promise: &Promise) -> Option<Write> {
        let hold = self.holds.get(&promise.token)?;
        let durability = hold.terms.durability;
        if durability == Durability::Memory {
            return None;
        }
        let of_disk = if durability == Durability::Disk { IS_ON_DISK } else { 0 };
        let (of_user, uid, secret, owner) = match hold.keeper {
            Keeper::User(uid) => (IS_OF_USER, uid, [0; SECRET_BYTES], 0),
            Keeper::Session { id, owner } => {
                let SessionName { uid, secret } = self.sessions.name(id.peer)?;
                (0, uid, secret, owner)
            }
            Keeper::Absent { session, owner } => (0, session.uid, session.secret, owner),
        };
        let gate = self.gate_of(promise.token);
        let share = gate.and_then(|gate| gate.holders.get(&promise.token)).copied();
        let (share, count) = match share.unwrap_or(Share::Exclusive) {
            Share::Exclusive => (EXCLUSIVE, 0),
            Share::Shared => (SHARED, 0),
            Share::Permits(count) => (PERMITS, count),
        };
        let fields = Fields::default().u8(of_disk | of_user).u8(number_of(gate.map(|gate| gate.noun)));
        let fields = fields.u8(share).u32(gate.map_or(0, |gate| gate.permits)).u32(count);
        let fields = fields.u64(hold.terms.ttl.map_or(0, whole_micros)).u64(whole_micros(hold.terms.delay));
        let fields = fields.u64(owner).u32(uid).rest(&secret);
        let fields = fields.bytes(gate.map_or("", |gate| gate.name.as_str()).as_bytes());
        let fields = fields.u8(promise.value.kind.number()).rest(&promise.value.body);
        Some(Write::put(RecordKind::Hold, &promise.token.to_be_bytes(), fields.done()))
    }

    /// Takes the record of something held out of the store.
    pub(super) fn hold_gone(token: u64) -> Write {
        Write::delete(RecordKind::Hold, &token.to_be_bytes())
    }

    /// Somebody holds again what was kept. Records come in the order of their tokens.
    ///
    /// # Errors
    /// When the record is damaged, or contradicts another.
    pub(in crate::broker) fn restore_hold(&mut self, now: Instant, id: &[u8], value: &[u8]) -> Read<()> {
        let token = read_number(id)?;
        let saved = read(Reader(value)).ok_or("it is cut, or of a later version")?;
        let gate = match saved.noun {
            None => None,
            Some(noun) => Some(self.restore_gate(noun, token, &saved)?),
        };
        let Saved { keeper, terms, .. } = saved;
        self.begin_hold(token, Hold { keeper, gate, terms, since: now, expires: None, is_pending: false });
        Ok(())
    }

    fn restore_gate(&mut self, noun: Noun, token: u64, saved: &Saved<'_>) -> Read<GateKey> {
        let name = ResourceName::parse(saved.name).map_err(|_| "what it names is no name")?;
        let key = self.gate_again(noun, &name, saved.permits, saved.keeper.uid());
        let gate = self.gates.get_mut(key).filter(|gate| gate.has_room(saved.share));
        let gate = gate.ok_or("somebody else holds it")?;
        gate.hold(token, saved.share);
        gate.settle();
        gate.value = saved.value.clone();
        Ok(key)
    }

    /// The gate of that name, made if nothing was restored of it so far: that user is charged with it then.
    pub(super) fn gate_again(
        &mut self,
        noun: Noun,
        name: &ResourceName,
        permits: u32,
        payer: Option<u32>,
    ) -> GateKey {
        if let Some(key) = self.by_name.get(&(noun, name.clone())) {
            return *key;
        }
        self.insert_gate(Gate::new(noun, name.clone(), permits, payer))
    }
}

/// `None` when it ends too early, or has a number that only a later version knows.
fn read(mut reader: Reader<'_>) -> Option<Saved<'_>> {
    let (flags, noun, share) = (reader.u8()?, reader.u8()?, reader.u8()?);
    let (permits, count) = (reader.u32()?, reader.u32()?);
    let (ttl, delay, owner) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let (uid, secret): (u32, Secret) = (reader.u32()?, reader.array()?);
    let (name, kind) = (reader.text()?, PayloadKind::from_number(reader.u8()?)?);
    let value = Payload { kind, body: bytes::Bytes::copy_from_slice(reader.rest()) };
    let keeper = if flags & IS_OF_USER > 0 {
        Keeper::User(uid)
    } else {
        Keeper::Absent { session: SessionName::new(uid, secret), owner }
    };
    let noun = match noun {
        LEASE => None,
        other => Some(noun_of(other)?),
    };
    let share = match share {
        EXCLUSIVE => Share::Exclusive,
        SHARED => Share::Shared,
        PERMITS => Share::Permits(count),
        _ => return None,
    };
    let durability = if flags & IS_ON_DISK > 0 { Durability::Disk } else { Durability::Os };
    let ttl = (ttl > 0).then(|| Duration::from_micros(ttl));
    let terms = Terms { ttl, delay: Duration::from_micros(delay), durability };
    Some(Saved { keeper, terms, noun, share, permits, name, value })
}

/// `None` for what only a later version knows.
pub(super) fn noun_of(number: u8) -> Option<Noun> {
    match number {
        LOCK => Some(Noun::Lock),
        SEMAPHORE => Some(Noun::Semaphore),
        ELECTION => Some(Noun::Election),
        _ => None,
    }
}

/// The number of a noun in records.
pub(super) fn number_of(noun: Option<Noun>) -> u8 {
    match noun {
        None => LEASE,
        Some(Noun::Lock) => LOCK,
        Some(Noun::Semaphore) => SEMAPHORE,
        Some(Noun::Election) => ELECTION,
    }
}
