//! The write-ahead log: a commit is one write and one sync there, where the database needs half a dozen pages of its trees.
//!
//! Records stand one behind the other from the log's beginning. When the next one finds no room, all of them go into the database in
//! one transaction, and a new lap begins at the beginning again. The database keeps the number of the lap, which is drawn
//! at random: so the transaction that takes the records in makes them void in the log, what is left of an earlier lap is nobody's,
//! and no value that a client puts can be made to look like a record, but by guessing a checksum.
//!
//! One record is under way at a time. So a record that is not whole is the last one, which nobody was told of; with another one
//! behind it, it is damage.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use redb::StorageBackend;

use super::layout::Layout;
use super::medium::Watched;
use crate::broker::Write;

/// Bytes before the writes of a record: checksum of the other three with the lap, checksum of the writes, their length, and which
/// record of the lap it is.
const HEADER_BYTES: usize = 16;
/// A record begins at a multiple of this, so that one can be looked for behind damage.
const ALIGNMENT: usize = 8;
/// In the place of a value's length: the record is taken out.
const NO_VALUE: u32 = u32::MAX;

/// The log of an open store.
#[derive(Debug)]
pub(super) struct WriteAheadLog {
    bytes: Arc<Watched>,
    start: u64,
    capacity: usize,
    lap: u64,
    /// Where the next record begins, and which one it is.
    end: usize,
    next: u32,
}

/// What is in a log.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// In the order in which they were written.
    pub(super) writes: Vec<Write>,
    /// What is wrong, a line each.
    pub(super) damage: Vec<String>,
    end: usize,
    next: u32,
}

impl WriteAheadLog {
    /// Reads the log of a file whose database names that lap, and goes on behind what is there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn open(bytes: &Arc<Watched>, layout: Layout, lap: u64) -> io::Result<(Self, Contents)> {
        let (start, capacity) = layout.log();
        let mut log = vec![0; capacity];
        bytes.read(start, &mut log)?;
        let contents = scan(&log, lap);
        let (end, next) = (contents.end, contents.next);
        Ok((Self { bytes: Arc::clone(bytes), start, capacity, lap, end, next }, contents))
    }

    /// The record of these writes; `None` when there is no room for it in this lap.
    pub(super) fn record(&self, writes: &[Write]) -> Option<Vec<u8>> {
        let length: usize = writes.iter().map(encoded_bytes).sum();
        let room = self.capacity.saturating_sub(self.end);
        let needs = (HEADER_BYTES + length).next_multiple_of(ALIGNMENT);
        (needs <= room).then(|| encode(writes, self.lap, self.next, needs))
    }

    /// Writes a record, and returns when it is on the disk.
    ///
    /// # Errors
    /// Then the next one takes its place.
    pub(super) fn append(&mut self, record: &[u8]) -> io::Result<()> {
        self.bytes.write(self.start + self.end as u64, record)?;
        self.bytes.sync_data()?;
        self.end += record.len();
        self.next += 1;
        Ok(())
    }

    /// Begins a lap, when the database has taken in what is there.
    pub(super) fn begin(&mut self, lap: u64) {
        (self.lap, self.end, self.next) = (lap, 0, 0);
    }
}

fn encoded_bytes(write: &Write) -> usize {
    8 + write.key.len() + write.value.as_ref().map_or(0, Vec::len)
}

