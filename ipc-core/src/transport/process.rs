//! What a daemon inherits from whoever started it: descriptors and limits.

use std::os::fd::{AsFd, OwnedFd, RawFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::net::{AddressFamily, SocketType};

use super::{Datagram, Environment, Listener, Socket as _, SocketAddress, os_error, sys};
use crate::error::{Error, ErrorCode};

/// The first descriptor that a service manager hands over (sd_listen_fds(3)).
const LISTEN_FDS_START: RawFd = 3;
/// Most descriptors taken over.
const LISTEN_FDS_MAX: u32 = 64;

/// Sockets that a service manager handed over.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Those that listen.
    pub streams: Vec<Listener>,
    /// Those that take datagrams.
    pub datagrams: Vec<Datagram>,
}

/// The AF_UNIX sockets handed over by a service manager, in `$LISTEN_FDS`: listening stream sockets, and datagram sockets
/// that are bound. It has bound them, so they are never to be bound again or removed. None when there is no such variable or
/// it is meant for another process.
///
/// Each does not block and is closed on exec; the datagram ones say who sends. To be called once, early: a second call finds
/// them taken.
///
/// # Errors
/// `invalid_argument` when the variable makes no sense or a descriptor is neither.
pub fn inherited_sockets(environment: &Environment) -> Result<Inherited, Error> {
    let count = inherited_count(environment)?;
    let numbers = (LISTEN_FDS_START..).take(usize::try_from(count).unwrap_or(usize::MAX));
    let mut inherited = Inherited::default();
    for number in numbers {
        let socket = take_inherited(number)?;
        let kind = check_socket(&socket).map_err(|found| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!(
                    "descriptor {number} of $LISTEN_FDS is {found}, neither a listening AF_UNIX stream socket nor a bound \
                     datagram one"
                ),
            )
            .with_hint("give the socket unit ListenStream= and ListenDatagram= with paths, and no Accept=yes")
        })?;
        rustix::io::ioctl_fionbio(&socket, true)
            .map_err(|errno| os_error(format_args!("set up descriptor {number}"), errno))?;
        super::unix::refuse_descriptors(&socket)?;
        if kind == SocketType::DGRAM {
            super::verified::ask_for_credentials(&socket)?;
            inherited.datagrams.push(socket.into());
        } else {
            inherited.streams.push(socket.into());
        }
    }
    Ok(inherited)
}

fn inherited_count(environment: &Environment) -> Result<u32, Error> {
    let (Some(pid), Some(count)) = (&environment.listen_pid, &environment.listen_fds) else { return Ok(0) };
    if pid.to_str().and_then(|text| text.parse::<u32>().ok()) != Some(environment.pid) {
        return Ok(0);
    }
    let count_number = count.to_str().and_then(|text| text.parse::<u32>().ok());
    count_number.filter(|count| *count <= LISTEN_FDS_MAX).ok_or_else(|| {
        Error::new(
            ErrorCode::InvalidArgument,
            format!("$LISTEN_FDS is {count:?}, not a number from 0 to {LISTEN_FDS_MAX}"),
        )
        .with_hint("start the daemon from a socket unit, or unset the variable")
    })
}

fn check_socket(socket: impl AsFd) -> Result<SocketType, &'static str> {
    use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
    let family = socket_domain(&socket).map_err(|_| "no socket")?;
    if family != AddressFamily::UNIX {
        return Err("a socket of another family");
    }
    let kind = socket_type(&socket).map_err(|_| "no socket")?;
    match kind {
        SocketType::STREAM if !socket_acceptconn(&socket).map_err(|_| "no socket")? => {
            Err("a socket that does not listen")
        }
        SocketType::DGRAM if is_nameless(&socket) => Err("a socket without an address"),
        SocketType::STREAM | SocketType::DGRAM => Ok(kind),
        _ => Err("a socket of another type"),
    }
}

fn is_nameless(socket: impl AsFd) -> bool {
    !matches!(socket.as_fd().local_address(), Ok(SocketAddress::Path(_) | SocketAddress::Abstract(_)))
}

/// Takes over a descriptor that the starting process named, as in `--ready-fd N`, and marks it close-on-exec. The standard
/// streams are duplicated and stay.
///
/// To be called early and once for each number.
///
/// # Errors
/// `invalid_argument` when nothing that was inherited is open under that number.
pub fn take_inherited(number: RawFd) -> Result<OwnedFd, Error> {
    sys::take_inherited(number).map_err(|errno| match errno {
        rustix::io::Errno::BADF => Error::new(
            ErrorCode::InvalidArgument,
            format!("descriptor {number} was not handed to this process"),
        )
        .with_hint("the starting process must leave it open across exec"),
        errno => os_error(format_args!("take over descriptor {number}"), errno),
    })
}

