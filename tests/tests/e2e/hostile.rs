//! Clients that mean harm, many of them, against a real daemon. Beside them goes somebody who means none: it must be served
//! all the while, and the daemon must be afterwards as it was before.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ipc_core::ErrorCode;
use ipc_core::wire::{Header, Kind};
use ipc_tests::daemon::{Daemon, Options, PATIENCE, eventually};
use ipc_tests::exposed::{NetClient, UdpClient};
use ipc_tests::golden_datagrams;
use ipc_tests::raw::{RawPeer, frame, greeting};
use ipc_tests::rng::{Rng, amount, seeds};
use ipc_tests::services::{Witness, ask, serve_echo};
use ipc_tests::transcript::{Step, parse};
use rustix::net::SendFlags;
use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

/// Memory that may have come to stay.
const GROWTH_MAX_BYTES: u64 = 10 << 20;
/// What no round trip of a bystander may take.
const PATIENCE_OF_A_BYSTANDER: Duration = Duration::from_secs(2);

/// What each client of the recorded conversations has sent, frame by frame, with the preamble.
fn recorded() -> Vec<Vec<Vec<u8>>> {
    let mut sessions: Vec<(String, Vec<Vec<u8>>)> = Vec::new();
    for name in ["first_conversation.txt", "second_conversation.txt"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
        for step in parse(&std::fs::read_to_string(path).unwrap()).unwrap() {
            let Step::Send(client, bytes) = step else { continue };
            let client = format!("{name} {client}");
            match sessions.iter_mut().find(|(known, _)| *known == client) {
                Some((_, frames)) => frames.push(bytes),
                None => sessions.push((client, vec![bytes])),
            }
        }
    }
    sessions.into_iter().map(|(_, frames)| frames).collect()
}

/// One of the sessions with some of its frames changed, doubled, left out, or in another order.
fn mutated(rng: &mut Rng, sessions: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let mut frames = rng.pick(sessions).clone();
    // Mostly what comes after the hello, or else all would end there.
    let first = if rng.chance(1, 10) { 0 } else { 2.min(frames.len() - 1) };
    for _ in 0..rng.between(1, 3) {
        let at = first + rng.index(frames.len() - first);
        match rng.below(6) {
            0 => {
                let other = rng.pick(sessions).clone();
                let alien = rng.pick(&other).clone();
                frames.insert(at, alien);
            }
            1 => {
                let to = first + rng.index(frames.len() - first);
                frames.swap(at, to);
            }
            2 if frames.len() > first + 1 => drop(frames.remove(at)),
            _ => rng.mutate(&mut frames[at]),
        }
    }
    frames.concat()
}

/// The same over TCP. What goes wrong on the way is the attacker's own business.
fn attack_over_tcp(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    // Ends with a reset, so that no port is kept for a minute.
    set_socket_linger(&stream, Some(Duration::ZERO)).expect("a socket");
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read(&mut [0; 4096]);
}

/// Sends it all, and goes when the daemon has said something to it, or has closed the connection.
fn attack(socket: &Path, bytes: &[u8]) {
    let mut peer = RawPeer::connect(socket);
    peer.try_send(bytes);
    // It may be closed already.
    let _ = peer.stream().shutdown(Shutdown::Write);
    peer.receive_bytes();
}

/// Where the daemon listens, for that kind of address.
fn address_of(daemon: &Daemon, kind: &str) -> String {
    let status = ask(daemon, "status", "").unwrap();
    let addresses = status["addresses"].as_array().expect("a list");
    let found = addresses.iter().find(|address| address["kind"] == kind).expect("it listens there");
    found["address"].as_str().expect("a text").to_owned()
}

/// Round trips of a bystander for as long as `work` takes; gives the longest.
fn beside<T>(socket: &Path, work: impl FnOnce() -> T) -> (T, Duration) {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let bystander = scope.spawn(|| {
            let (mut peer, _) = RawPeer::greeted(socket);
            let mut longest = Duration::ZERO;
            for correlation in 1.. {
                let begun = Instant::now();
                peer.ping(correlation);
                longest = longest.max(begun.elapsed());
                if is_done.load(Ordering::Relaxed) {
                    break;
                }
            }
            longest
        });
        let done = work();
        is_done.store(true, Ordering::Relaxed);
        (done, bystander.join().expect("the bystander is served"))
    })
}

