//! Our sockets beside Python's: each as server and as client of the other, over every family and type.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use ipc_core::transport::socket::option::SO_REUSEADDR;
use ipc_core::transport::socket::{Family, Half, Mode, SocketType};
use ipc_core::transport::{Datagram, Listener, Socket, SocketAddress, Stream};

const PATIENCE: Mode = Mode::Timeout(Duration::from_secs(30));

/// Says where it listens, then answers one message with its words in title case, and ends.
const SERVER: &str = "
import socket, sys
family, kind, address = getattr(socket, sys.argv[1]), getattr(socket, sys.argv[2]), sys.argv[3]
s = socket.socket(family, kind)
s.bind(address if family == socket.AF_UNIX else (address, 0))
if kind == socket.SOCK_STREAM:
    s.listen()
print(s.getsockname() if family == socket.AF_UNIX else s.getsockname()[1], flush=True)
if kind == socket.SOCK_STREAM:
    connection, _ = s.accept()
    with connection, connection.makefile('rw') as file:
        for line in file:
            file.write(line.title())
            file.flush()
else:
    data, sender = s.recvfrom(1024)
    s.sendto(data.title(), sender)
";

/// Sends what it is told and prints the answer.
const CLIENT: &str = "
import socket, sys
family, kind, address = getattr(socket, sys.argv[1]), getattr(socket, sys.argv[2]), sys.argv[3]
s = socket.socket(family, kind)
s.settimeout(30)
if kind == socket.SOCK_DGRAM and family == socket.AF_UNIX:
    s.bind('')
target = address if family == socket.AF_UNIX else (address, int(sys.argv[4]))
assert s.connect_ex(target) == 0
s.sendall(b'from python')
if kind == socket.SOCK_STREAM:
    s.shutdown(socket.SHUT_WR)
print(s.recv(1024).decode())
";

struct Python {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Python {
    fn start(script: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", script]).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 is installed");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the pipe can be read");
        line.trim_end().to_owned()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The families of this machine with an address to bind to, and what Python calls both.
fn places(directory: &std::path::Path, kind: &str) -> Vec<(SocketAddress, Vec<String>)> {
    let path = directory.join(kind);
    let mut places = vec![(path.as_path().into(), vec!["AF_UNIX".to_owned(), path.display().to_string()])];
    for (family, ip) in [("AF_INET", "127.0.0.1"), ("AF_INET6", "::1")] {
        let address: SocketAddress = std::net::SocketAddr::new(ip.parse().unwrap(), 0).into();
        // Some machines have no IPv6.
        if Datagram::bound(&address).is_ok() {
            places.push((address, vec![family.to_owned(), ip.to_owned()]));
        }
    }
    places
}

fn arguments<'a>(names: &'a [String], kind: &'a str) -> Vec<&'a str> {
    vec![&names[0], kind, &names[1]]
}

/// Where Python listens, from what it said.
fn target(place: &SocketAddress, said: &str) -> SocketAddress {
    match place {
        SocketAddress::Inet(address) => {
            std::net::SocketAddr::new(address.ip(), said.parse().expect("a port")).into()
        }
        path => path.clone(),
    }
}

/// What Python needs to reach `address`.
fn reached(names: &[String], kind: &str, address: &SocketAddress) -> Vec<String> {
    let mut arguments = vec![names[0].clone(), kind.to_owned(), names[1].clone()];
    if let SocketAddress::Inet(address) = address {
        arguments.push(address.port().to_string());
    }
    arguments
}

#[test]
fn our_stream_asks_a_python_server_line_by_line() {
    let directory = tempfile::tempdir().unwrap();
    for (place, names) in places(directory.path(), "stream") {
        let mut python = Python::start(SERVER, &arguments(&names, "SOCK_STREAM"));
        let stream = Stream::connect(&target(&place, &python.line())).unwrap();
        stream.set_mode(PATIENCE).unwrap();
        writeln!(&stream, "hello world").unwrap();
        let mut reader = stream.reader();
        let mut answer = String::new();
        reader.read_line(&mut answer).unwrap();
        assert_eq!(answer, "Hello World\n", "{place}");
        writeln!(&stream, "and again").unwrap();
        stream.shutdown(Half::Write).unwrap();
        answer.clear();
        reader.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "And Again\n", "{place}");
    }
}

#[test]
fn our_listener_serves_a_python_client() {
    let directory = tempfile::tempdir().unwrap();
    for (place, names) in places(directory.path(), "listener") {
        let listener = Listener::bind(&place).unwrap();
        listener.set_mode(PATIENCE).unwrap();
        assert_eq!(listener.option(SO_REUSEADDR).unwrap(), place.family() != Family::Unix);
        let arguments = reached(&names, "SOCK_STREAM", &listener.local_address().unwrap());
        let mut python = Python::start(CLIENT, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let (connection, _) = listener.accept().unwrap();
        let mut question = String::new();
        (&connection).read_to_string(&mut question).unwrap();
        connection.send_all(question.to_uppercase().as_bytes()).unwrap();
        assert_eq!(python.line(), "FROM PYTHON", "{place}");
    }
}

#[test]
fn our_datagrams_go_to_a_python_server_and_back() {
    let directory = tempfile::tempdir().unwrap();
    for (place, names) in places(directory.path(), "datagram") {
        let mut python = Python::start(SERVER, &arguments(&names, "SOCK_DGRAM"));
        let target = target(&place, &python.line());
        let own = if place.family() == Family::Unix { SocketAddress::Unnamed } else { place.clone() };
        let socket = Datagram::bound(&own).unwrap();
        socket.set_mode(PATIENCE).unwrap();
        assert_eq!(socket.socket_type().unwrap(), SocketType::Datagram);
        socket.send_to(b"hello world", &target).unwrap();
        let (bytes, arrival) = socket.receive_from(1024).unwrap();
        assert_eq!((&bytes[..], &arrival.sender), (&b"Hello World"[..], &target));
    }
}

#[test]
fn our_datagram_socket_answers_a_python_client() {
    let directory = tempfile::tempdir().unwrap();
    for (place, names) in places(directory.path(), "server") {
        let socket = Datagram::bound(&place).unwrap();
        socket.set_mode(PATIENCE).unwrap();
        let arguments = reached(&names, "SOCK_DGRAM", &socket.local_address().unwrap());
        let mut python = Python::start(CLIENT, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let mut buffer = [0; 5];
        let arrival = socket.receive_from_into(&mut buffer).unwrap();
        assert_eq!((&buffer, arrival.length, arrival.is_truncated()), (b"from ", 11, true));
        socket.send_to(b"cut off", &arrival.sender).unwrap();
        assert_eq!(python.line(), "cut off", "{place}");
    }
}
