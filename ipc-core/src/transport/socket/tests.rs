use std::io::{BufRead, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::libc;

use super::option::*;
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

#[test]
fn streams_of_every_family_carry_bytes_both_ways() {
    for place in Places::new().all {
        let (_listener, client, server) = connected(&place);
        client.send_all(b"over").unwrap();
        let mut four = [0; 4];
        (&server).read_exact(&mut four).unwrap();
        assert_eq!(&four, b"over");
        assert_eq!(server.send(b"out").unwrap(), 3);
        assert_eq!(client.receive(16).unwrap(), b"out");
        drop(server);
        assert_eq!(client.receive(16).unwrap(), b"");
    }
}

#[test]
fn sockets_know_what_they_are() {
    for place in Places::new().all {
        let (listener, client, server) = connected(&place);
        let protocol = if place.family() == Family::Unix { Protocol::None } else { Protocol::Tcp };
        for socket in [client.as_fd(), server.as_fd(), listener.as_fd()] {
            assert_eq!(socket.family().unwrap(), place.family());
            assert_eq!(socket.socket_type().unwrap(), SocketType::Stream);
            assert_eq!(socket.protocol().unwrap(), protocol);
            let flags = rustix::io::fcntl_getfd(socket).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
        assert!(listener.option(SO_ACCEPTCONN).unwrap() && !client.option(SO_ACCEPTCONN).unwrap());
        let bound = listener.local_address().unwrap();
        assert_eq!(server.local_address().unwrap(), bound);
        assert_eq!(client.peer_address().unwrap(), bound);
        assert_eq!(client.local_address().unwrap(), server.peer_address().unwrap());
        assert_eq!(listener.peer_address().unwrap_err().kind(), ErrorKind::NotConnected);
        if let SocketAddress::Path(path) = &place {
            assert_eq!(bound, SocketAddress::Path(path.clone()), "also where it is long");
            assert_eq!(client.local_address().unwrap(), SocketAddress::Unnamed);
        }
    }
    for place in Places::new().all {
        let (receiver, sender) = sockets(&place);
        let protocol = if place.family() == Family::Unix { Protocol::None } else { Protocol::Udp };
        assert_eq!(receiver.family().unwrap(), place.family());
        assert_eq!(
            (receiver.socket_type().unwrap(), receiver.protocol().unwrap()),
            (SocketType::Datagram, protocol)
        );
        assert_eq!(sender.peer_address().unwrap(), receiver.local_address().unwrap());
    }
}

#[test]
fn every_half_can_be_closed() {
    for place in Places::new().all {
        let (_listener, client, server) = connected(&place);
        client.send_all(b"question").unwrap();
        client.shutdown(Half::Write).unwrap();
        let mut question = String::new();
        (&server).read_to_string(&mut question).unwrap();
        assert_eq!(question, "question");
        server.send_all(b"answer").unwrap();
        assert_eq!(client.receive(16).unwrap(), b"answer");
        assert_eq!(client.send(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe, "and no SIGPIPE");
        client.shutdown(Half::Read).unwrap();
        assert_eq!(client.receive(16).unwrap(), b"");
        let (_listener, client, server) = {
            if let SocketAddress::Path(path) = &place {
                std::fs::remove_file(path).unwrap();
            }
            connected(&place)
        };
        server.shutdown(Half::Both).unwrap();
        assert_eq!(client.receive(16).unwrap(), b"");
        assert_eq!(server.receive(16).unwrap(), b"");
    }
}

#[test]
fn a_partial_send_says_so_and_a_complete_one_goes_on() {
    for place in Places::new().all {
        let (_listener, client, server) = connected(&place);
        client.set_option(SO_SNDBUF, 8 * 1024).unwrap();
        let bytes: Vec<u8> = (0..4_000_000_u32).map(|number| number as u8).collect();
        client.set_mode(Mode::NonBlocking).unwrap();
        let sent = client.send(&bytes).unwrap();
        assert!(sent > 0 && sent < bytes.len(), "{place}: {sent}");
        let error = client.send_all(&bytes[sent..]).unwrap_err();
        assert_eq!(error.error.kind(), ErrorKind::WouldBlock);
        let sent = sent + error.sent;
        client.set_mode(Mode::Blocking).unwrap();
        let received = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut all = Vec::new();
                (&server).read_to_end(&mut all).unwrap();
                all
            });
            client.send_all(&bytes[sent..]).unwrap();
            client.shutdown(Half::Write).unwrap();
            reader.join().unwrap()
        });
        assert!(received == bytes, "{place}");
    }
}

