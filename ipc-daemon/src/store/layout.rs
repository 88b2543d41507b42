//! The parts of the file: a head that says what it is, the write-ahead log, and the database.

use std::io;
use std::sync::Arc;

use redb::StorageBackend;

use super::failure::StoreError;
use super::medium::Watched;

/// The format of what is written. Format 1 was a database without a head and without a log.
pub(super) const FORMAT: u32 = 2;
/// Largest log of a store that is read, in bytes: all of it is taken into memory.
const LOG_MAX_BYTES: u32 = 64 << 20;
/// Bytes of the log of a new store: some thousand small commits. The one that finds it full waits until all of them are in the
/// database.
pub(crate) const LOG_BYTES: u32 = 256 << 10;

const MAGIC: &[u8; 8] = b"ipcstore";
/// What a file of format 1 begins with.
const BARE_MAGIC: &[u8; 4] = b"redb";
/// One page: what follows begins where a page does.
const HEAD_BYTES: u64 = 4096;
/// What of the head is used: magic, format, bytes of the log, and the checksum of these, little-endian.
const HEAD_USED: usize = 20;
const SUMMED: usize = HEAD_USED - 4;

/// Where the parts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// 0 in a file of format 1, which is the database alone.
    log_bytes: u32,
}

impl Layout {
    const BARE: Self = Self { log_bytes: 0 };

    /// That of a file.
    ///
    /// # Errors
    /// When it is none of ours, or a later version has written it.
    pub(super) fn of(bytes: &dyn StorageBackend) -> Result<Self, StoreError> {
        let damaged = |why: &str| Err(StoreError::Damaged(why.to_owned()));
        let mut head = [0; HEAD_USED];
        if bytes.len()? < HEAD_BYTES {
            return damaged("it is too short for a store");
        }
        bytes.read(0, &mut head)?;
        if head.starts_with(BARE_MAGIC) {
            return Ok(Self::BARE);
        }
        let number = |at: usize| head[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        if !head.starts_with(MAGIC) || number(SUMMED) != crc32fast::hash(&head[..SUMMED]) {
            return damaged("it does not begin like a store");
        }
        let (format, log_bytes) = (number(8), number(12));
        match format {
            FORMAT if !(1..=LOG_MAX_BYTES).contains(&log_bytes) => damaged("the length of its log is none"),
            FORMAT if bytes.len()? < HEAD_BYTES + u64::from(log_bytes) => damaged("it ends within its log"),
            FORMAT => Ok(Self { log_bytes }),
            newer if newer > FORMAT => Err(StoreError::Newer(newer)),
            _ => damaged("the number of its format is none"),
        }
    }

    /// Writes the head of a new file, with an empty log of so many bytes, which the disk has room for from then on.
    pub(super) fn create(bytes: &dyn StorageBackend, log_bytes: u32) -> io::Result<Self> {
        bytes.write(0, &head(FORMAT, log_bytes))?;
        bytes.write(HEAD_BYTES, &vec![0; log_bytes as usize])?;
        Ok(Self { log_bytes })
    }

    /// Whether it is of format 1.
    pub(super) fn is_bare(self) -> bool {
        self == Self::BARE
    }

    /// Where the log is.
    pub(super) fn log(self) -> (u64, usize) {
        (HEAD_BYTES, self.log_bytes as usize)
    }

    /// The bytes of the database.
    pub(super) fn database(self, bytes: &Arc<Watched>) -> Part {
        let start = if self.is_bare() { 0 } else { HEAD_BYTES + u64::from(self.log_bytes) };
        Part { bytes: Arc::clone(bytes), start }
    }
}

/// The page at the beginning.
pub(super) fn head(format: u32, log_bytes: u32) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&format.to_le_bytes());
    head.extend_from_slice(&log_bytes.to_le_bytes());
    head.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
    head.resize(HEAD_BYTES as usize, 0);
    head
}

/// A file's bytes from some place on, as if they were all.
#[derive(Debug)]
pub(super) struct Part {
    bytes: Arc<Watched>,
    start: u64,
}

impl StorageBackend for Part {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.len()?.saturating_sub(self.start))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.bytes.read(self.start + offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.set_len(self.start + len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.bytes.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.bytes.write(self.start + offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.bytes.close()
    }
}
