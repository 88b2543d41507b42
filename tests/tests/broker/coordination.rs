//! Coordination in single scenes: limits, refusals, and what the random worlds do not reach.

use core::time::Duration;

use ipc_core::ErrorCode;
use ipc_core::limits::Limits;
use ipc_core::time::Instant;
use ipc_core::wire::codec::Wire;
use ipc_core::wire::coordination::{
    Acquire, Arrive, Bind, Campaign, Claim, Condition, Durability, Granted, Leader, LockMode, Observe,
    OfToken, Operation, PutKey, Selection, TakeLease, TakeLock, Told, Unobserve, WatchKeys,
};
use ipc_core::wire::message::{ErrorBody, Hello};
use ipc_core::wire::{Flags, Header, Kind, PREAMBLE};
use ipc_tests::disk::Disk;
use ipc_tests::memory_bus::{MemoryBus, Received};

/// Clients on a bus in memory.
pub(crate) struct Scene {
    pub(crate) bus: MemoryBus,
    last: u64,
}

impl Scene {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { bus: MemoryBus::new(limits), last: 0 }
    }

    /// A daemon that starts with what is on a disk.
    pub(crate) fn with_disk(limits: Limits, now: Instant, disk: Disk) -> Self {
        Self { bus: MemoryBus::with_disk(limits, now, disk), last: 0 }
    }

    /// One that has said hello.
    pub(crate) fn client(&mut self) -> usize {
        self.client_of(1000)
    }

    /// The same, of that user.
    pub(crate) fn client_of(&mut self, uid: u32) -> usize {
        let at = self.bus.connect(uid);
        self.bus.send(at, &PREAMBLE);
        let hello = Hello { version_min: 1, version_max: 1, features: 0, name: "test".into() };
        self.bus.say(at, Header::new(Kind::HELLO), &hello, b"");
        self.bus.client(at).take(Kind::WELCOME);
        at
    }

    /// Asks, and gives the correlation.
    pub(crate) fn ask<T: Wire>(
        &mut self,
        from: usize,
        operation: Operation,
        envelope: &T,
        payload: &[u8],
    ) -> u64 {
        self.ask_with(from, operation, 0, envelope, payload)
    }

    /// Asks with a deadline in microseconds, and gives the correlation.
    pub(crate) fn ask_with<T: Wire>(
        &mut self,
        from: usize,
        operation: Operation,
        deadline_us: u32,
        envelope: &T,
        payload: &[u8],
    ) -> u64 {
        self.last += 1;
        let mut header = Header::new(Kind::COORDINATE).with_correlation(self.last);
        header.handle.index = operation.0;
        header.deadline_us = deadline_us;
        self.bus.say(from, header, envelope, payload);
        self.last
    }

    /// Asks under a correlation that was used before.
    pub(crate) fn ask_again<T: Wire>(
        &mut self,
        from: usize,
        operation: Operation,
        correlation: u64,
        envelope: &T,
    ) {
        let mut header = Header::new(Kind::COORDINATE).with_correlation(correlation);
        header.handle.index = operation.0;
        self.bus.say(from, header, envelope, b"");
    }

    /// Asks, and gives the one outcome that comes at once, if one does.
    pub(crate) fn outcome<T: Wire>(
        &mut self,
        from: usize,
        operation: Operation,
        envelope: &T,
    ) -> Option<Result<Received, ErrorBody>> {
        let correlation = self.ask(from, operation, envelope, b"");
        self.take_outcome(from, operation, correlation)
    }

    /// Asks for what is answered at once, and gives the outcome or the code of the refusal.
    pub(crate) fn outcome_of<T: Wire>(
        &mut self,
        from: usize,
        operation: Operation,
        envelope: &T,
        payload: &[u8],
    ) -> Result<Received, ErrorCode> {
        let correlation = self.ask(from, operation, envelope, payload);
        let outcome = self.take_outcome(from, operation, correlation).expect("an outcome");
        outcome.map_err(|body| ErrorCode::from_number(body.code).expect("a code of the table"))
    }

    /// Takes the outcome of that request, if it has come, and nothing else.
    pub(crate) fn take_outcome(
        &mut self,
        from: usize,
        operation: Operation,
        correlation: u64,
    ) -> Option<Result<Received, ErrorBody>> {
        let inbox = &mut self.bus.client(from).inbox;
        let is_own =
            |frame: &Received| frame.header.kind == Kind::OUTCOME && frame.header.correlation == correlation;
        let own = inbox.iter().position(is_own)?;
        let outcome = inbox.remove(own);
        assert_eq!(outcome.header.handle.index, operation.0);
        if outcome.header.flags.contains(Flags::ERROR) {
            return Some(Err(outcome.decode()));
        }
        Some(Ok(outcome))
    }

    /// The code of the refusal, or none.
    fn code<T: Wire>(&mut self, from: usize, operation: Operation, envelope: &T) -> Option<ErrorCode> {
        let refused = self.outcome(from, operation, envelope)?.err()?;
        ErrorCode::from_number(refused.code)
    }

    /// The resource that a refusal names, or none.
    pub(crate) fn limit<T: Wire>(
        &mut self,
        from: usize,
        operation: Operation,
        envelope: &T,
    ) -> Option<String> {
        self.outcome(from, operation, envelope)?.err()?.resource.map(|resource| resource.0)
    }
}

