//! Bytes on their way to the daemon: one buffer, and large payloads beside it that are never copied.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::payload::Payload;
use crate::wire::codec::{self, Wire};
use crate::wire::{HEADER_BYTES, Header, SHARE_MIN_BYTES, WireError};

/// An empty buffer larger than this is given back.
const KEEP_MAX_BYTES: usize = 256 * 1024;
/// Sent bytes are cut off the front of the buffer once there are this many.
const COMPACT_MIN_BYTES: usize = 64 * 1024;

/// A large payload, to be written when the buffer has been written up to `at`.
#[derive(Debug)]
struct Large {
    at: usize,
    bytes: Bytes,
}

/// What is still to be written.
#[derive(Debug, Default)]
pub(super) struct Output {
    buffer: Vec<u8>,
    /// How much of `buffer` was written.
    sent: usize,
    larges: VecDeque<Large>,
    /// Bytes ever queued and ever written on this connection.
    queued_total: u64,
    sent_total: u64,
}

impl Output {
    /// Bytes that wait to be written.
    pub(super) fn pending_bytes(&self) -> u64 {
        self.queued_total - self.sent_total
    }

    /// The position in the stream behind everything queued so far.
    pub(super) fn end(&self) -> u64 {
        self.queued_total
    }

    /// The position in the stream up to which bytes were written.
    pub(super) fn sent(&self) -> u64 {
        self.sent_total
    }

    /// Forgets everything, for a new stream.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Queues bytes that are no frame.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.queued_total += bytes.len() as u64;
    }

    /// Queues a frame without an envelope. The lengths in `header` are filled in here.
    pub(super) fn plain(&mut self, header: Header, payload: &Payload) {
        let header = Header {
            payload_kind: payload.kind,
            payload_len: length(&payload.body),
            envelope_len: 0,
            ..header
        };
        self.buffer.reserve(HEADER_BYTES + payload.len().min(SHARE_MIN_BYTES));
        self.buffer.extend_from_slice(&header.to_bytes());
        self.queued_total += HEADER_BYTES as u64;
        self.body(&payload.body);
    }

    /// Queues a frame of nothing but a header.
    pub(super) fn bare(&mut self, header: Header) {
        self.raw(&Header { payload_len: 0, envelope_len: 0, ..header }.to_bytes());
    }

    /// Queues a frame with an envelope.
    ///
    /// # Errors
    /// [`WireError::Envelope`] when the envelope is longer than its length field can say; nothing is queued then.
    pub(super) fn frame<T: Wire>(
        &mut self,
        header: Header,
        envelope: &T,
        payload: &Payload,
    ) -> Result<(), WireError> {
        let start = self.buffer.len();
        self.buffer.resize(start + HEADER_BYTES, 0);
        let encoded = codec::encode_into(envelope, &mut self.buffer).and_then(|()| {
            u16::try_from(self.buffer.len() - start - HEADER_BYTES)
                .map_err(|_| WireError::Envelope("it is longer than 65535 bytes"))
        });
        match encoded {
            Ok(envelope_len) => {
                let header = Header {
                    payload_kind: payload.kind,
                    payload_len: length(&payload.body),
                    envelope_len,
                    ..header
                };
                self.buffer[start..start + HEADER_BYTES].copy_from_slice(&header.to_bytes());
                self.queued_total += (self.buffer.len() - start) as u64;
                self.body(&payload.body);
                Ok(())
            }
            Err(error) => {
                self.buffer.truncate(start);
                Err(error)
            }
        }
    }

    fn body(&mut self, bytes: &Bytes) {
        self.queued_total += bytes.len() as u64;
        if bytes.len() < SHARE_MIN_BYTES {
            self.buffer.extend_from_slice(bytes);
        } else {
            self.larges.push_back(Large { at: self.buffer.len(), bytes: bytes.clone() });
        }
    }

    /// The pieces to write, in order; none is empty.
    pub(super) fn slices(&self) -> Slices<'_> {
        Slices { output: self, at: self.sent, large: 0, is_at_large: false }
    }

    /// Takes away the first `count` bytes, which were written.
    pub(super) fn advance(&mut self, count: usize) {
        self.sent_total += count as u64;
        debug_assert!(self.sent_total <= self.queued_total, "more was written than there was");
        if self.sent_total >= self.queued_total {
            self.reset();
            return;
        }
        let mut left = count;
        while left > 0 {
            let stop = self.larges.front().map_or(self.buffer.len(), |large| large.at);
            let step = left.min(stop - self.sent);
            self.sent += step;
            left -= step;
            let Some(large) = self.larges.front_mut() else { break };
            let step = left.min(large.bytes.len());
            left -= step;
            if step == large.bytes.len() {
                self.larges.pop_front();
            } else {
                large.bytes = large.bytes.slice(step..);
            }
        }
        self.compact();
    }

    fn reset(&mut self) {
        self.sent = 0;
        self.larges.clear();
        if self.buffer.capacity() > KEEP_MAX_BYTES {
            self.buffer = Vec::new();
        } else {
            self.buffer.clear();
        }
    }

    fn compact(&mut self) {
        if self.sent < COMPACT_MIN_BYTES || self.sent * 2 < self.buffer.len() {
            return;
        }
        self.buffer.drain(..self.sent);
        for large in &mut self.larges {
            large.at -= self.sent;
        }
        self.sent = 0;
    }
}

