//! PURE. What a call or an event carries: bytes that say what they are.

use bytes::Bytes;

use crate::error::{Error, ErrorCode};

/// How the bytes of a payload are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum PayloadKind {
    /// Anything.
    #[default]
    Bytes,
    /// UTF-8.
    Text,
    /// One JSON value (RFC 8259).
    Json,
    /// A value in bincode `standard()` encoding.
    Bincode,
}

impl PayloadKind {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            PayloadKind::Bytes => 0,
            PayloadKind::Text => 1,
            PayloadKind::Json => 2,
            PayloadKind::Bincode => 3,
        }
    }

    /// The kind with that number on the wire.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(PayloadKind::Bytes),
            1 => Some(PayloadKind::Text),
            2 => Some(PayloadKind::Json),
            3 => Some(PayloadKind::Bincode),
            _ => None,
        }
    }

    /// The word for it: `bytes`, `text`, `json` or `bincode`.
    pub const fn name(self) -> &'static str {
        match self {
            PayloadKind::Bytes => "bytes",
            PayloadKind::Text => "text",
            PayloadKind::Json => "json",
            PayloadKind::Bincode => "bincode",
        }
    }
}

/// A payload: its kind and its bytes. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Payload {
    /// How to read the bytes.
    pub kind: PayloadKind,
    /// The bytes.
    pub body: Bytes,
}

impl Payload {
    /// A payload of any bytes.
    pub fn bytes(body: impl Into<Bytes>) -> Self {
        Self { kind: PayloadKind::Bytes, body: body.into() }
    }

    /// A payload of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { kind: PayloadKind::Text, body: Bytes::from(text.into()) }
    }

    /// A payload of JSON that is already written out.
    pub fn json(text: impl Into<String>) -> Self {
        Self { kind: PayloadKind::Json, body: Bytes::from(text.into()) }
    }

    /// The payload as text; any kind whose bytes are UTF-8 will do.
    ///
    /// # Errors
    /// `application` when the bytes are not UTF-8.
    pub fn as_text(&self) -> Result<&str, Error> {
        core::str::from_utf8(&self.body).map_err(|error| {
            Error::new(ErrorCode::InvalidArgument, format!("the payload is not UTF-8 text: {error}"))
                .with_hint("send it as text, or read its bytes")
        })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self { kind: PayloadKind::Text, body: Bytes::copy_from_slice(text.as_bytes()) }
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Payload::text(text)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(body: Vec<u8>) -> Self {
        Payload::bytes(body)
    }
}

impl From<&[u8]> for Payload {
    fn from(body: &[u8]) -> Self {
        Payload::bytes(Bytes::copy_from_slice(body))
    }
}

impl From<Bytes> for Payload {
    fn from(body: Bytes) -> Self {
        Payload::bytes(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_its_number() {
        for number in 0..=255u8 {
            if let Some(kind) = PayloadKind::from_number(number) {
                assert_eq!(kind.number(), number);
            }
        }
        assert_eq!(PayloadKind::from_number(4), None);
    }

    #[test]
    fn text_is_checked() {
        assert_eq!(Payload::from("grüß").as_text().unwrap(), "grüß");
        let error = Payload::bytes(vec![0xff]).as_text().unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
    }
}