/// A record, with zeros behind it to `size` bytes.
fn encode(writes: &[Write], lap: u64, index: u32, size: usize) -> Vec<u8> {
    let mut record = Vec::with_capacity(size);
    record.resize(HEADER_BYTES, 0);
    for Write { key, value } in writes {
        // What is in memory is shorter than that: a record fits into a log of 32 bits.
        let value_length = value.as_ref().map_or(NO_VALUE, |value| value.len() as u32);
        record.extend_from_slice(&(key.len() as u32).to_le_bytes());
        record.extend_from_slice(&value_length.to_le_bytes());
        record.extend_from_slice(key);
        record.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    let body = &record[HEADER_BYTES..];
    let header = Header { sum: crc32fast::hash(body), length: body.len() as u32, index };
    record[..HEADER_BYTES].copy_from_slice(&header.encode(lap));
    record.resize(size, 0);
    record
}

#[derive(Clone, Copy, Debug)]
struct Header {
    sum: u32,
    length: u32,
    index: u32,
}

impl Header {
    fn encode(self, lap: u64) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[4..8].copy_from_slice(&self.sum.to_le_bytes());
        header[8..12].copy_from_slice(&self.length.to_le_bytes());
        header[12..16].copy_from_slice(&self.index.to_le_bytes());
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&lap.to_le_bytes());
        hasher.update(&header[4..]);
        header[..4].copy_from_slice(&hasher.finalize().to_le_bytes());
        header
    }

    /// The header that stands there, if one of this lap does.
    fn read(log: &[u8], at: usize, lap: u64) -> Option<Self> {
        let found: &[u8; HEADER_BYTES] = log.get(at..)?.first_chunk()?;
        let [_, sum, length, index] =
            [0, 4, 8, 12].map(|at| found[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)));
        let header = Self { sum, length, index };
        let fits = header.range(at).end <= log.len();
        (fits && header.encode(lap) == *found).then_some(header)
    }

    fn body(self, log: &[u8], at: usize) -> Option<&[u8]> {
        let body = log.get(self.range(at))?;
        (crc32fast::hash(body) == self.sum).then_some(body)
    }

    fn range(self, at: usize) -> Range<usize> {
        at + HEADER_BYTES..at + HEADER_BYTES + self.length as usize
    }
}

/// Reads a log from its beginning to behind its last record.
fn scan(log: &[u8], lap: u64) -> Contents {
    let mut found = Contents::default();
    while let Some((header, at)) = next_header(log, lap, &found) {
        let body = header.body(log, at);
        let is_last = || next_later(log, lap, header.range(at).end, header.index).is_none();
        if header.index == found.next && body.is_none() && is_last() {
            // It was under way when the daemon or the machine ended.
            break;
        }
        if header.index > found.next {
            let missing = header.index - found.next;
            found
                .damage
                .push(format!("{missing} commits of the log are damaged before commit {}", header.index));
        }
        match body.and_then(decode) {
            Some(writes) => found.writes.extend(writes),
            None => found.damage.push(format!("commit {} of the log is damaged", header.index)),
        }
        found.end = header.range(at).end.next_multiple_of(ALIGNMENT);
        found.next = header.index.saturating_add(1);
    }
    found
}

/// The header of the next record: where it should be, or wherever there is one behind.
fn next_header(log: &[u8], lap: u64, found: &Contents) -> Option<(Header, usize)> {
    match Header::read(log, found.end, lap) {
        Some(header) if header.index == found.next => Some((header, found.end)),
        _ => next_later(log, lap, found.end, found.next),
    }
}

/// The first header from some place on that is of a later record than that.
fn next_later(log: &[u8], lap: u64, from: usize, than: u32) -> Option<(Header, usize)> {
    let places = (from.next_multiple_of(ALIGNMENT)..log.len()).step_by(ALIGNMENT);
    let mut headers = places.filter_map(|at| Some((Header::read(log, at, lap)?, at)));
    headers.find(|(header, _)| header.index > than)
}

/// The writes of a record.
fn decode(mut body: &[u8]) -> Option<Vec<Write>> {
    let mut writes = Vec::new();
    while !body.is_empty() {
        let (key_length, value_length) = (take_number(&mut body)?, take_number(&mut body)?);
        let key = body.split_off(..key_length as usize)?.to_vec();
        let value = match value_length {
            NO_VALUE => None,
            length => Some(body.split_off(..length as usize)?.to_vec()),
        };
        writes.push(Write { key, value });
    }
    Some(writes)
}

