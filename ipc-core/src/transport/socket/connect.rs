//! Connecting, for at most so long.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::reach::Reach;
use super::{Family, Socket, SocketAddress};
use crate::time::Instant;
use crate::transport::clock;

/// Connects once, as the mode of the socket says.
pub(super) fn connect_once(socket: BorrowedFd<'_>, address: &SocketAddress) -> Result<Reach, Errno> {
    let reach = Reach::existing(address)?;
    // On Linux a second call goes on waiting where a signal has ended the first.
    rustix::io::retry_on_intr(|| rustix::net::connect(socket, reach.address()))?;
    Ok(reach)
}

/// Connects a socket in non-blocking mode until `end`, or for as long as it takes.
pub(super) fn connect_until(
    socket: BorrowedFd<'_>,
    address: &SocketAddress,
    end: Option<Instant>,
) -> io::Result<Reach> {
    match (connect_once(socket, address), address.family()) {
        (Err(Errno::INPROGRESS), _) => {
            wait_for(socket, PollFlags::OUT, end)?;
            match socket.take_error()? {
                Some(error) => Err(error),
                None => Ok(Reach::existing(address)?),
            }
        }
        (Err(Errno::AGAIN), Family::Unix) => wait_in_line(socket, address, end),
        (result, _) => Ok(result?),
    }
}

/// Waits for room in the queue of an `AF_UNIX` listener, which the kernel lets nobody poll for.
fn wait_in_line(socket: BorrowedFd<'_>, address: &SocketAddress, end: Option<Instant>) -> io::Result<Reach> {
    rustix::io::ioctl_fionbio(socket, false)?;
    let reach = loop {
        let left = end.map(|end| end.since(clock::now()));
        if left.is_some_and(|left| left < Duration::from_micros(1)) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        set_socket_timeout(socket, Timeout::Send, left)?;
        let reach = Reach::existing(address)?;
        match rustix::net::connect(socket, reach.address()) {
            Ok(()) => break reach,
            // The timeout, or a signal; the clock tells them apart.
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    };
    set_socket_timeout(socket, Timeout::Send, None)?;
    rustix::io::ioctl_fionbio(socket, true)?;
    Ok(reach)
}

/// Waits until `end` for what is wanted of a socket.
pub(super) fn wait_for(socket: impl AsFd, wanted: PollFlags, end: Option<Instant>) -> io::Result<()> {
    let mut waits = [PollFd::new(&socket, wanted)];
    loop {
        let timeout = end.map(|end| {
            let left = end.since(clock::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        match poll(&mut waits, timeout.as_ref()) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
