//! What is held on the disk, under faults of the kernel: killed at one call or another, refused by the disk. Nobody loses what he was
//! told that he has, nobody else gets it, and no token is given twice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ipc_core::ErrorCode;
use ipc_core::wire::codec::Wire;
use ipc_core::wire::coordination::{
    Bind, Claim, Durability, Granted, Identified, Identify, LockMode, OfToken, Operation, TakeLease,
    TakeLock, TakenUp, Told,
};
use ipc_core::wire::{Header, Kind};
use ipc_tests::daemon::Daemon;
use ipc_tests::raw::{RawFrame, RawPeer, frame, greeting};

use super::store::Place;
use super::store_faults::{CALLS, Traced, can_inject};

/// Locks of the script; every second one is given back at once. More than the start has syncs, because each thread's are counted by
/// themselves.
const LOCKS: usize = 16;
/// Locks until a call fails: more than the start has calls, because each thread's are counted by themselves.
const LOCKS_MAX: usize = 100;
/// How long the disk may take to come back.
const BACK_MAX: Duration = Duration::from_secs(5);

const OURS: Identify = Identify { secret: *b"of this script's" };
const THEIRS: Identify = Identify { secret: *b"of somebody else" };

/// A session made of frames, so that it can come back under its own secret.
struct Session {
    peer: RawPeer,
    last: u64,
    /// Grants that it was told of when it came: name and token.
    taken_up: BTreeMap<u64, String>,
}

/// Why there is no outcome, or none that was wished for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Gone,
    Refused(ErrorCode),
}

impl Session {
    fn begin(daemon: &Daemon, secret: &Identify) -> Result<Self, Trouble> {
        let mut peer = RawPeer::connect(&daemon.socket());
        if !peer.try_send(&greeting("script")) {
            return Err(Trouble::Gone);
        }
        peer.receive().ok_or(Trouble::Gone)?;
        let mut session = Self { peer, last: 0, taken_up: BTreeMap::new() };
        let identified: Identified = session.ask(Operation::IDENTIFY, secret)?.decode();
        assert_eq!(session.taken_up.len(), identified.holds as usize);
        Ok(session)
    }

    fn ask<T: Wire>(&mut self, operation: Operation, envelope: &T) -> Result<RawFrame, Trouble> {
        self.last += 1;
        let mut header = Header::new(Kind::COORDINATE).with_correlation(self.last);
        header.handle.index = operation.0;
        if !self.peer.try_send(&frame(header, envelope, &[])) {
            return Err(Trouble::Gone);
        }
        loop {
            let answer = self.peer.receive().ok_or(Trouble::Gone)?;
            if answer.header.kind == Kind::NOTICE && answer.header.handle.index == Told::TAKEN_UP.0 {
                let TakenUp { token, name, .. } = answer.decode();
                self.taken_up.insert(token, name.0);
            }
            if answer.header.kind == Kind::OUTCOME {
                assert_eq!(answer.header.correlation, self.last);
                return answer.error().map_or(Ok(answer), |error| Err(Trouble::Refused(error.code)));
            }
        }
    }

    fn lock(&mut self, name: &str) -> Result<u64, Trouble> {
        let durability = Some(Durability::Disk);
        let claim = Claim { wait: false, ttl_us: 0, delay_us: 0, owner: 0, durability };
        let lock = TakeLock { name: name.into(), mode: LockMode::Exclusive, claim };
        self.ask(Operation::LOCK, &lock).map(|granted| granted.decode::<Granted>().token)
    }

    fn lease(&mut self) -> Result<u64, Trouble> {
        let lease = TakeLease { bind: Bind::Session, ttl_us: 60_000_000, durability: Some(Durability::Disk) };
        self.ask(Operation::LEASE, &lease).map(|granted| granted.decode::<Granted>().token)
    }

    fn release(&mut self, token: u64) -> Result<(), Trouble> {
        self.ask(Operation::RELEASE, &OfToken { token }).map(drop)
    }
}

fn name(number: usize) -> String {
    format!("script/{number}")
}

/// What the script has been told.
#[derive(Debug, Default)]
struct Known {
    /// What it holds: the names of locks, none for a lease.
    held: BTreeMap<u64, String>,
    given_back: BTreeMap<u64, String>,
    /// What it has asked for last, if that was not answered.
    open: Option<String>,
}

impl Known {
    /// The highest token that it knows.
    fn last(&self) -> u64 {
        self.held.keys().chain(self.given_back.keys()).max().copied().unwrap_or(0)
    }
}

/// Takes a lease, and one lock after the other, and gives every second one back, until something fails.
fn hold_all(session: &mut Session, locks: usize, known: &mut Known) -> Result<(), Trouble> {
    known.open = Some(String::new());
    let lease = session.lease()?;
    known.held.insert(lease, String::new());
    for number in 0..locks {
        known.open = Some(name(number));
        let token = session.lock(&name(number))?;
        assert!(token > known.last(), "{token} after {known:?}");
        known.held.insert(token, name(number));
        known.open = None;
        if number % 2 == 1 {
            let released = session.release(token);
            // Whoever is not told may have given it back.
            known.held.remove(&token);
            known.given_back.insert(token, name(number));
            released?;
        }
    }
    Ok(())
}

