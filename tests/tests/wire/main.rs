//! The wire: the golden vectors, bytes from hostile hands, and what they cost in memory.

mod corpus;
mod golden;
mod hostile;
mod memory;
mod refusals;
mod replay;
mod specification;

use ipc_core::wire::{Decoder, Frame, PREAMBLE, WireError};
use ipc_tests::allocations::CountingAllocator;
use ipc_tests::fuzz_targets::LIMITS;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Gives the first frame of `bytes` to `judge`.
fn with_frame<T>(bytes: &[u8], judge: impl FnOnce(Frame<'_>) -> T) -> Result<Option<T>, WireError> {
    Ok(Decoder::new(LIMITS).next(&mut &bytes[..])?.map(judge))
}

/// What a client would send if it sent every golden frame.
fn stream_of_all_frames() -> Vec<u8> {
    let frames = ipc_tests::golden::vectors();
    PREAMBLE.into_iter().chain(frames.into_iter().flat_map(|vector| vector.bytes)).collect()
}
