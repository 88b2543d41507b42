//! Connecting to a daemon's datagram socket, local or in the network.
//!
//! A local client binds its socket to an address of the kernel's choice (autobind, unix(7)), so that it can be answered, and
//! connects it: it then hears from the daemon alone, and the system can say when there is room to send.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::directory::file_type_name;
use super::{Address, HostPort, SOCKET_PATH_MAX_BYTES, Trust, os_error, reason};
use crate::error::{Error, ErrorCode};

/// A socket that is connected to the daemon at `address`, which is `dgram:` or `udp:`, and does not block. Nothing has been
/// sent. Looking up the name of a host may take seconds; nothing else waits.
///
/// # Errors
/// - `unreachable`: nothing there, or nobody receives;
/// - `unauthenticated`: the socket belongs to a user that is not trusted;
/// - `permission_denied`: it does not let this user through;
/// - `unsupported`: an address of another kind.
pub fn connect(address: &Address, trust: &Trust) -> Result<OwnedFd, Error> {
    match address {
        Address::Dgram(path) => connect_local(path, trust),
        Address::Udp(place) => connect_network(place),
        Address::Unix(_) | Address::Tcp(_) => {
            Err(Error::new(ErrorCode::Unsupported, format!("{address} is no address for datagrams")))
        }
    }
}

/// Whether an error of a connected datagram socket says that nobody receives any more, in words. Any other concerns one
/// datagram alone, which is lost.
#[cfg(any(feature = "client", feature = "blocking"))]
pub(crate) fn refusal(errno: Errno) -> Option<String> {
    let is_gone = matches!(
        errno,
        Errno::CONNREFUSED
            | Errno::CONNRESET
            | Errno::NOTCONN
            | Errno::PIPE
            | Errno::NOENT
            | Errno::DESTADDRREQ
    );
    is_gone.then(|| reason(errno))
}

fn connect_local(path: &Path, trust: &Trust) -> Result<OwnedFd, Error> {
    let failed = |errno| connect_error(path, errno);
    // What is looked at is what is connected to, whatever becomes of the path: nobody says later who receives.
    let inode =
        rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&inode).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        let found = file_type_name(stat.st_mode);
        return Err(unreachable(path, &format!("it is {found}, not a socket")));
    }
    let own = rustix::process::geteuid().as_raw();
    if !trust.uids(own).contains(&stat.st_uid) {
        let message = format!(
            "the socket {} belongs to uid {}, neither to this user (uid {own}) nor to root; nothing was sent",
            path.display(),
            stat.st_uid
        );
        return Err(Error::new(ErrorCode::Unauthenticated, message)
            .with_hint("if that user is meant to run the bus, trust its owner explicitly"));
    }
    let socket = new_socket(AddressFamily::UNIX)?;
    super::unix::refuse_descriptors(&socket)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new_unnamed())
        .map_err(|errno| os_error("get a return address", errno))?;
    let through = SocketAddrUnix::new(format!("/proc/self/fd/{}", inode.as_raw_fd())).map_err(failed)?;
    match rustix::net::connect(&socket, &through) {
        Err(Errno::NOENT) if path.as_os_str().len() <= SOCKET_PATH_MAX_BYTES => {
            // There is no /proc.
            let address = SocketAddrUnix::new(path).map_err(failed)?;
            rustix::net::connect(&socket, &address).map_err(failed)?;
        }
        connected => connected.map_err(failed)?,
    }
    Ok(socket)
}

fn connect_network(place: &HostPort) -> Result<OwnedFd, Error> {
    let unreachable =
        |why: String| Error::new(ErrorCode::Unreachable, format!("cannot send to udp:{place}: {why}"));
    let mut addresses: Vec<SocketAddr> = match place.socket_addr() {
        Some(address) => vec![address],
        None => {
            place.to_string().to_socket_addrs().map_err(|error| unreachable(error.to_string()))?.collect()
        }
    };
    // A daemon that listens on both is rarer than a host name that stands for both.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut last = unreachable("the name has no address".to_owned());
    for address in addresses {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = new_socket(family)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            Err(errno) => last = unreachable(reason(errno)),
        }
    }
    Err(last)
}

