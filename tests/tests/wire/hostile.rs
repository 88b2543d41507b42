//! Bytes that lie: about lengths, counts, kinds and text. Each is refused with its reason and nothing else happens.

use ipc_core::limits::{EXTENSIONS_MAX, METHODS_PER_SERVICE_MAX};
use ipc_core::wire::codec::{self, Blob, List, Text};
use ipc_core::wire::message::{Envelope, Hello, MethodInfo, Register, RegisterMode, Resolve, TopicInfo};
use ipc_core::wire::{Decoder, FrameLimits, HEADER_BYTES, Header, Kind, PREAMBLE, WireError};
use ipc_tests::fuzz_targets::{LIMITS, decode_stream, read_envelope};
use ipc_tests::golden::vectors;

use crate::{stream_of_all_frames, with_frame};

/// Numbers that announce more than there is, as bincode writes them.
const HUGE: [&[u8]; 4] = [
    &[250],
    &[251, 0xff, 0xff],
    &[252, 0xff, 0xff, 0xff, 0xff],
    &[253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
];

#[test]
fn a_stream_means_the_same_however_it_is_cut() {
    decode_stream(&stream_of_all_frames());
}

#[test]
fn a_lie_in_the_payload_length_is_refused_at_the_header_or_waits_for_more() {
    for vector in vectors() {
        let true_len = u32::from_le_bytes(vector.bytes[4..8].try_into().unwrap());
        for lie in [true_len + 1, LIMITS.payload_max_bytes, LIMITS.payload_max_bytes + 1, u32::MAX] {
            let mut bytes = vector.bytes.clone();
            bytes[4..8].copy_from_slice(&lie.to_le_bytes());
            let limit = LIMITS.payload_max_bytes;
            let expected =
                if lie > limit { Err(WireError::PayloadTooLarge { length: lie, limit }) } else { Ok(None) };
            assert_eq!(with_frame(&bytes, |_| ()), expected, "{} with {lie}", vector.name);
        }
    }
}

#[test]
fn a_lie_in_the_envelope_length_is_found_in_the_envelope() {
    for vector in vectors() {
        let true_len = u16::from_le_bytes(vector.bytes[8..10].try_into().unwrap());
        for lie in [true_len.wrapping_sub(1), true_len + 1, u16::MAX] {
            let mut bytes = vector.bytes.clone();
            bytes[8..10].copy_from_slice(&lie.to_le_bytes());
            // Enough bytes behind it to fill any envelope.
            bytes.resize(bytes.len() + usize::from(u16::MAX) + HEADER_BYTES, 0);
            let judged = with_frame(&bytes, |frame| {
                let (kind, envelope) = (frame.header.kind, frame.envelope.to_vec());
                read_envelope(kind.0, &envelope);
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (vector.check)(&frame))).is_ok()
            });
            assert_eq!(judged, Ok(Some(false)), "{} with an envelope of {lie} bytes", vector.name);
        }
    }
}

#[test]
fn a_lie_at_any_place_of_an_envelope_is_no_more_than_an_error() {
    for vector in vectors() {
        let envelope_len = usize::from(u16::from_le_bytes(vector.bytes[8..10].try_into().unwrap()));
        let envelope = &vector.bytes[HEADER_BYTES..HEADER_BYTES + envelope_len];
        for at in 0..envelope.len() {
            for lie in HUGE {
                let replaced = [&envelope[..at], lie, &envelope[at + 1..]].concat();
                read_envelope(vector.bytes[0], &replaced);
                read_envelope(vector.bytes[0], &[&envelope[..at], lie].concat());
            }
        }
        for cut in 0..envelope.len() {
            read_envelope(vector.bytes[0], &envelope[..cut]);
        }
    }
}

#[test]
fn bytes_behind_the_last_field_are_refused() {
    let mut envelope = Vec::new();
    codec::encode_into(&Resolve { service: "a.b".into(), method: "c".into() }, &mut envelope).unwrap();
    assert!(codec::decode::<Resolve>(&envelope).is_ok());
    envelope.push(0);
    assert_eq!(codec::decode::<Resolve>(&envelope), Err(WireError::TrailingBytes));
    assert_eq!(codec::decode::<()>(&[0]), Err(WireError::TrailingBytes));
}

