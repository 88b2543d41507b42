//! Entries of work queues as records of the store.
//!
//! An entry has a record with what was put, which is written once; another with how it stands, which is small and written again;
//! and, when its id was given with it, a third that outlives it for as long as the id is remembered.

use core::time::Duration;

use bytes::Bytes;
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::name::ResourceName;
use ipc_core::payload::{Payload, PayloadKind};
use ipc_core::time::{Instant, whole_micros};
use ipc_core::wire::coordination::Durability;

use super::entries::{Entry, State};
use super::ids::{Name, Window};
use crate::broker::coordination::Coordination;
use crate::broker::coordination::numbers::read_number;
use crate::broker::records::{Fields, Reader, RecordKind, Write};

const IS_ON_DISK: u8 = 1;
const IS_DEAD: u8 = 1;
/// It can be taken after so long, counted from when the daemon is started again.
const IS_DELAYED: u8 = 2;
const IS_LOCAL: u8 = 0;

type Read<T> = Result<T, &'static str>;

/// What was put.
pub(super) fn entry(number: u64, queue: &ResourceName, entry: &Entry, delay: Duration) -> Write {
    let flags = if entry.durability == Durability::Disk { IS_ON_DISK } else { 0 };
    let fields = Fields::default().u8(flags).bytes(queue.as_str().as_bytes()).bytes(entry.id.as_bytes());
    let fields = fields.u8(entry.priority).u32(entry.max_deliveries).u64(whole_micros(delay)).u32(entry.uid);
    let fields = sender(fields, &entry.sender);
    let fields = fields.u8(entry.payload.kind.number()).rest(&entry.payload.body);
    Write::put(RecordKind::Entry, &id_of(number), fields.done())
}

/// How it stands. What is written of a delay is what is left of it: nobody knows how long the daemon is off.
pub(super) fn state(now: Instant, number: u64, queue: &ResourceName, entry: &Entry) -> Write {
    let fields = Fields::default().u32(entry.deliveries);
    let left = match entry.state {
        State::Delayed(until) => Some(whole_micros(until.since(now))),
        State::Ready | State::Delivered(_) | State::Leaving => None,
    };
    let is_dead = entry.death.as_ref().map_or(0, |_| IS_DEAD);
    let mut fields = fields.u8(is_dead | left.map_or(0, |_| IS_DELAYED));
    if let Some(left) = left {
        fields = fields.u64(left);
    }
    if let Some(death) = &entry.death {
        fields = fields.bytes(queue.as_str().as_bytes()).bytes(death.as_bytes());
    }
    Write::put(RecordKind::EntryState, &id_of(number), fields.done())
}

/// That its id is remembered.
pub(super) fn id(number: u64, queue: &ResourceName, entry: &Entry) -> Write {
    let fields = Fields::default().bytes(queue.as_str().as_bytes()).bytes(entry.id.as_bytes()).u32(entry.uid);
    Write::put(RecordKind::EntryId, &id_of(number), fields.done())
}

/// The entry is no more.
pub(super) fn gone(number: u64) -> [Write; 2] {
    [RecordKind::Entry, RecordKind::EntryState].map(|kind| Write::delete(kind, &id_of(number)))
}

/// Its id is not remembered any more.
pub(super) fn forgotten(number: u64) -> Write {
    Write::delete(RecordKind::EntryId, &id_of(number))
}

