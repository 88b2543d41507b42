//! One datagram socket with its door.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};

use ipc_core::limits::{DATAGRAM_MAX_BYTES, Limits};
use ipc_core::transport::{Socket as _, clock};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::{JoinHandle, spawn_local};

use super::socket::{DatagramSocket, Received};
use super::visitor::{Visitor, Visitors};
use crate::broker::Transport;
use crate::bus::timer::Timer;
use crate::bus::{Bus, Count, Look};
use crate::datagram::{ClientKey, Config, Door, Outgoing, Output};
use crate::net::readable::watch;

/// Datagrams that are received before others have their turn.
const RECEIVE_BUDGET: usize = 32;
/// The same while several take turns who pay for themselves: whose the next one is shows when it is received.
const RECEIVE_BUDGET_IN_TURN: usize = 1;

/// A datagram socket that is served; clones are handles to the same one.
#[derive(Clone)]
pub(crate) struct Keeper(Rc<Inner>);

struct Inner {
    bus: Bus,
    /// Until it is closed.
    socket: RefCell<Option<Rc<DatagramSocket>>>,
    tasks: RefCell<Vec<JoinHandle<()>>>,
    door: RefCell<Door>,
    visitors: RefCell<Visitors>,
    timer: Rc<Timer>,
    tally: Tally,
    /// Who waits until no sender has a connection to the bus any more.
    waiting: RefCell<Option<Waker>>,
}

/// What is counted here beside what the door counts.
#[derive(Debug, Default)]
struct Tally {
    /// Datagrams whose sender the kernel does not know.
    unverified: Cell<u64>,
    /// Datagrams of users that this bus is not open to.
    refused_access: Cell<u64>,
    /// Datagrams that came with descriptors.
    with_descriptors: Cell<u64>,
    /// Datagrams to senders that are gone.
    undeliverable: Cell<u64>,
}

/// What is to be received next.
enum Next {
    /// Whatever there is.
    Unknown,
    /// Nothing.
    None,
    /// What stays until descriptors of that user have been closed.
    Held(u32),
}

