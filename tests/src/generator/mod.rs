//! Everything that can happen in the simulated world, as one enum, and a seeded generator of it.
//!
//! A [`Step`] holds all that it needs: it means the same in every world, or nothing where it does not apply (a reply
//! without a call). So a list of steps can be played again, and steps can be left out of it.

mod action;
mod coordination;
mod keys;
mod limits;
mod way;

use ipc_core::limits::Limits;
use ipc_core::wire::SHARE_MIN_BYTES;

pub use self::action::Action;
use self::action::{Verb, WEIGHTS};
pub use self::coordination::Claimed;
pub use self::keys::{Since, When, Will};
pub use self::limits::small_limits;
pub use self::way::Way;
use crate::model::REIGNS;
use crate::rng::Rng;
use crate::world::World;

/// Simulated clients in every world.
pub const CLIENTS: usize = 6;

/// Simulated clients over datagrams in every world.
pub const COURIERS: usize = 3;

/// The names that clients offer and call; few, so that they meet.
pub const SERVICES: [&str; 4] = ["a", "a.b", "a.c", "b.c"];
/// Names of methods; a service with n methods has the first n.
pub const METHODS: [&str; 3] = ["m0", "m1", "m2"];
/// Topics that clients publish on.
pub const TOPICS: [&str; 7] = ["a", "b", "a.b", "a.c", "b.c", "a.b.c", "a.b.d"];
/// Names of locks and the like.
pub const RESOURCES: [&str; 4] = ["a", "a/b", "c.d", "ipc/e"];
/// Names of keys.
pub const KEYS: [&str; 6] = ["a", "a/b", "a/c", "b", "c.d", "ipc/e"];
/// Filters for subscriptions and watches.
pub const FILTERS: [&str; 10] = ["a", "a.b", "b.c", "a.*", "*.c", "*", "a.>", ">", "*.*", "a.*.c"];
/// Users that clients run as; the last two share one.
pub const UIDS: [u32; CLIENTS] = [1000, 1000, 1001, 1001, 1002, 1003];

/// One thing that happens, and the seed of how the bytes flow afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which client does it, or has it done to it.
    pub slot: usize,
    /// What it is.
    pub action: Action,
    /// Decides how far bytes flow in this step.
    pub seed: u64,
}

/// A method or topic handle as a client names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    /// The index.
    pub index: u32,
    /// Whether to name a generation that the index does not have.
    pub is_stale: bool,
}

/// Draws steps that suit a world.
#[derive(Debug)]
pub struct Generator {
    rng: Rng,
    drawn: usize,
    /// How often each action is proposed in this world: some are left out and some come in heaps, because what is
    /// rare among everything else is found by doing little else.
    weights: Vec<(u64, Verb)>,
    /// At which step the daemon is asked to stop, in the few worlds where it is.
    stops_at: usize,
}

impl Generator {
    /// The generator of one seed, for a run of `steps` steps.
    pub fn new(mut rng: Rng, steps: usize) -> Self {
        let stops_at = if rng.chance(1, 8) { steps - steps / 10 } else { usize::MAX };
        let mut scale = |verb: Verb| match verb {
            Verb::Register | Verb::Resolve | Verb::OpenTopic | Verb::Call | Verb::Reply | Verb::Publish => {
                *rng.pick(&[1, 1, 3])
            }
            _ => *rng.pick(&[0, 1, 1, 4]),
        };
        let weights = WEIGHTS.iter().map(|(weight, verb)| (weight * scale(*verb), *verb)).collect();
        Self { rng, drawn: 0, weights, stops_at }
    }

    /// The next step.
    pub fn next(&mut self, world: &World) -> Step {
        self.drawn += 1;
        let (slot, action) = self.draw(world);
        Step { slot, action, seed: self.rng.next_u64() }
    }

