//! What is held over a restart of the daemon, as the session sees it.

use super::*;
use crate::limits::HOLD_TAKE_UP_MAX;
use crate::name::ResourceName;
use crate::wire::coordination::{Granted, Identified, Identify, OfToken, Operation, TakeLock, TakenUp, Told};

const TTL: Duration = Duration::from_secs(60);
const SECRET: [u8; SECRET_BYTES] = *b"sixteen of these";

fn operation(header: &Header) -> Operation {
    assert_eq!(header.kind, Kind::COORDINATE);
    Operation(header.handle.index)
}

impl Pair {
    fn named() -> Self {
        let mut pair = Self::greeting();
        let config = Config { secret: Some(Secret::new(SECRET)), ..Config::default() };
        pair.session = Session::connect(config, pair.now);
        pair.welcome(1);
        pair
    }

    fn concludes<T: Wire>(&mut self, operation: Operation, correlation: u64, envelope: &T) {
        let mut header = Header::new(Kind::OUTCOME).with_correlation(correlation);
        header.handle.index = operation.0;
        self.say(header, envelope, b"");
    }

    /// Takes a lock that the daemon grants at once.
    fn lock(&mut self, token: u64, ttl: Option<Duration>, durability: Durability) -> HoldKey {
        let wanted = Wanted::Lock { name: ResourceName::parse("l").unwrap(), shared: false };
        let options = HoldOptions { ttl, durability: Some(durability), ..HoldOptions::default() };
        let (hold, ticket) = self.session.acquire(self.now, &wanted, &options).unwrap();
        let mut asked = self.next_frame();
        if operation(&asked.0) == Operation::IDENTIFY {
            assert_eq!(asked.1, SECRET);
            self.concludes(Operation::IDENTIFY, asked.0.correlation, &Identified { holds: 0 });
            asked = self.next_frame();
        }
        assert_eq!(operation(&asked.0), Operation::LOCK);
        let ttl_us = ttl.map_or(0, |ttl| ttl.as_micros() as u64);
        self.concludes(Operation::LOCK, asked.0.correlation, &Granted { token, ttl_us, durability });
        assert_eq!(self.session.take(ticket), Some(Ok(Answer::Held)));
        hold
    }

    /// The correlation of the identify that follows the hello of a new connection.
    fn identified_again(&mut self) -> u64 {
        let (header, envelope, _) = self.next_frame();
        assert_eq!(operation(&header), Operation::IDENTIFY);
        assert_eq!(crate::wire::codec::decode::<Identify>(&envelope).unwrap().secret, SECRET);
        header.correlation
    }

    fn taken_up(&mut self, correlation: u64, token: u64, ttl: Option<Duration>) {
        let mut header = Header::new(Kind::NOTICE).with_correlation(correlation);
        header.handle.index = Told::TAKEN_UP.0;
        let ttl_us = ttl.map_or(0, |ttl| ttl.as_micros() as u64);
        let (operation, name) = (Operation::LOCK.0, "l".into());
        let durability = Durability::Disk;
        self.say(header, &TakenUp { token, operation, name, ttl_us, durability }, b"");
    }

    fn is_lost(&self, hold: HoldKey) -> bool {
        matches!(self.session.hold(hold), Some(HoldState::Lost(error)) if error.code == ErrorCode::LockLost)
    }

    fn deadline(&self, hold: HoldKey) -> Option<Instant> {
        match self.session.hold(hold) {
            Some(HoldState::Held { deadline, .. }) => *deadline,
            other => panic!("{other:?}"),
        }
    }

    fn later(&mut self, duration: Duration) {
        self.now = self.now + duration;
        self.session.handle_timeout(self.now);
    }
}

#[test]
fn a_session_names_itself_once_and_only_for_what_is_to_be_kept() {
    let mut pair = Pair::named();
    let wanted = Wanted::Lock { name: ResourceName::parse("l").unwrap(), shared: false };
    for (durability, operations) in [
        (Some(Durability::Memory), &[Operation::LOCK][..]),
        (None, &[Operation::IDENTIFY, Operation::LOCK]),
        (Some(Durability::Disk), &[Operation::LOCK]),
    ] {
        let options = HoldOptions { durability, ..HoldOptions::default() };
        pair.session.acquire(pair.now, &wanted, &options).unwrap();
        for expected in operations {
            let (header, envelope, _) = pair.next_frame();
            assert_eq!(operation(&header), *expected);
            if *expected == Operation::LOCK {
                let lock: TakeLock = crate::wire::codec::decode(&envelope).unwrap();
                assert_eq!(lock.claim.durability, durability);
            }
        }
        pair.nothing();
    }
    assert!(!format!("{:?}", pair.session).contains("sixteen"), "the secret is shown");
}

