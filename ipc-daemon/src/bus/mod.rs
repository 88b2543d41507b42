//! SHELL. The broker with its connections: what a batch of input leads to.
//!
//! - [`Bus`]: the broker, the table of its connections, and the turn: input goes in with [`Bus::turn`], and when it is
//!   done every connection that was touched is written to, here and at once, with one non-blocking system call. Batches
//!   from sockets, [`Bus::batch`], share one such round of writes when several come at the same time;
//! - [`due`]: whether writes are due, and who makes them; [`turns`]: who is read from next;
//! - [`link`]: a connection over a kernel socket, seen from the outside: where to write, and whom to wake;
//! - [`reaper`]: closing what a peer has sent without being asked;
//! - [`internal`]: a connection without a socket, whose other end is in this process; [`service`]: one that offers a
//!   service of the daemon's own;
//! - [`timer`]: when the broker wants to be asked about its deadlines;
//! - [`watchdog`]: signs of life for a service manager, given at the end of turns;
//! - [`audit`]: what the policy refused, for whoever runs the daemon;
//! - [`activity`]: whether anything happened, for whoever decides to sleep.
//!
//! Nothing here is borrowed over an await: a turn is one synchronous call.

pub(crate) mod activity;
mod audit;
pub(crate) mod due;
pub(crate) mod internal;
pub(crate) mod link;
pub(crate) mod reaper;
pub(crate) mod service;
pub(crate) mod timer;
mod turns;
pub(crate) mod watchdog;

use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use ipc_core::Error;
use ipc_core::id::PeerId;
use ipc_core::identity::Identity;
use ipc_core::time::Instant;
use ipc_core::transport::clock;
use slotmap::SecondaryMap;

use crate::broker::{Access, Broker, Output, PeerKey, Side, Transport};
use crate::store::{Inlet, gone};
use activity::Activity;
use audit::Audit;
use due::Due;
use internal::Mailbox;
use link::{Link, Sent};
use timer::Timer;
use turns::Turns;
use watchdog::Watchdog;

/// Size of the one buffer that all connections read into, in bytes.
const SCRATCH_BYTES: usize = 256 * 1024;

/// The bus of this process; clones are handles to the same one.
#[derive(Clone)]
pub(crate) struct Bus(Rc<Inner>);

struct Inner {
    state: RefCell<State>,
    scratch: RefCell<Box<[u8]>>,
    timer: Rc<Timer>,
    watchdog: OnceCell<Watchdog>,
    activity: Activity,
    due: Due,
    turns: Turns,
    /// Who looks at the broker again after each turn.
    watchers: RefCell<Vec<Waker>>,
    tally: Tally,
}

struct State {
    broker: Broker,
    endpoints: SecondaryMap<PeerKey, Endpoint>,
    /// The one that was written to last, if the round of writes had no other: what comes next is probably its answer.
    awaited: Option<Rc<dyn Look>>,
    /// Something is due to a peer in this process, which has not had its turn since.
    has_mail: bool,
    /// Where commits go.
    store: Option<Inlet>,
    audit: Audit,
}

/// Where the frames for a peer go.
enum Endpoint {
    Socket(Rc<Link>),
    Internal(Rc<Mailbox>),
}

/// A socket that can be read before the runtime has said that there is something.
pub(crate) trait Look {
    /// Reads once, at once or as soon as its task runs.
    fn look(&self);
}

/// Something that counts.
pub(crate) trait Count {
    /// Every number by name.
    fn by_name(&self) -> Vec<(&'static str, u64)>;
}

/// What the shell counts beside the broker's own numbers.
#[derive(Default)]
pub(crate) struct Tally {
    /// Connections refused because of who asked.
    pub(crate) refused_access: Cell<u64>,
    /// Connections that spoke something else.
    pub(crate) refused_protocol: Cell<u64>,
    /// Times that accepting had to pause because a resource of the system had run out.
    pub(crate) accept_pauses: Cell<u64>,
    /// Others who count; what has the same name is added up.
    others: RefCell<Vec<Rc<dyn Count>>>,
}

impl Tally {
    /// Adds one.
    pub(crate) fn add(counter: &Cell<u64>) {
        counter.set(counter.get() + 1);
    }

