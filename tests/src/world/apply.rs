//! What each action of the generator does to the simulated world.

use core::time::Duration;

use ipc_core::error::ErrorCode;
use ipc_core::identity::Identity;
use ipc_core::limits::Limits;
use ipc_core::wire::codec::List;
use ipc_core::wire::message::{
    Close, Envelope, ErrorBody, Hello, MethodInfo, OnSlow, OpenTopic, Register, RegisterMode, Resolve,
    Subscribe, Unsubscribe, UnwatchNames, WatchNames,
};
use ipc_core::wire::{FEATURE_REVOCATION, Flags, HEADER_BYTES, Kind, PREAMBLE};

use super::{Arrival, Client, Draft, World, coordination, keys};
use crate::generator::{Action, FILTERS, Index, METHODS, SERVICES, TOPICS, UIDS, Way};
use crate::model::policy;
use crate::rng::Rng;

/// A number that no client has been given.
pub(super) const NOWHERE: u64 = 0xdead_beef_0000;

/// The identity of the client in `slot`, which may have come over the network.
fn identity_of(slot: usize, is_remote: bool) -> Identity {
    let number = slot as u32;
    match is_remote {
        false => Identity::Local { uid: UIDS[slot % UIDS.len()], gid: 100 + number, pid: 5000 + number },
        true => {
            let address = format!("127.0.0.1:{}", 40_000 + number);
            Identity::Remote { principal: "anonymous".to_owned(), address }
        }
    }
}

impl World {
    pub(super) fn apply(&mut self, slot: usize, action: &Action, rng: &mut Rng) -> Result<(), String> {
        let applies = match action {
            Action::Connect { way, capacity } => {
                let only = match way {
                    Way::Exposed(at) => Some((SERVICES[*at].to_owned(), METHODS[0].to_owned())),
                    Way::Local | Way::Tcp => None,
                };
                let identity = identity_of(slot, *way != Way::Local);
                let applies = self.position(slot).is_none();
                self.connect(&Arrival { slot, identity, only, capacity: *capacity, is_visitor: false })?;
                applies
            }
            Action::Advance { micros, at_once } => {
                self.advance(micros * 1000, *at_once)?;
                true
            }
            Action::RunOut => {
                let due = self.broker.poll_timeout().map_or(0, |due| due.since(self.now).as_nanos() as u64);
                self.advance(due.min(Duration::from_secs(7200).as_nanos() as u64), false)?;
                true
            }
            Action::Drain => {
                self.settle(rng)?;
                true
            }
            Action::BeginDrain => {
                self.broker.begin_drain();
                self.mail.begin_drain();
                self.model.begin_drain(self.now);
                self.reconcile()?;
                self.outputs()?;
                true
            }
            Action::Reload { reign } => {
                self.broker.set_policy(policy(*reign));
                self.model.reload(self.now, *reign);
                self.reconcile()?;
                self.outputs()?;
                true
            }
            Action::EndDrain => {
                self.broker.end_drain();
                self.model.end_drain(self.now);
                self.reconcile()?;
                self.outputs()?;
                true
            }
            Action::DatagramCall { .. }
            | Action::DatagramPublish { .. }
            | Action::DatagramAbandon
            | Action::Weather { .. }
            | Action::DoorRestart => self.mail_action(slot, action)?,
            Action::DiskAnswers | Action::DiskFills { .. } | Action::DiskDies | Action::Crash { .. } => {
                self.disk_action(action)?
            }
            _ => match self.position(slot) {
                Some(at) => self.on_link(at, action) || self.say(at, action, rng),
                None => false,
            },
        };
        if applies {
            self.coverage.count(action.name());
        }
        Ok(())
    }

    /// What happens to a link. Says whether it was such an action.
    fn on_link(&mut self, at: usize, action: &Action) -> bool {
        let connection = &mut self.connections[at];
        let link = &mut connection.link;
        match action {
            Action::Stall => link.down.is_stalled = true,
            Action::Unstall => link.down.is_stalled = false,
            Action::Trickle => {
                link.up.read_max = 1;
                link.down.read_max = 1;
            }
            Action::Untrickle => {
                link.up.read_max = usize::MAX;
                link.down.read_max = usize::MAX;
            }
            Action::Cut { up, down } => {
                // Something is on its way whose end will not arrive.
                link.up.write(&Draft::new(Kind::PING).correlation(NOWHERE).payload(&[7; 64]).to_bytes());
                if link.up.len() > *up {
                    self.coverage.count("fault.cut_up");
                }
                if link.down.len() > *down {
                    self.coverage.count("fault.cut_down");
                    connection.is_cut = true;
                }
                connection.is_cut = true;
                link.up.cut(*up);
                link.down.cut(*down);
            }
            Action::HalfClose => link.up.end(),
            Action::Disconnect => {
                link.up.end();
                link.down.cut(0);
                connection.is_abandoned = true;
                self.model.abandon(connection.number);
            }
            _ => return false,
        }
        true
    }

