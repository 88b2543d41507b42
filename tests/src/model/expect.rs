//! What the model expects a client to receive, and whether a frame is that.

use ipc_core::error::ErrorCode;
use ipc_core::wire::message::{
    Close, ErrorBody, NameChange, NameChanged, Published, Registered, Revoked, RevokedWhat, Subscribed,
    Welcome,
};
use ipc_core::wire::{Flags, Kind};

use super::came::Came;
use crate::world::Seen;

/// A refusal: its code, and the resource and limit that it names when it is about one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The code.
    pub code: ErrorCode,
    /// The limit by its name, and its value.
    pub limit: Option<(&'static str, u64)>,
    /// The limit is not reached: what is left is for others.
    is_share: bool,
}

impl Refusal {
    /// A refusal with that code.
    pub(super) fn of(code: ErrorCode) -> Self {
        Self { code, limit: None, is_share: false }
    }

    /// A limit that was reached.
    pub(super) fn quota(name: &'static str, limit: u32) -> Self {
        Self { code: ErrorCode::QuotaExceeded, limit: Some((name, limit.into())), is_share: false }
    }

    /// A limit of which one has its part.
    pub(super) fn share(name: &'static str, limit: u32) -> Self {
        Self { is_share: true, ..Self::quota(name, limit) }
    }

    /// Whether an error on the wire is this one.
    pub(super) fn is(&self, body: &ErrorBody) -> Result<(), String> {
        if body.code != self.code.number() {
            return Err(format!("{} was due, not error {} ({})", self.code, body.code, body.message.0));
        }
        if body.message.0.is_empty() {
            return Err(format!("the error {} says nothing", self.code));
        }
        if let Some((name, limit)) = self.limit {
            let named = body.resource.as_ref().is_some_and(|resource| resource.0.contains(name));
            if !named || body.limit != Some(limit) {
                return Err(format!("the error does not name {name} and {limit}: {body:?}"));
            }
            same("word about a share", is_of_share(body), self.is_share)?;
        }
        Ok(())
    }
}

/// Whether an error says that there is some left, for others.
pub fn is_of_share(body: &ErrorBody) -> bool {
    body.hint.as_ref().is_some_and(|hint| hint.0.contains("for users who have fewer"))
}

/// What an operation is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is done.
    Ok,
    /// A registration was made, with this number of the model's.
    Registered { registration: u64, queued: bool },
    /// A subscription was made.
    Subscribed { sequence: u64 },
    /// An event was taken.
    Published { sequence: u64, subscribers: u32 },
    /// A subscription, by its number with the model, was ended.
    Unsubscribed { subscription: u64 },
    /// It was refused.
    Refused(Refusal),
}

/// What travels unread: kind, envelope and payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    kind: u8,
    envelope: Vec<u8>,
    payload: Vec<u8>,
    is_error: bool,
}

impl Content {
    /// What a frame carries.
    pub(super) fn of(seen: &Seen) -> Self {
        Self {
            kind: seen.header.payload_kind.number(),
            envelope: seen.envelope.clone(),
            payload: seen.payload.clone(),
            is_error: seen.has(Flags::ERROR),
        }
    }

    /// How many bytes a frame with it has.
    pub(super) fn frame_bytes(&self) -> u64 {
        (ipc_core::wire::HEADER_BYTES + self.envelope.len() + self.payload.len()) as u64
    }

    fn is(&self, seen: &Seen) -> Result<(), String> {
        if *self == Content::of(seen) {
            Ok(())
        } else {
            Err("what it carries is not what was sent".to_owned())
        }
    }
}

/// The outcome of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// What the service has answered; if it does not fit, `slow_consumer`.
    Answered { by: usize, content: Content, may_be_dropped: bool },
    /// One of these errors of the daemon.
    Failed(Vec<Refusal>),
}

/// Something that a client is to receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// The answer to its hello.
    Welcome { peer: u64, epoch: u64 },
    /// The end, with one of these reasons.
    Close { codes: Vec<ErrorCode> },
    /// A sign of life.
    Pong { correlation: u64, payload: Vec<u8> },
    /// The answer to an operation.
    Done { correlation: u64, answer: Answer },
    /// The outcome of a call.
    Reply { correlation: u64, outcome: Outcome },
    /// A call for its service.
    Call {
        /// The call's number with the model; `None` for one that wants no answer.
        call: Option<u64>,
        registration: u64,
        method: u16,
        from: usize,
        content: Content,
        /// When the deadline passes, if there is one, in nanoseconds.
        due: Option<u64>,
        /// What was left of it when the call came, in microseconds.
        given_us: u32,
    },
    /// A call for its service that is not wanted any more.
    Cancel { call: u64 },
    /// An event.
    Event {
        subscription: u64,
        correlation: u64,
        topic: String,
        life: u64,
        sequence: u64,
        from: usize,
        content: Content,
    },
    /// A name has come, gone or changed hands.
    NameChanged { watch: u64, correlation: u64, service: String, change: NameChange, from: usize },
    /// A registration that waited owns its name.
    Acquired { registration: u64 },
    /// A registration was taken away.
    NameRevoked { registration: u64 },
    /// A subscription, by its number with the model, was taken away.
    SubscriptionRevoked { subscription: u64, correlation: u64 },
    /// A request of coordination has come to something.
    Came { correlation: u64, operation: u32, came: Came },
}