    /// What `other` counts is to be shown too.
    pub(crate) fn count_also(&self, other: Rc<dyn Count>) {
        self.others.borrow_mut().push(other);
    }

    /// Every number by name.
    pub(crate) fn by_name(&self) -> Vec<(&'static str, u64)> {
        let mut sums = BTreeMap::from([
            ("refused_access", self.refused_access.get()),
            ("refused_protocol", self.refused_protocol.get()),
            ("accept_pauses", self.accept_pauses.get()),
        ]);
        for (name, number) in self.others.borrow().iter().flat_map(|other| other.by_name()) {
            *sums.entry(name).or_default() += number;
        }
        sums.into_iter().collect()
    }
}

impl Bus {
    /// A bus without connections.
    pub(crate) fn new(broker: Broker, timer: Rc<Timer>) -> Self {
        Self(Rc::new(Inner {
            state: RefCell::new(State {
                broker,
                endpoints: SecondaryMap::new(),
                awaited: None,
                has_mail: false,
                store: None,
                audit: Audit::default(),
            }),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
            timer,
            watchdog: OnceCell::new(),
            activity: Activity::default(),
            due: Due::default(),
            turns: Turns::default(),
            watchers: RefCell::new(Vec::new()),
            tally: Tally::default(),
        }))
    }

    /// One batch of input: `input` hands it to the broker, then everything that became due is written.
    pub(crate) fn turn<R>(&self, input: impl FnOnce(&mut Broker, Instant) -> R) -> R {
        let now = clock::now();
        let mut state = self.0.state.borrow_mut();
        state.broker.tick(now);
        let result = input(&mut state.broker, now);
        self.0.due.done();
        state.deliver(now, &self.0.turns);
        self.end_turn(state, now);
        result
    }

    /// One batch of input from a socket, of that many bytes. As [`Bus::turn`], but the writes may wait until other sockets
    /// that have input at the same moment had theirs: a peer that all of them send to is written to once.
    pub(crate) fn batch<R>(&self, bytes: usize, input: impl FnOnce(&mut Broker, Instant) -> R) -> R {
        let now = clock::now();
        let mut state = self.0.state.borrow_mut();
        let result = input(&mut state.broker, now);
        state.broker.end_batch();
        if self.0.due.is_much_with(bytes) {
            state.deliver(now, &self.0.turns);
        }
        self.end_turn(state, now);
        result
    }

    fn end_turn(&self, state: RefMut<'_, State>, now: Instant) {
        let timeout = state.broker.poll_timeout();
        drop(state);
        if let Some(watchdog) = self.0.watchdog.get() {
            watchdog.turned(now);
        }
        self.arm(timeout);
        self.0.activity.note();
        self.wake_watchers();
    }

    /// Makes the writes that batches have left.
    pub(crate) fn write_due(&self) {
        if self.0.due.done() {
            self.0.state.borrow_mut().deliver(clock::now(), &self.0.turns);
        }
    }

    /// Has the socket read from which an answer is expected, once for each round of writes. Says whether there is one.
    pub(crate) fn look_at_awaited(&self) -> bool {
        let awaited = self.0.state.borrow_mut().awaited.take();
        awaited.as_ref().inspect(|socket| socket.look()).is_some()
    }

    /// Whether something was due to a peer in this process since this was asked last: the answer to somebody may be among it.
    pub(crate) fn take_mail(&self) -> bool {
        core::mem::take(&mut self.0.state.borrow_mut().has_mail)
    }

    /// Something was written to that socket, not by the bus, and what comes next is probably the answer.
    pub(crate) fn await_answer(&self, socket: Rc<dyn Look>) {
        self.0.state.borrow_mut().awaited = Some(socket);
    }