    /// What a client writes. Says whether there was anything to write.
    fn say(&mut self, at: usize, action: &Action, rng: &mut Rng) -> bool {
        let limits = self.limits.clone();
        let forged = match action {
            Action::Forge { victim, nth: Some(nth) } => {
                let inbound = self.knows(*victim).map(|knows| &knows.inbound[..]).unwrap_or_default();
                if inbound.is_empty() { None } else { Some(inbound[nth % inbound.len()]) }
            }
            _ => Some(NOWHERE + rng.below(1 << 20)),
        };
        let stolen = match action {
            Action::OfHold { victim: Some(victim), nth, .. } => {
                let holds = self.knows(*victim).map(|knows| &knows.holds[..]).unwrap_or_default();
                if holds.is_empty() { 1 } else { holds[nth % holds.len()] }
            }
            _ => 0,
        };
        let connection = &mut self.connections[at];
        let client = &mut connection.client;
        let bytes = match action {
            Action::Hello { version_min, version_max, revocation } => {
                hello(client, *version_min, *version_max, *revocation)
            }
            Action::Garbage { bytes } => Some(bytes.clone()),
            Action::Oversized { over } => {
                let length = limits.payload_max_bytes.saturating_add(*over);
                let mut bytes = Draft::new(Kind::PING).to_bytes();
                bytes[4..8].copy_from_slice(&length.to_le_bytes());
                Some(bytes)
            }
            Action::OfHold { victim: Some(_), renew, .. } => coordination::of_token(client, *renew, stolen),
            Action::Forge { .. } => forged.and_then(|call| reply(call, &rng.bytes(9))),
            Action::Put { .. }
            | Action::DeleteKey { .. }
            | Action::Transact { .. }
            | Action::GetKey { .. }
            | Action::ListKeys
            | Action::WatchKeys { .. }
            | Action::UnwatchKeys { .. } => keys::speak(client, &self.model, action, rng),
            Action::Identify
            | Action::Claim { .. }
            | Action::Arrive { .. }
            | Action::Lease { .. }
            | Action::OfHold { .. }
            | Action::CancelWait { .. }
            | Action::Proclaim { .. }
            | Action::Observe { .. }
            | Action::Unobserve { .. } => coordination::speak(client, connection.slot, action, rng),
            _ => speak(client, action, &limits, rng),
        };
        let Some(bytes) = bytes else { return false };
        let has_preamble = connection.link.preamble_is_due;
        if has_preamble {
            connection.link.preamble_is_due = false;
            connection.link.up.write(&PREAMBLE);
        }
        connection.link.up.write(&bytes);
        true
    }
}

fn hello(client: &mut Client, version_min: u16, version_max: u16, revocation: bool) -> Option<Vec<u8>> {
    client.knows.has_greeted = true;
    let features = if revocation { FEATURE_REVOCATION } else { 0 };
    let hello = Hello { version_min, version_max, features, name: "simulated".into() };
    Some(Draft::new(Kind::HELLO).envelope(&hello).to_bytes())
}

fn reply(call: u64, payload: &[u8]) -> Option<Vec<u8>> {
    Some(Draft::new(Kind::REPLY).correlation(call).payload(payload).to_bytes())
}

fn speak(client: &mut Client, action: &Action, limits: &Limits, rng: &mut Rng) -> Option<Vec<u8>> {
    match action {
        Action::Register { .. }
        | Action::Unregister { .. }
        | Action::Watch { .. }
        | Action::Unwatch { .. } => names(client, action),
        Action::Resolve { .. } | Action::OpenTopic { .. } | Action::Release { .. } => handles(client, action),
        Action::Call { .. } | Action::Oneway { .. } | Action::Cancel { .. } => calls(client, action, rng),
        Action::Reply { nth, payload } => {
            let at = position(&client.knows.inbound, *nth)?;
            let call = client.knows.inbound.remove(at);
            reply(call, &rng.bytes(*payload))
        }
        Action::ReplyError { nth } => {
            let at = position(&client.knows.inbound, *nth)?;
            let call = client.knows.inbound.remove(at);
            let body = ErrorBody {
                code: ErrorCode::Application.number(),
                message: "it went wrong".into(),
                hint: None,
                resource: None,
                limit: None,
                application_code: Some("simulated".into()),
            };
            let draft = Draft::new(Kind::REPLY).correlation(call).flags(Flags::ERROR);
            Some(draft.envelope(&body).payload(&rng.bytes(5)).to_bytes())
        }
        Action::ReplyTwice { nth } => {
            let at = position(&client.knows.inbound, *nth)?;
            let call = client.knows.inbound.remove(at);
            let mut bytes = reply(call, &rng.bytes(7))?;
            bytes.extend(reply(call, &rng.bytes(7))?);
            Some(bytes)
        }
        Action::Publish { .. } | Action::Subscribe { .. } | Action::Unsubscribe { .. } => {
            events(client, action, rng)
        }
        Action::Ping { payload } => {
            let draft = Draft::new(Kind::PING).correlation(client.next_correlation());
            Some(draft.payload(&rng.bytes(*payload)).to_bytes())
        }
        Action::Flood => {
            let ping = Draft::new(Kind::PING)
                .payload(&vec![7; (limits.payload_max_bytes as usize).min(4096)])
                .to_bytes();
            let owed = limits.queue_per_connection_max_bytes as usize + (5 << 18);
            Some(ping.repeat(owed / ping.len() + 1))
        }
        Action::SayClose => {
            let close = Close { code: 0, message: "bye".into() };
            Some(Draft::new(Kind::CLOSE).envelope(&close).to_bytes())
        }
        _ => Some(mischief(client.next_correlation(), action)?.to_bytes()),
    }
}

