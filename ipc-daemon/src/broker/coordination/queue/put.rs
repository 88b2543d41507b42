//! Entries that come, make room for others, or are purged.

use core::time::Duration;

use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::name::ResourceName;
use ipc_core::payload::Payload;
use ipc_core::time::Instant;
use ipc_core::wire::queue::Overflow;
use ipc_core::{Error, ErrorCode};

use super::entries::{self, Entry, State};
use super::{QueueKey, ids};
use crate::broker::coordination::{Coordination, Fence, Hand, Timer};

/// An entry to be put.
#[derive(Clone, Debug)]
pub(in crate::broker) struct NewEntry {
    /// `None` has it named by its number.
    pub(in crate::broker) id: Option<String>,
    pub(in crate::broker) payload: Payload,
    pub(in crate::broker) priority: u8,
    pub(in crate::broker) delay: Duration,
    /// 0 for no limit.
    pub(in crate::broker) max_deliveries: u32,
    /// How many may wait in the queue, 0 for as many as the daemon allows.
    pub(in crate::broker) max_length: u32,
    pub(in crate::broker) overflow: Overflow,
    pub(in crate::broker) sender: Identity,
}

/// An entry that was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Stored {
    pub(in crate::broker) number: u64,
    pub(in crate::broker) id: String,
    /// It had been put before.
    pub(in crate::broker) is_duplicate: bool,
    /// How many made room for it.
    pub(in crate::broker) dropped: u32,
}

impl Coordination {
    /// Puts an entry, unless its id was put before.
    ///
    /// # Errors
    /// `stale_fencing_token`; `quota_exceeded`; `permission_denied` for who is no user of this machine; `invalid_argument` when
    /// its dead letters would have no name.
    pub(in crate::broker) fn enqueue(
        &mut self,
        now: Instant,
        hand: Hand,
        name: &ResourceName,
        new: NewEntry,
        fence: Option<&Fence>,
        limits: &Limits,
    ) -> Result<Stored, Error> {
        let Some(uid) = hand.uid else {
            return Err(Error::new(ErrorCode::PermissionDenied, "only users of this machine put entries"));
        };
        if new.max_deliveries > 0 {
            name.dead_letters()?;
        }
        self.check_fence(fence)?;
        if let Some(stored) = self.find_duplicate(now, name, new.id.as_deref()) {
            return Ok(stored);
        }
        self.check_entry(uid, &new, limits)?;
        self.check_length(name, &new, limits)?;
        let key = self.queues.open(name, limits)?;
        let dropped = self.make_room(key, &new, limits);
        let stored = self.store(now, key, uid, new, limits);
        self.pump_queues(now, vec![key]);
        Ok(Stored { dropped, ..stored })
    }

    fn find_duplicate(&mut self, now: Instant, name: &ResourceName, id: Option<&str>) -> Option<Stored> {
        let id = id?;
        let queue = self.queues.key(name).and_then(|key| self.queues.get_mut(key))?;
        let forgotten = queue.ids.forget(now);
        let known = queue.ids.get(id).map(|known| known.number);
        queue.tally.duplicates += u64::from(known.is_some());
        self.queues.refund_ids(forgotten);
        known.map(|number| Stored { number, id: id.to_owned(), is_duplicate: true, dropped: 0 })
    }

    fn check_entry(&self, uid: u32, new: &NewEntry, limits: &Limits) -> Result<(), Error> {
        if self.queues.entries >= limits.work_queue_entries_max as usize {
            return Err(Error::quota("work_queue_entries_max", limits.work_queue_entries_max.into()));
        }
        let remembered = new.id.as_deref().map_or(0, ids::cost);
        let cost = entries::cost(new.id.as_deref().unwrap_or_default(), &new.payload) + remembered;
        let used = self.queues.bytes_by_uid.get(&uid).copied().unwrap_or(0);
        let max = limits.work_queue_bytes_per_uid_max;
        if used + cost > max as usize {
            return Err(Error::quota("work_queue_bytes_per_uid_max", max.into())
                .with_hint("take or purge what is in the queues, dead letters too"));
        }
        Ok(())
    }

