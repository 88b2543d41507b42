//! SHELL. The epoll relay: one thread, one scratch buffer, one write for each touched destination and round.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::args::{Options, Role};
use crate::control;
use crate::failure::{Failure, at};
use crate::message::{MESSAGE, READ_MAX, front_of, set_front};

/// A subscriber this far behind stops the publisher.
const FANOUT_BACKLOG_MAX: usize = 1 << 20;
/// A stream is stopped by the first byte that the kernel does not take: reading on would only copy more.
const STREAM_BACKLOG_MAX: usize = 1;

const EVENTS_PER_ROUND: usize = 256;
const CONTROL: u64 = 0;
const LISTENER: u64 = 1;
const FIRST_SLOT: u64 = 2;

/// Ends when the measuring process closes standard input, or, fanning out, when all events are delivered.
pub(crate) fn run(role: Role, directory: &Path, options: &Options) -> Result<(), Failure> {
    let back_listener = control::bind_back(directory)?;
    let front_listener = control::bind_front(directory)?;
    control::say_ready()?;
    let mut relay = Relay::new(role, front_listener)?;
    // Backs first and all of them: an event must not find a subscriber that has not been accepted yet.
    let backs = if role == Role::RelayFanout { options.subscribers } else { 1 };
    for _ in 0..backs {
        let (stream, _) = back_listener.accept().map_err(at("accept a back"))?;
        relay.add(stream, Side::Back)?;
    }
    drop(back_listener);
    relay.watch_fronts()?;
    relay.turn()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Front,
    Back,
}

struct Connection {
    stream: UnixStream,
    side: Side,
    interest: EpollFlags,
    /// The first part of a message whose rest has not come yet.
    partial: Vec<u8>,
    /// What the kernel has not taken yet: `pending[written..]`. Bounded by the callers' windows or by the backlog.
    pending: Vec<u8>,
    written: usize,
    touched: bool,
}

impl Connection {
    fn backlog(&self) -> usize {
        self.pending.len() - self.written
    }

    /// One write of what is pending.
    fn flush(&mut self) -> Result<(), Failure> {
        let bytes = self.pending.get(self.written..).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        self.written += write_some(&self.stream, bytes)?;
        if self.written == self.pending.len() {
            self.pending.clear();
            self.written = 0;
        } else if self.written > self.pending.len() / 2 {
            self.pending.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }

    /// Writes without a copy while nothing is pending, and keeps what the kernel does not take.
    fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let taken = if self.pending.is_empty() { write_some(&self.stream, bytes)? } else { 0 };
        self.pending.extend_from_slice(bytes.get(taken..).unwrap_or_default());
        Ok(())
    }
}

/// One write; 0 when the kernel's buffer is full.
fn write_some(mut stream: &UnixStream, bytes: &[u8]) -> Result<usize, Failure> {
    match stream.write(bytes) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        result => result.map_err(at("write to an end")),
    }
}

struct Relay {
    role: Role,
    epoll: Epoll,
    listener: UnixListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    backs: Vec<usize>,
    touched: Vec<usize>,
    /// Fronts are not read, because a back is too far behind.
    paused: bool,
    /// The publisher has left and the subscribers get the rest.
    finishing: bool,
}

impl Relay {
    fn new(role: Role, listener: UnixListener) -> Result<Self, Failure> {
        listener.set_nonblocking(true).map_err(at("make the listener non-blocking"))?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(at("create an epoll"))?;
        epoll
            .add(std::io::stdin(), EpollEvent::new(EpollFlags::EPOLLIN, CONTROL))
            .map_err(at("watch standard input (it must be a pipe)"))?;
        Ok(Self {
            role,
            epoll,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            backs: Vec::new(),
            touched: Vec::new(),
            paused: false,
            finishing: false,
        })
    }

