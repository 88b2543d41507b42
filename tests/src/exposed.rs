//! Exposed ports for end-to-end tests: a daemon that has one, network clients of it, and services behind it. Every wait is
//! bounded.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use ipc_core::blocking::{Client, Service};
use ipc_core::identity::Identity;
use ipc_core::wire::codec::List;
use ipc_core::wire::message::{ErrorBody, MethodInfo, PeerInfo, Register, RegisterMode};
use ipc_core::wire::{Flags, Header, Kind};
use ipc_core::{Address, ConnectOptions, Error, ErrorCode};
use serde_json::Value;

use crate::daemon::{Daemon, Options, PATIENCE, eventually};
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

/// A daemon with one exposed port.
#[derive(Debug)]
pub struct Exposed {
    /// The daemon.
    pub daemon: Daemon,
    /// The port.
    pub address: SocketAddr,
}

impl Exposed {
    /// A daemon that exposes `target`, which is `SERVICE/METHOD` with options, on a free port; with `limits`, lines of the
    /// table of that name in its configuration.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start(target: &str, limits: &str) -> Self {
        let options = Options {
            config: Some(format!("[limits]\n{limits}\n")),
            ..Options::with_arguments(["--expose".to_owned(), format!("tcp:127.0.0.1:0={target}")])
        };
        let daemon = Daemon::start_with(&options);
        let status = ask(&daemon, "status", "").expect("the status");
        let exposed = status["addresses"].as_array().expect("a list").iter();
        let mut exposed = exposed.filter(|address| address["kind"] == "expose_tcp");
        let address = exposed.next().expect("the port is shown")["address"].as_str().expect("a text");
        Self { address: address.parse().expect("an address with a port"), daemon }
    }

    /// What the daemon says about the port: a number by name.
    ///
    /// # Panics
    /// When there is no such number.
    pub fn number(&self, name: &str) -> u64 {
        let rows = ask(&self.daemon, "bridge-list", "").expect("the bridges");
        rows[0][name].as_u64().unwrap_or_else(|| panic!("no number {name} in {rows}"))
    }

    /// Waits until the daemon says so about the port.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_for(&self, name: &str, value: u64) {
        let mut last = 0;
        let is_reached = eventually(|| {
            last = self.number(name);
            last == value
        });
        assert!(is_reached, "{name} is {last}, not {value}");
    }

    /// A client of the port.
    pub fn connect(&self) -> NetClient {
        NetClient::connect(self.address)
    }
}

/// A network client that has never heard of the bus.
#[derive(Debug)]
pub struct NetClient(pub TcpStream);

impl NetClient {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("somebody listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("the option can be set");
        Self(stream)
    }

    /// Sends.
    ///
    /// # Panics
    /// When the other end does not take it.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).expect("the daemon takes the bytes");
    }

    /// Says that nothing more comes.
    ///
    /// # Panics
    /// When the connection is gone.
    pub fn end(&mut self) {
        self.0.shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// Receives that many bytes.
    ///
    /// # Panics
    /// When fewer come.
    pub fn receive(&mut self, count: usize) -> String {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).expect("as many bytes come");
        String::from_utf8(bytes).expect("they are text")
    }

    /// Sends, and checks what comes back.
    ///
    /// # Panics
    /// When it is something else.
    pub fn exchange(&mut self, sent: &str, expected: &str) {
        self.send(sent);
        assert_eq!(self.receive(expected.len()), expected);
    }

    /// Receives until the other end closes.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection is not closed: {error}"),
        }
        bytes
    }

    /// Is gone from one moment to the next, as a machine that fails: the connection is reset.
    ///
    /// # Panics
    /// When the option cannot be set.
    pub fn vanish(self) {
        let at_once = Some(Duration::ZERO);
        rustix::net::sockopt::set_socket_linger(&self.0, at_once).expect("the option can be set");
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
