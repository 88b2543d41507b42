//! Datagrams: whole, truncated, empty, too long.

use std::io::ErrorKind;

use nix::libc;

use super::*;

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
