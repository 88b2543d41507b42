//! Every operation over every family and type.

mod datagrams;
mod options;
mod streams;

use std::io::ErrorKind;
use std::time::Duration;

use super::*;

const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(30);

/// A place of each family, in a directory that lives as long. The third path is longer than a socket address.
struct Places {
    _directory: tempfile::TempDir,
    all: Vec<SocketAddress>,
}

impl Places {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let mut all: Vec<SocketAddress> = vec![
            directory.path().join("short").into(),
            deep.join("long").into(),
            "127.0.0.1:0".parse().unwrap(),
        ];
        // Some machines have no IPv6.
        let six: SocketAddress = "[::1]:0".parse().unwrap();
        if Listener::bind(&six).is_ok() {
            all.push(six);
        }
        Self { _directory: directory, all }
    }
}

fn connected(address: &SocketAddress) -> (Listener, Stream, Stream) {
    let listener = Listener::bind(address).unwrap();
    let client = Stream::connect(&listener.local_address().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (listener, client, server)
}

fn sockets(address: &SocketAddress) -> (Datagram, Datagram) {
    let receiver = Datagram::bound(address).unwrap();
    let local = receiver.local_address().unwrap();
    let mut sender = Datagram::unbound(local.family()).unwrap();
    assert_eq!(sender.connect_ex(&local), 0);
    (receiver, sender)
}

/// Sends until the kernel takes no more; says how much it took.
fn fill(stream: &Stream) -> usize {
    let mode = stream.mode().unwrap();
    stream.set_mode(Mode::NonBlocking).unwrap();
    let block = [7; 16 * 1024];
    let mut sent = 0;
    loop {
        match stream.send(&block) {
            Ok(count) => sent += count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    stream.set_mode(mode).unwrap();
    sent
}
