//! The story: everything that a client can receive, once, from a real broker.

use core::time::Duration;

use ipc_core::error::ErrorCode;
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::wire::codec::List;
use ipc_core::wire::coordination::{Condition, Observe, Operation, PutKey, Selection, WatchKeys};
use ipc_core::wire::message::{
    ErrorBody, Hello, MethodInfo, OnSlow, OpenTopic, Register, RegisterMode, Resolve, Subscribe, WatchNames,
};
use ipc_core::wire::{Decoder, FEATURE_REVOCATION, Flags, FrameLimits, Kind, PREAMBLE};
use ipc_tests::memory_bus::{EPOCH, MemoryBus};
use ipc_tests::model::{Model, Queues, REIGNS, Snapshot, policy};
use ipc_tests::world::{Arrival, Draft, Seen};

pub(super) const SHOP: usize = 0;
pub(super) const BUSY: usize = 1;
pub(super) const FREE: usize = 2;
pub(super) const GUEST: usize = 3;
pub(super) const OTHER: usize = 4;
pub(super) const WATCHER: usize = 5;
pub(super) const PUBLISHER: usize = 6;
pub(super) const READER: usize = 7;
pub(super) const SLOW: usize = 8;
pub(super) const HEIR: usize = 9;
pub(super) const VANDAL: usize = 10;
/// They lose what they have when the rules change. The old ones cannot be told of one thing.
pub(super) const TENANT: usize = 11;
pub(super) const OLD_TENANT: usize = 12;
pub(super) const LISTENER: usize = 13;
pub(super) const OBSERVER: usize = 14;
pub(super) const OLD_OBSERVER: usize = 15;
/// They keep keys, and are different users.
pub(super) const HOARDER: usize = 16;
pub(super) const LATECOMER: usize = 17;
pub(super) const PEOPLE: usize = 18;

/// Which of [`REIGNS`] takes something away.
const REIGN: usize = 2;

/// Who that is, as the rules tell people apart.
fn uid_of(who: usize) -> u32 {
    match who {
        OBSERVER | OLD_OBSERVER => 101,
        LISTENER => 102,
        TENANT | OLD_TENANT => 103,
        _ => 1000 + (who as u32 % 2),
    }
}

/// What everybody has received, in order.
pub(super) type Heard = Vec<Vec<Seen>>;

/// A broker, the model beside it, and what was received but not yet told to the model.
pub(super) struct Trial {
    bus: MemoryBus,
    model: Model,
    heard: Heard,
    /// What the shop was asked and has not answered.
    asked: Vec<Seen>,
    said: u64,
}

impl Trial {
    pub(super) fn new() -> Self {
        let limits = Limits { keys_max: 4, ..Limits::default() };
        let heard = vec![Vec::new(); PEOPLE];
        Self {
            bus: MemoryBus::with_policy(limits.clone(), policy(0)),
            model: Model::new(limits, EPOCH, false),
            heard,
            asked: Vec::new(),
            said: 0,
        }
    }

    fn arrives(&mut self, who: usize) {
        let uid = uid_of(who);
        let identity = Identity::Local { uid, gid: uid, pid: 100 + who as u32 };
        assert_eq!(self.bus.connect(uid), who);
        let arrival = Arrival { slot: who, identity, only: None, capacity: usize::MAX, is_visitor: false };
        let snapshot = Snapshot::of(&self.bus.broker);
        self.model.connect(self.bus.now, who, &arrival, None, &snapshot).expect("it may come in");
        self.bus.send(who, &PREAMBLE);
        let is_modern = matches!(who, TENANT | LISTENER | OBSERVER);
        let features = if is_modern { FEATURE_REVOCATION } else { 0 };
        let hello = Hello { version_min: 1, version_max: 1, features, name: "witness".into() };
        self.say(who, Draft::new(Kind::HELLO).envelope(&hello));
    }

    /// Says something, to the broker and to the model. Gives the number it was said under.
    fn say(&mut self, who: usize, draft: Draft) -> u64 {
        self.said += 1;
        self.say_under(who, draft, self.said);
        self.said
    }

