//! Who has the next turn, while several are connected who pay for themselves. The broker decides between connections that have
//! input; what has no connection to be read from (a datagram, a connection to be accepted, a request of the daemon's own service)
//! and what was too much to be written at once stand in lines of their own here. Of all of these one comes at a time, and then
//! the kernel is asked who else has input.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use slotmap::SecondaryMap;

use super::{Bus, Endpoint, State};
use crate::broker::{AccountKey, Broker, PeerKey, Room};

/// Nobody has to share with anybody.
const ALL: Room = Room::Some { bytes: usize::MAX, bulk_bytes: usize::MAX };
/// Most bytes that are written to a connection at a time.
const WRITE_MAX_BYTES: usize = 16 * 1024;

/// One of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Connections that have input.
    Input,
    /// Whoever has asked to [pass](Bus::pass).
    Passes,
    /// Connections with something that was too much to be written at once.
    Writes,
}

impl Line {
    fn next(self) -> Self {
        match self {
            Line::Input => Line::Passes,
            Line::Passes => Line::Writes,
            Line::Writes => Line::Input,
        }
    }
}

/// Things that wait, each on somebody's account: the accounts take turns.
#[derive(Debug)]
struct Lanes<T> {
    /// Those that have any.
    order: VecDeque<Option<AccountKey>>,
    lanes: BTreeMap<Option<AccountKey>, VecDeque<T>>,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { order: VecDeque::new(), lanes: BTreeMap::new() }
    }
}

impl<T> Lanes<T> {
    fn push(&mut self, account: Option<AccountKey>, thing: T) {
        let lane = self.lanes.entry(account).or_default();
        if lane.is_empty() {
            self.order.push_back(account);
        }
        lane.push_back(thing);
    }

