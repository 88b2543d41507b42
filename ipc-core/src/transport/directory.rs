//! Opening and creating a directory that nobody else can write to.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::os_error;
use crate::error::{Error, ErrorCode};

/// A directory that has been checked, held open: what is done through [`RuntimeDir::as_fd`] is done in the directory that
/// was checked, whatever becomes of its path.
#[derive(Debug)]
pub struct RuntimeDir {
    fd: OwnedFd,
    path: PathBuf,
}

impl RuntimeDir {
    /// Its absolute path at the time it was opened, for people and for addresses.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens an existing directory and checks it: it is a directory and no symbolic link, it belongs to one of `owners`, and
    /// neither its group nor others may write to it.
    ///
    /// # Errors
    /// `unsafe_path`, saying who owns it and what to do; `io` or `permission_denied` when it cannot be opened.
    pub fn open(path: &Path, owners: &[u32]) -> Result<Self, Error> {
        Self::open_existing(&absolute(path)?, owners)?
            .ok_or_else(|| os_error(format_args!("open directory {}", path.display()), Errno::NOENT))
    }

    /// As [`open`](RuntimeDir::open), for a daemon of user `uid`: it may belong to that user or to root. When it does not
    /// exist it is made with `mode`; its parent must exist.
    ///
    /// # Errors
    /// As [`open`](RuntimeDir::open), and `io` or `permission_denied` when it cannot be made.
    pub fn open_or_create(path: &Path, uid: u32, mode: u32) -> Result<Self, Error> {
        let path = absolute(path)?;
        let owners = [uid, 0];
        if let Some(directory) = Self::open_existing(&path, &owners)? {
            return Ok(directory);
        }
        match rustix::fs::mkdirat(CWD, &path, Mode::RWXU) {
            Ok(()) => {}
            // Somebody else was faster, perhaps another daemon of ours; the checks decide.
            Err(Errno::EXIST) => return Self::open(&path, &owners),
            Err(errno) => {
                let error = os_error(format_args!("make directory {}", path.display()), errno);
                return Err(match errno {
                    Errno::NOENT => error.with_hint("make its parent directory, or choose another place"),
                    _ => error,
                });
            }
        }
        let directory = Self::open(&path, &owners)?;
        if mode != 0o700 {
            // Not with mkdir: the process's umask would cut it.
            rustix::fs::fchmod(&directory.fd, Mode::from_raw_mode(mode))
                .map_err(|errno| os_error(format_args!("set the mode of {}", path.display()), errno))?;
        }
        Ok(directory)
    }

    /// As [`open_or_create`](RuntimeDir::open_or_create), making missing parents too, mode 0700 as the base directory
    /// specification asks.
    ///
    /// # Errors
    /// As [`open_or_create`](RuntimeDir::open_or_create).
    pub fn open_or_create_all(path: &Path, uid: u32, mode: u32) -> Result<Self, Error> {
        let path = absolute(path)?;
        let mut missing = Vec::new();
        let mut parent = path.parent();
        while let Some(directory) = parent {
            match rustix::fs::statat(CWD, directory, AtFlags::empty()) {
                Err(Errno::NOENT) => missing.push(directory),
                _ => break,
            }
            parent = directory.parent();
        }
        for directory in missing.iter().rev() {
            match rustix::fs::mkdirat(CWD, *directory, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => {
                    return Err(os_error(format_args!("make directory {}", directory.display()), errno));
                }
            }
        }
        Self::open_or_create(&path, uid, mode)
    }

    /// `None` when nothing is there. `path` is absolute and ends in no slash, which would make the kernel follow a link.
    fn open_existing(path: &Path, owners: &[u32]) -> Result<Option<Self>, Error> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // A directory that may be searched but not listed is fine for a client; O_PATH asks for no permission.
        let opened = match rustix::fs::openat(CWD, path, flags | OFlags::RDONLY, Mode::empty()) {
            Err(Errno::ACCESS) => rustix::fs::openat(CWD, path, flags | OFlags::PATH, Mode::empty()),
            opened => opened,
        };
        let fd = match opened {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno @ (Errno::LOOP | Errno::NOTDIR)) => return Err(not_a_directory(path, errno)),
            Err(errno) => return Err(os_error(format_args!("open directory {}", path.display()), errno)),
        };
        let stat = rustix::fs::fstat(&fd)
            .map_err(|errno| os_error(format_args!("examine {}", path.display()), errno))?;
        check(path, &stat, owners)?;
        Ok(Some(Self { fd, path: path.to_owned() }))
    }
}

impl AsFd for RuntimeDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Who owns what is at `path`, following links; `None` when nothing can be seen there.
pub(super) fn owner(path: &Path) -> Option<u32> {
    rustix::fs::statat(CWD, path, AtFlags::empty()).ok().map(|stat| stat.st_uid)
}

/// The path made absolute, without a slash or a dot at its end.
fn absolute(path: &Path) -> Result<PathBuf, Error> {
    let absolute = std::path::absolute(path).map_err(|error| {
        Error::new(ErrorCode::InvalidArgument, format!("\"{}\" is no directory: {error}", path.display()))
    })?;
    let clean: PathBuf = absolute.components().filter(|part| *part != Component::CurDir).collect();
    Ok(clean)
}

