//! Where tokens and revisions come from: one counter that never gives a number twice.
//!
//! Without a store the counter is never behind the boot-time clock in microseconds, so it grows over restarts for as long as the
//! machine runs. With one, a block of numbers is reserved on disk before the first of it is given: whatever becomes of what was
//! numbered, the next life begins above the block. A block is renewed long before it is used up, so nobody waits for that.

use core::time::Duration;

use ipc_core::time::Instant;
use ipc_core::{Error, ErrorCode};

use crate::broker::records::{Fields, Reader, RecordKind, Write};

/// No daemon gives so many: that is a million for each microsecond of the age of the machine's clock, and they are exact in a
/// number of JSON.
const NUMBERS_MAX: u64 = 1 << 53;
/// Numbers of one block.
const BLOCK: u64 = 1 << 28;
/// As many are kept back, when the disk does not take the next block, for what was promised already: the ends of keys, the turns
/// of those who wait. There are never so many of these.
const KEPT_BACK: u64 = 1 << 27;
/// Time between two attempts to reserve.
const RETRY: Duration = Duration::from_secs(1);

/// The number in the key of a record.
///
/// # Errors
/// When it is none.
pub(super) fn read_number(id: &[u8]) -> Result<u64, &'static str> {
    let number = id.try_into().map(u64::from_be_bytes).map_err(|_| "its number is none")?;
    if number > NUMBERS_MAX - BLOCK { Err("its number is higher than any") } else { Ok(number) }
}

/// The counter.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    last: u64,
    /// The end of the block; `None` without a store.
    reserved: Option<u64>,
    /// The end of the next one, while it is being written.
    pending: Option<u64>,
    /// Not before.
    retry_at: Option<Instant>,
}

impl Numbers {
    /// The last one that was given.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// A number above all before.
    pub(super) fn next(&mut self, now: Instant) -> u64 {
        self.last += 1;
        if self.reserved.is_none() {
            self.last = self.last.max(micros(now));
        }
        self.last
    }

    /// Whether there are numbers for new requests.
    ///
    /// # Errors
    /// `storage_failed` when no block could be reserved for long.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.reserved.is_none_or(|reserved| reserved.saturating_sub(self.last) >= KEPT_BACK) {
            return Ok(());
        }
        let message = "no tokens and revisions could be reserved on disk";
        Err(Error::new(ErrorCode::StorageFailed, message)
            .with_hint("the log of the daemon says what is wrong with the disk"))
    }

    /// Numbers up to this one may have been given.
    ///
    /// # Errors
    /// When the record is damaged.
    pub(super) fn restore(&mut self, value: &[u8]) -> Result<(), &'static str> {
        let reserved = Reader(value).u64().ok_or("it ends too early")?;
        if reserved > NUMBERS_MAX - BLOCK {
            return Err("what it has reserved is more than there is");
        }
        self.last = self.last.max(reserved);
        Ok(())
    }

    /// There is a store from here on, and what it held has been restored.
    pub(super) fn open(&mut self, now: Instant) {
        self.last = self.last.max(micros(now));
        self.reserved = Some(self.last);
    }

    /// When the next block is to be asked for again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Whether it is time for the next block.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let is_early = self.retry_at.is_some_and(|retry_at| now < retry_at);
        let is_low = |reserved: u64| reserved.saturating_sub(self.last) < BLOCK - BLOCK / 4;
        self.pending.is_none() && !is_early && self.reserved.is_some_and(is_low)
    }

    /// The next block, when it is time.
    pub(super) fn draft(&mut self, now: Instant) -> Option<Write> {
        if !self.is_due(now) {
            return None;
        }
        let end = self.last + BLOCK;
        self.pending = Some(end);
        self.retry_at = None;
        Some(Write::put(RecordKind::Numbers, b"", Fields::default().u64(end).done()))
    }

    /// What became of it.
    pub(super) fn settle(&mut self, now: Instant, is_stored: bool) {
        let Some(end) = self.pending.take() else { return };
        if is_stored {
            self.reserved = Some(end);
        } else {
            self.retry_at = Some(now + RETRY);
        }
    }
}

fn micros(now: Instant) -> u64 {
    now.as_nanos() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn no_record_has_a_number_that_cannot_be() {
        let highest = NUMBERS_MAX - BLOCK;
        for (number, is_read) in [(highest, true), (highest + 1, false), (u64::MAX, false)] {
            assert_eq!(read_number(&number.to_be_bytes()).is_ok(), is_read);
            assert_eq!(Numbers::default().restore(&number.to_le_bytes()).is_ok(), is_read);
        }
        assert!(read_number(&[1, 2, 3]).is_err());
    }

    #[test]
    fn without_a_store_they_follow_the_clock() {
        let mut numbers = Numbers::default();
        assert_eq!((numbers.next(at(1)), numbers.next(at(1))), (1_000_000, 1_000_001));
        assert_eq!(numbers.next(at(2)), 2_000_000);
        assert!(numbers.check().is_ok() && numbers.draft(at(2)).is_none());
    }

    #[test]
    fn a_life_begins_above_what_the_one_before_reserved() {
        let mut numbers = Numbers::default();
        numbers.open(at(1));
        assert!(numbers.check().is_err(), "nothing is reserved");
        let write = numbers.draft(at(1)).unwrap();
        assert!(numbers.draft(at(1)).is_none() && numbers.check().is_err());
        numbers.settle(at(1), true);
        assert!(numbers.check().is_ok());
        let given = numbers.next(at(9));
        assert_eq!(given, 1_000_001, "the clock has no say");

        let mut later = Numbers::default();
        later.restore(&write.value.unwrap()).unwrap();
        later.open(at(1));
        assert_eq!(later.next(at(1)), 1_000_000 + BLOCK + 1);
        assert!(Numbers::default().restore(b"short").is_err());
    }

    #[test]
    fn the_next_block_is_asked_for_until_it_is_there() {
        let mut numbers = Numbers::default();
        numbers.open(at(0));
        assert!(numbers.draft(at(0)).is_some());
        numbers.settle(at(0), false);
        assert_eq!((numbers.draft(at(0)), numbers.poll_timeout()), (None, Some(at(1))));
        assert!(numbers.draft(at(1)).is_some() && numbers.poll_timeout().is_none());
        numbers.settle(at(1), true);
        numbers.last += BLOCK / 4;
        assert!(numbers.draft(at(1)).is_none());
        numbers.last += 1;
        assert!(numbers.draft(at(1)).is_some());
        numbers.settle(at(1), false);
        numbers.last = BLOCK - KEPT_BACK;
        assert!(numbers.check().is_ok());
        numbers.last += 1;
        assert!(numbers.check().is_err());
    }
}
