//! Entries that come, make room for others, or are purged.

use core::time::Duration;

use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::name::ResourceName;
use ipc_core::payload::Payload;
use ipc_core::time::Instant;
use ipc_core::wire::coordination::Durability;
use ipc_core::wire::queue::Overflow;
use ipc_core::{Error, ErrorCode};

use super::QueueKey;
use super::entries::{self, Entry, State};
use super::ids::{self, Name, Window};
use super::kept::{Act, Arrival, Kept};
use crate::broker::coordination::{Asker, Coordination, Effect, Fence, Hand};
use crate::broker::ledger::User;

/// Who puts something, and on whose behalf.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct By {
    pub(in crate::broker) asker: Asker,
    pub(in crate::broker) hand: Hand,
}

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
    /// What it is to survive.
    pub(in crate::broker) durability: Durability,
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
    /// What it survives.
    pub(in crate::broker) durability: Durability,
}

impl Coordination {
    /// Puts an entry, unless its id was put before. The asker is told once it is as durable as it was to be.
    ///
    /// # Errors
    /// `stale_fencing_token`; `quota_exceeded`; `permission_denied` for who is no user of this machine; `invalid_argument` when
    /// its dead letters would have no name; `storage_failed`.
    pub(in crate::broker) fn enqueue(
        &mut self,
        now: Instant,
        by: By,
        name: &ResourceName,
        new: NewEntry,
        fence: Option<&Fence>,
        limits: &Limits,
    ) -> Result<(), Error> {
        let By { asker, hand } = by;
        let Some(uid) = hand.uid else {
            return Err(Error::new(ErrorCode::PermissionDenied, "only users of this machine put entries"));
        };
        if new.max_deliveries > 0 {
            name.dead_letters()?;
        }
        self.numbers.check()?;
        self.check_fence(fence)?;
        self.check_changes(&asker, limits)?;
        self.queues.window = Window::of(limits);
        if self.is_duplicate(now, asker, name, new.id.as_deref()) {
            return Ok(());
        }
        self.check_entry(uid, asker.user, &new, limits)?;
        self.check_length(name, &new, limits)?;
        let key = self.queues.open(name, asker.user, limits)?;
        let arrival = self.arrive_in(now, key, uid, new, limits);
        if arrival.entry.durability > Durability::Memory || self.are_kept(key, &arrival.victims) {
            let fence = fence.map(|fence| fence.lock.clone());
            self.keep(Kept { asker, fence, act: Act::Put(Box::new(arrival)) });
        } else {
            self.publish_put(now, &asker, arrival);
        }
        Ok(())
    }

    /// Answers a put whose entry was put before, or is about to be.
    fn is_duplicate(&mut self, now: Instant, asker: Asker, name: &ResourceName, id: Option<&str>) -> bool {
        let Some((id, key)) = id.zip(self.queues.key(name)) else { return false };
        self.forget_ids(now, key);
        let Some(queue) = self.queues.get_mut(key) else { return false };
        let arriving = queue.arriving_ids.get(id).copied();
        let known = queue.ids.get(id).map(|known| (known.number, known.durability));
        let Some((number, durability)) = arriving.or(known) else { return false };
        queue.tally.duplicates += 1;
        let stored = Stored { number, id: id.to_owned(), is_duplicate: true, dropped: 0, durability };
        match arriving {
            Some(_) => self.keep(Kept { asker, fence: None, act: Act::Duplicate(stored) }),
            None => self.tell_stored(&asker, stored),
        }
        true
    }

    fn check_entry(&self, uid: u32, user: User, new: &NewEntry, limits: &Limits) -> Result<(), Error> {
        let standing = self.queues.entries.standing(uid);
        let max = limits.work_queue_entries_per_uid_max;
        if standing.own >= max.into() {
            return Err(Error::quota("work_queue_entries_per_uid_max", max.into()));
        }
        standing.check(1, "work_queue_entries_max", limits.work_queue_entries_max.into(), user.is_alone)?;
        let remembered = new.id.as_deref().map_or(0, ids::cost);
        let cost = entries::cost(new.id.as_deref().unwrap_or_default(), &new.payload) + remembered;
        let max = limits.work_queue_bytes_per_uid_max;
        if self.queues.bytes.of(uid) + cost as u64 > max.into() {
            return Err(Error::quota("work_queue_bytes_per_uid_max", max.into())
                .with_hint("take or purge what is in the queues, dead letters too"));
        }
        if new.durability > Durability::Memory {
            self.queues.keeping.check(user, cost, limits)?;
        }
        Ok(())
    }

    /// Whether there is room in the queue, or may be made.
    fn check_length(&self, name: &ResourceName, new: &NewEntry, limits: &Limits) -> Result<(), Error> {
        let queue = self.queues.key(name).and_then(|key| self.queues.get(key));
        let (waiting, arriving) = queue.map_or((0, 0), |queue| (queue.entries.waiting(), queue.arriving));
        let max = length_max(new, limits);
        let may_drop = new.overflow == Overflow::DropOldest && arriving < max as usize;
        if waiting + arriving < max as usize || may_drop {
            return Ok(());
        }
        let resource =
            if max == limits.work_queue_length_max { "work_queue_length_max" } else { "max_length" };
        let mut error = Error::quota(resource, max.into()).with_hint("try again when some were taken");
        error.message = format!("queue {name} is full: {}", error.message);
        Err(error)
    }