    fn pop(&mut self) -> Option<T> {
        let account = self.order.pop_front()?;
        let lane = self.lanes.get_mut(&account)?;
        let thing = lane.pop_front();
        if lane.is_empty() {
            self.lanes.remove(&account);
        } else {
            self.order.push_back(account);
        }
        thing
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// Somebody who has asked to pass.
#[derive(Debug, Default)]
struct Ticket {
    is_called: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

impl Ticket {
    fn call(&self) {
        self.is_called.set(true);
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    async fn called(&self) {
        poll_fn(|context| {
            if self.is_called.get() {
                return Poll::Ready(());
            }
            *self.task.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// What is known without asking the broker.
#[derive(Debug)]
pub(super) struct Turns {
    are_shared: Cell<bool>,
    /// Who has turns taken when nobody else does.
    keeper: RefCell<Option<Waker>>,
    /// The line that was served last.
    last: Cell<Line>,
    /// Whoever has gone meanwhile is passed over.
    passes: RefCell<Lanes<Weak<Ticket>>>,
    writes: RefCell<Lanes<PeerKey>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            are_shared: Cell::new(false),
            keeper: RefCell::default(),
            last: Cell::new(Line::Writes),
            passes: RefCell::default(),
            writes: RefCell::default(),
        }
    }
}

impl Turns {
    /// How much may be written to a connection at a time, in bytes.
    pub(super) fn write_max_bytes(&self) -> usize {
        if self.are_shared.get() { WRITE_MAX_BYTES } else { usize::MAX }
    }

    /// There is more to write to a connection of that account than may be written at a time.
    pub(super) fn write_later(&self, account: Option<AccountKey>, peer: PeerKey) {
        self.writes.borrow_mut().push(account, peer);
        self.wake_keeper();
    }

    fn wake_keeper(&self) {
        if let Some(keeper) = self.keeper.borrow_mut().take() {
            keeper.wake();
        }
    }

    fn are_awaited(&self) -> bool {
        !self.passes.borrow().is_empty() || !self.writes.borrow().is_empty()
    }

    fn next_ticket(&self) -> Option<Rc<Ticket>> {
        loop {
            let ticket = self.passes.borrow_mut().pop()?;
            if let Some(ticket) = ticket.upgrade() {
                return Some(ticket);
            }
        }
    }
}

fn wake(endpoints: &SecondaryMap<PeerKey, Endpoint>, next: PeerKey) {
    if let Some(Endpoint::Socket(link)) = endpoints.get(next) {
        link.wake();
    }
}

impl Bus {
    /// Whether several are connected who take turns: nobody should do much at a time then.
    pub(crate) fn are_turns_shared(&self) -> bool {
        self.0.turns.are_shared.get()
    }

    /// A connection has come or gone.
    pub(super) fn note_who_shares(&self) {
        let turns = &self.0.turns;
        let are_shared = self.look(Broker::are_turns_shared);
        if turns.are_shared.replace(are_shared) && !are_shared {
            let State { broker, endpoints, .. } = &mut *self.0.state.borrow_mut();
            broker.end_turns(|next| wake(endpoints, next));
            while let Some(ticket) = turns.next_ticket() {
                ticket.call();
            }
            // The keeper has the rest of the writes made.
        }
    }

    /// How much may be read from a connection that has input. If nothing, its task is woken when it may.
    pub(crate) fn ask_turn(&self, peer: PeerKey) -> Room {
        if !self.are_turns_shared() {
            return ALL;
        }
        let room = self.0.state.borrow_mut().broker.ask_turn(peer);
        if room == Room::None {
            self.0.turns.wake_keeper();
        }
        room
    }

    /// So many bytes were read from the connection that has asked, and dealt with.
    pub(crate) fn took_turn(&self, peer: PeerKey, bytes: usize) {
        if self.are_turns_shared() {
            let state = &mut *self.0.state.borrow_mut();
            if let Some(next) = state.broker.took_turn(peer, bytes) {
                wake(&state.endpoints, next);
            }
        }
    }

    /// Whether anybody who could go on waits for a turn.
    pub(crate) fn are_turns_awaited(&self) -> bool {
        self.0.turns.are_awaited() || self.are_turns_shared() && self.look(Broker::are_turns_awaited)
    }

    /// All who have input have been looked at: one of those who wait has its turn.
    pub(crate) fn call_next(&self) {
        let turns = &self.0.turns;
        if !self.are_turns_awaited() {
            return;
        }
        for _ in 0..3 {
            turns.last.set(turns.last.get().next());
            let is_served = match turns.last.get() {
                Line::Input => self.call_connection(),
                Line::Passes => self.let_pass(),
                Line::Writes => self.write_more(),
            };
            if is_served {
                return;
            }
        }
    }

    fn call_connection(&self) -> bool {
        let State { broker, endpoints, .. } = &mut *self.0.state.borrow_mut();
        let next = broker.call_next(self.0.turns.are_awaited());
        next.inspect(|next| wake(endpoints, *next)).is_some()
    }

    fn let_pass(&self) -> bool {
        self.0.turns.next_ticket().inspect(|ticket| ticket.call()).is_some()
    }

    fn write_more(&self) -> bool {
        let next = self.0.turns.writes.borrow_mut().pop();
        next.inspect(|next| self.write(*next)).is_some()
    }

    /// Writes what is due to one peer, as far as the kernel takes it, after it had taken no more; while several take turns, in
    /// turn.
    pub(crate) fn resume(&self, peer: PeerKey) {
        {
            let state = &*self.0.state.borrow();
            if self.are_turns_shared()
                && let Some(Endpoint::Socket(link)) = state.endpoints.get(peer)
                && !link.is_closing()
            {
                if !link.is_in_line() {
                    link.set_in_line(true);
                    self.0.turns.write_later(state.broker.account_of(peer), peer);
                }
                return;
            }
        }
        self.write(peer);
    }

    /// While several take turns: has one piece of work after the other begin that nobody has asked a turn for, on the account of
    /// whom it is done for, if that is known; and in between all who have input. Cancel safe.
    pub(crate) async fn pass(&self, on_account_of: Option<PeerKey>) {
        if self.are_turns_shared() {
            let ticket = Rc::new(Ticket::default());
            let account = on_account_of.and_then(|peer| self.look(|broker| broker.account_of(peer)));
            self.0.turns.passes.borrow_mut().push(account, Rc::downgrade(&ticket));
            self.0.turns.wake_keeper();
            ticket.called().await;
        }
    }

    /// Has turns taken when somebody waits for one and nobody looks for work anyway, for as long as the daemon runs.
    pub(crate) async fn keep_turns(&self) {
        loop {
            poll_fn(|context| {
                if self.are_turns_awaited() {
                    return Poll::Ready(());
                }
                *self.0.turns.keeper.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            })
            .await;
            // The runtime asks the kernel who has input before it comes back here, and they are first.
            tokio::task::yield_now().await;
            if !self.due().is_attended() {
                self.call_next();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::pin::pin;
    use std::task::Context;

    use ipc_core::id::{Epoch, Handle};
    use ipc_core::identity::Identity;
    use ipc_core::limits::Limits;
    use ipc_core::wire::codec::Wire;
    use ipc_core::wire::message::{Hello, OnSlow, OpenTopic, Subscribe};
    use ipc_core::wire::{Decoder, Flags, FrameLimits, Header, Kind, WireError, encode_frame};

    use crate::broker::{Config, Policy, Transport};
    use crate::bus::link::Link;
    use crate::bus::timer::Timer;

    fn bus() -> Bus {
        let config = Config {
            limits: Limits::default(),
            policy: Policy::open(Vec::new()),
            epoch: Epoch(1),
            server: String::new(),
        };
        Bus::new(Broker::new(config), Rc::new(Timer::new().unwrap()))
    }

    /// A connection of that user, with the other end of it.
    fn connect(bus: &Bus, uid: u32) -> (PeerKey, Rc<Link>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let link = Rc::new(Link::new(ours.into(), None));
        let identity = Identity::Local { uid, gid: uid, pid: 1 };
        let key = bus.connect_socket(identity, Vec::new(), Transport::UnixStream, Rc::clone(&link)).unwrap();
        (key, link, theirs)
    }

    fn poll(future: std::pin::Pin<&mut impl Future>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn whoever_passes_comes_one_at_a_time_and_in_order() {
        let bus = bus();
        let (first, ..) = connect(&bus, 1);
        assert!(poll(pin!(bus.pass(None))), "nobody shares with anybody");
        let (second, ..) = connect(&bus, 2);
        let (mut one, mut two, mut three) =
            (pin!(bus.pass(None)), pin!(bus.pass(None)), pin!(bus.pass(None)));
        let mut all = || [poll(one.as_mut()), poll(two.as_mut()), poll(three.as_mut())];
        assert_eq!(all(), [false; 3]);
        bus.call_next();
        bus.call_next();
        let is_over = all();
        assert_eq!(is_over, [true, true, false]);
        assert!(bus.are_turns_awaited());
        // Nobody waits when there is nobody to wait for.
        bus.disconnect(second);
        assert!(poll(three.as_mut()));
        bus.disconnect(first);
        assert!(!bus.are_turns_awaited());
    }

    #[test]
    fn whoever_passes_often_does_not_go_before_others() {
        let bus = bus();
        let ((much, ..), (little, ..)) = (connect(&bus, 1), connect(&bus, 2));
        let mut many: Vec<_> = (0..9).map(|_| Box::pin(bus.pass(Some(much)))).collect();
        let called = many.iter_mut().filter_map(|pass| poll(pass.as_mut()).then_some(())).count();
        assert_eq!(called, 0);
        let mut one = pin!(bus.pass(Some(little)));
        assert!(!poll(one.as_mut()));
        bus.call_next();
        bus.call_next();
        assert!(poll(one.as_mut()), "it comes behind one of the other user");
        assert_eq!(many.iter_mut().filter_map(|pass| poll(pass.as_mut()).then_some(())).count(), 1);
    }

    #[test]
    fn whoever_does_not_wait_any_more_takes_nobodys_turn() {
        let bus = bus();
        let _both = (connect(&bus, 1), connect(&bus, 2));
        let mut stays = pin!(bus.pass(None));
        {
            let mut goes = pin!(bus.pass(None));
            assert!(!poll(goes.as_mut()) && !poll(stays.as_mut()));
        }
        bus.call_next();
        assert!(poll(stays.as_mut()));
        assert!(!bus.are_turns_awaited());
    }

    #[test]
    fn much_is_written_piece_by_piece_while_others_share_and_what_is_the_last_at_once() {
        let bus = bus();
        let (key, _, mut theirs) = connect(&bus, 1);
        let (other, ..) = connect(&bus, 2);
        theirs.set_nonblocking(true).unwrap();
        let hello = Hello { version_min: 1, version_max: 1, features: 0, name: "reader".into() };
        say(&bus, key, Header::new(Kind::HELLO), &hello, &[]);
        let (filter, on_slow) = ("big".into(), OnSlow::DropOldest);
        let subscribe = Subscribe { filter, on_slow, queue_events_max: 0, queue_bytes_max: 0 };
        say(&bus, key, Header::new(Kind::SUBSCRIBE).with_correlation(1), &subscribe, &[]);
        let handle = Handle { index: 0, generation: 1 };
        let open = Header::new(Kind::OPEN_TOPIC).with_correlation(2).with_handle(handle);
        say(&bus, key, open, &OpenTopic { topic: "big".into() }, &[]);
        let mut read = || theirs.read(&mut vec![0; 1 << 20]).unwrap_or(0);
        assert!(read() > 0, "welcome, and done");
        let publish = |bytes| {
            let header = Header { flags: Flags::ONEWAY, ..Header::new(Kind::PUBLISH) };
            say(&bus, key, header.with_handle(handle), &(), &vec![7; bytes]);
        };
        publish(3 * WRITE_MAX_BYTES / 2);
        assert_eq!(read(), WRITE_MAX_BYTES);
        publish(8);
        assert_eq!(read(), 0, "it stands in line");
        bus.call_next();
        let rest = read();
        assert!(rest > WRITE_MAX_BYTES / 2 && rest < WRITE_MAX_BYTES, "{rest}");
        assert!(!bus.are_turns_awaited());
        publish(4 * WRITE_MAX_BYTES);
        bus.turn(|broker, _| broker.handle_violation(key, WireError::Preamble));
        assert!(read() > 4 * WRITE_MAX_BYTES, "the last is not to be waited for");
        bus.disconnect(other);
        bus.call_next();
        assert!(!bus.are_turns_awaited());
    }

    fn say<T: Wire>(bus: &Bus, from: PeerKey, header: Header, envelope: &T, payload: &[u8]) {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, header, envelope, payload).unwrap();
        let mut decoder = Decoder::new(FrameLimits { payload_max_bytes: 1 << 20, frame_max_bytes: None });
        bus.turn(|broker, now| {
            broker.handle_frame(now, from, decoder.next(&mut &bytes[..]).unwrap().unwrap());
        });
    }
}