fn check(path: &Path, stat: &Stat, owners: &[u32]) -> Result<(), Error> {
    let shown = path.display();
    if !owners.contains(&stat.st_uid) {
        let expected = owners.first().copied().unwrap_or(0);
        return Err(Error::new(
            ErrorCode::UnsafePath,
            format!(
                "{shown} belongs to uid {}, neither to this user (uid {expected}) nor to root",
                stat.st_uid
            ),
        )
        .with_hint("choose a directory of your own with --runtime-dir or $IPC_RUNTIME_DIR"));
    }
    let writable = stat.st_mode & 0o022;
    if writable != 0 {
        let who = if writable & 0o002 != 0 { "everybody" } else { "its group" };
        return Err(Error::new(
            ErrorCode::UnsafePath,
            format!("{shown} has mode {:04o}: {who} may write to it", stat.st_mode & 0o7777),
        )
        .with_hint(format!("chmod go-w {shown}, or choose another directory")));
    }
    Ok(())
}

fn not_a_directory(path: &Path, errno: Errno) -> Error {
    let shown = path.display();
    let found = match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => file_type_name(stat.st_mode),
        Err(_) => return os_error(format_args!("open directory {shown}"), errno),
    };
    Error::new(ErrorCode::UnsafePath, format!("{shown} is {found}, not a directory"))
        .with_hint("name the directory itself: links could lead to somebody else's")
}

/// What kind of file a mode stands for, with its article.
pub(super) fn file_type_name(mode: u32) -> &'static str {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Unknown => "a file of unknown type",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn own_uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_missing_directory_is_made_private() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("ipc");
        let made = RuntimeDir::open_or_create(&path, own_uid(), 0o700).unwrap();
        assert_eq!(made.path(), path);
        assert_eq!(mode_of(&path), 0o700);
        RuntimeDir::open_or_create(&path, own_uid(), 0o755).unwrap();
        assert_eq!(mode_of(&path), 0o700, "an existing directory keeps its mode");
        let shared = base.path().join("shared");
        RuntimeDir::open_or_create(&shared, own_uid(), 0o755).unwrap();
        assert_eq!(mode_of(&shared), 0o755);
    }

    #[test]
    fn parents_are_made_only_when_asked() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a/b/ipc");
        let error = RuntimeDir::open_or_create(&path, own_uid(), 0o700).unwrap_err();
        assert_eq!(error.code, ErrorCode::Io);
        assert!(error.hint().unwrap().contains("parent"));
        RuntimeDir::open_or_create_all(&path, own_uid(), 0o700).unwrap();
        assert_eq!(mode_of(&base.path().join("a")), 0o700);
    }

    #[test]
    fn links_and_files_are_refused() {
        let base = tempfile::tempdir().unwrap();
        let target = base.path().join("target");
        fs::create_dir(&target).unwrap();
        let link = base.path().join("link");
        symlink(&target, &link).unwrap();
        fs::write(base.path().join("file"), "").unwrap();
        for (name, what) in [("link", "symbolic link"), ("link/", "symbolic link"), ("file", "regular file")]
        {
            let error = RuntimeDir::open_or_create(&base.path().join(name), own_uid(), 0o700).unwrap_err();
            assert_eq!(error.code, ErrorCode::UnsafePath, "{name}");
            assert!(error.message.contains(what), "{error}");
        }
    }

    #[test]
    fn a_directory_others_can_write_to_is_refused() {
        let base = tempfile::tempdir().unwrap();
        for (mode, safe) in [(0o700, true), (0o755, true), (0o720, false), (0o702, false), (0o1777, false)] {
            fs::set_permissions(base.path(), fs::Permissions::from_mode(mode)).unwrap();
            let opened = RuntimeDir::open(base.path(), &[own_uid()]);
            match opened {
                Ok(_) => assert!(safe, "{mode:o}"),
                Err(error) => {
                    assert!(!safe, "{mode:o}");
                    assert_eq!(error.code, ErrorCode::UnsafePath);
                    assert!(error.message.contains(&format!("{mode:04o}")), "{error}");
                    assert!(error.hint().unwrap().contains("chmod go-w"));
                }
            }
        }
    }

    #[test]
    fn a_foreign_directory_is_refused() {
        let base = tempfile::tempdir().unwrap();
        // Seen by another user, our own directory is foreign; root can try it the other way round too.
        let stranger = own_uid() + 1;
        let error = RuntimeDir::open(base.path(), &[stranger]).unwrap_err();
        assert_eq!(error.code, ErrorCode::UnsafePath);
        assert!(error.message.contains(&format!("uid {}", own_uid())), "{error}");
        if own_uid() == 0 {
            std::os::unix::fs::chown(base.path(), Some(12_345), None).unwrap();
            let error = RuntimeDir::open_or_create(base.path(), 0, 0o700).unwrap_err();
            assert_eq!(error.code, ErrorCode::UnsafePath);
            assert!(error.message.contains("uid 12345"), "{error}");
        }
    }

    #[test]
    fn what_is_in_the_way_of_the_path_is_said() {
        let error = RuntimeDir::open(Path::new("/nonexistent-directory/ipc"), &[own_uid()]).unwrap_err();
        assert_eq!(error.code, ErrorCode::Io);
        assert!(error.message.contains("/nonexistent-directory/ipc"), "{error}");
        assert!(RuntimeDir::open(Path::new(""), &[own_uid()]).is_err());
    }
}
