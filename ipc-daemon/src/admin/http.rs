//! The page for Prometheus over HTTP, on loopback, for servers that do not speak to the bus.
//!
//! Whoever reaches the port sees the numbers of all users, so it is open only where the configuration asks for it. A request
//! must name this machine as its host: a page in a browser that has its own name resolve to it (DNS rebinding) learns
//! nothing.

use core::future::Future;
use core::time::Duration;
use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use ipc_core::time::Instant;
use ipc_core::transport::clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use super::{Held, HeldSocket, ListenAddress, Sockets, metrics};
use crate::bus::Bus;

/// Longest head of a request, in bytes.
const HEAD_MAX_BYTES: usize = 8192;
/// Time for a request, and for taking the answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most connections at a time; more wait in the kernel.
const CONNECTIONS_MAX: usize = 16;
/// Pause after the system had no resource for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// A port that shows the page.
pub(crate) struct MetricsPort {
    listener: Rc<TcpListener>,
    address: SocketAddr,
    /// Those that are open, and some that have ended.
    connections: RefCell<Vec<Weak<TcpStream>>>,
}

impl MetricsPort {
    /// Listens.
    ///
    /// # Errors
    /// Those of bind(2).
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = Rc::new(TcpListener::from_std(listener)?);
        Ok(Self { listener, address, connections: RefCell::default() })
    }

    /// Answers for as long as the runtime runs.
    pub(crate) async fn serve(self: Rc<Self>, bus: Bus, started: Instant) {
        loop {
            if self.open().len() >= CONNECTIONS_MAX {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (bus, stream) = (bus.clone(), Rc::new(stream));
                    self.connections.borrow_mut().push(Rc::downgrade(&stream));
                    // It ends by itself, in bounded time; nobody waits for it.
                    drop(spawn_local(async move { answer(&bus, started, &stream).await }));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

impl MetricsPort {
    fn open(&self) -> Vec<Rc<TcpStream>> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| connection.strong_count() > 0);
        connections.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Sockets for MetricsPort {
    fn addresses(&self) -> Vec<ListenAddress> {
        vec![ListenAddress { kind: "metrics_http", address: self.address.to_string() }]
    }

    fn sockets(&self) -> Vec<HeldSocket> {
        let listener = Held::Plain(Rc::<TcpListener>::clone(&self.listener));
        let listener = HeldSocket { role: "metrics_listener", peer: None, socket: listener };
        let connections = self.open().into_iter().map(|stream| HeldSocket {
            role: "metrics_connection",
            peer: None,
            socket: Held::Plain(stream),
        });
        core::iter::once(listener).chain(connections).collect()
    }
}

async fn answer(bus: &Bus, started: Instant, stream: &TcpStream) {
    let Some(Ok(head)) = within(read_head(stream)).await else { return };
    let response = match judge(&head) {
        Ok(()) => {
            let status = bus.look(crate::broker::Broker::status);
            respond("200 OK", &metrics::page(&status, &bus.tally().by_name(), clock::now() - started))
        }
        Err(status) => respond(status, &format!("{status}\n")),
    };
    // Whoever does not take it has had the chance.
    let _ = within(write(stream, response.as_bytes())).await;
}

async fn within<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(TIMEOUT, work).await.ok()
}

/// Reads to the empty line that ends the head.
async fn read_head(stream: &TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        stream.readable().await?;
        match stream.try_read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => head.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if head.len() > HEAD_MAX_BYTES {
            return Err(ErrorKind::InvalidData.into());
        }
    }
    String::from_utf8(head).map_err(|_| ErrorKind::InvalidData.into())
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the request gets the page, or which status it gets instead.
fn judge(head: &str) -> Result<(), &'static str> {
    let mut lines = head.split("\r\n");
    let request: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let &[method, path, version] = &request[..] else { return Err("400 Bad Request") };
    if !version.starts_with("HTTP/1.") {
        return Err("400 Bad Request");
    }
    let hosts: Vec<&str> = lines
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map(|(_, host)| host.trim())
        .collect();
    match hosts[..] {
        [host] if is_this_machine(host) => {}
        [_] => return Err("403 Forbidden"),
        _ => return Err("400 Bad Request"),
    }
    match (method, path) {
        ("GET", "/metrics") => Ok(()),
        (_, "/metrics") => Err("405 Method Not Allowed"),
        _ => Err("404 Not Found"),
    }
}

/// Whether a `Host` names this machine, with a port or without.
fn is_this_machine(host: &str) -> bool {
    let is_port = |text: &str| {
        text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
    };
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| host.strip_prefix(name).is_some_and(is_port))
}

fn respond(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_for_the_page_of_this_machine_gets_it() {
        let ask = |line: &str, host: &str| judge(&format!("{line}\r\nAccept: */*\r\n{host}\r\n\r\n"));
        let get = "GET /metrics HTTP/1.1";
        for host in ["Host: localhost", "host: 127.0.0.1:9464", "HOST:[::1]:1"] {
            assert_eq!(ask(get, host), Ok(()), "{host}");
        }
        for (line, host, status) in [
            (get, "Host: evil.example", "403"),
            (get, "Host: localhost.evil.example", "403"),
            (get, "Host: 127.0.0.1:x", "403"),
            (get, "X: y", "400"),
            (get, "Host: localhost\r\nHost: localhost", "400"),
            ("GET / HTTP/1.1", "Host: localhost", "404"),
            ("POST /metrics HTTP/1.1", "Host: localhost", "405"),
            ("GET /metrics", "Host: localhost", "400"),
            ("GET /metrics SPDY/3", "Host: localhost", "400"),
        ] {
            assert!(ask(line, host).unwrap_err().starts_with(status), "{line} {host}");
        }
    }
}
