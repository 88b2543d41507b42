//! Looking through a store that is not to be used, and saving what can be read of one that is damaged.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};

use redb::{ReadableDatabase, ReadableTable};

use super::database::{self, Open, Store, initialize, lap, open_database};
use super::failure::StoreError;
use super::layout::{LOG_BYTES, Layout};
use super::medium::{Place, StateFile, Watched};
use super::snapshot::{RECORDS, sealed, unsealed};
use super::write_ahead::WriteAheadLog;
use super::{Records, isolated};

/// What was found in a store.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Every record that could be read.
    pub(crate) records: Records,
    /// What is wrong, a line each.
    pub(crate) damage: Vec<String>,
}

/// Looks through a store without changing anything. `None` when nothing is there.
///
/// # Errors
/// When it cannot be read at all, or was written by a later version.
pub(crate) fn look(place: &StateFile) -> Result<Option<Found>, StoreError> {
    let Some(file) = place.file()? else { return Ok(None) };
    let copy = file.try_clone()?;
    let looked = isolated(move || {
        let open = Open::of(StateFile::overlay(copy)?)?;
        let mut found = Found::default();
        open.snapshot()?.each(|key, value| {
            match value {
                Ok(value) => drop(found.records.insert(key.to_vec(), value.to_vec())),
                Err(error) => found.damage.push(error.to_string()),
            }
            Ok::<(), StoreError>(())
        })?;
        Ok(found)
    });
    match looked {
        Err(StoreError::Damaged(why)) => {
            let mut found = gather(file)?;
            found.damage.insert(0, why);
            Ok(Some(found))
        }
        other => other.map(Some),
    }
}

/// What can be read from either end of a file whose pages are damaged, and what of the log is whole: each record is known by its
/// checksum.
fn gather(file: std::fs::File) -> Result<Found, StoreError> {
    let records = Arc::new(Mutex::new(Records::new()));
    for is_backward in [false, true] {
        let (records, file) = (Arc::clone(&records), file.try_clone()?);
        // Wherever that ends, what came before counts.
        let _: Result<(), StoreError> = isolated(move || {
            let (bytes, layout) = overlaid(file)?;
            let database = open_database(&bytes, layout, false)?;
            let table = database.begin_read()?.open_table(RECORDS)?;
            let mut all = table.iter()?;
            while let Some(record) = if is_backward { all.next_back() } else { all.next() } {
                let (key, value) = record?;
                if let Ok(value) = unsealed(key.value(), value.value()) {
                    let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
                    records.insert(key.value().to_vec(), value.to_vec());
                }
            }
            Ok(())
        });
    }
    let mut records = std::mem::take(&mut *records.lock().unwrap_or_else(PoisonError::into_inner));
    // Without the database nobody knows which lap of the log counts.
    if let Ok(found) = isolated(move || {
        let (bytes, layout) = overlaid(file)?;
        let lap = lap(&open_database(&bytes, layout, false)?)?;
        Ok(WriteAheadLog::open(&bytes, layout, lap)?.1)
    }) {
        for write in found.writes {
            match write.value {
                Some(value) => drop(records.insert(write.key, value)),
                None => drop(records.remove(&write.key)),
            }
        }
    }
    Ok(Found { records, damage: Vec::new() })
}

fn overlaid(file: std::fs::File) -> Result<(Arc<Watched>, Layout), StoreError> {
    let bytes = Arc::new(Watched::new(StateFile::overlay(file)?, Arc::default()));
    let layout = Layout::of(&*bytes)?;
    Ok((bytes, layout))
}

/// Makes a store with these records in a place where there is none.
///
/// # Errors
/// When it cannot be written; then nothing is there.
pub(crate) fn make(place: &dyn Place, records: &Records) -> Result<(), StoreError> {
    database::make(place, LOG_BYTES, records)
}

/// A copy of the store as it is at this moment, to be made on another thread in a place where there is none; it gives the number
/// of records. Commits go on meanwhile.
///
/// # Errors
/// When nothing can be read at the moment.
pub(super) fn copier(
    store: &Store,
    place: StateFile,
) -> Result<impl FnOnce() -> Result<u64, StoreError> + Send + use<>, StoreError> {
    if place.file()?.is_some() {
        return Err(std::io::Error::from(std::io::ErrorKind::AlreadyExists).into());
    }
    let snapshot = store.snapshot()?;
    Ok(move || {
        let copied = Cell::new(0);
        place.create(&|bytes| {
            initialize(bytes, LOG_BYTES, &|table| {
                snapshot.each(|key, value| {
                    table.insert(key, sealed(key, value?).as_slice())?;
                    copied.set(copied.get() + 1);
                    Ok(())
                })
            })
        })?;
        Ok(copied.get())
    })
}
