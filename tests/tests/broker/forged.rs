//! Answers that nobody was asked for, requests in the wrong state, and numbers at their ends.

use ipc_core::id::Handle;
use ipc_core::limits::Limits;
use ipc_core::wire::codec::List;
use ipc_core::wire::message::{MethodInfo, Register, RegisterMode, Resolve};
use ipc_core::wire::{Flags, Header, Kind};
use ipc_tests::golden;
use ipc_tests::memory_bus::MemoryBus;
use ipc_tests::raw::greeting;

/// Client 0 serves `a.b/m`, client 1 has bound it to the given handle, client 2 has nothing to do with it.
fn with_service(handle: Handle) -> MemoryBus {
    let mut bus = MemoryBus::new(Limits::default());
    for client in 0..3 {
        bus.connect(1000 + client);
        bus.send(client as usize, &greeting("test"));
    }
    let methods = List(vec![MethodInfo { name: "m".into(), description: "".into() }]);
    let register = Register { service: "a.b".into(), mode: RegisterMode::Exclusive, queue: false, methods };
    bus.say(0, Header::new(Kind::REGISTER).with_correlation(1), &register, &[]);
    bind(&mut bus, handle);
    for client in 0..3 {
        bus.client(client).inbox.clear();
    }
    bus
}

fn bind(bus: &mut MemoryBus, handle: Handle) {
    let resolve = Resolve { service: "a.b".into(), method: "m".into() };
    bus.say(1, Header::new(Kind::RESOLVE).with_correlation(2).with_handle(handle), &resolve, &[]);
}

fn call(bus: &mut MemoryBus, handle: Handle, correlation: u64) -> u64 {
    bus.say(1, Header::new(Kind::CALL).with_correlation(correlation).with_handle(handle), &(), b"?");
    let calls = bus.client(0).take(Kind::CALL);
    assert_eq!(calls.len(), 1, "the call arrives");
    calls[0].header.correlation
}

const HANDLE: Handle = Handle { index: 0, generation: 1 };

#[test]
fn a_reply_of_somebody_else_reaches_nobody_whatever_its_number() {
    let mut bus = with_service(HANDLE);
    let asked = call(&mut bus, HANDLE, 9);
    let near = (0..64).flat_map(|bit| [asked ^ (1 << bit), 1 << bit]);
    let small = 0..4096;
    let high = (0..256).map(|number| u64::MAX - number);
    let slots = (0..64).flat_map(|slot| (0..64).map(move |generation| generation << 32 | slot));
    for correlation in near.chain(small).chain(high).chain(slots).chain([asked]) {
        for forger in [1, 2] {
            bus.say(forger, Header::new(Kind::REPLY).with_correlation(correlation), &(), b"forged");
        }
        if correlation != asked {
            bus.say(0, Header::new(Kind::REPLY).with_correlation(correlation), &(), b"wrong");
        }
    }
    assert!(bus.client(1).take(Kind::REPLY).is_empty() && bus.client(2).inbox.is_empty());
    bus.say(0, Header::new(Kind::REPLY).with_correlation(asked), &(), b"true");
    bus.say(0, Header::new(Kind::REPLY).with_correlation(asked), &(), b"again");
    let replies = bus.client(1).take(Kind::REPLY);
    assert_eq!(replies.len(), 1);
    assert_eq!((replies[0].header.correlation, &*replies[0].payload), (9, &b"true"[..]));
    assert!((0..3).all(|client| !bus.client(client).is_closed), "to guess wrong is no violation");
}

#[test]
fn the_number_of_a_call_is_not_given_twice_in_a_row() {
    let mut bus = with_service(HANDLE);
    let mut given = std::collections::BTreeSet::new();
    for correlation in 0..20_000 {
        let asked = call(&mut bus, HANDLE, correlation);
        assert!(given.insert(asked), "{asked} was given before");
        bus.say(0, Header::new(Kind::REPLY).with_correlation(asked), &(), b"");
    }
    assert_eq!(bus.client(1).take(Kind::REPLY).len(), 20_000);
}

#[test]
fn numbers_at_their_ends_are_numbers() {
    let last = Handle { index: Limits::default().handles_per_connection_max - 1, generation: u16::MAX };
    let mut bus = with_service(last);
    for correlation in [u64::MAX, u64::MAX - 1, 1 << 63] {
        let asked = call(&mut bus, last, correlation);
        bus.say(0, Header::new(Kind::REPLY).with_correlation(asked), &(), b"");
        assert_eq!(bus.client(1).take(Kind::REPLY)[0].header.correlation, correlation);
    }
    // After the last generation comes the first.
    let wrapped = Handle { generation: last.generation.wrapping_add(1), ..last };
    bind(&mut bus, wrapped);
    call(&mut bus, wrapped, 5);
    bus.say(1, Header::new(Kind::CALL).with_correlation(6).with_handle(last), &(), b"?");
    let stale = bus.client(1).take(Kind::REPLY);
    assert!(stale[0].header.flags.contains(Flags::ERROR) && stale[0].header.correlation == 6);
}

/// Every frame that there is, from a client in every state. Another client is served all the same.
#[test]
fn every_request_in_every_state_leaves_others_alone() {
    for vector in golden::vectors() {
        for state in ["new", "greeted", "ended", "closed", "draining", "gone"] {
            let mut bus = with_service(HANDLE);
            let client = bus.connect(7);
            if state != "new" {
                bus.send(client, &greeting("test"));
            } else {
                bus.send(client, &ipc_core::wire::PREAMBLE);
            }
            match state {
                "ended" => bus.end_input(client),
                "closed" => bus.send(client, &[0xff; 40]),
                "draining" => bus.broker.begin_drain(),
                "gone" => bus.leave(client),
                _ => {}
            }
            for _ in 0..3 {
                bus.send(client, &vector.bytes);
            }
            bus.say(2, Header::new(Kind::PING).with_correlation(3), &(), b"");
            assert_eq!(bus.client(2).take(Kind::PONG).len(), 1, "{} while {state}", vector.name);
            bus.leave(2);
        }
    }
}