pub(crate) fn claim(wait: bool) -> Claim {
    Claim { wait, ttl_us: 0, delay_us: 0, owner: 0, durability: None }
}

pub(crate) fn lock(name: &str, wait: bool) -> TakeLock {
    TakeLock { name: name.into(), mode: LockMode::Exclusive, claim: claim(wait) }
}

#[test]
fn what_one_connection_holds_is_limited() {
    let mut scene = Scene::new(Limits { holds_per_connection_max: 3, ..Limits::default() });
    let client = scene.client();
    for number in 0..5 {
        let refused = scene.limit(client, Operation::LOCK, &lock(&format!("a{number}"), true));
        let is_over = number >= 3;
        assert_eq!(refused.as_deref(), is_over.then_some("holds_per_connection_max"), "{number}");
    }
}

#[test]
fn what_one_connection_waits_for_is_limited() {
    let mut scene = Scene::new(Limits { waits_per_connection_max: 3, ..Limits::default() });
    let (holder, client) = (scene.client(), scene.client());
    assert!(scene.outcome(holder, Operation::LOCK, &lock("a", true)).unwrap().is_ok());
    for number in 0..5 {
        let refused = scene.limit(client, Operation::LOCK, &lock("a", true));
        assert_eq!(refused.as_deref(), (number >= 3).then_some("waits_per_connection_max"), "{number}");
    }
}

#[test]
fn those_who_wait_for_one_thing_are_limited() {
    let mut scene = Scene::new(Limits { waiters_per_resource_max: 3, ..Limits::default() });
    let client = scene.client();
    assert!(scene.outcome(client, Operation::LOCK, &lock("a", true)).unwrap().is_ok());
    for number in 0..5 {
        let refused = scene.limit(client, Operation::LOCK, &lock("a", true));
        assert_eq!(refused.as_deref(), (number >= 3).then_some("waiters_per_resource_max"), "{number}");
    }
    let arrive = Arrive { name: "b".into(), parties: 9, wait: true };
    for number in 0..5 {
        let refused = scene.limit(client, Operation::ARRIVE, &arrive);
        assert_eq!(refused.as_deref(), (number >= 3).then_some("waiters_per_resource_max"), "{number}");
    }
}

