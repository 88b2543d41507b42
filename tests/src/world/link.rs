//! A simulated stream socket between one client and the daemon: two pipes of bytes and everything that can go wrong
//! with them.

use std::collections::VecDeque;

/// What one direction carries and how.
#[derive(Debug)]
pub struct Pipe {
    bytes: VecDeque<u8>,
    /// How many bytes the pipe holds at most, as a kernel buffer does.
    pub capacity: usize,
    /// The reader is handed at most this many bytes at a time.
    pub read_max: usize,
    /// The reader takes nothing for now.
    pub is_stalled: bool,
    /// The writer is done: behind the bytes that are here comes the end.
    is_ended: bool,
}

impl Pipe {
    fn new(capacity: usize) -> Self {
        Self { bytes: VecDeque::new(), capacity, read_max: usize::MAX, is_stalled: false, is_ended: false }
    }

    /// Takes in what fits of `bytes` and says how much that was.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        if self.is_ended {
            return 0;
        }
        let room = self.capacity.saturating_sub(self.bytes.len());
        let count = room.min(bytes.len());
        self.bytes.extend(&bytes[..count]);
        count
    }

    /// Gives the reader at most `max` bytes, and fewer while the pipe trickles or is stalled.
    pub fn read(&mut self, max: usize) -> Vec<u8> {
        let count = if self.is_stalled { 0 } else { max.min(self.read_max).min(self.bytes.len()) };
        self.bytes.drain(..count).collect()
    }

    /// How many bytes more the pipe takes.
    pub fn room(&self) -> usize {
        self.capacity.saturating_sub(self.bytes.len())
    }

    /// Bytes on their way.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether the reader can be given bytes or the end.
    pub fn is_readable(&self) -> bool {
        !self.is_stalled && (!self.bytes.is_empty() || self.is_ended)
    }

    /// Whether the writer is done and the reader has everything.
    pub fn is_at_end(&self) -> bool {
        self.is_ended && self.bytes.is_empty()
    }

    /// The writer is done.
    pub fn end(&mut self) {
        self.is_ended = true;
    }

    /// Whether the writer is done.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Loses what is on its way but for the first `keep` bytes, and ends.
    pub fn cut(&mut self, keep: usize) {
        self.bytes.truncate(keep);
        self.is_ended = true;
        // A connection that broke is noticed by a reader that had stopped as well.
        self.is_stalled = false;
    }
}

/// A connection: what the client has written and what the daemon has.
#[derive(Debug)]
pub struct Link {
    /// From the client to the daemon.
    pub up: Pipe,
    /// From the daemon to the client.
    pub down: Pipe,
    /// The client has not sent the first bytes of the protocol yet.
    pub preamble_is_due: bool,
}

impl Link {
    /// A connection whose buffer toward the client holds `capacity` bytes.
    pub fn new(capacity: usize, preamble_is_due: bool) -> Self {
        Self { up: Pipe::new(usize::MAX), down: Pipe::new(capacity), preamble_is_due }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_takes_what_fits_and_gives_it_back_in_order() {
        let mut pipe = Pipe::new(4);
        assert_eq!(pipe.write(b"abcdef"), 4);
        assert_eq!(pipe.write(b"ef"), 0);
        assert_eq!(pipe.read(2), b"ab");
        assert_eq!(pipe.write(b"ef"), 2);
        pipe.read_max = 1;
        assert_eq!(pipe.read(9), b"c");
        pipe.is_stalled = true;
        assert!(pipe.read(9).is_empty() && !pipe.is_readable());
    }

    #[test]
    fn a_cut_loses_the_rest_and_ends() {
        let mut pipe = Pipe::new(usize::MAX);
        pipe.write(b"abcdef");
        pipe.cut(2);
        assert_eq!(pipe.write(b"x"), 0);
        assert!(!pipe.is_at_end());
        assert_eq!(pipe.read(9), b"ab");
        assert!(pipe.is_at_end());
    }
}