    fn draw(&mut self, world: &World) -> (usize, Action) {
        if self.drawn == self.stops_at {
            return (0, Action::BeginDrain);
        }
        if self.drawn > self.stops_at && self.rng.chance(1, 20) {
            return (0, Action::EndDrain);
        }
        let slots: Vec<usize> = (0..CLIENTS).collect();
        let is_there = |slot: &usize| world.knows(*slot).is_some();
        let away: Vec<usize> = slots.iter().copied().filter(|slot| !is_there(slot)).collect();
        if world.is_disk_dead() && self.rng.chance(1, 30) {
            return (0, self.crash());
        }
        // When there is nobody, they come sooner.
        let hurry = if away.len() == slots.len() { 8 } else { 1 };
        if !away.is_empty() && self.rng.chance(hurry, 16) {
            return (*self.rng.pick(&away), self.connect());
        }
        let is_new = |slot: &usize| world.knows(*slot).is_some_and(|knows| !knows.has_greeted);
        let new: Vec<usize> = slots.iter().copied().filter(is_new).collect();
        if !new.is_empty() && self.rng.chance(1, 3) {
            return (*self.rng.pick(&new), self.hello());
        }
        let is_nameless = |slot: &usize| world.knows(*slot).is_some_and(|knows| !knows.has_identified);
        let nameless: Vec<usize> = slots.iter().copied().filter(is_nameless).collect();
        if !nameless.is_empty() && self.rng.chance(1, 12) {
            return (*self.rng.pick(&nameless), Action::Identify);
        }
        let verb = *self.rng.weighted(&self.weights);
        let able: Vec<usize> = slots.iter().copied().filter(|slot| suits(world, *slot, verb)).collect();
        if able.is_empty() && self.rng.chance(7, 8) {
            let slot = self.rng.index(CLIENTS);
            return (slot, self.fill(world, slot, groundwork(verb)));
        }
        let slot = if able.is_empty() { self.rng.index(CLIENTS) } else { *self.rng.pick(&able) };
        (slot, self.fill(world, slot, verb))
    }

    fn connect(&mut self) -> Action {
        let way = match self.rng.index(20) {
            0 => Way::Exposed(self.rng.index(SERVICES.len())),
            1..=3 => Way::Tcp,
            _ => Way::Local,
        };
        let capacity = *self.rng.pick(&[16, 100, 1000, 5000, 100_000, 100_000]);
        Action::Connect { way, capacity }
    }

    fn hello(&mut self) -> Action {
        let (version_min, version_max) =
            *self.rng.weighted(&[(40, (1, 1)), (20, (1, 9)), (1, (2, 9)), (1, (0, 0))]);
        Action::Hello { version_min, version_max, revocation: self.rng.chance(1, 2) }
    }

    fn fill(&mut self, world: &World, slot: usize, verb: Verb) -> Action {
        match verb {
            Verb::Connect => self.connect(),
            Verb::Hello => self.hello(),
            Verb::Register | Verb::Unregister | Verb::Resolve | Verb::OpenTopic | Verb::Release => {
                self.names_and_handles(world, verb)
            }
            Verb::Call
            | Verb::Oneway
            | Verb::Reply
            | Verb::ReplyError
            | Verb::ReplyTwice
            | Verb::Forge
            | Verb::Cancel => self.calls(world, slot, verb),
            Verb::Publish | Verb::Subscribe | Verb::Unsubscribe | Verb::Watch | Verb::Unwatch => {
                self.events(world, slot, verb)
            }
            Verb::DatagramCall
            | Verb::DatagramPublish
            | Verb::DatagramAbandon
            | Verb::Weather
            | Verb::DoorRestart => self.datagrams(world, verb),
            Verb::Claim
            | Verb::Arrive
            | Verb::Lease
            | Verb::OfHold
            | Verb::CancelWait
            | Verb::Identify
            | Verb::Proclaim
            | Verb::Observe
            | Verb::Unobserve => self.coordination(verb),
            Verb::Put
            | Verb::DeleteKey
            | Verb::Transact
            | Verb::GetKey
            | Verb::ListKeys
            | Verb::WatchKeys
            | Verb::UnwatchKeys => self.keys(verb),
            Verb::DiskAnswers => Action::DiskAnswers,
            Verb::DiskFills => Action::DiskFills { is_full: self.rng.chance(1, 3) },
            Verb::DiskDies => Action::DiskDies,
            Verb::Crash => self.crash(),
            Verb::Flood => Action::Flood,
            Verb::Ping => Action::Ping { payload: self.rng.length(64) },
            Verb::Advance => {
                let micros = self.rng.below(*self.rng.clone().pick(&[100, 5_000, 200_000]));
                Action::Advance { micros, at_once: self.rng.chance(1, 4) }
            }
            Verb::RunOut => Action::RunOut,
            Verb::Stall => Action::Stall,
            Verb::Unstall => Action::Unstall,
            Verb::Trickle => Action::Trickle,
            Verb::Untrickle => Action::Untrickle,
            Verb::Cut => Action::Cut { up: self.rng.length(500), down: self.rng.length(500) },
            Verb::HalfClose => Action::HalfClose,
            Verb::Disconnect => Action::Disconnect,
            Verb::SayClose => Action::SayClose,
            Verb::Drain => Action::Drain,
            Verb::Reload => Action::Reload { reign: self.rng.index(REIGNS.len()) },
            Verb::BeginDrain => Action::BeginDrain,
            Verb::EndDrain => Action::EndDrain,
            Verb::Garbage
            | Verb::UnknownKind
            | Verb::WrongKind
            | Verb::Malformed
            | Verb::Oversized
            | Verb::BadName => self.mischief(verb),
        }
    }