    /// Takes the room for an entry.
    fn arrive_in(
        &mut self,
        now: Instant,
        key: QueueKey,
        uid: u32,
        new: NewEntry,
        limits: &Limits,
    ) -> Arrival {
        let number = self.next_token(now);
        let (is_named, delay) = (new.id.is_some(), new.delay);
        let victims = self.find_victims(key, length_max(&new, limits) as usize);
        let entry = Entry {
            id: new.id.unwrap_or_else(|| number.to_string()).into(),
            payload: new.payload,
            priority: new.priority,
            max_deliveries: new.max_deliveries,
            deliveries: 0,
            put_at: now,
            sender: new.sender,
            uid,
            death: None,
            durability: new.durability,
            state: State::Ready,
        };
        self.queues.charge_entry(&entry);
        if let Some(queue) = self.queues.get_mut(key) {
            queue.arriving += 1;
            if is_named {
                queue.arriving_ids.insert(entry.id.clone(), (number, entry.durability));
            }
        }
        Arrival { queue: key, number, entry, delay, is_named, victims }
    }

    /// Those that make room for one more. They are nobody's from here on.
    fn find_victims(&mut self, key: QueueKey, max: usize) -> Vec<(u64, State)> {
        let mut victims = Vec::new();
        while let Some(queue) = self.queues.get(key)
            && queue.entries.waiting() + queue.arriving >= max
            && let Some(number) = queue.entries.first_to_drop()
        {
            victims.extend(self.move_entry(key, number, State::Leaving).map(|before| (number, before)));
        }
        victims
    }

    /// The entry is there, and the asker is told.
    pub(super) fn publish_put(&mut self, now: Instant, asker: &Asker, arrival: Arrival) {
        let Arrival { queue: key, number, entry, delay, is_named, victims } = arrival;
        self.drop_victims(key, &victims);
        let (id, durability) = (entry.id.to_string(), entry.durability);
        if is_named {
            self.remember_id(now, key, Name { id: &id, number, uid: entry.uid, durability });
        }
        if let Some(queue) = self.queues.get_mut(key) {
            queue.arriving -= 1;
            queue.arriving_ids.remove(&entry.id);
            queue.entries.insert(number, entry);
            queue.tally.puts += 1;
        }
        if !delay.is_zero() {
            self.move_entry(key, number, State::Delayed(now + delay));
        }
        let dropped = victims.len() as u32;
        self.tell_stored(asker, Stored { number, id, is_duplicate: false, dropped, durability });
        self.pump_queues(now, vec![key]);
    }

    pub(super) fn tell_stored(&mut self, asker: &Asker, stored: Stored) {
        self.effects.push_back(Effect::Enqueued { to: asker.id(), stored });
    }

    pub(super) fn remember_id(&mut self, now: Instant, key: QueueKey, name: Name<'_>) {
        let window = self.queues.window;
        let Some(queue) = self.queues.get_mut(key) else { return };
        let forgotten = queue.ids.remember(now, name, window);
        self.time_ids(key);
        self.queues.bytes.add(name.uid, ids::cost(name.id) as u64);
        self.refund_ids(now, forgotten);
    }

    /// Throws away everything that nobody is working on. The asker is told how many that were.
    ///
    /// # Errors
    /// `stale_fencing_token`, `quota_exceeded`.
    pub(in crate::broker) fn purge(
        &mut self,
        now: Instant,
        asker: Asker,
        name: &ResourceName,
        fence: Option<&Fence>,
        limits: &Limits,
    ) -> Result<(), Error> {
        self.check_fence(fence)?;
        self.check_changes(&asker, limits)?;
        let found = self.queues.key(name).and_then(|key| Some((key, self.queues.get(key)?)));
        let Some((key, queue)) = found else {
            self.effects.push_back(Effect::Purged { to: asker.id(), count: 0 });
            return Ok(());
        };
        let numbers = queue.entries.all_waiting();
        let move_out = |number: u64| Some((number, self.move_entry(key, number, State::Leaving)?));
        let victims: Vec<(u64, State)> = numbers.into_iter().filter_map(move_out).collect();
        let is_kept = self.are_kept(key, &victims);
        let fence = fence.map(|fence| fence.lock.clone());
        let purge = Kept { asker, fence, act: Act::Purge { queue: key, victims } };
        if is_kept {
            self.keep(purge);
        } else {
            self.publish_work(now, purge);
        }
        Ok(())
    }
}

fn length_max(new: &NewEntry, limits: &Limits) -> u32 {
    super::lower_of(new.max_length, limits.work_queue_length_max)
}
