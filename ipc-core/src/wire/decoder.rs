//! A stream of bytes cut into frames.

use bytes::Bytes;

use super::{Body, Frame, HEADER_BYTES, Header, PREAMBLE, WireError};

/// Payloads from this size on get a buffer of their own, which is passed on without copying.
pub const SHARE_MIN_BYTES: usize = 8 * 1024;

/// The least that [`Decoder::direct`] reserves once a large frame is on its way, in bytes.
const DIRECT_MIN_BYTES: usize = 64 * 1024;

/// What a frame may measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Largest payload in bytes.
    pub payload_max_bytes: u32,
    /// Largest frame in bytes while the connection has not been greeted; `None` after.
    pub frame_max_bytes: Option<u32>,
}

/// Cuts received bytes into frames.
///
/// Input: call [`next`](Decoder::next) with what was read until it returns `Ok(None)`; what is left of an unfinished frame is
/// kept inside, and nothing else is: a decoder between frames owns no buffer. Its memory grows with the bytes that
/// arrived, never with a length that was announced. After an error the connection is to be closed.
#[derive(Debug)]
pub struct Decoder {
    limits: FrameLimits,
    /// Beginning of a frame whose end has not arrived.
    partial: Vec<u8>,
    /// Length of the frame in `partial`, once its header is there.
    expected: Option<usize>,
    /// The frame handed out last, when it had been put together in `partial`.
    whole: Bytes,
    /// Bytes of the preamble that are still to come.
    preamble_missing: usize,
}

impl Decoder {
    /// A decoder at the beginning of a frame.
    pub fn new(limits: FrameLimits) -> Self {
        Self { limits, partial: Vec::new(), expected: None, whole: Bytes::new(), preamble_missing: 0 }
    }

    /// A decoder at the beginning of a client's stream, which starts with the [`PREAMBLE`].
    pub fn after_preamble(limits: FrameLimits) -> Self {
        Self { preamble_missing: PREAMBLE.len(), ..Self::new(limits) }
    }

