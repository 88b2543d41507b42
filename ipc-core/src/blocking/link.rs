//! The socket: what is done with it, and how long to wait for it.
//!
//! Waiting is a poll(2) and not a read that blocks: the kernel wakes a blocked reader also when its peer takes what it had
//! written, which is once for each call, for nothing. To poll for input costs one more system call and saves that.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, send, sendmsg};

use crate::transport::unix::receive_onto;

/// Most pieces of one vectored write.
const PIECES_MAX: usize = 16;

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
    /// So long.
    For(Duration),
    /// Without limit.
    Forever,
}

/// A connected socket. Whether it blocks by itself makes no difference: every call says whether to wait.
#[derive(Debug)]
pub(super) struct Link {
    socket: OwnedFd,
}

impl Link {
    pub(super) fn new(socket: impl Into<OwnedFd>) -> Self {
        Self { socket: socket.into() }
    }

    /// Reads once, at most `room` bytes, behind the end of `buffer`. A signal looks like the end of the wait.
    pub(super) fn read(&self, buffer: &mut Vec<u8>, room: usize, wait: Wait) -> Result<Read, Errno> {
        let is_due = match wait {
            Wait::No => true,
            Wait::For(time) => !self.wait(PollFlags::IN, Some(time))?.is_empty(),
            Wait::Forever => !self.wait(PollFlags::IN, None)?.is_empty(),
        };
        if !is_due {
            return Ok(Read::Nothing);
        }
        match receive_onto(&self.socket, buffer, room, RecvFlags::DONTWAIT) {
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
        let found = self.wait(PollFlags::IN | PollFlags::OUT, Some(timeout))?;
        Ok(found.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR))
    }

    /// What there is of what is waited for; nothing when the time has passed or a signal came.
    fn wait(&self, wanted: PollFlags, timeout: Option<Duration>) -> Result<PollFlags, Errno> {
        let mut waits = [PollFd::new(&self.socket, wanted)];
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        match poll(&mut waits, timeout.as_ref()) {
            Ok(_) => Ok(waits[0].revents()),
            Err(Errno::INTR) => Ok(PollFlags::empty()),
            Err(errno) => Err(errno),
        }
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
        let link = Link::new(ours);
        let mut buffer = Vec::new();
        assert_eq!(link.read(&mut buffer, 16, Wait::No), Ok(Read::Nothing));
        let (short, begin) = (Duration::from_millis(2), std::time::Instant::now());
        assert_eq!(link.read(&mut buffer, 16, Wait::For(short)), Ok(Read::Nothing));
        assert!(begin.elapsed() >= short);
        theirs.write_all(b"abc").unwrap();
        assert_eq!(link.read(&mut buffer, 16, Wait::For(Duration::MAX)), Ok(Read::Some(3)));
        theirs.write_all(b"defg").unwrap();
        assert_eq!(link.read(&mut buffer, 3, Wait::Forever), Ok(Read::Some(3)));
        assert_eq!(buffer, b"abcdef");
        assert_eq!(link.read(&mut buffer, 3, Wait::No), Ok(Read::Some(1)));
        drop(theirs);
        assert_eq!(link.read(&mut buffer, 3, Wait::Forever), Ok(Read::End));
    }

    #[test]
    fn what_the_peer_takes_wakes_nobody_who_waits_to_read() {
        let (ours, mut theirs) = Stream::pair().unwrap();
        let link = Link::new(ours);
        assert_eq!(link.write(std::iter::once(&b"abc"[..])), Ok(3));
        let (tell, told) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid()).unwrap();
            link.read(&mut Vec::new(), 16, Wait::Forever)
        });
        let thread = told.recv().unwrap();
        let before = switches_once_asleep(thread);
        theirs.read_exact(&mut [0; 3]).unwrap();
        // Whoever is woken is not asleep from that moment on, and has slept once more when it is again.
        assert_eq!(switches_once_asleep(thread), before);
        theirs.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap(), Ok(Read::Some(1)));
    }

    /// How often a thread has gone to sleep, asked while it sleeps.
    fn switches_once_asleep(thread: rustix::process::Pid) -> u64 {
        let file = format!("/proc/self/task/{}/status", thread.as_raw_nonzero());
        let end = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            assert!(std::time::Instant::now() < end, "it does not go to sleep");
            let status = std::fs::read_to_string(&file).unwrap();
            if !status.contains("State:\tS") {
                std::thread::yield_now();
                continue;
            }
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
            return line.split_whitespace().nth(1).unwrap().parse().unwrap();
        }
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
