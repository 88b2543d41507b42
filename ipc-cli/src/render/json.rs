//! The shapes that stand in more than one JSON object.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipc_core::{Identity, Payload, PayloadKind, Peer};
use serde::Serialize;
use serde_json::value::RawValue;

/// A payload in an object: `text`, `json` or `base64`, by its kind, and the kind itself.
#[derive(Debug, Serialize)]
pub(crate) struct PayloadJson {
    payload_kind: &'static str,
    #[serde(flatten)]
    value: Value,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Value {
    Text(String),
    Json(Box<RawValue>),
    Base64(String),
}

impl From<&Payload> for PayloadJson {
    fn from(payload: &Payload) -> Self {
        let value = match payload.kind {
            PayloadKind::Text => text(payload),
            PayloadKind::Json => json(payload).or_else(|| text(payload)),
            PayloadKind::Bytes | PayloadKind::Bincode => None,
        };
        let value = value.unwrap_or_else(|| Value::Base64(STANDARD.encode(&payload.body)));
        Self { payload_kind: payload.kind.name(), value }
    }
}

fn text(payload: &Payload) -> Option<Value> {
    core::str::from_utf8(&payload.body).ok().map(|text| Value::Text(text.to_owned()))
}

/// The value as it was written, numbers of any size included. In valid JSON a line break is white space, and a reader
/// of one object a line must not see it.
fn json(payload: &Payload) -> Option<Value> {
    let text = core::str::from_utf8(&payload.body).ok()?;
    RawValue::from_string(text.trim().replace(['\n', '\r'], " ")).ok().map(Value::Json)
}

/// A verified sender in an object.
#[derive(Debug, Serialize)]
pub(crate) struct PeerJson {
    id: u64,
    #[serde(flatten)]
    identity: IdentityJson,
}

/// A verified identity in an object.
#[derive(Debug, Default, Serialize)]
pub(crate) struct IdentityJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}

impl From<&Peer> for PeerJson {
    fn from(peer: &Peer) -> Self {
        Self { id: peer.id.0, identity: IdentityJson::from(&peer.identity) }
    }
}

impl From<&Identity> for IdentityJson {
    fn from(identity: &Identity) -> Self {
        match identity {
            Identity::Local { uid, gid, pid } => {
                Self { uid: Some(*uid), gid: Some(*gid), pid: Some(*pid), ..Self::default() }
            }
            Identity::Remote { principal, address } => {
                Self { principal: Some(principal.clone()), address: Some(address.clone()), ..Self::default() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ipc_core::id::PeerId;

    use super::*;

    fn shown(payload: &Payload) -> String {
        serde_json::to_string(&PayloadJson::from(payload)).expect("serializes")
    }

    #[test]
    fn payloads_appear_by_their_kind() {
        assert_eq!(shown(&Payload::from("grüß\n")), r#"{"payload_kind":"text","text":"grüß\n"}"#);
        assert_eq!(
            shown(&Payload::json("{\"b\":\n 1e400, \"a\": 12345678901234567890123}\n")),
            r#"{"payload_kind":"json","json":{"b":  1e400, "a": 12345678901234567890123}}"#
        );
        assert_eq!(shown(&Payload::json("{oops")), r#"{"payload_kind":"json","text":"{oops"}"#);
        assert_eq!(shown(&Payload::bytes(vec![0xff, 0])), r#"{"payload_kind":"bytes","base64":"/wA="}"#);
        let text = Payload { kind: PayloadKind::Text, body: vec![0xff].into() };
        assert_eq!(shown(&text), r#"{"payload_kind":"text","base64":"/w=="}"#);
    }

    #[test]
    fn senders_are_local_or_remote_and_never_both() {
        let local = Peer { id: PeerId(7), identity: Identity::Local { uid: 1, gid: 2, pid: 3 } };
        let json = serde_json::to_string(&PeerJson::from(&local)).expect("serializes");
        assert_eq!(json, r#"{"id":7,"uid":1,"gid":2,"pid":3}"#);
        let identity = Identity::Remote { principal: "anonymous".into(), address: "127.0.0.1:9".into() };
        let json =
            serde_json::to_string(&PeerJson::from(&Peer { id: PeerId(8), identity })).expect("serializes");
        assert_eq!(json, r#"{"id":8,"principal":"anonymous","address":"127.0.0.1:9"}"#);
    }
}
