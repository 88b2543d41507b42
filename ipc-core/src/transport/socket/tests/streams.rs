//! Connections: bytes, halves, partial sends, errors of connect.

use std::io::{BufRead, ErrorKind, IoSlice, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use nix::libc;

use super::*;
use crate::transport::socket::option::*;

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
