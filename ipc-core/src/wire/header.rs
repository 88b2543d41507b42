//! The fixed header: 40 bytes, little-endian, every field at a fixed offset.

use core::fmt;

use super::WireError;
use crate::id::Handle;
use crate::limits::DEADLINE_MAX;
use crate::payload::PayloadKind;

/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 40;

/// The longest deadline as the header has it.
const DEADLINE_MAX_US: u64 = DEADLINE_MAX.as_secs() * 1_000_000;

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind(pub u8);

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        impl Kind {
            $($(#[$doc])* pub const $name: Kind = Kind($number);)*

            /// Every kind of this version.
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)*];

            /// The name used in the specification, or `unknown`.
            pub const fn name(self) -> &'static str {
                match self.0 { $($number => $text,)* _ => "unknown" }
            }
        }
    };
}

kinds! {
    /// Client's first frame.
    HELLO = 0x01, "hello";
    /// The daemon's answer to it.
    WELCOME = 0x02, "welcome";
    /// The last frame of a connection, with the reason.
    CLOSE = 0x03, "close";
    /// Asks the daemon for a sign of life.
    PING = 0x08, "ping";
    /// The sign of life.
    PONG = 0x09, "pong";
    /// A call of a method.
    CALL = 0x10, "call";
    /// The outcome of a call.
    REPLY = 0x11, "reply";
    /// The caller does not want the outcome any more.
    CANCEL = 0x12, "cancel";
    /// The call behind it is made under the token of a lock.
    FENCE = 0x13, "fence";
    /// An event on its way to the bus.
    PUBLISH = 0x20, "publish";
    /// An event on its way to a subscriber.
    EVENT = 0x21, "event";
    /// Events that a subscriber did not get.
    GAP = 0x22, "gap";
    /// Binds a handle to a method.
    RESOLVE = 0x30, "resolve";
    /// Frees a handle.
    RELEASE = 0x31, "release";
    /// Offers a service.
    REGISTER = 0x32, "register";
    /// Takes a service back.
    UNREGISTER = 0x33, "unregister";
    /// Asks to hear about service names.
    WATCH_NAMES = 0x34, "watch_names";
    /// Ends such a watch.
    UNWATCH_NAMES = 0x35, "unwatch_names";
    /// A service name has come, gone or changed hands.
    NAME_CHANGED = 0x36, "name_changed";
    /// A registration that waited its turn owns the name.
    ACQUIRED = 0x37, "acquired";
    /// Binds a handle to a topic.
    OPEN_TOPIC = 0x40, "open_topic";
    /// Asks for events.
    SUBSCRIBE = 0x41, "subscribe";
    /// Ends a subscription.
    UNSUBSCRIBE = 0x42, "unsubscribe";
    /// The answer to an operation.
    DONE = 0x50, "done";
    /// Says who a sender handle stands for.
    PEER_ANNOUNCED = 0x60, "peer_announced";
    /// Says which topic a topic handle stands for.
    TOPIC_ANNOUNCED = 0x61, "topic_announced";
    /// An announced handle will not be used again before it is announced anew.
    FORGET = 0x62, "forget";
    /// Something is taken away that the client may not have any more.
    REVOKED = 0x63, "revoked";
    /// Asks for something of coordination; the handle says for what.
    COORDINATE = 0x70, "coordinate";
    /// What a coordination request came to, in whichever order.
    OUTCOME = 0x71, "outcome";
    /// A coordination request waits, and this is for what.
    WAITING = 0x72, "waiting";
    /// Something happened to what a coordination request has made.
    NOTICE = 0x73, "notice";
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:#04x})", self.name(), self.0)
    }
}

/// Bits that change how a frame is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Flags(u8);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// A reply or an answer that carries an error.
    pub const ERROR: Flags = Flags(1);
    /// A call or a publish that wants no answer.
    pub const ONEWAY: Flags = Flags(2);

    /// An outcome in a datagram whose arrival is to be acknowledged at once.
    pub const ACK: Flags = Flags(4);

    /// The flags of frames.
    const KNOWN: u8 = Flags::ERROR.0 | Flags::ONEWAY.0;

    /// The flags of a byte on the wire, of which only `known` bits may be set.
    pub(super) const fn from_bits(bits: u8, known: u8) -> Option<Flags> {
        if bits & !known == 0 { Some(Flags(bits)) } else { None }
    }

    /// These flags and others.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The byte on the wire.
    pub const fn bits(self) -> u8 {
        self.0
    }
}

/// The fixed part of a frame: all that the broker reads or stamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is; may be a kind this version does not know.
    pub kind: Kind,
    /// Flags.
    pub flags: Flags,
    /// How to read the payload.
    pub payload_kind: PayloadKind,
    /// Length of the payload in bytes.
    pub payload_len: u32,
    /// Length of the envelope in bytes.
    pub envelope_len: u16,
    /// Method, topic or registration; its meaning depends on the kind.
    pub handle: Handle,
    /// Ties an answer to its question.
    pub correlation: u64,
    /// Who sent it, stamped by the daemon.
    pub sender: u32,
    /// Remaining deadline in microseconds, 0 for none.
    pub deadline_us: u32,
    /// Number of an event in its topic.
    pub sequence: u64,
}