/// What no client should send.
fn mischief(correlation: u64, action: &Action) -> Option<Draft> {
    match action {
        Action::UnknownKind { kind } | Action::WrongKind { kind } => {
            Some(Draft::new(Kind(*kind)).correlation(correlation))
        }
        Action::Malformed { kind, envelope } => {
            Some(Draft::new(Kind(*kind)).correlation(correlation).raw_envelope(envelope))
        }
        Action::BadName { what } => Some(bad_name(correlation, *what)),
        _ => None,
    }
}

pub(super) fn position<T>(items: &[T], nth: usize) -> Option<usize> {
    if items.is_empty() { None } else { Some(nth % items.len()) }
}

fn names(client: &mut Client, action: &Action) -> Option<Vec<u8>> {
    let correlation = client.next_correlation();
    let knows = &mut client.knows;
    match action {
        Action::Register { service, group, queue, methods } => {
            knows.asked.push(correlation);
            let method = |name: &&str| MethodInfo { name: (**name).into(), description: "simulated".into() };
            let register = Register {
                service: SERVICES[*service].into(),
                mode: if *group { RegisterMode::Group } else { RegisterMode::Exclusive },
                queue: *queue,
                methods: List(METHODS[..*methods].iter().map(method).collect()),
            };
            Some(Draft::new(Kind::REGISTER).correlation(correlation).envelope(&register).to_bytes())
        }
        Action::Unregister { nth } => {
            let id = match nth {
                Some(nth) => {
                    let at = position(&knows.registrations, *nth)?;
                    knows.registrations.remove(at).id
                }
                None => NOWHERE as u32,
            };
            Some(Draft::new(Kind::UNREGISTER).correlation(correlation).handle(id, 0).to_bytes())
        }
        Action::Watch { filter, again } => {
            let again = knows.watches.last().copied().filter(|_| *again);
            let watch = again.unwrap_or(correlation);
            if again.is_none() {
                knows.watches.push(watch);
            }
            let body = WatchNames { filter: FILTERS[*filter].into() };
            Some(Draft::new(Kind::WATCH_NAMES).correlation(watch).envelope(&body).to_bytes())
        }
        Action::Unwatch { nth } => {
            let watch = match nth {
                Some(nth) => {
                    let at = position(&knows.watches, *nth)?;
                    knows.watches.remove(at)
                }
                None => NOWHERE,
            };
            let draft = Draft::new(Kind::UNWATCH_NAMES).correlation(correlation);
            Some(draft.envelope(&UnwatchNames { watch }).to_bytes())
        }
        _ => None,
    }
}

fn handles(client: &mut Client, action: &Action) -> Option<Vec<u8>> {
    let correlation = client.next_correlation();
    let mut bind = |index: u32, is_topic: bool| {
        let generation = client.knows.handles.get(&index).map_or(1, |generation| generation.wrapping_add(1));
        client.knows.handles.insert(index, generation);
        client.knows.topic_handles.retain(|topic| *topic != index);
        if is_topic {
            client.knows.topic_handles.push(index);
        }
        generation
    };
    match action {
        Action::Resolve { index, service, method } => {
            let generation = bind(*index, false);
            let body = Resolve { service: SERVICES[*service].into(), method: METHODS[*method].into() };
            let draft = Draft::new(Kind::RESOLVE).correlation(correlation).handle(*index, generation);
            Some(draft.envelope(&body).to_bytes())
        }
        Action::OpenTopic { index, topic } => {
            let generation = bind(*index, true);
            let draft = Draft::new(Kind::OPEN_TOPIC).correlation(correlation).handle(*index, generation);
            Some(draft.envelope(&OpenTopic { topic: TOPICS[*topic].into() }).to_bytes())
        }
        Action::Release { at } => Some(through(client, Draft::new(Kind::RELEASE), *at).to_bytes()),
        _ => None,
    }
}

