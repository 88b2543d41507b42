//! A file that is looked at as if it could be written: what is written stays in memory, and the file is left as it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// Bytes of one piece that is kept in memory.
const PIECE_BYTES: usize = 4096;

/// The file with what was written over it.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    over: Mutex<Over>,
}

#[derive(Debug)]
struct Over {
    length: u64,
    /// The length that the file itself has a say in.
    file_length: u64,
    pieces: BTreeMap<u64, Box<[u8; PIECE_BYTES]>>,
}

impl Overlay {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let over = Over { length, file_length: length, pieces: BTreeMap::new() };
        Ok(Self { file, over: Mutex::new(over) })
    }

    fn over(&self) -> MutexGuard<'_, Over> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn piece(&self, over: &Over, number: u64) -> io::Result<Box<[u8; PIECE_BYTES]>> {
        if let Some(piece) = over.pieces.get(&number) {
            return Ok(piece.clone());
        }
        let mut piece = Box::new([0; PIECE_BYTES]);
        let start = number * PIECE_BYTES as u64;
        let there = over.file_length.saturating_sub(start).min(PIECE_BYTES as u64) as usize;
        self.file.read_exact_at(&mut piece[..there], start)?;
        Ok(piece)
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.over().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let over = self.over();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > over.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let within = (at % PIECE_BYTES as u64) as usize;
            let count = (PIECE_BYTES - within).min(out.len() - done);
            let piece = self.piece(&over, at / PIECE_BYTES as u64)?;
            out[done..done + count].copy_from_slice(&piece[within..within + count]);
            done += count;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut over = self.over();
        if len < over.length {
            // What is cut off does not come back.
            let (whole, part) = (len / PIECE_BYTES as u64, (len % PIECE_BYTES as u64) as usize);
            over.pieces.retain(|number, _| *number <= whole);
            if let Some(piece) = over.pieces.get_mut(&whole) {
                piece[part..].fill(0);
            }
        }
        over.length = len;
        over.file_length = over.file_length.min(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut over = self.over();
        over.length = over.length.max(offset + data.len() as u64);
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = (at % PIECE_BYTES as u64) as usize;
            let count = (PIECE_BYTES - within).min(data.len() - done);
            let mut piece = self.piece(&over, at / PIECE_BYTES as u64)?;
            piece[within..within + count].copy_from_slice(&data[done..done + count]);
            over.pieces.insert(at / PIECE_BYTES as u64, piece);
            done += count;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_is_written_is_read_and_the_file_is_as_it_was() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..10_000u32).map(|number| number as u8).collect();
        file.write_all(&bytes).unwrap();
        let overlay = Overlay::new(file.try_clone().unwrap()).unwrap();
        let mut due = bytes.clone();
        for (offset, data) in [(4090, &[1; 20][..]), (0, &[2; 5000]), (9_990, &[3; 30])] {
            overlay.write(offset, data).unwrap();
            due.resize(due.len().max(offset as usize + data.len()), 0);
            due[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        }
        let mut found = vec![0; due.len()];
        overlay.read(0, &mut found).unwrap();
        assert!(found == due && overlay.len().unwrap() == 10_020);
        assert!(overlay.read(10_000, &mut [0; 21]).is_err());
        overlay.set_len(4).unwrap();
        overlay.set_len(9_000).unwrap();
        overlay.read(8_192, &mut found[..100]).unwrap();
        assert_eq!(found[..100], [0; 100]);
        let mut there = vec![0; bytes.len()];
        file.read_exact_at(&mut there, 0).unwrap();
        assert_eq!(there, bytes);
    }
}