fn add(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

impl Keeper {
    /// Serves a socket from here on, for as long as the runtime runs.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub(crate) fn start(bus: &Bus, socket: DatagramSocket, config: Config) -> io::Result<Self> {
        let socket = Rc::new(socket);
        let timer = Rc::new(Timer::new()?);
        let readable = watch(Rc::clone(&socket), Interest::READABLE)?;
        let ticking = watch(Rc::clone(&timer), Interest::READABLE)?;
        let keeper = Self(Rc::new(Inner {
            bus: bus.clone(),
            socket: RefCell::new(Some(socket)),
            tasks: RefCell::default(),
            door: RefCell::new(Door::new(config)),
            visitors: RefCell::default(),
            timer,
            tally: Tally::default(),
            waiting: RefCell::default(),
        }));
        bus.tally().count_also(Rc::clone(&keeper.0) as Rc<dyn Count>);
        let tasks =
            [spawn_local(keeper.clone().receive(readable)), spawn_local(keeper.clone().keep_time(ticking))];
        keeper.0.tasks.borrow_mut().extend(tasks);
        Ok(keeper)
    }

    /// Receives nothing any more and closes the socket; what its senders have on the bus ends.
    pub(crate) fn close(&self) {
        self.0.tasks.borrow_mut().drain(..).for_each(|task| task.abort());
        self.0.socket.replace(None);
        self.0.visitors.replace(Visitors::default());
    }

    /// The socket, until it is closed.
    pub(crate) fn socket(&self) -> Option<Rc<DatagramSocket>> {
        self.0.socket.borrow().clone()
    }

    /// Whether it is a socket of this machine alone.
    pub(crate) fn is_local(&self) -> bool {
        self.socket().is_some_and(|socket| socket.is_local())
    }

    /// Where it receives.
    pub(crate) fn shown_address(&self) -> Option<String> {
        self.socket()?.socket().local_address().ok().map(|address| address.to_string())
    }

    /// Takes no new requests from here on; open ones may end.
    pub(crate) fn begin_drain(&self) {
        self.0.door.borrow_mut().begin_drain();
    }

    /// Other limits from here on.
    pub(crate) fn set_limits(&self, limits: Limits) {
        if let Some(socket) = self.socket()
            && let Some(reaper) = socket.reaper()
        {
            reaper.set_waiting_max(limits.descriptors_unclosed_max);
        }
        self.0.door.borrow_mut().set_limits(limits);
    }

    /// Completes when no sender has a connection to the bus any more; to be used after the drain has ended. Cancel safe.
    pub(crate) async fn deserted(&self) {
        poll_fn(|context| {
            if self.0.visitors.borrow().is_empty() {
                return Poll::Ready(());
            }
            *self.0.waiting.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    async fn receive(self, socket: AsyncFd<Rc<DatagramSocket>>) {
        while let Ok(mut guard) = socket.readable().await {
            self.0.bus.pass(None).await;
            match self.receive_some() {
                Next::Unknown => tokio::task::yield_now().await,
                Next::None => guard.clear_ready(),
                Next::Held(uid) => {
                    if let Some(reaper) = socket.get_ref().reaper() {
                        reaper.room_for(uid).await;
                    }
                }
            }
        }
    }

    /// Receives until there is nothing that can be received or the budget is spent.
    fn receive_some(&self) -> Next {
        let budget = if self.0.bus.are_turns_shared() { RECEIVE_BUDGET_IN_TURN } else { RECEIVE_BUDGET };
        let mut nexts = (0..budget).map(|_| self.receive_one());
        nexts.find(|next| !matches!(next, Next::Unknown)).unwrap_or(Next::Unknown)
    }

    /// Receives a datagram.
    fn receive_one(&self) -> Next {
        let received = {
            let mut scratch = self.0.bus.scratch().borrow_mut();
            // One byte more than a datagram may have, so that a longer one shows.
            let room = scratch.len().min(DATAGRAM_MAX_BYTES + 1);
            let buffer = &mut scratch[..room];
            let Some(socket) = self.socket() else { return Next::None };
            let received = socket.receive(buffer);
            if let Ok(Received::Held(uid)) = received {
                return Next::Held(uid);
            }
            received.map(|received| self.take_in(received, buffer))
        };
        match received {
            Ok(()) => self.obey(),
            Err(Errno::AGAIN) => return Next::None,
            // An answer to something that was sent came back, or memory is short for a moment: the next is another one.
            Err(_) => {}
        }
        Next::Unknown
    }

    fn take_in(&self, received: Received, buffer: &[u8]) {
        let tally = &self.0.tally;
        match received {
            Received::Datagram(source, length) => {
                if !self.0.bus.look(|broker| broker.admits(&source.identity(), &[])) {
                    return add(&tally.refused_access);
                }
                let datagram = buffer.get(..length).unwrap_or_default();
                self.0.door.borrow_mut().handle_datagram(clock::now(), source, datagram);
            }
            Received::Unverified => add(&tally.unverified),
            Received::WithDescriptors => add(&tally.with_descriptors),
            Received::Held(_) => {}
        }
    }

    async fn keep_time(self, timer: AsyncFd<Rc<Timer>>) {
        while let Ok(mut guard) = timer.readable().await {
            guard.clear_ready();
            if timer.get_ref().expired() {
                self.0.door.borrow_mut().handle_timeout(clock::now());
                self.obey();
            }
        }
    }

    /// Bytes from the bus for a sender.
    pub(super) fn handle_input(&self, key: ClientKey, bytes: &[u8]) {
        self.0.door.borrow_mut().handle_input(clock::now(), key, bytes);
        self.obey();
    }

    /// The bus has ended a sender's connection.
    pub(super) fn handle_end(&self, key: ClientKey) {
        self.0.door.borrow_mut().handle_end(clock::now(), key);
        self.forget(key);
        self.obey();
    }

    /// Does what the door asks for.
    fn obey(&self) {
        loop {
            let output = self.0.door.borrow_mut().poll_output();
            match output {
                Some(Output::Connect(key)) => self.connect(key),
                Some(Output::Transmit(key)) => self.transmit(key),
                Some(Output::Disconnect(key)) => self.forget(key),
                Some(Output::Send(outgoing)) => self.send(&outgoing),
                None => break,
            }
        }
        self.0.timer.arm(self.0.door.borrow().poll_timeout());
    }

    fn connect(&self, key: ClientKey) {
        let (identity, transport) = {
            let door = self.0.door.borrow();
            let Some(identity) = door.identity(key) else { return };
            (identity, if door.is_local(key) { Transport::UnixDatagram } else { Transport::Udp })
        };
        match Visitor::connect(self, &self.0.bus, key, identity, transport) {
            Ok(visitor) => self.0.visitors.borrow_mut().insert(key, visitor),
            Err(error) => self.0.door.borrow_mut().refused(clock::now(), key, &error),
        }
    }

    fn transmit(&self, key: ClientKey) {
        let Some(peer) = self.0.visitors.borrow().peer(key) else { return };
        let mut door = self.0.door.borrow_mut();
        // What comes of it for anybody is told in a turn of its own, so the door is free again by then.
        let sent = peer.borrow_mut().send(door.transmit(key));
        door.transmitted(key, sent);
    }

    fn send(&self, outgoing: &Outgoing) {
        let Some(socket) = self.socket() else { return };
        match socket.send(&outgoing.to, &outgoing.datagram) {
            Ok(()) => self.0.bus.await_answer(Rc::new(self.clone())),
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => {
                if let Some(receipt) = outgoing.receipt {
                    self.0.door.borrow_mut().unsent(clock::now(), receipt);
                }
            }
            // Whoever is gone asks no more.
            Err(_) => add(&self.0.tally.undeliverable),
        }
    }

    fn forget(&self, key: ClientKey) {
        self.0.visitors.borrow_mut().remove(key);
        if let Some(waker) = self.0.waiting.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Look for Keeper {
    fn look(&self) {
        self.receive_one();
    }
}

impl Count for Inner {
    fn by_name(&self) -> Vec<(&'static str, u64)> {
        let mut counters = self.door.borrow().counters();
        counters.extend([
            ("datagrams_unverified", self.tally.unverified.get()),
            ("datagrams_refused_access", self.tally.refused_access.get()),
            ("datagrams_with_descriptors", self.tally.with_descriptors.get()),
            ("datagrams_undeliverable", self.tally.undeliverable.get()),
        ]);
        counters
    }
}