fn take_number(body: &mut &[u8]) -> Option<u32> {
    let (number, rest) = body.split_first_chunk()?;
    *body = rest;
    Some(u32::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAP: u64 = 77;

    fn write(key: &str, value: Option<&str>) -> Write {
        Write { key: key.into(), value: value.map(|value| value.as_bytes().to_vec()) }
    }

    /// A log with a record for each of these, and where each begins.
    fn log(records: &[Vec<Write>]) -> (Vec<u8>, Vec<usize>) {
        let (mut log, mut places) = (Vec::new(), Vec::new());
        for (index, writes) in records.iter().enumerate() {
            places.push(log.len());
            let length: usize = writes.iter().map(encoded_bytes).sum();
            let size = (HEADER_BYTES + length).next_multiple_of(ALIGNMENT);
            log.extend(encode(writes, LAP, index as u32, size));
        }
        log.resize(4096, 0);
        (log, places)
    }

    fn three() -> [Vec<Write>; 3] {
        [
            vec![write("a", Some("1")), write("b", None)],
            vec![write("long", Some("a value of some length"))],
            vec![write("c", Some(""))],
        ]
    }

    #[test]
    fn what_was_written_is_read_in_order_and_the_next_one_goes_behind_it() {
        let records = three();
        let (log, places) = log(&records);
        let found = scan(&log, LAP);
        assert_eq!((found.writes, found.damage), (records.concat(), Vec::<String>::new()));
        assert_eq!((found.next, found.end), (3, places[2] + HEADER_BYTES + 16));
        assert!(scan(&log, LAP + 1).writes.is_empty(), "what is of another lap is nobody's");
        assert!(scan(&[], LAP).writes.is_empty());
    }

    #[test]
    fn a_last_record_that_is_not_whole_was_never_there() {
        let records = three();
        let (whole, places) = log(&records);
        for byte in places[2]..places[2] + HEADER_BYTES + 9 {
            let mut torn = whole.clone();
            torn[byte] ^= 0x10;
            let found = scan(&torn, LAP);
            assert_eq!((found.writes, found.damage.len()), (records[..2].concat(), 0), "byte {byte}");
            assert_eq!((found.next, found.end), (2, places[2]), "byte {byte}");
        }
    }

    #[test]
    fn one_before_another_is_damage_and_the_others_are_read() {
        let records = three();
        let (whole, places) = log(&records);
        for byte in 0..places[2] {
            let mut damaged = whole.clone();
            damaged[byte] ^= 0x10;
            let found = scan(&damaged, LAP);
            let hit = usize::from(byte >= places[1]);
            // Between records there is nothing.
            let is_padding = found.damage.is_empty() && found.writes == records.concat();
            let others = [&records[1 - hit][..], &records[2][..]].concat();
            assert!(
                is_padding || (found.damage.len() == 1 && found.writes == others),
                "byte {byte}: {found:?}"
            );
        }
        // Damage to each body leaves the headers, which say how many there were.
        let mut damaged = whole;
        for place in places {
            damaged[place + HEADER_BYTES] ^= 1;
        }
        assert_eq!(scan(&damaged, LAP).damage.len(), 2);
    }

    #[test]
    fn a_value_that_looks_like_a_record_of_a_lap_nobody_knows_is_none() {
        let (forged, _) = log(&[vec![write("x", Some("forged"))]]);
        let value = String::from_utf8_lossy(&forged[..48]).into_owned();
        let (log, _) = log(&[vec![write("k", Some(&value))]]);
        let found = scan(&log, LAP);
        assert_eq!(found.writes.len(), 1);
        // Even at the very place where the next one is looked for.
        let mut stale = vec![0; 4096];
        stale[..48].copy_from_slice(&forged[..48]);
        assert!(scan(&stale, LAP + 1).writes.is_empty());
    }
}