    /// Whether there is room in the queue, or may be made.
    fn check_length(&self, name: &ResourceName, new: &NewEntry, limits: &Limits) -> Result<(), Error> {
        let queue = self.queues.key(name).and_then(|key| self.queues.get(key));
        let waiting = queue.map_or(0, |queue| queue.entries.waiting());
        let max = length_max(new, limits);
        if waiting < max as usize || new.overflow == Overflow::DropOldest {
            return Ok(());
        }
        let resource =
            if max == limits.work_queue_length_max { "work_queue_length_max" } else { "max_length" };
        let mut error = Error::quota(resource, max.into()).with_hint("try again when some were taken");
        error.message = format!("queue {name} is full: {}", error.message);
        Err(error)
    }

    fn make_room(&mut self, key: QueueKey, new: &NewEntry, limits: &Limits) -> u32 {
        let max = length_max(new, limits) as usize;
        let mut dropped = 0;
        while let Some(queue) = self.queues.get_mut(key).filter(|queue| queue.entries.waiting() >= max) {
            let Some(number) = queue.entries.first_to_drop() else { break };
            queue.tally.drops += 1;
            dropped += 1;
            self.drop_entry(key, number);
        }
        dropped
    }

    fn store(&mut self, now: Instant, key: QueueKey, uid: u32, new: NewEntry, limits: &Limits) -> Stored {
        let number = self.next_token(now);
        let is_given = new.id.is_some();
        let id = new.id.unwrap_or_else(|| number.to_string());
        let entry = Entry {
            id: id.as_str().into(),
            payload: new.payload,
            priority: new.priority,
            max_deliveries: new.max_deliveries,
            deliveries: 0,
            put_at: now,
            sender: new.sender,
            uid,
            death: None,
            state: State::Ready,
        };
        self.queues.charge(uid, entry.cost());
        self.queues.entries += 1;
        if is_given {
            self.remember_id(now, key, &id, number, uid, limits);
        }
        if let Some(queue) = self.queues.get_mut(key) {
            queue.entries.insert(number, entry);
            queue.tally.puts += 1;
        }
        if !new.delay.is_zero() {
            self.move_entry(key, number, State::Delayed(now + new.delay));
        }
        Stored { number, id, is_duplicate: false, dropped: 0 }
    }

    fn remember_id(&mut self, now: Instant, key: QueueKey, id: &str, number: u64, uid: u32, limits: &Limits) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let is_first = queue.ids.is_empty();
        let forgotten = queue.ids.remember(now, id, number, uid, limits);
        if let Some(due) = queue.ids.due().filter(|_| is_first) {
            self.timers.insert((due, Timer::Ids(key)));
        }
        self.queues.charge(uid, ids::cost(id));
        self.queues.refund_ids(forgotten);
    }

    /// Throws away everything that nobody is working on, and says how many that were.
    ///
    /// # Errors
    /// `stale_fencing_token`.
    pub(in crate::broker) fn purge(
        &mut self,
        name: &ResourceName,
        fence: Option<&Fence>,
    ) -> Result<u64, Error> {
        self.check_fence(fence)?;
        let Some(key) = self.queues.key(name) else { return Ok(0) };
        let Some(queue) = self.queues.get_mut(key) else { return Ok(0) };
        let numbers = queue.entries.all_waiting();
        queue.tally.drops += numbers.len() as u64;
        for number in &numbers {
            self.drop_entry(key, *number);
        }
        self.close_queue_if_idle(key);
        Ok(numbers.len() as u64)
    }
}

fn length_max(new: &NewEntry, limits: &Limits) -> u32 {
    super::lower_of(new.max_length, limits.work_queue_length_max)
}