    fn watch_fronts(&self) -> Result<(), Failure> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
        self.epoll.add(&self.listener, event).map_err(at("watch the listener"))
    }

    fn turn(&mut self) -> Result<(), Failure> {
        let mut scratch = vec![0; READ_MAX];
        let mut events = [EpollEvent::empty(); EVENTS_PER_ROUND];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result.map_err(at("wait for connections"))?,
            };
            for event in events.iter().take(count) {
                match event.data() {
                    CONTROL => return Ok(()),
                    LISTENER => self.accept()?,
                    token => self.serve((token - FIRST_SLOT) as usize, event.events(), &mut scratch)?,
                }
            }
            self.flush_touched()?;
            if self.role != Role::RelayCalls {
                self.pause_or_resume()?;
            }
            if self.finishing && self.dismiss_backs() {
                return Ok(());
            }
        }
    }

    fn accept(&mut self) -> Result<(), Failure> {
        match self.listener.accept() {
            Ok((stream, _)) => self.add(stream, Side::Front),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(at("accept a front")(error)),
        }
    }

    fn add(&mut self, stream: UnixStream, side: Side) -> Result<(), Failure> {
        stream.set_nonblocking(true).map_err(at("make a connection non-blocking"))?;
        let slot = self.free.pop().unwrap_or(self.connections.len());
        let interest = EpollFlags::EPOLLIN;
        self.epoll
            .add(&stream, EpollEvent::new(interest, FIRST_SLOT + slot as u64))
            .map_err(at("watch a connection"))?;
        let (partial, pending) = (Vec::new(), Vec::new());
        let connection =
            Some(Connection { stream, side, interest, partial, pending, written: 0, touched: false });
        match self.connections.get_mut(slot) {
            Some(free) => *free = connection,
            None => self.connections.push(connection),
        }
        if side == Side::Back {
            self.backs.push(slot);
        }
        Ok(())
    }

    fn serve(&mut self, slot: usize, flags: EpollFlags, scratch: &mut [u8]) -> Result<(), Failure> {
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.touch(slot);
        }
        // A hang-up is reported even while paused; reading then is bounded by what the kernel still holds.
        if !flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            return Ok(());
        }
        // The slot is empty or another's when it was given up in this round; then there is nothing to read.
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        let side = connection.side;
        let held = connection.partial.len();
        for (to, from) in scratch.iter_mut().zip(connection.partial.drain(..)) {
            *to = from;
        }
        let length = match connection.stream.read(scratch.get_mut(held..).unwrap_or_default()) {
            Ok(0) => return self.leave(slot),
            Ok(length) => held + length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => held,
            Err(error) => return Err(at("read from an end")(error)),
        };
        let whole = if self.role == Role::RelayCalls { length - length % MESSAGE } else { length };
        connection.partial.extend_from_slice(scratch.get(whole..length).unwrap_or_default());
        let bytes = scratch.get_mut(..whole).unwrap_or_default();
        match (self.role, side) {
            (Role::RelayCalls, Side::Front) => self.forward_requests(slot, bytes),
            (Role::RelayCalls, Side::Back) => self.forward_replies(bytes),
            (_, side) => self.copy_across(side, bytes),
        }
    }

    /// Stamps each request with its front, as a bus stamps the sender, and queues all for the server.
    fn forward_requests(&mut self, slot: usize, requests: &mut [u8]) -> Result<(), Failure> {
        for message in requests.chunks_exact_mut(MESSAGE) {
            set_front(message, slot);
        }
        let server = self.backs.first().copied().unwrap_or(usize::MAX);
        let Some(connection) = self.connections.get_mut(server).and_then(Option::as_mut) else {
            return Err(Failure::new("a request came and there is no server"));
        };
        connection.pending.extend_from_slice(requests);
        self.touch(server);
        Ok(())
    }

    /// Queues each reply for the front whose stamp it bears.
    fn forward_replies(&mut self, replies: &[u8]) -> Result<(), Failure> {
        for message in replies.chunks_exact(MESSAGE) {
            let slot = front_of(message).unwrap_or(usize::MAX);
            let front = self.connections.get_mut(slot).and_then(Option::as_mut);
            let Some(front) = front.filter(|front| front.side == Side::Front) else {
                return Err(Failure::new("a reply came for a front that is not there"));
            };
            front.pending.extend_from_slice(message);
            if !front.touched {
                front.touched = true;
                self.touched.push(slot);
            }
        }
        Ok(())
    }

    /// Writes the bytes to every connection of the other side.
    fn copy_across(&mut self, from: Side, bytes: &[u8]) -> Result<(), Failure> {
        for slot in 0..self.connections.len() {
            let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { continue };
            if connection.side != from {
                connection.send(bytes)?;
                self.update_interest(slot)?;
            }
        }
        Ok(())
    }

    fn touch(&mut self, slot: usize) {
        if let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut)
            && !connection.touched
        {
            connection.touched = true;
            self.touched.push(slot);
        }
    }

    fn flush_touched(&mut self) -> Result<(), Failure> {
        while let Some(slot) = self.touched.pop() {
            let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { continue };
            connection.touched = false;
            connection.flush()?;
            self.update_interest(slot)?;
        }
        Ok(())
    }

    /// Wakes for writing only while something is pending, and for reading unless paused.
    fn update_interest(&mut self, slot: usize) -> Result<(), Failure> {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, connection.side == Side::Back || !self.paused);
        interest.set(EpollFlags::EPOLLOUT, connection.backlog() > 0);
        if interest != connection.interest {
            connection.interest = interest;
            let mut event = EpollEvent::new(interest, FIRST_SLOT + slot as u64);
            self.epoll.modify(&connection.stream, &mut event).map_err(at("change what to wait for"))?;
        }
        Ok(())
    }

    /// Stops reading the fronts while a back is too far behind.
    fn pause_or_resume(&mut self) -> Result<(), Failure> {
        let maximum = if self.role == Role::RelayFanout { FANOUT_BACKLOG_MAX } else { STREAM_BACKLOG_MAX };
        let mut backs = self.connections.iter().flatten().filter(|connection| connection.side == Side::Back);
        let paused = backs.any(|back| back.backlog() >= maximum);
        if paused != self.paused {
            self.paused = paused;
            for slot in 0..self.connections.len() {
                self.update_interest(slot)?;
            }
        }
        Ok(())
    }

    fn leave(&mut self, slot: usize) -> Result<(), Failure> {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::take) else { return Ok(()) };
        if connection.side == Side::Back {
            return Err(Failure::new("a back left before the end"));
        }
        self.free.push(slot);
        self.finishing = self.role == Role::RelayFanout;
        Ok(())
    }

    /// Closes the subscribers that have got everything. True when all have.
    fn dismiss_backs(&mut self) -> bool {
        for slot in &self.backs {
            if let Some(place) = self.connections.get_mut(*slot)
                && place.as_ref().is_some_and(|back| back.backlog() == 0)
            {
                *place = None;
            }
        }
        self.connections.iter().all(Option::is_none)
    }
}
