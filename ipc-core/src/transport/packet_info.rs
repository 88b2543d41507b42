//! UDP datagrams with the address of this machine that each was sent to (`IP_PKTINFO`, ip(7); `IPV6_PKTINFO`, ipv6(7)).
//!
//! A socket that is bound to every address of a machine answers from whichever the route back suggests; a client that has
//! connected its socket to another one never hears that. With these functions an answer leaves from where it was asked for.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg,
    sendmsg, setsockopt,
};
use rustix::io::Errno;
use rustix::net::{AddressFamily, sockopt};

/// One datagram that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Bytes of it that are in the buffer. One that was longer fills it.
    pub bytes: usize,
    /// Who sent it.
    pub sender: SocketAddr,
    /// The address of this machine that it was sent to. `None` when it was sent to a group, and where the kernel was not
    /// [asked](ask).
    pub local: Option<IpAddr>,
}

/// Has the kernel say with every datagram that a UDP socket receives where it was sent to.
///
/// # Errors
/// Those of setsockopt(2).
pub fn ask(socket: impl AsFd) -> Result<(), Errno> {
    let asked = if sockopt::socket_domain(&socket)? == AddressFamily::INET6 {
        // Datagrams over IPv4 come with it too, in the form of an IPv6 address.
        setsockopt(&socket, Ipv6RecvPacketInfo, &true)
    } else {
        setsockopt(&socket, Ipv4PacketInfo, &true)
    };
    asked.map_err(from_nix)
}

/// Receives one datagram, without waiting.
///
/// # Errors
/// Those of recvmsg(2); `EAGAIN` when there is none.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Arrival, Errno> {
    // The larger of the two.
    let mut control = nix::cmsg_space!(in6_pktinfo);
    let fd = socket.as_fd().as_raw_fd();
    let mut parts = [IoSliceMut::new(buffer)];
    let received = loop {
        match recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT) {
            Err(nix::Error::EINTR) => {}
            received => break received.map_err(from_nix)?,
        }
    };
    let sender = received.address.as_ref().and_then(socket_address).ok_or(Errno::AFNOSUPPORT)?;
    let local = received.cmsgs().map_err(from_nix)?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr))))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr))).filter(|address| !address.is_multicast())
        }
        _ => None,
    });
    Ok(Arrival { bytes: received.bytes, sender, local })
}

/// Sends one datagram from an address of this machine, without waiting. Says how many bytes that were.
///
/// # Errors
/// Those of sendmsg(2); `EAGAIN` when there is no room, `EINVAL` or `EADDRNOTAVAIL` when this machine does not have that address (any more).
pub fn send(socket: impl AsFd, bytes: &[u8], to: SocketAddr, local: IpAddr) -> Result<usize, Errno> {
    let fd = socket.as_fd().as_raw_fd();
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let parts = [IoSlice::new(bytes)];
    // Over which interface is for the routes to say, and for the address of the receiver where it names one.
    let any = in_addr { s_addr: 0 };
    let (four, six);
    let from = match local {
        IpAddr::V4(address) => {
            let local = in_addr { s_addr: u32::from(address).to_be() };
            four = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: local, ipi_addr: any };
            ControlMessage::Ipv4PacketInfo(&four)
        }
        IpAddr::V6(address) => {
            six = in6_pktinfo { ipi6_addr: in6_addr { s6_addr: address.octets() }, ipi6_ifindex: 0 };
            ControlMessage::Ipv6PacketInfo(&six)
        }
    };
    let to = SockaddrStorage::from(to);
    loop {
        match sendmsg(fd, &parts, &[from], flags, Some(&to)) {
            Err(nix::Error::EINTR) => {}
            sent => return sent.map_err(from_nix),
        }
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let four =
        address.as_sockaddr_in().map(|address: &SockaddrIn| SocketAddr::V4(SocketAddrV4::from(*address)));
    four.or_else(|| {
        address.as_sockaddr_in6().map(|address: &SockaddrIn6| SocketAddr::V6(SocketAddrV6::from(*address)))
    })
}

fn from_nix(errno: nix::Error) -> Errno {
    Errno::from_raw_os_error(errno as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    /// What comes back to a client that has connected its socket to `asked`, from a server at `bound`.
    fn exchange(bound: &str, asked: &str) {
        let server = UdpSocket::bind(bound).unwrap();
        ask(&server).unwrap();
        assert_eq!(receive(&server, &mut [0; 8]), Err(Errno::AGAIN));
        let asked: IpAddr = asked.parse().unwrap();
        let client = UdpSocket::bind(if asked.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
        client.connect((asked, server.local_addr().unwrap().port())).unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        client.send(b"hello there").unwrap();
        server.set_nonblocking(false).unwrap();
        server.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        server.peek(&mut [0; 1]).unwrap();
        let mut buffer = [0; 8];
        let arrival = receive(&server, &mut buffer).unwrap();
        assert_eq!((arrival.bytes, &buffer), (8, b"hello th"));
        let local = arrival.local.expect("the kernel says where it was sent to");
        assert_eq!(local.to_canonical(), asked);
        assert_eq!(arrival.sender.ip().to_canonical(), client.local_addr().unwrap().ip());
        assert_eq!(send(&server, b"hello", arrival.sender, local), Ok(5));
        assert_eq!(client.recv(&mut buffer).unwrap(), 5);
    }

    #[test]
    fn an_answer_leaves_from_where_it_was_asked_for() {
        for (bound, asked) in [
            ("0.0.0.0:0", "127.0.0.1"),
            ("0.0.0.0:0", "127.0.0.2"),
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::]:0", "::1"),
            ("[::]:0", "127.0.0.3"),
        ] {
            exchange(bound, asked);
        }
    }

    #[test]
    fn nothing_leaves_from_where_this_machine_is_not() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        let to = server.local_addr().unwrap();
        let error = send(&server, b"x", SocketAddr::from(([127, 0, 0, 1], to.port())), [192, 0, 2, 1].into());
        assert!(error.is_err(), "{error:?}");
    }
}
