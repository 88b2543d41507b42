//! A daemon's sockets, published so that it is never reachable with wrong permissions, and the lock that comes first.
//!
//! The order for a daemon: [`lock_file`], which alone decides who the daemon of a directory is; [`bind_listener`] and
//! [`bind_datagram`], which replace what an ended daemon has left; at the end [`SocketFile::remove`]. The lock is never removed.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::directory::file_type_name;
use super::{Datagram, Listener, RuntimeDir, SOCKET_PATH_MAX_BYTES, os_error};
use crate::error::{Error, ErrorCode};

/// Connections that may wait to be accepted; the kernel cuts it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Who may connect to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// Permission bits; to connect takes the write bit.
    pub mode: u32,
    /// The group the socket is given, if not the process's own.
    pub group: Option<u32>,
}

impl Default for SocketAccess {
    /// The owner and root only.
    fn default() -> Self {
        Self { mode: 0o600, group: None }
    }
}

/// The name of a bound socket in its directory.
#[derive(Debug)]
pub struct SocketFile {
    directory: OwnedFd,
    name: String,
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Its absolute path.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Removes the name, if it still stands for the socket that was bound: what another daemon has put there stays.
    ///
    /// # Errors
    /// `io` or `permission_denied`; when nothing is there any more that is no error.
    pub fn remove(self) -> Result<(), Error> {
        let gone = |errno| os_error(format_args!("remove {}", self.path.display()), errno);
        match rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if (stat.st_dev, stat.st_ino) == (self.device, self.inode) => {}
            Ok(_) | Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(gone(errno)),
        }
        match rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(gone(errno)),
        }
    }
}

/// A lock that is held until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct LockFile {
    _file: std::fs::File,
}

/// Takes the lock `name` in `directory`. The file holds the holder's process id, for people.
///
/// # Errors
/// - `conflict` (exit status 75) when another process holds it: nothing was touched;
/// - `io` when something that is no regular file is in its place, or it cannot be made;
/// - `permission_denied`.
pub fn lock_file(directory: &RuntimeDir, name: &str) -> Result<LockFile, Error> {
    let path = directory.path().join(name);
    let what = format!("open lock {}", path.display());
    // Not blocking, so that a pipe in its place cannot make us wait.
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => file,
        Err(errno @ (Errno::LOOP | Errno::ISDIR | Errno::NXIO)) => {
            return Err(in_the_way(directory, name).unwrap_or_else(|| os_error(what, errno)));
        }
        Err(errno) => return Err(os_error(what, errno)),
    };
    let stat = rustix::fs::fstat(&file).map_err(|errno| os_error(&what, errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(in_the_way(directory, name).unwrap_or_else(|| os_error(what, Errno::INVAL)));
    }
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => return Err(held(directory, &file)),
            Err(errno) => return Err(os_error(what, errno)),
        }
    }
    let mut file = std::fs::File::from(file);
    // The text is a convenience: a full disk must not keep the daemon from starting.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(LockFile { _file: file })
}

fn held(directory: &RuntimeDir, file: &OwnedFd) -> Error {
    let mut text = [0; 16];
    let length = rustix::io::pread(file, &mut text, 0).unwrap_or(0);
    let holder = std::str::from_utf8(&text[..length]).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let holder = holder.map_or(String::new(), |pid| format!(" (process {pid})"));
    let message = format!("another daemon{holder} holds {}", directory.path().display());
    Error::new(ErrorCode::Conflict, message)
        .with_hint("stop that one first, or choose another directory for this one")
}

/// Binds a stream socket and publishes it as `name` in `directory`, replacing a socket or a symbolic link there.
///
/// It is bound under another name, given its permissions, made to listen and then renamed: at no instant can somebody
/// connect whom `access` does not let in, and at no instant is there nothing to connect to. The listener does not block
/// and refuses descriptors where the kernel can. Hold the directory's lock.
///
/// # Errors
/// `io` when something that is neither a socket nor a link is in its place, which is left alone, or when a system call
/// fails; `permission_denied`.
pub fn bind_listener(
    directory: &RuntimeDir,
    name: &str,
    access: SocketAccess,
) -> Result<(Listener, SocketFile), Error> {
    let (socket, file) = bind_socket(directory, name, access, SocketType::STREAM)?;
    // The kernel remembers the name it was bound to, which nobody can connect to any more.
    Ok((Listener::with_name(socket, Some(Arc::from(file.path.as_path()))), file))
}

