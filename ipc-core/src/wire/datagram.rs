//! One datagram: a fixed header of 48 bytes, an envelope, a payload, and nothing behind it.
//!
//! Names travel in every datagram, so the daemon needs to know nothing before it. What makes calls dependable over a
//! transport that loses, repeats and reorders is in the header: the daemon's epoch and its cookie for this sender, the
//! number of the client, the id of the request, and how many ids before it may still be open.

use bytes::Bytes;

use super::codec::{self, Blob, Decode, Encode, List, Text, Wire};
use super::{Flags, WireError};
use crate::limits::{DATAGRAM_MAX_BYTES, DEADLINE_MAX, EXTENSIONS_MAX};
use crate::payload::PayloadKind;

/// Length of the header in bytes.
pub const DATAGRAM_HEADER_BYTES: usize = 48;
/// The first bytes of every datagram: those of no text protocol, and not those of a stream.
pub const DATAGRAM_MAGIC: [u8; 4] = [0x89, b'I', b'P', b'D'];
/// The version of the datagrams that this library speaks.
pub const DATAGRAM_VERSION: u8 = 1;
/// Most bytes of envelope and payload together.
pub const DATAGRAM_CONTENT_MAX_BYTES: usize = DATAGRAM_MAX_BYTES - DATAGRAM_HEADER_BYTES;

macro_rules! datagram_kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// What a datagram is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DatagramKind {
            $($(#[$doc])* $name,)*
        }

        impl DatagramKind {
            /// Every kind of this version.
            pub const ALL: &'static [DatagramKind] = &[$(DatagramKind::$name,)*];

            /// The number on the wire.
            pub const fn number(self) -> u8 {
                match self { $(DatagramKind::$name => $number,)* }
            }

            /// The kind with that number on the wire.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(DatagramKind::$name),)* _ => None }
            }

            /// The name used in the specification.
            pub const fn name(self) -> &'static str {
                match self { $(DatagramKind::$name => $text,)* }
            }
        }
    };
}

datagram_kinds! {
    /// A client asks for epoch and cookie; also a sign of life. Runs nothing.
    Hello = 0x01, "hello";
    /// The daemon gives them. Runs nothing.
    Challenge = 0x02, "challenge";
    /// The daemon has not run a request, or cannot know whether it ran; the number says why.
    Refused = 0x03, "refused";
    /// A client has all outcomes of ids below the low-water mark.
    Ack = 0x04, "ack";
    /// A call of a method.
    Call = 0x10, "call";
    /// The outcome of a call.
    Reply = 0x11, "reply";
    /// The client does not want the outcome any more.
    Cancel = 0x12, "cancel";
    /// An event on its way to the bus.
    Publish = 0x20, "publish";
    /// The outcome of a publish that wants one.
    Published = 0x21, "published";
}

impl DatagramKind {
    /// Whether it consists of its header alone.
    const fn is_bare(self) -> bool {
        match self {
            DatagramKind::Hello
            | DatagramKind::Challenge
            | DatagramKind::Refused
            | DatagramKind::Ack
            | DatagramKind::Cancel => true,
            DatagramKind::Call | DatagramKind::Reply | DatagramKind::Publish | DatagramKind::Published => {
                false
            }
        }
    }

    /// The flags it may have.
    const fn flags(self) -> u8 {
        match self {
            DatagramKind::Reply | DatagramKind::Published => Flags::ERROR.bits() | Flags::ACK.bits(),
            DatagramKind::Call | DatagramKind::Publish => Flags::ONEWAY.bits(),
            DatagramKind::Hello
            | DatagramKind::Challenge
            | DatagramKind::Refused
            | DatagramKind::Ack
            | DatagramKind::Cancel => 0,
        }
    }
}

/// The fixed part of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramHeader {
    /// What it is.
    pub kind: DatagramKind,
    /// Flags.
    pub flags: Flags,
    /// How to read the payload.
    pub payload_kind: PayloadKind,
    /// In a call or publish the remaining deadline in microseconds, in a challenge the most requests the client may have
    /// open, in a refusal an [`ErrorCode`](crate::ErrorCode) by number.
    pub number: u32,
    /// This life of the daemon; 0 from a client that does not know it.
    pub epoch: u64,
    /// The daemon's for this sender; 0 from a client that has none.
    pub cookie: u64,
    /// The client's own number for itself, drawn at random.
    pub client: u32,
    /// How many ids before this one may still be open: all below them have their outcome.
    pub open: u32,
    /// The request.
    pub id: u64,
}

impl DatagramHeader {
    /// A header of that kind with everything else zero.
    pub const fn new(kind: DatagramKind) -> Self {
        Self {
            kind,
            flags: Flags::NONE,
            payload_kind: PayloadKind::Bytes,
            number: 0,
            epoch: 0,
            cookie: 0,
            client: 0,
            open: 0,
            id: 0,
        }
    }