/// The pieces of an [`Output`]. Mostly there is one, and it is asked for with every write, so this is kept simple.
#[derive(Debug)]
pub(super) struct Slices<'a> {
    output: &'a Output,
    /// How far the buffer was given.
    at: usize,
    /// Which large payload is next.
    large: usize,
    /// Whether the buffer was given up to that payload.
    is_at_large: bool,
}

impl<'a> Iterator for Slices<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let large = self.output.larges.get(self.large);
            let piece = match large {
                Some(large) if self.is_at_large => {
                    self.large += 1;
                    self.is_at_large = false;
                    &large.bytes[..]
                }
                _ => {
                    let end = large.map_or(self.output.buffer.len(), |large| large.at);
                    let piece = self.output.buffer.get(self.at..end)?;
                    if large.is_none() && piece.is_empty() {
                        return None;
                    }
                    self.at = end;
                    self.is_at_large = large.is_some();
                    piece
                }
            };
            if !piece.is_empty() {
                return Some(piece);
            }
        }
    }
}

fn length(bytes: &Bytes) -> u32 {
    // Payloads were checked against a limit far below 4 GiB when the request was made.
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Kind;
    use crate::wire::message::TopicInfo;

    fn filled() -> Output {
        let mut output = Output::default();
        output.raw(b"abc");
        output.plain(Header::new(Kind::CALL).with_correlation(1), &Payload::bytes(vec![1; 10]));
        output.plain(Header::new(Kind::CALL).with_correlation(2), &Payload::bytes(vec![2; 20_000]));
        output.plain(Header::new(Kind::CALL).with_correlation(3), &Payload::bytes(vec![3; 30_000]));
        let info = TopicInfo { name: "a.b".into() };
        output.frame(Header::new(Kind::CALL), &info, &Payload::from("x")).unwrap();
        output
    }

    fn bytes(output: &Output) -> Vec<u8> {
        output.slices().flatten().copied().collect()
    }

    #[test]
    fn large_payloads_are_not_copied_and_stay_in_order() {
        let body = Bytes::from(vec![7; 10_000]);
        let mut output = Output::default();
        output.plain(Header::new(Kind::CALL), &Payload::bytes(body.clone()));
        assert!(output.slices().any(|piece| piece.as_ptr() == body.as_ptr()));
        assert!(filled().slices().all(|piece| !piece.is_empty()));
    }

    #[test]
    fn writes_of_any_size_give_the_same_stream() {
        let expected = bytes(&filled());
        for step in [1, 2, 39, 40, 41, 4096, 19_999, 50_000, 100_000] {
            let mut output = filled();
            let mut written = Vec::new();
            while output.pending_bytes() > 0 {
                let piece: Vec<u8> = output.slices().flatten().copied().take(step).collect();
                output.advance(piece.len());
                written.extend(piece);
            }
            assert!(written == expected, "steps of {step}");
            assert_eq!(output.slices().count(), 0);
            assert_eq!(output.sent(), expected.len() as u64);
        }
    }

    #[test]
    fn what_was_written_does_not_pile_up() {
        let mut output = Output::default();
        for _ in 0..1000 {
            output.raw(&[0; 1000]);
            output.advance(999);
        }
        assert!(output.buffer.len() < 200_000);
        assert_eq!(output.pending_bytes(), 1000);
    }

    #[test]
    fn a_frame_that_cannot_be_encoded_leaves_nothing_behind() {
        let mut output = Output::default();
        let info = TopicInfo { name: "x".repeat(70_000).as_str().into() };
        assert!(output.frame(Header::new(Kind::CALL), &info, &Payload::default()).is_err());
        assert_eq!(output.pending_bytes(), 0);
        assert_eq!(output.slices().count(), 0);
    }
}