/// A daemon that was started again gives the session what it was told that it holds, and nobody else anything of it.
fn check(place: &Place, known: &Known, what: &str) {
    let daemon = place.start();
    let mut session = Session::begin(&daemon, &OURS).expect("the daemon answers");
    for (token, name) in &known.held {
        assert_eq!(session.taken_up.get(token), Some(name), "{what}: token {token} was held");
    }
    for (token, name) in &session.taken_up {
        let is_given_back = known.given_back.get(token) == Some(name);
        let is_open = known.open.as_ref() == Some(name) && *token > known.last();
        assert!(
            known.held.contains_key(token) || is_given_back || is_open,
            "{what}: token {token} of {name} is new"
        );
    }
    let mut other = Session::begin(&daemon, &THEIRS).expect("the daemon answers");
    assert!(other.taken_up.is_empty());
    let mut last = session.taken_up.keys().max().copied().unwrap_or(0).max(known.last());
    for number in 0..LOCKS {
        let is_held = session.taken_up.values().any(|held| *held == name(number));
        match other.lock(&name(number)) {
            Ok(token) => {
                assert!(!is_held && token > last, "{what}: token {token} of lock {number} after {last}");
                last = token;
            }
            Err(trouble) => {
                assert!(is_held && trouble == Trouble::Refused(ErrorCode::Busy), "{what}: {trouble:?}");
            }
        }
    }
    for token in session.taken_up.clone().into_keys() {
        assert_eq!(session.release(token), Ok(()), "{what}: it has what it was told");
    }
}

/// Runs the script against a daemon that is killed when it makes that call for the `when`th time. Says whether it was, while
/// something was held.
fn run_killed_at(call: &str, when: usize) -> (bool, bool) {
    let place = Place::new();
    let mut known = Known::default();
    let mut was_killed = true;
    if let Some(daemon) = Traced::start(&place, &format!("{call}:signal=SIGKILL:when={when}")) {
        let held = Session::begin(&daemon.0, &OURS).and_then(|mut session| {
            hold_all(&mut session, LOCKS, &mut known)?;
            // Its end would give back what it holds.
            std::mem::forget(session);
            Ok(())
        });
        match held {
            Ok(()) => was_killed = !daemon.stop(),
            Err(trouble) => assert_eq!(trouble, Trouble::Gone, "{call} {when}"),
        }
    }
    check(&place, &known, &format!("killed at {call} {when}"));
    (was_killed, !known.held.is_empty())
}

#[test]
fn killed_at_any_call_of_its_store_a_daemon_leaves_everybody_what_he_holds() {
    if !can_inject() {
        return;
    }
    let stride = if std::env::var_os("IPC_TEST_LONG").is_some() { 1 } else { 4 };
    let mut kills_with_holds = 0;
    for call in CALLS {
        for when in (1..).step_by(stride) {
            let (was_killed, has_held) = run_killed_at(call, when);
            if !was_killed {
                break;
            }
            kills_with_holds += u32::from(has_held);
        }
    }
    assert!(kills_with_holds > 0, "it was never killed while something was held");
}

/// Runs the script until a call fails so. Gives what it knew then, with the daemon and the session, which goes on.
fn run_until_fault(call: &str, error: &str) -> (Place, Traced, Session, Known) {
    // The first of these calls are those of the start.
    for when in 1..100 {
        let place = Place::new();
        let fault = format!("{call}:error={error}:when={when}");
        let Some(daemon) = Traced::start(&place, &fault) else { continue };
        let Ok(mut session) = Session::begin(&daemon.0, &OURS) else { continue };
        let mut known = Known::default();
        match hold_all(&mut session, LOCKS_MAX, &mut known) {
            Err(Trouble::Refused(ErrorCode::StorageFailed)) if known.held.len() > 1 => {
                return (place, daemon, session, known);
            }
            Err(Trouble::Refused(ErrorCode::StorageFailed)) | Ok(()) => {}
            Err(trouble) => panic!("{fault}: {trouble:?}"),
        }
    }
    panic!("no {call} of a grant has failed");
}

/// Whoever was refused holds nothing, and who held something holds it still. After a failed sync nobody knows what is on the disk:
/// nothing more is granted until the next start, when its session may be told of the one that was refused, and gives it back.
#[test]
fn what_is_refused_for_the_disk_is_held_by_nobody() {
    if !can_inject() {
        return;
    }
    for (call, error) in [("fdatasync", "EIO"), ("pwrite64", "ENOSPC")] {
        let (place, daemon, mut session, known) = run_until_fault(call, error);
        let refused = known.open.clone().expect("something was refused");
        let begun = Instant::now();
        let token = loop {
            match session.lock(&refused) {
                Ok(token) => break Some(token),
                Err(trouble) => assert_eq!(trouble, Trouble::Refused(ErrorCode::StorageFailed)),
            }
            if error == "EIO" {
                break None;
            }
            assert!(begun.elapsed() < BACK_MAX, "the disk has room and is not written to");
        };
        assert_eq!(token.is_some(), error == "ENOSPC", "{error}");
        let mut known = known;
        if let Some(token) = token {
            assert!(token > known.last(), "{token} after {known:?}");
            known.held.insert(token, refused);
            known.open = None;
        }
        for token in known.held.keys() {
            session.ask(Operation::RENEW, &OfToken { token: *token }).expect("it holds it still");
        }
        std::mem::forget(session);
        drop(daemon);
        check(&place, &known, error);
    }
}