#[test]
fn changed_sessions_hurt_nobody_and_leave_nothing() {
    let network = "tcp = \"127.0.0.1:0\"\n[remote]\nallow = [\"resolve,call,publish,subscribe >\"]\n";
    let daemon = Daemon::start_with(&Options::with_config(network));
    let socket = daemon.socket();
    let tcp = address_of(&daemon, "tcp");
    let sessions = recorded();
    assert!(sessions.len() >= 4, "{}", sessions.len());
    let first = seeds(1, 1).start;
    let run = |seed: u64, count: u64| {
        let mut rng = Rng::new(seed);
        for number in 0..count {
            let bytes = mutated(&mut rng, &sessions);
            match number % 10 {
                0 => attack_over_tcp(&tcp, &bytes),
                _ => attack(&socket, &bytes),
            }
        }
    };
    // What is allocated once is allocated by then.
    run(first, 2_000);
    let quiet = || eventually(|| daemon.open_files() <= 64);
    assert!(quiet());
    let (files, memory) = (daemon.open_files(), daemon.resident_bytes());
    let total = amount(50_000, 2_000_000);
    let ((), longest) = beside(&socket, || {
        std::thread::scope(|scope| {
            let attackers: Vec<_> = (1..=2)
                .map(|half| scope.spawn(move || run(first.wrapping_mul(3).wrapping_add(half), total / 2)))
                .collect();
            attackers.into_iter().for_each(|attacker| attacker.join().expect("an attacker is served"));
        });
    });
    assert!(longest < PATIENCE_OF_A_BYSTANDER, "a bystander waited {longest:?}; first seed {first}");
    assert!(
        eventually(|| daemon.open_files() <= files),
        "{} descriptors, {files} before",
        daemon.open_files()
    );
    let grown = daemon.resident_bytes().saturating_sub(memory);
    assert!(grown <= GROWTH_MAX_BYTES, "{grown} bytes more; first seed {first}");
    assert!(!daemon.log().contains("panic"), "{}", daemon.log());
    assert_eq!(daemon.stop().status.code(), Some(0));
}

/// Changed datagrams over both sockets for them. Over UDP never more comes back than was sent: nobody here has shown that
/// its address is its own.
#[test]
fn changed_datagrams_hurt_nobody_and_are_no_lever() {
    let network = "udp = \"127.0.0.1:0\"\n[remote]\nallow = [\"resolve,call,publish,subscribe >\"]\n";
    let daemon = Daemon::start_with(&Options::with_config(network));
    let udp = address_of(&daemon, "udp");
    let directory = tempfile::tempdir().unwrap();
    let local = UnixDatagram::bind(directory.path().join("a")).unwrap();
    let remote = UdpSocket::bind("127.0.0.1:0").unwrap();
    local.set_nonblocking(true).unwrap();
    remote.set_nonblocking(true).unwrap();
    let vectors = golden_datagrams::vectors();
    let first = seeds(1, 1).start;
    let (files, memory) = (daemon.open_files(), daemon.resident_bytes());
    let ((sent, received), longest) = beside(&daemon.socket(), || {
        let mut rng = Rng::new(first);
        let (mut sent, mut received) = (0, 0);
        let mut buffer = [0; 65_536];
        for _ in 0..amount(20_000, 500_000) {
            let mut bytes = rng.pick(&vectors).bytes.clone();
            if !rng.chance(1, 20) {
                rng.mutate(&mut bytes);
            }
            // A full queue drops, as it may.
            let _ = local.send_to(&bytes, daemon.datagram_socket());
            sent += remote.send_to(&bytes, &udp).unwrap_or(0);
            while local.recv(&mut buffer).is_ok() {}
            while let Ok(count) = remote.recv(&mut buffer) {
                received += count;
            }
        }
        (sent, received)
    });
    assert!(sent > 0 && received <= sent, "{received} bytes came back for {sent}; seed {first}");
    assert!(longest < PATIENCE_OF_A_BYSTANDER, "a bystander waited {longest:?}; seed {first}");
    assert!(
        eventually(|| daemon.open_files() <= files),
        "{} descriptors, {files} before",
        daemon.open_files()
    );
    let grown = daemon.resident_bytes().saturating_sub(memory);
    assert!(grown <= GROWTH_MAX_BYTES, "{grown} bytes more; seed {first}");
    assert_eq!(daemon.stop().status.code(), Some(0));
}

