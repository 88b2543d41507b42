//! Calls under the token of a lock: whoever has lost it since has nothing done any more.

use ipc_core::ErrorCode;
use ipc_core::limits::Limits;
use ipc_core::wire::coordination::{Claim, Fence, Granted, LockMode, OfToken, Operation, TakeLock};
use ipc_core::wire::{Flags, Header, Kind};
use ipc_daemon::broker::{Policy, Rule};
use ipc_tests::users::FewUsers;

use crate::bus::{Bus, METHOD, Who};

impl Bus {
    /// Takes a lock that is free, and gives its token.
    fn locks(&mut self, who: Who, name: &str) -> u64 {
        let claim = Claim { wait: false, ttl_us: 0, delay_us: 0, owner: 0, durability: None };
        let lock = TakeLock { name: name.into(), mode: LockMode::Exclusive, claim };
        let mut header = Header::new(Kind::COORDINATE);
        header.handle.index = Operation::LOCK.0;
        self.say(who, header, &lock, b"");
        let outcome = self.take(who, Kind::OUTCOME).pop().expect("an outcome");
        assert!(!outcome.header.flags.contains(Flags::ERROR), "the lock is free");
        outcome.decode::<Granted>().token
    }

    fn unlocks(&mut self, who: Who, token: u64) {
        let mut header = Header::new(Kind::COORDINATE);
        header.handle.index = Operation::RELEASE.0;
        self.say(who, header, &OfToken { token }, b"");
        self.take(who, Kind::OUTCOME);
    }

    /// Says under what the next call is made.
    fn fences(&mut self, who: Who, lock: &str, token: u64) {
        self.say(who, Header::new(Kind::FENCE), &Fence { lock: lock.into(), token }, b"");
    }
}

#[test]
fn a_call_under_a_token_is_handed_on_until_somebody_else_has_the_lock() {
    let mut bus = Bus::new();
    let [shop, one, two] = bus.people();
    bus.serves(shop, "shop.tea");
    let first = bus.locks(one, "till");
    bus.fences(one, "till", first);
    let order = bus.calls(one, "shop.tea", "one green");
    let call = bus.call_of(shop);
    bus.replies(shop, &call, "here");
    assert_eq!(bus.outcome(one, order), Some(Ok("here".to_owned())));
    // Nobody has got it since it was given back: the token is still the last.
    bus.unlocks(one, first);
    bus.fences(one, "till", first);
    bus.calls(one, "shop.tea", "another");
    bus.call_of(shop);
    let second = bus.locks(two, "till");
    bus.fences(one, "till", first);
    let late = bus.calls(one, "shop.tea", "too late");
    assert_eq!(bus.outcome(one, late), Some(Err(ErrorCode::StaleFencingToken)));
    for (lock, token) in [("till", second + 1), ("unknown", second)] {
        bus.fences(two, lock, token);
        let invented = bus.calls(two, "shop.tea", "");
        assert_eq!(bus.outcome(two, invented), Some(Err(ErrorCode::StaleFencingToken)), "{lock} {token}");
    }
    assert!(bus.calls_of(shop).is_empty(), "the service never heard of them");
    bus.fences(two, "till", second);
    bus.calls(two, "shop.tea", "mine now");
    assert_eq!(bus.call_of(shop).payload, b"mine now");
}

#[test]
fn a_fence_is_for_the_next_call_and_the_last_one_counts() {
    let mut bus = Bus::new();
    let [shop, one] = bus.people();
    bus.serves(shop, "shop.tea");
    let token = bus.locks(one, "till");
    let handle = bus.resolve(one, "shop.tea", METHOD).expect("it is there");
    bus.fences(one, "till", token - 1);
    let refused = bus.calls_through(one, handle, "");
    assert_eq!(bus.outcome(one, refused), Some(Err(ErrorCode::StaleFencingToken)));
    bus.calls_through(one, handle, "behind it");
    assert_eq!(bus.call_of(shop).payload, b"behind it");
    bus.fences(one, "till", token - 1);
    bus.fences(one, "till", token);
    bus.calls_through(one, handle, "in time");
    assert_eq!(bus.call_of(shop).payload, b"in time");
    // A name that is none is the call's error, and no reason to end the connection.
    bus.fences(one, "no//name", token);
    let wrong = bus.calls_through(one, handle, "");
    assert_eq!(bus.outcome(one, wrong), Some(Err(ErrorCode::InvalidArgument)));
    // Nobody is told of one that wants no answer.
    bus.fences(one, "till", token - 1);
    let oneway = Header { flags: Flags::ONEWAY, ..Header::new(Kind::CALL).with_handle(handle) };
    bus.memory.say(one, oneway, &(), b"");
    assert!(bus.calls_of(shop).is_empty() && bus.memory.client(one).inbox.is_empty());
}

#[test]
fn whoever_may_not_have_the_lock_may_not_call_under_it() {
    let mut bus = Bus::new();
    let rules = ["allow uid:1000 * >", "deny anyone coordinate till", "allow anyone * >"];
    let rules = rules.iter().zip(1..).map(|(text, line)| Rule::parse(text, line, &FewUsers).expect("a rule"));
    bus.memory = ipc_tests::memory_bus::MemoryBus::with_policy(
        Limits::default(),
        Policy::new(rules.collect(), Vec::new()),
    );
    let (shop, other) = (bus.arrives(1000), bus.arrives(1001));
    bus.serves(shop, "shop.tea");
    let token = bus.locks(shop, "till");
    bus.fences(other, "till", token);
    let refused = bus.calls(other, "shop.tea", "");
    assert_eq!(bus.outcome(other, refused), Some(Err(ErrorCode::PermissionDenied)));
    assert!(bus.calls_of(shop).is_empty());
}