#[test]
fn a_complete_send_has_one_timeout() {
    let (ours, theirs) = Stream::pair().unwrap();
    let held = fill(&ours);
    ours.set_mode(Mode::Timeout(Duration::from_millis(200))).unwrap();
    let begun = std::time::Instant::now();
    // A reader that makes room again and again, but too slowly for all of it.
    let error = std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let reader = scope.spawn(move || {
            while stopped
                .recv_timeout(Duration::from_millis(50))
                .is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                theirs.receive(64 * 1024).unwrap();
            }
        });
        let error = ours.send_all(&vec![1; 100 * held]).unwrap_err();
        drop(stop);
        reader.join().unwrap();
        error
    });
    assert_eq!(error.error.kind(), ErrorKind::TimedOut);
    assert!(error.sent > 0, "room was made before the time was up");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(error.to_string().contains("bytes were sent"));
}

#[test]
fn modes_are_what_the_kernel_has() {
    let (ours, _theirs) = Stream::pair().unwrap();
    assert_eq!(ours.mode().unwrap(), Mode::Blocking);
    for mode in [Mode::NonBlocking, Mode::Timeout(Duration::from_millis(1500)), Mode::Blocking] {
        ours.set_mode(mode).unwrap();
        assert_eq!(ours.mode().unwrap(), mode);
        assert_eq!(ours.try_clone().unwrap().mode().unwrap(), mode, "it belongs to the socket");
    }
    let zero = ours.set_mode(Mode::Timeout(Duration::ZERO)).unwrap_err();
    assert_eq!(zero.kind(), ErrorKind::InvalidInput);
    ours.set_mode(Mode::Timeout(Duration::from_nanos(1))).unwrap();
    assert!(matches!(ours.mode().unwrap(), Mode::Timeout(time) if time < SHORT), "never without limit");
}

#[test]
fn waits_end_as_the_mode_says() {
    for (mode, kind) in
        [(Mode::NonBlocking, ErrorKind::WouldBlock), (Mode::Timeout(SHORT), ErrorKind::TimedOut)]
    {
        for place in Places::new().all {
            let (listener, client, _server) = connected(&place);
            listener.set_mode(mode).unwrap();
            client.set_mode(mode).unwrap();
            assert_eq!(listener.accept().unwrap_err().kind(), kind);
            assert_eq!(listener.accept_nonblocking().unwrap_err().kind(), kind);
            assert_eq!(client.receive(1).unwrap_err().kind(), kind);
            fill(&client);
            client.set_mode(mode).unwrap();
            assert_eq!(client.send(&[0; 64 * 1024]).unwrap_err().kind(), kind);
            assert_eq!((&client).write_vectored(&[IoSlice::new(&[0; 65536])]).unwrap_err().kind(), kind);
        }
        for place in Places::new().all {
            let (receiver, _sender) = sockets(&place);
            receiver.set_mode(mode).unwrap();
            assert_eq!(receiver.receive_from(1).unwrap_err().kind(), kind);
        }
        let (ours, _theirs) = Datagram::pair().unwrap();
        ours.set_mode(mode).unwrap();
        let full = std::iter::repeat_with(|| ours.send(b"one")).take(10_000).find_map(Result::err);
        assert_eq!(full.unwrap().kind(), kind, "a queue of AF_UNIX is full, not endless");
    }
}

