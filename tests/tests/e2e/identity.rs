//! Who somebody is, is what the kernel said when it connected, or sent: numbers that come again change nothing about it.

use std::io::{IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ipc_core::blocking::{Client, Service};
use ipc_core::id::Handle;
use ipc_core::wire::message::{OpenTopic, Resolve};
use ipc_core::wire::{Header, Kind};
use ipc_core::{Address, ConnectOptions, Error, ErrorCode};
use ipc_tests::daemon::{Daemon, PATIENCE};
use ipc_tests::raw::{RawPeer, frame, greeting};
use ipc_tests::services::{ask, serve};
use ipc_tests::users::{STRANGERS, as_user, can_switch, shared_bus};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use tempfile::TempDir;

const ALICE: u32 = STRANGERS[0];
const BOB: u32 = STRANGERS[1];
const STAFF: u32 = 3_000_000;

/// A daemon that every user reaches, with these rules.
fn shared(rules: &[&str]) -> (Daemon, TempDir) {
    let rules: Vec<String> = rules.iter().map(|rule| format!("{rule:?},")).collect();
    let config = format!("[socket]\nmode = \"0666\"\n[policy]\nrules = [{}]\n", rules.concat());
    shared_bus(&config)
}

/// Connects as that user, hands the connection over its standard input, and waits to be told to end.
const CONNECTOR: &str = "import os, socket, sys\n\
    uid = int(sys.argv[2])\n\
    os.setgroups([]); os.setgid(uid); os.setuid(uid)\n\
    bus = socket.socket(socket.AF_UNIX)\n\
    bus.connect(sys.argv[1])\n\
    out = socket.socket(fileno=0)\n\
    socket.send_fds(out, [b'!'], [bus.fileno()])\n\
    bus.close()\n\
    out.recv(1)\n";

/// A process that has connected, and its connection.
struct Connected {
    child: Child,
    control: UnixStream,
}

impl Connected {
    fn start(socket: &Path, uid: u32) -> Self {
        let (control, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new("python3");
        command.args(["-c", CONNECTOR]).arg(socket).arg(uid.to_string());
        let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn().expect("python3 is installed");
        Self { child, control }
    }

    /// The connection, which is its process's and nobody else's.
    fn connection(&self) -> RawPeer {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut parts = [IoSliceMut::new(&mut byte)];
        rustix::net::recvmsg(&self.control, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let mut sent = control.drain().filter_map(|part| match part {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        });
        let connection = sent.next().and_then(|mut rights| rights.next()).expect("the connection was sent");
        let mut peer = RawPeer::over(connection);
        peer.send(&greeting("passed on"));
        assert_eq!(peer.receive().expect("a welcome").header.kind, Kind::WELCOME);
        peer
    }

    /// Lets the process end, and waits until its number is free.
    fn end(mut self) {
        self.control.write_all(b"!").unwrap();
        self.child.wait().unwrap();
    }
}

/// A process of that number, if this user may choose one and nobody is faster.
fn with_pid(pid: u32, socket: &Path, uid: u32) -> Option<Connected> {
    for _ in 0..200 {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).ok()?;
        let started = Connected::start(socket, uid);
        if started.child.id() == pid {
            return Some(started);
        }
        // It has connected, or finds nobody who takes the connection.
        let mut started = started;
        started.child.kill().unwrap();
        started.child.wait().unwrap();
    }
    None
}

fn may_publish(peer: &mut RawPeer, topic: &str) -> bool {
    let header = Header::new(Kind::OPEN_TOPIC).with_correlation(3);
    let header = header.with_handle(Handle { index: 1, generation: 1 });
    peer.send(&frame(header, &OpenTopic { topic: topic.into() }, &[]));
    peer.receive().expect("an answer").error().is_none()
}

#[test]
fn a_process_number_that_comes_again_brings_no_rights_and_takes_none() {
    if !can_switch() {
        return;
    }
    let rules = [
        "allow uid:0 * >",
        &format!("allow uid:{ALICE} publish a.>"),
        &format!("allow uid:{BOB} publish b.>"),
    ];
    let (daemon, _directory) = shared(&rules);
    let first = Connected::start(&daemon.socket(), ALICE);
    let pid = first.child.id();
    let mut of_alice = first.connection();
    first.end();
    let Some(second) = with_pid(pid, &daemon.socket(), BOB) else {
        eprintln!("left out: process numbers cannot be chosen here");
        return;
    };
    let mut of_bob = second.connection();
    let peers = ask(&daemon, "list", "peers").unwrap();
    let uids: Vec<u64> = peers
        .as_array()
        .unwrap()
        .iter()
        .filter(|peer| peer["pid"] == pid)
        .map(|peer| peer["uid"].as_u64().unwrap())
        .collect();
    assert_eq!(uids, [u64::from(ALICE), u64::from(BOB)], "{peers}");
    assert!(may_publish(&mut of_alice, "a.x") && !may_publish(&mut of_alice, "b.x"));
    assert!(may_publish(&mut of_bob, "b.x") && !may_publish(&mut of_bob, "a.x"));
    second.end();
    assert!(may_publish(&mut of_alice, "a.y"), "the connection is a capability that outlives its process");
}

/// Asks for a port to be opened, and is gone: at once, or after the daemon has said something.
fn ask_and_vanish(socket: &Path, how: usize) {
    let mut peer = RawPeer::connect(socket);
    let handle = Handle { index: 0, generation: 1 };
    let resolve = Resolve { service: "ipc.daemon".into(), method: "bridge-expose".into() };
    let resolve = frame(Header::new(Kind::RESOLVE).with_correlation(1).with_handle(handle), &resolve, &[]);
    let call = Header::new(Kind::CALL).with_correlation(2).with_handle(handle);
    let call = frame(call, &(), b"tcp:127.0.0.1:0=demo.title/title");
    // Where the daemon has closed the connection already, there is nothing left to do.
    peer.try_send(&[greeting("gone"), resolve, call].concat());
    match how % 4 {
        0 => {}
        1 => drop(peer.stream().shutdown(std::net::Shutdown::Write)),
        2 => drop(peer.receive()),
        _ => drop(peer.stream().read(&mut [0; 1])),
    }
}

#[test]
fn a_requester_that_vanishes_in_the_middle_of_a_privileged_call_is_nobody() {
    if !can_switch() {
        return;
    }
    let rules = ["allow uid:0 * >", &format!("allow uid:{BOB} call ipc.daemon")];
    let (daemon, _directory) = shared(&rules);
    let socket = daemon.socket();
    as_user(BOB, &[], || {
        for how in 0..200 {
            ask_and_vanish(&socket, how);
        }
    });
    assert_eq!(ask(&daemon, "bridge-list", "").unwrap(), serde_json::json!([]));
    let log = daemon.log();
    assert!(log.contains(&format!("uid={BOB} ")) && log.contains("administer bridge-expose"), "{log}");
    // Who may, may also go away: then it was done, or it was not.
    for how in 0..20 {
        ask_and_vanish(&socket, how);
    }
    let open = ask(&daemon, "bridge-list", "").unwrap().as_array().unwrap().len();
    let listening = ask(&daemon, "sockets", "").unwrap();
    let listening =
        listening.as_array().unwrap().iter().filter(|row| row["role"] == "exposed_listener").count();
    assert_eq!(listening, open);
}

fn code<T>(result: Result<T, Error>) -> Option<ErrorCode> {
    result.err().map(|error| error.code)
}

/// A datagram says of its sender what the kernel says with it: one user and one group. A connection says all groups.
#[test]
fn a_rule_for_a_group_is_about_datagrams_of_those_whose_own_group_it_is() {
    if !can_switch() {
        return;
    }
    let rules = [
        "allow uid:0 * >",
        &format!("allow gid:{ALICE} call demo.own"),
        &format!("allow gid:{STAFF} call demo.staff"),
    ];
    let (daemon, _directory) = shared(&rules);
    for name in ["demo.own", "demo.staff"] {
        serve(&daemon, Service::new(name).unwrap().method("m", |_| Ok("yes")));
    }
    let connect = |address: Address| {
        let options = ConnectOptions::new().address(address).call_timeout(PATIENCE);
        as_user(ALICE, &[STAFF], || Client::connect(options))
    };
    let mut stream = connect(Address::Unix(daemon.socket())).unwrap();
    for service in ["demo.own", "demo.staff"] {
        assert_eq!(code(stream.call(service, "m", "")), None, "{service}");
    }
    let called = |service: &'static str| {
        let options = ConnectOptions::new().address(Address::Dgram(daemon.datagram_socket()));
        as_user(ALICE, &[STAFF], || Client::connect(options.call_timeout(PATIENCE))?.call(service, "m", ""))
    };
    assert_eq!(code(called("demo.own")), None);
    assert_eq!(code(called("demo.staff")), Some(ErrorCode::PermissionDenied));
}