impl Header {
    /// A header of that kind with everything else zero.
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            flags: Flags::NONE,
            payload_kind: PayloadKind::Bytes,
            payload_len: 0,
            envelope_len: 0,
            handle: Handle { index: 0, generation: 0 },
            correlation: 0,
            sender: 0,
            deadline_us: 0,
            sequence: 0,
        }
    }

    /// The same header with that correlation.
    #[must_use]
    pub const fn with_correlation(mut self, correlation: u64) -> Self {
        self.correlation = correlation;
        self
    }

    /// The same header with that handle.
    #[must_use]
    pub const fn with_handle(mut self, handle: Handle) -> Self {
        self.handle = handle;
        self
    }

    /// Length of the whole frame in bytes.
    pub const fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.envelope_len as usize + self.payload_len as usize
    }

    /// The header as bytes.
    #[inline]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0u8; HEADER_BYTES];
        out[0] = self.kind.0;
        out[1] = self.flags.0;
        out[2] = self.payload_kind.number();
        out[4..8].copy_from_slice(&self.payload_len.to_le_bytes());
        out[8..10].copy_from_slice(&self.envelope_len.to_le_bytes());
        out[10..12].copy_from_slice(&self.handle.generation.to_le_bytes());
        out[12..16].copy_from_slice(&self.handle.index.to_le_bytes());
        out[16..24].copy_from_slice(&self.correlation.to_le_bytes());
        out[24..28].copy_from_slice(&self.sender.to_le_bytes());
        out[28..32].copy_from_slice(&self.deadline_us.to_le_bytes());
        out[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        out
    }

    /// Parses a header; lengths are not judged here, [`super::Decoder`] does that.
    ///
    /// # Errors
    /// Undefined flags, payload kinds, descriptors, or a deadline over the maximum.
    #[inline]
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, WireError> {
        let flags = Flags::from_bits(bytes[1], Flags::KNOWN).ok_or(WireError::UnknownFlags(bytes[1]))?;
        let payload_kind =
            PayloadKind::from_number(bytes[2]).ok_or(WireError::UnknownPayloadKind(bytes[2]))?;
        if bytes[3] != 0 {
            return Err(WireError::UnexpectedDescriptors(bytes[3]));
        }
        let deadline_us = u32_at(bytes, 28);
        if u64::from(deadline_us) > DEADLINE_MAX_US {
            return Err(WireError::DeadlineTooLong(deadline_us));
        }
        Ok(Self {
            kind: Kind(bytes[0]),
            flags,
            payload_kind,
            payload_len: u32_at(bytes, 4),
            envelope_len: u16_at(bytes, 8),
            handle: Handle { index: u32_at(bytes, 12), generation: u16_at(bytes, 10) },
            correlation: u64_at(bytes, 16),
            sender: u32_at(bytes, 24),
            deadline_us,
            sequence: u64_at(bytes, 32),
        })
    }
}

/// The field at `at`. In one piece, because the compiler does not join loads of single bytes.
#[inline]
fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

#[inline]
fn u16_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

#[inline]
fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

#[inline]
fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Header {
        Header {
            kind: Kind::CALL,
            flags: Flags::ONEWAY,
            payload_kind: PayloadKind::Json,
            payload_len: 0x0102_0304,
            envelope_len: 0x0506,
            handle: Handle { index: 0x0708_090a, generation: 0x0b0c },
            correlation: 0x0d0e_0f10_1112_1314,
            sender: 0x1516_1718,
            deadline_us: 0x191a_1b1c,
            sequence: 0x1d1e_1f20_2122_2324,
        }
    }

    #[test]
    fn every_field_survives() {
        assert_eq!(Header::parse(&full().to_bytes()), Ok(full()));
    }

    #[test]
    fn undefined_bits_are_refused() {
        let good = full().to_bytes();
        for (at, value, error) in [
            (1, 0x04, WireError::UnknownFlags(4)),
            (2, 4, WireError::UnknownPayloadKind(4)),
            (3, 1, WireError::UnexpectedDescriptors(1)),
        ] {
            let mut bad = good;
            bad[at] = value;
            assert_eq!(Header::parse(&bad), Err(error));
        }
    }

    #[test]
    fn the_deadline_has_a_maximum() {
        let hour: u32 = 3_600_000_000;
        for (micros, fits) in [(hour - 1, true), (hour, true), (hour + 1, false)] {
            let header = Header { deadline_us: micros, ..full() };
            assert_eq!(Header::parse(&header.to_bytes()).is_ok(), fits, "{micros}");
        }
    }
}
