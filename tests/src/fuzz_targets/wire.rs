//! The decoders of bytes and of names.

use ipc_core::name::{Filter, MethodName, ServiceName, TopicName};
use ipc_core::wire::codec::{self, Wire};
use ipc_core::wire::message::{
    Close, Envelope, ErrorBody, Forget, Gap, Hello, NameChanged, OpenTopic, PeerInfo, Published, Register,
    Registered, Resolve, Subscribe, Subscribed, TopicInfo, Unsubscribe, UnwatchNames, WatchNames, Welcome,
};
use ipc_core::wire::{Decoder, FrameLimits, HEADER_BYTES, Header, Kind, WireError};

use crate::rng::Rng;

/// The limits of a connection that has said hello, small enough that inputs reach them.
pub const LIMITS: FrameLimits = FrameLimits { payload_max_bytes: 1 << 20, frame_max_bytes: None };

/// A frame that was decoded, to compare.
type Seen = (Header, Vec<u8>, Vec<u8>);

/// A client's stream gives the same frames and the same error however it is cut, its memory stays within twice what
/// arrived, and each envelope can be read or refused.
pub fn decode_stream(data: &[u8]) {
    let whole = read_in_pieces(data, |left| left);
    let bytewise = read_in_pieces(data, |_| 1);
    assert_eq!(whole, bytewise, "the stream means something else when it arrives byte by byte");
    let mut rng = Rng::new(data.len() as u64);
    let cut = read_in_pieces(data, |left| rng.index(left) + 1);
    assert_eq!(whole, cut, "the stream means something else when it arrives in pieces");
    for (header, envelope, _) in &whole.0 {
        assert_eq!(Header::parse(&header.to_bytes()).as_ref(), Ok(header));
        read_envelope(header.kind.0, envelope);
    }
}

fn read_in_pieces(data: &[u8], mut piece: impl FnMut(usize) -> usize) -> (Vec<Seen>, Option<WireError>) {
    let mut decoder = Decoder::after_preamble(LIMITS);
    let mut frames = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let end = at + piece(data.len() - at);
        let mut input = &data[at..end];
        at = end;
        loop {
            match decoder.next(&mut input) {
                Ok(Some(frame)) => {
                    let (header, body) = (frame.header, frame.body.as_slice().to_vec());
                    assert_eq!(header.frame_bytes(), HEADER_BYTES + frame.envelope.len() + body.len());
                    frames.push((header, frame.envelope.to_vec(), body));
                }
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(input.is_empty(), "the decoder asks for more and leaves {} bytes", input.len());
        // A vector grows to twice its size, and from nothing to at least 8 bytes.
        assert!(
            decoder.held_bytes() <= 2 * at + 8,
            "{} bytes held of {at} that arrived",
            decoder.held_bytes()
        );
    }
    (frames, None)
}

/// The first byte chooses a kind of envelope, the rest is read as one: what can be read can be written, and reads the
/// same again.
pub fn codec(data: &[u8]) {
    if let Some((kind, envelope)) = data.split_first() {
        read_envelope(*kind, envelope);
    }
}

/// Reads an envelope as everything that a frame of this kind can hold, whichever way it goes.
pub fn read_envelope(kind: u8, envelope: &[u8]) {
    match Kind(kind) {
        Kind::HELLO => survives::<Hello>(envelope),
        Kind::WELCOME => survives::<Welcome>(envelope),
        Kind::CLOSE => survives::<Close>(envelope),
        Kind::CALL | Kind::PUBLISH | Kind::EVENT => survives::<Envelope>(envelope),
        Kind::REPLY => {
            survives::<Envelope>(envelope);
            survives::<ErrorBody>(envelope);
        }
        Kind::GAP => survives::<Gap>(envelope),
        Kind::RESOLVE => survives::<Resolve>(envelope),
        Kind::REGISTER => survives::<Register>(envelope),
        Kind::WATCH_NAMES => survives::<WatchNames>(envelope),
        Kind::UNWATCH_NAMES => survives::<UnwatchNames>(envelope),
        Kind::NAME_CHANGED => survives::<NameChanged>(envelope),
        Kind::OPEN_TOPIC => survives::<OpenTopic>(envelope),
        Kind::SUBSCRIBE => survives::<Subscribe>(envelope),
        Kind::UNSUBSCRIBE => survives::<Unsubscribe>(envelope),
        Kind::DONE => {
            survives::<Registered>(envelope);
            survives::<Subscribed>(envelope);
            survives::<Published>(envelope);
            survives::<ErrorBody>(envelope);
        }
        Kind::PEER_ANNOUNCED => survives::<PeerInfo>(envelope),
        Kind::TOPIC_ANNOUNCED => survives::<TopicInfo>(envelope),
        Kind::FORGET => survives::<Forget>(envelope),
        // Ping, pong, cancel, release, unregister, acquired, and every kind of the future.
        _ => survives::<()>(envelope),
    }
}

fn survives<T: Wire + PartialEq + std::fmt::Debug>(envelope: &[u8]) {
    let Ok(value) = codec::decode::<T>(envelope) else { return };
    let mut written = Vec::new();
    codec::encode_into(&value, &mut written).expect("what was read can be written");
    assert!(written.len() <= envelope.len(), "the encoding that is written is the shortest");
    assert_eq!(codec::decode::<T>(&written).as_ref(), Ok(&value));
}

/// Text is a name or not; a name prints as the text it was made from, and a filter agrees with the plainest reading of
/// its grammar.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (left, right) = text.split_once(' ').unwrap_or((text, ""));
    for name in [left, right] {
        if let Ok(parsed) = ServiceName::parse(name) {
            assert_eq!(parsed.to_string(), name);
            assert!(
                TopicName::parse(name).is_ok() && Filter::parse(name).is_ok_and(|filter| filter.is_literal())
            );
        }
        if MethodName::parse(name).is_ok() {
            assert!(ServiceName::parse(name).is_ok(), "a method is one part of a name");
        }
    }
    if let (Ok(filter), Ok(topic)) = (Filter::parse(left), TopicName::parse(right)) {
        let parts: Vec<&str> = filter.as_str().split('.').collect();
        let given: Vec<&str> = topic.as_str().split('.').collect();
        assert_eq!(filter.matches(topic.as_str()), plainly_matches(&parts, &given), "{filter} over {topic}");
    }
}

fn plainly_matches(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        ([], []) => true,
        ([">"], [_, ..]) => true,
        ([part, filter @ ..], [name, topic @ ..]) => {
            (*part == "*" || part == name) && plainly_matches(filter, topic)
        }
        _ => false,
    }
}
