//! The socket: one system call for each thing that is done, and how long to wait for it.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, send, sendmsg};

use crate::transport::unix::receive_onto;

/// Most pieces of one vectored write.
const PIECES_MAX: usize = 16;
/// A wait may always be so much longer; the kernel counts in ticks of that order, and takes 0 for no limit.
const SLACK_MIN: Duration = Duration::from_millis(1);
/// A wait that is as good as one without limit.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// So many bytes.
    Some(usize),
    /// Nothing within the time.
    Nothing,
    /// The other end has closed.
    End,
}

/// How long a read waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Not at all.
    No,
    /// So long, or a few percent longer: the kernel need not be told anew when the time is nearly the one before.
    Near(Duration),
    /// At least so long and at most three times: it almost never has to be told anew.
    About(Duration),
    /// Without limit.
    Forever,
}

/// A connected socket that blocks when it is read and does not when it is written.
#[derive(Debug)]
pub(super) struct Link {
    socket: OwnedFd,
    /// The read timeout that the kernel has been told; `None` is none.
    armed: Option<Duration>,
}

impl Link {
    pub(super) fn new(socket: impl Into<OwnedFd>) -> Self {
        Self { socket: socket.into(), armed: None }
    }

    /// Reads once, at most `room` bytes, behind the end of `buffer`. A signal looks like the end of the wait.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>, room: usize, wait: Wait) -> Result<Read, Errno> {
        let flags = self.prepare(wait)?;
        match receive_onto(&self.socket, buffer, room, flags) {
            Ok(0) => Ok(Read::End),
            Ok(count) => Ok(Read::Some(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Read::Nothing),
            Err(errno) => Err(errno),
        }
    }

    /// Writes once, without waiting; 0 when there is no room.
    pub(super) fn write<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>) -> Result<usize, Errno> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut pieces = pieces.fuse();
        let Some(first) = pieces.next() else { return Ok(0) };
        let written = match pieces.next() {
            None => retry(|| send(&self.socket, first, flags)),
            Some(second) => {
                let mut slices = [IoSlice::new(&[]); PIECES_MAX];
                let mut count = 0;
                for (slot, piece) in slices.iter_mut().zip([first, second].into_iter().chain(pieces)) {
                    *slot = IoSlice::new(piece);
                    count += 1;
                }
                let slices = slices.get(..count).unwrap_or_default();
                retry(|| sendmsg(&self.socket, slices, &mut SendAncillaryBuffer::default(), flags))
            }
        };
        match written {
            Err(Errno::AGAIN) => Ok(0),
            written => written,
        }
    }

    /// Waits until there is something to read or room to write; says whether there is something to read.
    pub(super) fn wait_until_writable(&self, timeout: Duration) -> Result<bool, Errno> {
        let mut waits = [PollFd::new(&self.socket, PollFlags::IN | PollFlags::OUT)];
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let timeout = Timespec { tv_sec: seconds, tv_nsec: timeout.subsec_nanos().into() };
        match poll(&mut waits, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(waits[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR))
    }

    /// Tells the kernel how long to wait, if it has to be told.
    fn prepare(&mut self, wait: Wait) -> Result<RecvFlags, Errno> {
        let (time, slack) = match wait {
            Wait::No => return Ok(RecvFlags::DONTWAIT),
            Wait::Near(time) if time < FOREVER => (Some(time), time / 16 + SLACK_MIN),
            Wait::About(time) if time < FOREVER => (Some(time), time * 2),
            Wait::Near(_) | Wait::About(_) | Wait::Forever => (None, Duration::ZERO),
        };
        let fits = match (time, self.armed) {
            (None, None) => true,
            (Some(time), Some(armed)) => armed >= time && armed - time <= slack,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !fits {
            let wanted = time.map(|time| time + slack / 2);
            set_socket_timeout(&self.socket, Timeout::Recv, wanted)?;
            self.armed = wanted;
        }
        Ok(RecvFlags::empty())
    }
}

impl std::os::fd::AsFd for Link {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Stream;
    use std::io::{Read as _, Write as _};

    #[test]
    fn reads_wait_as_told() {
        let (ours, mut theirs) = Stream::pair().unwrap();
        let mut link = Link::new(ours);
        let mut buffer = Vec::new();
        assert_eq!(link.read(&mut buffer, 16, Wait::No), Ok(Read::Nothing));
        let short = Duration::from_millis(2);
        assert_eq!(link.read(&mut buffer, 16, Wait::Near(short)), Ok(Read::Nothing));
        let armed = link.armed.unwrap();
        assert!(armed >= short && armed < short * 2);
        let shorter = short - Duration::from_nanos(100);
        assert_eq!(link.read(&mut buffer, 16, Wait::Near(shorter)), Ok(Read::Nothing));
        assert_eq!(link.armed, Some(armed), "near enough to be left alone");
        theirs.write_all(b"abc").unwrap();
        assert_eq!(link.read(&mut buffer, 16, Wait::Near(Duration::MAX)), Ok(Read::Some(3)));
        assert_eq!(link.armed, None);
        theirs.write_all(b"defg").unwrap();
        assert_eq!(link.read(&mut buffer, 3, Wait::About(Duration::from_secs(2))), Ok(Read::Some(3)));
        assert_eq!(buffer, b"abcdef");
        assert_eq!(link.armed, Some(Duration::from_secs(4)));
        assert_eq!(link.read(&mut buffer, 3, Wait::No), Ok(Read::Some(1)));
        drop(theirs);
        assert_eq!(link.read(&mut buffer, 3, Wait::About(Duration::from_secs(3))), Ok(Read::End));
        assert_eq!(link.armed, Some(Duration::from_secs(4)), "near enough to be left alone");
    }

    #[test]
    fn writes_do_not_wait() {
        let (ours, mut theirs) = Stream::pair().unwrap();
        let link = Link::new(ours);
        assert_eq!(link.write([&b"ab"[..], b"c"].into_iter()), Ok(3));
        let mut buffer = [0; 3];
        theirs.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"abc");
        let large = vec![0; 1 << 20];
        assert!(!link.wait_until_writable(Duration::ZERO).unwrap());
        while link.write(std::iter::once(&large[..])).unwrap() > 0 {}
        assert!(!link.wait_until_writable(Duration::ZERO).unwrap(), "full, and nothing to read");
        theirs.write_all(b"x").unwrap();
        assert!(link.wait_until_writable(Duration::from_secs(10)).unwrap());
        drop(theirs);
        assert_eq!(link.write(std::iter::once(&large[..])), Err(Errno::PIPE));
    }
}
