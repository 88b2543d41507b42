//! A disk in memory that can forget, tear and fail.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use crate::store::failure::StoreError;
use crate::store::medium::Place;

/// What the disk does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// No more bytes than this.
    pub(super) room: Option<u64>,
    /// Writes fail.
    pub(super) no_write: bool,
    /// Syncs fail.
    pub(super) no_sync: bool,
}

/// One thing that was done to the bytes since the last sync.
#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Step {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Step::Write(offset, data) => {
                let end = *offset as usize + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset as usize..end].copy_from_slice(data);
            }
            Step::Length(length) => bytes.resize(*length as usize, 0),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// As programs see it.
    now: Vec<u8>,
    /// As it was when the last sync succeeded.
    synced: Vec<u8>,
    /// What was done since then.
    steps: Vec<Step>,
    /// An image for each step and sync: what a loss of power at that moment may leave.
    cuts: Option<Vec<Cut>>,
    faults: Faults,
    fired: u64,
    exists: bool,
}

/// The disk at the moment of a loss of power.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    synced: Vec<u8>,
    steps: Vec<Step>,
    /// Commits that had been acknowledged.
    pub(super) acknowledged: usize,
}

impl Cut {
    /// What is found afterwards: of the steps that were not synced, `keeps` says which arrived, and how much of the last one of
    /// them.
    pub(super) fn image(&self, mut keeps: impl FnMut(usize) -> Kept) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for (at, step) in self.steps.iter().enumerate() {
            match (keeps(at), step) {
                (Kept::All, step) => step.apply(&mut bytes),
                (Kept::Torn(part), Step::Write(offset, data)) => {
                    let length = (data.len() / 512 * usize::from(part) / 256) * 512;
                    Step::Write(*offset, data[..length].to_vec()).apply(&mut bytes);
                }
                (Kept::Nothing | Kept::Torn(_), _) => {}
            }
        }
        bytes
    }

    /// Steps that were not synced.
    pub(super) fn unsynced(&self) -> usize {
        self.steps.len()
    }
}

/// How much of a step has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Nothing,
    /// The first sectors, so many of 256 parts.
    Torn(u8),
    All,
}

/// The disk; clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

impl Disk {
    /// A disk with these bytes on it.
    pub(super) fn with(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        {
            let mut state = disk.state();
            state.now = bytes.clone();
            state.synced = bytes;
            state.exists = true;
        }
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// From here on it does this wrong.
    pub(super) fn set(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// How often something went wrong.
    pub(super) fn fired(&self) -> u64 {
        self.state().fired
    }

    /// Bytes that programs see.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.state().now.clone()
    }

    /// From here on it remembers what a loss of power at each moment would leave.
    pub(super) fn record(&self) {
        self.state().cuts = Some(Vec::new());
    }

    /// One more commit was acknowledged.
    pub(super) fn acknowledge(&self, count: usize) {
        let state = &mut *self.state();
        let (synced, steps) = (state.synced.clone(), state.steps.clone());
        if let Some(cuts) = &mut state.cuts {
            cuts.push(Cut { synced, steps, acknowledged: count });
        }
    }

    /// What was remembered.
    pub(super) fn cuts(&self) -> Vec<Cut> {
        self.state().cuts.take().unwrap_or_default()
    }
}

impl State {
    fn step(&mut self, step: Step) {
        step.apply(&mut self.now);
        self.steps.push(step);
        self.cut();
    }

    fn cut(&mut self) {
        let (synced, steps) = (&self.synced, &self.steps);
        if let Some(cuts) = &mut self.cuts {
            let acknowledged = cuts.last().map_or(0, |cut| cut.acknowledged);
            cuts.push(Cut { synced: synced.clone(), steps: steps.clone(), acknowledged });
        }
    }

    fn fail<T>(&mut self, kind: io::ErrorKind) -> io::Result<T> {
        self.fired += 1;
        Err(io::Error::new(kind, "a fault of the test"))
    }
}

/// The bytes as the database sees them.
#[derive(Debug)]
struct Handle(Disk);

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.state().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.state();
        let from = usize::try_from(offset).ok().and_then(|offset| state.now.get(offset..));
        let from = from.and_then(|bytes| bytes.get(..out.len()));
        let from = from.ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // A hole takes no room.
        self.0.state().step(Step::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = &mut *self.0.state();
        if state.faults.no_sync {
            return state.fail(io::ErrorKind::Other);
        }
        state.synced = state.now.clone();
        state.steps.clear();
        state.cut();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let state = &mut *self.0.state();
        if state.faults.no_write {
            return state.fail(io::ErrorKind::Other);
        }
        if state.faults.room.is_some_and(|room| offset + data.len() as u64 > room) {
            return state.fail(io::ErrorKind::StorageFull);
        }
        state.step(Step::Write(offset, data.to_vec()));
        Ok(())
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("of the test")
    }
}

impl Place for Disk {
    fn open(&self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        Ok(self.state().exists.then(|| Box::new(Handle(self.clone())) as Box<dyn StorageBackend>))
    }

    fn create(
        &self,
        fill: &dyn Fn(Box<dyn StorageBackend>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let draft = Self::default();
        fill(Box::new(Handle(draft.clone())))?;
        let bytes = draft.bytes();
        let state = &mut *self.state();
        (state.now, state.synced, state.exists) = (bytes.clone(), bytes, true);
        Ok(())
    }
}