    /// Other limits from the next frame on.
    pub fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
    }

    /// Whether an unfinished frame is kept.
    pub fn is_mid_frame(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Bytes of memory held for an unfinished frame.
    pub fn held_bytes(&self) -> usize {
        self.partial.capacity()
    }

    /// While a large frame is unfinished: the buffer to read into and how many bytes at most, so that they need not be
    /// copied. Call [`next`](Decoder::next) with an empty input afterwards.
    ///
    /// The buffer has room for at least one byte more, and is grown to no more than twice what has arrived and 64 KiB; one
    /// that was [lent](Decoder::lend) is used as it is.
    pub fn direct(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        let missing = self.expected?.checked_sub(self.partial.len())?;
        if missing < SHARE_MIN_BYTES {
            return None;
        }
        let spare = self.partial.capacity() - self.partial.len();
        let room = missing.min(self.partial.len().max(DIRECT_MIN_BYTES).max(spare));
        self.partial.reserve_exact(room);
        Some((&mut self.partial, room))
    }

    /// Length of the large frame that is unfinished, as long as its buffer is too small for it: memory of that size that is
    /// there anyway may be [lent](Decoder::lend).
    pub fn wants_bytes(&self) -> Option<usize> {
        let expected = self.expected.filter(|expected| self.partial.capacity() < *expected)?;
        (expected - self.partial.len() >= SHARE_MIN_BYTES).then_some(expected)
    }

    /// Goes on with the unfinished frame in `buffer`, which is emptied first: nothing is allocated and copied as it grows. The
    /// payload keeps the buffer.
    pub fn lend(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        buffer.extend_from_slice(&self.partial);
        self.partial = buffer;
    }

    /// The next complete frame, taken from what is kept and the front of `input`.
    ///
    /// `Ok(None)` means that all of `input` was taken in and more bytes are needed.
    ///
    /// # Errors
    /// A [`WireError`] as soon as a header is there that breaks a rule; nothing has been allocated for its frame.
    #[inline]
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Frame<'a>>, WireError> {
        // Nearly always the next frame lies in the input from end to end.
        if self.partial.is_empty()
            && self.preamble_missing == 0
            && self.whole.is_empty()
            && let Some(bytes) = input.first_chunk::<HEADER_BYTES>()
        {
            let header = self.checked_header(bytes)?;
            if input.len() >= header.frame_bytes() {
                return Ok(Some(take_borrowed(header, input)));
            }
        }
        self.next_in_parts(input)
    }

    #[inline(never)]
    fn next_in_parts<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Frame<'a>>, WireError> {
        self.whole = Bytes::new();
        if self.preamble_missing > 0 {
            self.take_preamble(input)?;
        }
        if self.partial.is_empty() {
            match self.whole_frame_at(input)? {
                Some(header) => return Ok(Some(take_borrowed(header, input))),
                None => return Ok(None),
            }
        }
        self.complete_partial(input)
    }

    fn take_preamble(&mut self, input: &mut &[u8]) -> Result<(), WireError> {
        let count = self.preamble_missing.min(input.len());
        let (now, later) = input.split_at(count);
        let at = PREAMBLE.len() - self.preamble_missing;
        if now != &PREAMBLE[at..at + count] {
            return Err(WireError::Preamble);
        }
        self.preamble_missing -= count;
        *input = later;
        Ok(())
    }

    /// The header of the frame at the front of `input` if all of it is there; otherwise keeps what is there.
    fn whole_frame_at(&mut self, input: &mut &[u8]) -> Result<Option<Header>, WireError> {
        if let Some(bytes) = input.first_chunk::<HEADER_BYTES>() {
            let header = self.checked_header(bytes)?;
            if input.len() >= header.frame_bytes() {
                return Ok(Some(header));
            }
            self.expected = Some(header.frame_bytes());
        }
        self.partial.extend_from_slice(input);
        *input = &[];
        Ok(None)
    }

    fn complete_partial<'a>(&'a mut self, input: &mut &[u8]) -> Result<Option<Frame<'a>>, WireError> {
        if self.expected.is_none() {
            self.take_up_to(HEADER_BYTES, input);
            let Some(bytes) = self.partial.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
            let header = self.checked_header(bytes)?;
            self.expected = Some(header.frame_bytes());
        }
        let expected = self.expected.unwrap_or(HEADER_BYTES);
        self.take_up_to(expected, input);
        if self.partial.len() < expected {
            return Ok(None);
        }
        self.expected = None;
        self.whole = Bytes::from(core::mem::take(&mut self.partial));
        let whole = &self.whole;
        let Some(bytes) = whole.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let header = Header::parse(bytes)?;
        let body_at = HEADER_BYTES + usize::from(header.envelope_len);
        let body = if whole.len() - body_at >= SHARE_MIN_BYTES {
            Body::Shared(whole.slice(body_at..))
        } else {
            Body::Borrowed(&whole[body_at..])
        };
        Ok(Some(Frame { header, envelope: &whole[HEADER_BYTES..body_at], body }))
    }

    fn take_up_to(&mut self, length: usize, input: &mut &[u8]) {
        let count = length.saturating_sub(self.partial.len()).min(input.len());
        let (now, later) = input.split_at(count);
        self.partial.extend_from_slice(now);
        *input = later;
    }

    #[inline]
    fn checked_header(&self, bytes: &[u8; HEADER_BYTES]) -> Result<Header, WireError> {
        let header = Header::parse(bytes)?;
        let limit = self.limits.payload_max_bytes;
        if header.payload_len > limit {
            return Err(WireError::PayloadTooLarge { length: header.payload_len, limit });
        }
        if let Some(limit) = self.limits.frame_max_bytes {
            let length = u32::try_from(header.frame_bytes()).unwrap_or(u32::MAX);
            if length > limit {
                return Err(WireError::FrameTooLarge { length, limit });
            }
        }
        Ok(header)
    }
}