#[test]
fn what_the_daemon_still_knows_is_held_again() {
    let mut pair = Pair::named();
    let bound = pair.lock(7, None, Durability::Disk);
    let timed = pair.lock(8, Some(TTL), Durability::Os);
    let volatile = pair.lock(9, None, Durability::Memory);
    let unknown = pair.lock(10, None, Durability::Disk);
    let dropped = pair.lock(11, None, Durability::Disk);
    pair.session.handle_eof(None);
    assert!(pair.is_lost(volatile) && !pair.is_lost(bound));
    // What nobody wants any more is given back when it can be.
    pair.session.forget_hold(dropped);
    while pair.session.poll_event().is_some() {}
    pair.later(Duration::from_secs(1));
    assert_eq!(pair.deadline(bound), Some(pair.now + HOLD_TAKE_UP_MAX));
    pair.later(Duration::from_secs(1));
    pair.session.restart(pair.now);
    pair.decoder = Decoder::after_preamble(LIMITS);
    pair.received.clear();
    let asked_at = pair.now;
    pair.welcome(2);
    let correlation = pair.identified_again();
    pair.later(Duration::from_secs(1));
    pair.taken_up(correlation, 7, None);
    pair.taken_up(correlation, 8, Some(TTL));
    pair.taken_up(correlation, 11, None);
    let (header, envelope, _) = pair.next_frame();
    assert_eq!(operation(&header), Operation::RELEASE);
    assert_eq!(crate::wire::codec::decode::<OfToken>(&envelope).unwrap().token, 11);
    assert!(!pair.is_lost(unknown), "there may be more to come");
    pair.concludes(Operation::IDENTIFY, correlation, &Identified { holds: 3 });
    assert!(pair.is_lost(unknown));
    assert_eq!((pair.deadline(bound), pair.deadline(timed)), (None, Some(asked_at + TTL)));
    let events: Vec<Event> = std::iter::from_fn(|| pair.session.poll_event()).collect();
    let of_holds = events.iter().filter_map(|event| match event {
        Event::HoldTakenUp(hold) => Some((true, *hold)),
        Event::HoldLost(hold) => Some((false, *hold)),
        _ => None,
    });
    assert_eq!(of_holds.collect::<Vec<_>>(), [(true, bound), (true, timed), (false, unknown)]);
    // It goes on as if nothing had been: it is renewed in time.
    pair.later(TTL / 3);
    assert_eq!(operation(&pair.next()), Operation::RENEW);
    assert_eq!(pair.session.open_requests(), 1);
}

#[test]
fn what_nobody_confirms_by_its_deadline_is_lost() {
    let mut pair = Pair::named();
    let bound = pair.lock(7, None, Durability::Disk);
    let timed = pair.lock(8, Some(2 * HOLD_TAKE_UP_MAX), Durability::Disk);
    pair.session.handle_eof(None);
    assert_eq!(pair.session.poll_timeout(), Some(Instant::default()), "it has to learn the time");
    pair.later(Duration::ZERO);
    assert_eq!(pair.session.poll_timeout(), Some(pair.now + HOLD_TAKE_UP_MAX));
    pair.later(HOLD_TAKE_UP_MAX - Duration::from_nanos(1));
    assert!(!pair.is_lost(bound));
    pair.later(Duration::from_nanos(1));
    assert!(pair.is_lost(bound) && !pair.is_lost(timed));
    // A daemon comes that knows both: the one is given back, and the other too late.
    pair.session.restart(pair.now);
    pair.decoder = Decoder::after_preamble(LIMITS);
    pair.received.clear();
    pair.welcome(2);
    let correlation = pair.identified_again();
    pair.later(HOLD_TAKE_UP_MAX);
    assert!(pair.is_lost(timed));
    assert_eq!(operation(&pair.next()), Operation::RELEASE);
    pair.taken_up(correlation, 7, None);
    assert_eq!(operation(&pair.next()), Operation::RELEASE);
    assert!(pair.is_lost(bound));
}

#[test]
fn a_daemon_that_keeps_nothing_costs_what_was_kept() {
    let mut pair = Pair::named();
    let hold = pair.lock(7, None, Durability::Disk);
    pair.reconnect(2);
    let correlation = pair.identified_again();
    let mut header = Header { flags: Flags::ERROR, ..Header::new(Kind::OUTCOME) };
    header.handle.index = Operation::IDENTIFY.0;
    let refusal = ErrorBody::from(&Error::new(ErrorCode::Unsupported, "what is that?"));
    pair.say(header.with_correlation(correlation), &refusal, b"");
    assert!(pair.is_lost(hold));
    // It tries again with what it asks for next.
    pair.lock(9, None, Durability::Memory);
    pair.lock(10, None, Durability::Disk);
}

#[test]
fn whoever_closes_gives_back() {
    let mut pair = Pair::named();
    let hold = pair.lock(7, None, Durability::Disk);
    pair.session.close();
    assert!(pair.is_lost(hold));
    let mut pair = Pair::named();
    let hold = pair.lock(7, None, Durability::Disk);
    pair.session.handle_eof(None);
    pair.session.lose_away(&Error::new(ErrorCode::Unreachable, "there is no other connection"));
    assert!(pair.is_lost(hold));
}
