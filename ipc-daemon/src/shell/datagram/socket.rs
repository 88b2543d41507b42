//! A datagram socket of the daemon, local or of the network.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use ipc_core::transport::{Datagram, SocketAddress, verified};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sockopt};

use crate::bus::reaper::Reaper;
use crate::datagram::Source;

/// What the kernel may hold of what was sent and not read, in bytes; it allows less unless the daemon is privileged.
const SEND_BUFFER_BYTES: usize = 8 << 20;
/// The same of what was received.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Whose descriptors are those of a sender that the kernel does not know.
const NOBODY: u32 = u32::MAX;

/// A bound datagram socket that does not block.
#[derive(Debug)]
pub(crate) struct DatagramSocket {
    fd: Datagram,
    family: Family,
}

#[derive(Debug)]
enum Family {
    /// With whoever closes descriptors, where the kernel does not keep them out.
    Local(Option<Reaper>),
    Network,
}

/// What was received.
#[derive(Debug)]
pub(super) enum Received {
    /// So many bytes from there. One that was longer than the buffer fills it.
    Datagram(Source, usize),
    /// A datagram whose sender the kernel does not know.
    Unverified,
    /// A datagram with descriptors, which nobody has agreed to take.
    WithDescriptors,
    /// The next one has descriptors, of which too many of that user wait to be closed. It stays until there is room.
    Held(u32),
}

impl DatagramSocket {
    /// A local socket, with a reaper if the kernel does not keep descriptors out.
    pub(crate) fn local(socket: Datagram, reaper: Option<Reaper>) -> Self {
        Self::new(socket, Family::Local(reaper))
    }

    /// A socket of the network, bound to that address.
    ///
    /// # Errors
    /// Those of bind(2).
    pub(crate) fn network(address: SocketAddr) -> io::Result<Self> {
        let socket = Datagram::bound(&SocketAddress::Inet(address))?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self::new(socket, Family::Network))
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &Datagram {
        &self.fd
    }

    /// Whether it is one of this machine alone.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.family, Family::Local(_))
    }

    fn new(fd: Datagram, family: Family) -> Self {
        // As much as the system allows: with less, those who do not read get in the way of others sooner.
        let _ = sockopt::set_socket_send_buffer_size_force(&fd, SEND_BUFFER_BYTES)
            .or_else(|_| sockopt::set_socket_send_buffer_size(&fd, SEND_BUFFER_BYTES));
        // The same, for those who send in a crowd.
        let _ = sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_BUFFER_BYTES)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BUFFER_BYTES));
        Self { fd, family }
    }

    /// Who closes descriptors, where the kernel does not keep them out.
    pub(super) fn reaper(&self) -> Option<&Reaper> {
        match &self.family {
            Family::Local(reaper) => reaper.as_ref(),
            Family::Network => None,
        }
    }

    /// Receives one datagram.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> Result<Received, Errno> {
        match &self.family {
            Family::Local(reaper) => self.receive_local(buffer, reaper.as_ref()),
            Family::Network => {
                let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
                let limit = buffer.len();
                let (_, count, from) =
                    rustix::io::retry_on_intr(|| rustix::net::recvfrom(&self.fd, &mut *buffer, flags))?;
                let from = from.and_then(|address| SocketAddr::try_from(address).ok());
                Ok(from.map_or(Received::Unverified, |from| {
                    Received::Datagram(Source::Network(from), count.min(limit))
                }))
            }
        }
    }

    fn receive_local(&self, buffer: &mut [u8], reaper: Option<&Reaper>) -> Result<Received, Errno> {
        let limit = buffer.len();
        if let Some(reaper) = reaper.filter(|reaper| reaper.is_crowded()) {
            let (sender, has_descriptors) = verified::peek(&self.fd)?;
            let uid = sender.map_or(NOBODY, |sender| sender.uid);
            if has_descriptors && !reaper.has_room(uid) {
                return Ok(Received::Held(uid));
            }
        }
        let arrival = verified::receive(&self.fd, buffer)?;
        if !arrival.descriptors.is_empty() || arrival.has_lost_descriptors {
            let uid = arrival.sender.map_or(NOBODY, |sender| sender.uid);
            for descriptor in arrival.descriptors {
                match reaper {
                    Some(reaper) => reaper.close(uid, descriptor),
                    None => drop(descriptor),
                }
            }
            return Ok(Received::WithDescriptors);
        }
        let Some(sender) = arrival.sender else { return Ok(Received::Unverified) };
        let source =
            Source::Local { uid: sender.uid, gid: sender.gid, pid: sender.pid, address: arrival.address };
        Ok(Received::Datagram(source, if arrival.is_cut { limit } else { arrival.bytes }))
    }

    /// Sends one datagram, without waiting.
    pub(super) fn send(&self, to: &Source, datagram: &[u8]) -> Result<(), Errno> {
        match to {
            Source::Local { address: Some(address), .. } => verified::send(&self.fd, address, datagram),
            Source::Local { address: None, .. } => Err(Errno::DESTADDRREQ),
            Source::Network(address) => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                rustix::io::retry_on_intr(|| rustix::net::sendto(&self.fd, datagram, flags, address))
                    .map(drop)
            }
        }
    }
}

impl AsRawFd for DatagramSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage};

    fn send_with_descriptor(from: &UnixDatagram) {
        let (one, _other) = UnixDatagram::pair().unwrap();
        let descriptors = [one.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        rustix::net::sendmsg(from, &[IoSlice::new(b"!")], &mut control, SendFlags::empty()).unwrap();
    }

    #[test]
    fn a_datagram_with_descriptors_stays_while_too_many_wait() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        verified::ask_for_credentials(&ours).unwrap();
        let reaper = Reaper::idle(2);
        let socket =
            DatagramSocket::local(Datagram::from(std::os::fd::OwnedFd::from(ours)), Some(reaper.clone()));
        let uid = rustix::process::getuid().as_raw();
        let receive = || socket.receive_local(&mut [0; 16], Some(&reaper)).unwrap();
        theirs.send(b"first").unwrap();
        (0..3).for_each(|_| send_with_descriptor(&theirs));
        theirs.send(b"last").unwrap();
        assert!(matches!(receive(), Received::Datagram(_, 5)));
        assert!(matches!(receive(), Received::WithDescriptors));
        assert!(matches!(receive(), Received::WithDescriptors));
        for _ in 0..2 {
            let Received::Held(held) = receive() else { panic!("a third was taken in") };
            assert_eq!(held, uid);
        }
        reaper.set_waiting_max(3);
        assert!(matches!(receive(), Received::WithDescriptors));
        // It has none, so that nothing speaks against it.
        assert!(matches!(receive(), Received::Datagram(_, 4)));
    }
}
