//! One connection over a kernel socket: from bytes to the broker's turns, until it ends.
//!
//! Reading goes into one buffer that all connections share, except for the rest of a large frame, which is read to
//! where it will stay. A read that returns less than was asked for has emptied the socket, so the call that would say so
//! is saved. What becomes due to this peer is written by whoever caused it; this task writes only after the kernel
//! had no more room.

use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use ipc_core::transport::unix;
use ipc_core::wire::{Decoder, WireError};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::time::Timespec;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::greeting::Stranger;
use crate::broker::{PeerKey, Room};
use crate::bus::link::Link;
use crate::bus::{Bus, Tally};
use crate::net::readable::watch;

/// Bytes one connection may bring in before others have their turn.
const READ_BUDGET_BYTES: usize = 256 * 1024;
/// How much is read at the beginning of what may be another large frame, the rest of which goes where it will stay.
const BULK_START_BYTES: usize = 16 * 1024;
/// Time for a peer to take its last frames.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The broker has said its last to this peer.
    Closed,
    /// The peer has gone, or its socket has failed.
    Gone,
    /// The peer spoke something else and was told so.
    Stranger,
}

/// What one read has brought.
enum Read {
    /// None was made: it is not this connection's turn, and its task is woken when it is.
    NotYet,
    /// Bytes, which have been dealt with.
    Bytes(usize),
    /// None for the time being.
    Nothing,
    /// The peer will send nothing more.
    EndOfInput,
    /// The end.
    End(End),
}

/// A connection. It owns no buffer between frames.
pub(crate) struct Connection {
    bus: Bus,
    key: PeerKey,
    link: Rc<Link>,
    /// The link, watched for what this connection waits for.
    watched: Option<AsyncFd<Rc<Link>>>,
    watched_for: Interest,
    /// The process that opened the other end, watched once it holds something that ends with it.
    process: Option<Box<AsyncFd<OwnedFd>>>,
    /// Whether the peer may still send.
    has_input: bool,
    /// Whether a read makes sense before the runtime has said so.
    is_fresh: bool,
    /// Whether nothing has come yet.
    is_silent: bool,
    /// Whether the decoder has the limits of a peer that has said hello.
    is_greeted: bool,
    /// Whether the last frame was a large one.
    is_bulky: bool,
    decoder: Decoder,
}

impl Connection {
    /// The task of peer `key` over `link`.
    pub(crate) fn new(bus: Bus, key: PeerKey, link: Rc<Link>) -> Self {
        let decoder = Decoder::after_preamble(bus.look(|broker| broker.frame_limits(key)));
        Self {
            bus,
            key,
            link,
            watched: None,
            watched_for: Interest::READABLE,
            process: None,
            has_input: true,
            // The hello is often there before the connection is accepted.
            is_fresh: true,
            is_silent: true,
            is_greeted: false,
            is_bulky: false,
            decoder,
        }
    }

