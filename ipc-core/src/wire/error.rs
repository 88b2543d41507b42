//! What can be wrong with bytes.

use core::fmt;

/// Why bytes are not a frame of this protocol. Every one of them is a violation that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The connection did not begin with the preamble.
    Preamble,
    /// The payload is announced with more bytes than the limit.
    PayloadTooLarge {
        /// Announced length in bytes.
        length: u32,
        /// The limit in bytes.
        limit: u32,
    },
    /// The frame is larger than what is allowed before the hello.
    FrameTooLarge {
        /// Announced length in bytes.
        length: u32,
        /// The limit in bytes.
        limit: u32,
    },
    /// A flag that this version does not define.
    UnknownFlags(u8),
    /// A payload kind that this version does not define.
    UnknownPayloadKind(u8),
    /// Descriptors were announced although the feature was not agreed on.
    UnexpectedDescriptors(u8),
    /// A remaining deadline above the maximum.
    DeadlineTooLong(u32),
    /// The envelope is not what its kind says.
    Envelope(&'static str),
    /// The envelope has bytes behind its last field.
    TrailingBytes,
    /// A kind that this side never receives.
    UnexpectedKind(u8),
    /// A datagram of another version.
    Version(u8),
    /// A datagram whose length, in bytes, is not what its header says, or no length that a datagram can have.
    DatagramLength(usize),
    /// A peer or topic number that was not announced.
    Unannounced(u32),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::Preamble => f.write_str("the first bytes are not those of the ipc bus protocol"),
            WireError::PayloadTooLarge { length, limit } => {
                write!(f, "a payload of {length} bytes is over the limit of {limit}")
            }
            WireError::FrameTooLarge { length, limit } => {
                write!(f, "a frame of {length} bytes before the hello is over the limit of {limit}")
            }
            WireError::UnknownFlags(flags) => write!(f, "flags {flags:#04x} are not defined"),
            WireError::UnknownPayloadKind(kind) => write!(f, "payload kind {kind} is not defined"),
            WireError::UnexpectedDescriptors(count) => {
                write!(f, "{count} descriptors announced, but passing them was not agreed on")
            }
            WireError::DeadlineTooLong(micros) => write!(f, "a deadline of {micros} us is over one hour"),
            WireError::Envelope(what) => write!(f, "the envelope is malformed: {what}"),
            WireError::TrailingBytes => f.write_str("the envelope has bytes behind its last field"),
            WireError::UnexpectedKind(kind) => write!(f, "frame kind {kind:#04x} does not belong here"),
            WireError::Version(version) => write!(f, "version {version} of datagrams is not spoken here"),
            WireError::DatagramLength(length) => {
                write!(f, "a datagram of {length} bytes is shorter or longer than it says or can be")
            }
            WireError::Unannounced(handle) => {
                write!(f, "number {handle} was used before it was said what it stands for")
            }
        }
    }
}

impl core::error::Error for WireError {}
