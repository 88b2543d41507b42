//! Services for end-to-end tests, and what tests ask a daemon. Every wait is bounded.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use ipc_core::blocking::{Client, Service};
use ipc_core::identity::Identity;
use ipc_core::wire::codec::List;
use ipc_core::wire::message::{ErrorBody, MethodInfo, PeerInfo, Register, RegisterMode};
use ipc_core::wire::{Flags, Header, Kind};
use ipc_core::{Address, ConnectOptions, Error, ErrorCode};
use serde_json::Value;

use crate::daemon::{Daemon, PATIENCE, Signal, eventually};
use crate::programs::program;
use crate::raw::{RawFrame, RawPeer, frame};

/// A client with a call timeout that no test waits for.
///
/// # Panics
/// When it cannot connect.
pub fn client(daemon: &Daemon) -> Client {
    let options = ConnectOptions::new().address(Address::Unix(daemon.socket())).call_timeout(PATIENCE);
    Client::connect(options).expect("the daemon lets its own user in")
}

/// What the daemon answers about itself.
///
/// # Errors
/// What it answers instead.
pub fn ask(daemon: &Daemon, method: &str, argument: &str) -> Result<Value, Error> {
    let reply = client(daemon).call("ipc.daemon", method, argument)?;
    Ok(serde_json::from_slice(&reply.payload.body).expect("the daemon answers in JSON"))
}

/// What the daemon says about its first bridge: a number by name.
///
/// # Panics
/// When there is no such number.
pub fn bridge_number(daemon: &Daemon, name: &str) -> u64 {
    let rows = ask(daemon, "bridge-list", "").expect("the bridges");
    rows[0][name].as_u64().unwrap_or_else(|| panic!("no number {name} in {rows}"))
}

/// Waits until the daemon says so about its first bridge.
///
/// # Panics
/// When it does not in time.
pub fn wait_for_bridge(daemon: &Daemon, name: &str, value: u64) {
    let mut last = 0;
    let is_reached = eventually(|| {
        last = bridge_number(daemon, name);
        last == value
    });
    assert!(is_reached, "{name} is {last}, not {value}");
}

/// The example `demo.title` as a process of its own; it ends when this is dropped.
#[derive(Debug)]
pub struct Title(Child);

impl Title {
    /// Starts the example and waits until its service is there.
    ///
    /// # Panics
    /// When it does not come.
    pub fn start(daemon: &Daemon) -> Self {
        let mut client = client(daemon);
        let watch = client.watch_names("demo.title").expect("names can be watched");
        let mut command = Command::new(program("examples/demo_title"));
        command.env("IPC_ADDRESS", daemon.address()).stdin(Stdio::null()).stderr(Stdio::null());
        let title = Self(command.spawn().expect("the example starts"));
        let event = client.next_name_event(&watch, PATIENCE).expect("the daemon is there");
        assert!(event.is_some(), "demo.title does not come");
        title
    }
}

impl Title {
    /// Sends the process a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).expect("the example can be signalled");
    }
}

impl Drop for Title {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves `service` in a thread until the daemon is gone. It has been registered when this returns.
///
/// # Panics
/// When it cannot be registered.
pub fn serve(daemon: &Daemon, service: Service) {
    let mut client = client(daemon);
    client.serve(service).expect("the name is free");
    // It ends with the daemon, and the test does not wait for that.
    drop(std::thread::spawn(move || client.run()));
}

/// Serves `test.echo/echo`, whose reply is what was sent, with its kind.
///
/// # Panics
/// When it cannot be registered.
pub fn serve_echo(daemon: &Daemon) {
    let service = Service::new("test.echo").expect("a name");
    serve(daemon, service.method("echo", |request| Ok(request.payload.clone())));
}

/// A service made of frames, for what no library would do.
#[derive(Debug)]
pub struct RawService {
    peer: RawPeer,
    callers: Vec<(u32, Identity)>,
}

/// A call to a [`RawService`].
#[derive(Clone, Debug)]
pub struct RawCall {
    /// Names the call.
    pub id: u64,
    /// The time left for it, in microseconds; 0 for no limit.
    pub deadline_us: u32,
    /// Who calls.
    pub caller: Identity,
    /// The frame.
    pub frame: RawFrame,
}

impl RawService {
    /// Registers a service with one method.
    ///
    /// # Panics
    /// When the daemon refuses.
    pub fn register(daemon: &Daemon, service: &str, method: &str) -> Self {
        let (mut peer, _) = RawPeer::greeted(&daemon.socket());
        let register = Register {
            service: service.into(),
            mode: RegisterMode::Exclusive,
            queue: false,
            methods: List(vec![MethodInfo { name: method.into(), description: "".into() }]),
        };
        peer.send(&frame(Header::new(Kind::REGISTER).with_correlation(1), &register, &[]));
        let done = peer.receive().expect("an answer");
        assert_eq!((done.header.kind, done.error()), (Kind::DONE, None));
        Self { peer, callers: Vec::new() }
    }