    fn say_under(&mut self, who: usize, draft: Draft, correlation: u64) {
        let bytes = draft.correlation(correlation).to_bytes();
        let limits = FrameLimits { payload_max_bytes: u32::MAX, frame_max_bytes: None };
        let mut decoder = Decoder::new(limits);
        let mut rest = &bytes[..];
        let frame = decoder.next(&mut rest).expect("a frame").expect("all of it");
        let seen = Seen::of(&frame);
        let before = Queues::of(&self.bus.broker);
        self.bus.send(who, &bytes);
        let after = Queues::of(&self.bus.broker);
        self.model.frame(self.bus.now, who, &seen, &before, &after).expect("the broker decides as it should");
        self.listen();
    }

    /// Takes what has come. The shop's share goes to the model at once, because it answers what it has been told.
    fn listen(&mut self) {
        for who in 0..self.heard.len().min(self.said as usize) {
            let frames = core::mem::take(&mut self.bus.client(who).inbox);
            let seen = frames.into_iter().map(|frame| Seen {
                header: frame.header,
                envelope: frame.envelope,
                payload: frame.payload,
            });
            self.heard[who].extend(seen);
        }
        for seen in core::mem::take(&mut self.heard[SHOP]) {
            self.model.received(self.bus.now, SHOP, &seen).expect("nobody has lied to the shop");
            if seen.kind() == Kind::CALL {
                self.asked.push(seen);
            }
        }
    }

    fn wait_ms(&mut self, millis: u64) {
        self.bus.wait(Duration::from_millis(millis));
        self.model.timeout(self.bus.now);
        self.listen();
    }

    fn reconcile(&mut self) {
        let queues = Queues::of(&self.bus.broker);
        self.model.reconcile(&queues).expect("the broker decides as it should");
        self.listen();
    }

    fn leaves(&mut self, who: usize) {
        self.bus.leave(who);
        self.model.disconnect(self.bus.now, who);
        self.reconcile();
    }

    fn breaks_the_protocol(&mut self, who: usize) {
        self.bus.send(who, &[0xff; 64]);
        self.model.violation(self.bus.now, who);
        self.is_closed(who);
    }

    fn is_closed(&mut self, who: usize) {
        self.model.closing(who).expect("there is a reason");
        self.model.disconnect(self.bus.now, who);
        self.reconcile();
    }

    fn registers(&mut self, who: usize, service: &str, mode: RegisterMode, queue: bool) {
        let methods = List(vec![MethodInfo { name: "m".into(), description: "".into() }]);
        let register = Register { service: service.into(), mode, queue, methods };
        self.say(who, Draft::new(Kind::REGISTER).envelope(&register));
    }

    fn resolves(&mut self, who: usize, index: u32, service: &str) {
        let resolve = Resolve { service: service.into(), method: "m".into() };
        self.say(who, Draft::new(Kind::RESOLVE).handle(index, 1).envelope(&resolve));
    }

    fn calls(&mut self, who: usize, index: u32, payload: &str, deadline_us: u32) -> u64 {
        let draft = Draft::new(Kind::CALL).handle(index, 1).payload(payload.as_bytes());
        self.say(who, draft.deadline_us(deadline_us))
    }

    fn subscribes(&mut self, who: usize, filter: &str, queue_events_max: u32) {
        let (filter, on_slow) = (filter.into(), OnSlow::DropOldest);
        let subscribe = Subscribe { filter, on_slow, queue_events_max, queue_bytes_max: 0 };
        self.say(who, Draft::new(Kind::SUBSCRIBE).envelope(&subscribe));
    }

    /// The shop answers all that it was asked, the last with an error.
    fn answers(&mut self) {
        let calls = core::mem::take(&mut self.asked);
        for (at, call) in calls.iter().enumerate() {
            let mut draft = Draft::new(Kind::REPLY).payload(&[b"answer to ", &call.payload[..]].concat());
            if at + 1 == calls.len() {
                let error = ErrorBody::from(&ipc_core::Error::new(ErrorCode::Application, "closing time"));
                draft = draft.flags(Flags::ERROR).envelope(&error);
            }
            self.say_under(SHOP, draft, call.header.correlation);
        }
    }