/// One client of a plain port that misbehaves, and is gone when this returns.
fn misbehave_at_port(rng: &mut Rng, tcp: &str) {
    let mut stream = TcpStream::connect(tcp).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let how = rng.below(4);
    if how > 0 {
        // Ends with a reset.
        set_socket_linger(&stream, Some(Duration::ZERO)).expect("a socket");
    }
    let length = rng.length(100_000);
    match how {
        // Half a request, and then the end; whatever is due to it is read.
        0 => {
            let _ = stream.write_all(&rng.bytes(length));
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
        // Asks and asks, and reads nothing.
        1 => {
            stream.set_nonblocking(true).expect("a socket");
            while stream.write(&[b'x'; 4096]).is_ok() {}
        }
        2 => {
            let _ = rustix::net::send(&stream, b"!", SendFlags::OOB | SendFlags::NOSIGNAL);
        }
        _ => {
            let _ = stream.write_all(&rng.bytes(length));
        }
    }
}

/// One that sends datagrams to a plain port: empty ones, short ones, the longest.
fn misbehave_with_datagrams(rng: &mut Rng, udp: &str) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    for _ in 0..rng.between(1, 20) {
        let length = *rng.pick(&[0, 1, 100, 65_507]);
        // The kernel may have no room for it.
        let _ = socket.send_to(&rng.bytes(length), udp);
    }
}

/// A datagram that the kernel has room for is answered.
fn assert_answers(port: SocketAddr) {
    let client = UdpClient::new(port);
    client.0.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    loop {
        let before = dropped_by_kernel(port);
        client.send("still there?");
        let mut answer = [0; 64];
        match client.0.recv(&mut answer) {
            Ok(length) => return assert_eq!(&answer[..length], b"still there?"),
            // What came before it may still fill the socket.
            Err(_) => assert!(dropped_by_kernel(port) > before, "it was taken in, and not answered"),
        }
    }
}

/// Datagrams to that port of 127.0.0.1 that did not fit into its socket (proc_net_udp(5)).
fn dropped_by_kernel(port: SocketAddr) -> u64 {
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let local = format!("0100007F:{:04X}", port.port());
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_port = fields.into_iter().find(|fields| fields[1] == local).expect("it is bound");
    of_port.last().and_then(|dropped| dropped.parse().ok()).expect("a number")
}

/// One client that misbehaves, and is gone when this returns.
fn misbehave(rng: &mut Rng, socket: &Path, sessions: &[Vec<Vec<u8>>]) {
    match rng.below(7) {
        0 => drop(RawPeer::connect(socket)),
        1 => {
            let mut peer = RawPeer::connect(socket);
            let bytes = greeting("half");
            peer.try_send(&bytes[..rng.index(bytes.len())]);
        }
        2 => {
            // Fills what the daemon reads and is gone.
            let mut peer = RawPeer::connect(socket);
            peer.try_send(&greeting("fill"));
            let ping = frame(Header::new(Kind::PING).with_correlation(1), &(), &[7; 4096]);
            for _ in 0..rng.between(1, 64) {
                if !peer.try_send(&ping) {
                    break;
                }
            }
        }
        3 => {
            // Does not read what it asks for.
            let mut peer = RawPeer::connect(socket);
            peer.try_send(&greeting("deaf"));
            peer.stream().set_nonblocking(true).expect("a socket");
            let ping = frame(Header::new(Kind::PING).with_correlation(1), &(), &[7; 4096]);
            for _ in 0..500 {
                if peer.stream().write(&ping).is_err() {
                    break;
                }
            }
        }
        4 => {
            // Out of band, which the daemon does not know of.
            let mut peer = RawPeer::connect(socket);
            peer.try_send(&greeting("band"));
            // A kernel without it refuses.
            let _ = rustix::net::send(peer.stream(), b"!", SendFlags::OOB | SendFlags::NOSIGNAL);
            let _ = peer.stream().shutdown(Shutdown::Write);
            peer.receive_bytes();
        }
        5 => {
            let mut peer = RawPeer::connect(socket);
            let length = rng.length(20_000);
            peer.try_send(&rng.bytes(length));
        }
        _ => attack(socket, &mutated(rng, sessions)),
    }
}