/// Checks that the user of this process has a number in its user namespace. Without one it looks like the number that
/// stands for everybody who has none (user_namespaces(7)), so that nobody could be told from anybody.
///
/// # Errors
/// `permission_denied`.
pub fn check_user(environment: &Environment) -> Result<(), Error> {
    // Where there are no namespaces everybody has a number.
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else { return Ok(()) };
    if is_mapped(&map, environment.uid) {
        return Ok(());
    }
    let message =
        format!("this process has no user id in its user namespace: {} stands for anybody", environment.uid);
    Err(Error::new(ErrorCode::PermissionDenied, message)
        .with_hint("map the user into it, as `unshare --map-root-user` and `podman run --userns=keep-id` do"))
}

/// Whether `uid` is in a map whose lines hold the first id inside, the first outside, and how many there are.
fn is_mapped(map: &str, uid: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
        let (Some(first), Some(_), Some(count)) = (numbers.next(), numbers.next(), numbers.next()) else {
            return false;
        };
        (first..first + count).contains(&u64::from(uid))
    })
}

/// Raises the number of descriptors this process may open to its hard limit, and returns it.
///
/// A child that uses select(2) breaks above 1024: reset the soft limit in children before exec.
///
/// # Errors
/// `io` or `permission_denied`; the limit is then as it was.
pub fn raise_open_files_limit() -> Result<u64, Error> {
    let failed = |errno: nix::Error| {
        Error::new(ErrorCode::Io, format!("cannot raise the limit of open files: {}", errno.desc()))
    };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(failed)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    fn environment(pid: &str, count: &str) -> Environment {
        Environment {
            pid: 7,
            listen_pid: Some(pid.into()),
            listen_fds: Some(count.into()),
            ..Environment::default()
        }
    }

    #[test]
    fn only_what_is_meant_for_us_is_taken() {
        assert_eq!(inherited_count(&Environment::default()).unwrap(), 0);
        assert_eq!(inherited_count(&environment("8", "1")).unwrap(), 0);
        assert_eq!(inherited_count(&environment("7", "2")).unwrap(), 2);
        for bad in ["-1", "x", "65", "1.5"] {
            let error = inherited_count(&environment("7", bad)).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{bad}");
        }
        assert_eq!(inherited_count(&environment("7", "64")).unwrap(), 64);
    }

    #[test]
    fn only_sockets_that_clients_can_reach_will_do() {
        let base = tempfile::tempdir().unwrap();
        let (stream, _other) = UnixStream::pair().unwrap();
        let cases: [(OwnedFd, Result<SocketType, &str>); 6] = [
            (UnixListener::bind(base.path().join("a")).unwrap().into(), Ok(SocketType::STREAM)),
            (UnixDatagram::bind(base.path().join("b")).unwrap().into(), Ok(SocketType::DGRAM)),
            (UnixDatagram::unbound().unwrap().into(), Err("a socket without an address")),
            (stream.into(), Err("a socket that does not listen")),
            (std::net::TcpListener::bind("127.0.0.1:0").unwrap().into(), Err("a socket of another family")),
            (std::fs::File::open("/dev/null").unwrap().into(), Err("no socket")),
        ];
        for (fd, expected) in cases {
            assert_eq!(check_socket(fd), expected);
        }
    }

    #[test]
    fn only_what_the_map_holds_is_mapped() {
        for (map, uid, expected) in [
            ("         0          0 4294967295\n", 65_534, true),
            ("0 1000 1\n1 100000 65536\n", 0, true),
            ("0 1000 1\n1 100000 65533\n", 65_533, true),
            ("0 1000 1\n1 100000 65533\n", 65_534, false),
            ("1000 0 1\n", 999, false),
            ("1000 0 1\n", 1001, false),
            ("", 65_534, false),
            ("nonsense\n", 0, false),
        ] {
            assert_eq!(is_mapped(map, uid), expected, "{uid} in {map:?}");
        }
    }

    #[test]
    fn a_descriptor_of_our_own_is_not_taken() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = take_inherited(std::os::fd::AsRawFd::as_raw_fd(&file)).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
    }

    #[test]
    fn the_limit_of_open_files_is_raised() {
        let hard = raise_open_files_limit().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
