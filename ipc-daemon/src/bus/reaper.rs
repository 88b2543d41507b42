//! Closing descriptors that a peer has sent, away from the bus.
//!
//! A descriptor can be made so that closing it takes its sender's own good time: a TCP socket that lingers over unsent data
//! does, and so does a socket in whose queue such a one still waits. Kernels from 6.16 on keep descriptors out
//! altogether (`SO_PASSRIGHTS`); on older ones they are received, and closed here.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Sender, channel};

use rustix::io::{Errno, IoSliceMut};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};

/// Most descriptors that the kernel lets through at a time.
const DESCRIPTORS_MAX: usize = 253;

/// A thread that closes what it is given.
#[derive(Clone, Debug)]
pub(crate) struct Reaper(Sender<OwnedFd>);

impl Reaper {
    /// Starts the thread; it ends when its last handle is gone.
    ///
    /// # Errors
    /// When there is no room for another thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, doomed) = channel::<OwnedFd>();
        std::thread::Builder::new()
            .name("reaper".to_owned())
            .spawn(move || doomed.into_iter().for_each(drop))?;
        Ok(Self(sender))
    }

    /// Closes a descriptor, some time.
    pub(crate) fn close(&self, descriptor: OwnedFd) {
        // Without the thread it is closed here, which is late but not wrong.
        drop(self.0.send(descriptor));
    }
}

/// What was read from a socket that may carry descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// Bytes.
    pub(crate) bytes: usize,
    /// Descriptors that came with them and are gone already. At least one is said when the kernel could not hand over all.
    pub(crate) descriptors: usize,
}

/// Receives in a way that descriptors cannot hold up, and sees to the end of the socket in the same way.
#[derive(Debug)]
pub(super) struct Guard {
    reaper: Reaper,
    /// The last reference to the socket, while the socket itself is being closed.
    last: RefCell<Option<OwnedFd>>,
}

impl Guard {
    pub(super) fn new(reaper: Reaper) -> Self {
        Self { reaper, last: RefCell::new(None) }
    }

    /// Reads once.
    pub(super) fn receive(&self, socket: impl AsFd, buffer: &mut [u8]) -> Result<Received, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = rustix::io::retry_on_intr(|| {
            let mut into = [IoSliceMut::new(buffer)];
            rustix::net::recvmsg(&socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)
        })?;
        let mut descriptors = usize::from(message.flags.contains(ReturnFlags::CTRUNC));
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                for descriptor in rights {
                    descriptors += 1;
                    self.reaper.close(descriptor);
                }
            }
        }
        Ok(Received { bytes: message.bytes, descriptors })
    }

    /// The socket is about to be closed. Its last reference is kept until after that, and closed by the thread.
    pub(super) fn outlive(&self, socket: impl AsFd) {
        // Out of descriptors, the socket is closed where it is: late for everybody, but not wrong.
        *self.last.borrow_mut() = rustix::io::fcntl_dupfd_cloexec(socket, 3).ok();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(last) = self.last.take() {
            self.reaper.close(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    use std::io::{IoSlice, Write};
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    #[test]
    fn descriptors_are_counted_and_closed_elsewhere() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (sent, left) = UnixStream::pair().unwrap();
        let descriptors = [sent.as_fd(), sent.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let parts = [IoSlice::new(b"with")];
        rustix::net::sendmsg(&theirs, &parts, &mut control, SendFlags::empty()).unwrap();
        drop(sent);
        theirs.write_all(b"without").unwrap();

        let guard = Guard::new(Reaper::start().unwrap());
        let ours = OwnedFd::from(ours);
        let mut buffer = [0; 64];
        assert_eq!(guard.receive(&ours, &mut buffer), Ok(Received { bytes: 4, descriptors: 2 }));
        assert_eq!(guard.receive(&ours, &mut buffer), Ok(Received { bytes: 7, descriptors: 0 }));
        let ten_seconds = Timespec { tv_sec: 10, tv_nsec: 0 };
        let closed = poll(&mut [PollFd::new(&left, PollFlags::RDHUP)], Some(&ten_seconds));
        assert_eq!(closed, Ok(1), "the descriptors were not closed");
    }

    #[test]
    fn the_socket_itself_is_closed_elsewhere() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let guard = Guard::new(Reaper::start().unwrap());
        guard.outlive(&ours);
        drop(ours);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let hung_up = |wait: &Timespec| poll(&mut [PollFd::new(&theirs, PollFlags::RDHUP)], Some(wait));
        assert_eq!(hung_up(&at_once), Ok(0));
        drop(guard);
        assert_eq!(hung_up(&Timespec { tv_sec: 10, tv_nsec: 0 }), Ok(1));
    }

    /// A TCP socket that takes its two seconds to be closed, because nobody reads what was sent over it; and who does not.
    fn lingering() -> (OwnedFd, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (reader, _) = listener.accept().unwrap();
        rustix::net::sockopt::set_socket_linger(&sender, Some(Duration::from_secs(2))).unwrap();
        sender.set_nonblocking(true).unwrap();
        while (&sender).write(&[7; 65_536]).is_ok() {}
        (sender.into(), reader)
    }

    fn time_of(what: impl FnOnce()) -> Duration {
        let begun = Instant::now();
        what();
        begun.elapsed()
    }

    /// Sends a descriptor that is closed nowhere else then.
    fn send_away(over: &UnixStream, descriptor: OwnedFd) {
        let descriptors = [descriptor.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        rustix::net::sendmsg(over, &[IoSlice::new(b"!")], &mut control, SendFlags::empty()).unwrap();
    }

    #[test]
    fn a_descriptor_whose_close_blocks_holds_up_nobody() {
        let (doomed, _reader) = lingering();
        assert!(time_of(|| drop(doomed)) >= Duration::from_secs(1), "closing it does not block");
        let reaper = Reaper::start().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let ours = OwnedFd::from(ours);
        let (received, _reader) = lingering();
        send_away(&theirs, received);
        let (unread, _reader) = lingering();
        let guard = Guard::new(reaper.clone());
        let took = time_of(|| {
            let received = guard.receive(&ours, &mut [0; 8]).unwrap();
            assert_eq!(received, Received { bytes: 1, descriptors: 1 });
            send_away(&theirs, unread);
            guard.outlive(&ours);
            drop(ours);
            drop(guard);
        });
        assert!(took < Duration::from_millis(900), "it was waited for: {took:?}");
    }
}
