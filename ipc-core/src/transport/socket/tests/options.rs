//! What sockets can be asked and told.

use std::io::{ErrorKind, IoSlice, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;

use super::*;
use crate::transport::socket::option::*;

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