    fn names_and_handles(&mut self, world: &World, verb: Verb) -> Action {
        let rng = &mut self.rng;
        let held: Vec<usize> =
            (0..SERVICES.len()).filter(|at| world.model.has_service(SERVICES[*at])).collect();
        let is_resolve = verb == Verb::Resolve && !held.is_empty() && rng.chance(7, 8);
        let service = if is_resolve { *rng.pick(&held) } else { rng.index(SERVICES.len()) };
        let index = rng.below(u64::from(world.limits().handles_per_connection_max.min(10)) + 1) as u32;
        match verb {
            Verb::Register => Action::Register {
                service,
                // The same name is mostly asked for in the same way, so that groups and queues come about.
                group: (service % 2 == 1) != rng.chance(1, 12),
                queue: rng.chance(1, 2),
                methods: if rng.chance(1, 20) { 0 } else { rng.index(METHODS.len()) + 1 },
            },
            Verb::Unregister => Action::Unregister { nth: nth(rng, 8) },
            Verb::Resolve => {
                Action::Resolve { index, service, method: *rng.weighted(&[(6, 0), (3, 1), (1, 2)]) }
            }
            Verb::OpenTopic => Action::OpenTopic { index, topic: rng.index(TOPICS.len()) },
            _ => Action::Release { at: Index { index, is_stale: rng.chance(1, 10) } },
        }
    }

    fn calls(&mut self, world: &World, slot: usize, verb: Verb) -> Action {
        let rng = &mut self.rng;
        let payload = payload(rng, world.limits());
        let at = handle(rng, world, &world.method_handles(slot));
        match verb {
            Verb::Call => {
                let deadline_us = *rng.pick(&[0, 0, 1, 500, 3_000, 50_000, 3_600_000_000]);
                Action::Call { at, payload, deadline_us, again: rng.chance(1, 60) }
            }
            Verb::Oneway => Action::Oneway { at, payload },
            Verb::Reply => Action::Reply { nth: rng.index(4), payload },
            Verb::ReplyError => Action::ReplyError { nth: rng.index(4) },
            Verb::ReplyTwice => Action::ReplyTwice { nth: rng.index(4) },
            Verb::Forge => Action::Forge { victim: rng.index(CLIENTS), nth: nth(rng, 4) },
            _ => Action::Cancel { nth: nth(rng, 8) },
        }
    }

    fn events(&mut self, world: &World, slot: usize, verb: Verb) -> Action {
        let rng = &mut self.rng;
        let limits = world.limits();
        let filter = rng.index(FILTERS.len());
        match verb {
            Verb::Publish => Action::Publish {
                at: handle(rng, world, &world.topic_handles(slot)),
                payload: payload(rng, limits),
                acknowledged: rng.chance(1, 2),
            },
            Verb::Subscribe => Action::Subscribe {
                filter,
                events_max: rng.below(u64::from(limits.queue_events_per_subscription_max) + 2) as u32,
                bytes_max: *rng.pick(&[0, 0, 1, 500, 2000, limits.queue_bytes_per_subscription_max + 1]),
                again: rng.chance(1, 20),
            },
            Verb::Unsubscribe => Action::Unsubscribe { nth: nth(rng, 8) },
            Verb::Watch => Action::Watch { filter, again: rng.chance(1, 20) },
            _ => Action::Unwatch { nth: nth(rng, 8) },
        }
    }

    fn datagrams(&mut self, world: &World, verb: Verb) -> Action {
        let rng = &mut self.rng;
        let held: Vec<usize> =
            (0..SERVICES.len()).filter(|at| world.model.has_service(SERVICES[*at])).collect();
        let is_served = !held.is_empty() && rng.chance(15, 16);
        match verb {
            Verb::DatagramCall => Action::DatagramCall {
                service: if is_served { *rng.pick(&held) } else { rng.index(SERVICES.len()) },
                method: *rng.weighted(&[(6, 0), (3, 1), (1, 2)]),
                payload: payload(rng, world.limits()),
                deadline_us: *rng.pick(&[1, 3_000, 50_000, 2_000_000]),
                oneway: rng.chance(1, 8),
            },
            Verb::DatagramPublish => {
                Action::DatagramPublish { topic: rng.index(TOPICS.len()), payload: rng.length(100) }
            }
            Verb::Weather => Action::Weather {
                lost_percent: *rng.pick(&[0, 20, 50, 100]),
                doubled_percent: *rng.pick(&[0, 5, 50]),
                reorders: rng.chance(1, 2),
            },
            Verb::DoorRestart => Action::DoorRestart,
            _ => Action::DatagramAbandon,
        }
    }

