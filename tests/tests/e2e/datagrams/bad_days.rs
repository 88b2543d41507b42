//! Datagrams that are none, senders that are gone or somebody else, and what is sent again by others.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use ipc_core::Address;
use ipc_core::transport::datagrams;
use ipc_core::transport::unix::Trust;
use ipc_core::wire::Flags;
use ipc_core::wire::codec::List;
use ipc_core::wire::datagram::{
    CallNamed, Datagram, DatagramHeader, DatagramKind, encode_bare, encode_datagram,
};
use ipc_tests::daemon::{Daemon, Options, PATIENCE};
use ipc_tests::services::{RawService, ask, serve_echo};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::{addresses, connect, counter, daemon, wait_for};

/// A socket that speaks for itself.
pub(super) struct Raw {
    pub(super) socket: UnixDatagram,
    pub(super) known: DatagramHeader,
}

impl Raw {
    /// One that has said hello and read the challenge. UDP sockets are treated as what they are: descriptors.
    pub(super) fn greeted(address: &Address) -> Self {
        let mut raw = Self::connect(address);
        raw.socket.send(&encode_bare(raw.header(DatagramKind::Hello, 1))).unwrap();
        raw.known = raw.receive();
        assert_eq!(raw.known.kind, DatagramKind::Challenge);
        raw
    }

    fn connect(address: &Address) -> Self {
        let socket = UnixDatagram::from(datagrams::connect(address, &Trust::default()).unwrap());
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, known: DatagramHeader::new(DatagramKind::Hello) }
    }

    pub(super) fn header(&self, kind: DatagramKind, id: u64) -> DatagramHeader {
        DatagramHeader { kind, flags: Flags::NONE, number: 5_000_000, client: 7, id, ..self.known }
    }

    pub(super) fn call(&self, id: u64) -> Vec<u8> {
        self.call_with(id, b"x")
    }

    fn call_with(&self, id: u64, payload: &[u8]) -> Vec<u8> {
        let header = self.header(DatagramKind::Call, id);
        let named = CallNamed {
            service: "test.echo".into(),
            method: "echo".into(),
            traceparent: None,
            extensions: List::default(),
        };
        encode_datagram(header, &named, payload).unwrap()
    }

    pub(super) fn receive(&self) -> DatagramHeader {
        let mut buffer = [0; 70_000];
        let count = self.socket.recv(&mut buffer).unwrap();
        Datagram::parse(&buffer[..count]).unwrap().header
    }
}

#[test]
fn what_is_no_datagram_stops_nobody() {
    let daemon = daemon();
    serve_echo(&daemon);
    for (address, is_local) in addresses(&daemon).iter().zip([true, false]) {
        let raw = Raw::greeted(address);
        let good = raw.call(1);
        let trailing = [&good[..], &[0]].concat();
        let over = vec![0x89; 65_508];
        let mut bad: Vec<&[u8]> = vec![&[], &[0x89], &good[..47], &good[..good.len() - 1], &trailing];
        if is_local {
            // No more fits into one over UDP.
            bad.push(&over);
        }
        let before = counter(&daemon, "datagrams_malformed");
        for datagram in &bad {
            raw.socket.send(datagram).unwrap();
        }
        wait_for(&daemon, "datagrams_malformed", before + bad.len() as u64);
        raw.socket.send(&good).unwrap();
        assert_eq!(raw.receive().kind, DatagramKind::Reply);
        assert!(connect(address).call("test.echo", "echo", "").is_ok());
    }
}

#[test]
fn a_sender_without_an_address_is_heard_and_not_answered() {
    let daemon = daemon();
    serve_echo(&daemon);
    let unbound = UnixDatagram::unbound().unwrap();
    unbound.connect(daemon.datagram_socket()).unwrap();
    let raw = Raw::greeted(&addresses(&daemon)[0]);
    unbound.send(&raw.call(1)).unwrap();
    wait_for(&daemon, "datagrams_unaddressed", 1);
    assert_eq!(counter(&daemon, "calls_routed"), counter(&daemon, "replies_routed"), "nothing ran for it");
}