/// Binds a datagram socket and publishes it, as [`bind_listener`] does with a stream socket. The kernel says with each of its
/// datagrams who sent it.
///
/// # Errors
/// As [`bind_listener`].
pub fn bind_datagram(
    directory: &RuntimeDir,
    name: &str,
    access: SocketAccess,
) -> Result<(Datagram, SocketFile), Error> {
    let (socket, file) = bind_socket(directory, name, access, SocketType::DGRAM)?;
    Ok((Datagram::with_name(socket, Arc::from(file.path.as_path())), file))
}

fn bind_socket(
    directory: &RuntimeDir,
    name: &str,
    access: SocketAccess,
    socket_type: SocketType,
) -> Result<(OwnedFd, SocketFile), Error> {
    check_replaceable(directory, name)?;
    let temporary = format!("{name}.{}.tmp", std::process::id());
    if check_replaceable(directory, &temporary)? {
        // Left behind by a daemon that had our process id; we hold the lock, so it is not in use.
        unlink(directory, &temporary)?;
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, socket_type, flags, None)
        .map_err(|errno| os_error("make a socket", errno))?;
    if socket_type == SocketType::DGRAM {
        // Before it has a name: nobody's datagram comes without a sender.
        super::verified::ask_for_credentials(&socket)?;
    }
    let published = publish(directory, name, &temporary, &socket, (access, socket_type));
    if published.is_err() {
        // The reason is being reported already; a name left behind is replaced by the next daemon.
        let _ = rustix::fs::unlinkat(directory, &temporary, AtFlags::empty());
    }
    let stat = published?;
    let directory_fd = directory
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| Error::new(ErrorCode::Io, format!("cannot keep the directory open: {error}")))?;
    let file = SocketFile {
        directory: directory_fd,
        name: name.to_owned(),
        path: directory.path().join(name),
        device: stat.st_dev,
        inode: stat.st_ino,
    };
    Ok((socket, file))
}

fn publish(
    directory: &RuntimeDir,
    name: &str,
    temporary: &str,
    socket: &OwnedFd,
    (access, socket_type): (SocketAccess, SocketType),
) -> Result<Stat, Error> {
    let path = directory.path().join(temporary);
    let failed = |what: &str| {
        let what = format!("{what} {}", path.display());
        move |errno| os_error(what, errno)
    };
    super::unix::refuse_descriptors(socket)?;
    // Before bind: the name never exists with more permissions than these.
    rustix::fs::fchmod(socket, Mode::RUSR | Mode::WUSR).map_err(failed("set the mode of"))?;
    rustix::net::bind(socket, &bind_address(directory, temporary)?).map_err(failed("bind"))?;
    if let Some(group) = access.group {
        rustix::fs::chownat(
            directory,
            temporary,
            None,
            Some(Gid::from_raw(group)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(failed("set the group of"))?;
    }
    // After bind, because bind cuts the mode by the umask; before listen, until which nobody can connect.
    rustix::fs::chmodat(directory, temporary, Mode::from_raw_mode(access.mode), AtFlags::empty())
        .map_err(failed("set the mode of"))?;
    if socket_type == SocketType::STREAM {
        rustix::net::listen(socket, BACKLOG).map_err(failed("listen on"))?;
    }
    let stat =
        rustix::fs::statat(directory, temporary, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("examine"))?;
    rustix::fs::renameat(directory, temporary, directory, name).map_err(failed("publish"))?;
    Ok(stat)
}

/// The address to bind to: the path where it fits, which tools can show; else through the open directory.
fn bind_address(directory: &RuntimeDir, name: &str) -> Result<SocketAddrUnix, Error> {
    let path = directory.path().join(name);
    let address = if path.as_os_str().len() <= SOCKET_PATH_MAX_BYTES {
        SocketAddrUnix::new(&path)
    } else {
        let short = format!("/proc/self/fd/{}/{name}", directory.as_fd().as_raw_fd());
        SocketAddrUnix::new(CString::new(short).map_err(|_| in_name(name))?)
    };
    address.map_err(|errno| os_error(format_args!("bind {}", path.display()), errno))
}

fn in_name(name: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("{name:?} is no file name"))
}

/// Whether something is there that may be replaced.
fn check_replaceable(directory: &RuntimeDir, name: &str) -> Result<bool, Error> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(false),
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::Socket | FileType::Symlink => Ok(true),
            _ => Err(in_the_way(directory, name).unwrap_or_else(|| in_name(name))),
        },
        Err(errno) => Err(os_error(format_args!("examine {}", directory.path().join(name).display()), errno)),
    }
}

