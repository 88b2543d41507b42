//! An exposed port beside socat with fork, which joins a TCP port to an `AF_UNIX` socket without understanding either.
//!
//! Behind both is an echo: a service of the bus for the one, a thread that accepts for the other. One line of JSON for each
//! figure, medians of interleaved rounds. Run with
//! `cargo build --release --workspace && cargo bench -p ipc-tests --bench doors`.

#![allow(clippy::print_stdout, reason = "the figures are the output of this program")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipc_tests::daemon::eventually;
use ipc_tests::exposed::Exposed;
use ipc_tests::services::serve_echo;

const ROUNDS: usize = 5;
const CHUNK: usize = 64 * 1024;
/// Bytes sent in one round of the throughput, each of which comes back.
const ROUND_BYTES: usize = 512 << 20;
const SHORT: [u8; 64] = *b"a short question of sixty-four bytes, as a network client sends!";
const SHORT_TIME: Duration = Duration::from_secs(2);

fn main() {
    let exposed = Exposed::start("test.echo/echo", "");
    serve_echo(&exposed.daemon);
    let socat = Socat::start();
    compare("expose_throughput_64k", "MB/s", || throughput(exposed.address), || throughput(socat.address));
    compare("expose_short_connections", "1/s", || short(exposed.address), || short(socat.address));
}

/// Measures both in turn, and prints the medians and the median of the ratios of each round.
fn compare(name: &str, unit: &str, ours: impl Fn() -> f64, socat: impl Fn() -> f64) {
    let rounds: Vec<(f64, f64)> = (0..ROUNDS).map(|_| (ours(), socat())).collect();
    let of = |value: fn(&(f64, f64)) -> f64| median(rounds.iter().map(value).collect());
    let (ours, socat, ratio) = (of(|round| round.0), of(|round| round.1), of(|round| round.0 / round.1));
    println!(
        "{{\"name\":\"{name}\",\"unit\":\"{unit}\",\"rate\":{ours:.0},\"floor_rate\":{socat:.0},\"ratio\":{ratio:.2}}}"
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Megabytes a second through one connection that sends and receives at the same time.
fn throughput(address: SocketAddr) -> f64 {
    let mut receiving = TcpStream::connect(address).expect("somebody listens");
    let mut sending = receiving.try_clone().expect("a descriptor");
    let begun = Instant::now();
    let sender = std::thread::spawn(move || {
        let chunk = vec![7; CHUNK];
        for _ in 0..ROUND_BYTES / CHUNK {
            sending.write_all(&chunk).expect("the bytes are taken");
        }
        sending.shutdown(Shutdown::Write).expect("the connection is open");
    });
    let mut buffer = vec![0; CHUNK];
    let mut received = 0;
    loop {
        match receiving.read(&mut buffer).expect("the bytes come back") {
            0 => break,
            count => received += count,
        }
    }
    sender.join().expect("the sender ends");
    assert_eq!(received, ROUND_BYTES, "every byte comes back");
    ROUND_BYTES as f64 / begun.elapsed().as_secs_f64() / 1e6
}

/// Connections a second that ask one short question each.
fn short(address: SocketAddr) -> f64 {
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < SHORT_TIME {
        let mut stream = TcpStream::connect(address).expect("somebody listens");
        stream.write_all(&SHORT).expect("the question is taken");
        let mut answer = [0; SHORT.len()];
        stream.read_exact(&mut answer).expect("the answer comes");
        assert_eq!(answer, SHORT);
        count += 1;
    }
    f64::from(count) / begun.elapsed().as_secs_f64()
}

/// socat with an echo behind it.
struct Socat {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Socat {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("echo.sock");
        echo(&socket);
        // Free a moment ago; whoever else takes it meanwhile makes this run fail, and the next one not.
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let listen =
            format!("TCP-LISTEN:{},bind=127.0.0.1,reuseaddr,fork,nodelay,backlog=1024", address.port());
        let mut socat = Command::new("socat");
        socat.args(["-b", &CHUNK.to_string(), &listen, &format!("UNIX-CONNECT:{}", socket.display())]);
        let child = socat.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("socat is installed");
        assert!(eventually(|| TcpStream::connect(address).is_ok()), "socat listens");
        Self { child, address, _directory: directory }
    }
}

impl Drop for Socat {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends back what comes, in a thread for each connection, until the process ends.
fn echo(socket: &Path) {
    let listener = UnixListener::bind(socket).expect("the path is free");
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("a connection");
            std::thread::spawn(move || {
                let mut buffer = vec![0; CHUNK];
                while let Ok(count @ 1..) = connection.read(&mut buffer) {
                    if connection.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}
