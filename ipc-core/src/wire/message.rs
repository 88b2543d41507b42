//! What the envelopes hold, kind by kind.
//!
//! Fields are positional and never change once landed; new things get a new kind, a feature bit or an extension.

use super::codec::{Blob, Decode, Encode, List, Text};
use crate::error::{Error, ErrorCode, ErrorDetail};
use crate::id::PeerId;
use crate::identity::{Identity, Peer};
use crate::limits::{ERROR_MESSAGE_MAX_BYTES, EXTENSIONS_MAX, METHODS_PER_SERVICE_MAX};

/// `hello`: the client offers versions and features.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Lowest version the client speaks.
    pub version_min: u16,
    /// Highest version the client speaks.
    pub version_max: u16,
    /// Features the client would use.
    pub features: u64,
    /// What the client calls itself, for people.
    pub name: Text,
}

/// `welcome`: the daemon's choice.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// The version both will speak.
    pub version: u16,
    /// The features both will use.
    pub features: u64,
    /// This life of the daemon.
    pub epoch: u64,
    /// The client's own connection number.
    pub peer: u64,
    /// Largest payload in bytes.
    pub payload_max_bytes: u32,
    /// Most method and topic handles the client may have bound.
    pub handles_max: u32,
    /// Most calls the client may have open.
    pub pending_calls_max: u32,
    /// What the daemon calls itself, with its version.
    pub server: Text,
}

/// `close`: why this is the last frame.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Close {
    /// An [`ErrorCode`] by number.
    pub code: u16,
    /// For people.
    pub message: Text,
}

/// `call`, `reply`, `publish` and `event`: what travels beside the payload, unread by the broker.
#[derive(Clone, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub struct Envelope {
    /// W3C Trace Context.
    pub traceparent: Option<Text>,
    /// Numbered additions; unknown ones are ignored.
    pub extensions: List<(u16, Blob), EXTENSIONS_MAX>,
}

/// `resolve`: binds the handle in the header.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Resolve {
    /// Name of the service.
    pub service: Text,
    /// Name of the method.
    pub method: Text,
}

/// How a service name is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RegisterMode {
    /// One owner.
    Exclusive,
    /// Instances share the calls.
    Group,
}

/// One method of a service, as it is described to others.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MethodInfo {
    /// Name of the method.
    pub name: Text,
    /// What it does, for people.
    pub description: Text,
}

/// `register`: offers a service.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Register {
    /// Name of the service.
    pub service: Text,
    /// How the name is held.
    pub mode: RegisterMode,
    /// Whether to wait for the turn when the name is taken.
    pub queue: bool,
    /// The methods; calls name them by their position.
    pub methods: List<MethodInfo, METHODS_PER_SERVICE_MAX>,
}

/// `done` of a `register`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Registered {
    /// Names the registration in calls and in `unregister`.
    pub registration: u32,
    /// Whether it waits its turn; `acquired` says when it has come.
    pub queued: bool,
}

/// `watch_names`: which names to hear about.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WatchNames {
    /// A filter over service names.
    pub filter: Text,
}

/// `unwatch_names`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UnwatchNames {
    /// Correlation of the `watch_names` it ends.
    pub watch: u64,
}

/// What happened to a service name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum NameChange {
    /// The sender owns the name, alone or as the first instance of a group.
    Acquired,
    /// Nobody owns the name any more; the sender was the last.
    Lost,
    /// The sender joined the group.
    InstanceAdded,
    /// The sender left the group, which goes on.
    InstanceRemoved,
    /// The watcher did not read in time: the watch has ended and must be asked for anew.
    WatchLost,
}

/// `name_changed`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NameChanged {
    /// Name of the service; empty for [`NameChange::WatchLost`].
    pub service: Text,
    /// What happened to it.
    pub change: NameChange,
}

/// What is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RevokedWhat {
    /// The name, or the place in the queue for it, of the registration in the header's handle.
    Name,
    /// The subscription of that correlation.
    Subscription,
    /// The observation of that correlation.
    Observation,
    /// The watch over keys of that correlation.
    KeyWatch,
}

/// `revoked`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Revoked {
    /// What is not had any more.
    pub what: RevokedWhat,
    /// An [`ErrorCode`] by number.
    pub code: u16,
    /// Why.
    pub message: Text,
}

/// `open_topic`: binds the handle in the header.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OpenTopic {
    /// Name of the topic.
    pub topic: Text,
}

/// What becomes of events that do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub enum OnSlow {
    /// The oldest queued event makes room; a gap record says what is missing.
    #[default]
    DropOldest,
}

/// `subscribe`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Subscribe {
    /// Which topics.
    pub filter: Text,
    /// What becomes of events that do not fit.
    pub on_slow: OnSlow,
    /// Most events queued, 0 for the daemon's default.
    pub queue_events_max: u32,
    /// Most bytes of events queued, 0 for the daemon's default.
    pub queue_bytes_max: u32,
}

/// `done` of a `subscribe`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Subscribed {
    /// For a filter without wildcards, the last number given in that topic: the first event has a higher one.
    pub sequence: u64,
}

/// `unsubscribe`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Unsubscribe {
    /// Correlation of the `subscribe` it ends.
    pub subscription: u64,
}

