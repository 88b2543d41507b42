//! The one place that calls bincode: envelopes to bytes and back.
//!
//! bincode 2.0.1 `standard()`: little-endian, variable-length integers. A decode reads from a complete slice, never
//! allocates more than the slice holds, and refuses bytes that are left over. [`Text`] and [`List`] exist because
//! bincode's own `String` and `Vec` reserve what a length announces before they look at what is there.

use bincode::config;
use bincode::de::{BorrowDecoder, Decoder, read::Reader};
use bincode::enc::{Encoder, write::Writer};
use bincode::error::{DecodeError, EncodeError};
pub use bincode::{BorrowDecode, Decode, Encode};

use super::WireError;

/// Something that can be an envelope.
pub trait Wire: Encode + Decode<()> {}

impl<T: Encode + Decode<()>> Wire for T {}

/// Bincode's limit counts what values take in memory, which is more than they take on the wire.
const DECODE_LIMIT_BYTES: usize = 4 * crate::limits::ENVELOPE_MAX_BYTES;

/// Appends the encoding of `value`.
///
/// # Errors
/// [`WireError::Envelope`] when the value cannot be encoded; nothing of the kinds in [`super::message`] can fail.
pub fn encode_into<T: Encode>(value: &T, out: &mut Vec<u8>) -> Result<(), WireError> {
    struct Append<'a>(&'a mut Vec<u8>);
    impl Writer for Append<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }
    bincode::encode_into_writer(value, Append(out), config::standard())
        .map_err(|_| WireError::Envelope("it cannot be encoded"))
}

/// Decodes a value from all of `bytes`.
///
/// # Errors
/// [`WireError::Envelope`] when the bytes are not such a value, [`WireError::TrailingBytes`] when some are left over.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, WireError> {
    let config = config::standard().with_limit::<DECODE_LIMIT_BYTES>();
    match bincode::decode_from_slice::<T, _>(bytes, config) {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        Ok(_) => Err(WireError::TrailingBytes),
        Err(error) => Err(WireError::Envelope(describe(&error))),
    }
}

/// Decodes the value that `bytes` begin with, whatever follows.
///
/// # Errors
/// [`WireError::Envelope`] when they do not begin with such a value.
pub fn decode_first<T: Decode<()>>(bytes: &[u8]) -> Result<T, WireError> {
    let config = config::standard().with_limit::<DECODE_LIMIT_BYTES>();
    let decoded = bincode::decode_from_slice::<T, _>(bytes, config);
    decoded.map(|(value, _)| value).map_err(|error| WireError::Envelope(describe(&error)))
}

fn describe(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::UnexpectedEnd { .. } => "it ends too early",
        DecodeError::LimitExceeded => "it is too large",
        DecodeError::UnexpectedVariant { .. } => "it has an undefined variant",
        DecodeError::Utf8 { .. } => "its text is not UTF-8",
        DecodeError::OtherString(_) | DecodeError::Other(_) => "a list in it is too long",
        _ => "it has an impossible value",
    }
}

/// Text on the wire: the bytes of a bincode `String`, decoded without trusting the length.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Text(pub String);

impl Text {
    /// A text of at most `max_bytes`, cut at a character.
    pub fn clipped(text: &str, max_bytes: usize) -> Self {
        let mut end = text.len().min(max_bytes);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self(text[..end].to_owned())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Encode for Text {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.as_str().encode(encoder)
    }
}

impl<C> Decode<C> for Text {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let bytes = decode_bytes(decoder)?;
        String::from_utf8(bytes).map(Text).map_err(|error| DecodeError::Utf8 { inner: error.utf8_error() })
    }
}

impl<'de, C> BorrowDecode<'de, C> for Text {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Text::decode(decoder)
    }
}

/// Bytes on the wire: those of a bincode `Vec<u8>`, decoded without trusting the length.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Blob(pub Vec<u8>);

impl Encode for Blob {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.as_slice().encode(encoder)
    }
}

impl<C> Decode<C> for Blob {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        decode_bytes(decoder).map(Blob)
    }
}

impl<'de, C> BorrowDecode<'de, C> for Blob {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Blob::decode(decoder)
    }
}

fn decode_bytes<D: Decoder>(decoder: &mut D) -> Result<Vec<u8>, DecodeError> {
    let length = decode_length(decoder)?;
    decoder.claim_bytes_read(length)?;
    let reader = decoder.reader();
    let missing = DecodeError::UnexpectedEnd { additional: length };
    let bytes = reader.peek_read(length).ok_or(missing)?.to_vec();
    reader.consume(length);
    Ok(bytes)
}

fn decode_length<D: Decoder>(decoder: &mut D) -> Result<usize, DecodeError> {
    let length = u64::decode(decoder)?;
    usize::try_from(length).map_err(|_| DecodeError::LimitExceeded)
}

/// A list of at most `MAX` items on the wire: the bytes of a bincode `Vec<T>`. It grows item by item, so that a length
/// without items behind it costs nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T, const MAX: usize>(pub Vec<T>);

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Encode + 'static, const MAX: usize> Encode for List<T, MAX> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.encode(encoder)
    }
}

impl<C, T: Decode<C>, const MAX: usize> Decode<C> for List<T, MAX> {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let length = decode_length(decoder)?;
        if length > MAX {
            return Err(DecodeError::Other("list too long"));
        }
        let mut items = Vec::new();
        for _ in 0..length {
            items.push(T::decode(decoder)?);
        }
        Ok(List(items))
    }
}

impl<'de, C, T: Decode<C>, const MAX: usize> BorrowDecode<'de, C> for List<T, MAX> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        List::decode(decoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_lists_have_the_bytes_of_bincode() {
        let mut ours = Vec::new();
        encode_into(&(Text::from("grüß"), List::<u16, 4>(vec![1, 300])), &mut ours).unwrap();
        let theirs =
            bincode::encode_to_vec(("grüß".to_owned(), vec![1u16, 300]), config::standard()).unwrap();
        assert_eq!(ours, theirs);
        let back: (Text, List<u16, 4>) = decode(&ours).unwrap();
        assert_eq!(back, (Text::from("grüß"), List(vec![1, 300])));
    }

    #[test]
    fn a_list_holds_its_maximum() {
        for (count, fits) in [(3, true), (4, true), (5, false)] {
            let mut bytes = Vec::new();
            encode_into(&vec![7u8; count], &mut bytes).unwrap();
            assert_eq!(decode::<List<u8, 4>>(&bytes).is_ok(), fits, "{count}");
        }
    }

    #[test]
    fn lies_about_length_are_errors() {
        // 253 announces a u64 behind it.
        let huge = [253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert!(decode::<Text>(&huge).is_err());
        assert!(decode::<Blob>(&huge).is_err());
        assert!(decode::<List<Text, 16>>(&huge).is_err());
        assert_eq!(decode::<Text>(&[5, b'a']), Err(WireError::Envelope("it ends too early")));
    }

    #[test]
    fn nothing_may_be_left_over() {
        assert_eq!(decode::<u8>(&[1, 2]), Err(WireError::TrailingBytes));
    }

    #[test]
    fn clipping_keeps_characters_whole() {
        assert_eq!(Text::clipped("grüß", 3), Text::from("gr"));
        assert_eq!(Text::clipped("grüß", 4), Text::from("grü"));
        assert_eq!(Text::clipped("grüß", 100), Text::from("grüß"));
    }
}
