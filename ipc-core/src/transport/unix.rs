//! Connecting to a daemon over its stream socket, and who is at the other end of a socket.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use rustix::fs::{AtFlags, CWD, FileType};
use rustix::io::Errno;

use super::directory::file_type_name;
use super::socket::Family;
use super::{SocketAddress, Stream, os_error, reason, sys};
use crate::error::{Error, ErrorCode};
use crate::identity::Identity;

/// The user id that the kernel shows for users it cannot name, of another user namespace for example.
const OVERFLOW_UID: u32 = 65_534;

/// Whose daemon a client speaks to: its own user's, root's, and that of one more user if it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Trust {
    /// The further user id.
    pub owner: Option<u32>,
}

impl Trust {
    /// Trusts the daemon of user `uid` too.
    pub fn with_owner(uid: u32) -> Self {
        Self { owner: Some(uid) }
    }

    /// The user ids that are trusted by a client of user `own`, that one first.
    pub fn uids(&self, own: u32) -> Vec<u32> {
        [Some(own), Some(0), self.owner].into_iter().flatten().collect()
    }
}

/// Connects to the daemon whose stream socket is at `path`, as [`connect`](super::connect::connect) does.
pub(super) fn connect(path: &Path, trust: &Trust, timeout: Duration) -> Result<Stream, Error> {
    let stream = Stream::connect_timeout(&SocketAddress::from(path), timeout).map_err(|error| {
        match Errno::from_io_error(&error) {
            Some(errno) => connect_error(path, errno),
            None => busy_error(path, timeout),
        }
    })?;
    check_owner(&stream, path, trust)?;
    Ok(stream)
}

/// The same without waiting; `None` when the daemon's queue of new connections is full.
pub(super) fn try_connect(path: &Path, trust: &Trust) -> Result<Option<Stream>, Error> {
    let failed = |errno| connect_error(path, errno);
    let mut stream = Stream::unconnected_nonblocking(Family::Unix).map_err(failed)?;
    match stream.connect_now(&SocketAddress::from(path)) {
        Ok(()) => {}
        Err(Errno::AGAIN) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    }
    check_owner(&stream, path, trust)?;
    Ok(Some(stream))
}

/// The error for a daemon that left no room for a new connection within `timeout`.
pub(super) fn busy_error(path: &Path, timeout: Duration) -> Error {
    let message = format!(
        "cannot connect to {} within {timeout:?}: its queue of new connections is full",
        path.display()
    );
    Error::new(ErrorCode::Unreachable, message)
        .with_hint("the daemon does not accept: it is overloaded or stopped; look at its log")
}

/// Who opened the other end of a connected socket, as the kernel noted it then (`SO_PEERCRED`).
///
/// The process id is 0 when the process lives in another pid namespace.
///
/// # Errors
/// `unauthenticated` when the kernel does not know, `io` when the socket cannot be asked.
pub fn peer_credentials(socket: impl AsFd) -> Result<Identity, Error> {
    let credentials = getsockopt(&socket, sockopt::PeerCredentials).map_err(|errno| {
        Error::new(ErrorCode::Io, format!("cannot ask who the peer is: {}", errno.desc()))
    })?;
    let (uid, gid) = (credentials.uid(), credentials.gid());
    let pid = u32::try_from(credentials.pid()).unwrap_or(0);
    if pid == 0 && uid == OVERFLOW_UID {
        // The kernel's way to say that it noted nobody. It must never pass for the user "nobody".
        return Err(Error::new(ErrorCode::Unauthenticated, "the kernel does not know who the peer is"));
    }
    Ok(Identity::Local { uid, gid, pid })
}

/// The supplementary groups of the process that opened the other end of a connected socket, as the kernel noted them then
/// (`SO_PEERGROUPS`).
///
/// # Errors
/// `unauthenticated` when the kernel does not know, `io` when the socket cannot be asked.
pub fn peer_groups(socket: impl AsFd) -> Result<Vec<u32>, Error> {
    sys::peer_groups(socket).map_err(|errno| match errno {
        Errno::NODATA => Error::new(ErrorCode::Unauthenticated, "the kernel does not know who the peer is"),
        errno => os_error("ask for the groups of the peer", errno),
    })
}

