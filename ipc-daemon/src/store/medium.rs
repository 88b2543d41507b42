//! Where the bytes of a store are, with word of what failed there.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use rustix::fs::{Advice, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::failure::{StoreError, is_full};
use super::overlay::Overlay;

/// Where a store is. It can be opened again after it has failed.
pub(crate) trait Place: fmt::Debug + fmt::Display + Send {
    /// What is there; `None` when nothing is.
    fn open(&self) -> io::Result<Option<Box<dyn StorageBackend>>>;

    /// Makes what `fill` fills, all of it or nothing.
    fn create(
        &self,
        fill: &dyn Fn(Box<dyn StorageBackend>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;
}

/// A file in the state directory.
#[derive(Debug)]
pub(crate) struct StateFile {
    directory: OwnedFd,
    name: String,
    path: PathBuf,
}

impl StateFile {
    /// The file of that name.
    pub(crate) fn new(directory: OwnedFd, shown: &Path, name: &str) -> Self {
        Self { directory, name: name.to_owned(), path: shown.join(name) }
    }

    /// The file as it is; `None` when there is none.
    pub(super) fn file(&self) -> io::Result<Option<File>> {
        match self.open_as(&self.name, OFlags::empty()) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bytes of a file, to be looked at without changing them.
    pub(super) fn overlay(file: File) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(Overlay::new(file)?))
    }

    /// Gives the file a second name, which is returned: there it stays when its place is taken by another.
    ///
    /// # Errors
    /// Those of link(2).
    pub(crate) fn set_aside(&self, why: &str) -> io::Result<String> {
        for number in 1.. {
            let aside = format!("{}.{why}-{number}", self.name);
            match rustix::fs::linkat(&self.directory, &self.name, &self.directory, &aside, AtFlags::empty()) {
                Ok(()) => return Ok(aside),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn open_as(&self, name: &str, flags: OFlags) -> io::Result<File> {
        // Not blocking, so that a pipe in its place cannot make us wait.
        let flags = flags | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR)?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        Ok(File::from(file))
    }
}

impl fmt::Display for StateFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl Place for StateFile {
    fn open(&self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        let Some(file) = self.file()? else { return Ok(None) };
        // What a failed sync has left in memory looks as if it were on the disk: it is written now, or read from there again.
        file.sync_data()?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        Ok(Some(Box::new(Bytes(file))))
    }

    /// Under another name first: a file of the name proper is whole, whenever this process ends.
    fn create(
        &self,
        fill: &dyn Fn(Box<dyn StorageBackend>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let draft = format!("{}.new", self.name);
        match rustix::fs::unlinkat(&self.directory, &draft, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
        let made =
            fill(Box::new(Bytes(self.open_as(&draft, OFlags::CREATE | OFlags::EXCL)?))).and_then(|()| {
                let renamed = rustix::fs::renameat(&self.directory, &draft, &self.directory, &self.name);
                Ok(renamed.map_err(io::Error::from)?)
            });
        if made.is_err() {
            // It takes room, which may be what is missing. Should that fail too, the next attempt tries again.
            let _still_there = rustix::fs::unlinkat(&self.directory, &draft, AtFlags::empty());
        }
        made?;
        rustix::fs::fsync(&self.directory).map_err(io::Error::from)?;
        Ok(())
    }
}

/// The bytes of a file. There are no locks: the state directory has one for all that is in it.
#[derive(Debug)]
struct Bytes(File);

impl StorageBackend for Bytes {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

/// What failed so far.
#[derive(Debug, Default)]
pub(super) struct Faults {
    is_full: AtomicBool,
    is_broken: AtomicBool,
}

impl Faults {
    /// Whether there was no room, and nothing else.
    pub(super) fn only_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed) && !self.is_broken.load(Ordering::Relaxed)
    }

    fn note<T>(&self, result: io::Result<T>, is_sync: bool) -> io::Result<T> {
        if let Err(error) = &result {
            // After a failed sync nobody knows what is there, whatever the reason is said to be.
            let flag = if is_full(error) && !is_sync { &self.is_full } else { &self.is_broken };
            flag.store(true, Ordering::Relaxed);
        }
        result
    }
}

/// Bytes with a note of what failed.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Box<dyn StorageBackend>,
    faults: Arc<Faults>,
}

impl Watched {
    pub(super) fn new(inner: Box<dyn StorageBackend>, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.note(self.inner.set_len(len), false)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.note(self.inner.sync_data(), true)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faults.note(self.inner.write(offset, data), false)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}
