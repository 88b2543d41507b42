//! Whose turn it is to read the socket: a lone caller's or the driver's.

use std::io;
use std::task::{Context, Poll};

use rustix::io::Errno;

use super::shared::{LENT_MAX, Reader, State};
use super::socket::Socket;
use super::wakers::Wakes;
use crate::session::{Outcome, State as Stage, Ticket};
use crate::transport::{clock, datagrams};

/// When this much waits in company, it is written without waiting for the driver. More would save system calls, but then
/// all calls of a busy client travel as one convoy: daemon and service wait while it is made up, and it waits for them.
const CHUNK_BYTES: u64 = 2048;

impl State {
    /// Makes sure that the driver's timer is not later than what is due, nor later than it should listen again.
    fn keep_driver_near(&mut self, wakes: &mut Wakes) {
        let mut due = self.now + LENT_MAX;
        if let Some(timeout) = self.session.poll_timeout() {
            due = due.min(timeout);
        }
        if self.driver.armed.is_none_or(|armed| armed > due) {
            self.notify_driver(wakes);
        }
    }

    /// Whether this caller may read the socket itself.
    fn is_alone(&self) -> bool {
        self.waiting == 1 && !self.stopping && self.socket.is_some() && !self.session.is_listening()
    }

    /// The outcome of a request, or the task is woken when it is there.
    pub(super) fn poll_request(
        &mut self,
        ticket: Ticket,
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) -> Poll<Outcome> {
        if let Some(outcome) = self.session.take(ticket) {
            self.end_request(ticket, wakes);
            return Poll::Ready(outcome);
        }
        if self.is_alone() {
            return self.poll_alone(ticket, cx, wakes);
        }
        self.take_socket_back(wakes);
        self.request_wakers.set(ticket.slot(), cx.waker());
        if self.session.pending_bytes() > 0 {
            self.written_later(CHUNK_BYTES, wakes);
        }
        self.keep_driver_timely(wakes);
        Poll::Pending
    }

    /// In company the driver reads, and needs to run only for what is due earlier than it knows.
    fn keep_driver_timely(&mut self, wakes: &mut Wakes) {
        if let Some(timeout) = self.session.poll_timeout()
            && self.driver.armed.is_none_or(|armed| armed > timeout)
        {
            self.notify_driver(wakes);
        }
    }

    /// Company has come: the driver reads from here on.
    pub(super) fn take_socket_back(&mut self, wakes: &mut Wakes) {
        match self.reader {
            Reader::Driver => return,
            Reader::Lone(ticket) => {
                if let Some(waker) = &self.lone_waker {
                    self.request_wakers.set(ticket.slot(), waker);
                }
            }
            Reader::Nobody => {}
        }
        self.spin.cancel();
        self.reader = Reader::Driver;
        self.notify_driver(wakes);
    }

    /// Something was due: the one who reads alone looks whether it concerns its request.
    pub(super) fn wake_lone(&self, wakes: &mut Wakes) {
        if let Reader::Lone(_) = self.reader {
            wakes.extend(self.lone_waker.clone());
        }
    }

    fn poll_alone(&mut self, ticket: Ticket, cx: &mut Context<'_>, wakes: &mut Wakes) -> Poll<Outcome> {
        if self.reader != Reader::Lone(ticket) {
            self.reader = Reader::Lone(ticket);
            self.keep_driver_near(wakes);
            self.spin.cancel();
            self.spin.begin(self.now);
        }
        while let Some(socket) = &mut self.socket {
            socket.poll_flush(cx, &mut self.session);
            let read = if self.spin.is_open() {
                match self.look_again(cx) {
                    Some(read) => read,
                    None => continue,
                }
            } else {
                socket.poll_read(cx, &mut self.session)
            };
            let Poll::Ready(read) = read else { break };
            self.after_read(read, wakes);
            if let Some(outcome) = self.session.take(ticket) {
                self.spin.hit();
                self.end_request(ticket, wakes);
                return Poll::Ready(outcome);
            }
        }
        if self.lone_waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            self.lone_waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// One look at the socket without sleeping; `None` when the window has ended.
    fn look_again(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<usize>>> {
        rustix::thread::sched_yield();
        let socket = self.socket.as_mut()?;
        match socket.try_read(&mut self.session) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if self.session.direct().is_some() {
                    self.spin.cancel();
                    return None;
                }
                if self.spin.look_again(clock::now()) {
                    cx.waker().wake_by_ref();
                    return Some(Poll::Pending);
                }
                None
            }
            read => Some(Poll::Ready(read)),
        }
    }

    /// The driver's part: writes what waits.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>, wakes: &mut Wakes) {
        if let Some(socket) = &mut self.socket
            && self.session.pending_bytes() > 0
        {
            socket.poll_flush(cx, &mut self.session);
            self.is_fresh = true;
        }
        self.settle(wakes);
    }

    /// The driver's part: reads once, unless a lone caller does. Says whether there was something.
    pub(super) fn read_once(&mut self, cx: &mut Context<'_>, wakes: &mut Wakes) -> bool {
        match self.reader {
            Reader::Driver => {}
            Reader::Lone(_) => return false,
            Reader::Nobody => self.reader = Reader::Driver,
        }
        if core::mem::take(&mut self.is_fresh) {
            self.spin.begin(self.now);
        }
        let looked = if self.spin.is_open() && self.socket.is_some() { self.look_again(cx) } else { None };
        let read = match (looked, &mut self.socket) {
            (Some(read), _) => read,
            (None, Some(socket)) => socket.poll_read(cx, &mut self.session),
            (None, None) => return false,
        };
        let Poll::Ready(read) = read else { return false };
        self.spin.hit();
        self.is_fresh = true;
        self.after_read(read, wakes);
        true
    }

    /// What a read came to.
    fn after_read(&mut self, read: io::Result<usize>, wakes: &mut Wakes) {
        match read {
            // An empty datagram, or an error of the one before.
            Ok(0) if self.session.is_over_datagrams() => {}
            Err(error) if self.session.is_over_datagrams() => {
                if let Some(reason) = Errno::from_io_error(&error).and_then(datagrams::refusal) {
                    self.session.handle_failure(Some(&reason));
                }
            }
            Ok(0) => {
                let failure = self.socket.as_ref().and_then(Socket::write_failure);
                self.session.handle_eof(failure);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let failure = format!("reading from the daemon failed: {error}");
                self.session.handle_eof(Some(&failure));
            }
        }
        self.now = clock::now();
        self.settle(wakes);
        if self.session.state() == Stage::Closed {
            if let Some(mut socket) = self.socket.take() {
                // The last words, as far as the kernel takes them at once.
                socket.flush(&mut self.session);
            }
            self.take_socket_back(wakes);
            self.notify_driver(wakes);
        }
    }

    /// A request has its outcome, or nobody waits for it any more.
    fn end_request(&mut self, ticket: Ticket, wakes: &mut Wakes) {
        self.waiting -= 1;
        self.request_wakers.take(ticket.slot());
        if self.reader == Reader::Lone(ticket) {
            self.reader = Reader::Nobody;
            if self.session.pending_bytes() > 0 {
                self.notify_driver(wakes);
            }
            self.keep_driver_near(wakes);
        }
    }

    /// The future of a request was dropped.
    pub(super) fn abandon_request(&mut self, ticket: Ticket, wakes: &mut Wakes) {
        self.session.abandon(ticket);
        self.end_request(ticket, wakes);
        self.spin.cancel();
        self.notify_driver(wakes);
    }
}
