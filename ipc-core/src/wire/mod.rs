//! PURE. Bytes to frames and back.
//!
//! A frame is a fixed [`Header`] of 40 bytes, an envelope in bincode `standard()` encoding and a raw payload. The broker
//! routes by the header alone. `PROTOCOL.md` is the specification; this module implements it.
//!
//! - [`Header`] and [`Kind`]: the fixed part, parsed by hand;
//! - [`message`]: what the envelopes of each kind hold;
//! - [`coordination`], [`queue`]: the operations of coordination, and what their envelopes hold;
//! - [`codec`]: the one place that calls bincode;
//! - [`Decoder`]: a stream of bytes cut into frames, with limits checked before anything is allocated;
//! - [`encode_frame`]: a frame appended to a buffer;
//! - [`datagram`]: what goes over datagram sockets, each datagram complete in itself.

pub mod codec;
pub mod coordination;
pub mod datagram;
mod decoder;
mod error;
mod frame;
mod header;
pub mod message;
pub mod queue;

pub use decoder::{Decoder, FrameLimits, SHARE_MIN_BYTES};
pub use error::WireError;
pub use frame::{Body, Frame, encode_frame};
pub use header::{Flags, HEADER_BYTES, Header, Kind};

/// What a client sends before its first frame: not ASCII, so that no text protocol begins with it.
pub const PREAMBLE: [u8; 4] = [0x89, b'I', b'P', b'C'];
/// The protocol version this library speaks, highest and lowest.
pub const VERSION_MAX: u16 = 1;
/// The lowest protocol version this library speaks.
pub const VERSION_MIN: u16 = 1;
/// Feature bit reserved for file descriptors; no side offers it yet.
pub const FEATURE_DESCRIPTORS: u64 = 1;
/// Feature bit: the client is told when one thing is taken away from it, by `revoked`, instead of losing its connection.
pub const FEATURE_REVOCATION: u64 = 1 << 1;
/// Feature bit: the daemon hands a call on only if the token of the `fence` before it is not stale.
pub const FEATURE_FENCE: u64 = 1 << 2;
/// The features this library offers.
pub const FEATURES: u64 = FEATURE_REVOCATION | FEATURE_FENCE;