    fn mischief(&mut self, verb: Verb) -> Action {
        let rng = &mut self.rng;
        match verb {
            Verb::Garbage => {
                let len = rng.length(200).max(40);
                Action::Garbage { bytes: rng.bytes(len) }
            }
            Verb::UnknownKind => Action::UnknownKind { kind: *rng.pick(&[0x04, 0x7f, 0x90, 0xff]) },
            Verb::WrongKind => Action::WrongKind {
                kind: *rng.pick(&[0x02, 0x09, 0x21, 0x22, 0x36, 0x50, 0x60, 0x71, 0x72, 0x73]),
            },
            Verb::Malformed => {
                let len = rng.length(8);
                Action::Malformed {
                    kind: *rng.pick(&[0x30, 0x32, 0x40, 0x41, 0x42, 0x34, 0x35]),
                    envelope: rng.bytes(len),
                }
            }
            Verb::Oversized => Action::Oversized { over: *rng.pick(&[1, 1000, u32::MAX]) },
            _ => Action::BadName { what: rng.index(5) },
        }
    }
}

/// What to do instead of something that nobody can do yet.
fn groundwork(verb: Verb) -> Verb {
    match verb {
        Verb::Call | Verb::Oneway | Verb::Cancel => Verb::Resolve,
        Verb::Reply | Verb::ReplyError | Verb::ReplyTwice | Verb::Forge => Verb::Call,
        Verb::Publish => Verb::OpenTopic,
        Verb::Unregister => Verb::Register,
        Verb::Unsubscribe => Verb::Subscribe,
        Verb::OfHold | Verb::CancelWait | Verb::Proclaim => Verb::Claim,
        Verb::Unobserve => Verb::Observe,
        Verb::UnwatchKeys => Verb::WatchKeys,
        Verb::DiskAnswers => Verb::Put,
        Verb::Unwatch => Verb::Watch,
        _ => Verb::Drain,
    }
}

/// Whether a client can do it so that it comes to something.
fn suits(world: &World, slot: usize, verb: Verb) -> bool {
    let Some(knows) = world.knows(slot) else { return false };
    match verb {
        Verb::Reply | Verb::ReplyError | Verb::ReplyTwice => !knows.inbound.is_empty(),
        Verb::Forge => (0..CLIENTS)
            .any(|other| other != slot && world.knows(other).is_some_and(|knows| !knows.inbound.is_empty())),
        Verb::Call | Verb::Oneway => !world.method_handles(slot).is_empty(),
        Verb::Publish => !world.topic_handles(slot).is_empty(),
        Verb::Cancel => !knows.outbound.is_empty(),
        Verb::Unregister => !knows.registrations.is_empty(),
        Verb::Unsubscribe => !knows.subscriptions.is_empty(),
        Verb::OfHold | Verb::Proclaim => !knows.holds.is_empty(),
        Verb::Unobserve => !knows.observations.is_empty(),
        Verb::UnwatchKeys => !knows.key_watches.is_empty(),
        Verb::DiskAnswers => world.is_disk_busy(),
        Verb::CancelWait => !knows.waits.is_empty(),
        Verb::Unwatch => !knows.watches.is_empty(),
        Verb::Flood => {
            let link = world.link(slot);
            world.limits().payload_max_bytes >= 1500
                && link.is_some_and(|link| link.down.is_stalled && link.up.read_max > 1)
        }
        Verb::Unstall => world.link(slot).is_some_and(|link| link.down.is_stalled),
        Verb::Untrickle => world.link(slot).is_some_and(|link| link.up.read_max == 1),
        _ => true,
    }
}

/// Mostly a handle that stands for something.
fn handle(rng: &mut Rng, world: &World, live: &[u32]) -> Index {
    let max = u64::from(world.limits().handles_per_connection_max.min(10));
    let is_live = !live.is_empty() && rng.chance(15, 16);
    Index {
        index: if is_live { *rng.pick(live) } else { rng.below(max) as u32 },
        is_stale: rng.chance(1, 60),
    }
}

fn nth(rng: &mut Rng, wrong: u64) -> Option<usize> {
    if rng.chance(1, wrong) { None } else { Some(rng.index(4)) }
}

fn payload(rng: &mut Rng, limits: &Limits) -> usize {
    // Long enough to be passed on by reference, where that is allowed.
    let max = (limits.payload_max_bytes as usize).min(2 * SHARE_MIN_BYTES);
    if rng.chance(2, 3) { rng.length(100.min(max)) } else { rng.length(max) }
}