#[test]
fn the_things_there_are_at_a_time_are_limited_and_none_is_left_behind() {
    let mut scene = Scene::new(Limits { resources_max: 3, ..Limits::default() });
    let client = scene.client();
    let arrive = |number: u32| Arrive { name: format!("a{number}").as_str().into(), parties: 2, wait: true };
    assert!(scene.outcome(client, Operation::ARRIVE, &arrive(0)).is_none());
    let observe = Observe { name: "e".into() };
    assert!(scene.outcome(client, Operation::OBSERVE, &observe).unwrap().is_ok());
    let observation = scene.last;
    for number in 0..3 {
        let refused = scene.limit(client, Operation::LOCK, &lock(&format!("a{number}"), true));
        assert_eq!(refused.as_deref(), (number >= 1).then_some("resources_max"), "{number}");
    }
    assert_eq!(scene.limit(client, Operation::ARRIVE, &arrive(1)).as_deref(), Some("resources_max"));
    // One that only its last observer knew is gone with it.
    assert!(scene.outcome(client, Operation::UNOBSERVE, &Unobserve { observation }).unwrap().is_ok());
    assert_eq!(
        scene.code(client, Operation::UNOBSERVE, &Unobserve { observation }),
        Some(ErrorCode::InvalidArgument)
    );
    assert!(scene.outcome(client, Operation::LOCK, &lock("a1", true)).unwrap().is_ok());
    scene.bus.leave(client);
    assert!(scene.bus.broker.gates(scene.bus.now).is_empty() && scene.bus.broker.barriers().is_empty());
    assert!(scene.bus.broker.usage().is_empty() && scene.bus.broker.poll_timeout().is_none());
}

#[test]
fn observations_of_one_connection_are_limited() {
    let mut scene = Scene::new(Limits { observations_per_connection_max: 3, ..Limits::default() });
    let client = scene.client();
    for number in 0..5 {
        let refused = scene.limit(client, Operation::OBSERVE, &Observe { name: "e".into() });
        assert_eq!(
            refused.as_deref(),
            (number >= 3).then_some("observations_per_connection_max"),
            "{number}"
        );
    }
}

#[test]
fn leases_values_and_watches_have_their_limits() {
    let mut scene = Scene::new(Limits {
        detached_leases_per_uid_max: 2,
        key_value_max_bytes: 3,
        key_watches_per_connection_max: 2,
        ..Limits::default()
    });
    let client = scene.client();
    let lease = TakeLease { bind: Bind::Time, ttl_us: 1_000_000, durability: None };
    for number in 0..4 {
        let refused = scene.limit(client, Operation::LEASE, &lease);
        assert_eq!(refused.as_deref(), (number >= 2).then_some("detached_leases_per_uid_max"), "{number}");
    }
    let condition = Condition::Any;
    let put = PutKey { key: "a".into(), condition, ttl_us: 0, lease: 0, fence: None, durability: None };
    for (value, expected) in [("xx", None), ("xxx", None), ("xxxx", Some(ErrorCode::PayloadTooLarge))] {
        let outcome = scene.outcome_of(client, Operation::PUT, &put, value.as_bytes());
        assert_eq!(outcome.err(), expected, "{value}");
    }
    let watch = WatchKeys { selection: Selection::Prefix { prefix: "b".into() }, from: None };
    for number in 0..4 {
        let refused = scene.limit(client, Operation::WATCH, &watch);
        assert_eq!(refused.as_deref(), (number >= 2).then_some("key_watches_per_connection_max"), "{number}");
    }
}

#[test]
fn keys_and_their_bytes_have_their_limits() {
    let put = |scene: &mut Scene, client, key: &str, value: &str| {
        let key = key.into();
        let put =
            PutKey { key, condition: Condition::Any, ttl_us: 0, lease: 0, fence: None, durability: None };
        let correlation = scene.ask(client, Operation::PUT, &put, value.as_bytes());
        let outcome = scene.take_outcome(client, Operation::PUT, correlation).expect("an outcome");
        outcome.err().and_then(|refused| refused.resource).map(|resource| resource.0)
    };
    // A key costs its name, its value and 200 bytes.
    let mut scene = Scene::new(Limits { key_bytes_per_uid_max: 1024, ..Limits::default() });
    let client = scene.client();
    for (length, refused) in [(822, None), (823, None), (824, Some("key_bytes_per_uid_max")), (823, None)] {
        assert_eq!(put(&mut scene, client, "a", &"x".repeat(length)).as_deref(), refused, "{length}");
    }
    assert_eq!(put(&mut scene, client, "b", "").as_deref(), Some("key_bytes_per_uid_max"));

    let mut scene = Scene::new(Limits { keys_max: 2, ..Limits::default() });
    let client = scene.client();
    for (key, refused) in [("a", None), ("b", None), ("c", Some("keys_max")), ("a", None)] {
        assert_eq!(put(&mut scene, client, key, "x").as_deref(), refused, "{key}");
    }
}