#[test]
fn accepted_streams_have_a_mode_of_their_own() {
    for place in Places::new().all {
        let listener = Listener::bind(&place).unwrap();
        listener.set_mode(Mode::NonBlocking).unwrap();
        let address = listener.local_address().unwrap();
        let first = Stream::connect(&address).unwrap();
        let second = Stream::connect(&address).unwrap();
        let (accepted, from) = listener.accept().unwrap();
        assert_eq!(accepted.mode().unwrap(), Mode::Blocking);
        assert_eq!(from, first.local_address().unwrap());
        assert_eq!(listener.accept_nonblocking().unwrap().mode().unwrap(), Mode::NonBlocking);
        drop(second);
    }
}

#[test]
fn a_stream_reads_like_a_file() {
    for place in Places::new().all {
        let (_listener, client, server) = connected(&place);
        {
            let mut writer = client.writer();
            writeln!(writer, "one").unwrap();
            write!(writer, "two\r\nthree").unwrap();
            writer.flush().unwrap();
        }
        assert_eq!((&client).write_vectored(&[IoSlice::new(b" and"), IoSlice::new(b" four\n")]).unwrap(), 10);
        client.shutdown(Half::Write).unwrap();
        let lines: Vec<String> = server.reader().lines().map(Result::unwrap).collect();
        assert_eq!(lines, ["one", "two", "three and four"]);
    }
}

#[test]
fn datagrams_of_every_family_are_whole() {
    for place in Places::new().all {
        let (receiver, sender) = sockets(&place);
        let address = receiver.local_address().unwrap();
        sender.send(b"first").unwrap();
        sender.send(b"").unwrap();
        let other = Datagram::unbound(place.family()).unwrap();
        other.send_to(b"third", &address).unwrap();
        let (bytes, arrival) = receiver.receive_from(100).unwrap();
        assert_eq!((&bytes[..], arrival.length, arrival.is_truncated()), (&b"first"[..], 5, false));
        let (bytes, arrival) = receiver.receive_from(100).unwrap();
        assert_eq!(
            (&bytes[..], arrival.length, arrival.is_truncated()),
            (&b""[..], 0, false),
            "empty is not the end"
        );
        let mut buffer = [0; 3];
        let arrival = receiver.receive_from_into(&mut buffer).unwrap();
        assert_eq!((&buffer, arrival.bytes, arrival.length), (b"thi", 3, 5));
        assert!(arrival.is_truncated());
    }
}

#[test]
fn a_sender_with_an_address_gets_an_answer() {
    let places = Places::new();
    for place in &places.all {
        let receiver = Datagram::bound(place).unwrap();
        let own = match place.family() {
            // The kernel finds a name.
            Family::Unix => SocketAddress::Unnamed,
            _ => place.clone(),
        };
        let sender = Datagram::bound(&own).unwrap();
        sender.send_to(b"question", &receiver.local_address().unwrap()).unwrap();
        let (_, arrival) = receiver.receive_from(100).unwrap();
        assert_eq!(arrival.sender, sender.local_address().unwrap());
        receiver.send_to(b"answer", &arrival.sender).unwrap();
        assert_eq!(sender.receive_from(100).unwrap().0, b"answer");
    }
    let receiver = Datagram::bound(&places._directory.path().join("third").into()).unwrap();
    let nameless = Datagram::unbound(Family::Unix).unwrap();
    nameless.send_to(b"?", &receiver.local_address().unwrap()).unwrap();
    assert_eq!(receiver.receive_from(1).unwrap().1.sender, SocketAddress::Unnamed);
}

