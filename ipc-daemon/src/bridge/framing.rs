//! Bytes of a network client that wait to be calls.

use bytes::{Bytes, BytesMut};

use super::spec::expose::Framing;

/// Most bytes of one call with the framing `chunk`.
const CHUNK_MAX_BYTES: usize = 64 * 1024;
/// CR and LF.
const LINE_END_BYTES: usize = 2;

/// A line is longer than allowed: where the next one begins is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineTooLong;

/// What has been read and not been called with.
///
/// Put in what was read with [`push`](Pending::push), never more than [`room`](Pending::room); take calls out with
/// [`next`](Pending::next). Without bytes it owns no memory.
#[derive(Debug)]
pub(super) struct Pending {
    framing: Framing,
    /// Most bytes that wait, and the longest line without its end.
    max_bytes: usize,
    /// Most bytes of one chunk.
    chunk_max_bytes: usize,
    bytes: BytesMut,
    /// Bytes at the front in which there is no LF.
    scanned: usize,
    has_ended: bool,
}

impl Pending {
    /// Nothing, to be cut into calls by `framing`. A chunk is never longer than `payload_max_bytes`.
    pub(super) fn new(framing: Framing, max_bytes: usize, payload_max_bytes: usize) -> Self {
        let chunk_max_bytes = CHUNK_MAX_BYTES.min(payload_max_bytes);
        Self { framing, max_bytes, chunk_max_bytes, bytes: BytesMut::new(), scanned: 0, has_ended: false }
    }

    /// Most bytes that wait, and the longest line without its end.
    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Most bytes that may be read and put in.
    pub(super) fn room(&self) -> usize {
        let max = match self.framing {
            Framing::Chunk => self.max_bytes,
            // The end of the longest line has room behind it.
            Framing::Line => self.max_bytes + LINE_END_BYTES,
        };
        max.saturating_sub(self.bytes.len())
    }

    /// Takes in what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The client will send nothing more: what is left without a line end is the last line.
    pub(super) fn end(&mut self) {
        self.has_ended = true;
    }

    /// The payload of the next call.
    ///
    /// # Errors
    /// When the next line is longer than allowed, which ends the connection.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, LineTooLong> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let payload = match self.framing {
            Framing::Chunk => {
                let length = self.bytes.len().min(self.chunk_max_bytes);
                Some(self.bytes.split_to(length).freeze())
            }
            Framing::Line => self.next_line()?,
        };
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
        Ok(payload)
    }

    fn next_line(&mut self) -> Result<Option<Bytes>, LineTooLong> {
        let found = self.bytes[self.scanned..].iter().position(|byte| *byte == b'\n');
        let (line_bytes, taken_bytes) = match found {
            Some(at) => (self.scanned + at, self.scanned + at + 1),
            None => (self.bytes.len(), self.bytes.len()),
        };
        let has_carriage_return = self.bytes[..line_bytes].last() == Some(&b'\r');
        let line_bytes = line_bytes - usize::from(has_carriage_return);
        if line_bytes > self.max_bytes {
            return Err(LineTooLong);
        }
        if found.is_none() && !self.has_ended {
            self.scanned = self.bytes.len();
            return Ok(None);
        }
        self.scanned = 0;
        let mut line = self.bytes.split_to(taken_bytes);
        line.truncate(line_bytes);
        Ok(Some(line.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 16 << 20;

    fn lines(pending: &mut Pending) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = pending.next().unwrap() {
            lines.push(String::from_utf8(line.to_vec()).unwrap());
        }
        lines
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let stream = b"one\r\n\ntwo\n\r\r\n\r\nlast\r";
        for step in 1..=stream.len() {
            let mut pending = Pending::new(Framing::Line, 100, MANY);
            let mut got = Vec::new();
            for piece in stream.chunks(step) {
                pending.push(piece);
                got.extend(lines(&mut pending));
            }
            assert_eq!(got, ["one", "", "two", "\r", ""], "steps of {step}");
            pending.end();
            assert_eq!(lines(&mut pending), ["last"], "steps of {step}");
        }
    }

    #[test]
    fn the_longest_line_fits_and_one_byte_more_does_not() {
        for (end, is_ended) in [(&b"\n"[..], false), (b"\r\n", false), (b"", true), (b"\r", true)] {
            for (length, fits) in [(9, true), (10, true), (11, false)] {
                let mut pending = Pending::new(Framing::Line, 10, MANY);
                let text = [&vec![b'x'; length][..], end].concat();
                assert!(!fits || text.len() <= pending.room());
                pending.push(&text);
                if is_ended {
                    pending.end();
                }
                let line = pending.next().map(|line| line.map(|line| line.len()));
                assert_eq!(line, if fits { Ok(Some(length)) } else { Err(LineTooLong) }, "{end:?} {length}");
            }
        }
    }

    #[test]
    fn a_full_line_without_an_end_is_too_long_and_not_waited_for() {
        let mut pending = Pending::new(Framing::Line, 10, MANY);
        pending.push(&[b'x'; 10]);
        assert_eq!(pending.next(), Ok(None));
        assert_eq!(pending.room(), 2);
        pending.push(b"\rx");
        assert_eq!(pending.room(), 0);
        assert_eq!(pending.next(), Err(LineTooLong));
    }

    #[test]
    fn chunks_are_what_was_read_up_to_their_size() {
        let mut pending = Pending::new(Framing::Chunk, 200_000, MANY);
        assert_eq!(pending.next(), Ok(None));
        pending.push(b"a\n");
        assert_eq!(pending.next(), Ok(Some(Bytes::from_static(b"a\n"))));
        pending.push(&[7; 150_000]);
        assert_eq!(pending.room(), 50_000);
        let mut sizes = Vec::new();
        while let Some(chunk) = pending.next().unwrap() {
            sizes.push(chunk.len());
        }
        assert_eq!(sizes, [65_536, 65_536, 18_928]);
        assert_eq!(pending.room(), 200_000);
    }

    #[test]
    fn a_chunk_is_never_too_large_a_payload() {
        let mut pending = Pending::new(Framing::Chunk, 100, 3);
        pending.push(b"abcd");
        assert_eq!(pending.next(), Ok(Some(Bytes::from_static(b"abc"))));
        assert_eq!(pending.next(), Ok(Some(Bytes::from_static(b"d"))));
    }
}
