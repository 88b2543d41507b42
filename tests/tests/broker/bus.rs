//! A bus in memory, and people on it who speak in verbs: for scenes that read as a story.
//!
//! People are numbers, in the order they came. Every byte arrives at once, unless somebody stops reading; time passes
//! only when it is told to.

use core::time::Duration;

use ipc_core::id::Handle;
use ipc_core::limits::Limits;
use ipc_core::wire::codec::{List, Wire};
use ipc_core::wire::message::{
    ErrorBody, MethodInfo, NameChange, NameChanged, OnSlow, OpenTopic, Published, Register, RegisterMode,
    Registered, Resolve, Subscribe, Subscribed, WatchNames,
};
use ipc_core::wire::{Flags, Header, Kind};
use ipc_core::{Error, ErrorCode};
use ipc_tests::memory_bus::{MemoryBus, Received};
use ipc_tests::raw::greeting;

/// Somebody on the bus.
pub(crate) type Who = usize;

/// The one method of every service here.
pub(crate) const METHOD: &str = "m";

/// A bus in memory.
pub(crate) struct Bus {
    pub(crate) memory: MemoryBus,
    said: u64,
    bound: u32,
}

/// An event or a gap, as a subscriber gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Its number and what it says.
    Event(u64, String),
    /// The first and last number that is missing, and how many are.
    Gap(u64, u64, u64),
}

