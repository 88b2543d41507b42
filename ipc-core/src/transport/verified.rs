//! Datagrams with the kernel's word of who sent them (`SCM_CREDENTIALS`, unix(7)), for a daemon.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SendFlags, SocketAddrUnix, sockopt};

use super::{os_error, sys};
use crate::error::Error;

/// The user id that the kernel shows for users it cannot name.
const OVERFLOW_UID: u32 = 65_534;

/// One datagram that was received.
#[derive(Debug)]
pub struct Arrival {
    /// Bytes of it that are in the buffer.
    pub bytes: usize,
    /// It was longer than the buffer: the rest is lost.
    pub is_cut: bool,
    /// Who sent it. `None` when the kernel does not know, which is nobody and never the user "nobody".
    pub sender: Option<Credentials>,
    /// The return address, as unix(7) has it in a socket address behind the family: a path, or a zero byte and an abstract
    /// name. `None` when the sender's socket is not bound.
    pub address: Option<Box<[u8]>>,
    /// Descriptors that came along. Closing one can take its sender's own good time.
    pub descriptors: Vec<OwnedFd>,
    /// Descriptors came along that the kernel could not hand over.
    pub has_lost_descriptors: bool,
}

/// The process that sent a datagram, by its effective ids at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id, never 0.
    pub pid: u32,
}

impl Credentials {
    fn read(pid: i32, uid: u32, gid: u32) -> Option<Self> {
        let pid = u32::try_from(pid).ok().filter(|pid| *pid != 0)?;
        // The kernel's way to say that it noted nobody.
        (uid != OVERFLOW_UID).then_some(Self { uid, gid, pid })
    }
}

/// Has the kernel say with every datagram who sends it. To be set before the socket has an address: what comes earlier has
/// no sender.
///
/// # Errors
/// `io`.
pub fn ask_for_credentials(socket: impl AsFd) -> Result<(), Error> {
    sockopt::set_socket_passcred(socket, true)
        .map_err(|errno| os_error("ask for credentials on a socket", errno))
}

/// Receives one datagram, without waiting.
///
/// # Errors
/// Those of recvmsg(2); `EAGAIN` when there is none.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Arrival, Errno> {
    let received = sys::receive_verified(socket.as_fd(), buffer)?;
    let sender = received.credentials.and_then(|(pid, uid, gid)| Credentials::read(pid, uid, gid));
    Ok(Arrival {
        bytes: received.bytes,
        is_cut: received.is_cut,
        sender,
        address: return_address(received.name),
        descriptors: received.descriptors,
        has_lost_descriptors: received.is_control_cut,
    })
}

/// Who has sent the next datagram, and whether descriptors came with it; it stays where it is, and they with it.
///
/// # Errors
/// Those of recvmsg(2); `EAGAIN` when there is none.
pub fn peek(socket: impl AsFd) -> Result<(Option<Credentials>, bool), Errno> {
    let seen = sys::peek_verified(socket.as_fd(), &mut [0])?;
    let sender = seen.credentials.and_then(|(pid, uid, gid)| Credentials::read(pid, uid, gid));
    Ok((sender, seen.is_control_cut))
}

/// A path ends with a zero byte, an abstract name does not.
fn return_address(mut name: Vec<u8>) -> Option<Box<[u8]>> {
    let is_path = *name.first()? != 0;
    if is_path {
        name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
    }
    Some(name.into_boxed_slice())
}

/// Sends one datagram to a return address, without waiting.
///
/// # Errors
/// Those of sendto(2); `EAGAIN` when its queue is full, or too much that others have not read waits in theirs.
pub fn send(socket: impl AsFd, to: &[u8], datagram: &[u8]) -> Result<(), Errno> {
    let address = match to.strip_prefix(&[0]) {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(to)?,
    };
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::io::retry_on_intr(|| rustix::net::sendto(&socket, datagram, flags, &address)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

    fn bound(path: &Path) -> UnixDatagram {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None);
        let socket = socket.unwrap();
        ask_for_credentials(&socket).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        socket.into()
    }

    #[test]
    fn the_kernel_says_who_sent_it_and_where_to_answer() {
        let base = tempfile::tempdir().unwrap();
        let daemon = bound(&base.path().join("d"));
        let mut buffer = [0; 16];
        assert_eq!(receive(&daemon, &mut buffer).unwrap_err(), Errno::AGAIN);
        let named = UnixDatagram::bind(base.path().join("c")).unwrap();
        let auto =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None);
        let auto = UnixDatagram::from(auto.unwrap());
        rustix::net::bind(&auto, &SocketAddrUnix::new_unnamed()).unwrap();
        let unnamed = UnixDatagram::unbound().unwrap();
        for (client, is_addressed) in [(&named, true), (&auto, true), (&unnamed, false)] {
            client.connect(base.path().join("d")).unwrap();
            client.send(b"hello").unwrap();
            let arrival = receive(&daemon, &mut buffer).unwrap();
            let sender = arrival.sender.unwrap();
            assert_eq!((sender.pid, sender.uid), (std::process::id(), rustix::process::geteuid().as_raw()));
            assert_eq!((&buffer[..arrival.bytes], arrival.is_cut), (&b"hello"[..], false));
            assert_eq!(arrival.address.is_some(), is_addressed);
            if let Some(address) = arrival.address {
                send(&daemon, &address, b"welcome").unwrap();
                let count = client.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..count], b"welcome");
            }
        }
        unnamed.send(&[7; 17]).unwrap();
        let arrival = receive(&daemon, &mut buffer).unwrap();
        assert_eq!((arrival.bytes, arrival.is_cut), (16, true));
    }

    #[test]
    fn nobody_is_nobody() {
        assert_eq!(Credentials::read(0, 65_534, 65_534), None);
        assert_eq!(Credentials::read(0, 1000, 1000), None);
        assert_eq!(Credentials::read(7, 65_534, 1), None);
        assert_eq!(Credentials::read(7, 1000, 100), Some(Credentials { uid: 1000, gid: 100, pid: 7 }));
        // What was sent before the kernel was asked arrives without a sender.
        let (early, late) = UnixDatagram::pair().unwrap();
        early.send(b"x").unwrap();
        ask_for_credentials(&late).unwrap();
        assert_eq!(receive(&late, &mut [0; 4]).unwrap().sender, None);
    }

    #[test]
    fn descriptors_are_handed_over_to_be_closed() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ask_for_credentials(&ours).unwrap();
        let descriptors = [theirs.as_fd(), theirs.as_fd(), theirs.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&descriptors)));
        rustix::net::sendmsg(&theirs, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
        let arrival = receive(&ours, &mut [0; 4]).unwrap();
        assert_eq!((arrival.descriptors.len(), arrival.has_lost_descriptors), (3, false));
        assert!(arrival.sender.is_some());
        for descriptor in &arrival.descriptors {
            let flags = rustix::io::fcntl_getfd(descriptor).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
    }
}