fn id_of(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn sender(fields: Fields, sender: &Identity) -> Fields {
    match sender {
        Identity::Local { uid, gid, pid } => fields.u8(IS_LOCAL).u32(*uid).u32(*gid).u32(*pid),
        Identity::Remote { principal, address } => {
            fields.u8(1).bytes(principal.as_bytes()).bytes(address.as_bytes())
        }
    }
}

fn read_sender(reader: &mut Reader<'_>) -> Option<Identity> {
    if reader.u8()? == IS_LOCAL {
        return Some(Identity::Local { uid: reader.u32()?, gid: reader.u32()?, pid: reader.u32()? });
    }
    Some(Identity::Remote { principal: reader.text()?.to_owned(), address: reader.text()?.to_owned() })
}

fn read_queue(reader: &mut Reader<'_>) -> Read<ResourceName> {
    let name = reader.text().ok_or("it ends before the name of its queue")?;
    ResourceName::parse(name).map_err(|_| "what it names is no queue")
}

impl Coordination {
    /// Puts an entry again that was kept. Whoever was working on it is gone; a delay that was not over begins anew.
    ///
    /// # Errors
    /// When the record is damaged.
    pub(in crate::broker) fn restore_entry(&mut self, now: Instant, id: &[u8], value: &[u8]) -> Read<()> {
        let number = read_number(id)?;
        let mut reader = Reader(value);
        let flags = reader.u8().ok_or("it is empty")?;
        let durability = if flags & IS_ON_DISK > 0 { Durability::Disk } else { Durability::Os };
        let name = read_queue(&mut reader)?;
        let (entry, delay) = read_entry(now, durability, reader)
            .ok_or("it ends before its payload, or the kind of that is undefined")?;
        // Nobody knows who has made the queue: whoever has put the first of what is left pays for it.
        let key = self.queues.open_in_any_case(&name, Some(entry.uid));
        self.queues.restored.insert(number, key);
        self.queues.charge_entry(&entry);
        if let Some(queue) = self.queues.get_mut(key) {
            queue.entries.insert(number, entry);
        }
        if !delay.is_zero() {
            self.move_entry(key, number, State::Delayed(now + delay));
        }
        Ok(())
    }

    /// Says how an entry stands that was put again before.
    ///
    /// # Errors
    /// When the record is damaged.
    pub(in crate::broker) fn restore_entry_state(
        &mut self,
        now: Instant,
        id: &[u8],
        value: &[u8],
    ) -> Read<()> {
        let number = read_number(id)?;
        let mut reader = Reader(value);
        let (deliveries, flags) = reader.u32().zip(reader.u8()).ok_or("it ends too early")?;
        // After a repair there may be states of entries that are lost.
        let Some(from) = self.queues.restored.get(&number).copied() else { return Ok(()) };
        // It has been taken, or could have been: the delay with which it was put is over, but not one with which it came back.
        let mut state = State::Ready;
        if flags & IS_DELAYED > 0 {
            let left = reader.u64().ok_or("it ends before its delay")?;
            state = State::Delayed(now + Duration::from_micros(left));
        }
        if flags & IS_DEAD == 0 {
            self.move_entry(from, number, state);
            let entry = self.queues.get_mut(from).and_then(|queue| queue.entries.get_mut(number));
            entry.ok_or("it is of an entry that is not there")?.deliveries = deliveries;
            return Ok(());
        }
        let name = read_queue(&mut reader)?;
        let death = reader.text().ok_or("it ends before the reason of its death")?.to_owned();
        // The delay with which it was put is over there.
        self.move_entry(from, number, State::Ready);
        let entry = self.queues.get_mut(from).and_then(|queue| queue.entries.remove(number));
        let entry = entry.ok_or("it is of an entry that is not there")?;
        self.queues.refund_entry(&entry);
        let dead = Entry { deliveries, max_deliveries: 0, death: Some(death), ..entry };
        self.queues.charge_entry(&dead);
        let to = self.queues.open_in_any_case(&name, Some(dead.uid));
        if let Some(queue) = self.queues.get_mut(to) {
            queue.entries.insert(number, dead);
        }
        self.move_entry(to, number, state);
        self.close_queue_if_idle(from);
        Ok(())
    }

    /// Remembers an id again, for all of its time.
    ///
    /// # Errors
    /// When the record is damaged.
    pub(in crate::broker) fn restore_entry_id(
        &mut self,
        now: Instant,
        id: &[u8],
        value: &[u8],
        limits: &Limits,
    ) -> Read<()> {
        let number = read_number(id)?;
        let mut reader = Reader(value);
        let name = read_queue(&mut reader)?;
        let (text, uid) = reader.text().zip(reader.u32()).ok_or("it ends too early")?;
        let key = self.queues.open_in_any_case(&name, Some(uid));
        self.queues.window = Window::of(limits);
        self.remember_id(now, key, Name { id: text, number, uid, durability: Durability::Disk });
        Ok(())
    }

    /// Everything that was kept has been restored.
    ///
    /// # Errors
    /// When a number was never reserved.
    pub(in crate::broker::coordination) fn open_queues(&mut self) -> Read<()> {
        let restored = core::mem::take(&mut self.queues.restored);
        if restored.last_key_value().is_some_and(|(number, _)| *number > self.numbers.last()) {
            return Err("an entry has a number that was never reserved");
        }
        Ok(())
    }
}

fn read_entry(now: Instant, durability: Durability, mut reader: Reader<'_>) -> Option<(Entry, Duration)> {
    let id = reader.text()?.into();
    let (priority, max_deliveries) = (reader.u8()?, reader.u32()?);
    let (delay, uid) = (Duration::from_micros(reader.u64()?), reader.u32()?);
    let sender = read_sender(&mut reader)?;
    let kind = PayloadKind::from_number(reader.u8()?)?;
    let payload = Payload { kind, body: Bytes::copy_from_slice(reader.rest()) };
    let entry = Entry {
        id,
        payload,
        priority,
        max_deliveries,
        deliveries: 0,
        put_at: now,
        sender,
        uid,
        death: None,
        durability,
        state: State::Ready,
    };
    Some((entry, delay))
}
