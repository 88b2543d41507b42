//! The golden vectors of datagrams: at least one of each kind, as the library builds it and as `tests/golden/datagrams/`
//! holds it, in the form of the [others](crate::golden).

use std::path::PathBuf;

use ipc_core::error::ErrorCode;
use ipc_core::wire::Flags;
use ipc_core::wire::codec::{Blob, List, Wire};
use ipc_core::wire::datagram::{
    CallNamed, Datagram, DatagramHeader, DatagramKind, PublishNamed, encode_bare, encode_datagram,
};
use ipc_core::wire::message::{ErrorBody, IdentityInfo, PeerInfo, Published};
use ipc_core::{Error, PayloadKind};

use crate::golden;

/// One datagram with its name.
pub struct DatagramVector {
    /// The name of the file in `tests/golden/datagrams/`, without `.hex`.
    pub name: &'static str,
    /// What it says, for people.
    pub title: &'static str,
    /// The datagram as the library encodes it.
    pub bytes: Vec<u8>,
    /// Fails when a parsed datagram does not hold what this one was made from.
    pub check: Box<dyn Fn(&Datagram<'_>)>,
}

/// The folder of the vectors.
pub fn folder() -> PathBuf {
    golden::folder().join("datagrams")
}

/// The text of a vector's file, with the fields of the header told apart.
pub fn render(vector: &DatagramVector) -> String {
    const FIELDS: [(usize, &str); 13] = [
        (4, "magic"),
        (1, "version"),
        (1, "kind"),
        (1, "flags"),
        (1, "payload kind"),
        (2, "envelope length"),
        (2, "payload length"),
        (4, "number"),
        (8, "epoch"),
        (8, "cookie"),
        (4, "client"),
        (4, "open"),
        (8, "id"),
    ];
    golden::render_fields(vector.title, &FIELDS, &vector.bytes)
}

/// Every vector.
pub fn vectors() -> Vec<DatagramVector> {
    bare().into_iter().chain(requests()).chain(outcomes()).collect()
}

fn from_client(kind: DatagramKind) -> DatagramHeader {
    DatagramHeader {
        epoch: 0x0123_4567_89ab_cdef,
        cookie: 0x1122_3344_5566_7788,
        client: 0x0a0b_0c0d,
        id: 5,
        ..DatagramHeader::new(kind)
    }
}

fn bare() -> Vec<DatagramVector> {
    let hello =
        DatagramHeader { client: 0x0a0b_0c0d, id: 1 << 63, ..DatagramHeader::new(DatagramKind::Hello) };
    let challenge = DatagramHeader { number: 1024, id: 1 << 63, ..from_client(DatagramKind::Challenge) };
    let unknown = u32::from(ErrorCode::OutcomeUnknown.number());
    let refused = DatagramHeader { number: unknown, ..from_client(DatagramKind::Refused) };
    let ack = DatagramHeader { open: 2, ..from_client(DatagramKind::Ack) };
    let cancel = DatagramHeader { open: 2, ..from_client(DatagramKind::Cancel) };
    let vector = |name, title, header: DatagramHeader| DatagramVector {
        name,
        title,
        bytes: encode_bare(header).to_vec(),
        check: Box::new(move |datagram| assert_eq!(datagram.header, header, "{name}")),
    };
    vec![
        vector("hello", "A client asks what the daemon is known by.", hello),
        vector("challenge", "The daemon says it, and that it lets the client have 1024 requests.", challenge),
        vector("refused", "The daemon does not know what became of request 5.", refused),
        vector("ack", "The client has the outcome of 5, and of everything below 3.", ack),
        vector("cancel", "It does not want the outcome of 5.", cancel),
    ]
}

fn vector<T>(
    name: &'static str,
    title: &'static str,
    header: DatagramHeader,
    envelope: T,
    payload: &'static [u8],
) -> DatagramVector
where
    T: Wire + PartialEq + std::fmt::Debug + 'static,
{
    let bytes = encode_datagram(header, &envelope, payload).expect("a golden datagram is within the limits");
    let check = Box::new(move |datagram: &Datagram<'_>| {
        assert_eq!(datagram.header, header, "{name}: header");
        assert_eq!(datagram.decode::<T>().as_ref(), Ok(&envelope), "{name}: envelope");
        assert_eq!(datagram.payload, payload, "{name}: payload");
    });
    DatagramVector { name, title, bytes, check }
}

fn requests() -> Vec<DatagramVector> {
    let call = DatagramHeader {
        payload_kind: PayloadKind::Text,
        number: 5_000_000,
        open: 2,
        ..from_client(DatagramKind::Call)
    };
    let title = CallNamed {
        service: "demo.title".into(),
        method: "title".into(),
        traceparent: None,
        extensions: List::default(),
    };
    let traced = CallNamed {
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        extensions: List(vec![(300, Blob(vec![1, 2, 3]))]),
        ..title.clone()
    };
    let topic =
        PublishNamed { topic: "sensor.kitchen".into(), traceparent: None, extensions: List::default() };
    let event = DatagramHeader {
        flags: Flags::ONEWAY,
        payload_kind: PayloadKind::Json,
        ..DatagramHeader::new(DatagramKind::Publish)
    };
    let acknowledged = DatagramHeader {
        payload_kind: PayloadKind::Json,
        number: 5_000_000,
        ..from_client(DatagramKind::Publish)
    };
    vec![
        vector("call", "A call; requests 3 and 4 may be open too.", call, title, b"hello world"),
        vector("call_traced", "A call with a trace context and an extension.", call, traced, b"hello world"),
        vector(
            "publish_oneway",
            "An event of a local process, with nothing before it.",
            event,
            topic.clone(),
            b"21.5",
        ),
        vector("publish", "An event that wants an outcome.", acknowledged, topic, b"21.5"),
    ]
}

fn outcomes() -> Vec<DatagramVector> {
    let reply = DatagramHeader { payload_kind: PayloadKind::Text, ..from_client(DatagramKind::Reply) };
    let responder = PeerInfo { peer: 21, identity: IdentityInfo::Local { uid: 1000, gid: 100, pid: 70_000 } };
    let failed = DatagramHeader { flags: Flags::ERROR.with(Flags::ACK), ..from_client(DatagramKind::Reply) };
    let mut error = Error::new(ErrorCode::Application, "no such book");
    error.detail_mut().application_code = Some("not_found".to_owned());
    let published = from_client(DatagramKind::Published);
    vec![
        vector("reply", "The answer, and who gave it.", reply, responder, b"Hello World"),
        vector(
            "reply_error",
            "An error of the service; an ack is wanted.",
            failed,
            ErrorBody::from(&error),
            b"",
        ),
        vector(
            "published",
            "The event has number 42 and went to 2 subscriptions.",
            published,
            Published { sequence: 42, subscribers: 2 },
            b"",
        ),
    ]
}