    /// Makes them whenever all who have input had their turn, for as long as the daemon runs.
    pub(crate) async fn keep_writing(&self) {
        poll_fn(|context| {
            self.write_due();
            self.0.due.attend(context.waker());
            Poll::<()>::Pending
        })
        .await;
    }

    /// Whether writes are due, and who makes them.
    pub(crate) fn due(&self) -> &Due {
        &self.0.due
    }

    /// Has the timer expire when the broker, or the watchdog, wants a turn.
    fn arm(&self, timeout: Option<Instant>) {
        let sign = self.0.watchdog.get().map(Watchdog::due);
        self.0.timer.arm(timeout.into_iter().chain(sign).min());
    }

    /// From the next turn on the bus gives signs of life. To be used once.
    pub(crate) fn give_signs(&self, watchdog: Watchdog) {
        // A second one would change nothing.
        drop(self.0.watchdog.set(watchdog));
    }

    /// From here on commits go there.
    pub(crate) fn store_in(&self, inlet: Inlet) {
        self.0.state.borrow_mut().store = Some(inlet);
    }

    /// Where they go.
    pub(crate) fn store(&self) -> Option<Inlet> {
        self.0.state.borrow().store.clone()
    }

    /// Looks at the broker without giving it anything.
    pub(crate) fn look<R>(&self, at: impl FnOnce(&Broker) -> R) -> R {
        at(&self.0.state.borrow().broker)
    }

    /// Connects a peer over a socket.
    ///
    /// # Errors
    /// The broker's refusal; the peer is to be told and closed.
    pub(crate) fn connect_socket(
        &self,
        identity: Identity,
        groups: Vec<u32>,
        transport: Transport,
        link: Rc<Link>,
    ) -> Result<PeerKey, Error> {
        let groups = groups.into_boxed_slice();
        self.connect(identity, groups, transport, Access::Granted, Endpoint::Socket(link))
    }

    /// Every connection over a socket, with the number of its peer.
    pub(crate) fn links(&self) -> Vec<(PeerId, Rc<Link>)> {
        let state = self.0.state.borrow();
        let links = state.endpoints.iter().filter_map(|(key, endpoint)| match endpoint {
            Endpoint::Socket(link) => Some((state.broker.peer_id(key)?, Rc::clone(link))),
            Endpoint::Internal(_) => None,
        });
        links.collect()
    }

    fn connect(
        &self,
        identity: Identity,
        groups: Box<[u32]>,
        transport: Transport,
        access: Access,
        endpoint: Endpoint,
    ) -> Result<PeerKey, Error> {
        let mut state = self.0.state.borrow_mut();
        let key = state.broker.connect_with_groups(clock::now(), identity, groups, transport, access)?;
        state.endpoints.insert(key, endpoint);
        let timeout = state.broker.poll_timeout();
        drop(state);
        self.note_who_shares();
        self.arm(timeout);
        Ok(key)
    }

    /// Ends a connection: the peer's socket is gone, or all that was due to it is written.
    pub(crate) fn disconnect(&self, key: PeerKey) {
        self.0.state.borrow_mut().endpoints.remove(key);
        self.turn(|broker, _| broker.disconnect(key));
        self.note_who_shares();
    }

    /// Writes what is due to one peer, as far as the kernel takes it and others have not their turn.
    fn write(&self, key: PeerKey) {
        let now = clock::now();
        let state = &mut *self.0.state.borrow_mut();
        if let Some(Endpoint::Socket(link)) = state.endpoints.get(key) {
            state.broker.writable(now, key);
            link.set_in_line(false);
            flush(&mut state.broker, key, link, now, &self.0.turns, link.is_closing());
        }
    }

    /// A buffer for a large frame that is being received, if one is at hand that is not in use.
    pub(crate) fn spare_buffer(&self, at_least_bytes: usize) -> Option<Vec<u8>> {
        self.0.state.borrow_mut().broker.spare_buffer(at_least_bytes)
    }

    /// Whether something is due to the peer that is not written yet.
    pub(crate) fn has_pending(&self, key: PeerKey) -> bool {
        self.0.state.borrow().broker.has_pending(key)
    }

