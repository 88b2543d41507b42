//! The file with its format, its checks when it is opened, and one commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::{
    Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend, Table,
    TableDefinition, TableError,
};

use super::failure::StoreError;
use super::medium::{Faults, Place, Watched};
use crate::broker::{Fault, Write};

/// The format of what is written.
pub(super) const FORMAT: u32 = 1;
/// Records: kind and key, to checksum and fields.
pub(super) const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
/// The table of records, open to be written.
pub(super) type RecordTable<'a> = Table<'a, &'static [u8], &'static [u8]>;
/// About the file itself.
pub(super) const ABOUT: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("about");
/// Key of the format's number.
const FORMAT_KEY: &[u8] = b"format";
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

/// The database itself.
#[derive(Debug)]
pub(super) struct Open {
    database: Database,
    faults: Arc<Faults>,
}

impl Store {
    /// Opens the store at that place and checks all of it, or makes an empty one when nothing is there.
    ///
    /// # Errors
    /// When it is damaged, was written by a later version, or cannot be used.
    pub(crate) fn open(place: Box<dyn Place>) -> Result<Self, StoreError> {
        let open = match Open::at(&*place)? {
            Some(open) => open,
            None => {
                place.create(&|bytes| initialize(bytes, &|_| Ok(())))?;
                Open::at(&*place)?.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?
            }
        };
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
            Some(open) => open.each(|key, value| each(key, value?)),
            None => Ok(()),
        }
    }

    /// What is in it at this moment, whatever is written from here on.
    pub(super) fn snapshot(&self) -> Result<ReadTransaction, StoreError> {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        Ok(self.open.as_ref().ok_or_else(full)?.database.begin_read()?)
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
        let Some(open) = &self.open else { return Err(self.full("it is being opened again")) };
        match open.write(writes) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// Closes it, so that nothing has to be looked through when it is opened again.
    pub(crate) fn close(self) -> Result<(), StoreError> {
        match self.open {
            Some(open) => Ok(open.database.close()?),
            None => Ok(()),
        }
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
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let database = builder.create_with_backend(Watched::new(bytes, Arc::clone(faults)))?;
        let open = Self { database, faults: Arc::clone(faults) };
        open.check_format()?;
        Ok(open)
    }

    /// Gives every record in the order of the keys, or what is wrong with it.
    pub(super) fn each<E: From<StoreError>>(
        &self,
        mut each: impl FnMut(&[u8], Result<&[u8], StoreError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let transaction = self.database.begin_read().map_err(StoreError::from)?;
        let table = transaction.open_table(RECORDS).map_err(StoreError::from)?;
        for record in table.iter().map_err(StoreError::from)? {
            let (key, value) = record.map_err(StoreError::from)?;
            let (key, value) = (key.value(), value.value());
            each(key, unsealed(key, value))?;
        }
        Ok(())
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let transaction = self.database.begin_read()?;
        let table = match transaction.open_table(ABOUT) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => {
                return Err(StoreError::Damaged("it says nothing of its format".to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        let format = table.get(FORMAT_KEY)?;
        let format = format.and_then(|format| format.value().try_into().ok().map(u32::from_le_bytes));
        match format {
            // There is no older one to convert.
            Some(FORMAT) => Ok(()),
            Some(newer) if newer > FORMAT => Err(StoreError::Newer(newer)),
            _ => Err(StoreError::Damaged("the number of its format is none".to_owned())),
        }
    }

    fn write(&self, writes: &[Write]) -> Result<(), StoreError> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for write in writes {
                let key = write.key.as_slice();
                match &write.value {
                    Some(value) => drop(table.insert(key, sealed(key, value).as_slice())?),
                    None => drop(table.remove(key)?),
                }
            }
        }
        Ok(transaction.commit()?)
    }
}

/// Makes a store with what `fill` puts into it.
pub(super) fn initialize(
    bytes: Box<dyn StorageBackend>,
    fill: &dyn Fn(&mut RecordTable<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let watched = Watched::new(bytes, Arc::default());
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(watched)?;
    let transaction = database.begin_write()?;
    {
        fill(&mut transaction.open_table(RECORDS)?)?;
        let mut about = transaction.open_table(ABOUT)?;
        about.insert(FORMAT_KEY, FORMAT.to_le_bytes().as_slice())?;
    }
    transaction.commit()?;
    Ok(database.close()?)
}

/// A value behind its checksum.
pub(super) fn sealed(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(4 + value.len());
    sealed.extend_from_slice(&checksum(key, value).to_le_bytes());
    sealed.extend_from_slice(value);
    sealed
}

pub(super) fn unsealed<'a>(key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], StoreError> {
    match sealed.split_first_chunk() {
        Some((sum, value)) if u32::from_le_bytes(*sum) == checksum(key, value) => Ok(value),
        _ => {
            let key: String = key.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
            Err(StoreError::Damaged(format!("the checksum of record {key} is wrong")))
        }
    }
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}
