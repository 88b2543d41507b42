//! Closing descriptors that a peer has sent, away from the bus.
//!
//! A descriptor can be made so that closing it takes its sender's own good time: a TCP socket that lingers over unsent data
//! does, and so does a socket in whose queue such a one still waits. Kernels from 6.16 on keep descriptors out
//! altogether (`SO_PASSRIGHTS`); on older ones they are received, and closed here: those of each user one after the other, so
//! that whoever sends such descriptors waits for them alone.
//!
//! Of each user only so many wait. Past that none is taken in: they stay with the socket, where the kernel counts them as the
//! sender's own. A connection that has sent one is closed with it, as it would be anyway; a datagram stays the next one until there
//! is room, and those behind it wait too.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use rustix::io::{Errno, IoSliceMut};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, Shutdown};

/// Most descriptors that the kernel lets through at a time.
const DESCRIPTORS_MAX: usize = 253;
/// Most threads that close descriptors of one socket's peers; each may be held up by another user.
const THREADS_MAX: usize = 16;

/// Threads that close what they are given; clones are handles to the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Reaper(Arc<Handle>);

/// Has the threads end when the last of the handles is gone.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    threads_max: usize,
}

#[derive(Debug, Default)]
struct Shared {
    work: Mutex<Work>,
    is_more: Condvar,
    /// Descriptors that wait, of all users: while that is no more than one may have, nobody has to be asked.
    waiting: AtomicUsize,
    /// Most that wait of one user.
    waiting_max: AtomicUsize,
}

#[derive(Debug, Default)]
struct Work {
    /// What is to be closed, by whose it was. An empty line is one of which the last is being closed.
    lines: BTreeMap<u32, VecDeque<OwnedFd>>,
    /// Those of whom nothing is being closed, in order of their coming.
    ready: VecDeque<u32>,
    threads: usize,
    /// Threads that wait for work.
    idle: usize,
    is_over: bool,
    /// Who waits for room.
    waker: Option<Waker>,
}

impl Work {
    fn waiting(&self, uid: u32) -> usize {
        self.lines.get(&uid).map_or(0, VecDeque::len)
    }
}

impl Shared {
    fn work(&self) -> MutexGuard<'_, Work> {
        // Nobody panics while it has it; if somebody did, what is there is as good as before.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes one after the other until there is nothing to come any more.
    fn serve(&self) {
        let mut work = self.work();
        loop {
            let Some(uid) = work.ready.pop_front() else {
                if work.is_over {
                    return;
                }
                work.idle += 1;
                work = self.is_more.wait(work).unwrap_or_else(PoisonError::into_inner);
                work.idle -= 1;
                continue;
            };
            let doomed = work.lines.get_mut(&uid).and_then(VecDeque::pop_front);
            self.waiting.fetch_sub(usize::from(doomed.is_some()), Ordering::Relaxed);
            if let Some(waker) = work.waker.take() {
                waker.wake();
            }
            drop(work);
            // This is what may take its time.
            drop(doomed);
            work = self.work();
            match work.lines.get(&uid) {
                Some(line) if !line.is_empty() => work.ready.push_back(uid),
                Some(_) | None => drop(work.lines.remove(&uid)),
            }
        }
    }
}

impl Reaper {
    /// Starts a thread, and others when those that there are are held up. They end when the last handle is gone. At most
    /// `waiting_max` descriptors of one user wait.
    ///
    /// # Errors
    /// When there is no room for another thread.
    pub(crate) fn start(waiting_max: u32) -> io::Result<Self> {
        Self::with_threads(THREADS_MAX, waiting_max)
    }

    fn with_threads(threads_max: usize, waiting_max: u32) -> io::Result<Self> {
        let reaper = Self::without_threads(threads_max, waiting_max);
        reaper.0.start_thread()?;
        reaper.0.shared.work().threads = 1;
        Ok(reaper)
    }

    fn without_threads(threads_max: usize, waiting_max: u32) -> Self {
        let reaper = Self(Arc::new(Handle { shared: Arc::default(), threads_max }));
        reaper.set_waiting_max(waiting_max);
        reaper
    }

    /// One that closes nothing, so that what it is given stays.
    #[cfg(test)]
    pub(crate) fn idle(waiting_max: u32) -> Self {
        Self::without_threads(0, waiting_max)
    }

