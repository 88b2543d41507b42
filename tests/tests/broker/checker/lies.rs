//! The lies: one thing each that a bus must never do.

use ipc_core::error::ErrorCode;
use ipc_core::wire::codec::{self, Wire};
use ipc_core::wire::message::{
    Close, ErrorBody, Gap, IdentityInfo, NameChange, NameChanged, PeerInfo, Published, Registered, Revoked,
    RevokedWhat, Subscribed, TopicInfo, Welcome,
};
use ipc_core::wire::{Flags, Kind};
use ipc_tests::model::Snapshot;
use ipc_tests::world::Seen;

use super::story::{
    BUSY, FREE, GUEST, HEIR, HOARDER, Heard, LATECOMER, LISTENER, OBSERVER, OLD_OBSERVER, OLD_TENANT, OTHER,
    PUBLISHER, READER, SLOW, TENANT, VANDAL, WATCHER,
};

/// Where the frame of that kind stands.
fn at(heard: &Heard, who: usize, kind: Kind, nth: usize) -> usize {
    let mut places = heard[who].iter().enumerate().filter(|(_, seen)| seen.kind() == kind);
    places.nth(nth).unwrap_or_else(|| panic!("{who} has no {nth}. {}", kind.name())).0
}

fn lose(heard: &mut Heard, who: usize, kind: Kind, nth: usize) -> Seen {
    let at = at(heard, who, kind, nth);
    heard[who].remove(at)
}

fn double(heard: &mut Heard, who: usize, kind: Kind, nth: usize) {
    let at = at(heard, who, kind, nth);
    let again = heard[who][at].clone();
    heard[who].insert(at + 1, again);
}

fn swap(heard: &mut Heard, who: usize, one: (Kind, usize), other: (Kind, usize)) {
    let (one, other) = (at(heard, who, one.0, one.1), at(heard, who, other.0, other.1));
    heard[who].swap(one, other);
}

/// Changes a frame.
fn change(heard: &mut Heard, who: usize, kind: Kind, nth: usize, how: impl FnOnce(&mut Seen)) {
    let at = at(heard, who, kind, nth);
    how(&mut heard[who][at]);
}

/// Changes what a frame's envelope says.
fn rewrite<T: Wire>(heard: &mut Heard, who: usize, kind: Kind, nth: usize, how: impl FnOnce(&mut T)) {
    change(heard, who, kind, nth, |seen| {
        let mut body: T = seen.decode().expect("the envelope is what the kind says");
        how(&mut body);
        seen.envelope.clear();
        codec::encode_into(&body, &mut seen.envelope).expect("an envelope can be encoded");
    });
}

/// Somebody is told what somebody else is told, as an answer to its own request.
fn tell_instead(heard: &mut Heard, who: usize, kind: Kind, nth: usize, of: (usize, Kind, usize)) {
    let other = heard[of.0][at(heard, of.0, of.1, of.2)].clone();
    change(heard, who, kind, nth, |seen| {
        let correlation = seen.header.correlation;
        *seen = other;
        seen.header.correlation = correlation;
    });
}