#[test]
fn a_connected_datagram_socket_can_be_let_go() {
    for place in Places::new().all {
        let (receiver, mut sender) = sockets(&place);
        sender.disconnect().unwrap();
        let error = sender.send(b"to whom?").unwrap_err();
        let expected = if place.family() == Family::Unix { libc::ENOTCONN } else { libc::EDESTADDRREQ };
        assert_eq!(error.raw_os_error(), Some(expected), "{place}");
        assert_eq!(sender.peer_address().unwrap_err().kind(), ErrorKind::NotConnected);
        sender.send_to(b"to you", &receiver.local_address().unwrap()).unwrap();
        assert_eq!(receiver.receive_from(10).unwrap().0, b"to you");
    }
}

#[test]
fn a_datagram_that_is_too_long_is_an_error() {
    for place in Places::new().all {
        let (_receiver, sender) = sockets(&place);
        let error = sender.send(&vec![0; 16 << 20]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE), "{place}");
    }
}

#[test]
fn a_connect_gives_its_error_as_a_value() {
    let base = tempfile::tempdir().unwrap();
    let at = |name: &str| SocketAddress::Path(base.path().join(name));
    drop(Listener::bind(&at("stale")).unwrap());
    let closed = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap().local_address().unwrap();
    let long = SocketAddress::Path(PathBuf::from("/").join("x".repeat(300)));
    for (address, expected) in [
        (at("missing"), libc::ENOENT),
        (at("stale"), libc::ECONNREFUSED),
        (closed, libc::ECONNREFUSED),
        (long, libc::ENAMETOOLONG),
        (SocketAddress::Path(PathBuf::new()), libc::ENOENT),
    ] {
        let mut stream = Stream::unconnected(address.family()).unwrap();
        assert_eq!(stream.connect_ex(&address), expected, "{address}");
        let error = Stream::connect(&address).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(expected), "{address}");
        let error = Stream::connect_timeout(&address, LONG).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(expected), "{address}");
    }
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_address().unwrap();
    let mut stream = Stream::unconnected(Family::Inet).unwrap();
    stream.set_mode(Mode::NonBlocking).unwrap();
    assert_eq!(stream.connect_ex(&address), libc::EINPROGRESS);
    connect::wait_for(&stream, rustix::event::PollFlags::OUT, None).unwrap();
    assert!(stream.take_error().unwrap().is_none());
    assert_eq!(stream.connect_ex(&address), 0, "so it was");
    assert_eq!(stream.connect_ex(&address), libc::EISCONN);
}