    /// Everything a client can receive, once.
    pub(super) fn play(&mut self) {
        for who in 0..PEOPLE {
            self.arrives(who);
        }
        self.say(WATCHER, Draft::new(Kind::WATCH_NAMES).envelope(&WatchNames { filter: ">".into() }));
        self.registers(SHOP, "shop", RegisterMode::Exclusive, false);
        self.registers(HEIR, "shop", RegisterMode::Exclusive, true);
        self.registers(BUSY, "group", RegisterMode::Group, false);
        self.registers(FREE, "group", RegisterMode::Group, false);
        for (who, index, service) in [
            (GUEST, 0, "shop"),
            (GUEST, 1, "group"),
            (GUEST, 2, "nowhere"),
            (OTHER, 0, "shop"),
            (OTHER, 1, "group"),
        ] {
            self.resolves(who, index, service);
        }
        self.calls(GUEST, 0, "first", 0);
        self.calls(GUEST, 0, "second", 0);
        self.calls(OTHER, 0, "third", 0);
        self.calls(GUEST, 0, "fourth", 0);
        self.answers();
        // The busy one gets the first and the third, the free one the second and the fourth.
        self.calls(GUEST, 1, "to the busy one", 100_000);
        self.calls(GUEST, 1, "to the free one", 0);
        let regretted = self.calls(OTHER, 1, "to the busy one, cancelled", 0);
        self.calls(GUEST, 1, "to the free one again", 0);
        self.say_under(OTHER, Draft::new(Kind::CANCEL), regretted);
        self.wait_ms(100);

        self.subscribes(READER, "news", 0);
        self.subscribes(SLOW, "news", 2);
        let open = Draft::new(Kind::OPEN_TOPIC).handle(0, 1);
        self.say(PUBLISHER, open.envelope(&OpenTopic { topic: "news".into() }));
        self.publishes("1");
        self.bus.client(SLOW).reads = false;
        for number in ["2", "3", "4", "5", "6"] {
            self.publishes(number);
        }
        self.bus.resume(SLOW);
        self.leaves(SHOP);
        self.breaks_the_protocol(VANDAL);
        self.rights_are_lost();
        self.keys_are_shared();
    }

    /// Other rules take something away from everybody who has it.
    fn rights_are_lost(&mut self) {
        let is_denied = |gid: u32, verb: &str, name: &str| REIGNS[REIGN].contains(&(gid, verb, name));
        assert!(is_denied(103, "own", "a.b") && is_denied(102, "subscribe", "b.c"));
        assert!(is_denied(101, "coordinate", "c.d"));
        for who in [TENANT, OLD_TENANT] {
            self.registers(who, "a.b", RegisterMode::Group, false);
        }
        self.subscribes(LISTENER, "b.c", 0);
        for who in [OBSERVER, OLD_OBSERVER] {
            self.coordinates(who, Operation::OBSERVE, |draft| {
                draft.envelope(&Observe { name: "c.d".into() })
            });
            let watch = WatchKeys { selection: Selection::Key { key: "c.d".into() }, from: None };
            self.coordinates(who, Operation::WATCH, |draft| draft.envelope(&watch));
        }
        self.bus.set_policy(policy(REIGN));
        self.model.reload(self.bus.now, REIGN);
        self.reconcile();
        self.is_closed(OLD_TENANT);
    }

    /// Of four keys one user gets two, and another one the next.
    fn keys_are_shared(&mut self) {
        for (who, key) in
            [(HOARDER, "k1"), (HOARDER, "k2"), (HOARDER, "k3"), (LATECOMER, "k3"), (LATECOMER, "k4")]
        {
            let (key, condition) = (key.into(), Condition::Any);
            let put = PutKey { key, condition, ttl_us: 0, lease: 0, fence: None, durability: None };
            self.coordinates(who, Operation::PUT, |draft| draft.envelope(&put).payload(b"value"));
        }
    }

    fn coordinates(&mut self, who: usize, operation: Operation, what: impl FnOnce(Draft) -> Draft) {
        self.say(who, what(Draft::new(Kind::COORDINATE).handle(operation.0, 0)));
    }

    fn publishes(&mut self, payload: &str) {
        self.say(PUBLISHER, Draft::new(Kind::PUBLISH).handle(0, 1).payload(payload.as_bytes()));
    }

    /// What the model says of it all.
    pub(super) fn verdict(mut self, lie: impl FnOnce(&mut Heard, &mut Snapshot)) -> Result<(), String> {
        let mut snapshot = Snapshot::of(&self.bus.broker);
        lie(&mut self.heard, &mut snapshot);
        for (who, frames) in self.heard.iter().enumerate().filter(|(who, _)| *who != SHOP) {
            for seen in frames {
                self.model.received(self.bus.now, who, seen)?;
            }
            self.model.is_complete(who)?;
        }
        self.model.audit(&snapshot)
    }
}