fn new_socket(family: AddressFamily) -> Result<OwnedFd, Error> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, SocketType::DGRAM, flags, None)
        .map_err(|errno| os_error("make a socket", errno))
}

fn unreachable(path: &Path, why: &str) -> Error {
    Error::new(ErrorCode::Unreachable, format!("cannot send to {}: {why}", path.display()))
        .with_hint("name the daemon's datagram socket, DIR/bus.dgram")
}

fn connect_error(path: &Path, errno: Errno) -> Error {
    match errno {
        Errno::NOENT => {
            unreachable(path, "no such file").with_hint("is ipc-daemon running? start it with `ipc-daemon`")
        }
        Errno::CONNREFUSED => {
            unreachable(path, "nobody receives; the socket was left behind by a daemon that has ended")
                .with_hint("start a new one with `ipc-daemon`")
        }
        Errno::PROTOTYPE => unreachable(path, "it is a stream socket, not the datagram socket of a daemon"),
        Errno::ACCESS | Errno::PERM => {
            let message = format!("cannot send to {}: permission denied", path.display());
            Error::new(ErrorCode::PermissionDenied, message)
                .with_hint("run as the daemon's user, or have it configured to let this one in")
        }
        errno => unreachable(path, &reason(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    fn dgram(path: &Path) -> Address {
        Address::Dgram(path.to_owned())
    }

    #[test]
    fn a_local_client_can_be_answered_and_hears_from_nobody_else() {
        let base = tempfile::tempdir().unwrap();
        for length in [1, 150] {
            let directory = base.path().join("d".repeat(length));
            std::fs::create_dir(&directory).unwrap();
            // Bound where the path is short, then moved: the socket goes with its inode.
            let short = base.path().join("s");
            let daemon = UnixDatagram::bind(&short).unwrap();
            let path = directory.join("bus.dgram");
            std::fs::rename(&short, &path).unwrap();
            let client = UnixDatagram::from(connect(&dgram(&path), &Trust::default()).unwrap());
            client.send(b"hello").unwrap();
            let (_, from) = daemon.recv_from(&mut [0; 8]).unwrap();
            daemon.send_to_addr(b"welcome", &from).unwrap();
            assert_eq!(client.recv(&mut [0; 8]).unwrap(), 7);
            let stranger = UnixDatagram::unbound().unwrap();
            let error = stranger.send_to_addr(b"x", &from).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn each_failure_is_said_as_it_is() {
        let base = tempfile::tempdir().unwrap();
        let path = |name: &str| base.path().join(name);
        drop(UnixDatagram::bind(path("stale")).unwrap());
        std::fs::write(path("file"), "").unwrap();
        let _stream = UnixListener::bind(path("stream")).unwrap();
        for (name, words) in [
            ("missing", "no such file"),
            ("stale", "nobody receives"),
            ("file", "a regular file, not a socket"),
            ("stream", "a stream socket"),
        ] {
            let error = connect(&dgram(&path(name)), &Trust::default()).unwrap_err();
            assert_eq!(error.code, ErrorCode::Unreachable, "{name}: {error}");
            assert!(error.message.contains(words), "{name}: {error}");
        }
        let stream = Address::Unix(path("stream"));
        assert_eq!(connect(&stream, &Trust::default()).unwrap_err().code, ErrorCode::Unsupported);
    }

    #[test]
    fn a_network_client_is_connected() {
        let daemon = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = daemon.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost"] {
            let address = Address::Udp(HostPort::new(host, port).unwrap());
            let client = std::net::UdpSocket::from(connect(&address, &Trust::default()).unwrap());
            client.send(b"x").unwrap();
            assert_eq!(daemon.recv(&mut [0; 4]).unwrap(), 1);
        }
    }
}