#[test]
fn permits_parties_delays_and_values_have_their_ranges() {
    let mut scene = Scene::new(Limits::default());
    let client = scene.client();
    let invalid = Some(ErrorCode::InvalidArgument);
    for (permits, count, expected) in [
        (0, 1, invalid),
        (1, 0, invalid),
        (1, 1, None),
        (2, 3, invalid),
        (65_536, 65_536, None),
        (65_537, 1, invalid),
    ] {
        let name = format!("s{permits}").as_str().into();
        let acquire = Acquire { name, permits, count, claim: claim(false) };
        assert_eq!(scene.code(client, Operation::ACQUIRE, &acquire), expected, "{count} of {permits}");
    }
    for (parties, expected) in [(0, invalid), (1, None), (65_536, Some(ErrorCode::Busy)), (65_537, invalid)] {
        let arrive = Arrive { name: "b".into(), parties, wait: false };
        assert_eq!(scene.code(client, Operation::ARRIVE, &arrive), expected, "{parties}");
    }
    let hour = 3_600_000_000;
    for (delay_us, expected) in [(hour - 1, None), (hour, None), (hour + 1, invalid)] {
        let claim = Claim { delay_us, ..claim(false) };
        let name = format!("d{delay_us}").as_str().into();
        let lock = TakeLock { name, mode: LockMode::Exclusive, claim };
        assert_eq!(scene.code(client, Operation::LOCK, &lock), expected, "{delay_us}");
    }
    for (length, fits) in [(4095, true), (4096, true), (4097, false)] {
        let campaign = Campaign { name: format!("e{length}").as_str().into(), claim: claim(false) };
        scene.ask(client, Operation::CAMPAIGN, &campaign, &vec![b'x'; length]);
        let outcome = scene.bus.client(client).take(Kind::OUTCOME).remove(0);
        assert_eq!(outcome.header.flags.contains(Flags::ERROR), !fits, "{length}");
    }
}

#[test]
fn more_than_memory_is_not_pretended() {
    let mut scene = Scene::new(Limits::default());
    let client = scene.client();
    for (durability, refused) in [
        (None, None),
        (Some(Durability::Memory), None),
        (Some(Durability::Os), Some(ErrorCode::Unsupported)),
        (Some(Durability::Disk), Some(ErrorCode::Unsupported)),
    ] {
        let claim = Claim { durability, ..claim(false) };
        let lock = TakeLock {
            name: format!("{durability:?}").replace(['(', ')'], "-").as_str().into(),
            mode: LockMode::Exclusive,
            claim,
        };
        let outcome = scene.outcome(client, Operation::LOCK, &lock).unwrap();
        match refused {
            None => assert_eq!(outcome.unwrap().decode::<Granted>().durability, Durability::Memory),
            Some(code) => {
                let error = outcome.unwrap_err();
                assert!(error.code == code.number() && error.hint.is_some(), "{error:?}");
            }
        }
    }
}

#[test]
fn an_operation_from_the_future_is_refused_and_one_without_an_answer_grants_nothing() {
    let mut scene = Scene::new(Limits::default());
    let client = scene.client();
    assert_eq!(scene.code(client, Operation(4_000), &lock("a", true)), Some(ErrorCode::Unsupported));
    let mut header = Header::new(Kind::COORDINATE);
    header.handle.index = Operation::LOCK.0;
    scene.bus.say(client, header, &lock("a", true), b"");
    assert!(scene.bus.client(client).inbox.is_empty() && scene.bus.broker.gates(scene.bus.now).is_empty());
    // A payload where there is none is no refusal.
    header.correlation = 99;
    scene.bus.say(client, header, &lock("a", true), b"x");
    assert!(scene.bus.client(client).is_closed);
}

#[test]
fn who_can_say_nothing_more_keeps_nothing_from_others() {
    let mut scene = Scene::new(Limits::default());
    let (holder, waiter) = (scene.client(), scene.client());
    assert!(scene.outcome(holder, Operation::LOCK, &lock("a", true)).unwrap().is_ok());
    assert!(scene.outcome(waiter, Operation::LOCK, &lock("a", true)).is_none());
    scene.bus.end_input(holder);
    assert!(scene.bus.client(holder).is_closed);
    assert_eq!(scene.bus.client(waiter).take(Kind::OUTCOME).len(), 1);
}