    /// The low-water mark: the client has the outcomes of all ids below.
    pub const fn low_water(&self) -> u64 {
        self.id.saturating_sub(self.open as u64)
    }

    fn write(&self, envelope_len: u16, payload_len: u16, out: &mut [u8]) {
        out[..4].copy_from_slice(&DATAGRAM_MAGIC);
        out[4] = DATAGRAM_VERSION;
        out[5] = self.kind.number();
        out[6] = self.flags.bits();
        out[7] = self.payload_kind.number();
        out[8..10].copy_from_slice(&envelope_len.to_le_bytes());
        out[10..12].copy_from_slice(&payload_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        out[24..32].copy_from_slice(&self.cookie.to_le_bytes());
        out[32..36].copy_from_slice(&self.client.to_le_bytes());
        out[36..40].copy_from_slice(&self.open.to_le_bytes());
        out[40..48].copy_from_slice(&self.id.to_le_bytes());
    }
}

/// A received datagram. Its envelope is not decoded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The fixed part.
    pub header: DatagramHeader,
    /// The encoded envelope.
    pub envelope: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Parses what was received as one datagram.
    ///
    /// # Errors
    /// [`WireError::Version`] for a datagram of another version, of which only the magic is known to be in its place; any
    /// other for bytes that are no datagram.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < DATAGRAM_HEADER_BYTES || bytes.len() > DATAGRAM_MAX_BYTES {
            return Err(WireError::DatagramLength(bytes.len()));
        }
        let (head, rest) = bytes.split_at(DATAGRAM_HEADER_BYTES);
        if head[..4] != DATAGRAM_MAGIC {
            return Err(WireError::Preamble);
        }
        if head[4] != DATAGRAM_VERSION {
            return Err(WireError::Version(head[4]));
        }
        let header = parse_header(head)?;
        let (envelope_len, payload_len) = (usize::from(u16_at(head, 8)), usize::from(u16_at(head, 10)));
        if envelope_len + payload_len != rest.len() || (header.kind.is_bare() && !rest.is_empty()) {
            return Err(WireError::DatagramLength(bytes.len()));
        }
        let (envelope, payload) = rest.split_at(envelope_len);
        Ok(Self { header, envelope, payload })
    }

    /// Decodes the envelope.
    ///
    /// # Errors
    /// [`WireError::Envelope`] or [`WireError::TrailingBytes`].
    pub fn decode<T: Wire>(&self) -> Result<T, WireError> {
        codec::decode(self.envelope)
    }
}

fn parse_header(head: &[u8]) -> Result<DatagramHeader, WireError> {
    let kind = DatagramKind::from_number(head[5]).ok_or(WireError::UnexpectedKind(head[5]))?;
    let flags = Flags::from_bits(head[6], kind.flags()).ok_or(WireError::UnknownFlags(head[6]))?;
    let payload_kind = PayloadKind::from_number(head[7]).ok_or(WireError::UnknownPayloadKind(head[7]))?;
    let number = u32_at(head, 12);
    let is_deadline = matches!(kind, DatagramKind::Call | DatagramKind::Publish);
    if is_deadline && u128::from(number) > DEADLINE_MAX.as_micros() {
        return Err(WireError::DeadlineTooLong(number));
    }
    Ok(DatagramHeader {
        kind,
        flags,
        payload_kind,
        number,
        epoch: u64_at(head, 16),
        cookie: u64_at(head, 24),
        client: u32_at(head, 32),
        open: u32_at(head, 36),
        id: u64_at(head, 40),
    })
}

/// A datagram of a header alone.
pub fn encode_bare(header: DatagramHeader) -> Bytes {
    debug_assert!(header.kind.is_bare());
    let mut out = [0; DATAGRAM_HEADER_BYTES];
    header.write(0, 0, &mut out);
    Bytes::copy_from_slice(&out)
}

/// A datagram.
///
/// # Errors
/// [`WireError::DatagramLength`] with its length when it is longer than a datagram can be.
pub fn encode_datagram<T: Wire>(
    header: DatagramHeader,
    envelope: &T,
    payload: &[u8],
) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::with_capacity(DATAGRAM_HEADER_BYTES + 64 + payload.len());
    out.resize(DATAGRAM_HEADER_BYTES, 0);
    codec::encode_into(envelope, &mut out)?;
    let envelope_len = out.len() - DATAGRAM_HEADER_BYTES;
    let length = out.len() + payload.len();
    if length > DATAGRAM_MAX_BYTES {
        return Err(WireError::DatagramLength(length));
    }
    out.extend_from_slice(payload);
    // Both are below the length, which is below 64 KiB.
    header.write(envelope_len as u16, payload.len() as u16, &mut out);
    Ok(out)
}