impl Bus {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        Self { memory: MemoryBus::new(limits), said: 0, bound: 0 }
    }

    /// So many people, all of one user.
    pub(crate) fn people<const COUNT: usize>(&mut self) -> [Who; COUNT] {
        core::array::from_fn(|_| self.arrives(1000))
    }

    /// A process of that user connects and says hello.
    pub(crate) fn arrives(&mut self, uid: u32) -> Who {
        let who = self.memory.connect(uid);
        self.memory.send(who, &greeting("somebody"));
        assert_eq!(self.memory.client(who).take(Kind::WELCOME).len(), 1);
        who
    }

    /// Sends a request under a new number, which is given back.
    pub(crate) fn say<T: Wire>(&mut self, who: Who, header: Header, envelope: &T, payload: &[u8]) -> u64 {
        self.said += 1;
        self.memory.say(who, header.with_correlation(self.said), envelope, payload);
        self.said
    }

    /// Sends a request and gives its answer.
    fn ask<T: Wire>(&mut self, who: Who, header: Header, envelope: &T) -> Result<Received, Error> {
        let said = self.say(who, header, envelope, b"");
        self.answer(who, said).expect("requests are answered at once")
    }

    /// The answer to a request, if it has come.
    pub(crate) fn answer(&mut self, who: Who, said: u64) -> Option<Result<Received, Error>> {
        let inbox = &mut self.memory.client(who).inbox;
        let at = inbox.iter().position(|frame| {
            let is_answer = [Kind::DONE, Kind::REPLY, Kind::PONG].contains(&frame.header.kind);
            is_answer && frame.header.correlation == said
        })?;
        let frame = inbox.remove(at);
        if frame.header.flags.contains(Flags::ERROR) {
            return Some(Err(frame.decode::<ErrorBody>().into()));
        }
        Some(Ok(frame))
    }

    /// Takes what has come of one kind.
    pub(crate) fn take(&mut self, who: Who, kind: Kind) -> Vec<Received> {
        self.memory.client(who).take(kind)
    }

    /// Whether the daemon has ended the connection.
    pub(crate) fn is_closed(&mut self, who: Who) -> bool {
        self.memory.client(who).is_closed
    }

    pub(crate) fn wait_ms(&mut self, millis: u64) {
        self.memory.wait(Duration::from_millis(millis));
    }

    /// From here on `who` reads nothing, and the kernel takes nothing more for it: what comes is queued at the daemon.
    pub(crate) fn stops_reading(&mut self, who: Who) {
        self.memory.client(who).reads = false;
        self.say(who, Header::new(Kind::PING), &(), b"");
    }

    /// It reads again, and gets what has waited.
    pub(crate) fn reads_again(&mut self, who: Who) {
        self.memory.resume(who);
    }

    /// Bytes that the daemon has queued for `who`.
    pub(crate) fn queued(&mut self, who: Who) -> usize {
        let key = self.memory.client(who).key();
        self.memory.broker.peers().iter().find(|row| row.key == key).map_or(0, |row| row.queued_bytes)
    }

    // Services.

    pub(crate) fn register(
        &mut self,
        who: Who,
        service: &str,
        mode: RegisterMode,
        queue: bool,
    ) -> Result<Registered, Error> {
        let methods = List(vec![MethodInfo { name: METHOD.into(), description: "".into() }]);
        let register = Register { service: service.into(), mode, queue, methods };
        Ok(self.ask(who, Header::new(Kind::REGISTER), &register)?.decode())
    }

    /// Registers a name of one's own, which must be free.
    pub(crate) fn serves(&mut self, who: Who, service: &str) -> u32 {
        let registered = self.register(who, service, RegisterMode::Exclusive, false);
        registered.expect("the name is free").registration
    }

    /// Registers as one of a group.
    pub(crate) fn joins(&mut self, who: Who, service: &str) -> u32 {
        let registered = self.register(who, service, RegisterMode::Group, false);
        registered.expect("the name is free, or a group's").registration
    }

    pub(crate) fn unregisters(&mut self, who: Who, registration: u32) {
        let handle = Handle { index: registration, generation: 0 };
        self.ask(who, Header::new(Kind::UNREGISTER).with_handle(handle), &()).expect("it was registered");
    }

    /// Binds a handle to the method of a service.
    pub(crate) fn resolve(&mut self, who: Who, service: &str, method: &str) -> Result<Handle, Error> {
        let handle = self.next_handle();
        let resolve = Resolve { service: service.into(), method: method.into() };
        self.ask(who, Header::new(Kind::RESOLVE).with_handle(handle), &resolve)?;
        Ok(handle)
    }

    /// A handle that nobody has bound. Numbers are used again when there are many, under another generation.
    fn next_handle(&mut self) -> Handle {
        self.bound += 1;
        Handle { index: self.bound % 32, generation: (self.bound / 32) as u16 + 1 }
    }

    /// Finds the service and calls it.
    pub(crate) fn calls(&mut self, who: Who, service: &str, payload: &str) -> u64 {
        let handle = self.resolve(who, service, METHOD).expect("the service is there");
        self.calls_through(who, handle, payload)
    }

    /// Calls through a handle that is bound already.
    pub(crate) fn calls_through(&mut self, who: Who, handle: Handle, payload: &str) -> u64 {
        self.say(who, Header::new(Kind::CALL).with_handle(handle), &(), payload.as_bytes())
    }

    /// Calls with so much time for it.
    pub(crate) fn calls_within_ms(&mut self, who: Who, handle: Handle, millis: u32) -> u64 {
        let header = Header { deadline_us: millis * 1000, ..Header::new(Kind::CALL).with_handle(handle) };
        self.say(who, header, &(), b"")
    }

    pub(crate) fn cancels(&mut self, who: Who, call: u64) {
        self.memory.say(who, Header::new(Kind::CANCEL).with_correlation(call), &(), b"");
    }

    /// The calls that have come to a service.
    pub(crate) fn calls_of(&mut self, who: Who) -> Vec<Received> {
        self.take(who, Kind::CALL)
    }

    /// The one call that has come to a service.
    pub(crate) fn call_of(&mut self, who: Who) -> Received {
        let mut calls = self.calls_of(who);
        assert_eq!(calls.len(), 1, "{calls:?}");
        calls.remove(0)
    }

    pub(crate) fn replies(&mut self, who: Who, call: &Received, payload: &str) {
        let header = Header::new(Kind::REPLY).with_correlation(call.header.correlation);
        self.memory.say(who, header, &(), payload.as_bytes());
    }

    /// Answers with an error of its own.
    pub(crate) fn fails(&mut self, who: Who, call: &Received, message: &str) {
        let header = Header::new(Kind::REPLY).with_correlation(call.header.correlation);
        let error = ErrorBody::from(&Error::new(ErrorCode::Application, message));
        self.memory.say(who, Header { flags: Flags::ERROR, ..header }, &error, b"");
    }

    /// What a call has come to, if it has.
    pub(crate) fn outcome(&mut self, who: Who, call: u64) -> Option<Result<String, ErrorCode>> {
        let answer = self.answer(who, call)?;
        Some(answer.map(|reply| text(&reply.payload)).map_err(|error| error.code))
    }

    // Names.

    pub(crate) fn watches(&mut self, who: Who, filter: &str) -> Result<u64, Error> {
        let answer = self.ask(who, Header::new(Kind::WATCH_NAMES), &WatchNames { filter: filter.into() })?;
        Ok(answer.header.correlation)
    }

    /// What a watcher has heard, in order.
    pub(crate) fn changes(&mut self, who: Who) -> Vec<(String, NameChange)> {
        let frames = self.take(who, Kind::NAME_CHANGED);
        let changes = frames.iter().map(|frame| frame.decode::<NameChanged>());
        changes.map(|changed| (changed.service.0, changed.change)).collect()
    }

    // Events.

    pub(crate) fn subscribes(&mut self, who: Who, filter: &str) -> Subscribed {
        self.subscribe(who, filter, 0, 0).expect("a filter")
    }

    /// Subscribes; the daemon keeps at most so many events and bytes of them.
    pub(crate) fn subscribe(
        &mut self,
        who: Who,
        filter: &str,
        queue_events_max: u32,
        queue_bytes_max: u32,
    ) -> Result<Subscribed, Error> {
        let on_slow = OnSlow::DropOldest;
        let subscribe = Subscribe { filter: filter.into(), on_slow, queue_events_max, queue_bytes_max };
        Ok(self.ask(who, Header::new(Kind::SUBSCRIBE), &subscribe)?.decode())
    }

    /// Binds a handle to a topic.
    pub(crate) fn opens(&mut self, who: Who, topic: &str) -> Result<Handle, Error> {
        let handle = self.next_handle();
        self.ask(who, Header::new(Kind::OPEN_TOPIC).with_handle(handle), &OpenTopic { topic: topic.into() })?;
        Ok(handle)
    }

    pub(crate) fn publishes(&mut self, who: Who, topic: Handle, payload: &str) -> Published {
        let header = Header::new(Kind::PUBLISH).with_handle(topic);
        let said = self.say(who, header, &(), payload.as_bytes());
        let answer = self.answer(who, said).expect("it is answered at once");
        answer.expect("it is taken").decode()
    }

    /// The events and gaps that a subscriber has received, in order.
    pub(crate) fn news(&mut self, who: Who) -> Vec<News> {
        let is_news = |frame: &mut Received| [Kind::EVENT, Kind::GAP].contains(&frame.header.kind);
        let frames: Vec<Received> = self.memory.client(who).inbox.extract_if(.., is_news).collect();
        let news = frames.iter().map(|frame| match frame.header.kind {
            Kind::EVENT => News::Event(frame.header.sequence, text(&frame.payload)),
            _ => {
                let gap = frame.decode::<ipc_core::wire::message::Gap>();
                News::Gap(gap.from, gap.to, gap.count)
            }
        });
        news.collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("what is said here is text")
}