#[test]
fn a_sender_that_went_away_misses_its_answer() {
    let daemon = daemon();
    let mut service = RawService::register(&daemon, "test.echo", "echo");
    let raw = Raw::greeted(&addresses(&daemon)[0]);
    raw.socket.send(&raw.call(1)).unwrap();
    let call = service.call();
    drop(raw);
    service.reply(&call, b"nobody");
    wait_for(&daemon, "datagrams_undeliverable", 1);
}

#[test]
fn nobody_sends_in_anothers_name() {
    let daemon = daemon();
    let mut service = RawService::register(&daemon, "test.echo", "echo");
    for address in &addresses(&daemon) {
        let victim = Raw::greeted(address);
        let attacker = Raw::connect(address);
        // Everything that the victim knows, from another address; and the victim's own address without its cookie.
        let before = counter(&daemon, "datagrams_challenged");
        attacker.socket.send(&victim.call(1)).unwrap();
        assert_eq!(attacker.receive().kind, DatagramKind::Challenge);
        let mut guessed = victim.call(1);
        guessed[24] ^= 1;
        victim.socket.send(&guessed).unwrap();
        assert_eq!(victim.receive().kind, DatagramKind::Challenge);
        wait_for(&daemon, "datagrams_challenged", before + 2);
        // A recorded call, played again, has run and does not run again.
        let recorded = victim.call(1);
        victim.socket.send(&recorded).unwrap();
        let call = service.call();
        service.reply(&call, b"once");
        assert_eq!(victim.receive().kind, DatagramKind::Reply);
        for _ in 0..5 {
            victim.socket.send(&recorded).unwrap();
        }
        victim.socket.send(&victim.call_with(2, b"second")).unwrap();
        let next = service.call();
        assert_eq!(next.frame.body, b"second");
        service.reply(&next, b"twice");
    }
}

/// The kernel lets root alone say that somebody else sends.
#[test]
fn forged_credentials_are_refused_by_the_kernel_or_by_the_daemon() {
    let daemon = daemon();
    let raw = Raw::greeted(&addresses(&daemon)[0]);
    let forged = send_as(&raw.socket, &raw.call(1), 12_345);
    if rustix::process::geteuid().is_root() {
        forged.unwrap();
        wait_for(&daemon, "datagrams_refused_access", 1);
    } else {
        assert_eq!(forged.unwrap_err(), rustix::io::Errno::PERM);
    }
    assert_eq!(counter(&daemon, "datagrams_unverified"), 0);
}

fn send_as(socket: &UnixDatagram, datagram: &[u8], uid: u32) -> Result<(), rustix::io::Errno> {
    let credentials = rustix::net::UCred {
        pid: rustix::process::getpid(),
        uid: rustix::process::Uid::from_raw(uid),
        gid: rustix::process::getgid(),
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmCredentials(credentials)));
    rustix::net::sendmsg(socket, &[IoSlice::new(datagram)], &mut control, SendFlags::empty()).map(drop)
}

