//! A frame as one side has received it, and the small writer that simulated clients use: any field, right or wrong.

use ipc_core::id::Handle;
use ipc_core::wire::codec::{self, Wire};
use ipc_core::wire::{Body, Flags, Frame, Header, Kind};

/// A received frame that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The fixed part.
    pub header: Header,
    /// The encoded envelope.
    pub envelope: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Seen {
    /// Copies a frame.
    pub fn of(frame: &Frame<'_>) -> Self {
        Self {
            header: frame.header,
            envelope: frame.envelope.to_vec(),
            payload: frame.body.as_slice().to_vec(),
        }
    }

    /// The same as a frame.
    pub fn as_frame(&self) -> Frame<'_> {
        Frame { header: self.header, envelope: &self.envelope, body: Body::Borrowed(&self.payload) }
    }

    /// What the frame is.
    pub fn kind(&self) -> Kind {
        self.header.kind
    }

    /// Whether that flag is set.
    pub fn has(&self, flag: Flags) -> bool {
        self.header.flags.contains(flag)
    }

    /// The envelope, if it is one of that type.
    pub fn decode<T: Wire>(&self) -> Option<T> {
        codec::decode(&self.envelope).ok()
    }

    /// One line for a report.
    pub fn describe(&self) -> String {
        let header = &self.header;
        format!(
            "{} flags={} handle={}.{} correlation={:#x} sender={} deadline={} sequence={} envelope={} payload={}",
            header.kind.name(),
            header.flags.bits(),
            header.handle.index,
            header.handle.generation,
            header.correlation,
            header.sender,
            header.deadline_us,
            header.sequence,
            self.envelope.len(),
            self.payload.len()
        )
    }
}

/// A frame to be sent: a kind, and whatever differs from zero.
#[derive(Clone, Debug)]
pub struct Draft {
    header: Header,
    envelope: Vec<u8>,
    payload: Vec<u8>,
}

impl Draft {
    /// A frame of that kind, otherwise empty.
    pub fn new(kind: Kind) -> Self {
        Self { header: Header::new(kind), envelope: Vec::new(), payload: Vec::new() }
    }

    /// Sets the correlation.
    #[must_use]
    pub fn correlation(mut self, correlation: u64) -> Self {
        self.header.correlation = correlation;
        self
    }

    /// Sets the handle.
    #[must_use]
    pub fn handle(mut self, index: u32, generation: u16) -> Self {
        self.header.handle = Handle { index, generation };
        self
    }

    /// Sets the flags.
    #[must_use]
    pub fn flags(mut self, flags: Flags) -> Self {
        self.header.flags = flags;
        self
    }

    /// Sets the remaining deadline in microseconds.
    #[must_use]
    pub fn deadline_us(mut self, deadline_us: u32) -> Self {
        self.header.deadline_us = deadline_us;
        self
    }

    /// Sets the envelope.
    ///
    /// # Panics
    /// When it cannot be encoded, which none of the protocol's envelopes can cause.
    #[must_use]
    pub fn envelope<T: Wire>(mut self, envelope: &T) -> Self {
        self.envelope.clear();
        codec::encode_into(envelope, &mut self.envelope).expect("an envelope can be encoded");
        self
    }

    /// Sets the envelope to bytes that may be no envelope at all.
    #[must_use]
    pub fn raw_envelope(mut self, bytes: &[u8]) -> Self {
        self.envelope = bytes.to_vec();
        self
    }

    /// Sets the payload.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// The bytes on the wire.
    ///
    /// # Panics
    /// When a length does not fit its field.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut header = self.header;
        header.envelope_len = u16::try_from(self.envelope.len()).expect("the envelope fits its length field");
        header.payload_len = u32::try_from(self.payload.len()).expect("the payload fits its length field");
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend_from_slice(&self.envelope);
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}