#[test]
fn an_observer_that_does_not_read_is_told_that_it_has_ended() {
    let mut scene = Scene::new(Limits { queue_per_connection_max_bytes: 8192, ..Limits::default() });
    let (leader, observer) = (scene.client(), scene.client());
    let observe = Observe { name: "e".into() };
    assert_eq!(
        scene.outcome(observer, Operation::OBSERVE, &observe).unwrap().unwrap().decode::<Leader>().token,
        0
    );
    scene.bus.client(observer).reads = false;
    let campaign = Campaign { name: "e".into(), claim: claim(true) };
    let granted = scene.outcome(leader, Operation::CAMPAIGN, &campaign).unwrap().unwrap();
    let token = granted.decode::<Granted>().token;
    for _ in 0..10 {
        scene.ask(leader, Operation::PROCLAIM, &OfToken { token }, &[b'x'; 2000]);
    }
    scene.bus.resume(observer);
    let told: Vec<u32> = scene
        .bus
        .client(observer)
        .take(Kind::NOTICE)
        .iter()
        .map(|notice| notice.header.handle.index)
        .collect();
    assert_eq!(told.last(), Some(&Told::OBSERVATION_LOST.0));
    assert!(told.len() < 10 && told[..told.len() - 1].iter().all(|told| *told == Told::LEADER.0), "{told:?}");
    assert_eq!(scene.bus.broker.gates(scene.bus.now)[0].observers, 0);
}

#[test]
fn a_thousand_who_wait_get_it_one_after_the_other() {
    let limits = Limits {
        connections_per_uid_max: 2000,
        unauthenticated_per_uid_max: 2000,
        connections_per_uid_per_second_max: 5000,
        ..Limits::default()
    };
    let mut scene = Scene::new(limits);
    let clients: Vec<usize> = (0..1000).map(|_| scene.client()).collect();
    for client in &clients {
        scene.outcome(*client, Operation::LOCK, &lock("a", true));
    }
    let mut last = 0;
    for client in clients.into_iter().skip(1) {
        let holder = scene.bus.broker.gates(scene.bus.now)[0].holders[0].clone();
        assert!(holder.token > last);
        last = holder.token;
        let first = scene.bus.client(client - 1).key();
        let rows = scene.bus.broker.peers();
        assert_eq!(rows.iter().find(|row| row.key == first).map(|row| row.holds), Some(1));
        scene.bus.leave(client - 1);
        assert_eq!(scene.bus.client(client).take(Kind::OUTCOME).len(), 1);
    }
}

#[test]
fn a_time_to_live_ends_at_its_time_and_not_before() {
    let mut scene = Scene::new(Limits::default());
    let (holder, waiter) = (scene.client(), scene.client());
    let timed = Claim { ttl_us: 1_000_000, delay_us: 500_000, ..claim(true) };
    let lock = TakeLock { name: "a".into(), mode: LockMode::Exclusive, claim: timed };
    let token = scene.outcome(holder, Operation::LOCK, &lock).unwrap().unwrap().decode::<Granted>().token;
    assert!(scene.outcome(waiter, Operation::LOCK, &lock).is_none());
    let tick = Duration::from_nanos(1);
    scene.bus.wait(Duration::from_secs(1) - tick);
    assert!(scene.bus.client(holder).take(Kind::NOTICE).is_empty());
    assert!(scene.outcome(holder, Operation::RENEW, &OfToken { token }).unwrap().is_ok());
    scene.bus.wait(Duration::from_secs(1) - tick);
    assert!(scene.bus.client(holder).take(Kind::NOTICE).is_empty());
    scene.bus.wait(tick);
    assert_eq!(scene.bus.client(holder).take(Kind::NOTICE).len(), 1);
    scene.bus.wait(Duration::from_millis(500) - tick);
    assert!(scene.bus.client(waiter).take(Kind::OUTCOME).is_empty());
    scene.bus.wait(tick);
    assert_eq!(scene.bus.client(waiter).take(Kind::OUTCOME).len(), 1);
}
