//! Records: what is kept on disk, by kind and key, and how their fields become bytes and back.
//!
//! A record is written whole and replaced whole. Its key is its kind and what tells it from others of that kind; records of one
//! kind are read back in the order of their keys' bytes, which for numbers is that of the numbers. Fields stand one behind the
//! other, little-endian, without padding; the layout of a kind never changes once landed: what needs another gets a new kind.

/// What a record is about: the first byte of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RecordKind {
    /// Up to which number revisions and tokens are given without asking the disk again.
    Numbers = 1,
    /// A change of a key, by its revision.
    Change = 2,
    /// An entry of a work queue as it was put, by its number.
    Entry = 3,
    /// How such an entry stands, by its number.
    EntryState = 4,
    /// That the id of such an entry is remembered, by its number.
    EntryId = 5,
    /// Something that is held, by its token.
    Hold = 6,
    /// Something that stays closed because a holder was lost, by its name, of a daemon that did not write down who pays for it.
    UnpaidClosure = 7,
    /// Something that stays closed because a holder was lost, by its name.
    Closure = 8,
}

impl RecordKind {
    /// The kind of that number; `None` for one of a later version.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Numbers),
            2 => Some(Self::Change),
            3 => Some(Self::Entry),
            4 => Some(Self::EntryState),
            5 => Some(Self::EntryId),
            6 => Some(Self::Hold),
            7 => Some(Self::UnpaidClosure),
            8 => Some(Self::Closure),
            _ => None,
        }
    }
}

/// A record to be put into the store, or, without a value, to be taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Kind and what tells it from others of the kind.
    pub key: Vec<u8>,
    /// Its fields.
    pub value: Option<Vec<u8>>,
}

impl Write {
    /// Puts a record, in the place of one that has the same key.
    pub(super) fn put(kind: RecordKind, id: &[u8], value: Vec<u8>) -> Self {
        Self { key: key(kind, id), value: Some(value) }
    }

    /// Takes a record out, if it is there.
    pub(super) fn delete(kind: RecordKind, id: &[u8]) -> Self {
        Self { key: key(kind, id), value: None }
    }
}

fn key(kind: RecordKind, id: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + id.len());
    key.push(kind as u8);
    key.extend_from_slice(id);
    key
}

/// Puts fields together.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<u8>);

impl Fields {
    pub(super) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Text or bytes with their length before them.
    pub(super) fn bytes(self, value: &[u8]) -> Self {
        self.u32(value.len() as u32).rest(value)
    }

    /// Bytes that reach to the end of the record.
    pub(super) fn rest(mut self, value: &[u8]) -> Self {
        self.0.extend_from_slice(value);
        self
    }

    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Takes fields apart; each is `None` when the record ends before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        core::str::from_utf8(self.bytes()?).ok()
    }

    /// All that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_and_what_is_cut_does_not() {
        let bytes = Fields::default().u8(1).u32(2).u64(3).bytes("four".as_bytes()).rest(b"five").done();
        let read = |bytes: &[u8]| {
            let mut reader = Reader(bytes);
            let fields = (reader.u8()?, reader.u32()?, reader.u64()?, reader.text()?.to_owned());
            Some((fields, reader.rest().to_vec()))
        };
        assert_eq!(read(&bytes), Some(((1, 2, 3, "four".to_owned()), b"five".to_vec())));
        let head = bytes.len() - 4;
        assert!((0..head).all(|length| read(&bytes[..length]).is_none()));
        assert_eq!(Reader(&[1, 0, 0, 0, 0xff]).text(), None);
    }

    #[test]
    fn kinds_have_their_numbers() {
        for kind in [
            RecordKind::Numbers,
            RecordKind::Change,
            RecordKind::Entry,
            RecordKind::EntryState,
            RecordKind::EntryId,
            RecordKind::Hold,
            RecordKind::UnpaidClosure,
            RecordKind::Closure,
        ] {
            assert_eq!(RecordKind::from_number(kind as u8), Some(kind));
        }
        assert_eq!(RecordKind::from_number(0), None);
        assert_eq!(Write::delete(RecordKind::Change, b"x").key, [2, b'x']);
    }
}