/// `done` of a `publish`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Published {
    /// The event's number; 0 when nobody subscribes and the topic keeps no count.
    pub sequence: u64,
    /// Subscriptions it was queued for.
    pub subscribers: u32,
}

/// `gap`: these events of the topic were dropped for this subscription.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Gap {
    /// First missing number; 0 in a merged record.
    pub from: u64,
    /// Last missing number; 0 in a merged record.
    pub to: u64,
    /// How many are missing, always exact.
    pub count: u64,
}

/// An identity on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum IdentityInfo {
    /// See [`Identity::Local`].
    Local {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Process id.
        pid: u32,
    },
    /// See [`Identity::Remote`].
    Remote {
        /// Who it proved to be.
        principal: Text,
        /// Its address.
        address: Text,
    },
}

/// `peer_announced`: the sender handle in the header stands for this peer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PeerInfo {
    /// The connection number.
    pub peer: u64,
    /// Who is behind it.
    pub identity: IdentityInfo,
}

impl From<&Identity> for IdentityInfo {
    fn from(identity: &Identity) -> Self {
        match identity {
            Identity::Local { uid, gid, pid } => IdentityInfo::Local { uid: *uid, gid: *gid, pid: *pid },
            Identity::Remote { principal, address } => {
                IdentityInfo::Remote { principal: Text(principal.clone()), address: Text(address.clone()) }
            }
        }
    }
}

impl From<IdentityInfo> for Identity {
    fn from(info: IdentityInfo) -> Self {
        match info {
            IdentityInfo::Local { uid, gid, pid } => Identity::Local { uid, gid, pid },
            IdentityInfo::Remote { principal, address } => {
                Identity::Remote { principal: principal.0, address: address.0 }
            }
        }
    }
}

impl From<&Peer> for PeerInfo {
    fn from(peer: &Peer) -> Self {
        Self { peer: peer.id.0, identity: IdentityInfo::from(&peer.identity) }
    }
}

impl From<PeerInfo> for Peer {
    fn from(info: PeerInfo) -> Self {
        Self { id: PeerId(info.peer), identity: info.identity.into() }
    }
}

/// `topic_announced`: the topic handle in the header stands for this topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TopicInfo {
    /// Name of the topic.
    pub name: Text,
}

/// Which table a forgotten handle is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ForgetWhat {
    /// Announced peers; the handle is in the header's sender field.
    Peer,
    /// Announced topics; the handle is in the header's handle field.
    Topic,
}

/// `forget`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Forget {
    /// Which table.
    pub what: ForgetWhat,
}

/// The envelope of a `reply` or `done` with the error flag.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ErrorBody {
    /// An [`ErrorCode`] by number.
    pub code: u16,
    /// What was tried and what failed.
    pub message: Text,
    /// What to do about it.
    pub hint: Option<Text>,
    /// The resource whose limit was reached.
    pub resource: Option<Text>,
    /// That limit.
    pub limit: Option<u64>,
    /// The service's own code.
    pub application_code: Option<Text>,
}

impl From<&Error> for ErrorBody {
    fn from(error: &Error) -> Self {
        let clip = |text: &String| Text::clipped(text, ERROR_MESSAGE_MAX_BYTES);
        let detail = error.detail.as_deref();
        Self {
            code: error.code.number(),
            message: clip(&error.message),
            hint: detail.and_then(|detail| detail.hint.as_ref()).map(clip),
            resource: detail.and_then(|detail| detail.resource.as_ref()).map(clip),
            limit: detail.and_then(|detail| detail.limit),
            application_code: detail.and_then(|detail| detail.application_code.as_ref()).map(clip),
        }
    }
}

impl From<ErrorBody> for Error {
    fn from(body: ErrorBody) -> Self {
        let text = |text: Option<Text>| text.map(|text| text.0);
        let detail = ErrorDetail {
            hint: text(body.hint),
            resource: text(body.resource),
            limit: body.limit,
            application_code: text(body.application_code),
        };
        match ErrorCode::from_number(body.code) {
            Some(code) => {
                let detail = (detail != ErrorDetail::default()).then(|| Box::new(detail));
                Self { code, message: body.message.0, detail }
            }
            None => Error::new(
                ErrorCode::Unsupported,
                format!(
                    "the peer answered with error {}, unknown to this version: {}",
                    body.code, body.message.0
                ),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec;

    #[test]
    fn errors_survive_the_wire() {
        for error in
            [Error::quota("names_per_connection_max", 512), Error::new(ErrorCode::NameTaken, "taken")]
        {
            let mut bytes = Vec::new();
            codec::encode_into(&ErrorBody::from(&error), &mut bytes).unwrap();
            assert_eq!(Error::from(codec::decode::<ErrorBody>(&bytes).unwrap()), error);
        }
    }

    #[test]
    fn an_error_code_from_the_future_is_unsupported_and_keeps_its_message() {
        let mut body = ErrorBody::from(&Error::new(ErrorCode::Io, "what happened"));
        body.code = 60_000;
        let error = Error::from(body);
        assert_eq!(error.code, ErrorCode::Unsupported);
        assert!(error.message.contains("60000") && error.message.contains("what happened"));
    }
}