    /// So many descriptors of one user wait at most from here on.
    pub(crate) fn set_waiting_max(&self, max: u32) {
        self.0.shared.waiting_max.store(max as usize, Ordering::Relaxed);
        // Whoever waits for room may have it.
        if let Some(waker) = self.0.shared.work().waker.take() {
            waker.wake();
        }
    }

    /// Whether there may be users of whom as many wait as may.
    pub(crate) fn is_crowded(&self) -> bool {
        let shared = &self.0.shared;
        shared.waiting.load(Ordering::Relaxed) >= shared.waiting_max.load(Ordering::Relaxed)
    }

    /// Whether descriptors of that user are taken in.
    pub(crate) fn has_room(&self, uid: u32) -> bool {
        let shared = &self.0.shared;
        !self.is_crowded() || shared.work().waiting(uid) < shared.waiting_max.load(Ordering::Relaxed)
    }

    /// Completes when descriptors of that user are taken in again. One waits at a time. Cancel safe.
    pub(crate) async fn room_for(&self, uid: u32) {
        poll_fn(|context| {
            // Before the look: what is closed after it wakes.
            self.0.shared.work().waker = Some(context.waker().clone());
            if self.has_room(uid) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Closes a descriptor that came from that user, some time.
    pub(crate) fn close(&self, uid: u32, descriptor: OwnedFd) {
        let Handle { shared, threads_max } = &*self.0;
        let mut work = shared.work();
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        if let Some(line) = work.lines.get_mut(&uid) {
            return line.push_back(descriptor);
        }
        work.lines.insert(uid, VecDeque::from([descriptor]));
        work.ready.push_back(uid);
        let is_short = work.idle < work.ready.len() && work.threads < *threads_max;
        work.threads += usize::from(is_short);
        drop(work);
        shared.is_more.notify_one();
        // Without room for another it is the turn of this one later.
        if is_short && self.0.start_thread().is_err() {
            shared.work().threads -= 1;
        }
    }
}

impl Handle {
    fn start_thread(&self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        std::thread::Builder::new().name("reaper".to_owned()).spawn(move || shared.serve()).map(drop)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.work().is_over = true;
        self.shared.is_more.notify_all();
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
    /// Whose descriptors they are.
    uid: u32,
    /// The last reference to the socket, while the socket itself is being closed.
    last: RefCell<Option<OwnedFd>>,
}

impl Guard {
    /// The guard of a socket from here on.
    pub(super) fn of(socket: impl AsFd, reaper: Reaper, uid: u32) -> Self {
        // What is sent out of band comes like everything else then, where it is seen; otherwise it would be skipped, and the
        // descriptors with it closed by the kernel at once. A kernel that does not know it for such sockets has nothing of it.
        let _unknown = rustix::net::sockopt::set_socket_oobinline(socket, true);
        Self::new(reaper, uid)
    }

    fn new(reaper: Reaper, uid: u32) -> Self {
        Self { reaper, uid, last: RefCell::new(None) }
    }

    /// Reads once. While too many of its descriptors wait, more are not taken in, and one is said to have come.
    pub(super) fn receive(&self, socket: impl AsFd, mut buffer: &mut [u8]) -> Result<Received, Errno> {
        if !self.reaper.has_room(self.uid) {
            let seen = peek(&socket, buffer)?;
            if seen.descriptors > 0 {
                return Ok(seen);
            }
            // No more than was seen: what has come since may have descriptors.
            buffer = &mut buffer[..seen.bytes];
        }
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
                    self.reaper.close(self.uid, descriptor);
                }
            }
        }
        Ok(Received { bytes: message.bytes, descriptors })
    }

    /// The socket is about to be closed. If there is anything in it that was not read, descriptors may be with it: its last
    /// reference is kept until after that then, and closed by the thread.
    pub(super) fn outlive(&self, socket: impl AsFd) {
        // Nothing more comes in. Of a socket whose other end is gone there is nothing to shut down.
        let _is_gone = rustix::net::shutdown(&socket, Shutdown::Read);
        if rustix::io::ioctl_fionread(&socket) == Ok(0) {
            return;
        }
        // Out of descriptors, the socket is closed where it is: late for everybody, but not wrong.
        *self.last.borrow_mut() = rustix::io::fcntl_dupfd_cloexec(socket, 3).ok();
    }
}

/// What a read would give now. Everything stays where it is.
fn peek(socket: impl AsFd, buffer: &mut [u8]) -> Result<Received, Errno> {
    let message = rustix::io::retry_on_intr(|| {
        let mut into = [IoSliceMut::new(buffer)];
        let mut none = RecvAncillaryBuffer::default();
        rustix::net::recvmsg(&socket, &mut into, &mut none, RecvFlags::PEEK | RecvFlags::CMSG_CLOEXEC)
    })?;
    // There is no room for them, so the kernel says that some are missing.
    let descriptors = usize::from(message.flags.contains(ReturnFlags::CTRUNC));
    Ok(Received { bytes: message.bytes, descriptors })
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(last) = self.last.take() {
            self.reaper.close(self.uid, last);
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

        let guard = Guard::new(Reaper::start(1024).unwrap(), 1);
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
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let guard = Guard::new(Reaper::start(1024).unwrap(), 1);
        theirs.write_all(b"unread").unwrap();
        guard.outlive(&ours);
        drop(ours);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let hung_up = |wait: &Timespec| poll(&mut [PollFd::new(&theirs, PollFlags::RDHUP)], Some(wait));
        assert_eq!(hung_up(&at_once), Ok(0));
        drop(guard);
        assert_eq!(hung_up(&Timespec { tv_sec: 10, tv_nsec: 0 }), Ok(1));
    }

    #[test]
    fn a_socket_in_which_nothing_is_left_takes_no_place_in_the_line() {
        let reaper = Reaper::idle(1);
        for is_left_behind in [false, true] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let guard = Guard::new(reaper.clone(), 1);
            if is_left_behind {
                theirs.write_all(b"unread").unwrap();
            }
            guard.outlive(&ours);
            assert!(theirs.write_all(b"more").is_err(), "what comes now would not be seen");
            drop((ours, guard));
            assert_eq!(reaper.has_room(1), !is_left_behind);
        }
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
    fn descriptors_that_come_out_of_band_are_seen_too() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let guard = Guard::of(&ours, Reaper::idle(1024), 1);
        let (sent, _left) = watched();
        let descriptors = [sent.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let parts = [IoSlice::new(b"!")];
        match rustix::net::sendmsg(&theirs, &parts, &mut control, SendFlags::OOB) {
            // A kernel without it keeps them out.
            Err(Errno::OPNOTSUPP) => return,
            sent => assert_eq!(sent, Ok(1)),
        }
        theirs.write_all(b"more").unwrap();
        let received = guard.receive(&ours, &mut [0; 64]);
        assert_eq!(received.map(|received| received.descriptors), Ok(1));
    }

    #[test]
    fn a_descriptor_whose_close_blocks_holds_up_nobody() {
        let (doomed, _reader) = lingering();
        assert!(time_of(|| drop(doomed)) >= Duration::from_secs(1), "closing it does not block");
        let reaper = Reaper::start(1024).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let ours = OwnedFd::from(ours);
        let (received, _reader) = lingering();
        send_away(&theirs, received);
        let (unread, _reader) = lingering();
        let guard = Guard::new(reaper.clone(), 1);
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

    /// A descriptor, and the end of it that hears when it is closed.
    fn watched() -> (OwnedFd, UnixStream) {
        let (doomed, left) = UnixStream::pair().unwrap();
        (doomed.into(), left)
    }

    fn is_closed_within(left: &UnixStream, seconds: i64) -> bool {
        let wait = Timespec { tv_sec: seconds, tv_nsec: 0 };
        poll(&mut [PollFd::new(left, PollFlags::RDHUP)], Some(&wait)) == Ok(1)
    }

    #[test]
    fn whoever_sends_such_descriptors_holds_up_nobody_else() {
        let reaper = Reaper::with_threads(2, 1024).unwrap();
        let (slow, _reader) = lingering();
        reaper.close(1, slow);
        let (own, own_left) = watched();
        reaper.close(1, own);
        let begun = Instant::now();
        for uid in 2..10 {
            let (other, left) = watched();
            reaper.close(uid, other);
            assert!(is_closed_within(&left, 1), "user {uid} waits");
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert!(!is_closed_within(&own_left, 0), "one after the other");
        assert!(is_closed_within(&own_left, 10));
    }

    #[test]
    fn threads_are_bounded_and_what_waits_has_its_turn() {
        let reaper = Reaper::with_threads(2, 1024).unwrap();
        let readers: Vec<_> = (0..2)
            .map(|uid| {
                let (slow, reader) = lingering();
                reaper.close(uid, slow);
                reader
            })
            .collect();
        let (other, left) = watched();
        reaper.close(2, other);
        assert!(!is_closed_within(&left, 0));
        assert!(reaper.0.shared.work().threads <= 2);
        assert!(is_closed_within(&left, 10), "its turn does not come");
        drop(readers);
        let shared = Arc::clone(&reaper.0.shared);
        drop(reaper);
        let begun = Instant::now();
        while Arc::strong_count(&shared) > 1 && begun.elapsed() < Duration::from_secs(10) {
            std::thread::yield_now();
        }
        assert_eq!(Arc::strong_count(&shared), 1, "the threads end with the last handle");
    }

    #[test]
    fn past_the_limit_a_connection_is_closed_with_what_it_has_sent() {
        let reaper = Reaper::idle(3);
        let waiting = |uid| reaper.0.shared.work().waiting(uid);
        let pair = || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            (OwnedFd::from(ours), theirs)
        };
        let (ours, theirs) = pair();
        let guard = Guard::new(reaper.clone(), 1);
        let one = Ok(Received { bytes: 1, descriptors: 1 });
        for (number, taken_in) in [(1, 1), (2, 2), (3, 3), (4, 3), (5, 3)] {
            send_away(&theirs, watched().0);
            assert_eq!(guard.receive(&ours, &mut [0; 8]), one, "{number}");
            assert_eq!(waiting(1), taken_in, "{number}");
        }
        // Others of the same user are read as long as they send none, and other users always.
        let (others, mut other) = pair();
        let other_guard = Guard::new(reaper.clone(), 1);
        other.write_all(b"words").unwrap();
        let words = Ok(Received { bytes: 5, descriptors: 0 });
        assert_eq!(other_guard.receive(&others, &mut [0; 8]), words);
        send_away(&other, watched().0);
        assert_eq!(other_guard.receive(&others, &mut [0; 8]), one);
        let (strangers, stranger) = pair();
        send_away(&stranger, watched().0);
        assert_eq!(Guard::new(reaper.clone(), 2).receive(&strangers, &mut [0; 8]), one);
        assert_eq!((waiting(1), waiting(2)), (3, 1));
        // With more room it goes on.
        reaper.set_waiting_max(4);
        assert_eq!(guard.receive(&ours, &mut [0; 8]), one);
        assert_eq!(waiting(1), 4);
    }

    #[test]
    fn the_end_of_a_connection_is_read_while_too_many_wait() {
        let reaper = Reaper::idle(1);
        reaper.close(1, watched().0);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let ours = OwnedFd::from(ours);
        rustix::io::ioctl_fionbio(&ours, true).unwrap();
        let guard = Guard::new(reaper, 1);
        assert_eq!(guard.receive(&ours, &mut [0; 8]), Err(Errno::AGAIN));
        drop(theirs);
        assert_eq!(guard.receive(&ours, &mut [0; 8]), Ok(Received { bytes: 0, descriptors: 0 }));
    }

    #[test]
    fn whoever_waits_for_room_is_woken() {
        let reaper = Reaper::with_threads(1, 1).unwrap();
        let (slow, _reader) = lingering();
        reaper.close(1, slow);
        reaper.close(1, watched().0);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let took = time_of(|| runtime.block_on(reaper.room_for(1)));
        assert!(took < Duration::from_secs(30), "{took:?}");
        assert!(reaper.has_room(1));
        // And when there is to be more room.
        let crowded = Reaper::idle(1);
        crowded.close(1, watched().0);
        let raise = async {
            tokio::task::yield_now().await;
            crowded.set_waiting_max(2);
        };
        let both = async { tokio::join!(crowded.room_for(1), raise) };
        let took = time_of(|| {
            runtime.block_on(both);
        });
        assert!(took < Duration::from_secs(30), "{took:?}");
    }
}
