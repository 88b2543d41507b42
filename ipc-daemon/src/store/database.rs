//! The file with its format, its checks when it is opened, and one commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::{Builder, Database, ReadableDatabase, StorageBackend, Table, TableDefinition, TableError};

use super::Records;
use super::failure::StoreError;
use super::layout::{LOG_BYTES, Layout};
use super::medium::{Faults, Place, Watched};
use super::snapshot::{Newer, RECORDS, Snapshot, note, sealed};
use super::write_ahead::WriteAheadLog;
use crate::broker::{Fault, Write};
use crate::random;

/// The table of records, open to be written.
pub(super) type RecordTable<'a> = Table<'a, &'static [u8], &'static [u8]>;
/// About the file itself.
pub(super) const ABOUT: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("about");
/// Key of the lap of the log that is not in the database yet.
const LAP_KEY: &[u8] = b"lap";
/// Key of the format's number, in a file of format 1.
pub(super) const BARE_FORMAT_KEY: &[u8] = b"format";
/// Memory for pages, in bytes. Records are read when the daemon starts, and never again.
pub(super) const CACHE_BYTES: usize = 16 << 20;
/// After the disk was full, the file is opened again at most this often.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// An open store.
#[derive(Debug)]
pub(crate) struct Store {
    place: Box<dyn Place>,
    /// `None` after a failure.
    open: Option<Open>,
    /// When it was last tried to open it again.
    tried: Option<Instant>,
    /// Why nothing is written any more.
    dead: Option<String>,
}

/// The database itself, and the log before it.
#[derive(Debug)]
pub(super) struct Open {
    database: Database,
    faults: Arc<Faults>,
    is_bare: bool,
    log: WriteAheadLog,
    /// What is in the log.
    newer: Newer,
}

impl Store {
    /// Opens the store at that place and checks all of it, or makes an empty one when nothing is there.
    ///
    /// # Errors
    /// When it is damaged, was written by a later version, or cannot be used.
    pub(crate) fn open(place: Box<dyn Place>) -> Result<Self, StoreError> {
        Self::open_with(place, LOG_BYTES)
    }

    /// As [`Store::open`]; one that is made has a log of so many bytes.
    pub(super) fn open_with(place: Box<dyn Place>, log_bytes: u32) -> Result<Self, StoreError> {
        let mut open = Open::at(&*place)?;
        if let Some(bare) = open.take_if(|open| open.is_bare) {
            let mut records = Records::new();
            bare.snapshot()?.each(|key, value| {
                records.insert(key.to_vec(), value?.to_vec());
                Ok::<(), StoreError>(())
            })?;
            // Before its place is taken.
            drop(bare);
            make(&*place, log_bytes, &records)?;
            open = Open::at(&*place)?;
        }
        if open.is_none() {
            make(&*place, log_bytes, &Records::new())?;
            open = Open::at(&*place)?;
        }
        let open = open.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?;
        Ok(Self { place, open: Some(open), tried: None, dead: None })
    }

    /// Where it is, for people.
    pub(crate) fn place(&self) -> &dyn Place {
        &*self.place
    }

    /// Gives every record in the order of the keys.
    ///
    /// # Errors
    /// When a record is damaged, or the first error of `each`.
    pub(crate) fn read<E: From<StoreError>>(
        &self,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match &self.open {
            Some(open) => open.snapshot()?.each(|key, value| each(key, value?)),
            None => Ok(()),
        }
    }

    /// What is in it at this moment, whatever is written from here on.
    pub(super) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        self.open.as_ref().ok_or_else(full)?.snapshot()
    }

    /// Writes all of this, and returns when it is on the disk; or nothing of it is.
    ///
    /// # Errors
    /// When it is full, which passes, or when it has failed, which does not.
    pub(crate) fn commit(&mut self, writes: &[Write]) -> Result<(), Fault> {
        if let Some(why) = &self.dead {
            return Err(Fault::Dead(why.clone()));
        }
        if self.open.is_none() {
            self.reopen()?;
        }
        let Some(open) = &mut self.open else { return Err(self.full("it is being opened again")) };
        match open.write(writes) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// Closes it, with an empty log and so that nothing has to be looked through when it is opened again.
    pub(crate) fn close(self) -> Result<(), StoreError> {
        let Some(mut open) = self.open else { return Ok(()) };
        if !open.newer.is_empty() {
            open.fold(&[])?;
        }
        Ok(open.database.close()?)
    }

    /// A commit has failed. What the database has in memory is not to be trusted any more.
    fn fail(&mut self, error: &StoreError) -> Fault {
        let only_full = self.open.take().is_some_and(|open| open.faults.only_full());
        if only_full {
            self.tried = Some(Instant::now());
            return self.full(&error.to_string());
        }
        let why = format!("the store {} could not be written: {error}", self.place);
        self.dead = Some(why.clone());
        Fault::Dead(why)
    }

    fn full(&self, why: &str) -> Fault {
        Fault::Full(format!("the disk of the store {} is full: {why}", self.place))
    }

    fn reopen(&mut self) -> Result<(), Fault> {
        if self.tried.is_some_and(|tried| tried.elapsed() < REOPEN_INTERVAL) {
            return Err(self.full("it is tried again in a moment"));
        }
        self.tried = Some(Instant::now());
        match Open::at(&*self.place) {
            Ok(Some(open)) => {
                self.open = Some(open);
                Ok(())
            }
            Ok(None) => {
                let why = format!("the store {} is gone", self.place);
                self.dead = Some(why.clone());
                Err(Fault::Dead(why))
            }
            Err(error) if error.is_full() => Err(self.full(&error.to_string())),
            Err(error) => Err(self.fail(&error)),
        }
    }
}

