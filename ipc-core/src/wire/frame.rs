//! A frame: header, envelope, payload.

use bytes::Bytes;

use super::codec::{self, Wire};
use super::{HEADER_BYTES, Header, WireError};

/// The payload of a received frame.
#[derive(Clone, Debug)]
pub enum Body<'a> {
    /// Small: still in the buffer it was read into.
    Borrowed(&'a [u8]),
    /// Large: a buffer of its own, which can be passed on without copying.
    Shared(Bytes),
}

impl Body<'_> {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Body::Borrowed(bytes) => bytes,
            Body::Shared(bytes) => bytes,
        }
    }

    /// The bytes, to keep: copied if they were borrowed.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Body::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Body::Shared(bytes) => bytes,
        }
    }
}

/// A received frame. Its envelope is not decoded yet.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    /// The fixed part.
    pub header: Header,
    /// The encoded envelope; empty stands for the default of its kind.
    pub envelope: &'a [u8],
    /// The payload.
    pub body: Body<'a>,
}

impl Frame<'_> {
    /// Decodes the envelope.
    ///
    /// # Errors
    /// [`WireError::Envelope`] or [`WireError::TrailingBytes`].
    pub fn decode<T: Wire>(&self) -> Result<T, WireError> {
        codec::decode(self.envelope)
    }
}

/// Appends a frame to `out`. The lengths in `header` are filled in here.
///
/// # Errors
/// [`WireError::Envelope`] when the envelope is longer than its length field can say, or the payload longer than
/// 4 GiB; `out` is then as it was.
pub fn encode_frame<T: Wire>(
    out: &mut Vec<u8>,
    header: Header,
    envelope: &T,
    payload: &[u8],
) -> Result<(), WireError> {
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    let encoded = codec::encode_into(envelope, out).and_then(|()| {
        let envelope_len = out.len() - start - HEADER_BYTES;
        u16::try_from(envelope_len).map_err(|_| WireError::Envelope("it is longer than 65535 bytes"))
    });
    let payload_len =
        u32::try_from(payload.len()).map_err(|_| WireError::Envelope("the payload is over 4 GiB"));
    match (encoded, payload_len) {
        (Ok(envelope_len), Ok(payload_len)) => {
            let header = Header { envelope_len, payload_len, ..header };
            out[start..start + HEADER_BYTES].copy_from_slice(&header.to_bytes());
            out.extend_from_slice(payload);
            Ok(())
        }
        (Err(error), _) | (_, Err(error)) => {
            out.truncate(start);
            Err(error)
        }
    }
}