/// What has to be known to compare a frame with what was expected.
pub(super) trait Lookup {
    /// Which connection a sender handle stands for, as announced.
    fn sender(&self, handle: u32) -> Result<usize, String>;
    /// Which topic a topic handle stands for, as announced.
    fn topic(&self, index: u32, generation: u16) -> Result<&str, String>;
    /// The daemon's number of a registration, if the owner has been told.
    fn registration(&self, number: u64) -> Option<u32>;
    /// The daemon's number of a call, if the service has been told.
    fn call(&self, number: u64) -> Option<u64>;
    /// The token of a grant, if its holder has been told.
    fn token(&self, number: u64) -> Option<u64>;
    /// The revision of a change, if anybody has been told.
    fn revision(&self, number: u64) -> Option<u64>;
    /// Nanoseconds since the world began.
    fn now(&self) -> u64;
    /// When the oldest byte was written that is not read.
    fn written_since(&self) -> u64;
}

impl Expected {
    /// Whether a frame is this.
    ///
    /// # Errors
    /// A sentence that says how it differs.
    pub(super) fn is(&self, seen: &Seen, lookup: &dyn Lookup) -> Result<(), String> {
        let header = &seen.header;
        let is_kind = |kind: Kind| {
            if header.kind == kind { Ok(()) } else { Err(format!("a {} was due", kind.name())) }
        };
        let is_for = |correlation: u64| {
            if header.correlation == correlation {
                Ok(())
            } else {
                Err(format!("correlation {correlation} was due"))
            }
        };
        match self {
            Expected::Welcome { peer, epoch } => {
                is_kind(Kind::WELCOME)?;
                let welcome: Welcome = seen.decode().ok_or("the welcome is malformed")?;
                same("epoch", welcome.epoch, *epoch)?;
                same("peer", welcome.peer, *peer)
            }
            Expected::Close { codes } => {
                is_kind(Kind::CLOSE)?;
                is_close(codes, &seen.decode().ok_or("the close is malformed")?)
            }
            Expected::Pong { correlation, payload } => {
                is_kind(Kind::PONG).and_then(|()| is_for(*correlation))?;
                if seen.payload == *payload { Ok(()) } else { Err("the pong is not the ping".to_owned()) }
            }
            Expected::Done { correlation, answer } => {
                is_kind(Kind::DONE).and_then(|()| is_for(*correlation))?;
                is_answer(answer, seen)
            }
            Expected::Reply { correlation, outcome } => {
                is_kind(Kind::REPLY).and_then(|()| is_for(*correlation))?;
                is_outcome(outcome, seen, lookup)
            }
            Expected::Call { .. } => {
                is_kind(Kind::CALL)?;
                self.is_call(seen, lookup)
            }
            Expected::Cancel { call } => {
                is_kind(Kind::CANCEL)?;
                same("call", Some(header.correlation), lookup.call(*call))
            }
            Expected::Event { .. } => {
                is_kind(Kind::EVENT)?;
                self.is_event(seen, lookup)
            }
            Expected::NameChanged { correlation, service, change, from, .. } => {
                is_kind(Kind::NAME_CHANGED).and_then(|()| is_for(*correlation))?;
                let body: NameChanged = seen.decode().ok_or("the name_changed is malformed")?;
                same("service", body.service.0.as_str(), service.as_str())?;
                same("change", body.change, *change)?;
                same("owner", lookup.sender(header.sender)?, *from)
            }
            Expected::Acquired { registration } => {
                is_kind(Kind::ACQUIRED)?;
                same("registration", Some(header.handle.index), lookup.registration(*registration))
            }
            Expected::NameRevoked { registration } => {
                is_revoked(RevokedWhat::Name, seen)?;
                same("registration", Some(header.handle.index), lookup.registration(*registration))
            }
            Expected::SubscriptionRevoked { correlation, .. } => {
                is_for(*correlation).and_then(|()| is_revoked(RevokedWhat::Subscription, seen))
            }
            Expected::Came { correlation, operation, came } => {
                is_for(*correlation).and_then(|()| came.is(*operation, seen, lookup))
            }
        }
    }