/// A descriptor of the process that opened the other end of a connected socket, which becomes readable when that process ends
/// (`SO_PEERPIDFD`, Linux 6.5; pidfd_open(2)). It stands for that process and never for a later one with its number.
///
/// # Errors
/// `io` when the kernel does not know the option or, some kernels, the process any more; or no descriptor is to be had.
pub fn peer_process(socket: impl AsFd) -> Result<OwnedFd, Error> {
    getsockopt(&socket, sockopt::PeerPidfd).map_err(|errno| {
        Error::new(ErrorCode::Io, format!("cannot get hold of the peer's process: {}", errno.desc()))
    })
}

/// Makes the kernel refuse descriptors sent to this socket, or, set on a listener, to what it accepts from then on. Says
/// whether the kernel can (Linux 6.16 and later).
///
/// # Errors
/// `io` when the socket cannot be set.
pub fn refuse_descriptors(socket: impl AsFd) -> Result<bool, Error> {
    match sys::refuse_descriptors(socket) {
        Ok(()) => Ok(true),
        Err(Errno::NOPROTOOPT) => Ok(false),
        Err(errno) => Err(os_error("make a socket refuse descriptors", errno)),
    }
}

/// Reads once from a socket, behind the end of `buffer` and at most `room` bytes; 0 is the end.
///
/// # Errors
/// Those of recv(2).
pub fn receive_onto(
    socket: impl AsFd,
    buffer: &mut Vec<u8>,
    room: usize,
    flags: rustix::net::RecvFlags,
) -> Result<usize, Errno> {
    sys::receive_onto(socket, buffer, room, flags)
}

fn check_owner(socket: &Stream, path: &Path, trust: &Trust) -> Result<(), Error> {
    let own = rustix::process::geteuid().as_raw();
    let Identity::Local { uid, .. } = peer_credentials(socket)? else {
        return Err(Error::new(ErrorCode::Unauthenticated, "the daemon is no process of this machine"));
    };
    if trust.uids(own).contains(&uid) {
        return Ok(());
    }
    let error = Error::new(
        ErrorCode::Unauthenticated,
        format!(
            "the daemon at {} belongs to uid {uid}, neither to this user (uid {own}) nor to root; nothing was sent",
            path.display()
        ),
    );
    Err(if uid == OVERFLOW_UID {
        error.with_hint(
            "its user has no number in this user namespace; if that is meant, trust its owner explicitly",
        )
    } else {
        error.with_hint("if that user is meant to run the bus, trust its owner explicitly")
    })
}