    fn receive(&mut self) -> RawFrame {
        loop {
            let frame = self.peer.receive().expect("the daemon is there");
            match frame.header.kind {
                Kind::PEER_ANNOUNCED => {
                    let identity = ipc_core::Peer::from(frame.decode::<PeerInfo>()).identity;
                    self.callers.retain(|(sender, _)| *sender != frame.header.sender);
                    self.callers.push((frame.header.sender, identity));
                }
                Kind::FORGET => {}
                _ => return frame,
            }
        }
    }

    /// The next call.
    ///
    /// # Panics
    /// When something else comes.
    pub fn call(&mut self) -> RawCall {
        let frame = self.receive();
        assert_eq!(frame.header.kind, Kind::CALL, "{frame:?}");
        let caller = self.callers.iter().find(|(sender, _)| *sender == frame.header.sender);
        let caller = caller.expect("the caller was announced").1.clone();
        RawCall { id: frame.header.correlation, deadline_us: frame.header.deadline_us, caller, frame }
    }

    /// Answers a call.
    pub fn reply(&mut self, call: &RawCall, payload: &[u8]) {
        self.peer.send(&frame(Header::new(Kind::REPLY).with_correlation(call.id), &(), payload));
    }

    /// Answers a call with an error of its own.
    pub fn fail(&mut self, call: &RawCall, message: &str) {
        let error = ErrorBody::from(&Error::new(ErrorCode::Application, message));
        let header = Header { flags: Flags::ERROR, ..Header::new(Kind::REPLY).with_correlation(call.id) };
        self.peer.send(&frame(header, &error, &[]));
    }

    /// Waits until the call is cancelled.
    ///
    /// # Panics
    /// When something else comes.
    pub fn cancelled(&mut self, call: &RawCall) {
        let frame = self.receive();
        assert_eq!((frame.header.kind, frame.header.correlation), (Kind::CANCEL, call.id), "{frame:?}");
    }
}

/// Somebody who has nothing to do with what goes wrong elsewhere: calls a service of its own, one call after the other, and
/// each must be answered.
#[derive(Debug)]
pub struct Witness {
    calls: Arc<AtomicU64>,
    is_stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    /// Calls until this is dropped.
    pub fn start(daemon: &Daemon) -> Self {
        let service = Service::new("test.witness").expect("a name");
        serve(daemon, service.method("echo", |request| Ok(request.payload.clone())));
        let mut client = client(daemon);
        let (calls, is_stopped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (Arc::clone(&calls), Arc::clone(&is_stopped));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let text = counted.load(Ordering::Relaxed).to_string();
                let reply =
                    client.call("test.witness", "echo", text.as_str()).expect("a witness is answered");
                assert_eq!(reply.payload.as_text(), Ok(&*text));
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { calls, is_stopped, thread: Some(thread) }
    }

    /// Waits until the witness has been answered a hundred times more.
    ///
    /// # Panics
    /// When that does not happen in time.
    pub fn goes_on(&self) {
        let before = self.calls.load(Ordering::Relaxed);
        let goes_on = eventually(|| self.calls.load(Ordering::Relaxed) >= before + 100);
        assert!(goes_on, "the witness is held up after {before} calls");
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the witness was not answered");
        }
    }
}