#[test]
fn descriptors_are_kept_out_or_closed() {
    let daemon = daemon();
    serve_echo(&daemon);
    let raw = Raw::greeted(&addresses(&daemon)[0]);
    let passenger: OwnedFd = UdpSocket::bind("127.0.0.1:0").unwrap().into();
    let descriptors = [passenger.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let sent =
        rustix::net::sendmsg(&raw.socket, &[IoSlice::new(&raw.call(1))], &mut control, SendFlags::empty());
    match sent {
        Err(errno) => assert_eq!(errno, rustix::io::Errno::PERM),
        Ok(_) => wait_for(&daemon, "datagrams_with_descriptors", 1),
    }
    raw.socket.send(&raw.call(1)).unwrap();
    assert_eq!(raw.receive().kind, DatagramKind::Reply);
}

/// Binds both kinds of sockets, sends a datagram before the daemon asks for credentials, and becomes the daemon.
const HAND_OVER: &str = "import os, socket, sys\n\
    stream, datagram = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
    stream.bind(sys.argv[1]); stream.listen(8); datagram.bind(sys.argv[2])\n\
    early = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
    early.sendto(b'early', sys.argv[2])\n\
    high = [os.dup(fd.fileno()) for fd in (stream, datagram)]\n\
    os.dup2(high[0], 3); os.dup2(high[1], 4)\n\
    [os.set_inheritable(fd, True) for fd in (3, 4)]\n\
    os.environ.update(LISTEN_FDS='2', LISTEN_PID=str(os.getpid()))\n\
    os.execv(sys.argv[3], sys.argv[3:])\n";

#[test]
fn sockets_that_are_handed_over_serve_and_keep_their_names() {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut launcher: Vec<_> = ["python3", "-c", HAND_OVER].map(Into::into).to_vec();
    launcher.extend([path("stream").into(), path("datagram").into()]);
    let daemon = Daemon::start_with(&Options { launcher, ..Options::default() });
    let stream = ipc_core::ConnectOptions::new().address(Address::Unix(path("stream")));
    let mut client = ipc_core::blocking::Client::connect(stream).unwrap();
    // What was sent before anybody asked who sends is nobody's.
    let status = |client: &mut ipc_core::blocking::Client| {
        let reply = client.call("ipc.daemon", "status", "").unwrap();
        serde_json::from_slice::<serde_json::Value>(&reply.payload.body).unwrap()
    };
    let unverified = |status: &serde_json::Value| status["counters"]["datagrams_unverified"].as_u64();
    assert!(ipc_tests::daemon::eventually(|| unverified(&status(&mut client)) == Some(1)));
    let shown = status(&mut client);
    let kinds: Vec<_> =
        shown["addresses"].as_array().unwrap().iter().map(|it| it["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["unix_stream", "unix_datagram"]);
    assert!(connect(&Address::Dgram(path("datagram"))).ping().is_ok());
    daemon.stop();
    assert!(path("stream").exists() && path("datagram").exists());
}

#[test]
fn the_socket_is_private_and_goes_with_the_daemon() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let runtime = directory.path().join("run");
    let options = Options { runtime_dir: Some(runtime.clone()), ..Options::default() };
    let daemon = Daemon::start_with(&options);
    let metadata = std::fs::symlink_metadata(daemon.datagram_socket()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    daemon.stop();
    assert_eq!(names(&runtime), ["bus.lock"]);
    // Anything else in its place is left alone.
    std::fs::write(runtime.join("bus.dgram"), "precious").unwrap();
    let ended = Daemon::try_start(&options).unwrap_err();
    assert_eq!(ended.status.code(), Some(74), "{}", ended.stderr);
    assert_eq!(std::fs::read_to_string(runtime.join("bus.dgram")).unwrap(), "precious");
    assert_eq!(names(&runtime), ["bus.dgram", "bus.lock"]);
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_daemon_that_stops_answers_what_is_open() {
    let daemon = daemon();
    let mut service = RawService::register(&daemon, "test.count", "never");
    let mut clients: Vec<_> = addresses(&daemon).iter().map(connect).collect();
    let calls: Vec<_> = clients
        .iter_mut()
        .map(|client| {
            let call =
                client.start_call("test.count", "never", "", ipc_core::CallOptions::default()).unwrap();
            client.flush().unwrap();
            call
        })
        .collect();
    service.call();
    service.call();
    assert!(ask(&daemon, "status", "").is_ok());
    let stopping = std::thread::spawn(move || daemon.stop());
    for (client, call) in clients.iter_mut().zip(calls) {
        assert_eq!(client.wait(call).unwrap_err().code, ipc_core::ErrorCode::ShuttingDown);
    }
    assert!(stopping.join().unwrap().status.success());
}
