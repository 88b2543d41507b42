//! Buffers that are not in use; shared by all peers, so that idle ones own none.
//!
//! Small ones hold frames on their way out, large ones are lent to whoever receives a large frame: fresh memory costs a page
//! fault for each 4 KiB, as much again as reading into it.

use bytes::Bytes;

/// Buffers larger than this are large ones.
const SMALL_MAX_BYTES: usize = 256 * 1024;
/// Most small buffers that are kept.
const SMALL_MAX: usize = 64;
/// Most bytes of large buffers that are kept, whatever their number.
const LARGE_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Buffers to be used again.
#[derive(Debug, Default)]
pub(in crate::broker) struct BufferPool {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
    large_bytes: usize,
}

impl BufferPool {
    /// An empty buffer.
    pub(in crate::broker) fn take(&mut self) -> Vec<u8> {
        self.small.pop().unwrap_or_default()
    }

    /// An empty buffer with room for that much, if there is one. Never one of more than twice the size: whoever keeps what is
    /// read into it keeps all of it, and is charged for what was read.
    pub(in crate::broker) fn take_large(&mut self, at_least_bytes: usize) -> Option<Vec<u8>> {
        let fits = |capacity: usize| capacity >= at_least_bytes && capacity / 2 <= at_least_bytes;
        let at = self.large.iter().rposition(|buffer| fits(buffer.capacity()))?;
        let buffer = self.large.swap_remove(at);
        self.large_bytes -= buffer.capacity();
        Some(buffer)
    }

    /// Keeps a buffer that is not used any more, if there is room.
    pub(in crate::broker) fn give(&mut self, mut buffer: Vec<u8>) {
        let bytes = buffer.capacity();
        buffer.clear();
        if bytes > SMALL_MAX_BYTES {
            if self.large_bytes + bytes <= LARGE_MAX_BYTES {
                self.large_bytes += bytes;
                self.large.push(buffer);
            }
        } else if bytes > 0 && self.small.len() < SMALL_MAX {
            self.small.push(buffer);
        }
    }

    /// Keeps the memory of a payload that was passed on, unless somebody else still has it.
    pub(in crate::broker) fn recycle(&mut self, payload: Bytes) {
        if let Ok(mut memory) = payload.try_into_mut() {
            memory.clear();
            self.give(memory.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded() {
        let mut pool = BufferPool::default();
        for _ in 0..=SMALL_MAX {
            pool.give(Vec::with_capacity(100));
        }
        assert_eq!(pool.small.len(), SMALL_MAX);
        for (bytes, count) in
            [(LARGE_MAX_BYTES / 2, 1), (LARGE_MAX_BYTES / 2 + 1, 1), (LARGE_MAX_BYTES / 2, 2)]
        {
            pool.give(Vec::with_capacity(bytes));
            assert_eq!(pool.large.len(), count, "{bytes}");
        }
        assert!(pool.take_large(LARGE_MAX_BYTES / 2 + 1).is_none());
        assert!(pool.take_large(LARGE_MAX_BYTES / 2).is_some());
        assert_eq!(pool.large_bytes, LARGE_MAX_BYTES / 2);
    }

    #[test]
    fn no_more_than_twice_of_what_is_asked_for_is_given() {
        for (asked, is_given) in [(500_001, false), (500_000, true), (250_000, true), (249_999, false)] {
            let mut pool = BufferPool::default();
            pool.give(Vec::with_capacity(500_000));
            assert_eq!(pool.take_large(asked).is_some(), is_given, "{asked}");
        }
    }

    #[test]
    fn the_memory_of_a_payload_comes_back_with_its_last_owner() {
        let mut pool = BufferPool::default();
        let mut memory = Vec::with_capacity(2 * SMALL_MAX_BYTES);
        memory.resize(2 * SMALL_MAX_BYTES - 7, 1);
        let at = memory.as_ptr();
        let payload = Bytes::from(memory).slice(40..);
        pool.recycle(payload.clone());
        assert!(pool.take_large(2 * SMALL_MAX_BYTES).is_none(), "somebody still reads it");
        pool.recycle(payload);
        let again = pool.take_large(2 * SMALL_MAX_BYTES).expect("it has come back");
        assert!(again.is_empty() && again.as_ptr() == at);
    }
}
