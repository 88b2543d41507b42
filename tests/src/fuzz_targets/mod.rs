//! What is true of every input: functions that the fuzzer calls with bytes of its own, and the ordinary tests with those
//! of `tests/corpus/` and seeded changes of them. Each panics when something that must hold does not.

mod broker;
mod datagram;
mod session;
mod wire;

pub use broker::{broker, sensible_client};
pub use datagram::datagram;
pub use session::{session, truthful_daemon};
pub use wire::{LIMITS, codec, decode_stream, names, read_envelope};

/// A function that holds for every input.
pub type Target = fn(&[u8]);

/// Every target, by the name of its folder in `tests/corpus/`.
pub const TARGETS: [(&str, Target); 6] = [
    ("decode_stream", decode_stream),
    ("codec", codec),
    ("names", names),
    ("session", session),
    ("broker", broker),
    ("datagram", datagram),
];