#[inline]
fn take_borrowed<'a>(header: Header, input: &mut &'a [u8]) -> Frame<'a> {
    let (frame, rest) = input.split_at(header.frame_bytes());
    *input = rest;
    let (envelope, body) = frame[HEADER_BYTES..].split_at(usize::from(header.envelope_len));
    let body = if body.len() >= SHARE_MIN_BYTES {
        Body::Shared(Bytes::copy_from_slice(body))
    } else {
        Body::Borrowed(body)
    };
    Frame { header, envelope, body }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::Resolve;
    use crate::wire::{Kind, encode_frame};

    const LIMITS: FrameLimits = FrameLimits { payload_max_bytes: 1 << 20, frame_max_bytes: None };

    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        let resolve = Resolve { service: "a.b".into(), method: "m".into() };
        encode_frame(&mut bytes, Header::new(Kind::RESOLVE).with_correlation(1), &resolve, &[]).unwrap();
        encode_frame(&mut bytes, Header::new(Kind::CALL).with_correlation(2), &(), b"payload").unwrap();
        encode_frame(&mut bytes, Header::new(Kind::CALL).with_correlation(3), &(), &vec![7; 20_000]).unwrap();
        encode_frame(&mut bytes, Header::new(Kind::PING).with_correlation(4), &(), &[]).unwrap();
        bytes
    }

    fn drain(decoder: &mut Decoder, mut input: &[u8], out: &mut Vec<(u64, Vec<u8>)>) {
        while let Some(frame) = decoder.next(&mut input).unwrap() {
            out.push((frame.header.correlation, frame.body.as_slice().to_vec()));
        }
        assert!(input.is_empty());
    }

    #[test]
    fn a_stream_split_anywhere_gives_the_same_frames() {
        let bytes = sample();
        let mut expected = Vec::new();
        drain(&mut Decoder::new(LIMITS), &bytes, &mut expected);
        assert_eq!(expected.len(), 4);
        for split in 0..=bytes.len() {
            let mut decoder = Decoder::new(LIMITS);
            let mut got = Vec::new();
            drain(&mut decoder, &bytes[..split], &mut got);
            drain(&mut decoder, &bytes[split..], &mut got);
            assert_eq!(got, expected, "split at {split}");
            assert_eq!(decoder.held_bytes(), 0);
        }
    }

    #[test]
    fn the_preamble_is_checked_byte_by_byte() {
        let mut bytes = PREAMBLE.to_vec();
        bytes.extend(sample());
        for split in 0..8 {
            let mut decoder = Decoder::after_preamble(LIMITS);
            let mut got = Vec::new();
            drain(&mut decoder, &bytes[..split], &mut got);
            drain(&mut decoder, &bytes[split..], &mut got);
            assert_eq!(got.len(), 4, "split at {split}");
        }
        for wrong in 0..4 {
            let mut bad = bytes.clone();
            bad[wrong] ^= 1;
            let mut decoder = Decoder::after_preamble(LIMITS);
            assert_eq!(decoder.next(&mut &bad[..=wrong]).err(), Some(WireError::Preamble), "byte {wrong}");
        }
    }

    #[test]
    fn direct_reads_complete_a_large_frame() {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, Header::new(Kind::CALL), &(), &vec![9; 300_000]).unwrap();
        let mut decoder = Decoder::new(LIMITS);
        let mut given = 1000;
        assert!(decoder.next(&mut &bytes[..given]).unwrap().is_none());
        while given < bytes.len() {
            let (buffer, room) = decoder.direct().unwrap();
            assert!(room <= given.max(DIRECT_MIN_BYTES));
            let count = room.min(50_000);
            buffer.extend_from_slice(&bytes[given..given + count]);
            given += count;
            let done = decoder.next(&mut &[][..]).unwrap().is_some();
            assert_eq!(done, given == bytes.len());
        }
        assert!(decoder.direct().is_none());
    }

    #[test]
    fn a_lent_buffer_takes_the_whole_frame() {
        let payload: Vec<u8> = (0..300_000u32).map(|at| at as u8).collect();
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, Header::new(Kind::CALL), &(), &payload).unwrap();
        let mut decoder = Decoder::new(LIMITS);
        assert_eq!(decoder.wants_bytes(), None);
        let mut input = &bytes[..1000];
        assert!(decoder.next(&mut input).unwrap().is_none());
        assert_eq!(decoder.wants_bytes(), Some(bytes.len()));
        let mut buffer = Vec::with_capacity(400_000);
        buffer.extend_from_slice(b"what it was used for before");
        decoder.lend(buffer);
        assert_eq!(decoder.wants_bytes(), None);
        let (buffer, room) = decoder.direct().unwrap();
        assert_eq!(room, bytes.len() - 1000);
        buffer.extend_from_slice(&bytes[1000..]);
        assert_eq!(buffer.capacity(), 400_000);
        let frame = decoder.next(&mut &[][..]).unwrap().unwrap();
        assert!(frame.body.as_slice() == payload);
        assert!(decoder.next(&mut &[][..]).unwrap().is_none());
        assert_eq!(decoder.held_bytes(), 0);
    }

    #[test]
    fn the_payload_limit_is_checked_before_anything_is_kept() {
        let limits = FrameLimits { payload_max_bytes: 100, frame_max_bytes: None };
        for (length, fits) in [(99, true), (100, true), (101, false)] {
            let header = Header { payload_len: length, ..Header::new(Kind::CALL) };
            let mut decoder = Decoder::new(limits);
            assert_eq!(decoder.next(&mut &header.to_bytes()[..]).is_ok(), fits, "{length}");
            assert!(decoder.held_bytes() <= 64);
        }
    }

    #[test]
    fn the_limit_before_the_hello_counts_the_whole_frame() {
        let limits = FrameLimits { payload_max_bytes: 1000, frame_max_bytes: Some(256) };
        for (length, fits) in [(215, true), (216, true), (217, false)] {
            let header = Header { payload_len: length, ..Header::new(Kind::HELLO) };
            assert_eq!(Decoder::new(limits).next(&mut &header.to_bytes()[..]).is_ok(), fits, "{length}");
        }
    }
}
