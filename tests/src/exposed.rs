//! Exposed ports for end-to-end tests: a daemon that has one, and network clients of it. Every wait is bounded.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};

use crate::daemon::{Daemon, Options, PATIENCE};
use crate::services::{ask, bridge_number, wait_for_bridge};

/// A daemon with one exposed port.
#[derive(Debug)]
pub struct Exposed {
    /// The daemon.
    pub daemon: Daemon,
    /// The port.
    pub address: SocketAddr,
}

impl Exposed {
    /// A daemon that exposes `target`, which is `SERVICE/METHOD` with options, on a free TCP port; with `limits`, lines of
    /// the table of that name in its configuration.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start(target: &str, limits: &str) -> Self {
        Self::start_at("tcp:127.0.0.1:0", target, limits)
    }

    /// The same on a free UDP port.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start_udp(target: &str, limits: &str) -> Self {
        Self::start_at("udp:127.0.0.1:0", target, limits)
    }

    /// The same where `door` says.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start_at(door: &str, target: &str, limits: &str) -> Self {
        let options = Options {
            config: Some(format!("[limits]\n{limits}\n")),
            ..Options::with_arguments(["--expose".to_owned(), format!("{door}={target}")])
        };
        Self::of(Daemon::start_with(&options))
    }

    /// A daemon that was started with a port.
    ///
    /// # Panics
    /// When it has none.
    pub fn of(daemon: Daemon) -> Self {
        let status = ask(&daemon, "status", "").expect("the status");
        let exposed = status["addresses"].as_array().expect("a list").iter();
        let mut exposed = exposed
            .filter(|address| address["kind"].as_str().is_some_and(|kind| kind.starts_with("expose_")));
        let address = exposed.next().expect("the port is shown")["address"].as_str().expect("a text");
        Self { address: address.parse().expect("an address with a port"), daemon }
    }

    /// What the daemon says about the port: a number by name.
    ///
    /// # Panics
    /// When there is no such number.
    pub fn number(&self, name: &str) -> u64 {
        bridge_number(&self.daemon, name)
    }

    /// Waits until the daemon says so about the port.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_for(&self, name: &str, value: u64) {
        wait_for_bridge(&self.daemon, name, value);
    }

    /// A client of the TCP port.
    pub fn connect(&self) -> NetClient {
        NetClient::connect(self.address)
    }

    /// The same from that address of this machine.
    pub fn connect_from(&self, from: Ipv4Addr) -> NetClient {
        NetClient::connect_from(from, self.address)
    }

    /// A client of the UDP port, with a port of its own.
    pub fn datagrams(&self) -> UdpClient {
        UdpClient::new(self.address)
    }

    /// The same from that address of this machine.
    pub fn datagrams_from(&self, from: Ipv4Addr) -> UdpClient {
        UdpClient::new_from(from.into(), self.address)
    }
}

/// A client that sends datagrams and has never heard of the bus.
#[derive(Debug)]
pub struct UdpClient(pub UdpSocket);

impl UdpClient {
    /// A client of the server at `address`.
    ///
    /// # Panics
    /// When the system gives it no port.
    pub fn new(address: SocketAddr) -> Self {
        let this: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        Self::new_from(this[usize::from(address.is_ipv6())], address)
    }

    /// The same from that address of this machine.
    ///
    /// # Panics
    /// When the system gives it no port.
    pub fn new_from(from: IpAddr, address: SocketAddr) -> Self {
        let socket = UdpSocket::bind((from, 0)).expect("a free port");
        socket.connect(address).expect("the address is of the same family");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        Self(socket)
    }

    /// Sends one datagram.
    ///
    /// # Panics
    /// When the system does not take it.
    pub fn send(&self, datagram: impl AsRef<[u8]>) {
        self.0.send(datagram.as_ref()).expect("the system takes the datagram");
    }

    /// Receives one datagram.
    ///
    /// # Panics
    /// When none comes.
    pub fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        let length = self.0.recv(&mut buffer).expect("a datagram comes");
        buffer.truncate(length);
        buffer
    }

    /// Sends, and checks what comes back.
    ///
    /// # Panics
    /// When it is something else.
    pub fn exchange(&self, sent: &str, expected: &str) {
        self.send(sent);
        assert_eq!(String::from_utf8_lossy(&self.receive()), expected);
    }

    /// Whether nothing has come.
    ///
    /// # Panics
    /// When the socket is broken.
    pub fn has_nothing(&self) -> bool {
        self.0.set_nonblocking(true).expect("the mode can be set");
        let received = self.0.recv(&mut [0; 1]);
        self.0.set_nonblocking(false).expect("the mode can be set");
        matches!(received, Err(error) if error.kind() == ErrorKind::WouldBlock)
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
        Self::over(TcpStream::connect_timeout(&address, PATIENCE).expect("somebody listens"))
    }

    /// Connects from that address of this machine.
    ///
    /// # Panics
    /// When nobody listens, or it is no address of this machine.
    pub fn connect_from(from: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        rustix::net::bind(&socket, &SocketAddr::from((from, 0))).expect("an address of this machine");
        rustix::net::connect(&socket, &address).expect("somebody listens");
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
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