fn in_the_way(directory: &RuntimeDir, name: &str) -> Option<Error> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let path = directory.path().join(name);
    let found = file_type_name(stat.st_mode);
    let message = format!("{} is {found} that no daemon has made; it was not touched", path.display());
    Some(
        Error::new(ErrorCode::Io, message)
            .with_hint("move it away, or choose another directory with --runtime-dir"),
    )
}

fn unlink(directory: &RuntimeDir, name: &str) -> Result<(), Error> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(os_error(format_args!("remove {}", directory.path().join(name).display()), errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::socket::{Mode as Waits, Socket, SocketAddress};
    use crate::transport::{Address, STREAM_SOCKET_NAME, Trust, connect};
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::time::Duration;

    fn open(path: &Path) -> RuntimeDir {
        RuntimeDir::open(path, &[rustix::process::geteuid().as_raw()]).unwrap()
    }

    fn bind(directory: &RuntimeDir) -> Result<(Listener, SocketFile), Error> {
        bind_listener(directory, STREAM_SOCKET_NAME, SocketAccess::default())
    }

    fn reaches(listener: &Listener, path: &Path) {
        let address = Address::Unix(path.to_owned());
        let _client = connect::connect(&address, &Trust::default(), Duration::from_secs(5)).unwrap();
        listener.set_mode(Waits::Blocking).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert_eq!(server.local_address().unwrap(), SocketAddress::from(path));
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_socket_is_published_with_its_permissions_and_removed() {
        let base = tempfile::tempdir().unwrap();
        let directory = open(base.path());
        for mode in [0o600, 0o660, 0o666] {
            let own_group = rustix::process::getegid().as_raw();
            let access = SocketAccess { mode, group: Some(own_group) };
            let (listener, file) = bind_listener(&directory, STREAM_SOCKET_NAME, access).unwrap();
            let metadata = fs::symlink_metadata(file.path()).unwrap();
            assert!(metadata.file_type().is_socket());
            assert_eq!(metadata.mode() & 0o7777, mode);
            assert_eq!(names(base.path()), [STREAM_SOCKET_NAME]);
            reaches(&listener, file.path());
            file.remove().unwrap();
            assert!(names(base.path()).is_empty());
        }
    }

    #[test]
    fn a_datagram_socket_is_published_likewise() {
        let base = tempfile::tempdir().unwrap();
        let directory = open(base.path());
        let (old, old_file) = bind_datagram(&directory, "bus.dgram", SocketAccess::default()).unwrap();
        let (socket, file) = bind_datagram(&directory, "bus.dgram", SocketAccess::default()).unwrap();
        drop(old);
        old_file.remove().unwrap();
        assert_eq!(names(base.path()), ["bus.dgram"]);
        assert_eq!(fs::symlink_metadata(file.path()).unwrap().mode() & 0o7777, 0o600);
        let client = std::os::unix::net::UnixDatagram::unbound().unwrap();
        client.send_to(b"x", file.path()).unwrap();
        let arrival = crate::transport::verified::receive(&socket, &mut [0; 4]).unwrap();
        assert!(arrival.sender.is_some());
        file.remove().unwrap();
        assert!(names(base.path()).is_empty());
    }

    #[test]
    fn what_an_ended_daemon_left_is_replaced() {
        let base = tempfile::tempdir().unwrap();
        let directory = open(base.path());
        let path = base.path().join(STREAM_SOCKET_NAME);
        drop(UnixListener::bind(&path).unwrap());
        drop(UnixListener::bind(base.path().join(format!("bus.sock.{}.tmp", std::process::id()))).unwrap());
        let (listener, _file) = bind(&directory).unwrap();
        reaches(&listener, &path);
        assert_eq!(names(base.path()), [STREAM_SOCKET_NAME]);
    }

    #[test]
    fn a_link_is_replaced_and_its_target_left_alone() {
        let base = tempfile::tempdir().unwrap();
        let directory = open(base.path());
        fs::write(base.path().join("precious"), "kept").unwrap();
        let path = base.path().join(STREAM_SOCKET_NAME);
        symlink(base.path().join("precious"), &path).unwrap();
        let (listener, _file) = bind(&directory).unwrap();
        reaches(&listener, &path);
        assert_eq!(fs::read_to_string(base.path().join("precious")).unwrap(), "kept");
    }

    #[test]
    fn anything_else_in_the_way_is_left_alone() {
        let base = tempfile::tempdir().unwrap();
        let directory = open(base.path());
        for name in [STREAM_SOCKET_NAME, "bus.lock"] {
            let path = base.path().join(name);
            fs::create_dir(&path).unwrap();
            let error = match name {
                STREAM_SOCKET_NAME => bind(&directory).unwrap_err(),
                _ => lock_file(&directory, name).unwrap_err(),
            };
            assert_eq!(error.code.exit_status(), 74, "{error}");
            assert!(error.message.contains("a directory"), "{error}");
            assert!(path.is_dir());
            fs::remove_dir(&path).unwrap();
        }
        let path = base.path().join(STREAM_SOCKET_NAME);
        fs::write(&path, "data").unwrap();
        let error = bind(&directory).unwrap_err();
        assert!(error.message.contains("a regular file") && error.message.contains("not touched"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
        assert_eq!(names(base.path()), [STREAM_SOCKET_NAME]);
    }

    #[test]
    fn a_pipe_or_a_link_in_place_of_the_lock_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let directory = open(base.path());
        rustix::fs::mkfifoat(&directory, "pipe", Mode::RWXU).unwrap();
        symlink("elsewhere", base.path().join("link")).unwrap();
        for (name, found) in [("pipe", "a named pipe"), ("link", "a symbolic link")] {
            let error = lock_file(&directory, name).unwrap_err();
            assert_eq!(error.code, ErrorCode::Io);
            assert!(error.message.contains(found), "{error}");
        }
        assert!(!base.path().join("elsewhere").exists());
    }

    #[test]
    fn long_paths_work() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("d".repeat(120));
        fs::create_dir(&path).unwrap();
        let (listener, file) = bind(&open(&path)).unwrap();
        assert!(file.path().as_os_str().len() > SOCKET_PATH_MAX_BYTES);
        reaches(&listener, file.path());
    }

    #[test]
    fn the_lock_is_held_by_one() {
        let base = tempfile::tempdir().unwrap();
        let directory = open(base.path());
        let first = lock_file(&directory, "bus.lock").unwrap();
        let error = lock_file(&directory, "bus.lock").unwrap_err();
        assert_eq!((error.code, error.code.exit_status()), (ErrorCode::Conflict, 75));
        assert!(error.message.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        lock_file(&directory, "bus.lock").unwrap();
        assert_eq!(names(base.path()), ["bus.lock"], "it is never removed");
    }

    #[test]
    fn of_many_that_want_the_lock_one_gets_it() {
        let base = tempfile::tempdir().unwrap();
        let holders = std::thread::scope(|scope| {
            let tries: Vec<_> =
                (0..8).map(|_| scope.spawn(|| lock_file(&open(base.path()), "bus.lock"))).collect();
            tries.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(holders.iter().filter(|result| result.is_ok()).count(), 1);
    }

    #[test]
    fn a_successors_socket_is_not_removed() {
        let base = tempfile::tempdir().unwrap();
        let directory = open(base.path());
        let (_first, first_file) = bind(&directory).unwrap();
        let (second, second_file) = bind(&directory).unwrap();
        first_file.remove().unwrap();
        reaches(&second, second_file.path());
        fs::remove_file(second_file.path()).unwrap();
        second_file.remove().unwrap();
    }
}