    fn is_call(&self, seen: &Seen, lookup: &dyn Lookup) -> Result<(), String> {
        let Expected::Call { call, registration, method, from, content, due, given_us } = self else {
            return Ok(());
        };
        let header = &seen.header;
        content.is(seen)?;
        same("one-way", seen.has(Flags::ONEWAY), call.is_none())?;
        same("registration", Some(header.handle.index), lookup.registration(*registration))?;
        same("method", header.handle.generation, *method)?;
        same("caller", lookup.sender(header.sender)?, *from)?;
        match due {
            None => same("deadline", header.deadline_us, 0),
            Some(due) => {
                // It left the broker no later than now and no earlier than all that is on its way: what was left then
                // is between these two.
                let left_us = |at: u64| (due.saturating_sub(at) / 1000).max(1);
                let (least, most) = (left_us(lookup.now()), left_us(lookup.written_since()));
                let given = u64::from(header.deadline_us);
                if (least..=most.min((*given_us).into())).contains(&given) {
                    Ok(())
                } else {
                    Err(format!("deadline {given} us, but between {least} and {most} us are left"))
                }
            }
        }
    }

    fn is_event(&self, seen: &Seen, lookup: &dyn Lookup) -> Result<(), String> {
        let Expected::Event { correlation, topic, sequence, from, content, .. } = self else { return Ok(()) };
        let header = &seen.header;
        same("subscription", header.correlation, *correlation)?;
        same("topic", lookup.topic(header.handle.index, header.handle.generation)?, topic.as_str())?;
        same("sequence", header.sequence, *sequence)?;
        same("publisher", lookup.sender(header.sender)?, *from)?;
        content.is(seen)
    }
}

/// Whether a frame says that the rules have taken this away.
///
/// # Errors
/// A sentence that says how it differs.
pub(super) fn is_revoked(what: RevokedWhat, seen: &Seen) -> Result<(), String> {
    same("kind", seen.kind(), Kind::REVOKED)?;
    let revoked: Revoked = seen.decode().ok_or("the word of what was revoked is malformed")?;
    same("what", revoked.what, what)?;
    same("code", revoked.code, ErrorCode::PermissionDenied.number())?;
    same("silence", revoked.message.0.is_empty(), false)
}

fn is_close(codes: &[ErrorCode], close: &Close) -> Result<(), String> {
    let is_due = codes.iter().any(|code| code.number() == close.code);
    if is_due && !close.message.0.is_empty() { Ok(()) } else { Err(format!("{close:?}, not {codes:?}")) }
}

fn is_answer(answer: &Answer, seen: &Seen) -> Result<(), String> {
    if let Answer::Refused(refusal) = answer {
        same("error flag", seen.has(Flags::ERROR), true)?;
        return refusal.is(&seen.decode::<ErrorBody>().ok_or("the error is malformed")?);
    }
    if seen.has(Flags::ERROR) {
        let error = seen.decode::<ErrorBody>();
        return Err(format!("{answer:?} was due, not the error {error:?}"));
    }
    match answer {
        Answer::Ok | Answer::Unsubscribed { .. } => Ok(()),
        Answer::Registered { queued, .. } => {
            let body: Registered = seen.decode().ok_or("the answer to register is malformed")?;
            same("queued", body.queued, *queued)
        }
        Answer::Subscribed { sequence } => {
            let body: Subscribed = seen.decode().ok_or("the answer to subscribe is malformed")?;
            same("sequence", body.sequence, *sequence)
        }
        Answer::Published { sequence, subscribers } => {
            let body: Published = seen.decode().ok_or("the answer to publish is malformed")?;
            same("sequence", body.sequence, *sequence)?;
            same("subscribers", body.subscribers, *subscribers)
        }
        Answer::Refused(_) => Ok(()),
    }
}

fn is_outcome(outcome: &Outcome, seen: &Seen, lookup: &dyn Lookup) -> Result<(), String> {
    match outcome {
        Outcome::Failed(refusals) => {
            same("error flag", seen.has(Flags::ERROR), true)?;
            let body = seen.decode::<ErrorBody>().ok_or("the error is malformed")?;
            if refusals.iter().any(|refusal| refusal.is(&body).is_ok()) {
                return Ok(());
            }
            Err(format!("{body:?}, not one of {refusals:?}"))
        }
        Outcome::Answered { by, content, may_be_dropped } => {
            let code = seen.decode::<ErrorBody>().filter(|_| seen.has(Flags::ERROR)).map(|body| body.code);
            if *may_be_dropped && code == Some(ErrorCode::SlowConsumer.number()) {
                return Ok(());
            }
            content.is(seen)?;
            same("responder", lookup.sender(seen.header.sender)?, *by)
        }
    }
}

pub(super) fn same<T: PartialEq + core::fmt::Debug>(what: &str, is: T, due: T) -> Result<(), String> {
    if is == due { Ok(()) } else { Err(format!("{what} is {is:?}, {due:?} was due")) }
}
