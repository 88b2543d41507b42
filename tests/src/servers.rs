//! Servers of the network for end-to-end tests, which have never heard of the bus. Every wait is bounded.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipc_core::blocking::Client;
use ipc_core::{CallOptions, Error};

use crate::daemon::{Daemon, Options, PATIENCE, eventually, read_line};
use crate::services::{bridge_number, client, wait_for_bridge};

/// What the tutorials write: answers whatever one `recv` returns with its title case, again and again.
pub const PYTHON_TCP: &str = r#"
import socket, threading
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
def serve(connection):
    while data := connection.recv(1024):
        connection.sendall(data.title())
    connection.close()
while True:
    connection, _ = server.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
"#;

/// The same with datagrams.
pub const PYTHON_UDP: &str = r#"
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    data, address = server.recvfrom(1024)
    server.sendto(data.title(), address)
"#;

/// A program, mostly in Python, that serves, and has written its port to its standard output. It ends when this is dropped.
#[derive(Debug)]
pub struct Script {
    child: Child,
    /// The port.
    pub port: u16,
}

impl Script {
    /// Starts a program in Python.
    ///
    /// # Panics
    /// When it writes no port.
    pub fn python(program: &str) -> Self {
        Self::run("python3", program)
    }

    /// Starts a program of another interpreter that does the same.
    ///
    /// # Panics
    /// When it writes no port.
    pub fn run(interpreter: &str, program: &str) -> Self {
        let mut command = Command::new(interpreter);
        command.args(["-c", program]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the interpreter is needed");
        let line = read_line(child.stdout.take()).expect("the port");
        Self { child, port: line.trim().parse().expect("a number") }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A listening socket that a test serves by hand.
#[derive(Debug)]
pub struct Server(TcpListener);

impl Server {
    /// Listens on a free port.
    ///
    /// # Panics
    /// When there is none.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("the mode can be set");
        Self(listener)
    }

    /// Where it listens.
    ///
    /// # Panics
    /// Never: it is bound.
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("it is bound")
    }

    /// The next connection.
    ///
    /// # Panics
    /// When none comes.
    pub fn accept(&self) -> Accepted {
        let mut stream = None;
        eventually(|| {
            stream = self.0.accept().ok();
            stream.is_some()
        });
        let (stream, _) = stream.expect("somebody connects");
        stream.set_nonblocking(false).expect("the mode can be set");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        Accepted(stream)
    }

    /// Whether nobody waits to be accepted.
    pub fn is_alone(&self) -> bool {
        matches!(self.0.accept(), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

/// A connection to a [`Server`].
#[derive(Debug)]
pub struct Accepted(pub TcpStream);

impl Accepted {
    /// Receives exactly this.
    ///
    /// # Panics
    /// When something else comes.
    pub fn expect(&mut self, expected: &str) {
        let mut bytes = vec![0; expected.len()];
        self.0.read_exact(&mut bytes).expect("as many bytes come");
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }

    /// Receives until the other end has sent its last.
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
    pub fn end(&self) {
        self.0.shutdown(Shutdown::Write).expect("the connection is open");
    }
}

/// A daemon that forwards the service `test.net` to a server.
#[derive(Debug)]
pub struct Forwarded {
    /// The daemon.
    pub daemon: Daemon,
}

impl Forwarded {
    /// Starts a daemon that forwards to `server`, such as `tcp:127.0.0.1:9000,framing=line`; with `limits`, lines of the
    /// table of that name in its configuration.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start(server: &str, limits: &str) -> Self {
        let options = Options {
            config: Some(format!("[limits]\n{limits}\n")),
            ..Options::with_arguments(["--forward".to_owned(), format!("test.net={server}")])
        };
        Self { daemon: Daemon::start_with(&options) }
    }

    /// A client.
    pub fn client(&self) -> Client {
        client(&self.daemon)
    }

    /// Calls the server from another thread.
    pub fn call_later(&self, payload: &str) -> std::thread::JoinHandle<Result<String, Error>> {
        let (mut client, payload) = (self.client(), payload.to_owned());
        std::thread::spawn(move || send(&mut client, &payload, None))
    }

    /// What the daemon says about the forward: a number by name.
    ///
    /// # Panics
    /// When there is no such number.
    pub fn number(&self, name: &str) -> u64 {
        bridge_number(&self.daemon, name)
    }

    /// Waits until the daemon says so about the forward.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_for(&self, name: &str, value: u64) {
        wait_for_bridge(&self.daemon, name, value);
    }
}

/// Calls the server that `test.net` stands for.
///
/// # Errors
/// What the call came to instead.
pub fn send(client: &mut Client, payload: &str, deadline: Option<Duration>) -> Result<String, Error> {
    let options = CallOptions { deadline: deadline.or(Some(PATIENCE)), ..CallOptions::default() };
    let reply = client.call_with("test.net", "send", payload, options)?;
    Ok(String::from_utf8_lossy(&reply.payload.body).into_owned())
}

/// The code that the service itself has given an error, or else that of the bus.
pub fn code_of(error: &Error) -> &str {
    let own = error.detail.as_ref().and_then(|detail| detail.application_code.as_deref());
    own.unwrap_or(error.code.name())
}

/// How long something took.
pub fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    (what(), begun.elapsed())
}