    /// The buffer that all connections read into.
    pub(crate) fn scratch(&self) -> &RefCell<Box<[u8]>> {
        &self.0.scratch
    }

    /// Whether anything happened.
    pub(crate) fn activity(&self) -> &Activity {
        &self.0.activity
    }

    /// What the shell counts.
    pub(crate) fn tally(&self) -> &Tally {
        &self.0.tally
    }

    /// Completes when no call is open any more; to be used after the drain began. Cancel safe.
    pub(crate) async fn drained(&self) {
        self.until(|state| state.broker.is_drained()).await;
    }

    /// Completes when no peer is connected over a socket any more. Cancel safe.
    pub(crate) async fn deserted(&self) {
        let is_internal = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Internal(_));
        self.until(|state| state.endpoints.values().all(is_internal)).await;
    }

    /// Completes when there is room for a connection from that side that has not said hello yet. Cancel safe.
    pub(crate) async fn has_greeting_room(&self, side: Side) {
        self.until(|state| state.broker.has_greeting_room(side)).await;
    }

    async fn until(&self, is_done: impl Fn(&State) -> bool) {
        poll_fn(|context| {
            if is_done(&self.0.state.borrow()) {
                return Poll::Ready(());
            }
            self.0.watchers.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn wake_watchers(&self) {
        for waker in self.0.watchers.borrow_mut().drain(..) {
            waker.wake();
        }
    }
}

impl State {
    /// Hands what is to be kept to the store. What becomes of it comes back as input.
    fn hand_in(&mut self, now: Instant) {
        let Some(commit) = self.broker.take_commit() else { return };
        let sequence = commit.sequence;
        let handed_in = self.store.as_ref().map_or_else(|| Err(gone()), |store| store.submit(commit));
        if let Err(fault) = handed_in {
            self.broker.handle_stored(now, sequence, Err(fault));
        }
    }

    /// Writes to every connection that the batch has touched.
    fn deliver(&mut self, now: Instant, turns: &Turns) {
        let mut written = 0;
        while let Some(output) = self.broker.poll_output() {
            let (key, is_last) = match output {
                Output::Flush(key) => (key, false),
                Output::Close(key) => (key, true),
                Output::WatchProcess(key) => {
                    if let Some(Endpoint::Socket(link)) = self.endpoints.get(key) {
                        link.watch_process();
                    }
                    continue;
                }
                Output::Commit => {
                    self.hand_in(now);
                    continue;
                }
            };
            match self.endpoints.get(key) {
                Some(Endpoint::Socket(link)) => {
                    flush(&mut self.broker, key, link, now, turns, is_last);
                    written += 1;
                    self.awaited = (written == 1).then(|| Rc::clone(link) as Rc<dyn Look>);
                    if is_last {
                        link.close();
                    }
                }
                Some(Endpoint::Internal(mailbox)) => {
                    self.has_mail = true;
                    mailbox.notify(is_last);
                }
                // Its socket went away in this very batch: nobody is left to write to.
                None => {}
            }
        }
        while let Some(refusal) = self.broker.poll_refusal() {
            self.audit.write(&refusal, now);
        }
    }
}

/// Writes what is due to `key` until the kernel takes no more, or, unless it is the last, others should have their turn.
fn flush(broker: &mut Broker, key: PeerKey, link: &Link, now: Instant, turns: &Turns, is_last: bool) {
    if link.is_in_line() && !is_last {
        return;
    }
    let mut room = if is_last { usize::MAX } else { turns.write_max_bytes() };
    while link.is_writable() {
        if room == 0 {
            if broker.has_pending(key) {
                link.set_in_line(true);
                turns.write_later(broker.account_of(key), key);
            }
            return;
        }
        match link.send(broker.transmit(key), room) {
            Sent::Nothing => return,
            Sent::Some(bytes) => {
                broker.transmitted(now, key, bytes);
                room -= bytes;
            }
            // The link's task has been woken and disconnects the peer.
            Sent::Broken => return,
        }
    }
}