#[test]
fn a_listener_without_room_is_waited_for_so_long() {
    let places = Places::new();
    for place in &places.all {
        let mut socket = Stream::unconnected(place.family()).unwrap();
        socket.bind(place).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_address().unwrap();
        let mut held = Vec::new();
        let error = loop {
            match Stream::connect_timeout(&address, SHORT) {
                Ok(stream) => held.push(stream),
                Err(error) => break error,
            }
            assert!(held.len() < 16);
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{place}");
        std::thread::scope(|scope| {
            let late = scope.spawn(|| Stream::connect_timeout(&address, LONG));
            for _ in 0..=held.len() {
                listener.accept().unwrap();
            }
            assert_eq!(late.join().unwrap().unwrap().mode().unwrap(), Mode::Blocking);
        });
    }
}

#[test]
fn binding_twice_is_an_error_and_a_port_is_free_again_at_once() {
    for place in Places::new().all {
        let (listener, client, server) = connected(&place);
        let address = listener.local_address().unwrap();
        assert_eq!(Listener::bind(&address).unwrap_err().kind(), ErrorKind::AddrInUse, "{place}");
        // The server's end closes first, and its port is left waiting.
        drop((listener, server, client));
        if place.family() != Family::Unix {
            Listener::bind(&address).unwrap();
        }
    }
    let mut stream = Stream::unconnected(Family::Inet).unwrap();
    stream.bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let own = stream.local_address().unwrap();
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    assert_eq!(stream.connect_ex(&listener.local_address().unwrap()), 0);
    assert_eq!(listener.accept().unwrap().1, own, "a client may choose its address");
}

#[test]
fn options_are_set_and_read_back() {
    let tcp = Stream::unconnected(Family::Inet).unwrap();
    for option in [SO_KEEPALIVE, SO_REUSEADDR, SO_REUSEPORT, SO_DONTROUTE, TCP_NODELAY, TCP_CORK] {
        for on in [true, false] {
            tcp.set_option(option, on).unwrap();
            assert_eq!(tcp.option(option).unwrap(), on, "{}", option.name());
        }
    }
    for (option, value) in [
        (TCP_KEEPIDLE, 61),
        (TCP_KEEPINTVL, 11),
        (TCP_KEEPCNT, 5),
        (TCP_USER_TIMEOUT, 1234),
        (SO_PRIORITY, 3),
        (SO_RCVLOWAT, 7),
        (IP_TTL, 33),
        (IP_TOS, 16),
    ] {
        tcp.set_option(option, value).unwrap();
        assert_eq!(tcp.option(option).unwrap(), value, "{}", option.name());
    }
    for option in [SO_SNDBUF, SO_RCVBUF] {
        tcp.set_option(option, 20_000).unwrap();
        assert_eq!(tcp.option(option).unwrap(), 40_000, "{}", option.name());
    }
    for linger in [Some(Duration::from_secs(3)), Some(Duration::ZERO), None] {
        tcp.set_option(SO_LINGER, Linger(linger)).unwrap();
        assert_eq!(tcp.option(SO_LINGER).unwrap(), Linger(linger));
    }
    tcp.set_option(SO_LINGER, Linger(Some(Duration::from_millis(1)))).unwrap();
    assert_eq!(tcp.option(SO_LINGER).unwrap(), Linger(Some(Duration::from_secs(1))));
    for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
        tcp.set_option(option, Timeout(Some(LONG))).unwrap();
        assert_eq!(tcp.option(option).unwrap(), Timeout(Some(LONG)));
    }
    let udp = Datagram::unbound(Family::Inet).unwrap();
    udp.set_option(SO_BROADCAST, true).unwrap();
    udp.set_option(IP_MULTICAST_TTL, 9).unwrap();
    udp.set_option(IP_MULTICAST_LOOP, false).unwrap();
    assert!(udp.option(SO_BROADCAST).unwrap() && !udp.option(IP_MULTICAST_LOOP).unwrap());
    assert_eq!(udp.option(IP_MULTICAST_TTL).unwrap(), 9, "an option of one byte");
    let unix = Stream::unconnected(Family::Unix).unwrap();
    unix.set_option(SO_PASSCRED, true).unwrap();
    assert!(unix.option(SO_PASSCRED).unwrap());
}