    /// Serves the connection until it ends.
    pub(crate) async fn run(mut self) {
        let end = poll_fn(|context| self.poll(context)).await;
        if end == End::Closed && self.bus.has_pending(self.key) {
            // Rare, and not worth its size in the future of every connection.
            Box::pin(self.write_rest()).await;
        }
        self.bus.disconnect(self.key);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        self.link.attend(context.waker());
        let mut budget = READ_BUDGET_BYTES;
        loop {
            if self.link.is_closing() {
                return Poll::Ready(End::Closed);
            }
            if self.link.is_broken() {
                return Poll::Ready(End::Gone);
            }
            self.mind_process(context);
            if self.link.is_blocked() || self.watched_for.is_writable() {
                match self.poll_unblock(context) {
                    // The peer may send while it does not read.
                    Poll::Ready(Ok(())) | Poll::Pending => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
                }
            }
            match ready!(self.poll_read(context)) {
                Read::End(end) => return Poll::Ready(end),
                Read::NotYet => return Poll::Pending,
                Read::Nothing => {}
                Read::EndOfInput if self.has_hung_up() => return Poll::Ready(End::Gone),
                Read::EndOfInput => {
                    self.has_input = false;
                    self.bus.turn(|broker, _| broker.handle_eof(self.key));
                }
                Read::Bytes(count) => {
                    budget = budget.saturating_sub(count);
                    if budget == 0 {
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Watches the process that opened the other end, if that is asked for, and tells the broker when it has ended.
    fn mind_process(&mut self, context: &mut Context<'_>) {
        if self.link.take_process_watch() {
            // Without it, on an older kernel or with a full file table, the end of the connection decides alone.
            let process = unix::peer_process(self.link.socket()).ok();
            self.process = process.and_then(|process| watch(process, Interest::READABLE).ok()).map(Box::new);
        }
        if let Some(process) = &self.process
            && process.poll_read_ready(context).is_ready()
        {
            self.process = None;
            self.bus.turn(|broker, _| broker.handle_process_end(self.key));
        }
    }

    /// Waits until the kernel takes more, and writes until all that is due is written.
    fn poll_unblock(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.link.is_blocked() {
            self.rewatch(true)?;
            let Some(watched) = &self.watched else { return Poll::Ready(Ok(())) };
            let mut guard = ready!(watched.poll_write_ready(context))?;
            self.link.unblock();
            self.bus.resume(self.key);
            if self.link.is_blocked() {
                guard.clear_ready();
            }
        }
        self.rewatch(false)?;
        Poll::Ready(Ok(()))
    }

    /// Has the runtime watch the socket for input, and for room to write if that is waited for.
    fn rewatch(&mut self, for_writing: bool) -> io::Result<()> {
        // After the input has ended only the hang-up is of interest, which the kernel reports with any interest; the
        // end of the input would be reported again and again.
        let reading = if self.has_input { Interest::READABLE } else { Interest::PRIORITY };
        let interest = if for_writing { reading.add(Interest::WRITABLE) } else { reading };
        if self.watched.is_some() && self.watched_for == interest {
            return Ok(());
        }
        // First out, then in again: the kernel reports anew what is there, so nothing is missed.
        self.watched = None;
        self.watched = Some(watch(Rc::clone(&self.link), interest)?);
        self.watched_for = interest;
        Ok(())
    }

    /// Whether the peer has closed both directions: nobody will read what is written.
    fn has_hung_up(&self) -> bool {
        let mut poll = [PollFd::new(self.link.socket(), PollFlags::empty())];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match rustix::event::poll(&mut poll, Some(&at_once)) {
            Ok(_) => poll[0].revents().contains(PollFlags::HUP),
            Err(_) => false,
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Read> {
        let looks = self.link.take_look() && self.has_input;
        if core::mem::take(&mut self.is_fresh) || looks {
            let (read, _) = self.read_in_turn();
            if !matches!(read, Read::Nothing) {
                return Poll::Ready(read);
            }
        }
        if self.rewatch(self.link.is_blocked()).is_err() {
            return Poll::Ready(Read::End(End::Gone));
        }
        // Taken out, because the guard borrows it while the rest of the connection reads.
        let Some(watched) = self.watched.take() else { return Poll::Ready(Read::End(End::Gone)) };
        let read = match watched.poll_read_ready(context) {
            Poll::Pending => None,
            Poll::Ready(Err(_)) => Some(Read::End(End::Gone)),
            Poll::Ready(Ok(_)) if !self.has_input => Some(Read::End(End::Gone)),
            Poll::Ready(Ok(mut guard)) => {
                let (read, is_empty) = self.read_in_turn();
                if is_empty {
                    guard.clear_ready();
                }
                Some(read)
            }
        };
        self.watched = Some(watched);
        read.map_or(Poll::Pending, Poll::Ready)
    }

    /// Reads once, if it is this connection's turn.
    fn read_in_turn(&mut self) -> (Read, bool) {
        let Room::Some { bytes, bulk_bytes } = self.bus.ask_turn(self.key) else {
            return (Read::NotYet, false);
        };
        let (read, is_empty) = self.read(bytes, bulk_bytes);
        self.bus.took_turn(self.key, if let Read::Bytes(count) = read { count } else { 0 });
        (read, is_empty)
    }

    /// Reads once, at most so many bytes, and deals with it. Says also whether the socket is known to be empty.
    fn read(&mut self, max_bytes: usize, bulk_max_bytes: usize) -> (Read, bool) {
        if let Some(bytes) = self.decoder.wants_bytes()
            && let Some(buffer) = self.bus.spare_buffer(bytes)
        {
            self.decoder.lend(buffer);
        }
        match self.decoder.direct() {
            Some((buffer, room)) if !self.link.is_guarded() => {
                self.is_bulky = true;
                let room = room.min(bulk_max_bytes);
                let result = read_into(&self.link, buffer, room);
                let handled = result.map_or(Ok(()), |bytes| self.receive(&[], bytes));
                (Self::outcome(result, handled), result != Ok(room))
            }
            _ => {
                let bus = self.bus.clone();
                let mut scratch = bus.scratch().borrow_mut();
                let room = if self.is_bulky { BULK_START_BYTES } else { scratch.len() }.min(max_bytes);
                let scratch = &mut scratch[..room];
                let result = self.link.receive(scratch);
                // Whatever has come, only the next direct read tells that it is large.
                self.is_bulky &= result.is_err();
                let handled = match result {
                    Ok(received) if received.descriptors > 0 => self.refuse_descriptors(received.descriptors),
                    Ok(received) if received.bytes > 0 => {
                        self.receive(&scratch[..received.bytes], received.bytes)
                    }
                    Ok(_) | Err(_) => Ok(()),
                };
                let is_full = result.is_ok_and(|received| received.bytes == room);
                // A read also ends behind bytes that came with descriptors.
                let is_cut = result.is_ok_and(|received| received.descriptors > 0);
                (Self::outcome(result.map(|received| received.bytes), handled), !is_full && !is_cut)
            }
        }
    }

    fn outcome(result: Result<usize, Errno>, handled: Result<(), End>) -> Read {
        match (result, handled) {
            (Ok(_), Err(end)) => Read::End(end),
            (Ok(0), Ok(())) => Read::EndOfInput,
            (Ok(count), Ok(())) => Read::Bytes(count),
            (Err(Errno::AGAIN), _) => Read::Nothing,
            (Err(_), _) => Read::End(End::Gone),
        }
    }

    /// Nobody has agreed to take descriptors.
    fn refuse_descriptors(&self, count: usize) -> Result<(), End> {
        let error = WireError::UnexpectedDescriptors(u8::try_from(count).unwrap_or(u8::MAX));
        self.bus.turn(|broker, _| broker.handle_violation(self.key, error));
        Ok(())
    }

    /// Hands what was read to the broker, frame by frame, as one batch: `bytes` in all, of which those that were not read to
    /// where they stay are the `input`.
    fn receive(&mut self, input: &[u8], bytes: usize) -> Result<(), End> {
        let Self { bus, key, decoder, is_silent, is_greeted, .. } = self;
        let mut rest = input;
        let stranger = bus.batch(bytes, |broker, now| {
            if core::mem::take(is_silent) {
                broker.handle_first_bytes(*key);
            }
            let stranger = loop {
                let before = rest;
                match decoder.next(&mut rest) {
                    Ok(Some(frame)) => broker.handle_frame_of_batch(now, *key, frame),
                    Ok(None) => break None,
                    Err(WireError::Preamble) => {
                        let stranger = Stranger::recognise(before);
                        if stranger == Stranger::Binary {
                            broker.handle_violation(*key, WireError::Preamble);
                        }
                        break Some(stranger);
                    }
                    Err(error) => {
                        broker.handle_violation(*key, error);
                        break None;
                    }
                }
                if !*is_greeted {
                    let limits = broker.frame_limits(*key);
                    decoder.set_limits(limits);
                    *is_greeted = limits.frame_max_bytes.is_none();
                }
            };
            broker.note_receiving(*key, decoder.held_bytes());
            stranger
        });
        match stranger {
            None => Ok(()),
            Some(stranger) => self.answer(stranger),
        }
    }

    fn answer(&self, stranger: Stranger) -> Result<(), End> {
        Tally::add(&self.bus.tally().refused_protocol);
        let Some(answer) = stranger.answer() else { return Ok(()) };
        // A courtesy: whoever does not take it gets none.
        let _ = rustix::net::send(self.link.socket(), answer.as_bytes(), SendFlags::NOSIGNAL);
        Err(End::Stranger)
    }

    /// Writes what is still due to the peer, as long as it takes it in time.
    async fn write_rest(&mut self) {
        let rest = poll_fn(|context| {
            if self.link.is_broken() || !self.bus.has_pending(self.key) {
                return Poll::Ready(());
            }
            self.poll_unblock(context).map(|_| ())
        });
        // When the time is up the rest is lost with the connection: the peer had its chance.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, rest).await;
    }
}

/// Reads at most `room` bytes to the end of `buffer`, which has room for them.
fn read_into(link: &Link, buffer: &mut Vec<u8>, room: usize) -> Result<usize, Errno> {
    rustix::io::retry_on_intr(|| unix::receive_onto(link.socket(), buffer, room, RecvFlags::empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Broker, Config, Policy, Transport};
    use crate::bus::timer::Timer;
    use ipc_core::id::Epoch;
    use ipc_core::identity::Identity;
    use ipc_core::limits::Limits;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_connection_costs_little_memory_while_it_is_idle() {
        let config = Config {
            limits: Limits::default(),
            policy: Policy::open(Vec::new()),
            epoch: Epoch(1),
            server: String::new(),
        };
        let bus = Bus::new(Broker::new(config), Rc::new(Timer::new().unwrap()));
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let link = Rc::new(Link::new(ours.into(), None));
        let identity = Identity::Local { uid: 0, gid: 0, pid: 1 };
        let key = bus.connect_socket(identity, Vec::new(), Transport::UnixStream, Rc::clone(&link)).unwrap();
        let future = Connection::new(bus, key, link).run();
        assert!(size_of_val(&future) <= 512, "{} bytes", size_of_val(&future));
    }

    #[test]
    fn a_direct_read_never_goes_past_its_frame() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let link = Link::new(ours.into(), None);
        rustix::io::write(&theirs, &[7; 100]).unwrap();
        for (capacity, room) in [(10, 10), (64, 30), (60, 60)] {
            let mut buffer = Vec::with_capacity(capacity);
            assert_eq!(read_into(&link, &mut buffer, room), Ok(room));
            assert_eq!(buffer, vec![7; room]);
        }
        assert_eq!(rustix::net::shutdown(&theirs, rustix::net::Shutdown::Write), Ok(()));
        assert_eq!(read_into(&link, &mut Vec::with_capacity(64), 30), Ok(0));
    }
}