/// What would be wrong, and how it would look.
pub(super) type Lie<T> = (&'static str, fn(&mut T));

pub(super) const ABOUT_CALLS: &[Lie<Heard>] = &[
    ("a reply comes twice", |h| double(h, GUEST, Kind::REPLY, 0)),
    ("a reply is lost", |h| drop(lose(h, GUEST, Kind::REPLY, 0))),
    ("replies of one service change places", |h| swap(h, GUEST, (Kind::REPLY, 0), (Kind::REPLY, 1))),
    ("a reply goes to the wrong caller", |h| {
        let reply = lose(h, GUEST, Kind::REPLY, 0);
        h[OTHER].push(reply);
    }),
    ("two callers get each other's reply", |h| {
        let (of_guest, of_other) = (at(h, GUEST, Kind::REPLY, 0), at(h, OTHER, Kind::REPLY, 0));
        let payload = core::mem::take(&mut h[GUEST][of_guest].payload);
        let payload = core::mem::replace(&mut h[OTHER][of_other].payload, payload);
        h[GUEST][of_guest].payload = payload;
    }),
    ("a reply answers another call", |h| {
        change(h, GUEST, Kind::REPLY, 0, |seen| seen.header.correlation += 1);
    }),
    ("a reply says something else", |h| change(h, GUEST, Kind::REPLY, 0, |seen| seen.payload[0] ^= 1)),
    ("a reply names somebody else", |h| change(h, GUEST, Kind::REPLY, 0, |seen| seen.header.sender += 1)),
    ("an error looks like a success", |h| {
        change(h, GUEST, Kind::REPLY, 2, |seen| seen.header.flags = Flags::NONE);
    }),
    ("a call ends before its time", |h| {
        let late = at(h, GUEST, Kind::REPLY, 3);
        let mut early = h[GUEST][late].clone();
        early.header.correlation += 1;
        h[GUEST].push(early);
    }),
    ("a deadline is called something else", |h| {
        rewrite::<ErrorBody>(h, GUEST, Kind::REPLY, 3, |body| body.code = ErrorCode::Cancelled.number());
    }),
    ("an error says nothing", |h| {
        rewrite::<ErrorBody>(h, GUEST, Kind::REPLY, 3, |body| body.message = "".into());
    }),
    ("a missing service is called a missing method", |h| {
        rewrite::<ErrorBody>(h, GUEST, Kind::DONE, 2, |body| body.code = ErrorCode::NoSuchMethod.number());
    }),
    ("a call comes twice", |h| double(h, BUSY, Kind::CALL, 0)),
    ("a call is lost", |h| drop(lose(h, FREE, Kind::CALL, 0))),
    ("a call goes to the wrong instance", |h| {
        let call = lose(h, FREE, Kind::CALL, 0);
        h[BUSY].push(call);
    }),
    ("calls of one caller change places", |h| swap(h, FREE, (Kind::CALL, 0), (Kind::CALL, 1))),
    ("a call has more time than its caller gave", |h| {
        change(h, BUSY, Kind::CALL, 0, |seen| seen.header.deadline_us += 1);
    }),
    ("a call has lost its deadline", |h| change(h, BUSY, Kind::CALL, 0, |seen| seen.header.deadline_us = 0)),
    ("a call has got a deadline", |h| change(h, FREE, Kind::CALL, 0, |seen| seen.header.deadline_us = 9)),
    ("a call is for another method", |h| {
        change(h, BUSY, Kind::CALL, 0, |seen| seen.header.handle.generation += 1);
    }),
    ("a call is for another registration", |h| {
        change(h, BUSY, Kind::CALL, 0, |seen| seen.header.handle.index += 1);
    }),
    ("two calls have one number", |h| {
        let number = h[FREE][at(h, FREE, Kind::CALL, 0)].header.correlation;
        change(h, FREE, Kind::CALL, 1, |seen| seen.header.correlation = number);
    }),
    ("a call names the wrong caller", |h| {
        let other = h[BUSY][at(h, BUSY, Kind::CALL, 1)].header.sender;
        let guest = h[BUSY][at(h, BUSY, Kind::CALL, 0)].header.sender;
        change(h, BUSY, Kind::CALL, 1, |seen| seen.header.sender = guest);
        assert_ne!(guest, other);
    }),
    ("a cancel is lost", |h| drop(lose(h, BUSY, Kind::CANCEL, 0))),
    ("a cancel comes twice", |h| double(h, BUSY, Kind::CANCEL, 0)),
    ("a cancel is for another call", |h| {
        change(h, BUSY, Kind::CANCEL, 0, |seen| seen.header.correlation ^= 1);
    }),
    ("a caller is not announced", |h| drop(lose(h, BUSY, Kind::PEER_ANNOUNCED, 0))),
    ("a caller is announced as another user", |h| {
        rewrite::<PeerInfo>(h, BUSY, Kind::PEER_ANNOUNCED, 0, |info| {
            info.identity = IdentityInfo::Local { uid: 0, gid: 0, pid: 1 };
        });
    }),
];

pub(super) const ABOUT_EVENTS: &[Lie<Heard>] = &[
    ("events change places", |h| swap(h, READER, (Kind::EVENT, 1), (Kind::EVENT, 2))),
    ("an event comes twice", |h| double(h, READER, Kind::EVENT, 1)),
    ("an event is lost in the middle", |h| drop(lose(h, READER, Kind::EVENT, 2))),
    ("an event is lost at the end", |h| drop(lose(h, READER, Kind::EVENT, 5))),
    ("an event has another number", |h| change(h, READER, Kind::EVENT, 5, |seen| seen.header.sequence += 1)),
    ("an event says something else", |h| change(h, READER, Kind::EVENT, 1, |seen| seen.payload = vec![7])),
    ("an event names another publisher", |h| {
        change(h, READER, Kind::EVENT, 1, |seen| seen.header.sender += 1)
    }),
    ("an event is for another subscription", |h| {
        change(h, READER, Kind::EVENT, 1, |seen| seen.header.correlation += 1);
    }),
    ("an event has another topic's handle", |h| {
        change(h, READER, Kind::EVENT, 1, |seen| seen.header.handle.index += 1);
    }),
    ("a topic is announced under another name", |h| {
        rewrite::<TopicInfo>(h, READER, Kind::TOPIC_ANNOUNCED, 0, |info| info.name = "gossip".into());
    }),
    ("an event is dropped although there was room", |h| {
        let gap = h[SLOW][at(h, SLOW, Kind::GAP, 0)].clone();
        let correlation = h[READER][at(h, READER, Kind::EVENT, 0)].header.correlation;
        change(h, READER, Kind::EVENT, 2, |seen| {
            seen.header.kind = Kind::GAP;
            seen.header.sequence = gap.header.sequence;
            seen.header.correlation = correlation;
            seen.payload.clear();
            seen.envelope.clear();
            let gap = Gap { from: 3, to: 3, count: 1 };
            codec::encode_into(&gap, &mut seen.envelope).expect("an envelope can be encoded");
        });
    }),
    ("a gap counts one too many", |h| rewrite::<Gap>(h, SLOW, Kind::GAP, 0, |gap| gap.count += 1)),
    ("a gap counts one too few", |h| rewrite::<Gap>(h, SLOW, Kind::GAP, 0, |gap| gap.count -= 1)),
    ("a gap begins too early", |h| rewrite::<Gap>(h, SLOW, Kind::GAP, 0, |gap| gap.from -= 1)),
    ("a gap ends too late", |h| {
        rewrite::<Gap>(h, SLOW, Kind::GAP, 0, |gap| {
            gap.to += 1;
            gap.count += 1;
        });
    }),
    ("a gap is not told", |h| drop(lose(h, SLOW, Kind::GAP, 0))),
    ("a gap is told twice", |h| double(h, SLOW, Kind::GAP, 0)),
    ("a gap is told after the next event", |h| {
        let gap = lose(h, SLOW, Kind::GAP, 0);
        h[SLOW].push(gap);
    }),
    ("a publisher is told another number", |h| {
        rewrite::<Published>(h, PUBLISHER, Kind::DONE, 1, |done| done.sequence += 1);
    }),
    ("a publisher is told of too many subscribers", |h| {
        rewrite::<Published>(h, PUBLISHER, Kind::DONE, 1, |done| done.subscribers += 1);
    }),
    ("a publisher is not answered", |h| drop(lose(h, PUBLISHER, Kind::DONE, 6))),
    ("a subscription begins somewhere else", |h| {
        rewrite::<Subscribed>(h, READER, Kind::DONE, 0, |done| done.sequence += 1);
    }),
];

pub(super) const ABOUT_NAMES: &[Lie<Heard>] = &[
    ("a change of a name is not told", |h| drop(lose(h, WATCHER, Kind::NAME_CHANGED, 1))),
    ("a change of a name is told twice", |h| double(h, WATCHER, Kind::NAME_CHANGED, 1)),
    ("a name is won before it is lost", |h| {
        swap(h, WATCHER, (Kind::NAME_CHANGED, 3), (Kind::NAME_CHANGED, 4));
    }),
    ("another name has changed", |h| {
        rewrite::<NameChanged>(h, WATCHER, Kind::NAME_CHANGED, 0, |body| body.service = "shopping".into());
    }),
    ("something else has happened to a name", |h| {
        rewrite::<NameChanged>(h, WATCHER, Kind::NAME_CHANGED, 2, |body| body.change = NameChange::Acquired);
    }),
    ("somebody else has the name", |h| {
        let owner = h[WATCHER][at(h, WATCHER, Kind::NAME_CHANGED, 1)].header.sender;
        change(h, WATCHER, Kind::NAME_CHANGED, 0, |seen| seen.header.sender = owner);
    }),
    ("an heir is not told", |h| drop(lose(h, HEIR, Kind::ACQUIRED, 0))),
    ("an heir is told twice", |h| double(h, HEIR, Kind::ACQUIRED, 0)),
    ("an heir gets something else", |h| {
        change(h, HEIR, Kind::ACQUIRED, 0, |seen| seen.header.handle.index += 1);
    }),
    ("one who waits is told that it need not", |h| {
        rewrite::<Registered>(h, HEIR, Kind::DONE, 0, |done| done.queued = false);
    }),
    ("a registration is not answered", |h| drop(lose(h, BUSY, Kind::DONE, 0))),
    ("a registration is answered twice", |h| double(h, BUSY, Kind::DONE, 0)),
];

pub(super) const ABOUT_CONNECTIONS: &[Lie<Heard>] = &[
    ("a newcomer is taken for somebody else", |h| {
        rewrite::<Welcome>(h, GUEST, Kind::WELCOME, 0, |welcome| welcome.peer += 1);
    }),
    ("a newcomer is not welcomed", |h| drop(lose(h, GUEST, Kind::WELCOME, 0))),
    ("who breaks the protocol is not told", |h| drop(lose(h, VANDAL, Kind::CLOSE, 0))),
    ("who breaks the protocol is told another reason", |h| {
        rewrite::<Close>(h, VANDAL, Kind::CLOSE, 0, |close| close.code = ErrorCode::ShuttingDown.number());
    }),
    ("something comes after the end", |h| double(h, VANDAL, Kind::CLOSE, 0)),
    ("somebody is closed without a reason", |h| {
        let close = h[VANDAL][at(h, VANDAL, Kind::CLOSE, 0)].clone();
        h[READER].push(close);
    }),
];

pub(super) const ABOUT_RIGHTS: &[Lie<Heard>] = &[
    ("a lost name is not told", |h| drop(lose(h, TENANT, Kind::REVOKED, 0))),
    ("a lost name is told twice", |h| double(h, TENANT, Kind::REVOKED, 0)),
    ("another name is said to be lost", |h| {
        change(h, TENANT, Kind::REVOKED, 0, |seen| seen.header.handle.index += 1);
    }),
    ("a lost name is called a lost subscription", |h| {
        rewrite::<Revoked>(h, TENANT, Kind::REVOKED, 0, |body| body.what = RevokedWhat::Subscription);
    }),
    ("a name is lost for another reason", |h| {
        rewrite::<Revoked>(h, TENANT, Kind::REVOKED, 0, |body| body.code = ErrorCode::Conflict.number());
    }),
    ("a name is lost without a word", |h| {
        rewrite::<Revoked>(h, TENANT, Kind::REVOKED, 0, |body| body.message = "".into());
    }),
    ("a lost name ends a connection that could have been told", |h| {
        tell_instead(h, TENANT, Kind::REVOKED, 0, (OLD_TENANT, Kind::CLOSE, 0));
    }),
    ("a lost name is told to whoever cannot be told", |h| {
        tell_instead(h, OLD_TENANT, Kind::CLOSE, 0, (TENANT, Kind::REVOKED, 0));
    }),
    ("a name is lost that is allowed", |h| {
        let revoked = h[TENANT][at(h, TENANT, Kind::REVOKED, 0)].clone();
        h[FREE].push(revoked);
    }),
    ("a lost subscription is not told", |h| drop(lose(h, LISTENER, Kind::REVOKED, 0))),
    ("another subscription is said to be lost", |h| {
        change(h, LISTENER, Kind::REVOKED, 0, |seen| seen.header.correlation += 1);
    }),
    ("a lost observation is not told", |h| drop(lose(h, OBSERVER, Kind::REVOKED, 0))),
    ("a lost watch is not told", |h| drop(lose(h, OBSERVER, Kind::REVOKED, 1))),
    ("a lost watch is told twice", |h| double(h, OBSERVER, Kind::REVOKED, 1)),
    ("a lost watch is called a lost observation", |h| {
        rewrite::<Revoked>(h, OBSERVER, Kind::REVOKED, 1, |body| body.what = RevokedWhat::Observation);
    }),
    ("a lost watch is told in the old way to whoever knows the new one", |h| {
        tell_instead(h, OBSERVER, Kind::REVOKED, 1, (OLD_OBSERVER, Kind::NOTICE, 1));
    }),
    ("a lost watch is told in the new way to whoever knows the old one", |h| {
        tell_instead(h, OLD_OBSERVER, Kind::NOTICE, 1, (OBSERVER, Kind::REVOKED, 1));
    }),
];

pub(super) const ABOUT_SHARES: &[Lie<Heard>] = &[
    ("more than a part is granted", |h| {
        tell_instead(h, HOARDER, Kind::OUTCOME, 2, (HOARDER, Kind::OUTCOME, 1));
    }),
    ("less than a part is refused", |h| {
        tell_instead(h, LATECOMER, Kind::OUTCOME, 0, (HOARDER, Kind::OUTCOME, 2));
    }),
    ("a part is refused as if nothing were left", |h| {
        rewrite::<ErrorBody>(h, HOARDER, Kind::OUTCOME, 2, |body| body.hint = None);
    }),
    ("a part is refused because of another limit", |h| {
        rewrite::<ErrorBody>(h, HOARDER, Kind::OUTCOME, 2, |body| {
            body.resource = Some("keys_per_uid_max".into());
        });
    }),
    ("a limit is said to be higher", |h| {
        rewrite::<ErrorBody>(h, HOARDER, Kind::OUTCOME, 2, |body| body.limit = Some(5));
    }),
];

pub(super) const ABOUT_ACCOUNTS: &[Lie<Snapshot>] = &[
    ("a name stays charged", |s| user(s).names += 1),
    ("a subscription stays charged", |s| user(s).subscriptions += 1),
    ("a call stays charged", |s| user(s).pending_calls += 1),
    ("a call is not charged", |s| user(s).pending_calls -= 1),
    ("a connection stays charged", |s| user(s).connections.0 += 1),
    ("a hello stays due", |s| user(s).connections.1 += 1),
    ("a user stays who has gone", |s| {
        s.charges.insert("uid 4711".to_owned(), Default::default());
    }),
    ("queued bytes stay charged", |s| {
        *s.queues.payers.values_mut().next().expect("somebody pays") += 1;
    }),
    ("a departed connection stays", |s| {
        let mut row = s.queues.rows[0].clone();
        row.peer = 1;
        s.queues.rows.push(row);
    }),
    ("a connection is not there", |s| drop(s.queues.rows.pop())),
    ("one connection too many is counted", |s| s.connections += 1),
    ("a call of a connection is forgotten", |s| {
        let row = s.queues.rows.iter_mut().find(|row| row.pending_calls > 0);
        row.expect("somebody waits").pending_calls -= 1;
    }),
    ("a watch of a connection stays", |s| s.queues.rows[0].watches += 1),
    ("a service stays", |s| s.services.push(("zombie".to_owned(), false, vec![1], 0))),
    ("a service is gone", |s| drop(s.services.pop())),
    ("a service has a departed owner", |s| s.services[1].2 = vec![1]),
    ("somebody still waits for a name", |s| s.services[1].3 += 1),
    ("a topic has counted one too many", |s| s.topics[0].1 += 1),
    ("a topic has a subscriber too few", |s| s.topics[0].2 -= 1),
    ("a topic stays", |s| s.topics.push(("zombie".to_owned(), 0, 0))),
    ("open calls are not known", |s| s.is_drained = !s.is_drained),
];

fn user(snapshot: &mut Snapshot) -> &mut ipc_tests::model::Charged {
    let waiting = snapshot.charges.values_mut().find(|charged| charged.pending_calls > 0);
    waiting.expect("somebody waits for a call")
}
