//! Sockets to a server beyond a call: connections that may carry another, and source ports that never may.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, Sleep};

/// Source ports kept closed to everybody, so that the system does not give them to another call.
const RETIRED_MAX: usize = 256;
/// How long a late reply may still be on its way to one.
const RETIREMENT: Duration = Duration::from_secs(60);

/// The sockets of a forward that no call uses.
#[derive(Default)]
pub(super) struct Pool {
    /// Connections on which every call was answered in full, the one used last at the back.
    idle: RefCell<VecDeque<(Rc<TcpStream>, Instant)>>,
    /// Datagram sockets on which a call came to nothing, the oldest at the front.
    retired: RefCell<VecDeque<(Rc<UdpSocket>, Instant)>>,
}

impl Pool {
    /// How many connections are idle.
    pub(super) fn idle(&self) -> usize {
        self.idle.borrow().len()
    }

    /// A connection on which nothing has happened since its last call was answered. One on which something has is closed:
    /// what came would be taken for the reply to another call.
    pub(super) fn take(&self) -> Option<Rc<TcpStream>> {
        loop {
            let (stream, _) = self.idle.borrow_mut().pop_back()?;
            if is_silent(&stream) {
                return Some(stream);
            }
        }
    }

    /// Keeps a connection on which the last call was answered in full; with more than `max` the oldest is closed.
    pub(super) fn put(&self, stream: Rc<TcpStream>, max: usize) {
        let mut idle = self.idle.borrow_mut();
        idle.push_back((stream, Instant::now()));
        while idle.len() > max {
            idle.pop_front();
        }
    }

    /// Sees to it that the port of a socket is not used again for as long as replies may be on their way to it.
    pub(super) fn retire(&self, socket: Rc<UdpSocket>) {
        let mut retired = self.retired.borrow_mut();
        retired.push_back((socket, Instant::now()));
        while retired.len() > RETIRED_MAX {
            retired.pop_front();
        }
    }

    /// Closes connections that the server has closed or has sent something on, and what has been kept for long enough. The
    /// task is woken when there is more to do.
    pub(super) fn poll_tend(
        &self,
        idle_max: Duration,
        mut timer: Pin<&mut Sleep>,
        context: &mut Context<'_>,
    ) {
        self.idle.borrow_mut().retain(|(stream, _)| is_still_silent(stream, context));
        loop {
            let now = Instant::now();
            let next = [
                drop_aged(&mut self.idle.borrow_mut(), idle_max, now),
                drop_aged(&mut self.retired.borrow_mut(), RETIREMENT, now),
            ];
            let Some(due) = next.into_iter().flatten().min() else { return };
            if timer.is_elapsed() || due < timer.deadline() {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(context).is_pending() {
                return;
            }
        }
    }
}

/// Drops what is older than `age_max` and says when the next one will be.
fn drop_aged<T>(kept: &mut VecDeque<(T, Instant)>, age_max: Duration, now: Instant) -> Option<Instant> {
    while let Some((_, since)) = kept.front() {
        let due = *since + age_max;
        if due > now {
            return Some(due);
        }
        kept.pop_front();
    }
    None
}

/// Whether there is nothing to read, not even the end. Asks the system, and not what the runtime knows of it.
fn is_silent(stream: &TcpStream) -> bool {
    rustix::net::recv(stream, &mut [0; 1], RecvFlags::DONTWAIT) == Err(Errno::AGAIN)
}

/// Whether there is nothing to read; the task is woken when there is.
fn is_still_silent(stream: &TcpStream, context: &mut Context<'_>) -> bool {
    loop {
        match stream.poll_read_ready(context) {
            Poll::Pending => return true,
            // Clears what the runtime remembers if it is no longer so.
            Poll::Ready(Ok(())) => match stream.try_read(&mut [0; 1]) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return false,
            },
            Poll::Ready(Err(_)) => return false,
        }
    }
}