#[test]
fn what_an_option_cannot_do_is_an_error() {
    let unix = Stream::unconnected(Family::Unix).unwrap();
    let udp = Datagram::unbound(Family::Inet).unwrap();
    assert!(unix.option(TCP_NODELAY).is_err() && udp.option(TCP_NODELAY).is_err());
    assert!(unix.set_option(TCP_NODELAY, true).is_err());
    assert_eq!(unix.set_option(SO_ACCEPTCONN, true).unwrap_err().raw_os_error(), Some(libc::ENOPROTOOPT));
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(OwnedFd::from(file).family().unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
}

#[test]
fn raw_options_are_the_same_options() {
    let tcp = Stream::unconnected(Family::Inet).unwrap();
    let on = 1_i32.to_ne_bytes();
    tcp.set_raw_option(TCP_NODELAY.level(), TCP_NODELAY.number(), &on).unwrap();
    assert!(tcp.option(TCP_NODELAY).unwrap());
    assert_eq!(tcp.raw_option(libc::IPPROTO_TCP, libc::TCP_NODELAY, 4).unwrap(), on);
    let algorithm = tcp.raw_option(libc::IPPROTO_TCP, libc::TCP_CONGESTION, 16).unwrap();
    assert!(algorithm.iter().any(u8::is_ascii_lowercase));
    for (length, is_taken) in [(31, true), (32, true), (33, false)] {
        let mut value = on.to_vec();
        value.resize(length, 0);
        let set = tcp.set_raw_option(libc::SOL_SOCKET, libc::SO_KEEPALIVE, &value);
        assert_eq!(set.is_ok(), is_taken, "{length}");
    }
    assert!(tcp.raw_option(libc::SOL_SOCKET, 9999, 4).is_err());
}

#[test]
fn an_error_is_taken_once() {
    let closed = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap().local_address().unwrap();
    let mut stream = Stream::unconnected(Family::Inet).unwrap();
    stream.set_mode(Mode::NonBlocking).unwrap();
    assert_eq!(stream.connect_ex(&closed), libc::EINPROGRESS);
    connect::wait_for(&stream, rustix::event::PollFlags::OUT, None).unwrap();
    assert_eq!(stream.take_error().unwrap().unwrap().kind(), ErrorKind::ConnectionRefused);
    assert!(stream.take_error().unwrap().is_none());
}

#[test]
fn queues_hold_what_was_not_read() {
    for place in Places::new().all {
        let (listener, client, server) = connected(&place);
        assert_eq!(server.receive_queue().unwrap(), 0);
        client.send_all(b"12345").unwrap();
        connect::wait_for(&server, rustix::event::PollFlags::IN, None).unwrap();
        assert_eq!(server.receive_queue().unwrap(), 5);
        if place.family() == Family::Unix {
            assert!(client.send_queue().unwrap() >= 5);
        }
        assert!(listener.receive_queue().is_err() || place.family() == Family::Unix);
    }
}

#[test]
fn the_settings_of_a_socket_are_those_it_has() {
    let names = |settings: Vec<(&'static str, Setting)>| {
        settings.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let unix = names(settings(Stream::unconnected(Family::Unix).unwrap().as_fd()));
    assert!(unix.contains(&"SO_PASSCRED") && unix.contains(&"SO_SNDBUF") && !unix.contains(&"TCP_NODELAY"));
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let tcp = settings(listener.as_fd());
    assert!(
        tcp.contains(&("SO_REUSEADDR", Setting::Flag(true)))
            && tcp.contains(&("SO_ACCEPTCONN", Setting::Flag(true)))
    );
    assert!(tcp.contains(&("TCP_NODELAY", Setting::Flag(false))) && !names(tcp).contains(&"IPV6_V6ONLY"));
}

#[test]
fn descriptors_come_and_go() {
    let (ours, theirs) = Stream::pair().unwrap();
    let number = ours.as_raw_fd();
    let fd = OwnedFd::from(ours);
    assert_eq!(fd.as_raw_fd(), number);
    Stream::from(fd).send_all(b"on").unwrap();
    assert_eq!(theirs.receive(9).unwrap(), b"on");
    let again = Datagram::unbound(Family::Unix).unwrap();
    assert_ne!(again.try_clone().unwrap().as_raw_fd(), again.as_raw_fd());
    assert_eq!(Datagram::from(OwnedFd::from(again)).socket_type().unwrap(), SocketType::Datagram);
}

#[test]
fn addresses_have_a_text() {
    for text in ["127.0.0.1:7", "[::1]:7", "/run/x", "./x"] {
        assert_eq!(text.parse::<SocketAddress>().unwrap().to_string(), text);
    }
    for text in ["", "x", "localhost:7", "/a\0b"] {
        assert!(text.parse::<SocketAddress>().is_err(), "{text:?}");
    }
    assert_eq!(SocketAddress::Abstract(b"a\0b".to_vec()).to_string(), "@a\\x00b");
    let place = "127.0.0.1:7".parse().unwrap();
    assert_eq!(SocketAddress::look_up(&place).unwrap(), ["127.0.0.1:7".parse().unwrap()]);
    let found = SocketAddress::look_up(&"localhost:7".parse().unwrap()).unwrap();
    assert!(
        found
            .iter()
            .all(|address| matches!(address, SocketAddress::Inet(address) if address.ip().is_loopback()))
    );
}
