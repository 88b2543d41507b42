//! What stays closed after its holder was lost, on a disk: one record for each name.
//!
//! What was held on a disk, and asked for a delay, keeps that delay on the disk too. A time does not outlive its clock, and nobody
//! knows how long the daemon or the machine was off. So what is written is what is left of the delay, when the holder is lost and
//! once more when the daemon stops; after a restart, or a reboot, all of that passes again, and it never opens early. The record
//! goes into the commit in which that of the holder goes, so one of the two is there at any time; it goes when the delay is over,
//! and nobody holds the same thing before it has gone. Whoever paid for it pays for it after a restart too.
//!
//! Earlier daemons did not write down who pays. Such a record is read, and is replaced by one that says so, or goes, with the next
//! that is written of its name.

use core::time::Duration;
use std::collections::BTreeSet;

use ipc_core::name::ResourceName;
use ipc_core::time::{Instant, whole_micros};

use super::gate::GateKey;
use super::saved_hold::{Read, noun_of, number_of};
use super::{Coordination, Noun};
use crate::broker::records::{Fields, Reader, RecordKind, Write};

type Name = (Noun, ResourceName);

/// What is known of the records.
#[derive(Debug, Default)]
pub(super) struct Closures {
    /// Those that are on the disk, or may be.
    kept: BTreeSet<Name>,
    /// Those of which there is, or may be, a record that does not say who pays.
    unpaid: BTreeSet<Name>,
    /// Those that are to be written, or to go.
    changed: BTreeSet<Name>,
}

/// One that is on its way to the disk.
#[derive(Debug)]
pub(super) struct Closure {
    name: Name,
    /// Its record goes.
    is_over: bool,
}

/// What a record says of a name.
struct Saved {
    fence: u64,
    permits: u32,
    /// What is left of the delay.
    left: Duration,
}

impl Saved {
    /// `None` when it ends too early.
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (fence, permits, left) = (reader.u64()?, reader.u32()?, reader.u64()?);
        Some(Self { fence, permits, left: Duration::from_micros(left) })
    }
}

impl Closures {
    pub(super) fn is_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether there is no record.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether there is, or may be, a record.
    pub(super) fn is_kept(&self, name: &Name) -> bool {
        self.kept.contains(name)
    }

    /// Its delay begins.
    pub(super) fn begin(&mut self, name: Name) {
        self.changed.insert(name);
    }

    /// Its delay is over. Says whether anything is to be written.
    pub(super) fn end(&mut self, name: &Name) -> bool {
        let is_kept = self.is_kept(name);
        if is_kept {
            self.changed.insert(name.clone());
        }
        is_kept
    }

    /// Less is left of all of them than was written.
    pub(super) fn renew(&mut self) {
        self.changed.extend(self.kept.iter().cloned());
    }

    /// They are on the disk, or have gone from there.
    pub(super) fn settle(&mut self, closures: &[Closure]) {
        for closure in closures {
            self.unpaid.remove(&closure.name);
            if closure.is_over {
                self.kept.remove(&closure.name);
            }
        }
    }

    /// Nothing of it was written.
    pub(super) fn take_back(&mut self, closures: Vec<Closure>) {
        self.changed.extend(closures.into_iter().map(|closure| closure.name));
    }
}

impl Coordination {
    /// Gives what is to be written of what is closed.
    pub(super) fn draft_closures(&mut self, now: Instant, writes: &mut Vec<Write>) -> Vec<Closure> {
        let changed = core::mem::take(&mut self.tenures.closures.changed);
        let mut closures = Vec::new();
        for name in changed {
            let closed = self.closed(now, &name);
            let is_over = closed.is_none();
            if self.tenures.closures.unpaid.contains(&name) {
                writes.push(Write::delete(RecordKind::UnpaidClosure, &id(&name)));
            }
            if let Some(fields) = closed {
                writes.push(Write::put(RecordKind::Closure, &id(&name), fields.done()));
                self.tenures.closures.kept.insert(name.clone());
            } else if self.tenures.closures.is_kept(&name) {
                writes.push(Write::delete(RecordKind::Closure, &id(&name)));
            }
            closures.push(Closure { name, is_over });
        }
        closures
    }

    /// What is written of that name, if it is closed.
    fn closed(&self, now: Instant, name: &Name) -> Option<Fields> {
        let gate = self.gates.get(*self.by_name.get(name)?)?;
        let left = gate.closed_until.filter(|until| *until > now)?.since(now);
        let fields = Fields::default().u64(gate.settled_fence()).u32(gate.permits).u64(whole_micros(left));
        Some(fields.u8(u8::from(gate.payer.is_some())).u32(gate.payer.unwrap_or_default()))
    }

    /// A name stays closed for what was left of its delay. Records come behind those of what is held.
    ///
    /// # Errors
    /// When the record is damaged.
    pub(in crate::broker) fn restore_closure(&mut self, now: Instant, id: &[u8], value: &[u8]) -> Read<()> {
        let mut reader = Reader(value);
        let saved = Saved::read(&mut reader).ok_or("it ends too early")?;
        let (is_paid, uid) = reader.u8().zip(reader.u32()).ok_or("it ends before who pays for it")?;
        self.close_again(now, id, saved, (is_paid > 0).then_some(uid)).map(drop)
    }

    /// The same, of which nobody knows who has paid for it: it is charged to no user of this machine.
    ///
    /// # Errors
    /// When the record is damaged.
    pub(in crate::broker) fn restore_unpaid_closure(
        &mut self,
        now: Instant,
        id: &[u8],
        value: &[u8],
    ) -> Read<()> {
        let saved = Saved::read(&mut Reader(value)).ok_or("it ends too early")?;
        let name = self.close_again(now, id, saved, None)?;
        self.tenures.closures.unpaid.insert(name);
        Ok(())
    }

    fn close_again(&mut self, now: Instant, id: &[u8], saved: Saved, payer: Option<u32>) -> Read<Name> {
        let (noun, name) = id.split_first().ok_or("it does not say what is closed")?;
        let noun = noun_of(*noun).ok_or("what it says is closed is not known to this version")?;
        let name = core::str::from_utf8(name).ok().and_then(|name| ResourceName::parse(name).ok());
        let name = name.ok_or("what it names is no name")?;
        let key = self.gate_again(noun, &name, saved.permits, payer);
        if let Some(gate) = self.gates.get_mut(key) {
            gate.remember_fence(saved.fence);
        }
        self.close_gate(key, now + saved.left);
        self.tenures.closures.kept.insert((noun, name.clone()));
        Ok((noun, name))
    }

    /// The delay of a gate begins, of which the record is kept.
    pub(super) fn keep_closure(&mut self, now: Instant, key: GateKey) {
        if let Some(gate) = self.gates.get(key) {
            self.tenures.note_closed(now, (gate.noun, gate.name.clone()));
        }
    }
}

fn id((noun, name): &Name) -> Vec<u8> {
    let mut id = vec![number_of(Some(*noun))];
    id.extend_from_slice(name.as_str().as_bytes());
    id
}