/// What a failed connect means.
fn connect_error(path: &Path, errno: Errno) -> Error {
    let shown = path.display();
    let found = rustix::fs::statat(CWD, path, AtFlags::empty()).ok();
    let unreachable =
        |why: &str| Error::new(ErrorCode::Unreachable, format!("cannot connect to {shown}: {why}"));
    let start = "is ipc-daemon running? start it with `ipc-daemon`";
    match errno {
        Errno::NOENT if found.is_some() => {
            unreachable("a path this long is reached through /proc, which is not mounted")
                .with_hint("mount /proc, or use a path of at most 107 bytes")
        }
        Errno::NOENT => unreachable("no such file").with_hint(start),
        Errno::CONNREFUSED => match found {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Socket => {
                unreachable(&format!("it is {}, not a socket", file_type_name(stat.st_mode)))
                    .with_hint("name the daemon's socket, DIR/bus.sock")
            }
            _ => unreachable("nobody listens; the socket was left behind by a daemon that has ended")
                .with_hint("start a new one with `ipc-daemon`"),
        },
        Errno::PROTOTYPE => unreachable("it is a datagram socket, not the stream socket of a daemon")
            .with_hint("name the daemon's stream socket, DIR/bus.sock"),
        Errno::ACCESS | Errno::PERM => {
            let owner = match found {
                Some(stat) => {
                    format!("it belongs to uid {} and has mode {:04o}", stat.st_uid, stat.st_mode & 0o7777)
                }
                None => "a directory before it may not be searched".to_owned(),
            };
            let message = format!("cannot connect to {shown}: permission denied; {owner}");
            Error::new(ErrorCode::PermissionDenied, message)
                .with_hint("run as the daemon's user, or have it configured to let this one in")
        }
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => os_error("make a socket", errno),
        errno => unreachable(&reason(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn both_ends_know_each_other() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("bus.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let client = connect(&path, &Trust::default(), SECOND).unwrap();
        let (server, _) = listener.accept().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        for end in [client.as_fd(), server.as_fd()] {
            let Identity::Local { uid: found, pid, .. } = peer_credentials(end).unwrap() else { panic!() };
            assert_eq!((found, pid), (uid, std::process::id()));
        }
        assert!(try_connect(&path, &Trust::default()).unwrap().is_some());
    }

    #[test]
    fn long_paths_work() {
        let base = tempfile::tempdir().unwrap();
        for length in [50, 200] {
            let directory = base.path().join("d".repeat(length));
            fs::create_dir(&directory).unwrap();
            // Bound where the path is short, then moved: the socket goes with its inode.
            let short = base.path().join("s");
            let _listener = UnixListener::bind(&short).unwrap();
            let path = directory.join("bus.sock");
            fs::rename(&short, &path).unwrap();
            connect(&path, &Trust::default(), SECOND).unwrap();
            try_connect(&path, &Trust::default()).unwrap().unwrap();
        }
        let error = connect(&base.path().join("x".repeat(200)), &Trust::default(), SECOND).unwrap_err();
        assert!(error.message.contains("no such file"), "{error}");
    }

    #[test]
    fn each_failure_is_said_as_it_is() {
        let base = tempfile::tempdir().unwrap();
        let path = |name: &str| base.path().join(name);
        drop(UnixListener::bind(path("stale")).unwrap());
        fs::write(path("file"), "").unwrap();
        fs::create_dir(path("directory")).unwrap();
        let _datagram = UnixDatagram::bind(path("datagram")).unwrap();
        for (name, words) in [
            ("missing", "no such file"),
            ("stale", "nobody listens"),
            ("file", "a regular file, not a socket"),
            ("directory", "a directory, not a socket"),
            ("datagram", "a datagram socket"),
            ("file/below", "Not a directory"),
        ] {
            let error = connect(&path(name), &Trust::default(), SECOND).unwrap_err();
            assert_eq!(error.code, ErrorCode::Unreachable, "{name}: {error}");
            assert!(error.message.contains(words), "{name}: {error}");
            assert!(error.message.contains(path(name).to_str().unwrap()), "{name}: {error}");
        }
    }

    #[test]
    fn a_full_queue_is_waited_for_and_then_an_error() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("bus.sock");
        let mut socket = Stream::unconnected(Family::Unix).unwrap();
        socket.bind(&path.as_path().into()).unwrap();
        let listener = socket.listen(0).unwrap();
        let mut waiting = Vec::new();
        while let Some(stream) = try_connect(&path, &Trust::default()).unwrap() {
            waiting.push(stream);
            assert!(waiting.len() < 16);
        }
        let error = connect(&path, &Trust::default(), Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.code, ErrorCode::Unreachable);
        assert!(error.message.contains("queue of new connections is full"), "{error}");
        std::thread::scope(|scope| {
            let late = scope.spawn(|| connect(&path, &Trust::default(), Duration::from_secs(30)));
            for _ in 0..=waiting.len() {
                listener.accept().unwrap();
            }
            late.join().unwrap().unwrap();
        });
    }

    /// As root only: becomes another user for one thread, which is what a system call asks about.
    #[test]
    fn a_strangers_daemon_is_not_spoken_to() {
        if rustix::process::geteuid().as_raw() != 0 {
            return;
        }
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let path = base.path().join("bus.sock");
        let stranger = 12_345;
        let result = std::thread::scope(|scope| {
            let path = &path;
            let listener = scope
                .spawn(move || {
                    become_user(stranger);
                    UnixListener::bind(path).unwrap()
                })
                .join()
                .unwrap();
            let refused = connect(path, &Trust::default(), SECOND);
            let trusted = connect(path, &Trust::with_owner(stranger), SECOND);
            drop(listener);
            (refused, trusted)
        });
        let error = result.0.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unauthenticated);
        assert!(error.message.contains("uid 12345"), "{error}");
        result.1.unwrap();
    }

    #[test]
    fn a_socket_that_is_closed_to_us_says_whose_it_is() {
        if rustix::process::geteuid().as_raw() != 0 {
            return;
        }
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = base.path().join("bus.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = std::thread::scope(|scope| {
            let joined = scope.spawn(|| {
                become_user(12_345);
                connect(&path, &Trust::default(), SECOND).unwrap_err()
            });
            joined.join().unwrap()
        });
        assert_eq!(error.code, ErrorCode::PermissionDenied);
        assert!(error.message.contains("uid 0 and has mode 0600"), "{error}");
    }

    fn become_user(uid: u32) {
        let uid = rustix::process::Uid::from_raw(uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
    }
}
