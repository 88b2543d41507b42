//! What arrives decides what is allocated: never a length that is only announced.

use ipc_core::wire::codec;
use ipc_core::wire::message::{Envelope, Register};
use ipc_core::wire::{Decoder, HEADER_BYTES, Header, Kind};
use ipc_tests::allocations::peak_during;
use ipc_tests::fuzz_targets::{LIMITS, read_envelope};
use ipc_tests::golden::vectors;
use ipc_tests::rng::for_each_seed;

/// A list of 256 methods takes 12 KiB in memory, half as much again while it grows, and may arrive as 512 bytes.
const LIST_BYTES: usize = 24 * 1024;

/// A frame is in the buffer it arrived in, which may be half empty, and its envelope a second time as values, which the
/// check writes out and reads again.
fn allowed(arrived: usize) -> usize {
    4 * arrived + 2 * LIST_BYTES
}

#[test]
fn the_allocator_counts() {
    let (kept, peak) = peak_during(|| {
        drop(vec![0u8; 3000]);
        vec![0u8; 1000]
    });
    assert_eq!((kept.len(), peak), (1000, 3000));
}

#[test]
fn an_announced_payload_costs_nothing_before_it_arrives() {
    let header = Header { payload_len: LIMITS.payload_max_bytes, ..Header::new(Kind::CALL) };
    let bytes = header.to_bytes();
    let (decoder, peak) = peak_during(|| {
        let mut decoder = Decoder::new(LIMITS);
        assert!(decoder.next(&mut &bytes[..]).is_ok_and(|frame| frame.is_none()));
        decoder
    });
    assert!(peak <= 2 * HEADER_BYTES, "{peak} bytes for a header");
    drop(decoder);
}

#[test]
fn a_payload_that_trickles_in_costs_no_more_than_twice_what_has_arrived() {
    let header = Header { payload_len: LIMITS.payload_max_bytes, ..Header::new(Kind::CALL) };
    let mut decoder = Decoder::new(LIMITS);
    assert!(decoder.next(&mut &header.to_bytes()[..]).is_ok_and(|frame| frame.is_none()));
    let mut arrived = HEADER_BYTES;
    while arrived < 100_000 {
        let piece = [0u8; 997];
        assert!(decoder.next(&mut &piece[..]).is_ok_and(|frame| frame.is_none()));
        arrived += piece.len();
        assert!(decoder.held_bytes() <= 2 * arrived, "{} bytes for {arrived}", decoder.held_bytes());
    }
}

#[test]
fn the_room_for_a_large_frame_grows_with_what_arrives() {
    let header = Header { payload_len: LIMITS.payload_max_bytes, ..Header::new(Kind::CALL) };
    let mut decoder = Decoder::new(LIMITS);
    assert!(decoder.next(&mut &header.to_bytes()[..]).is_ok_and(|frame| frame.is_none()));
    let mut arrived = HEADER_BYTES;
    while let Some((buffer, room)) = decoder.direct() {
        let taken = room.min(5000);
        buffer.extend(std::iter::repeat_n(0, taken));
        arrived += taken;
        let is_complete = arrived == HEADER_BYTES + LIMITS.payload_max_bytes as usize;
        assert!(decoder.held_bytes() <= 2 * arrived + 65_536, "{} bytes for {arrived}", decoder.held_bytes());
        assert!(decoder.next(&mut &[][..]).is_ok_and(|frame| frame.is_some() == is_complete));
    }
    assert!(arrived + 8 * 1024 >= LIMITS.payload_max_bytes as usize, "direct reading ended at {arrived}");
}

#[test]
fn an_announced_list_costs_nothing_before_it_arrives() {
    // No traceparent, then 2^63 extensions; a service, its mode, no queue, then 256 methods.
    let extensions = [0, 253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let methods = [1, b'a', 0, 0, 251, 0, 1];
    let (_, peak) = peak_during(|| {
        assert!(codec::decode::<Envelope>(&extensions).is_err());
        assert!(codec::decode::<Register>(&methods).is_err());
    });
    assert!(peak <= 256, "{peak} bytes for lists that have no items");
}

#[test]
fn no_change_of_a_frame_makes_reading_it_expensive() {
    let vectors = vectors();
    for_each_seed(3_000, 300_000, |seed, mut rng| {
        let mut bytes = rng.pick(&vectors).bytes.clone();
        rng.mutate(&mut bytes);
        let (_, peak) = peak_during(|| {
            let mut decoder = Decoder::new(LIMITS);
            let mut input = &bytes[..];
            while let Ok(Some(frame)) = decoder.next(&mut input) {
                read_envelope(frame.header.kind.0, frame.envelope);
            }
        });
        assert!(peak <= allowed(bytes.len()), "seed {seed}: {peak} bytes for {}", bytes.len());
    });
}
