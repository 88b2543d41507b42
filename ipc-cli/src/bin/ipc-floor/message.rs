//! SHELL. The message of all floors: a fixed size, the number of its front, a sequence. Nothing else is ever looked at.

use std::io::{ErrorKind, Read as _};
use std::ops::Range;
use std::os::unix::net::UnixStream;

use crate::failure::{Failure, at};

/// The size of a call, its reply and the smallest event, in bytes.
pub(crate) const MESSAGE: usize = 64;

/// As much as one read takes, at the ends and in the relay.
pub(crate) const READ_MAX: usize = 256 * 1024;

const FRONT: Range<usize> = 0..4;
const SEQUENCE: Range<usize> = 8..16;

pub(crate) fn set_front(message: &mut [u8], slot: usize) {
    if let Some(field) = message.get_mut(FRONT) {
        field.copy_from_slice(&(slot as u32).to_le_bytes());
    }
}

pub(crate) fn front_of(message: &[u8]) -> Option<usize> {
    let field = message.get(FRONT).and_then(|field| field.try_into().ok());
    field.map(|field| u32::from_le_bytes(field) as usize)
}

pub(crate) fn set_sequence(message: &mut [u8], sequence: u64) {
    if let Some(field) = message.get_mut(SEQUENCE) {
        field.copy_from_slice(&sequence.to_le_bytes());
    }
}

pub(crate) fn check_sequence(message: &[u8], expected: u64) -> Result<(), Failure> {
    let field = message.get(SEQUENCE).and_then(|field| field.try_into().ok());
    match field.map(u64::from_le_bytes) {
        Some(found) if found == expected => Ok(()),
        found => Err(Failure::new(format!("message {expected} was expected and {found:?} came"))),
    }
}

/// Reads what is there, at most `buffer`; 0 is the end of the stream.
pub(crate) fn read_some(stream: &mut UnixStream, buffer: &mut [u8]) -> Result<usize, Failure> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result.map_err(at("read from the relay")),
        }
    }
}

/// The messages that come in on one connection, in order and without a gap.
pub(crate) struct Incoming {
    size: usize,
    buffer: Vec<u8>,
    /// Bytes at the start of `buffer` that are the first part of a message.
    partial: usize,
    received: u64,
}

impl Incoming {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, buffer: vec![0; READ_MAX.max(size)], partial: 0, received: 0 }
    }

    /// Complete messages so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Takes what one read gives. False at the end of the stream, which must not be within a message.
    pub(crate) fn receive(&mut self, stream: &mut UnixStream) -> Result<bool, Failure> {
        let length = read_some(stream, self.buffer.get_mut(self.partial..).unwrap_or_default())?;
        if length == 0 {
            return if self.partial == 0 {
                Ok(false)
            } else {
                Err(Failure::new(format!("the stream ended within message {}", self.received)))
            };
        }
        let filled = self.partial + length;
        for message in self.buffer.get(..filled).unwrap_or_default().chunks_exact(self.size) {
            check_sequence(message, self.received)?;
            self.received += 1;
        }
        self.partial = filled % self.size;
        self.buffer.copy_within(filled - self.partial..filled, 0);
        Ok(true)
    }
}
