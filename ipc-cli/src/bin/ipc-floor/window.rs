//! SHELL. The calling end of the throughput floor: a window of calls in flight on each connection.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::args::Options;
use crate::control;
use crate::failure::{Failure, at};
use crate::message::{Incoming, MESSAGE, set_sequence};
use crate::report::Report;

/// Calls over this process's share of the clients. A single connection needs no epoll and gets none.
pub(crate) fn run(directory: &Path, options: &Options) -> Result<(), Failure> {
    let share = options.clients / options.processes.max(1);
    let mut windows = (0..share)
        .map(|_| Ok(Window::new(control::connect_front(directory)?, options.depth)))
        .collect::<Result<Vec<_>, Failure>>()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(at("create an epoll"))?;
    for (index, window) in windows.iter().enumerate() {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, index as u64);
        epoll.add(&window.stream, event).map_err(at("watch a connection"))?;
    }
    let warm = call_all(&epoll, &mut windows, options.warmup, None)?;
    control::wait_for_go()?;
    let start_ns = control::now_ns()?;
    let measured = call_all(&epoll, &mut windows, options.count, Some(Instant::now() + options.time))?;
    let end_ns = control::now_ns()?;
    control::report(&Report { start_ns, end_ns, measured, total: warm + measured, ..Report::default() })
}

/// Makes `count` calls on every connection, or as many as begin before `until`, and waits for all replies.
/// Returns the number of calls on all connections.
fn call_all(
    epoll: &Epoll,
    windows: &mut [Window],
    count: u64,
    until: Option<Instant>,
) -> Result<u64, Failure> {
    let sent_before: u64 = windows.iter().map(|window| window.sent).sum();
    for window in &mut *windows {
        window.begin(count)?;
    }
    if let [window] = windows {
        while window.is_waiting() {
            window.turn(until)?;
        }
        return Ok(window.sent - sent_before);
    }
    let mut events = [EpollEvent::empty(); 64];
    while windows.iter().any(Window::is_waiting) {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result.map_err(at("wait for replies"))?,
        };
        for event in events.iter().take(ready) {
            if let Some(window) = windows.get_mut(event.data() as usize) {
                window.turn(until)?;
            }
        }
    }
    Ok(windows.iter().map(|window| window.sent).sum::<u64>() - sent_before)
}

/// One connection with up to `depth` calls in flight.
struct Window {
    stream: UnixStream,
    depth: u64,
    /// Room for a full window; only the sequences in it change.
    requests: Vec<u8>,
    replies: Incoming,
    sent: u64,
    /// No call is sent beyond this number.
    last: u64,
}

impl Window {
    fn new(stream: UnixStream, depth: usize) -> Self {
        let requests = vec![0; depth * MESSAGE];
        Self { stream, depth: depth as u64, requests, replies: Incoming::new(MESSAGE), sent: 0, last: 0 }
    }

    fn is_waiting(&self) -> bool {
        self.replies.received() < self.sent
    }

    fn begin(&mut self, count: u64) -> Result<(), Failure> {
        self.last = self.sent.saturating_add(count);
        self.send(self.depth)
    }

    /// Takes the replies that one read gives and, before `until`, sends as many requests.
    fn turn(&mut self, until: Option<Instant>) -> Result<(), Failure> {
        let before = self.replies.received();
        if !self.replies.receive(&mut self.stream)? {
            return Err(Failure::new("the relay closed the connection before it had answered"));
        }
        if until.is_none_or(|until| Instant::now() < until) {
            self.send(self.replies.received() - before)?;
        }
        Ok(())
    }

    /// Sends up to `count` requests, at most a full window, in one write.
    fn send(&mut self, count: u64) -> Result<(), Failure> {
        let count = count.min(self.last - self.sent) as usize;
        let Some(batch) = self.requests.get_mut(..count * MESSAGE).filter(|batch| !batch.is_empty()) else {
            return Ok(());
        };
        for message in batch.chunks_exact_mut(MESSAGE) {
            set_sequence(message, self.sent);
            self.sent += 1;
        }
        self.stream.write_all(batch).map_err(at("write requests"))
    }
}