#[test]
fn counts_hold_at_their_maximum() {
    let method = || MethodInfo { name: "m".into(), description: "".into() };
    let register = |count| Register {
        service: "a".into(),
        mode: RegisterMode::Group,
        queue: false,
        methods: List((0..count).map(|_| method()).collect()),
    };
    let traced = |count| Envelope { traceparent: None, extensions: List(vec![(7, Blob(vec![])); count]) };
    for (off, fits) in [(-1isize, true), (0, true), (1, false)] {
        let mut bytes = Vec::new();
        codec::encode_into(&register(METHODS_PER_SERVICE_MAX.strict_add_signed(off)), &mut bytes).unwrap();
        assert_eq!(codec::decode::<Register>(&bytes).is_ok(), fits, "methods {off:+}");
        bytes.clear();
        codec::encode_into(&traced(EXTENSIONS_MAX.strict_add_signed(off)), &mut bytes).unwrap();
        assert_eq!(codec::decode::<Envelope>(&bytes).is_ok(), fits, "extensions {off:+}");
    }
}

#[test]
fn a_count_without_items_is_refused() {
    // No traceparent, then a list that announces items and ends.
    for count in HUGE {
        let refused = codec::decode::<Envelope>(&[&[0], count].concat());
        assert!(matches!(refused, Err(WireError::Envelope(_))), "{count:?}: {refused:?}");
    }
}

#[test]
fn undefined_variants_and_broken_text_are_refused() {
    // A Register: service, mode, queue, methods.
    assert!(codec::decode::<Register>(&[1, b'a', 1, 1, 0]).is_ok());
    for (what, bytes) in [
        ("mode", [1, b'a', 2, 1, 0]),
        ("bool", [1, b'a', 1, 2, 0]),
        ("text", [1, 0xff, 1, 1, 0]),
        ("count", [1, b'a', 1, 1, 1]),
    ] {
        assert!(matches!(codec::decode::<Register>(&bytes), Err(WireError::Envelope(_))), "{what}");
    }
    // A number too wide for its field: 253 announces eight bytes, an Option's tag has one.
    assert!(codec::decode::<Hello>(&[253, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]).is_err());
}

#[test]
fn a_number_may_be_written_longer_than_it_must() {
    // The specification allows it, so nothing may be derived from the bytes of an envelope.
    let long = [251, 1, 0, b'a'];
    assert_eq!(codec::decode::<TopicInfo>(&long), Ok(TopicInfo { name: Text::from("a") }));
}

#[test]
fn other_protocols_end_at_their_first_byte() {
    for greeting in [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03],
        b"SSH-2.0-OpenSSH_9.6\r\n",
        &[0, 0, 0, 0],
        b"\x89PNG\r\n\x1a\n",
    ] {
        let refused = Decoder::after_preamble(LIMITS).next(&mut &greeting[..]).map(|frame| frame.is_some());
        assert_eq!(refused, Err(WireError::Preamble), "{:?}", greeting.escape_ascii().to_string());
    }
    assert!(PREAMBLE.iter().any(|byte| !byte.is_ascii()), "a text protocol could begin with the preamble");
}

#[test]
fn the_limits_hold_to_the_byte() {
    for (limit, off, fits) in
        [(100, -1i64, true), (100, 0, true), (100, 1, false), (0, 0, true), (0, 1, false)]
    {
        let header = Header { payload_len: u32::try_from(limit + off).unwrap(), ..Header::new(Kind::CALL) };
        let limits = FrameLimits { payload_max_bytes: limit as u32, frame_max_bytes: None };
        let bytes = [&header.to_bytes()[..], &[7; 101][..(limit + off) as usize]].concat();
        let frame = Decoder::new(limits).next(&mut &bytes[..]).map(|frame| frame.is_some());
        assert_eq!(frame.is_ok(), fits, "payload limit {limit}, {off:+}");
        assert!(!fits || frame == Ok(true));

        let limits = FrameLimits {
            payload_max_bytes: 1 << 20,
            frame_max_bytes: Some(HEADER_BYTES as u32 + limit as u32),
        };
        let frame = Decoder::new(limits).next(&mut &bytes[..]).map(|frame| frame.is_some());
        assert_eq!(frame.is_ok(), fits, "frame limit {limit}, {off:+}");
    }
}