#[test]
fn a_storm_of_clients_that_misbehave_passes() {
    let config = "expose = [\"tcp:127.0.0.1:0=test.echo/echo\", \"udp:127.0.0.1:0=test.echo/echo\"]\n\
                  tcp = \"127.0.0.1:0\"\n[metrics]\nhttp = \"127.0.0.1:0\"\n";
    let daemon = Daemon::start_with(&Options::with_config(config));
    serve_echo(&daemon);
    let socket = daemon.socket();
    let ports = ["expose_tcp", "tcp", "metrics_http"].map(|kind| address_of(&daemon, kind));
    let udp = address_of(&daemon, "expose_udp");
    let sessions = recorded();
    let first = seeds(1, 1).start;
    let files = daemon.open_files();
    let ((), longest) = beside(&socket, || {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (socket, sessions, ports, udp) = (&socket, &sessions, &ports, &udp);
                scope.spawn(move || {
                    let mut rng = Rng::new(first.wrapping_mul(5).wrapping_add(thread));
                    for _ in 0..amount(300, 20_000) {
                        match rng.below(10) {
                            0..=1 => {
                                let port = rng.index(ports.len());
                                misbehave_at_port(&mut rng, &ports[port]);
                            }
                            2 => misbehave_with_datagrams(&mut rng, udp),
                            _ => misbehave(&mut rng, socket, sessions),
                        }
                    }
                });
            }
        });
    });
    assert!(longest < PATIENCE_OF_A_BYSTANDER, "a bystander waited {longest:?}; first seed {first}");
    assert!(
        eventually(|| daemon.open_files() <= files),
        "{} descriptors, {files} before",
        daemon.open_files()
    );
    let before = daemon.cpu_time();
    assert_answers(udp.parse().unwrap());
    NetClient::connect(ports[0].parse().unwrap()).exchange("and you?", "and you?");
    let (mut last, _) = RawPeer::greeted(&socket);
    for correlation in 0..100 {
        last.ping(correlation);
    }
    let after = daemon.cpu_time() - before;
    assert!(after < Duration::from_millis(500), "it is still busy with something: {after:?}");
    assert_eq!(daemon.stop().status.code(), Some(0));
}

/// The file table of a daemon that runs is made too small for what comes, and large again.
#[test]
fn a_file_table_that_shrinks_under_the_daemon_refuses_by_name_and_recovers() {
    let daemon = Daemon::start();
    let witness = Witness::start(&daemon);
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
    let held: Vec<RawPeer> = (0..20).map(|_| RawPeer::greeted(&daemon.socket()).0).collect();
    // The daemon has it from here; whoever lowers it cannot raise it again without being privileged.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let small = Rlimit { current: Some(daemon.open_files() as u64), maximum };
    let before = prlimit(pid, Resource::Nofile, small).expect("it is ours");
    let mut more = Vec::new();
    let refused = (0..10).find_map(|_| {
        let mut peer = RawPeer::connect(&daemon.socket());
        peer.try_send(&greeting("one more"));
        let answer = peer.receive();
        more.push(peer);
        answer.filter(|answer| answer.header.kind == Kind::CLOSE).map(|answer| answer.close_reason())
    });
    let (code, message) = refused.expect("there is no room for another");
    assert_eq!(code, ErrorCode::QuotaExceeded, "{message}");
    assert!(message.contains("cannot accept"), "{message}");
    witness.goes_on();
    prlimit(pid, Resource::Nofile, before).expect("it is ours");
    RawPeer::greeted(&daemon.socket()).0.ping(1);
    drop((held, more));
    witness.goes_on();
}

#[test]
fn hundreds_who_say_nothing_are_closed_and_keep_nobody_out() {
    let limits = "[limits]\nhello_timeout_ms = 200\nunauthenticated_per_uid_max = 100000\n";
    let daemon = Daemon::start_with(&Options::with_config(limits));
    let witness = Witness::start(&daemon);
    let files = daemon.open_files();
    let silent: Vec<RawPeer> = (0..300).map(|_| RawPeer::connect(&daemon.socket())).collect();
    witness.goes_on();
    RawPeer::greeted(&daemon.socket()).0.ping(1);
    // They are still there; the daemon has let go of them.
    assert!(eventually(|| daemon.open_files() <= files), "{} descriptors", daemon.open_files());
    drop(silent);
}
