//! What a store holds at one moment: the records of the database, with those of the log in their place; and how a record is sealed.

use std::collections::BTreeMap;

use redb::{ReadTransaction, ReadableTable, TableDefinition};

use super::failure::StoreError;
use crate::broker::Write;

/// Records: kind and key, to checksum and fields.
pub(super) const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// What the log says of keys: their value, or that they are gone.
pub(super) type Newer = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Notes what is written, in the place of what was written before.
pub(super) fn note(newer: &mut Newer, writes: impl IntoIterator<Item = Write>) {
    newer.extend(writes.into_iter().map(|write| (write.key, write.value)));
}

/// A store at one moment, whatever is written from then on.
pub(super) struct Snapshot {
    pub(super) database: ReadTransaction,
    pub(super) newer: Newer,
}

impl Snapshot {
    /// Gives every record in the order of the keys, or what is wrong with it.
    pub(super) fn each<E: From<StoreError>>(
        &self,
        mut each: impl FnMut(&[u8], Result<&[u8], StoreError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let table = self.database.open_table(RECORDS).map_err(StoreError::from)?;
        let mut newer = self.newer.iter().peekable();
        for record in table.iter().map_err(StoreError::from)? {
            let (key, value) = record.map_err(StoreError::from)?;
            let (key, value) = (key.value(), value.value());
            while let Some((before, value)) = newer.next_if(|(newer, _)| newer.as_slice() < key) {
                give(before, value.as_deref(), &mut each)?;
            }
            match newer.next_if(|(newer, _)| newer.as_slice() == key) {
                Some((key, value)) => give(key, value.as_deref(), &mut each)?,
                None => each(key, unsealed(key, value))?,
            }
        }
        newer.try_for_each(|(key, value)| give(key, value.as_deref(), &mut each))
    }
}

fn give<E>(
    key: &[u8],
    value: Option<&[u8]>,
    each: &mut impl FnMut(&[u8], Result<&[u8], StoreError>) -> Result<(), E>,
) -> Result<(), E> {
    value.map_or(Ok(()), |value| each(key, Ok(value)))
}

/// A value behind its checksum.
pub(super) fn sealed(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(4 + value.len());
    sealed.extend_from_slice(&checksum(key, value).to_le_bytes());
    sealed.extend_from_slice(value);
    sealed
}

/// The value of what was sealed.
///
/// # Errors
/// When it is not what was sealed under that key.
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