/// The draft with a handle of the client in it.
fn through(client: &Client, draft: Draft, at: Index) -> Draft {
    let generation = client.knows.handles.get(&at.index).copied().unwrap_or(0);
    draft.handle(at.index, generation.wrapping_add(u16::from(at.is_stale)))
}

fn calls(client: &mut Client, action: &Action, rng: &mut Rng) -> Option<Vec<u8>> {
    match action {
        Action::Call { at, payload, deadline_us, again } => {
            let again = client.knows.outbound.last().copied().filter(|_| *again);
            let correlation = again.unwrap_or_else(|| client.next_correlation());
            client.knows.outbound.push(correlation);
            let draft = through(client, Draft::new(Kind::CALL), *at).correlation(correlation);
            let draft = draft.deadline_us(*deadline_us).payload(&rng.bytes(*payload));
            Some(with_trace(draft, rng).to_bytes())
        }
        Action::Oneway { at, payload } => {
            let draft = through(client, Draft::new(Kind::CALL), *at).flags(Flags::ONEWAY);
            Some(draft.payload(&rng.bytes(*payload)).to_bytes())
        }
        Action::Cancel { nth } => {
            let call = match nth {
                // Which of two calls of one number is cancelled is nobody's business.
                Some(nth) => client.knows.outbound[position(&client.knows.outbound, *nth)?],
                None => NOWHERE,
            };
            if client.knows.outbound.iter().filter(|own| **own == call).count() > 1 {
                return None;
            }
            Some(Draft::new(Kind::CANCEL).correlation(call).to_bytes())
        }
        _ => None,
    }
}

fn with_trace(draft: Draft, rng: &mut Rng) -> Draft {
    if rng.chance(1, 2) {
        return draft;
    }
    let traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    draft.envelope(&Envelope { traceparent, ..Envelope::default() })
}

fn events(client: &mut Client, action: &Action, rng: &mut Rng) -> Option<Vec<u8>> {
    match action {
        Action::Publish { at, payload, acknowledged } => {
            let correlation = if *acknowledged { client.next_correlation() } else { 0 };
            let flags = if *acknowledged { Flags::NONE } else { Flags::ONEWAY };
            let draft = through(client, Draft::new(Kind::PUBLISH), *at).correlation(correlation).flags(flags);
            Some(with_trace(draft.payload(&rng.bytes(*payload)), rng).to_bytes())
        }
        Action::Subscribe { filter, events_max, bytes_max, again } => {
            let again = client.knows.subscriptions.last().copied().filter(|_| *again);
            let subscription = again.unwrap_or_else(|| client.next_correlation());
            if again.is_none() {
                client.knows.subscriptions.push(subscription);
            }
            let body = Subscribe {
                filter: FILTERS[*filter].into(),
                on_slow: OnSlow::DropOldest,
                queue_events_max: *events_max,
                queue_bytes_max: *bytes_max,
            };
            Some(Draft::new(Kind::SUBSCRIBE).correlation(subscription).envelope(&body).to_bytes())
        }
        Action::Unsubscribe { nth } => {
            let subscription = match nth {
                Some(nth) => {
                    let at = position(&client.knows.subscriptions, *nth)?;
                    client.knows.subscriptions.remove(at)
                }
                None => NOWHERE,
            };
            let draft = Draft::new(Kind::UNSUBSCRIBE).correlation(client.next_correlation());
            Some(draft.envelope(&Unsubscribe { subscription }).to_bytes())
        }
        _ => None,
    }
}

fn bad_name(correlation: u64, what: usize) -> Draft {
    let draft = |kind| Draft::new(kind).correlation(correlation);
    let draft = match what {
        0 => draft(Kind::RESOLVE).envelope(&Resolve { service: "a..b".into(), method: "m0".into() }),
        1 => draft(Kind::RESOLVE).envelope(&Resolve { service: "a".into(), method: "m 0".into() }),
        2 => draft(Kind::OPEN_TOPIC).envelope(&OpenTopic { topic: "a.*".into() }),
        3 => draft(Kind::WATCH_NAMES).envelope(&WatchNames { filter: "a.>.b".into() }),
        _ => draft(Kind::SUBSCRIBE).envelope(&Subscribe {
            filter: "".into(),
            on_slow: OnSlow::DropOldest,
            queue_events_max: 0,
            queue_bytes_max: 0,
        }),
    };
    debug_assert!(draft.to_bytes().len() >= HEADER_BYTES);
    draft
}
