//! What is received as a datagram, at both ends.

use ipc_core::id::Epoch;
use ipc_core::limits::{DATAGRAM_MAX_BYTES, Limits};
use ipc_core::name::{MethodName, ServiceName};
use ipc_core::payload::Payload;
use ipc_core::session::courier::{self, Courier, RequestOptions};
use ipc_core::time::Instant;
use ipc_core::wire::datagram::{
    CallNamed, DATAGRAM_HEADER_BYTES, Datagram, DatagramHeader, DatagramKind, PublishNamed,
};
use ipc_core::wire::message::{ErrorBody, PeerInfo, Published};
use ipc_daemon::datagram::{Config, Door, Output, Source};

const NOW: Instant = Instant::from_nanos(100_000_000_000);
const EPOCH: Epoch = Epoch(0x0123_4567_89ab_cdef);

/// A datagram is parsed or refused and its envelope likewise. The daemon answers one sender with no more bytes than it
/// sent until it has shown a cookie, asks for no work without one, and keeps within its tables; a client takes what it
/// cannot use for nothing.
pub fn datagram(data: &[u8]) {
    if let Ok(parsed) = Datagram::parse(data) {
        assert_eq!(data.len(), DATAGRAM_HEADER_BYTES + parsed.envelope.len() + parsed.payload.len());
        assert!(data.len() <= DATAGRAM_MAX_BYTES && parsed.header.low_water() <= parsed.header.id);
        // Read or refused; whichever, it ends.
        let _ = parsed.decode::<CallNamed>();
        let _ = parsed.decode::<PublishNamed>();
        let _ = parsed.decode::<PeerInfo>();
        let _ = parsed.decode::<ErrorBody>();
        let _ = parsed.decode::<Published>();
    }
    answer_a_stranger(data);
    answer_an_acquaintance(data);
    take_an_answer(data);
}

fn door() -> Door {
    let limits = Limits { datagram_requests_per_client_max: 2, ..Limits::default() };
    Door::new(Config { limits, epoch: EPOCH, cookie_key: [1, 2] })
}

fn network() -> Source {
    Source::Network(([127, 0, 0, 1], 7).into())
}

fn answer_a_stranger(data: &[u8]) {
    let mut door = door();
    door.handle_datagram(NOW, network(), data);
    let mut answered = 0;
    while let Some(output) = door.poll_output() {
        match output {
            Output::Send(outgoing) => answered += outgoing.datagram.len(),
            other => panic!("a stranger has led to {other:?}"),
        }
    }
    assert!(answered <= data.len(), "{answered} bytes for {}", data.len());
    assert_eq!((door.clients(), door.remembered()), (0, (0, 0)));
}

/// The same bytes from somebody who knows epoch and cookie, three times.
fn answer_an_acquaintance(data: &[u8]) {
    let mut door = door();
    let client =
        data.get(32..36).map_or(0, |bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    let hello = DatagramHeader { client, ..DatagramHeader::new(DatagramKind::Hello) };
    door.handle_datagram(NOW, network(), &ipc_core::wire::datagram::encode_bare(hello));
    let Some(Output::Send(challenge)) = door.poll_output() else { panic!("a hello is answered") };
    let cookie = challenge.datagram[16..32].to_vec();
    let mut known = data.to_vec();
    if let Some(place) = known.get_mut(16..32) {
        place.copy_from_slice(&cookie);
    }
    let mut connections = 0;
    for _ in 0..3 {
        door.handle_datagram(NOW, network(), &known);
        while let Some(output) = door.poll_output() {
            connections += usize::from(matches!(output, Output::Connect(_)));
        }
    }
    assert!(connections <= 1 && door.clients() <= 1 && door.remembered().0 <= 1);
}

/// A client that waits for an outcome.
fn take_an_answer(data: &[u8]) {
    let mut courier = Courier::new(courier::Config { client: 0x0a0b_0c0d, seed: 1, is_local: false });
    let deadline = NOW + core::time::Duration::from_secs(1);
    let options = RequestOptions { deadline, traceparent: None };
    let service = ServiceName::parse("demo.title").expect("a name");
    let method = MethodName::parse("title").expect("a name");
    let made = courier.call(NOW, &service, &method, &Payload::from("x"), options);
    let id = made.expect("a call can be made");
    for _ in 0..3 {
        courier.handle_datagram(NOW, data);
        while courier.transmit(NOW).is_some() {
            courier.transmitted(NOW);
        }
    }
    assert!(courier.open_requests() <= 1);
    let outcomes = std::iter::from_fn(|| courier.take(id)).count();
    assert!(outcomes <= 1 && outcomes + courier.open_requests() == 1, "one outcome, sooner or later");
}