/// Replaces what changes when a datagram is sent once more: what is left of the deadline, the low-water mark, and what
/// the daemon is known by.
pub fn restamp(datagram: &mut [u8], number: u32, epoch: u64, cookie: u64, open: u32) {
    if let Some(head) = datagram.get_mut(..DATAGRAM_HEADER_BYTES) {
        head[12..16].copy_from_slice(&number.to_le_bytes());
        head[16..24].copy_from_slice(&epoch.to_le_bytes());
        head[24..32].copy_from_slice(&cookie.to_le_bytes());
        head[36..40].copy_from_slice(&open.to_le_bytes());
    }
}

/// What the client and id of a datagram of any version are, so that it can be refused.
pub fn addressed(bytes: &[u8]) -> Option<(u32, u64)> {
    let head = bytes.get(..DATAGRAM_HEADER_BYTES)?;
    Some((u32_at(head, 32), u64_at(head, 40)))
}

/// `call` in a datagram.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CallNamed {
    /// Name of the service.
    pub service: Text,
    /// Name of the method.
    pub method: Text,
    /// W3C Trace Context, passed on to the service.
    pub traceparent: Option<Text>,
    /// Numbered additions; unknown ones are ignored.
    pub extensions: List<(u16, Blob), EXTENSIONS_MAX>,
}

/// `publish` in a datagram.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PublishNamed {
    /// Name of the topic.
    pub topic: Text,
    /// W3C Trace Context, passed on to the subscribers.
    pub traceparent: Option<Text>,
    /// Numbered additions; unknown ones are ignored.
    pub extensions: List<(u16, Blob), EXTENSIONS_MAX>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> DatagramHeader {
        DatagramHeader {
            kind: DatagramKind::Call,
            flags: Flags::ONEWAY,
            payload_kind: PayloadKind::Json,
            number: 0x0102_0304,
            epoch: 0x0506_0708_090a_0b0c,
            cookie: 0x0d0e_0f10_1112_1314,
            client: 0x1516_1718,
            open: 0x191a_1b1c,
            id: 0x1d1e_1f20_2122_2324,
        }
    }

    #[test]
    fn every_field_survives() {
        let bytes = encode_datagram(full(), &Text::from("name"), b"payload").unwrap();
        let datagram = Datagram::parse(&bytes).unwrap();
        assert_eq!(datagram.header, full());
        assert_eq!((datagram.decode::<Text>(), datagram.payload), (Ok(Text::from("name")), &b"payload"[..]));
        assert_eq!(addressed(&bytes), Some((full().client, full().id)));
        let mut again = bytes.clone();
        restamp(&mut again, 1, 2, 3, 4);
        let header = DatagramHeader { number: 1, epoch: 2, cookie: 3, open: 4, ..full() };
        assert_eq!(Datagram::parse(&again).unwrap().header, header);
        assert_eq!(header.low_water(), full().id - 4);
    }

    #[test]
    fn pieces_and_more_than_one_datagram_are_refused() {
        let bytes = encode_datagram(full(), &Text::from("name"), b"payload").unwrap();
        for length in 0..bytes.len() {
            assert!(Datagram::parse(&bytes[..length]).is_err(), "{length}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Datagram::parse(&longer), Err(WireError::DatagramLength(longer.len())));
        let mut hello = encode_bare(DatagramHeader::new(DatagramKind::Hello)).to_vec();
        assert!(Datagram::parse(&hello).is_ok());
        hello.push(0);
        hello[10] = 1;
        assert!(Datagram::parse(&hello).is_err(), "a hello has no payload");
    }

    #[test]
    fn undefined_bits_are_refused() {
        let good = encode_datagram(full(), &(), b"").unwrap();
        for (at, value, error) in [
            (0, 0, WireError::Preamble),
            (4, 2, WireError::Version(2)),
            (5, 0x7f, WireError::UnexpectedKind(0x7f)),
            (6, 1, WireError::UnknownFlags(1)),
            (7, 4, WireError::UnknownPayloadKind(4)),
            (15, 0xff, WireError::DeadlineTooLong(0xff02_0304)),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(Datagram::parse(&bad), Err(error));
        }
    }

    #[test]
    fn a_datagram_has_a_maximum() {
        let envelope = Text::from("");
        let room = DATAGRAM_CONTENT_MAX_BYTES - 1;
        for (length, fits) in [(room - 1, true), (room, true), (room + 1, false)] {
            let encoded = encode_datagram(full(), &envelope, &vec![7; length]);
            assert_eq!(encoded.is_ok(), fits, "{length}");
            if let Ok(bytes) = encoded {
                assert_eq!(Datagram::parse(&bytes).unwrap().payload.len(), length);
            }
        }
    }

    #[test]
    fn every_kind_survives_its_number() {
        for kind in DatagramKind::ALL {
            assert_eq!(DatagramKind::from_number(kind.number()), Some(*kind));
        }
    }
}