impl Open {
    fn at(place: &dyn Place) -> Result<Option<Self>, StoreError> {
        place.open()?.map(Self::of).transpose()
    }

    /// Opens what is there, and checks every page of it.
    pub(super) fn of(bytes: Box<dyn StorageBackend>) -> Result<Self, StoreError> {
        let faults = Arc::new(Faults::default());
        let opened = Self::opened(bytes, &faults);
        // What comes of a full disk further up may look like something else.
        let full = || StoreError::from(std::io::Error::from(std::io::ErrorKind::StorageFull));
        opened.map_err(|error| if faults.only_full() { full() } else { error })
    }

    fn opened(bytes: Box<dyn StorageBackend>, faults: &Arc<Faults>) -> Result<Self, StoreError> {
        let bytes = Arc::new(Watched::new(bytes, Arc::clone(faults)));
        let layout = Layout::of(&*bytes)?;
        let database = open_database(&bytes, layout, true)?;
        // There is nothing in the log of a bare one.
        let lap = if layout.is_bare() { check_bare(&database).map(|()| 0)? } else { lap(&database)? };
        let (log, found) = WriteAheadLog::open(&bytes, layout, lap)?;
        if !found.damage.is_empty() {
            return Err(StoreError::Damaged(found.damage.join("; ")));
        }
        let mut newer = Newer::new();
        note(&mut newer, found.writes);
        if !newer.is_empty() {
            // The last of it may not be on the disk, and is about to be seen.
            bytes.sync_data()?;
        }
        Ok(Self { database, faults: Arc::clone(faults), is_bare: layout.is_bare(), log, newer })
    }

    pub(super) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot { database: self.database.begin_read()?, newer: self.newer.clone() })
    }

    fn write(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let Some(record) = self.log.record(writes) else { return self.fold(writes) };
        self.log.append(&record)?;
        note(&mut self.newer, writes.iter().cloned());
        Ok(())
    }

    /// Takes what is in the log, and these, into the database.
    fn fold(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let lap = random::draw()?;
        let mut transaction = self.database.begin_write()?;
        // With one sync alone, damage to what is written here would look like a commit that was under way, and the one before it
        // would be taken, whose log is overwritten by then.
        transaction.set_two_phase_commit(true);
        {
            let mut table = transaction.open_table(RECORDS)?;
            let newest = writes.iter().map(|write| (&write.key, &write.value));
            for (key, value) in self.newer.iter().chain(newest) {
                match value {
                    Some(value) => drop(table.insert(key.as_slice(), sealed(key, value).as_slice())?),
                    None => drop(table.remove(key.as_slice())?),
                }
            }
            transaction.open_table(ABOUT)?.insert(LAP_KEY, lap.to_le_bytes().as_slice())?;
        }
        transaction.commit()?;
        self.log.begin(lap);
        self.newer.clear();
        Ok(())
    }
}

/// Opens the database of a file; it checks every page when asked to.
pub(super) fn open_database(
    bytes: &Arc<Watched>,
    layout: Layout,
    is_checked: bool,
) -> Result<Database, StoreError> {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(is_checked);
    Ok(builder.create_with_backend(layout.database(bytes))?)
}

/// Which lap of the log is not in the database yet.
pub(super) fn lap(database: &Database) -> Result<u64, StoreError> {
    let lap = about(database, LAP_KEY)?.and_then(|lap| lap.try_into().ok().map(u64::from_le_bytes));
    lap.ok_or_else(|| StoreError::Damaged("it does not say which lap of its log counts".to_owned()))
}

fn check_bare(database: &Database) -> Result<(), StoreError> {
    if about(database, BARE_FORMAT_KEY)?.is_some_and(|format| format == 1u32.to_le_bytes()) {
        return Ok(());
    }
    Err(StoreError::Damaged("it is a database, and none of a store".to_owned()))
}

fn about(database: &Database, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    match database.begin_read()?.open_table(ABOUT) {
        Ok(table) => Ok(table.get(key)?.map(|found| found.value().to_vec())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a store with these records, and a log of so many bytes.
pub(super) fn make(place: &dyn Place, log_bytes: u32, records: &Records) -> Result<(), StoreError> {
    place.create(&|bytes| {
        initialize(bytes, log_bytes, &|table| {
            for (key, value) in records {
                table.insert(key.as_slice(), sealed(key, value).as_slice())?;
            }
            Ok(())
        })
    })
}

/// Makes a store with what `fill` puts into it, and a log of so many bytes.
pub(super) fn initialize(
    bytes: Box<dyn StorageBackend>,
    log_bytes: u32,
    fill: &dyn Fn(&mut RecordTable<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let bytes = Arc::new(Watched::new(bytes, Arc::default()));
    let layout = Layout::create(&*bytes, log_bytes)?;
    let database = open_database(&bytes, layout, false)?;
    let transaction = database.begin_write()?;
    {
        fill(&mut transaction.open_table(RECORDS)?)?;
        transaction.open_table(ABOUT)?.insert(LAP_KEY, random::draw()?.to_le_bytes().as_slice())?;
    }
    transaction.commit()?;
    Ok(database.close()?)
}
